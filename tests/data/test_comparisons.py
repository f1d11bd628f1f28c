"""Published choices between two responses, each on rows of our own making that have the published columns."""

import json

import numpy as np
import pandas as pd
import pytest

from autorater.data.errors import DataError
from autorater.data.layouts.votes import winner_of
from autorater.data.loading import LoadReport, load_pairs
from autorater.data.messages import Message


def read(rows, **options):
    """Pairs, and what the report says."""
    report = LoadReport()
    return load_pairs(rows, report=report, **options), report


PKU = {
    "prompt": "Tea?", "response_0": "Yes.", "response_1": "No.", "prompt_source": "s", "response_0_source": "m",
    "response_1_source": "n", "is_response_0_safe": True, "is_response_1_safe": False, "response_0_sha256": "0",
}  # fmt: skip


def test_pku_saferlhf_reads_the_better_response_and_on_request_the_safer():
    row = PKU | {"better_response_id": 1, "safer_response_id": 0}
    (pair,), report = read([row])
    assert (report.layout, pair.label, pair.n_votes, pair.model_a, pair.model_b) == ("pku_saferlhf", 1, 1, "m", "n")
    assert (pair.response_a, pair.response_b) == ("Yes.", "No.")
    for name in ("vote", "winner"):
        (pair,), _ = read([row], columns={name: "safer_response_id"})
        assert pair.label == 0
    (pair,), _ = read([row | {"human": "B"}], columns={"vote": "human"})
    assert pair.label == 1
    with pytest.raises(DataError, match=r"'safer_response_id': got 2; expected 0 \(the first response\) or 1"):
        read([row | {"safer_response_id": 2}], columns={"vote": "safer_response_id"})


