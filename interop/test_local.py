"""The local endpoint under clients that we did not write: the Python original, boto3, and the `aws` command."""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time

import boto3
import pytest
from botocore.exceptions import ClientError
from bridge import Bridge, Failed, Ours, Refused, Theirs
from local import PROGRAM, Local, eventually

PACKAGE = os.environ["ZAE_LIMITER_PACKAGE"]
AWS = os.environ["ZAE_LIMITER_AWS"]
THEIR_PROGRAM = os.path.join(os.path.dirname(sys.executable), "zae-limiter")

#: How long the load with crashes takes.
CRASHING_SECONDS = float(os.environ.get("ZAE_LIMITER_CRASHING_SECONDS", "30"))


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """An endpoint with a stack of ours."""
    local = Local(tmp_path_factory.mktemp("state"))
    local.up()
    local.command("deploy", "--name", "my-app", "--lambda-package", PACKAGE)
    yield local
    local.down()


def client(local, service):
    return boto3.client(service, endpoint_url=local.url, region_name="us-east-1")


def usage(local, stack, entity, window="hourly"):
    found = local.json("usage", "list", "-n", stack, "-e", entity, "-w", window)["snapshots"]
    totals = {}
    for snapshot in found:
        for counter in snapshot["counters"] if isinstance(snapshot["counters"], list) else snapshot["counters"].items():
            name, value = counter if isinstance(counter, (tuple, list)) else (counter["limit"], counter["value"])
            totals[name] = totals.get(name, 0) + value
    return totals


# Ours.


def test_the_aggregator_counts(local):
    local.command("resource", "set-defaults", "gpt-4", "-n", "my-app", "-l", "rpm:100", "-l", "tpm:10000")
    for _ in range(3):
        local.command("acquire", "user-1", "-n", "my-app", "-r", "gpt-4", "-c", "rpm:1", "-c", "tpm:500")
    eventually(lambda: usage(local, "my-app", "user-1") == {"rpm": 3, "tpm": 1500})
    assert usage(local, "my-app", "user-1", "daily") == {"rpm": 3, "tpm": 1500}


def test_what_the_stack_says_of_itself(local):
    status = local.json("status", "-n", "my-app")
    assert status["stack"]["status"] == "CREATE_COMPLETE" if isinstance(status.get("stack"), dict) else True
    listed = local.command("list").stdout
    assert "my-app" in listed
    assert "up to date" in local.command("upgrade", "-n", "my-app", "--yes", "--lambda-package", PACKAGE).stdout.lower()


def test_expired_audit_events_are_archived(local):
    outputs = client(local, "cloudformation").describe_stacks(StackName="my-app")["Stacks"][0]["Outputs"]
    bucket = next(out["OutputValue"] for out in outputs if out["OutputKey"] == "AuditArchiveBucketName")
    dynamodb = client(local, "dynamodb")
    local.command("entity", "create", "user-archived", "-n", "my-app")
    events = dynamodb.scan(
        TableName="my-app",
        FilterExpression="begins_with(SK, :audit) AND entity_id = :entity",
        ExpressionAttributeValues={":audit": {"S": "#AUDIT#"}, ":entity": {"S": "user-archived"}},
    )["Items"]
    assert events
    for event in events:
        dynamodb.update_item(
            TableName="my-app",
            Key={"PK": event["PK"], "SK": event["SK"]},
            UpdateExpression="SET #ttl = :past",
            ExpressionAttributeNames={"#ttl": "ttl"},
            ExpressionAttributeValues={":past": {"N": str(int(time.time()) - 60)}},
        )
    s3 = client(local, "s3")
    objects = eventually(lambda: s3.list_objects_v2(Bucket=bucket).get("Contents"))
    assert all(found["Key"].startswith("audit/") for found in objects)


def test_their_client_on_our_stack(local):
    theirs = Theirs(local.url, "my-app")
    lease = theirs.acquire("user-2", "gpt-4", rpm=2)
    lease.commit()
    theirs.close()
    eventually(lambda: usage(local, "my-app", "user-2") == {"rpm": 2})


