"""Recipes in processes of their own that import no libraries: forks of a process that has imported them once.

A test worker starts that process at its first recipe; it has one thread. As a script this file is that process. A fork
differs from `python recipes/grpo.py` in the time of its imports only: what is read from the environment at import
needs a process from scratch. Several forks of one run differ from those of torchrun in that nothing restarts them.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
_servers: list[subprocess.Popen] = []


def run_forked(
    recipe: str, *arguments: object, processes: int = 1, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess:
    """As `subprocess.run` of `python recipes/{recipe}.py`, from the root of the repository, with captured output.

    Args:
        recipe: Its name, or the path of another script.
        arguments: Of the command line.
        processes: Of one run, as torchrun starts them; the first that fails ends the others.
        environment: Variables to add.
    """
    command = [sys.executable, recipe if recipe.endswith(".py") else f"recipes/{recipe}.py", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/1", "w+") as out, open(f"{folder}/2", "w+") as err:
        added = [dict(environment or {})] if processes == 1 else list(_of_processes(processes, environment or {}))
        started = [Forked(command, stdout=out, stderr=err, env=os.environ | variables) for variables in added]
        statuses = [started[0].wait()] if processes == 1 else [None]
        while None in statuses and not any(statuses):
            time.sleep(0.05)
            statuses = [process.poll() for process in started]
        for process in started:
            process.send_signal(signal.SIGKILL)
            process.wait()
        status = next((status for status in statuses if status), 0)
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


def _of_processes(number: int, environment: Mapping[str, str]):
    """The variables that torchrun sets for each process of one node."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": number, "LOCAL_WORLD_SIZE": number}
    for rank in range(number):
        yield {**environment, **{k: str(v) for k, v in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}}


class Forked:
    """As `subprocess.Popen` of a command that starts with Python, from the root of the repository.

    Args:
        command: Python, a script and its arguments.
        stdout, stderr: Files with names, appended to; `subprocess.STDOUT` is that of `stdout`.
        env: Of the process; by default as here.
    """

    def __init__(self, command: Sequence[str], *, stdout, stderr, env: Mapping[str, str] | None = None, **_):
        outputs = [stdout.name, stdout.name if stderr == subprocess.STDOUT else stderr.name]
        task = {"argv": list(command[1:]), "outputs": outputs, "environment": dict(os.environ if env is None else env)}
        self.pid, self.returncode = _request(task), None

    def poll(self) -> int | None:
        return self._ended(wait=False)

    def wait(self, timeout: float | None = None) -> int:
        return self._ended(wait=True)

    def _ended(self, wait: bool) -> int | None:
        if self.returncode is None:
            self.returncode = _request({"pid": self.pid, "wait": wait})
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _request(task: dict) -> int | None:
    if not _servers or _servers[-1].poll() is not None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        _servers.append(
            subprocess.Popen(
                [sys.executable, __file__], cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )  # fmt: skip
    print(json.dumps(task), file=_servers[-1].stdin, flush=True)
    return json.loads(_servers[-1].stdout.readline())


def serve() -> None:
    """Answers every line of stdin: forks and prints the process, or prints the status of one; forks become recipes."""
    import gc
    import runpy

    import deepspeed  # noqa: F401  (which Accelerate imports)
    import trl.trainer.grpo_trainer  # noqa: F401
    import wandb.sdk.launch  # noqa: F401  (which a run without an account imports)

    import autorater.report
    import autorater.training.grpo
    import autorater.training.run  # noqa: F401

    gc.collect()
    gc.freeze()  # neither collected nor copied by a fork
    for line in sys.stdin:
        task = json.loads(line)
        if "pid" in task:
            pid, status = os.waitpid(task["pid"], 0 if task["wait"] else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif not (answer := os.fork()):
            break
        print(json.dumps(answer), flush=True)
    else:
        return
    signal.alarm(900)  # ends one that hangs
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by jobs in the background
    os.environ.clear()
    os.environ.update(task["environment"])
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, path in enumerate(task["outputs"], 1):
        with open(path, "a") as file:
            os.dup2(file.fileno(), number)
    if os.environ.get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
    sys.argv = task["argv"]
    sys.path[0] = str((ROOT / sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
