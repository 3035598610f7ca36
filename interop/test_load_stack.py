"""The stack that generates load: deployed, changed, pushed, listed and deleted on moto, which has EC2 and ECS."""

import base64
import hashlib
import io
import json
import os
import pty
import re
import select
import subprocess
import time
import urllib.request
import zipfile

import pytest
from test_stack import ACCOUNT, BUCKET, OUR_PROGRAM, REGION, Shell, an_aws, package  # noqa: F401

SCENARIO = """\
system:
  limits:
    rpm: {capacity: 1000}
users:
  - name: One
    entity:
      one: {name: e}
    tasks:
      - resources: [api]
        acquire: {rpm: 1}
"""


@pytest.fixture(scope="module")
def aws():
    with an_aws() as url:
        yield url


class Load(Shell):
    """A target, and a network for its load generators."""

    def __init__(self, url, package, directory):
        super().__init__(url, package)
        self.directory = directory
        (directory / "deep").mkdir()
        (directory / "deep" / "mine.yaml").write_text(SCENARIO)
        (directory / "limits.yaml").write_text("namespace: default\n")
        ec2 = self.client("ec2")
        self.vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
        ec2.create_tags(Resources=[self.vpc], Tags=[{"Key": "Name", "Value": "load"}])
        self.subnets = []
        for number, zone in enumerate("ab"):
            subnet = ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.7.{number}.0/24", AvailabilityZone=f"{REGION}{zone}")
            self.subnets.append(subnet["Subnet"]["SubnetId"])
        # The first has a route table of its own, the second that of the VPC.
        own = ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=own, SubnetId=self.subnets[0])
        tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [self.vpc]}])["RouteTables"]
        self.tables = sorted(table["RouteTableId"] for table in tables)

    def load(self, command, *arguments, network=None, code=0, **more):
        if command == "deploy":
            network = network or ["--vpc-id", self.vpc, "--subnet-ids", ",".join(self.subnets)]
            arguments = [*network, "-C", str(self.directory), *arguments]
        if command == "push":
            arguments = ["-C", str(self.directory), *arguments]
        return self.run_load(command, *arguments, code=code, **more)

    def run_load(self, command, *arguments, named=True, code=0, answer=""):
        place = ["--region", REGION, "--endpoint-url", self.url]
        name = ["--name", self.name] if named else []
        done = subprocess.run(
            [OUR_PROGRAM, "loadtest", command, *arguments, *name, *place],
            capture_output=True,
            text=True,
            input=answer,
            timeout=120,
            env=self.environment,
        )
        assert done.returncode == code, (done.args, done.stdout, done.stderr)
        return done.stdout, done.stderr

    def described(self):
        return self.client("cloudformation").describe_stacks(StackName=f"{self.name}-load")["Stacks"][0]

    def values(self):
        """Parameters; moto shows a list as Python does."""
        return {p["ParameterKey"]: re.sub(r"[\[\]' ]", "", p["ParameterValue"]) for p in self.described()["Parameters"]}

    def worker(self):
        return self.client("lambda").get_function_configuration(FunctionName=f"{self.name}-load-worker")

    def package_of_worker(self):
        """The zip that the function runs."""
        sha = base64.b64decode(self.worker()["CodeSha256"]).hex()
        body = self.client("s3").get_object(Bucket=BUCKET, Key=f"functions/{sha}.zip")["Body"].read()
        assert hashlib.sha256(body).hexdigest() == sha
        return zipfile.ZipFile(io.BytesIO(body))

    def resource(self, logical):
        found = self.client("cloudformation").describe_stack_resources(StackName=f"{self.name}-load")["StackResources"]
        return next((one["PhysicalResourceId"] for one in found if one.get("LogicalResourceId") == logical), None)


@pytest.fixture
def load(aws, package, tmp_path):  # noqa: F811
    directory = tmp_path / "load"
    directory.mkdir()
    return Load(aws, package, directory)


def plain(text):
    """The lines, without the place of the package."""
    return [line.split("s3://")[0] for line in text.splitlines()]


