"""A plugin for pytest: botocore's waiters look twice a second, for as long as before. By themselves they wait 30 s."""

import botocore.waiter

SECONDS = 0.5

read = botocore.waiter.SingleWaiterConfig.__init__


def shortened(self, config):
    read(self, config)
    if self.delay > SECONDS:
        self.max_attempts = int(self.max_attempts * self.delay / SECONDS)
        self.delay = SECONDS


botocore.waiter.SingleWaiterConfig.__init__ = shortened
