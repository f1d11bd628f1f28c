"""The evaluator run by alpaca_eval itself, from the config folder of the package with a judge of the test."""

import shutil
from pathlib import Path

import pytest

pytest.importorskip("alpaca_eval")

import alpaca_eval

from autorater import integrations
from autorater.integrations.alpaca_eval import JudgeAnnotator
from tests.integrations.conftest import LengthJudge, preference
from tests.judges.test_endpoint import chat, quirky  # noqa: F401  (fixture)


def config_folder(tmp_path):
    return shutil.copytree(Path(integrations.__file__).parent / "alpaca_eval_judge", tmp_path / "judge")


def evaluate(folder, outputs, **options):
    rows = [[{"instruction": f"p{i}", "output": y, "generator": g} for i, y in enumerate(ys)] for g, ys in
            (("reference", ["xx"] * len(outputs)), ("model", outputs))]  # fmt: skip
    return alpaca_eval.evaluate(
        model_outputs=rows[1],
        reference_outputs=rows[0],
        annotators_config=str(folder),
        Annotator=JudgeAnnotator,
        fn_metric="get_winrate",
        sort_by="win_rate",
        precomputed_leaderboard=None,
        output_path=None,
        is_return_instead_of_print=True,
        **options,
    )


def test_preferences_are_one_plus_the_probability(monkeypatch, tmp_path):
    judge, asked = LengthJudge(), {}
    monkeypatch.setattr(
        "autorater.integrations.preferences.open_judge", lambda name, **options: asked.update(options) or judge
    )
    monkeypatch.setattr("autorater.integrations.alpaca_eval.judge_settings", lambda name, judge: {"judge": name})
    outputs = ["a", "abc", "unjudgeable", "abcde"]
    board, annotations = evaluate(config_folder(tmp_path), outputs, caching_path=None)
    expected = {f"p{i}": preference("xx", y) for i, y in enumerate(outputs) if y != "unjudgeable"}
    found = {row["instruction"]: row["preference"] for row in annotations if row["preference"] is not None}
    assert found == pytest.approx({prompt: 1 + p for prompt, p in expected.items()})
    assert board.loc["model", "win_rate"] == pytest.approx(100 * sum(expected.values()) / 3)
    assert asked == {"base_url": "http://localhost:8000/v1"}


def test_what_another_judge_preferred_is_not_used(tmp_path, quirky):  # noqa: F811
    folder, server = config_folder(tmp_path), quirky(lambda sent: (200, chat()))
    config = (folder / "configs.yaml").read_text().replace("http://localhost:8000", server.url)
    for model, n_requests in (("judge", 4), ("judge", 4), ("other", 8)):
        (folder / "configs.yaml").write_text(config.replace("endpoint:judge", f"endpoint:{model}"))
        evaluate(folder, ["a", "b"])
        assert len(server.seen) == n_requests
