"""Weights & Biases that never stops a run: without a login or a connection it records offline, and says so.

While a run trains, W&B uploads from a process of its own, and what is logged is handed to that process by a thread of
ours (before it takes a table it asks the server something, and waits): a server that has gone away costs the training
nothing. What it did not take is in `output_dir/wandb` (`wandb sync` uploads it later), and `log.jsonl` has all that
was logged. Only at its end a run waits for uploads, and not for long. Where that process dies itself, the run goes on
without W&B and says so. A resumed run is the same run in W&B.
"""

import os
import warnings
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread

from transformers import Trainer, TrainingArguments
from transformers.integrations import WandbCallback

_CONNECT_SECONDS = 20
_UPLOAD_SECONDS = 15  # what is left at the end of a run; a server that is there needs two or three


def start_tracking(args: TrainingArguments, config: Mapping[str, object], run: str) -> None:
    """Starts the W&B run that the trainer's callback then finds; other trackers start by themselves.

    Args:
        args: Its `report_to` says whether W&B is wanted; offline records are kept in `output_dir/wandb`.
        config: What to show as the run's configuration.
        run: Name of the run, under which W&B goes on with it.
    """
    if "wandb" not in args.report_to or args.process_index != 0:
        return
    import wandb

    output_dir = args.output_dir

    os.environ.setdefault("WANDB_SILENT", "true")
    kwargs = {
        "project": os.environ.get("WANDB_PROJECT", "autorater"),
        "name": args.run_name,
        "dir": output_dir,
        "config": dict(config),
        "id": run,
        "resume": "allow",
    }
    mode = os.environ.get("WANDB_MODE")
    if mode is None and not wandb.login(prompt=False, verify=False):
        print(f"W&B: no login, recording offline in {output_dir}/wandb (`wandb sync` uploads it later)")
        mode = "offline"
    try:
        settings = wandb.Settings(init_timeout=_CONNECT_SECONDS, finish_timeout=_UPLOAD_SECONDS)
        wandb.init(mode=mode, settings=settings, **kwargs)
    except wandb.errors.Error as error:
        print(f"W&B: cannot be reached ({error}), recording offline in {output_dir}/wandb")
        wandb.init(mode="offline", **kwargs)


def forgive_tracker(trainer: Trainer) -> None:
    """From now on an error of W&B, in the callback or in TRL's tables, ends the tracking and not the training."""
    if trainer.pop_callback(WandbCallback):
        trainer.add_callback(_ForgivenWandbCallback)


class _ForgivenWandbCallback(WandbCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        self._forgiven(super().on_train_begin, args, state, control, **kwargs)
        if self._wandb is not None:
            self._log, self._waiting = self._wandb.log, SimpleQueue()
            self._wandb.log = lambda *what, **how: self._waiting.put((what, how))  # TRL calls it too
            self._hand_over = Thread(target=self._hand_over_waiting, name="W&B", daemon=True)
            self._hand_over.start()

    def on_log(self, args, state, control, **kwargs):
        self._forgiven(super().on_log, args, state, control, **kwargs)

    def on_save(self, args, state, control, **kwargs):
        self._forgiven(super().on_save, args, state, control, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        if self._wandb is not None:
            self._waiting.put(None)
            self._hand_over.join(_UPLOAD_SECONDS)
            if self._hand_over.is_alive():
                self._end(TimeoutError(f"it took nothing for {_UPLOAD_SECONDS} s"))
        if self._wandb is not None:
            self._wandb.log = self._log
        self._forgiven(super().on_train_end, args, state, control, **kwargs)

    def _hand_over_waiting(self) -> None:
        while (logged := self._waiting.get()) is not None:
            what, how = logged
            self._forgiven(self._log, *what, **how)

    def _forgiven(self, call: Callable, *args, **kwargs) -> None:
        if self._wandb is None:
            return
        try:
            call(*args, **kwargs)
        except Exception as error:
            self._end(error)

    def _end(self, error: Exception) -> None:
        if self._wandb is None:
            return
        warnings.warn(
            f"W&B: tracking has ended, the training goes on with log.jsonl ({type(error).__name__}: {error})",
            RuntimeWarning,
            stacklevel=3,
        )
        self._wandb.run = None  # TRL looks whether there is one
        self._wandb = None