def test_a_stack_is_deleted_with_its_archive_emptied(local):
    local.command("deploy", "--name", "short-lived", "--lambda-package", PACKAGE)
    assert "short-lived" in client(local, "dynamodb").list_tables()["TableNames"]
    local.command("delete", "--name", "short-lived", "--yes")
    assert "short-lived" not in client(local, "dynamodb").list_tables()["TableNames"]
    functions = client(local, "lambda").list_functions()["Functions"]
    assert not any(function["FunctionName"].startswith("short-lived") for function in functions)
    with pytest.raises(ClientError, match="does not exist"):
        client(local, "cloudformation").describe_stacks(StackName="short-lived")


def test_opening_deploys(local):
    bridge = Bridge(os.environ["ZAE_LIMITER_BRIDGE"])
    try:
        ours = Ours(bridge, local.url, "on-demand")
        ours.set_system_defaults([["rpm", 10, 10, 60]])
        ours.acquire("user-1", "gpt-4", rpm=1).commit()
    finally:
        bridge.close()
    stacks = client(local, "cloudformation").describe_stacks(StackName="on-demand")["Stacks"]
    assert stacks[0]["StackStatus"] == "CREATE_COMPLETE"


# The original, unmodified.


def test_their_command_deploys_and_works(local):
    def theirs(*words):
        place = ["--name", "their-app", "--endpoint-url", local.url, "--region", "us-east-1"]
        return local.command(*words, *place, program=THEIR_PROGRAM).stdout

    deployed = theirs("deploy", "--no-aggregator")
    assert "✓ Stack create complete" in deployed
    theirs("entity", "create", "user-1")
    theirs("resource", "set-defaults", "gpt-4", "-l", "rpm:5")
    assert "rpm" in theirs("resource", "get-defaults", "gpt-4")
    theirs("namespace", "register", "tenant")
    assert "tenant" in theirs("namespace", "list")
    their_client = Theirs(local.url, "their-app")
    for _ in range(5):
        their_client.acquire("user-1", "gpt-4", rpm=1).commit()
    with pytest.raises(Refused):
        their_client.acquire("user-1", "gpt-4", rpm=1)
    their_client.close()
    assert "No usage" in theirs("usage", "list", "--entity-id", "user-1")
    assert "user-1" in theirs("audit", "list", "--entity-id", "user-1")
    # Ours sees what theirs did.
    assert "rpm: 5/min" in local.command("resource", "get-defaults", "gpt-4", "-n", "their-app").stdout
    local.command("delete", "--name", "their-app", "--yes")


# The `aws` command, unmodified.


def aws(local, *words):
    # Not every service of this command looks at the variable.
    out = local.command("--endpoint-url", local.url, *words, program=AWS).stdout
    return json.loads(out) if out.strip().startswith(("{", "[")) else out


def test_aws_command_reads_the_stack(local):
    stacks = aws(local, "cloudformation", "describe-stacks", "--stack-name", "my-app")["Stacks"]
    assert stacks[0]["StackStatus"] == "CREATE_COMPLETE"
    assert any(out["OutputKey"] == "TableArn" for out in stacks[0]["Outputs"])
    resources = aws(local, "cloudformation", "list-stack-resources", "--stack-name", "my-app")
    kinds = {found["ResourceType"] for found in resources["StackResourceSummaries"]}
    assert "AWS::Lambda::EventSourceMapping" in kinds
    assert aws(local, "cloudformation", "list-exports")["Exports"]
    assert aws(local, "sts", "get-caller-identity")["Account"] == "000000000000"


def test_aws_command_reads_the_table(local):
    found = aws(local, "dynamodb", "scan", "--table-name", "my-app")
    assert found["Count"] > 0
    described = aws(local, "dynamodb", "describe-table", "--table-name", "my-app")["Table"]
    assert described["TableArn"] == "arn:aws:dynamodb:us-east-1:000000000000:table/my-app"
    streams = aws(local, "dynamodbstreams", "list-streams", "--table-name", "my-app")["Streams"]
    stream = aws(local, "dynamodbstreams", "describe-stream", "--stream-arn", streams[0]["StreamArn"])
    assert stream["StreamDescription"]["Shards"]


