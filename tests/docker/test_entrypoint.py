"""The container's entrypoint: which accelerate config and command line it chooses, its mistakes, and its signals."""

import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGS = ("single", "zero2", "zero2_cpu", "zero3")


@pytest.fixture
def start(tmp_path):
    """Starts the entrypoint in a tree like the image's; `python` counts GPUs, `accelerate` tells its arguments."""
    app, programs = tmp_path / "app", tmp_path / "bin"
    (app / "docker").mkdir(parents=True)
    (app / "recipes" / "accelerate").mkdir(parents=True)
    shutil.copy(ROOT / "docker" / "entrypoint.sh", app / "docker")
    for name in CONFIGS:
        (app / "recipes" / "accelerate" / f"{name}.yaml").touch()
    programs.mkdir()
    add_program(programs / "accelerate", 'printf "%s\\n" "$@"; exit "${STATUS:-0}"')
    add_program(programs / "python", 'if [ "$1" = -c ]; then echo "${GPUS:-0}"; else printf "%s\\n" python "$@"; fi')

    def start(*arguments, replace=None, **environment):
        for name, body in (replace or {}).items():
            add_program(programs / name, body)
        return subprocess.Popen(
            [app / "docker" / "entrypoint.sh", *arguments],
            env={"PATH": f"{programs}:{os.environ['PATH']}", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a suite that runs in the background ignores SIGINT, and what is ignored from the start bash cannot trap
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    return start


def add_program(path: Path, body: str) -> None:
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def finish(process) -> tuple[int, list[str], str]:
    output, errors = process.communicate(timeout=300)
    return process.returncode, output.splitlines(), errors


def flags(output: list[str]) -> dict[str, str]:
    """The arguments of `accelerate launch` in front of the recipe."""
    recipe = next(i for i, argument in enumerate(output) if argument.endswith(".py"))
    assert output[:2] == ["launch", "--quiet"]
    return dict(zip(output[2:recipe:2], output[3:recipe:2], strict=True))


@pytest.mark.parametrize(
    ("environment", "config", "processes"),
    [
        ({}, "single", 1),
        ({"GPUS": "1"}, "single", 1),
        ({"GPUS": "8"}, "zero2", 8),
        ({"NPROC_PER_NODE": "2"}, "zero2_cpu", 2),
        ({"GPUS": "8", "NPROC_PER_NODE": "4"}, "zero2", 4),
        ({"GPUS": "8", "ACCELERATE_CONFIG": "zero3"}, "zero3", 8),
        ({"GPUS": "1", "ACCELERATE_CONFIG": "zero3.yaml"}, "zero3", 1),
    ],
)
def test_config_follows_from_the_visible_gpus(start, environment, config, processes):
    status, output, errors = finish(start("train", "--max_steps", "3", **environment))
    assert status == 0, errors
    launched = flags(output)
    assert Path(launched["--config_file"]).name == f"{config}.yaml"
    assert launched["--num_processes"] == str(processes)
    assert launched["--num_machines"] == "1"
    assert launched["--machine_rank"] == "0"
    assert launched["--deepspeed_multinode_launcher"] == "standard"  # others need ssh and a file with the environment
    assert launched["--main_process_port"] == "0"  # any free one: containers may share the host's network
    assert Path(output[-3]).parts[-2:] == ("recipes", "grpo.py")
    assert output[-2:] == ["--max_steps", "3"]


@pytest.mark.parametrize(("visible", "first"), [({}, "0"), ({"CUDA_VISIBLE_DEVICES": "5,6"}, "5")])
def test_one_process_sees_one_gpu(start, visible, first):
    tell = 'printf "%s\n" "$CUDA_VISIBLE_DEVICES"'
    status, output, _ = finish(start("train", replace={"accelerate": tell}, GPUS="8", NPROC_PER_NODE="1", **visible))
    assert (status, output) == (0, [first])


def test_more_processes_than_gpus_are_refused(start):
    status, _, errors = finish(start("train", GPUS="2", NPROC_PER_NODE="4"))
    assert (status, "NPROC_PER_NODE=4, but 2 GPU(s) are visible" in errors) == (2, True)


def test_several_nodes(start):
    nodes = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node-0", "MASTER_PORT": "3000", "GPUS": "4"}
    status, output, errors = finish(start("sft", **nodes))
    assert status == 0, errors
    launched = flags(output)
    assert Path(launched["--config_file"]).name == "zero2.yaml"
    assert launched["--num_processes"] == "8"  # of all nodes
    assert (launched["--num_machines"], launched["--machine_rank"]) == ("2", "1")
    assert (launched["--main_process_ip"], launched["--main_process_port"]) == ("node-0", "3000")


def test_one_process_a_node_on_cpus(start):
    status, output, _ = finish(start("train", NNODES="2", NODE_RANK="0", MASTER_ADDR="node-0"))
    assert status == 0
    launched = flags(output)
    assert (Path(launched["--config_file"]).name, launched["--num_processes"]) == ("zero2_cpu.yaml", "2")
    assert launched["--main_process_port"] == "29500"


def test_a_config_of_ones_own(start, tmp_path):
    config = tmp_path / "mine.yaml"
    config.touch()
    status, output, _ = finish(start("train", ACCELERATE_CONFIG=str(config)))
    assert status == 0
    assert flags(output)["--config_file"] == str(config)


@pytest.mark.parametrize(("command", "recipe"), [("audit", "audit_position_bias"), ("evaluate", "evaluate")])
def test_measuring_takes_one_process_and_no_launcher(start, command, recipe):
    python = 'printf "%s\\n" python "$@"; exit 3'
    several = {"GPUS": "8", "NNODES": "2", "ACCELERATE_CONFIG": "zero3"}
    status, output, _ = finish(start(command, "--judge", "recorded:a b.jsonl", replace={"python": python}, **several))
    assert status == 3, "the launcher would make it 1"
    assert output[0] == "python"
    assert output[1].endswith(f"recipes/{recipe}.py")
    assert output[2:] == ["--judge", "recorded:a b.jsonl"]


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",)])
def test_usage(start, arguments):
    status, output, _ = finish(start(*arguments))
    assert status == 0
    assert output[0].startswith("usage: ")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (("trian",), {}, "unknown command 'trian'"),
        (("train",), {"NNODES": "two"}, "NNODES must be a whole number from 1, got 'two'"),
        (("train",), {"NPROC_PER_NODE": "0"}, "NPROC_PER_NODE must be a whole number from 1, got '0'"),
        (("train",), {"NNODES": "2"}, "NNODES=2 needs NODE_RANK and MASTER_ADDR"),
        (("train",), {"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a"}, "NODE_RANK must be below NNODES=2, got 2"),
        (("train",), {"ACCELERATE_CONFIG": "zero4"}, "no accelerate config 'zero4'"),
    ],
)
def test_mistakes_end_in_one_line_and_status_2(start, arguments, environment, message):
    status, output, errors = finish(start(*arguments, **environment))
    assert (status, output) == (2, [])
    assert errors.startswith(f"error: {message}")
    assert errors.count("\n") == 1


