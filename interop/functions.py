"""What the aggregator costs, beside the original's on the same records: a whole process each time.

Start-up is from the start of the process to its first call of the runtime interface; a batch is from the event to
the answer; memory is the most that was resident. Prints medians and their ratio.

    python functions.py --ours BOOTSTRAP --engine ZAE_LIMITER_BRIDGE
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import time

os.environ.update(
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
)

from bridge import Bridge, Ours  # noqa: E402
from function import Function, passes, stream_of  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
BUCKETS = 500


# Long enough for the ids of the stream's shards, which contain it, to pass the SDK's check.
SOURCE = "records-of-many"


def records_of(bridge, endpoint):
    """A thousand changes of five hundred buckets, from the stream of a real table."""
    bridge.call("create_table", endpoint=endpoint, stack=SOURCE)
    client = Ours(bridge, endpoint, SOURCE)
    client.set_system_defaults([["rpm", 1000, 1000, 60], ["tpm", 100_000, 100_000, 60]])
    for turn in range(3):
        for number in range(BUCKETS):
            client.acquire(f"key-{number}", "gpt-4", rpm=1, tpm=100 + turn).commit()
    client.settle()
    found = [record for record in stream_of(endpoint, SOURCE) if passes(record)]
    # The original leaves out what creates a bucket.
    return [record for record in found if record["eventName"] == "MODIFY"][: 2 * BUCKETS]


def measure(command, handler, endpoint, table, batches):
    """Starts the function and gives it the batches; returns seconds and bytes by name."""
    found = {}
    started = time.perf_counter()
    function = Function(command, handler, endpoint, {"TABLE_NAME": table, "PYTHONPATH": os.environ.get("PYTHONPATH", "")})
    try:
        assert function.runtime.asked.wait(60)
        found["start"] = time.perf_counter() - started
        for name, batch in batches:
            started = time.perf_counter()
            kind, answer = function.invoke({"Records": batch})
            found[name] = time.perf_counter() - started
            assert kind == "response", answer
            assert answer["body"]["errors"] == [], answer
            assert answer["body"]["snapshots_updated"] > 0, answer
            with open(f"/proc/{function.process.pid}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            found["cpu"] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        with open(f"/proc/{function.process.pid}/status") as status:
            found["memory"] = int(re.search(r"VmHWM:\s+(\d+) kB", status.read()).group(1)) * 1024
    finally:
        function.close()
    return found


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--ours", required=True)
    arguments.add_argument("--engine", required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments = arguments.parse_args()
    engine = subprocess.Popen(
        [arguments.engine, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    endpoint = f"http://127.0.0.1:{int(engine.stdout.readline())}"
    bridge = Bridge(arguments.engine)
    records = records_of(bridge, endpoint)
    assert len(records) == 2 * BUCKETS, len(records)
    sides = {
        "ours": ([arguments.ours], "aggregator"),
        "theirs": ([sys.executable, os.path.join(HERE, "their_runtime.py")], "handler"),
    }
    found = {side: [] for side in sides}
    for number in range(arguments.rounds):
        for side, (command, handler) in sides.items():
            # The same records in every round, on a table that has not seen them.
            table = f"t{number}-{side}"
            bridge.call("create_table", endpoint=endpoint, stack=table)
            batches = [("batch of 100", records[:100]), ("batch of 1000", records)]
            if side == "ours":
                # It would count the first hundred only once.
                batches = [("batch of 100", records[:100]), ("batch of 1000", again(records))]
            found[side].append(measure(command, handler, endpoint, table, batches))
    names = {"start": "start to first call", "batch of 100": "batch of 100 records", "batch of 1000": "batch of 1,000 records"}
    for key in ("start", "batch of 100", "batch of 1000", "cpu", "memory"):
        ours, theirs = (statistics.median(one[key] for one in found[side]) for side in ("ours", "theirs"))
        if key == "memory":
            print(f"{'memory':24} {ours / 2**20:9.1f} MiB {theirs / 2**20:9.1f} MiB  1/{theirs / ours:.1f}")
        else:
            name = names.get(key, "CPU in all")
            print(f"{name:24} {ours * 1000:9.1f} ms  {theirs * 1000:9.1f} ms   1/{theirs / ours:.1f}")
    size = os.path.getsize(arguments.ours)
    print(f"executable: {size / 2**20:.1f} MiB; medians of {arguments.rounds} rounds")
    bridge.close()
    engine.stdin.close()
    engine.wait(timeout=30)


def again(records):
    """The same records a little later in the stream, so that none of them has been counted."""
    later = []
    for record in records:
        body = dict(record["dynamodb"])
        body["SequenceNumber"] = str(int(body["SequenceNumber"]) + 10**12)
        later.append({**record, "dynamodb": body})
    return later


if __name__ == "__main__":
    main()
