"""The requests of a run to a judge behind a server: what they used, and what is stored of their answers.

Judgments are stored as they come (`autorater.evaluation.judgment_store`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from autorater.evaluation.judgment_store import JudgmentStore
from autorater.judges.judgments import Answer
from autorater.judges.usage import Usage


def answer_record(answer: Answer) -> dict[str, object]:
    """What the store keeps of an answer: its fields that are set, and its requests unless there was one."""
    record = asdict(answer)
    record["requests"] = None if answer.requests == 1 else answer.requests
    for tokens in ("prompt_tokens", "completion_tokens"):
        record[tokens] = record[tokens] or None
    return {name: value for name, value in record.items() if value is not None}


def is_refused(record: Mapping[str, object]) -> bool:
    """Whether a stored judgment is a refusal."""
    return record["status"] == "refused"


def add_earlier_usage(usage: Usage, store: JudgmentStore) -> None:
    """Adds the usage of earlier runs; replies that were retried with success are not stored, so not counted."""
    for record in store.records():
        usage.requests += record.get("requests", 1)
        usage.answered = usage.answered or record["status"] == "answered"
        usage.add(record.get("prompt_tokens") or 0, record.get("completion_tokens") or 0)


def usage_line(usage: Usage) -> str:
    """Requests, tokens and, with prices, their cost."""
    line = (
        f"{usage.requests:,} requests ({usage.retries:,} retries), {usage.prompt_tokens:,} prompt tokens, "
        f"{usage.completion_tokens:,} completion tokens"
    )
    return f"{line}, {usage.cost:.4f} USD" if usage.price_in or usage.price_out else line


def missing_budget(n_missing: int) -> str:
    """The error after a budget that was too small."""
    return (
        f"the budget ran out with {n_missing:,} requests missing; start again with a larger --max_requests or "
        "--max_tokens to resume"
    )
