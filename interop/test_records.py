"""What one client writes, the other reads with the same meaning."""

import itertools

import pytest
from bridge import Failed
from conftest import World

BOTH_WAYS = [("ours", "theirs"), ("theirs", "ours")]
RPM = ["rpm", 100, 100, 60]
TPM = ["tpm", 50_000, 10_000, 60]


@pytest.fixture(params=BOTH_WAYS, ids=lambda pair: f"{pair[0]}-to-{pair[1]}")
def pair(request, world):
    """A client that writes, and one of the other kind that reads."""
    writer, reader = request.param
    return world.open(writer), world.open(reader)


def shape(description):
    """A table's description without what differs between servers and runs."""
    table = description["Table"]

    def index(one):
        return one["IndexName"], str(one["KeySchema"]), one["Projection"]["ProjectionType"]

    return {
        "attributes": sorted(one["AttributeName"] for one in table["AttributeDefinitions"]),
        "keys": table["KeySchema"],
        "global": sorted(map(index, table["GlobalSecondaryIndexes"])),
        "local": sorted(map(index, table["LocalSecondaryIndexes"])),
        "stream": table["StreamSpecification"],
        "billing": table["BillingModeSummary"]["BillingMode"],
    }


def test_tables_are_made_alike(endpoint, bridge):
    shapes = []
    for made_by in ("ours", "theirs"):
        world = World(endpoint, bridge, made_by)
        shapes.append(shape(world.dynamo.describe_table(TableName=world.stack)))
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_either_may_open_a_new_table_first(world, first):
    other = "theirs" if first == "ours" else "ours"
    one, two = world.open(first), world.open(other)
    assert one.namespace_id == two.namespace_id
    version = world.items()["_/SYSTEM#", "#VERSION"]
    assert version["schema_version"] == {"S": "0.10.0"}
    assert version["client_min_version"] == {"S": "0.0.0"}


def test_entities(pair):
    writer, reader = pair
    writer.create_entity("proj-1", name="Production", metadata={"tier": "gold", "note": "it's \"x\" ä"})
    writer.create_entity("key-1", parent="proj-1", cascade=True)
    writer.create_entity("key-2", parent="proj-1", cascade=False)
    for client in pair:
        assert client.entity("proj-1") == {
            "id": "proj-1",
            "name": "Production",
            "parent": None,
            "cascade": False,
            "metadata": {"tier": "gold", "note": "it's \"x\" ä"},
        }
        assert client.entity("key-1")["parent"] == "proj-1"
        assert client.entity("key-1")["cascade"] is True
        assert client.entity("key-2")["cascade"] is False
        assert client.children("proj-1") == ["key-1", "key-2"]
        assert client.entity("nobody") is None
    with pytest.raises(Exception, match="(?i)exist"):
        reader.create_entity("key-1")


def test_limits_at_all_levels(pair):
    writer, reader = pair
    writer.set_system_defaults([RPM, TPM], "allow")
    writer.set_resource_defaults("gpt-4", [["rpm", 50, 50, 60]])
    writer.set_entity_limits("key-1", "gpt-4", [["rpm", 500, 500, 1]])
    writer.set_entity_limits("key-1", "_default_", [["tph", 7, 7, 3600]])
    writer.set_entity_limits("key-2", "gpt-4", [["a.b-c_cp", 1, 1, 86_400]])
    for client in pair:
        assert client.system_defaults() == ([tuple(RPM), tuple(TPM)], "allow")
        assert client.resource_defaults("gpt-4") == [("rpm", 50, 50, 60)]
        assert client.entity_limits("key-1", "gpt-4") == [("rpm", 500, 500, 1)]
        assert client.entity_limits("key-1", "_default_") == [("tph", 7, 7, 3600)]
        assert client.entity_limits("key-2", "gpt-4") == [("a.b-c_cp", 1, 1, 86_400)]
        assert client.listings("gpt-4") == (["gpt-4"], ["_default_", "gpt-4"], ["key-1", "key-2"])

    # Each may replace and delete what the other wrote, and registries stay right.
    reader.set_entity_limits("key-1", "gpt-4", [["rpm", 9, 9, 60]])
    reader.set_resource_defaults("gpt-4", [TPM])
    reader.set_resource_defaults("claude-3", [TPM])
    reader.delete_entity_limits("key-2", "gpt-4")
    reader.set_system_defaults([RPM])
    for client in pair:
        client.forget()
        assert client.entity_limits("key-1", "gpt-4") == [("rpm", 9, 9, 60)]
        assert client.resource_defaults("gpt-4") == [tuple(TPM)]
        assert client.system_defaults() == ([tuple(RPM)], None)
        assert client.listings("gpt-4") == (["claude-3", "gpt-4"], ["_default_", "gpt-4"], ["key-1"])
    writer.delete_entity_limits("key-1", "gpt-4")
    writer.delete_entity_limits("key-1", "_default_")
    writer.delete_resource_defaults("gpt-4")
    writer.delete_resource_defaults("claude-3")
    writer.delete_system_defaults()
    for client in pair:
        assert client.listings("gpt-4") == ([], [], [])
        assert client.system_defaults() == ([], None)


def test_audit_events(pair):
    writer, reader = pair
    writer.create_entity("key-1")
    writer.set_entity_limits("key-1", "gpt-4", [RPM])
    reader.delete_entity_limits("key-1", "gpt-4")
    writer.set_resource_defaults("gpt-4", [RPM])
    reader.set_system_defaults([RPM])
    events = [[client.audit(s) for s in ("key-1", "$RESOURCE:gpt-4", "$SYSTEM")] for client in pair]
    assert events[0] == events[1]
    assert [(action, resource) for action, _, resource in events[0][0]] in (
        [("limits_deleted", "gpt-4"), ("limits_set", "gpt-4"), ("entity_created", None)],
    )
    assert [action for action, _, _ in events[0][1]] == ["limits_set"]


