"""Runs that are killed, asked to leave, or cut off from their tracker end as if nothing had been."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.fake_wandb import FakeWandb

from autorater.training.checkpointing.checkpoints import check_checkpoint

ROOT = Path(__file__).parents[2]
TINY = [
    "--n_train=60", "--n_test=12", "--warm_start_steps=2", "--warm_start_batch_size=4",
    "--per_device_train_batch_size=4", "--policy_hidden_size=32", "--policy_num_layers=1", "--eval_steps=7",
    "--logging_steps=4", "--save_strategy=steps", "--save_total_limit=2", "--use_cpu",
]  # fmt: skip
AUTO = ["--resume_from_checkpoint=auto", "--report_to=none"]
SECONDS = {
    "training_seconds",
    "step_time",
    "train_runtime",
    "train_loss",
    "train_samples_per_second",
    "train_steps_per_second",
}
PLAIN = [sys.executable, "recipes/grpo.py"]
TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "recipes/grpo.py"]


def interrupted(folder, runs, *arguments, recipe="recipes/grpo.py"):
    done = subprocess.run(
        [
            sys.executable, "benchmarks/harness/interrupted.py", recipe, str(folder), json.dumps(runs), *TINY, *AUTO,
            *arguments,
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=1500, env=os.environ | {"PYTHONPATH": "."}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def left(folder):
    """What a run leaves, without what depends on the clock."""
    metrics = json.loads((folder / "metrics.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "weights": (folder / "model.safetensors").read_bytes(),
        "metrics": {name: value for name, value in metrics.items() if name not in SECONDS},
        "log": [{name: value for name, value in line.items() if name not in SECONDS} for line in log],
        "predictions": (folder / "predictions.jsonl").read_text(),
    }


def assert_same(wanted, got):
    for name in wanted:
        assert wanted[name] == got[name], name


def test_killed_twice_and_started_again(tmp_path):
    runs = [["whole", []], ["again", [0.5, 0.7]], ["again", []]]
    done = interrupted(tmp_path, runs, "--max_steps=20", "--save_steps=2")
    assert done.stdout.count("s: killed") == 2, done.stdout
    assert "resuming from" in done.stderr
    assert_same(left(tmp_path / "whole"), left(tmp_path / "again"))
    assert f"the run in {tmp_path / 'again'} is finished" in done.stdout, "and the third start left it as it was"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("recipes/grpo.py", []),
        (
            "recipes/grpo.py",
            [
                "--answers=sampled", "--symmetry_coef=0", "--num_generations=4", "--steps_per_generation=3",
                "--num_iterations=2", "--gradient_accumulation_steps=2",
            ],
        ),
        ("recipes/ppo.py", ["--steps_per_generation=3"]),
        ("recipes/sft.py", []),
        ("recipes/align.py", ["--n_train=30"]),
    ],
    ids=["exact", "sampled", "ppo", "sft", "align"],
)  # fmt: skip
def test_killed_at_ten_random_moments(tmp_path, recipe, options):
    steps = [*options, "--max_steps=60", "--save_steps=2"]
    draw = random.Random(options[0] if options else recipe)
    moments = [-draw.uniform(0.5, 1.5), *(draw.uniform(0.0, 2.5) for _ in range(9))]  # the first one before it trains
    draw.shuffle(moments)
    done = interrupted(tmp_path, [["whole", []], ["again", moments]], *steps, recipe=recipe)
    print(done.stdout, *re.findall(r"(?:resuming|not whole).*", done.stderr), sep="\n")
    assert_same(left(tmp_path / "whole"), left(tmp_path / "again"))


def until(log, text, process):
    """Waits for a line in the output of a process that is running."""
    deadline = time.monotonic() + 300
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def asked_to_leave(tmp_path, command, arguments, text):
    """Sends SIGTERM when a line was seen; the process, its output, and the seconds to the newest checkpoint."""
    log = tmp_path / "output.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*command, *TINY, *AUTO, *arguments, f"--output_dir={tmp_path}"], cwd=ROOT, stdout=file, stderr=file,
            env=os.environ | {"PYTHONPATH": "."},
        )  # fmt: skip
    until(log, text, process)
    sent = time.time()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=90)
    manifests = list(tmp_path.glob("checkpoint-*/manifest.json"))
    seconds = max((path.stat().st_mtime for path in manifests), default=0) - sent
    return process, log.read_text(), seconds


def test_sigterm_leaves_a_checkpoint_within_seconds(tmp_path):
    steps = ["--max_steps=500", "--save_steps=1000"]
    process, said, seconds = asked_to_leave(tmp_path, PLAIN, steps, "step 7:")
    assert process.returncode == 143
    assert 0 < seconds < 30
    assert "asked to leave (SIGTERM) behind step" in said
    assert "Traceback" not in said
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert check_checkpoint(checkpoint)["step"] >= 7


@pytest.mark.slow
@pytest.mark.parametrize("text", ["training pairs with", "over 1024 tokens"], ids=["warm start", "evaluation"])
def test_sigterm_before_the_training_leaves_at_once(tmp_path, text):
    process, said, _ = asked_to_leave(
        tmp_path, PLAIN, ["--warm_start_steps=50", "--n_test=500", "--max_steps=9"], text
    )
    assert process.returncode == 143
    assert "stopped by SIGTERM" in said
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.slow
def test_all_processes_leave_behind_the_same_step(tmp_path):
    """Each ends with status 143; torchrun itself, which has had a signal, with 1."""
    steps = ["--max_steps=500", "--save_steps=1000"]
    _, said, seconds = asked_to_leave(tmp_path, TWO, steps, "step 7:")
    assert 0 < seconds < 30
    assert said.count("asked to leave") == 1
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert {f"progress_{rank}.pt" for rank in (0, 1)} <= set(check_checkpoint(checkpoint)["files"])


@pytest.mark.slow
def test_killed_under_zero_2(tmp_path):
    """All processes of a run are killed, and a new launcher goes on with their shards."""
    launch = [
        "accelerate", "launch", "--config_file", "recipes/accelerate/zero2_cpu.yaml", "recipes/grpo.py", *TINY, *AUTO,
        "--max_steps=12", "--save_steps=3",
    ]  # fmt: skip

    def run(name, kill_behind=None):
        told = f"--output_dir={tmp_path / name}"
        process = subprocess.Popen(
            [*launch, told], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while kill_behind and not (tmp_path / name / kill_behind / "manifest.json").exists():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        if kill_behind:  # the launcher, and the processes in sessions of their own that it has started
            for told_to in Path("/proc").glob("[0-9]*/cmdline"):
                if told.encode() in told_to.read_bytes():
                    os.kill(int(told_to.parent.name), signal.SIGKILL)
        said, _ = process.communicate(timeout=600)
        return process.returncode, said

    assert run("whole")[0] == 0
    assert run("again", kill_behind="checkpoint-6")[0] == -signal.SIGKILL
    status, said = run("again")
    assert status == 0, said
    assert re.search(r"resuming from \S+checkpoint-[69]", said)
    assert_same(left(tmp_path / "whole"), left(tmp_path / "again"))


def kill_client(run_pid):
    """Kills W&B's own process beside a run."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        pid, _, name, _, parent = re.match(r"(\d+) (\()(.*)\) (\S+) (\d+)", status.read_text()).groups()
        if name.startswith("wandb-core") and int(parent) == run_pid:
            os.kill(int(pid), signal.SIGKILL)
            return
    raise AssertionError("there is no wandb-core")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["server falls silent", "client dies"])
