"""What a run shows while it trains: calibration on held-out pairs, and one line of progress instead of a log dump."""

from collections.abc import Sequence

import numpy as np
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from autorater.evaluation import evaluate
from autorater.judges import Judge
from autorater.pairs import Pair
from autorater.prompts import EncodedPrompt

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
