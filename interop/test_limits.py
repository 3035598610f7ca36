"""Manifests, planned and applied by this library and by the original's provisioner.

Each works on a namespace of its own, on the same random manifests and the same changes behind its back. Changes, levels,
live buckets and the record of what is managed must agree. What is known to differ:
- ours gives a level the attributes that single calls give it, and lists it: `config_version`, `GSI3PK`, `GSI3SK`, the
  registries, and an audit event;
- ours counts the revisions of the record of what is managed;
- where an entity's limits for a resource go and those for all resources take over, the original lets the bucket
  expire, though limits of an entity are kept with its balance;
- ours leaves the retention on a level alone.
A second test lets both work on one namespace in turns.
"""

import copy
import hashlib
import json
import os
import random
import re

import jsonschema
import pytest

START = 1_800_000_000_000
SEEDS = range(int(os.environ.get("ZAE_LIMITER_LIMITS_SEEDS", "40")))
STEPS = 4

RESOURCES = ["gpt-4", "a/b:c", "claude-3"]
ENTITIES = ["user-1", "user:2@x", "9"]
LIMITS = ["rpm", "tpm", "x.y-z"]
# What ours adds to a level's record.
ADDED = {"config_version", "GSI3PK", "GSI3SK"}

engine_only = pytest.mark.parametrize("endpoint", ["engine"], indirect=True)


def limits_of(dice):
    found = {}
    for name in dice.sample(LIMITS, dice.randint(0, 3)):
        limit = found[name] = {"capacity": dice.choice([1, 5, 100, 10**15])}
        if dice.random() < 0.3:
            limit["refill_amount"] = dice.choice([1, 7, 10**15])
        if dice.random() < 0.3:
            limit["refill_period"] = dice.choice([1, 60, 3600, 10**9])
        if dice.random() < 0.1:
            limit["burst"] = dice.choice([1, 50])
    return found


def manifest_of(dice):
    manifest = {"namespace": "?"}
    if dice.random() < 0.6:
        manifest["system"] = {"limits": limits_of(dice)}
        if dice.random() < 0.5:
            manifest["system"]["on_unavailable"] = dice.choice(["allow", "block"])
    if dice.random() < 0.8:
        names = dice.sample(RESOURCES, dice.randint(0, 3))
        manifest["resources"] = {name: {"limits": limits_of(dice)} for name in names}
    if dice.random() < 0.9:
        manifest["entities"] = {
            entity: {
                "resources": {
                    name: {"limits": limits_of(dice)}
                    for name in dice.sample(RESOURCES + ["_default_"], dice.randint(0, 3))
                }
            }
            for entity in dice.sample(ENTITIES, dice.randint(0, 3))
        }
    return manifest


class OurSide:
    def __init__(self, world, namespace="of-ours"):
        self.client = world.open("ours", namespace=namespace, config_cache_ms=0, reject_cache_ms=0)
        self.namespace, self.id = namespace, self.client.namespace_id

    def call(self, action, manifest, full=False):
        manifest = {**manifest, "namespace": self.namespace}
        return self.client.call("limits", action=action, manifest=manifest, full=full)


class TheirSide:
    def __init__(self, world, monkeypatch, namespace="of-theirs"):
        monkeypatch.setenv("AWS_ENDPOINT_URL", world.endpoint)
        monkeypatch.setenv("TABLE_NAME", world.stack)
        self.client = world.open("theirs", namespace=namespace, config_cache_ttl=0, rejection_cache_ttl=0)
        self.namespace, self.id, self.stack = namespace, self.client.namespace_id, world.stack

    def call(self, action, manifest, full=False):
        from zae_limiter_provisioner.handler import on_event

        event = {
            "action": action,
            "table_name": self.stack,
            "namespace_id": self.id,
            "manifest": {**copy.deepcopy(manifest), "namespace": self.namespace},
        }
        return on_event({**event, "full": True} if full else event, None)


def told(answer, stored):
    """An answer without what only one of them tells: the original resumes full applies, ours begins them again. The original
    calls a managed level that is not among the stored ones an update, ours a creation."""
    assert not answer.get("resumed")
    answer = {key: value for key, value in answer.items() if key not in ("resumed", "adopted", "of_others", "settings")}
    changes = []
    for one in answer["changes"]:
        action, level, target = one["action"], one["level"], one["target"]
        if action == "update" and (level, None if level == "system" else target) not in stored:
            action = "create"
        changes.append((action, level, target))
    answer["changes"] = changes
    if "updated" in answer:
        # A failed change is in neither count.
        done = answer.pop("created") + answer.pop("updated")
        answer["created or updated"] = done
    return answer


