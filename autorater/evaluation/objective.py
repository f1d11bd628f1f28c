"""Accuracy of a judge, and of the model it was trained from, on pairs with one right answer (`data.objective`).

The verdict is that of both orders averaged; an answer of 1/2 is half right. Both models read the same prompts, so the
difference is paired.
"""

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np

from autorater.data.atomic import read_json
from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.evaluation.method_judgments import without_content
from autorater.evaluation.results import RECORD
from autorater.judges import Judge, Judgments
from autorater.metrics.agreement import agreement_credits
from autorater.metrics.intervals import Mean, Share, bootstrap
from autorater.models.loading import load_policy


def untrained(judge: Judge, name_or_path: str, revision: str | None = None) -> Judge:
    """The same prompts and answers with another model of the same tokenizer and precision, without a recalibration.

    `revision` is that of the model on the Hub.

    Raises:
        UserError: If the model cannot be loaded, or has another tokenizer.
    """
    weight = next(judge.model.parameters())
    model, tokenizer = load_policy(name_or_path, dtype=str(weight.dtype).removeprefix("torch."), revision=revision)
    if tokenizer.get_vocab() != judge.tokenizer.get_vocab():
        raise UserError(f"{name_or_path} has another tokenizer than the judge; expected the model it was trained from")
    before = copy(judge)
    before.model, before.recalibration = model.to(weight.device), None
    return before


def judge_objective(judge: Judge, pairs: Sequence[Pair], *, progress: bool = False) -> Judgments:
    """Judges pairs whose criteria and reference, if the prompt has these slots, say that there are none."""
    return judge.probabilities(as_shown(judge, pairs), progress=progress)


def as_shown(judge: Judge, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs as `judge_objective` shows them to a judge."""
    return without_content(pairs, judge.encoder.format.slots)


def accuracy_change(pairs: Sequence[Pair], before: Judgments, after: Judgments) -> dict[str, float]:
    """Accuracies in [0, 1] and their difference, each with `…_low` and `…_high` (95 %), as flat keys.

    Args:
        pairs: N pairs with labels 0 and 1.
        before, after: Their judgments.

    Returns:
        `before`, `after`, `change`; also `before/KIND` and `after/KIND` for every topic, without intervals.
    """
    labels, kinds = np.array([pair.label for pair in pairs]), np.array([pair.topic for pair in pairs])
    right = {name: agreement_credits(j.p_sym, labels)[0] for name, j in (("before", before), ("after", after))}
    statistics = {name: Share(credit, np.ones(len(pairs))) for name, credit in right.items()}
    change = right["after"] - right["before"]
    found = {name: float(credit.mean()) for name, credit in right.items()} | {"change": float(change.mean())}
    found |= bootstrap(statistics | {"change": Mean(change)}, n_rounds=2000)
    for kind in dict.fromkeys(kinds):
        found |= {f"{name}/{kind}": float(credit[kinds == kind].mean()) for name, credit in right.items()}
    return found


def trained_from(folder: str | Path) -> tuple[str, str | None]:
    """The model that a training run began with, and its revision if one was requested, from `run.json` in the folder.

    The model that a teacher began with counts, if the run trained it first, in its own folder.

    Raises:
        UserError: If `run.json` names no model.
    """
    file = Path(folder, RECORD)
    settings = read_json(file, "name the untrained model with --before").get("settings", {}) if file.exists() else {}
    base = settings.get("model_name_or_path") or next(iter(map(str, Path(folder).glob("warm_start"))), None)
    if base is None:
        raise UserError(f"{file} names no model that the judge was trained from; name it with --before")
    inside = Path(folder, base)  # as a run names a model in its own folder, which can be moved
    if not inside.is_dir():
        return base, settings.get("model_revision")
    is_own = Path(folder).resolve() in inside.resolve().parents and settings.get("warm_start_verdicts") == base
    return trained_from(inside) if is_own and Path(inside, RECORD).exists() else (str(inside), None)
