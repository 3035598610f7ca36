"""One operation by two clients on one table, each from the same items.

`Twin.do` lets a client act, takes the items that it leaves, puts the table back, and lets the other client do the same. Which
outcome stays is up to the caller. Records that only say what happened (`#AUDIT#`) are removed and not compared.
"""

import http.client
import json
import urllib.parse

from bridge import Failed, Refused

# The endpoints do not check signatures, but moto finds the service in them.
HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20270101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=none",
}


class Table:
    """A table by plain HTTP, in typed form: the SDK takes several times as long for a scan."""

    def __init__(self, endpoint, name):
        self.name = name
        self.connection = http.client.HTTPConnection(urllib.parse.urlsplit(endpoint).netloc, timeout=60)

    def _call(self, operation, **arguments):
        body = json.dumps({"TableName": self.name, **arguments})
        self.connection.request("POST", "/", body, {**HEADERS, "X-Amz-Target": f"DynamoDB_20120810.{operation}"})
        answer = self.connection.getresponse()
        said = answer.read()
        assert answer.status == 200, said
        return json.loads(said)

    def items(self):
        """Everything in the table by key."""
        found, start = {}, {}
        while True:
            page = self._call("Scan", ConsistentRead=True, **start)
            for item in page["Items"]:
                found[item["PK"]["S"], item["SK"]["S"]] = item
            if "LastEvaluatedKey" not in page:
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def put(self, item):
        self._call("PutItem", Item=item)

    def delete(self, key):
        self._call("DeleteItem", Key={"PK": {"S": key[0]}, "SK": {"S": key[1]}})


class Outcome:
    """What came of an operation: `admitted`, `refused` or `failed`, and the table after it."""

    def __init__(self, client, kind, value, items):
        self.client, self.kind, self.value, self.items = client, kind, value, items

    def __repr__(self):
        if self.kind == "refused":
            return f"{self.client.label}: refused, {self.value.retry_after} s, {self.value.statuses}"
        return f"{self.client.label}: {self.kind} {'' if self.kind == 'admitted' else self.value}"


class Twin:
    def __init__(self, world, clients):
        self.table, self.clients = Table(world.endpoint, world.stack), clients
        # The table as it is between operations: nothing else writes.
        self.state = self._read()

    def _read(self):
        """Everything in the table, without records of what happened."""
        found = self.table.items()
        for key in [key for key in found if key[1].startswith("#AUDIT#")]:
            self.table.delete(key)
            del found[key]
        return found

    def remove(self, key):
        """Removes an item, as its expiry does."""
        if key in self.state:
            self.table.delete(key)
            del self.state[key]

    def keep(self, wanted):
        """Makes these items the table's."""
        for key in self.state.keys() - wanted.keys():
            self.table.delete(key)
        for key, item in wanted.items():
            if self.state.get(key) != item:
                self.table.put(item)
        self.state = dict(wanted)

    def do(self, dice, actions):
        """Lets both act, in random order; returns the items before and both outcomes, in the clients' order. The table is then
        as the last one leaves it; see `keep`."""
        before = self.state
        order = [0, 1]
        dice.shuffle(order)
        outcomes = [None, None]
        for which in order:
            self.keep(before)
            client = self.clients[which]
            # What it remembers of the table may be of an outcome that did not stay.
            client.forget()
            try:
                kind, value = "admitted", actions[which]()
            except Refused as err:
                kind, value = "refused", err
            except Failed as err:
                kind, value = "failed", err
            client.settle()
            self.state = self._read()
            outcomes[which] = Outcome(client, kind, value, dict(self.state))
        return before, outcomes