def stored(world, side):
    """The levels of a namespace that are stored, by kind and name."""
    found = set()
    for pk, sk in levels(world, side):
        kind, name = pk.removeprefix("NS/").split("#", 1)
        if kind == "SYSTEM":
            found.add(("system", None))
        elif kind == "RESOURCE":
            found.add(("resource", name))
        else:
            found.add(("entity", f"{name}/{sk.removeprefix('#CONFIG#')}"))
    return found


def levels(world, side):
    """The levels of a namespace, without what ours adds."""
    found = {}
    for (pk, sk), item in world.items(side.id).items():
        if sk.startswith("#CONFIG"):
            text = json.dumps({k: v for k, v in item.items() if k not in ADDED}, sort_keys=True)
            found[pk.replace(side.id, "NS"), sk] = json.loads(text.replace(side.id, "NS"))
    return found


def record(world, side):
    return world.items(side.id).get((f"{side.id}/SYSTEM#", "#PROVISIONER"))


def parameters(world, side, manifest, before):
    """What live buckets say of the limits of entities that have limits of their own, and of those that they lost.

    Of other limits that a bucket once had, each client keeps what it keeps: one that is past its time is made anew.
    """
    found = {}
    for (pk, sk), item in world.items(side.id).items():
        if sk != "#STATE":
            continue
        entity, resource = item["entity_id"]["S"], item["resource"]["S"]
        own, once = (
            one.get("entities", {}).get(entity, {}).get("resources", {}) for one in (manifest, before)
        )
        exact = own.get(resource, {}).get("limits")
        level = exact or own.get("_default_", {}).get("limits")
        if level:
            lost = set(once.get(resource, {}).get("limits", {})) - set(level) if exact else set()
            found[entity, resource] = {
                f"{name}_{part}": item.get(f"b_{name}_{part}", {}).get("N")
                for name in set(level) | lost
                for part in ("cp", "ra", "rp")
            }, "ttl" in item and bool(exact)
    return found


def use(side, manifest, dice):
    """Makes buckets: takes a token of each limit in force."""
    from zae_limiter.exceptions import RateLimiterUnavailable  # noqa: F401

    for entity in ENTITIES:
        for resource in RESOURCES:
            own = manifest.get("entities", {}).get(entity, {}).get("resources", {})
            level = (
                own.get(resource, {}).get("limits")
                or own.get("_default_", {}).get("limits")
                or manifest.get("resources", {}).get(resource, {}).get("limits")
                or manifest.get("system", {}).get("limits")
            )
            if level:
                try:
                    side.client.acquire(entity, resource, **{sorted(level)[0]: 1}).commit()
                except Exception as err:  # used up, which is as good
                    assert type(err).__name__ == "Refused", err
    side.client.settle()


def tamper(world, side, dice):
    """Changes levels behind everybody's back, the same way for the same dice."""
    items = world.items(side.id)
    keys = sorted((pk.replace(side.id, ""), sk) for pk, sk in items if sk.startswith("#CONFIG"))
    for pk, sk in keys:
        roll, key = dice.random(), {"PK": {"S": side.id + pk}, "SK": {"S": sk}}
        if roll < 0.1:
            world.dynamo.delete_item(TableName=world.stack, Key=key)
        elif roll < 0.3:
            world.dynamo.update_item(
                TableName=world.stack,
                Key=key,
                UpdateExpression="SET l_rpm_cp = :n, l_rpm_ra = :n, l_rpm_rp = :n",
                ExpressionAttributeValues={":n": {"N": str(dice.randint(1, 9))}},
            )


def normalised(manifest):
    from zae_limiter_provisioner.manifest import LimitsManifest

    return LimitsManifest.from_dict(manifest).to_dict()


