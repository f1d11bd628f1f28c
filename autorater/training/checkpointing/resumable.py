"""Trainers that resume exactly after a crash; a mixin for any trainer of transformers or TRL.

    class JudgeTrainer(ResumableTrainer, GRPOTrainer): …

A resumed run takes the same steps as an uninterrupted one, bit for bit on a CPU. Transformers saves weights,
optimizer, schedule and random states. This class saves in addition, for every process, the order of the rows (drawn at
the start of an epoch), TRL's buffer of generations and the position in it, and the sums since the last logged step.

If a checkpoint cannot be written, for example on a full disk, it is removed with a warning and the training continues.
(Under DeepSpeed or FSDP, whose processes wait for each other while writing, it stops.) A loss or gradient that is not
finite stops the training before the weights change. (DeepSpeed takes its step within the backward pass: there a
gradient is checked one step late.)

Deliberately left out: the state of a reference model that follows the policy (`sync_ref_model`), which is refused.
"""

import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from accelerate.utils import gather_object, send_to_device
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from autorater.data.errors import disk_problem
from autorater.models.saving import make_readable
from autorater.training.checkpointing.checkpoints import CheckpointError, choose_checkpoint, complete, remove_older
from autorater.training.checkpointing.record import from_main
from autorater.training.faults import TrainingFault

_STATE = "progress_{}.pt"
# attributes of transformers and of TRL's GRPO: sums for the log, and the generations in use
_ATTRIBUTES = (
    "_tr_loss", "_globalstep_last_logged", "_step", "_buffered_inputs", "_total_train_tokens", "_logged",
    "unparsed_batches",
)  # fmt: skip


