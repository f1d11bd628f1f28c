"""What runs beside the steps of a training: calibration on held-out pairs, progress, the log, a notice to leave."""

import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import reduce
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from autorater.data.pairs import Pair
from autorater.evaluation.judge import evaluate
from autorater.judges import Judge
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.preemption import Notice

_WATCHED = (
    "brier",
    "log_loss",
    "ece",
    "mse_dense",
    "excess_brier",
    "agreement",
    "symmetry_deviation_abs",
    "parse_rate",
)


class CalibrationCallback(TrainerCallback):
    """Judges held-out pairs in both orders every `eval_steps` steps and logs the metrics as `eval_…`.

    Args:
        trainer: The trainer it is added to; its `log` takes the metrics to the trackers.
        judge: Reads the model that is being trained.
        pairs: Held-out pairs.
        prompts: Their prompts in both orders.
        n_pairs: How many of them to judge each time, taken evenly from all of them (a file may be sorted); 0 for none.
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
        watched = np.linspace(0, len(pairs), min(n_pairs, len(pairs)), endpoint=False).astype(int)
        self.pairs, self.prompts = [pairs[i] for i in watched], [prompts[i] for i in watched]

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if (
            not self.pairs
            or not args.eval_steps
            or state.global_step % int(args.eval_steps)
            or state.global_step == state.max_steps
        ):
            return
        metrics = evaluate(self.judge, self.pairs, self.prompts, n_bootstrap=0).metrics
        was_training, should_log = model.training, control.should_log
        model.eval()  # GRPOTrainer.log merges the training metrics into whatever it logs in training mode
        self.trainer.log({f"eval_{name}": metrics[name] for name in _WATCHED if name in metrics})
        model.train(was_training)
        control.should_log = should_log  # logging has cleared it, and the training metrics of this step would be lost


class QuietProgressCallback(ProgressCallback):
    """The progress bar with the reward beside it, and a line for every evaluation."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        if "reward" in logs:
            self.training_bar.set_postfix_str(f"reward {logs['reward']:.4f}", refresh=False)
        measured = {name[len("eval_") :]: value for name, value in logs.items() if name.startswith("eval_")}
        if measured:
            figures = "  ".join(f"{name} {value:.4f}" for name, value in measured.items())
            self.training_bar.write(f"  step {state.global_step}: {figures}")


def show_progress(trainer: Trainer) -> None:
    """Puts `QuietProgressCallback` in the place of the trainer's own progress output."""
    for noisy in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(noisy)
    trainer.add_callback(QuietProgressCallback)


class LogFileCallback(TrainerCallback):
    """Everything that is logged, one JSON object a line, written as it is logged.

    A resumed run takes out what was logged behind the step that it goes on from.

    Args:
        path: Of the file; `log.jsonl` of the output folder.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._warned = False

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.exists() else []
        kept = [line for line in lines if _logged_by(line, state.global_step)]
        self.path.write_text("".join(kept), encoding="utf-8")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero or not logs:
            return
        # JSON has no NaN, and a reader of the file would stumble over it
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in logs.items()}
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **record}) + "\n")
        except OSError as error:
            if not self._warned:
                warnings.warn(f"{self.path} cannot be written, lines are lost: {error}", RuntimeWarning, stacklevel=2)
            self._warned = True


def _logged_by(line: str, step: int) -> bool:
    """Whether a line was logged up to a step of an unfinished training; one that a crash cut off was not."""
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return step > 0 and record["step"] <= step and "train_runtime" not in record


class PreemptionCallback(TrainerCallback):
    """Where any process was asked to leave, all of them save a checkpoint behind the same step and end the training.

    Args:
        notice: Of this process.

    Attributes:
        leaving: Whether the training was ended by it.
    """

    def __init__(self, notice: Notice):
        self.notice, self.leaving = notice, False

    def on_step_end(self, args, state, control, **kwargs):
        asked = torch.tensor(self.notice.signal is not None, dtype=torch.float32, device=args.device)
        if reduce(asked, "sum").item():
            self.leaving = control.should_save = control.should_training_stop = True
