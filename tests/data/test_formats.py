"""Files of items: ours and the published layouts, written here in miniature as they are published."""

import csv
import gzip
import json
from dataclasses import asdict

import numpy as np
import pytest

from autorater import load_pairs
from autorater.data.errors import DataError, DataWarning
from autorater.data.formats import load_items
from autorater.data.items import ItemSet, Task, pair_items
from autorater.data.loading import LoadReport
from autorater.data.pairs import Pair
from autorater.data.population import simulate_items


def write(path, *rows):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


SNLI = {
    "annotator_labels": ["neutral", "entailment", "neutral", "neutral", "neutral"], "captionID": "4705552913.jpg#2",
    "gold_label": "neutral", "pairID": "4705552913.jpg#2r1n", "sentence1": "Two women embrace.",
    "sentence1_binary_parse": "( )", "sentence1_parse": "(ROOT)", "sentence2": "The sisters hug.",
}  # fmt: skip
MNLI = {
    "annotator_labels": ["contradiction", "entailment"], "genre": "fiction", "gold_label": "-", "pairID": "63735n",
    "promptID": "63735", "sentence1": "The new rights are nice.", "sentence2": "Everyone likes them.",
}  # fmt: skip
CHAOS = {
    "uid": "46359n", "label_counter": {"e": 76, "n": 20, "c": 4}, "majority_label": "e",
    "label_dist": [0.76, 0.2, 0.04], "label_count": [76, 20, 4], "entropy": 0.95, "old_label": "n",
    "example": {"uid": "46359n", "premise": "Emissions fall.", "hypothesis": "Not enough.", "source": "mnli"},
    "old_labels": ["neutral", "entailment"],
}  # fmt: skip
ALPHA = {
    "uid": "a05e-1", "label_counter": {"2": 9, "1": 91}, "majority_label": 1, "label_dist": [0.91, 0.09],
    "label_count": [91, 9], "entropy": 0.4, "old_label": 1,
    "example": {"uid": "a05e", "obs1": "By the river.", "obs2": "She got home.", "hyp1": "Fell in.", "hyp2": "Fled."},
}  # fmt: skip


def grades(coherence, rest=5):
    return {"coherence": coherence, "consistency": rest, "fluency": rest, "relevance": rest}


SUMMEVAL = {
    "id": "dm-test-1", "model_id": "M11", "decoded": "a summary", "text": "an article", "references": ["r"],
    "expert_annotations": [grades(2), grades(1), grades(1)],
    "turker_annotations": [grades(4, 4), grades(4, 4), grades(3, 4), grades(2, 4), grades(5, 4)],
    "filepath": "cnndm/x.story",
}  # fmt: skip


def turns(text):
    return [
        {"content": c, "role": r} for r, c in (("user", "Q1"), ("assistant", text), ("user", "Q2"), ("assistant", "z"))
    ]


def bench(winner, model_a="alpaca-13b", model_b="gpt-4", turn=1, judge="author_2"):
    return {
        "question_id": 81, "model_a": model_a, "model_b": model_b, "winner": winner, "judge": judge, "turn": turn,
        "conversation_a": turns(f"by {model_a}"), "conversation_b": turns(f"by {model_b}"),
    }  # fmt: skip


def test_snli_and_mnli(tmp_path):
    (item,) = load_items(write(tmp_path / "snli_1.0_dev.jsonl", SNLI)).items
    assert item.counts == (1, 4, 0)
    assert item.texts == ("Two women embrace.", "The sisters hug.")
    assert (item.id, item.topic) == ("4705552913.jpg#2r1n", "4705552913.jpg#2")
    items = load_items(write(tmp_path / "multinli.jsonl.gz", MNLI))
    assert items.items[0].counts == (1, 0, 1), "no majority, and still two votes"
    assert items.task.labels == ("entailment", "neutral", "contradiction")


