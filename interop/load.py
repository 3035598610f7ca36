"""Load generators side by side: `zae-limiter loadtest run --local` and the Python tool's Locust user, in turn, on one endpoint.

Both run the scenario `max_rps` (an acquire of one request, without a pause) with the same number of users. Prints
requests a second and requests for each second of the generator's processor time, and the ratios. Judges nothing.

    python3 -m venv /tmp/load && /tmp/load/bin/pip install -r interop/requirements-load.txt
    /tmp/load/bin/python interop/load.py --ours target/release/zae-limiter
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time

USERS = """
import uuid
from locust import constant, task
from zae_limiter import Limit
from zae_limiter.locust import RateLimiterUser


class MaxRps(RateLimiterUser):
    stack_name = "load"
    region = "us-east-1"
    wait_time = constant(0)

    def on_start(self):
        super().on_start()
        self.client.set_system_defaults(limits=[Limit.per_minute("rpm", 1_000_000_000)])
        self.entity = f"user-{uuid.uuid4().hex[:8]}"

    @task
    def acquire(self):
        with self.client.acquire(entity_id=self.entity, resource="api", consume={"rpm": 1}):
            pass
"""


def timed(command, environment, output):
    """Runs a command to its end; returns the seconds of processor time that it used."""
    process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}; {open(output.name).read()[-2000:]}")
    return usage.ru_utime + usage.ru_stime


def ours(args, environment, folder):
    """Requests, requests a second, and processor time."""
    report = os.path.join(folder, "report.json")
    command = [args.ours, "loadtest", "run", "--local", "-n", "load", "--endpoint-url", args.endpoint]
    command += ["--region", "us-east-1", "-f", "max_rps", "MaxRpsUser", "--users", str(args.users)]
    command += ["--spawn-rate", "1000", "--duration", str(args.seconds), "--output", "json"]
    with open(report, "w") as output:
        cpu = timed(command, environment, output)
    with open(report) as text:
        found = json.load(text)
    if found["total_failures"]:
        sys.exit(f"failures: {found['errors']}")
    return found["total_requests"], found["requests_per_second"], cpu


def theirs(args, environment, folder):
    """The same of Locust."""
    users = os.path.join(folder, "users.py")
    with open(users, "w") as text:
        text.write(USERS)
    prefix = os.path.join(folder, "rows")
    command = [sys.executable, "-m", "locust", "-f", users, "--headless", "--users", str(args.users)]
    command += ["--spawn-rate", "1000", "--run-time", f"{args.seconds}s", "--csv", prefix, "--only-summary"]
    environment = {**environment, "AWS_ENDPOINT_URL": args.endpoint}
    with open(os.path.join(folder, "log"), "w") as output:
        cpu = timed(command, environment, output)
    with open(f"{prefix}_stats.csv") as rows:
        heading, *rows = [line.rstrip("\n").split(",") for line in rows]
    total = dict(zip(heading, rows[-1]))
    if int(total["Failure Count"]):
        sys.exit("Locust reports failures")
    return int(total["Request Count"]), float(total["Requests/s"]), cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", required=True, help="our executable")
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=10, help="how long each runs")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        credentials = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        environment = {**os.environ, **credentials, "XDG_STATE_HOME": folder, "AWS_EC2_METADATA_DISABLED": "true"}
        command = [args.ours, "local", "up", "--foreground", "--ephemeral", "--port", "0"]
        log = os.path.join(folder, "endpoint")
        with open(log, "w") as output:
            endpoint = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            for _ in range(100):
                time.sleep(0.1)
                with open(log) as text:
                    if found := re.search(r"http://localhost:\d+", text.read()):
                        break
            else:
                sys.exit("the endpoint does not start")
            args.endpoint = found.group()
            deploy = [args.ours, "deploy", "-n", "load", "--endpoint-url", args.endpoint, "--region", "us-east-1"]
            deploy += ["--no-aggregator", "--no-provisioner", "--no-alarms"]
            subprocess.run(deploy, env=environment, check=True, stdout=subprocess.DEVNULL)
            results = {"ours": [], "Locust": []}
            for _ in range(args.rounds):
                for name, run in (("ours", ours), ("Locust", theirs)):
                    results[name].append(run(args, environment, folder))
        finally:
            endpoint.terminate()
            endpoint.wait(timeout=30)
    rates = {}
    for name, runs in results.items():
        requests, per_second, cpu = (sum(column) for column in zip(*runs))
        rates[name] = per_second / len(runs), requests / cpu
        print(f"{name:6}  {rates[name][0]:9.0f} requests/s  {rates[name][1]:9.0f} for each second of the generator's processor time")
    print("ours / Locust: " + ", ".join(f"{mine / other:.1f}" for mine, other in zip(*rates.values())))


if __name__ == "__main__":
    main()
