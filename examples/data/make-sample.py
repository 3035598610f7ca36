#!/usr/bin/env python3
"""Writes sample-trace.csv: three invented minutes of requests to a language model.

Arrivals are a Poisson process whose rate jumps up for three bursts, the last of which runs to the end. Sizes
are log-normal, with two prompts of a book's length. The generator is seeded: it always writes the same file.
"""

import math
import random
from datetime import datetime, timedelta
from pathlib import Path

SECONDS = 180
START = datetime(2026, 1, 15, 9, 30)
QUIET_PER_SECOND = 1.9
BURSTS = [(35, 55, 7.0), (100, 115, 8.0), (162, 180, 7.0)]  # from, to, requests per second
LONG_PROMPTS = {150: 118_000, 333: 131_000}  # row: context tokens


def rate(second):
    return next((rate for start, end, rate in BURSTS if start <= second < end), QUIET_PER_SECOND)


def arrivals(rng):
    """Draws a Poisson process of the highest rate and thins it out."""
    highest, second = max(rate for _, _, rate in BURSTS), 0.0
    while (second := second + rng.expovariate(highest)) < SECONDS:
        if rng.random() < rate(second) / highest:
            yield second


def tokens(rng, median, spread, most):
    return max(1, min(most, round(rng.lognormvariate(math.log(median), spread))))


def main():
    rng = random.Random(20260115)
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for row, second in enumerate(arrivals(rng)):
        context = LONG_PROMPTS.get(row, tokens(rng, 2000, 0.7, 16_000))
        generated = tokens(rng, 60, 0.8, 500)
        # The public traces have seven decimals, one more than `datetime` knows.
        at = (START + timedelta(seconds=second)).strftime("%Y-%m-%d %H:%M:%S.%f")
        rows.append(f"{at}{rng.randrange(10)},{context},{generated}")
    text = "\n".join(rows) + "\n"
    Path(__file__).with_name("sample-trace.csv").write_text(text, encoding="ascii", newline="\n")


if __name__ == "__main__":
    main()
