"""The reward in two processes, in a file of its own: what it imports, each of them imports again."""

import asyncio
import weakref

import numpy as np
import pytest
import torch.distributed as dist
from torch import multiprocessing

from autorater.data.errors import UserError
from autorater.integrations import AsyncJudgeReward, JudgeReward
from autorater.models.shares import leave_group
from tests.integrations.conftest import LengthJudge, preference


def test_a_group_that_is_split_over_two_processes(tmp_path):
    """TRL gives each process consecutive rows, whatever the size of a group."""
    multiprocessing.spawn(_one_of_two, args=(str(tmp_path / "meet"),), nprocs=2)


def _one_of_two(rank, path):
    dist.init_process_group("gloo", rank=rank, world_size=2, init_method=f"file://{path}")
    prompts, completions = list("pppqqqrr"), ["a" * n for n in (1, 2, 4, 8, 3, 5, 9, 6)]
    expected = _alone(prompts, completions)
    own = slice(0, 4) if rank == 0 else slice(4, 8)
    judge = LengthJudge()
    rewards = [JudgeReward(judge), AsyncJudgeReward(LengthJudge()), AsyncJudgeReward(LengthJudge(), value="logit")]
    for _ in range(2):
        np.testing.assert_allclose(rewards[0](prompts[own], completions[own]), expected[own])

    async def together():
        return await asyncio.gather(*(reward(prompts[own], completions[own]) for reward in rewards[1:]))

    found, logits = asyncio.run(together())
    np.testing.assert_allclose(found, expected[own])
    np.testing.assert_allclose(1 / (1 + np.exp(-np.array(logits))), expected[own])
    assert len(judge.batches[0]) == (3 + 2 if rank == 0 else 3 + 1), "of the pairs of q, those with an own completion"
    against = JudgeReward(judge, "best")(["p"] * (1 + rank), ["a"] * (1 + rank), best=["xx"] * (1 + rank))
    assert against == [preference("xx", "a")] * (1 + rank), "not gathered"
    with pytest.raises(UserError, match="completion 2 is the only one of its prompt in the batch of 3"):
        rewards[0](["p", "p"] if rank == 0 else ["s"], ["a", "b"] if rank == 0 else ["c"])  # raised on both
    world = weakref.ref(dist.group.WORLD)
    leave_group()
    assert world() is None, "else its threads could abort the process as it ends"


def _alone(prompts, completions):
    """The mean against the others of the same prompt."""
    rows = list(enumerate(zip(prompts, completions, strict=True)))
    return np.array([np.mean([preference(c, b) for j, (q, c) in rows if q == p and j != i]) for i, (p, b) in rows])
