"""Judging methods compared: the same pairs judged in every way, with everything that can be put on top.

    method    a way to get a probability out of a model        autorater.judges.methods
    variant   what is put on top, in order: `swap`, or a kind of recalibration; `none` for nothing

Every method judges every pair once; its variants are computed from those judgments. Recalibrations are fitted on
calibration pairs, which share no group (topic or prompt) with the pairs that all methods are measured on. A method
that a model cannot be asked by has an entry too, which says why.

Intervals are over pairs and take the fitted maps as given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autorater.data.pairs import Pair, split_by
from autorater.evaluation.judge import Evaluation, column, measure
from autorater.evaluation.results import write_results
from autorater.judges import Judge, Judgments
from autorater.judges.calibrators import KINDS, LogitMap, Recalibration, content_free_pairs, fit_recalibration
from autorater.judges.methods import METHODS, judging_method
from autorater.metrics.groups import GroupMetrics, group_metrics, length_quartiles
from autorater.metrics.systems import WinRate, win_rates

SWAP, NONE = "swap", "none"
VARIANTS = (NONE, *KINDS, SWAP, "swap+odd_temperature", "swap+isotonic")
SAVED = "answer_mean_as_saved"
"""`answer_mean` with the recalibration that was saved with the judge, where there is one."""


@dataclass(frozen=True)
class Entry:
    """One row of a comparison.

    Attributes:
        method: A name of `METHODS`.
        steps: What is put on top, in order.
        judge: Name of the judge, where there are several.
        evaluation: What was said and how good it was; None where the method is not available.
        recalibration: The last map among the steps, as fitted.
        reason: Why the method is not available.
    """

    method: str
    steps: tuple[str, ...] = ()
    judge: str = ""
    evaluation: Evaluation | None = None
    recalibration: Recalibration | None = None
    reason: str = ""

    @property
    def key(self) -> str:
        """Its name in `metrics.json`: `judge/method+step+step`, the judge only where there are several."""
        return "/".join(filter(None, (self.judge, "+".join((self.method, *self.steps)))))


def variant_steps(variant: str) -> tuple[str, ...]:
    """The steps of a variant: `swap+isotonic` → (`swap`, `isotonic`), `none` → ().

    Raises:
        ValueError: If a step is neither `swap` nor a kind of recalibration.
    """
    steps = () if variant == NONE else tuple(variant.split("+"))
    for step in steps:
        if step not in (SWAP, *KINDS):
            raise ValueError(
                f"variant {variant!r}: unknown step {step!r}; expected {NONE}, {SWAP}, {', '.join(KINDS)}"
            )
    return steps


def group_column(pairs: Sequence[Pair], wanted: str | None = None) -> str:
    """The column that divides calibration pairs from others: as wanted, else the topic where all have one of several,
    else the prompt, else the id where all have the same prompt."""
    if wanted is not None:
        return wanted
    columns = {name: {getattr(pair, name) for pair in pairs} for name in ("topic", "prompt")}
    return next((name for name, values in columns.items() if None not in values and len(values) > 1), "id")


def calibration_split(pairs: Sequence[Pair], column: str, fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Calibration pairs, about `fraction` of all, and pairs to measure on, with no value of `column` in both.

    Raises:
        ValueError: As `split_by`.
    """
    measured, calibration = split_by(pairs, column, fraction, seed)
    return calibration, measured