def test_a_tracker_that_goes_away_loses_nothing_and_holds_up_nothing(tmp_path, fault):
    """W&B's own client against a server that answers, and then takes connections and says nothing more."""
    with FakeWandb() as server:
        arguments = [*TINY, "--max_steps=30", "--save_steps=100", f"--output_dir={tmp_path}", "--report_to=wandb"]
        process = subprocess.Popen(
            [*PLAIN, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={k: v for k, v in os.environ.items() if k != "WANDB_MODE"} | {"PYTHONPATH": "."} | server.env,
        )  # fmt: skip
        while not (tmp_path / "log.jsonl").exists() or "eval_brier" not in (tmp_path / "log.jsonl").read_text():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        if fault == "client dies":
            kill_client(process.pid)
        server.silent.set()
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    if fault == "client dies":
        assert "W&B: tracking has ended, the training goes on" in said
    else:
        assert server.seen_silent, "the client had tried"
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "reward" in line] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert [line["step"] for line in log if "eval_brier" in line] == [7, 14, 21, 28]
    assert (tmp_path / "metrics.json").exists()
    run = json.loads((tmp_path / "run.json").read_text())["run"]
    assert list((tmp_path / "wandb").glob(f"run-*-{run}/*.wandb")), "`wandb sync` has all of it"
