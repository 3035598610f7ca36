"""Random sequences on buckets of limits of all shapes, each operation by both clients from the same items.

At each step both clients do the same from the same table: acquire, end a lease, change limits, or look. Decisions, balances,
waits, instants of reset, stamps and expiry must be equal, but for what `ALLOWED` lists. One of the two outcomes stays, at random,
so that either client goes on with what the other has written. The clock goes on by milliseconds to months, and often to an
instant at which something changes, a millisecond before it or after it.

    ZAE_LIMITER_SHAPES_STEPS=20000 ZAE_LIMITER_SHAPES_SEED=7 interop/run

runs one long sequence of a seed; a failure prints the seed and the last steps. What is allowed is counted and printed (`-rP`).
`ZAE_LIMITER_SHAPES_SEEDS` is the number of fresh seeds beside two fixed ones, `ZAE_LIMITER_SHAPES_BACKWARDS` how often the clock is set back.

Shapes that our library refuses as unsupported are left out of what it does; the test prints which.
"""

import collections
import os
import random
import secrets
import zoneinfo

import pytest
import zae_limiter.models
import zae_limiter.sync_lease
import zae_limiter.sync_limiter
from bridge import Failed, Refused, TheirLease, Theirs
from shapes import DAY, HOUR, MINUTE, SECOND, STARTS, Shape, count_of, instant, limits, shown
from twin import Twin
from zae_limiter.schedule import next_reset_edge

# The zones of the package, not of the machine, which may be years older.
zoneinfo.reset_tzpath(to=[])

STEPS = int(os.environ.get("ZAE_LIMITER_SHAPES_STEPS", "60"))
COUNT = int(os.environ.get("ZAE_LIMITER_SHAPES_SEEDS", "0"))
# How often the clock is set back.
BACKWARDS = float(os.environ.get("ZAE_LIMITER_SHAPES_BACKWARDS", "0.02"))
REPLAYED = os.environ.get("ZAE_LIMITER_SHAPES_SEED")
FRESH = secrets.randbelow(10**9) + 1_000_000
SEEDS = [int(REPLAYED)] if REPLAYED else [0, 1, *range(FRESH, FRESH + COUNT)]

# By what the clients may differ, and why.
ALLOWED = {
    "stamp of a soft limit": "ours stamps none when limits are set: clients look at the configuration. A stamp that has expired is"
    " removed by the next acquire, by the original also when another limit of the level becomes soft.",
    "when a refill is written": "a plain debit leaves the refill to a later write; ours writes it when the bucket stood idle for a"
    " part of its fill time (ADR 11), the original when it runs short. The balances are the same once it is written: each is"
    " compared with the arithmetic here.",
    "fractions": "ours keeps the fractions of a thousandth of a token that the original drops at each refill, so a balance may be"
    " greater by a thousandth, and a request that misses one is admitted.",
    "rate before a change": "for the time before a change of parameters ours earns at the rate of that time, the original at the"
    " rate now in force. Each balance is compared with the arithmetic of its own rule.",
    "wait to the millisecond": "the original adds up to two milliseconds to a wait.",
    "wait of a look": "the original counts whole tokens when it only looks, so its wait may be longer by the time of a token. Under a"
    " schedule ours is compared with the arithmetic here.",
    "expiry of what fills at once": "the original counts write units, which fill within a second, among the limits of a bucket that is"
    " there. A bucket that fills within a seventh of a second it makes without expiry, ours with a second or more.",
    "expiry of a debt": "ours keeps a bucket until a debt is paid and the limit is full, the original as if there were none.",
    "never": "of a request above every capacity that the limit ever has, ours says that no wait helps; the original tells a time.",
    "wait above a capacity in between": "a request above the capacity of a part of the schedule cannot be served in that part; the"
    " original counts what it would earn there, ours does not, so its wait is longer.",
    "estimate after 64 changes": "ours follows 64 changes of a rate, and then estimates by the last one.",
    "reset of a pattern beyond its search": "if a pattern of resets has none within the original's search, it takes that of another pattern for"
    " the next reset, or none, in the expiry and when leases end.",
    "wait of a period under a schedule": "what a quota or a session is granted depends on when it is used. Ours tells the first instant"
    " at which that covers the request, the original the next reset.",
    "vu of 0": "after a credit whose pins failed the original leaves `vu` at 0, which costs the next acquire another write; ours"
    " leaves it if the balance is within the capacity.",
    "wait of a cascade": "of an entity that cascades ours tells the statuses of child and parent together, the original those of the"
    " one that refused.",
    "a parent without the limits asked for": "if an entity cascades and its parent has none of the limits asked for, the original"
    " makes or refills the parent's bucket and takes nothing from it; ours leaves it alone.",
    "limits that are no longer named": "when a level stops naming a limit, ours removes it from live buckets, the original leaves it"
    " there unless the level is deleted.",
    "remains of another kind": "when a limit becomes one of another kind, ours removes from live buckets what only the former kind"
    " has (`gc`, `ws`, `wa` and such), the original leaves it there.",
    "a limit added later": "to a bucket that is there, ours adds a limit when a request names it first, the original with its next"
    " refill. It is full in either case.",
    "whose schedule is the default": "a bucket has one default for the schedules of its limits, that of the first limit that has"
    " one. Which one is first for the original depends on the order in which the service returns attributes, which DynamoDB does"
    " not define.",
    "instant of a wrong clock": "a bucket that was refilled more than 5 seconds after now ours dates back; by the original it gains nothing"
    " until then.",
    "a refund of what was added": "if an acquire adds a quota or a session limit to a bucket that is there, the original gives nothing of"
    " it back when the lease ends.",
    "expiry by a clock that went back": "ours does not shorten the expiry of a bucket that a later clock has written.",
    "a look at less than a token": "a schedule can leave a limit less than a token. The original counts that as one when it looks,"
    " and refuses an acquire of it.",
    "wait for what is not there": "a bucket or a limit that is not there is full whenever it is made. So for a request above the capacity in force ours"
    " tells when that is large enough, the original when a bucket that is there would hold as much.",
    "a look at 0 tokens of a debt": "an acquire of 0 tokens is refused while the limit is in debt. Ours tells so when it looks, the"
    " original does not.",
    "a session that has not begun": "where a use would begin a session, ours tells when that would end; the original does so in some"
    " answers.",
    "reset out of sight": "beyond the original's horizon of search no instant of reset is told.",
}

