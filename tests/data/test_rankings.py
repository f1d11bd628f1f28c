"""Published rankings of K responses, each on rows of our own making that have the published columns."""

import pytest

from autorater.data.errors import DataError
from autorater.data.loading import LoadReport, load_pairs
from autorater.data.messages import Message


def read(rows, **options):
    """Winner and loser of each pair by its id, or both and "tie"; the pairs; and the report."""
    report = LoadReport()
    pairs = load_pairs(rows, report=report, **options)
    found = {}
    for pair in pairs:
        sides = (pair.response_a, pair.response_b)
        found[pair.id] = {0: sides, 1: sides[::-1], 0.5: {*sides, "tie"}}[pair.label]
    return found, pairs, report


NECTAR = {
    "prompt": "\n\nHuman: Tea?\n\nAssistant: ", "turns": 1, "num_responses": 3, "source": ["s"], "good_natured": True,
    "answers": [{"answer": t, "model": t.upper(), "rank": r} for t, r in (("c", 2.0), ("a", 1.0), ("f", 3))],
}  # fmt: skip


def test_nectar_has_every_two_of_its_answers():
    found, pairs, report = read([NECTAR])
    assert report.layout == "nectar"
    assert list(found.values()) == [("a", "c"), ("c", "f"), ("a", "f")]
    assert {pair.prompt for pair in pairs} == {(Message("user", "Tea?"),)}
    assert all(
        (pair.model_a, pair.model_b, pair.n_votes) == (pair.response_a.upper(), pair.response_b.upper(), 1)
        for pair in pairs
    )
    with pytest.raises(DataError, match="column 'rank': got 'first'; expected a number"):
        read([NECTAR | {"answers": [part | {"rank": "first"} for part in NECTAR["answers"]]}])


def test_the_order_of_a_ranking_tells_nothing():
    rows = [NECTAR | {"prompt": f"Q{i}"} for i in range(200)]
    labels = [pair.label for pair in read(rows)[1]]
    assert abs(sum(labels) - 300) < 60
    assert labels != [pair.label for pair in read(rows, seed=1)[1]]


def test_stack_exchange_has_scores_and_ties():
    answers = [
        {"answer_id": i, "text": t, "pm_score": s, "selected": s == 4}
        for i, (t, s) in enumerate((("x", 1), ("y", 4), ("z", 1)))
    ]
    row = {"qid": 7, "question": "<p>Tea?</p>", "date": "2010", "metadata": ["url"]}
    found, pairs, report = read([row | {"answers": answers}, row | {"question": "Milk?", "answers": answers[:2]}])
    assert report.layout == "stack_exchange"
    assert found == {"0/0": ("y", "x"), "0/1": {"x", "z", "tie"}, "0/2": ("y", "z"), "1": ("y", "x")}
    assert pairs[0].prompt == "<p>Tea?</p>"


def test_ultrafeedback_has_scores_of_its_completions():
    completions = [
        {"model": m, "response": t, "overall_score": s, "fine-grained_score": 4.0, "critique": "c"}
        for m, t, s in (("m", "x", 7.5), ("n", "y", 8.0), ("o", "z", None))
    ]
    row = {"source": "evol", "instruction": "Tea?", "models": ["m", "n", "o"], "completions": completions}
    found, (pair,), report = read([row, row | {"instruction": "Milk?", "completions": completions[2:]}])
    assert (report.layout, found, pair.topic) == ("ultrafeedback_scores", {"0": ("y", "x")}, "evol")
    assert dict(report.left_out) == {"fewer than two answers have overall_score": 1}
    assert {pair.response_a: pair.model_a, pair.response_b: pair.model_b} == {"x": "m", "y": "n"}
    assert len(load_pairs([row, row | {"completions": []}], labelled=False, report=LoadReport())) == 1


