"""The pairs of a run, and the votes that a judge learns from."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autorater.alignment.arguments import AlignmentArguments, ineffective_for_labels
from autorater.alignment.data import prepare_items, prepare_pair_items
from autorater.data.errors import DataError, UserError
from autorater.data.loading import load_pairs, write_pairs
from autorater.data.pairs import Pair, sparse_label
from autorater.data.population import Population, simulate_pairs
from autorater.training.arguments import JudgeArguments, ineffective_options
from autorater.training.compatibility import EXACT, POINTWISE, SAMPLED
from autorater.training.data import prepare_data


@pytest.fixture
def votes_file(tmp_path):
    path = tmp_path / "votes.jsonl"
    write_pairs(simulate_pairs(60, n_votes=4, seed=0).pairs, path)
    return str(path)


def test_simulated_pairs_by_default():
    data = prepare_data(JudgeArguments(n_train=50, n_test=20, n_test_votes=7), seed=1)
    assert {p.label for p in data.train} <= {0.0, 1.0}
    assert all(p.n_votes == 7 for p in data.held_out)
    assert all(p.true_probability is not None for p in data.held_out)
    assert data.verdicts.shape == (50,)
    assert 0 <= data.verdicts.min() <= data.verdicts.max() <= 1


def test_sparse_labels_are_single_votes_and_held_out_labels_stay_dense(votes_file):
    data = prepare_data(JudgeArguments(dataset_name=votes_file, split_by="topic", held_out_fraction=0.3), seed=5)
    dense = {p.id: p for p in simulate_pairs(60, n_votes=4, seed=0).pairs}
    assert [p.label for p in data.train] == [sparse_label(dense[p.id], 5) for p in data.train]
    assert all(p == dense[p.id] for p in data.held_out)
    assert not {p.topic for p in data.train} & {p.topic for p in data.held_out}
    np.testing.assert_array_equal(data.verdicts, [0.375 + 0.25 * p.label for p in data.train])


def test_dense_labels_on_request(votes_file):
    data = prepare_data(JudgeArguments(dataset_name=votes_file, labels="dense", split_by="topic"), seed=5)
    assert {p.label for p in data.train} - {0.0, 1.0}
    assert set(data.verdicts) <= {0.375, 0.625}, "a warm start always imitates one vote"


def test_the_votes_that_are_used_are_counted(votes_file):
    options = {"dataset_name": votes_file, "split_by": "topic", "held_out_fraction": 0.3}
    sparse = prepare_data(JudgeArguments(**options), seed=5)
    n = len(sparse.train)
    assert f"(sparse labels: {n} of {4 * n} votes)" in sparse.summary
    every = prepare_data(JudgeArguments(**options, labels="all"), seed=5)
    assert f"(all labels: all {4 * n} votes)" in every.summary
    assert every.train == prepare_data(JudgeArguments(**options, labels="dense"), seed=5).train


POPULATION = "everyday reader=0.1,guardian=0.9"
_OTHERS = ",specialist=0,listener=0,hurried reader=0,sceptic=0,optimist=0"


def test_recorded_votes_are_weighted_to_a_population(tmp_path):
    path = tmp_path / "votes.jsonl"
    voters = Population().with_shares({"everyday reader": 0.7, "guardian": 0.3})
    cells = simulate_pairs(2000, voters, n_votes=1, seed=0, by_group=True).pairs
    write_pairs(cells, path)
    options = {"dataset_name": str(path), "split_by": "topic", "held_out_fraction": 0.3}
    args = JudgeArguments(**options, population=POPULATION)
    data = prepare_data(args, seed=5)
    of_guardians = {pair.prompt + pair.response_a: pair.group == "guardian" for pair in cells}
    shown = [of_guardians[pair.prompt + pair.response_a] for pair in data.train]
    assert np.mean(shown) == pytest.approx(0.9, abs=0.02)
    assert {pair.label for pair in data.train} == {0.0, 1.0}
    held_out = [of_guardians[pair.prompt + pair.response_a] for pair in data.held_out]
    assert np.average(held_out, weights=[pair.weight for pair in data.held_out]) == pytest.approx(0.9)
    assert len(data.warm_start) + len(data.held_out) == 2000
    for name in ("training", "held-out"):
        assert re.search(f"population of the {name} pairs: everyday reader 0.[67].* -> 0.1, guardian", data.summary)
    assert "design effect" in data.summary
    with pytest.raises(DataError, match="training pairs: the population has no share for 'guardian'"):
        prepare_data(JudgeArguments(**options, population="everyday reader=1"), seed=5)
    template = tmp_path / "group.txt"
    template.write_text("{group} {prompt} {response_a} {response_b} <prob_rb_better>")
    with pytest.raises(UserError, match="the prompt shows"):
        prepare_data(JudgeArguments(**options, population=POPULATION, prompt_template=str(template)), seed=5)
    with pytest.raises(UserError, match="population: votes are weighted for judges"):
        AlignmentArguments(population=POPULATION)


def test_simulated_votes_are_weighted_to_a_population():
    """The voters have the persona shares, the held-out pairs the truth of the population."""
    options = {"n_train": 500, "n_test": 20, "persona_shares": [7, 0, 3, 0, 0, 0, 0]}
    data = prepare_data(JudgeArguments(**options, population=POPULATION + _OTHERS), seed=1)
    population = Population().with_shares({"everyday reader": 0.1, "guardian": 0.9})
    assert data.held_out == simulate_pairs(20, population, n_votes=10, seed=1, held_out=True).pairs
    assert len(data.warm_start) == len(data.verdicts) == 500
    assert len(data.train) == pytest.approx(500, abs=1)
    assert "guardian 0.3" in data.summary


def test_weights_of_rows_are_used(tmp_path):
    path = tmp_path / "votes.jsonl"
    pairs = simulate_pairs(200, seed=0).pairs
    write_pairs([replace(pair, weight=3.0 if i % 2 else 1.0) for i, pair in enumerate(pairs)], path)
    data = prepare_data(JudgeArguments(dataset_name=str(path), split_by="topic"), seed=5)
    assert "rows drawn in proportion to them" in data.summary
    assert len(data.train) == pytest.approx(len(data.warm_start), abs=1)
    heavy = {pair.id for i, pair in enumerate(pairs) if i % 2}
    assert np.mean([pair.id.split("#")[0] in heavy for pair in data.train]) == pytest.approx(0.75, abs=0.05)


def test_pairs_are_split_by_any_column_of_the_file(tmp_path):
    path = tmp_path / "votes.jsonl"
    rows = [
        {"prompt": f"Q{i}", "response_a": f"a{i}", "response_b": f"b{i}", "label": 1, "batch": i % 4}
        for i in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = prepare_data(JudgeArguments(dataset_name=str(path), split_by="batch", held_out_fraction=0.25), seed=0)
    assert len({pair.topic for pair in data.held_out}) == 1
    assert not {pair.topic for pair in data.train} & {pair.topic for pair in data.held_out}
    assert "split off by batch" in data.summary
    misspelt = r"--split_by or columns: no column 'bacth' to read as topic; expected one of .*; did you mean batch\?"
    with pytest.raises(UserError, match=misspelt):
        prepare_data(JudgeArguments(dataset_name=str(path), split_by="bacth"), seed=0)
    with pytest.raises(UserError, match=r"votes\.jsonl: pair '0' has no topic; expected one .* \(pair 1 of 20\)"):
        prepare_data(JudgeArguments(dataset_name=str(path), split_by="topic"), seed=0)
    with pytest.raises(UserError, match=r"held_out_fraction is 1\.5; expected a number between 0 and 1"):
        JudgeArguments(held_out_fraction=1.5)
    path.write_text("".join(json.dumps(row | {"prompt": "Q"}) + "\n" for row in rows))
    with pytest.raises(UserError, match="1 distinct prompt; expected at least 2 to split by, for example by id"):
        prepare_data(JudgeArguments(dataset_name=str(path)), seed=0)


def test_leak_is_reported(votes_file):
    pairs = simulate_pairs(60, n_votes=4, seed=0).pairs
    new = simulate_pairs(20, n_votes=4, seed=0, held_out=True).pairs
    test = Path(votes_file).with_name("test.jsonl")
    write_pairs([*(replace(pair, id=f"{pair.id}/swapped") for pair in map(Pair.swapped, pairs[:8])), *new], test)
    data = prepare_data(JudgeArguments(dataset_name=votes_file, eval_dataset_name=str(test)), seed=0)
    assert data.warning.startswith("8 of 28 held-out pairs are training pairs, so the measurements are better")
    assert "response texts are in both" in data.summary
    assert "split_by" not in data.warning + data.summary, "it splits nothing"
    write_pairs(new, test)
    assert not prepare_data(JudgeArguments(dataset_name=votes_file, eval_dataset_name=str(test)), seed=0).warning


def test_one_file_for_training_and_measuring(votes_file):
    args = JudgeArguments(dataset_name=votes_file, eval_dataset_name=votes_file)
    assert prepare_data(args, seed=0).warning.startswith("60 of 60 held-out pairs are training pairs")


def test_repeated_pairs_on_both_sides_of_a_split(tmp_path):
    rows = [{"prompt": f"p{i // 2}", "response_a": "a", "response_b": "b", "label": 1} for i in range(40)]
    (tmp_path / "votes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = JudgeArguments(dataset_name=str(tmp_path / "votes.jsonl"), split_by="id", held_out_fraction=0.25)
    assert re.fullmatch(
        r"\d of 10 held-out pairs are training pairs, .*; split_by a coarser column to separate them",
        prepare_data(args, seed=0).warning,
    )


def test_items_that_are_held_out_and_trained_on(tmp_path):
    rows = [json.dumps({"id": i, "prompt": f"p{i}", "labels": ["no", "yes"], "counts": [1, 2]}) for i in range(12)]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("\n".join(rows[:10]))
    test.write_text("\n".join(rows[7:]))
    args = AlignmentArguments(dataset_name=str(train), eval_dataset_name=str(test))
    assert prepare_items(args, seed=0).warning.startswith("3 of 5 held-out items are training items")


def test_verdicts_of_lengths_use_no_vote(votes_file):
    options = {"split_by": "topic", "warm_start_verdicts": "lengths", "warm_start_steps": 10}
    for where in ({"dataset_name": votes_file}, {"n_train": 40, "n_test": 10}):
        data = prepare_data(JudgeArguments(**where, **options), seed=5)
        longer = [len(p.response_b) / (len(p.response_a) + len(p.response_b)) for p in data.warm_start]
        np.testing.assert_allclose(data.verdicts, longer)
        assert np.var(np.log(longer)) > 0.1, "the responses are cut, so their lengths differ much"
    _, items = prepare_pair_items(AlignmentArguments(data="pairs", dataset_name=votes_file, **options), seed=5)
    last = len(items.train.task.labels) - 1
    for item, verdict in zip(items.warm_start.items, items.verdicts, strict=True):
        _, first, second = map(len, item.texts)
        assert verdict == (last if second > first else 0) or first == second
    with pytest.raises(ValueError, match="requires data: pairs"):
        AlignmentArguments(data="items", **options)


def test_population_options_reach_the_truth():
    calm = prepare_data(JudgeArguments(n_train=20, n_test=200, population_noise=5.0), seed=0).held_out
    sure = prepare_data(JudgeArguments(n_train=20, n_test=200, population_noise=0.5), seed=0).held_out
    assert np.var([p.true_probability for p in calm]) < np.var([p.true_probability for p in sure]) / 4
    with pytest.raises(ValueError, match="persona shares"):
        prepare_data(JudgeArguments(n_train=20, n_test=20, persona_shares=[1.0]), seed=0)


def test_invalid_choice():
    with pytest.raises(ValueError, match="labels: got 'thin'; expected one of sparse, dense"):
        JudgeArguments(labels="thin")


@pytest.mark.parametrize(
    ("name", "value", "lowest"),
    [("warm_start_steps", -5, 0), ("n_eval_pairs", -1, 0), ("n_train", 0, 1), ("n_test", -2, 1), ("n_votes", 0, 1)],
)
def test_numbers_that_are_too_small(name, value, lowest):
    with pytest.raises(UserError, match=f"{name}: got {value}; expected a whole number, {lowest} or more"):
        JudgeArguments(**{name: value})


@pytest.mark.parametrize(
    ("options", "pretrained", "expected"),
    [
        ({}, False, {}),
        (
            {"warm_start_steps": 10, "policy_num_heads": 2, "train_only": ["norm"]},
            True,
            {"the policy is pretrained (model_name_or_path)": ["policy_num_heads"]},
        ),
        (
            {"warm_start_steps": 10, "warm_start_verdicts": "probe", "warm_start_sharpness": 2.0},
            True,
            {},
        ),
        (
            {"warm_start_steps": 10, "warm_start_sharpness": 2.0},
            True,
            {"the policy is pretrained (model_name_or_path)": ["warm_start_sharpness"]},
        ),
        ({"warm_start_tilt": 0.0}, False, {"warm_start_steps is 0": ["warm_start_tilt"]}),
        ({"dataset_name": "a", "n_votes": 3}, False, {"the pairs are read from dataset_name": ["n_votes"]}),
        (
            {"dataset_name": "a", "eval_dataset_name": "b", "split_by": "topic"},
            False,
            {"eval_dataset_name holds the held-out pairs": ["split_by"]},
        ),
        (
            {"recalibration": "platt", "recalibration_labels": "dense"},
            False,
            {"there is no recalibration_dataset_name": ["recalibration", "recalibration_labels"]},
        ),
        ({"split_by": "topic"}, False, {"the annotators are simulated": ["split_by"]}),
    ],
)
def test_ineffective_options(options, pretrained, expected):
    assert ineffective_options(JudgeArguments(**options), pretrained, "", set(options)) == expected


_SPLIT, _JUDGED = (
    "items are split by topic, or by id if one has no topic",
    "items are judged before and after training only",
)
_LABELS, _PRETRAINED = "the verdicts of the warm start are labels", "the policy is pretrained (model_name_or_path)"


@pytest.mark.parametrize(
    ("options", "pretrained", "expected"),
    [
        ({"dataset_name": "a", "split_by": "prompt", "held_out_fraction": 0.2}, True, {_SPLIT: ["split_by"]}),
        ({"dataset_name": "a", "eval_dataset_name": "b", "held_out_fraction": 0.2}, True, {}),
        ({"annotator_position_bias": 2.0}, False, {"a simulated item has one text": ["annotator_position_bias"]}),
        ({"n_eval_pairs": 9}, False, {_JUDGED: ["n_eval_pairs"]}),
        ({"data": "pairs", "n_eval_pairs": 9, "annotator_position_bias": 2.0}, False, {}),
        ({"warm_start_steps": 5, "warm_start_tilt": 0.0}, False, {_LABELS: ["warm_start_tilt"]}),
        ({"data": "pairs", "warm_start_tilt": 0.0}, False, {}),
        ({"warm_start_steps": 5}, True, {_PRETRAINED: ["warm_start_steps"]}),
    ],
)
def test_options_without_an_effect_on_judges_of_labels(options, pretrained, expected):
    assert ineffective_for_labels(AlignmentArguments(**options), pretrained, set(options)) == expected


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        ("platt", POINTWISE, {"a pointwise judge has no position bias": ["recalibration"]}),
        ("temperature", POINTWISE, {}),
        ("platt", EXACT, {}),
    ],
)
def test_a_shift_has_no_effect_on_a_pointwise_judge(kind, mode, expected):
    args = JudgeArguments(dataset_name="a", recalibration_dataset_name="b", recalibration=kind)
    assert ineffective_options(args, True, mode, {"recalibration"}) == expected


@pytest.mark.parametrize(
    ("n_eval_pairs", "eval_steps", "expected"),
    [
        (200, None, {"eval_steps is not set": ["n_eval_pairs"]}),
        (200, 100, {}),
        (0, None, {}),
    ],
)
def test_an_evaluation_during_training_takes_pairs_and_steps(n_eval_pairs, eval_steps, expected):
    args = JudgeArguments(n_eval_pairs=n_eval_pairs)
    assert ineffective_options(args, False, EXACT, {"n_eval_pairs"}, eval_steps) == expected


@pytest.mark.parametrize("switch", ["use_peft", "use_vllm"])
def test_options_of_adapters_and_of_vllm_require_their_switch(switch):
    options, given = {"use_peft": ["lora_r"], "use_vllm": ["vllm_mode"]}, ["lora_r", "vllm_mode"]
    found = ineffective_options(JudgeArguments(), True, SAMPLED, given, **{switch: True})
    assert found == {f"{name} is not set": options[name] for name in options if name != switch}


def test_unknown_kinds_of_recalibration_are_refused():
    with pytest.raises(UserError, match="recalibration: got 'isotonic'; expected one of temperature, platt"):
        JudgeArguments(recalibration="isotonic")


def test_recalibration_pairs_have_single_votes_and_overlaps_are_named(votes_file, tmp_path):
    write_pairs(simulate_pairs(30, n_votes=4, seed=1, held_out=True).pairs, tmp_path / "third.jsonl")
    third = str(tmp_path / "third.jsonl")
    options = {"dataset_name": votes_file, "split_by": "topic", "held_out_fraction": 0.3}
    data = prepare_data(JudgeArguments(**options, recalibration_dataset_name=third), seed=5)
    assert {p.label for p in data.recalibration} == {0.0, 1.0}
    assert len(data.recalibration) == 30
    assert f"recalibration: 30 pairs of {third}: 30 of 120 votes" in data.summary
    assert "warning" not in data.summary
    dense = JudgeArguments(**options, recalibration_dataset_name=third, recalibration_labels="dense")
    every = prepare_data(dense, seed=5)
    assert [p.label for p in every.recalibration] == [p.label for p in load_pairs(third)]
    assert f"recalibration: 30 pairs of {third}: all 120 votes" in every.summary
    assert {p.label for p in every.train} == {0.0, 1.0}
    again = prepare_data(JudgeArguments(**options, recalibration_dataset_name=votes_file), seed=5)
    assert "response texts are in" in again.summary
    assert prepare_data(JudgeArguments(**options), seed=5).recalibration is None


@pytest.mark.parametrize(("n", "votes"), [(1, "1 vote each"), (3, "3 votes each")])
def test_the_votes_of_simulated_pairs_are_said(n, votes):
    summary = prepare_data(JudgeArguments(n_train=9, n_test=4, n_votes=n), 0).summary
    assert f"9 training pairs with {votes}, 4 held-out pairs with 10" in summary
    items = prepare_items(AlignmentArguments(n_train=9, n_test=4, n_votes=n, labels="dense"), 0).summary
    assert re.search(f"9 training items with {votes}, 4 held-out items with 10; labels .+, ", items)
