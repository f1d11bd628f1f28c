"""Methods compared: post-processing, the pairs it is fitted on, and the files."""

import json
from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from autorater.data.errors import UserError
from autorater.data.pairs import split_by
from autorater.data.population import simulate_pairs
from autorater.evaluation.arguments import variant_steps
from autorater.evaluation.judge import Evaluation
from autorater.evaluation.method_judgments import ComparedPairs, Storage
from autorater.evaluation.methods import (
    ANSWER_MEAN_AS_SAVED,
    VARIANTS,
    Entry,
    best_entry,
    compare_methods,
    group_column,
    grouped,
    judge_names,
    model_win_rates,
    save_recalibration,
    write_comparison,
)
from autorater.judges import Judge, Judgments, LinearProbe
from autorater.judges.calibrators import LogitMap, fit_recalibration
from autorater.prompts.templates import PromptFormat
from tests.conftest import make_model, make_tokenizer


@pytest.fixture(scope="module")
def judge():
    tokenizer = make_tokenizer("split", words=False)  # probabilities that do not depend on the batch to 1e-9
    return Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("compact"), answer_step=0.1)


@pytest.fixture(scope="module")
def pairs():
    return simulate_pairs(40, seed=0, n_votes=3).pairs


@pytest.fixture(scope="module")
def compared(judge, pairs):
    measured, calibration = split_by(pairs, "topic", 0.4, 0)
    methods = ["verbalized_reasoning", "letter_logits", "answer_mean"]
    entries = compare_methods(judge, ComparedPairs(measured, calibration), methods=methods, n_bootstrap=20)
    return calibration, measured, entries


def test_every_method_has_every_variant_or_a_reason(compared):
    _, measured, entries = compared
    keys = [entry.key for entry in entries]
    variants = ["", *(f"+{variant}" for variant in VARIANTS[1:])]
    expected = [f"{method}{variant}" for method in ("letter_logits", "answer_mean") for variant in variants]
    assert keys == ["verbalized_reasoning", *expected]
    assert entries[0].evaluation is None
    assert "compact" in entries[0].reason
    assert all(len(entry.evaluation.judgments) == len(measured) for entry in entries[1:])


def test_recalibrations_are_fitted_on_the_calibration_pairs_alone(judge, compared):
    calibration, _, entries = compared
    by_key = {entry.key: entry for entry in entries}
    judgments, labels = judge.probabilities(calibration), [pair.label for pair in calibration]
    expected = fit_recalibration("platt", judgments.p_ab, judgments.p_ba, labels)
    fitted = by_key["answer_mean+platt"]
    assert fitted.recalibration.slope == pytest.approx(expected.slope, rel=1e-3)
    raw = by_key["answer_mean"].evaluation.judgments
    np.testing.assert_allclose(fitted.evaluation.judgments.mean, fitted.recalibration(raw.mean), atol=1e-9)

    swapped = judgments.swap_averaged()
    expected = fit_recalibration("odd_temperature", swapped.p_ab, swapped.p_ba, labels)
    chained = by_key["answer_mean+swap+odd_temperature"]
    assert chained.recalibration.slope == pytest.approx(expected.slope, rel=1e-3)
    np.testing.assert_allclose(chained.evaluation.judgments.p_ab, expected(raw.p_sym), rtol=1e-3)
    assert chained.evaluation.metrics["symmetry_deviation_abs"] < 1e-9


