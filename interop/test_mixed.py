"""Random sequences of limits of all shapes with operations by both clients in between; see `mixed.py`.

The number of steps and seeds is set as in `test_shapes.py`.
"""

import pytest
from mixed import Mixed
from test_shapes import ALL, ENGINE, SEEDS, STEPS, opened, run, versioned


@ENGINE
@pytest.mark.parametrize("seed", SEEDS)
def test_both_clients_agree_with_operations_in_between(world, seed):
    world.open("theirs")
    versioned(world)
    clients = [opened(world, which, which, "both") for which in ("ours", "theirs")]
    run(Mixed(world, seed, clients, ALL), 4 * STEPS)


@ENGINE
def test_a_flag_that_one_client_ignores_is_found(world):
    """With a client that does not hear of flags, a sequence fails."""
    world.open("theirs")
    versioned(world)
    ours, theirs = (opened(world, which, which, "both") for which in ("ours", "theirs"))
    theirs.set_access = lambda entity, resource, access: 0
    with pytest.raises(AssertionError, match="access, item"):
        run(Mixed(world, 0, [ours, theirs], ALL), 2000)


@ENGINE
def test_a_top_up_that_is_too_large_is_found(world):
    world.open("theirs")
    versioned(world)
    ours, theirs = (opened(world, which, which, "both") for which in ("ours", "theirs"))
    top_up = theirs.top_up

    def one_more(entity, resource, amounts, key):
        shards, _ = top_up(entity, resource, {name: amount + 1 for name, amount in amounts.items()}, key)
        return [shards, amounts]

    theirs.top_up = one_more
    with pytest.raises(AssertionError, match="top-up"):
        run(Mixed(world, 1, [ours, theirs], ALL), 2000)
