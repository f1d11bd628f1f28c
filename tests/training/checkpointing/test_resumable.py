"""Resumed runs take the steps of uninterrupted ones, bit for bit; full disks and bad numbers change no weights."""

import os
import resource

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.prompts.templates import PromptFormat
from autorater.training.callbacks import CalibrationCallback
from autorater.training.checkpointing import resumable
from autorater.training.checkpointing.checkpoints import CheckpointError, check_checkpoint, checkpoints
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.exact_loss import ExactLoss
from autorater.training.faults import TrainingFault
from autorater.training.grpo import grpo_trainer
from autorater.training.sft import JudgeSFTConfig, JudgeSFTTrainer, sft_rows
from rewards import brier_reward
from tests.conftest import make_model, make_tokenizer

OPTIONS = {
    "report_to": "none", "use_cpu": True, "max_steps": 10, "logging_steps": 4, "disable_tqdm": True,
    "per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 7, "answer_step": 0.25,
    "learning_rate": 1e-3,
}  # fmt: skip
# six pairs, two a step: steps 7 and 10 lie within later epochs
CASES = {
    "exact": {},
    "exact, random order": {"train_sampling_strategy": "random"},
    # a generation batch serves 2 × 3 micro-batches, two a step: step 7 stops in the middle of one
    "sampled, reused": {
        "answers": "sampled", "num_generations": 4, "per_device_train_batch_size": 4, "steps_per_generation": 3,
        "num_iterations": 2, "gradient_accumulation_steps": 2, "log_completions": True, "num_completions_to_print": 0,
    },
    "text": {"objective": "text"},
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    pairs, tokenizer = simulate_pairs(6, seed=0, n_votes=3).pairs, make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    return pairs, judge.encoder.encode(pairs), judge


def trainer(data, folder, **options):
    pairs, prompts, judge = data
    model = make_model("qwen", len(judge.tokenizer))
    kind, rows_of = (JudgeSFTConfig, sft_rows) if "objective" in options else (JudgeGRPOConfig, None)
    args = kind(output_dir=str(folder), **OPTIONS | options)
    if rows_of:
        rows = Dataset.from_list(sft_rows(pairs, prompts, judge.tokenizer, args))
        return JudgeSFTTrainer(model, args, judge.tree, train_dataset=rows, processing_class=judge.tokenizer)
    rows = Dataset.from_list(training_rows(pairs, prompts, args.orders))
    return grpo_trainer(model, brier_reward, args, judge.tree, train_dataset=rows, processing_class=judge.tokenizer)


def test_other_users_may_read_weights_as_the_umask_says(data, tmp_path):
    umask = os.umask(0o027)
    try:
        trainer(data, tmp_path).save_model()
    finally:
        os.umask(umask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*.*")}
    assert modes["model.safetensors"] == modes["config.json"] == 0o640


def state(trainer):
    """Everything that the next steps depend on."""
    optimizer = {
        f"{i}/{name}": value
        for i, moments in trainer.optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }
    return dict(trainer.model.state_dict()) | optimizer | {"torch": torch.get_rng_state()}


def assert_same_weights(expected, trainer):
    for before, after in zip(expected.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(before, after)


def log(trainer):
    seconds = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}
    return [{k: v for k, v in entry.items() if k not in seconds} for entry in trainer.state.log_history]


def assert_same_state(expected, trainer):
    expected, got = state(expected), state(trainer)
    assert expected.keys() == got.keys()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []


@pytest.mark.filterwarnings("ignore:step 1")
@pytest.mark.parametrize("case", CASES)
def test_resumed_is_uninterrupted(data, tmp_path, case):
    whole = trainer(data, tmp_path / "whole", **CASES[case])
    whole.train()
    torch.manual_seed(1234)  # the state of the new process has no influence
    resumed = trainer(data, tmp_path / "whole", **CASES[case])
    trained = resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-7"))
    assert resumed.state.global_step == 10
    assert_same_state(whole, resumed)
    assert whole.lr_scheduler.state_dict() == resumed.lr_scheduler.state_dict()
    assert whole.state.num_input_tokens_seen == resumed.state.num_input_tokens_seen
    assert log(whole) == log(resumed), "sums between two logged steps are carried over"
    assert trained.metrics["train_runtime"] > 0


def test_processes_whose_dropout_differs_draw_the_same_order(data, tmp_path):
    def two_epochs(seed):
        sampler = trainer(data, tmp_path, objective="text")._get_train_sampler()
        epochs = []
        for epoch in range(2):
            torch.manual_seed(seed + epoch)
            epochs.append(list(sampler))
        return epochs

    first, second = two_epochs(seed=1)
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != second
    assert two_epochs(seed=3) == [first, second]


def test_a_run_of_an_earlier_version_keeps_its_order(data, tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:  # torch's own generator drew the order
        earlier.delattr(resumable.ResumableTrainer, "_get_train_sampler")
        whole = trainer(data, tmp_path, objective="text")
        whole.train()
    resumed = trainer(data, tmp_path, objective="text")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert_same_state(whole, resumed)


@pytest.mark.filterwarnings("ignore:step 1")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_finished_training_continues_with_more_steps(data, tmp_path, case, schedule):
    options = CASES[case] | {"lr_scheduler_type": schedule, "save_steps": 100}
    trainer(data, tmp_path / "run", **options, max_steps=4).train()
    continued = trainer(data, tmp_path / "run", **options, max_steps=8)
    rates = []
    continued.add_callback(Rates(continued, rates))
    continued.train(resume_from_checkpoint="auto")
    assert continued.state.global_step == 8
    if schedule == "constant":
        whole = trainer(data, tmp_path / "whole", **options, max_steps=8)
        whole.train()
        assert_same_state(whole, continued)
    else:
        assert rates == pytest.approx([1e-3 * (8 - step) / 8 for step in range(4, 8)]), "the rates of an 8-step run"


@pytest.mark.parametrize("as_ratio", [False, True])
def test_a_resumed_run_logs_saves_and_evaluates_as_often_as_it_is_asked_to(data, tmp_path, as_ratio):
    options = {"lr_scheduler_type": "constant"}
    trainer(data, tmp_path, **options, max_steps=4, logging_steps=4, save_steps=4, eval_steps=4).train()
    steps = {name: size / 12 if as_ratio else size for name, size in {"logging_steps": 1, "save_steps": 3}.items()}
    resumed = trainer(data, tmp_path, **options, **steps, max_steps=12, eval_steps=2 / 12 if as_ratio else 2)
    pairs, prompts, _ = data
    resumed.add_callback(CalibrationCallback(resumed, data[2], pairs, prompts, n_pairs=2))
    resumed.train(resume_from_checkpoint="auto")
    logged = [entry for entry in resumed.state.log_history if entry["step"] > 4]
    assert [entry["step"] for entry in logged if "loss" in entry] == [*range(5, 13)]
    assert [entry["step"] for entry in logged if "eval_brier" in entry] == [6, 8, 10]
    assert {path.name for path in checkpoints(tmp_path, None)} == {f"checkpoint-{step}" for step in (4, 6, 9, 12)}


class Rates(TrainerCallback):
    """Records the learning rate of every step."""

    def __init__(self, trainer, rates):
        self.trainer, self.rates = trainer, rates

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])


def test_a_finished_training_takes_no_further_step(data, tmp_path):
    whole = trainer(data, tmp_path, save_steps=10)
    whole.train()
    again = trainer(data, tmp_path, save_steps=10)
    trained = again.train(resume_from_checkpoint="auto")
    assert again.state.global_step == 10
    assert_same_weights(whole, again)
    assert trained.metrics["train_runtime"] > torch.load(tmp_path / "checkpoint-10" / "progress_0.pt")["seconds"] > 0


def test_a_damaged_checkpoint_is_skipped(data, tmp_path, caplog):
    trainer(data, tmp_path, save_steps=3).train()
    with (tmp_path / "checkpoint-10" / "optimizer.pt").open("r+b") as file:
        file.truncate(1000)
    resumed = trainer(data, tmp_path, save_steps=3, max_steps=11)
    with caplog.at_level("INFO", "autorater"):
        resumed.train(resume_from_checkpoint="true")
    assert "optimizer.pt has 1,000 bytes" in caplog.text
    assert f"resuming from {tmp_path / 'checkpoint-9'}" in caplog.text
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        trainer(data, tmp_path / "empty").train(resume_from_checkpoint="true")


def test_the_last_checkpoint_stays_until_the_next_is_complete(data, tmp_path, monkeypatch):
    present = []

    def spy(folder, step, about):
        present.append([path.name for path in checkpoints(folder.parent, None)])
        complete(folder, step, about)

    complete = resumable.complete
    monkeypatch.setattr(resumable, "complete", spy)
    trainer(data, tmp_path, save_steps=3, save_total_limit=1).train()
    assert present == [[], ["checkpoint-3"], ["checkpoint-6"], ["checkpoint-9"]]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-10"]


class Limit(TrainerCallback):
    """Limits files to 20 kB during some steps, as on a full disk."""

    def __init__(self, first, last):
        self.first, self.last = first, last

    def on_step_begin(self, args, state, control, **kwargs):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        limited = self.first <= state.global_step + 1 <= self.last
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if limited else hard, hard))


