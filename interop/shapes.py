"""Limits of all shapes for random sequences: their descriptions, and what a bucket of them holds at an instant.

A limit is described as the bridge takes it: a mapping of `name`, `capacity` and the parts of its shape. The arithmetic here is
written from the format of the table and checked against the original in `test_shapes.py`, where it says by how much two clients
may differ. Times are in milliseconds, amounts in thousandths of a token.
"""

import datetime

from bridge import their_limit
from zae_limiter import schedule

UTC = datetime.timezone.utc
SECOND, MINUTE, HOUR, DAY = 1000, 60_000, 3_600_000, 86_400_000

# Zones whose clocks are set at another time than a full hour are left out: the original's search for the last reset does not end
# there.
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Sydney",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Africa/Casablanca",
    "Pacific/Apia",
]

# When a sequence begins: shortly before clocks are set, before the end of a month, a year, and a February of 29 days.
STARTS = [
    "2027-03-27T22:30",
    "2027-10-30T21:50",
    "2027-03-14T04:59",
    "2027-11-07T03:10",
    "2028-02-28T20:00",
    "2028-02-29T22:00",
    "2027-02-28T22:00",
    "2027-04-30T21:30",
    "2027-12-31T10:00",
    "2027-04-03T12:00",
    "2027-06-15T08:58",
]

PATTERNS = [
    "* 9-17 * * *",
    "* 9-17 * * MON-FRI",
    "* 0-6 * * *",
    "* 1 * * *",
    "* 2 * * *",
    "* 1,3 * * *",
    "* * * * SAT,SUN",
    "* * 28-31 * *",
    "* * 29 2 *",
    "* * 1 * *",
    "* * * JAN-MAR *",
    "30-59 * * * *",
    "*/2 * * * *",
    "* 23 * * *",
]
RESETS = [
    "0 0 * * *",
    "0 0 1 * *",
    "0 0 * * MON",
    "0 0 1 1 *",
    "0 * * * *",
    "30 2 * * *",
    "30 1 * * *",
    "0 0 31 * *",
    "0 0 29 2 *",
    "*/20 * * * *",
    "0 8,20 * * *",
    "0 0 */2 * *",
]
NAMES = ["rpm", "tpm", "rpd", "ses"]