# Of our library alone, and of the table's own limit of writes.
PRIVATE = {"fr", "cr", "cf", "pgen", "pinc", "GSI1PK", "GSI1SK"}

ENTITIES = ["plain-1", "own-1", "own-2", "child-1"]
PARENT = {"child-1": "proj-1"}
RESOURCES = ["gpt-4", "claude-3"]
JUMPS = [0, 0, 0, 1, 999, SECOND, 7 * SECOND, 50 * SECOND, 10 * MINUTE, HOUR, 5 * HOUR, 30 * HOUR, 9 * DAY, 45 * DAY]
JUMP_WEIGHTS = [8, 4, 4, 3, 3, 4, 4, 4, 4, 3, 3, 3, 2, 1]


# One endpoint, for what does not depend on it.
ENGINE = pytest.mark.parametrize("endpoint", ["engine"], indirect=True)


class Difference(AssertionError):
    """The clients differ by something that is not allowed."""


def number(item, name):
    value = item.get(name)
    return int(value["N"]) if value else None


class Sequence:
    """A random sequence on a table by two clients."""

    def __init__(self, world, seed, clients, kinds, entities=ENTITIES, resources=RESOURCES, limits_often=False):
        self.world, self.seed, self.dice, self.kinds = world, seed, random.Random(seed), kinds
        self.entities, self.resources = entities, resources
        self.weights = [40, 5, 35, 5, 10, 5] if limits_often else [60, 22, 5, 2, 2, 9]
        self.clients = clients
        self.now = instant(self.dice.choice(STARTS)) + self.dice.choice([0, 1, 500, 59_999])
        self.trail = collections.deque(maxlen=12)
        self.allowed = collections.Counter()
        self.counts = collections.Counter()
        self.leases = []
        self.namespace_id = clients[0].namespace_id
        self.tick()
        # By (entity, resource) for an entity's own; by resource.
        self.own, self.defaults, self.made = {}, {}, {}
        for client in clients[:1]:
            client.create_entity("proj-1")
            client.create_entity("child-1", parent="proj-1", cascade=True)
        self.twin = Twin(world, clients)
        self.with_own = [one for one in (*entities, "proj-1") if one.startswith(("own-", "proj-"))]
        for resource in resources:
            self.change_defaults(resource)
            for entity in self.with_own:
                self.change_own(entity, resource)

    # --- The clock ---

    def tick(self):
        for client in self.clients:
            client.set_clock(self.now)

    def advance(self):
        dice = self.dice
        edges = [
            edge
            for (entity, resource), item in self.buckets().items()
            for shape in self.shapes(entity, resource).values()
            if (edge := shape.edge_after(item, self.now)) is not None and edge < self.now + dice.choice([1, 40, 400]) * DAY
        ]
        if dice.random() < BACKWARDS:
            self.now -= dice.randint(1, dice.choice([2, SECOND, 5 * MINUTE]))
        elif edges and dice.random() < 0.4:
            self.now = max(self.now, dice.choice(edges) + dice.choice([-1, 0, 0, 0, 1]))
        else:
            by = dice.choices(JUMPS, JUMP_WEIGHTS)[0]
            self.now += by if dice.random() < 0.5 else dice.randint(0, by)
        self.tick()
        # What has expired may be removed at any time.
        for (entity, resource), item in self.buckets().items():
            if (number(item, "ttl") or self.now) * 1000 < self.now and dice.random() < 0.5:
                self.drop(entity, resource)

    # --- What is stored ---

    def buckets(self, items=None):
        """Buckets by entity and resource, in an order that does not depend on that of a scan."""
        items = self.twin.state if items is None else items
        return {
            (item["entity_id"]["S"], item["resource"]["S"]): item
            for (pk, sk), item in sorted(items.items(), key=lambda one: one[0])
            if sk == "#STATE" and "/BUCKET#" in pk
        }

    def drop(self, entity, resource):
        """Removes a bucket, as its expiry does. Leases of it are left open: ours gives nothing back to a bucket made later, the
        original does."""
        self.leases = [lease for lease in self.leases if entity not in lease[1] or resource != lease[2]]
        self.twin.remove((f"{self.namespace_id}/BUCKET#{entity}#{resource}#0", "#STATE"))

    def described(self, entity, resource):
        return self.own.get((entity, resource)) or self.defaults[resource]

    def shapes(self, entity, resource):
        """The shapes of a level's limits by name, as a mapping of the caller's own."""
        described = self.described(entity, resource)
        if id(described) not in self.made:
            # With the level, so that no other one gets its identity.
            self.made[id(described)] = described, {one["name"]: Shape(one) for one in described}
        return dict(self.made[id(described)][1])

    # --- Differences ---

    def told(self, what):
        steps = "\n".join(str(step) for step in self.trail)
        return f"seed {self.seed}, {shown(self.now)} = {self.now}: {what}\n{steps}"

    def reasons(self):
        """By what the clients may differ, and why."""
        return ALLOWED

    def allow(self, name):
        assert name in self.reasons()
        self.allowed[name] += 1

    def differ(self, what, *values):
        raise Difference(self.told(f"{what}: {' / '.join(map(str, values))}"))

    def same(self, what, first, second):
        if first != second:
            self.differ(what, first, second)

    def compare_attributes(self, where, first, second, apart=(), shapes=None, before=None):
        """Attributes that must be equal, apart from those that are compared elsewhere; of a bucket, those of its limits."""
        if shapes is not None:
            first, second = self.of_limits(shapes, first, second)
        for name in sorted(first.keys() | second.keys()):
            if name in PRIVATE or name in apart:
                continue
            if name.endswith("_soft"):
                # A deadline at random. Ours lets no client go by it without a look at the configuration.
                if name in first and name not in second and (number(first, name) or 0) > self.now:
                    self.differ(f"{where} {name}", True, False)
                if (name in first) != (name in second):
                    self.allow("stamp of a soft limit")
            elif name == "bypass" and name in first and name in second:
                # A deadline at random.
                continue
            elif (name in first) != (name in second) and self.is_remains(shapes, name):
                self.allow("remains of another kind")
            elif name == "ttl" and first.get(name) != second.get(name) and self.fills_at_once(shapes):
                self.allow("expiry of what fills at once")
            elif name == "ttl" and first.get(name) != second.get(name) and self.is_partly_out_of_sight(shapes):
                self.allow("reset of a pattern beyond its search")
            elif name == "ttl" and self.is_in_debt(shapes, first, second):
                self.allow("expiry of a debt")
            elif first.get(name) != second.get(name):
                self.differ(f"{where} {name}", first.get(name), second.get(name), before)

    def is_in_debt(self, shapes, *items):
        """Whether a soft limit is in debt, and the expiry of ours is the later one."""
        expiries = {client.name: number(item, "ttl") for client, item in zip(self.clients, items, strict=True)}
        in_debt = any((number(item, f"b_{name}_tk") or 0) < 0 for item in items for name in shapes or ())
        return in_debt and None not in expiries.values() and expiries.get("ours", 0) > expiries["theirs"]

    @staticmethod
    def fills_at_once(shapes):
        """Whether it takes no longer to fill than the bucket's write units do."""
        return shapes and all(shape.fill_ms() <= SECOND for shape in shapes.values())

    @staticmethod
    def is_remains(shapes, name):
        """Whether an attribute belongs to another kind of limit than that of its limit."""
        limit, _, part = name.removeprefix("b_").rpartition("_")
        shape = (shapes or {}).get(limit)
        if shape is None or not name.startswith("b_"):
            return False
        kinds = {"gc": not shape.drips, "tu": not shape.drips, "rn": shape.resets}
        kinds.update(dict.fromkeys(("ws", "wa", "wtc", "rsa"), shape.session))
        return not kinds.get(part, True)

    def of_limits(self, shapes, *items):
        """Items of a bucket with the schedules that each limit has, whether they are its own or the item's default, and without
        limits that are no longer named."""
        spread = []
        for item in items:
            made = {
                name: value
                for name, value in item.items()
                if name not in ("sched", "rsched") and not (name.startswith("b_") and name[2:].rpartition("_")[0] not in shapes)
            }
            if {name[2:-3] for name in item if name.startswith("b_") and name.endswith("_cp")} - {"wcu"} - shapes.keys():
                self.allow("limits that are no longer named")
            for name in shapes:
                for kind in ("sched", "rsched"):
                    own = item.get(f"b_{name}_{kind}") or item.get(kind)
                    made.pop(f"b_{name}_{kind}", None)
                    if own and own["S"] != "-":
                        made[f"b_{name}_{kind}"] = own
            spread.append(made)
        if spread[0] == spread[1] and items[0] != items[1]:
            self.allow("whose schedule is the default")
        return spread

    @staticmethod
    def defaults_of(item):
        """Which schedules are a bucket's defaults, and whose are not: a lease of the original pays back only while they stay."""
        parts = ("sched", "rsched", "sched_tz")
        return {name: value for name, value in (item or {}).items() if name in parts or name.endswith(("_sched", "_rsched"))}

    # --- Operations ---

    def step(self):
        self.advance()
        what = self.dice.choices(
            ["acquire", "finish", "own limits", "default limits", "delete", "look"], self.weights
        )[0]
        self.counts[what] += 1
        entity, resource = self.dice.choice(self.entities), self.dice.choice(self.resources)
        if what == "acquire":
            self.acquire(entity, resource)
        elif what == "finish" and self.leases:
            self.finish()
        elif what == "own limits":
            self.change_own(self.dice.choice(self.with_own), resource)
        elif what == "default limits":
            self.change_defaults(resource)
        elif what == "delete":
            self.delete_own(self.dice.choice(self.with_own), resource)
        elif what == "look":
            self.look(entity, resource)

    def keep_one(self, outcomes):
        kept = self.dice.choice(outcomes)
        self.twin.keep(kept.items)
        return kept

    def amounts(self, entity, resource):
        """What to ask for: a little, all that there is, one more, or more than there ever is."""
        dice, item = self.dice, self.buckets().get((entity, resource))
        shapes = self.shapes(entity, resource)
        chosen = dice.sample(sorted(shapes), dice.randint(1, len(shapes)))
        wanted = {}
        for name in chosen:
            shape = shapes[name]
            held = max(0, (shape.held(item, self.now) if item else shape.ceiling(self.now)) // 1000)
            wanted[name] = dice.choice(
                [0, 1, 1, dice.randint(0, max(1, held // 4)), held, held, held + 1, dice.randint(0, held + 1), max(shape.capacities) // 1000 + 1]
            )
        return wanted

    def acquire(self, entity, resource):
        wanted = self.amounts(entity, resource)
        actions = [lambda client=client: client.acquire(entity, resource, **wanted) for client in self.clients]
        before, outcomes = self.twin.do(self.dice, actions)
        self.trail.append((shown(self.now), "acquire", entity, resource, wanted, self.described(entity, resource), *outcomes))
        concerned = [entity]
        parent = self.parent_of(entity, resource)
        if parent:
            if self.shapes(parent, resource).keys() & wanted.keys():
                concerned.append(parent)
            else:
                self.allow("a parent without the limits asked for")
        kinds = [outcome.kind for outcome in outcomes]
        self.counts["/".join(kinds)] += 1
        old = self.buckets(before)
        if "failed" in kinds:
            self.compare_failures(concerned, resource, outcomes)
        elif kinds[0] != kinds[1]:
            self.decisions_differ(concerned, resource, wanted, old)
        elif kinds[0] == "refused":
            self.compare_refusals(concerned, resource, wanted, old, outcomes)
        else:
            for one in concerned:
                self.compare_admitted(one, resource, wanted, old.get((one, resource)), outcomes)
        kept = self.keep_one(outcomes)
        granted = [outcome for outcome in outcomes if outcome.kind == "admitted"]
        makes = any((one, resource) not in old for one in concerned)
        if makes and kept.client.name == "theirs" and "ours" in [client.name for client in self.clients]:
            # Our lease is of the bucket that ours made: it gives nothing back to another one.
            return
        added = [
            name
            for one in concerned
            for name, shape in self.shapes(one, resource).items()
            if wanted.get(name) is not None and not shape.drips and f"b_{name}_tk" not in old.get((one, resource), {f"b_{name}_tk": None})
        ]
        beyond = [
            one
            for one in concerned
            if self.is_partly_out_of_sight({name: shape for name, shape in self.shapes(one, resource).items() if name in wanted})
        ]
        if len(granted) == 2 and beyond and len({client.name for client in self.clients}) > 1:
            self.allow("reset of a pattern beyond its search")
        elif len(granted) == 2 and added and len({client.name for client in self.clients}) > 1:
            self.allow("a refund of what was added")
        elif len(granted) == 2 and self.keeps_lease(concerned, resource):
            left = [{one: self.defaults_of(self.buckets(outcome.items).get((one, resource))) for one in concerned} for outcome in outcomes]
            self.leases.append(([outcome.value for outcome in outcomes], concerned, resource, wanted, left))
            if len(self.leases) > 6:
                self.leases.pop(0)
        elif len(granted) == 1:
            # Of one alone: as if it had not been.
            self.twin.keep(next(outcome for outcome in outcomes if outcome is not granted[0]).items)

    def keeps_lease(self, concerned, resource):
        """Whether the end of the lease can be compared."""
        return True

    def parent_of(self, entity, resource):
        """The parent that is debited too, or None."""
        return PARENT.get(entity)

    def crosses(self, shape, item):
        """Whether parameters have changed since the bucket was refilled."""
        return bool(item and shape.drips and shape.changes(int(item["rf"]["N"]), self.now))

    def fractions(self, shape, item):
        """By how much the arithmetic here is below ours at most: it drops a fraction at each change, and what was kept before."""
        return 1 + len(shape.changes(int(item["rf"]["N"]), self.now))

    def compare_failures(self, concerned, resource, outcomes):
        self.same("failure", *[outcome.kind == "failed" and outcome.value.kind for outcome in outcomes])

    def decisions_differ(self, concerned, resource, wanted, old):
        """One is admitted and the other refused: some balance must lie between."""
        for entity in concerned:
            item = old.get((entity, resource))
            for name, shape in self.shapes(entity, resource).items():
                if item is None or name not in wanted or shape.soft:
                    continue
                need = wanted[name] * 1000
                flat, parts = shape.held(item, self.now), shape.held(item, self.now, by_parts=True)
                if self.crosses(shape, item) and (flat >= need) != (parts + self.fractions(shape, item) >= need):
                    return self.allow("rate before a change")
                if shape.drips and abs(flat - need) <= 1:
                    return self.allow("fractions")
        for entity in filter(None, [self.parent_of(one, resource) for one in concerned]):
            held, named = old.get((entity, resource)) or {}, self.shapes(entity, resource)
            if any(f"b_{name}_tk" in held and name not in named for name in wanted):
                # The original debits what the parent's bucket holds, ours what the parent's level names.
                return self.allow("limits that are no longer named")
        self.differ("one is admitted")

    def compare_refusals(self, concerned, resource, wanted, old, outcomes):
        by_limit = [
            {(status["entity_id"], status["limit_name"]): status for status in outcome.value.statuses}
            for outcome in outcomes
        ]
        if len(concerned) > 1:
            self.allow("wait of a cascade")
        else:
            self.same("limits of the refusal", *map(sorted, by_limit))
        for key in by_limit[0].keys() & by_limit[1].keys():
            entity, name = key
            item, shape = old.get((entity, resource)), self.shapes(entity, resource)[name]
            if len(concerned) == 1:
                self.compare_statuses(shape, item, wanted.get(name, 0), by_limit[0][key], by_limit[1][key])
        for entity in concerned:
            before = old.get((entity, resource))
            new = [self.buckets(outcome.items).get((entity, resource)) for outcome in outcomes]
            for item in new:
                if before is None or item is None:
                    # A cascade that the parent refuses may leave the child's new bucket, full.
                    continue
                for name, shape in self.shapes(entity, resource).items():
                    if (f"b_{name}_tc") in before:
                        self.same(f"{name} consumed by a refusal", before[f"b_{name}_tc"], item[f"b_{name}_tc"])
            if None not in new:
                self.compare_effect(entity, resource, new)

    def compare_statuses(self, shape, item, need, first, second, is_look=False):
        name = shape.name
        for part in ("requested", "kind", "soft"):
            self.same(f"{name} {part}", first[part], second[part])
        if self.crosses(shape, item) and shape.held(item, self.now) != shape.held(item, self.now, by_parts=True):
            return self.allow("rate before a change")
        if is_look and abs(first["available"] - second["available"]) == 1 and shape.ceiling(self.now) < 1000:
            return self.allow("a look at less than a token")
        if first["exceeded"] != second["exceeded"]:
            if is_look and need == 0 and item is not None and shape.held(item, self.now) < 0:
                return self.allow("a look at 0 tokens of a debt")
            if shape.resets and self.is_out_of_sight(shape):
                return self.allow("reset out of sight")
            if not shape.drips or item is None or abs(shape.held(item, self.now) - need * 1000) > 1:
                self.differ(f"{name} exceeded", first["exceeded"], second["exceeded"])
            return self.allow("fractions")
        if abs(first["available"] - second["available"]) > (1 if shape.drips else 0):
            self.differ(f"{name} available", first["available"], second["available"])
        if shape.resets or shape.session:
            instants = first.get("resets_at_ms"), second.get("resets_at_ms")
            if instants[0] != instants[1] and shape.session and None in instants:
                self.allow("a session that has not begun")
            elif instants[0] != instants[1] and self.is_partly_out_of_sight({shape.name: shape}):
                return self.allow("reset of a pattern beyond its search")
            elif instants[0] != instants[1]:
                if None not in instants or not self.is_out_of_sight(shape):
                    self.differ(f"{name} resets at", *instants)
                self.allow("reset out of sight")
        waits = [status["retry_after_seconds"] for status in (first, second)]
        if first["exceeded"] and waits[0] != waits[1]:
            self.compare_waits(shape, item, need * 1000, *waits, is_look=is_look)

    def is_out_of_sight(self, shape):
        """Whether the original's search finds no next reset."""
        return bool(shape.resets) and next_reset_edge(shape.resets, now_ms=self.now) is None

    def is_partly_out_of_sight(self, shapes):
        """Whether the original's search finds no reset by one of the patterns."""
        patterns = [one for shape in (shapes or {}).values() for one in shape.resets]
        return any(next_reset_edge((one,), now_ms=self.now) is None for one in patterns)

    def compare_waits(self, shape, item, need, *waits, is_look=False):
        ours = [wait for wait, client in zip(waits, self.clients, strict=True) if client.name == "ours"]
        if None in waits:
            if ours != [None] or need <= max(shape.capacities) and shape.ever_covers(need, self.now):
                self.differ(f"{shape.name} waits", *waits)
            return self.allow("never")
        if ours and self.is_out_of_sight(shape):
            return self.allow("reset out of sight")
        if abs(waits[0] - waits[1]) <= 0.0021:
            return self.allow("wait to the millisecond")
        if ours and not shape.drips and len(shape.capacities) > 1:
            return self.allow("wait of a period under a schedule")
        if ours and (item is None or f"b_{shape.name}_tk" not in item) and len(shape.capacities) > 1:
            room = self.now + round(ours[0] * 1000)
            if shape.ceiling(self.now) < need <= shape.ceiling(room) and shape.ceiling(room - 1) < need:
                return self.allow("wait for what is not there")
        _, amount, period = shape.params(self.now)
        if ours and shape.drips and 0 <= max(waits) - ours[0]:
            if max(waits) - ours[0] <= 0.0021 + 2 * period / amount / 1000 or (
                shape.schedule and max(waits) - ours[0] < period / amount and self.is_exact(shape, item, need, round(ours[0] * 1000))
            ):
                return self.allow("fractions")
        if ours and is_look and shape.drips and 0 <= max(waits) - ours[0]:
            if max(waits) - ours[0] <= 0.0021 + period / amount or self.is_exact(shape, item, need, round(ours[0] * 1000)):
                return self.allow("wait of a look")
        if ours and shape.drips and len(shape.changes(self.now, self.now + round(ours[0] * 1000))) >= 63:
            return self.allow("estimate after 64 changes")
        if ours and ours[0] == max(waits) and need > min(shape.capacities):
            return self.allow("wait above a capacity in between")
        self.differ(f"{shape.name} waits", *waits)

    def compare_admitted(self, entity, resource, wanted, before, outcomes):
        self.compare_debits(entity, resource, wanted, before, outcomes)

    def may_lose_refills(self, client, item):
        """Whether a refill of a client may be refused by the table, although no one else writes."""
        return False

    def is_exact(self, shape, item, need, wait):
        """Whether a bucket holds what is needed after a wait of milliseconds, and a second before it does not."""
        if item is None:
            return False
        held = [shape.held(item, self.now + at, by_parts=True) for at in (wait - SECOND, wait)]
        return held[0] < need <= held[1] + self.fractions(shape, item) + len(shape.changes(self.now, self.now + wait))

    def compare_debits(self, entity, resource, wanted, before, outcomes):
        """The bucket after an acquire that both admitted."""
        new = [self.buckets(outcome.items).get((entity, resource)) for outcome in outcomes]
        where = f"bucket {entity}/{resource}"
        if None in new:
            self.differ(where, *new)
        self.compare_debited(where, self.shapes(entity, resource), wanted, before, new)

    def compare_debited(self, where, shapes, wanted, before, new):
        """An item after a debit by each client."""
        named = shapes
        late = [name for name in shapes if any(f"b_{name}_tk" not in item for item in new)]
        for name in late:
            if name in wanted or "ours" not in [client.name for client in self.clients]:
                self.differ(f"{where} without {name}", *new, before)
            self.allow("a limit added later")
            shapes = {one: shape for one, shape in shapes.items() if one != name}
        moved = [self.is_refilled(shapes, wanted, before, item) for item in new]
        # The end of a session that is only begun by one is in the `vu` of one.
        apart = [f"b_{name}_tk" for name in shapes] + ["vu"] * bool(late)
        held = {name[2:-3] for item in new for name in item if name.startswith("b_") and name.endswith("_tk")}
        if held - set(named) - {"wcu"}:
            # The schedule and the period of such a limit have a say in ours.
            self.allow("limits that are no longer named")
            apart += ["vu", "ttl"]
        if before is not None and number(before, "rf") > self.now + 5 * SECOND and new[0].get("rf") != new[1].get("rf"):
            self.allow("instant of a wrong clock")
            apart = [*apart, "rf", "ttl", "vu"]
        if before is None or moved[0] == moved[1]:
            if before is not None and self.is_kept_expiry(before, new):
                self.allow("expiry by a clock that went back")
                apart = [*apart, "ttl"]
            self.compare_attributes(where, *new, apart=apart, shapes=shapes, before=(before, *new))
        else:
            self.allow("when a refill is written")
            # A `vu` that stands for the end of a search is later if it is computed later.
            for client, item in zip(self.clients, new, strict=True):
                if "vu" in item and number(item, "vu") <= self.now and not self.may_lose_refills(client, item):
                    self.differ(f"{where} is spent beyond its vu", *new, before)
            self.compare_attributes(where, *new, apart=[*apart, "rf", "ttl", "vu"], shapes=shapes)
        for name, shape in shapes.items():
            taken = wanted.get(name, 0) * 1000
            for client, item, refilled in zip(self.clients, new, moved, strict=True):
                tokens = number(item, f"b_{name}_tk")
                if before is None or f"b_{name}_tk" not in before:
                    expected = (shape.ceiling(self.now) if before is None else shape.held(before, self.now)) - taken
                elif not refilled:
                    expected = number(before, f"b_{name}_tk") - taken
                else:
                    expected = shape.held(before, self.now, by_parts=client.name == "ours") - taken
                if tokens != expected:
                    if not (shape.drips and client.name == "ours" and 0 < tokens - expected <= self.fractions(shape, before)):
                        self.differ(f"{where} {name} of {client.label}", tokens, f"expected {expected}", before)
                    self.allow("fractions")
            if before is not None and all(moved) and self.crosses(shape, before):
                if shape.held(before, self.now) != shape.held(before, self.now, by_parts=True):
                    self.allow("rate before a change")

    def is_kept_expiry(self, before, new):
        """Whether ours has kept an expiry that is later than the one of now."""
        expiries = {client.name: number(item, "ttl") for client, item in zip(self.clients, new, strict=True)}
        kept = number(before, "ttl")
        return None not in (kept, *expiries.values()) and expiries.get("ours") == kept > expiries["theirs"]

    @staticmethod
    def is_refilled(shapes, wanted, before, item):
        """Whether more than a plain debit was written."""
        if before is None:
            return True
        for name in before.keys() | item.keys():
            limit, _, part = name.removeprefix("b_").rpartition("_")
            if name in PRIVATE or name.startswith("b_") and (limit not in shapes or part == "tc"):
                continue
            taken = wanted.get(limit, 0) * 1000 if part == "tk" else 0
            if taken:
                if number(item, name) != (number(before, name) or 0) - taken:
                    return True
            elif before.get(name) != item.get(name):
                return True
        return False

    def compare_effect(self, entity, resource, new):
        """Two items of a bucket by what they are worth once refilled."""
        where = f"bucket {entity}/{resource}"
        shapes = self.shapes(entity, resource)
        for name in [name for name in shapes if (f"b_{name}_tk" in new[0]) != (f"b_{name}_tk" in new[1])]:
            [item] = [item for item in new if f"b_{name}_tk" in item]
            self.same(f"{where} {name}, added", shapes[name].held(item, self.now), shapes[name].ceiling(self.now))
            self.allow("a limit added later")
            del shapes[name]
        apart = [*(f"b_{name}_tk" for name in shapes), "rf", "ttl", "vu"]
        if new[0]["rf"] != new[1]["rf"]:
            # The refill after a limit has become a quota adds what a quota has, and one after its reset takes away what was added.
            earlier = min(new, key=lambda item: number(item, "rf"))
            for name, shape in shapes.items():
                is_due = not shape.drips and f"b_{name}_tk" in earlier and shape.is_whole_again(earlier, self.now)
                apart += [part for part in (f"b_{name}_gc", f"b_{name}_tu") if is_due or any(part not in item for item in new)]
        self.compare_attributes(where, *new, apart=apart, shapes=shapes)
        for name, shape in shapes.items():
            if f"b_{name}_tk" not in new[0]:
                continue
            worth = [shape.held(item, self.now) for item in new]
            refilled_at = [item["rf"] for item in new]
            if refilled_at[0] != refilled_at[1]:
                self.allow("when a refill is written")
                if any(self.crosses(shape, item) for item in new):
                    self.allow("rate before a change")
                    continue
            if abs(worth[0] - worth[1]) > (2 if shape.drips else 0):
                self.differ(f"{where} {name}", *worth, *new)
            for item in new:
                # A clock that went back has not brought back what was in force before.
                at = max(self.now, number(item, "rf"))
                spendable = (number(item, "vu") or at + 1) > at
                if "vu" in item and number(item, "vu") == 0:
                    spendable = False
                if spendable and number(item, f"b_{name}_tk") > shape.most(item, at) and count_of(item) == 1:
                    self.differ(f"{where} {name} is above its capacity and may be spent", item)
        marks = [number(item, "vu") for item in new]
        if marks[0] != marks[1]:
            if 0 in marks:
                self.allow("vu of 0")
            elif new[0]["rf"] != new[1]["rf"]:
                self.allow("when a refill is written")
            else:
                self.differ(f"{where} vu", *marks)

    def end(self, leases, concerned, resource, wanted):
        """Ends the leases of both clients in one of the ways."""
        dice = self.dice
        how = dice.choice(["commit", "rollback", "rollback", "adjust", "adjust", "release"])
        name = dice.choice(sorted(wanted))
        if how == "release":
            by = {name: dice.randint(0, wanted[name])}
        else:
            by = {one: dice.randint(-wanted[one], wanted[one] + 5) for one in wanted if one == name or dice.random() < 0.5}

        def end(lease):
            if how in ("adjust", "release"):
                getattr(lease, how)(**by)
                lease.commit()
            else:
                getattr(lease, how)()

        _, outcomes = self.twin.do(dice, [lambda lease=lease: end(lease) for lease in leases])
        self.trail.append((shown(self.now), how, concerned, resource, by, wanted, *outcomes))
        self.same("end of a lease", *[outcome.kind for outcome in outcomes])
        return outcomes

    def finish(self):
        leases, concerned, resource, wanted, left = self.leases.pop(self.dice.randrange(len(self.leases)))
        found = {one: self.defaults_of(self.buckets().get((one, resource))) for one in concerned}
        if any(seen != found for seen, client in zip(left, self.clients, strict=True) if client.name == "theirs"):
            # The bucket that stayed is the other one's: such a lease gives back nothing of limits with schedules.
            return self.allow("whose schedule is the default")
        outcomes = self.end(leases, concerned, resource, wanted)
        if any(self.is_partly_out_of_sight(self.shapes(entity, resource)) for entity in concerned):
            self.allow("reset of a pattern beyond its search")
            self.keep_one(outcomes)
            return
        for entity in concerned:
            new = [self.buckets(outcome.items).get((entity, resource)) for outcome in outcomes]
            if (new[0] is None) != (new[1] is None):
                self.differ(f"bucket {entity}/{resource}", *new)
            if new[0] is not None:
                self.compare_effect(entity, resource, new)
        self.keep_one(outcomes)

    def look(self, entity, resource):
        if self.parent_of(entity, resource):
            return
        item = self.buckets().get((entity, resource))
        shapes = self.shapes(entity, resource)
        needed = self.amounts(entity, resource)
        actions = [lambda client=client: client.check(entity, resource, **needed) for client in self.clients]
        before, outcomes = self.twin.do(self.dice, actions)
        self.trail.append((shown(self.now), "look", entity, resource, needed, self.described(entity, resource), *outcomes))
        for outcome in outcomes:
            if outcome.kind != "admitted":
                self.differ("look", outcome)
            self.same("a look changes", before, outcome.items)
        found = [{status["limit_name"]: status for status in outcome.value} for outcome in outcomes]
        self.same("limits", *map(sorted, found))
        for name, shape in shapes.items():
            self.compare_statuses(shape, item, needed.get(name, 0), found[0][name], found[1][name], is_look=True)

    # --- Limits ---

    def change(self, what, key, call, shapes):
        """Limits are changed; `shapes` are those of the bucket that follows."""
        before, outcomes = self.twin.do(self.dice, [lambda client=client: call(client) for client in self.clients])
        self.trail.append((shown(self.now), what, key, *outcomes))
        self.same(what, *[outcome.kind for outcome in outcomes])
        if outcomes[0].kind != "admitted":
            self.differ(what, *outcomes)
        for place in outcomes[0].items.keys() | outcomes[1].items.keys():
            first, second = (outcome.items.get(place) for outcome in outcomes)
            if first is None or second is None:
                self.differ(f"{what}, item {place}", first, second)
            is_bucket = place[1] == "#STATE"
            if first != second:
                apart = {"updated_at", "updated_by"}
                self.compare_attributes(f"{what}, item {place}", first, second, apart, shapes if is_bucket else None)
        self.keep_one(outcomes)

    def change_own(self, entity, resource):
        made = limits(self.dice, self.kinds)
        self.change(
            "own limits",
            (entity, resource, made),
            lambda client: client.set_entity_limits(entity, resource, made),
            {one["name"]: Shape(one) for one in made},
        )
        self.own[entity, resource] = made
        self.forget_leases()

    def delete_own(self, entity, resource):
        if (entity, resource) not in self.own:
            return
        shapes = {one["name"]: Shape(one) for one in self.defaults[resource]}
        self.change("delete", (entity, resource), lambda client: client.delete_entity_limits(entity, resource), shapes)
        del self.own[entity, resource]
        self.forget_leases()

    def change_defaults(self, resource):
        made = limits(self.dice, self.kinds)
        shapes = {one["name"]: Shape(one) for one in made}
        self.change("default limits", (resource, made), lambda client: client.set_resource_defaults(resource, made), shapes)
        self.defaults[resource] = made
        # The original leaves live buckets under a changed default as they are until they expire.
        for entity, used in self.buckets():
            if used == resource and (entity, resource) not in self.own:
                self.drop(entity, resource)
        self.forget_leases()

    def forget_leases(self):
        """A lease of limits that were changed may end in either way."""
        self.leases.clear()


def versioned(world):
    """As on a stack whose functions are of the original's release, which newer shapes ask for."""
    world.dynamo.update_item(
        TableName=world.stack,
        Key={"PK": {"S": "_/SYSTEM#"}, "SK": {"S": "#VERSION"}},
        UpdateExpression="SET lambda_version = :v, client_min_version = :m",
        ExpressionAttributeValues={":v": {"S": "0.17.0"}, ":m": {"S": "0.0.0"}},
    )


def opened(world, which, label, namespace):
    caches = {"config_cache_ms": 0, "reject_cache_ms": 0} if which == "ours" else {"config_cache_ttl": 0, "rejection_cache_ttl": 0}
    client = world.open(which, namespace=namespace, now_ms=instant(STARTS[0]), **caches)
    client.label = label
    return client


def run(sequence, steps):
    for _ in range(steps):
        sequence.step()
    print(f"seed {sequence.seed}: {dict(sequence.counts)}, allowed {dict(sequence.allowed)}")


# Drips are made twice as often.
ALL = ["plain", "drip", "drip", "quota", "session", "soft"]
EXAMPLES = {
    "plain": [{"name": "rpm", "capacity": 5, "refill_amount": 5, "refill_period": 60}],
    "drip": [
        {"name": "rpm", "capacity": 5, "refill_amount": 5, "refill_period": 60, "schedule": [{"cron": "* 1 * * *", "tz": "UTC", "scale": 2}]}
    ],
    "quota": [{"name": "rpm", "capacity": 5, "reset_schedule": [{"cron": "0 0 * * *", "tz": "UTC"}]}],
    "session": [{"name": "rpm", "capacity": 5, "reset_after_seconds": 60}],
    "soft": [{"name": "rpm", "capacity": 5, "refill_amount": 5, "refill_period": 60, "soft": True}],
}


def supported(world, attempt):
    """The kinds of limits for which our library does not refuse an attempt as unsupported."""
    world.open("theirs")
    found = []
    for kind in ALL:
        versioned(world)
        theirs, ours = (opened(world, which, which, f"probe-{kind}") for which in ("theirs", "ours"))
        try:
            attempt(theirs, ours, EXAMPLES[kind])
            # A shape may demand clients that know it.
            opened(world, "ours", "ours", f"probe-{kind}")
        except Failed as err:
            assert err.kind in ("Unsupported", "VersionMismatch"), err
        else:
            found.append(kind)
    versioned(world)
    if len(found) < len(ALL):
        print(f"of {ALL}, our library supports {found}")
    return found


def originals(world, make=opened):
    """The original twice; `make` opens the second one."""
    world.open("theirs")
    versioned(world)
    return [opened(world, "theirs", "first", "both"), make(world, "theirs", "second", "both")]


@pytest.mark.parametrize("seed", SEEDS)
def test_both_clients_agree(world, seed, request):
    def attempt(theirs, ours, made):
        theirs.set_resource_defaults("gpt-4", made)
        ours.acquire("key-1", "gpt-4", rpm=1).commit()
        ours.set_resource_defaults("gpt-4", made)

    kinds = supported(world, attempt)
    clients = [opened(world, which, which, "both") for which in ("ours", "theirs")]
    # moto takes several times as long.
    run(Sequence(world, seed, clients, kinds), STEPS // 4 if "moto" in request.node.name else STEPS)


@ENGINE
def test_the_original_agrees_with_itself(world):
    """Which checks the arithmetic here, and that steps are comparable."""
    sequence = Sequence(world, SEEDS[0], originals(world), ALL)
    run(sequence, STEPS)
    assert not set(sequence.allowed) & {"fractions", "never"}


class Administrator:
    """The original, with limits set by our library."""

    name, label = "theirs", "ours sets limits"

    def __init__(self, world):
        self.ours, self.theirs = (opened(world, which, which, "both") for which in ("ours", "theirs"))
        self.namespace_id = self.theirs.namespace_id

    def __getattr__(self, name):
        return getattr(self.ours if "limits" in name or "defaults" in name else self.theirs, name)

    def _both(self, call, *arguments):
        for client in (self.ours, self.theirs):
            getattr(client, call)(*arguments)

    def set_clock(self, now_ms):
        self._both("set_clock", now_ms)

    def forget(self):
        self._both("forget")

    def settle(self):
        self._both("settle")


@ENGINE
def test_limits_are_stored_alike(world):
    """Limits of all shapes set by either, with live buckets of them."""
    kinds = supported(world, lambda theirs, ours, made: ours.set_resource_defaults("gpt-4", made))
    clients = [Administrator(world), opened(world, "theirs", "theirs", "both")]
    run(Sequence(world, SEEDS[-1], clients, kinds, limits_often=True), STEPS)


def late_resets(patch):
    """A reset is applied a millisecond after its instant."""
    for module in (zae_limiter.sync_limiter, zae_limiter.sync_lease):
        edge = module.prev_reset_edge
        patch.setattr(module, "prev_reset_edge", lambda resets, now, edge=edge: edge(resets, now - 1))


def unscheduled(patch):
    """A limit with a schedule is refilled by its own parameters."""
    patch.setattr(zae_limiter.models, "effective_params", lambda capacity, amount, period, *_: (capacity, amount, period))


def long_sessions(patch):
    """A session ends a millisecond late."""
    end = zae_limiter.models.BucketState.window_end_ms.fget
    patch.setattr(zae_limiter.models.BucketState, "window_end_ms", property(lambda state: end(state) and end(state) + 1))


def credits_across_resets(patch):
    """What was taken before a reset is paid back after it."""
    patch.setattr(zae_limiter.sync_lease, "next_reset_edge", lambda resets, now_ms: now_ms + 1000 * DAY)


# What finds each in few steps: a seed and the kinds of limits.
PLANTED = {late_resets: (1, ["quota", "soft"]), unscheduled: (1, ["drip"]), long_sessions: (1, ["session"]), credits_across_resets: (3, ["quota"])}


@ENGINE
@pytest.mark.parametrize("defect", PLANTED, ids=lambda one: one.__name__)
def test_a_planted_difference_is_found(world, defect):
    """With a defect in one of two, a sequence fails."""

    def defective(call):
        """A call with the defect; so are the calls of a lease that it returns."""

        def calls(*arguments, **options):
            with pytest.MonkeyPatch.context() as patch:
                defect(patch)
                found = call(*arguments, **options)
            if isinstance(found, TheirLease):
                for name in ("adjust", "release", "commit", "rollback"):
                    setattr(found, name, defective(getattr(found, name)))
            return found

        return calls

    class Defective(Theirs):
        def __getattribute__(self, name):
            found = super().__getattribute__(name)
            return defective(found) if name in ("acquire", "check") else found

    def make(world, which, label, namespace):
        client = Defective(world.endpoint, world.stack, namespace, instant(STARTS[0]), config_cache_ttl=0, rejection_cache_ttl=0)
        client.label = label
        world.clients.append(client)
        return client

    seed, kinds = PLANTED[defect]
    sequence = Sequence(world, seed, originals(world, make), kinds, ["plain-1"], ["gpt-4"])
    with pytest.raises(Difference) as found:
        run(sequence, 1000)
    print(f"after {dict(sequence.counts)}: {str(found.value).splitlines()[0]}")
