"""A recipe that is killed repeatedly and restarted with the same command, without repeated imports.

    python benchmarks/harness/interrupted.py recipes/grpo.py FOLDER '[["a", []], ["b", ["step 5", 1.3]]]' --max_steps 9

Libraries are imported once; every start is a fork. For each run, with output folder FOLDER/name, each start is killed
with SIGKILL at a moment: after a step of its training ("step 5"), or a number of seconds after its training has begun
(after its start, if negative). The last start runs to its end and must succeed.
"""

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import trl.trainer.grpo_trainer  # noqa: F401
from transformers.trainer_callback import CallbackHandler

import autorater.training.grpo
import autorater.training.run  # noqa: F401


def kill_after(step: int) -> None:
    """Lets this process kill itself after a step, before the checkpoint of that step."""
    on_step_end = CallbackHandler.on_step_end

    def killed(handler, args, state, control):
        if state.global_step == step:
            print(f"step {step}: killed", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return on_step_end(handler, args, state, control)

    CallbackHandler.on_step_end = killed


def start(recipe: str, arguments: list[str], step: int | None = None) -> int:
    child = os.fork()
    if child:
        return child
    if step is not None:
        kill_after(step)
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
        options, log = [*arguments, f"--output_dir={folder}/{name}"], Path(folder, name, "log.jsonl")
        for moment in moments:
            if isinstance(moment, str):
                os.waitpid(start(recipe, options, step=int(moment.removeprefix("step "))), 0)
                continue
            before, child = began(log), start(recipe, options)
            while moment >= 0 and began(log) == before and not has_ended(child):
                time.sleep(0.01)
            time.sleep(abs(moment))
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            print(f"{moment:.2f} s: {'killed' if os.WIFSIGNALED(status) else 'had ended'}", flush=True)
        _, status = os.waitpid(start(recipe, options), 0)
        if status:
            sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
