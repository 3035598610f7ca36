"""What the original makes of random schedules: the vectors that `crates/core/tests/it/schedules.rs` reads.

    python schedule_vectors.py [--seed 1] [--count 1500] > ../crates/core/tests/data/schedules.tsv

Needs the environment of requirements-original.txt. Writes one row a line, with tabs between the columns:

- `P`, zone, capacity/refill/period of the limit (millitokens, milliseconds), entries, compact form, samples. Entries are joined
  by `;`, each as its expression, `|` and `s` with the scale or `c`, `a`, `p` with what is replaced. A sample is
  instant=index of the entry in force=valid until=parameters in force.
- `R`, zone, expressions joined by `;`, compact form, samples. A sample is instant=whether the first expression
  matches=last edge=next edge=valid until.
- `X`, an expression that is refused, and the field that the original names.
- `D` or `E`, a compact form that cannot be read as a schedule or as a schedule of resets, and `version` if that is why.

Rows for which the original does not end within some seconds go to standard error, and others take their place: its search for
the last edge never ends shortly after clocks were set at another time than a full hour, as in `Pacific/Chatham`.

Instants are in milliseconds; `-` is none. Zones are those of the package tzdata, each at least once, whatever the machine has.
"""

import argparse
import datetime
import random
import re
import signal
import sys
import zoneinfo

zoneinfo.reset_tzpath(to=[])

from zae_limiter import schedule as original  # noqa: E402

UTC = datetime.timezone.utc
MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
WEEKDAYS = "SUN MON TUE WED THU FRI SAT".split()
# Least, greatest, names.
FIELDS = [(0, 59, []), (0, 23, []), (1, 31, []), (1, 12, [""] + MONTHS), (0, 7, WEEKDAYS)]
FORMS = "* */5 1-5 5,9 9/2 1-9/3 SUN JAN 0 7 L W # ? 5L 1#2 15W @daily 60 24 32 13 8 22-6 SAT-MON FRI-SUN -1 1- */0 x 1,,2".split()
# Clocks are set at midnight, by half an hour, by whole days, twice a year for Ramadan, or were in recent years.
ODD_ZONES = """Africa/Cairo Africa/Casablanca America/Asuncion America/Havana America/Sao_Paulo America/Scoresbysund
    America/St_Johns America/Santiago Antarctica/Troll Asia/Beirut Asia/Gaza Asia/Kathmandu Asia/Pyongyang Asia/Tehran
    Atlantic/Azores Australia/Lord_Howe Europe/Berlin Europe/Dublin America/New_York Pacific/Apia Pacific/Chatham
    Pacific/Kwajalein Pacific/Easter America/Caracas Asia/Amman""".split()


def millis(*moment):
    return int(datetime.datetime(*moment, tzinfo=UTC).timestamp()) * 1000


