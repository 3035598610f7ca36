"""Servers, tables and clients for the suite."""

import os
import subprocess
import sys
import uuid
import warnings

import boto3
import pytest
from bridge import Bridge, Ours, Theirs

os.environ.update(
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_EC2_METADATA_DISABLED="true",
)

PROGRAM = os.environ["ZAE_LIMITER_BRIDGE"]


@pytest.fixture(scope="session", params=["moto", "engine"])
def endpoint(request):
    """An independent DynamoDB, and our embedded engine."""
    here = os.path.dirname(os.path.abspath(__file__))
    independent = [sys.executable, os.path.join(here, "independent.py")]
    command = independent if request.param == "moto" else [PROGRAM, "serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    server.stdin.close()
    server.wait(timeout=30)


@pytest.fixture(scope="session")
def bridge():
    bridge = Bridge(PROGRAM)
    yield bridge
    bridge.close()


class World:
    """A table of its own, and clients of it."""

    def __init__(self, endpoint, bridge, made_by="ours"):
        self.endpoint, self.bridge = endpoint, bridge
        self.stack = f"t{uuid.uuid4().hex[:12]}"
        self.clients = []
        self.dynamo = boto3.client("dynamodb", endpoint_url=endpoint)
        if made_by == "ours":
            bridge.call("create_table", endpoint=endpoint, stack=self.stack)
        else:
            from zae_limiter import SyncRepository

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                repo = SyncRepository(self.stack, "us-east-1", endpoint)
            repo.create_table()
            repo.close()

    def open(self, which, **options):
        """A new client: `ours` or `theirs`, with caches of its own."""
        if which == "ours":
            client = Ours(self.bridge, self.endpoint, self.stack, **options)
        else:
            client = Theirs(self.endpoint, self.stack, **options)
        self.clients.append(client)
        return client

    def functions_of(self, version):
        """As on a stack whose functions are of this release, which newer features ask for."""
        self.dynamo.update_item(
            TableName=self.stack,
            Key={"PK": {"S": "_/SYSTEM#"}, "SK": {"S": "#VERSION"}},
            UpdateExpression="SET lambda_version = :v",
            ExpressionAttributeValues={":v": {"S": version}},
        )

    def items(self, namespace_id=None):
        """Everything in the table, or in a namespace, in typed form by key."""
        found = {}
        for page in self.dynamo.get_paginator("scan").paginate(TableName=self.stack, ConsistentRead=True):
            for item in page["Items"]:
                key = item["PK"]["S"], item["SK"]["S"]
                if namespace_id is None or key[0].startswith(f"{namespace_id}/"):
                    found[key] = item
        return found

    def bucket(self, client, entity, resource, shard=0):
        """A bucket's item, or None."""
        key = {
            "PK": {"S": f"{client.namespace_id}/BUCKET#{entity}#{resource}#{shard}"},
            "SK": {"S": "#STATE"},
        }
        return self.dynamo.get_item(TableName=self.stack, Key=key, ConsistentRead=True).get("Item")

    def balance(self, client, entity, resource, limit):
        """A balance over all shards, in millitokens, and the net consumption."""
        tokens = consumed = 0
        for shard in range(64):
            item = self.bucket(client, entity, resource, shard)
            if item is None:
                break
            tokens += int(item[f"b_{limit}_tk"]["N"])
            consumed += int(item[f"b_{limit}_tc"]["N"])
        return tokens, consumed

    def close(self):
        for client in self.clients:
            client.close()


@pytest.fixture
def world(endpoint, bridge):
    world = World(endpoint, bridge)
    yield world
    world.close()
