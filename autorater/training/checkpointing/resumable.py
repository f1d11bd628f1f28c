"""Trainers that a crash, a full disk or a bad number cannot harm: mixed into any trainer of transformers or TRL.

    class JudgeGRPOTrainer(ResumableTrainer, GRPOTrainer): …

A resumed run takes the steps that the undisturbed one would have taken, bit for bit on a CPU. Transformers keeps
weights, optimizer, schedule and random states; beside them is kept here, for every process,

    where the order of the rows began   samplers draw it from a generator, or from torch's, at the start of an epoch
    TRL's buffer and its position in it generations are used for several steps (steps_per_generation, num_iterations)
    sums since the last logged step     what is logged next is a mean over them

Checkpoints are sealed (`autorater.training.checkpointing.checkpoints`), and older ones go when a new one is sealed. One that cannot
be written, as on a full disk, is removed with a warning: the training goes on, and the checkpoint before it stays.
(Under DeepSpeed or FSDP, where processes wait for each other while they write, the training stops instead.) A loss or
a gradient that is not finite stops the training before it touches the weights. (DeepSpeed takes its step within the
backward pass: there a gradient is seen one step late.)

Hooks that are overridden: `_save_checkpoint`; `_save_rng_state` and `_load_rng_state`, for the state beside the random
states; `_run_epoch`, for the order of the rows, and because transformers would take one step more when it resumes
behind the last; `compute_loss` and `_get_grad_norm`, to look at them; `train`, to choose the checkpoint.

Deliberately left out: the state of a reference model that follows the policy (`sync_ref_model`), which is refused.
"""

import math
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from accelerate.utils import gather_object, send_to_device
from safetensors import SafetensorError
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from autorater.training.checkpointing.checkpoints import CheckpointError, choose_checkpoint, remove_older, seal
from autorater.training.checkpointing.record import from_main
from autorater.training.faults import TrainingFault

_STATE = "progress_{}.pt"
# of transformers and of TRL's GRPO: what is summed up for the log, and the generations in use
_CARRIED = (
    "_tr_loss", "_globalstep_last_logged", "_step", "_buffered_inputs", "_total_train_tokens", "_logged",
    "unread_batches",
)  # fmt: skip
_LISTED = ("prompt", "completion", "advantages")


class ResumableTrainer:
    """In front of a `transformers.Trainer` among the bases of a class.

    Attributes:
        about: `run` and `settings`, written into checkpoints and wanted of one that is resumed from.
    """

    about: Mapping[str, object] = {}

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """As in `Trainer`; `resume_from_checkpoint` as `wanted` in `choose_checkpoint`, seconds are of all starts.

        Raises:
            CheckpointError: If there is no whole checkpoint to resume from.
        """
        if resume_from_checkpoint and getattr(self.args, "sync_ref_model", False):
            raise CheckpointError("sync_ref_model cannot be resumed: checkpoints do not hold the reference model")
        say = partial(print, file=sys.stderr)
        chosen = from_main(lambda: choose_checkpoint(self.args.output_dir, resume_from_checkpoint, self.about, say))
        self._began, self._seconds = time.monotonic(), 0.0
        trained = super().train(resume_from_checkpoint=chosen and str(chosen), **kwargs)
        trained.metrics["train_runtime"] += self._seconds
        return trained

    def _run_epoch(self, **kwargs):
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        generator, checkpoint = _sampler_generator(kwargs["train_dataloader"]), kwargs["resume_from_checkpoint"]
        if checkpoint is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            order = self._progress(checkpoint)["order"]
            if kwargs[
                "steps_trained_in_current_epoch"
            ]:  # transformers loads the random states behind the skipped rows
                torch.set_rng_state(order["torch_at_start"])
                sampler = order["sampler_at_start"]
            else:
                self._load_rng_state(checkpoint)
                sampler = order["sampler"]
            if generator is not None and sampler is not None:
                generator.set_state(sampler)
        self._order = {"torch_at_start": torch.get_rng_state(), "sampler_at_start": _state(generator)}
        self._sampler_generator = generator
        super()._run_epoch(**kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        progress = {
            "seconds": self._seconds + time.monotonic() - self._began,
            "order": self._order | {"sampler": _state(self._sampler_generator)},
            "carried": {name: getattr(self, name) for name in _CARRIED if hasattr(self, name)},
        }
        if hasattr(self, "_metrics"):
            progress["metrics"] = {mode: dict(metrics) for mode, metrics in self._metrics.items()}
        if hasattr(self, "_logs"):
            progress["listed"] = {name: list(self._logs[name]) for name in _LISTED}
            for name in ("rewards", "extra"):
                progress[name] = {column: list(values) for column, values in self._logs[name].items()}
        torch.save(progress, Path(output_dir, _STATE.format(self.args.process_index)))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        progress = self._progress(checkpoint)
        self._seconds = progress["seconds"]
        for name, value in progress["carried"].items():
            setattr(self, name, send_to_device(value, self.args.device))
        for mode, metrics in progress.get("metrics", {}).items():
            self._metrics[mode].update(metrics)
        for name, values in progress.get("listed", {}).items():
            self._logs[name].extend(values)
        for name in ("rewards", "extra"):
            for column, values in progress.get(name, {}).items():
                self._logs[name][column].extend(values)

    def _progress(self, checkpoint: str) -> dict:
        return torch.load(Path(checkpoint, _STATE.format(self.args.process_index)), "cpu", weights_only=True)

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        from_main(lambda: shutil.rmtree(folder, ignore_errors=True))  # what a crash may have left of it
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # older ones go when this one is whole
        error = None
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as failure:
            error = failure
            if self.is_deepspeed_enabled or self.is_fsdp_enabled:
                raise CheckpointError(f"{folder} could not be written: {failure}") from failure
        finally:
            self.args.save_total_limit = limit
        everywhere = all(gather_object([error is None]))  # and wait for the last one
        if everywhere:
            error = from_main(lambda: self._seal(folder))
        if not everywhere or error is not None:
            from_main(lambda: shutil.rmtree(folder, ignore_errors=True))
            if error is not None:
                warnings.warn(
                    f"{folder} could not be written, and the training goes on without it: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _seal(self, folder: Path) -> OSError | None:
        try:
            seal(folder, self.state.global_step, self.about)
            remove_older(folder.parent, self.about.get("run"), self.args.save_total_limit)
        except OSError as error:
            return error
        return None

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return self.finite(loss) if torch.is_tensor(loss) else loss

    def finite(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss; for trainers that compute one themselves.

        Raises:
            TrainingFault: If it is not finite.
        """
        if self.model.training and not torch.isfinite(loss).all():
            self._stop(f"the loss is {loss.item()}")
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        scaled = self.args.fp16  # its loss scaling overflows now and then, and skips the step by itself
        if norm is not None and not scaled and not math.isfinite(norm):
            self._stop(f"the norm of the gradient is {float(norm)}")
        return norm

    def _stop(self, what: str) -> None:
        step = self.state.global_step
        raise TrainingFault(f"step {step + 1}: {what}; the weights are still those of step {step}")


def _sampler_generator(dataloader) -> torch.Generator | None:
    batches = dataloader.batch_sampler
    batches = getattr(batches, "batch_sampler", batches)  # behind accelerate's share of a process
    return getattr(getattr(batches, "sampler", None), "generator", None)


def _state(generator: torch.Generator | None) -> torch.Tensor | None:
    return None if generator is None else generator.get_state()
