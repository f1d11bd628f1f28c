"""Judgments of many pairs in parts, each stored when it is complete, so that a stopped evaluation resumes.

    FOLDER/<digest of everything that the judgments depend on>/0.npz, 500.npz, …

With other pairs, another model or other options the digest differs, so nothing stale is used.
"""

from collections.abc import Sequence
from pathlib import Path

from autorater.data.pairs import Pair
from autorater.judges.identity import digest
from autorater.judges.judgments import Judgments, PairJudge

_PART = 500  # pairs; prompts of similar length are batched within a part


def judge_in_parts(
    judge: PairJudge, pairs: Sequence[Pair], folder: Path, depends_on: object, *, progress: bool = False
) -> Judgments:
    """The judgments of N pairs; parts that are stored in `folder` are not judged again.

    `depends_on` is everything but the texts of the pairs that the judgments depend on; it has a stable `repr`.
    """
    texts = [
        (pair.prompt, pair.response_a, pair.response_b, pair.criteria, pair.reference, pair.group) for pair in pairs
    ]
    folder = folder / digest((depends_on, texts))
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(pairs), _PART):
        path = folder / f"{start}.npz"
        if not path.exists():
            written = path.with_name(f"{start}.writing.npz")
            judge.probabilities(pairs[start : start + _PART], progress=progress).save(written)
            written.replace(path)
        parts.append(Judgments.load(path))
    return Judgments.concatenated(parts)