def test_pku_saferlhf_of_a_single_dimension(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,response_0,response_1,better_response_id\nTea?,Yes.,No.,0\n")
    assert load_pairs(tmp_path / "a.csv")[0].label == 0


def test_the_columns_that_are_read_today_stay():
    row = PKU | {"better_response_id": 1, "chosen": "No.", "rejected": "Yes."}
    assert read([row])[1].layout == "preference"
    names = {"response_a": "response_0", "response_b": "response_1", "label": "better_response_id"}
    (pair,), report = read([row], columns=names)
    assert (report.layout, pair.label, pair.n_votes) == ("pairs", 1, None)


def test_multipref_has_the_votes_of_workers_and_experts():
    row = {
        "comparison_id": "c", "prompt_id": "p", "text": "Tea?", "model_a": "m", "model_b": "n", "source": "s",
        "completion_a": "Yes.", "completion_b": "No.", "category": "Drinks", "subject_study": "none",
        "normal_worker_annotations": [
            {"helpful_pref": "Tie", "overall_pref": "A-is-slightly-better", "evaluator": "u"},
            {"helpful_pref": "Tie", "overall_pref": "Tie", "evaluator": "v"},
        ],
        "expert_worker_annotations": {"overall_pref": ["B-is-clearly-better", None], "evaluator": ["w", "x"]},
    }  # fmt: skip
    (pair,), report = read([row])
    assert (report.layout, pair.id, pair.prompt, pair.topic) == ("multipref", "c", "Tea?", "Drinks")
    assert (pair.votes_a, pair.votes_b, pair.votes_tie, pair.model_b) == (1, 1, 1, "n")
    with pytest.raises(DataError, match=r"no vote .no annotator has an overall_pref"):
        read([row | {"normal_worker_annotations": [], "expert_worker_annotations": None}])


@pytest.mark.parametrize("form", [list, lambda parts: {name: [part[name] for part in parts] for name in parts[0]}])
def test_summaries_are_gathered_by_their_workers(form):
    summaries = [{"text": "Yes.", "policy": "sup1", "note": None}, {"text": "No.", "policy": "ref", "note": "ok"}]
    info = {"id": "t3", "post": "Do you drink tea?", "title": "Tea", "subreddit": "tea", "site": None, "article": None}
    row = {"info": info, "batch": "b1", "split": "train", "extra": {"confidence": 8}}
    votes = [("u", 0, summaries), ("v", 1, summaries), ("v", 1, summaries), ("w", 0, summaries[::-1])]
    rows = [row | {"worker": w, "choice": c, "summaries": form(shown)} for w, c, shown in votes]
    (pair,), report = read(rows)
    assert (report.layout, pair.prompt, pair.topic) == ("summarize_from_feedback", "Do you drink tea?", "tea")
    assert (pair.votes_a, pair.votes_b, pair.model_a, pair.model_b) == (1, 2, "sup1", "ref")
    assert (report.gathered, dict(report.left_out)) == (2, {"repeats a row of the same annotator": 1})
    news = info | {"post": None, "subreddit": None, "article": "Tea is up."}
    (pair,), _ = read([rows[0] | {"info": news}])
    assert (pair.prompt, pair.topic) == ("Tea is up.", None)
    with pytest.raises(DataError, match=r"column 'summaries': got .*; expected two summaries"):
        read([rows[0] | {"summaries": summaries[:1]}])


def test_webgpt_scores_count_by_their_sign():
    row = {"quotes_0": {"title": [], "extract": []}, "answer_0": "Yes.", "answer_1": "No.", "tokens_0": {}}
    rows = [
        row | {"question": {"dataset": "eli5", "id": str(i), "full_text": f"Tea {i}?"}, "score_0": s, "score_1": -s}
        for i, s in enumerate((1.0, 0.0, -0.5))
    ]
    pairs, report = read(rows)
    assert report.layout == "webgpt"
    assert [(p.prompt, p.topic, p.label, p.n_votes) for p in pairs] == [
        ("Tea 0?", "eli5", 0, 1), ("Tea 1?", "eli5", 0.5, 1), ("Tea 2?", "eli5", 1, 1),
    ]  # fmt: skip
    with pytest.raises(DataError, match="column 'score_1': got None; expected a number from -1 to 1"):
        read([rows[0] | {"score_1": None}])


def test_what_is_right_is_a_label_and_no_vote():
    outputs = {"output_1": "Yes.", "output_2": "No."}
    pairs, report = read([outputs | {"input": f"Tea {i}?", "label": i} for i in (1, 2)])
    assert (report.layout, [(p.prompt, p.label, p.n_votes) for p in pairs]) == (
        "llmbar", [("Tea 1?", 0, None), ("Tea 2?", 1, None)],
    )  # fmt: skip
    (pair,), report = read([outputs | {"instruction": "Answer.", "input": "Tea?", "label": 2}])
    assert (report.layout, pair.prompt, pair.label) == ("offsetbias", "Answer.\n\nTea?", 1)
    with pytest.raises(DataError, match="column 'label': got 0; expected 1 "):
        read([outputs | {"instruction": "Tea?", "label": 0}])


@pytest.mark.parametrize(("row", "reason"), [
    ({"input": "q", "output_1": "a", "output_2": "b", "label": None}, "label is null"),
    ({"instruction": "q", "output_1": "a", "output_2": "b", "label": "error"}, "label is 'error'"),
    ({"question": "q", "answer_0": "a", "answer_1": "b", "score_0": None, "score_1": float("nan")},
     "score_0 and score_1 are null"),
])  # fmt: skip
def test_rows_without_a_choice_are_left_out_or_judged(row, reason):
    with pytest.raises(DataError, match=rf"no vote \({reason}\)"):
        load_pairs([row])
    (pair,) = load_pairs([row], labelled=False)
    assert (pair.prompt, pair.response_a, pair.response_b, pair.label) == ("q", "a", "b", None)


def test_other_numbers_than_those_of_the_outputs_are_no_gold_label():
    row = {"input": "q", "output_1": "a", "output_2": "b", "label": 0}
    with pytest.raises(DataError, match=r"'label': got 0; expected 1 .* if it is Pr\[B preferred\]"):
        load_pairs([row])
    own = {"prompt": "input", "response_a": "output_1", "response_b": "output_2"}
    assert load_pairs([row], own)[0].label == 0


def test_lists_that_pandas_makes_arrays():
    """`to_pandas` of a dataset whose feature is a sequence of mappings."""
    votes = {"overall_pref": np.array(["Tie", "B-is-clearly-better"], dtype=object), "id": np.array([1, 2])}
    row = {"text": "q", "completion_a": "a", "completion_b": "b", "normal_worker_annotations": votes}
    frame = pd.DataFrame([row | {"expert_worker_annotations": {"overall_pref": np.array([]), "id": np.array([])}}])
    (pair,) = load_pairs(frame)
    assert (pair.votes_a, pair.votes_b, pair.votes_tie) == (0, 1, 1)


def test_preference_collection_has_criteria():
    row = {"orig_instruction": "Tea?", "orig_response_A": "Yes.", "orig_response_B": "No.", "orig_preference": "B"}
    (pair,), report = read([row | {"orig_criteria": "Brevity", "orig_reference_answer": "N.", "instruction": "#"}])
    assert (report.layout, pair.prompt, pair.label) == ("preference_collection", "Tea?", 1)
    assert (pair.criteria, pair.reference) == ("Brevity", "N.")


@pytest.mark.parametrize(
    ("layout", "prompt", "chosen", "rejected"),
    [
        ("argilla_dpo", "instruction", "chosen_response", "rejected_response"),
        ("dpo_en_zh", "question", "response_chosen", "response_rejected"),
        ("stack_exchange_paired", "question", "response_j", "response_k"),
        ("cvalues", "prompt", "pos_resp", "neg_resp"),
        ("litbench", "prompt", "chosen_story", "rejected_story"),
    ],
)
def test_preference_data_with_other_names(layout, prompt, chosen, rejected):
    row = {prompt: "Tea?", chosen: "Yes, I do.", rejected: "Yes or no.", "chosen_model": "m"}
    (pair,), report = read([row | {"chosen_avg_rating": 4.5, "rejected_avg_rating": 3.0}])
    assert (report.layout, pair.prompt) == (layout, "Tea?")
    pair = pair if pair.label == 0 else pair.swapped()
    assert (pair.response_a, pair.response_b, pair.model_a) == ("Yes, I do.", "Yes or no.", "m")
    (pair,), _ = read([row | {"chosen_avg_rating": 4.5, "rejected_avg_rating": 4.5}])
    assert pair.label == 0.5
    for column in (prompt, chosen):
        with pytest.raises(DataError, match=f"column '{column}': got"):
            read([row | {column: " "}])


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("instruction", "chosen_response", "rejected_response"),
        ("question", "response_chosen", "response_rejected"),
    ],
)
def test_preference_data_with_other_names_has_a_system_message_and_earlier_turns(prompt, chosen, rejected):
    before = {"system": "Be kind.", "history": [["Hi?", "Hello."]]}
    row = before | {prompt: "Tea?", chosen: "Yes, I do.", rejected: "Yes or no."}
    (pair,), report = read([row | {"context": "A shop."}])
    contents = ["Be kind.", "Hi?", "Hello.", "Tea?"]
    assert ([message.content for message in pair.prompt], report.unread) == (contents, ["context"])
    (pair,), report = read([row], columns={"prompt": prompt})
    assert (pair.prompt, report.unread) == ("Tea?", ["system", "history"])
    if prompt == "instruction":
        (pair,), report = read([{"input": "With milk?"} | row | dict.fromkeys(before)])
        assert (pair.prompt, report.unread) == ("Tea?\n\nWith milk?", [])


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("instruction", "chosen_response", "rejected_response"),
        ("question", "response_chosen", "response_rejected"),
        ("instruction", "chosen", "rejected"),
    ],
)
def test_preference_data_with_a_question_may_have_messages(prompt, chosen, rejected):
    def contents(row):
        (pair,), report = read([row])
        return [part.content for part in pair.prompt] if isinstance(pair.prompt, tuple) else pair.prompt, report.unread

    asked, before = {"role": "user", "content": "Tea?"}, {"system": "Be kind.", "history": [["Hi?", "Hello."]]}
    earlier = ["Be kind.", "Hi?", "Hello."]
    answers = {name: [{"role": "assistant", "content": name}] for name in (chosen, rejected)}
    for texts in (answers, {chosen: "Yes.", rejected: "No."}):
        assert contents({prompt: "Tea?"} | texts) == ("Tea?", [])
        assert contents({prompt: [asked]} | texts) == (["Tea?"], [])
        for question in ("Tea?", [asked], json.dumps([asked])):
            assert contents({prompt: question} | texts | before) == ([*earlier, "Tea?"], [])
        known = [{"role": "system", "content": "Be kind."}, asked]
        assert contents({prompt: known, "system": "Be kind."} | texts) == (["Be kind.", "Tea?"], [])
        with pytest.raises(DataError, match=rf"column '{prompt}\[1\]': got 'robot'"):
            read([{prompt: [asked, {"role": "robot", "content": "?"}]} | texts | before])
        with pytest.raises(DataError, match=f"column '{prompt}': got None; expected the prompt of"):
            read([{prompt: None} | texts])
    whole = {name: [{"role": "user", "content": "Be kind.\n\nTea?"}, *turns] for name, turns in answers.items()}
    for question in ("Tea?", [asked], None, "\n\nHuman: Tea?\n\nAssistant:"):
        assert contents({prompt: question} | whole | before) == (["Be kind.\n\nTea?"], ["system", "history"])
    for question in ("Milk?", [asked | {"content": "Milk?"}]):
        with pytest.raises(DataError, match=f"column '{prompt}': got .*; expected what chosen and rejected begin"):
            read([{prompt: question} | whole])


