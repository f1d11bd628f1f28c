"""The adversary, the objective and the trainer of distribution alignment."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from harness.cvxpy_projection import CvxpyProjection
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from autorater.alignment import adversary
from autorater.alignment.adversary import random_perturbation, worst_case
from autorater.alignment.judge import LabelJudge
from autorater.alignment.labels import LabelFormat
from autorater.alignment.trainer import (
    AlignmentConfig,
    AlignmentTrainer,
    alignment_loss,
    alignment_rows,
    kl_divergence,
    majority,
)
from autorater.data.items import pair_items
from autorater.training.callbacks import CalibrationCallback
from tests.conftest import make_model, make_tokenizer


@settings(max_examples=80, deadline=None)
@given(
    arrays(float, (3, 5), elements=st.integers(0, 6)).filter(lambda votes: (votes.sum(axis=1) > 0).all()),
    arrays(float, (3, 5), elements=st.floats(-6, 6)),
    st.floats(0, 1.5),
    st.floats(0.01, 0.5),
)
def test_every_step_raises_the_kl_and_stays_in_the_set(votes, logits, radius, step_size):
    """By convexity a step p → p′ raises it by at least ‖p′ − p‖² / η."""
    shares = torch.from_numpy(votes / votes.sum(axis=1, keepdims=True))
    log_q = torch.from_numpy(logits).log_softmax(dim=-1)
    before, kl_before = shares, kl_divergence(shares, log_q)
    for steps in range(1, 6):
        p = worst_case(shares, log_q, radius, steps=steps, step_size=step_size)
        assert (p >= 0).all()
        torch.testing.assert_close(p.sum(dim=-1), torch.ones(3, dtype=torch.float64), atol=1e-12, rtol=0)
        assert ((p - shares).norm(dim=-1) <= radius + 1e-12).all()
        kl = kl_divergence(p, log_q)
        assert (kl - kl_before >= (p - before).square().sum(dim=-1) / step_size - 1e-9).all()
        before, kl_before = p, kl


def test_the_adversary_raises_the_kl():
    shares = torch.tensor([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0], [0.2, 0.2, 0.6]], dtype=torch.float64)
    log_q = torch.tensor([[0.3, 0.3, 0.4], [0.5, 0.3, 0.2], [0.2, 0.2, 0.6]], dtype=torch.float64).log()
    p = worst_case(shares, log_q, 0.1)
    rise = kl_divergence(p, log_q) - kl_divergence(shares, log_q)
    assert rise[0] > 0.01
    assert rise[1] == 0, "at a vertex the slope is −∞ at every other label"
    assert rise[2].abs() < 1e-12, "where p = q the slope is flat"
    assert torch.equal(worst_case(shares, log_q, 0.0), shares)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("step_size", [0.001, 0.05, 0.5])
def test_a_label_without_a_vote_stays_empty_however_unlikely_the_model_finds_it(dtype, step_size):
    shares = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]], dtype=dtype)
    log_q = torch.tensor([[0.0, 0.0, -45.0], [0.0, -3.0, -45.0], [0.0, -3.0, -90.0]], dtype=dtype).log_softmax(dim=-1)
    p = worst_case(shares, log_q, 0.1, step_size=step_size)
    assert (p[shares == 0] == 0).all()
    rise = kl_divergence(p, log_q) - kl_divergence(shares, log_q)
    torch.testing.assert_close(rise[:2], torch.zeros(2, dtype=dtype))
    assert rise[2] > 0.001


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
def test_a_solver_can_replace_the_projection(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    shares = torch.multinomial(torch.ones(8, 4), 5, replacement=True, generator=generator)
    shares = torch.nn.functional.one_hot(shares, 4).double().mean(dim=1)
    log_q = torch.randn(8, 4, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    ours = worst_case(shares, log_q, 0.15)
    monkeypatch.setattr(adversary, "project_simplex_ball", CvxpyProjection(4, tolerance=1e-10))
    solved = worst_case(shares, log_q, 0.15)
    torch.testing.assert_close(solved, ours, atol=1e-4, rtol=0)


def test_random_perturbations_have_their_size_in_the_interior_and_stay_distributions():
    inner = np.full((200, 5), 0.2)
    moved = random_perturbation(inner, 0.1, seed=0)
    np.testing.assert_allclose(np.linalg.norm(moved - inner, axis=1), 0.1, atol=1e-12)
    np.testing.assert_allclose(moved.mean(axis=0), 0.2, atol=0.02)
    corner = np.eye(5)[np.zeros(50, int)]
    moved = random_perturbation(corner, 0.25, seed=1)
    assert (moved >= 0).all()
    assert (np.linalg.norm(moved - corner, axis=1) <= 0.25 + 1e-12).all()
    np.testing.assert_array_equal(random_perturbation(corner, 0.0, seed=1), corner)


def test_objective_is_kl_and_cross_entropy():
    shares = torch.tensor([[0.6, 0.4, 0.0], [0.4, 0.4, 0.2]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]], dtype=torch.float64)
    loss, log = alignment_loss(q.log(), shares, alpha=0.8)
    kl = entropy(shares.numpy(), q.numpy(), axis=1)
    cross = [-np.log(0.5), -(np.log(0.2) + np.log(0.3)) / 2]  # the mean of tied labels
    assert loss.item() == pytest.approx(np.mean(0.8 * kl + 0.2 * np.array(cross)))
    np.testing.assert_allclose(log["kl"], kl)
    np.testing.assert_allclose(majority(shares), [[1, 0, 0], [0.5, 0.5, 0]])
    worst, log = alignment_loss(q.log(), shares, alpha=1.0, radius=0.1)
    assert (log["kl_at_worst"] > log["kl"]).all()
    assert worst > loss - 0.2 * np.mean(cross)


def test_gradient_of_the_loss_does_not_pass_through_the_adversary():
    shares = torch.tensor([[0.6, 0.4, 0.0]])
    logits = torch.zeros(1, 3, requires_grad=True)
    alignment_loss(logits.log_softmax(dim=-1), shares, alpha=1.0, radius=0.2)[0].backward()
    p = worst_case(shares, torch.zeros(1, 3).log_softmax(dim=-1), 0.2)
    torch.testing.assert_close(logits.grad, torch.full((1, 3), 1 / 3) - p)


@pytest.fixture
def judge(simulated):
    tokenizer = make_tokenizer("split")
    task = pair_items(simulated.pairs[:8]).task
    return LabelJudge(make_model("qwen", len(tokenizer)), tokenizer, LabelFormat(task, "compact"))


def alignment_trainer(judge, folder, pairs, **options):
    args = AlignmentConfig(
        str(folder), report_to="none", use_cpu=True, logging_steps=2, save_strategy="no", disable_tqdm=True,
        per_device_train_batch_size=2, **options,
    )  # fmt: skip
    items = pair_items(pairs)
    rows = Dataset.from_list(alignment_rows(items, judge.encode(items)))
    return AlignmentTrainer(judge.model, args, judge.tree, judge.tokenizer.pad_token_id, train_dataset=rows)


def test_an_evaluation_is_logged_without_the_training_metrics(tmp_path, simulated, judge):
    pairs = simulated.pairs[:8]
    trainer = alignment_trainer(judge, tmp_path, pairs, max_steps=4, eval_steps=2)
    trainer.add_callback(CalibrationCallback(trainer, judge, pairs, judge.encoder.encode(pairs), n_pairs=4))
    trainer.train()
    logs = trainer.state.log_history
    assert [(log["step"], "eval_brier" in log, "kl" in log) for log in logs if "train_runtime" not in log] == [
        (2, True, False), (2, False, True), (4, False, True),
    ]  # fmt: skip


def test_terms_of_the_loss_are_logged_as_means_over_all_processes(tmp_path, simulated, judge, monkeypatch):
    trainer = alignment_trainer(judge, tmp_path, simulated.pairs[:8], max_steps=2, learning_rate=0.0)
    other = 3.0  # the values of a second process
    monkeypatch.setattr(trainer.accelerator, "gather", lambda own: torch.cat([own, torch.full_like(own, other)]))
    trainer.train()
    log = trainer.state.log_history[0]
    of_this_process = {name: 2 * log[name] - other for name in ("kl_at_worst", "cross_entropy")}
    alpha = trainer.args.alpha
    loss = alpha * of_this_process["kl_at_worst"] + (1 - alpha) * of_this_process["cross_entropy"]
    assert log["loss"] == pytest.approx(loss, abs=1e-4)
    assert 0 < 2 * log["mass"] - other < 1


@pytest.mark.parametrize(
    ("ablate", "alpha", "radius"),
    [(None, 0.8, 0.1), (["adversary"], 0.8, 0.0), (["kl"], 0.0, 0.0), (["ce"], 1.0, 0.1), (["adversary", "ce"], 1, 0)],
)
def test_ablations(tmp_path, ablate, alpha, radius):
    objective = AlignmentConfig(output_dir=str(tmp_path), ablate=ablate, report_to="none").objective().keywords
    assert (objective["alpha"], objective["radius"]) == (alpha, radius)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablate": ["noise"]}, "ablate must be some of adversary, kl, ce; got 'noise'"),
        ({"ablate": ["kl", "ce"]}, "without kl and ce there is no loss"),
        ({"alpha": 1.5}, "alpha must be in"),
        ({"radius": -0.1}, "must be >= 0"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        AlignmentConfig(output_dir=str(tmp_path), **options)