def test_the_probe_is_calibrated_on_predictions_it_was_not_fitted_on(judge, pairs):
    measured, calibration = split_by(pairs, "topic", 0.4, 0)
    options = {"methods": ["linear_probe"], "variants": ["none", "platt"], "n_bootstrap": 0}
    raw, platt = compare_methods(judge, ComparedPairs(measured, calibration), **options)
    fitted = LinearProbe.fit_model(judge.model, judge.tokenizer, calibration)
    np.testing.assert_allclose(raw.evaluation.judgments.p_ab, fitted.probabilities(measured).p_ab, atol=1e-9)
    expected = fit_recalibration("platt", fitted.out_of_fold, 1 - fitted.out_of_fold, [p.label for p in calibration])
    assert platt.recalibration.slope == pytest.approx(expected.slope, rel=1e-3)

    raw, platt = compare_methods(judge, ComparedPairs(measured[:5], calibration, measured[5:]), **options)
    other = LinearProbe.fit_model(judge.model, judge.tokenizer, measured[5:])
    np.testing.assert_allclose(raw.evaluation.judgments.p_ab, other.probabilities(measured[:5]).p_ab, atol=1e-9)
    p = other.probabilities(calibration)
    expected = fit_recalibration("platt", p.p_ab, p.p_ba, [pair.label for pair in calibration])
    assert platt.recalibration.slope == pytest.approx(expected.slope, rel=1e-3)


def test_group_column(pairs):
    assert group_column(pairs) == "topic"
    assert group_column([replace(pair, topic=None) for pair in pairs]) == "prompt"
    assert group_column([replace(pair, topic="x") for pair in pairs]) == "prompt"
    assert group_column([replace(pair, topic="x", prompt="y") for pair in pairs]) == "id"


def test_variants_and_methods_are_checked_before_anything_is_judged(judge, pairs):
    assert variant_steps("none") == ()
    assert variant_steps("swap+isotonic") == ("swap", "isotonic")
    with pytest.raises(UserError, match="variant 'swap\\+magic': unknown step 'magic'"):
        variant_steps("swap+magic")
    with pytest.raises(UserError, match="unknown judging method 'magic'"):
        compare_methods(judge, ComparedPairs(pairs, pairs), methods=["magic"])


def test_best_entry_has_the_lowest_score(compared):
    entries = compared[2]
    scores = [entry.evaluation.metrics["excess_brier"] for entry in entries[1:]]
    assert best_entry(entries).evaluation.metrics["excess_brier"] == min(scores)
    with pytest.raises(UserError, match=r"no judging method is available.*verbalized: too long"):
        best_entry([Entry("verbalized", reason="too long")])


def test_files(compared, tmp_path):
    _, measured, entries = compared
    write_comparison(tmp_path, entries)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    by_key = {entry.key: entry for entry in entries}
    assert metrics["answer_mean+swap/brier"] == by_key["answer_mean+swap"].evaluation.metrics["brier"]
    assert metrics["answer_mean+temperature/fitted_slope"] == by_key["answer_mean+temperature"].recalibration.slope
    assert not any(key.startswith("verbalized") for key in metrics)
    records = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text().splitlines()]
    assert [(r["id"], r["order"]) for r in records] == [(p.id, order) for p in measured for order in ("ab", "ba")]
    judgments = by_key["letter_logits"].evaluation.judgments
    assert records[1]["probabilities"]["letter_logits"] == pytest.approx(judgments.p_ba[0], abs=1e-6)
    assert records[1]["label"] == 1 - measured[0].label


def test_groups(compared):
    evaluation = compared[2][-1].evaluation
    by_kind = grouped(evaluation, n_bootstrap=0)
    assert set(by_kind) <= {"topic", "models", "characters of both responses"}
    named = replace(
        evaluation,
        pairs=[replace(p, model_a="ab"[i % 2], model_b="ba"[i % 2]) for i, p in enumerate(evaluation.pairs)],
    )
    assert "models" not in grouped(named, n_bootstrap=0), "a pair of models and its swap are one group"
    (rate,) = model_win_rates(named, n_bootstrap=10)
    assert (rate.model, rate.opponent, rate.n_pairs) == ("a", "b", len(named.pairs))
    assert model_win_rates(evaluation) == []
    of_a = [replace(p, weight=2.0 * (p.model_a == "a")) for p in named.pairs]
    (rate,) = model_win_rates(replace(named, pairs=of_a), n_bootstrap=0)
    assert rate.voted == pytest.approx(np.mean([1 - p.label for p in of_a if p.weight]))


