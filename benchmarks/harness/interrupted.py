"""A recipe that is killed again and again, and started again with the same command, without importing everything anew.

    python benchmarks/harness/interrupted.py recipes/grpo.py FOLDER '[["a", []], ["b", [0.8, 1.3]]]' --max_steps=60 …

Libraries are imported once; every start is a fork. Of each run, whose output folder is FOLDER/name, a start is killed
with SIGKILL so many seconds after its training has begun (after its start, where they are negative), and so on; the
last start is left alone, and has to end well.
"""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import transformers.trainer  # noqa: F401
import trl.trainer.grpo_trainer  # noqa: F401

import autorater.training.grpo
import autorater.training.run  # noqa: F401


def start(recipe: str, arguments: list[str]) -> int:
    child = os.fork()
    if child:
        return child
    sys.argv = [recipe, *arguments]
    status = 0
    try:
        runpy.run_path(recipe, run_name="__main__")
    except SystemExit as stopped:
        status = stopped.code or 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def began(log: Path) -> int:
    """A number that changes when a training begins: it opens its log."""
    return log.stat().st_mtime_ns if log.exists() else 0


def has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def main() -> None:
    recipe, folder, runs, *arguments = sys.argv[1:]
    for name, moments in json.loads(runs):
        told, log = [*arguments, f"--output_dir={folder}/{name}"], Path(folder, name, "log.jsonl")
        for moment in moments:
            before, child = began(log), start(recipe, told)
            while moment >= 0 and began(log) == before and not has_ended(child):
                time.sleep(0.01)
            time.sleep(abs(moment))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            print(f"{moment:.2f} s: {'killed' if os.WIFSIGNALED(status) else 'had ended'}", flush=True)
        _, status = os.waitpid(start(recipe, told), 0)
        if status:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
