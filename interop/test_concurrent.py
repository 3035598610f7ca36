"""Several processes of each client on one bucket at once: never more than the limit, nothing lost."""

import json
import os
import subprocess
import sys
import threading

import pytest
from bridge import Bridge, Ours
from conftest import PROGRAM
from worker import work

CAPACITY = 300
ROUNDS = 60
# Refills a token in five minutes: nothing to speak of within a test.
LIMIT = ["rpm", CAPACITY, CAPACITY, 86_400]


def hammer(world, entities, ours=2, theirs=2):
    """Starts processes of each kind; returns what they kept in all and how many requests were refused."""
    started = [
        subprocess.Popen(
            [sys.executable, "worker.py", world.endpoint, world.stack, str(ROUNDS), str(seed), ",".join(entities)],
            cwd=os.path.dirname(os.path.abspath(__file__)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(theirs)
    ]
    results, threads, bridges = [], [], []
    for seed in range(ours):
        bridge = Bridge(PROGRAM)
        bridges.append(bridge)
        for thread in range(2):
            client = Ours(bridge, world.endpoint, world.stack)
            arguments = client, entities, "gpt-4", ROUNDS, 100 * seed + thread
            threads.append(threading.Thread(target=lambda *a: results.append(work(*a)), args=arguments))
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for bridge in bridges:
        bridge.close()
    for process in started:
        output = process.stdout.readline()
        process.wait(timeout=300)
        assert process.returncode == 0
        results.append(json.loads(output))
    assert len(results) == 2 * ours + theirs
    for kind in (results[: 2 * ours], results[2 * ours :]):
        assert not kind or any(result["admitted"] for result in kind)
    return sum(r["kept"] for r in results), sum(r["refused"] for r in results)



def shards(world, client):
    """A split bucket's shards, for a failure."""
    found = [world.bucket(client, "key-1", "gpt-4", shard) for shard in range(4)]
    return [{k: next(iter(v.values())) for k, v in item.items() if k[0] != "G"} for item in found if item]


def test_a_hot_key(world):
    client = world.open("ours")
    client.set_system_defaults([LIMIT])
    kept, refused = hammer(world, ["key-1"])
    tokens, consumed = world.balance(client, "key-1", "gpt-4", "rpm")
    assert refused > 0
    assert consumed == kept * 1000
    assert kept <= CAPACITY + 5
    # Nothing was lost either: what is not kept is there.
    assert CAPACITY * 1000 <= tokens + consumed <= CAPACITY * 1000 + 5_000, shards(world, client)


def test_a_project_and_its_keys(world):
    client = world.open("theirs")
    client.create_entity("proj-1")
    client.set_system_defaults([LIMIT])
    keys = [f"key-{n}" for n in range(4)]
    for key in keys:
        client.create_entity(key, parent="proj-1", cascade=True)
    kept, refused = hammer(world, keys)
    _, consumed = world.balance(client, "proj-1", "gpt-4", "rpm")
    each = [world.balance(client, key, "gpt-4", "rpm")[1] for key in keys]
    assert refused > 0
    assert kept <= CAPACITY + 5
    assert consumed == sum(each) == kept * 1000


@pytest.mark.parametrize("shards", [2, 4])
def test_a_bucket_that_they_split(world, shards):
    """The original's splits mint: new shards start with a share while the first still holds its balance. Ours add
    nothing to that, and what is taken is counted."""
    client = world.open("theirs")
    client.set_system_defaults([LIMIT])
    client.acquire("key-1", "gpt-4", rpm=1).commit()
    # As after a thousand writes within a second.
    count = 1
    while count < shards:
        client.repo.bump_shard_count("key-1", "gpt-4", count)
        count *= 2
    kept, refused = hammer(world, ["key-1"])
    tokens, consumed = world.balance(client, "key-1", "gpt-4", "rpm")
    assert int(world.bucket(client, "key-1", "gpt-4")["shard_count"]["N"]) >= shards
    assert refused > 0
    assert consumed == (kept + 1) * 1000
    assert kept + 1 <= 2 * CAPACITY - CAPACITY // shards


def spend_write_units(world, client, entity):
    """As after a thousand writes to a bucket within a second, and none earned back for another one and a half."""
    set_write_units(world, client, entity, 0, later_ms=1500)


def set_write_units(world, client, entity, units, later_ms):
    world.dynamo.update_item(
        TableName=world.stack,
        Key={"PK": {"S": f"{client.namespace_id}/BUCKET#{entity}#gpt-4#0"}, "SK": {"S": "#STATE"}},
        UpdateExpression="SET b_wcu_tk = :units, rf = rf + :later",
        ExpressionAttributeValues={":units": {"N": str(units * 1000)}, ":later": {"N": str(later_ms)}},
    )


def test_our_split_under_their_load(world):
    """Our client splits a bucket whose write units are spent, and both go on with its shards."""
    ours = world.open("ours")
    ours.set_system_defaults([LIMIT])
    ours.acquire("key-1", "gpt-4", rpm=1).commit()
    spend_write_units(world, ours, "key-1")
    ours.acquire("key-1", "gpt-4", rpm=1).commit()
    ours.settle()
    assert int(world.bucket(ours, "key-1", "gpt-4")["shard_count"]["N"]) == 2
    # Else the original splits again, and mints: see below.
    set_write_units(world, ours, "key-1", 1000, later_ms=-1500)
    kept, refused = hammer(world, ["key-1"])
    tokens, consumed = world.balance(ours, "key-1", "gpt-4", "rpm")
    assert refused > 0
    assert consumed == (kept + 2) * 1000
    assert kept + 2 <= CAPACITY + 5
    # What the original cuts from a shard above its share is gone; nothing is added.
    assert tokens + consumed <= CAPACITY * 1000 + 5_000, shards(world, ours)


@pytest.mark.parametrize("theirs", [0, 2], ids=["ours alone", "both"])
def test_splits_while_it_is_spent(world, theirs):
    """The write units of a hot bucket stay spent for a while: its count doubles under load, by either client. Ours
    alone admit no more than the limit. Each doubling by the original may mint half the capacity."""
    ours = world.open("ours")
    ours.set_system_defaults([LIMIT])
    ours.acquire("key-1", "gpt-4", rpm=1).commit()
    spend_write_units(world, ours, "key-1")
    kept, refused = hammer(world, ["key-1"], theirs=theirs)
    tokens, consumed = world.balance(ours, "key-1", "gpt-4", "rpm")
    count = int(world.bucket(ours, "key-1", "gpt-4")["shard_count"]["N"])
    assert count >= 2
    assert refused > 0
    assert consumed == (kept + 1) * 1000
    minted = CAPACITY // 2 * (count.bit_length() - 1) if theirs else 0
    assert kept + 1 <= CAPACITY + minted + 5
    assert tokens + consumed <= (CAPACITY + minted) * 1000 + 5_000, shards(world, ours)
    if not theirs:
        # Nor is anything lost.
        assert tokens + consumed >= CAPACITY * 1000, shards(world, ours)