def test_chaosnli(tmp_path):
    (item,) = load_items(write(tmp_path / "chaosNLI_mnli_m.jsonl", CHAOS)).items
    assert (item.id, item.counts) == ("46359n", (76, 20, 4))
    items = load_items(write(tmp_path / "chaosNLI_alphanli.jsonl", ALPHA))
    assert items.items[0].counts == (91, 9)
    assert items.items[0].texts == ("By the river.", "She got home.", "Fell in.", "Fled.")


def test_summeval(tmp_path):
    items = load_items(write(tmp_path / "model_annotations.aligned.paired.jsonl", SUMMEVAL))
    assert [item.id for item in items.items] == [
        f"dm-test-1/M11/{quality}" for quality in ("coherence", "consistency", "fluency", "relevance")
    ]
    assert items.items[0].counts == (2, 2, 1, 2, 1), "three experts and five of the crowd"
    assert items.items[1].counts == (0, 0, 0, 5, 3)
    assert items.task.ordinal


def test_mt_bench_votes_on_one_pair_are_one_item(tmp_path):
    swapped = {"model_a": "gpt-4", "model_b": "alpaca-13b"}
    rows = [bench("model_b"), bench("tie"), bench("model_a", **swapped, judge="expert_1"), bench("model_b", turn=2)]
    items = load_items(write(tmp_path / "human.jsonl", *rows))
    assert [item.counts for item in items.items] == [(0, 1, 2), (0, 0, 1)], "the third row shows them swapped"
    assert "by alpaca-13b" in items.items[0].texts[0]
    assert "Q2" not in items.items[0].texts[0]
    assert "Q2" in items.items[1].texts[0]
    repeated = [bench("model_b"), bench("model_a", **swapped), *[bench("tie", judge=None)] * 2]
    path = write(tmp_path / "repeated.jsonl", *rows, *repeated)
    with pytest.warns(DataWarning, match=r"repeated.jsonl: 2 rows that repeat a row of the same annotator left out"):
        assert [item.counts for item in load_items(path).items] == [(0, 3, 2), (0, 0, 1)]
    (pair, _) = load_pairs(path, report=LoadReport())
    assert (pair.votes_a, pair.votes_tie, pair.votes_b) == (0, 3, 2)


def test_mt_bench_turns_as_pandas_writes_them(tmp_path):
    rows = [bench("model_b"), bench("tie", turn=1.0) | {"question_id": 81.0}]
    (item,) = load_items(write(tmp_path / "human.jsonl", *rows)).items
    assert (item.id, item.counts) == ("81/1/alpaca-13b/gpt-4", (0, 1, 1))


def test_rows_without_a_vote_are_left_out_and_counted(tmp_path):
    rows = [bench(None), bench("error"), bench("model_a")]
    with pytest.warns(DataWarning, match=r"a\.jsonl: 2 rows without a vote left out"):
        (item,) = load_items(write(tmp_path / "a.jsonl", *rows)).items
    assert item.counts == (1, 0, 0)
    with pytest.raises(DataError, match="no row has a vote"):
        load_items(write(tmp_path / "b.jsonl", *rows[:2]))


def test_mt_bench_as_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "human.parquet"
    pq.write_table(pa.Table.from_pylist([bench("model_b"), bench("tie")]), path)
    assert load_items(path).items[0].counts == (0, 1, 1)


