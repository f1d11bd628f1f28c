from dataclasses import replace

import numpy as np
import pytest

from autorater.charm import expected_win_rate, mismatch_degree
from autorater.charm.evaluation import evaluate_scores
from autorater.charm.responses import Response
from autorater.data.pairs import Pair

ELO = {"ada": 1100.0, "bob": 1000.0, "cyd": 950.0}
SCORES = {"ada": [1.0, 2.0, 0.5], "bob": [0.0, 0.5, 0.5], "cyd": [3.0, 2.5, 2.0]}
RESPONSES = [Response(f"q{i}", m, f"{m}{i}", s) for m, scores in SCORES.items() for i, s in enumerate(scores)]


def evaluate(responses, *args, **options):
    return evaluate_scores(responses, {r: r.score for r in responses if r.score is not None}, *args, **options)


def rate(model, opponent):
    return float(np.mean(1 / (1 + np.exp(np.subtract(SCORES[opponent], SCORES[model])))))


def test_by_hand():
    evaluation = evaluate(RESPONSES, ELO, n_bootstrap=50)
    assert [(r.model, r.opponent, r.n_pairs) for r in evaluation.rows] == [
        ("ada", "bob", 3), ("ada", "cyd", 3), ("bob", "cyd", 3),
    ]  # fmt: skip
    for row in evaluation.rows:
        assert row.judged == pytest.approx(rate(row.model, row.opponent))
        assert row.judged_low <= row.judged <= row.judged_high
    gap = np.mean([rate("cyd", o) - expected_win_rate(ELO["cyd"], ELO[o]) for o in ("ada", "bob")])
    assert evaluation.gaps["cyd"] == pytest.approx(gap)
    degrees = [mismatch_degree(rate("cyd", o), expected_win_rate(ELO["cyd"], ELO[o])) for o in ("ada", "bob")]
    assert evaluation.mismatch["cyd"] == pytest.approx(np.mean(degrees))
    assert next(iter(evaluation.gaps)) == "cyd"
    assert evaluation.reference_for("cyd") == "bob", "the nearest in Elo that is not over-valued itself"
    assert evaluation.mean_scores["ada"] == pytest.approx(3.5 / 3)
    assert evaluation.correlations["spearman"] == pytest.approx(-0.5)
    assert sum(evaluation.gaps.values()) == pytest.approx(0)


def test_the_reference_answered_prompts_of_the_model():
    apart = [r for r in RESPONSES if (r.prompt == "q0") != (r.model == "bob")]  # cyd and bob share no prompt
    apart += [Response(prompt, "ada", "x", 0.5) for prompt in ("q1", "q2")]
    evaluation = evaluate(apart, ELO, n_bootstrap=0)
    assert {(row.model, row.opponent) for row in evaluation.rows} == {("ada", "bob"), ("ada", "cyd")}
    assert evaluation.reference_for("cyd") == "ada"


def test_accuracy_on_held_out_pairs():
    def pair(i, a, b, label):
        return Pair(f"{a}{b}{i}", f"q{i}", f"{a}{i}", f"{b}{i}", label, model_a=a, model_b=b)

    pairs = [
        pair(0, "ada", "bob", 0.2),
        pair(1, "bob", "ada", 0.3),
        pair(2, "ada", "bob", 0.9),
        pair(0, "ada", "cyd", 0.5),
    ]
    evaluation = evaluate(RESPONSES, ELO, pairs, n_bootstrap=20)
    # right, wrong, a tie of the scores (half), no majority
    assert evaluation.accuracy["accuracy"] == pytest.approx(1.5 / 3)
    assert evaluation.metrics()["accuracy"] == evaluation.accuracy["accuracy"]

    weighted = [replace(pair, weight=weight) for pair, weight in zip(pairs, (3, 1, 0, 5), strict=True)]
    assert evaluate(RESPONSES, ELO, weighted, n_bootstrap=0).accuracy == {"accuracy": pytest.approx(3 / 4)}
    assert evaluate(RESPONSES, ELO, weighted[2:], n_bootstrap=0).accuracy == {}


def test_a_model_without_elo_is_named():
    with pytest.raises(ValueError, match="no Elo for 'cyd'; there is one for ada, bob"):
        evaluate(RESPONSES, {"ada": 1.0, "bob": 2.0})


def test_models_without_a_common_prompt_are_refused():
    with pytest.raises(ValueError, match="no two of the models ada, bob answered the same prompt"):
        evaluate([Response("p", "ada", "x", 1.0), Response("q", "bob", "x", 1.0)], ELO)


def test_scores_that_are_nan_are_refused():
    bad = [Response("p", "ada", "x", float("nan")), Response("p", "bob", "x", 1.0)]
    with pytest.raises(ValueError, match="NaN"):
        evaluate(bad, ELO)


def test_responses_without_a_score_are_ignored():
    unscored = [Response("q9", model, "x") for model in ("ada", "bob")]
    pairs = [Pair("p", "q9", "x", "x", 1.0, model_a="ada", model_b="bob")]
    assert evaluate(RESPONSES + unscored, ELO, pairs, n_bootstrap=0) == evaluate(RESPONSES, ELO, n_bootstrap=0)
