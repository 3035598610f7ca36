"""One process of the original, hammering a bucket. Prints what it took, as JSON."""

import json
import random
import sys
import warnings

warnings.simplefilter("ignore")

from bridge import Failed, Refused, Theirs  # noqa: E402


def work(client, entities, resource, rounds, seed):
    """Takes, corrects and gives back at random; returns the tokens kept, requests admitted and refused."""
    dice = random.Random(seed)
    kept = admitted = refused = 0
    for _ in range(rounds):
        amount = dice.randint(1, 4)
        try:
            lease = client.acquire(dice.choice(entities), resource, rpm=amount)
        except Refused:
            refused += 1
            continue
        except Failed as err:
            # The original gives up on a bucket that others keep changing; then nothing was taken.
            if err.kind != "Unavailable":
                raise
            continue
        admitted += 1
        what = dice.random()
        if what < 0.2:
            lease.rollback()
            continue
        if what < 0.4:
            back = dice.randint(0, amount)
            lease.release(rpm=back)
            amount -= back
        lease.commit()
        kept += amount
    client.settle()
    return {"kept": kept, "admitted": admitted, "refused": refused}


if __name__ == "__main__":
    endpoint, stack, rounds, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    client = Theirs(endpoint, stack)
    # All start at once, when all are ready.
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(work(client, sys.argv[5].split(","), "gpt-4", rounds, seed)))
    client.close()