def test_training_without_torch_names_the_other_image(tmp_path):
    done = subprocess.run(
        [ROOT / "docker" / "entrypoint.sh", "train"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "'train' needs the image built with --target train" in done.stderr


def test_the_launchers_status_is_the_containers(start):
    assert finish(start("train", STATUS="7"))[0] == 7


LAUNCHER = """
trap 'echo launcher was signalled; exit 9' TERM USR1   # torchrun would kill its children 30 s later
bash -c 'trap "echo saved; exit 143" TERM; echo ready; while :; do sleep 0.05; done' &
while kill -0 $! 2>/dev/null; do wait $!; done
exit 1
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_reaches_the_training_and_not_the_launcher(start, number):
    process = start("train", replace={"accelerate": LAUNCHER})
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    status, output, _ = finish(process)
    assert (status, output) == (143, ["saved"])


def test_a_signal_of_the_scheduler_to_all_leaves_the_launcher_alone(start):
    process = start("train", replace={"accelerate": "echo $$\n" + LAUNCHER})
    launcher = int(process.stdout.readline())
    assert process.stdout.readline() == "ready\n"
    os.kill(launcher, signal.SIGUSR1)
    process.send_signal(signal.SIGUSR1)
    assert finish(process)[:2] == (143, ["saved"])


def test_a_training_that_ends_well_after_a_signal_has_status_0(start):
    process = start("train", replace={"accelerate": LAUNCHER.replace("exit 143", "exit 0").replace("exit 1\n", "")})
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert finish(process)[:2] == (0, ["saved"])


def test_a_launcher_without_children_is_signalled_itself(start):
    process = start("train", replace={"accelerate": "echo ready; exec sleep 600"})
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert finish(process)[0] == 143