def instant(text):
    """An instant in UTC."""
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def shown(now):
    """An instant, for a person."""
    return datetime.datetime.fromtimestamp(now // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{now % 1000:03}Z"


# --- Descriptions ---


def entry(dice, zone, is_quota):
    """An entry of a parameter schedule."""
    made = {"cron": dice.choice(PATTERNS), "tz": zone}
    if dice.random() < 0.6:
        made["scale"] = dice.choice([0.5, 0.25, 1.15, 2, 3.333, 0.333, 0.01])
        return made
    made["capacity"] = dice.choice([1, 3, 20, 150, 1000])
    if not is_quota and dice.random() < 0.6:
        made["refill_amount"] = dice.choice([1, 10, 100])
    if not is_quota and dice.random() < 0.4:
        made["refill_period_seconds"] = dice.choice([1, 30, 3600])
    return made


def limit(dice, name, zone, kinds):
    """A random limit; a kind is `plain`, `drip`, `quota` or `session`, and with `soft` some limits but the plain are soft."""
    kind = dice.choice([kind for kind in kinds if kind != "soft"])
    made = {"name": name, "capacity": dice.choice([1, 7, 60, 100, 250, 1000])}
    scheduled = 0.0 if kind == "plain" else 0.55
    if kind == "quota":
        crons = dice.sample(RESETS, dice.choice([1, 1, 1, 2]))
        made["reset_schedule"] = [{"cron": cron, "tz": zone} for cron in crons]
        scheduled = 0.25
    elif kind == "session":
        made["reset_after_seconds"] = dice.choice([1, 60, 3600, 5 * 3600, 86_400, 7 * 86_400])
        scheduled = 0.2
    else:
        made["refill_amount"] = dice.choice([1, 7, 60, 100, 600])
        made["refill_period"] = dice.choice([1, 60, 60, 3600, 86_400])
    if dice.random() < scheduled:
        made["schedule"] = [
            entry(dice, zone, kind in ("quota", "session")) for _ in range(dice.choice([1, 1, 2]))
        ]
    if kind != "plain" and "soft" in kinds and dice.random() < 0.15:
        made["soft"] = True
    return made


def limits(dice, kinds):
    """Limits of one level: their schedules have one zone."""
    zone = dice.choice(ZONES)
    names = dice.sample(NAMES, dice.choice([1, 2, 2, 3]))
    return [limit(dice, name, zone, kinds) for name in names]


# --- Arithmetic ---


def count_of(item):
    """How many shards a bucket has, according to one of them."""
    return int(item["shard_count"]["N"]) if "shard_count" in item else 1


class Shape:
    """A limit on a bucket or one of its shards, as the specification of the table has it."""

    def __init__(self, described):
        limit = their_limit(described)
        self.name, self.soft = limit.name, limit.soft
        self.schedule, self.resets = limit.schedule, limit.reset_schedule
        self.session = limit.reset_after_seconds and limit.reset_after_seconds * 1000
        period = limit.refill_period_seconds * 1000
        self.base = limit.capacity * 1000, limit.refill_amount * 1000, period
        # An entry after one with the same pattern is never in force.
        used = {one.cron: one for one in reversed(self.schedule)}.values()
        self.capacities = [self.base[0], *(schedule.entry_params(*self.base, one)[0] for one in used)]
        self.found = 0, 0

    @property
    def drips(self):
        return not self.resets and not self.session

    def params(self, at):
        """Capacity, amount and period in force."""
        return schedule.effective_params(*self.base, self.schedule, at)

    def ceiling(self, at):
        return self.params(at)[0]

    def ever_covers(self, need, now):
        """Whether the capacity in force covers an amount within four years, looked at in even and odd minutes of each half hour."""
        ends = range(now - now % HOUR, now + 4 * 366 * DAY, HOUR)
        return any(self.ceiling(end + minute * MINUTE) >= need for end in ends for minute in (0, 1, 30, 31))

    def fill_ms(self):
        """The longest time to fill, or a minute of a limit that is not refilled."""
        if not self.drips:
            return MINUTE
        terms = [self.base, *(schedule.entry_params(*self.base, one) for one in self.schedule)]
        return max(capacity * period // amount for capacity, amount, period in terms)

    def changes(self, since, now):
        """The instants in (since, now] at which other parameters come into force, the first 64."""
        found = []
        while self.schedule and len(found) < 64:
            following = schedule.next_boundary(self.schedule, now_ms=since)
            if following is None or following > now:
                break
            if self.params(following) != self.params(following - 1):
                found.append(following)
            since = following
        return found

    def value(self, item, part):
        stored = item.get(f"b_{self.name}_{part}")
        return int(stored["N"]) if stored else None

    def is_whole_again(self, item, now):
        """Whether a reset has come, or the session is over, since the item was written."""
        if self.resets:
            edge = schedule.prev_reset_edge(self.resets, now)
            return edge is not None and edge > int(item["rf"]["N"])
        start, applied = self.value(item, "ws"), self.value(item, "wa")
        applied = int(item["rf"]["N"]) if applied is None else applied
        return start is None or start + self.session <= now or applied < start

    def most(self, item, now):
        """What it may hold at most: with what was added to a quota until its period ends."""
        if self.drips:
            return self.ceiling(now) // count_of(item)
        return self.ceiling(now) // (self.value(item, "gc") or count_of(item)) + (self.value(item, "tu") or 0)

    def held(self, item, now, by_parts=False, count=None):
        """What the bucket's shard holds at an instant if it is refilled then: each part of the time at its rate, or all at the one
        now in force. `count` stands for the number of shards that is stored."""
        count = count or count_of(item)
        tokens, share = self.value(item, "tk"), self.ceiling(now) // count
        if tokens is None:
            return share
        if not self.drips:
            if not self.is_whole_again(item, now):
                return min(tokens, self.most(item, now))
            start, marked = self.value(item, "ws"), self.value(item, "wtc")
            if self.session and marked is not None and start is not None and start + self.session > now:
                # What was taken since another shard began the session.
                share -= max(0, self.value(item, "tc") - marked)
            return share
        since = int(item["rf"]["N"])
        for instant in (self.changes(since, now) if by_parts else []):
            tokens = self._earned(tokens, since, instant, self.params(instant - 1), count)
            since = instant
        return self._earned(tokens, since, now, self.params(now), count)

    @staticmethod
    def _earned(tokens, since, until, params, count=1):
        capacity, amount, period = params
        return min(capacity // count, tokens + max(0, until - since) * (amount // count) // period)

    def _boundary_after(self, now):
        """The next change of parameters or reset. It is searched for once."""
        if not self.schedule and not self.resets:
            return None
        since, boundary = self.found
        if not since <= now < boundary:
            boundary = schedule.next_boundary(self.schedule, self.resets, now_ms=now)
            if boundary is None:
                return None
            self.found = now, boundary
        return boundary

    def edge_after(self, item, now):
        """The next instant of interest: a change of parameters, a reset, the end of a session, a full bucket, or None."""
        found = [self._boundary_after(now)]
        if self.session and item and self.value(item, "ws") is not None:
            found.append(self.value(item, "ws") + self.session)
        if self.drips and item and self.value(item, "tk") is not None:
            capacity, amount, period = self.params(now)
            count = count_of(item)
            missing, amount = capacity // count - self.held(item, now), amount // count
            if amount and missing > 0:
                found.append(now - (-missing * period // amount))
        found = [edge for edge in found if edge is not None and edge > now]
        return min(found) if found else None
