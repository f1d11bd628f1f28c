"""Callbacks: evaluation at the right steps, progress as a bar or as lines, the log file, graceful shutdown."""

import io
import json
import os
import re
import signal
import warnings
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainerState

from autorater.data.errors import UserError
from autorater.judges import Judge
from autorater.models.answers import AnswerTree
from autorater.prompts.templates import PromptFormat
from autorater.training import callbacks
from autorater.training.callbacks import (
    BarCallback,
    CalibrationCallback,
    LinesCallback,
    LogFileCallback,
    show_progress,
)
from autorater.training.checkpointing.checkpoints import check_checkpoint
from autorater.training.checkpointing.record import RunRecord
from autorater.training.compatibility import PPO, REASONING, SAMPLED
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import training_rows
from autorater.training.grpo import grpo_trainer
from autorater.training.interruptible import run_training
from rewards import brier_reward
from tests.conftest import full_disk, make_model, make_tokenizer


class Stream(io.StringIO):
    """An output stream that is a terminal or not."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.mark.parametrize(
    ("terminal", "disable_tqdm", "bar", "eval_steps"),
    [(True, False, True, 2), (True, True, False, 2), (False, False, False, 0.4)],
)
def test_held_out_pairs_are_evaluated_during_training(
    tmp_path, simulated, monkeypatch, capsys, caplog, terminal, disable_tqdm, bar, eval_steps
):
    tokenizer = make_tokenizer("split")
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.25)
    prompts = judge.encoder.encode(simulated.pairs)
    args = JudgeGRPOConfig(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, max_steps=5, eval_steps=eval_steps, logging_steps=1,
        per_device_train_batch_size=4, save_strategy="no", answer_step=0.25, disable_tqdm=disable_tqdm,
    )  # fmt: skip
    trainer = grpo_trainer(
        judge.model, brier_reward, args, judge.tree,
        train_dataset=Dataset.from_list(training_rows(simulated.pairs, prompts, "coupled")),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.add_callback(CalibrationCallback(trainer, judge, simulated.pairs[:12], prompts, n_pairs=6))
    stderr = Stream(terminal)
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setattr(callbacks, "_LINE_SECONDS", 0.0)
    with caplog.at_level("INFO", "autorater"):
        show_progress(trainer)
        trainer.train()
    evaluated = [log for log in trainer.state.log_history if "eval_brier" in log]
    assert [log["step"] for log in evaluated] == [2, 4]
    assert all(0 <= log["eval_parse_rate"] <= 1 for log in evaluated)
    assert not any("eval_brier" in log and "reward" in log for log in trainer.state.log_history)
    assert len([log for log in trainer.state.log_history if "reward" in log]) == 5
    assert judge.model.training
    out, lines = capsys.readouterr().out, [message for message in caplog.messages if message.startswith("step")]
    if bar:
        assert "step 2: brier" in out + stderr.getvalue()
        assert "\r" in stderr.getvalue()
        assert "reward 0." in stderr.getvalue()
        assert lines == []
    else:
        assert (out, stderr.getvalue()) == ("", ""), "no bar"
        number = r"-?\d+\.\d+"
        assert [line.split()[1] for line in lines] == ["1/5", "2:", "2/5", "3/5", "4:", "4/5", "5/5"]
        assert re.fullmatch(
            rf"step 1/5  loss {number}  reward {number}  parse rate {number}  reward if parsed {number}  "
            rf"learning rate {number}e-\d+",
            lines[0],
        )
        assert re.match(rf"step 2: brier {number}", lines[1])


def log_steps(callback, steps, seconds, monkeypatch, every=1, **logs):
    """Takes steps at a pace, logs every so many, and ends."""
    now = [callback._last_time]
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: now[0])
    state = SimpleNamespace(is_world_process_zero=True, max_steps=steps, global_step=0)
    for state.global_step in range(1, steps + 1):
        now[0] += seconds
        logged = bool(logs) and state.global_step % every == 0
        callback.on_step_end(None, state, SimpleNamespace(should_log=logged))
        if logged:
            callback.on_log(None, state, None, logs=logs | {"reward": state.global_step / 100})
    callback.on_train_end(None, state, None)


@pytest.mark.parametrize(
    ("seconds", "logs", "steps"),
    [
        (1.0, {"loss": 0.5}, ["10/25", "20/25", "25/25"]),
        (12.0, {}, ["3/7", "6/7", "7/7"]),
        (0.01, {"loss": 0.5}, ["25/25"]),
    ],
    ids=["fast steps", "steps that are not logged", "a short run"],
)
def test_a_line_every_few_seconds(monkeypatch, caplog, seconds, logs, steps):
    with caplog.at_level("INFO", "autorater"):
        log_steps(LinesCallback(), int(steps[-1].split("/")[1]), seconds, monkeypatch, **logs)
    assert [message.split()[1] for message in caplog.messages] == steps
    assert all(("loss 0.5000" in message) == bool(logs) for message in caplog.messages)


def test_metrics_stand_in_the_line_of_their_step(monkeypatch, caplog):
    with caplog.at_level("INFO", "autorater"):
        log_steps(LinesCallback(), 14, 15.0, monkeypatch, every=4, loss=0.5)
    assert caplog.messages == [
        "step 2/14",
        "step 4/14  loss 0.5000  reward 0.0400",
        "step 6/14",
        "step 8/14  loss 0.5000  reward 0.0800",
        "step 10/14",
        "step 12/14  loss 0.5000  reward 0.1200",
        "step 14/14",
    ]


@pytest.mark.parametrize("callback", [LinesCallback(), BarCallback()])
def test_other_processes_print_nothing(callback, capsys, caplog):
    state = SimpleNamespace(is_world_process_zero=False, global_step=1, max_steps=1)
    callback.training_bar = SimpleNamespace(write=print, set_postfix_str=lambda *_, **__: None)
    with caplog.at_level("INFO", "autorater"):
        callback.on_log(None, state, None, logs={"eval_brier": 1.0, "reward": 1.0})
        assert (capsys.readouterr().out, caplog.messages) == ("", [])
        state.is_world_process_zero = True
        callback.on_log(None, state, None, logs={"eval_brier": 1.0, "reward": 1.0})
    assert "step 1: brier 1.0000" in capsys.readouterr().out + caplog.text


@pytest.mark.parametrize("step", [0.05, 0.25])
def test_judge_and_trainer_read_the_same_answers(simulated, step):
    """The judge's tree is the trainer's."""
    tokenizer = make_tokenizer("merged")
    judge = Judge(make_model("llama", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=step)
    tree = AnswerTree(tokenizer, judge.encoder.context, step)
    assert torch.equal(tree.paths, judge.tree.paths)
    assert torch.equal(tree.edge_tokens, judge.tree.edge_tokens)


def test_the_log_continues_after_the_step_that_a_run_resumes_from(tmp_path):
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
    assert path.read_text() == "", "a new run starts a new log"


def test_a_log_is_rewritten_only_if_lines_are_dropped_and_in_one_step(tmp_path, monkeypatch):
    path, log = tmp_path / "log.jsonl", LogFileCallback(tmp_path / "log.jsonl")
    path.write_text('{"step": 1}\n{"step": 2}\n')
    file = path.stat()
    log.on_train_begin(None, SimpleNamespace(is_world_process_zero=True, global_step=2), None)
    assert path.stat() == file
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"No space left on device.*\); .* with --resume_from_checkpoint auto"):
        log.on_train_begin(None, SimpleNamespace(is_world_process_zero=True, global_step=1), None)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_log_that_cannot_be_written_warns_once(tmp_path):
    log = LogFileCallback(tmp_path / "gone" / "log.jsonl")
    state = SimpleNamespace(is_world_process_zero=True, global_step=1)
    with pytest.warns(RuntimeWarning, match="cannot be written, lines are lost"):
        log.on_log(None, state, None, logs={"reward": 1.0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log.on_log(None, state, None, logs={"reward": 1.0})


class Send(TrainerCallback):
    """Sends a signal in the middle of a step."""

    def __init__(self, name):
        self.signal = getattr(signal, name)

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            os.kill(os.getpid(), self.signal)


@pytest.mark.parametrize(("name", "status"), [("SIGUSR1", 143), ("SIGINT", 130)])
def test_a_signal_stops_a_training_after_a_checkpoint(tmp_path, simulated, capsys, monkeypatch, name, status):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.default_int_handler)  # tests may run in background
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
        return grpo_trainer(
            model, brier_reward, args, judge.tree, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )

    stopped = trainer()
    stopped.add_callback(Send(name))
    with pytest.raises(SystemExit) as ended:
        run_training(stopped, record)
    assert ended.value.code == status
    assert f"stopped ({name}) after step 3 of 5; checkpoint: {tmp_path / 'checkpoint-3'}" in capsys.readouterr().err
    manifest = check_checkpoint(tmp_path / "checkpoint-3")
    assert (manifest["run"], manifest["step"]) == (record.run, 3)
    resumed = trainer()
    run_training(resumed, record)
    assert resumed.state.global_step == 5
    assert resumed.state.log_history[-1]["step"] == 5


def test_equal_rewards_in_all_groups_are_warned_about_whatever_the_entropy_bonus(caplog):
    callback, state = callbacks.NoGradientCallback(), TrainerState(global_step=7, is_world_process_zero=True)
    sampled = SimpleNamespace(mode=SAMPLED)
    for equal in (1.0, 1.0, 0.9, 1.0, 1.0, 1.0):
        assert not caplog.messages
        callback.on_log(sampled, state, None, {"grad_norm": 0.3, "frac_reward_zero_std": equal})
    assert "nothing is learned from the votes" in caplog.text


@pytest.mark.parametrize("mode", [PPO, REASONING])
def test_equal_rewards_still_teach_a_value_head_and_the_answers_after_a_reasoning(caplog, mode):
    callback, state = callbacks.NoGradientCallback(), TrainerState(global_step=7, is_world_process_zero=True)
    for _ in range(4):
        callback.on_log(SimpleNamespace(mode=mode), state, None, {"grad_norm": 0.3, "frac_reward_zero_std": 1.0})
    assert not caplog.messages


def test_a_model_that_does_not_learn_is_warned_about(caplog):
    callback, state = callbacks.NoGradientCallback(), TrainerState(global_step=7, is_world_process_zero=True)
    for norm in (0.0, 0.0, 0.1, 0.0, 0.0):
        callback.on_log(None, state, None, {"grad_norm": norm, "answers/parse_rate": 0.0})
    callback.on_log(None, state, None, {"eval_brier": 0.2})
    assert not caplog.messages
    for _ in range(4):
        callback.on_log(None, state, None, {"grad_norm": 0.0, "answers/parse_rate": 0.0})
    (message,) = caplog.messages
    assert "step 7: no gradient of the reward in the last 3 logged steps" in message
    assert "the parse rate is 0" in message
