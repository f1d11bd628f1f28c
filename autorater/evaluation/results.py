"""The files of a run: its output directory, `metrics.json` and `predictions.jsonl`. Requires no torch."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from autorater.data.atomic import open_atomic, write_json
from autorater.data.errors import UserError, refuse_overwriting
from autorater.data.pairs import Pair
from autorater.evaluation.judge import Evaluation
from autorater.judges.options import RECORDED

METRICS, PREDICTIONS = "metrics.json", "predictions.jsonl"
RECORD = "run.json"  # the record of a training run, beside its results


def prepare_output_dir(path: str | Path) -> Path:
    """Creates the output folder, or raises a `UserError`: a run that cannot write fails at its start."""
    path = Path(path)
    probe = path / f".writable-{os.getpid()}"  # several processes may try at once
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise UserError(f"output_dir {str(path)!r} cannot be written: {error.strerror or error}") from None
    return path


def refuse_results_of_judges(judges: Iterable[str], folder: Path) -> None:
    """UserError if results in a folder would replace recorded judgments to read, or those of a judge's training."""
    for judge in judges:
        if judge.startswith(RECORDED):
            refuse_overwriting(judge.removeprefix(RECORDED), folder / PREDICTIONS)
        elif Path(judge, RECORD).exists() and folder.samefile(judge):
            raise UserError(
                f"--output_dir: {folder} is the folder of {judge}, whose {METRICS} and {PREDICTIONS} would be "
                "overwritten; choose another"
            )


def write_run(folder: str | Path, before: Evaluation, after: Evaluation, *, training_seconds: float) -> None:
    """Writes `metrics.json` (keys `before/…` and `after/…`) and `predictions.jsonl`."""
    judgments = after.judgments

    def record(i: int, order: int) -> dict[str, float]:
        return {
            "probability": round(float(judgments.mean[i, order]), 6),
            "mode": float(judgments.mode[i, order]),
            "spread": round(float(judgments.spread[i, order]), 6),
            "valid": round(float(judgments.valid[i, order]), 6),
            "probability_before": round(float(before.judgments.mean[i, order]), 6),
        }

    write_metrics(folder, before_and_after(before.metrics, after.metrics, training_seconds))
    write_predictions(folder, after.pairs, record)


def write_metrics(folder: str | Path, metrics: Mapping[str, float]) -> None:
    """Writes `metrics.json` in one step."""
    write_json(Path(folder, METRICS), metrics)


def write_predictions(folder: str | Path, pairs: Sequence[Pair], record: Callable[[int, int], dict]) -> None:
    """Writes `predictions.jsonl` in one step, one line per pair and order.

    `record` returns the predictions for pair i in order 0 (ab) or 1 (ba), by name; the id, the order, the label and
    other targets of the pair are added.
    """
    with open_atomic(Path(folder, PREDICTIONS)) as file:
        for i, pair in enumerate(pairs):
            for order, (order_name, side) in enumerate((("ab", pair), ("ba", pair.swapped()))):
                prediction = {name: value for name, value in record(i, order).items() if value is not None}
                line = {"id": pair.id, "order": order_name, **prediction, **targets_of(side)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def targets_of(pair: Pair, *more: str) -> dict[str, object]:
    """What a line of predictions says of a pair, and `more` of its attributes; without those that it lacks."""
    names = ("label", "n_votes", "true_probability", "topic", *more)
    return {name: value for name in names if (value := getattr(pair, name)) is not None}


def before_and_after(
    before: Mapping[str, float], after: Mapping[str, float], training_seconds: float
) -> dict[str, float]:
    """Flat metrics with keys `before/…`, `after/…` and `training_seconds`."""
    metrics = {f"{when}/{k}": v for when, part in (("before", before), ("after", after)) for k, v in part.items()}
    return metrics | {"training_seconds": round(training_seconds, 1)}