def test_a_full_disk_costs_a_checkpoint_and_nothing_else(data, tmp_path):
    uninterrupted = trainer(data, tmp_path / "a", save_strategy="no")
    uninterrupted.train()
    full = trainer(data, tmp_path / "b", save_steps=3, save_total_limit=1)
    full.add_callback(Limit(4, 9))
    with pytest.warns(RuntimeWarning, match=r"checkpoint-6 could not be written, and the training continues"):
        full.train()
    assert [path.name for path in (tmp_path / "b").glob("checkpoint-*")] == ["checkpoint-10"]
    assert_same_weights(uninterrupted, full)
    full = trainer(data, tmp_path / "c", save_steps=3, save_total_limit=1, max_steps=6)
    full.add_callback(Limit(4, 6))
    with pytest.warns(RuntimeWarning, match="checkpoint-6"):
        full.train()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    assert [path.name for path in (tmp_path / "c").glob("checkpoint-*")] == ["checkpoint-3"]
    assert check_checkpoint(tmp_path / "c" / "checkpoint-3")["step"] == 3


def test_a_full_disk_that_only_the_tokenizer_meets_costs_no_more(data, tmp_path, monkeypatch):
    full = trainer(data, tmp_path, save_steps=3, max_steps=4)

    def save(*_, **__):
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    monkeypatch.setattr(full.processing_class, "save_pretrained", save)
    with pytest.warns(RuntimeWarning, match=r"checkpoint-3 could not be written, and the training continues"):
        full.train()
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("kind", [{}, {"objective": "tokenized_brier"}], ids=["grpo", "sft"])
def test_a_value_that_is_not_finite_stops_before_the_weights_change(data, tmp_path, monkeypatch, where, kind):
    objective = ExactLoss.__call__

    def spoiled(trainer, loss, log):
        return loss * (torch.nan if trainer.state.global_step == 2 else 1), log

    good = trainer(data, tmp_path / "good", save_strategy="no", max_steps=2, lr_scheduler_type="constant", **kind)
    good.train()
    bad = trainer(data, tmp_path / "bad", save_strategy="no", lr_scheduler_type="constant", **kind)
    if where == "loss":
        monkeypatch.setattr(ExactLoss, "__call__", lambda *args: spoiled(bad, *objective(*args)))
    else:
        first = next(bad.model.parameters())
        first.register_hook(lambda gradient: gradient * (torch.inf if bad.state.global_step == 2 else 1))
    problem = "the loss is nan" if where == "loss" else "the norm of the gradient is (nan|inf)"
    with pytest.raises(TrainingFault, match=f"step 3: {problem}; the weights are still those of step 2"):
        bad.train()
    assert_same_weights(good, bad)


def test_a_scaled_loss_may_overflow(data, tmp_path):
    scaled, norm = trainer(data, tmp_path), torch.tensor(torch.inf)
    with pytest.raises(TrainingFault, match="the norm of the gradient is inf"):
        scaled._get_grad_norm(scaled.model, norm)
    scaled.args.mixed_precision = "fp16"  # all that `accelerate launch --mixed_precision fp16` sets
    assert scaled._get_grad_norm(scaled.model, norm) == norm
