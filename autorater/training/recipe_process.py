"""A recipe in a process of its own, which a signal stops after a checkpoint. Needs no torch.

    settings.yaml   its options
    log.txt         what it printed, of all starts

`RESUMABLE` recipes resume; their `run.json` says whether they are finished. `recipes/charm.py` has neither: it begins
again, uses the scores that it has, and writes `metrics.json` last.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import yaml

from autorater.data.atomic import write_text
from autorater.data.errors import UserError
from autorater.training.preemption import INTERRUPTED, TERMINATED, deferred_signals, exit_with

SETTINGS, LOG = "settings.yaml", "log.txt"
RESUMABLE = ("align", "grpo", "ppo", "sft")
_STOPPED = (INTERRUPTED, TERMINATED, -signal.SIGINT, -signal.SIGTERM)
_POLL_SECONDS = 0.2


def run_recipe(script: Path, options: Mapping[str, object]) -> None:
    """Executes a recipe in its `output_dir`, or resumes it, on the first GPU if there are several.

    SIGTERM, SIGUSR1 or Ctrl-C reaches the recipe, which saves a checkpoint; this process exits when it has ended.

    Raises:
        UserError: If the recipe failed; the message names its log.
    """
    folder = Path(str(options["output_dir"]))
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / SETTINGS, yaml.safe_dump(dict(options), sort_keys=False))
    command = [sys.executable, str(script), "--config", str(folder / SETTINGS)]
    command += ["--resume_from_checkpoint", "auto"] if script.stem in RESUMABLE else []
    one_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]  # a recipe refuses several in one process
    then = "stopping; training saves a checkpoint first"
    with (folder / LOG).open("a", encoding="utf-8") as log, deferred_signals(then) as received:
        recipe = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": one_gpu},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # workers ignore Ctrl-C
        )
        while recipe.poll() is None and received.name is None:
            time.sleep(_POLL_SECONDS)
        if received.name is not None:
            recipe.terminate()  # also after Ctrl-C: a second SIGINT would end it without a checkpoint
        status = recipe.wait()
    if received.name is not None or status in _STOPPED:
        exit_with("stopped; the same command resumes", received.status)
    if status:
        raise UserError(f"{script.name} failed with status {status}; see {log.name}")
