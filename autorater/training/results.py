"""The results of a run: files of the output folder, and their upload to the Hub."""

import logging
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import upload_folder
from transformers import Trainer

from autorater.evaluation.judge import Evaluation
from autorater.evaluation.results import RECORD, write_run
from autorater.report import summary_table, write_model_card, write_report

logger = logging.getLogger(__name__)


def write_pair_run(
    folder: str,
    card: Mapping[str, object],
    before: Evaluation,
    after: Evaluation,
    seconds: float,
    *,
    title: str,
    method: str,
) -> None:
    """Writes metrics, predictions, report and model card of a judge of pairs, evaluated on the same pairs.

    Args:
        card: `base_model`, `prompt_text`, `settings`, `warning` and optional `pointwise` and `labels` of
            `write_model_card`.
        seconds: Duration of the training.
        title: Heading of the report.
        method: Tag of the model card, see `autorater.report.card.METHODS`.
    """
    write_run(folder, before, after, training_seconds=seconds)
    about = {name: card[name] for name in ("settings", "warning", "pointwise") if name in card}
    write_report(folder, before, after, title=title, **about)
    write_model_card(folder, before=before, after=after, method=method, **card)
    logger.info(f"\n{summary_table(before, after)}\n\nreport: {Path(folder, 'report.html')}")


def upload(trainer: Trainer) -> None:
    """Uploads the judge with its format, card and report; `Trainer.push_to_hub` would write a card of its own."""
    others = ["_*", "checkpoint-*", "warm_start/*", "teacher/*", RECORD, "training_args.bin"]
    args = trainer.args
    where = {"repo_id": trainer.hub_model_id, "revision": args.hub_revision, "token": args.hub_token}
    upload_folder(**where, folder_path=args.output_dir, ignore_patterns=others, commit_message="Trained judge")
    logger.info(f"uploaded to {trainer.hub_model_id}")
