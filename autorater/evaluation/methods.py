"""Judging methods compared: the same pairs judged by every method, with every post-processing.

    method    a way to get a probability from a model                 autorater.judges.methods
    variant   its post-processing: `none`, or steps joined by `+`; a step is `swap` (swap averaging) or a kind of
              recalibration                                           autorater.judges.calibrators

Every method judges every pair once, and stored judgments are not repeated; its variants are computed from those
judgments. Recalibrations are fitted on calibration pairs, which share no group (topic or prompt) with the pairs that
all methods are measured on. A method that the model does not support has an entry with the reason. Intervals treat
fitted recalibrations as fixed. Judges behind a server and recorded judgments have one method
(`autorater.evaluation.method_judgments`). Imports no torch until a model on this machine is judged with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autorater.data.errors import UserError
from autorater.data.messages import plain_text
from autorater.data.pairs import Pair
from autorater.evaluation.arguments import NONE, SWAP, variant_steps
from autorater.evaluation.judge import Evaluation, measure, targets
from autorater.evaluation.method_judgments import ComparedPairs, Parts, Storage, judge_parts
from autorater.evaluation.results import write_metrics, write_predictions
from autorater.judges.calibrators import LogitMap, Recalibration, fit_recalibration
from autorater.judges.judgments import NamedJudge
from autorater.judges.options import METHODS, RECALIBRATIONS, check_methods
from autorater.judges.panel import Panel
from autorater.metrics.groups import GroupMetrics, group_metrics, length_quartiles
from autorater.metrics.systems import WinRate, win_rates

if TYPE_CHECKING:
    from autorater.judges import Judge

VARIANTS = (NONE, *RECALIBRATIONS, SWAP, "swap+odd_temperature", "swap+isotonic")
ANSWER_MEAN = "answer_mean"
ANSWER_MEAN_AS_SAVED = "answer_mean_as_saved"
"""`answer_mean` with the recalibration that is saved with the judge, if there is one."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        method: A name of `METHODS`, `recorded`, `panel` or `panel_mean`.
        steps: Its post-processing, in order.
        judge: Name of the judge in a comparison of several.
        evaluation: Its judgments and metrics; None if the method is not available.
        recalibration: The last recalibration among the steps, or the panel, as fitted.
        parts: All its judgments: those of the evaluation, of the calibration pairs and of pairs without votes.
        reason: Why the method is not available.
    """

    method: str
    steps: tuple[str, ...] = ()
    judge: str = ""
    evaluation: Evaluation | None = None
    recalibration: Recalibration | Panel | None = None
    parts: Parts | None = None
    reason: str = ""

    @property
    def key(self) -> str:
        """Its name in `metrics.json`: `judge/method+step+step`, or `method+step+step` for a single judge."""
        return "/".join(filter(None, (self.judge, "+".join((self.method, *self.steps)))))


def group_column(pairs: Sequence[Pair]) -> str:
    """The column that separates calibration pairs: the first of `topic`, `prompt` that is set and varies, or `id`."""
    columns = {name: {getattr(pair, name) for pair in pairs} for name in ("topic", "prompt")}
    return next((name for name, values in columns.items() if None not in values and len(values) > 1), "id")


def compare_methods(
    judge: NamedJudge,
    pairs: ComparedPairs,
    *,
    methods: Sequence[str] = METHODS,
    variants: Sequence[str] = VARIANTS,
    name: str = "",
    n_bootstrap: int = 1000,
    storage: Storage | None = None,
    progress: bool = False,
    **options: int,
) -> list[Entry]:
    """Judges pairs by every method and measures every variant of it.

    Args:
        judge: A judge of `autorater.judges.opening`: a model with its prompt format, one behind a server, or a file.
        pairs: The pairs to measure on and the others.
        methods: Names of `METHODS`; a judge that has one method only is judged by that.
        variants: As in `variant_steps`.
        name: Name of the judge in the entries; empty for a single judge.
        n_bootstrap: Rounds of the bootstrap; 0 for no intervals.
        storage: Where judgments are stored; None for nowhere.
        progress: Show progress bars.
        options: As in `judging_method`, and `ask_refused_again` for a judge behind a server.

    Returns:
        For every method, in order, its variants in order, or one entry without an evaluation.

    Raises:
        UserError: If a method or a variant is unknown, or a judge of one method cannot be used.
    """
    check_methods(methods)
    chains = [variant_steps(variant) for variant in variants]
    labels = [pair.label for pair in pairs.calibration]
    plain = judge.without_recalibration()
    chosen = [judge.method] if judge.method else methods
    entries = []
    for i, method in enumerate(chosen, 1):
        if progress:
            logger.info(f"{f'{name}: ' if name else ''}{method} ({i} of {len(chosen)} methods)")
        try:
            parts = judge_parts(method, plain, pairs, storage, progress, **options)
        except UserError as error:
            if judge.method is not None:  # a budget, a server, a file
                raise
            entries.append(Entry(method, judge=name, reason=str(error)))
            continue
        variants_of_method = [
            (method, steps, *_post_process(steps, parts, labels))
            for steps in chains
            if parts.content_free is not None or "contextual" not in steps
        ]
        if method == ANSWER_MEAN and judge.recalibration is not None:
            as_saved = parts.map(lambda part: part.recalibrated(judge.recalibration))
            variants_of_method.append((ANSWER_MEAN_AS_SAVED, (), as_saved, judge.recalibration))
        for method_name, steps, processed, recalibration in variants_of_method:
            clusters = pairs.clusters
            measured = measure(pairs.measured, processed.measured, clusters=clusters, n_bootstrap=n_bootstrap)
            entries.append(Entry(method_name, steps, name, measured, recalibration, processed))
    return entries


def _post_process(steps: Sequence[str], parts: Parts, labels: Sequence[float]) -> tuple[Parts, Recalibration | None]:
    """The judgments after all steps; each step is fitted on the calibration part after the steps before it."""
    recalibration = None
    for step in steps:
        if step == SWAP:
            parts = parts.map(lambda part: part.swap_averaged())
            continue
        content_free = None if parts.content_free is None else parts.content_free.mean.ravel()
        fitted = fit_recalibration(step, parts.calibration.p_ab, parts.calibration.p_ba, labels, content_free)
        parts, recalibration = parts.map(lambda part, fitted=fitted: part.recalibrated(fitted)), fitted
    return parts, recalibration


def headline_entries(entries: Sequence[Entry]) -> list[Entry]:
    """The entry that stands for each judge, in order: its answer mean as saved, or the first that is available."""
    order = (ANSWER_MEAN_AS_SAVED, ANSWER_MEAN)
    found = []
    for judge in dict.fromkeys(entry.judge for entry in entries):
        plain = [e for e in entries if e.judge == judge and e.evaluation is not None and not e.steps]
        plain.sort(key=lambda entry: order.index(entry.method) if entry.method in order else len(order))
        found += plain[:1]
    return found


def best_entry(entries: Sequence[Entry]) -> Entry:
    """The entry with the lowest (excess) Brier score; `UserError` if no method is available."""
    available = [entry for entry in entries if entry.evaluation is not None]
    if not available:
        reasons = "; ".join(f"{entry.key}: {entry.reason}" for entry in entries)
        raise UserError(f"no judging method is available ({reasons})")
    score = "excess_brier" if all("excess_brier" in entry.evaluation.metrics for entry in available) else "brier"
    return min(available, key=lambda entry: entry.evaluation.metrics[score])


def grouped(evaluation: Evaluation, *, n_bootstrap: int = 1000) -> dict[str, list[GroupMetrics]]:
    """Metrics by topic, annotators, models and length of responses, the worst first, for kinds with several groups."""
    pairs = evaluation.pairs
    kinds = {
        "topic": [pair.topic for pair in pairs],
        "annotators": [pair.group for pair in pairs],
        "models": [" / ".join(sorted(m)) if all(m) else None for m in ((p.model_a, p.model_b) for p in pairs)],
        "characters of both responses": length_quartiles(
            [len(plain_text(pair.response_a)) + len(plain_text(pair.response_b)) for pair in pairs]
        ),
    }
    of_pairs, against = targets(pairs), targets(pairs, evaluation.clusters)
    measured = {}
    for kind, names in kinds.items():
        if len(set(names)) > 1:
            labelled = of_pairs if kind == "topic" else against  # the pairs of one topic may be a single cluster
            measured[kind] = group_metrics(evaluation.judgments.mean, labelled, names, n_bootstrap=n_bootstrap)
    return {kind: groups for kind, groups in measured.items() if len(groups) > 1}


def model_win_rates(evaluation: Evaluation, *, n_bootstrap: int = 1000) -> list[WinRate]:
    """Win rates of every two models, judged against voted; empty if a pair does not name its models."""
    pairs = evaluation.pairs
    models = [[getattr(pair, name) for pair in pairs] for name in ("model_a", "model_b")]
    if None in models[0] + models[1]:
        return []
    against = targets(pairs, evaluation.clusters)
    options = {"clusters": against.clusters, "weights": against.weights, "n_bootstrap": n_bootstrap}
    return win_rates(evaluation.judgments.p_sym, against.labels, *models, **options)


def write_comparison(folder: str | Path, entries: Sequence[Entry], more: Mapping[str, float] | None = None) -> None:
    """Writes `metrics.json` (keys `method+variant/metric`) and `predictions.jsonl` for at least one available method.

    A fitted slope and shift are included as `…/fitted_slope` and `…/fitted_intercept`, weights of a panel as
    `panel/weight/JUDGE`; `more` are further metrics.
    """
    available = {entry.key: entry for entry in entries if entry.evaluation is not None}
    metrics = {}
    for key, entry in available.items():
        metrics |= {f"{key}/{name}": value for name, value in entry.evaluation.metrics.items()}
        if isinstance(entry.recalibration, LogitMap):
            metrics[f"{key}/fitted_slope"] = entry.recalibration.slope
            metrics[f"{key}/fitted_intercept"] = entry.recalibration.intercept
        if isinstance(entry.recalibration, Panel):
            named = zip(entry.recalibration.names, entry.recalibration.weights, strict=True)
            metrics |= {f"{key}/weight/{name}": weight for name, weight in named}

    def record(i: int, order: int) -> dict:
        answers = {key: entry.evaluation.judgments.mean[i, order] for key, entry in available.items()}
        return {"probabilities": {key: round(float(answer), 6) for key, answer in answers.items()}}

    write_metrics(folder, metrics | dict(more or {}))
    write_predictions(folder, best_entry(entries).evaluation.pairs, record)


def judge_names(paths: Sequence[str]) -> dict[str, str]:
    """Short names of judges, to their paths: empty for a single one, else the shortest endings that differ."""
    if not paths or len(set(paths)) < len(paths):
        raise UserError(f"judge is {list(paths)}; expected at least one, and each once")
    if len(paths) == 1:
        return {"": paths[0]}
    parts = [Path(path).parts for path in paths]
    depth = next(n for n in range(1, 1 + max(map(len, parts))) if len({p[-n:] for p in parts}) == len(parts))
    return {"/".join(part[-depth:]): path for part, path in zip(parts, paths, strict=True)}


def save_recalibration(
    kind: str, entries: Sequence[Entry], judge: Judge, folder: str | Path, name: str = ""
) -> Recalibration:
    """Saves a kind of recalibration, fitted on `answer_mean`, in the folder of judge `name`, which then applies it.

    Warns if single answers to the measured pairs have a higher log loss with it: such a temperature enlarges the
    bias of a judge that says little about the responses and much about the position.

    Raises:
        UserError: If the comparison has no such recalibration, or the judge is not in a local folder, or as in
            `Judge.check_saved_as`.
    """
    of_judge = {e.steps: e for e in entries if (e.judge, e.method) == (name, ANSWER_MEAN)}
    fitted = of_judge[(kind,)].recalibration if (kind,) in of_judge else None
    if fitted is None:
        raise UserError(f"nothing to save: the comparison has no {ANSWER_MEAN} with post-processing {kind!r}")
    if not Path(folder).is_dir():
        raise UserError(f"{folder} is not a local folder, so no recalibration can be saved with it")
    judge.check_saved_as(folder)
    losses = [of_judge[steps].evaluation.metrics["log_loss"] for steps in ((), (kind,)) if steps in of_judge]
    if losses[-1] > losses[0]:
        logger.warning(
            f"{kind} ({fitted}): with it the log loss of single answers to the measured pairs rises from "
            f"{losses[0]:.3f} to {losses[1]:.3f}; compare its position bias and the other kinds"
        )
    judge.recalibration = fitted
    judge.save_format(folder)
    return fitted