def transitions(name):
    """The instants from 1971 to 2050 at which the zone's offset changes, in milliseconds."""
    zone = zoneinfo.ZoneInfo(name)

    def offset(seconds):
        return datetime.datetime.fromtimestamp(seconds, zone).utcoffset()

    found = []
    step = 20 * 86400
    at = millis(1971, 1, 1) // 1000
    end = millis(2050, 1, 1) // 1000
    while at < end:
        low, high = at, at + step
        if offset(low) != offset(high):
            while high - low > 1:
                middle = (low + high) // 2
                if offset(middle) == offset(low):
                    low = middle
                else:
                    high = middle
            found.append(high * 1000)
        at += step
    return found


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.zones = sorted(zoneinfo.available_timezones())
        self.transitions = {}
        # What the original was asked last.
        self.tried = None

    def chance(self, part):
        return self.random.random() < part

    def value(self, place):
        low, high, names = FIELDS[place]
        number = self.random.randint(low, high)
        if number < len(names) and names[number] and self.chance(0.5):
            return number, self.random.choice([str.upper, str.lower, str.capitalize])(names[number])
        return number, f"{number:02}" if self.chance(0.05) else str(number)

    def item(self, place):
        low, high, _ = FIELDS[place]
        kind = self.random.random()
        step = f"/{self.random.randint(1, max(2, (high - low) // 2))}"
        if kind < 0.1:
            return "*" + step
        if kind < 0.2:
            return self.value(place)[1] + step
        if kind < 0.6:
            first, last = sorted([self.value(place), self.value(place)])
            return f"{first[1]}-{last[1]}" + (step if self.chance(0.2) else "")
        return self.value(place)[1]

    def field(self, place, open_part):
        if self.chance(open_part):
            return "*"
        count = 1 + (self.chance(0.25) and self.random.randint(1, 2))
        items = [self.item(place) for _ in range(count)]
        if self.chance(0.03):
            items.insert(self.random.randint(0, count), "*")
        return ",".join(items)

    def cron(self):
        """An expression that the original accepts."""
        while True:
            shape = self.random.random()
            if shape < 0.35:
                # Times of day and what quotas have.
                fields = self.random.choice(
                    ["0 0 * * *", "0 0 1 * *", "0 0 * * 1", "0 0 1 1 *", "0 0 29 2 *", "0 0 31 * *", "30 2 * * *", "* 9-17 * * MON-FRI",
                     "* 0-6 * * *", "* * * * SAT,SUN", "* * 28-31 * *", "* * 29 2 *", "* 23 L * *", "0 0 */2 * MON", "*/15 * * * *",
                     "* * * JAN-MAR *", "0 * * * *", "* 2 * * *", "* 1 * * *", "59 23 28-31 * *", "* * * * *", "0 0,12 1,15 * 5",
                     "* * 1 * *", "30 1 * * SUN", "* 1,3 * * *", "15-45 0-1 * * *"]
                ).replace("L", "30,31").split()
                if self.chance(0.2):
                    place = self.random.randrange(5)
                    fields[place] = self.field(place, 0)
            else:
                # Coarse patterns are as likely as fine ones.
                finest = self.random.randrange(4)
                fields = [
                    "*" if place < min(finest, 2) else self.field(place, 0.2 if place < 2 else 0.6) for place in range(5)
                ]
            expression = (" " if self.chance(0.95) else "  ").join(fields)
            try:
                original.parse_cron(expression, "UTC")
            except ValueError:
                continue
            return expression

    def instant(self, zone):
        if zone not in self.transitions:
            self.transitions[zone] = transitions(zone)
        known = self.transitions[zone]
        kind = self.random.random()
        if kind < 0.45 and known:
            # Around a change of the clocks.
            near = self.random.choice([1, 60, 3600, 7200, 86400, 7 * 86400])
            at = self.random.choice(known) + self.random.randint(-near, near) * 1000
        elif kind < 0.6:
            # Around the end of a month or a leap day.
            year, month = self.random.randint(1972, 2060), self.random.choice([1, 3, 3, 4, 12, self.random.randint(1, 12)])
            at = millis(year, month, 1) + self.random.randint(-30, 30) * 3600_000
        elif kind < 0.9:
            at = millis(2026, 1, 1) + self.random.randint(0, 4 * 366 * 86400) * 1000
        else:
            at = millis(1972, 1, 10) + self.random.randint(0, 130 * 366 * 86400) * 1000
        whole = self.random.random()
        if whole < 0.3:
            at -= at % 60_000
        elif whole < 0.4:
            at -= at % 3600_000
        elif whole < 0.7:
            at += self.random.choice([-1, 1, 999, self.random.randint(0, 999)])
        return at

    def effect(self):
        """What an entry does, for the original and for a row."""
        if self.chance(0.6):
            digits = self.random.randint(0, 4)
            scale = round(self.random.choice([0.0004, 0.25, 0.5, 1.15, 2, 3.3, 17.123, 1e6]) * self.random.uniform(0.5, 1), digits)
            scale = float(scale) if scale > 0 else 1.15
            return {"scale": scale}, f"s{scale!r}"
        values, text = {}, ""
        while not values:
            for key, tag, high in (("capacity", "c", 10**15), ("refill_amount", "a", 10**15), ("refill_period_seconds", "p", 10**9)):
                if self.chance(0.5):
                    values[key] = self.random.choice([1, self.random.randint(1, 10_000), self.random.randint(1, high), high])
                    text += f"{tag}{values[key]}"
        return values, text

    def parameters(self, zone, samples):
        count = self.random.choice([1, 1, 1, 2, 2, 3])
        entries, texts = [], []
        for _ in range(count):
            expression = self.cron()
            values, text = self.effect()
            entries.append(original.ScheduleEntry(expression, zone, **values))
            texts.append(f"{expression}|{text}")
        base = [self.random.choice([1000, 100_000, self.random.randint(1, 10**18), 10**18]) for _ in range(2)]
        base.append(self.random.choice([1000, 60_000, 86_400_000]))
        if self.chance(0.1):
            base[1] = 0
        parsed = [original.parse_cron(entry.cron, zone) for entry in entries]
        shown = []
        for _ in range(samples):
            now = self.instant(zone)
            self.tried = (zone, texts, now)
            active = [index for index, cron in enumerate(parsed) if original.matches(cron, now)]
            until = original.next_boundary(tuple(entries), now_ms=now)
            effective = original.effective_params(*base, tuple(entries), now)
            shown.append(f"{now}={active[0] if active else '-'}={until}={slashes(effective)}")
        compact, _ = original.encode(tuple(entries))
        return "P", zone, slashes(base), ";".join(texts), compact, " ".join(shown)

    def resets(self, zone, samples):
        expressions = [self.cron() for _ in range(self.random.choice([1, 1, 1, 2]))]
        entries = tuple(original.ScheduleEntry.reset(expression, zone) for expression in expressions)
        compact, _ = original.encode_reset(entries)
        if compact == "1":
            # The original cannot read it again, and here it is refused.
            return self.resets(zone, samples)
        shown = []
        for _ in range(samples):
            now = self.instant(zone)
            self.tried = (zone, expressions, now)
            matches = int(original.matches(original.parse_cron(expressions[0], zone), now))
            last = original.prev_reset_edge(entries, now)
            following = original.next_reset_edge(entries, now_ms=now)
            until = original.next_boundary((), entries, now_ms=now)
            shown.append("=".join("-" if value is None else str(value) for value in (now, matches, last, following, until)))
        return "R", zone, ";".join(expressions), compact, " ".join(shown)

    def refused(self):
        """An expression that is not one."""
        while True:
            fields = [self.field(place, 0.6) for place in range(5)]
            place = self.random.randrange(5)
            if self.chance(0.7):
                fields[place] = self.random.choice(FORMS)
            else:
                text = list(fields[place])
                text[self.random.randrange(len(text))] = self.random.choice("0123456789*/,-LW#?ASUN")
                fields[place] = "".join(text)
            if self.chance(0.05):
                fields = fields[:-1] if self.chance(0.5) else [*fields, "0"]
            try:
                original.parse_cron(" ".join(fields), "UTC")
            except ValueError as err:
                found = re.search(r"Bad ([a-z-]+)|cron ([a-z-]+) field", str(err))
                name = "cron." + (found[1] or found[2]).replace("-", "_") if found else "cron"
                return "X", " ".join(fields), name

    def unreadable(self):
        """A compact form that is not one."""
        while True:
            resets = self.chance(0.4)
            entry = "".join(
                tag + self.field(place, 0) for place, tag in enumerate("mhDMw") if self.chance(0.4)
            )
            entry = re.sub("[A-Za-z]{3}", "3", entry) if self.chance(0.8) else entry
            if not resets:
                entry += self.random.choice(["s500", "s500", "c5", "a6p7", "s0", "s5c5", "c0", "", "p1000000001", "s1000000001"])
            text = self.random.choice(["1", "1", "1", "1", "1", "", "0", "2", "10"]) + entry
            if self.chance(0.2):
                text += ";" + entry + self.random.choice(["", "m5", "x", ";"])
            if self.chance(0.3) and text:
                at = self.random.randrange(len(text))
                text = text[:at] + self.random.choice("mhDMwscapx;*-/,9") + text[at + 1 :]
            if not text:
                # The original takes it for no schedule; it is never written.
                continue
            try:
                (original.decode_reset if resets else original.decode)(text, "UTC")
            except ValueError as err:
                return "E" if resets else "D", text, "version" if "build reads up to" in str(err) else "malformed"


