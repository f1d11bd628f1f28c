"""Judgments of many pairs, stored as they come, so that a stopped evaluation resumes.

    FOLDER/<digest of everything that the judgments depend on>/0.npz, 500.npz, …     in parts, by a local judge
    FOLDER/<the same>/all.npz                                                        at once: by a run, or a probe
    FOLDER/<the same>/judgments.jsonl                                                one by one, by a server

With other pairs, another model or other options the digest differs, so nothing stale is used.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from operator import itemgetter
from pathlib import Path

import numpy as np

from autorater.data.pairs import Pair
from autorater.evaluation.judgment_store import JudgmentStore
from autorater.evaluation.requests import add_earlier_usage, answer_record, is_refused, missing_budget
from autorater.judges.client import EndpointError
from autorater.judges.endpoint import EndpointJudge, missing_answers, numbers_in
from autorater.judges.identity import digest
from autorater.judges.judgments import Answer, Judgments, PairJudge
from autorater.progress import progress_bar
from autorater.prompts.templates import AS_IT_IS

logger = logging.getLogger(__name__)
PART = 500
"""Pairs in a part; prompts of similar length are batched within it."""


def judge_in_parts(
    judge: PairJudge,
    pairs: Sequence[Pair],
    folder: Path,
    depends_on: object,
    *,
    size: int = PART,
    progress: bool = False,
) -> Judgments:
    """The judgments of N pairs; parts that are stored in `folder`, of any size, are not judged again.

    Args:
        depends_on: Everything but the texts of the pairs that the judgments depend on; it has a stable `repr`.
        size: Pairs in a new part, which are lost if it is not completed.
    """
    folder = _folder_of(folder, depends_on, pairs)
    parts, start = [], 0
    with progress_bar(len(pairs), "stored", "pair", progress) as bar:
        while start < len(pairs):
            path = folder / f"{start}.npz"
            part = read_stored(path)
            if part is None:
                part = judge.probabilities(pairs[start : start + size], progress=progress)
                part.save(path)
            parts.append(part)
            start += len(part)
            bar.update(len(part))
    return Judgments.concatenated(parts)


def read_stored(path: Path) -> Judgments | None:
    """The judgments in a file; None if there is none or, with a warning, if it is damaged: then judge again."""
    try:
        return Judgments.load(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # any: numpy and zipfile raise eight kinds for damaged files
        logger.warning(f"{path} cannot be read ({type(error).__name__}); its pairs are judged again")
        return None


def judge_in_store(
    judge: EndpointJudge,
    pairs: Sequence[Pair],
    folder: Path,
    settings: Mapping[str, object],
    *,
    ask_refused_again: bool = False,
    progress: bool = False,
) -> Judgments:
    """The judgments of N pairs by a judge behind a server; those that are stored in `folder` are not requested again.

    A request without an answer has mean 0.5 and validity 0. Logs what was used and why answers are missing.

    Args:
        settings: What the judgments depend on beside the pairs, as JSON values.
        ask_refused_again: Repeat the requests that were refused in an earlier run.

    Raises:
        EndpointError: If no request can succeed, or the budget is too small.
    """
    folder = _folder_of(folder, sorted(settings.items()), pairs)
    number_of = itemgetter("number")
    store = JudgmentStore(folder, 2 * len(pairs), number_of, settings, is_refused, ask_refused_again)
    shown = ((2 * i + o, p) for i, pair in enumerate(pairs) for o, p in enumerate((pair, pair.swapped())))
    mean, valid = np.full((2, len(pairs), 2), 0.5)
    with closing(store), progress_bar(mean.size, "judging", "request", progress, initial=len(store)) as bar:

        def receive(number: int, answer: Answer) -> None:
            store.append(number, {"number": number} | answer_record(answer))
            bar.update()

        add_earlier_usage(judge.usage, store)
        judge.ask_pairs(((number, pair, AS_IT_IS) for number, pair in shown if number not in store), receive)
        if n_missing := mean.size - len(store):
            raise EndpointError(missing_budget(n_missing))
        for record in store.records():
            number = record["number"]
            mean.flat[number], valid.flat[number] = numbers_in(record)
        if reasons := missing_answers(store.records(), judge.max_answer_tokens):
            logger.warning("; ".join(reasons))
    return Judgments(mean, mean.copy(), np.zeros_like(mean), valid)


def stored_at(folder: str | Path, depends_on: object, pairs: Sequence[Pair]) -> Path:
    """The file for all judgments of some pairs at once, in an existing folder; `depends_on` as in `judge_in_parts`."""
    return _folder_of(Path(folder), depends_on, pairs) / "all.npz"


def _folder_of(folder: Path, depends_on: object, pairs: Sequence[Pair]) -> Path:
    texts = [
        (pair.prompt, pair.response_a, pair.response_b, pair.criteria, pair.reference, pair.group) for pair in pairs
    ]
    folder = folder / digest((depends_on, texts))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
