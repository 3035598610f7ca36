"""Random sequences of `test_shapes.py` on buckets of several shards.

The shard of a request is drawn by both clients from one number that a step prescribes. Buckets are split as each client does it:
a step takes the write units of some shards away, so that the next acquire finds them used up, or raises the count as the original
does. The two may then take from different shards, so the outcome of each is first compared with the arithmetic of its own rules,
shard by shard; what both did alike must be equal.
"""

from bridge import Failed, Refused
from shapes import DAY, count_of
from test_shapes import Sequence, number, shown

# A bucket has so many shards at most.
MOST = 8

# By what shards may differ, and why.
ALLOWED = {
    "several shards at once": "a request that no shard covers ours takes from several, the original refuses it.",
    "another shard": "the shard that was drawn does not cover the request. Ours tries two others with what they hold once they are"
    " refilled, and then all; the original others as they stand, and none for an entity that cascades.",
    "a new shard": "the original gives a new shard a full share, ours what others hold beyond theirs. Of a quota the original moves a"
    " part to a new shard, which so is not in debt; ours makes do with the shards that there are.",
    "a split": "the original doubles as soon as a shard has no write units left, ours once no other shard that it tries has any, and"
    " only as far as each share is a token and covers the request.",
    "limits that a split bucket lacks": "where shards have no balance of a limit that was set later, the original can refuse with a wait"
    " of a millisecond, as if it had lost a race. Where an entity above has the limit, it can give a shard the whole limit.",
    "a session that one begins": "if ours takes from another shard, or adds a session limit to a shard later, only one of the two begins"
    " a session by a step, and tells the other shards.",
    "mark of a session": "what a shard had counted when another shard began a session ours removes once it has applied the session, the"
    " original leaves it there until the next session begins.",
    "a refill that is lost": "if a refill of an entity that cascades is refused, because a count was raised, the original takes from the"
    " balance as it stands, also beyond `vu`. The balance is compared.",
    "expiry of the first shard": "ours lets the first shard of a split bucket not expire: it has the count.",
}


