"""Sends a judge every request that has no judgment yet, and stores every answer as it arrives.

Memory holds only the texts of the requests in progress, whatever the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

from autorater.audit.plan import Plan, Request
from autorater.audit.probes import Presentation
from autorater.audit.processes import ALONE, Processes
from autorater.data.pairs import Pair
from autorater.evaluation.judgment_store import JudgmentStore
from autorater.evaluation.requests import answer_record
from autorater.judges.endpoint import EndpointJudge
from autorater.judges.judgments import Answer
from autorater.progress import progress_bar

if TYPE_CHECKING:
    from autorater.judges import Judge
    from autorater.prompts.encoder import EncodedPrompt

    Prompts = tuple[EncodedPrompt, EncodedPrompt]

_BLOCK = 256  # requests among which the local judge forms batches
_LONGEST_BLOCK = 16_384  # of a pointwise judge, which reads a response once in a block


def judge_remaining(
    judge: Judge | EndpointJudge,
    plan: Plan,
    pairs: Iterable[Pair],
    store: JudgmentStore,
    *,
    progress: bool = False,
    processes: Processes = ALONE,
    stored: Container[int] | None = None,
) -> None:
    """Judges every request of the plan that has no judgment in the store, and writes it there.

    The pairs come in the same order in every run. A progress bar is shown only on a terminal.

    Args:
        processes: Of several, this one judges its share.
        stored: Requests that have a judgment; by default those in the store.
    """
    total, there = plan.n_requests // processes.size, len(store) // processes.size
    with progress_bar(total, "judging", "request", progress, initial=there) as bar:

        def receive(request: Request, answer: Answer) -> None:
            store.append(request.number, _record(request, answer))
            bar.update()

        if isinstance(judge, EndpointJudge):
            requests = plan.requests(pairs, done=store)
            judge.ask_pairs(((r, r.presentation.pair, r.presentation.wording) for r in requests), receive)
        else:
            _judge_locally(judge, plan.requests(pairs), store if stored is None else stored, receive, processes)


def _judge_locally(
    judge: Judge,
    requests: Iterator[Request],
    stored: Container[int],
    receive: Callable[[Request, Answer], None],
    processes: Processes = ALONE,
) -> None:
    """Judges the requests of this process in blocks; a block that is stored in part is judged again as a whole.

    So the composition of batches, on which the last digits depend, is that of an undisturbed run.
    """
    longest, encode = judge.longest_prompt(), _encoding(judge)
    for number, block in enumerate(_blocks(requests, whole_questions=judge.is_pointwise)):
        if not processes.has_block(number) or all(request.number in stored for request in block):
            continue
        prompts = encode([request.presentation for request in block])
        sizes = [max(len(prompt.ids) for prompt in both) for both in prompts]
        short = [i for i, size in enumerate(sizes) if size <= longest]
        read = judge.judge_as_shown([prompts[i] for i in short])
        answers = {i: Answer.stated(*row) for i, *row in zip(short, read.mean, read.valid, strict=True)}
        for i, request in enumerate(block):
            if request.number not in stored:
                reason = f"its prompt has {sizes[i]} tokens; the longest that fits this model has {longest}"
                receive(request, answers.get(i, Answer("refused", error=reason)))


def _blocks(requests: Iterator[Request], whole_questions: bool) -> Iterator[list[Request]]:
    """Consecutive requests; with `whole_questions` a block does not end between two with the same prompt."""
    ahead = next(requests, None)
    while ahead is not None:
        block = [ahead, *islice(requests, _BLOCK - 1)]
        ahead = next(requests, None)
        while whole_questions and ahead is not None and len(block) < _LONGEST_BLOCK:
            if ahead.presentation.pair.prompt != block[-1].presentation.pair.prompt:
                break
            block.append(ahead)
            ahead = next(requests, None)
        yield block


def _encoding(judge: Judge) -> Callable[[Sequence[Presentation]], list[Prompts]]:
    """A function that encodes presentations, each in its wording; those of a block share few wordings."""
    from autorater.prompts.encoder import PromptEncoder

    @cache
    def encoder(paraphrased: bool) -> PromptEncoder:
        if not paraphrased:
            return judge.encoder
        saved, format = judge.encoder.pieces, judge.encoder.format  # saved pieces may have the date of another day
        wordings = zip(saved, format.pieces, format.paraphrased.pieces, strict=True)
        pieces = tuple(piece.replace(ours.strip(), other.strip()) for piece, ours, other in wordings if ours)
        return PromptEncoder(judge.tokenizer, format.paraphrased, pieces if pieces != saved else None)

    def encode(shown: Sequence[Presentation]) -> list[Prompts]:
        prompts: dict[int, Prompts] = {}
        for paraphrased in {presentation.wording.paraphrased for presentation in shown}:
            rows = [i for i, presentation in enumerate(shown) if presentation.wording.paraphrased == paraphrased]
            prompts |= zip(rows, encoder(paraphrased).encode([shown[i].pair for i in rows]), strict=True)
        return [prompts[i] for i in range(len(shown))]

    return encode


def _record(request: Request, answer: Answer) -> dict[str, object]:
    """A line of the store. It does not depend on when, or in which run, it is written."""
    names = ("id", "probe", "order", "repeat")
    return {"pair": request.index} | {name: getattr(request, name) for name in names} | answer_record(answer)
