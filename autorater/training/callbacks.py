"""Trainer callbacks: evaluation on held-out pairs, progress, the log file, graceful shutdown."""

import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import reduce
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from autorater.data.atomic import write_text
from autorater.data.pairs import Pair
from autorater.evaluation.judge import evaluate
from autorater.judges import Judge
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.checkpointing.checkpoints import writes_to
from autorater.training.compatibility import RLOO, SAMPLED
from autorater.training.precision import evaluation_precision
from autorater.training.preemption import INTERRUPTED, TERMINATED, ReceivedSignal

_EVALUATION_METRICS = (
    "brier", "log_loss", "ece", "mse_dense", "excess_brier", "agreement", "symmetry_deviation_abs", "parse_rate",
)  # fmt: skip
_SHOWN = {  # metrics of a progress line: name in the log, label and format
    "loss": ("loss", ".4f"),
    "reward": ("reward", ".4f"),
    "answers/parse_rate": ("parse rate", ".3f"),
    "answers/parsed_reward": ("reward if parsed", ".4f"),
    "learning_rate": ("learning rate", ".2e"),
}
_PATIENCE = 3  # logged steps without a gradient
_LINE_SECONDS = 10.0  # least time between two lines with metrics
_SILENT_SECONDS = 30.0  # most time without a line, if steps are logged less often
logger = logging.getLogger(__name__)


class CalibrationCallback(TrainerCallback):
    """Evaluates a judge on `n_pairs` of the held-out pairs every `eval_steps` steps and logs metrics as `eval_…`.

    The pairs are spread evenly, because a file may be sorted. `trainer.log` passes the metrics to the trackers.
    """

    def __init__(
        self,
        trainer: Trainer,
        judge: Judge,
        pairs: Sequence[Pair],
        prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]],
        n_pairs: int,
    ):
        self.trainer, self.judge = trainer, judge
        chosen = np.linspace(0, len(pairs), min(n_pairs, len(pairs)), endpoint=False).astype(int)
        self.pairs, self.prompts = [pairs[i] for i in chosen], [prompts[i] for i in chosen]

    def on_step_end(self, args, state, control, model=None, **kwargs):
        at_end = state.global_step == state.max_steps
        if not self.pairs or not args.eval_steps or state.global_step % state.eval_steps or at_end:
            return
        with evaluation_precision(args):
            metrics = evaluate(self.judge, self.pairs, self.prompts, n_bootstrap=0).metrics
        was_training, should_log = model.training, control.should_log
        model.eval()  # GRPOTrainer.log adds the training metrics to anything logged in training mode
        self.trainer.log({f"eval_{name}": metrics[name] for name in _EVALUATION_METRICS if name in metrics})
        model.train(was_training)
        control.should_log = should_log  # log() cleared it, and the training metrics of this step would be lost


class BarCallback(ProgressCallback):
    """A progress bar with the reward beside it, and a line for every evaluation."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        if "reward" in logs:
            self.training_bar.set_postfix_str(f"reward {logs['reward']:.4f}", refresh=False)
        if line := _evaluation_line(logs):
            self.training_bar.write(f"  step {state.global_step}: {line}")


class LinesCallback(TrainerCallback):
    """Progress without a terminal: a line every few seconds, for every evaluation and at the end."""

    def __init__(self, title: str = ""):
        self.title = f"{title}: " if title else ""
        self._unwritten: dict[str, float] = {}
        self._last_step, self._last_time = 0, time.monotonic()
        self._last_metrics_time = self._last_time

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        if line := _evaluation_line(logs):
            logger.info(f"{self.title}step {state.global_step}: {line}")
        elif shown := {name: logs[name] for name in _SHOWN if name in logs}:
            self._unwritten = shown
            if time.monotonic() - self._last_metrics_time >= _LINE_SECONDS:
                self._write(state)

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_log:  # on_log is next, with the metrics of this step
            return
        if state.is_world_process_zero and time.monotonic() - self._last_time >= _SILENT_SECONDS:
            self._unwritten = {}  # those of an earlier step
            self._write(state)

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero and (self._unwritten or self._last_step != state.global_step):
            self._write(state)

    def _write(self, state) -> None:
        metrics = [f"{_SHOWN[name][0]} {value:{_SHOWN[name][1]}}" for name, value in self._unwritten.items()]
        logger.info("  ".join([f"{self.title}step {state.global_step}/{state.max_steps}", *metrics]))
        self._last_step, self._last_time = state.global_step, time.monotonic()
        if self._unwritten:
            self._unwritten, self._last_metrics_time = {}, self._last_time


def _evaluation_line(logs: dict) -> str:
    metrics = {name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")}
    return "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def show_progress(trainer: Trainer, title: str = "") -> None:
    """Replaces a trainer's progress output by a bar, or, without a terminal or with `disable_tqdm`, by lines.

    Each line begins with the `title`.
    """
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    bar = sys.stderr.isatty() and not trainer.args.disable_tqdm
    trainer.add_callback(BarCallback() if bar else LinesCallback(title))


class LogFileCallback(TrainerCallback):
    """Writes everything that is logged to a JSONL file, one line per call, with the step.

    A resumed run removes lines that were logged after the step that it resumes from.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._warned = False

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        kept = [line for line in lines if _logged_until(line, state.global_step)]
        if len(kept) < len(lines):
            with writes_to(self.path.parent):
                write_text(self.path, "".join(kept))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        # JSON has no NaN
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in logs.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **record}) + "\n")
        except OSError as error:
            if not self._warned:
                warnings.warn(f"{self.path} cannot be written, lines are lost: {error}", RuntimeWarning, stacklevel=1)
            self._warned = True


def _logged_until(line: str, step: int) -> bool:
    """Whether a line is complete and was logged up to a step of an unfinished training."""
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return step > 0 and record["step"] <= step and "train_runtime" not in record


class NoGradientCallback(TrainerCallback):
    """Warns once if no gradient of the reward flows, in three logged steps in a row.

    The gradient norm is 0, or all sampled answers of every group have the same reward: an entropy bonus and a KL term
    then still have a gradient, and nothing is learned from the votes.
    """

    def __init__(self):
        self._n_zero = 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "grad_norm" not in (logs or {}) or self._n_zero >= _PATIENCE:
            return
        in_groups = getattr(args, "mode", "") in (SAMPLED, RLOO)  # others have a value head, or learn V(c)
        without_reward = logs["grad_norm"] == 0 or (in_groups and logs.get("frac_reward_zero_std") == 1)
        self._n_zero = self._n_zero + 1 if without_reward else 0
        if self._n_zero == _PATIENCE and state.is_world_process_zero:
            parse_rate = logs.get("answers/parse_rate")
            parsed = "" if parse_rate is None else f"; the parse rate is {parse_rate:.3g}"
            logger.warning(
                f"step {state.global_step}: no gradient of the reward in the last {_PATIENCE} logged steps, so "
                f"nothing is learned from the votes{parsed}. All answers of a group have the same reward, or the "
                "parameters are frozen"
            )


class PreemptionCallback(TrainerCallback):
    """Once any process has received a signal, all save a checkpoint after the same step and end the training.

    `status` is then the exit status of the run, the same on all processes; otherwise it is None.
    """

    def __init__(self, received: ReceivedSignal):
        self.received, self.status = received, None

    def on_step_end(self, args, state, control, **kwargs):
        names = self.received.name is not None, self.received.name == "SIGINT"
        received, interrupted = reduce(torch.tensor(names, dtype=torch.float32, device=args.device), "sum").tolist()
        if received:
            self.status = INTERRUPTED if interrupted else TERMINATED
            control.should_save = control.should_training_stop = True
