"""Calibration while training: at the right steps, into the log, and without a trace in the training metrics."""

import json
import os
import signal
import warnings
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback

from autorater.judges import Judge
from autorater.models.answers import AnswerTree
from autorater.prompts.templates import PromptFormat
from autorater.training.callbacks import (
    CalibrationCallback,
    LogFileCallback,
    QuietProgressCallback,
    show_progress,
)
from autorater.training.checkpointing.checkpoints import check_checkpoint
from autorater.training.checkpointing.record import RunRecord
from autorater.training.config import JudgeGRPOConfig
from autorater.training.grpo import JudgeGRPOTrainer, training_rows
from autorater.training.run import run_training
from rewards import brier_reward
from tests.conftest import make_model, make_tokenizer


def test_held_out_pairs_are_measured_while_training(tmp_path, simulated, capsys):
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    prompts = judge.encoder.encode(simulated.pairs)
    args = JudgeGRPOConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, max_steps=5, eval_steps=2, logging_steps=1,
        per_device_train_batch_size=4, save_strategy="no", answer_step=0.25,
    )  # fmt: skip
    trainer = JudgeGRPOTrainer(
        judge.model, brier_reward, args, judge.tree,
        train_dataset=Dataset.from_list(training_rows(simulated.pairs, prompts, "coupled")),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.add_callback(CalibrationCallback(trainer, judge, simulated.pairs[:12], prompts, n_pairs=6))
    show_progress(trainer)
    trainer.train()
    measured = [log for log in trainer.state.log_history if "eval_brier" in log]
    assert [log["step"] for log in measured] == [2, 4]
    assert all(0 <= log["eval_parse_rate"] <= 1 for log in measured)
    assert not any("eval_brier" in log and "reward" in log for log in trainer.state.log_history)
    assert len([log for log in trainer.state.log_history if "reward" in log]) == 5
    assert judge.model.training
    out = capsys.readouterr()
    assert "step 2: brier" in out.out + out.err


def test_other_processes_print_nothing():
    callback = QuietProgressCallback()
    callback.on_log(None, SimpleNamespace(is_world_process_zero=False), None, logs={"eval_brier": 1.0})


@pytest.mark.parametrize("step", [0.05, 0.25])
def test_judge_and_trainer_read_the_same_answers(simulated, step):
    """What is measured is what is trained: the judge's tree is the trainer's."""
    tokenizer = make_tokenizer("merged")
    judge = Judge(make_model("llama", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=step)
    tree = AnswerTree(tokenizer, judge.encoder.context, step)
    assert torch.equal(tree.paths, judge.tree.paths)
    assert torch.equal(tree.edge_tokens, judge.tree.edge_tokens)


def test_log_goes_on_behind_the_step_that_a_run_resumes_from(tmp_path):
    path, main = tmp_path / "log.jsonl", {"is_world_process_zero": True}
    log = LogFileCallback(path)
    log.on_train_begin(None, SimpleNamespace(**main, global_step=0), None)
    for step in (5, 10, 15):
        log.on_log(
            None, SimpleNamespace(**main, global_step=step), None, logs={"reward": step / 10, "kl": float("nan")}
        )
    log.on_log(None, SimpleNamespace(**main, global_step=10), None, logs={"train_runtime": 3.0})
    with path.open("a") as file:
        file.write('{"step": 20, "rew')
    log.on_train_begin(None, SimpleNamespace(**main, global_step=10), None)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert kept == [{"step": 5, "reward": 0.5, "kl": None}, {"step": 10, "reward": 1.0, "kl": None}]
    log.on_train_begin(None, SimpleNamespace(**main, global_step=0), None)
    assert path.read_text() == "", "a new run begins a new log"


def test_a_log_that_cannot_be_written_warns_once_and_stops_nothing(tmp_path):
    log = LogFileCallback(tmp_path / "gone" / "log.jsonl")
    state = SimpleNamespace(is_world_process_zero=True, global_step=1)
    with pytest.warns(RuntimeWarning, match="cannot be written, lines are lost"):
        log.on_log(None, state, None, logs={"reward": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.on_log(None, state, None, logs={"reward": 1.0})


class Sent(TrainerCallback):
    """SIGUSR1, as SLURM sends it, in the middle of a step."""

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGUSR1)


def test_asked_to_leave_a_training_puts_a_checkpoint_down(tmp_path, simulated, capsys):
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    rows = training_rows(simulated.pairs, judge.encoder.encode(simulated.pairs), "coupled")
    args = JudgeGRPOConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, max_steps=5, gradient_accumulation_steps=2,
        per_device_train_batch_size=4, save_strategy="no", answer_step=0.25, resume_from_checkpoint="auto",
    )  # fmt: skip
    record = RunRecord.open(args, {"seed": 0}, "some pairs")

    def trainer():
        model = make_model("qwen", len(tokenizer))
        return JudgeGRPOTrainer(
            model, brier_reward, args, judge.tree, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )

    asked = trainer()
    asked.add_callback(Sent)
    with pytest.raises(SystemExit) as left:
        run_training(asked, record)
    assert left.value.code == 143
    assert "asked to leave (SIGUSR1) behind step 3 of 5" in capsys.readouterr().err
    manifest = check_checkpoint(tmp_path / "checkpoint-3")
    assert (manifest["run"], manifest["step"]) == (record.run, 3)
    resumed = trainer()
    run_training(resumed, record)
    assert resumed.state.global_step == 5
    assert "resuming from" in capsys.readouterr().err
