"""Recipes in processes of their own that import no libraries: forks of a process that has imported them once.

A test worker starts that process at its first recipe; it has one thread and takes one recipe at a time. As a script
this file is that process. A fork differs from `python recipes/grpo.py` in the time of its imports only: what is read
from the environment at import needs a process from scratch.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
_servers: list[subprocess.Popen] = []


def run_forked(recipe: str, *arguments: object) -> subprocess.CompletedProcess:
    """As `subprocess.run` of `python recipes/{recipe}.py`, from the root of the repository, with captured output."""
    if not _servers or _servers[-1].poll() is not None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        _servers.append(
            subprocess.Popen(
                [sys.executable, __file__], cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )  # fmt: skip
    server, command = _servers[-1], [f"recipes/{recipe}.py", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        task = {"argv": command, "outputs": list(map(str, outputs)), "environment": dict(os.environ)}
        print(json.dumps(task), file=server.stdin, flush=True)
        status = int(server.stdout.readline())
        return subprocess.CompletedProcess(command, status, *(path.read_text() for path in outputs))


def serve() -> None:
    """Forks for every line of stdin, and prints the status of each; the forks become the recipes."""
    import gc
    import runpy
    import signal

    import trl.trainer.grpo_trainer  # noqa: F401
    import wandb.sdk.launch  # noqa: F401  (which a run without an account imports)

    import autorater.report
    import autorater.training.grpo
    import autorater.training.run  # noqa: F401

    gc.freeze()  # neither collected nor copied by a fork
    for line in sys.stdin:  # noqa: B007
        child = os.fork()
        if not child:
            break
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    else:
        return
    signal.alarm(900)  # ends one that hangs
    task = json.loads(line)
    os.environ.clear()
    os.environ.update(task["environment"])
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    for number, path in enumerate(task["outputs"], 1):
        with open(path, "w") as file:
            os.dup2(file.fileno(), number)
    sys.argv, sys.path[0] = task["argv"], str(ROOT / "recipes")
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    serve()
