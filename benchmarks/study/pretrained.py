"""One run of a study on a pretrained model; the result is a dictionary as in `benchmarks.study.run`.

    warm_start   the model as it comes: the number that greedy decoding writes, the mean of all numbers, the letters
    probe        a linear probe on its frozen states
    text         text baselines
    the others   a recipe in a process of its own, in the run's folder. A stopped recipe resumes from its checkpoint. A
                 folder with a finished run of the same settings is taken as it is; one with other settings, or with
                 another judge behind `method:NAME`, is refused

A trained judge has predictions `answer_mean` and, of the same prompts before training, `before`. All methods are
measured on the pairs whose prompts fit the model as it comes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from autorater.alignment.judge import LabelJudge
from autorater.data.atomic import write_json
from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.evaluation.judge import Evaluation, measure
from autorater.evaluation.objective import as_shown, untrained
from autorater.evaluation.stored_judgments import judge_in_parts
from autorater.judges import Judge, Judgments, LinearProbe
from autorater.judges.identity import model_digest
from autorater.judges.methods import LetterLogits, Verbalized
from autorater.judges.saved import read_format
from autorater.models.loading import load_policy
from autorater.training.checkpointing.stages import RECORD, read_record
from autorater.training.recipe_process import run_recipe
from benchmarks.study.data import TEST, StudyArguments, prepare_dataset
from benchmarks.study.plan import METHOD, Run
from benchmarks.study.results import BEFORE, LETTERS, MEAN, OBJECTIVE, VERBALIZED
from benchmarks.study.run import fitting_tests, known_targets, record, text_baselines
from benchmarks.study.training import parse_settings

RECIPES = {"grpo": "grpo", "ppo": "ppo", "sft": "sft", "alignment": "align"}
"""The recipe of every trainer."""
NEEDS = "needs.json"
"""In the folder of a run: the `run.json` of the judges that it needs."""
_ROOT = Path(__file__).parents[2]
_OF_THE_STUDY = {f.name for f in fields(StudyArguments)}


def train_and_evaluate(run: Run, folder: str | Path) -> dict:
    """Trains and evaluates one run; errors as in `benchmarks.study.run`, and if the recipe fails."""
    began, cpu_began, start = time.perf_counter(), time.process_time(), run.start or run
    base = str(start.settings["model_name_or_path"])
    own = run if run.trainer in ("text", "probe") else start
    args, study, _ = parse_settings("warm_start", _without_model(own.settings), Path(folder))
    data, tests = prepare_dataset(args, run.seed, dict(run.tests))
    model, tokenizer = load_policy(base, dtype="float32")
    prompt_format = args.prompt_format.with_options(study.zero_shot_template)
    judge = Judge(model, tokenizer, prompt_format, float(start.settings["answer_step"]))
    tests, result = fitting_tests(run, data, tests, judge, args.max_prompt_tokens)
    result["pairs"] = {name: known_targets(pairs) for name, pairs in tests.items()}
    judgments = Path(folder, "judgments")
    if run.trainer == "warm_start":
        result["predictions"] = _as_it_comes(judge, base, tests, judgments, study.n_bootstrap)
    elif run.trainer == "text":
        result["predictions"] = text_baselines(data, tests, study.n_bootstrap)
    elif run.trainer == "probe":
        probe = LinearProbe.fit_model(model, tokenizer, data.train, run.seed, name=base)
        predicted = {name: probe.probabilities(pairs) for name, pairs in tests.items()}
        result |= {"n_train": len(data.train), "training_seconds": time.perf_counter() - began}
        result["predictions"] = {MEAN: _records(tests, predicted, study.n_bootstrap)}
    else:
        del model, judge  # the recipe needs the memory
        place = Path(folder, run.folder)
        _check_needs(run, folder)
        run_recipe(_ROOT / "recipes" / f"{RECIPES[run.trainer]}.py", recipe_options(run, place, judgments))
        result |= _trained(place, base, tests, study.n_bootstrap, judgments)
    clocks = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu_began}
    return result | {name: round(value, 1) for name, value in clocks.items()}


def _check_needs(run: Run, folder: str | Path) -> None:
    """Records the judges that a run needs. Trained again they are others in the same folders, which no recipe notices.

    Raises:
        UserError: If the folder of the run was begun with others.
    """
    place, needs = Path(folder, run.folder), {}
    for other in run.needs:
        needs[other.method] = read_record(Path(folder, other.folder))
    earlier = json.loads((place / NEEDS).read_text(encoding="utf-8")) if (place / NEEDS).exists() else needs
    if changed := [method for method, record in needs.items() if earlier.get(method) != record]:
        raise UserError(
            f"{place} was begun with another judge of {', '.join(changed)}, which has been trained again since; "
            "remove the folder to train this method again too"
        )
    if needs:
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / NEEDS, needs)


def recipe_options(run: Run, place: Path, judgments: Path) -> dict[str, object]:
    """The options of the recipe of a run: its settings without those of the study.

    Judgments before training are kept in the folder `judgments`, for all methods with the same prompts. `method:NAME`
    as `model_name_or_path` or `warm_start_verdicts` is the judge that method NAME trains on the same dataset with the
    same seed.
    """
    options = {name: value for name, value in run.settings.items() if name not in _OF_THE_STUDY}
    for name in ("model_name_or_path", "warm_start_verdicts"):
        value = str(options.get(name, ""))
        if value.startswith(METHOD):
            options[name] = str(place.with_name(value.removeprefix(METHOD)))
    options["untrained_judgments_dir"] = str(judgments)
    if run.trainer == "alignment":
        options |= {"data": "pairs"}
        # its answers are letters, with which this is not possible
        recalibration = ("recalibration_dataset_name", "recalibration", "recalibration_labels")
        unused = ("answer_step", *recalibration, "untrained_judgments_dir")
    elif options.get("judgment") == "pointwise":
        # it has its own template and digits, and no position bias
        unused = ("answer_step", "prompt_template", "recalibration")
    else:
        unused = ()
    options = {name: value for name, value in options.items() if name not in unused}
    return options | {"output_dir": str(place), "run_name": f"{run.method} ({run.dataset}, seed {run.seed})"}


def _without_model(settings: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in settings.items() if name != "model_name_or_path"}


def _as_it_comes(
    judge: Judge, base: str, tests: Mapping[str, Sequence[Pair]], folder: Path, n_bootstrap: int
) -> dict[str, dict]:
    """The model without training, by its numbers and by its letters; judgments are stored in parts."""
    predictions: dict[str, dict] = {VERBALIZED: {}, MEAN: {}, LETTERS: {}}
    about = (model_digest(base), judge.encoder.format, judge.encoder.pieces, judge.tree.step)
    for name, pairs in tests.items():
        numbers = judge_in_parts(judge, pairs, folder, ("numbers", *about))
        letters = judge_in_parts(LetterLogits(judge), pairs, folder, ("letters", *about))
        of_method = {VERBALIZED: Verbalized.of(numbers), MEAN: numbers, LETTERS: letters}
        for method, judgments in of_method.items():
            predictions[method][name] = record(measure(pairs, judgments, n_bootstrap=n_bootstrap))
    return predictions


def _records(tests: Mapping[str, list[Pair]], predicted: Mapping[str, Judgments], n_bootstrap: int) -> dict:
    return {
        name: record(measure(tests[name], judgments, n_bootstrap=n_bootstrap)) for name, judgments in predicted.items()
    }


def _trained(
    place: Path, base: str, tests: Mapping[str, list[Pair]], n_bootstrap: int, judgments_folder: Path
) -> dict:
    """Predictions of the trained judge and of the model before, from the files and the judge that the recipe left.

    Judgments of the model before are stored, because other runs have the same prompts.
    """
    metrics = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
    record_of_run = json.loads((place / RECORD).read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (place / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = read_predictions(place / "predictions.jsonl", tests[TEST], n_bootstrap)
    predictions = {name: {TEST: record(evaluation)} for name, evaluation in evaluations.items()}
    if OBJECTIVE in tests:
        kind = LabelJudge if "label_format" in read_format(str(place)) else Judge
        judge = kind.from_pretrained(str(place), dtype="float32")
        pairs, step = as_shown(judge, tests[OBJECTIVE]), getattr(judge.tree, "step", None)
        about = (kind.__name__, model_digest(base), judge.encoder.format, judge.encoder.pieces, step)
        before = judge_in_parts(untrained(judge, base), pairs, judgments_folder, ("before training", *about))
        for name, judgments in ((MEAN, judge.probabilities(pairs)), (BEFORE, before)):
            predictions[name][OBJECTIVE] = record(measure(pairs, judgments, n_bootstrap=n_bootstrap))
    return {
        "predictions": predictions,
        "training_seconds": metrics["training_seconds"] + record_of_run.get("warm_start_seconds", 0.0),
        "training_tokens": next((line["num_tokens"] for line in reversed(lines) if "num_tokens" in line), None),
        "steps": lines[-1]["step"],
    }


def read_predictions(path: Path, pairs: list[Pair], n_bootstrap: int) -> dict[str, Evaluation]:
    """The judgments of some pairs after and before training, from the `predictions.jsonl` of a run.

    Raises:
        UserError: If the file lacks a pair, or has another label for it.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_pair: dict[str, dict[str, dict]] = {}
    for line in lines:
        by_pair.setdefault(line["id"], {})[line["order"]] = line
    for pair in pairs:
        if pair.id not in by_pair or abs(by_pair[pair.id]["ab"]["label"] - pair.label) > 1e-6:
            raise UserError(f"{path}: no prediction for pair {pair.id} with label {pair.label}; is it of other data?")

    def columns(name: str) -> np.ndarray:
        return np.array([[by_pair[pair.id][order][name] for order in ("ab", "ba")] for pair in pairs], dtype=float)

    after = Judgments(*(columns(name) for name in ("probability", "mode", "spread", "valid")))
    mean = columns("probability_before")
    before = replace(after, mean=mean, mode=mean, spread=np.zeros_like(mean), valid=np.ones_like(mean))
    return {
        name: measure(pairs, judgments, n_bootstrap=n_bootstrap)
        for name, judgments in ((MEAN, after), (BEFORE, before))
    }
