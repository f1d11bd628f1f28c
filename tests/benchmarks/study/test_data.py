"""What a run learns from and is measured on: nothing measured on is learned from, and p* is what it should be."""

import numpy as np
import pytest

from autorater.data.population import PERSONAS, Population, simulate_pairs
from autorater.training.arguments import JudgeArguments
from benchmarks.study.data import StudyArguments, calibration_pairs, prepare_dataset

ARGS = JudgeArguments(n_train=40, n_test=30, n_test_votes=4, population_noise=0.8)
SHARES = [1.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0]


def test_shifted_pairs_are_the_same_texts_judged_by_others():
    _, tests = prepare_dataset(ARGS, 3, {"shifted": {"persona_shares": SHARES, "population_noise": 1.5}})
    drawn = simulate_pairs(30, Population(noise=0.8), n_votes=4, seed=3, held_out=True)
    others = Population(PERSONAS, noise=1.5).with_shares(SHARES).preference(drawn.traits_a, drawn.traits_b)
    for name in ("id", "prompt", "response_a", "response_b"):
        assert [getattr(p, name) for p in tests["shifted"]] == [getattr(p, name) for p in tests["test"]]
    assert [pair.true_probability for pair in tests["shifted"]] == pytest.approx(others)
    assert not np.allclose(others, [pair.true_probability for pair in tests["test"]], atol=0.05)
    for pair in tests["shifted"]:
        assert (pair.votes_a + pair.votes_b, pair.label) == (4, pair.votes_b / 4)


def test_votes_of_the_shifted_population_are_drawn_from_it():
    args = JudgeArguments(n_train=4, n_test=400, n_test_votes=50)
    _, tests = prepare_dataset(args, 0, {"shifted": {"persona_shares": SHARES}})
    errors = [(pair.label - pair.true_probability) for pair in tests["shifted"]]
    variances = [pair.true_probability * (1 - pair.true_probability) / 50 for pair in tests["shifted"]]
    assert np.mean(np.square(errors)) == pytest.approx(np.mean(variances), rel=0.25)


def test_objective_pairs_have_one_right_answer():
    """Each kind of annotator alone prefers the same response, worked out from its taste."""
    _, tests = prepare_dataset(ARGS, 3, {"objective": {"n_pairs": 40}})
    right = {pair.id: pair.label for pair in tests["objective"]}
    assert len(right) == 40
    assert set(right.values()) == {0, 1}
    drawn = simulate_pairs(800, Population(noise=0.01), seed=10_003, held_out=True)
    for persona in PERSONAS:
        prefers = Population((persona,)).preference(drawn.traits_a, drawn.traits_b)
        for pair, p in zip(drawn.pairs, prefers, strict=True):
            if pair.id in right:
                assert (p > 0.5) == right[pair.id]


def test_calibration_pairs_are_measured_on_by_nobody():
    data, tests = prepare_dataset(ARGS, 3, {"objective": {"n_pairs": 5}})
    fitted = calibration_pairs(ARGS, StudyArguments(n_calibration=50), 3)
    texts = {(pair.response_a, pair.response_b) for pair in fitted}
    assert len(fitted) == 50
    assert {pair.label for pair in fitted} == {0, 1}
    for pairs in (data.train, *tests.values()):
        assert not texts & {(pair.response_a, pair.response_b) for pair in pairs}


@pytest.mark.parametrize(
    ("args", "tests", "message"),
    [
        (ARGS, {"shfted": {}}, "unknown test 'shfted'"),
        (JudgeArguments(dataset_name="{pairs}", split_by="topic"), {"shifted": {}}, "requires simulated annotators"),
    ],
)
def test_mistakes_are_named(args, tests, message, tmp_path):
    from autorater.data.loading import write_pairs

    if args.dataset_name:
        write_pairs(simulate_pairs(20).pairs, tmp_path / "pairs.jsonl")
        args.dataset_name = str(tmp_path / "pairs.jsonl")
    with pytest.raises(ValueError, match=message):
        prepare_dataset(args, 0, tests)


def test_recorded_votes_need_their_own_calibration_pairs():
    with pytest.raises(ValueError, match="calibration_dataset_name"):
        calibration_pairs(JudgeArguments(dataset_name="votes.jsonl"), StudyArguments(), 0)