def test_namespaces_through_their_life(pair):
    writer, reader = pair
    number = writer.register_namespace("team-a")
    assert reader.register_namespace("team-a") == number
    for client in pair:
        assert ("team-a", number) in client.namespaces()
    reader.delete_namespace("team-a")
    for client in pair:
        assert client.orphans() == [("team-a", number)]
    assert writer.recover_namespace(number) == "team-a"
    for client in pair:
        assert client.orphans() == []
        assert ("team-a", number) in client.namespaces()
    writer.delete_namespace("team-a")
    again = reader.register_namespace("team-a")
    assert again != number
    with pytest.raises(Exception, match="(?i)regist"):
        writer.recover_namespace(number)


@pytest.mark.parametrize(("filler", "purger"), BOTH_WAYS)
def test_either_purges_what_the_other_wrote(world, filler, purger):
    filling = world.open(filler, namespace="team-a")
    filling.create_entity("proj-1")
    filling.create_entity("key-1", parent="proj-1", cascade=True)
    filling.set_system_defaults([RPM])
    filling.set_entity_limits("key-1", "gpt-4", [RPM])
    filling.set_entity_limits("proj-1", "gpt-4", [RPM])
    filling.acquire("key-1", "gpt-4", rpm=3).commit()
    filling.settle()
    assert len(world.items(filling.namespace_id)) > 8
    purging = world.open(purger)
    purging.delete_namespace("team-a")
    purging.purge_namespace(filling.namespace_id)
    assert world.items(filling.namespace_id) == {}
    assert purging.orphans() == []
    assert ("default", purging.namespace_id) in purging.namespaces()


@pytest.mark.parametrize(("maker", "deleter"), BOTH_WAYS)
def test_either_deletes_an_entity_of_the_other(world, maker, deleter):
    making, deleting = world.open(maker), world.open(deleter)
    making.create_entity("key-1")
    making.create_entity("key-10")
    making.set_entity_limits("key-1", "gpt-4", [RPM])
    making.set_entity_limits("key-10", "gpt-4", [RPM])
    making.acquire("key-1", "gpt-4", rpm=3).commit()
    making.acquire("key-10", "gpt-4", rpm=3).commit()
    making.settle()
    deleting.delete_entity("key-1")
    left = [pk for pk, _ in world.items(making.namespace_id) if "#key-1" in pk and "#key-10" not in pk]
    assert left == [f"{making.namespace_id}/AUDIT#key-1"] * len(left)
    assert making.entity("key-1") is None
    assert making.entity("key-10") is not None
    assert making.audit("key-1")[0][0] == "entity_deleted"
    assert world.bucket(making, "key-10", "gpt-4") is not None


def test_registries_are_counted_alike(world):
    """However the two take turns, the count of a resource is the number of its entities' levels."""
    clients = [world.open("ours"), world.open("theirs")]
    turns = itertools.cycle(clients)
    for entity in ("a", "b", "c"):
        for resource in ("gpt-4", "_default_"):
            next(turns).set_entity_limits(entity, resource, [RPM])
            next(turns).set_entity_limits(entity, resource, [TPM])
            next(turns)
    next(turns).delete_entity_limits("b", "gpt-4")
    next(turns).delete_entity_limits("b", "gpt-4")
    registry = world.items()[f"{clients[0].namespace_id}/SYSTEM#", "#ENTITY_CONFIG_RESOURCES"]
    assert registry["gpt-4"] == {"N": "2"}
    assert registry["_default_"] == {"N": "3"}


def test_a_table_that_demands_newer_clients(world):
    def demand(version):
        world.dynamo.update_item(
            TableName=world.stack,
            Key={"PK": {"S": "_/SYSTEM#"}, "SK": {"S": "#VERSION"}},
            UpdateExpression="SET client_min_version = :v",
            ExpressionAttributeValues={":v": {"S": version}},
        )

    world.open("theirs")
    demand("0.17.0")
    world.open("ours")
    world.open("theirs")
    demand("0.18.0")
    with pytest.raises(Failed, match="VersionMismatch"):
        world.open("ours")


def test_usage_that_their_aggregator_counts(world):
    from zae_limiter_aggregator import processor

    ours = world.open("ours")
    ours.set_system_defaults([RPM, TPM])
    ours.acquire("key-1", "gpt-4", rpm=1, tpm=10).commit()
    before = world.bucket(ours, "key-1", "gpt-4")
    lease = ours.acquire("key-1", "gpt-4", rpm=2, tpm=500)
    lease.adjust(tpm=-100)
    lease.commit()
    ours.settle()
    after = world.bucket(ours, "key-1", "gpt-4")
    record = {
        "eventName": "MODIFY",
        "eventID": "1",
        "dynamodb": {
            "NewImage": after,
            "OldImage": before,
            "SequenceNumber": "1",
            "ApproximateCreationDateTime": 1_795_290_198,
        },
    }
    import boto3

    table = boto3.resource("dynamodb", endpoint_url=world.endpoint).Table(world.stack)
    deltas = processor.extract_deltas(record)
    assert {delta.limit_name for delta in deltas} == {"rpm", "tpm"}
    for delta in deltas:
        processor.update_snapshot(table, delta, "hourly", 90)
    [[resource, window, _, counters]] = ours.call("usage", entity="key-1")
    assert (resource, window, counters) == ("gpt-4", "hourly", {"rpm": 2, "tpm": 400})