def test_deployed_changed_pushed_listed_and_deleted(load):
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    fence = load.client("iam").create_policy(PolicyName=f"fence-{load.name}", PolicyDocument=json.dumps(everything))
    boundary = fence["Policy"]["Arn"]
    load.run("deploy", "--permission-boundary", boundary, "--role-name-format", "pb-{}", "--no-aggregator")
    head = [
        f"Deploying load test stack: {load.name}-load",
        f"  Using permission boundary: {boundary}",
        "  Using role name format: pb-{}",
        "  Stack validated",
    ]
    out, err = load.load("deploy", "--max-workers", "7", "--lambda-timeout", "2")
    lines = plain(out)
    assert lines[:4] == head
    assert lines[4].startswith("  zae-limiter source: ")
    routes = f"  Route tables for DynamoDB endpoint: {','.join(load.tables)}"
    assert lines[5:] == [
        routes,
        "  Building Lambda package...",
        "  Scenarios packed: 1",
        "  Lambda package built: ",
        "  CloudFormation stack creation started",
        "  Waiting for stack creation...",
        "  CloudFormation stack created",
        f"  Lambda code uploaded: {load.name}-load-worker",
        "",
        f"Stack ready: {load.name}-load",
    ]
    assert re.search(rf"^\d\d:\d\d:\d\d  {load.name}-load  CREATE_COMPLETE$", err, re.MULTILINE), err
    assert {tag["Key"]: tag["Value"] for tag in load.described()["Tags"]} == {
        "ManagedBy": "zae-limiter",
        "zae-limiter:name": load.name,
        "zae-limiter:type": "load-test",
    }
    worker = load.worker()
    assert (worker["Runtime"], worker["Handler"], worker["Timeout"]) == ("provided.al2023", "load-worker", 120)
    assert worker["Environment"]["Variables"] == {"TARGET_STACK_NAME": load.name, "TARGET_REGION": REGION}
    assert worker["Role"] == f"arn:aws:iam::{ACCOUNT}:role/pb-{load.name}-load-worker"
    role = load.client("iam").get_role(RoleName=f"pb-{load.name}-load-task")["Role"]
    assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary
    names = load.package_of_worker().namelist()
    assert names == ["bootstrap", "locustfiles/deep/mine.yaml"]
    service = load.client("ecs").describe_services(cluster=f"{load.name}-load", services=[f"{load.name}-load-master"])
    assert service["services"][0]["desiredCount"] == 0

    # The endpoint that it made itself stays.
    endpoint = load.resource("DynamoDBEndpoint")
    assert endpoint.startswith("vpce-")
    lines = plain(load.load("deploy", "--max-workers", "7", "--lambda-timeout", "2")[0])
    assert lines[5] == routes
    assert load.resource("DynamoDBEndpoint") == endpoint
    lines = plain(load.load("deploy", "--max-workers", "9", "--lambda-timeout", "2", "--no-dynamodb-endpoint")[0])
    assert "  Stack already exists, updating..." in lines and "  CloudFormation stack updated" in lines
    assert (load.values()["MaxWorkers"], load.values()["PrivateRouteTableIds"]) == ("9", "")

    before = load.worker()["CodeSha256"]
    (load.directory / "second.yml").write_text(SCENARIO)
    out, _ = load.load("push")
    lines = plain(out)
    assert lines[0] == f"Pushing code to {load.name}-load"
    assert lines[2:] == [
        "  Building Lambda package...",
        "  Scenarios packed: 2",
        "  Lambda package built: ",
        f"  Lambda code uploaded: {load.name}-load-worker",
        "",
        f"Code pushed: {load.name}-load",
    ]
    assert load.worker()["CodeSha256"] != before
    assert "locustfiles/second.yml" in load.package_of_worker().namelist()

    listed = load.run_load("list", named=False)[0].splitlines()
    row = next(line.split() for line in listed if line.startswith(f"{load.name}-load"))
    assert row[:2] == [f"{load.name}-load", load.name] and row[2].endswith("_COMPLETE")
    assert not any(f"{load.name}-load" in line for line in load.run("list", named=False)[0].splitlines())

    out, err = load.run_load("delete", "--yes")
    assert out.splitlines() == [
        f"Deleting load test stack: {load.name}-load",
        "  Stopped Fargate tasks",
        "  Waiting for stack deletion...",
        "  Stack deleted",
    ]
    assert load.run_load("delete", "--yes")[0].splitlines()[1:] == ["  Stack does not exist"]


def test_an_endpoint_of_others_is_used(load):
    load.run("deploy", "--no-aggregator", "--no-provisioner")
    endpoint = load.client("ec2").create_vpc_endpoint(
        VpcId=load.vpc, ServiceName=f"com.amazonaws.{REGION}.dynamodb", VpcEndpointType="Gateway", RouteTableIds=load.tables
    )["VpcEndpoint"]["VpcEndpointId"]
    lines = plain(load.load("deploy")[0])
    assert f"  DynamoDB endpoint already exists: {endpoint}" in lines
    assert load.values()["PrivateRouteTableIds"] == ""
    assert load.resource("DynamoDBEndpoint") is None


def test_tasks_are_stopped_before_the_stack_goes(load):
    load.run("deploy", "--no-aggregator", "--no-provisioner")
    load.load("deploy")
    ecs, cluster = load.client("ecs"), f"{load.name}-load"
    # moto adds up the memory of containers, which that of the master does not name, and makes no network interfaces.
    container = {"name": "master", "image": "x", "cpu": 256, "memory": 512, "essential": True}
    definition = ecs.register_task_definition(family=f"{load.name}-tasks", networkMode="bridge", containerDefinitions=[container])
    definition = definition["taskDefinition"]["taskDefinitionArn"]
    started = ecs.run_task(cluster=cluster, taskDefinition=definition, launchType="FARGATE", count=2)
    tasks = [task["taskArn"] for task in started["tasks"]]
    assert len(tasks) == 2 and sorted(ecs.list_tasks(cluster=cluster)["taskArns"]) == sorted(tasks)
    out, err = load.run_load("delete", "--yes")
    assert "  Stopped Fargate tasks" in out and "Warning" not in err, (out, err)
    assert out.endswith("  Stack deleted\n")
    # moto keeps the tasks of a cluster that is gone, and shows them with one of the same name.
    ecs.create_cluster(clusterName=cluster)
    ended = ecs.describe_tasks(cluster=cluster, tasks=tasks)["tasks"]
    assert [task["lastStatus"] for task in ended] == ["STOPPED"] * 2


