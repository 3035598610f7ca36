"""What a command costs before it does anything: whole processes, ours and the original's in turn.

Prints the median and the range of wall time and peak memory, and the ratios. Judges nothing: times are the
machine's business.
"""

import argparse
import os
import statistics
import sys
import time


def once(command):
    """Runs a command to its end; returns seconds and peak memory in KiB."""
    start = time.perf_counter()
    pid = os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{' '.join(command)} ended with status {status}")
    return seconds, usage.ru_maxrss


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True, help="our executable")
    parser.add_argument("--theirs", required=True, help="the original's")
    parser.add_argument("--runs", type=int, default=40, help="how often each runs")
    args = parser.parse_args()
    for arguments in (["--version"], ["--help"], ["entity", "set-limits", "--help"]):
        runs = {"ours": [], "theirs": []}
        for _ in range(args.runs):
            for name, program in (("ours", args.ours), ("theirs", args.theirs)):
                runs[name].append(once([program, *arguments]))
        print("zae-limiter", *arguments)
        medians = {}
        for name, measured in runs.items():
            seconds, memory = zip(*measured)
            medians[name] = statistics.median(seconds), statistics.median(memory)
            print(
                f"  {name:6}  {medians[name][0] * 1000:8.2f} ms ({min(seconds) * 1000:.2f} to {max(seconds) * 1000:.2f})"
                f"  {medians[name][1] / 1024:7.1f} MiB"
            )
        wall, memory = (medians["theirs"][i] / medians["ours"][i] for i in (0, 1))
        print(f"  theirs / ours: {wall:.0f} times the time, {memory:.1f} times the memory")


if __name__ == "__main__":
    main()
