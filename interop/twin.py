"""One operation by two clients on one table, each from the same items.

`Twin.do` lets a client act, takes the items that it leaves, puts the table back, and lets the other client do the same. Which
outcome stays is up to the caller. Records that only say what happened (`#AUDIT#`) are removed and not compared.
"""

from bridge import Failed, Refused


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
        self.world, self.clients = world, clients
        # The table as it is between operations: nothing else writes.
        self.state = self._read()

    def _read(self):
        """Everything in the table, without records of what happened."""
        found = self.world.items()
        for key in [key for key in found if key[1].startswith("#AUDIT#")]:
            self._delete(key)
            del found[key]
        return found

    def _delete(self, key):
        key = {"PK": {"S": key[0]}, "SK": {"S": key[1]}}
        self.world.dynamo.delete_item(TableName=self.world.stack, Key=key)

    def remove(self, key):
        """Removes an item, as its expiry does."""
        if key in self.state:
            self._delete(key)
            del self.state[key]

    def keep(self, wanted):
        """Makes these items the table's."""
        for key in self.state.keys() - wanted.keys():
            self._delete(key)
        for key, item in wanted.items():
            if self.state.get(key) != item:
                self.world.dynamo.put_item(TableName=self.world.stack, Item=item)
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
