"""Launched on several processes with ZeRO, a run gives the losses, metrics and judge of one plain process."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from accelerate.commands.launch import launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env
from transformers import AutoModelForCausalLM, AutoTokenizer

from autorater import Judge
from autorater.data.loading import load_pairs, write_pairs
from autorater.data.population import simulate_pairs
from autorater.training.arguments import JudgeArguments
from autorater.training.config import JudgeGRPOConfig
from autorater.training.data import prepare_data
from autorater.training.warm_start import build_warm_policy
from tests.conftest import make_model, make_tokenizer
from tests.recipes.forked import run_forked

ROOT = Path(__file__).parents[2]
N_TEST = 13  # shares of seven pairs and of six
BASE = [
    "--n_train=60", f"--n_test={N_TEST}", "--prompt_template=compact", "--answer_step=0.25", "--logging_steps=1",
    "--learning_rate=3e-3", "--save_strategy=no", "--report_to=none", "--eval_steps=2", "--seed=0", "--bf16=false",
]  # fmt: skip
KINDS = {
    "exact": ["--answers=exact"],
    # Updated twice: the first loss is 0 but for lengths, since the advantages of a group add up to 0. No entropy
    # bonus, because TRL's is a mean over the tokens of a process. At 3e-3 Adam blows rounding up to 4e-4 of the loss.
    "sampled": [
        "--answers=sampled", "--num_generations=4", "--max_completion_length=16", "--entropy_coef=0",
        "--num_iterations=2", "--learning_rate=5e-4",
    ],
}  # fmt: skip
DDP = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
LORA = ["--use_peft", "--lora_r=4", "--lora_target_modules", "q_proj", "v_proj", "up_proj", "--lora_dropout=0"]


def warm_policy(folder, hidden_size=64, steps=100, template="compact"):
    args = JudgeArguments(
        n_train=200, n_test=1, prompt_template=template, policy_hidden_size=hidden_size, policy_num_layers=2,
        policy_vocab_size=512, warm_start_steps=steps, warm_start_batch_size=16, warm_start_learning_rate=8e-3,
    )  # fmt: skip
    run = JudgeGRPOConfig(str(folder), report_to="none", use_cpu=True, bf16=False, answer_step=0.25, disable_tqdm=True)
    return build_warm_policy(args, run, prepare_data(args, seed=0))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return warm_policy(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model_folders(tmp_path_factory, model_folder):
    """For sampled answers a policy that learned less: answers with unlike rewards, and a loss that differs from 0."""
    return {"exact": model_folder, "sampled": warm_policy(tmp_path_factory.mktemp("unsure"), steps=60)}


@pytest.fixture(scope="module")
def instructed_folder(tmp_path_factory):
    """A policy that answers under the full layout, so that sampled answers have unlike rewards."""
    return warm_policy(tmp_path_factory.mktemp("instructed"), template="full")


def launch(output_dir, *arguments, config=None, processes=2, nodes=1, mixed_precision="no"):
    """Runs the recipe on processes of one node or of two, or plainly on one with the same global batch."""
    script = recorded_command(output_dir, *arguments, processes=processes if config else 1)
    launcher = ["-u"]
    if config == "ddp":
        launcher = DDP
    elif config:
        port = free_port() if nodes > 1 else 0
        launcher = [
            *launcher_of(config, processes, port), f"--num_machines={nodes}", "--main_process_ip=127.0.0.1",
            f"--mixed_precision={mixed_precision}", "--machine_rank={}",
        ]  # fmt: skip
    commands = [[sys.executable, *(part.format(node) for part in launcher), *script] for node in range(nodes)]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for command in commands
    ]  # fmt: skip
    printed = [process.communicate(timeout=900)[0] for process in started]
    for process, output in zip(started, printed, strict=True):
        assert process.returncode == 0, output[-4000:]
    assert sum("report: " in output for output in printed) == 1, "one process reports"
    return Run(output_dir)


def recorded_command(output_dir, *arguments, processes):
    return [
        "tests/recipes/recorded_grpo.py", *BASE, *arguments, f"--output_dir={output_dir}",
        f"--per_device_train_batch_size={8 // processes}",
    ]  # fmt: skip


def launch_forked(output_dir, *arguments, config=None):
    """As `launch` on one node, without imports and launchers."""
    command, environment = recorded_command(output_dir, *arguments, processes=2 if config else 1), {}
    if config:
        with patch("accelerate.commands.launch.deepspeed_launcher") as launcher:
            launch_command(launch_command_parser().parse_args([*launcher_of(config)[2:], *command]))
        environment = prepare_deepspeed_cmd_env(*launcher.call_args.args)[1]
    done = run_forked(*command, processes=2 if config else 1, environment=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("report: ") == 1, "one process reports"
    return Run(output_dir)


def launcher_of(config, processes=2, port=0) -> list[str]:
    return [
        "-m", "accelerate.commands.launch", "--config_file", str(ROOT / "recipes" / "accelerate" / config),
        f"--num_processes={processes}", f"--main_process_port={port}",
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Run:
    def __init__(self, folder):
        self.folder = folder
        self.processes = [json.loads(file.read_text()) for file in sorted(folder.glob("recorded-*.json"))]
        self.curves = {name: np.array(curve) for name, curve in self.processes[0]["curves"].items()}
        self.metrics = json.loads((folder / "metrics.json").read_text())
        rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
        self.predictions = np.array([row["probability"] for row in rows]).reshape(-1, 2)


def differences(run, plain, relative_to) -> dict[str, float]:
    """The largest difference of every curve, relative to each of its values or to the largest."""
    found = {}
    for name, curve in plain.curves.items():
        size = np.abs(curve) if relative_to == "each" else np.abs(curve).max()
        found[name] = float((np.abs(run.curves[name] - curve) / size).max())
    return found


def assert_same_run(run, plain, steps, relative_to="each"):
    assert len(plain.curves["loss"]) == len(run.curves["loss"]) == steps
    assert np.ptp(plain.curves["loss"]) > 1e-3, "the loss must change for a difference to show"
    found = differences(run, plain, relative_to)
    print(run.folder.name, run.processes[0]["wrapper"], found)
    assert found["loss"] < 1e-4
    assert found["reward"] < 1e-4
    assert found["grad_norm"] < 1e-3
    for name, value in plain.metrics.items():
        if name != "training_seconds":
            assert run.metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name
    np.testing.assert_allclose(run.predictions, plain.predictions, atol=1e-4)
    # the saved judge gives the same probabilities in plain transformers
    judge = Judge.from_pretrained(str(run.folder), device="cpu")
    held_out = simulate_pairs(N_TEST, n_votes=10, seed=0, held_out=True).pairs
    np.testing.assert_allclose(judge.probabilities(held_out).mean, run.predictions, atol=1e-5)


@pytest.fixture(scope="module")
def votes_and_model(tmp_path_factory):
    """A pretrained toy model and votes on prompts with several responses."""
    folder = tmp_path_factory.mktemp("votes")
    tokenizer = make_tokenizer(chat=True)
    make_model("llama", len(tokenizer)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    pairs = [replace(p, true_probability=None) for p in simulate_pairs(73, n_votes=3, seed=0).pairs]
    write_pairs(pairs[:60], folder / "train.jsonl")
    write_pairs(pairs[60:], folder / "test.jsonl")
    return folder


def pointwise_command(folder, output_dir, *arguments):
    return [
        "tests/recipes/recorded_grpo.py", "--judgment=pointwise", f"--model_name_or_path={folder / 'model'}",
        f"--dataset_name={folder / 'train.jsonl'}", f"--eval_dataset_name={folder / 'test.jsonl'}", "--max_steps=4",
        "--batch_tokens=300", "--learning_rate=3e-3", "--logging_steps=1", "--save_strategy=no", "--report_to=none",
        "--seed=0", "--bf16=false", "--n_eval_pairs=0", "--use_cpu", "--gradient_checkpointing",
        f"--output_dir={output_dir}", *arguments,
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("peft", ["full", "lora"])
def test_pointwise_judges_on_two_processes_are_one_plain_run(tmp_path, votes_and_model, peft):
    """Plain data parallelism and ZeRO-2; the saved judge gives the same in `Judge` and in plain transformers."""
    launchers = {"plain": [], "ddp": DDP, "zero2": launcher_of("zero2_cpu.yaml")}
    runs = {}
    for name, launcher in launchers.items():
        accumulate = "--gradient_accumulation_steps=" + ("1" if launcher else "2")  # the same two batches a step
        script = pointwise_command(votes_and_model, tmp_path / name, accumulate, *(LORA if peft == "lora" else []))
        done = subprocess.run(
            [sys.executable, *launcher, *script], cwd=ROOT, capture_output=True, text=True, timeout=900,
            env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        runs[name] = Run(tmp_path / name)
    for name in ("ddp", "zero2"):
        assert len(runs[name].processes) == 2
        found = differences(runs[name], runs["plain"], "each")
        print(peft, name, found)
        assert found["loss"] < 1e-4
        np.testing.assert_allclose(runs[name].predictions, runs["plain"].predictions, atol=1e-4)

    judge = Judge.from_pretrained(str(tmp_path / "zero2"), device="cpu")
    held_out = load_pairs(str(votes_and_model / "test.jsonl"))
    np.testing.assert_allclose(judge.probabilities(held_out).mean, runs["zero2"].predictions, atol=1e-5)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "zero2").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "zero2")
    digits = [tokenizer(str(d), add_special_tokens=False)["input_ids"][-1] for d in range(10)]
    scores = []
    for prompt in judge.encoder.encode(held_out[:1])[0]:
        with torch.no_grad():
            logits = model(torch.tensor([prompt.ids])).logits
        probs = logits[0, -1].softmax(dim=-1)[digits]
        scores.append(float((probs * torch.arange(10)).sum() / probs.sum()))
    assert 1 / (1 + np.exp(scores[0] - scores[1])) == pytest.approx(runs["zero2"].predictions[0, 0], abs=1e-4)


@pytest.mark.slow
def test_a_format_warm_up_is_refused_on_a_sharded_model(tmp_path, votes_and_model):
    """Under ZeRO-3, in one line and before the evaluation."""
    done = subprocess.run(
        [
            sys.executable, *launcher_of("zero3_cpu.yaml"), "recipes/grpo.py", "--warm_start_steps=5",
            f"--model_name_or_path={votes_and_model / 'model'}", f"--dataset_name={votes_and_model / 'train.jsonl'}",
            f"--eval_dataset_name={votes_and_model / 'test.jsonl'}", "--prompt_template=compact", "--answer_step=0.1",
            "--max_steps=1", "--report_to=none", "--use_cpu", f"--output_dir={tmp_path}",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "a model that ZeRO-3 shards cannot be warm-started" in done.stderr
    assert not (tmp_path / "run.json").exists()


def test_zero3_is_one_plain_run(tmp_path, model_folder):
    """Forks with the environment of Accelerate's launcher in its place."""
    arguments = [f"--model_name_or_path={model_folder}", *KINDS["exact"], "--max_steps=4"]
    plain = launch_forked(tmp_path / "plain", *arguments)
    run = launch_forked(tmp_path / "zero3", *arguments, config="zero3_cpu.yaml")
    assert [p["wrapper"] for p in run.processes] == ["DeepSpeedEngine"] * 2
    assert_same_run(run, plain, 4)