def test_own_columns_as_jsonl_and_csv(tmp_path):
    simulated = simulate_items(5, n_votes=3, seed=1).items
    task = simulated.task.to_dict()
    rows = [asdict(item) | {"texts": dict(zip(task["titles"], item.texts, strict=True))} for item in simulated.items]
    write(tmp_path / "own.jsonl", *(row | task for row in rows))
    assert load_items(tmp_path / "own.jsonl") == ItemSet(simulated.task, list(simulated.items))
    with (tmp_path / "own.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["prompt", "labels", "counts"], ["text", '["yes", "no"]', "[3, 2]"]])
    items = load_items(tmp_path / "own.csv")
    assert items.task == Task(("yes", "no"))
    assert items.items[0].counts == (3, 2)
    np.testing.assert_allclose(items.shares, [[0.6, 0.4]])


OWN = {"prompt": "x", "labels": ["a", "b"], "counts": [1, 2]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([OWN | {"counts": [-1, 2]}], r"line 1: column 'counts': got \[-1, 2\]; expected one number of votes"),
        (
            [OWN, OWN | {"counts": [0, 0]}],
            r"line 2: column 'counts': got \[0, 0\]; expected .* not negative and not all 0",
        ),
        ([OWN | {"counts": [1]}], r"got \[1\]; expected one number of votes for each of the labels a, b"),
        ([OWN | {"counts": "many"}], "got 'many'; expected one number of votes"),
        ([OWN | {"counts": [float("nan"), 1]}], r"got \[nan, 1\]; expected one number of votes"),
        ([OWN | {"labels": ["a"], "counts": [1]}], "at least two and distinct"),
        ([OWN | {"labels": ["a", "a"]}], "at least two and distinct"),
        ([OWN, OWN | {"labels": ["a", "c"]}], "line 2: column 'labels, texts'"),
        ([OWN | {"prompt": " "}], "column 'Text': got ' '; expected text that is not blank"),
        ([OWN | {"true_distribution": [0.5, 0.6]}], "expected numbers that add up to 1"),
        ([OWN | {"id": "x"}, OWN | {"id": "x"}], "line 2: column 'id'"),
        (
            [SNLI | {"annotator_labels": ["maybe"]}],
            "'annotator_labels': got 'maybe'; expected one of entailment",
        ),
        ([SNLI | {"annotator_labels": []}], "not all 0"),
        ([CHAOS | {"label_counter": {"x": 3}}], "got 'x'; expected the labels e, n, c"),
        (
            [SUMMEVAL | {"expert_annotations": [grades(6)]}],
            "'coherence': got '6'; expected one of 1, 2, 3, 4, 5",
        ),
        ([{k: v for k, v in SUMMEVAL.items() if k != "text"}], "the paired file"),
        ([bench("gpt-5")], "column 'winner': got 'gpt-5'"),
        ([bench("tie", turn=3)], "column 'turn': got 3; expected a turn from 1 to 2"),
        ([{"sentence1": "a", "label": 1}], "of no known layout"),
        ([], "no rows"),
    ],
)
def test_invalid_rows_are_named(tmp_path, rows, message):
    path = write(tmp_path / "data.jsonl", *rows)
    with pytest.raises(DataError, match=message) as error:
        load_items(path)
    assert str(path) in str(error.value)


def test_pairs_are_two_items_each():
    pair = Pair("p", "q", "x", "y", label=0.5, n_votes=4, votes_a=1, votes_b=1, votes_tie=2, true_probability=0.3)
    items = pair_items([pair])
    assert items.task.labels == ("A", "tie", "B")
    assert [item.counts for item in items.items] == [(1, 2, 1), (1, 2, 1)]
    lopsided = Pair("p", "q", "x", "y", label=0.75, votes_a=1, votes_b=3, votes_tie=0, true_probability=0.8)
    ab, ba = pair_items([lopsided]).items
    assert (ab.counts, ba.counts) == ((1, 3), (3, 1))
    assert (ab.texts, ba.texts) == (("q", "x", "y"), ("q", "y", "x"))
    assert ba.true_distribution == pytest.approx((0.8, 0.2))
    soft = pair_items([Pair("p", "q", "x", "y", label=0.7)], ties=True).items[0]
    assert soft.counts == pytest.approx((0.3, 0, 0.7))
    with pytest.raises(ValueError, match="tie votes"):
        pair_items([pair], ties=False)