@engine_only
@pytest.mark.parametrize("seed", SEEDS)
def test_both_do_the_same_to_the_same(world, monkeypatch, seed):
    ours, theirs = OurSide(world), TheirSide(world, monkeypatch)
    dice = random.Random(seed)
    trail = []
    for step in range(STEPS):
        manifest = manifest_of(dice)
        salt = dice.random()
        trail.append(manifest)
        for side in (ours, theirs):
            tamper(world, side, random.Random(salt))
        for action in ("plan", "apply", "plan"):
            before = stored(world, theirs)
            a, b = (told(side.call(action, manifest), before) for side in (ours, theirs))
            assert a == b, (step, action, trail[-2:])
        assert a["changes"] == [], trail[-2:]
        # The original's full apply fails on resources without limits, of which it has nothing to tell their buckets.
        if all(level["limits"] for level in manifest.get("resources", {}).values()) and dice.random() < 0.3:
            before = stored(world, theirs)
            a, b = (told(side.call("apply", manifest, full=True), before) for side in (ours, theirs))
            assert a == b and a["full"], trail[-2:]
        assert levels(world, ours) == levels(world, theirs), trail[-2:]
        mine, other = record(world, ours), record(world, theirs)
        for key in ("managed_system", "managed_resources", "managed_entities"):
            assert mine[key] == other[key], trail[-2:]
        assert set(mine) - set(other) == {"revision"}
        wanted = json.dumps(normalised({**manifest, "namespace": ours.namespace}), sort_keys=True)
        assert mine["applied_hash"]["S"] == "sha256:" + hashlib.sha256(wanted.encode()).hexdigest()
        instant = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00"
        assert re.fullmatch(instant, mine["last_applied"]["S"]) and re.fullmatch(instant, other["last_applied"]["S"])
        before = trail[-2] if step else {}
        mine, other = (parameters(world, side, manifest, before) for side in (ours, theirs))
        assert mine == other, trail[-2:]
        assert not [sk for _, sk in world.items() if "#PENDING#" in sk]
        for side in (ours, theirs):
            use(side, manifest, dice)


