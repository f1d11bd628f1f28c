"""What sequences of tokens, or texts, have in common at their beginning."""

from __future__ import annotations

from collections.abc import Sequence


def shared_length(a: Sequence[int] | str, b: Sequence[int] | str) -> int:
    """Number of tokens or characters that two sequences have in common at their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def common_beginning(sequences: Sequence[Sequence[int]]) -> list[int]:
    """The longest common beginning of at least one sequence."""
    first, last = min(sequences), max(sequences)  # what these two share, those between them do too
    return list(first[: shared_length(first, last)])