def compare_methods(
    judge: Judge,
    pairs: Sequence[Pair],
    calibration: Sequence[Pair],
    *,
    methods: Sequence[str] = METHODS,
    variants: Sequence[str] = VARIANTS,
    name: str = "",
    n_samples: int = 10,
    max_reasoning_tokens: int = 512,
    seed: int = 0,
    clusters: Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    progress: bool = False,
) -> list[Entry]:
    """Judges pairs by every method and measures every variant of it.

    Args:
        judge: The model, and how it is asked by default.
        pairs: N pairs to measure on.
        calibration: Pairs to fit recalibrations on; none of `pairs`, nor of their prompts.
        methods: Names of `METHODS`.
        variants: As `variant_steps` reads them.
        name: Of the judge, for the entries; empty where there is only one.
        n_samples, max_reasoning_tokens, seed: As in `judging_method`.
        clusters: N names; pairs with equal ones are resampled together.
        n_bootstrap: Rounds of the bootstrap; 0 for no intervals.
        progress: Show progress bars.

    Returns:
        For every method, in order, its variants in order, or one entry without an evaluation.

    Raises:
        ValueError: If a method or a variant is unknown.
    """
    for method in methods:
        if method not in METHODS:
            raise ValueError(f"unknown judging method {method!r}; expected one of {', '.join(METHODS)}")
    chains = [variant_steps(variant) for variant in variants]
    everything = [*calibration, *pairs, *content_free_pairs()]
    ends = len(calibration), len(calibration) + len(pairs)
    labels = [pair.label for pair in calibration]
    entries = []
    for method in methods:
        try:  # whatever keeps a model from being asked in this way is a finding, shown in its row
            asked = judging_method(
                method, judge, n_samples=n_samples, max_reasoning_tokens=max_reasoning_tokens, seed=seed
            )
            said = asked.probabilities(everything, progress=progress)
        except ValueError as error:
            entries.append(Entry(method, judge=name, reason=str(error)))
            continue
        parts = said[: ends[0]], said[ends[0] : ends[1]], said[ends[1] :]
        for steps in chains:
            judgments, recalibration = _put_on_top(steps, *parts, labels)
            measured = measure(pairs, judgments, clusters=clusters, n_bootstrap=n_bootstrap)
            entries.append(Entry(method, steps, name, measured, recalibration))
        if method == "answer_mean" and judge.recalibration is not None:
            as_saved = parts[1].recalibrated(judge.recalibration)
            measured = measure(pairs, as_saved, clusters=clusters, n_bootstrap=n_bootstrap)
            entries.append(Entry(SAVED, (), name, measured, judge.recalibration))
    return entries


def _put_on_top(
    steps: Sequence[str], calibration: Judgments, judged: Judgments, content_free: Judgments, labels: Sequence[float]
) -> tuple[Judgments, Recalibration | None]:
    """The judged part after all steps, each fitted on the calibration part as the steps before left it."""
    recalibration = None
    for step in steps:
        if step == SWAP:
            calibration, judged, content_free = (part.swap_averaged() for part in (calibration, judged, content_free))
            continue
        answers_to_nothing = content_free.mean.ravel()
        recalibration = fit_recalibration(step, calibration.p_ab, calibration.p_ba, labels, answers_to_nothing)
        calibration, judged, content_free = (
            part.recalibrated(recalibration) for part in (calibration, judged, content_free)
        )
    return judged, recalibration


def best_entry(entries: Sequence[Entry]) -> Entry:
    """The entry with the lowest excess Brier score where the truth is known, else the lowest Brier score.

    Raises:
        ValueError: If no method is available.
    """
    available = [entry for entry in entries if entry.evaluation is not None]
    if not available:
        reasons = "; ".join(f"{entry.key}: {entry.reason}" for entry in entries)
        raise ValueError(f"no judging method is available ({reasons})")
    return min(available, key=lambda entry: headline(entry.evaluation))


def headline(evaluation: Evaluation) -> float:
    """The score that entries are ranked by: excess Brier where the truth is known, else Brier; lower is better."""
    return evaluation.metrics.get("excess_brier", evaluation.metrics["brier"])


def grouped(evaluation: Evaluation, *, n_bootstrap: int = 1000) -> dict[str, list[GroupMetrics]]:
    """Metrics by topic, model pair and response length, as far as the pairs have them; the worst group first.

    Args:
        evaluation: N pairs; kinds of groups with a single group are left out.
        n_bootstrap: Rounds of the bootstrap in every group; 0 for no intervals.
    """
    pairs, said = evaluation.pairs, evaluation.judgments
    lengths = [len(pair.response_a) + len(pair.response_b) for pair in pairs]
    kinds = {
        "topic": [pair.topic for pair in pairs],
        "models": [_models(pair) for pair in pairs],
        "characters of both responses": length_quartiles(lengths),
    }
    measured = {
        kind: group_metrics(
            said.p_ab,
            said.p_ba,
            [pair.label for pair in pairs],
            names,
            n_votes=column(pairs, "n_votes"),
            true_probability=column(pairs, "true_probability"),
            n_bootstrap=n_bootstrap,
        )
        for kind, names in kinds.items()
        if len(set(names)) > 1
    }
    return {kind: groups for kind, groups in measured.items() if len(groups) > 1}


