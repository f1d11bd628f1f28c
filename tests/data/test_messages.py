"""Chat messages in the columns of pairs: what is read, what is refused, and what becomes of them."""

import csv
import json

import pytest

from autorater.data.curriculum import with_growing_responses
from autorater.data.errors import DataError
from autorater.data.items import pair_items
from autorater.data.loading import load_pairs, write_pairs
from autorater.data.messages import Message, common_beginning, plain_text, transcript
from autorater.data.pairs import leaked_responses, sparse_label, split_by

ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tea?"}]
PROMPT = (Message("system", "Be brief."), Message("user", "Tea?"))
TURNS = (Message("assistant", "Yes."), Message("user", "Why?"))
YES = [{"role": "assistant", "content": "Yes."}]
ROW = {"prompt": ASKED, "response_a": YES, "response_b": "No.", "label": 0}


def test_prompts_and_responses_keep_their_messages(tmp_path):
    (pair,) = load_pairs([ROW])
    assert (pair.prompt, pair.response_a, pair.response_b) == (PROMPT, (Message("assistant", "Yes."),), "No.")
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW))
    assert load_pairs(tmp_path / "a.jsonl") == [pair]
    write_pairs([pair], tmp_path / "b.jsonl")
    assert json.loads((tmp_path / "b.jsonl").read_text())["prompt"] == ASKED
    assert load_pairs(tmp_path / "b.jsonl") == [pair]


@pytest.mark.parametrize("spelled", [json.dumps, repr])
def test_csv_fields_spell_messages_as_json_or_as_pandas_does(tmp_path, spelled):
    with (tmp_path / "a.csv").open("w", newline="") as file:
        rows = [spelled(ASKED), spelled(YES), '[{"role": 1}', "0"], ["[1] is a list", '[{"a": 1}]', "No.", "1"]
        csv.writer(file).writerows([list(ROW), *rows])
    first, second = load_pairs(tmp_path / "a.csv")
    assert (first.prompt, first.response_a, first.response_b) == (
        PROMPT,
        (Message("assistant", "Yes."),),
        '[{"role": 1}',
    )
    assert (second.prompt, second.response_a) == ("[1] is a list", '[{"a": 1}]')


def test_a_text_of_jsonl_that_spells_messages_is_a_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(ROW | {"response_b": json.dumps(YES)}))
    assert load_pairs(tmp_path / "a.jsonl")[0].response_b == json.dumps(YES)


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"role": "user", "content": [{"type": "text", "text": "Te"}, {"type": "text", "text": "a?"}]}, "Tea?"),
        ({"role": "user", "content": ["Te", "a?"]}, "Tea?"),
        ({"role": "user", "content": "Tea?", "name": "me", "tool_calls": None}, "Tea?"),
        ({"from": "human", "value": "Tea?"}, "Tea?"),
    ],
)
def test_forms_of_a_message(message, content):
    (pair,) = load_pairs([ROW | {"prompt": [message]}])
    assert pair.prompt == (Message("user", content),)


@pytest.mark.parametrize(
    ("messages", "parts"),
    [
        ([{"role": "moderator", "content": "x"}], ("'prompt[0]': got 'moderator'", "a role out of system, developer")),
        ([ASKED[0], {"role": "user", "content": None}], ("'prompt[1]': got the content None", "parts of type text")),
        ([{"role": "user", "content": [{"type": "image", "url": "u"}]}], ("'prompt[0]'", "'image'", "type text only")),
        ([{"role": "user"}], ("'prompt[0]': got the content None",)),
        (
            [{"role": "assistant", "content": "", "tool_calls": [{"id": 1}]}],
            ("'prompt[0]'", "tool calls, images and audio are not read"),
        ),
        ([ASKED[0], "Tea?"], ("'prompt[1]': got 'Tea?'", "a message with role and content")),
        ([{"content": "x"}], ("'prompt[0]'", "a message with role and content")),
        ([{"role": "user", "content": "half \ud83c"}], ("'prompt[0]'", "surrogates")),
        ([{"role": "user", "content": " "}], ("'prompt'", "not blank")),
        ([], ("'prompt': got []", "a list of messages")),
        (["Tea?"], ("'prompt': got ['Tea?']", "a list of messages")),
        ({"role": "user", "content": "x"}, ("'prompt'", "a list of messages")),
    ],
)
def test_bad_messages_are_named(messages, parts):
    with pytest.raises(DataError) as caught:
        load_pairs([ROW | {"prompt": messages}])
    for part in ("row 0 (counted from 0): column", *parts):
        assert part in str(caught.value)


