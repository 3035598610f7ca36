"""What only newer clients of the original can set: ours honours it or refuses, and never destroys it."""

from datetime import timedelta

import pytest
from bridge import Failed, Refused
from zae_limiter import Limit, ScheduleEntry

# 2027-01-15, 08:00 UTC, a Friday.
START = 1_800_000_000_000
RPM = ["rpm", 20, 20, 60]


@pytest.fixture
def pair(world):
    """The original, which sets features, and ours, which was open before."""
    world.open("theirs")
    world.functions_of("0.17.0")
    theirs = world.open("theirs", now_ms=START)
    theirs.set_system_defaults([RPM])
    return theirs, world.open("ours", now_ms=START, config_cache_ms=0, reject_cache_ms=0)


def stored(world, suffix, sort):
    """The item whose key ends so."""
    [item] = [item for (pk, sk), item in world.items().items() if pk.endswith(suffix) and sk == sort]
    return item


def refuses(ours, kind, entity="key-1", resource="gpt-4"):
    with pytest.raises(Failed) as failed:
        ours.acquire(entity, resource, rpm=1)
    assert failed.value.kind == kind
    return failed.value


@pytest.mark.parametrize("used", [False, True], ids=["no bucket", "bucket"])
@pytest.mark.parametrize("scope", ["resource", "entity", "entity everywhere"])
def test_disabled(pair, used, scope):
    theirs, ours = pair
    if used:
        ours.acquire("key-1", "gpt-4", rpm=1).commit()
    if scope == "resource":
        theirs.repo.disable_resource("gpt-4")
    elif scope == "entity":
        theirs.repo.disable_entity("key-1", "gpt-4")
    else:
        theirs.repo.disable_entity("key-1")
    refuses(ours, "Disabled")
    if scope == "resource":
        # An entity that is explicitly enabled passes.
        theirs.repo.enable_entity("key-2", "gpt-4")
        ours.acquire("key-2", "gpt-4", rpm=1).commit()
        theirs.repo.enable_resource("gpt-4")
    elif scope == "entity":
        ours.acquire("key-1", "claude-3", rpm=1).commit()
        theirs.repo.enable_entity("key-1", "gpt-4")
    else:
        refuses(ours, "Disabled", resource="claude-3")
        theirs.repo.clear_entity_disabled("key-1")
    ours.acquire("key-1", "gpt-4", rpm=1).commit()


def test_our_changes_keep_their_flags(pair, world):
    theirs, ours = pair
    theirs.repo.disable_resource("gpt-4")
    theirs.repo.disable_entity("key-1", "gpt-4")
    ours.set_resource_defaults("gpt-4", [RPM])
    ours.set_entity_limits("key-1", "gpt-4", [RPM])
    ours.delete_entity_limits("key-1", "gpt-4")
    ours.delete_resource_defaults("gpt-4")
    assert stored(world, "/RESOURCE#gpt-4", "#CONFIG")["disabled"] == {"BOOL": True}
    assert stored(world, "/ENTITY#key-1", "#CONFIG#gpt-4")["disabled"] == {"BOOL": True}
    assert theirs.repo.get_resource_disabled("gpt-4") is True
    refuses(ours, "Disabled")


SCHEDULED = {
    "schedule": lambda: Limit.per_minute("rpm", 20).with_schedule(
        (ScheduleEntry(cron="* 0-12 * * *", scale=0.5),)
    ),
    "daily quota": lambda: Limit.quota("rpm", 20, cron="0 0 * * *"),
}


@pytest.mark.parametrize("maker", ["ours", "theirs"])
@pytest.mark.parametrize("kind", SCHEDULED)
def test_schedules_and_quotas_on_a_bucket(pair, world, kind, maker):
    """Either client makes the bucket, and both together admit no more than the limit."""
    theirs, ours = pair
    theirs.repo.set_resource_defaults("gpt-4", [SCHEDULED[kind]()])
    (ours if maker == "ours" else theirs).acquire("key-1", "gpt-4", rpm=1).commit()
    before = world.bucket(theirs, "key-1", "gpt-4")
    ceiling, earned = (10, 5) if kind == "schedule" else (20, 0)
    admitted = 1
    for now in [START] * 15 + [START + 1000] * 15 + [START + 30_000] * 15:
        ours.set_clock(now)
        try:
            ours.acquire("key-1", "gpt-4", rpm=1).commit()
            admitted += 1
        except Refused:
            pass
        ours.settle()
    assert admitted == ceiling + earned
    after = world.bucket(theirs, "key-1", "gpt-4")
    for part in ("sched", "rsched", "sched_tz", "b_rpm_sched", "b_rpm_rsched", "b_rpm_gc", "b_rpm_cp", "b_rpm_ra", "vu"):
        assert after.get(part) == before.get(part), part
    assert int(after["b_rpm_tc"]["N"]) == admitted * 1000
    # The original finds nothing left.
    theirs.set_clock(START + 30_000)
    with pytest.raises(Refused):
        theirs.acquire("key-1", "gpt-4", rpm=1)


