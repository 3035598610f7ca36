"""`zae-limiter serve` under clients that we did not write: servers of a test's own, on a table that several can use."""

import json
import os
import signal
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from local import PROGRAM, Local, eventually

STACK = "served"

#: How long a call or a process may take before the test fails.
PATIENCE = 30

#: The limits that gain nothing within a test: `rpm` is 5.
RULES = """\
version: 1
domains:
  gateway:
    headers: [ietf, x-ratelimit]
    rules:
      - match: {api_key: "*", model: "*"}
        entity: "{api_key}"
        resource: "{model}"
        consume: {rpm: 1}
      - match: {metered: "*", model: "*"}
        entity: "{metered}"
        resource: "{model}"
        consume: {tpm: 10}
        consume_once: {rpm: 1}
      - match: {charged: "*"}
        entity: "{charged}"
        resource: gpt-4
        consume: {tpm: 1}
      - match: {charged: "*", of: response}
        entity: "{charged}"
        resource: gpt-4
        consume: {tpm: 1}
        overdraw: true
      - match: {bounded: "*"}
        entity: "{bounded}"
        resource: api
        override: true
        consume: {rpm: 1}
      - match: {misconfigured: "*"}
        entity: "{misconfigured}"
        resource: api
        consume: {rps: 1}
      - match: {shadowed: "*"}
        entity: "{shadowed}"
        resource: api
        shadow: true
        consume: {rpm: 1}
"""


class Table(Local):
    """A local endpoint with a stack, whose defaults are small."""

    def __init__(self, directory):
        super().__init__(directory / "state", "--ephemeral")
        self.directory = directory
        self.servers = []
        self.up()
        self.command("deploy", "--name", STACK, "--no-aggregator", "--no-provisioner")
        self.admin("system", "set-defaults", "-l", "rpm:5/day", "-l", "tpm:1000/day")

    def admin(self, *words):
        return self.command(*words, "--name", STACK)

    def serve(self, *options, rules=RULES, grpc="127.0.0.1:0"):
        server = Server(self, self.directory / f"server-{len(self.servers)}", rules, grpc, options)
        self.servers.append(server)
        server.wait_until_ready()
        return server

    @contextmanager
    def frozen(self):
        """Keeps requests without an answer, from when it begins."""

        def is_stopped():
            tasks = Path(f"/proc/{self.pid}/task").iterdir()
            return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T" for task in tasks)

        os.kill(self.pid, signal.SIGSTOP)
        try:
            # On a busy machine the signal takes its time.
            eventually(is_stopped, PATIENCE)
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def close(self):
        for server in self.servers:
            if server.process.poll() is None:
                server.kill()
        self.down()


class Server:
    """A process of `zae-limiter serve`, on free ports of this machine."""

    def __init__(self, table, directory, rules, grpc, options):
        directory.mkdir()
        self.rules = directory / "rules.yaml"
        self.rules.write_text(rules)
        self.log = directory / "log"
        ports = ["--grpc-listen", grpc, "--http-listen", "127.0.0.1:0"]
        command = [PROGRAM, "serve", "--name", STACK, "--config", self.rules, *ports, "--log-format", "json", *options]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=table.environment, stderr=log, stdin=subprocess.DEVNULL)

    def logged(self, message):
        """The first line of the log with this message."""
        for line in self.log.read_text().splitlines():
            # The last line may be half written.
            if line.endswith("}") and json.loads(line).get("message") == message:
                return json.loads(line)
        return None

    def wait_until_ready(self):
        def ready():
            assert self.process.poll() is None, self.log.read_text()
            return self.logged("ready")

        found = eventually(ready, PATIENCE)
        self.grpc, self.http = found["grpc"], f"http://{found['http']}"

    def change_rules(self, rules):
        """Puts rules in force, as an editor does that replaces the file."""
        new = self.rules.with_suffix(".new")
        new.write_text(rules)
        new.replace(self.rules)

    def get(self, path, body=None, **headers):
        """The status and the text of an answer."""
        request = urllib.request.Request(self.http + path, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as err:
            return err.code, err.read().decode()

    def post(self, path, body, **headers):
        """The status and the properties of an answer."""
        status, text = self.get(path, json.dumps(body).encode(), **headers)
        return status, json.loads(text)

    def left(self, entity, resource, limit="rpm"):
        """Tokens that are left, as the table says."""
        status, text = self.get(f"/v1/availability?entity_id={entity}&resource={resource}")
        assert status == 200, text
        return next(one["available"] for one in json.loads(text)["limits"] if one["limit_name"] == limit)

    def sum_of(self, metric, **labels):
        """The sum over the series of a metric that have these labels."""
        wanted = [f'{name}="{value}"' for name, value in labels.items()]
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith(f"zae_limiter_server_{metric}{{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in wanted))

    def signal(self, number):
        os.kill(self.process.pid, number)

    def end(self):
        """Asks it to end, and gives its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self):
        """Ends it as a crash would."""
        self.process.kill()
        self.process.wait(PATIENCE)


class Load:
    """Threads that call until they are stopped. A call that raises ends the test."""

    def __init__(self, call, threads):
        self.stopping = threading.Event()
        self.errors = []
        self.done = 0
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(call, number)) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, call, number):
        try:
            while not self.stopping.is_set():
                call(number)
                with self.lock:
                    self.done += 1
        except Exception as err:  # noqa: BLE001
            self.errors.append(err)
            self.stopping.set()

    def goes_on(self, calls=50):
        """Waits for so many further calls."""
        until = self.done + calls
        eventually(lambda: self.errors or self.done >= until, PATIENCE * 2)
        assert not self.errors, self.errors

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a call does not end"
        assert not self.errors, self.errors


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    table = Table(tmp_path_factory.mktemp("served"))
    yield table
    table.close()


@pytest.fixture(scope="module")
def server(table):
    """A server that the tests of a file share: each uses entities of its own."""
    server = table.serve()
    yield server
    assert server.end() == 0, server.log.read_text()
