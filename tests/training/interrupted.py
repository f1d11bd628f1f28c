"""A recipe that is killed again and again and started again with the same command, without importing everything anew.

    python tests/training/interrupted.py recipes/grpo.py '[0.8, 1.3]' --output_dir=… --resume_from_checkpoint=auto

Libraries are imported once; every start is a fork. It is killed with SIGKILL after the seconds given, the last not.
"""

import json
import os
import runpy
import signal
import sys
import time

import torch  # noqa: F401
import transformers.trainer  # noqa: F401
import trl.trainer.grpo_trainer  # noqa: F401

import autorater.training.grpo
import autorater.training.run  # noqa: F401


def start(recipe: str, arguments: list[str]) -> int:
    child = os.fork()
    if child == 0:
        sys.argv = [recipe, *arguments]
        try:
            runpy.run_path(recipe, run_name="__main__")
        except SystemExit as stopped:
            code = stopped.code or 0
        else:
            code = 0
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return child


def main() -> None:
    recipe, seconds, *arguments = sys.argv[1:]
    for moment in json.loads(seconds):
        child = start(recipe, arguments)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        print(f"after {moment:.2f} s: {'killed' if os.WIFSIGNALED(status) else 'had ended'}", flush=True)
    _, status = os.waitpid(start(recipe, arguments), 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
