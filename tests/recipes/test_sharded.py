"""Several processes with ZeRO and FSDP, as they are launched, are one plain run: losses, figures and the judge."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from autorater import Judge
from autorater.population import simulate_pairs
from autorater.training.config import JudgeArguments
from autorater.training.data import prepare_data
from autorater.training.warm_start import build_warm_policy

ROOT = Path(__file__).parents[2]
N_TEST = 13  # shares of seven pairs and of six
BASE = [
    "--n_train=60", f"--n_test={N_TEST}", "--prompt_layout=compact", "--answer_step=0.25", "--logging_steps=1",
    "--learning_rate=3e-3", "--save_strategy=no", "--report_to=none", "--eval_steps=2", "--seed=0",
]  # fmt: skip
KINDS = {
    "exact": ["--answers=exact"],
    "sampled": ["--answers=sampled", "--num_generations=4", "--max_completion_length=5", "--entropy_coef=0"],
}
LORA = ["--use_peft", "--lora_r=4", "--lora_target_modules", "q_proj", "v_proj", "up_proj", "--lora_dropout=0"]


def warm_policy(folder, hidden_size=64):
    args = JudgeArguments(
        n_train=200, n_test=1, prompt_layout="compact", policy_hidden_size=hidden_size, policy_num_layers=2,
        policy_vocab_size=512, warm_start_steps=60, warm_start_batch_size=16,
    )  # fmt: skip
    run = SimpleNamespace(seed=0, use_cpu=True, output_dir=str(folder), answer_step=0.25)
    return build_warm_policy(args, run, prepare_data(args, seed=0))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return warm_policy(tmp_path_factory.mktemp("model"))


def launch(output_dir, *arguments, config=None, processes=2, batch=8):
    """Runs the recipe on several processes, or plainly on one with the same global batch."""
    command = [sys.executable]
    if config:
        command += ["-m", "accelerate.commands.launch", "--main_process_port=0", "--num_processes", str(processes)]
        command += ["--config_file", str(ROOT / "recipes" / "accelerate" / config)]
    done = subprocess.run(
        [
            *command, "tests/recipes/recorded_grpo.py", *BASE, *map(str, arguments), f"--output_dir={output_dir}",
            f"--per_device_train_batch_size={batch // processes if config else batch}",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return Run(output_dir)


class Run:
    def __init__(self, folder):
        self.folder = folder
        self.processes = [json.loads(file.read_text()) for file in sorted(folder.glob("recorded-*.json"))]
        self.losses = self.processes[0]["losses"]
        self.metrics = json.loads((folder / "metrics.json").read_text())
        said = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        self.said = np.array([row["probability"] for row in said]).reshape(-1, 2)


def difference(run, plain) -> float:
    """The largest relative difference of the losses."""
    return float((np.abs(np.subtract(run.losses, plain.losses)) / np.abs(plain.losses)).max())


def assert_same_run(run, plain, steps):
    assert len(plain.losses) == len(run.losses) == steps
    np.testing.assert_allclose(run.losses, plain.losses, rtol=1e-4)
    assert max(plain.losses) - min(plain.losses) > 1e-3, "nothing was learned that could differ"
    for name, value in plain.metrics.items():
        if name != "training_seconds":
            assert run.metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    np.testing.assert_allclose(run.said, plain.said, atol=1e-4)
    # what was saved judges in plain transformers as it did at the end of the training
    judge = Judge.from_pretrained(str(run.folder), device="cpu")
    held_out = simulate_pairs(N_TEST, n_votes=10, seed=0, held_out=True).pairs
    np.testing.assert_allclose(judge.probabilities(held_out).mean, run.said, atol=1e-5)


def test_zero3_is_one_plain_run(tmp_path, model_folder):
    arguments = [f"--model_name_or_path={model_folder}", *KINDS["exact"], "--max_steps=4"]
    plain = launch(tmp_path / "plain", *arguments)
    run = launch(tmp_path / "zero3", *arguments, config="zero3_cpu.yaml")
    assert [p["wrapper"] for p in run.processes] == ["DeepSpeedEngine"] * 2
    assert_same_run(run, plain, 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peft", ["full", "lora"])
def test_sharded_runs_are_one_plain_run(tmp_path, model_folder, kind, peft):
    """Twenty steps with a reference model and gradient checkpointing, each stage against one plain process."""
    arguments = [
        f"--model_name_or_path={model_folder}", *KINDS[kind], *(LORA if peft == "lora" else []), "--max_steps=20",
        "--beta=0.05", "--gradient_checkpointing",
    ]  # fmt: skip
    plain = launch(tmp_path / "plain", *arguments)
    for config in ("zero1_cpu.yaml", "zero2_cpu.yaml", "zero3_cpu.yaml", "fsdp2_cpu.yaml"):
        run = launch(tmp_path / config, *arguments, config=config)
        print(config, kind, peft, difference(run, plain), run.processes[0]["wrapper"])
        assert_same_run(run, plain, 20)