class Endless(Exception):
    """The original has not returned."""


def in_time(make, *arguments):
    """Makes a row, and another one if the original does not end."""

    def give_up(signum, frame):
        raise Endless

    signal.signal(signal.SIGALRM, give_up)
    while True:
        signal.setitimer(signal.ITIMER_REAL, 20)
        try:
            return make(*arguments)
        except Endless:
            print("without end:", make.__self__.tried, file=sys.stderr)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def slashes(values):
    return "/".join(map(str, values))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--count", type=int, default=1500, help="how many rows of schedules; rows of refused text come on top")
    arguments.add_argument("--samples", type=int, default=2, help="instants of a row")
    arguments = arguments.parse_args()
    maker = Maker(arguments.seed)
    print(f"# schedule_vectors.py --seed {arguments.seed} --count {arguments.count} --samples {arguments.samples}")
    for number in range(arguments.count):
        if number < len(maker.zones):
            zone = maker.zones[number]
        elif maker.chance(0.3):
            zone = "UTC"
        else:
            zone = maker.random.choice(ODD_ZONES if maker.chance(0.7) else maker.zones)
        make = maker.parameters if maker.chance(0.5) else maker.resets
        print(*in_time(make, zone, arguments.samples), sep="\t")
    for _ in range(arguments.count // 10):
        print(*maker.refused(), sep="\t")
        print(*maker.unreadable(), sep="\t")


main()
