"""A training with progress and a log file that a signal ends after a checkpoint."""

from pathlib import Path

from accelerate.utils import gather_object
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from autorater.training.callbacks import LogFileCallback, NoGradientCallback, PreemptionCallback, show_progress
from autorater.training.checkpointing.checkpoints import checkpoints
from autorater.training.checkpointing.record import RunRecord, from_main
from autorater.training.preemption import deferred_signals, exit_with
from autorater.training.tracking import tolerate_tracker_errors


def run_training(trainer: Trainer, record: RunRecord, title: str = "") -> TrainOutput:
    """Trains from the start or a checkpoint, with progress and a log file; a signal ends the process afterwards.

    Each line of progress begins with the `title`.
    """
    args = trainer.args
    show_progress(trainer, title)
    tolerate_tracker_errors(trainer)
    trainer.about = record.about
    with deferred_signals() as received:
        preemption = PreemptionCallback(received)
        trainer.add_callback(LogFileCallback(Path(args.output_dir, "log.jsonl")))
        trainer.add_callback(preemption)
        trainer.add_callback(NoGradientCallback())
        trained = trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
        late = any(gather_object([received.name is not None]))  # after the last step
        last = f"checkpoint-{trainer.state.global_step}"
        if late and not preemption.status:
            saved = from_main(lambda: [folder.name for folder in checkpoints(args.output_dir, record.run)])
            if last not in saved:
                trainer._save_checkpoint(trainer.model, trial=None)
    if preemption.status or late:
        newest = next(iter(checkpoints(args.output_dir, record.run)), "none")
        exit_with(
            f"stopped ({received.name or 'signal to another process'}) after step {trainer.state.global_step} of "
            f"{trainer.state.max_steps}; checkpoint: {newest}; to resume, add --resume_from_checkpoint auto",
            preemption.status or received.status,
        )
    return trained
