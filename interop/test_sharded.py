"""Random sequences on split buckets; see `sharded.py`.

The number of steps and seeds is set as in `test_shapes.py`.
"""

import random

import pytest
import zae_limiter.models
import zae_limiter.sync_limiter
import zae_limiter.sync_repository
from sharded import Sharded
from shapes import STARTS, instant
from test_shapes import ALL, ENGINE, SEEDS, STEPS, run, versioned


@pytest.fixture(autouse=True)
def drawing(monkeypatch):
    """What the original draws by is put back."""
    for module in (zae_limiter.sync_limiter, zae_limiter.sync_repository):
        monkeypatch.setattr(module, "random", random)


def opened(world, which, label):
    options = {"config_cache_ms": 0, "reject_cache_ms": 0, "draws": True} if which == "ours" else {"config_cache_ttl": 0, "rejection_cache_ttl": 0}
    client = world.open(which, namespace="both", now_ms=instant(STARTS[0]), **options)
    client.label = label
    return client


@ENGINE
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kinds", [["plain", "drip", "soft"], ALL], ids=["rates", "all"])
def test_both_clients_agree_on_split_buckets(world, seed, kinds):
    world.open("theirs")
    versioned(world)
    clients = [opened(world, which, which) for which in ("ours", "theirs")]
    run(Sharded(world, seed, clients, kinds), 2 * STEPS)


@ENGINE
def test_the_original_agrees_with_itself_on_split_buckets(world):
    """Which checks the arithmetic here, and that both draw the same shards."""
    world.open("theirs")
    versioned(world)
    clients = [opened(world, "theirs", label) for label in ("first", "second")]
    run(Sharded(world, SEEDS[0], clients, ALL), 2 * STEPS)


@ENGINE
def test_shards_that_fill_beyond_their_shares_are_found(world, monkeypatch):
    """With a client that refills each shard to the whole capacity, a sequence fails."""
    world.open("theirs")
    versioned(world)
    clients = [opened(world, "theirs", label) for label in ("first", "second")]
    acquire = clients[1].acquire

    def undivided(*arguments, **consume):
        with monkeypatch.context() as patch:
            patch.setattr(zae_limiter.models.BucketState, "ceiling_milli", lambda state, now: state._scheduled_params(now)[0])
            return acquire(*arguments, **consume)

    clients[1].acquire = undivided
    with pytest.raises(AssertionError, match="of second shard"):
        run(Sharded(world, 0, clients, ["plain"]), 1000)
