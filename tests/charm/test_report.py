import re
from html.parser import HTMLParser

import pytest

from autorater.charm.calibration import Calibration
from autorater.charm.elo import Rating
from autorater.charm.evaluation import evaluate_scores
from autorater.charm.report import (
    headline,
    prepare_win_rates,
    versions_table,
    win_rates_figure,
    write_charm_report,
)
from autorater.charm.responses import Response

EVIL = "m|<script>alert(1)</script>"
RATINGS = {EVIL: Rating(1000.0, 950.0, 1050.0), "plain": Rating(1010.0)}


def evaluation(score):
    responses = [
        Response(f"q{i}", model, "text", s) for i in range(5) for model, s in ((EVIL, score + i / 9), ("plain", 0.0))
    ]
    scores = {response: response.score for response in responses}
    return evaluate_scores(responses, scores, {m: r.elo for m, r in RATINGS.items()}, n_bootstrap=20)


@pytest.fixture
def versions():
    return {"original": evaluation(2.0), "calibrated": evaluation(0.0)}


def test_the_page_is_one_harmless_file(tmp_path, versions):
    write_charm_report(
        tmp_path, versions, RATINGS, Calibration(EVIL, "plain", 5, 0.5, 0.9, -2.0, {}, 3),
        {"seed": 1, "hub_token": "secret-value"},
    )  # fmt: skip
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "secret-value" not in page
    assert not re.search(r"(src|href)=[\"'](?!data:)", page)
    HTMLParser().feed(page)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (4, 6, 7) for row in rows), "bars in names are escaped"


def test_figures_of_the_table_are_those_of_the_evaluations(versions):
    header, *rows = versions_table(versions, EVIL, "plain")
    assert header == ("", "original", "calibrated")
    values = {row[0]: row[1:] for row in rows}
    expected = tuple(f"{e.mismatch[EVIL]:.3f}" for e in versions.values())
    assert values[f"mismatch, {EVIL}"] == expected
    assert values["accuracy"] == ("-", "-")


def test_the_picture_shows_both_sides_of_every_pair(versions):
    prepared = prepare_win_rates(versions["original"], EVIL)
    assert prepared["judged"].sum() == pytest.approx(1)
    assert prepared["marked"].tolist() == [True, False]
    assert len(win_rates_figure(versions, EVIL).axes) == 2


def test_the_headline(versions):
    gap = round(100 * versions["original"].gaps[EVIL])
    expected = f"The reward model overvalues {EVIL}: against the others it wins {gap} points more often than expected"
    assert headline(versions, EVIL).startswith(expected)
    assert headline({"original": versions["original"]}, "plain").startswith("The reward model undervalues plain")
