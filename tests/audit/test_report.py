"""The page of an audit: its content, and that hostile texts stay texts."""

import shutil
import subprocess

import numpy as np
import pytest

from autorater.audit.plots import audit_figure, prepare_deviations, prepare_winners
from autorater.audit.predictions import recorded_predictions
from autorater.audit.probes import PROBES
from autorater.audit.report import _texts, audit_metrics_of, audit_summary, counts_line, write_audit_report
from autorater.audit.results import measure, recorded_flips, write_flips
from autorater.audit.verdict import audit_verdict, bias_state, trait_verdicts
from autorater.judges.recorded import JudgedPair
from autorater.report.glossary import GLOSSARY
from tests.report.test_page import HOSTILE, Page


def recorded(p_ab, p_ba, text="fine", **columns):
    return [
        JudgedPair(
            f"{text}{i}", (float(a), float(b)), 1.0,
            {"prompt": f"{text} {i}", "response_a": text, "response_b": text, "group": f"{text}{i % 2}", **columns},
        )
        for i, (a, b) in enumerate(zip(p_ab, p_ba, strict=True))
    ]  # fmt: skip


def page_of(folder, pairs, title="An audit", settings=None):
    predictions = recorded_predictions(pairs, ("group",))
    metrics = measure(predictions, n_bootstrap=100)
    groups = {name: measure(predictions.of_group(name), 0) for name in dict.fromkeys(predictions.pairs.groups)}
    flips, n_flips = write_flips(folder, recorded_flips(pairs, predictions))
    write_audit_report(
        folder, {"swap": predictions}, {"swap": metrics}, groups, flips, n_flips, title=title, settings=settings or {}
    )
    return (folder / "report.html").read_text(encoding="utf-8"), metrics, groups


@pytest.fixture
def answers():
    draw = np.random.default_rng(0)
    p_ab = draw.random(60)
    return p_ab, np.clip(1 - p_ab + draw.normal(0.15, 0.1, 60), 0, 1)


def test_contents(answers, tmp_path):
    html, metrics, groups = page_of(tmp_path, recorded(*answers), settings={"judge": "m", "api_key": "secret"})
    text = Page(html).text
    assert audit_verdict(metrics, "swap") in text
    assert "The judge favours the response shown second (p < 0.001)" in text
    assert f"{metrics['consistency']:.3f}" in text
    assert f"[{metrics['consistency_low']:.3f}, {metrics['consistency_high']:.3f}]" in text
    assert "60 pairs compared" in text
    assert "|p_sym − 0.5|" in text
    assert "The judge's preference for a response twice as long" not in text, "all are as long"
    assert "Effects that can be seen" in text
    assert metrics["symmetry_deviation_mean_detectable"] == pytest.approx(
        1.43 * (metrics["symmetry_deviation_mean_high"] - metrics["symmetry_deviation_mean_low"]) / 2, rel=0.01
    )
    assert "Length ratio of the responses" in text
    assert "fine1" in text
    assert "secret" not in text
    assert "favours the response shown second" in audit_summary({"swap": metrics}, groups)


@pytest.mark.parametrize("probe", [probe for probe in PROBES if probe != "swap"])
def test_other_probes_have_the_effect_of_a_change_and_no_position(answers, tmp_path, probe):
    predictions = recorded_predictions(recorded(*np.repeat(answers, 2, axis=1)), ("group",))
    metrics = measure(predictions, 50, probe)
    groups = {"g": measure(predictions, 0, probe)}
    write_audit_report(tmp_path, {probe: predictions}, {probe: metrics}, groups, [], 0, title="An audit", settings={})
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    summary = audit_summary({probe: metrics}, groups)
    for text in (page, summary):
        for word in ("Position", "position", "slot", "Primacy", "Recency"):
            assert word not in text
        assert "Effect of change (absolute)" in text
    assert f"above 0 favours {GLOSSARY['probes'][probe]['favoured']}" in page
    assert "Effect of the change by type of pair" in page
    assert "Position bias (signed)" in audit_summary({"swap": metrics}, groups)


def test_labels_fit_the_terminal():
    assert max(len(metric.label) for probe in PROBES for metric in audit_metrics_of(probe)) <= 27


@pytest.mark.parametrize("p_ab", [[0.9, 0.3], [1, 0]])
def test_figures_name_the_presentations_of_the_probe(p_ab):
    left, right = audit_figure(np.array(p_ab), np.array(p_ab), "style").axes
    assert "when B is in Markdown" in left.get_xlabel()
    assert "when A is in Markdown" in left.get_ylabel()
    assert right.get_xlabel() == "−1: favours the response in prose\n+1: favours the response in Markdown"
    assert "favours the response in Markdown" in [" ".join(text.get_text().split()) for text in left.texts]


def test_hostile_texts_are_only_text(answers, tmp_path):
    tame = Page(page_of(tmp_path, recorded(*answers, "x", other="x"), settings={"x": "x"})[0])
    pairs = recorded(*answers, HOSTILE, other=HOSTILE)
    html, metrics, groups = page_of(tmp_path, pairs, title=HOSTILE, settings={HOSTILE: HOSTILE})
    shown = Page(html)
    assert shown.elements == tame.elements
    assert "<script>alert(1)</script>" in shown.text
    assert not set("\x00\x1b\x08\u202e\u2066\ud800") & set(html)
    assert "http" not in html.replace("http-equiv", "")
    assert not set("\x00\x1b\x08\u202e") & set(audit_summary({"swap": metrics}, groups))


