"""Resumed trainings take the steps of undisturbed ones, bit for bit; full disks and bad numbers harm no weights."""

import resource

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from autorater.data.population import simulate_pairs
from autorater.judges import Judge
from autorater.prompts.templates import PromptFormat
from autorater.training.checkpointing import resumable
from autorater.training.checkpointing.checkpoints import CheckpointError, check_checkpoint, checkpoints
from autorater.training.config import JudgeGRPOConfig
from autorater.training.exact_loss import ExactObjective
from autorater.training.faults import TrainingFault
from autorater.training.grpo import JudgeGRPOTrainer, training_rows
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
    return JudgeGRPOTrainer(
        model, brier_reward, args, judge.tree, train_dataset=rows, processing_class=judge.tokenizer
    )


def state(trainer):
    """Everything that decides what a training would do next."""
    optimizer = {
        f"{i}/{name}": value
        for i, moments in trainer.optimizer.state_dict()["state"].items()
        for name, value in moments.items()
    }
    return dict(trainer.model.state_dict()) | optimizer | {"torch": torch.get_rng_state()}


def log(trainer):
    seconds = {"step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}
    return [{k: v for k, v in entry.items() if k not in seconds} for entry in trainer.state.log_history]


@pytest.mark.filterwarnings("ignore:step 1. not one answer")
@pytest.mark.parametrize("case", CASES)
def test_resumed_is_undisturbed(data, tmp_path, case):
    whole = trainer(data, tmp_path / "whole", **CASES[case])
    whole.train()
    torch.manual_seed(1234)  # what another process has done meanwhile is of no consequence
    resumed = trainer(data, tmp_path / "whole", **CASES[case])
    trained = resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-7"))
    assert resumed.state.global_step == 10
    wanted, got = state(whole), state(resumed)
    assert wanted.keys() == got.keys()
    assert [name for name in wanted if not torch.equal(wanted[name], got[name])] == []
    assert whole.lr_scheduler.state_dict() == resumed.lr_scheduler.state_dict()
    assert whole.state.num_input_tokens_seen == resumed.state.num_input_tokens_seen
    assert log(whole) == log(resumed), "sums between two logged steps are carried over"
    assert trained.metrics["train_runtime"] > 0


def test_a_training_that_was_complete_takes_no_step_more(data, tmp_path):
    whole = trainer(data, tmp_path, save_steps=10)
    whole.train()
    again = trainer(data, tmp_path, save_steps=10)
    again.train(resume_from_checkpoint="auto")
    assert again.state.global_step == 10
    for wanted, got in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(wanted, got)


def test_a_damaged_checkpoint_is_passed_over(data, tmp_path, capsys):
    trainer(data, tmp_path, save_steps=3).train()
    with (tmp_path / "checkpoint-10" / "optimizer.pt").open("r+b") as file:
        file.truncate(1000)
    resumed = trainer(data, tmp_path, save_steps=3, max_steps=11)
    resumed.train(resume_from_checkpoint="true")
    said = capsys.readouterr().err
    assert "optimizer.pt has 1,000 bytes" in said
    assert f"resuming from {tmp_path / 'checkpoint-9'}" in said
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        trainer(data, tmp_path / "empty").train(resume_from_checkpoint="true")


def test_the_last_checkpoint_stays_until_the_next_is_whole(data, tmp_path, monkeypatch):
    there = []

    def spy(folder, step, about):
        there.append([path.name for path in checkpoints(folder.parent, None)])
        seal(folder, step, about)

    seal = resumable.seal
    monkeypatch.setattr(resumable, "seal", spy)
    trainer(data, tmp_path, save_steps=3, save_total_limit=1).train()
    assert there == [[], ["checkpoint-3"], ["checkpoint-6"], ["checkpoint-9"]]
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-10"]


class Limit(TrainerCallback):
    """Files end at 20 kB while some steps are taken, as they do on a full disk."""

    def __init__(self, first, last):
        self.first, self.last = first, last

    def on_step_begin(self, args, state, control, **kwargs):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        limited = self.first <= state.global_step + 1 <= self.last
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000 if limited else hard, hard))


def test_a_full_disk_costs_a_checkpoint_and_nothing_else(data, tmp_path):
    undisturbed = trainer(data, tmp_path / "a", save_strategy="no")
    undisturbed.train()
    full = trainer(data, tmp_path / "b", save_steps=3, save_total_limit=1)
    full.add_callback(Limit(4, 9))
    with pytest.warns(RuntimeWarning, match=r"checkpoint-6 could not be written, and the training goes on"):
        full.train()
    assert [path.name for path in (tmp_path / "b").glob("checkpoint-*")] == ["checkpoint-10"]
    for wanted, got in zip(undisturbed.model.parameters(), full.model.parameters(), strict=True):
        assert torch.equal(wanted, got)
    full = trainer(data, tmp_path / "c", save_steps=3, save_total_limit=1, max_steps=6)
    full.add_callback(Limit(4, 6))
    with pytest.warns(RuntimeWarning, match="checkpoint-6"):
        full.train()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    assert [path.name for path in (tmp_path / "c").glob("checkpoint-*")] == ["checkpoint-3"]
    assert check_checkpoint(tmp_path / "c" / "checkpoint-3")["step"] == 3


@pytest.mark.parametrize("where", ["loss", "gradient"])
@pytest.mark.parametrize("kind", [{}, {"objective": "tokenized_brier"}], ids=["grpo", "sft"])
def test_what_is_not_finite_stops_before_it_touches_a_weight(data, tmp_path, monkeypatch, where, kind):
    objective = ExactObjective.__call__

    def spoilt(trainer, loss, log):
        return loss * (torch.nan if trainer.state.global_step == 2 else 1), log

    good = trainer(data, tmp_path / "good", save_strategy="no", max_steps=2, lr_scheduler_type="constant", **kind)
    good.train()
    bad = trainer(data, tmp_path / "bad", save_strategy="no", lr_scheduler_type="constant", **kind)
    if where == "loss":
        monkeypatch.setattr(ExactObjective, "__call__", lambda *given: spoilt(bad, *objective(*given)))
    else:
        first = next(bad.model.parameters())
        first.register_hook(lambda gradient: gradient * (torch.inf if bad.state.global_step == 2 else 1))
    what = "the loss is nan" if where == "loss" else "the norm of the gradient is (nan|inf)"
    with pytest.raises(TrainingFault, match=f"step 3: {what}; the weights are still those of step 2"):
        bad.train()
    for wanted, got in zip(good.model.parameters(), bad.model.parameters(), strict=True):
        assert torch.equal(wanted, got)
