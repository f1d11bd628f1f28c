"""Published layouts, each on a few rows of our own making that have the published columns."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from autorater.data.errors import DataError, DataWarning, UserError
from autorater.data.formats import load_items
from autorater.data.layouts import LAYOUTS
from autorater.data.layouts.votes import winner_of
from autorater.data.loading import LoadReport, load_pairs
from autorater.data.messages import Message, plain_text
from autorater.data.pairs import Pair


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def messages(*turns):
    """A conversation as messages, the user first."""
    return tuple(Message(("user", "assistant")[i % 2], turn) for i, turn in enumerate(turns))


def answer(text):
    return (Message("assistant", text),)


def read(rows, **options):
    """Pairs, and what the report says."""
    report = LoadReport()
    return load_pairs(rows, report=report, **options), report


def in_order(pair, first):
    """The pair with this response as A, whatever the drawn order."""
    return pair if pair.response_a == first else pair.swapped()


def battle(winner, turn=1, **columns):
    sides = {
        f"conversation_{x}": [part for i in range(1, 3) for part in (user(f"Q{i}"), assistant(f"{x}{i}"))][
            : 2 * int(turn)
        ]
        for x in "ab"
    }
    return {"model_a": "m", "model_b": "n", "winner": winner, "turn": turn, **sides, **columns}


ARENA = {"language": "English", "judge": "arena_user_1", "anony": True}


def test_chatbot_arena():
    rows = [battle(winner, turn, question_id=f"{i:032d}", **ARENA) for i, (winner, turn) in enumerate(
        (("model_a", 1), ("tie (bothbad)", 1.0), ("model_b", 2)))]  # fmt: skip
    rows[1]["conversation_a"][0] = rows[1]["conversation_b"][0] = user("Another?")
    pairs, report = read(rows)
    assert report.layout == "chatbot_arena"
    assert [(p.label, p.n_votes, p.model_a, p.model_b) for p in pairs] == [
        (0, 1, "m", "n"),
        (0.5, 1, "m", "n"),
        (1, 1, "m", "n"),
    ]
    assert pairs[0] == replace(
        Pair(f"{0:032d}", messages("Q1"), answer("a1"), answer("b1"), 0.0, 1, None, "m", "n"),
        votes_a=1, votes_b=0, votes_tie=0,
    )  # fmt: skip
    assert pairs[2].response_a == (*answer("a1"), *messages("Q2", "a2"))
    parts = [{"type": "text", "text": "Q1", "image": None}]
    row = battle("both_bad", id="x", evaluation_session_id="s", **{k: v for k, v in ARENA.items() if k == "language"})
    row["conversation_a"][0] = {"role": "user", "content": parts}
    (pair,), report = read([row])
    assert (report.layout, pair.label, pair.prompt) == ("chatbot_arena_140k", 0.5, messages("Q1"))


def test_mt_bench_gathers_the_votes_on_a_turn():
    rows = [
        battle("model_a", 1, question_id=81, judge="expert_0")
        | {"conversation_a": battle("tie", 2)["conversation_a"]},
        battle("tie", 1.0, question_id=81.0, judge="expert_1"),
        battle("model_b", 2, question_id=81, judge="expert_0"),
        battle("error", 2, question_id=82, judge="gpt4_pair"),
    ]
    swapped = battle("model_b", question_id=81, judge="author_1")
    for name in ("model", "conversation"):
        swapped[f"{name}_a"], swapped[f"{name}_b"] = swapped[f"{name}_b"], swapped[f"{name}_a"]
    pairs, report = read([*rows, swapped])
    assert report.layout == "mt_bench"
    assert [(p.id, p.votes_a, p.votes_b, p.votes_tie, p.topic) for p in pairs] == [
        ("81/1/m/n", 2, 0, 1, "81"), ("81/2/m/n", 0, 1, 0, "81"),
    ]  # fmt: skip
    assert (report.rows, report.gathered, dict(report.left_out)) == (5, 2, {"winner is 'error'": 1})
    with pytest.raises(DataError, match=r"column 'turn': got 3; expected a turn from 1 to 1"):
        read([battle("tie", question_id=1) | {"turn": 3}])


def test_whole_floats_of_csv_are_turns(tmp_path):
    path = tmp_path / "a.csv"
    row = {name: str(value) for name, value in battle("tie", 1.0, question_id=81.0, judge="expert_1").items()}
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([row, row.values()])
    assert load_pairs(path)[0].id == "81/1/m/n"
    assert load_items(path).items[0].id == "81/1/m/n"


def test_lmsys_55k_has_lists_in_its_fields(tmp_path):
    columns = ("id", "model_a", "model_b", "prompt", "response_a", "response_b", "winner_model_a", "winner_model_b")
    rows = [
        (1, "m", "n", '["Tea?"]', '["Yes."]', '["No."]', 0, 1, 0),
        (2, "m", "n", '["Tea?","Why?"]', '["Yes.","Warm."]', '["No.",null]', 0, 0, 1),
    ]
    with (tmp_path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([(*columns, "winner_tie"), *rows])
    pairs, report = read(tmp_path / "train.csv")
    assert report.layout == "lmsys_55k"
    assert [(p.id, p.label) for p in pairs] == [("1", 1.0), ("2", 0.5)]
    assert (pairs[0].prompt, pairs[0].response_a, pairs[0].response_b) == ("Tea?", "Yes.", "No.")
    assert (pairs[1].prompt, pairs[1].response_b) == (messages("Tea?"), (*answer("No."), *messages("Why?", "")))
    with pytest.raises(DataError, match=r"'prompt': got 'Tea\?'; expected a JSON list"):
        read([dict(zip((*columns, "winner_tie"), rows[0], strict=True)) | {"prompt": "Tea?"}])


TEXTS = {"id": 1, "model_a": "m", "model_b": "n", "prompt": "Tea?", "response_a": "[Yes]", "response_b": "No."}


def test_lmsys_55k_in_copies_with_plain_texts():
    row = TEXTS | {"winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}
    (pair,), report = read([row])
    assert (report.layout, pair.prompt, pair.response_a, pair.response_b) == ("lmsys_55k", "Tea?", "[Yes]", "No.")
    assert pair.label == 1
    (spelled,), _ = read(
        [row | {"prompt": "['Tea?', 'Why?']", "response_a": "['Yes.', None]", "response_b": "['No.', '']"}]
    )
    assert [message.content for message in spelled.prompt] == ["Tea?"], "lists as Python prints them"
    with pytest.raises(DataError, match=r"'response_a': got .*; expected a JSON list"):
        read([row | {"prompt": '["Tea?"]', "response_a": '["Yes.'}])
    with pytest.raises(DataError, match=r"'prompt': got 'Tea\?'; expected a JSON list"):
        read([row | {"response_a": '["Yes."]', "response_b": '["No."]'}])
    assert read([row | {"prompt": '["Tea?"]'}])[0] == [pair]
    with pytest.raises(DataError, match=r"'prompt': got .*; expected the text of one turn, as the responses are"):
        read([row | {"prompt": '["Tea?", "Why?"]'}])


def test_search_arena_has_messages():
    row = {name.replace("conversation", "messages"): value for name, value in battle("model_b", 2).items()}
    row |= {"languages": ["English"], "system_a_metadata": {}, "system_b_metadata": {}}
    other = row | {"messages_a": [user("Other?"), assistant("a")]}
    pairs, report = read([row, row | {"winner": "tie (bothbad)"}, row | {"winner": None}])
    assert (report.layout, len(pairs), dict(report.left_out)) == ("search_arena", 1, {"winner is null": 1})
    assert (pairs[0].votes_a, pairs[0].votes_b, pairs[0].votes_tie) == (0, 1, 1)
    assert pairs[0].response_b == (*answer("b1"), *messages("Q2", "b2"))
    with pytest.raises(
        DataError, match=r"column 'messages_b': got .*; expected the same first message as in messages_a"
    ):
        read([other | {"turn": None}])


COMPARIA = {"id": "c", "model_a_name": "m", "model_b_name": "n", "conv_turns": 1} | {
    f"conversation_{side}": [user("Tea?"), assistant(side)] for side in "ab"
}


@pytest.mark.parametrize(
    ("chosen", "equal", "label"),
    [("m", False, 0), ("n", "False", 1), (None, True, 0.5), ("n", "True", 0.5), (None, False, None)],
)
def test_comparia_names_the_chosen_model(chosen, equal, label):
    row = COMPARIA | {"chosen_model_name": chosen, "both_equal": equal}
    if label is None:
        with pytest.raises(DataError, match=r"no vote .chosen_model_name is null"):
            read([row])
        return
    (pair,), report = read([row])
    assert (report.layout, pair.id, pair.label, pair.model_a, pair.model_b) == ("comparia", "c", label, "m", "n")
    assert (pair.prompt, pair.response_a) == (messages("Tea?"), answer("a"))


def test_comparia_with_a_model_that_is_neither():
    row = COMPARIA | {"chosen_model_name": "o", "both_equal": False}
    with pytest.raises(DataError, match="column 'chosen_model_name': got 'o'; expected model_a_name or model_b_name"):
        read([row])
    with pytest.raises(DataError, match=r"no vote .both models have one name"):
        read([row | {"model_b_name": "m", "chosen_model_name": "m"}])


def test_ppe():
    row = {
        "question_id": "x",
        "model_a": "m",
        "model_b": "n",
        "prompt": "Tea?",
        "response_1": "Yes.",
        "response_2": "No.",
    }
    (pair,), report = read([row | {"winner": "tie"}])
    assert (report.layout, pair.id, pair.response_b, pair.label) == ("ppe", "x", "No.", 0.5)


def test_wsdm_is_one_row_an_annotator():
    row = {
        "id": "x",
        "prompt": "Tea?",
        "response_a": "Yes.",
        "response_b": "No.",
        "winner": "model_b",
        "language": "en",
    }
    (pair,), report = read([row | {"model_a": "m", "model_b": "n"}])
    assert (report.layout, pair.label, pair.n_votes, pair.model_b) == ("pairs", 1.0, 1, "n")


HS3 = {"domain": "code", "context": [user("Tea?")], "response1": "Yes.", "response2": "No."}
HS2 = {"split": "train", "response_1": "Yes.", "response_2": "No."}


def test_helpsteer_strengths_are_votes_by_their_sign():
    individual = [{"score": s, "reasoning": ""} for s in (-3, 0, 2)]
    pairs, report = read(
        [
            HS3 | {"overall_preference": 1, "individual_preference": individual},
            HS3 | {"overall_preference": -2, "individual_preference": None, "context": [user("Coffee?")]},
        ]
    )
    assert report.layout == "helpsteer3"
    assert [(p.votes_a, p.votes_tie, p.votes_b) for p in pairs] == [(1, 1, 1), (1, 0, 0)]
    assert (pairs[0].prompt, pairs[0].topic) == (messages("Tea?"), "code")
    everyone = [{"strength": s, "justification": ""} for s in (1, 2, -1, -100)]
    pairs, report = read(
        [
            HS2 | {"prompt": "Tea?", "preference_strength": 1, "all_preferences_unprocessed": everyone},
            HS2 | {"prompt": "Hi.<extra_id_1>Assistant\nYes?<extra_id_1>User\nTea?", "preference_strength": 0},
            HS2 | {"prompt": "Milk?", "preference_strength": -100},
        ]
    )
    assert report.layout == "helpsteer2"
    assert [(p.votes_a, p.votes_tie, p.votes_b) for p in pairs] == [(1, 0, 2), (0, 1, 0)]
    assert pairs[1].prompt == messages("Hi.", "Yes?", "Tea?")
    assert sum(report.left_out.values()) == 1
    spelled = HS3 | {"overall_preference": 1, "context": json.dumps(HS3["context"])}
    assert read([spelled])[0][0].prompt == messages("Tea?")
    with pytest.raises(DataError, match="'overall_preference': got 4; expected strengths from -3 to 3"):
        read([HS3 | {"overall_preference": 4}])


def test_shp_prefers_a_where_the_label_is_1(tmp_path):
    row = {"history": "Tea?", "human_ref_A": "Yes.", "human_ref_B": "No.", "labels": 1, "score_A": 9, "score_B": 3}
    (tmp_path / "train.json").write_text(
        "".join(json.dumps(row | {"labels": i, "history": f"Q{i}"}) + "\n" for i in (1, 0))
    )
    pairs, report = read(tmp_path / "train.json")
    assert (report.layout, [p.label for p in pairs], pairs[0].n_votes) == ("shp", [0.0, 1.0], 1)
    (tmp_path / "train.json").write_text(json.dumps(row | {"human_ref_A": " "}))
    with pytest.raises(DataError, match="line 1: column 'human_ref_A': got ' '"):
        read(tmp_path / "train.json")


PREFERENCES = {
    "preference": {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    "conversational": {"prompt": [user("Sky?")], "chosen": [assistant("Blue.")], "rejected": [assistant("Green.")]},
    "implicit prompt": {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    "implicit, conversational": {
        "chosen": [user("Sky?"), assistant("Blue.")], "rejected": [user("Sky?"), assistant("Green.")],
    },
    "transcript": {
        "chosen": "\n\nHuman: Sky?\n\nAssistant: Blue.", "rejected": "\n\nHuman: Sky?\n\nAssistant: Green.",
    },
    "binarized": {
        "prompt": "Sky?",
        "chosen": [user("Sky?"), assistant("Blue.")], "rejected": [user("Sky?"), assistant("Green.")],
    },
}  # fmt: skip
PARTS = {
    "preference": ("The sky is", " blue.", " green."),
    "conversational": (messages("Sky?"), answer("Blue."), answer("Green.")),
    "implicit prompt": ("The sky is", " blue.", " green."),
    "binarized": ("Sky?", answer("Blue."), answer("Green.")),
}


@pytest.mark.parametrize("kind", PREFERENCES)
def test_preference_data_is_one_vote_a_row(kind):
    prompt, chosen, rejected = PARTS.get(kind, PARTS["conversational"])
    (pair,), _ = read([PREFERENCES[kind]])
    pair = in_order(pair, chosen)
    assert (pair.prompt, pair.response_a, pair.response_b) == (prompt, chosen, rejected)
    assert (pair.label, pair.n_votes, pair.votes_a) == (0.0, 1, 1)


def test_preference_data_keeps_its_weights():
    (pair,), _ = read([{"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green.", "weight": 3.0}])
    assert pair.weight == 3


def test_the_order_of_preference_data_tells_nothing():
    rows = [{"prompt": f"Q{i}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(400)]
    labels = [pair.label for pair in read(rows)[0]]
    assert abs(sum(labels) - 200) < 40
    assert labels == [pair.label for pair in read(rows)[0]]
    assert labels != [pair.label for pair in read(rows, seed=1)[0]]
    # the position depends on the texts alone: with the other vote they are shown in the same order
    other = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    assert [p.response_a for p in read(rows)[0]] == [p.response_a for p in read(other)[0]]
    pairs, report = read([*rows, *other])
    assert {(p.label, p.n_votes) for p in pairs} == {(0.5, 2)}
    assert report.gathered == 400


def test_errors_name_the_columns_of_the_file():
    for row, column in (
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant:"}, "rejected"),
        ({"instruction": " ", "output_1": "a", "output_2": "b", "preference": 1}, "instruction"),
        ({"history": "q", "human_ref_A": "a", "human_ref_B": [], "labels": 1}, "human_ref_B"),
    ):
        with pytest.raises(DataError, match=f"row 0 .counted from 0.: column '{column}': got"):
            read([row])


def test_a_transcript_as_prompt():
    (pair,), _ = read([{"prompt": "\n\nHuman: Tea?\n\nAssistant:", "chosen": " Yes.", "rejected": " No."}])
    assert (pair.prompt, {pair.response_a, pair.response_b}) == (messages("Tea?"), {" Yes.", " No."})


def test_transcripts_keep_their_turns():
    turns = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Tea?\n\nAssistant:"
    (pair,), report = read([{"chosen": f"{turns} Yes,\n\nplease.", "rejected": f"{turns} No."}])
    assert report.layout == "preference"
    assert pair.prompt == messages("Hi.", "Hello.", "Tea?")
    assert {pair.response_a, pair.response_b} == {answer("Yes,\n\nplease."), answer("No.")}
    with pytest.raises(DataError, match="'chosen': got 'Yes'; expected the same beginning as rejected"):
        read([{"chosen": "Yes", "rejected": "No"}])


def test_ultrafeedback_with_equal_scores_is_a_tie():
    row = PREFERENCES["binarized"] | {"prompt_id": "x", "messages": [], "score_chosen": 8.0, "score_rejected": 8.0}
    (pair,), report = read([row])
    assert (report.layout, pair.label, pair.votes_tie) == ("ultrafeedback", 0.5, 1)


def test_rewardbench():
    row = {
        "id": 7,
        "subset": "math",
        "prompt": "2+2?",
        "chosen": "4",
        "chosen_model": "m",
        "rejected": "5",
        "rejected_model": "n",
    }
    (pair,), report = read([row])
    assert report.layout == "rewardbench"
    pair = in_order(pair, "4")
    assert (pair.id, pair.topic, pair.model_a, pair.model_b, pair.label) == ("7", "math", "m", "n", 0.0)
    lists = {"id": "t1", "subset": "Ties", "num_correct": 2, "num_incorrect": 2, "total_completions": 4}
    pairs, report = read([lists | {"prompt": "A colour?", "chosen": ["red", "blue"], "rejected": ["dog", "one"]}])
    assert report.layout == "rewardbench_2"
    assert [p.id for p in pairs] == ["t1/0-0", "t1/0-1", "t1/1-0", "t1/1-1"]
    assert {in_order(p, p.response_a).label == float(p.response_b in ("red", "blue")) for p in pairs} == {True}


@pytest.mark.parametrize("as_list", [list, lambda texts: pytest.importorskip("numpy").array(texts, dtype=object)])
def test_rm_bench_has_every_right_with_every_wrong_response(as_list):
    row = {"id": "chat/1", "prompt": "Tea?", "domain": "chat"}
    sides = {"chosen": as_list(["Yes.", "Yes, do.", "**Yes**"]), "rejected": as_list(["No.", "No, no.", "**No**"])}
    pairs, report = read([row | sides])
    assert (report.layout, len(pairs), {p.topic for p in pairs}) == ("preference", 9, {"chat"})
    assert {p.id for p in pairs} == {f"chat/1/{i}-{j}" for i in range(3) for j in range(3)}
    assert {p.label == float("Yes" in p.response_b) for p in pairs} == {True}
    with pytest.raises(DataError, match="column 'prompt': got None"):
        read([sides])


def test_rm_bench_in_a_table_of_text(tmp_path):
    header = "id,prompt,chosen,rejected,domain\n"
    (tmp_path / "a.csv").write_text(
        header + """c/1,Tea?,"['Yes.', 'Yes, do.', '**Yes**']","[""No."", ""No, no."", ""**No**""]",chat\n"""
    )
    pairs, _ = read(tmp_path / "a.csv")
    assert [pair.id for pair in pairs] == [f"c/1/{i}-{j}" for i in range(3) for j in range(3)]
    assert {pair.label == float("Yes" in pair.response_b) for pair in pairs} == {True}


@pytest.mark.parametrize("row", [
    {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 0},
    {"info": {"post": "q"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0},
    {"question": "q", "answer_0": "a", "answer_1": "b", "score_0": 1, "score_1": -1},
    {"instruction": "q", "chosen_response": "a", "rejected_response": "b"},
    {"trajectory": [{"from": "user", "value": "q"}], "chosen": "a", "rejected": "b", "task": "t", "dataset": "d"},
    {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 1},
    {"pair_id": 1, "question": "q", "response_A": "a", "response_B": "b", "label": "A>B"},
])  # fmt: skip
def test_a_column_that_a_later_row_lacks_is_null(row):
    def outcome(second):
        try:
            return load_pairs([row, second], report=LoadReport())
        except DataError as error:
            return str(error)

    for column in row:
        assert outcome({name: row[name] for name in row if name != column}) == outcome(row | {column: None})


def test_a_system_message_of_orca_is_text():
    with pytest.raises(DataError, match=r"column 'system': got 5; expected text, or null"):
        load_pairs([{"system": 5, "question": "Tea?", "chosen": "Yes.", "rejected": "No."}])


@pytest.mark.parametrize(("layout", "column"), [("orca_dpo", "question"), ("distilabel_orca", "input")])
def test_orca_has_a_system_message(layout, column):
    row = {"system": "Be kind.", column: "Tea?", "chosen": "Yes, I do.", "rejected": "Yes or no."}
    (pair,), report = read([row])
    assert (report.layout, report.unread, in_order(pair, "Yes, I do.").label) == (layout, [], 0)
    assert pair.prompt == (Message("system", "Be kind."), *messages("Tea?"))
    (pair,), _ = read([row | {"system": "", "status": "tie"}])
    assert (pair.prompt, pair.label) == ("Tea?", 0.5)
    shared = {name: f"\n\nHuman: Tea?\n\nAssistant: {row[name]}" for name in ("chosen", "rejected")}
    (pair,), report = read([row | shared])
    assert (pair.prompt, report.unread) == (messages("Tea?"), ["system"])
    with pytest.raises(
        DataError,
        match=f"column '{column}': got 'Milk.'; expected what chosen and rejected begin with; layout='preference'",
    ):
        read([row | shared | {column: "Milk?"}])
    (pair,), report = read([row | {"prompt": "Milk?"}])
    assert (report.layout, pair.prompt, report.unread) == ("preference", "Milk?", ["system"])
    (pair,), report = read([row], columns={"prompt": "system"})
    assert (report.layout, pair.prompt, report.unread) == ("preference", "Be kind.", [])
    (pair,), report = read([row | {"history": [["Hi?", "Hello."]], "context": "A shop."}])
    assert pair.prompt == (Message("system", "Be kind."), *messages("Hi?", "Hello.", "Tea?"))
    assert report.lines(1) == ["column 'context' is not read; only the prompt is"]


def test_a_text_beside_texts_that_share_their_beginning_may_be_the_prompt():
    row = {"source": "web", "task": "Add 2 and 2.", "chosen": "It is 4.", "rejected": "It is 5."}
    (pair,), report = read([row])
    assert (pair.prompt, report.lines(1)) == (
        "It is", ["column 'task' is not read; columns={'prompt': 'task'} reads it, if it is the prompt"],
    )  # fmt: skip
    (pair,), report = read([row], columns={"prompt": "task"})
    assert (pair.prompt, report.unread) == ("Add 2 and 2.", [])
    read_too = {"chosen_model": "GPT 4", "rejected_model": "Llama 2", "about": "small numbers"}
    (pair,), report = read([row | read_too], columns={"topic": "about"})
    assert ({pair.model_a, pair.model_b}, pair.topic, report.unread) == (
        {"GPT 4", "Llama 2"},
        "small numbers",
        ["task"],
    )


def test_llama_factory_has_an_instruction_and_an_input():
    row = {"instruction": "Shorten.", "chosen": "Yes, I do.", "rejected": "Yes or no."}
    (pair,), report = read([row])
    assert (report.layout, pair.prompt, in_order(pair, "Yes, I do.").label) == ("llama_factory", "Shorten.", 0)
    (pair,), _ = read([row | {"input": "A text."}])
    assert pair.prompt == "Shorten.\n\nA text."
    earlier = {"system": "Be kind.", "history": [["Hi?", "Hello."]]}
    (pair,), report = read([row | {"input": "A text."} | earlier])
    assert (report.layout, report.unread) == ("llama_factory", [])
    assert pair.prompt == (Message("system", "Be kind."), *messages("Hi?", "Hello.", "Shorten.\n\nA text."))
    chat = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    (pair,), _ = read([row | {"history": chat}])
    assert pair.prompt == messages("Hi?", "Hello.", "Shorten.")
    for history, place, value in (
        ([["Hi?", "Hello."], ["So?", "\ud800"]], r"history\[1\]", r"'\\ud800'"),
        ([user("Hi?"), {"role": "robot", "content": "Hello."}], r"history\[1\]", "'robot'"),
        ([{"question": "Hi?", "answer": "Hello."}], r"history\[0\]", "{'question': 'Hi.', 'answer': 'Hello.'}"),
    ):
        with pytest.raises(DataError, match=f"column '{place}': got {value}; expected"):
            read([row | {"system": "Be kind.", "history": history}])
    for history in (["Hi?"], "Hi?", [["Hi?", None]]):
        with pytest.raises(DataError, match=r"column 'history': got .*; expected a list of messages, or of pairs"):
            read([row | {"history": history}])
        assert read([row | {"history": history}], columns={"prompt": "instruction"})[0][0].prompt == "Shorten."
    with pytest.raises(DataError, match="column 'instruction': got ''; expected the prompt of chosen and rejected"):
        read([row | {"instruction": ""}])


def test_ultrainteract_has_a_trajectory():
    row = {
        "task": "Math",
        "dataset": "d",
        "trajectory": [{"from": "user", "value": "2+2?"}],
        "id": "i",
        "parent_id": 0,
    }
    (pair,), report = read([row | {"chosen": "Step 1: 4", "rejected": "Step 1: 5"}])
    assert (report.layout, pair.prompt, {pair.response_a, pair.response_b}) == (
        "ultrainteract", messages("2+2?"), {"Step 1: 4", "Step 1: 5"},
    )  # fmt: skip
    talk = {name: [user("2+2?"), assistant(name)] for name in ("chosen", "rejected")}
    assert read([row | talk | {"trajectory": [user("Other")]}])[0][0].prompt == messages("2+2?")


def test_conversations_that_do_not_fit_are_named():
    row = {"conversations": [user("Milk?")], "chosen": [user("Tea?"), assistant("Yes.")]}
    with pytest.raises(
        DataError, match=r"column 'conversations': got .*; expected what chosen and rejected begin with"
    ):
        read([row | {"rejected": [user("Tea?"), assistant("No.")]}])


def test_judgebench_labels_are_no_votes():
    row = {
        "pair_id": "u0",
        "source": "math",
        "question": "2+2?",
        "response_model": "m",
        "response_A": "4",
        "response_B": "5",
    }
    pairs, report = read([row | {"label": "A>B"}, row | {"pair_id": "u1", "question": "5?", "label": "B>A"}])
    assert report.layout == "judgebench"
    assert [(p.id, p.topic, p.label, p.n_votes) for p in pairs] == [
        ("u0", "math", 0.0, None),
        ("u1", "math", 1.0, None),
    ]


def test_the_models_of_preference_data():
    for joint in "_-":
        row = {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No.", f"chosen{joint}model": "m"}
        (pair,), _ = read([row | {f"rejected{joint}model": "n"}])
        assert {pair.response_a: pair.model_a, pair.response_b: pair.model_b} == {"Yes.": "m", "No.": "n"}


def test_alpaca_farm_names_its_annotators():
    row = {"instruction": "Tea?", "output_1": "Yes.", "output_2": "No.", "preference": 1}
    (pair,), report = read([row | {"annotator_index": index} for index in (3, 4, 4)])
    assert (pair.votes_a, dict(report.left_out)) == (2, {"repeats a row of the same annotator": 1})


def test_alpaca_eval():
    row = {"instruction": "Tea?", "output_1": "Yes.", "output_2": "No.", "generator_1": "m", "generator_2": "n"}
    preferences = (1, 2, 0, 1.5, None, 1.75)
    pairs, report = read([row | {"instruction": f"Q{i}", "preference": p} for i, p in enumerate(preferences)])
    assert report.layout == "alpaca_eval"
    assert [(p.label, p.n_votes) for p in pairs] == [(0, 1), (1, 1), (0.5, 1), (0.5, 1), (0.75, None)]
    assert dict(report.left_out) == {"preference is null": 1}
    everyone, _ = read([row | {"preference": p, "annotator": f"w{i}"} for i, p in enumerate((1, 2, 2))])
    assert [(p.votes_a, p.votes_b) for p in everyone] == [(1, 2)]
    with pytest.raises(DataError, match=r"'preference': got 3; expected a number in \[1, 2\]"):
        read([row | {"preference": 3}])


def test_auto_j():
    row = {"scenario": "advice", "response 1": "Yes.", "response 2": "No."}
    pairs, report = read([row | {"prompt": f"Q{i}", "label": label} for i, label in enumerate((0, 1, "2.0", None))])
    assert (report.layout, [p.label for p in pairs], pairs[0].topic) == ("auto_j", [0, 1, 0.5], "advice")
    assert dict(report.left_out) == {"label is null": 1}
    with pytest.raises(DataError, match=r"'label': got 3; expected 0 \(the first response\), 1"):
        read([row | {"prompt": "Tea?", "label": 3}])


def test_judgelm_has_two_ratings():
    row = {"question_id": 1, "answer1_body": "Yes.", "answer2_body": "No.", "answer1_model_id": "m"}
    scores = ([8, 3.5], "[3.  8.5]", "[7, 7]", [-1, -1], None)
    pairs, report = read([row | {"question_body": f"Q{i}", "score": score} for i, score in enumerate(scores)])
    assert (report.layout, [p.label for p in pairs], pairs[0].model_a) == ("judgelm", [0, 1, 0.5], "m")
    assert dict(report.left_out) == {"score is -1, not parsed": 1, "score is null": 1}
    for score in ([1], [{"rouge1": 0.1}, {"rouge1": 0.2}], 5, [1, None]):
        with pytest.raises(DataError, match=r"column 'score': got .*; expected two numbers, the ratings of both"):
            read([row | {"question_body": "Tea?", "score": score}])


def test_pandalm(tmp_path):
    row = {
        "idx": 0,
        "motivation_app": "Search",
        "cmp_key": "m_n",
        "instruction": "Shorten.",
        "response1": "a",
        "response2": "b",
    }
    row |= {"annotator1": 2, "annotator2": 0, "annotator3": 2}
    rows = [row | {"input": "A long text."}, row | {"idx": 1, "input": float("nan"), "annotator1": 1}]
    (tmp_path / "testset-v1.json").write_text(json.dumps(rows, indent=4))
    pairs, report = read(tmp_path / "testset-v1.json")
    assert report.layout == "pandalm"
    assert [(p.prompt, p.votes_a, p.votes_b, p.votes_tie) for p in pairs] == [
        ("Shorten.\n\nA long text.", 0, 2, 1), ("Shorten.", 1, 1, 1),
    ]  # fmt: skip
    assert pairs[0].topic == "Search"


TASK = {"id": 5, "data": {"prompt": "Tea?", "answer1": "Yes.", "answer2": "No."}}


def choice(selected, cancelled=False, kind="pairwise"):
    value = {"selected": selected} if kind == "pairwise" else {"choices": [selected]}
    return {
        "was_cancelled": cancelled,
        "completed_by": 1,
        "result": [{"type": kind, "from_name": "pw", "value": value}],
    }


def test_label_studio():
    annotations = [choice("left"), choice("right"), choice("right", kind="choices"), choice("left", cancelled=True)]
    pairs, report = read([TASK | {"annotations": annotations}, TASK | {"id": 6, "annotations": []}])
    assert report.layout == "label_studio"
    assert [(p.id, p.prompt, p.votes_a, p.votes_b) for p in pairs] == [("5", "Tea?", 1, 2)]
    assert dict(report.left_out) == {"no completed annotation": 1}
    ranked = {"result": [{"type": "ranker", "from_name": "rank", "value": {"ranker": {"best": ["answer1"]}}}]}
    with pytest.raises(DataError, match=r"annotated with ranker, not <Pairwise> or <Choices>"):
        read([TASK | {"annotations": [ranked]}])
    flat = {
        "answer1": "Yes.",
        "answer2": "No.",
        "prompt": "Tea?",
        "annotation_id": 1,
        "annotator": 1,
        "pairwise": "left",
    }
    (pair,), report = read([flat, flat | {"annotator": 2}, flat | {"annotator": 2}])
    assert (report.layout, pair.votes_a) == ("label_studio_min", 2)
    assert dict(report.left_out) == {"repeats a row of the same annotator": 1}


def test_several_choices_of_label_studio_are_no_vote():
    several, flat = choice("A", kind="choices"), TASK["data"] | {"annotation_id": 1, "annotator": 1}
    several["result"][0]["value"]["choices"].append("B")
    rows = [flat | {"choice": choices} for choices in ({"choices": ["A", "B"]}, '["A", "B"]')]
    for row in (TASK | {"annotations": [several]}, *rows):
        with pytest.raises(DataError, match=r"column '(annotations|choice)': got \['A', 'B'\]; expected A, B or tie"):
            read([row])
    assert read([flat | {"choice": ["B"]}])[0][0].label == 1


def test_questions_of_json_min_are_named():
    row = TASK["data"] | {"annotation_id": 1, "annotator": 1, "pairwise": "left", "preference": "B"}
    with pytest.raises(DataError, match=r"the questions \['pairwise', 'preference'\]; expected one, or columns"):
        read([row])
    for ours in ("vote", "winner", "preference"):
        assert read([row], columns={ours: "preference"})[0][0].label == 1, ours
        assert read([row], columns={ours: "pairwise"})[0][0].label == 0, ours
        with pytest.raises(DataError, match="column 'pairwise': got 'up'; expected A, B or tie"):
            read([row | {"pairwise": "up"}], columns={ours: "pairwise"})


def test_exports_have_an_instruction_and_an_input():
    fields = {"instruction": "Shorten.", "input": "A text.", "answer1": "Yes.", "answer2": "No."}
    rows = (
        {"id": 1, "data": fields, "annotations": [choice("left")]},
        fields | {"annotation_id": 1, "annotator": 1, "pairwise": "left"},
        fields | {"best.responses": ["A"]},
        HIT | {f"Input.{name}": value for name, value in fields.items()} | {"Input.prompt": "", "Answer.best": "A"},
    )
    for row in rows:
        (pair,), report = read([row])
        assert (pair.prompt, report.unread) == ("Shorten.\n\nA text.", [])


def test_exports_report_what_may_belong_to_the_prompt():
    fields = {"prompt": "Tea?", "query": "Tea?", "context": "A shop.", "system": "Be kind.", "history": []}
    row = fields | {"answer1": "Yes.", "answer2": "No.", "best.responses": ["A"]}
    (pair,), report = read([row])
    assert (pair.prompt, report.unread) == ("Tea?", ["system", "context"])
    _, report = read([HIT | {"Input.system": "Be kind.", "Answer.best": "A"}])
    assert report.unread == ["system"]
    fields = {"answer1": "Yes.", "answer2": "No.", "best.responses": ["A"], "history": "Tea?"}
    for columns in ({"prompt": "history"}, None):
        (pair,), report = read([fields], columns=columns)
        assert (pair.prompt, report.unread) == ("Tea?", [])


def test_an_empty_history_is_no_prompt():
    fields = {"answer1": "Yes.", "answer2": "No.", "best.responses": ["A"], "history": [], "query": "Tea?"}
    for history in ([], "[]"):
        (pair,), report = read([fields | {"history": history}])
        assert (pair.prompt, report.unread) == ("Tea?", [])


HIT = {"HITId": "h", "Title": "Compare", "AssignmentId": "1", "WorkerId": "u", "AssignmentStatus": "Approved"}
HIT |= {"Input.prompt": "Tea?", "Input.response_a": "Yes.", "Input.response_b": "No."}


@pytest.mark.parametrize(
    "answers",
    [
        {"Answer.preference": "B"}, {"Answer.choice.label": "Response B"}, {"Answer.best": "right"},
        {"Answer.preference": "B", "Answer.comment": "Longer."},
        {"Answer.taskAnswers": '[{"comment": "", "choice": {"A": false, "B": true}}]'},
        {"Answer.taskAnswers": '[{"choice": {"label": "B"}}]'},
        {"Answer.choice.A": "false", "Answer.choice.B": "true"},
    ],
)  # fmt: skip
def test_mturk_has_one_row_an_assignment(tmp_path, answers):
    rows = [HIT | answers | {"WorkerId": w, "AssignmentStatus": s} for w, s in (("u", "Submitted"), ("v", "Approved"))]
    rows.append(rows[0] | {"WorkerId": "w", "AssignmentStatus": "Rejected"})
    path = tmp_path / "batch_results.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])
    (pair,), report = read(path)
    assert (report.layout, pair.id, pair.prompt, pair.response_b) == ("mturk", "h", "Tea?", "No.")
    assert (pair.votes_a, pair.votes_b) == (0, 2)
    assert dict(report.left_out) == {"AssignmentStatus is 'Rejected'": 1}


def test_mturk_with_several_answers():
    row = HIT | {"Answer.helpful": "A", "Answer.harmless": "B"}
    with pytest.raises(DataError, match=r"the answers \['Answer.helpful', 'Answer.harmless'\]; expected one"):
        read([row])
    assert read([row], columns={"vote": "Answer.harmless"})[0][0].label == 1
    with pytest.raises(DataError, match=r"no vote .Answer.best is null"):
        read([HIT | {"Answer.best": ""}])
    with pytest.raises(DataError, match=r"column 'Answer.best': got \['A', 'B'\]; expected A, B or tie"):
        read([HIT | {"Answer.best.A": "true", "Answer.best.B": "true"}])
    named = {name.replace("response", "story"): value for name, value in row.items()}
    columns = {"response_a": "Input.story_a", "response_b": "Input.story_b", "vote": "Answer.helpful"}
    with pytest.raises(DataError, match="no column is known to be the two responses"):
        read([named], columns={"vote": "Answer.helpful"})
    assert read([named], columns=columns)[0][0].response_a == "Yes."


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Tea?", "completion": "Yes.", "label": True}, r"prompt, completion, label are one response a row"),
        ({"instruction": "Tea?", "output": "Yes.", "kto_tag": True}, r"output, kto_tag are one response a row"),
        ({"prompt": "Tea?", "response": "Yes.", "helpfulness": 3}, r"helpfulness are ratings of one response a row"),
        ({"prompt": "Tea?", "response": "Yes.", "is_safe": True}, r"is_safe are ratings of one response a row"),
        ({"info": {}, "summary": {}, "worker": "w"}, r"worker are ratings of one summary a row"),
        (
            {"context": [], "response1": "a", "response2": "b", "feedback1": [], "feedback2": []},
            r"without a preference",
        ),
        ({"question_id": 1, "g1_winner": "tie", "g2_winner": "tie"}, r"g1_winner, g2_winner are verdicts in both"),
        ({"question_id": 1, "games": [{"score": "A>B"}, {"score": "B>A"}]}, r"games are verdicts .* recorded:FILE"),
        ({"user_prompt": "Tea?", "model_response": "Yes.", "within_turn_id": 0}, r"\(PRISM\); expected its conv"),
        ({"message_id": "m", "parent_id": "p", "text": "Yes.", "rank": 0}, r"\(OpenAssistant\); expected its trees"),
    ],
)
def test_files_without_pairs_say_so(tmp_path, row, reason):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row))
    with pytest.raises(DataError, match=rf"a\.jsonl: line 1: .*{reason}"):
        load_pairs(path)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("query", "answer_1", "answer_2"), {"prompt": "query", "response_a": "answer_1", "response_b": "answer_2"}),
        (("prompt", "response 1", "response 2"), {"response_a": "response 1", "response_b": "response 2"}),
        (("prompt", "chosen_text", "rejected_text"), {"chosen": "chosen_text", "rejected": "rejected_text"}),
        (("prompt", "x", "y"), {"response_a": "THEIRS", "response_b": "THEIRS"}),
    ],
)
def test_suggested_names_do_not_change_places(names, columns):
    row = dict(zip((*names, "vote"), ("Tea?", "Yes, I do.", "Yes or no.", "A"), strict=True))
    with pytest.raises(DataError) as error:
        load_pairs([row])
    option = ",".join(f"{ours}={theirs}" for ours, theirs in columns.items())
    assert f"columns={columns} to name it" in str(error.value)
    assert f"--columns {option}," in str(error.value).replace("'", "")
    if "THEIRS" not in columns.values():
        (pair,), _ = read([row], columns=columns)
        assert (pair.prompt, in_order(pair, "Yes, I do.").label) == ("Tea?", 0)


FLAT = {
    "id": "r1",
    "status": "completed",
    "_server_id": "s",
    "instruction": "Tea?",
    "response_1": "Yes.",
    "response_2": "No.",
}


@pytest.mark.parametrize(
    "answers",
    [
        {"preference.responses": ["response_2", "response_1", "response_2"],
         "preference.responses.users": ["a", "b", "c"],
         "preference.responses.status": ["submitted", "submitted", "draft"]},
        {"preference.responses": [["response_2", "response_1"], ["response_1", "response_2"]],
         "preference.responses.status": ["submitted", "submitted"]},
        {"external_id": "x", "metadata": "{}",
         "preference": [{"user_id": "a", "value": "B", "status": "submitted"},
                        {"user_id": "b", "value": "A", "status": "submitted"},
                        {"user_id": "c", "value": "A", "status": "discarded"}]},
        {"external_id": "x", "metadata": "{}",
         "preference": {"user_id": ["a", "b"], "value": ["response_2", "response_1"], "status": ["submitted"] * 2}},
    ],
)  # fmt: skip
def test_argilla(answers):
    (pair,), report = read([FLAT | answers])
    assert (report.layout, pair.id, pair.prompt) == ("argilla", "r1", "Tea?")
    assert (pair.votes_a, pair.votes_b, pair.votes_tie) == (1, 1, 0)


def ranks(*ranked):
    return [{"value": f"response-{i}", "rank": rank} for i, rank in enumerate(ranked, 1)]


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (["B"], 1), (["response_1"], 0), (["response-2", "response-1"], 1), (ranks(2, 1), 1), (ranks(1, 1), 0.5),
        (["response2", "response1"], 1), (["Response 1", "Response 2"], 0),
        ([{"value": "B", "rank": 1}, {"value": "A", "rank": 2}], 1),
        (["A", "B"], None), (["Model 1", "Model 2"], None), (["response_1", "tie"], None),
        (["response_1", "response_1"], None), (ranks(1, 2, 2), None), (ranks(1, None), None), (ranks(1), None),
    ],
)  # fmt: skip
def test_an_answer_of_argilla_is_one_label_or_a_ranking_of_both(answer, label):
    others = {"response_3": "Maybe.", "a": "gpt", "b": "claude", "model_1": "gpt", "model_2": "claude"}
    row = FLAT | others | {"good.responses": [answer], "good.responses.status": ["submitted"]}
    if label is not None:
        assert read([row])[0][0].label == label
        return
    with pytest.raises(DataError, match=r"column 'good': got .* a ranking of response_1 and response_2|expected A, B"):
        read([row])
    with pytest.raises(DataError, match=r"no vote .good has no submitted answer"):
        read([row | {"good.responses.status": ["draft"]}])


def answered(texts, word):
    """Rows of all tools with an answer to one question."""
    hit = {"HITId": "h", "WorkerId": "u", "AssignmentStatus": "Approved"}
    return [
        texts | {"best.responses": [word]},
        {"id": 1, "data": texts, "annotations": [choice(word, kind="choices")]},
        texts | {"annotation_id": 1, "annotator": 1, "choice": word},
        hit | {f"Input.{name}": text for name, text in texts.items()} | {"Answer.best": word},
    ]


def sides(row, a, b):
    """`columns` of a row whose response A is in the column `a` and response B in `b`."""
    prefix = "Input." * ("HITId" in row)
    return {"response_a": f"{prefix}{a}", "response_b": f"{prefix}{b}"}


THREE = {"prompt": "Tea?", "response_1": "Yes.", "response_2": "No.", "response_3": "Maybe."}


@pytest.mark.parametrize(
    "word",
    [
        "response_1",
        "response-1",
        "Response 1",
        "Response 1 is better",
        "prefer response 1",
        "Response 1 is much better than 2",
    ],
)
@pytest.mark.parametrize("swapped", [True, False])
def test_an_answer_by_the_name_of_a_column_is_for_its_text(word, swapped):
    texts = {"prompt": "Tea?", "response_1": "Yes.", "response_2": "No."}
    ranking = texts | {"best.responses": [[{"value": "response_1", "rank": 1}, {"value": "response_2", "rank": 2}]]}
    for row in [ranking, *answered(texts, word)]:
        ((pair,), _) = read([row], columns=sides(row, "response_2", "response_1") if swapped else None)
        preferred = pair.response_b if pair.label else pair.response_a
        assert (preferred, pair.response_a) == ("Yes.", "No." if swapped else "Yes.")


@pytest.mark.parametrize(
    ("word", "a", "b"),
    [
        *((word, 2, 3) for word in ("response_1", "Response 1 is better", "prefer response 1", "1", "2")),
        *((word, 1, 3) for word in ("response_2", "Response 2", "2", 2.0, "prefer 2")),
        *((word, 2, 1) for word in ("1", "2", "1 is better", "option 1")),
    ],
)
def test_an_answer_that_names_another_response_is_an_error(word, a, b):
    for row in answered(THREE, word):
        expected = "one of the two responses, by a name that is for no other column; 'response_[123]' has another text"
        with pytest.raises(DataError, match=f"expected {expected}"):
            read([row], columns=sides(row, f"response_{a}", f"response_{b}"))


@pytest.mark.parametrize(
    ("word", "names"), [("Model 1", ["model_1", "model_2", "model_3"]), ("left", ["left", "middle", "right"])]
)
def test_an_answer_that_names_a_response_with_an_unusual_name_is_an_error(word, names):
    for row in answered({"prompt": "Tea?"} | dict(zip(names, ("Yes.", "No.", "Maybe."), strict=True)), word):
        with pytest.raises(DataError, match=f"expected one of the two responses.*; '{names[0]}' has another text"):
            read([row], columns=sides(row, *names[1:]))


def test_a_ranking_with_a_third_response_is_an_error():
    row = THREE | {"best.responses": [["response_1", "response_3"]]}
    with pytest.raises(DataError, match="expected one choice, or a ranking of"):
        read([row], columns=sides(row, "response_2", "response_3"))


def test_an_answer_for_one_of_two_equal_texts_is_a_tie():
    texts = {"prompt": "Tea?", "gpt": "Yes.", "claude": "Yes."}
    for row in [texts | {"best.responses": [["claude", "gpt"]]}, *answered(texts, "claude")]:
        ((pair,), _) = read([row], columns=sides(row, "claude", "gpt"))
        assert (pair.votes_a, pair.votes_b, pair.votes_tie) == (0, 0, 1)
    row = texts | {"best.responses": [["claude", "tie"]]}
    with pytest.raises(DataError, match="a ranking of"):
        read([row], columns=sides(row, "claude", "gpt"))
    for row in answered({"prompt": "Tea?", "response_1": "Yes.", "response_2": "Yes."}, "response_1"):
        assert read([row])[0][0].votes_a == 1


@pytest.mark.parametrize(
    ("word", "votes"),
    [
        *(("model_a", 1), ("Model 1", 1), ("model_2 is better", 0), ("left", 1), ("A", 1), ("Assistant A", 1)),
        *(("1", 1), ("A is better", 1), ("response_2", 0)),
    ],
)
def test_other_columns_are_no_responses(word, votes):
    names = ("model_a", "model_b", "model_1", "model_2", "left", "right", "a", "b", "assistant_a", "assistant_b")
    others = {name: f"the model {name}" for name in names} | {"text_1": "A heading.", "text_2": "Another."}
    for row in answered(THREE | others, word):
        prefix = "Input." * ("HITId" in row)
        for columns in (None, {"model_a": f"{prefix}model_1", "model_b": f"{prefix}model_2"}):
            ((pair,), _) = read([row], columns=columns)
            assert pair.votes_a == votes


def test_argilla_nested_with_several_questions():
    row = {
        "id": "r1",
        "fields": {"query": "Tea?", "first": "Yes.", "second": "No."},
        "metadata": {},
        "suggestions": {},
    }
    row["responses"] = {
        "preference": [{"value": "A", "user_id": "u", "status": "submitted"}],
        "quality": [{"value": "good", "user_id": "u", "status": "submitted"}],
    }
    names = {"prompt": "query", "response_a": "first", "response_b": "second"}
    with pytest.raises(DataError, match=r"the questions \['preference', 'quality'\]; expected one, or columns"):
        read([row], columns=names)
    (pair,), report = read([row], columns=names | {"vote": "preference"})
    assert (report.layout, pair.response_a, pair.votes_a) == ("argilla", "Yes.", 1)


def test_layouts_by_name():
    row = {
        "prompt": "Tea?",
        "chosen": "Yes.",
        "rejected": "No.",
        "subset": "chat",
        "chosen_model": "m",
        "rejected_model": "n",
    }
    assert read([row])[1].layout == "rewardbench"
    assert read([row], layout="preference")[1].layout == "preference"
    with pytest.raises(DataError, match=r"column 'history' is missing; expected it in the layout shp"):
        read([row], layout="shp")
    with pytest.raises(UserError, match="unknown layout 'arena'; expected one of pairs, lmsys_55k"):
        read([row], layout="arena")


def test_every_layout_names_its_source():
    assert all(layout.source.startswith("https://") for layout in LAYOUTS.values())


def test_what_is_left_out_is_said():
    row = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No."}
    rows = [row | {"winner": winner} for winner in ("A", "B", None, "error", "tie (bothbad)")]
    with pytest.warns(DataWarning) as caught:
        (pair,) = load_pairs(rows)
    assert (pair.votes_a, pair.votes_b, pair.votes_tie) == (1, 1, 1)
    assert [str(w.message) for w in caught] == [
        "list of 5 rows: 2 rows left out (winner is null: 1, winner is 'error': 1); 1 pair kept",
        "list of 5 rows: 2 rows with the texts of an earlier pair, votes added; 1 pair kept",
    ]
    with pytest.raises(DataError, match=r"list of 1 rows: no vote \(winner is null\)"):
        load_pairs([row | {"winner": None}])


@pytest.mark.parametrize(
    ("winner", "words"),
    [
        ("A", ("a", "A", "model_a", "Model A", "response-1", 1, "1", 1.0, "first", "left", "A>B", "B<<A", "[[A]]")),
        ("A", ("1.0", " 1 ")),
        ("B", ("b", "model_b", 2, "right", "second", "B>A", "[[B>>A]]", "answer2")),
        ("tie", ("tie", "Tie", "tie (bothbad)", "both_bad", "tie (inconsistent)", "A=B", "[[C]]", "draw")),
        ("tie", ("tie (both good)", "[[A=B]]")),
        (None, ("error", "", "null", "-", "--")),
    ],
)  # fmt: skip
def test_words_for_a_winner(winner, words):
    assert {winner_of(word, "winner") for word in words} == {winner}


@pytest.mark.parametrize(
    "word",
    [
        *(0, True, "C", "c", 3, -1, "-1", -2.0, "- 1", 0.5, "gpt-4", "ab", "A>", "A is better than or equal to B"),
        *("A-", "B--", "-A", "[[A-]]", "tie -", "- model_a"),
    ],
)
def test_other_words_are_refused(word):
    with pytest.raises(DataError, match=r"column 'winner'.*expected A, B or tie"):
        winner_of(word, "winner")


def test_every_layout_is_in_the_documentation():
    page = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for layout in LAYOUTS.values():
        assert f"`{layout.name}` | [" in page, layout.name
        assert layout.source in page, layout.source


def test_a_column_that_looks_like_criteria_is_not_ignored_in_silence():
    row = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": 1, "rubric": "Brevity."}
    with pytest.warns(DataWarning, match=r"column 'rubric' is not read; columns=\{'criteria': 'rubric'\} reads it"):
        load_pairs([row])
    (pair,), report = read([row], columns={"criteria": "rubric"})
    assert (pair.criteria, report.unread) == ("Brevity.", [])


def test_columns_of_published_layouts_can_be_named():
    (pair,), report = read(
        [PREFERENCES["binarized"] | {"kind": "facts", "who": 3.0}], columns={"topic": "kind", "group": "who"}
    )
    assert (report.layout, pair.topic, pair.group, pair.prompt) == ("preference", "facts", "3", "Sky?")
    row = {"history": "Tea?", "title": "T", "human_ref_A": "Yes.", "human_ref_B": "No.", "labels": 1, "domain": "d"}
    (pair,), report = read([row], columns={"prompt": "title", "topic": "labels"})
    assert (report.layout, pair.prompt, pair.topic) == ("shp", "T", "1")
    question = {
        name if name != "prompt" else "question": value for name, value in PREFERENCES["conversational"].items()
    }
    (pair,), _ = read([question], columns={"prompt": "question"})
    assert pair.prompt == messages("Sky?")


PLAIN = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No."}
LIKED = {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}


@pytest.mark.parametrize(
    ("row", "columns", "label"),
    [
        ({"in": "Tea?", "output_1": "Yes.", "output_2": "No.", "label": 1},
         {"prompt": "in", "response_a": "output_1", "response_b": "output_2", "vote": "label"}, 0),
        (PLAIN | {"label": 0.1, "human": "B"}, {"vote": "human"}, 1),
        (PLAIN | {"Label": "B"}, {"vote": "Label"}, 1),
        (PLAIN | {"Label": 0, "human": "B"}, {"vote": "human"}, 1),
        (PLAIN | {"vote": "A", "human": "B"}, {"winner": "human"}, 1),
        (PLAIN | {"votes_a": 3, "votes_b": 1, "human": "B"}, {"vote": "human"}, 1),
        (PLAIN | {"winner": "A", "label": 1}, {"winner": "winner"}, 0),
        (battle("model_a", question_id=1, human="B"), {"vote": "human"}, 1),
        (battle(None, question_id=1, human="B"), {"vote": "human"}, 1),
        (PLAIN | {"votes_a": 3, "votes_b": 1}, {"votes_a": "votes_b", "votes_b": "votes_a"}, 0.75),
        (PLAIN | {"votes_a": 3, "votes_b": 1}, {"response_a": "response_b", "response_b": "response_a"}, 0.25),
    ],
)  # fmt: skip
def test_the_verdict_that_the_caller_names_is_read(row, columns, label):
    (pair,), _ = read([row], columns=columns)
    assert pair.label == label
    if "response_a" in columns and "response_a" in row:
        assert (pair.response_a, pair.response_b) == ("No.", "Yes.")


def test_a_label_and_a_winner_that_contradict_are_an_error():
    with pytest.raises(DataError, match=r"column 'winner': got 'A'; expected what label says, 1, or columns="):
        read([PLAIN | {"winner": "A", "label": 1}])
    for label, winner in ((0, "A"), (0.7, "A"), (1, "tie"), (1, "a model's name"), (1, None)):
        assert read([PLAIN | {"winner": winner, "label": label}])[0][0].label == label


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "Tea?", "chosen": "Yes, I do.", "rejected": "Yes or no."}, r"columns=\{'prompt': 'question'\}"),
        ({"messages": [user("Tea?")], "chosen": "Yes, I do.", "rejected": "Yes or no."}, r"\{'prompt': 'messages'\}"),
        (LIKED | {"prompt": "", "rejected": "Yes or no."}, "column 'prompt': got ''; expected the prompt"),
        (LIKED | {"prompt": None, "rejected": "Yes or no."}, "column 'prompt': got None; expected the prompt"),
    ],
)
def test_what_two_answers_share_is_no_prompt_where_there_is_one(row, message):
    with pytest.raises(DataError, match=message):
        read([row])


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        ({"chosen_rating": 4, "rejected_rating": 4.0}, 0.5), ({"chosen-rating": 4, "rejected-rating": 4}, 0.5),
        ({"chosen_score": 4, "rejected_score": 3}, None), ({"score_chosen": None, "score_rejected": None}, None),
        ({"status": "tie"}, 0.5), ({"status": "swapped"}, None),
    ],
)  # fmt: skip
def test_equal_scores_under_other_names(columns, label):
    (pair,), _ = read([LIKED | columns])
    assert in_order(pair, "Yes.").label == (0 if label is None else label)


@pytest.mark.parametrize("write", [json.dumps, str, lambda turns: str(turns).replace("}, {", "}\n {")])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_preference_data_with_messages_in_text(tmp_path, write, suffix):
    """JSON, Python, and what `to_csv` writes of the arrays that pandas reads from Parquet."""
    sides = [[user('It\'s "tea"?'), assistant(text)] for text in ("Yes.\nAnd {} {no} 'a' 'b'", "No.")]
    row = dict(zip(("chosen", "rejected"), map(write, sides), strict=True))
    path = tmp_path / f"a{suffix}"
    with path.open("w", newline="") as file:
        if suffix == ".csv":
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)
        else:
            json.dump(row, file)
    (pair,) = load_pairs(path)
    assert pair.prompt == messages('It\'s "tea"?')
    assert {pair.response_a, pair.response_b} == {answer("Yes.\nAnd {} {no} 'a' 'b'"), answer("No.")}


def test_lists_that_are_no_messages_are_texts():
    (pair,), _ = read([LIKED | {"chosen": "[1, 2]", "rejected": '{"role": "none"}'}])
    assert {pair.response_a, pair.response_b} == {"[1, 2]", '{"role": "none"}'}


def test_json_with_an_origin_is_no_message(tmp_path):
    path = tmp_path / "a.csv"
    legs = '[{"from": "Paris", "to": "Rome"}]'
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "response_a", "response_b", "label"], ["Route?", legs, "None.", "0"]])
    assert load_pairs(path)[0].response_a == legs


def test_a_frame_of_parquet_has_arrays():
    np, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    sides = {
        name: [np.array([user("Q"), assistant(text)], dtype=object)]
        for name, text in (("chosen", "a"), ("rejected", "b"))
    }
    (pair,), report = read(
        pandas.DataFrame({"prompt": ["Q"], "score_chosen": [1.0], "score_rejected": [1.0], **sides})
    )
    assert (report.layout, pair.label, {pair.response_a, pair.response_b}) == (
        "ultrafeedback", 0.5, {answer("a"), answer("b")},
    )  # fmt: skip


def test_arrays_inside_of_the_arrays_of_a_frame(tmp_path):
    """What `to_csv` writes of a frame that pandas reads from Parquet: the inner lists are printed as arrays."""
    np, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")

    def arrays(value):
        if isinstance(value, list):
            array = np.empty(len(value), dtype=object)
            array[:] = [arrays(part) for part in value]
            return array
        return {name: arrays(part) for name, part in value.items()} if isinstance(value, dict) else value

    row = battle("model_b", 1, id="x", language="English")
    parts = [{"type": "text", "text": "Is an array( or nan?", "image": float("nan")}]
    for side in "ab":
        row[f"conversation_{side}"] = arrays([{"role": "user", "content": parts}, row[f"conversation_{side}"][1]])
    pandas.DataFrame([row]).to_csv(tmp_path / "a.csv", index=False)
    (pair,), report = read(tmp_path / "a.csv")
    assert (report.layout, pair.prompt, pair.label) == ("chatbot_arena_140k", messages("Is an array( or nan?"), 1)


def test_lists_of_texts_as_numpy_prints_them(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected,num_correct\nQ,['a'],\"['y' 'z']\",1\n")
    pairs, _ = read(tmp_path / "a.csv")
    assert [in_order(pair, "a").response_b for pair in pairs] == ["y", "z"]


def test_a_prompt_that_is_the_first_of_several_questions():
    sides = [[*turns, assistant(text)] for text in "xy" for turns in [[user("Hi"), assistant("Hello"), user("Q")]]]
    (pair,), _ = read([{"prompt": "Hi", "chosen": sides[0], "rejected": sides[1]}])
    assert pair.prompt == messages("Hi", "Hello", "Q")
    with pytest.raises(DataError, match="expected what chosen and rejected begin with"):
        read([{"prompt": "Hello", "chosen": sides[0], "rejected": sides[1]}])


def test_conversations_that_begin_differently_are_no_pair():
    sides = {name: [user(name), assistant("Yes.")] for name in ("chosen", "rejected")}
    with pytest.raises(DataError, match=r"column 'rejected': got .*; expected the same beginning as chosen"):
        read([{"prompt": "chosen", **sides}])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([TASK | {"annotations": [{"result": "left"}]}], "column 'result': got 'left'; expected a list of mappings"),
        ([TASK | {"annotations": [{"result": [{"type": "choices", "value": None}]}]}], "no completed annotation"),
        ([FLAT | {"preference.responses": float("nan")}], "preference has no submitted answer"),
        ([FLAT | {"preference.responses": 5}], "column 'preference.responses': got 5; expected a list of answers"),
        ([FLAT | {"preference.responses": ["A"], "preference.responses.status": ["submitted"] * 2}],
         r"'preference.responses.status': got .*; expected a list of 1, one an answer"),
    ],
)  # fmt: skip
def test_exports_that_are_damaged(rows, message):
    with pytest.raises(DataError, match=message):
        read(rows)


def test_unanswered_records_and_blank_rows_of_exports_in_csv(tmp_path):
    path = tmp_path / "a.csv"
    answers = {"preference.responses": "['B']", "preference.responses.status": "['submitted']"}
    with path.open("w", newline="") as file:
        rows = [FLAT | answers, FLAT | {"id": "r2", "instruction": "Milk?"} | dict.fromkeys(answers, "")]
        csv.writer(file).writerows([rows[0], *(row.values() for row in rows)])
    (pair,), report = read(path)
    assert (pair.id, pair.label, dict(report.left_out)) == ("r1", 1, {"preference has no submitted answer": 1})
    row = TASK | {"annotations": json.dumps([choice("left")]), "data": json.dumps(TASK["data"])}
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([row, row.values(), [""] * 3])
    (pair,), report = read(path)
    assert (pair.label, dict(report.left_out)) == (0, {"the row is blank": 1})


def test_llama_factory_has_single_messages():
    answers = {name: {"from": "gpt", "value": name} for name in ("chosen", "rejected")}
    (pair,), _ = read([{"conversations": [{"from": "human", "value": "Tea?"}], **answers}])
    assert (pair.prompt, in_order(pair, answer("chosen")).response_b) == (messages("Tea?"), answer("rejected"))


@pytest.mark.parametrize("write", [json.dumps, str])
def test_llama_factory_has_single_messages_in_csv(tmp_path, write):
    answers = {name: write({"from": "gpt", "value": name}) for name in ("chosen", "rejected")}
    row = {"conversations": write([{"from": "human", "value": "Tea?"}]), **answers}
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([row, row.values()])
    (pair,), _ = read(tmp_path / "a.csv")
    assert (pair.prompt, in_order(pair, answer("chosen")).response_b) == (messages("Tea?"), answer("rejected"))


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("{{1}}", "x"),
        ("{['a']: 1}", "x"),
        ('{"role": "assistant", "content": "hi"}', '{"name": "x"}'),
        ('{"role": "user", "content": "hi"}', '{"role": "user", "content": "ho"}'),
        ('["apple", "pear"]', '["apple", "car"]'),
    ],
)
def test_answers_that_look_like_code_stay_texts(chosen, rejected):
    (pair,), report = read([{"prompt": "q", "chosen": chosen, "rejected": rejected, "domain": "code"}])
    assert (report.layout, {pair.response_a, pair.response_b}) == ("preference", {chosen, rejected})


def test_our_columns_in_another_case_are_ours_beside_those_of_a_layout():
    row = {"Prompt": "q", "Response_A": "x", "Response_B": "y", "winner": "B"}
    of_mturk = {"HITId": "1", "WorkerId": "w", "AssignmentStatus": "Approved"}
    for more in (of_mturk, {"messages": "m", "rejected_response": "r"}):
        (pair,), report = read([row | more])
        assert (report.layout, pair.response_b, pair.label) == ("pairs", "y", 1)


def test_label_studio_with_several_questions():
    both = choice("A", kind="choices")
    both["result"][0]["from_name"] = "helpful"
    other = both["result"][0] | {"from_name": "harmless", "value": {"choices": ["B"]}}
    tasks = [TASK | {"id": 4, "data": TASK["data"] | {"prompt": "Milk?"}, "annotations": [both | {"result": [other]}]}]
    tasks += [TASK | {"annotations": [both | {"result": [*both["result"], other]}]}]
    with pytest.raises(DataError, match=r"the questions \['helpful', 'harmless'\]; expected one, or columns"):
        read(tasks)
    for question, found in (("helpful", [("5", 0)]), ("harmless", [("4", 1), ("5", 1)])):
        for ours in ("vote", "winner"):
            pairs, _ = read(tasks, columns={ours: question})
            assert [(pair.id, pair.label) for pair in pairs] == found


def test_the_test_file_of_kaggle_has_no_votes(tmp_path):
    path = tmp_path / "test.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "prompt", "response_a", "response_b"], [1, '["Hi?","And?"]', '["x","z"]', '["y",null]']]
        )
    (pair,) = load_pairs(path, labelled=False)
    assert (pair.prompt, pair.label) == (messages("Hi?"), None)
    assert pair.response_a == (*answer("x"), *messages("And?", "z"))
    (named,) = load_pairs(path, labelled=False, layout="lmsys_55k")
    assert named == pair


def test_gpt_4_as_annotator_is_a_list():
    (pair,), _ = read([battle("model_a", question_id=1, judge=["gpt-4", "pair-v2"])] * 2)
    assert pair.n_votes == 1, "the same vote of the same annotator"


def test_a_system_column_is_not_ignored_in_silence():
    liked = {"prompt": "Tea?", "pos_resp": "Yes.", "neg_resp": "No."}
    rated = {"instruction": "Tea?", "output_1": "Yes.", "output_2": "No.", "preference": 1}
    for row in (LIKED, PREFERENCES["binarized"], liked, rated):
        _, report = read([row | {"System": "Be kind.", "history": [["Hi?", "Hello."]]}])
        assert report.lines(1) == [
            "column 'System' is not read; a system message in the prompt is",
            "column 'history' is not read; only the prompt is",
        ]


@pytest.mark.parametrize("wrap", [str, lambda text: [{"role": "assistant", "content": text}]])
def test_blank_responses_of_preference_data_are_kept_on_request(wrap):
    row = {"prompt": "Why?", "chosen": wrap(""), "rejected": wrap("Because.")}
    with pytest.raises(DataError, match=r"column 'chosen': .* allow_odd_responses to keep blank ones"):
        load_pairs([row])
    report = LoadReport()
    (pair,) = load_pairs([row], allow_odd_responses=True, report=report)
    assert {plain_text(pair.response_a), plain_text(pair.response_b)} == {"", "Because."}
    assert report.odd == {"blank": 1}


@pytest.mark.parametrize("without", [("question_id",), ("question_id", "language", "turn", "model_a", "model_b")])
def test_battles_need_no_id(without):
    asked, answers = [{"role": "user", "content": "Tea?"}], [[{"role": "assistant", "content": x}] for x in "xy"]
    row = {"question_id": "q", "language": "en", "turn": 1, "model_a": "m", "model_b": "n", "winner": "model_b"}
    row |= {"conversation_a": asked + answers[0], "conversation_b": asked + answers[1]}
    (pair,) = load_pairs([{name: value for name, value in row.items() if name not in without}])
    assert (pair.label, pair.response_b[0].content) == (1, "y")


def test_a_bad_strength_is_the_one_that_is_named():
    row = {"context": "Tea?", "response1": "x", "response2": "y", "overall_preference": 1}
    with pytest.raises(DataError, match="'individual_preference': got 9"):
        load_pairs([row | {"individual_preference": [{"score": None}, {"score": 9}]}])


def test_lists_of_unequal_length_in_a_mapping_are_named():
    row = {"context": "Tea?", "response1": "x", "response2": "y", "overall_preference": 1}
    with pytest.raises(DataError, match=r"row 0 .counted from 0.: column 'individual_preference': got .* one length"):
        load_pairs([row | {"individual_preference": {"score": [1, -2, 2], "reasoning": ["x", "y"]}}])
