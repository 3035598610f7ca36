"""The functions as they will run: packaged, unpacked, started by their handler's name, and fed with the records of
real streams."""

import collections
import gzip
import http.server
import json
import os
import re
import subprocess
import threading
import urllib.request

import boto3
import pytest
import yaml
from bridge import Refused
from function import Function, passes, stream_of, unpack

OUR_PROGRAM = os.environ["ZAE_LIMITER_CLI"]
TEMPLATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../crates/infra/template.yaml")


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory):
    """The executable, by way of the package."""
    directory = tmp_path_factory.mktemp("package")
    package = directory / "lambda.zip"
    done = subprocess.run([OUR_PROGRAM, "lambda-export", "-o", package], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return unpack(package, directory)


@pytest.fixture
def start(bootstrap, world):
    """Starts functions, and ends them."""
    functions = []

    def start(handler="aggregator", endpoint=world.endpoint, **environment):
        environment = {"TABLE_NAME": world.stack, "SNAPSHOT_WINDOWS": "hourly,daily,monthly", **environment}
        function = Function([bootstrap], handler, endpoint, environment)
        functions.append(function)
        return function

    yield start
    for function in functions:
        function.close()


def deliver(function, records, size):
    """Delivers records in batches of a size; returns the answers."""
    answers = []
    for first in range(0, len(records), size):
        kind, answer = function.invoke({"Records": records[first : first + size]})
        assert kind == "response", answer
        assert answer["batchItemFailures"] == [], answer
        answers.append(answer)
    return answers


def spend(world):
    """Both clients spend, correct and give back; returns what came of it."""
    clients = [world.open("ours"), world.open("theirs")]
    clients[0].set_system_defaults([["rpm", 1000, 1000, 60], ["tpm", 100_000, 100_000, 60]])
    clients[0].create_entity("proj-1")
    clients[1].create_entity("key-1", parent="proj-1", cascade=True)
    for turn in range(12):
        lease = clients[turn % 2].acquire("key-1", "gpt-4", rpm=1, tpm=100 + turn)
        if turn % 3 == 0:
            lease.rollback()
        elif turn % 3 == 1:
            lease.adjust(tpm=-50)
            lease.commit()
        else:
            lease.commit()
        for client in clients:
            client.settle()
    kept = [turn for turn in range(12) if turn % 3]
    return clients, {"rpm": len(kept), "tpm": sum(100 + turn - 50 * (turn % 3 == 1) for turn in kept)}


def test_usage_is_what_was_spent(world, start):
    clients, expected = spend(world)
    records = [record for record in stream_of(world.endpoint, world.stack) if passes(record)]
    assert len(records) > 20
    function = start()
    answers = deliver(function, records, 7)
    assert sum(answer["body"]["snapshots_updated"] for answer in answers) > 0
    # At least once: everything again, cut otherwise, to a function that remembers nothing.
    deliver(start(), records, 11)
    for entity in ("key-1", "proj-1"):
        ours = clients[0].call("usage", entity=entity)
        assert sorted(window for _, window, _, _ in ours) == ["daily", "hourly", "monthly"]
        assert all(counters == expected for _, _, _, counters in ours), ours
        theirs, _ = clients[1].repo.get_usage_snapshots(entity_id=entity)
        assert sorted(one.window_type for one in theirs) == ["daily", "hourly", "monthly"]
        assert all(one.counters == expected for one in theirs), theirs
    log = [json.loads(line) for line in function.log]
    assert any(line.get("message") == "Lambda invocation completed" for line in log)
    assert any("_aws" in line for line in log)


def test_beside_their_aggregator(world, start):
    """The same records to the original's: it leaves out what created a bucket, and counts twice what comes twice."""
    from zae_limiter_aggregator import processor

    clients, expected = spend(world)
    records = [record for record in stream_of(world.endpoint, world.stack) if passes(record)]
    deliver(start(SNAPSHOT_WINDOWS="hourly"), records, 100)
    [[_, _, _, ours]] = clients[0].call("usage", entity="key-1")
    assert ours == expected

    table = boto3.resource("dynamodb", endpoint_url=world.endpoint, region_name="us-east-1").Table(world.stack)
    theirs = collections.Counter()
    for record in records:
        for delta in processor.extract_deltas(record):
            if delta.entity_id == "key-1":
                theirs[delta.limit_name] += delta.tokens_delta // 1000
    created = [record for record in records if record["eventName"] == "INSERT"]
    [first] = [one for one in created if "BUCKET#key-1#" in one["dynamodb"]["Keys"]["PK"]["S"]]
    for limit in ("rpm", "tpm"):
        missing = int(first["dynamodb"]["NewImage"][f"b_{limit}_tc"]["N"]) // 1000
        assert ours[limit] == theirs[limit] + missing
    assert table.table_name == world.stack


def test_buckets_are_refilled_and_split(world, start):
    client = world.open("ours")
    client.set_system_defaults([["rpm", 600, 600, 60]])
    client.acquire("key-1", "gpt-4", rpm=1).commit()
    pk = f"{client.namespace_id}/BUCKET#key-1#gpt-4#0"

    def record(old, new, number):
        image = {"SequenceNumber": str(number), "ApproximateCreationDateTime": 1_795_290_198.0}
        return {"eventName": "MODIFY", "dynamodb": {**image, "OldImage": old, "NewImage": new}}

    def changed(**numbers):
        key = {"PK": {"S": pk}, "SK": {"S": "#STATE"}}
        world.dynamo.update_item(
            TableName=world.stack,
            Key=key,
            UpdateExpression="SET " + ", ".join(f"{name} = :{name}" for name in numbers),
            ExpressionAttributeValues={f":{name}": {"N": str(value)} for name, value in numbers.items()},
        )
        return world.bucket(client, "key-1", "gpt-4")

    # As after 590 requests, half a minute ago.
    before = world.bucket(client, "key-1", "gpt-4")
    ago = int(before["rf"]["N"]) - 30_000
    after = changed(b_rpm_tk=10_000, b_rpm_tc=591_000, b_wcu_tk=900_000, b_wcu_tc=590_000, rf=ago)
    function = start()
    [answer] = deliver(function, [record(before, after, 1)], 1)
    assert answer["body"]["refills_written"] == 1, (answer, function.log)
    refilled = world.bucket(client, "key-1", "gpt-4")
    assert 300_000 <= int(refilled["b_rpm_tk"]["N"]) <= 420_000
    assert refilled["b_rpm_tc"] == after["b_rpm_tc"]

    # As after a thousand writes within this second; the clock's next seconds are its own.
    later = int(refilled["rf"]["N"]) + 3_600_000
    dry = changed(b_rpm_tk=400_000, b_wcu_tk=50_000, b_wcu_tc=1_500_000, rf=later)
    deliver(function, [record(refilled, dry, 2)], 1)
    split = world.bucket(client, "key-1", "gpt-4")
    assert split["shard_count"] == {"N": "2"}
    # The doubling comes by in the stream.
    deliver(function, [record(dry, split, 3)], 1)
    shards = [world.bucket(client, "key-1", "gpt-4", shard) for shard in (0, 1)]
    assert [shard["shard_count"]["N"] for shard in shards] == ["2", "2"]
    # Moved, not minted.
    assert [int(shard["b_rpm_tk"]["N"]) for shard in shards] == [300_000, 100_000]
    # Both go on with it.
    for which in ("ours", "theirs"):
        other = world.open(which)
        for _ in range(4):
            try:
                other.acquire("key-1", "gpt-4", rpm=1).commit()
            except Refused:
                pytest.fail("there are tokens")


def expired(world, number, subject="key-1"):
    """The record of an audit event that has expired."""
    return {
        "eventName": "REMOVE",
        "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
        "dynamodb": {
            "SequenceNumber": str(number),
            "ApproximateCreationDateTime": 1_803_066_198.0,
            "OldImage": {
                "PK": {"S": f"dSkXlbmmfyU/AUDIT#{subject}"},
                "SK": {"S": f"#AUDIT#{number:026}"},
                "event_id": {"S": f"{number:026}"},
                "entity_id": {"S": subject},
                "timestamp": {"S": "2026-08-23T19:43:18Z"},
                "action": {"S": "limits_set"},
                "principal": {"NULL": True},
                "details": {"M": {"n": {"N": "3"}}},
            },
        },
    }


def test_expired_audit_events_are_archived(world, start):
    if "engine" in os.environ.get("PYTEST_CURRENT_TEST", ""):
        pytest.skip("the embedded engine has no S3")
    s3 = boto3.client("s3", endpoint_url=world.endpoint, region_name="us-east-1")
    name = f"archive-{world.stack}"
    function = start(ENABLE_ARCHIVAL="true", ARCHIVE_BUCKET_NAME=name)
    records = [expired(world, number) for number in (7, 8, 9)]
    # There is no bucket yet: nothing may be lost.
    kind, answer = function.invoke({"Records": records})
    assert kind == "response"
    assert answer["batchItemFailures"] == [{"itemIdentifier": "7"}]
    assert answer["body"]["events_archived"] == 0
    s3.create_bucket(Bucket=name)
    for _ in range(2):
        kind, answer = function.invoke({"Records": records})
        assert answer["batchItemFailures"] == []
        assert answer["body"]["events_archived"] == 3
    [found] = s3.list_objects_v2(Bucket=name)["Contents"]
    assert found["Key"] == "audit/year=2026/month=08/day=23/audit-7-2026-08-23T19-43-18Z.jsonl.gz"
    body = s3.get_object(Bucket=name, Key=found["Key"])
    assert body["ContentType"] == "application/x-ndjson"
    lines = [json.loads(line) for line in gzip.decompress(body["Body"].read()).splitlines()]
    assert [line["event_id"] for line in lines] == [f"{number:026}" for number in (7, 8, 9)]
    assert lines[0]["details"] == {"n": 3}
    assert lines[0]["namespace_id"] == "dSkXlbmmfyU"


@pytest.mark.parametrize(
    ("handler", "environment", "complaint"),
    [
        ("zae_limiter_aggregator.handler.handler", {}, "there is no handler"),
        ("aggregator", {"SNAPSHOT_TTL_DAYS": "soon"}, "SNAPSHOT_TTL_DAYS is 'soon'"),
        ("aggregator", {"SNAPSHOT_WINDOWS": "weekly"}, "SNAPSHOT_WINDOWS is 'weekly'"),
        ("aggregator", {"TABLE_NAME": "no table"}, "no table"),
    ],
)
def test_a_function_that_cannot_start_says_why(start, handler, environment, complaint):
    function = start(handler, **environment)
    assert function.ends() == 1
    [line] = map(json.loads, function.log)
    assert line["level"] == "ERROR"
    assert complaint in line["exception"]


def test_a_table_that_is_not_there_fails_the_batch(world, start):
    _, _ = spend(world)
    records = [record for record in stream_of(world.endpoint, world.stack) if passes(record)]
    function = start(TABLE_NAME="nobodys-table")
    kind, answer = function.invoke({"Records": records[:3]})
    assert kind == "response"
    first = records[0]["dynamodb"]["SequenceNumber"]
    assert answer["batchItemFailures"] == [{"itemIdentifier": first}]


class Answers:
    """Takes the answers that CloudFormation waits for."""

    def __init__(self):
        self.bodies = bodies = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_PUT(self):
                assert self.headers.get("Content-Type", "") == ""
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/answer?signature=x"


def test_the_provisioner_answers(world, start):
    answers = Answers()
    function = start("provisioner")
    event = {
        "RequestType": "Create",
        "ResponseURL": answers.url,
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "TenantLimits",
        "ResourceProperties": {"TableName": world.stack, "Namespace": "default"},
    }
    kind, _ = function.invoke(event)
    assert kind == "response"
    assert answers.bodies[-1]["Status"] == "FAILED"
    assert answers.bodies[-1]["Reason"] == "namespace 'default' does not exist; register it first"
    # What never was is deleted with success, so that the stack can be.
    for physical in ("failed", f"{world.stack}/dSkXlbmmfyU/limits-provisioner"):
        kind, _ = function.invoke({**event, "RequestType": "Delete", "PhysicalResourceId": physical})
        assert kind == "response"
        assert answers.bodies[-1]["Status"] == "SUCCESS", answers.bodies[-1]
        assert answers.bodies[-1]["PhysicalResourceId"] == physical
        assert answers.bodies[-1]["LogicalResourceId"] == "TenantLimits"
    client = world.open("theirs")
    event["ResourceProperties"]["Resources"] = {"gpt-4": {"Limits": {"rpm": {"Capacity": "5"}}}}
    for _ in range(2):
        kind, _ = function.invoke(event)
        assert (kind, answers.bodies[-1]["Status"]) == ("response", "SUCCESS"), answers.bodies[-1]
        assert client.resource_defaults("gpt-4") == [("rpm", 5, 5, 60)]
    physical = answers.bodies[-1]["PhysicalResourceId"]
    assert physical == f"{world.stack}/{client.namespace_id}/limits-provisioner"
    function.invoke({**event, "RequestType": "Delete", "PhysicalResourceId": physical})
    assert answers.bodies[-1]["Data"]["deleted"] == 1
    assert client.resource_defaults("gpt-4") == []
    kind, answer = function.invoke({"action": "plan", "namespace_id": "", "manifest": {"namespace": "default"}})
    assert kind == "error"
    assert "namespace_id" in answer["errorMessage"]


def test_the_provisioners_role_grants_what_it_calls(world, start):
    """An apply with levels that come, change and go, buckets to be told, and work that is left over."""
    client = world.open("ours")
    recorder = Recorder(world.endpoint)
    function = start("provisioner", endpoint=recorder.endpoint)

    def apply(manifest):
        manifest = {"namespace": "default", **manifest}
        event = {"action": "apply", "table_name": world.stack, "namespace_id": client.namespace_id, "manifest": manifest}
        kind, answer = function.invoke(event)
        assert (kind, answer["errors"], answer["pending"]) == ("response", [], 0), answer

    def level(capacity):
        return {"resources": {"gpt-4": {"limits": {"rpm": {"capacity": capacity}}}}}

    apply({**level(50), "entities": {"key-1": level(5)}})
    client.acquire("key-1", "gpt-4", rpm=1).commit()
    apply({**level(50), "entities": {"key-1": level(6)}})
    apply(level(50))
    apply({})
    needed = {action.removesuffix(" index") for action in recorder.actions}
    assert needed <= granted("ProvisionerRole"), needed
    assert {"BatchGetItem", "Query", "PutItem", "UpdateItem", "DeleteItem"} <= needed


class Recorder:
    """A proxy that notes which actions of IAM the requests through it need."""

    PARTS = {"Put": "PutItem", "Update": "UpdateItem", "Delete": "DeleteItem", "ConditionCheck": "ConditionCheckItem"}

    def __init__(self, endpoint):
        self.actions = actions = set()
        parts = self.PARTS

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                action = self.headers["X-Amz-Target"].split(".")[1]
                request = json.loads(body)
                if action.startswith("Transact"):
                    actions.update(parts[kind] for item in request["TransactItems"] for kind in item)
                else:
                    where = " index" if "IndexName" in request else ""
                    actions.add(action + where)
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
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"


def granted(logical_id, sid=None):
    """The actions on the table that a role or policy of the template grants."""
    with open(TEMPLATE, encoding="utf-8") as file:
        properties = yaml.safe_load(file)["Resources"][logical_id]["Properties"]
    text = json.dumps(properties)
    statements = []
    for found in re.finditer(r'\{"Sid": "(\w+)"', text):
        statement, _ = json.JSONDecoder().raw_decode(text[found.start() :])
        if sid is None or found.group(1) == sid:
            statements.append(statement)
    actions = {action for one in statements for action in one["Action"]}
    return {action.split(":")[1] for action in actions if action.startswith("dynamodb:")}


def test_the_aggregators_role_grants_what_it_calls_and_nothing_else(world, start):
    client = world.open("ours")
    client.set_system_defaults([["rpm", 600, 600, 60]])
    client.create_entity("key-1")
    client.acquire("key-1", "gpt-4", rpm=1).commit()
    recorder = Recorder(world.endpoint)
    function = start(endpoint=recorder.endpoint)
    key = {"PK": {"S": f"{client.namespace_id}/BUCKET#key-1#gpt-4#0"}, "SK": {"S": "#STATE"}}
    number = 0
    for count in (1, 2, 4):
        # A count, raised from one to two, to four: usage, propagation, new shards.
        old = world.bucket(client, "key-1", "gpt-4")
        world.dynamo.update_item(
            TableName=world.stack,
            Key=key,
            UpdateExpression="SET shard_count = :count ADD b_rpm_tc :some, b_wcu_tc :some",
            ExpressionAttributeValues={":count": {"N": str(count)}, ":some": {"N": "1000"}},
        )
        new = world.bucket(client, "key-1", "gpt-4")
        number += 1
        image = {"SequenceNumber": str(number), "ApproximateCreationDateTime": 1_795_290_198.0}
        record = {"eventName": "MODIFY", "dynamodb": {**image, "OldImage": old, "NewImage": new}}
        deliver(function, [record], 1)
    assert world.bucket(client, "key-1", "gpt-4", 3) is not None
    assert recorder.actions == granted("AggregatorRole", "TableAccess")


def test_clients_need_no_more_than_their_policies_grant(world):
    """Acquiring, both clients, with what it takes to create and split buckets."""
    client = world.open("ours")
    client.set_system_defaults([["rpm", 600, 600, 60]])
    client.create_entity("proj-1")
    client.create_entity("key-1", parent="proj-1", cascade=True)
    recorder = Recorder(world.endpoint)
    acquiring = type(client)(world.bridge, recorder.endpoint, world.stack)
    for _ in range(3):
        lease = acquiring.acquire("key-1", "gpt-4", rpm=300)
        lease.adjust(rpm=-10)
        lease.rollback()
        acquiring.settle()
    acquiring.available("key-1", "gpt-4")
    table_and_index = {action.removesuffix(" index") for action in recorder.actions}
    assert table_and_index <= granted("AcquireOnlyPolicy"), recorder.actions
    assert {"UpdateItem", "PutItem", "ConditionCheckItem"} <= recorder.actions

    recorder = Recorder(world.endpoint)
    reading = type(client)(world.bridge, recorder.endpoint, world.stack)
    reading.entity("key-1"), reading.children("proj-1"), reading.system_defaults()
    reading.listings("gpt-4"), reading.audit("key-1"), reading.namespaces(), reading.orphans()
    reading.call("usage", entity="key-1")
    table_and_index = {action.removesuffix(" index") for action in recorder.actions}
    assert table_and_index <= granted("ReadOnlyPolicy"), recorder.actions

    recorder = Recorder(world.endpoint)
    full = type(client)(world.bridge, recorder.endpoint, world.stack)
    full.create_entity("key-2")
    full.set_entity_limits("key-2", "gpt-4", [["rpm", 5, 5, 60]])
    full.delete_entity_limits("key-2", "gpt-4")
    full.delete_entity("key-2")
    number = full.register_namespace("team-a")
    full.delete_namespace("team-a")
    full.purge_namespace(number)
    table_and_index = {action.removesuffix(" index") for action in recorder.actions}
    assert table_and_index <= granted("FullAccessPolicy"), recorder.actions