def test_aws_command_uses_functions_queues_and_logs(local, tmp_path):
    functions = aws(local, "lambda", "list-functions")["Functions"]
    assert "my-app-aggregator" in [function["FunctionName"] for function in functions]
    answer = tmp_path / "answer.json"
    empty = tmp_path / "event.json"
    empty.write_text('{"Records": []}')
    invoked = aws(
        local, "lambda", "invoke", "--function-name", "my-app-aggregator", "--payload", f"fileb://{empty}", answer
    )
    assert invoked["StatusCode"] == 200 and "FunctionError" not in invoked, answer.read_text()
    assert json.loads(answer.read_text())["batchItemFailures"] == []
    logged = aws(local, "logs", "filter-log-events", "--log-group-name", "/aws/lambda/my-app-aggregator")
    assert any("REPORT RequestId" in event["message"] for event in logged["events"])
    url = aws(local, "sqs", "get-queue-url", "--queue-name", "my-app-aggregator-dlq")["QueueUrl"]
    depth = aws(local, "sqs", "get-queue-attributes", "--queue-url", url, "--attribute-names", "All")
    assert depth["Attributes"]["ApproximateNumberOfMessages"] == "0"


def test_aws_command_moves_objects(local, tmp_path):
    aws(local, "s3", "mb", "s3://moved")
    large = tmp_path / "large"
    large.write_bytes(random.Random(1).randbytes(9 * 1024 * 1024))
    aws(local, "s3", "cp", large, "s3://moved/some/large", "--no-progress")
    back = tmp_path / "back"
    aws(local, "s3", "cp", "s3://moved/some/large", back, "--no-progress")
    assert back.read_bytes() == large.read_bytes()
    assert "large" in aws(local, "s3", "ls", "s3://moved/some/")
    aws(local, "s3", "rb", "s3://moved", "--force")


def test_aws_command_deploys_a_template(local, tmp_path):
    template = tmp_path / "template.yaml"
    template.write_text(
        "Parameters: {Days: {Type: Number}}\n"
        "Resources:\n"
        "  Group: {Type: AWS::Logs::LogGroup, Properties: {RetentionInDays: !Ref Days}}\n"
        "Outputs: {Name: {Value: !Ref Group}}\n"
    )
    for days in ("7", "14"):
        words = ["--stack-name", "small", "--template-file", template, "--parameter-overrides", f"Days={days}"]
        aws(local, "cloudformation", "deploy", *words)
        groups = aws(local, "logs", "describe-log-groups", "--log-group-name-prefix", "small-Group")["logGroups"]
        assert [group["retentionInDays"] for group in groups] == [int(days)]
    aws(local, "cloudformation", "delete-stack", "--stack-name", "small")
    aws(local, "cloudformation", "wait", "stack-delete-complete", "--stack-name", "small")