def test_intervals_know_the_clusters_of_the_evaluation(compared):
    judged = compared[2][-1].evaluation
    pairs = [replace(p, id=str(i), topic=f"topic {i % 2}") for i, p in enumerate([*judged.pairs] * 3)]
    pairs = [replace(p, model_a="ac"[i % 2], model_b="bd"[i % 2]) for i, p in enumerate(pairs)]
    values = np.random.default_rng(0).random((len(pairs), 2))
    judgments = Judgments(values, values, np.zeros_like(values), np.ones_like(values))
    of_pairs = Evaluation(pairs, judgments, judged.metrics)
    clustered = replace(of_pairs, clusters=np.argsort([p.label for p in pairs]).argsort() // 7)  # like labels together
    rates = [model_win_rates(one)[0] for one in (of_pairs, clustered)]
    widths = [rate.voted_high - rate.voted_low for rate in rates]
    assert widths[1] > 1.2 * widths[0]
    of_pairs, clustered = grouped(of_pairs), grouped(clustered)
    assert of_pairs["models"][0].metrics["brier_low"] != clustered["models"][0].metrics["brier_low"]
    assert of_pairs["topic"] == clustered["topic"]


def test_saved_recalibration_is_measured_and_saved(judge, compared, tmp_path):
    calibration, measured, entries = compared
    saved = save_recalibration("odd_temperature", entries, judge, tmp_path)
    assert json.loads((tmp_path / "autorater.json").read_text())["recalibration"]["slope"] == saved.slope
    again = compare_methods(
        judge,
        ComparedPairs(measured, calibration),
        methods=["answer_mean"],
        variants=["none", "odd_temperature"],
        n_bootstrap=0,
    )
    assert [entry.method for entry in again] == ["answer_mean", "answer_mean", ANSWER_MEAN_AS_SAVED]
    np.testing.assert_allclose(
        again[2].evaluation.judgments.mean, again[1].evaluation.judgments.mean, err_msg="recalibrated twice"
    )
    judge.recalibration = None
    with pytest.raises(UserError, match="no answer_mean with post-processing 'magic'"):
        save_recalibration("magic", entries, judge, tmp_path)
    with pytest.raises(UserError, match="not a local folder"):
        save_recalibration("platt", entries, judge, tmp_path / "nowhere")


def test_a_recalibration_is_not_saved_with_the_judge_of_another_prompt(judge, compared, tmp_path):
    *_, entries = compared
    judge.save_format(tmp_path)
    saved = (tmp_path / "autorater.json").read_text()
    others = {"prompt_format": replace(judge.encoder.format, system_prompt="Be fair."), "answer_step": 0.5}
    for name, value in others.items():
        own = {"prompt_format": judge.encoder.format, "answer_step": 0.1}
        other = Judge(judge.model, judge.tokenizer, **own | {name: value})
        with pytest.raises(UserError, match=f"is a judge with another {name}; expected its own"):
            save_recalibration("platt", entries, other, tmp_path)
    assert (tmp_path / "autorater.json").read_text() == saved
    save_recalibration("platt", entries, copy(judge), tmp_path)
    assert (tmp_path / "autorater.json").read_text() != saved


def test_a_probe_is_fitted_once(judge, pairs, tmp_path, monkeypatch):
    measured, calibration = split_by(pairs, "topic", 0.4, 0)
    options = {"methods": ["linear_probe"], "variants": ["none", "platt"], "n_bootstrap": 0}
    options["storage"] = Storage(tmp_path, "m")
    first = compare_methods(judge, ComparedPairs(measured, calibration), **options)
    fit = LinearProbe.fit_model
    monkeypatch.setattr(LinearProbe, "fit_model", lambda *args, **kwargs: pytest.fail("fitted again"))
    again = compare_methods(judge, ComparedPairs(measured, calibration), **options)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.evaluation.judgments.mean, other.evaluation.judgments.mean)
        assert one.recalibration == other.recalibration
    monkeypatch.setattr(LinearProbe, "fit_model", fit)
    other_labels = [replace(pair, label=1 - pair.label) for pair in calibration]
    other = compare_methods(judge, ComparedPairs(measured, other_labels), **options)
    assert (other[0].evaluation.judgments.mean != first[0].evaluation.judgments.mean).any(), "nothing stale is used"


