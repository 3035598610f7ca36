"""What planning and applying a manifest of many entities costs, here and in the original's provisioner: requests to the
table, and time on one engine. Prints a table; not part of the suite.

    python limits.py --bridge ZAE_LIMITER_BRIDGE [--entities 10000]
"""

import argparse
import collections
import http.server
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request

os.environ.update(
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
)

from bridge import Bridge, Ours, Theirs  # noqa: E402


class Counter:
    """A proxy that counts requests by kind."""

    def __init__(self, endpoint):
        self.counts = counts = collections.Counter()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if "X-Amz-Target" not in self.headers:
                    # A question to another service, which is not here.
                    self.send_error(400)
                    return
                counts[self.headers["X-Amz-Target"].split(".")[1]] += 1
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "content-length")}
                try:
                    answer = urllib.request.urlopen(urllib.request.Request(endpoint, body, headers))
                except urllib.error.HTTPError as err:
                    answer = err
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"


def manifest_of(namespace, entities, changed=0):
    def level(number):
        return {"limits": {"rpm": {"capacity": 200 if number < changed else 100}}}

    found = {f"user-{number:05}": {"resources": {"gpt-4": level(number)}} for number in range(entities)}
    return {"namespace": namespace, "entities": found}


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--bridge", required=True)
    arguments.add_argument("--entities", type=int, default=10_000)
    arguments.add_argument("--counted", type=int, default=500, help="how many entities requests are counted with")
    arguments = arguments.parse_args()
    server = subprocess.Popen([arguments.bridge, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
    bridge = Bridge(arguments.bridge)
    try:
        counter = Counter(endpoint)
        measure(bridge, counter.endpoint, arguments.counted, counter.counts)
        measure(bridge, endpoint, arguments.entities, None)
    finally:
        bridge.close()
        server.stdin.close()
        server.wait(timeout=30)


def measure(bridge, endpoint, entities, counts):
    from zae_limiter_provisioner.handler import on_event

    stack = f"limits-{entities}-{'timed' if counts is None else 'counted'}"
    bridge.call("create_table", endpoint=endpoint, stack=stack)
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    ours = Ours(bridge, endpoint, stack, namespace="ours")
    theirs = Theirs(endpoint, stack, namespace="theirs")

    def our_call(action, changed):
        manifest = manifest_of("ours", entities, changed)
        return bridge.start(
            "limits", client=ours.number, action=action, manifest=manifest
        ).result(timeout=3600)["ok"]

    def their_call(action, changed):
        manifest = manifest_of("theirs", entities, changed)
        event = {"action": action, "table_name": stack, "namespace_id": theirs.namespace_id, "manifest": manifest}
        return on_event(event, None)

    for label, action, changed in (
        ("first plan", "plan", 0),
        ("first apply", "apply", 0),
        ("plan, unchanged", "plan", 0),
        ("apply, unchanged", "apply", 0),
        ("apply, a hundredth changed", "apply", entities // 100),
    ):
        shown = []
        for call in (our_call, their_call):
            if counts is not None:
                counts.clear()
            started = time.perf_counter()
            answer = call(action, changed)
            took = time.perf_counter() - started
            assert not answer.get("errors"), answer["errors"][:3]
            shown.append(took if counts is None else sum(counts.values()))
        what = "s" if counts is None else "requests"
        a, b = shown
        print(f"{entities:6} entities, {label:27} {a:9.1f} {b:9.1f} {what}   1/{b / max(a, 1e-9):.1f}", flush=True)
    theirs.close()


if __name__ == "__main__":
    main()
