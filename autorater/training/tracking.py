"""Experiment trackers, and Weights & Biases in a way that never stops or slows a run.

Without a login or a connection W&B records offline. During training another thread passes the logged values on,
because W&B's client waits for its server before it accepts a table; so an unreachable server costs no training time.
`output_dir/wandb` keeps what was not uploaded (`wandb sync` uploads it), and `log.jsonl` has all logged values. At the
end a run waits a short time for uploads. If W&B's client process ends, the run continues without W&B, with a warning.
"""

import logging
import os
import warnings
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread

from transformers import Trainer, TrainingArguments
from transformers.integrations import WandbCallback
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from autorater.data.errors import UserError

_CONNECT_SECONDS = 20
_UPLOAD_SECONDS = 15  # for the rest at the end of a run; a reachable server needs two or three
logger = logging.getLogger(__name__)


def check_trackers(args: TrainingArguments) -> None:
    """Raises UserError if a tracker of `report_to` is unknown or not installed."""
    installed = {*get_available_reporting_integrations(), "azure_ml", "flyte"}  # it does not check these two
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(f"report_to: got {name!r}; expected none or one of {', '.join(INTEGRATION_TO_CALLBACK)}")
        if name not in installed:
            raise UserError(f"report_to: {name} is not installed")


def start_tracking(args: TrainingArguments, config: Mapping[str, object], run: str) -> None:
    """Starts the W&B run, with the id `run` also when it is resumed, that the trainer's callback uses."""
    if "wandb" not in args.report_to or args.process_index != 0:
        return
    import wandb

    output_dir = args.output_dir
    os.environ.setdefault("WANDB_SILENT", "true")
    project = os.environ.get("WANDB_PROJECT", "autorater")
    kwargs = {"project": project, "name": args.run_name, "dir": output_dir, "config": dict(config)}
    kwargs |= {"id": run, "resume": "allow"}
    mode = os.environ.get("WANDB_MODE")
    if mode is None and not wandb.login(prompt=False, verify=False):
        logger.info(f"W&B: no login, recording offline in {output_dir}/wandb (`wandb sync` uploads it later)")
        mode = "offline"
    try:
        settings = wandb.Settings(init_timeout=_CONNECT_SECONDS, finish_timeout=_UPLOAD_SECONDS)
        wandb.init(mode=mode, settings=settings, **kwargs)
    except wandb.errors.Error as error:
        logger.warning(f"W&B: cannot be reached ({error}), recording offline in {output_dir}/wandb")
        wandb.init(mode="offline", **kwargs)


def tolerate_tracker_errors(trainer: Trainer) -> None:
    """Lets an error of W&B, in the callback or in TRL's tables, end the tracking instead of the training."""
    if trainer.pop_callback(WandbCallback):
        trainer.add_callback(_TolerantWandbCallback)


class _TolerantWandbCallback(WandbCallback):
    def on_train_begin(self, args, state, control, **kwargs):
        self._try(super().on_train_begin, args, state, control, **kwargs)
        if self._wandb is not None:
            self._log, self._queue = self._wandb.log, SimpleQueue()
            self._wandb.log = lambda *values, **options: self._queue.put((values, options))  # TRL calls it too
            self._thread = Thread(target=self._pass_on, name="W&B", daemon=True)
            self._thread.start()

    def on_log(self, args, state, control, **kwargs):
        self._try(super().on_log, args, state, control, **kwargs)

    def on_save(self, args, state, control, **kwargs):
        self._try(super().on_save, args, state, control, **kwargs)

    def on_train_end(self, args, state, control, **kwargs):
        if self._wandb is not None:
            self._queue.put(None)
            self._thread.join(_UPLOAD_SECONDS)
            if self._thread.is_alive():
                self._end(TimeoutError(f"no response for {_UPLOAD_SECONDS} s"))
        if self._wandb is not None:
            self._wandb.log = self._log
        self._try(super().on_train_end, args, state, control, **kwargs)

    def _pass_on(self) -> None:
        while (logged := self._queue.get()) is not None:
            values, options = logged
            self._try(self._log, *values, **options)

    def _try(self, call: Callable, *args, **kwargs) -> None:
        if self._wandb is None:
            return
        try:
            call(*args, **kwargs)
        except Exception as error:  # any error of a tracker
            self._end(error)

    def _end(self, error: Exception) -> None:
        if self._wandb is None:
            return
        warnings.warn(
            f"W&B: tracking has ended, the training continues with log.jsonl ({type(error).__name__}: {error})",
            RuntimeWarning,
            stacklevel=3,
        )
        self._wandb.run = None  # TRL checks whether there is one
        self._wandb = None