def test_a_column_called_answers_is_shown(answers, tmp_path):
    html, _, _ = page_of(tmp_path, recorded(*answers, answers=["forty-two"]))
    assert "forty-two" in Page(html).text


def test_a_conversation_is_shown_turn_by_turn():
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    shown = dict(_texts({"probe": "swap", "prompt": turns, "response_a": ["no", "turns"]}))
    assert list(shown.values()) == ["User: Why?\n\nAssistant: So.", "['no', 'turns']"]


def test_a_label_has_three_digits():
    assert _texts({"probe": "swap", "label": 1 / 3}) == [("Label", "0.333")]


def test_a_megabyte_is_folded_and_cut(answers, tmp_path):
    html, _, _ = page_of(tmp_path, recorded(*answers, other="<" * 1_000_000))
    assert len(html) < 1_000_000
    assert "other (1,000,000 characters)" in html


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_a_browser_shows_it_and_runs_nothing(answers, tmp_path):
    """The titles that scripts would set do not appear in the page as Chromium has built it."""
    attack = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    page_of(tmp_path, recorded(*answers, attack))
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--dump-dom",
         f"file://{tmp_path}/report.html"],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert "<title>An audit</title>" in done.stdout
    assert "<script" not in done.stdout


def test_what_else_sways_the_judge():
    known = {"length_bias": 0.02, "length_bias_low": 0.01, "length_bias_high": 0.03}
    (sentence,) = trait_verdicts(known)
    assert sentence == (
        "Beyond people's votes, the judge's preference for a response twice as long is +0.020 [+0.010, +0.030]: "
        "a bias for it."
    )
    assert "a bias against it" in trait_verdicts({k: -v for k, v in known.items()} | {"length_bias_high": -0.01})[0]
    assert "no bias is seen" in trait_verdicts(known | {"length_bias_low": -0.01})[0]
    effect = {"self_effect": 0.1, "self_effect_low": 0.0, "self_effect_high": 0.2}
    assert "without votes it is not known" in trait_verdicts(effect)[0]
    assert len(trait_verdicts(known | effect)) == 2
    assert trait_verdicts({"length_bias": 0.02}) == [], "no interval"


def test_verdicts_without_probabilities_are_a_table_of_winners(tmp_path):
    html, metrics, _ = page_of(tmp_path, recorded([0, 0, 1, 0.5] * 5, [1, 0, 1, 0.5] * 5))
    assert "|p_sym − 0.5|" not in html
    assert "logit_shift" not in metrics
    counts = prepare_winners([0, 0, 1, 0.5], [1, 0, 1, 0.5])["counts"]
    # rows: winner where B is shown first; columns: where B is shown second
    assert counts.tolist() == [[1, 0, 1], [0, 1, 0], [1, 0, 0]]


def test_deviations_fall_into_a_bin_around_zero():
    prepared = prepare_deviations([0.1, 0.5, 1.0], [0.9, 0.5, 1.0])
    assert prepared["share"][20] == pytest.approx(2 / 3)
    assert prepared["share"][-1] == pytest.approx(1 / 3)


def test_states_and_caveats():
    metrics = {
        "n_pairs": 90.0, "n_repeats": 1.0, "flip_rate": 0.2, "symmetry_deviation_abs": 0.1, "sharpness": 0.0001,
        "symmetry_deviation_mean": 0.0, "preference_fairness": 0.0, "p_value_verdicts": 0.5, "parse_rate": 0.9,
        "n_unparsed": 8.0, "n_refused": 1.0, "n_not_asked": 1.0, "n_unparsed_answers": 9.0, "n_refused_answers": 1.0,
    }  # fmt: skip
    assert bias_state(metrics) == "inconclusive"
    sentence = audit_verdict(metrics, "swap")
    assert "No side is favoured (p = 0.500)" in sentence
    assert "10 of 100 pairs could not be compared" in sentence
    assert "Only 90.0 % of its answers parse" in sentence
    none = dict.fromkeys(("n_unparsed", "n_refused", "n_not_asked", "n_unparsed_answers", "n_refused_answers"), 0.0)
    exact = "On average only 90.0 % of the probability is on answers that parse"
    assert exact in audit_verdict(metrics | none, "swap")
    assert counts_line(metrics | none) == "90 pairs compared."
    assert counts_line(metrics) == (
        "90 pairs compared; left out: 8 unparsed, 1 refused, 1 not judged (in total 9 unparsed and 1 refused answers)."
    )
    assert "hardly vary" in sentence
    repeated = {"n_repeats": 3.0, "p_value_any_slot": 0.2, "repeated_flip_rate": 0.0}
    assert bias_state(metrics | repeated | {"repeated_spread": 0.2}) == "noisy"
    assert bias_state(metrics | repeated | {"repeated_spread": 0.0}) == "inconclusive", "repetitions agree"
    assert bias_state(metrics | {"flip_rate": 0, "symmetry_deviation_abs": 0}) == "consistent"
    assert bias_state(metrics | {"p_value_verdicts": 0.03, "p_value_probabilities": 0.03}) == "inconclusive", "Holm"
    assert bias_state(metrics | {"p_value_verdicts": 0.02, "p_value_probabilities": 0.03}) == "biased"
    assert "No result: no pair" in audit_verdict(metrics | {"n_pairs": 0.0}, "swap")
