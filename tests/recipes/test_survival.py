"""Runs that are killed, stopped by a signal or cut off from their tracker give the same results when resumed."""

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
from tests.recipes.forked import Forked, run_forked

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
    done = run_forked("benchmarks/harness/interrupted.py", recipe, folder, json.dumps(runs), *TINY, *AUTO, *arguments)
    assert done.returncode == 0, done.stderr
    return done


def results(folder):
    """The results of a run, without times."""
    metrics = json.loads((folder / "metrics.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "weights": (folder / "model.safetensors").read_bytes(),
        "metrics": {name: value for name, value in metrics.items() if name not in SECONDS},
        "log": [{name: value for name, value in line.items() if name not in SECONDS} for line in log],
        "predictions": (folder / "predictions.jsonl").read_text(),
    }


def assert_same(expected, got):
    for name in expected:
        assert expected[name] == got[name], name


def test_killed_twice_and_started_again(tmp_path):
    runs = [["whole", []], ["again", ["step 5", "step 12"]], ["again", []]]
    done = interrupted(tmp_path, runs, "--max_steps=20", "--save_steps=2")
    resumed = [f"resuming from {tmp_path / 'again' / f'checkpoint-{step}'}" for step in (4, 10)]
    moments = [done.stdout.index(text) for text in ("step 5: killed", resumed[0], "step 12: killed", resumed[1])]
    assert moments == sorted(moments)
    assert_same(results(tmp_path / "whole"), results(tmp_path / "again"))
    assert f"the run in {tmp_path / 'again'} is finished" in done.stdout, "the third start changes nothing"


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
    moments = [-draw.uniform(0.5, 1.5), *(draw.uniform(0.0, 2.5) for _ in range(9))]  # the first one before training
    draw.shuffle(moments)
    done = interrupted(tmp_path, [["whole", []], ["again", moments]], *steps, recipe=recipe)
    print(done.stdout, *re.findall(r"checkpoint skipped.*", done.stderr), sep="\n")
    assert_same(results(tmp_path / "whole"), results(tmp_path / "again"))


def until(log, text, process):
    """Waits for a text in the output of a running process."""
    deadline = time.monotonic() + 900
    while text not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def stop(tmp_path, command, arguments, text, number=signal.SIGTERM):
    """Sends a signal after a text was printed; returns the ended process and its output."""
    log = tmp_path / "output.txt"
    start = Forked if command is PLAIN else subprocess.Popen
    with log.open("w") as file:
        process = start(
            [*command, *TINY, *AUTO, *arguments, f"--output_dir={tmp_path}"], cwd=ROOT, stdout=file, stderr=file,
            env=os.environ | {"PYTHONPATH": ".", "PYTHONUNBUFFERED": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored by jobs in the background
        )  # fmt: skip
    until(log, text, process)
    process.send_signal(number)
    process.wait(timeout=900)
    return process, log.read_text()


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_a_long_training_with_a_checkpoint(tmp_path, name, status):
    steps = ["--max_steps=100000", "--save_steps=100000"]  # hours
    process, output = stop(tmp_path, PLAIN, steps, "step 7:", getattr(signal, name))
    assert process.returncode == status
    assert f"stopped ({name}) after step" in output
    assert "Traceback" not in output
    assert "\r" not in output, "no progress bars without a terminal"
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert check_checkpoint(checkpoint)["step"] >= 7


@pytest.mark.slow
@pytest.mark.parametrize("text", ["training pairs with", "more than 1,024 tokens"], ids=["warm start", "evaluation"])
@pytest.mark.parametrize(
    ("name", "status", "message"), [("SIGTERM", 143, "stopped by SIGTERM"), ("SIGINT", 130, "interrupted")]
)
def test_a_signal_before_the_training_ends_the_run_at_once(tmp_path, text, name, status, message):
    arguments = ["--warm_start_steps=50", "--n_test=500", "--max_steps=9"]
    process, output = stop(tmp_path, PLAIN, arguments, text, getattr(signal, name))
    assert process.returncode == status
    assert message in output
    assert "Traceback" not in output
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_all_processes_stop_after_the_same_step(tmp_path, name):
    """torchrun forwards the signal, and ends with status 1 itself."""
    steps = ["--max_steps=100000", "--save_steps=100000"]  # hours
    _, output = stop(tmp_path, TWO, steps, "step 7:", getattr(signal, name))
    assert output.count(f"stopped ({name})") == 1
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert {f"progress_{rank}.pt" for rank in (0, 1)} <= set(check_checkpoint(checkpoint)["files"])


@pytest.mark.slow
def test_a_finished_run_continues_with_more_steps(tmp_path):
    """With a constant learning rate it is the same as a run of that length."""
    options = ["--lr_scheduler_type=constant", "--warmup_steps=0", "--save_steps=3", "--save_total_limit=9"]
    interrupted(tmp_path, [["whole", []]], *options, "--max_steps=8")
    interrupted(tmp_path, [["again", []]], *options, "--max_steps=4")
    done = interrupted(tmp_path, [["again", []], ["again", []]], *options, "--max_steps=8")
    assert f"resuming from {tmp_path / 'again' / 'checkpoint-4'}" in done.stdout
    assert f"the run in {tmp_path / 'again'} is finished" in done.stdout
    expected, got = results(tmp_path / "whole"), results(tmp_path / "again")
    assert_same({name: expected[name] for name in ("weights", "metrics", "predictions")}, got)


@pytest.mark.slow
def test_killed_under_zero_2(tmp_path):
    """All processes of a run are killed, and a new launcher resumes from their shards."""
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", "recipes/accelerate/zero2_cpu.yaml",
        "recipes/grpo.py", *TINY, *AUTO, "--max_steps=12", "--save_steps=3",
    ]  # fmt: skip

    def run(name, kill_after=None):
        option = f"--output_dir={tmp_path / name}"
        process = subprocess.Popen(
            [*launch, option], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while kill_after and not (tmp_path / name / kill_after / "manifest.json").exists():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        if kill_after:  # the launcher, and the processes in sessions of their own that it has started
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                if option.encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    assert run("whole")[0] == 0
    assert run("again", kill_after="checkpoint-6")[0] == -signal.SIGKILL
    status, output = run("again")
    assert status == 0, output
    assert re.search(r"resuming from \S+checkpoint-[69]", output)
    assert_same(results(tmp_path / "whole"), results(tmp_path / "again"))


def kill_client(run_pid):
    """Kills the client process of W&B that a run has started."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        pid, _, name, _, parent = re.match(r"(\d+) (\()(.*)\) (\S+) (\d+)", status.read_text()).groups()
        if name.startswith("wandb-core") and int(parent) == run_pid:
            os.kill(int(pid), signal.SIGKILL)
            return
    raise AssertionError("there is no wandb-core")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["server stops responding", "client dies"])
def test_a_tracker_that_fails_loses_and_delays_nothing(tmp_path, fault):
    """W&B's own client with a server that responds at first and then only accepts connections."""
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
        output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    if fault == "client dies":
        assert "W&B: tracking has ended, the training continues" in output
    else:
        assert server.seen_silent, "the client had tried"
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log if "reward" in line] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert [line["step"] for line in log if "eval_brier" in line] == [7, 14, 21, 28]
    assert (tmp_path / "metrics.json").exists()
    run = json.loads((tmp_path / "run.json").read_text())["run"]
    assert list((tmp_path / "wandb").glob(f"run-*-{run}/*.wandb")), "`wandb sync` has all of it"