class ResumableTrainer:
    """To be listed before a `transformers.Trainer` among the bases of a class."""

    about: Mapping[str, object] = {}  # run and settings of its checkpoints

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs):
        """As in `Trainer`, times include earlier starts; the argument and its errors as in `choose_checkpoint`."""
        if resume_from_checkpoint and getattr(self.args, "sync_ref_model", False):
            raise CheckpointError("sync_ref_model cannot be resumed: checkpoints do not hold the reference model")
        chosen = from_main(lambda: choose_checkpoint(self.args.output_dir, resume_from_checkpoint, self.about))
        self._began = time.monotonic()
        self._earlier_seconds = self._load_progress(chosen)["seconds"] if chosen else 0.0
        trained = super().train(resume_from_checkpoint=chosen and str(chosen), **kwargs)
        trained.metrics["train_runtime"] += self._earlier_seconds
        return trained

    def _init_training_state(self, max_steps: int, *args) -> tuple[int, int]:
        begun = super()._init_training_state(max_steps, *args)
        self.state.compute_steps(self.args, max_steps)  # a checkpoint has those of the run that wrote it
        return begun

    def _get_train_sampler(self, *args):
        sampler = super()._get_train_sampler(*args)
        if isinstance(sampler, LengthGroupedSampler):
            # else torch's own generator draws, which dropout moves apart between processes on CPUs
            sampler.generator = torch.Generator().manual_seed(self.args.seed)
        return sampler

    def _run_epoch(self, **kwargs):
        # transformers would take one more step when it resumes after the last
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        self._sampler = _sampler_of(kwargs["train_dataloader"])
        checkpoint = kwargs["resume_from_checkpoint"]
        if checkpoint is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            self._restore_order(checkpoint, within_epoch=kwargs["steps_trained_in_current_epoch"] > 0)
        self._order = {"torch_at_start": torch.get_rng_state(), "sampler_at_start": _state(self._sampler)}
        super()._run_epoch(**kwargs)

    def _restore_order(self, checkpoint: str, within_epoch: bool) -> None:
        """Sets the generators that draw the order of the rows to their states at the start of the resumed epoch."""
        order = self._load_progress(checkpoint)["order"]
        if within_epoch:  # transformers restores the other random states when it has skipped the trained rows
            torch.set_rng_state(order["torch_at_start"])
        else:
            self._load_rng_state(checkpoint)
        state, generator = order["sampler_at_start" if within_epoch else "sampler"], _generator(self._sampler)
        if generator is not None and state is not None:
            generator.set_state(state)
        elif generator is not None:
            self._sampler.generator = None  # the run began when torch's own generator drew the order

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        progress = {
            "seconds": self._earlier_seconds + time.monotonic() - self._began,
            "order": self._order | {"sampler": _state(self._sampler)},
            "attributes": {name: getattr(self, name) for name in _ATTRIBUTES if hasattr(self, name)},
            "metrics": {mode: dict(metrics) for mode, metrics in getattr(self, "_metrics", {}).items()},
            "logs": {name: _as_lists(values) for name, values in getattr(self, "_logs", {}).items()},
        }
        torch.save(progress, Path(output_dir, _STATE.format(self.args.process_index)))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        progress = self._load_progress(checkpoint)
        for name, value in progress["attributes"].items():
            setattr(self, name, send_to_device(value, self.args.device))
        for mode, metrics in progress["metrics"].items():
            self._metrics[mode].update(metrics)
        for name, values in progress["logs"].items():
            if isinstance(values, dict):
                for column, entries in values.items():
                    self._logs[name][column].extend(entries)
            else:
                self._logs[name].extend(values)

    def _load_progress(self, checkpoint: str | Path) -> dict:
        return torch.load(Path(checkpoint, _STATE.format(self.args.process_index)), "cpu", weights_only=True)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        schedule = self.lr_scheduler
        if checkpoint is not None and hasattr(schedule, "lr_lambdas"):
            # The loaded rate is that of the old length; the same number where the length has not changed.
            rates = zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
            for group, (base, factor) in zip(schedule.optimizer.param_groups, rates, strict=True):
                group["lr"] = base * factor(schedule.last_epoch)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in `Trainer`; other users may read the weights, as the umask says."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            make_readable(output_dir or self.args.output_dir)

    def _save_checkpoint(self, model, trial) -> None:
        folder = Path(self._get_output_dir(trial), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        from_main(lambda: shutil.rmtree(folder, ignore_errors=True))  # a crash may have left a part of it
        write, limit = super()._save_checkpoint, self.args.save_total_limit
        self.args.save_total_limit = None  # older checkpoints stay until this one is complete
        error = _error_of(lambda: write(model, trial))
        self.args.save_total_limit = limit
        if error is not None and (self.is_deepspeed_enabled or self.is_fsdp_enabled):
            raise CheckpointError(f"{folder} could not be written: {error}") from error
        written = all(gather_object([error is None]))  # also waits for the slowest process
        if written:
            error = from_main(lambda: _error_of(lambda: self._complete_checkpoint(folder)))
        if not written or error is not None:
            from_main(lambda: shutil.rmtree(folder, ignore_errors=True))
        if error is not None:
            message = f"{folder} could not be written, and the training continues without it: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=1)

    def _complete_checkpoint(self, folder: Path) -> None:
        complete(folder, self.state.global_step, self.about)
        remove_older(folder.parent, self.about.get("run"), self.args.save_total_limit)

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        return self.finite(loss) if torch.is_tensor(loss) else loss

    def finite(self, loss: torch.Tensor) -> torch.Tensor:
        """Returns the loss, or raises TrainingFault if it is not finite; for trainers that compute one themselves."""
        if self.model.training and not torch.isfinite(loss).all():
            self._stop(f"the loss is {loss.item()}")
        return loss

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm)
        scaled = self.args.mixed_precision == "fp16"  # its loss scaling overflows now and then, and skips that step
        if norm is not None and not scaled and not math.isfinite(norm):
            self._stop(f"the norm of the gradient is {float(norm)}")
        return norm

    def _stop(self, problem: str) -> None:
        step = self.state.global_step
        raise TrainingFault(f"step {step + 1}: {problem}; the weights are still those of step {step}")


def _error_of(write: Callable[[], None]) -> Exception | None:
    """Calls a function that writes files, and returns the error that stopped it."""
    try:
        write()
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError) and disk_problem(error) is None:
            raise
        return error
    return None


def _as_lists(values):
    return {k: list(v) for k, v in values.items()} if isinstance(values, dict) else list(values)


def _sampler_of(dataloader) -> object:
    """What orders the rows; None if nothing does."""
    batches = dataloader.batch_sampler
    batches = getattr(batches, "batch_sampler", batches)  # within accelerate's sampler of one process
    return getattr(batches, "sampler", batches)


def _generator(sampler: object) -> torch.Generator | None:
    return getattr(sampler, "generator", None)


def _state(sampler: object) -> torch.Tensor | None:
    generator = _generator(sampler)
    return None if generator is None else generator.get_state()
