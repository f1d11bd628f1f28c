"""Rows that processes share: every row once, in order, by one process and by three; an error reaches all of them."""

from datetime import timedelta

import numpy as np
import pytest
import torch.distributed as dist
from torch import multiprocessing

from autorater.data.pairs import Pair
from autorater.data.population import simulate_pairs
from autorater.judges import Judge, LinearProbe
from autorater.judges.pointwise import PointwiseJudge
from autorater.models.response_states import ResponseStates
from autorater.models.shares import in_shares, interleaved, leave_group, this_process
from autorater.prompts.templates import PromptFormat
from autorater.training.teaching.teachers import find_teacher
from autorater.training.teaching.texts import TrainingTexts
from tests.conftest import make_model, make_tokenizer


def squares(rows):
    return np.array([[row, row**2] for row in rows])


def test_one_process_does_all_rows():
    assert this_process() == (0, 1)
    np.testing.assert_array_equal(interleaved(in_shares(range(5), squares)), squares(range(5)))
    with pytest.raises(ZeroDivisionError):
        in_shares([0], lambda rows: [1 / row for row in rows])


@pytest.mark.parametrize("n_rows", [1, 2, 7])
def test_shares_are_joined_in_order(n_rows):
    shares = [squares(range(w, n_rows, 3)).reshape(-1, 2) for w in range(3)]
    np.testing.assert_array_equal(interleaved(shares), squares(range(n_rows)))


@pytest.mark.slow
def test_three_processes(tmp_path):
    judge, pairs = _judge_and_pairs()
    saved = tmp_path / "teacher"
    pointwise = PointwiseJudge(judge.model, judge.tokenizer, 0.7)
    for part in (pointwise.model, pointwise.tokenizer):
        part.save_pretrained(saved)
    pointwise.save_format(saved)
    alone = _teachers(judge, pairs, saved)
    np.savez(tmp_path / "alone.npz", **alone)
    multiprocessing.spawn(_one_of_three, args=(str(tmp_path),), nprocs=3)


def _judge_and_pairs() -> tuple[Judge, list[Pair]]:
    tokenizer = make_tokenizer("split")
    pairs = simulate_pairs(40, seed=0, n_votes=1).pairs
    return Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25), pairs


def _teachers(judge: Judge, pairs: list[Pair], saved) -> dict[str, np.ndarray]:
    texts = TrainingTexts.of(pairs)
    teachers = {name: find_teacher(name, texts, judge, "model", 0, progress=False) for name in ("probe", str(saved))}
    probe = LinearProbe.fit_model(judge.model, judge.tokenizer, pairs, 0)
    found = {f"teacher {i}": t.between(*texts.sides.T) for i, t in enumerate(teachers.values())}
    return found | {"weights": probe.weights, "out of fold": probe.out_of_fold, "layer": np.array(probe.layer)}


def _one_of_three(rank: int, folder: str) -> None:
    patience = timedelta(seconds=900)
    dist.init_process_group("gloo", rank=rank, world_size=3, init_method=f"file://{folder}/meet", timeout=patience)
    assert this_process() == (rank, 3)
    for n_rows in (1, 2, 7):  # of one row two processes have none
        np.testing.assert_array_equal(interleaved(in_shares(range(n_rows), squares)), squares(range(n_rows)))
    with pytest.raises(ZeroDivisionError):
        in_shares([1, 0, 1], lambda rows: [1 / row for row in rows])

    judge, pairs = _judge_and_pairs()
    read, forward = [], ResponseStates._forward
    ResponseStates._forward = lambda states, ids, counts: read.extend(ids) or forward(states, ids, counts)
    states = ResponseStates(judge.model, judge.tokenizer)
    texts = [(pair.prompt, response) for pair in pairs for response in (pair.response_a, pair.response_b)]
    states.read(texts, together=True)
    n_texts = len(set(texts))
    assert len(read) == len(range(rank, n_texts, 3)), "every text is read by one process"
    states.read(texts, together=True)
    assert len(read) == len(range(rank, n_texts, 3)), "and once"
    with np.load(f"{folder}/alone.npz") as alone:
        for name, value in _teachers(judge, pairs, f"{folder}/teacher").items():
            np.testing.assert_allclose(value, alone[name], atol=1e-5, err_msg=name)
    leave_group()