def test_simulated_grades_follow_their_distribution():
    simulated = simulate_items(400, n_votes=200, seed=0).items
    assert np.abs(simulated.shares - simulated.truth).mean() < 0.03
    chi = (200 * (simulated.shares - simulated.truth) ** 2 / simulated.truth).sum(axis=1)
    assert chi.mean() == pytest.approx(4, rel=0.15), "Pearson's statistic of 5 classes has mean 4"
    again = simulate_items(400, n_votes=200, seed=0).items
    assert again == simulated
    held_out = simulate_items(50, seed=0, held_out=True).items
    assert not {i.topic for i in held_out.items} & {i.topic for i in simulated.items}


def test_chatbot_arena_has_more_turns_and_more_ties(tmp_path):
    rows = [
        bench(winner, turn=turn) | {"question_id": f"{i:032d}", "language": "English"}
        for i, (winner, turn) in enumerate((("model_a", 1), ("tie (bothbad)", 1.0), ("both_bad", 2)))
    ]
    longer = bench("model_b", turn=3) | {"question_id": "x"}
    for side in "ab":
        longer[f"conversation_{side}"] = turns("a") + turns("b")[:2]
    items = load_items(write(tmp_path / "a.jsonl", *rows, longer))
    assert [item.counts for item in items.items] == [(1, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 1)]
    assert [text.count("User:") for text in (item.texts[0] for item in items.items)] == [1, 1, 2, 3]
    later = {name: value for name, value in bench("model_b").items() if name not in ("question_id", "turn", "judge")}
    (item,) = load_items(write(tmp_path / "b.jsonl", later | {"id": "x1"})).items
    assert (item.id, item.counts, item.texts[0].count("User:")) == ("x1/alpaca-13b/gpt-4", (0, 0, 1), 2)


def test_dices_has_one_row_a_rater(tmp_path):
    row = {
        "rater_gender": "Woman",
        "context": "USER: Tea?",
        "response": "No.",
        "harm_type": "Other",
        "safety_gold": "No",
    }
    votes = [(7, 1, "Yes"), (8, 1, "No"), (7, 2, "Yes"), (7, 3, "Unsure")]
    rows = [row | {"id": i, "item_id": item, "rater_id": r, "Q_overall": v} for i, (item, r, v) in enumerate(votes)]
    items = load_items(write(tmp_path / "a.jsonl", *rows))
    assert items.task.labels == ("No", "Unsure", "Yes")
    assert [(item.id, item.counts, item.topic) for item in items.items] == [
        ("7", (0, 1, 2), "Other"), ("8", (1, 0, 0), "Other"),
    ]  # fmt: skip
    assert items.items[0].texts == ("USER: Tea?", "No.")
    with pytest.raises(DataError, match="'Q_overall': got 'Maybe'; expected one of No, Unsure, Yes"):
        load_items(write(tmp_path / "b.jsonl", rows[0] | {"Q_overall": "Maybe"}))
    with pytest.warns(DataWarning) as warned:
        again = load_items(write(tmp_path / "c.jsonl", *rows, rows[0] | {"Q_overall": None}, rows[0])).items
    assert again == items.items
    assert [str(w.message).split(": ")[1] for w in warned] == [
        "1 rows without a vote left out", "1 rows that repeat a row of the same annotator left out",
    ]  # fmt: skip


@pytest.mark.parametrize("row", [
    {"item_id": 7, "context": "USER: Tea?", "response": "No.", "Q_overall": "Yes"},
    {"question_id": 7, "turn": 1, "model_a": "m", "model_b": "n", "winner": "tie", "response": "No."},
])  # fmt: skip
def test_votes_on_other_texts_under_the_same_id_are_not_added(row, tmp_path):
    """As in two editions of DICES in one file, which both count their conversations from 0."""

    def shown(answer):
        turns = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": answer}]
        return row | {"response": answer, "conversation_a": turns, "conversation_b": turns}

    path = write(tmp_path / "a.jsonl", shown("No."), shown("No."), shown("Yes."))
    with pytest.raises(DataError, match=r"line 3: column 'id': got '7.*'; expected one id for the same texts"):
        load_items(path)
