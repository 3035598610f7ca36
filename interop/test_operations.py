"""Resets and top-ups: both clients write the same, obey what the other one did, and honour its keys."""

import json

import pytest
from bridge import Failed, Refused, theirs_of
from conftest import World

# 2027-01-15, 08:00 UTC, a Friday.
START = 1_800_000_000_000
HOUR = 3_600_000
DAILY = {"name": "rpd", "capacity": 100, "reset_schedule": [{"cron": "0 0 * * *", "tz": "UTC"}]}
SESSION = {"name": "ses", "capacity": 50, "reset_after_seconds": 5 * 3600}
RATE = ["tph", 60, 60, 3600]
NIGHTS = {
    "name": "tpd",
    "capacity": 1000,
    "refill_amount": 1000,
    "refill_period": 86_400,
    "schedule": [{"cron": "* 0-6 * * *", "tz": "UTC", "scale": 0.5}],
}


def prepared(world):
    """The clients of a table whose functions are of the same release."""
    world.open("theirs")
    world.functions_of("0.17.0")
    theirs = world.open("theirs", now_ms=START)
    ours = world.open("ours", now_ms=START, config_cache_ms=0, reject_cache_ms=0, principal="ops")
    return theirs, ours


def reset(client, limits=None, key=None, entity="key-1"):
    """Resets limits, all if none are named: the shards, and the tokens by limit."""
    if client.name == "ours":
        return client.call("reset_bucket", entity=entity, resource="gpt-4", limits=limits or [], key=key)
    done = client.repo.reset_bucket(entity, "gpt-4", limits=limits, principal="ops", idempotency_key=key)
    return [done.shards, done.amounts]


def top_up(client, amounts, key=None, entity="key-1"):
    """Adds tokens to limits."""
    if client.name == "ours":
        return client.call("top_up", entity=entity, resource="gpt-4", amounts=amounts, key=key)
    done = client.repo.top_up(entity, "gpt-4", amounts, principal="ops", idempotency_key=key)
    return [done.shards, done.amounts]


def at(clients, now):
    for client in clients:
        client.set_clock(now)
        client.forget()


# What differs from run to run, or belongs to one of the two alone.
RANDOM = {"cf", "cr", "fr", "writer", "event_id", "pinc", "pgen", "created_at", "timestamp"}


def written(world, client):
    """The buckets, the records of operations and the events of them, without what differs from run to run."""
    found = []
    for (pk, sk), item in world.items(client.namespace_id).items():
        is_event = item.get("action", {}).get("S", "").startswith("bucket_")
        if "/BUCKET#" not in pk and not is_event:
            continue
        for part in ("writer", "event_id"):
            assert part not in item or len(item[part]["S"]) in (24, 26)
        left = {name: value for name, value in item.items() if name not in RANDOM}
        if is_event:
            # It is kept by the clock of the machine.
            left.pop("ttl")
            sk = "#AUDIT#" + item["action"]["S"]
        if sk.startswith("#OP#0"):
            sk = "#OP#"
            left.pop("GSI4SK")
        if int(left.get("shard_count", {}).get("N", 1)) > 1 and pk.endswith("#0"):
            # Ours lets the first shard of a split bucket not expire: it has the count.
            left.pop("ttl", None)
        left["SK"] = {"S": sk}
        text = json.dumps(left, sort_keys=True).replace(client.namespace_id, "NS")
        found.append(text.replace("}, ", "},\n"))
    return "\n".join(sorted(found))


def spent(world, theirs, **amounts):
    theirs.acquire("key-1", "gpt-4", **amounts).commit()


def shards(world, client, changed):
    """Makes further shards of the bucket, as a client of 0.17 splits it."""
    first = world.bucket(client, "key-1", "gpt-4")
    for shard, parts in changed.items():
        item = {**first, **{name: {"N": str(value)} for name, value in parts.items()}}
        item["PK"] = {"S": first["PK"]["S"][:-1] + str(shard)}
        for name in ("GSI2SK", "GSI3SK", "GSI4SK"):
            item[name] = {"S": first[name]["S"][:-1] + str(shard)}
        world.dynamo.put_item(TableName=world.stack, Item=item)


def two(world, client):
    shards(world, client, {0: {"shard_count": 2, "b_rpd_tk": 30_000}, 1: {"shard_count": 2, "b_rpd_tk": 20_000, "b_rpd_gc": 2}})


def lagging(world, client):
    shards(world, client, {0: {"shard_count": 4, "b_rpd_tk": 70_000}, 1: {"shard_count": 2, "b_rpd_tk": 20_000, "b_rpd_gc": 2}})


def session_of_two(world, client):
    shards(
        world,
        client,
        {
            0: {"shard_count": 2, "b_ses_tk": 3_000, "b_ses_gc": 2},
            1: {"shard_count": 2, "b_ses_tk": 4_000, "b_ses_gc": 2},
        },
    )


