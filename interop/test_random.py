"""The same random operations on both clients, each on a namespace of its own, under one clock.

Decisions, consumption and listings must agree step by step. What is known to differ is kept out or bounded:
- a wait is exact, the original's up to two milliseconds longer; of an entity that cascades ours tells the wait of
  child and parent together, the original the child's alone, or the parent's with the child's after its refund;
- fractions of a thousandth of a token are kept, which the original drops at every refill, so that ours may be
  earlier by the time of a thousandth for each refill;
- a full bucket earns nothing, so it matters when a client writes a refill down, and the two do at different moments:
  buckets here start half empty and earn less than is asked of them;
- when a limit's rate changes, what was earned and not yet written down counts at the old rate or the new, as it
  happens: after a change, times agree to five minutes;
- where a level stops naming a limit, the original goes on charging it on live buckets and ours does not: levels here
  all name the same.
"""

import os
import random

import pytest
from bridge import Failed, Refused

START = 1_800_000_000_000
STEPS = int(os.environ.get("ZAE_LIMITER_RANDOM_STEPS", "150"))
SEEDS = range(int(os.environ.get("ZAE_LIMITER_RANDOM_SEEDS", "2")))

# Seconds in which the slowest limit below earns a thousandth of a token.
SLOWEST = 0.024

ENTITIES = ["proj-1", "key-1", "key-2", "free-1"]
RESOURCES = ["gpt-4", "claude-3"]
LIMITS = [
    [["rpm", 200, 200, 3600], ["tpm", 20_000, 20_000, 3600]],
    [["rpm", 300, 150, 3600], ["tpm", 40_000, 10_000, 3600]],
    [["rpm", 170, 7, 120], ["tpm", 30_000, 77, 13]],
]


class Both:
    """Two clients that do the same."""

    def __init__(self, world):
        self.clients = [
            world.open(which, namespace=f"of-{which}", now_ms=START, **options)
            for which, options in (
                ("ours", {"config_cache_ms": 0, "reject_cache_ms": 0}),
                ("theirs", {"config_cache_ttl": 0, "rejection_cache_ttl": 0}),
            )
        ]

    def do(self, call, *arguments, **options):
        """Does it on both; returns what came of it, an exception's kind included."""
        outcomes = []
        for client in self.clients:
            try:
                outcomes.append(getattr(client, call)(*arguments, **options))
            except Refused as err:
                outcomes.append(err)
            except Failed as err:
                outcomes.append(err.kind)
            client.settle()
        return outcomes


def told(trail):
    """The last operations, for a failure."""
    return "\n" + "\n".join(map(str, trail[-10:]))


def consumption(world, client):
    """What was consumed of each limit in all, by the counters that never refill."""
    return {
        (item["entity_id"]["S"], item["resource"]["S"], name[2:-3]): int(value["N"])
        for item in world.items(client.namespace_id).values()
        if "rf" in item
        for name, value in item.items()
        if name.endswith("_tc") and name != "b_wcu_tc" and value["N"] != "0"
    }


def limit_of(dice):
    return [list(limit) for limit in dice.choice(LIMITS)]