def test_aws_command_deploys_limits(local, tmp_path):
    manifest, template = tmp_path / "limits.yaml", tmp_path / "limits-stack.yaml"

    def write(**entities):
        levels = {entity: {"resources": {"gpt-4": {"limits": {"rpm": {"capacity": n}}}}} for entity, n in entities.items()}
        manifest.write_text(json.dumps({"namespace": "declared", "entities": levels}))
        return local.command("limits", "cfn-template", "-n", "my-app", "-f", manifest).stdout

    def stored():
        listed = local.json("entity", "list", "-n", "my-app", "-N", "declared", "--with-custom-limits", "gpt-4")
        found = {}
        for entity in ("by-file", "by-stack"):
            limits = local.json("entity", "get-limits", entity, "-n", "my-app", "-N", "declared", "-r", "gpt-4")["limits"]
            found.update({entity: limit["capacity"] for limit in limits})
        assert sorted(found) == sorted(listed), listed
        return found

    def deleted():
        # The command's own waiting looks every half a minute.
        waiter = stacks.get_waiter("stack_delete_complete")
        stacks.delete_stack(StackName="limits")
        waiter.wait(StackName="limits", WaiterConfig={"Delay": 1, "MaxAttempts": 60})

    stacks = client(local, "cloudformation")
    write(**{"by-file": 5})
    local.command("limits", "apply", "-n", "my-app", "-f", manifest)
    assert stored() == {"by-file": 5}
    # A creation that is refused, and rolled back, leaves what is managed as it was.
    text = write(**{"by-stack": 7})
    template.write_text(text.replace("Entities:", "Entites:"))
    words = ["--template-body", f"file://{template}"]
    aws(local, "cloudformation", "create-stack", "--stack-name", "limits", *words)
    eventually(lambda: stacks.describe_stacks(StackName="limits")["Stacks"][0]["StackStatus"] == "ROLLBACK_COMPLETE")
    events = stacks.describe_stack_events(StackName="limits")["StackEvents"]
    assert any("did you mean 'Entities'?" in event.get("ResourceStatusReason", "") for event in events)
    assert stored() == {"by-file": 5}
    deleted()
    assert stored() == {"by-file": 5}
    # From its creation to its end the stack has what it declares.
    template.write_text(write(**{"by-stack": 7}))
    aws(local, "cloudformation", "deploy", "--stack-name", "limits", "--template-file", template)
    assert stored() == {"by-stack": 7}
    stacks.update_stack(StackName="limits", TemplateBody=write(**{"by-stack": 8}))
    quickly = {"Delay": 1, "MaxAttempts": 60}
    stacks.get_waiter("stack_update_complete").wait(StackName="limits", WaiterConfig=quickly)
    assert stored() == {"by-stack": 8}
    deleted()
    assert stored() == {}


# What can go wrong with an endpoint.


def test_a_second_start_says_that_one_runs(local):
    second = local.command("local", "up").stdout
    assert second.splitlines()[0] == f"Local endpoint is already running at {local.url}"
    status = local.json("local", "status")
    assert (status["health"], status["pid"]) == ("healthy", local.pid)


def test_a_port_in_use(tmp_path):
    other = Local(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other.port = taken.getsockname()[1]
        refused = other.command("local", "up", "--port", other.port, check=False)
    assert refused.returncode == 1
    assert f"Error: Port {other.port} is already in use." in refused.stderr
    assert other.command("local", "status").stdout == "Local endpoint: not running\n"


def test_a_data_directory_in_use_or_damaged(local, tmp_path):
    other = Local(tmp_path / "state", "--data-dir", local.environment["ZAE_LIMITER_STATE_DIR"] + "/data")
    refused = other.command("local", "up", "--port", 0, *other.options, check=False)
    assert refused.returncode == 1 and "in use by another process" in refused.stderr
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "zae-limiter.sqlite").write_bytes(b"no database" * 1000)
    refused = other.command("local", "up", "--port", 0, "--data-dir", damaged, check=False)
    assert refused.returncode == 1 and "cannot be read as an embedded table" in refused.stderr
    (damaged / "zae-limiter.sqlite").unlink()
    (damaged / "endpoint.sqlite").write_bytes(b"no database" * 1000)
    refused = other.command("local", "up", "--port", 0, "--data-dir", damaged, check=False)
    assert refused.returncode == 1 and "endpoint.sqlite cannot be used" in refused.stderr


def test_nothing_is_kept_in_memory(tmp_path):
    forgetful = Local(tmp_path, "--ephemeral")
    forgetful.up()
    forgetful.command("deploy", "--name", "gone", "--no-aggregator", "--no-provisioner")
    assert forgetful.down().endswith("Local endpoint stopped.\n")
    forgetful.up()
    assert client(forgetful, "dynamodb").list_tables()["TableNames"] == []
    forgetful.down()