def test_schedules_survive_our_administration(pair, world):
    theirs, ours = pair
    theirs.repo.set_resource_defaults("gpt-4", [SCHEDULED["schedule"]()])
    theirs.acquire("key-1", "gpt-4", rpm=1).commit()
    config = stored(world, "/RESOURCE#gpt-4", "#CONFIG")
    ours.create_entity("key-9")
    ours.set_entity_limits("key-9", "gpt-4", [RPM])
    ours.set_resource_defaults("claude-3", [RPM])
    ours.set_system_defaults([RPM])
    assert stored(world, "/RESOURCE#gpt-4", "#CONFIG") == config
    # Replacing the very level replaces its limits as a whole, schedule included, for the original too.
    ours.set_resource_defaults("gpt-4", [RPM])
    assert theirs.resource_defaults("gpt-4") == [tuple(RPM)]
    assert "l_rpm_sched" not in stored(world, "/RESOURCE#gpt-4", "#CONFIG")


GATED = {
    "session window": lambda repo: repo.set_entity_limits_of(
        [Limit.quota("rpm", 20, reset_after=timedelta(hours=5))]
    ),
    "soft limit": lambda repo: repo.set_entity_limits_of([Limit.per_minute("rpm", 20, soft=True)]),
    "bypass": lambda repo: repo.bypass_entity("key-1", "gpt-4"),
    "cascade policy": lambda repo: repo.set_resource_cascade("gpt-4", True),
    "moved parent": lambda repo: repo.set_parent("child-1", "proj-2"),
    "top-up": lambda repo: repo.top_up("key-1", "gpt-4", {"rpm": 5}),
}


@pytest.mark.parametrize("feature", GATED)
def test_features_of_newer_releases(pair, world, feature):
    """Tables with each are opened, and a client that is open already goes by it."""
    theirs, ours = pair
    for project in ("proj-1", "proj-2"):
        theirs.create_entity(project)
    theirs.create_entity("child-1", parent="proj-1", cascade=True)
    ours.acquire("key-1", "gpt-4", rpm=15).commit()
    ours.acquire("child-1", "gpt-4", rpm=1).commit()
    repo = theirs.repo
    repo.set_entity_limits_of = lambda limits: repo.set_limits("key-1", limits, resource="gpt-4")
    GATED[feature](repo)
    world.open("ours")
    admitted = 0
    for _ in range(30):
        try:
            ours.acquire("key-1", "gpt-4", rpm=1).commit()
            admitted += 1
        except (Refused, Failed):
            break
        ours.settle()
    # 5 were left; a top-up may add as many. A session begins with all of its tokens, and a soft limit refuses nothing.
    assert admitted <= {"top-up": 10, "session window": 20, "soft limit": 30, "bypass": 30}.get(feature, 5)
    if feature == "bypass":
        assert admitted == 30
        assert world.balance(ours, "key-1", "gpt-4", "rpm") == (5000, 45000)
    if feature == "moved parent":
        ours.forget()
        ours.acquire("child-1", "gpt-4", rpm=1).commit()
        assert world.balance(ours, "proj-2", "gpt-4", "rpm")[1] == 1000
        assert world.balance(ours, "proj-1", "gpt-4", "rpm")[1] == 1000
    if feature == "cascade policy":
        theirs.create_entity("late-1", parent="proj-1", cascade=False)
        ours.acquire("late-1", "gpt-4", rpm=2).commit()
        assert world.balance(ours, "proj-1", "gpt-4", "rpm")[1] == 3000


def test_resets_by_an_operator(pair, world):
    theirs, ours = pair
    ours.acquire("key-1", "gpt-4", rpm=20).commit()
    theirs.repo.reset_bucket("key-1", "gpt-4", idempotency_key="once")
    operations = [sk for _, sk in world.items(ours.namespace_id) if sk.startswith("#OP#")]
    assert len(operations) == 1
    for _ in range(20):
        ours.acquire("key-1", "gpt-4", rpm=1).commit()
    with pytest.raises(Refused):
        ours.acquire("key-1", "gpt-4", rpm=1)
    # The bucket's partition holds more than its state; deleting the entity takes all of it.
    ours.delete_entity("key-1")
    assert not [pk for pk, sk in world.items(ours.namespace_id) if "BUCKET#key-1#" in pk]


def both(pair, entity="key-1", resource="gpt-4"):
    """What each client does with a request: None if it admits it."""
    theirs, ours = pair

    def told(client):
        try:
            client.acquire(entity, resource, rpm=1).commit()
        except Refused:
            return "refused"
        except (Failed, Exception) as err:
            kind = getattr(err, "kind", None) or type(err).__name__
            return {"ResourceDisabled": "Disabled"}.get(kind, kind)
        return None

    return [told(theirs), told(ours)]


