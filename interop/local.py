"""A local endpoint of a test's own: `zae-limiter local up` and what belongs to it."""

import json
import os
import signal
import subprocess
import time

PROGRAM = os.environ["ZAE_LIMITER_CLI"]


class Local:
    """One user's endpoint. `directory` holds its state; the data too, unless it is ephemeral."""

    def __init__(self, directory, *options):
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "ZAE_LIMITER_STATE_DIR": str(directory),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.options = list(options)
        self.port = 0
        self.pid = None

    def command(self, *words, program=PROGRAM, check=True, timeout=300):
        """Runs a command against the endpoint; what it printed."""
        done = subprocess.run(
            [program, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    def json(self, *words):
        return json.loads(self.command(*words, "--output", "json").stdout)

    def up(self):
        """Starts it, at the port that it had."""
        facts = self.json("local", "up", "--port", self.port, *self.options)
        self.port, self.pid, self.url = facts["port"], facts["pid"], facts["url"]
        self.environment["AWS_ENDPOINT_URL"] = self.url
        return facts

    def down(self):
        return self.command("local", "down").stdout

    def kill(self):
        """Ends it as a crash would, and waits until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        while self.json("local", "status")["running"]:
            time.sleep(0.01)


def eventually(look, seconds=60):
    """What `look` gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)
