"""How fast the local endpoint is: from `local up` to ready, with and without a stack; its memory; acquires a second
through it from another process, beside moto's server (see `independent.py`).

    ZAE_LIMITER_CLI=... ZAE_LIMITER_BRIDGE=... python interop/local_figures.py

Whole processes, in turn. Judges nothing: times are the machine's business.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid

from bridge import Bridge, Ours
from local import PROGRAM, Local


def resident(pid):
    """What a process holds in memory, in MiB."""
    with open(f"/proc/{pid}/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return int(fields["VmRSS"].split()[0]) / 1024


def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def told(name, times):
    middle = statistics.median(times) * 1000
    print(f"{name:40} {middle:8.1f} ms ({min(times) * 1000:.1f} to {max(times) * 1000:.1f}, {len(times)} runs)")


def starts(runs):
    for name, options in (("in memory", ["--ephemeral"]), ("on disk", [])):
        times, memory = [], []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as directory:
                local = Local(directory, *options)
                times.append(seconds(local.up))
                memory.append(resident(local.pid))
                local.down()
        told(f"local up, {name}", times)
        print(f"{'  memory when idle':40} {statistics.median(memory):8.1f} MiB")
    times, memory = [], []
    for _ in range(max(runs // 4, 3)):
        with tempfile.TemporaryDirectory() as directory:
            local = Local(directory, "--name", "my-app")
            times.append(seconds(lambda: local.command("local", "up", "--port", "0", "--name", "my-app")))
            status = local.json("local", "status")
            time.sleep(1)
            memory.append(resident(status["pid"]))
            local.down()
    told("local up --name, on disk, with functions", times)
    print(f"{'  memory when idle':40} {statistics.median(memory):8.1f} MiB")


def acquires(bridge, url, clients, total):
    """Acquires a second, of many entities."""
    stack = f"t{uuid.uuid4().hex[:12]}"
    bridge.call("create_table", endpoint=url, stack=stack)
    first = Ours(bridge, url, stack)
    first.set_system_defaults([["rpm", 10**9, 10**9, 60]])
    for number in range(100):
        first.acquire(f"user-{number}", "gpt-4", rpm=1).commit()
    opened = [first] + [Ours(bridge, url, stack) for _ in range(clients - 1)]

    def work(ours, seed):
        for number in range(total // clients):
            ours.acquire(f"user-{(number * 7 + seed) % 100}", "gpt-4", rpm=1).commit()

    threads = [threading.Thread(target=work, args=pair) for pair in zip(opened, range(clients))]

    def all_of_them():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return total / seconds(all_of_them)


def through(rounds, total):
    bridge = Bridge(os.environ["ZAE_LIMITER_BRIDGE"])
    here = os.path.dirname(os.path.abspath(__file__))
    moto = subprocess.Popen(
        [sys.executable, os.path.join(here, "independent.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    moto_url = f"http://127.0.0.1:{int(moto.stdout.readline())}"
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        memory, disk = Local(one, "--ephemeral"), Local(other)
        memory.up()
        disk.up()
        places = {"in memory": memory.url, "on disk": disk.url, "moto": moto_url}
        rates = {name: [] for name in places}
        for _ in range(rounds):
            for name, url in places.items():
                rates[name].append(acquires(bridge, url, 4, total if name != "moto" else total // 10))
        for name, measured in rates.items():
            print(
                f"acquires a second, 4 at once, {name:12} {statistics.median(measured):8.0f} "
                f"({min(measured):.0f} to {max(measured):.0f})"
            )
        memory.down()
        disk.down()
    moto.stdin.close()
    moto.wait()
    bridge.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20, help="how often each is started")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is loaded")
    parser.add_argument("--total", type=int, default=8000, help="acquires of a round")
    args = parser.parse_args()
    print(f"program: {PROGRAM}")
    starts(args.runs)
    through(args.rounds, args.total)


if __name__ == "__main__":
    main()