@pytest.mark.parametrize("wrap", [lambda turns: {"messages": turns, "tools": []}, list])
def test_openai_has_messages_of_a_preferred_output(wrap):
    outputs = [[{"role": "assistant", "content": text}] for text in ("Yes.", "No.")]
    row = {"input": wrap([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tea?"}])}
    row |= dict(zip(("preferred_output", "non_preferred_output"), outputs, strict=True))
    (pair,), report = read([row])
    assert (report.layout, pair.prompt) == ("openai_dpo", (Message("system", "Be kind."), Message("user", "Tea?")))
    pair = pair if pair.label == 0 else pair.swapped()
    assert (pair.response_a, pair.response_b) == ((Message("assistant", "Yes."),), (Message("assistant", "No."),))
    with pytest.raises(DataError, match="column 'preferred_output': got None"):
        read([row | {"preferred_output": None}])
    assert report.unread == []
    _, report = read([row | {"input": {"messages": [{"role": "user", "content": "Tea?"}], "tools": [{"type": "f"}]}}])
    assert report.unread == ["tools"]


def test_rmb():
    sides = {
        name: {"answer": text, "llm_name": text[0], "score": 4.0}
        for name, text in (("chosen", "Yes."), ("reject", "No."))
    }
    row = {"pair_uid": "1", "conversation_input": [{"role": "user", "content": "Tea?", "language": "en"}], **sides}
    (tie,), report = read([row | {"category_path": "Chat"}])
    assert (report.layout, tie.id, tie.topic, tie.label) == ("rmb", "1", "Chat", 0.5)
    (pair,), _ = read([row | {"reject": sides["reject"] | {"score": 2.0}}])
    pair = pair if pair.label == 0 else pair.swapped()
    assert (pair.prompt, pair.response_a, pair.model_b) == ((Message("user", "Tea?"),), "Yes.", "N")
    with pytest.raises(DataError, match=r"column 'reject': got 'No.'; expected a mapping with an answer"):
        read([row | {"reject": "No."}])


def test_swift_has_the_preferred_answer_in_its_messages():
    turns = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes."}]
    (pair,), report = read([{"messages": turns, "rejected_response": "No."}])
    assert (report.layout, pair.prompt) == ("swift", (Message("user", "Tea?"),))
    assert (pair if pair.label == 0 else pair.swapped()).response_a == (Message("assistant", "Yes."),)
    with pytest.raises(DataError, match=r"column 'messages': got .*; expected messages that end with the preferred"):
        read([{"messages": turns[:1], "rejected_response": "No."}])
    with pytest.raises(DataError, match="column 'rejected_response': got None; expected text"):
        read([{"messages": turns, "rejected_response": None}])


def test_swift_has_the_rejected_conversation_too():
    chosen, rejected = (
        [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": text}] for text in ("Yes.", "No.")
    )
    (pair,), report = read([{"messages": chosen, "rejected_messages": rejected}])
    assert (report.layout, pair.prompt) == ("swift_messages", (Message("user", "Tea?"),))
    assert (pair if pair.label == 0 else pair.swapped()).response_a == (Message("assistant", "Yes."),)
    with pytest.raises(DataError, match="column 'rejected_messages': got None"):
        read([{"messages": chosen, "rejected_messages": None}])


def test_a_prompt_that_is_json_stays_text():
    row = {"prompt": '{"sum": [1, 2]}', "pos_resp": "3", "neg_resp": "4"}
    assert read([row])[0][0].prompt == '{"sum": [1, 2]}'


@pytest.mark.parametrize(
    ("word", "winner"),
    [
        ("A-is-clearly-better", "A"),
        ("B-is-slightly-better", "B"),
        ("Response 2 is better", "B"),
        ("Tie", "tie"),
        ("A is much better than B", "A"),
        ("Response B slightly better", "B"),
        ("Strongly prefer A", "A"),
        ("B++", "B"),
        ("A+", "A"),
        ("[[B++]]", "B"),
        ("About the same", "tie"),
        ("No preference", "tie"),
    ],
)
def test_a_is_better(word, winner):
    assert winner_of(word, "winner") == winner
    for other in ("neither is better", "better than B", "preferred", "C++", "+", "A is better than"):
        with pytest.raises(DataError, match="expected A, B or tie"):
            winner_of(other, "winner")