def test_conversations_work_where_texts_do():
    rows = [ROW | {"id": i, "prompt": [*ASKED[:1], {"role": "user", "content": f"Tea {i}?"}]} for i in range(6)]
    pairs = load_pairs(rows)
    assert plain_text(pairs[0].prompt) == "System: Be brief.\n\nUser: Tea 0?"
    assert pairs[0].in_plain_text().response_a == "Yes."
    train, held_out = split_by(pairs, "prompt", 0.5, 0)
    assert (len(train), len(held_out), leaked_responses(train, held_out)) == (3, 3, 2)
    assert pair_items(pairs).items[1].texts == ("System: Be brief.\n\nUser: Tea 0?", "No.", "Yes.")
    assert pairs[0].swapped().response_b == (Message("assistant", "Yes."),)
    assert {sparse_label(pair, 0) for pair in pairs} == {0.0}
    assert {pair.response_b for pair in with_growing_responses(pairs, 12, 0)} <= {"No.", "Yes."}


def test_transcripts_are_parsed_and_other_texts_are_not():
    assert transcript("\n\nHuman: Hi.\n\nAssistant: A\n\nB") == (
        Message("user", "Hi."),
        Message("assistant", "A\n\nB"),
    )
    assert transcript("Human: Hi.\n\nAssistant:") == (Message("user", "Hi."), Message("assistant", ""))
    for text in ("Hi.", "He said\n\nHuman: no", "Human: alone"):
        assert transcript(text) is None


@pytest.mark.parametrize("trl_too", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("The sky is blue.", "The sky is green.", "The sky is"),
        ("abc", "abd", "ab"),
        ((*PROMPT, Message("assistant", "Yes.")), (*PROMPT, Message("assistant", "No.")), PROMPT),
        ((*PROMPT, *TURNS), (*PROMPT, Message("assistant", "No."), TURNS[1]), PROMPT),
    ],
)
def test_common_beginnings_are_those_of_trl(first, second, shared, trl_too):
    expected = (shared, first[len(shared) :], second[len(shared) :])
    if trl_too:
        trl = pytest.importorskip("trl")
        expected = tuple(trl.extract_prompt({"chosen": first, "rejected": second}).values())
    assert common_beginning(first, second) == expected


def test_conversations_that_part_at_a_question_are_split_before_the_answer_above_it():
    beginning = "\n\nHuman: Tea?\n\nAssistant: Yes.\n\nHuman: "
    for row in (
        {"chosen": f"{beginning}Why?\n\nAssistant: x", "rejected": f"{beginning}How?\n\nAssistant: y"},
        {"chosen": f"{beginning}Why?\n\nAssistant: x", "rejected": f"{beginning}Why?"},
    ):
        (pair,) = load_pairs([row])
        assert pair.prompt == (Message("user", "Tea?"),)
        assert pair.response_a[0] == pair.response_b[0] == Message("assistant", "Yes.")
    first, second = ((*PROMPT[1:], Message("user", text)) for text in ("Why?", "How?"))
    assert common_beginning(first, second) == (PROMPT[1:], first[1:], second[1:])


def test_equal_conversations_keep_their_last_message_apart():
    assert common_beginning(PROMPT, PROMPT) == (PROMPT[:1], PROMPT[1:], PROMPT[1:])


@pytest.mark.parametrize(
    ("beginning", "is_transcript"),
    [
        ("Human: Tea?\nAssistant: ", True),
        ("Be brief.\n\nHuman: Tea?\n\nAssistant: ", True),
        ("User: Tea?\n\nAssistant: Yes.\n\nUser: Why?\n\nAssistant: ", True),
        ("### Human: Tea?### Assistant: ", True),
        ("<|im_start|>user\nTea?<|im_end|>\n<|im_start|>assistant\n", True),
        ("<|prompter|>Tea?<|endoftext|><|assistant|>", True),
        ("[INST] Tea? [/INST] ", True),
        ("\n\n人类：茶？\n\n助手：", True),
        ("The assistant's tea is ", False),
    ],
)
def test_transcripts_of_any_kind_are_split_where_the_answer_begins(beginning, is_transcript):
    (pair,) = load_pairs([{"chosen": f"{beginning}I think so.", "rejected": f"{beginning}I know."}])
    shared = "" if is_transcript else "I"
    assert pair.prompt == beginning + shared
    assert {pair.response_a, pair.response_b} == {t.removeprefix(shared) for t in ("I think so.", "I know.")}


@pytest.mark.parametrize("field", ["function_call", "images", "audio"])
def test_what_a_message_has_beside_text_is_named(field):
    with pytest.raises(DataError, match=rf"'prompt\[0\]': got {{'{field}'"):
        load_pairs([ROW | {"prompt": [{"role": "user", "content": "Tea?", field: ["x"]}]}])


def test_roles_in_capitals():
    (pair,) = load_pairs([ROW | {"prompt": [{"role": "User", "content": "Tea?"}, {"from": "GPT", "value": "Yes."}]}])
    assert [message.role for message in pair.prompt] == ["user", "assistant"]


def test_a_response_that_repeats_the_prompt_is_named():
    whole = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes."}]
    with pytest.raises(DataError, match=r"'response_a\[0\]': got 'user'.*belongs into the prompt"):
        load_pairs([ROW | {"response_a": whole}])
