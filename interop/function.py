"""A function as AWS Lambda runs it: an unpacked package whose `bootstrap` talks to a runtime interface."""

import json
import os
import queue
import subprocess
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/2018-06-01/runtime/"


class Runtime:
    """Lambda's runtime interface, for one function."""

    def __init__(self):
        self.events = queue.Queue()
        self.answers = queue.Queue()
        self.asked = threading.Event()
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def reply(self, status, body=b"", headers=()):
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                assert self.path == PREFIX + "invocation/next", self.path
                runtime.asked.set()
                number, event = runtime.events.get()
                deadline = int(time.time() * 1000) + 60_000
                self.reply(
                    200,
                    json.dumps(event).encode(),
                    [
                        ("Lambda-Runtime-Aws-Request-Id", f"request-{number}"),
                        ("Lambda-Runtime-Deadline-Ms", str(deadline)),
                        ("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f"),
                        ("Lambda-Runtime-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0"),
                        ("Content-Type", "application/json"),
                    ],
                )

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kind = self.path.rsplit("/", 1)[1]
                runtime.answers.put((kind, json.loads(body) if body else None))
                self.reply(202)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        # A function that is killed hangs up.
        self.server.handle_error = lambda *arguments: None
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def invoke(self, event, timeout=120):
        """Gives the function an event; returns what kind of answer it gave, and the answer."""
        self.events.put((self.events.qsize() + 1, event))
        return self.answers.get(timeout=timeout)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def unpack(package, directory):
    """Unpacks a package as Lambda does, with the modes that it says."""
    with zipfile.ZipFile(package) as archive:
        for entry in archive.infolist():
            path = archive.extract(entry, directory)
            os.chmod(path, entry.external_attr >> 16)
    return os.path.join(directory, "bootstrap")


class Function:
    """A running function. `environment` is what the template sets."""

    def __init__(self, command, handler, endpoint, environment):
        self.runtime = Runtime()
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_RUNTIME_API": self.runtime.address,
            "_HANDLER": handler,
            "AWS_LAMBDA_FUNCTION_NAME": f"t-{handler}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/t-{handler}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ENDPOINT_URL": endpoint,
            **environment,
        }
        self.log = []
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.reader = threading.Thread(target=lambda: self.log.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def invoke(self, event):
        return self.runtime.invoke(event)

    def ends(self):
        """Waits for the process to end by itself; returns its exit code."""
        code = self.process.wait(timeout=30)
        self.reader.join(timeout=10)
        return code

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.join(timeout=10)
        self.runtime.close()


def stream_of(endpoint, table):
    """All records of a table's stream, as Lambda delivers them."""
    import boto3

    streams = boto3.client("dynamodbstreams", endpoint_url=endpoint, region_name="us-east-1")
    dynamo = boto3.client("dynamodb", endpoint_url=endpoint, region_name="us-east-1")
    arn = dynamo.describe_table(TableName=table)["Table"]["LatestStreamArn"]
    found = []
    for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            page = streams.get_records(ShardIterator=iterator, Limit=1000)
            found.extend(page["Records"])
            iterator = page.get("NextShardIterator") if page["Records"] else None
    for record in found:
        made = record["dynamodb"]["ApproximateCreationDateTime"]
        record["dynamodb"]["ApproximateCreationDateTime"] = made.timestamp()
        record["eventSourceARN"] = arn
    return found


def passes(record):
    """Whether the event source mapping's filters let a record through."""
    image = record["dynamodb"]
    if record["eventName"] in ("INSERT", "MODIFY"):
        return image["NewImage"]["SK"]["S"] == "#STATE"
    by = record.get("userIdentity", {}).get("principalId")
    return image["OldImage"]["SK"]["S"].startswith("#AUDIT#") and by == "dynamodb.amazonaws.com"