@engine_only
@pytest.mark.parametrize("seed", range(len(SEEDS) // 4))
def test_both_in_turns_on_one_namespace(world, monkeypatch, seed):
    ours = OurSide(world, "shared")
    theirs = TheirSide(world, monkeypatch, "shared")
    assert ours.id == theirs.id
    dice = random.Random(1000 + seed)
    for _ in range(STEPS):
        manifest = manifest_of(dice)
        side = dice.choice([ours, theirs])
        answer = side.call("apply", manifest)
        assert answer["errors"] == [] and answer["pending"] == 0
        # After an apply by either client, ours finds nothing to do, and the original nothing after its own.
        assert ours.call("plan", manifest)["changes"] == []
        if side is theirs:
            assert theirs.call("plan", manifest)["changes"] == []
        declared = {("system", None)} if "system" in manifest else set()
        declared |= {("resource", name) for name in manifest.get("resources", {})}
        for entity, levels_of in manifest.get("entities", {}).items():
            declared |= {("entity", f"{entity}/{name}") for name in levels_of["resources"]}
        found = set()
        for pk, sk in levels(world, ours):
            if pk == "NS/SYSTEM#":
                found.add(("system", None))
            elif pk.startswith("NS/RESOURCE#"):
                found.add(("resource", pk.removeprefix("NS/RESOURCE#")))
            else:
                found.add(("entity", pk.removeprefix("NS/ENTITY#") + "/" + sk.removeprefix("#CONFIG#")))
        assert found == declared
        use(ours, manifest, dice)
        use(theirs, manifest, dice)


@engine_only
def test_work_left_behind_is_done_by_either(world, monkeypatch):
    """Records of buckets that were not told, in the form of each, honoured by the other."""
    ours, theirs = OurSide(world, "shared"), TheirSide(world, monkeypatch, "shared")
    manifest = {"entities": {"user-1": {"resources": {"gpt-4": {"limits": {"rpm": {"capacity": 5}}}}}}}
    ours.call("apply", manifest)
    for side in (ours, theirs):
        use(side, manifest, None)
        # What an apply leaves that was killed after it wrote the level.
        owner = {"lease": {"N": "1"}, "full": {"BOOL": False}}
        world.dynamo.put_item(
            TableName=world.stack,
            Item={
                "PK": {"S": f"{ours.id}/SYSTEM#"},
                "SK": {"S": "#PROVISIONER#PENDING#sync#entity#user-1/gpt-4"},
                "GSI4PK": {"S": ours.id},
                "GSI4SK": {"S": f"{ours.id}/SYSTEM#"},
                "kind": {"S": "sync"},
                "level": {"S": "entity"},
                "target": {"S": "user-1/gpt-4"},
                "written_ms": {"N": "1"},
                "owners": {"M": {"0" * 32: {"M": owner}}},
                "stale": {"SS": ["gone"]},
            },
        )
        key = {"PK": {"S": f"{ours.id}/BUCKET#user-1#gpt-4#0"}, "SK": {"S": "#STATE"}}
        world.dynamo.update_item(
            TableName=world.stack,
            Key=key,
            UpdateExpression="SET b_rpm_cp = :n",
            ExpressionAttributeValues={":n": {"N": "1000"}},
        )
        assert side.call("plan", manifest)["pending"] == 1
        answer = side.call("apply", manifest)
        assert (answer["pending"], answer["errors"]) == (0, [])
        assert world.bucket(side.client, "user-1", "gpt-4")["b_rpm_cp"]["N"] == "5000"


LIMITED = {"limits": {"rpm": {"capacity": 5}}}
FLAGS = [
    {
        "resources": {"gpt-4": {"disabled": True, **LIMITED}},
        "entities": {"user-1": {"resources": {"_default_": {"disabled": False}}}},
    },
    {
        "resources": {"gpt-4": {"cascade": False, **LIMITED}},
        "entities": {"child": {"resources": {"gpt-4": {"cascade": True}, "claude-3": {"disabled": True, **LIMITED}}}},
    },
    {"resources": {"gpt-4": LIMITED}, "entities": {"child": {"resources": {"gpt-4": LIMITED}}}},
    {"resources": {"gpt-4": {"disabled": "bypass", "cascade": False}}},
    {},
]


def flags(world, side):
    """What live buckets say of access and cascade."""
    return {
        (item["entity_id"]["S"], item["resource"]["S"]): (
            item.get("disabled"),
            "bypass" in item,
            item.get("cascade"),
            item.get("parent_id"),
        )
        for (_, sk), item in world.items(side.id).items()
        if sk == "#STATE"
    }


@engine_only
def test_flags(world, monkeypatch):
    """Both store the same, and stamp the same on live buckets; each finishes what the other has left."""
    ours, theirs = OurSide(world), TheirSide(world, monkeypatch)
    world.functions_of("0.17.0")
    for side in (ours, theirs):
        side.client.set_system_defaults([["rpm", 9, 9, 60]])
        side.client.create_entity("parent")
        side.client.create_entity("child", parent="parent", cascade=True)
        for entity in ("child", "user-1"):
            for resource in ("gpt-4", "claude-3"):
                side.client.acquire(entity, resource, rpm=1).commit()
        side.client.settle()
    for manifest in FLAGS:
        for side in (ours, theirs):
            answer = side.call("apply", manifest)
            assert (answer["errors"], answer["pending"]) == ([], 0), (side, manifest)
            assert side.call("plan", manifest)["changes"] == []
        stored = [
            {key: item for key, item in levels(world, side).items() if key[0] != "NS/SYSTEM#"} for side in (ours, theirs)
        ]
        assert stored[0] == stored[1], manifest
        assert flags(world, ours) == flags(world, theirs), manifest
    # What either has written, and not carried to the buckets.
    for kind, flag, value in [("disabled", "disabled", {"BOOL": True}), ("cascade", "cascade", {"BOOL": False})]:
        for side in (ours, theirs):
            manifest = {"resources": {"gpt-4": {flag: value["BOOL"], **LIMITED}}}
            side.call("apply", {"resources": {"gpt-4": LIMITED}})
            before = flags(world, side)
            world.dynamo.update_item(
                TableName=world.stack,
                Key={"PK": {"S": f"{side.id}/RESOURCE#gpt-4"}, "SK": {"S": "#CONFIG"}},
                UpdateExpression="SET #f = :v",
                ExpressionAttributeNames={"#f": flag},
                ExpressionAttributeValues={":v": value},
            )
            world.dynamo.put_item(
                TableName=world.stack,
                Item={
                    "PK": {"S": f"{side.id}/SYSTEM#"},
                    "SK": {"S": f"#PROVISIONER#PENDING#{kind}#resource#gpt-4"},
                    "GSI4PK": {"S": side.id},
                    "GSI4SK": {"S": f"{side.id}/SYSTEM#"},
                    "kind": {"S": kind},
                    "level": {"S": "resource"},
                    "target": {"S": "gpt-4"},
                    "written_ms": {"N": "1"},
                    "owners": {"M": {"0" * 32: {"M": {"lease": {"N": "1"}, "full": {"BOOL": False}}}}},
                },
            )
            answer = side.call("apply", manifest)
            assert (answer["updated"], answer["pending"], answer["errors"]) == (0, 0, []), answer
            assert flags(world, side) != before
        assert flags(world, ours) == flags(world, theirs), kind


SAMPLES = [
    # (a manifest, whether it is right)
    ({"namespace": "d"}, True),
    ({"namespace": "d", "system": None, "resources": None, "entities": None}, True),
    ({"namespace": "d", "system": {"on_unavailable": "allow", "limits": {"rpm": {"capacity": 1}}}}, True),
    ({"namespace": "d", "resources": {"a/b:c": {"limits": {"x": {"capacity": 10**15, "refill_period": 10**9}}}}}, True),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 1, "burst": 2, "refill_amount": None}}}}}, True),
    ({"namespace": "d", "entities": {"9:@x": {"resources": {"_default_": {"limits": None}}}}}, True),
    ({}, False),
    ({"namespace": ""}, False),
    ({"namespace": "_"}, False),
    ({"namespace": 5}, False),
    ({"namespace": "a\tb"}, False),
    ({"namespace": "d", "resorces": {}}, False),
    ({"namespace": "d", "system": {"on_unavailable": "degrade"}}, False),
    ({"namespace": "d", "system": {"disabled": True}}, False),
    ({"namespace": "d", "resources": []}, False),
    ({"namespace": "d", "resources": {"_default_": {}}}, False),
    ({"namespace": "d", "resources": {"no name": {}}}, False),
    ({"namespace": "d", "resources": {"r": {"cascade": True, "disabled": "bypass"}}}, True),
    ({"namespace": "d", "entities": {"u": {"resources": {"_default_": {"cascade": None, "disabled": False}}}}}, True),
    ({"namespace": "d", "resources": {"r": {"cascade": "on"}}}, False),
    ({"namespace": "d", "resources": {"r": {"disabled": 1}}}, False),
    ({"namespace": "d", "resources": {"r": {"disabled": "true"}}}, False),
    ({"namespace": "d", "system": {"cascade": False}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"wcu": {"capacity": 1}}}}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {}}}}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 0}}}}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 1.5}}}}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": True}}}}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 10**15 + 1}}}}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 1, "soft": True}}}}}, True),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 1, "soft": "true"}}}}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 1, "refill_amount": 0}}}}}, False),
    ({"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 1, "reset_after_seconds": 60}}}}}, True),
    (
        {"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 1, "reset_schedule": [{"cron": "0 0 * * *"}]}}}}},
        True,
    ),
    (
        {"namespace": "d", "resources": {"r": {"limits": {"x": {"capacity": 1, "schedule": [{"cron": "* 1 * * *"}]}}}}},
        False,
    ),
    ({"namespace": "d", "resources": {"r": {"limits": {f"l{n}": {"capacity": 1} for n in range(25)}}}}, False),
    ({"namespace": "d", "entities": {"u": {"limits": {}}}}, False),
    ({"namespace": "d", "entities": {"u": {"resources": {"PK": {}}}}}, False),
    ({"namespace": "d", "entities": {"-u": {}}}, False),
]


def test_the_schema_accepts_what_the_reader_accepts(bridge):
    schema = bridge.call("manifest_schema")
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for manifest, right in SAMPLES:
        assert ("manifest" in bridge.call("check_manifest", manifest=manifest)) == right, manifest
        assert validator.is_valid(manifest) == right, manifest
    for seed in range(200):
        manifest = {**manifest_of(random.Random(seed)), "namespace": "d"}
        read = bridge.call("check_manifest", manifest=manifest)
        assert read["manifest"] == normalised(manifest)
        assert validator.is_valid(manifest) and validator.is_valid(read["manifest"])


def test_properties_are_those_of_the_original(bridge):
    """What its generator writes, with every scalar as text, reads as the manifest does; and ours reads as its own."""
    from zae_limiter_provisioner.handler import _cfn_properties_to_manifest

    def texts(value):
        if isinstance(value, dict):
            return {key: texts(one) for key, one in value.items()}
        return str(value)

    for seed in range(100):
        manifest = {**manifest_of(random.Random(seed)), "namespace": "d"}
        read = bridge.call("check_manifest", manifest=manifest)
        properties = texts(read["properties"])
        assert bridge.call("check_manifest", properties=properties)["manifest"] == read["manifest"]
        assert normalised(_cfn_properties_to_manifest(properties)) == read["manifest"]


YAMLS = [
    "namespace: d\nresources:\n  gpt-4:\n    limits:\n      rpm: &x {capacity: 1_000}\n      tpm: *x\n",
    "namespace: 'on'\nentities:\n  123:\n    resources:\n      _default_: {limits: {rpm: {capacity: 5}}}\n",
    "namespace: d\nresources:\n  a: &a {limits: {rpm: {capacity: 5}}}\n  b:\n    <<: *a\n",
    '{"namespace": "d", "system": {"limits": {"rpm": {"capacity": 5, "refill_period": 1}}}}',
    "%YAML 1.1\n---\nnamespace: |-\n  d\nsystem:\n  on_unavailable: allow\n...\n",
]


def test_yaml_reads_as_the_original_reads_it(bridge):
    import yaml

    for text in YAMLS:
        theirs = json.loads(json.dumps(yaml.safe_load(text)))
        if "limits" not in str(theirs.get("system", "limits")):
            theirs["system"]["limits"] = {}
        read = bridge.call("check_manifest", yaml=text)
        assert read.get("manifest") == normalised(theirs), read