def model_win_rates(evaluation: Evaluation, *, n_bootstrap: int = 1000) -> list[WinRate]:
    """Win rates of every two models, judged against voted; empty where a pair does not name its models."""
    pairs = evaluation.pairs
    models = [[getattr(pair, name) for pair in pairs] for name in ("model_a", "model_b")]
    if None in models[0] + models[1]:
        return []
    labels = [pair.label for pair in pairs]
    return win_rates(evaluation.judgments.p_sym, labels, *models, n_bootstrap=n_bootstrap)


def _models(pair: Pair) -> str | None:
    """Both models by name, in one order: a pair and its swap are of the same group."""
    return None if pair.model_a is None or pair.model_b is None else " / ".join(sorted((pair.model_a, pair.model_b)))


def write_comparison(folder: str | Path, entries: Sequence[Entry]) -> None:
    """Writes `metrics.json` (keys `method+variant/metric`) and `predictions.jsonl` (one line a pair and order).

    A fitted map is there as `…/fitted_slope` and `…/fitted_intercept`, a method that is not available is not.

    Args:
        folder: An existing folder.
        entries: Of the same pairs, at least one of them available.
    """
    available = {entry.key: entry for entry in entries if entry.evaluation is not None}
    metrics = {f"{key}/{name}": value for key, entry in available.items() for name, value in _values(entry)}

    def said(i: int, order: int) -> dict:
        answers = {key: entry.evaluation.judgments.mean[i, order] for key, entry in available.items()}
        return {"probabilities": {key: round(float(answer), 6) for key, answer in answers.items()}}

    write_results(folder, metrics, best_entry(entries).evaluation.pairs, said)


def _values(entry: Entry) -> Iterator[tuple[str, float]]:
    yield from entry.evaluation.metrics.items()
    if isinstance(entry.recalibration, LogitMap):
        yield "fitted_slope", entry.recalibration.slope
        yield "fitted_intercept", entry.recalibration.intercept


def judge_names(paths: Sequence[str]) -> dict[str, str]:
    """Short names of judges, to their paths: empty for a single one, else the last part that tells them apart.

    Raises:
        ValueError: If there is none, or one is there twice.
    """
    if not paths or len(set(paths)) < len(paths):
        raise ValueError(f"judge is {list(paths)}; at least one is wanted, and each once")
    if len(paths) == 1:
        return {"": paths[0]}
    parts = [Path(path).parts for path in paths]
    depth = next(n for n in range(1, 1 + max(map(len, parts))) if len({p[-n:] for p in parts}) == len(parts))
    return {"/".join(part[-depth:]): path for part, path in zip(parts, paths, strict=True)}


def save_recalibration(
    kind: str, entries: Sequence[Entry], judge: Judge, folder: str | Path, name: str = ""
) -> Recalibration:
    """Writes the map of that kind that was fitted to `answer_mean` into a judge's folder, for `Judge` to apply.

    Args:
        kind: A kind of recalibration among the variants of the comparison.
        entries: Of the comparison.
        judge: The judge.
        folder: Its folder.
        name: Its name in the entries.

    Raises:
        ValueError: If the comparison holds no such map, or the judge is not in a local folder.
    """
    wanted = [e for e in entries if (e.judge, e.method, e.steps) == (name, "answer_mean", (kind,))]
    if not wanted or wanted[0].recalibration is None:
        raise ValueError(f"nothing to save: the comparison has no answer_mean with {kind!r} on top")
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a local folder, so no recalibration can be saved with it")
    judge.recalibration = wanted[0].recalibration
    judge.save_format(folder)
    return judge.recalibration
