"""Parameters sharded over two processes: judgments and gradients equal those of one process, with unequal shares."""

import os
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from autorater.data.population import simulate_pairs
from autorater.evaluation.judge import evaluate
from autorater.judges import Judge
from autorater.models.answers import AnswerTree
from autorater.models.sharding import in_step, is_sharded, unsharded
from autorater.models.shares import leave_group
from autorater.prompts.batching import pad_prompts
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_model, make_tokenizer


def test_whole_parameters_change_nothing():
    model = make_model("qwen", 50)
    assert not is_sharded(model)
    assert in_step(iter([1, 2]), model) == [1, 2]
    assert in_step([], model) == []


def test_launcher_settings_are_restored(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")

    @unsharded()
    def train():
        return os.environ.get("ACCELERATE_USE_DEEPSPEED")

    assert train() is None
    assert os.environ["ACCELERATE_USE_DEEPSPEED"] == "true"


@pytest.mark.slow
def test_fsdp2_judges_and_learns_as_if_not_sharded(tmp_path):
    """On CPUs accelerate does not shard by FSDP, so torch's own `fully_shard` is called here."""
    multiprocessing.spawn(_one_of_two, args=(str(tmp_path / "meet"),), nprocs=2)


def _one_of_two(rank: int, path: str) -> None:
    from torch.distributed.fsdp import fully_shard

    patience = timedelta(seconds=900)  # out of step they would wait for each other
    rendezvous = {"init_method": f"file://{path}", "timeout": patience}
    dist.init_process_group("gloo", rank=rank, world_size=2, **rendezvous)
    mesh = dist.init_device_mesh("cpu", (2,))
    tokenizer, pairs = make_tokenizer("split"), simulate_pairs(13, seed=0, n_votes=3).pairs

    def judges(model):
        model.generation_config.sequence_bias = [[[tokenizer.convert_tokens_to_ids("</think>")], 3.0]]
        # batches of about two prompts: seven pairs take another number of forward passes than six
        yield Judge(model, tokenizer, PromptFormat("compact"), answer_step=0.25, max_batch_tokens=200)
        reasoning = PromptFormat("full", reasoning=True)
        yield Judge(model, tokenizer, reasoning, answer_step=0.25, max_reasoning_tokens=6, max_batch_tokens=900)

    def probabilities(model):
        model.eval()
        read = [evaluate(judge, some, n_bootstrap=0) for judge in judges(model) for some in (pairs, pairs[:1])]
        return np.concatenate([one.probabilities for one in read])

    whole = make_model("qwen", len(tokenizer))
    expected = probabilities(whole)
    model = make_model("qwen", len(tokenizer))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert is_sharded(model)
    assert in_step([rank] * (1 + rank), model) == [rank] * 2
    np.testing.assert_allclose(probabilities(model), expected, atol=1e-5)

    judge = next(judges(whole))
    tree = AnswerTree(tokenizer, judge.encoder.context, 0.25)
    ids, mask = pad_prompts([prompt.ids for both in judge.encoder.encode(pairs[:4]) for prompt in both], 0)
    tree.distribution(whole, ids, mask).probs.log().mean().backward()
    model.gradient_checkpointing_enable()
    model.train()
    mine = slice(4 * rank, 4 * rank + 4)
    tree.distribution(model, ids[mine], mask[mine]).probs.log().mean().backward()
    for (name, p), q in zip(model.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p.grad.full_tensor(), q.grad, rtol=1e-3, atol=1e-5, msg=name)
    leave_group()