def amounts(dice, world, both, entity, resource):
    """What to ask for: some of the limits in force, now and then far too much."""
    limits = both.clients[0].call("effective_limits", entity=entity, resource=resource)
    chosen = [limit for limit in limits if dice.random() < 0.8] or limits[:1]
    top = dice.choice([0.02, 0.02, 0.02, 0.05, 0.4, 1.1])
    return {name: dice.randint(0, max(1, int(capacity * top))) for name, capacity, _, _ in chosen}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_operations_come_to_the_same(world, seed):
    dice = random.Random(seed)
    both = Both(world)
    both.do("set_system_defaults", LIMITS[0])
    both.do("create_entity", "proj-1")
    both.do("create_entity", "key-1", parent="proj-1", cascade=True)
    both.do("create_entity", "key-2", parent="proj-1", cascade=False)
    for entity in ENTITIES:
        for resource in RESOURCES:
            for lease in both.do("acquire", entity, resource, rpm=45, tpm=4_500):
                lease.commit()
    now, trail, leases, changed = START, [], [], set()
    for step in range(STEPS):
        now += dice.choice([0, 0, 1, 100, 999, 5_000, 30_000])
        for client in both.clients:
            client.set_clock(now)
        what = dice.choices(
            ["acquire", "finish", "entity limits", "resource limits", "system limits", "delete", "look"],
            [60, 25, 3, 2, 1, 2, 7],
        )[0]
        entity, resource = dice.choice(ENTITIES), dice.choice(RESOURCES)
        if what == "acquire":
            wanted = amounts(dice, world, both, entity, resource)
            ours, theirs = both.do("acquire", entity, resource, **wanted)
            trail.append((step, now, what, entity, resource, wanted, ours, theirs))
            # Time that the fractions dropped so far may have cost the original; more after a change of limits.
            slack = 0.002 + step * SLOWEST
            if changed & {entity, "proj-1"}:
                slack += 300
            if isinstance(theirs, Refused) and not isinstance(ours, Refused):
                assert theirs.retry_after <= slack, told(trail)
                ours.rollback()
                both.clients[0].settle()
            elif isinstance(ours, Refused) and not isinstance(theirs, Refused):
                assert changed & {entity, "proj-1"} and ours.retry_after <= slack, told(trail)
                theirs.rollback()
            elif isinstance(ours, Refused):
                # For one that cascades, ours tells the wait of child and parent together.
                if ours.retry_after is not None and entity != "key-1":
                    assert abs(theirs.retry_after - ours.retry_after) <= slack, told(trail)
                    assert changed or ours.retry_after <= theirs.retry_after, told(trail)
            else:
                assert not isinstance(ours, str) and not isinstance(theirs, str), told(trail)
                leases.append((ours, theirs, wanted))
        elif what == "finish" and leases:
            ours, theirs, wanted = leases.pop(dice.randrange(len(leases)))
            how = dice.choice(["commit", "rollback", "adjust", "release"])
            name = dice.choice(sorted(wanted))
            by = dice.randint(0, wanted[name]) if how == "release" else dice.randint(-wanted[name], wanted[name] + 5)
            for lease in (ours, theirs):
                if how in ("adjust", "release"):
                    getattr(lease, how)(**{name: by})
                    lease.commit()
                else:
                    getattr(lease, how)()
            trail.append((step, now, what, how, name, by, wanted))
            for client in both.clients:
                client.settle()
        elif what == "entity limits":
            scope = dice.choice([resource, "_default_"])
            limits = limit_of(dice)
            trail.append((step, now, what, entity, scope, limits))
            both.do("set_entity_limits", entity, scope, limits)
            changed.add(entity)
        elif what == "resource limits":
            # Of a resource that nobody uses: the original leaves live buckets under a changed default as they are.
            limits, fresh = limit_of(dice), f"model-{step}"
            trail.append((step, now, what, fresh, limits))
            both.do("set_resource_defaults", fresh, limits)
            ours, theirs = both.do("resource_defaults", fresh)
            assert ours == theirs == sorted(map(tuple, limits)), told(trail)
        elif what == "delete":
            scope = dice.choice([resource, "_default_"])
            trail.append((step, now, what, entity, scope))
            both.do("delete_entity_limits", entity, scope)
            changed.add(entity)
        elif what == "look":
            ours, theirs = both.do("listings", resource)
            assert ours == theirs, told(trail)
            ours, theirs = both.do("available", entity, resource)
            trail.append((step, now, what, entity, resource, ours, theirs))
            # The original looks at the entity alone, ours at its parent too.
            if entity != "key-1":
                assert ours.keys() == theirs.keys(), told(trail)
                for name in ours:
                    assert entity in changed or abs(ours[name] - theirs[name]) <= 1, told(trail)
        if what != "look":
            ours, theirs = (consumption(world, client) for client in both.clients)
            assert ours == theirs, told(trail)
