"""How much of a fast limit is admitted when the table is slow: this library beside the original, in turn, on one
endpoint behind a proxy that delays every answer.

    ZAE_LIMITER_CLI=... ZAE_LIMITER_BRIDGE=... python interop/latency.py [--capacity 1000] [--callers 60]
        [--latencies 0.005,0.05,0.15,0.3,0.6]

Callers in four processes each ask for one token, wait for the answer, then for 100 ms, for eight seconds. Judges
nothing: the figures are the machine's business.
"""

import argparse
import asyncio
import collections
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid

PROCESSES = 4
SECONDS = 8
PAUSE = 0.1


class Delay:
    """A proxy that holds every request for half of the latency, and every answer for the other half."""

    def __init__(self, upstream):
        self.upstream, self.latency, self.requests = upstream, 0.0, 0
        self.loop, ready = asyncio.new_event_loop(), threading.Event()

        async def serve():
            server = await asyncio.start_server(self.handle, "127.0.0.1", 0, backlog=1024)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()

        def run():
            asyncio.set_event_loop(self.loop)
            self.loop.run_until_complete(serve())
            self.loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        ready.wait(10)

    async def message(self, reader):
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head + await reader.readexactly(length)

    async def handle(self, reader, writer):
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            while True:
                request = await self.message(reader)
                self.requests += 1
                await asyncio.sleep(self.latency / 2)
                up_writer.write(request)
                answer = await self.message(up_reader)
                await asyncio.sleep(self.latency / 2)
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            up_writer.close()
            writer.close()


def hammer_ours(bridges, url, stack, entity, callers):
    """Admissions, refusals by kind, and how long each admission took."""
    from bridge import Ours

    clients = [Ours(bridge, url, stack) for bridge in bridges]
    counts, times, lock = collections.Counter(), [], threading.Lock()
    end = time.time() + SECONDS

    def call(number):
        client = clients[number % len(clients)]
        while time.time() < end:
            began = time.time()
            answer = client.bridge.start(
                "acquire", client=client.number, entity=entity, resource="g", consume={"r": 1}
            ).result(timeout=60)
            kind = "ok" if "ok" in answer else answer["error"]["kind"]
            with lock:
                counts[kind] += 1
                if kind == "ok":
                    times.append(time.time() - began)
            time.sleep(PAUSE)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    return counts, times


def hammer_theirs(url, stack, entity, callers):
    """The same with processes of the original."""
    share = str(callers // PROCESSES)
    command = [sys.executable, __file__, "--worker", url, stack, entity, share]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    for worker in workers:
        worker.stdout.readline()
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    counts, times = collections.Counter(), []
    for worker in workers:
        got = json.loads(worker.communicate(timeout=120)[0])
        counts.update(got["counts"])
        times.extend(got["times"])
    return counts, times


async def worker(url, stack, entity, callers):
    import warnings

    warnings.simplefilter("ignore")
    from zae_limiter import RateLimiter, RateLimitExceeded, Repository

    repository = await Repository.open("default", stack=stack, region="us-east-1", endpoint_url=url)
    limiter = RateLimiter(repository=repository)
    counts, times = collections.Counter(), []
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    end = time.time() + SECONDS

    async def call():
        while time.time() < end:
            began = time.time()
            try:
                async with limiter.acquire(entity_id=entity, resource="g", consume={"r": 1}):
                    pass
                counts["ok"] += 1
                times.append(time.time() - began)
            except RateLimitExceeded:
                counts["RateLimitExceeded"] += 1
            except Exception as err:
                counts[type(err).__name__] += 1
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*(call() for _ in range(callers)))
    print(json.dumps({"counts": counts, "times": times}), flush=True)
    os._exit(0)


def told(name, latency, callers, counts, times, requests, seconds):
    times.sort()
    admitted = counts["ok"]
    median = times[len(times) // 2] * 1000 if times else float("nan")
    demand = callers * seconds / (latency + PAUSE)
    others = {kind: count for kind, count in counts.items() if kind != "ok"}
    print(
        f"{name:8} {latency * 1000:5.0f} ms: {admitted / seconds:6.1f}/s of {demand / seconds:6.1f}/s asked, "
        f"median {median:6.0f} ms, {requests / max(admitted, 1):5.2f} requests each, refused {others or 'none'}",
        flush=True,
    )


def main():
    if sys.argv[1:2] == ["--worker"]:
        url, stack, entity, callers = sys.argv[2:6]
        return asyncio.run(worker(url, stack, entity, int(callers)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--capacity", type=int, default=1000)
    parser.add_argument("--refill", type=int)
    parser.add_argument("--callers", type=int, default=60)
    parser.add_argument("--latencies", default="0.005,0.05,0.15,0.3,0.6")
    parser.add_argument("--only", choices=["ours", "theirs"])
    options = parser.parse_args()
    from bridge import Bridge, Ours
    from local import Local

    with tempfile.TemporaryDirectory() as directory:
        local = Local(directory, "--ephemeral")
        local.up()
        os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")
        try:
            proxy = Delay(int(local.url.rsplit(":", 1)[1]))
            url = f"http://127.0.0.1:{proxy.port}"
            stack = f"t{uuid.uuid4().hex[:12]}"
            bridges = [Bridge(os.environ["ZAE_LIMITER_BRIDGE"]) for _ in range(PROCESSES)]
            bridges[0].call("create_table", endpoint=local.url, stack=stack)
            admin = Ours(bridges[0], local.url, stack)
            refill = options.refill or options.capacity
            admin.set_system_defaults([["r", options.capacity, refill, 1]])
            for latency in map(float, options.latencies.split(",")):
                for name in [options.only] if options.only else ["ours", "theirs"]:
                    proxy.latency, proxy.requests, began = latency, 0, time.time()
                    entity = f"{name}-{latency}"
                    if name == "ours":
                        counts, times = hammer_ours(bridges, url, stack, entity, options.callers)
                    else:
                        counts, times = hammer_theirs(url, stack, entity, options.callers)
                    told(name, latency, options.callers, counts, times, proxy.requests, SECONDS)
            for bridge in bridges:
                bridge.close()
        finally:
            local.down()


if __name__ == "__main__":
    main()
