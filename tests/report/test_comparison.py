"""The page of a comparison shows the entries; it loads nothing and has no scripts."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from autorater.judges.calibrators import LogitMap
from autorater.metrics import Targets
from autorater.metrics.groups import group_metrics
from autorater.metrics.systems import win_rates
from autorater.report import comparison_table, write_comparison_report
from autorater.report.comparison import comparison_headline, full_name
from autorater.report.comparison_plots import prepare_metric
from tests.report.test_page import HOSTILE, Page, hostile


@pytest.fixture
def entries(judged):
    pytest.importorskip("torch")
    from autorater.evaluation.methods import Entry

    before, after = judged
    return [
        Entry("verbalized", (), evaluation=before),
        Entry("verbalized", ("swap", "odd_temperature"), "", after, LogitMap("odd_temperature", 0.5)),
        Entry("self_consistency_reasoning", reason="no words <script>"),
    ]


@pytest.fixture
def groups(judged):
    after = judged[1]
    judgments, names = after.judgments, np.arange(len(after.pairs)) % 3
    labels = [pair.label for pair in after.pairs]
    return {"topic": group_metrics(judgments.mean, Targets(labels, n_votes=10), names, n_bootstrap=20)}


@pytest.fixture
def page(tmp_path, groups):
    def write(entries, best=1, groups=groups, **values):
        write_comparison_report(
            tmp_path, entries, entries[best], entries[:1], groups=groups, summary="400 pairs", **values
        )
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


@pytest.mark.drawn
def test_contents(entries, page, tmp_path):
    text = Page(page(entries)).text
    metrics = entries[1].evaluation.metrics
    assert f"{metrics['excess_brier']:.4f}" in text
    assert f"[{metrics['ece_low']:.3f}, {metrics['ece_high']:.3f}]" in text
    assert "swap averaging + temperature on the symmetrized logit" in text
    assert "T = 2.00" in text
    assert "not available: no words <script>" in text
    assert "better" in text
    assert "Worst by topic" in text
    assert "10. Answer" in text
    assert "Model against model" not in text
    with Image.open(tmp_path / "reliability.png") as picture:
        picture.verify()


def test_headline_compares_the_judges_that_were_named(entries):
    first, second = (replace(entry, judge=name, steps=()) for entry, name in zip(entries, "xy", strict=False))
    text = comparison_headline(entries, entries[1], [first, second])
    constant, rate = (first.evaluation.metrics[f"excess_brier_{name}"] for name in ("constant", "base_rate"))
    assert text.startswith("“x: Verbalized” has excess Brier score 0.")
    assert f"(always answering 0.5: {constant:.4f}, the base rate: {rate:.4f})" in text
    assert "“y: Verbalized” has excess Brier score 0.0000" in text
    assert "against the first it is better, by 0." in text
    assert (
        f"The best of 2 rows, chosen on these pairs and therefore slightly optimistic, is “{full_name(entries[1])}”"
        in text
    )
    assert "Not available: 1 method." in text
    assert "best of" not in comparison_headline(entries, entries[0], entries[:1])


def test_what_holds_by_construction_is_no_result(entries, page, make_evaluation):
    pairs, n = entries[0].evaluation.pairs, len(entries[0].evaluation.pairs)
    p = np.linspace(0.1, 0.9, n)
    rows = [
        replace(entries[0], evaluation=make_evaluation(pairs, p, 1 - p, n_bootstrap=0)),
        replace(entries[0], evaluation=make_evaluation(pairs, np.full(n, 0.3), np.full(n, 0.3), n_bootstrap=0)),
    ]
    text = Page(page(rows, best=0)).text
    assert "no position bias by construction" in text
    assert "always answers 0.30" in text
    *_, free, constant = comparison_table(rows, rows[0]).splitlines()
    assert free.split()[-2:] == ["-", "-"]
    assert constant.split()[-3:] == ["-", "-", "-"]


def test_win_rates_are_shown(entries, page):
    evaluation = entries[1].evaluation
    labels = [pair.label for pair in evaluation.pairs]
    n = len(labels)
    rates = win_rates(evaluation.judgments.p_sym, labels, ["<b>x"] * n, ["y"] * n, n_bootstrap=20)
    text = Page(page(entries, win_rates=rates)).text
    assert "<b>x / y" in text
    assert f"{rates[0].judged:.3f}" in text


def test_unsuited_method_is_marked(entries, page):
    metrics = entries[0].evaluation.metrics | {"parse_rate": 0.01}
    entries[0] = replace(entries[0], evaluation=replace(entries[0].evaluation, metrics=metrics))
    assert "the parse rate is 0.010" in Page(page(entries)).text


def test_table_for_the_terminal(entries):
    lines = comparison_table(entries, entries[1]).splitlines()
    assert "Excess Brier score" in lines[0]
    assert lines[1] == "Verbalized"
    assert [line[:1] for line in lines] == [" ", "V", " ", "*", "S"]
    assert lines[-1] == "Self-consistency after reasoning: not available, no words <script>"


@pytest.mark.drawn
def test_nothing_is_loaded_nothing_runs_and_hostile_texts_are_only_text(entries, page):
    html = page(entries)
    for fragment in ("http://", "https://", "url(", "@import"):
        assert fragment not in html
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in Page(html).elements}
    assert all(source.startswith("data:image/png;base64,") for source in Page(html).pictures)

    def named(text):
        return [
            replace(
                entry,
                judge=text,
                reason=entry.reason and text,
                evaluation=entry.evaluation and replace(entry.evaluation, pairs=hostile(entry.evaluation.pairs, text)),
            )
            for entry in entries
        ]

    tame, wild = Page(page(named("x"))), Page(page(named(HOSTILE)))
    assert [tag for tag, _ in wild.elements if tag != "details"] == [
        tag for tag, _ in tame.elements if tag != "details"
    ]
    assert "<script>alert(1)</script>" in wild.text


@pytest.mark.drawn
def test_one_row_without_truth_groups_or_intervals(make_pairs, make_evaluation, page):
    pytest.importorskip("torch")
    from autorater.evaluation.methods import Entry

    pairs = make_pairs(np.tile([0.0, 1.0], 10), n_votes=None)
    entry = Entry("answer_mean", (), "", make_evaluation(pairs, np.full(20, 0.6), np.full(20, 0.5), n_bootstrap=0))
    text = Page(page([entry], best=0, groups={})).text
    assert "Brier score" in text
    assert "least calibrated" not in text


def test_prepared_numbers(entries, groups):
    evaluations = [entry.evaluation for entry in entries[:2]]
    ranking = prepare_metric(evaluations, "ece")
    np.testing.assert_array_equal(ranking["value"], [e.metrics["ece"] for e in evaluations])
    np.testing.assert_array_equal(ranking["floor"], [e.metrics["ece_noise_floor"] for e in evaluations])
    assert np.isnan(prepare_metric(evaluations, "consistency")["floor"]).all()
    np.testing.assert_array_equal(
        prepare_metric(groups["topic"], "ece")["high"], [group.metrics["ece_high"] for group in groups["topic"]]
    )


def test_full_names(entries):
    assert full_name(entries[0]) == "Verbalized"
    assert full_name(entries[1]) == "Verbalized, swap averaging + temperature on the symmetrized logit"