def test_prism_has_every_two_responses_to_each_turn():
    def part(turn, text, score=None, chosen=False, role="model"):
        return {
            "turn": turn,
            "role": role,
            "content": text,
            "model_name": "m" + text,
            "score": score,
            "if_chosen": chosen,
        }

    history = [
        part(0, "Tea?", role="user"), part(0, "x", 40), part(0, "y", 90, True), part(0, "z", 40),
        part(1, "Why?", role="user"), part(1, "p", 70), part(1, "q", 30, True),
    ]  # fmt: skip
    row = {"conversation_id": "c1", "user_id": "u1", "conversation_type": "unguided", "conversation_history": history}
    found, pairs, report = read([row])
    assert report.layout == "prism"
    assert found == {
        "c1/0/1-0": ("y", "x"), "c1/0/0-2": {"x", "z", "tie"}, "c1/0/1-2": ("y", "z"), "c1/1/0-1": ("p", "q"),
    }  # fmt: skip
    assert pairs[0].prompt == (Message("user", "Tea?"),)
    assert pairs[3].prompt == (Message("user", "Tea?"), Message("assistant", "y"), Message("user", "Why?"))
    assert (pairs[3].topic, {pairs[3].model_a, pairs[3].model_b}) == ("unguided", {"mp", "mq"})
    other = row | {"conversation_id": "c2", "user_id": "u2"}
    _, gathered, _ = read([row, other])
    assert [pair.n_votes for pair in gathered] == [2, 2, 2, 2]


def test_an_id_that_the_caller_names_is_that_of_a_row_with_several_pairs():
    found, pairs, _ = read([NECTAR | {"name": "x"}, NECTAR | {"prompt": "Milk?", "name": "y"}], columns={"id": "name"})
    assert [pair.id for pair in pairs] == ["x/0", "x/1", "x/2", "y/0", "y/1", "y/2"]
    assert len(found) == 6


def test_a_prism_conversation_without_turns_is_counted():
    row = {"conversation_id": "c", "user_id": "u", "conversation_history": []}
    with pytest.raises(DataError, match=r"no vote \(conversation_history is empty\)"):
        load_pairs([row])


def test_prism_conversations_without_an_id():
    turn = [{"turn": 0, "role": "user", "content": "Tea?"}]
    turn += [{"turn": 0, "role": "model", "content": text, "score": i} for i, text in enumerate("abc")]
    row = {"conversation_id": None, "user_id": "u", "conversation_history": turn}
    other = row | {"conversation_history": [turn[0] | {"content": "Milk?"}, *turn[1:]]}
    assert [pair.id for pair in read([row, other])[1]] == ["0/0", "0/1", "0/2", "1/0", "1/1", "1/2"]


def test_equal_answers_with_different_ranks_are_no_pair():
    answers = [{"answer": text, "rank": rank} for text, rank in (("a", 1), ("b", 2), ("a", 3))]
    _, pairs, report = read([NECTAR | {"answers": answers}])
    assert [(pair.votes_a, pair.votes_b) for pair in pairs] == [(1, 1)]
    assert report.left_out == {"two answers are equal": 1}


def reply(text, rank=None, role="assistant", replies=()):
    return {"message_id": text, "text": text, "role": role, "rank": rank, "replies": list(replies)}


def test_oasst_has_every_two_ranked_answers_of_a_tree():
    later = reply("Why?", 0, "prompter", [reply("p", 1.0), reply("q", 0.0)])
    other = reply("How?", 1, "prompter", [reply("lone", 0)])
    root = reply(
        "Tea?", None, "prompter", [reply("x", 1, replies=[later, other]), reply("y", 0), reply("z"), reply("w", 2)]
    )
    tree = {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root}
    found, pairs, report = read([tree, tree | {"message_tree_id": "u", "prompt": reply("Hm?", role="prompter")}])
    assert (report.layout, dict(report.left_out)) == ("oasst", {"no two answers have a rank": 1})
    assert found == {
        "t/Tea?/1-0": ("y", "x"), "t/Tea?/0-2": ("x", "w"), "t/Tea?/1-2": ("y", "w"), "t/Why?/1-0": ("q", "p"),
    }  # fmt: skip
    assert pairs[0].prompt == (Message("user", "Tea?"),)
    assert pairs[3].prompt == (Message("user", "Tea?"), Message("assistant", "x"), Message("user", "Why?"))


