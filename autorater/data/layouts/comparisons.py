"""Datasets of two responses and a choice between them: by people, by models, or by construction.

PKU-SafeRLHF and OpenAI's summaries count the responses from 0. PKU-SafeRLHF has two choices, the better and the safer
response; the better one is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from autorater.data.fields import Row, bad_value, decoded, given_in, mappings_in, number_of
from autorater.data.layouts.benchmarks import gold, instruction_in
from autorater.data.layouts.layout import Layout, ReadRow
from autorater.data.layouts.preferences import BEFORE, KEPT, llama_factory, orca, preference
from autorater.data.layouts.votes import VOTE_COLUMNS, numbered_vote, signs, summed, votes_in, winner_of


def pku_saferlhf(row: Row) -> Iterator[Row]:
    """`better_response_id`, or the column that the caller named: 0 or 1."""
    yield numbered_vote(row, next((name for name in VOTE_COLUMNS if name in row), "better_response_id"))


def multipref(row: Row) -> Iterator[Row]:
    """`overall_pref` of each of the crowd workers and experts."""
    columns = [name for name in _ANNOTATIONS if given_in(row, name) is not None]
    winners = [winner_of(part.get("overall_pref"), name) for name in columns for part in mappings_in(row, name)]
    yield summed([winner for winner in winners if winner], "no annotator has an overall_pref")


def summaries(row: Row) -> Iterator[Row]:
    """`choice` of one worker: 0 or 1. The prompt is the post or the article."""
    info, given = decoded(row["info"]), mappings_in(row, "summaries")
    if not isinstance(info, Mapping):
        raise bad_value("info", row["info"], "a mapping with a post or an article")
    if len(given) != 2:
        raise bad_value("summaries", row["summaries"], "two summaries")
    texts = {f"response_{side}": summary.get("text") for side, summary in zip("ab", given, strict=True)}
    models = {f"model_{side}": summary.get("policy") for side, summary in zip("ab", given, strict=True)}
    prompt = {"prompt": given_in(info, "post") or given_in(info, "article"), "topic": info.get("subreddit")}
    yield {**prompt, **texts, **models, **numbered_vote(row, "choice")}


def webgpt(row: Row) -> Iterator[Row]:
    """`score_0` and `score_1`: strengths of the preference for each answer, which sum to 0."""
    question = decoded(row["question"])
    asked = question if isinstance(question, Mapping) else {"full_text": question}
    columns, strengths = ("score_0", "score_1"), []
    if any(given_in(row, name) is not None for name in columns):
        scores = [number_of(row[name]) for name in columns]
        for name, score in zip(columns, scores, strict=True):
            if not -1 <= score <= 1:
                raise bad_value(name, row[name], "a number from -1 to 1")
        strengths = [scores[1] - scores[0]]
    vote = summed(signs(strengths), "score_0 and score_1 are null")
    yield {"prompt": asked.get("full_text"), "topic": asked.get("dataset"), **vote}


def offsetbias(row: Row) -> Iterator[Row]:
    """`label`, 1 or 2, says which output is right. The input, if there is one, follows the instruction."""
    yield from ({"prompt": instruction_in(row)} | found for found in gold(row))


def preference_collection(row: Row) -> Iterator[Row]:
    """`orig_preference`, A or B, by the criteria and the reference of the row."""
    yield votes_in(row, "orig_preference")


def rmb(row: Row) -> Iterator[Row]:
    """`chosen` and `reject` with their models; the prompt is the messages in `conversation_input`."""
    sides = {"chosen": decoded(row["chosen"]), "rejected": decoded(row["reject"])}
    found: Row = {"prompt": row["conversation_input"]}
    for side, answer in sides.items():
        if not isinstance(answer, Mapping):
            raise bad_value(side, answer, "a mapping with an answer")
        found |= {side: answer.get("answer"), f"{side}_model": answer.get("llm_name")}
        found |= {f"score_{side}": answer.get("score")}
    yield from preference(found)


def swift(row: Row) -> Iterator[Row]:
    """The last of `messages` is preferred to `rejected_response`."""
    messages = decoded(row["messages"])
    is_chat = isinstance(messages, list) and messages and isinstance(messages[-1], Mapping)
    if not is_chat or messages[-1].get("role") != "assistant":
        raise bad_value("messages", row["messages"], "messages that end with the preferred answer of the assistant")
    if not isinstance(row["rejected_response"], str):
        raise bad_value("rejected_response", row["rejected_response"], "text")
    rejected = {"role": "assistant", "content": row["rejected_response"]}
    yield from preference({"chosen": messages, "rejected": [*messages[:-1], rejected]})


def swift_messages(row: Row) -> Iterable[Row]:
    """The conversation `messages` is preferred to `rejected_messages`."""
    return preference({"chosen": row["messages"], "rejected": row["rejected_messages"]} | row)


def openai(row: Row) -> Iterator[Row]:
    """The prompt is `input`: messages, or a mapping with `messages`, whose `tools` are not read."""
    asked = decoded(row["input"])
    asked = asked if isinstance(asked, Mapping) else {}
    sides = {"chosen": row["preferred_output"], "rejected": row["non_preferred_output"]}
    for found in preference({"prompt": asked.get("messages", row["input"]), **sides} | row):
        yield found | {"unread": ["tools"] if decoded(asked.get("tools")) else []}


def renamed(name: str, source: str, prompt: str, chosen: str, rejected: str, read_as: ReadRow | None = None) -> Layout:
    """Preference data with other names of its columns; `read_as` has its own column with the prompt, and more."""
    asked = {} if read_as else {"prompt": prompt}
    theirs = {**asked, "chosen": chosen, "rejected": rejected}

    def read(row: Row) -> Iterable[Row]:
        return (read_as or preference)({ours: row[name] for ours, name in theirs.items()} | row)

    named = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "response_a": chosen, "response_b": rejected}
    return Layout(name, (prompt, chosen, rejected), source, read, KEPT, named, optional=BEFORE if read_as else ())


_ANNOTATIONS = ("normal_worker_annotations", "expert_worker_annotations")
_OUTPUTS = {"response_a": "output_1", "response_b": "output_2"}
_HUB = "https://huggingface.co/datasets"

LAYOUTS = (
    Layout(
        "pku_saferlhf", ("prompt", "response_0", "response_1", "better_response_id"),
        f"{_HUB}/PKU-Alignment/PKU-SafeRLHF", pku_saferlhf,
        {"prompt": "prompt", "response_a": "response_0", "response_b": "response_1", "model_a": "response_0_source",
         "model_b": "response_1_source"}, reads_vote=True,
    ),
    Layout(
        "multipref", ("text", "completion_a", "completion_b", *_ANNOTATIONS), f"{_HUB}/allenai/multipref", multipref,
        {"id": "comparison_id", "prompt": "text", "response_a": "completion_a", "response_b": "completion_b",
         "model_a": "model_a", "model_b": "model_b", "topic": "category"},
    ),
    Layout(
        "summarize_from_feedback", ("info", "summaries", "choice"), f"{_HUB}/openai/summarize_from_feedback",
        summaries, {"annotator": "worker"}, {"prompt": "info", "response_a": "summaries", "response_b": "summaries"},
    ),
    Layout(
        "webgpt", ("question", "answer_0", "answer_1", "score_0", "score_1"), f"{_HUB}/openai/webgpt_comparisons",
        webgpt, {"response_a": "answer_0", "response_b": "answer_1"}, {"prompt": "question"},
    ),
    renamed(
        "argilla_dpo", f"{_HUB}/argilla/ultrafeedback-binarized-preferences", "instruction", "chosen_response",
        "rejected_response", llama_factory,
    ),
    renamed(
        "dpo_en_zh", f"{_HUB}/shibing624/DPO-En-Zh-20k-Preference", "question", "response_chosen",
        "response_rejected", orca,
    ),
    renamed(
        "stack_exchange_paired", f"{_HUB}/lvwerra/stack-exchange-paired", "question", "response_j", "response_k"
    ),
    Layout(
        "rmb", ("pair_uid", "conversation_input", "chosen", "reject"),
        "https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark", rmb, {"id": "pair_uid", "topic": "category_path"},
        {"prompt": "conversation_input", "rejected": "reject", "response_a": "chosen", "response_b": "reject"},
    ),
    Layout(
        "swift", ("messages", "rejected_response"),
        "https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html", swift, KEPT,
        {"chosen": "messages", "response_a": "messages", "response_b": "rejected_response"}, unless=("chosen",),
    ),
    Layout(
        "swift_messages", ("messages", "rejected_messages"),
        "https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html", swift_messages, KEPT,
        {"chosen": "messages", "rejected": "rejected_messages", "response_a": "messages",
         "response_b": "rejected_messages"}, unless=("chosen",),
    ),
    renamed("litbench", f"{_HUB}/SAA-Lab/LitBench-Train", "prompt", "chosen_story", "rejected_story"),
    Layout(
        "openai_dpo", ("input", "preferred_output", "non_preferred_output"),
        "https://platform.openai.com/docs/guides/direct-preference-optimization", openai, KEPT,
        {"prompt": "input", "chosen": "preferred_output", "rejected": "non_preferred_output",
         "response_a": "preferred_output", "response_b": "non_preferred_output"},
    ),
    renamed("cvalues", "https://github.com/X-PLUG/CValues", "prompt", "pos_resp", "neg_resp"),
    Layout(
        "offsetbias", ("instruction", "output_1", "output_2", "label"), f"{_HUB}/NCSOFT/offsetbias", offsetbias,
        _OUTPUTS, {"prompt": "instruction"},
    ),
    Layout(
        "llmbar", ("input", "output_1", "output_2", "label"), "https://github.com/princeton-nlp/LLMBar", gold,
        {"prompt": "input", **_OUTPUTS},
    ),
    Layout(
        "preference_collection", ("orig_instruction", "orig_response_A", "orig_response_B", "orig_preference"),
        f"{_HUB}/prometheus-eval/Preference-Collection", preference_collection,
        {"prompt": "orig_instruction", "response_a": "orig_response_A", "response_b": "orig_response_B",
         "criteria": "orig_criteria", "reference": "orig_reference_answer"},
    ),
)  # fmt: skip
