"""A recipe that is killed again and again, and started again with the same command, without importing everything anew.

    python tests/recipes/interrupted.py recipes/grpo.py OUTPUT_DIR '[0.8, 1.3]' --resume_from_checkpoint=auto …

Libraries are imported once; every start is a fork. It is killed with SIGKILL so many seconds after its training has
begun (after its start, where they are negative); the last start is left alone, and its exit status is this script's.
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


def main() -> None:
    recipe, output_dir, moments, *arguments = sys.argv[1:]
    arguments.append(f"--output_dir={output_dir}")
    log = Path(output_dir, "log.jsonl")
    for moment in json.loads(moments):
        before = began(log)
        child = start(recipe, arguments)
        while moment >= 0 and began(log) == before and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.01)
        time.sleep(abs(moment))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(f"{moment:.2f} s: {'killed' if os.WIFSIGNALED(status) else 'had ended'}", flush=True)
    _, status = os.waitpid(start(recipe, arguments), 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
