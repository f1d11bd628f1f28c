"""Items from files: our own columns, and five published datasets in their published layout.

    own         labels, counts and texts (titles to texts) or prompt; optional id, topic, true_distribution, question,
                ordinal
    SNLI, MNLI  sentence1, sentence2, annotator_labels (snli_1.0_dev.jsonl, multinli_1.0_dev_matched.jsonl)
    ChaosNLI    label_counter, example (chaosNLI_snli.jsonl, chaosNLI_mnli_m.jsonl, chaosNLI_alphanli.jsonl)
    SummEval    text, decoded, expert_annotations, turker_annotations (model_annotations.aligned.paired.jsonl)
    MT-Bench    question_id, model_a, model_b, winner, conversation_a, conversation_b, turn (human judgments)

The first row decides which layout a file has; the sources are those of `load_pairs`. Lists and mappings in CSV fields
are JSON. Every vote is counted: rows without a majority ("-" in SNLI) are kept, experts and crowd of SummEval count
equally (arXiv 2505.12301), and rows of MT-Bench that are votes on the same pair of answers are one item. An invalid
row is a `DataError`, as in `load_pairs`.

Deliberately left out: datasets that publish only a majority label, such as SNLI on the Hub.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from autorater.data.errors import DataError
from autorater.data.fields import Row, bad_value, name_in, text_in
from autorater.data.items import Item, ItemSet, Task, check_counts
from autorater.data.tables import first_row, iter_rows, located

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
_STRUCTURED = {  # columns of lists or mappings
    "annotator_labels", "conversation_a", "conversation_b", "counts", "example", "expert_annotations",
    "label_counter", "labels", "texts", "true_distribution", "turker_annotations",
}  # fmt: skip
_WINNERS = {"model_a": 0, "tie": 1, "tie (inconsistent)": 1, "model_b": 2}


def load_items(source: str | os.PathLike[str]) -> ItemSet:
    """Reads items from a source in one of the layouts above.

    Args:
        source: As in `load_pairs`.

    Returns:
        At least one item, in the order of the source, with distinct ids.

    Raises:
        DataError: If the source does not exist, cannot be read, is empty, has none of the layouts, or a row is
            invalid.
    """
    _, first, rows = first_row(iter_rows(source), os.fspath(source), "item")
    read = _layout(os.fspath(source), first)
    task: Task | None = None
    items: dict[str, Item] = {}
    for index, (place, row) in enumerate(rows):
        with located(os.fspath(source)), located(place):
            row_task, found = read({name: _decoded(name, value) for name, value in row.items()}, index)
            task = task or row_task
            if row_task != task:
                raise bad_value("labels, texts", [row_task.labels, row_task.titles], f"those of the first row, {task}")
            for item in found:
                known = items.get(item.id)
                if known is not None:
                    item = _merged(known, item, may_repeat=read is _mt_bench)
                items[item.id] = item
    return ItemSet(task, list(items.values()))


def write_items(items: ItemSet, path: str | os.PathLike[str]) -> None:
    """Writes items as JSONL in our own columns, which `load_items` reads back as equal items."""
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for item in items.items:
            row = {
                "id": item.id,
                "texts": dict(zip(items.task.titles, item.texts, strict=True)),
                "labels": items.task.labels,
                "counts": item.counts,
                "question": items.task.question,
                "ordinal": items.task.ordinal,
                "topic": item.topic,
                "true_distribution": item.true_distribution,
            }
            kept = {name: value for name, value in row.items() if value is not None}
            file.write(json.dumps(kept, ensure_ascii=False, allow_nan=False) + "\n")


def _layout(source: str, row: Row) -> Callable[[Row, int], tuple[Task, Iterable[Item]]]:
    layouts = {
        ("labels", "counts"): _own,
        ("sentence1", "sentence2", "annotator_labels"): _nli,
        ("label_counter", "example"): _chaos,
        ("decoded", "expert_annotations", "turker_annotations"): _summeval,
        ("question_id", "model_a", "model_b", "winner", "conversation_a", "conversation_b", "turn"): _mt_bench,
    }
    for columns, read in layouts.items():
        if set(columns) <= set(row):
            return read
    known = "; ".join(", ".join(columns) for columns in layouts)
    raise DataError(f"{source}: columns {sorted(row)} are of no known layout; expected one of: {known}")


def _merged(known: Item, item: Item, may_repeat: bool) -> Item:
    if not may_repeat:
        raise bad_value("id", item.id, "distinct ids; an earlier row already has this one")
    return replace(known, counts=tuple(a + b for a, b in zip(known.counts, item.counts, strict=True)))


def _own(row: Row, index: int) -> tuple[Task, list[Item]]:
    labels = row["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise bad_value("labels", labels, "a list of texts")
    texts = row.get("texts") or {"Text": row.get("prompt")}
    if not isinstance(texts, Mapping):
        raise bad_value("texts", texts, "a mapping of titles to texts, or one text in the column prompt")
    try:
        question = {"question": text_in(row["question"], "question")} if row.get("question") else {}
        task = Task(tuple(labels), tuple(texts), ordinal=str(row.get("ordinal")).lower() in ("true", "1"), **question)
    except ValueError as error:
        raise DataError(f"column 'labels': {error}") from None
    item = Item(
        id=name_in(row, "id") or str(index),
        texts=tuple(text_in(text, title) for title, text in texts.items()),
        counts=_counts(row["counts"], task.labels),
        topic=name_in(row, "topic"),
        true_distribution=_distribution(row.get("true_distribution"), task.labels),
    )
    return task, [item]


def _nli(row: Row, index: int) -> tuple[Task, list[Item]]:
    votes = _votes(row["annotator_labels"], "annotator_labels", _NLI.labels)
    topic = name_in(row, "promptID") or name_in(row, "captionID")
    texts = (_published_text(row, "sentence1"), _published_text(row, "sentence2"))
    return _NLI, [Item(name_in(row, "pairID") or str(index), texts, votes, topic)]


def _chaos(row: Row, index: int) -> tuple[Task, list[Item]]:
    example, counter = row["example"], row["label_counter"]
    for column, value in (("example", example), ("label_counter", counter)):
        if not isinstance(value, Mapping):
            raise bad_value(column, value, "a mapping")
    if "obs1" in example:
        task, texts, keys = _ABDUCTIVE, ("obs1", "obs2", "hyp1", "hyp2"), ("1", "2")
    else:
        task, texts, keys = _NLI, ("premise", "hypothesis"), ("e", "n", "c")
    unknown = sorted(set(counter) - set(keys))
    if unknown:
        raise bad_value("label_counter", unknown[0], f"the labels {', '.join(keys)}")
    counts = _counts([counter.get(key) or 0 for key in keys], task.labels, "label_counter")  # Parquet fills with null
    return task, [Item(name_in(row, "uid") or str(index), tuple(_published_text(example, t) for t in texts), counts)]


def _summeval(row: Row, index: int) -> tuple[Task, list[Item]]:
    if "text" not in row:
        raise DataError("column 'text' is missing; expected the articles beside the summaries (the paired file)")
    annotations = [*_rows(row, "expert_annotations"), *_rows(row, "turker_annotations")]
    name = f"{name_in(row, 'id') or index}/{name_in(row, 'model_id') or '?'}"
    items = []
    for quality, meaning in _QUALITIES.items():
        grades = [str(annotation.get(quality)) for annotation in annotations]
        votes = _votes(grades, quality, _SUMMARY.labels)
        texts = (_published_text(row, "text"), _published_text(row, "decoded"), meaning)
        items.append(Item(f"{name}/{quality}", texts, votes, topic=name_in(row, "id")))
    return _SUMMARY, items


def _mt_bench(row: Row, index: int) -> tuple[Task, list[Item]]:
    winner = row["winner"]
    if winner not in _WINNERS:
        raise bad_value("winner", winner, f"one of {', '.join(_WINNERS)}")
    if (name := name_in(row, "turn")) not in ("1", "2"):
        raise bad_value("turn", row["turn"], "1 or 2")
    turn = int(name)
    sides = [(name_in(row, f"model_{x}") or "?", _conversation(row, f"conversation_{x}", turn)) for x in "ab"]
    votes = [0.0, 0.0, 0.0]
    votes[_WINNERS[winner]] = 1.0
    if sides[0][0] > sides[1][0]:  # the same two answers may be in either order
        sides, votes = sides[::-1], votes[::-1]
    (model_a, text_a), (model_b, text_b) = sides
    question = name_in(row, "question_id")
    name = f"{question}/{turn}/{model_a}/{model_b}"
    return _CONVERSATIONS, [Item(name, (text_a, text_b), tuple(votes), topic=question)]


def _decoded(column: str, value: Any) -> Any:
    """A list or mapping, which a CSV file holds as JSON; invalid JSON is left to the checks."""
    if column not in _STRUCTURED or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _published_text(row: Mapping[str, Any], column: str) -> str:
    """A text of a published file, possibly empty."""
    value = row.get(column)
    if not isinstance(value, str):
        raise bad_value(column, value, "text")
    return value


def _rows(row: Row, column: str) -> list[Mapping[str, Any]]:
    value = row[column]
    if not isinstance(value, list) or not all(isinstance(part, Mapping) for part in value):
        raise bad_value(column, value, "a list of mappings")
    return value


def _conversation(row: Row, column: str, turn: int) -> str:
    messages = _rows(row, column)
    if len(messages) < 2 * turn or not all(isinstance(m.get("content"), str) for m in messages):
        raise bad_value(column, messages, f"at least {2 * turn} messages with their content")
    return "\n\n".join(f"{str(m.get('role', '?')).capitalize()}: {m['content']}" for m in messages[: 2 * turn])


def _votes(names: Any, column: str, labels: tuple[str, ...]) -> tuple[float, ...]:
    """Counts from a list with one label per vote."""
    if not isinstance(names, list):
        raise bad_value(column, names, "a list of labels, one per vote")
    counted = Counter(names)
    unknown = [name for name in counted if name not in labels]
    if unknown:
        raise bad_value(column, unknown[0], f"one of {', '.join(labels)}")
    return _counts([counted[label] for label in labels], labels, column)


def _counts(counts: Any, labels: tuple[str, ...], column: str = "counts") -> tuple[float, ...]:
    numbers = isinstance(counts, list) and all(isinstance(c, int | float) and not isinstance(c, bool) for c in counts)
    if not numbers:
        raise bad_value(column, counts, f"a list of {len(labels)} numbers of votes")
    try:
        check_counts(counts, labels, f"column {column!r}")
    except ValueError as error:
        raise DataError(str(error)) from None
    return tuple(float(count) for count in counts)


def _distribution(value: Any, labels: tuple[str, ...]) -> tuple[float, ...] | None:
    if value is None or value == "":
        return None
    shares = _counts(value, labels, "true_distribution")
    if abs(sum(shares) - 1) > 1e-6:
        raise bad_value("true_distribution", value, "numbers that add up to 1")
    return shares
