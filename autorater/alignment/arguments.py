"""Options of an alignment run other than those of its trainer (`recipes/align.py --help`)."""

import argparse
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from autorater.data.errors import UserError, ineffective
from autorater.training.arguments import DenseArguments, option

_REFUSED = {
    "criteria": "no effect, because a prompt for labels has no slot for it",
    "reference": "no effect, because a prompt for labels has no slot for it",
    "population": "votes are weighted for judges that answer with a probability only",
    "recalibration_dataset_name": "a recalibration is fitted to judges of pairs only",
    "untrained_judgments_dir": "no effect on judges that answer with a label",
}


@dataclass
class AlignmentArguments(DenseArguments):
    """The options of `recipes/sft.py`, for judges that answer with a label. Options of pairs hold for items too.

    Options that such a judge refuses or ignores are not in `--help`.
    """

    _argument_group_name = "data"

    data: Literal["items", "pairs"] = option(
        "items",
        "`items`: texts with counts of K labels, see `autorater.data.formats`; `pairs`: A, tie or B, in both orders.",
    )
    synonyms: dict | str | None = option(  # noqa: RUF009
        None, "More words for a label: a JSON object of labels to lists of words."
    )

    prompt_template: str = option("full", "`full`, or `compact` for small policies from scratch.")
    criteria: str | None = option(None, argparse.SUPPRESS)
    reference: str | None = option(None, argparse.SUPPRESS)
    population: str | None = option(None, argparse.SUPPRESS)
    untrained_judgments_dir: str | None = option(None, argparse.SUPPRESS)
    recalibration_dataset_name: str | None = option(None, argparse.SUPPRESS)
    recalibration: str = option("temperature", argparse.SUPPRESS)
    recalibration_labels: str | None = option(None, argparse.SUPPRESS)
    warm_start_sharpness: float | None = option(None, argparse.SUPPRESS)
    warm_start_tilt: float = option(1.0, argparse.SUPPRESS)

    def __post_init__(self):
        super().__post_init__()
        if self.teacher:
            raise UserError(f"warm_start_verdicts: {self.teacher}: a teacher gives probabilities of pairs, no labels")
        if self.data == "items" and self.warm_start_verdicts != "opinions":
            raise UserError("warm_start_verdicts: lengths requires data: pairs")
        for name, why in _REFUSED.items():
            if getattr(self, name) is not None:
                raise UserError(f"{name}: {why}")
        if isinstance(self.synonyms, str):
            try:
                self.synonyms = json.loads(self.synonyms)
            except ValueError as error:
                raise UserError(f"synonyms is not JSON ({error}); expected an object of labels") from error
        if not isinstance(self.synonyms, dict | None):
            raise UserError(f"synonyms: got {self.synonyms!r}; expected an object of labels")
        for label, words in (self.synonyms or {}).items():
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise UserError(f"synonyms of {label!r} must be a list of words, got {words!r}")


def ineffective_for_labels(args: AlignmentArguments, pretrained: bool, given: Collection[str]) -> dict[str, list[str]]:
    """As `autorater.training.arguments.ineffective_options`, for what only judges of labels or of items ignore."""
    items, recorded = args.data == "items", args.dataset_name is not None
    cases = (
        (pretrained and args.warm_start_steps, "the policy is pretrained (model_name_or_path)", ("warm_start_steps",)),
        (
            args.warm_start_steps and not pretrained,
            "the verdicts of the warm start are labels",
            ("warm_start_tilt", "warm_start_sharpness"),
        ),
        (items, "items are judged before and after training only", ("eval_steps", "n_eval_pairs")),
        (items and not recorded, "a simulated item has one text", ("annotator_position_bias",)),
        (
            items and recorded and not args.eval_dataset_name,
            "items are split by topic, or by id if one has no topic",
            ("split_by",),
        ),
    )
    return ineffective(cases, given)
