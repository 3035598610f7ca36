"""How the original stores levels whose limits have shapes: the vectors that `crates/core/tests/it/levels.rs` reads.

    python level_vectors.py [--seed 1] [--count 200] > ../crates/core/tests/data/levels.jsonl

Needs the environment of requirements-original.txt, in which moto keeps the table. Writes one JSON object a line: `item`, the
attributes of the level's record that belong to limits, and `audit`, the limits in the details of the audit event, both in
DynamoDB's typed form. The first line is a comment that begins with `#`.
"""

import argparse
import datetime
import json
import os
import random
import warnings

os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_DEFAULT_REGION="us-east-1")
warnings.simplefilter("ignore")

import boto3  # noqa: E402
from moto import mock_aws  # noqa: E402
from zae_limiter import Limit, ScheduleEntry, SyncRepository  # noqa: E402

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"]
PATTERNS = ["* 9-17 * * MON-FRI", "*/15 8-18/2 1-15 * SUN", "* 0-6 * * *", "* * 25 12 *", "30 1 * * 0,6", "* * * JAN-MAR *"]
RESETS = ["0 0 * * *", "0 0 1 * *", "0 0 * * MON", "30 6,18 * * *", "0 0 1 1 *", "*/20 * * * *"]
NAMES = ["rpm", "tpm", "rpd", "a_cp", "x.y-z", "w_sched", "l", "session_rsa", "q_soft"]


def entry(dice, zone, refills):
    kind = dice.randrange(3)
    if kind == 0:
        return ScheduleEntry(dice.choice(PATTERNS), tz=zone, scale=dice.choice([0.5, 1.15, 2.3, 0.0001, 1 / 3, 1000, 0.0625]))
    values = {"capacity": dice.randrange(1, 10**dice.randrange(1, 16))}
    if refills and kind == 1:
        values["refill_amount"] = dice.randrange(1, 1000)
        values["refill_period_seconds"] = dice.choice([1, 60, 86_400])
        if dice.random() < 0.3:
            del values["capacity"]
    return ScheduleEntry(dice.choice(PATTERNS), tz=zone, **values)


def limit(dice, name, zone):
    kind = dice.randrange(4)
    amount = dice.randrange(1, 10 ** dice.randrange(1, 16))
    soft = dice.random() < 0.3
    if kind < 2:
        made = Limit.custom(name, amount, dice.randrange(1, 1000), dice.choice([1, 60, 3600, 10**9]), soft=soft)
    elif kind == 2:
        made = Limit.quota(name, amount, cron=dice.choice(RESETS), tz=zone, soft=soft)
        if dice.random() < 0.3:
            more = [ScheduleEntry.reset(cron, tz=zone) for cron in dice.sample(RESETS, 2)]
            made = made.with_reset_schedule(tuple(more))
    else:
        length = datetime.timedelta(seconds=dice.choice([1, 3600, 18_000, 10**9]))
        made = Limit.quota(name, amount, reset_after=length, soft=soft)
    if dice.random() < 0.5:
        entries = [entry(dice, zone, kind < 2) for _ in range(dice.randrange(1, 4))]
        made = made.with_schedule(tuple(entries))
    return made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200, help="how many levels")
    arguments = parser.parse_args()
    print(f"# level_vectors.py --seed {arguments.seed} --count {arguments.count}")
    dice = random.Random(arguments.seed)
    with mock_aws():
        repo = SyncRepository("levels", "us-east-1")
        repo.create_table()
        client = boto3.client("dynamodb")
        version = {"schema_version": "0.10.0", "client_min_version": "0.0.0", "lambda_version": "0.17.0"}
        key = {"PK": {"S": "_/SYSTEM#"}, "SK": {"S": "#VERSION"}}
        client.put_item(TableName="levels", Item=key | {name: {"S": text} for name, text in version.items()})
        for index in range(arguments.count):
            zone = dice.choice(ZONES)
            names = dice.sample(NAMES, dice.randrange(1, 5))
            repo.set_resource_defaults(f"r{index}", [limit(dice, name, zone) for name in names], principal="p")
            pk = {":pk": {"S": f"default/RESOURCE#r{index}"}}
            [item] = client.query(TableName="levels", KeyConditionExpression="PK = :pk", ExpressionAttributeValues=pk)["Items"]
            pk = {":pk": {"S": f"default/AUDIT#$RESOURCE:r{index}"}}
            [event] = client.query(TableName="levels", KeyConditionExpression="PK = :pk", ExpressionAttributeValues=pk)["Items"]
            kept = {name: value for name, value in item.items() if name[:2] in ("l_", "w_") or name == "sched_tz"}
            print(json.dumps({"item": kept, "audit": event["details"]["M"]["limits"]}, separators=(",", ":")))


if __name__ == "__main__":
    main()
