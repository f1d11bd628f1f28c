"""Weights & Biases that never stops a run: without a login or a connection it records offline, and says so."""

import os
from collections.abc import Mapping

from transformers import TrainingArguments

_CONNECT_SECONDS = 20


def start_tracking(args: TrainingArguments, config: Mapping[str, object]) -> None:
    """Starts the W&B run that the trainer's callback then finds; other trackers start by themselves.

    Args:
        args: Its `report_to` says whether W&B is wanted; offline records are kept in `output_dir/wandb`.
        config: What to show as the run's configuration.
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
    }
    mode = os.environ.get("WANDB_MODE")
    if mode is None and not wandb.login(prompt=False, verify=False):
        print(f"W&B: no login, recording offline in {output_dir}/wandb (`wandb sync` uploads it later)")
        mode = "offline"
    try:
        settings = wandb.Settings(init_timeout=_CONNECT_SECONDS)
        wandb.init(mode=mode, settings=settings, **kwargs)
    except wandb.errors.Error as error:
        print(f"W&B: cannot be reached ({error}), recording offline in {output_dir}/wandb")
        wandb.init(mode="offline", **kwargs)
