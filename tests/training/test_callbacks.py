"""Calibration while training: at the right steps, into the log, and without a trace in the training metrics."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from autorater.answers import AnswerTree
from autorater.judges import Judge
from autorater.prompts import PromptFormat
from autorater.training.callbacks import CalibrationCallback, QuietProgressCallback, show_progress
from autorater.training.config import JudgeGRPOConfig
from autorater.training.grpo import JudgeGRPOTrainer, training_rows
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