def test_community_alignment_has_the_preferred_response_with_each_other():
    row = {"conversation_id": "c", "annotator_id": "u", "assigned_lang": "en", "first_turn_prompt": "Tea?"}
    row |= {f"first_turn_response_{side}": side.upper() for side in "abcd"}
    row |= {"first_turn_preferred_response": "response_b", "second_turn_prompt": "Why?"}
    row |= {"second_turn_response_a": "p", "second_turn_response_b": "q", "second_turn_response_c": float("nan")}
    row |= {"second_turn_preferred_response": "response_b", "third_turn_preferred_response": None}
    found, pairs, report = read([row])
    assert (report.layout, pairs[0].topic) == ("community_alignment", "en")
    assert set(found.values()) == {("B", "A"), ("B", "C"), ("B", "D"), ("q", "p")}
    assert pairs[3].prompt == (Message("user", "Tea?"), Message("assistant", "B"), Message("user", "Why?"))
    rows = [row, row, row | {"annotator_id": "v", "first_turn_preferred_response": "response_a"}]
    _, gathered, report = read([part | {"second_turn_preferred_response": None} for part in rows])
    assert sorted((p.response_a, p.response_b, p.n_votes) for p in map(ordered, gathered)) == [
        ("A", "B", 2), ("A", "C", 1), ("A", "D", 1), ("B", "C", 1), ("B", "D", 1),
    ]  # fmt: skip
    assert report.left_out == {"repeats a row of the same annotator": 3}
    with pytest.raises(
        DataError, match="'first_turn_preferred_response': got 'response_e'; expected one of response_a "
    ):
        read([row | {"first_turn_preferred_response": "response_e"}])
    with pytest.raises(DataError, match=r"no vote .first_turn_preferred_response is null"):
        load_pairs([row | {"first_turn_preferred_response": None}])


def ordered(pair):
    return pair if pair.response_a < pair.response_b else pair.swapped()


def coval(*rankings):
    turns = {"messages": [{"role": "user", "content": "Tea?"}]}
    answers = [{"response_index": i, "messages": [{"role": "assistant", "content": i.lower()}]} for i in "ABC"]
    assessments = [
        {
            "annotator_id": str(i),
            "ranking_blocks": {"personal": [{"ranking": ranking}], "world": [{"ranking": "C>B>A"}]},
        }
        for i, ranking in enumerate(rankings)
    ]
    return {"prompt_id": "p", "prompt": turns, "responses": answers, "metadata": {"assessments": assessments}}


def test_coval_has_the_personal_rankings_of_all_annotators():
    report = LoadReport()
    pairs = load_pairs([coval("A>B=C", "B > A > C", "A>B>C", "A>B")], report=report)
    assert report.layout == "coval"
    assert [(p.id, p.votes_a, p.votes_b, p.votes_tie) for p in pairs] == [
        ("p/A-B", 3, 1, 0), ("p/A-C", 3, 0, 0), ("p/B-C", 2, 0, 1),
    ]  # fmt: skip
    assert pairs[0].response_b == (Message("assistant", "b"),)
    row = coval("A>B")
    row["metadata"]["assessments"][0]["ranking_blocks"]["personal"] = []
    with pytest.raises(DataError, match=r"no vote .no personal ranking of A and B"):
        load_pairs([row])
    for ranking in ("A>D", "A>B>A"):
        with pytest.raises(DataError, match=r"column 'ranking': got .*; expected each of A, B, C once"):
            load_pairs([coval(ranking)])
