"""Concurrency limits and places in flight, which only ours knows: theirs is not misled by their items, and deletes them."""

import os
import subprocess
import time

import pytest
from zae_limiter_aggregator import processor

OUR_PROGRAM = os.environ["ZAE_LIMITER_CLI"]


@pytest.fixture
def shell(world):
    """Runs our program on the table."""

    def command(*arguments, tail=()):
        place = ["--name", world.stack, "--region", "us-east-1", "--endpoint-url", world.endpoint]
        return [OUR_PROGRAM, *arguments, *place, *tail]

    def run(*arguments, tail=()):
        done = subprocess.run(command(*arguments, tail=tail), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.command = command
    return run


def places(world):
    """The items of concurrency limits and places."""
    items = world.items().items()
    return {key: item for key, item in items if key[1].startswith(("#CONCURRENCY", "#FLIGHT#"))}


@pytest.fixture
def crashed(shell, world):
    """Limits at all levels, and a place whose holder was killed."""
    service = world.open("theirs", config_cache_ttl=0, rejection_cache_ttl=0)
    service.set_system_defaults([["rpm", 10, 10, 86_400]])
    service.create_entity("key-1")
    shell("system", "set-concurrency", "7")
    shell("resource", "set-concurrency", "gpt-4", "5")
    shell("entity", "set-concurrency", "key-1", "3")
    shell("entity", "set-concurrency", "key-1", "2", "-r", "gpt-4")
    held = shell.command("acquire", "key-1", "-r", "gpt-4", "-c", "rpm:1", "--in-flight", tail=["--", "sleep", "600"])
    holder = subprocess.Popen(held)
    for _ in range(300):
        if any(sort == "#FLIGHT#gpt-4" for _, sort in places(world)):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    holder.kill()
    holder.wait()
    assert len(places(world)) == 5
    return service


def test_theirs_goes_on_beside_them(crashed, shell, world):
    before = places(world)
    crashed.set_entity_limits("key-1", "gpt-4", [["rpm", 20, 20, 86_400]])
    crashed.set_resource_defaults("gpt-4", [["rpm", 30, 30, 86_400]])
    crashed.acquire("key-1", "gpt-4", rpm=1).commit()
    assert crashed.listings("gpt-4") == (["gpt-4"], ["gpt-4"], ["key-1"])
    assert crashed.entity_limits("key-1", "gpt-4") == [("rpm", 20, 20, 86_400)]
    assert crashed.entity_limits("key-1", "_default_") == []
    crashed.delete_entity_limits("key-1", "gpt-4")
    crashed.delete_resource_defaults("gpt-4")
    assert crashed.listings("gpt-4") == ([], [], [])
    assert "concurrency_set" in [action for action, _, _ in crashed.audit("key-1")]
    assert places(world) == before
    assert "(at most 2)" in shell("entity", "in-flight", "key-1", "-r", "gpt-4")


def test_their_aggregator_leaves_them_out(crashed, world):
    for (_, sort), item in places(world).items():
        older = {name: value for name, value in item.items() if not name.startswith("h_")}
        for name, images in {
            "INSERT": {"NewImage": item},
            "MODIFY": {"NewImage": item, "OldImage": older},
            "REMOVE": {"OldImage": item},
        }.items():
            record = {
                "eventName": name,
                "eventID": "1",
                "dynamodb": {**images, "SequenceNumber": "1", "ApproximateCreationDateTime": 1_795_290_198},
            }
            assert processor.extract_deltas(record) == [], sort


def test_they_go_with_the_entity(crashed, world):
    crashed.delete_entity("key-1")
    assert sorted(sort for _, sort in places(world)) == ["#CONCURRENCY", "#CONCURRENCY"]
    assert crashed.entity("key-1") is None


def test_they_go_with_the_namespace(crashed, world):
    number = crashed.namespace_id
    crashed.delete_namespace("default")
    crashed.purge_namespace(number)
    assert places(world) == {} and world.items(number) == {}
