"""Random sequences of `test_shapes.py` with what an operator does in between: access, cascades, parents, resets and top-ups."""

from test_shapes import Sequence, number

# Each takes half a second of ours, which looks at live buckets twice.
SHARE = 0.06

# Of operations' records and events, what differs from run to run.
RANDOM = {"writer", "event_id", "created_at", "updated_at", "updated_by", "timestamp", "principal"}

# By what operations may differ, and why.
ALLOWED = {
    "a level that says nothing": "when the last flag of a level without limits is taken away, ours removes its item and its entry in the"
    " registries, the original keeps them.",
    "version of a flag": "ours counts each change of a level, the original those of limits only.",
    "debit before a bypass is known": "a client that does not know of a bypass debits. The original gives that back at once, ours with"
    " the next refill.",
    "fraction of a reset": "what is given back is told in whole tokens, and earned by the rule of each client; within the millisecond of the last"
    " refill ours computes for the next one.",
    "limits of a bypassed bucket": "the original refuses requests under a bypass on a bucket that a configured limit is missing from, as it"
    " stamps the bucket and then adds the limit on condition that there is no stamp.",
    "a limit added by an operation": "ours adds limits that are missing from a bucket when it resets it, the original with the next"
    " refill.",
}


class Mixed(Sequence):
    """A random sequence with operations."""

    def __init__(self, world, seed, clients, kinds, **more):
        self.access, self.policies, self.parents, self.orders = {}, {}, {"child-1": "proj-1"}, 0
        clients[0].create_entity("proj-2")
        super().__init__(world, seed, clients, kinds, **more)

    def reasons(self):
        return {**super().reasons(), **ALLOWED}

    def step(self):
        if self.dice.random() >= SHARE:
            return super().step()
        self.advance()
        what = self.dice.choices(["access", "cascade", "parent", "reset", "top-up"], [2, 1, 1, 4, 4])[0]
        self.counts[what] += 1
        getattr(self, "operate_" + what.replace("-", "_"))(self.dice.choice(self.resources))

    # --- What is configured ---

    def found(self, flags, entity, resource):
        """The first flag that is set, from the entity's level to the resource's."""
        levels = [(entity, resource), (entity, "_default_"), (None, resource)]
        return next((flags[level] for level in levels if level in flags), None)

    def state(self, entity, resource):
        return self.found(self.access, entity, resource)

    def parent_of(self, entity, resource):
        parent = self.parents.get(entity)
        return parent if parent and self.found(self.policies, entity, resource) is not False else None

    def level(self, resource):
        """An entity's level for the resource, that for all, or the resource's."""
        return self.dice.choice([(None, resource), *((one, scope) for one in self.entities for scope in (resource, "_default_"))])

    # --- Operations ---

    def operate(self, what, key, call):
        """Both do it from the same items; returns the outcomes, of the same kind, and compares all items but buckets."""
        before, outcomes = self.twin.do(self.dice, [lambda client=client: call(client) for client in self.clients])
        self.trail.append((self.now, what, key, *outcomes, *[outcome.value for outcome in outcomes]))
        self.same(what, *[outcome.kind for outcome in outcomes])
        for place in outcomes[0].items.keys() | outcomes[1].items.keys():
            first, second = (outcome.items.get(place) for outcome in outcomes)
            if place[1].startswith(("#CONFIG", "#ENTITY_CONFIG_RESOURCES")) and first != second and self.says_nothing(outcomes):
                self.allow("a level that says nothing")
                continue
            if first is None or second is None:
                self.differ(f"{what}, item {place}", first, second)
            if place[1] != "#STATE" and first != second:
                if first.get("config_version") != second.get("config_version"):
                    self.allow("version of a flag")
                self.compare_attributes(f"{what}, item {place}", first, second, RANDOM | {"amounts", "config_version"})
        return self.buckets(before), outcomes

    @staticmethod
    def says_nothing(outcomes):
        """Whether one outcome has an item of a level without limits and flags that the other has not."""
        first, second = ({place for place in outcome.items if place[1].startswith("#CONFIG")} for outcome in outcomes)
        left = [outcome.items[place] for place in first ^ second for outcome in outcomes if place in outcome.items]
        said = [name for item in left for name in item if name.startswith(("l_", "w_")) or name in ("disabled", "cascade")]
        return bool(left) and not said

    def flags(self, what, key, call):
        """Flags and parents: buckets are the same but for the deadlines of stamps."""
        old, outcomes = self.operate(what, key, call)
        if outcomes[0].kind != "admitted":
            self.differ(what, *outcomes)
        first, second = (self.buckets(outcome.items) for outcome in outcomes)
        for (entity, resource), item in first.items():
            other = second[entity, resource]
            for name in ("bypass", "disabled"):
                self.same(f"{what}, {entity}/{resource} {name}", name in item, name in other)
            shapes = self.shapes(entity, resource)
            self.compare_attributes(f"{what}, {entity}/{resource}", item, other, {"bypass"}, shapes, before=old.get((entity, resource)))
        self.keep_one(outcomes)

    @staticmethod
    def put(flags, level, value):
        if value is None:
            flags.pop(level, None)
        else:
            flags[level] = value

    def operate_access(self, resource):
        level = self.level(resource)
        if level in self.access and self.dice.random() < 0.7:
            access = None
        else:
            access = self.dice.choice(["disable", "enable", "bypass", "bypass", None])
        self.flags("access", (level, access), lambda client: client.set_access(*level, access))
        self.put(self.access, level, access)

    def operate_cascade(self, resource):
        level, cascade = self.level(resource), self.dice.choice([True, False, None, None])
        self.flags("cascade", (level, cascade), lambda client: client.set_cascade(*level, cascade))
        self.put(self.policies, level, cascade)

    def operate_parent(self, resource):
        parent = self.dice.choice(["proj-1", "proj-1", "proj-2", None])
        self.flags("parent", parent, lambda client: client.set_parent("child-1", parent))
        self.parents["child-1"] = parent
        # What a lease gives back to a parent that it was not taken from is compared by other tests.
        self.forget_leases()

    def operate_reset(self, resource):
        entity, dice = dice_of(self), self.dice
        names = sorted(self.shapes(entity, resource))
        named = [] if dice.random() < 0.5 else dice.sample(names, dice.randint(1, len(names)))
        key = self.key()
        self.moved("reset", entity, resource, named or names, lambda client: client.reset_bucket(entity, resource, named, key))

    def operate_top_up(self, resource):
        entity, dice = dice_of(self), self.dice
        names = sorted(self.shapes(entity, resource))
        amounts = {name: dice.choice([1, 1, 7, 100]) for name in dice.sample(names, dice.randint(1, len(names)))}
        key = self.key()
        self.moved("top-up", entity, resource, list(amounts), lambda client: client.top_up(entity, resource, amounts, key))

    def key(self):
        """Of a new operation."""
        self.orders += 1
        return f"order-{self.seed}-{self.orders}"

    def moved(self, what, entity, resource, named, call):
        """Balances were moved: each by the client's own arithmetic."""
        old, outcomes = self.operate(what, (entity, resource, named, self.described(entity, resource)), call)
        before, shapes = old.get((entity, resource)), self.shapes(entity, resource)
        if outcomes[0].kind == "failed":
            self.same(f"{what} fails", *[outcome.value.kind for outcome in outcomes])
            self.keep_one(outcomes)
            return
        new = [self.buckets(outcome.items).get((entity, resource)) for outcome in outcomes]
        told = [outcome.value for outcome in outcomes]
        self.same(f"{what} shards", told[0][0], told[1][0])
        self.same(f"{what} limits", sorted(told[0][1]), sorted(told[1][1]))
        if (new[0] is None) != (new[1] is None):
            self.differ(f"{what}, bucket", *new)
        if new[0] is None:
            self.same(f"{what} of nothing", told[0][1], told[1][1])
        else:
            self.compare_moved(what, shapes, before, new, told, f"{what} {entity}/{resource}")
        self.keep_one(outcomes)

    def compare_moved(self, what, shapes, before, new, told, where):
        shapes = dict(shapes)
        for name in [name for name in shapes if (f"b_{name}_tk" in new[0]) != (f"b_{name}_tk" in new[1])]:
            self.allow("a limit added by an operation")
            del shapes[name]
        apart = {f"b_{name}_tk" for name in shapes} | {"bypass"}
        if before is not None and self.is_kept_expiry(before, new):
            self.allow("expiry by a clock that went back")
            apart.add("ttl")
        if self.now % 1000 == 999 and new[0].get("ttl") != new[1].get("ttl"):
            # The next millisecond is in the next second.
            self.allow("fraction of a reset")
            apart.add("ttl")
        if before is not None and number(before, "rf") > self.now + 5000:
            self.allow("instant of a wrong clock")
            apart |= {"rf", "ttl", "vu"}
        self.compare_attributes(where, *new, apart, shapes, before=(before, *new))
        for name, shape in shapes.items():
            tokens = [number(item, f"b_{name}_tk") for item in new]
            if None in tokens:
                # Not on the bucket yet, in either outcome.
                self.same(f"{where} {name}", *tokens)
                continue
            restored = [amounts.get(name, 0) for _, amounts in told]
            # A top-up is in whole tokens, so that a fraction can make a difference of one.
            earned = [held - granted * 1000 * (what == "top-up") for held, granted in zip(tokens, restored, strict=True)]
            if tokens[0] == tokens[1] and restored[0] == restored[1]:
                continue
            if shape.session and restored[0] == restored[1] and shape.is_whole_again(before, self.now):
                # Its next use fills it, whatever it holds.
                self.allow("a session that has not begun")
            elif self.crosses(shape, before) and shape.held(before, self.now) != shape.held(before, self.now, by_parts=True):
                self.allow("rate before a change")
            elif shape.drips and abs(earned[0] - earned[1]) <= 2 + self.a_millisecond(shape) and abs(restored[0] - restored[1]) <= 1:
                self.allow("fraction of a reset")
            else:
                self.differ(f"{where} {name}", *tokens, *restored, before)

    def a_millisecond(self, shape):
        """What a limit earns in a millisecond."""
        _, amount, period = shape.params(self.now)
        return amount // period

    # --- What others do then ---

    def delete_own(self, entity, resource):
        """The original takes the flags of a level away with its limits, ours keeps them."""
        if (entity, resource) not in self.access and (entity, resource) not in self.policies:
            super().delete_own(entity, resource)

    def look(self, entity, resource):
        """Ours tells what is disabled, and looks at the configuration for a bypass."""
        if self.state(entity, resource) in (None, "enable"):
            super().look(entity, resource)

    def compare_failures(self, concerned, resource, outcomes):
        super().compare_failures(concerned, resource, outcomes)
        states = [self.state(one, resource) for one in (concerned[0], self.parent_of(concerned[0], resource)) if one]
        self.same("disabled", "disable" in states, outcomes[0].value.kind == "Disabled")

    def compare_admitted(self, entity, resource, wanted, before, outcomes):
        if self.state(entity, resource) != "bypass":
            super().compare_admitted(entity, resource, wanted, before, outcomes)
            return
        # A lease that began under a bypass counts, also when that has ended.
        for client, outcome in zip(self.clients, outcomes, strict=True):
            item = self.buckets(outcome.items).get((entity, resource))
            for name, amount in wanted.items():
                if name not in self.shapes(entity, resource) or before is None or f"b_{name}_tk" not in before:
                    continue
                counted = number(item, f"b_{name}_tc") - number(before, f"b_{name}_tc")
                self.same(f"{entity}/{resource} {name} counted by {client.label}", counted, amount * 1000)
                tokens, shape = number(item, f"b_{name}_tk"), self.shapes(entity, resource)[name]
                held = [number(before, f"b_{name}_tk"), *(shape.held(before, self.now, by_parts=parts) for parts in (True, False))]
                near = [min(abs(tokens + taken - one) for one in held) for taken in (0, amount * 1000)]
                if min(near) > self.fractions(shape, before):
                    self.differ(f"{entity}/{resource} {name} of {client.label}", tokens, f"expected one of {held}, or {amount} less", before)
                elif near[1] < near[0]:
                    self.allow("debit before a bypass is known")

    def decisions_differ(self, concerned, resource, wanted, old):
        for one in concerned:
            item = old.get((one, resource))
            missing = [name for name in self.shapes(one, resource) if item is not None and f"b_{name}_tk" not in item]
            if self.state(one, resource) == "bypass" and missing:
                return self.allow("limits of a bypassed bucket")
        super().decisions_differ(concerned, resource, wanted, old)

    def keeps_lease(self, concerned, resource):
        return all(self.state(one, resource) != "bypass" for one in concerned)


def dice_of(sequence):
    """An entity at random, parents too."""
    return sequence.dice.choice([*sequence.entities, "proj-1"])