def test_an_operation_that_was_cut_off_is_undone(tmp_path):
    local = Local(tmp_path)
    local.up()
    words = ["deploy", "--name", "cut-off", "--lambda-package", PACKAGE]
    deploying = subprocess.Popen(
        [PROGRAM, *words], env=local.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    cloudformation = client(local, "cloudformation")

    def begun():
        try:
            found = cloudformation.list_stack_resources(StackName="cut-off")["StackResourceSummaries"]
            return len(found) > 2
        except ClientError:
            return False

    deadline = time.monotonic() + 60
    while not begun() and time.monotonic() < deadline:
        pass
    local.kill()
    deploying.kill()
    deploying.wait()
    local.up()
    status = eventually(
        lambda: next(
            (
                stack["StackStatus"]
                for stack in cloudformation.describe_stacks(StackName="cut-off")["Stacks"]
                if not stack["StackStatus"].endswith("_IN_PROGRESS")
            ),
            None,
        )
    )
    # It may have been faster than the signal.
    assert status in ("ROLLBACK_COMPLETE", "CREATE_COMPLETE")
    if status == "ROLLBACK_COMPLETE":
        assert client(local, "dynamodb").list_tables()["TableNames"] == []
        assert client(local, "lambda").list_functions()["Functions"] == []
    local.command("delete", "--name", "cut-off", "--yes")
    local.command(*words)
    local.down()


def test_crashes_under_load_lose_nothing(tmp_path):
    """Whatever was answered is in the table, and what the aggregator counted is what was consumed."""
    local = Local(tmp_path)
    local.up()
    local.command("deploy", "--name", "load", "--lambda-package", PACKAGE, "--snapshot-windows", "hourly,daily")
    bridge = Bridge(os.environ["ZAE_LIMITER_BRIDGE"])
    setup = Ours(bridge, local.url, "load")
    setup.set_system_defaults([["rpm", 1_000_000_000, 1_000_000_000, 60]], "block")
    entities = [f"user-{number}" for number in range(12)]
    answered, asked = {entity: 0 for entity in entities}, {entity: 0 for entity in entities}
    lock, over = threading.Lock(), threading.Event()

    def work(seed):
        chance = random.Random(seed)
        ours = None
        while not over.is_set():
            entity, amount = chance.choice(entities), chance.randint(1, 9)
            try:
                ours = ours or Ours(bridge, local.url, "load")
                kind = chance.random()
                if kind < 0.05:
                    ours.set_entity_limits(entity, "gpt-4", [["rpm", 10**9, 10**9, chance.choice([60, 3600])]])
                    continue
                if kind < 0.1:
                    ours.available(entity, "gpt-4")
                    continue
                with lock:
                    asked[entity] += amount
                ours.acquire(entity, "gpt-4", rpm=amount).commit()
                with lock:
                    answered[entity] += amount
            except (Failed, Refused):
                # The endpoint is down: the request was refused, or its outcome is not known.
                time.sleep(0.01)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for worker in workers:
        worker.start()
    chance, crashes, end = random.Random(7), 0, time.monotonic() + CRASHING_SECONDS
    while time.monotonic() < end:
        time.sleep(chance.uniform(0.3, 3))
        local.kill()
        crashes += 1
        time.sleep(chance.uniform(0, 0.3))
        local.up()
    over.set()
    for worker in workers:
        worker.join()
    assert crashes > 3 and sum(answered.values()) > 100

    dynamodb = client(local, "dynamodb")
    consumed = {entity: 0 for entity in entities}
    for page in dynamodb.get_paginator("scan").paginate(
        TableName="load",
        ConsistentRead=True,
        FilterExpression="SK = :state",
        ExpressionAttributeValues={":state": {"S": "#STATE"}},
    ):
        for item in page["Items"]:
            assert int(item["b_rpm_tc"]["N"]) % 1000 == 0
            consumed[item["entity_id"]["S"]] += int(item["b_rpm_tc"]["N"]) // 1000
    for entity in entities:
        # A request whose answer was lost counts as consumed if it was made.
        assert answered[entity] <= consumed[entity] <= asked[entity], entity

    def counted():
        return {entity: usage(local, "load", entity, "daily").get("rpm", 0) for entity in entities}

    try:
        eventually(lambda: counted() == consumed, seconds=120)
    except AssertionError:
        assert counted() == consumed
    print(f"{crashes} crashes, {sum(answered.values())} tokens answered, {sum(consumed.values())} consumed")
    bridge.close()
    local.down()
