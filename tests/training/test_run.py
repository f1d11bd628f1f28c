"""What a run checks before it loads or writes anything."""

import json
from types import SimpleNamespace

import pytest
from trl import ModelConfig

from autorater.data.errors import UserError
from autorater.training import run
from autorater.training.arguments import JudgeArguments
from autorater.training.run import check_run


def training(folder, **options):
    return SimpleNamespace(output_dir=str(folder), report_to=[], **options)


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