@pytest.mark.slow
def test_a_judge_taught_before_zero2_is_one_plain_run(tmp_path, model_folder):
    """Both processes have the teacher of the first, divide each step of the teaching, and go on under ZeRO-2."""
    arguments = [
        f"--model_name_or_path={model_folder}", *KINDS["exact"], "--max_steps=4", "--warm_start_verdicts=probe",
        "--warm_start_steps=4", "--warm_start_batch_size=24", "--warm_start_learning_rate=1e-3",
    ]  # fmt: skip
    plain = launch(tmp_path / "plain", *arguments)
    assert_same_run(launch(tmp_path / "zero2", *arguments, config="zero2_cpu.yaml"), plain, 4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_beginning_on_two_processes(tmp_path, instructed_folder, kind):
    """The instructions of the full layout, read once a batch by two processes, and for every prompt by one."""
    arguments = [f"--model_name_or_path={instructed_folder}", *KINDS[kind], "--max_steps=4", "--prompt_template=full"]
    plain = launch(tmp_path / "plain", *arguments, "--shared_prefix=false")
    for config in ("ddp", "zero1_cpu.yaml", "zero2_cpu.yaml", "zero3_cpu.yaml"):
        run = launch(tmp_path / config, *arguments, config=config)
        assert [p["shares_beginnings"] for p in run.processes] == [True] * 2
        assert_same_run(run, plain, 4, relative_to="each" if kind == "exact" else "largest")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("peft", ["full", "lora"])
def test_sharded_runs_are_one_plain_run(tmp_path, model_folders, kind, peft):
    """Twenty steps with a reference model and gradient checkpointing, each stage against one plain process."""
    arguments = [
        f"--model_name_or_path={model_folders[kind]}", *KINDS[kind], *(LORA if peft == "lora" else []),
        "--max_steps=20", "--beta=0.05", "--gradient_checkpointing",
    ]  # fmt: skip
    plain = launch(tmp_path / "plain", *arguments)
    for config in ("zero1_cpu.yaml", "zero2_cpu.yaml", "zero3_cpu.yaml"):
        run = launch(tmp_path / config, *arguments, config=config)
        assert [p["wrapper"] for p in run.processes] == ["DeepSpeedEngine"] * 2
        # the loss of sampled answers crosses 0
        assert_same_run(run, plain, 20, relative_to="each" if kind == "exact" else "largest")


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
def test_zero3_halves_what_a_process_holds(tmp_path, bf16):
    """Parameters, gradients and optimizer states, on a model whose matrices are too large to be kept whole."""
    folder = warm_policy(tmp_path, hidden_size=384, steps=0)
    arguments = [f"--model_name_or_path={folder}", *KINDS["exact"], "--max_steps=2", f"--bf16={bf16}"]
    zero3 = {"config": "zero3_cpu.yaml", "mixed_precision": "bf16" if bf16 else "no"}
    held = {
        "plain": launch(tmp_path / "plain", *arguments),
        "one": launch(tmp_path / "one", *arguments, **zero3, processes=1),
        "two": launch(tmp_path / "two", *arguments, **zero3),
    }
    held = {name: max(p["bytes"] for p in run.processes) for name, run in held.items()}
    print(f"bf16 {bf16}: {held}")
    assert held["two"] <= 0.6 * held["one"]
    # in float32 DeepSpeed steps a second copy of the parameters: 20 bytes a parameter where a plain process has 16
    assert held["two"] <= (0.6 if bf16 else 0.65) * held["plain"]


@pytest.mark.slow
def test_two_nodes_are_one_plain_run(tmp_path, model_folder):
    """Two launchers that meet at an address, one process each."""
    arguments = [f"--model_name_or_path={model_folder}", *KINDS["exact"], "--max_steps=4"]
    plain = launch(tmp_path / "plain", *arguments)
    assert_same_run(launch(tmp_path / "nodes", *arguments, config="zero2_cpu.yaml", nodes=2), plain, 4)


@pytest.mark.slow
def test_a_sharded_judge_of_labels_is_measured_whole(tmp_path, model_folder):
    """`align.py` judges before DeepSpeed has an engine that could collect the parameters."""
    arguments = [
        "recipes/align.py", f"--model_name_or_path={model_folder}", "--n_train=60", f"--n_test={N_TEST}", "--use_cpu",
        "--prompt_template=compact", "--max_steps=1", "--save_strategy=no", "--report_to=none",
    ]  # fmt: skip
    before = []
    for name, launcher in {"plain": [], "zero3": launcher_of("zero3_cpu.yaml")}.items():
        command = [sys.executable, *launcher, *arguments, f"--output_dir={tmp_path / name}"]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr[-4000:]
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        before.append({key: value for key, value in metrics.items() if key.startswith("before/")})
    assert before[1] == pytest.approx(before[0], abs=1e-5)
