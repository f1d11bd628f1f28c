"""What a run checks before it loads or writes anything."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers.trainer_utils import IntervalStrategy
from trl import ModelConfig

from autorater.data.errors import UserError
from autorater.training import run
from autorater.training.arguments import JudgeArguments
from autorater.training.compatibility import EXACT, REASONING
from autorater.training.run import check_run, open_model
from tests.conftest import make_tokenizer
from tests.models.test_repeated_cache import CONFIGS, build


def training(folder, **options):
    return SimpleNamespace(
        **{"output_dir": str(folder), "report_to": [], "eval_strategy": IntervalStrategy.NO} | options
    )


@pytest.fixture
def judge(tmp_path):
    """The folder of a judge, and that of an adapter of it."""
    for name, file, content in (
        ("judge", "config.json", {}),
        ("adapter", "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "judge")}),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps(content))
    return tmp_path / "judge"


@pytest.mark.parametrize(
    ("start", "teacher", "output_dir", "option"),
    [
        ("judge", "opinions", "adapter/../judge", "model_name_or_path"),
        ("adapter", "opinions", "adapter", "model_name_or_path"),
        ("adapter", "opinions", "judge", "the base model of its adapter"),
        ("org/model", "judge", "judge", "warm_start_verdicts"),
    ],
)
def test_a_run_does_not_overwrite_what_it_begins_from(judge, start, teacher, output_dir, option):
    place = judge.parent
    start = start if "/" in start else str(place / start)
    teacher = str(place / teacher) if teacher == "judge" else teacher
    args, model = JudgeArguments(warm_start_steps=12, warm_start_verdicts=teacher), ModelConfig(start)
    with pytest.raises(UserError, match=f"^output_dir: .* is the folder of {option}, which this run would overwrite"):
        check_run(args, training(place / output_dir), model)
    check_run(args, training(place / "new"), model)
    check_run(args, training(place), model)


def test_a_missing_vllm_is_an_error_at_the_start(tmp_path, monkeypatch):
    sampled = training(tmp_path, use_vllm=True)
    monkeypatch.setattr(run, "is_vllm_available", lambda: False)
    with pytest.raises(UserError, match=r"^use_vllm: vLLM is not installed; .* pip install .* vllm=="):
        check_run(JudgeArguments(), sampled, ModelConfig())
    check_run(JudgeArguments(), training(tmp_path, use_vllm=False), ModelConfig())
    monkeypatch.setattr(run, "is_vllm_available", lambda: True)
    check_run(JudgeArguments(), sampled, ModelConfig())


def test_an_evaluation_of_transformers_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"eval_strategy: epoch: .* set eval_steps"):
        check_run(JudgeArguments(), training(tmp_path, eval_strategy=IntervalStrategy.EPOCH), ModelConfig())


def test_reasoning_with_a_model_that_cannot_share_a_prompt_is_refused_before_anything_is_judged(tmp_path):
    tokenizer = make_tokenizer()
    build(CONFIGS["lfm2"], len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    args, model = JudgeArguments(), ModelConfig(str(tmp_path))
    here = {"use_cpu": True, "device": torch.device("cpu"), "learning_rate": 1e-4}
    with pytest.raises(
        UserError, match=r"after reasoning require .* a state along the row \(conv\); use answers: sam"
    ):
        open_model(args, training(tmp_path, mode=REASONING, **here), model, str(tmp_path))
    open_model(args, training(tmp_path, mode=EXACT, **here), model, str(tmp_path))