@pytest.mark.parametrize("who", ["resource", "entity", "entity everywhere"])
def test_ours_switches_off_and_lets_through(pair, world, who):
    theirs, ours = pair
    entity = None if who == "resource" else "key-1"
    resource = "_default_" if who == "entity everywhere" else "gpt-4"

    def say(access):
        ours.call("set_access", entity=entity, resource=resource, access=access)

    theirs.acquire("key-1", "gpt-4", rpm=10).commit()
    say("disable")
    assert both(pair) == ["Disabled", "Disabled"]
    say("enable")
    assert both(pair) == [None, None]
    say("bypass")
    before = world.balance(ours, "key-1", "gpt-4", "rpm")
    for _ in range(20):
        assert both(pair) == [None, None]
    after = world.balance(ours, "key-1", "gpt-4", "rpm")
    assert after[0] == before[0] and after[1] == before[1] + 40_000
    theirs.set_clock(START + 61_000)
    ours.set_clock(START + 61_000)
    # The stamp has passed, and each renews it.
    assert both(pair) == [None, None]
    say(None)
    assert world.balance(ours, "key-1", "gpt-4", "rpm")[0] <= 20_000
    spent = 0
    while both(pair) != ["refused", "refused"]:
        spent += 1
        assert spent <= 20, "the limit is enforced again"
    get = theirs.repo.get_resource_disabled("gpt-4") if who == "resource" else theirs.repo.get_entity_disabled("key-1", resource)
    assert get is None


def test_ours_moves_and_cascades(pair, world):
    theirs, ours = pair
    for project in ("proj-1", "proj-2"):
        ours.create_entity(project)
    ours.create_entity("child-1", parent="proj-1", cascade=True)
    assert both(pair, "child-1") == [None, None]
    assert world.balance(ours, "proj-1", "gpt-4", "rpm")[1] == 2000
    ours.call("set_parent", entity="child-1", parent="proj-2")
    assert both(pair, "child-1") == [None, None]
    assert world.balance(ours, "proj-1", "gpt-4", "rpm")[1] == 2000
    assert world.balance(ours, "proj-2", "gpt-4", "rpm")[1] == 2000
    ours.call("set_cascade", entity=None, resource="gpt-4", cascade=False)
    assert both(pair, "child-1") == [None, None]
    assert world.balance(ours, "proj-2", "gpt-4", "rpm")[1] == 2000
    ours.call("set_cascade", entity="child-1", resource="gpt-4", cascade=True)
    assert both(pair, "child-1") == [None, None]
    assert world.balance(ours, "proj-2", "gpt-4", "rpm")[1] == 4000
    theirs.repo.set_parent("child-1", "proj-1")
    assert both(pair, "child-1") == [None, None]
    assert world.balance(ours, "proj-1", "gpt-4", "rpm")[1] == 4000
    with pytest.raises(Failed):
        ours.call("set_parent", entity="proj-1", parent="child-1")


def split_session(pair, world):
    """A bucket of a session limit of 50 that the original has split in two after 5 were taken. Returns its shards' keys."""
    theirs, ours = pair
    theirs.repo.set_resource_defaults("gpt-4", [Limit.quota("rpm", 50, reset_after=timedelta(hours=5))])
    theirs.acquire("key-1", "gpt-4", rpm=5).commit()
    for _ in range(40):
        shards = sorted(key for key in world.items() if "/BUCKET#key-1#gpt-4#" in key[0] and key[1] == "#STATE")
        if len(shards) == 2:
            return shards
        for pk, sk in shards:
            world.dynamo.update_item(
                TableName=world.stack,
                Key={"PK": {"S": pk}, "SK": {"S": sk}},
                UpdateExpression="SET b_wcu_tk = :n",
                ExpressionAttributeValues={":n": {"N": "0"}},
            )
        theirs.acquire("key-1", "gpt-4", rpm=0).commit()
    raise AssertionError(f"not split: {shards}")


@pytest.mark.parametrize("opener", ["theirs", "ours"])
def test_a_session_of_several_shards_begins_on_all(pair, world, opener):
    theirs, ours = pair
    shards = split_session(pair, world)
    client, other = (theirs, ours) if opener == "theirs" else (ours, theirs)
    told = []
    for session in range(1, 4):
        now = START + session * 18_001_000
        for one in pair:
            one.set_clock(now)
        client.acquire("key-1", "gpt-4", rpm=1).commit()
        items = [world.items()[key] for key in shards]
        assert [item["b_rpm_ws"] for item in items] == [{"N": str(now)}] * 2
        begun, joins = sorted(items, key=lambda item: -int(item["b_rpm_wa"]["N"]))
        assert begun["b_rpm_wa"] == {"N": str(now)}
        told.append({name: joins.get(name) for name in ("vu", "b_rpm_rsa", "b_rpm_wtc", "b_rpm_gc")})
        assert joins["b_rpm_wtc"] == joins["b_rpm_tc"] and joins["vu"] == {"N": "0"}
        # Both clients take the rest, and not more.
        admitted = 1
        for n in range(120):
            try:
                (other if n % 2 else client).acquire("key-1", "gpt-4", rpm=1).commit()
                admitted += 1
            except Refused:
                pass
        assert admitted == 50
    assert all(one["vu"] == {"N": "0"} and one["b_rpm_rsa"] == {"N": "18000"} for one in told)