def rate_of_two(world, client):
    shards(world, client, {0: {"shard_count": 2, "b_tph_tk": 3_000}, 1: {"shard_count": 2, "b_tph_tk": -4_000}})


# Limits; what is taken; what is changed by hand; how much later the operation comes; the operation.
CASES = {
    "rate reset": ([RATE], {"tph": 60}, None, HOUR // 4, lambda c: reset(c, key="k")),
    "rate topped up": ([RATE], {"tph": 60}, None, HOUR // 4, lambda c: top_up(c, {"tph": 10}, "k")),
    "rate topped up beyond": ([RATE], {"tph": 60}, None, HOUR // 4, lambda c: top_up(c, {"tph": 100}, "k")),
    "one of several reset": ([RATE, DAILY], {"tph": 5, "rpd": 90}, None, HOUR // 4, lambda c: reset(c, ["rpd"], "k")),
    "scheduled reset": ([NIGHTS], {"tpd": 700}, None, 18 * HOUR, lambda c: reset(c, key="k")),
    "quota reset": ([DAILY], {"rpd": 100}, None, HOUR, lambda c: reset(c, key="k")),
    "quota topped up": ([DAILY], {"rpd": 100}, None, HOUR, lambda c: top_up(c, {"rpd": 7}, "k")),
    "quota topped up, then reset": (
        [DAILY],
        {"rpd": 60},
        None,
        HOUR,
        lambda c: [top_up(c, {"rpd": 7}, "k"), c.set_clock(START + 2 * HOUR), reset(c, key="r")],
    ),
    "quota topped up on the next day": ([DAILY], {"rpd": 60}, None, 20 * HOUR, lambda c: top_up(c, {"rpd": 7}, "k")),
    "session reset": ([SESSION], {"ses": 30}, None, HOUR, lambda c: reset(c, key="k")),
    "session reset twice": (
        [SESSION],
        {"ses": 30},
        None,
        HOUR,
        lambda c: [reset(c, key="k"), c.set_clock(START + 2 * HOUR), reset(c, key="r")],
    ),
    "session topped up": ([SESSION], {"ses": 30}, None, HOUR, lambda c: top_up(c, {"ses": 7}, "k")),
    "session topped up when it is over": ([SESSION], {"ses": 30}, None, 6 * HOUR, lambda c: top_up(c, {"ses": 7}, "k")),
    "without a key": ([DAILY], {"rpd": 60}, None, HOUR, lambda c: top_up(c, {"rpd": 7})),
    "quota of two shards reset": ([DAILY], {"rpd": 50}, two, HOUR, lambda c: reset(c, key="k")),
    "quota of two shards topped up": ([DAILY], {"rpd": 50}, two, HOUR, lambda c: top_up(c, {"rpd": 31}, "k")),
    "count that is behind": ([DAILY], {"rpd": 10}, lagging, HOUR, lambda c: top_up(c, {"rpd": 100}, "k")),
    "count that is behind, reset": ([DAILY], {"rpd": 10}, lagging, HOUR, lambda c: reset(c, key="k")),
    "session of two shards reset": ([SESSION], {"ses": 40}, session_of_two, HOUR, lambda c: reset(c, key="k")),
    "session of two shards topped up": ([SESSION], {"ses": 40}, session_of_two, HOUR, lambda c: top_up(c, {"ses": 9}, "k")),
    "rate of two shards reset": ([RATE], {"tph": 40}, rate_of_two, HOUR // 2, lambda c: reset(c, key="k")),
    "rate of two shards topped up": ([RATE], {"tph": 40}, rate_of_two, HOUR // 4, lambda c: top_up(c, {"tph": 11}, "k")),
    "no bucket reset": ([DAILY], {}, None, HOUR, lambda c: reset(c, key="k")),
    "no bucket topped up": ([DAILY, SESSION, RATE], {}, None, HOUR, lambda c: top_up(c, {"rpd": 7, "tph": 3, "ses": 1}, "k")),
    "no bucket, only a rate": ([RATE], {}, None, HOUR, lambda c: top_up(c, {"tph": 3}, "k")),
}


@pytest.mark.parametrize("level", ["resource", "entity"])
@pytest.mark.parametrize("case", CASES)
def test_both_write_the_same(endpoint, bridge, case, level):
    limits, taken, change, later, operate = CASES[case]
    results = []
    for which in (1, 0):
        world = World(endpoint, bridge)
        clients = prepared(world)
        theirs = clients[0]
        if level == "resource":
            theirs.repo.set_resource_defaults("gpt-4", theirs_of(limits))
        else:
            theirs.repo.set_limits("key-1", theirs_of(limits), resource="gpt-4")
        if taken:
            spent(world, theirs, **taken)
        if change:
            change(world, theirs)
        at(clients, START + later)
        done = operate(clients[which])
        results.append((done, written(world, theirs).splitlines()))
        world.close()
    ours, theirs = results
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]


@pytest.fixture
def pair(world):
    theirs, ours = prepared(world)
    theirs.repo.set_resource_defaults("gpt-4", theirs_of([DAILY, SESSION, RATE]))
    return theirs, ours


def admitted(client, limit, most=500):
    """How many requests of one token a client admits."""
    for count in range(most):
        try:
            client.acquire("key-1", "gpt-4", **{limit: 1}).commit()
        except Refused:
            return count
    raise AssertionError("there is no end")


@pytest.mark.parametrize("who", ["theirs", "ours"])
def test_the_other_one_obeys(pair, world, who):
    operator, other = pair if who == "theirs" else pair[::-1]
    for limit, quota in (("rpd", 100), ("ses", 50), ("tph", 60)):
        other.acquire("key-1", "gpt-4", **{limit: quota}).commit()
        with pytest.raises(Refused):
            other.acquire("key-1", "gpt-4", **{limit: 1})
        at(pair, START + 1)
        reset(operator, [limit])
        at(pair, START + 2)
        assert admitted(other, limit) == quota
        if limit == "tph":
            continue
        top_up(operator, {limit: 9})
        at(pair, START + 3)
        lease = other.acquire("key-1", "gpt-4", **{limit: 9})
        with pytest.raises(Refused):
            other.acquire("key-1", "gpt-4", **{limit: 1})
        # What was bought is given back as what it was.
        lease.rollback()
        at(pair, START + 4)
        assert admitted(operator, limit) == 9
        at(pair, START)


@pytest.mark.parametrize("who", ["theirs", "ours"])
def test_a_lease_from_before_a_reset_gives_nothing_back(pair, world, who):
    operator, other = pair if who == "theirs" else pair[::-1]
    lease = other.acquire("key-1", "gpt-4", rpd=80)
    at(pair, START + 1000)
    reset(operator, ["rpd"])
    lease.rollback()
    at(pair, START + 2000)
    assert admitted(other, "rpd") == 100


@pytest.mark.parametrize("who", ["theirs", "ours"])
def test_the_other_one_honours_the_key(pair, world, who):
    one, other = pair if who == "theirs" else pair[::-1]
    one.acquire("key-1", "gpt-4", rpd=100).commit()
    at(pair, START + 1000)
    first = top_up(one, {"rpd": 7}, "order-17")
    before = world.items(one.namespace_id)
    assert top_up(other, {"rpd": 7}, "order-17") == first
    assert top_up(other, {"rpd": 70}, "order-17") == first
    assert world.items(one.namespace_id) == before
    with pytest.raises((Failed, Exception), match="idempotency_key"):
        reset(other, key="order-17")
    # Of nothing that was there, too.
    none = reset(one, key="ticket-1", entity="key-2")
    other.acquire("key-2", "gpt-4", rpd=5).commit()
    assert reset(other, key="ticket-1", entity="key-2") == none == [0, {"rpd": 0, "ses": 0, "tph": 0}]
    # Another life of the entity is another one's.
    one.create_entity("key-3")
    one.acquire("key-3", "gpt-4", rpd=50).commit()
    at(pair, START + 2000)
    assert reset(one, ["rpd"], "ticket-2", "key-3") == [1, {"rpd": 50}]
    kept = [item for (_, sk), item in world.items(one.namespace_id).items() if sk == "#OP#ticket-2"]
    other.delete_entity("key-3")
    assert not [pk for pk, _ in world.items(one.namespace_id) if "BUCKET#key-3#" in pk]
    other.create_entity("key-3")
    other.acquire("key-3", "gpt-4", rpd=30).commit()
    world.dynamo.put_item(TableName=world.stack, Item=kept[0])
    at(pair, START + 3000)
    assert reset(other, ["rpd"], "ticket-2", "key-3") == [1, {"rpd": 30}]
    assert reset(one, ["rpd"], "ticket-2", "key-3") == [1, {"rpd": 30}]


def test_both_at_once_with_one_key(pair, world):
    theirs, ours = pair
    theirs.acquire("key-1", "gpt-4", rpd=100).commit()
    for order in range(10):
        started = ours.bridge.start(
            "top_up", client=ours.number, entity="key-1", resource="gpt-4", amounts={"rpd": 1}, key=f"o{order}"
        )
        assert top_up(theirs, {"rpd": 1}, f"o{order}") == [1, {"rpd": 1}]
        assert started.result(timeout=60)["ok"] == [1, {"rpd": 1}]
    assert world.balance(theirs, "key-1", "gpt-4", "rpd")[0] == 10_000


@pytest.mark.parametrize("who", ["theirs", "ours"])
def test_functions_that_are_too_old(pair, world, who):
    client = pair[0] if who == "theirs" else pair[1]
    world.functions_of("0.16.0")
    client.acquire("key-1", "gpt-4", rpd=10, tph=10).commit()
    with pytest.raises((Failed, Exception), match="0.17.0"):
        top_up(client, {"rpd": 1})
    assert top_up(client, {"tph": 1}) == [1, {"tph": 1}]
    assert reset(client, ["rpd"])[0] == 1
