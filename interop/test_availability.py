"""Looking at tokens: both clients tell the same of the same table, but for what `docs/compatibility.md` lists."""

import pytest
from bridge import Refused

# 2027-01-15, 08:00 UTC, a Friday.
START = 1_800_000_000_000
MINUTE, HOUR = 60_000, 3_600_000

RATE = {"name": "rpm", "capacity": 20, "refill_amount": 20, "refill_period": 60}
LIMITS = {
    "rate": [RATE],
    "schedule": [{**RATE, "schedule": [{"cron": "* 0-12 * * *", "tz": "UTC", "scale": 0.5}]}],
    "quota": [{"name": "rpm", "capacity": 20, "reset_schedule": [{"cron": "0 0 * * *", "tz": "Europe/Berlin"}]}],
    "session": [{"name": "rpm", "capacity": 20, "reset_after_seconds": 5 * 3600}],
    "soft": [{**RATE, "soft": True}, {"name": "rpd", "capacity": 20, "refill_amount": 20, "refill_period": 86_400}],
}
# When they look: at once, after a part of a minute, and after the session, the schedule and the reset.
LATER = [0, 1, 12_345, 2 * MINUTE, 5 * HOUR - 1, 5 * HOUR, 5 * HOUR + 1, 15 * HOUR - 1, 15 * HOUR, 16 * HOUR, 40 * HOUR]


@pytest.fixture
def pair(world):
    world.open("theirs")
    world.functions_of("0.17.0")
    theirs = world.open("theirs", now_ms=START)
    return theirs, world.open("ours", now_ms=START, config_cache_ms=0, reject_cache_ms=0)


def told(client, entity, **needed):
    if client.name == "ours":
        return client.call("availability", entity=entity, resource="gpt-4", consume=needed)
    found = client.limiter.check_availability(entity, "gpt-4", needed=needed or None)
    return {
        "available": found.available,
        "needed": found.needed,
        "deficit": found.deficit,
        "exceeded": found.exceeded,
        "allowed": found.allowed,
        "bypassed": found.bypassed,
        "retry_after": found.retry_after_seconds,
    }


def same(ours, theirs, where):
    for name in ("available", "needed", "deficit", "allowed", "bypassed"):
        assert ours[name] == theirs[name], (name, where)
    assert sorted(ours["exceeded"]) == sorted(theirs["exceeded"]), where


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("maker", ["ours", "theirs", "nobody"])
def test_both_tell_the_same(pair, kind, maker):
    theirs, ours = pair
    theirs.set_resource_defaults("gpt-4", LIMITS[kind])
    names = [limit["name"] for limit in LIMITS[kind]]
    if maker != "nobody":
        by = ours if maker == "ours" else theirs
        lease = by.acquire("key-1", "gpt-4", **{name: 3 for name in names})
        lease.adjust(**{name: 4 for name in names})
        lease.commit()
        ours.settle()
    for later in LATER:
        if kind == "schedule" and maker != "nobody" and 5 * HOUR <= later < 5 * HOUR + MINUTE:
            # For the time before the schedule ends, at 13:00, the original earns at the rate after it.
            continue
        for client in pair:
            client.set_clock(START + later)
        for tokens in (None, 3, 10, 11, 20):
            needed = {} if tokens is None else {name: tokens for name in names}
            our, their = (told(client, "key-1", **needed) for client in (ours, theirs))
            same(our, their, (later, tokens))
            if our["retry_after"] is not None and not (kind == "schedule" and tokens and tokens > 10):
                # The original counts whole tokens and adds up to two milliseconds; a token comes in 3 s, or in 6 s.
                margin = 6.1 if kind == "schedule" else 3.1 if kind == "rate" else 4320.1 if kind == "soft" else 0.003
                assert 0 <= their["retry_after"] - our["retry_after"] <= margin, (later, tokens)


def test_what_is_never_available(pair):
    """The original tells a wait that does not help."""
    theirs, ours = pair
    theirs.set_resource_defaults("gpt-4", [RATE])
    our, their = (told(client, "key-1", rpm=21) for client in (ours, theirs))
    same(our, their, "above the capacity")
    assert our["retry_after"] is None
    assert their["retry_after"] > 0


def test_access_and_parents(pair):
    theirs, ours = pair
    theirs.set_system_defaults([["rpm", 20, 20, 60]])
    theirs.create_entity("proj-1")
    theirs.create_entity("child-1", parent="proj-1", cascade=True)
    theirs.acquire("proj-1", "gpt-4", rpm=15).commit()
    theirs.acquire("child-1", "gpt-4", rpm=1).commit()
    # Ours includes the parent, so that the answer is that of an acquire.
    our, their = (told(client, "child-1", rpm=10) for client in (ours, theirs))
    assert (our["allowed"], our["available"], our["deficit"]) == (False, {"rpm": 4}, {"rpm": 6})
    assert (their["allowed"], their["available"]) == (True, {"rpm": 19})
    with pytest.raises(Refused):
        theirs.acquire("child-1", "gpt-4", rpm=10)
    # Both report a bypass, and ours what is disabled.
    theirs.acquire("key-1", "gpt-4", rpm=20).commit()
    theirs.repo.bypass_entity("key-1", "gpt-4")
    our, their = (told(client, "key-1", rpm=10) for client in (ours, theirs))
    same(our, their, "bypass")
    assert our["bypassed"] and our["allowed"] and our["disabled"] is None
    theirs.repo.disable_entity("key-1", "gpt-4")
    our, their = (told(client, "key-1", rpm=10) for client in (ours, theirs))
    assert (our["allowed"], our["disabled"], our["retry_after"]) == (False, "bucket", None)
    assert told(ours, "key-2", rpm=10)["disabled"] is None
    theirs.repo.disable_resource("gpt-4")
    assert told(ours, "key-2", rpm=10)["disabled"] == "resource"
