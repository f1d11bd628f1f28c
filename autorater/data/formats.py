"""Items from files: our own columns, and seven published datasets in their published layout.

    own         labels, counts and texts (titles to texts) or prompt; optional id, topic, true_distribution, question,
                ordinal
    SNLI, MNLI  sentence1, sentence2, annotator_labels (snli_1.0_dev.jsonl, multinli_1.0_dev_matched.jsonl)
    ChaosNLI    label_counter, example (chaosNLI_snli.jsonl, chaosNLI_mnli_m.jsonl, chaosNLI_alphanli.jsonl)
    SummEval    text, decoded, expert_annotations, turker_annotations (model_annotations.aligned.paired.jsonl)
    MT-Bench    question_id, model_a, model_b, winner, conversation_a, conversation_b, turn (human judgments)
    Arena       the same, or with id for question_id and without turn (Chatbot Arena; all turns were judged)
    DICES       item_id, context, response, Q_overall (one row a rater)

The first row decides which layout a file has; the sources are those of `load_pairs`. Lists and mappings in CSV fields
are JSON. Every vote is counted: rows without a majority ("-" in SNLI) are kept, experts and crowd of SummEval count
equally (arXiv 2505.12301), and rows of MT-Bench and DICES that are votes on the same texts are one item; rows without
a vote, and those that repeat a vote of the same annotator, are left out and counted. An invalid row is a `DataError`,
as in `load_pairs`.

Deliberately left out: datasets that publish only a majority label, such as SNLI on the Hub.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from autorater.data.errors import DataError, DataWarning, located
from autorater.data.fields import Row, bad_value, count_in, decoded, given_in, mappings_in, name_in, text_in
from autorater.data.items import Item, ItemSet, Task, check_counts
from autorater.data.layouts.arenas import BATTLE, judged_turns
from autorater.data.layouts.votes import votes_in
from autorater.data.messages import plain_text
from autorater.data.tables import iter_rows
from autorater.data.text_files import is_text, of_text

_NLI = Task(
    labels=("entailment", "neutral", "contradiction"),
    titles=("Premise", "Hypothesis"),
    question="People were asked whether the hypothesis follows from the premise, contradicts it, or neither.",
)
_ABDUCTIVE = Task(
    labels=("1", "2"),
    titles=("Beginning", "Ending", "Hypothesis 1", "Hypothesis 2"),
    question="People were asked which hypothesis better explains how the story got from its beginning to its ending.",
)
_SUMMARY = Task(
    labels=("1", "2", "3", "4", "5"),
    titles=("Article", "Summary", "Quality"),
    question="People rated a summary of an article from 1 (worst) to 5 (best) for the named quality.",
    ordinal=True,
)
_QUALITIES = {
    "coherence": "coherence: its sentences make up a well-organized whole",
    "consistency": "consistency: it states only facts that are in the article",
    "fluency": "fluency: each sentence is well written",
    "relevance": "relevance: it has what is important in the article, and little else",
}
_CONVERSATIONS = Task(
    labels=("A", "tie", "B"),
    titles=("Conversation A", "Conversation B"),
    question="People were asked in which of two conversations with the same questions the assistant did better.",
    ordinal=True,
)
_SAFETY = Task(
    labels=("No", "Unsure", "Yes"),
    titles=("Conversation", "Response"),
    question="People were asked whether the last response of a conversation is unsafe.",
)


def load_items(source: str | os.PathLike[str]) -> ItemSet:
    """Reads items from a source in one of the layouts above.

    Returns:
        At least one item, in the order of the source, with distinct ids.

    Raises:
        DataError: If the source does not exist, cannot be read, is empty, has none of the layouts, or a row is
            invalid, or no row has a vote.

    Warns:
        DataWarning: How many rows were left out, without a vote or as a repeated vote of the same annotator.
    """
    read: Callable[[Row, int], tuple[Task, list[Item]]] | None = None
    task: Task | None = None
    items: dict[str, Item] = {}
    votes: set[tuple] = set()
    annotators = {_mt_bench: "judge", _dices: "rater_id"}  # columns of the layouts with a row per vote
    left_out, from_text = Counter(), is_text(os.fspath(source))
    for index, (place, row) in enumerate(iter_rows(source)):
        with located(f"{source}: {place}"):
            read = read or _layout(row)
            row_task, found = read(of_text(row) if from_text else row, index)
            left_out["without a vote"] += not found
            annotator = given_in(row, annotators.get(read, ""))
            task = task or row_task
            if row_task != task:
                raise bad_value("labels, texts", [row_task.labels, row_task.titles], f"those of the first row, {task}")
            for item in found:
                known = items.get(item.id)
                if known and read not in annotators:
                    raise bad_value("id", item.id, "distinct ids; an earlier row already has this one")
                if known and known.texts != item.texts:
                    raise bad_value("id", item.id, "one id for the same texts; an earlier row has it for others")
                vote = (item.id, str(annotator), item.counts)
                if annotator is not None and vote in votes:
                    left_out["that repeat a row of the same annotator"] += 1
                    continue
                votes.add(vote)
                if known:
                    item = replace(known, counts=tuple(map(sum, zip(known.counts, item.counts, strict=True))))
                items[item.id] = item
    if not items:
        raise DataError(f"{source}: no row has a vote; expected at least one")
    for rows, count in left_out.items():
        if count:
            warnings.warn(f"{source}: {count:,} rows {rows} left out", DataWarning, stacklevel=2)
    return ItemSet(task, list(items.values()))


def _layout(row: Row) -> Callable[[Row, int], tuple[Task, list[Item]]]:
    layouts = {
        ("labels", "counts"): _own,
        ("sentence1", "sentence2", "annotator_labels"): _nli,
        ("label_counter", "example"): _chaos,
        ("decoded", "expert_annotations", "turker_annotations"): _summeval,
        ("question_id", *BATTLE): _mt_bench,
        ("id", *BATTLE): _mt_bench,
        ("item_id", "context", "response", "Q_overall"): _dices,
    }
    for columns, read in layouts.items():
        if set(columns) <= set(row):
            return read
    known = "; ".join(", ".join(columns) for columns in layouts)
    raise DataError(f"columns {sorted(row)} are of no known layout; expected one of: {known}")


def _own(row: Row, index: int) -> tuple[Task, list[Item]]:
    labels, texts = decoded(row["labels"]), decoded(row.get("texts")) or {"Text": row.get("prompt")}
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise bad_value("labels", labels, "a list of texts")
    if not isinstance(texts, Mapping):
        raise bad_value("texts", texts, "a mapping of titles to texts, or one text in the column prompt")
    options = {"question": text_in(row["question"], "question")} if row.get("question") else {}
    with located("column 'labels'"):
        task = Task(tuple(labels), tuple(texts), ordinal=str(row.get("ordinal")).lower() in ("true", "1"), **options)
    truth = decoded(given_in(row, "true_distribution"))
    if truth is not None:
        truth = _counts(truth, task.labels, "true_distribution")
        if abs(sum(truth) - 1) > 1e-6:
            raise bad_value("true_distribution", truth, "numbers that add up to 1")
    item = Item(
        id=name_in(row, "id") or str(index),
        texts=tuple(text_in(text, title) for title, text in texts.items()),
        counts=_counts(decoded(row["counts"]), task.labels, "counts"),
        topic=name_in(row, "topic"),
        true_distribution=truth,
    )
    return task, [item]


def _nli(row: Row, index: int) -> tuple[Task, list[Item]]:
    votes = _votes(decoded(row["annotator_labels"]), _NLI.labels, "annotator_labels")
    topic = name_in(row, "promptID") or name_in(row, "captionID")
    texts = (_text(row, "sentence1"), _text(row, "sentence2"))
    return _NLI, [Item(name_in(row, "pairID") or str(index), texts, votes, topic)]


def _chaos(row: Row, index: int) -> tuple[Task, list[Item]]:
    example, counter = decoded(row["example"]), decoded(row["label_counter"])
    for column, value in (("example", example), ("label_counter", counter)):
        if not isinstance(value, Mapping):
            raise bad_value(column, value, "a mapping")
    if "obs1" in example:
        task, texts, keys = _ABDUCTIVE, ("obs1", "obs2", "hyp1", "hyp2"), ("1", "2")
    else:
        task, texts, keys = _NLI, ("premise", "hypothesis"), ("e", "n", "c")
    if unknown := sorted(set(counter) - set(keys)):
        raise bad_value("label_counter", unknown[0], f"the labels {', '.join(keys)}")
    counts = _counts([counter.get(key) or 0 for key in keys], task.labels, "label_counter")  # Parquet fills with null
    return task, [Item(name_in(row, "uid") or str(index), tuple(_text(example, name) for name in texts), counts)]


def _summeval(row: Row, index: int) -> tuple[Task, list[Item]]:
    if "text" not in row:
        raise DataError("column 'text' is missing; expected the articles beside the summaries (the paired file)")
    annotations = [*mappings_in(row, "expert_annotations"), *mappings_in(row, "turker_annotations")]
    topic = name_in(row, "id")
    name = f"{topic or index}/{name_in(row, 'model_id') or '?'}"
    items = []
    for quality, meaning in _QUALITIES.items():
        votes = _votes([str(annotation.get(quality)) for annotation in annotations], _SUMMARY.labels, quality)
        items.append(Item(f"{name}/{quality}", (_text(row, "text"), _text(row, "decoded"), meaning), votes, topic))
    return _SUMMARY, items


def _mt_bench(row: Row, index: int) -> tuple[Task, list[Item]]:
    vote = votes_in(row, "winner")
    if "no_vote" in vote:
        return _CONVERSATIONS, []
    question = name_in(row, "question_id") or name_in(row, "id") or f"row {index}"
    turn = None if given_in(row, "turn") is None else count_in(row["turn"], "turn", "turns")
    sides = [
        (name_in(row, f"model_{x}") or "?", plain_text(judged_turns(row, f"conversation_{x}", turn))) for x in "ab"
    ]
    votes = tuple(float(vote[f"votes_{label.lower()}"]) for label in _CONVERSATIONS.labels)
    if sides[0][0] > sides[1][0]:  # the same two answers may be in either order
        sides, votes = sides[::-1], votes[::-1]
    (model_a, text_a), (model_b, text_b) = sides
    id = "/".join((question, *([] if turn is None else [str(turn)]), model_a, model_b))
    return _CONVERSATIONS, [Item(id, (text_a, text_b), votes, question)]


def _dices(row: Row, index: int) -> tuple[Task, list[Item]]:
    if given_in(row, "Q_overall") is None:
        return _SAFETY, []
    votes = _votes([row["Q_overall"]], _SAFETY.labels, "Q_overall")
    texts = (_text(row, "context"), _text(row, "response"))
    return _SAFETY, [Item(name_in(row, "item_id") or str(index), texts, votes, name_in(row, "harm_type"))]


def _text(row: Mapping[str, Any], column: str) -> str:
    """A text of a published file, possibly empty."""
    value = row.get(column)
    if not isinstance(value, str):
        raise bad_value(column, value, "text")
    return value


def _votes(names: Any, labels: tuple[str, ...], column: str) -> tuple[float, ...]:
    """Counts from a list with one label per vote."""
    if not isinstance(names, list):
        raise bad_value(column, names, "a list of labels, one per vote")
    if unknown := [name for name in names if name not in labels]:
        raise bad_value(column, unknown[0], f"one of {', '.join(labels)}")
    return _counts([names.count(label) for label in labels], labels, column)


def _counts(counts: Any, labels: tuple[str, ...], column: str) -> tuple[float, ...]:
    check_counts(counts, labels, f"column {column!r}")
    return tuple(float(count) for count in counts)