def test_a_part_of_a_method_that_reasons_is_small(judge, pairs, tmp_path, monkeypatch):
    judge = Judge(judge.model, judge.tokenizer, PromptFormat("full"), answer_step=0.1)
    read, judged = Judge._read_after_reasoning, []

    def counted(self, prompts):
        if len(judged) >= stop_at:
            raise KeyboardInterrupt
        judged.extend(prompts)
        return read(self, prompts)

    def compare():
        options = {"methods": ["verbalized_reasoning"], "variants": ["none"], "n_bootstrap": 0}
        options |= {"storage": Storage(tmp_path, "m"), "max_reasoning_tokens": 2}
        return compare_methods(judge, ComparedPairs(pairs, []), **options)

    monkeypatch.setattr(Judge, "_read_after_reasoning", counted)
    stop_at = 33
    with pytest.raises(KeyboardInterrupt):
        compare()
    parts = [len(Judgments.load(path)) for path in tmp_path.glob("*/*.npz")]
    assert set(parts) == {16}
    judged.clear()
    stop_at = 1000
    compare()
    assert len(judged) == 2 * (len(pairs) + 3 - sum(parts)), "with three content-free pairs"


def test_a_damaged_file_of_a_probe_is_made_again(judge, pairs, tmp_path, caplog):
    measured, calibration = split_by(pairs, "topic", 0.4, 0)
    options = {"methods": ["linear_probe"], "variants": ["none"], "n_bootstrap": 0}
    options["storage"] = Storage(tmp_path, "m")
    (first,) = compare_methods(judge, ComparedPairs(measured, calibration), **options)
    for path in tmp_path.glob("*/all.npz"):
        content = path.read_bytes()
        path.write_bytes(content[:50])
        (again,) = compare_methods(judge, ComparedPairs(measured, calibration), **options)
        np.testing.assert_array_equal(again.evaluation.judgments.mean, first.evaluation.judgments.mean)
        assert path.read_bytes() == content
    assert caplog.text.count("its pairs are judged again") == 2


def test_a_saved_recalibration_that_makes_single_answers_worse_is_warned_about(judge, compared, tmp_path, caplog):
    *_, entries = compared
    judge = copy(judge)

    def with_loss(entry, loss):
        metrics = {**entry.evaluation.metrics, "log_loss": loss}
        return replace(entry, evaluation=replace(entry.evaluation, metrics=metrics))

    for loss, message in ((0.75, "single answers to the measured pairs rises from 0.700 to 0.750"), (0.7, "")):
        losses = {(): 0.7, ("platt",): loss}
        changed = [with_loss(e, losses[e.steps]) if e.steps in losses and e.evaluation else e for e in entries]
        caplog.clear()
        save_recalibration("platt", changed, judge, tmp_path)
        assert message in caplog.text
        assert bool(caplog.text) == bool(message)


def test_names_of_judges():
    assert judge_names(["runs/a"]) == {"": "runs/a"}
    assert judge_names(["runs/a", "org/b"]) == {"a": "runs/a", "b": "org/b"}
    assert judge_names(["x/a", "y/a"]) == {"x/a": "x/a", "y/a": "y/a"}
    assert Entry("verbalized", ("swap",), "a").key == "a/verbalized+swap"
    for paths in ([], ["a", "a"]):
        with pytest.raises(UserError, match="judge is"):
            judge_names(paths)


def test_recalibrations_have_a_text(compared):
    texts = {entry.key: str(entry.recalibration) for entry in compared[2] if entry.recalibration}
    assert texts["answer_mean+isotonic"].endswith("steps")
    assert texts["answer_mean+temperature"].startswith("T = ")
    assert str(LogitMap("batch", intercept=-0.5)) == "shift -0.50"