class Sharded(Sequence):
    """A random sequence on split buckets."""

    def __init__(self, world, seed, clients, kinds, **more):
        self.drawn = 0
        super().__init__(world, seed, clients, kinds, **more)

    def reasons(self):
        return {**super().reasons(), **ALLOWED}

    # --- What is stored ---

    def shards(self, items=None):
        """Shards by number, by entity and resource."""
        items = self.twin.state if items is None else items
        found = {}
        for (pk, sk), item in sorted(items.items(), key=lambda one: one[0]):
            if sk == "#STATE" and "/BUCKET#" in pk:
                bucket = found.setdefault((item["entity_id"]["S"], item["resource"]["S"]), {})
                bucket[int(pk.rpartition("#")[2])] = item
        return found

    def buckets(self, items=None):
        """The first shard of each bucket, of those that there are."""
        return {key: shards[min(shards)] for key, shards in self.shards(items).items()}

    def key_of(self, entity, resource, shard):
        return f"{self.namespace_id}/BUCKET#{entity}#{resource}#{shard}", "#STATE"

    def drop(self, entity, resource):
        self.leases = [lease for lease in self.leases if entity not in lease[1] or resource != lease[2]]
        for shard in self.shards().get((entity, resource), ()):
            self.twin.remove(self.key_of(entity, resource, shard))

    def set_parts(self, entity, resource, shard, **parts):
        """Changes numbers of a shard, as something else than the clients does."""
        item = dict(self.twin.state[self.key_of(entity, resource, shard)])
        item.update({name: {"N": str(value)} for name, value in parts.items()})
        self.twin.keep({**self.twin.state, self.key_of(entity, resource, shard): item})

    # --- Operations ---

    def step(self):
        self.drawn = self.dice.randrange(840)
        for client in self.clients:
            client.set_draw(self.drawn)
        if self.dice.random() < 0.04:
            self.split(self.dice.choice([*self.entities, "proj-1"]), self.dice.choice(self.resources))
        super().step()

    def split(self, entity, resource):
        """Raises the count, without new shards, as the original does first."""
        shards = self.shards().get((entity, resource))
        if not shards or 0 not in shards or count_of(shards[0]) >= MOST:
            return
        self.counts["split"] += 1
        theirs = next(client for client in self.clients if client.name == "theirs")
        theirs.repo.bump_shard_count(entity, resource, count_of(shards[0]))
        self.twin.state = self.twin._read()
        self.forget_leases()
        self.trail.append((shown(self.now), "split", entity, resource))

    def dry(self, entity, resource):
        """Takes the write units of some shards, or of all."""
        shards = self.shards().get((entity, resource), {})
        if not shards or max(map(count_of, shards.values())) >= MOST or self.dice.random() > 0.12:
            return
        which = list(shards) if self.dice.random() < 0.5 else self.dice.sample(sorted(shards), self.dice.randint(1, len(shards)))
        for shard in which:
            elapsed = max(0, self.now - number(shards[shard], "rf"))
            self.set_parts(entity, resource, shard, b_wcu_tk=-1000 * elapsed)
        self.counts["dry"] += 1
        self.trail.append((shown(self.now), "dry", entity, resource, which))

    def know(self, entity, resource, warm):
        """Has both clients know how many shards there are, or neither."""
        counts = {one: max(map(count_of, shards.values())) for (one, used), shards in self.shards().items() if used == resource}
        for client in self.clients:
            if client.name == "theirs":
                client.repo._entity_cache.clear()
                client.repo._cascade_cache.clear()
                client.repo._owner_stamp_cache.clear()
                if warm:
                    for one, count in counts.items():
                        parent = self.parent_of(one, resource)
                        client.repo._entity_cache[client.namespace_id, one] = (parent is not None, parent, {resource: count})

    def amounts(self, entity, resource):
        """As on one shard, and what all shards hold together."""
        dice, shards = self.dice, self.shards().get((entity, resource), {})
        shapes, wanted = self.shapes(entity, resource), {}
        for name in dice.sample(sorted(shapes), dice.randint(1, len(shapes))):
            shape = shapes[name]
            held = {shard: max(0, shape.held(item, self.now) // 1000) for shard, item in shards.items()}
            one = dice.choice(sorted(held.values())) if held else shape.ceiling(self.now) // 1000
            both = sum(held.values())
            most = max(shape.capacities) // 1000
            few = [0, 1, 1, 1, dice.randint(0, max(1, one // 4)), dice.randint(0, max(1, one // 4)), one, one + 1]
            wanted[name] = dice.choice([*few, dice.randint(0, one + 1), both, both + 1, dice.randint(0, both), most + 1])
        return wanted

    def acquire(self, entity, resource):
        wanted = self.amounts(entity, resource)
        warm = self.dice.random() < 0.75
        self.dry(entity, resource)
        self.know(entity, resource, warm)
        state = self.twin.state

        def act(client):
            if client.name == "ours" and warm:
                self.prime(client, entity, resource, wanted, state)
            return client.acquire(entity, resource, **wanted)

        before, outcomes = self.twin.do(self.dice, [lambda client=client: act(client) for client in self.clients])
        what = "acquire, warm" if warm else "acquire"
        self.trail.append((shown(self.now), what, self.drawn, entity, resource, wanted, self.described(entity, resource), *outcomes))
        concerned = [entity]
        parent = self.parent_of(entity, resource)
        if parent:
            if self.shapes(parent, resource).keys() & wanted.keys():
                concerned.append(parent)
            else:
                self.allow("a parent without the limits asked for")
        kinds = [outcome.kind for outcome in outcomes]
        self.counts["/".join(kinds)] += 1
        old = self.shards(before)
        if "failed" in kinds:
            self.compare_failures(concerned, resource, outcomes)
        taken = [{one: self.account(outcome, one, resource, wanted, old) for one in concerned} for outcome in outcomes]
        if "failed" not in kinds:
            for outcome in outcomes:
                if outcome.client.name == "ours" and outcome.kind == "refused" and self.serves(concerned, resource, wanted, old):
                    self.differ("ours refuses what the shards hold", old, outcome)
            if kinds[0] != kinds[1]:
                self.decisions_differ(concerned, resource, wanted, old, outcomes, taken)
            elif kinds[0] == "refused":
                self.retry(entity, resource, wanted, outcomes)
            for one in concerned:
                self.compare_shards(one, resource, old.get((one, resource), {}), outcomes, [of[one] for of in taken])
        kept = self.keep_one(outcomes)
        granted = [outcome for outcome in outcomes if outcome.kind == "admitted"]
        # A lease of nothing does not tell the shard that it belongs to.
        if len(granted) == 2 and taken[0] == taken[1] and all(taken[0].values()) and self.keeps_lease(concerned, resource):
            self.keep_leases(concerned, resource, wanted, old, outcomes)
        elif len(granted) == 1:
            self.twin.keep(next(outcome for outcome in outcomes if outcome is not granted[0]).items)
        return kept

    def keep_leases(self, concerned, resource, wanted, old, outcomes):
        """Keeps the leases of an acquire, unless their ends may differ, as `acquire` of a single shard has it."""
        for one in concerned:
            before = old.get((one, resource), {})
            if any(self.shards(outcome.items).get((one, resource), {}).keys() != before.keys() for outcome in outcomes):
                return
            shapes = {name: shape for name, shape in self.shapes(one, resource).items() if name in wanted}
            added = [name for name, shape in shapes.items() if not shape.drips and any(f"b_{name}_tk" not in item for item in before.values())]
            if added:
                return self.allow("a refund of what was added")
            if self.is_partly_out_of_sight(shapes):
                return self.allow("reset of a pattern beyond its search")
        left = [self.all_defaults(concerned, resource, outcome.items) for outcome in outcomes]
        self.leases.append(([outcome.value for outcome in outcomes], concerned, resource, wanted, left))
        if len(self.leases) > 6:
            self.leases.pop(0)

    def all_defaults(self, concerned, resource, items=None):
        found = self.shards(items)
        return {(one, shard): self.defaults_of(item) for one in concerned for shard, item in found.get((one, resource), {}).items()}

    def prime(self, client, entity, resource, wanted, state):
        """Has our client see the counts of shards."""
        client.set_draw(0)
        try:
            client.acquire(entity, resource, **dict.fromkeys(wanted, 0)).commit()
        except (Refused, Failed):
            pass
        client.settle()
        client.set_draw(self.drawn)
        self.twin.state = self.twin._read()
        self.twin.keep(state)

    # --- One client's outcome ---

    def account(self, outcome, entity, resource, wanted, old):
        """Compares an outcome with the arithmetic of the client that made it; returns what was taken, by shard and limit."""
        client, shapes = outcome.client, self.shapes(entity, resource)
        before, after = old.get((entity, resource), {}), self.shards(outcome.items).get((entity, resource), {})
        ours = client.name == "ours"
        where = f"{entity}/{resource} of {client.label}"
        if before.keys() - after.keys():
            self.differ(f"{where} lacks shards", sorted(before), sorted(after))
        taken = {}
        for name, shape in shapes.items():
            by_shard, totals, bound = {}, [0, 0], 0
            for shard, item in after.items():
                then = before.get(shard)
                if shape.value(item, "tk") is None:
                    continue
                known = then is not None and shape.value(then, "tk") is not None
                part = shape.value(item, "tc") - (shape.value(then, "tc") if known else 0)
                if part:
                    by_shard[shard] = part
                left = shape.value(item, "tk") + part
                totals[1] += left
                if known:
                    totals[0] += shape.value(then, "tk")
                expected = self.expected(shape, then, item, ours) if known else [shape.ceiling(self.now) // count_of(item)]
                slack = self.fractions(shape, then) if known and ours and shape.drips else 0
                if not known and not shape.drips and 0 <= left <= expected[0]:
                    # Moved from another shard.
                    continue
                if not ours and then is not None and not known and shape.drips and left == shape.ceiling(self.now):
                    self.allow("limits that a split bucket lacks")
                    expected.append(left)
                if not any(0 <= left - one <= slack for one in expected):
                    # Not where ours has created shards, whose sum is compared, or the original has moved a part of a quota.
                    if after.keys() == before.keys() or not (ours or known and not shape.drips):
                        self.differ(f"{where} shard {shard} {name}", left, f"expected one of {expected}", then, item)
                if by_shard.get(shard) and not shape.soft and shape.value(item, "tk") < -len(after):
                    self.differ(f"{where} shard {shard} {name} is overdrawn", shape.value(item, "tk"), then)
            wants = wanted.get(name, 0) * 1000 if outcome.kind == "admitted" else 0
            if sum(by_shard.values()) != wants and not (not after and not wants):
                self.differ(f"{where} {name} taken", by_shard, wants)
            if by_shard:
                taken[name] = by_shard
            complete = all(shape.value(item, "tk") is not None for item in after.values())
            if ours and shape.drips and before and after.keys() != before.keys() and complete:
                self.compare_totals(f"{where} {name}", shape, before, after, totals[1])
        return taken

    def compare_totals(self, where, shape, before, after, left):
        """Where ours has created shards: they hold no more than was there and earned, and nothing below their shares is lost."""
        known = [item for item in before.values() if shape.value(item, "tk") is not None]
        if len(known) < len(before):
            return
        since = min(number(item, "rf") for item in known)
        terms = [shape.params(self.now), *(shape.params(at - 1) for at in shape.changes(since, self.now))]
        earned = max(amount * max(0, self.now - since) // period for _, amount, period in terms)
        most = sum(shape.value(item, "tk") for item in known) + earned
        share = min(capacity for capacity, _, _ in terms) // max(map(count_of, after.values()))
        least = sum(min(shape.value(item, "tk"), share) for item in known)
        if not least <= left <= most + len(after):
            self.differ(f"{where} of all shards", left, f"expected {least} to {most}", before, after)

    def serves(self, concerned, resource, wanted, old):
        """Whether the shards hold together what is asked for, by our arithmetic."""
        for one in concerned:
            shards = old.get((one, resource), {})
            for name, shape in self.shapes(one, resource).items():
                if name not in wanted or shape.soft:
                    continue
                if not shards:
                    if shape.ceiling(self.now) < wanted[name] * 1000:
                        return False
                    continue
                named = self.shapes(one, resource).values()
                quotas = any(not of.drips and of.value(item, "tk") is not None for of in named for item in shards.values())
                if quotas or any(shape.value(item, "tk") is None for item in shards.values()):
                    # A bucket with quotas that are named is not looked at as a whole.
                    return False
                count = max(map(count_of, shards.values()))
                held = sum(max(0, shape.held(item, self.now, by_parts=True, count=count)) for item in shards.values())
                if held < max(1, wanted[name] * 1000) + 1:
                    return False
        return True

    def expected(self, shape, then, item, ours):
        """What a shard may hold before what was taken: as it stood, or refilled as one of so many as it was or is."""
        counts = {count_of(then), count_of(item)}
        return [shape.value(then, "tk"), *(shape.held(then, self.now, by_parts=ours, count=count) for count in counts)]

    # --- Both outcomes ---

    def compare_shards(self, entity, resource, before, outcomes, taken):
        """What both did to the same shards in the same way."""
        new = [self.shards(outcome.items).get((entity, resource), {}) for outcome in outcomes]
        for shard in new[0].keys() & new[1].keys():
            items, then = [of[shard] for of in new], before.get(shard)
            counts = {count_of(item) for item in (*items, then or items[0])}
            parts = [{name: of[name][shard] for name in of if shard in of[name]} for of in taken]
            told = [self.informed(self.shapes(entity, resource), then, of, shard) for of in new]
            if told[0] != told[1]:
                self.allow("a session that one begins")
            elif parts[0] != parts[1]:
                self.allow("another shard")
            elif then is not None and then in items:
                # Left alone by one of the two: what the other did is in its account.
                if items[0] != items[1]:
                    self.allow("when a refill is written")
            elif then is None:
                where = f"new shard {shard} of {entity}/{resource}"
                shapes = self.shapes(entity, resource)
                apart = self.apart_of_new(entity, resource)
                relatives = {shard % (1 << bits) for bits in range(shard.bit_length())}
                for name in list(shapes):
                    # A new shard of ours has the rates of those that it descends from, and gains all else later.
                    held = shapes[name].drips and any(f"b_{name}_tk" in before[one] for one in relatives & before.keys())
                    if shard and not held and any(f"b_{name}_tk" not in item for item in items):
                        self.allow("a limit added later")
                        apart.add("sched_tz")
                        del shapes[name]
                self.compare_attributes(where, *items, apart, shapes)
            elif len(counts) > 1 or new[0].keys() != new[1].keys():
                self.allow("a split")
            elif outcomes[0].kind == "refused":
                # As `compare_refusals` has it.
                self.compare_effect(entity, resource, items)
            else:
                self.compare_touched(f"shard {shard} of {entity}/{resource}", entity, resource, parts[0], then, items)

    def informed(self, shapes, then, shards, shard):
        """The sessions that a shard was told of, if nothing else has happened to it. Another shard has begun each of them now."""
        item = shards[shard]
        changed = {name for name in {**(then or {}), **item} if then and then.get(name) != item.get(name)}
        names = {name for name, shape in shapes.items() if shape.session and f"b_{name}_ws" in changed}
        if not changed <= {"vu", *(f"b_{name}_{part}" for name in names for part in ("ws", "rsa", "wtc"))}:
            return set()
        for name in names:
            others = [other for at, other in shards.items() if at != shard]
            begun = [other for other in others if all(number(other, f"b_{name}_{part}") == self.now for part in ("ws", "wa"))]
            if not begun:
                self.differ(f"shard {shard} is told of a session of {name}", then, item, shards)
        return names

    def compare_touched(self, where, entity, resource, taken, then, items):
        """A shard that both have written."""
        shapes = {name: shape for name, shape in self.shapes(entity, resource).items() if any(f"b_{name}_tk" in item for item in items)}
        wanted = {name: amount / 1000 for name, amount in taken.items()}
        kinds = [
            "debit" if not self.is_refilled(shapes, wanted, then, item) else "refill" if item["rf"] != then["rf"] else "mark" for item in items
        ]
        for name in [name for name, shape in shapes.items() if shape.drips and f"b_{name}_tk" not in then]:
            held = [number(item, f"b_{name}_tk") for item in items]
            if self.clients[0].name != self.clients[1].name and shapes[name].ceiling(self.now) - taken.get(name, 0) in held:
                self.allow("limits that a split bucket lacks")
                del shapes[name]
        if "mark" not in kinds:
            self.compare_debited(where, shapes, wanted, then, items)
        elif kinds[0] == kinds[1]:
            self.compare_attributes(where, *items, [f"b_{name}_tk" for name in shapes], shapes, before=(then, *items))
        else:
            self.allow("when a refill is written")

    def may_lose_refills(self, client, item):
        if client.name == "theirs" and count_of(item) > 1 and item.get("parent_id"):
            self.allow("a refill that is lost")
            return True
        return False

    def apart_of_new(self, entity, resource):
        return {"rf", "ttl", "vu", *(f"b_{name}_{part}" for name in self.shapes(entity, resource) for part in ("tk", "tc"))}

    def compare_attributes(self, where, first, second, apart=(), shapes=None, before=None):
        items = {client.name: item for client, item in zip(self.clients, (first, second), strict=True)}
        if "ours" in items and "shard_count" in first and first["PK"]["S"].endswith("#0") and count_of(items["ours"]) > 1:
            if "ttl" not in items["ours"] and "ttl" in items["theirs"] and "ttl" not in apart:
                self.allow("expiry of the first shard")
                apart = {*apart, "ttl"}
        for name in items["theirs"].keys() - items["ours"].keys() if "ours" in items else ():
            part = name.removesuffix("wtc")
            if name.endswith("_wtc") and all(part + "ws" in item and item[part + "ws"] == item.get(part + "wa") for item in items.values()):
                self.allow("mark of a session")
                apart = {*apart, name}
        super().compare_attributes(where, first, second, apart, shapes, before)

    def decisions_differ(self, concerned, resource, wanted, old, outcomes, taken):
        names = [outcome.client.name for outcome in outcomes]
        if names[0] == names[1]:
            self.differ("one is admitted")
        ours = names.index("ours")
        theirs = 1 - ours
        if outcomes[ours].kind == "admitted":
            if any(len(by_shard) > 1 for of in taken[ours].values() for by_shard in of.values()):
                return self.allow("several shards at once")
            if any(self.is_low(one, resource, wanted, old) for one in concerned):
                return self.allow("another shard")
            if outcomes[theirs].value.retry_after == 0.001 and any(self.lacks_limits(one, resource, old) for one in concerned):
                return self.allow("limits that a split bucket lacks")
            for one in concerned:
                counts = [max(map(count_of, of.get((one, resource), {}).values()), default=1) for of in (old, self.shards(outcomes[theirs].items))]
                if counts[0] < counts[1]:
                    return self.allow("a split")
        else:
            for one in concerned:
                if self.shards(outcomes[theirs].items).get((one, resource), {}).keys() - old.get((one, resource), {}).keys():
                    return self.allow("a new shard")
        for one in concerned:
            for shard, item in old.get((one, resource), {}).items():
                for name, shape in self.shapes(one, resource).items():
                    if name not in wanted or shape.soft:
                        continue
                    need = wanted[name] * 1000
                    flat, parts = shape.held(item, self.now), shape.held(item, self.now, by_parts=True)
                    if self.crosses(shape, item) and (flat >= need) != (parts + self.fractions(shape, item) >= need):
                        return self.allow("rate before a change")
                    if shape.drips and abs(flat - need) <= 1:
                        return self.allow("fractions")
        for parent in filter(None, [self.parent_of(one, resource) for one in concerned]):
            held, named = old.get((parent, resource), {}).values(), self.shapes(parent, resource)
            if any(f"b_{name}_tk" in item and name not in named for name in wanted for item in held):
                return self.allow("limits that are no longer named")
        self.differ("one is admitted", names, taken, old)

    def is_low(self, entity, resource, wanted, old):
        """Whether the shard that the original draws does not cover a request, or would not if it were created."""
        shards = old.get((entity, resource), {})
        count = max(map(count_of, shards.values()), default=1)
        for name, amount in wanted.items():
            shape = self.shapes(entity, resource).get(name)
            for drawn in (self.drawn % count, 0) if shape else ():
                item = shards.get(drawn)
                if (shape.held(item, self.now) if item else shape.ceiling(self.now) // count) < amount * 1000:
                    return True
        return False

    def lacks_limits(self, entity, resource, old):
        """Whether shards of a split bucket have no balance of a limit of its level."""
        shards = old.get((entity, resource), {})
        missing = any(f"b_{name}_tk" not in item for name in self.shapes(entity, resource) for item in shards.values())
        return missing and max(map(count_of, shards.values())) > 1

    def retry(self, entity, resource, wanted, outcomes):
        """After the wait that ours tells, ours admits the request, and not before."""
        for outcome in outcomes:
            if outcome.client.name != "ours" or outcome.value.retry_after is None:
                continue
            wait = round(outcome.value.retry_after * 1000)
            of_all = [self.shapes(one, resource) for one in filter(None, (entity, self.parent_of(entity, resource)))]
            shapes = [shape for of in of_all for name, shape in of.items() if name in wanted]
            if len(shapes) > 1 and any(shape.schedule or not shape.drips for shape in shapes):
                # While one fills, the capacity of another can fall below the request, as that of a quota that is reset to its share.
                continue
            items = self.all_of(entity, resource, outcome.items)
            past = [len(shape.changes(number(item, "rf"), self.now + wait)) for item in items for shape in shapes]
            if max(past, default=0) >= 60:
                self.allow("estimate after 64 changes")
                continue
            # A thousandth of a token takes so long on a shard, and fractions of it are lost here at each change.
            rates = [params for shape in shapes if shape.drips for params in [shape.params(self.now), shape.params(self.now + wait)]]
            slowest = max((period / max(1, amount // MOST) for _, amount, period in rates), default=0)
            early = wait - 2 * MOST - int((max(past, default=0) + 2 * MOST) * slowest)
            for by in (wait, early):
                if by <= 0 or wait > 400 * DAY:
                    continue
                self.twin.keep(outcome.items)
                outcome.client.set_clock(self.now + by)
                outcome.client.forget()
                kind, said = self.attempt(outcome.client, entity, resource, wanted)
                self.twin.state = self.twin._read()
                if (kind == "admitted") != (by == wait):
                    self.differ(f"after a wait of {by} of {wait} ms", kind, said, self.shards(outcome.items))
            outcome.client.set_clock(self.now)
            self.counts["retried"] += 1

    def all_of(self, entity, resource, items):
        """All shards that an acquire of the entity concerns."""
        found = self.shards(items)
        return [item for one in filter(None, (entity, self.parent_of(entity, resource))) for item in found.get((one, resource), {}).values()]

    @staticmethod
    def attempt(client, entity, resource, wanted):
        try:
            client.acquire(entity, resource, **wanted).commit()
        except Refused as err:
            return "refused", err.statuses
        finally:
            client.settle()
        return "admitted", None

    def finish(self):
        leases, concerned, resource, wanted, left = self.leases.pop(self.dice.randrange(len(self.leases)))
        found = self.all_defaults(concerned, resource)
        seen = [of for of, client in zip(left, self.clients, strict=True) if client.name == "theirs"]
        if any(of[place] != found.get(place) for of in seen for place in of):
            # As on a single shard.
            return self.allow("whose schedule is the default")
        outcomes = self.end(leases, concerned, resource, wanted)
        for entity in concerned:
            new = [self.shards(outcome.items).get((entity, resource), {}) for outcome in outcomes]
            self.same(f"shards of {entity}/{resource}", sorted(new[0]), sorted(new[1]))
            for shard in new[0]:
                self.compare_effect(entity, resource, [of[shard] for of in new])
        self.keep_one(outcomes)

    def look(self, entity, resource):
        """Compared by other tests."""
