"""Stacks: deployed, shown, upgraded and deleted by our command, beside the original's command and library.

moto is the CloudFormation, Lambda and S3 (see `independent.py`); it starts no function.
"""

import json
import os
import re
import struct
import subprocess
import sys
import uuid
import zipfile
from contextlib import contextmanager

import boto3
import pytest
from bridge import Bridge, Failed, Ours
from botocore.exceptions import ClientError
from click.testing import CliRunner
from zae_limiter import SyncRepository
from zae_limiter.cli import cli as their_cli

OUR_PROGRAM = os.environ["ZAE_LIMITER_CLI"]
REGION = "us-east-1"
ACCOUNT = "123456789012"
BUCKET = f"zae-limiter-code-{ACCOUNT}-{REGION}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/my-role"


@contextmanager
def an_aws():
    """An AWS that is new; its URL."""
    here = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, os.path.join(here, "independent.py")]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        trust = {"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}]}
        iam = boto3.client("iam", endpoint_url=url, region_name=REGION)
        iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(trust))
        yield url
    finally:
        server.stdin.close()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def aws():
    with an_aws() as url:
        yield url


def executable(content=b""):
    """The smallest file that is a static Linux executable by its header."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    return head + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0) + content


@pytest.fixture
def package(tmp_path):
    """A package, and a function that writes another one in its place."""
    path = tmp_path / "lambda.zip"

    def write(content=b""):
        with zipfile.ZipFile(path, "w") as archive:
            entry = zipfile.ZipInfo("bootstrap")
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, executable(content))
        return path

    write()
    path_and_write = type("Package", (), {"path": path, "write": staticmethod(write)})
    return path_and_write


class Shell:
    """Our command and theirs on one AWS."""

    def __init__(self, url, package):
        self.url, self.package = url, package
        self.name = f"s{uuid.uuid4().hex[:10]}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(package.path.parent),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "ZAE_LIMITER_LAMBDA_PACKAGE": str(package.path),
        }

    def client(self, service):
        return boto3.client(service, endpoint_url=self.url, region_name=REGION)

    def run(self, command, *arguments, named=True, answer="", code=0):
        """Runs our command; returns what it printed on standard output and error."""
        place = ["--region", REGION, "--endpoint-url", self.url]
        name = ["--name", self.name] if named else []
        done = subprocess.run(
            [OUR_PROGRAM, command, *arguments, *name, *place],
            capture_output=True,
            text=True,
            input=answer,
            timeout=120,
            env=self.environment,
        )
        assert done.returncode == code, (done.args, done.stdout, done.stderr)
        return done.stdout, done.stderr

    def json(self, command, *arguments, code=0, **more):
        out, err = self.run(command, *arguments, "--output", "json", code=code, **more)
        assert code or err == "", err
        return json.loads(out)

    def theirs(self, command, *arguments, named=True, code=0):
        name = ["--name", self.name] if named else []
        place = ["--region", REGION, "--endpoint-url", self.url]
        done = CliRunner().invoke(their_cli, [command, *arguments, *name, *place])
        assert done.exit_code == code, (command, done.output, done.exception)
        return done.output

    def stack(self):
        return self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]

    def parameters(self):
        return {p["ParameterKey"]: p["ParameterValue"] for p in self.stack()["Parameters"]}

    def tags(self):
        return {tag["Key"]: tag["Value"] for tag in self.stack()["Tags"]}

    def outputs(self):
        return {output["OutputKey"]: output["OutputValue"] for output in self.stack()["Outputs"]}

    def version(self):
        key = {"PK": {"S": "_/SYSTEM#"}, "SK": {"S": "#VERSION"}}
        item = self.client("dynamodb").get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")
        return item and {name: value.get("S") for name, value in item.items()}

    def function(self, suffix="aggregator"):
        return self.client("lambda").get_function_configuration(FunctionName=f"{self.name}-{suffix}")

    def deployed_by_theirs(self):
        """A stack by the original's template, with its version record, as its `deploy` leaves it."""
        template = CliRunner().invoke(their_cli, ["cfn-template"]).output
        tags = {
            "ManagedBy": "zae-limiter",
            "zae-limiter:name": self.name,
            "zae-limiter:type": "limiter",
            "zae-limiter:version": "0.17.0",
        }
        self.client("cloudformation").create_stack(
            StackName=self.name,
            TemplateBody=template,
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in {"SchemaVersion": "0.10.0", "LambdaMemorySize": "777", "EnableIAMRoles": "false"}.items()
            ],
            Tags=[{"Key": key, "Value": value} for key, value in {**tags, "team": "blue"}.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        record = {
            "PK": "_/SYSTEM#",
            "SK": "#VERSION",
            "schema_version": "0.10.0",
            "lambda_version": "0.17.0",
            "client_min_version": "0.12.0",
            "updated_by": "cli:0.17.0",
            "GSI4PK": "_",
            "GSI4SK": "_/SYSTEM#",
        }
        item = {name: {"S": value} for name, value in record.items()}
        self.client("dynamodb").put_item(TableName=self.name, Item=item)


@pytest.fixture
def shell(aws, package):
    return Shell(aws, package)


def objects(shell, bucket=BUCKET):
    found = shell.client("s3").list_objects_v2(Bucket=bucket).get("Contents", [])
    return {entry["Key"] for entry in found}


def test_deployed_shown_and_deleted(shell):
    out, err = shell.run("deploy")
    for line in [
        f"Deploying stack: {shell.name}",
        "  Aggregator: enabled",
        "  Provisioner: enabled",
        "✓ Stack create complete",
        "✓ Event Source Mapping ready",
        "✓ Version record initialized (schema 0.10.0)",
        "✓ Default namespace registered",
    ]:
        assert line in out.splitlines(), (line, out)
    assert re.search(rf"^\d\d:\d\d:\d\d  {shell.name}  CREATE_COMPLETE$", err, re.MULTILINE), err
    function = shell.function()
    assert (function["Runtime"], function["Architectures"]) == ("provided.al2023", ["x86_64"])
    assert shell.function("limits-provisioner")["Runtime"] == "provided.al2023"
    assert shell.parameters()["FunctionCodeKey"] in objects(shell)
    assert shell.tags() == {
        "ManagedBy": "zae-limiter",
        "zae-limiter:name": shell.name,
        "zae-limiter:type": "limiter",
        "zae-limiter:version": "0.1.0",
        "zae-limiter:schema-version": "0.10.0",
        "zae-limiter:lambda-version": "0.99.0",
    }
    record = shell.version()
    assert (record["lambda_version"], record["updated_by"]) == ("0.99.0", "cli:0.1.0")

    out, _ = shell.run("status")
    for line in ["Available:     ✓ Yes", "Stack:         CREATE_COMPLETE", "Aggregator:    Enabled", "Lambda:        0.99.0"]:
        assert f"  {line}" in out.splitlines(), out
    assert out.endswith("✓ Infrastructure is ready\n")
    state = shell.json("status")
    assert (state["available"], state["provisioner"], state["table_status"]) == (True, "enabled", "ACTIVE")

    out, _ = shell.run("list", named=False)
    assert re.search(rf"^{shell.name} +CREATE_COMPLETE +0\.1\.0 +20", out, re.MULTILINE), out
    assert shell.name in [one["user_name"] for one in shell.json("list", named=False)]

    out, err = shell.run("delete", answer="n\n", code=1)
    assert err == "Aborted!\n"
    out, err = shell.run("delete", answer="y\n")
    assert out.endswith(f"Deleting stack: {shell.name}\n✓ Stack '{shell.name}' deleted successfully\n")
    assert "DELETE_COMPLETE" in err
    out, err = shell.run("status", code=4)
    assert "  Stack:         Not found" in out and err == "✗ Infrastructure is not available\n"
    out, _ = shell.run("delete", "--yes")
    assert f"✓ Stack '{shell.name}' does not exist" in out
    assert shell.json("delete", "--yes") == {"name": shell.name, "state": "absent"}


def test_deployed_again(shell):
    assert shell.json("deploy", "--lambda-memory", "512")["created"] is True
    again = shell.json("deploy")
    assert (again["created"], again["functions"]["changed"], again["not_applied"]) == (False, False, {})
    assert shell.parameters()["LambdaMemorySize"] == "512"

    # Settings that are given change, after they were listed, and a tag is added.
    out, _ = shell.run("deploy", "--lambda-memory", "1024", "-t", "env=prod")
    assert "Changes of the stack:\n  LambdaMemorySize: 512 -> 1024\n" in out
    assert shell.parameters()["LambdaMemorySize"] == "1024"
    assert shell.tags()["env"] == "prod"
    # Moto's change sets do not name what is removed; the tests on the local endpoint look at that.
    out, _ = shell.run("deploy", "--no-alarms", "--allow-removal")
    assert "  EnableAlarms: true -> false" in out.splitlines()
    assert shell.parameters()["EnableAlarms"] == "false"

    # Other code is brought.
    key = shell.parameters()["FunctionCodeKey"]
    shell.package.write(b"new")
    again = shell.json("deploy")
    assert (again["functions"]["changed"], again["status"]) == (True, "UPDATE_COMPLETE")
    assert shell.parameters()["FunctionCodeKey"] != key
    assert shell.parameters()["LambdaMemorySize"] == "1024"
    assert shell.parameters()["FunctionCodeKey"] == f"functions/{again['functions']['sha256']}.zip"


def test_every_option_reaches_its_parameter(shell):
    shell.json(
        "deploy",
        *["--snapshot-windows", "hourly,daily,monthly", "--usage-retention-days", "11", "--audit-retention-days", "12"],
        *["--pitr-recovery-days", "13", "--log-retention-days", "14", "--lambda-timeout", "15", "--lambda-memory", "160"],
        *["--lambda-duration-threshold-pct", "50", "--audit-archive-glacier-days", "18", "--enable-tracing"],
        *["--alert-thresholds", "90, 70"],
        *["--alarm-sns-topic", f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms", "--permission-boundary", "boundary"],
        *["--role-name-format", "r-{}", "--policy-name-format", "{}-p", "--aggregator-role-arn", ROLE],
        *["--create-iam-roles", "--enable-deletion-protection", "--tag", "env=prod", "-t", "a=b=c"],
    )
    parameters = shell.parameters()
    expected = {
        "SnapshotWindows": "hourly,daily,monthly",
        "SnapshotRetentionDays": "11",
        "PITRRecoveryPeriodDays": "13",
        "LogRetentionDays": "14",
        "LambdaTimeout": "15",
        "LambdaMemorySize": "160",
        "LambdaDurationThreshold": "7500",
        "AuditArchiveGlacierTransitionDays": "18",
        "EnableTracing": "true",
        "AlertThresholds": "70,90",
        "AlarmSNSTopicArn": f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms",
        "PermissionBoundary": "boundary",
        "RoleNameFormat": "r-{}",
        "AppRoleName": f"r-{shell.name}-app",
        "AcquireOnlyPolicyName": f"{shell.name}-acq-p",
        "AggregatorRoleArn": ROLE,
        "EnableIAMRoles": "true",
        "EnableIAM": "true",
        "EnableAggregator": "true",
        "EnableProvisioner": "true",
        "EnableAlarms": "true",
        "EnableAuditArchival": "true",
        "EnableDeletionProtection": "true",
        "SchemaVersion": "0.10.0",
        "FunctionCodeBucket": BUCKET,
        "FunctionArchitecture": "x86_64",
    }
    assert {name: parameters.get(name) for name in expected} == expected
    assert (shell.tags()["env"], shell.tags()["a"]) == ("prod", "b=c")
    iam = shell.client("iam")
    assert iam.get_role(RoleName=f"r-{shell.name}-app")
    assert shell.function()["Role"] == ROLE
    out, _ = shell.run("status")
    assert f"  App:           arn:aws:iam::{ACCOUNT}:role/r-{shell.name}-app" in out.splitlines()
    # The retention lies in the table, and changes of limits keep it.
    shell.run("system", "set-defaults", "-l", "rpm:1")
    table = shell.client("dynamodb").scan(TableName=shell.name)["Items"]
    config = [item for item in table if item["PK"]["S"].endswith("/SYSTEM#") and item["SK"]["S"] == "#CONFIG"]
    assert [item["audit_retention_days"]["N"] for item in config] == ["12"]


@pytest.mark.parametrize(
    "options, functions",
    [
        (["--no-aggregator"], ["limits-provisioner"]),
        (["--no-provisioner"], ["aggregator"]),
        (["--no-aggregator", "--no-provisioner"], []),
        (["--no-iam"], []),
        (["--no-iam", "--aggregator-role-arn", ROLE], ["aggregator"]),
    ],
    ids=" ".join,
)
def test_without_some_functions(shell, options, functions):
    state = shell.json("deploy", *options)
    found = [name[len(shell.name) + 1 :] for name in names_of_functions(shell)]
    assert sorted(found) == sorted(functions)
    assert state["functions"]["state"] == ("deployed" if functions else "none")
    assert shell.version()["lambda_version"] == ("0.99.0" if functions else None)
    if not functions:
        assert "FunctionCodeBucket" not in shell.parameters() or shell.parameters()["FunctionCodeBucket"] == ""
    shell.run("check")
    # Nor does a second run bring any.
    shell.json("deploy")
    assert sorted(name[len(shell.name) + 1 :] for name in names_of_functions(shell)) == sorted(functions)


def names_of_functions(shell):
    found = shell.client("lambda").list_functions()["Functions"]
    return [one["FunctionName"] for one in found if one["FunctionName"].startswith(f"{shell.name}-")]


def test_notes_without_iam(shell):
    out, _ = shell.run("deploy", "--no-iam")
    assert out.startswith("Note: --no-iam disables aggregator (no IAM role).")
    assert "Note: --no-iam disables the limits provisioner (no IAM role)." in out.splitlines()
    assert "  Aggregator: disabled" in out.splitlines()


def test_no_bucket_without_functions(package):
    """On an AWS of its own, which has no bucket yet."""
    with an_aws() as url:
        shell = Shell(url, package)
        shell.json("deploy", "--no-aggregator", "--no-provisioner")
        assert shell.client("s3").list_buckets()["Buckets"] == []


def test_the_code_bucket(shell):
    s3 = shell.client("s3")
    shell.json("deploy")
    block = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert set(block.values()) == {True}
    rules = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    # One that the caller names.
    other = Shell(shell.url, shell.package)
    _, err = other.run("deploy", "--code-bucket", "not-there", code=1)
    assert "code bucket 'not-there': it does not exist" in err
    s3.create_bucket(Bucket=f"{other.name}-code")
    other.json("deploy", "--code-bucket", f"{other.name}-code")
    assert other.parameters()["FunctionCodeBucket"] == f"{other.name}-code"
    assert objects(shell, f"{other.name}-code") == {other.parameters()["FunctionCodeKey"]}


def test_without_waiting(shell):
    out, _ = shell.run("deploy", "--no-wait")
    assert "✓ Stack create in progress" in out.splitlines()
    assert "Stack creation initiated. Use 'status' command to check progress." in out.splitlines()
    assert shell.version() is None
    shell.run("check", code=1)
    out, _ = shell.run("upgrade", code=1)
    assert "Infrastructure not initialized." in out.splitlines()
    # The second run finds it complete.
    shell.run("deploy")
    assert shell.version()["lambda_version"] == "0.99.0"
    out, _ = shell.run("delete", "--yes", "--no-wait")
    assert out.endswith("Stack deletion initiated. Use 'status' command to check progress.\n")


def test_upgraded(shell):
    shell.json("deploy", "--lambda-memory", "512", "-t", "team=blue")
    out, _ = shell.run("upgrade")
    assert "Infrastructure is already up to date." in out.splitlines(), out
    assert shell.json("upgrade")["state"] == "current"
    before = shell.parameters()

    shell.package.write(b"newer")
    out, _ = shell.run("upgrade")
    for line in [
        "Current: Lambda 0.99.0",
        "[1/5] Applying stack template...",
        "[2/5] Deploying Lambda code...",
        "[4/5] Updating version record...",
        "✓ Upgrade complete!",
    ]:
        assert line in out.splitlines(), out
    assert "      Lambda code deployed (" in out and "      Provisioner code deployed (" in out
    after = shell.parameters()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"FunctionCodeKey"}
    assert shell.tags()["team"] == "blue"

    shell.package.write(b"newest")
    out, _ = shell.run("upgrade", "--lambda-only")
    assert "      Skipped (--lambda-only)" in out.splitlines()
    assert shell.parameters()["FunctionCodeKey"] != after["FunctionCodeKey"]

    state = shell.json("upgrade", "--parameter", "LambdaMemorySize=1024")
    assert state["state"] == "upgraded"
    assert shell.parameters()["LambdaMemorySize"] == "1024"
    _, err = shell.run("upgrade", "--parameter", "Nope=1", code=2)
    assert err.startswith("Error: Invalid parameter 'Nope=1': unknown parameter; the template has")

    # Code that was put into a function outside the stack is found and replaced.
    ours = shell.function()["CodeSha256"]
    package = shell.package.path.read_bytes()
    with open(shell.package.write(b"foreign"), "rb") as file:
        shell.client("lambda").update_function_code(FunctionName=f"{shell.name}-aggregator", ZipFile=file.read())
    shell.package.path.write_bytes(package)
    assert shell.function()["CodeSha256"] != ours
    out, _ = shell.run("upgrade")
    assert "      Lambda code restored (" in out
    assert shell.function()["CodeSha256"] == ours
    out, _ = shell.run("upgrade", "--force")
    assert "      Lambda code deployed (" in out


def test_deploy_keeps_template_and_functions_of_a_stack_of_theirs(shell):
    shell.deployed_by_theirs()
    out, _ = shell.run("deploy", "--lambda-memory", "1024")
    assert f"Note: {shell.name}-aggregator and {shell.name}-limits-provisioner run Python and were not changed." in out
    assert "  LambdaMemorySize: 777 -> 1024" in out.splitlines()
    assert shell.function()["Runtime"].startswith("python")
    record = shell.version()
    assert (record["lambda_version"], record["client_min_version"]) == ("0.17.0", "0.12.0")
    assert shell.parameters()["LambdaMemorySize"] == "1024"


def test_a_stack_of_theirs_is_upgraded_after_asking(shell):
    shell.deployed_by_theirs()
    _, err = shell.run("upgrade", "--lambda-only", code=1)
    assert "upgrade without --lambda-only" in err
    # Without an answer, or with no: nothing changes.
    _, err = shell.run("upgrade", code=1)
    assert err.endswith("Aborted!\n")
    out, _ = shell.run("upgrade", answer="n\n", code=1)
    assert f"{shell.name}-aggregator and {shell.name}-limits-provisioner in Python will be replaced" in out
    assert shell.function()["Runtime"].startswith("python")
    assert shell.version()["lambda_version"] == "0.17.0"
    sets = shell.client("cloudformation").list_change_sets(StackName=shell.name)["Summaries"]
    assert [one for one in sets if one["StackName"] == shell.name] == []

    out, _ = shell.run("upgrade", "--yes")
    assert "Current: Lambda 0.17.0" in out.splitlines()
    assert "  Modify AggregatorFunction (AWS::Lambda::Function)" in out.splitlines()
    parameters = shell.parameters()
    assert (parameters["LambdaMemorySize"], parameters["FunctionCodeBucket"]) == ("777", BUCKET)
    record = shell.version()
    assert (record["lambda_version"], record["client_min_version"]) == ("0.99.0", "0.12.0")
    assert (shell.tags()["team"], shell.tags()["zae-limiter:version"]) == ("blue", "0.1.0")


def test_their_library_and_command_on_our_stack(shell):
    shell.json("deploy")
    code = [shell.function(suffix)["CodeSha256"] for suffix in ("aggregator", "limits-provisioner")]
    repo = SyncRepository.open(stack=shell.name, region=REGION, endpoint_url=shell.url)
    repo.close()
    # Its update did not touch our functions.
    assert [shell.function(suffix)["CodeSha256"] for suffix in ("aggregator", "limits-provisioner")] == code
    assert shell.version()["lambda_version"] == "0.99.0"
    out = shell.theirs("status")
    assert "CREATE_COMPLETE" in out and "0.99.0" in out and "✓ Infrastructure is ready" in out
    assert shell.name in shell.theirs("list", named=False)
    assert "COMPATIBLE" in shell.theirs("version")
    assert "fully compatible" in shell.theirs("check")
    # And what it shows of a namespace with a retention but no limits.
    shell.json("deploy", "--audit-retention-days", "7")
    assert "No system defaults configured" in CliRunner().invoke(
        their_cli,
        ["system", "get-defaults", "--name", shell.name, "--region", REGION, "--endpoint-url", shell.url],
    ).output


def test_a_failed_deployment_says_what_failed(shell):
    shell.client("dynamodb").create_table(
        TableName=shell.name,
        KeySchema=[{"AttributeName": "x", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "x", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    out, err = shell.run("deploy", code=3)
    assert "complete" not in out
    failure = err[err.index("✗") :]
    assert failure.startswith(f"✗ Deployment failed: Stack '{shell.name}' operation failed: it ended as ROLLBACK_COMPLETE\n")
    assert "  RateLimitsTable (AWS::DynamoDB::Table) CREATE_FAILED: " in failure
    assert "cancelled" not in failure
    # It stays a failure until it is deleted.
    out, err = shell.run("deploy", code=1)
    assert f"stack '{shell.name}' is ROLLBACK_COMPLETE: its creation failed" in err and "zae-limiter delete" in err
    out, err = shell.run("status", code=1)
    assert "  Stack:         ROLLBACK_COMPLETE" in out.splitlines()
    assert err.startswith("✗ Stack is in failed state")
    out, _ = shell.run("list", named=False)
    assert "  1 failed" in out.splitlines()
    shell.run("delete", "--yes")


def test_an_error_of_the_service_keeps_its_code(shell):
    # moto checks the name of a bucket as AWS does.
    _, err = shell.run("deploy", "--code-bucket", "Not_A_Bucket", code=1)
    assert err.startswith("✗ Deployment failed: code bucket 'Not_A_Bucket'") or "(InvalidBucketName)" in err
    _, err = Shell("http://127.0.0.1:1", shell.package).run("list", named=False, code=3)
    assert err.startswith('✗ Failed to list limiters: Could not connect to the endpoint URL: "http://127.0.0.1:1"')


def test_a_package_that_cannot_run_is_refused(shell, tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    _, err = shell.run("deploy", "--lambda-package", str(script), code=1)
    assert "it is not a Linux executable" in err and "musl" in err
    with pytest.raises(ClientError, match="does not exist"):
        shell.stack()


@pytest.mark.parametrize("with_functions", [True, False], ids=["functions", "no package"])
def test_the_library_deploys_what_it_opens(aws, package, monkeypatch, with_functions):
    """`Repository::open` on a stack that does not exist; the second time it only opens it."""
    # Theirs has the same name, and is not a package.
    directory = package.path.parent / "bin"
    directory.mkdir()
    (directory / "zae-limiter").write_text("#!/usr/bin/env python\n")
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    if with_functions:
        monkeypatch.setenv("ZAE_LIMITER_LAMBDA_PACKAGE", str(package.path))
    else:
        monkeypatch.delenv("ZAE_LIMITER_LAMBDA_PACKAGE", raising=False)
    bridge = Bridge(os.environ["ZAE_LIMITER_BRIDGE"])
    stack = f"s{uuid.uuid4().hex[:10]}"

    def client(service):
        return boto3.client(service, endpoint_url=aws, region_name=REGION)

    one = Ours(bridge, aws, stack, namespace="tenant-a")
    [found] = client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    assert found["StackStatus"] == "CREATE_COMPLETE"
    key = {"PK": {"S": "_/SYSTEM#"}, "SK": {"S": "#VERSION"}}
    record = client("dynamodb").get_item(TableName=stack, Key=key)["Item"]
    names = [function["FunctionName"] for function in client("lambda").list_functions()["Functions"]]
    if with_functions:
        assert f"{stack}-aggregator" in names
        assert record["lambda_version"] == {"S": "0.99.0"}
    else:
        assert f"{stack}-aggregator" not in names
        assert record["lambda_version"] == {"NULL": True}
    one.set_system_defaults([["rpm", 5, 5, 60]])
    two = Ours(bridge, aws, stack, namespace="tenant-a")
    two.acquire("key-1", "gpt-4", rpm=1).commit()
    assert one.namespace_id == two.namespace_id
    assert [name for name, _ in one.namespaces()] == ["default", "tenant-a"]
    one.call("delete_stack")
    with pytest.raises(ClientError, match="does not exist"):
        client("cloudformation").describe_stacks(StackName=stack)
    one.call("delete_stack")
    bridge.close()


def test_a_table_without_a_stack_is_not_deleted(aws, package):
    bridge = Bridge(os.environ["ZAE_LIMITER_BRIDGE"])
    stack = f"s{uuid.uuid4().hex[:10]}"
    bridge.call("create_table", endpoint=aws, stack=stack)
    client = Ours(bridge, aws, stack)
    # There is no stack of this name, so there is nothing to delete, and the table stays.
    client.call("delete_stack")
    client.set_system_defaults([["rpm", 5, 5, 60]])
    with pytest.raises(Failed):
        client.call("no_such_call")
    bridge.close()
