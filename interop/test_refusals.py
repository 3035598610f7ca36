"""The bodies of refusals: ours are the original's for the same state, and all are as the published schema says."""

from datetime import timedelta

import jsonschema
import pytest
from bridge import Failed, Refused
from zae_limiter import Limit, ScheduleEntry

# 2027-01-15, 08:00 UTC, a Friday.
START = 1_800_000_000_000

LIMITS = {
    "rate": [Limit.per_minute("rpm", 20)],
    "schedule": [Limit.per_minute("rpm", 20).with_schedule((ScheduleEntry(cron="* 0-12 * * *", scale=0.5),))],
    "quota": [Limit.quota("rpm", 20, cron="0 0 * * *", tz="Europe/Berlin")],
    "session": [Limit.quota("rpm", 20, reset_after=timedelta(hours=5))],
    "several": [
        Limit.per_minute("rpm", 20),
        Limit.per_hour("tpm", 1000, soft=True),
        Limit.quota("rpd", 20, cron="0 0 * * *"),
        Limit.quota("ses", 20, reset_after=timedelta(hours=1)),
    ],
}


@pytest.fixture
def pair(world):
    world.open("theirs")
    world.functions_of("0.17.0")
    theirs = world.open("theirs", now_ms=START)
    return theirs, world.open("ours", now_ms=START, config_cache_ms=0, reject_cache_ms=0)


@pytest.fixture
def validator(bridge):
    schema = bridge.call("refusal_schema")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def refusal(client, entity, **consume):
    with pytest.raises(Refused) as refused:
        client.acquire(entity, "gpt-4", **consume)
    return refused.value.body


def same_but_for_waits(ours, theirs):
    """The original adds up to two milliseconds to a wait."""
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if name == "limits":
            assert len(ours[name]) == len(value)
            for our, their in zip(
                *(sorted(limits, key=lambda limit: limit["limit_name"]) for limits in (ours[name], value)),
                strict=True,
            ):
                same_but_for_waits(our, their)
        elif name.startswith("retry_after"):
            assert type(ours[name]) is type(value) or value == 0
            margin = 2 if name.endswith("ms") else 0.002
            assert 0 <= value - ours[name] <= margin + 1e-9, name
        elif name != "message":
            # A sentence for people.
            assert ours[name] == value, name


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("maker", ["ours", "theirs"])
def test_bodies_are_the_originals(pair, validator, kind, maker):
    theirs, ours = pair
    theirs.repo.set_resource_defaults("gpt-4", LIMITS[kind])
    used = {limit.name: 7 for limit in LIMITS[kind]}
    first, *others = [limit.name for limit in LIMITS[kind]]
    (ours if maker == "ours" else theirs).acquire("key-1", "gpt-4", **used).commit()
    for now in (START, START + 1_500):
        for consume in ({first: 19 if kind != "schedule" else 9}, {name: 18 for name in [first, *others]}):
            if kind == "schedule" and max(consume.values()) > 10:
                continue
            bodies = []
            for client in (ours, theirs):
                client.set_clock(now)
                body = refusal(client, "key-1", **consume)
                client.settle()
                assert list(validator.iter_errors(body)) == []
                bodies.append(body)
            same_but_for_waits(*bodies)
            assert bodies[0]["error"] == "rate_limit_exceeded"


def test_a_limit_that_can_never_cover_it(pair, validator):
    """The original tells a wait that does not help; ours tells that none does."""
    theirs, ours = pair
    theirs.repo.set_resource_defaults("gpt-4", LIMITS["rate"])
    their, our = (refusal(client, "key-1", rpm=21) for client in (theirs, ours))
    assert their.keys() == our.keys()
    assert (our["retry_after_seconds"], our["retry_after_ms"]) == (None, None)
    assert their["retry_after_seconds"] > 0
    assert our["limits"][0].keys() == their["limits"][0].keys()
    assert validator.is_valid(our)


def test_what_is_disabled(pair, validator):
    theirs, ours = pair
    theirs.repo.set_resource_defaults("gpt-4", LIMITS["rate"])
    theirs.repo.disable_entity("key-1", "gpt-4")
    with pytest.raises(Failed) as failed:
        ours.acquire("key-1", "gpt-4", rpm=1)
    body = failed.value.detail["body"]
    assert (failed.value.detail["status"], body["error"], body["level"]) == (403, "resource_disabled", "entity")
    assert validator.is_valid(body)
    assert not validator.is_valid({**body, "level": "system"})
    assert not validator.is_valid({**body, "error": "rate_limit_exceeded"})