def test_bad_input_ends_before_anything_is_made(load):
    def refused(*arguments, **more):
        out, err = load.load("deploy", *arguments, code=1, **more)
        return err

    assert refused() == f"Error: Stack not found: {load.name}\n"
    load.run("deploy", "--no-iam", "--no-aggregator", "--no-provisioner")
    assert refused() == "Error: Stack missing outputs: ['AcquireOnlyPolicyArn', 'FullAccessPolicyArn']\n"
    other = load.client("ec2").create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    pair = ["--subnet-ids", ",".join(load.subnets)]
    load.name = f"{load.name}b"
    load.run("deploy", "--no-aggregator", "--no-provisioner")
    assert refused(network=["--vpc-id", other, *pair]) == f"Error: No subnets found in VPC {other}\n"
    absent = ["--vpc-id", load.vpc, "--subnet-ids", f"{load.subnets[0]},subnet-0"]
    assert refused(network=absent).startswith(f"Error: The subnet 'subnet-0' is not in {load.vpc}, which has ")
    one = ["--vpc-id", load.vpc, "--subnet-ids", load.subnets[0]]
    assert refused(network=one) == "Error: Select at least 2 subnets\n"
    stacks = load.client("cloudformation").describe_stacks()["Stacks"]
    assert not any(stack["StackName"].startswith(f"{load.name}-load") for stack in stacks)


def test_stack_vpc_and_subnets_are_chosen_on_a_terminal(load):
    load.run("deploy", "--no-aggregator", "--no-provisioner")
    place = ["--region", REGION, "--endpoint-url", load.url]
    master, slave = pty.openpty()
    command = [OUR_PROGRAM, "loadtest", "deploy", "-C", str(load.directory), *place]
    child = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=load.environment)
    os.close(slave)
    said, end = "", time.monotonic() + 100

    def until(text, times=1):
        nonlocal said
        while said.count(text) < times:
            assert time.monotonic() < end, said
            if select.select([master], [], [], 1)[0]:
                said += os.read(master, 4096).decode()

    def number(label):
        return re.search(rf"(\d+)\) {re.escape(label)}", said).group(1)

    try:
        until("Number: ")
        os.write(master, f"{number(load.name)}\n".encode())
        until("Select VPC:")
        until(f"{load.vpc} (load)")
        until("Number: ", 2)
        os.write(master, f"{number(f'{load.vpc} (load)')}\n".encode())
        until("Numbers, separated by commas: ")
        assert f"{load.subnets[0]} ({REGION}a)" in said
        os.write(master, b"7\n")
        until("Error: invalid input")
        os.write(master, b"1,2\n")
        until(f"Stack ready: {load.name}-load")
        assert child.wait(timeout=60) == 0
    finally:
        child.kill()
        child.wait(timeout=30)
        os.close(master)
    assert sorted(load.values()["PrivateSubnetIds"].split(",")) == sorted(load.subnets)


def test_calls_are_signed(package, tmp_path):  # noqa: F811
    """On a server that checks signatures, and refuses those of another secret."""
    with an_aws() as url:
        directory = tmp_path / "load"
        directory.mkdir()
        load = Load(url, package, directory)
        load.run("deploy", "--no-aggregator", "--no-provisioner")
        iam = load.client("iam")
        iam.create_user(UserName="tester")
        everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        iam.put_user_policy(UserName="tester", PolicyName="all", PolicyDocument=json.dumps(everything))
        key = iam.create_access_key(UserName="tester")["AccessKey"]
        check = urllib.request.Request(f"{url}/moto-api/reset-auth", data=b"0", method="POST", headers={"Content-Type": "text/plain"})
        urllib.request.urlopen(check, timeout=30).close()
        place = ["--region", REGION, "--endpoint-url", url]
        question = [OUR_PROGRAM, "loadtest", "deploy", "--name", load.name, "-C", str(directory), *place]

        def ask(secret):
            environment = {**load.environment, "AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": secret}
            done = subprocess.run(question, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, env=environment)
            assert done.returncode != 0
            return done.stderr

        # It is asked for the VPCs, and then has no terminal to choose on.
        assert ask(key["SecretAccessKey"]) == "Warning: Input is not a terminal (fd=0).\nAborted!\n"
        assert "when calling the DescribeVpcs operation" in ask("wrong")
