"""The evaluator run by alpaca_eval itself, from the config folder of the package with a judge of the test."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("alpaca_eval")

import alpaca_eval

from autorater import integrations
from autorater.integrations.alpaca_eval import JudgeAnnotator
from tests.integrations.conftest import LengthJudge, preference


def test_preferences_are_one_plus_the_probability(monkeypatch, tmp_path):
    judge, asked = LengthJudge(), {}
    monkeypatch.setattr(
        "autorater.integrations.preferences.open_judge", lambda name, **options: asked.update(options) or judge
    )
    folder = tmp_path / "judge"
    shutil.copytree(Path(integrations.__file__).parent / "alpaca_eval_judge", folder)
    outputs = ["a", "abc", "unjudgeable", "abcde"]
    rows = [[{"instruction": f"p{i}", "output": y, "generator": g} for i, y in enumerate(ys)] for g, ys in
            (("reference", ["xx"] * 4), ("model", outputs))]  # fmt: skip
    board, annotations = alpaca_eval.evaluate(
        model_outputs=rows[1],
        reference_outputs=rows[0],
        annotators_config=str(folder),
        Annotator=JudgeAnnotator,
        fn_metric="get_winrate",
        sort_by="win_rate",
        precomputed_leaderboard=None,
        output_path=None,
        is_return_instead_of_print=True,
        caching_path=None,
    )
    expected = {f"p{i}": preference("xx", y) for i, y in enumerate(outputs) if y != "unjudgeable"}
    found = {row["instruction"]: row["preference"] for row in annotations if row["preference"] is not None}
    assert found == pytest.approx({prompt: 1 + p for prompt, p in expected.items()})
    assert board.loc["model", "win_rate"] == pytest.approx(100 * sum(expected.values()) / 3)
    assert asked == {"base_url": "http://localhost:8000/v1"}
