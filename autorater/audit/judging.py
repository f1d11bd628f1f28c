"""Asking a judge all that is not answered yet, and writing down every answer as it comes.

Pairs are taken from a file one after the other, questions when their turn comes, and answers go to the journal: no
more texts are in memory than questions are under way, whatever the number of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from autorater.audit.plan import Plan, Question
from autorater.audit.store import Journal
from autorater.data.pairs import Pair
from autorater.judges.answer import Answer
from autorater.judges.endpoint import EndpointJudge

if TYPE_CHECKING:
    from autorater.judges import Judge

_LOCAL_BATCH = 256  # prompts among which the local judge finds those of like length
Ask = Callable[[Iterable[Question], Callable[[Question, Answer], None]], None]


def ask_missing(ask: Ask, plan: Plan, pairs: Iterable[Pair], journal: Journal, *, progress: bool = False) -> None:
    """Asks every question of the plan that the journal has no answer to.

    Args:
        ask: How the judge is asked, see `endpoint_asker` and `local_asker`.
        plan: What to ask.
        pairs: The pairs, in the same order in every run.
        journal: Where the answers go.
        progress: Show a progress bar, if there is a terminal.
    """
    bar = tqdm(
        total=plan.n_questions,
        initial=len(journal),
        desc="judging",
        unit="question",
        disable=None if progress else True,
        leave=False,
    )
    with bar:

        def receive(question: Question, answer: Answer) -> None:
            journal.append(question.slot, _record(question, answer))
            bar.update()

        with closing(plan.questions(pairs, done=journal)) as questions:
            ask(questions, receive)


def endpoint_asker(judge: EndpointJudge) -> Ask:
    """Asks a judge behind an endpoint, many questions at a time."""

    def ask(questions: Iterable[Question], receive: Callable[[Question, Answer], None]) -> None:
        judge.ask(((q, judge.message(q.reading.pair, q.reading.names)) for q in questions), receive)

    return ask


def local_asker(judge: Judge) -> Ask:
    """Asks a judge on this machine: one forward pass a question. A prompt that it cannot read is refused."""
    from autorater.prompts.batching import longest_prompt

    longest = longest_prompt(judge.model, judge.answer_tokens)

    def ask(questions: Iterable[Question], receive: Callable[[Question, Answer], None]) -> None:
        questions = iter(questions)
        while batch := list(islice(questions, _LOCAL_BATCH)):
            prompts = [both[0] for both in judge.encoder.encode([question.reading.pair for question in batch])]
            read = [i for i, prompt in enumerate(prompts) if len(prompt.ids) <= longest]
            flat = [prompts[i] for i in read]
            flat += flat[: len(flat) % 2]  # the judge takes prompts by twos
            judgments = judge.judge_prompts(list(zip(flat[::2], flat[1::2], strict=True))) if flat else None
            place = {i: k for k, i in enumerate(read)}
            for i, question in enumerate(batch):
                if i in place:
                    row, column = divmod(place[i], 2)
                    valid = float(judgments.valid[row, column])
                    said = round(float(judgments.mean[row, column]), 6) if valid > 0 else None
                    status = "unparsed" if said is None else "answered"
                    receive(question, Answer(status, said, valid=round(valid, 6)))
                else:
                    reason = f"its prompt has {len(prompts[i].ids)} tokens, this model reads {longest}"
                    receive(question, Answer("refused", error=reason))

    return ask


def _record(question: Question, answer: Answer) -> dict[str, object]:
    """A line of the journal: nothing in it depends on when or in which run it was written."""
    told = {
        "probability": answer.probability,
        "text": answer.text,
        "valid": answer.valid,
        "error": answer.error,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens or None,
        "completion_tokens": answer.completion_tokens or None,
    }
    return {
        "pair": question.index,
        "id": question.id,
        "probe": question.probe,
        "order": question.order,
        "repeat": question.repeat,
        "status": answer.status,
        **{name: value for name, value in told.items() if value is not None},
    }
