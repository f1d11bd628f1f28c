"""The judgments of one judge by one method: of calibration pairs, of the pairs to measure on, and of others.

A model on this machine has all methods (`autorater.judges.methods`). Other judges have one: a trained judge that is
read exactly behind a server `answer_mean`, a server that writes its answer `verbalized`, a file `recorded`.

Judgments are stored as they come: those of a server one by one, others in parts, small ones where the judge reasons.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from autorater.data.messages import plain_text
from autorater.data.pairs import Pair
from autorater.evaluation.stored_judgments import PART, judge_in_parts, judge_in_store, read_stored, stored_at
from autorater.judges.calibrators import content_free_pairs
from autorater.judges.client import CHARACTERS_PER_TOKEN
from autorater.judges.endpoint import EndpointJudge
from autorater.judges.judgments import Judgments, NamedJudge
from autorater.judges.opening import judge_settings
from autorater.judges.options import POINTWISE_METHODS
from autorater.judges.recorded_judge import RecordedJudge

if TYPE_CHECKING:
    from autorater.judges import Judge

_TIMED_PROMPTS = 16
_GENERATED_PART = 16  # pairs; of a judge that reasons they can take minutes
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ComparedPairs:
    """The pairs of a comparison.

    Attributes:
        measured: N pairs to measure on.
        calibration: Pairs to fit recalibrations on; they share no prompt with `measured`.
        train: Pairs to fit the linear probe on; by default the calibration pairs, on which its variants then use its
            out-of-fold probabilities.
        unvoted: Pairs without votes, to judge only.
        clusters: N names; pairs with equal ones are resampled together.
    """

    measured: Sequence[Pair]
    calibration: Sequence[Pair]
    train: Sequence[Pair] | None = None
    unvoted: Sequence[Pair] = ()
    clusters: Sequence[Hashable] | None = None

    @property
    def parts(self) -> list[Sequence[Pair]]:
        """The pairs to judge: those to measure on, to calibrate on and without votes."""
        return [self.measured, self.calibration, self.unvoted]


@dataclass(frozen=True)
class Storage:
    """Where judgments are stored as they come, and read from if they are there.

    Attributes:
        folder: A folder of judgments of any judges.
        model: What identifies the model, such as the `model_digest` of its folder, or its name on a server.
    """

    folder: Path
    model: str


@dataclass(frozen=True)
class Parts:
    """Judgments of the pairs to measure on, the calibration pairs, pairs without votes, and content-free pairs.

    `content_free` is None for recorded judgments.
    """

    measured: Judgments
    calibration: Judgments
    unvoted: Judgments
    content_free: Judgments | None

    def map(self, function) -> Parts:
        """The parts after a post-processing."""
        return Parts(*(None if part is None else function(part) for part in vars(self).values()))


def without_content(pairs: Sequence[Pair], slots: Collection[str]) -> list[Pair]:
    """The pairs with N/A as criteria, reference and group, where a prompt has these slots."""
    values = dict.fromkeys({"criteria", "reference", "group"} & set(slots), "N/A")
    return [replace(pair, **values) for pair in pairs]


def methods_of(judge: NamedJudge, methods: Sequence[str], name: str, *, say: bool = False) -> Sequence[str]:
    """Those of the methods that a judge has; with `say` a line names the others of a judge with one method."""
    if judge.method is None:
        return [method for method in methods if method in POINTWISE_METHODS or not judge.is_pointwise]
    if say and (others := [method for method in methods if method != judge.method]):
        logger.info(f"{name}: by {judge.method} alone; {', '.join(others)} require a model on this machine")
    return [judge.method]


def judge_parts(
    method: str,
    judge: NamedJudge,
    pairs: ComparedPairs,
    storage: Storage | None,
    progress: bool,
    ask_refused_again: bool = False,
    **options: int,
) -> Parts:
    """Judges all parts by a method; arguments as in `autorater.evaluation.methods.compare_methods`."""
    is_recorded, content_free = isinstance(judge, RecordedJudge), []
    if not is_recorded:
        content_free = without_content(content_free_pairs(), judge.prompt_format.slots)
    parts = [*pairs.parts, content_free]
    everything = [pair for part in parts for pair in part]
    cross_fitted = None
    if is_recorded or (judge.method and storage is None):
        judgments = judge.probabilities(everything, progress=progress)
    elif judge.method:
        judgments = judge_in_store(
            judge,
            everything,
            storage.folder,
            judge_settings(storage.model, judge),
            ask_refused_again=ask_refused_again,
            progress=progress,
        )
    else:
        fit_on = pairs.calibration if pairs.train is None else pairs.train
        judgments, cross_fitted = _judge_by_method(method, judge, everything, fit_on, storage, progress, **options)
    found, start = [], 0
    for part in parts:
        found.append(judgments[start : start + len(part)])
        start += len(part)
    if cross_fitted is not None and pairs.train is None:
        found[1] = cross_fitted
    return Parts(*found[:3], found[3] if content_free else None)


def _judge_by_method(
    method: str,
    judge: Judge,
    pairs: Sequence[Pair],
    fit_on: Sequence[Pair],
    storage: Storage | None,
    progress: bool,
    **options: int,
) -> tuple[Judgments, Judgments | None]:
    """The judgments, and those of `fit_on` by cross-fitting for a method that is fitted."""
    from autorater.judges.methods import judging_method

    open_method = partial(judging_method, method, judge, fit_on, progress=progress, **options)
    is_fitted = method == "linear_probe"
    if storage is None:
        pair_judge = open_method()
        judgments = pair_judge.probabilities(pairs, progress=progress)
        return judgments, pair_judge.cross_fitted if is_fitted else None
    encoder = judge.encoder
    about = (encoder.format, encoder.pieces, judge.tree.step, str(judge.model.dtype))
    folder, depends_on = storage.folder, (storage.model, method, *about, sorted(options.items()))
    if not is_fitted:
        size = _GENERATED_PART if generates(method, judge) else PART
        return judge_in_parts(open_method(), pairs, folder, depends_on, size=size, progress=progress), None
    depends_on = (*depends_on, [(pair.prompt, pair.response_a, pair.response_b, pair.label) for pair in fit_on])
    paths = [stored_at(folder, (*depends_on, part), rows) for part, rows in (("all", pairs), ("fitted on", fit_on))]
    judgments, cross_fitted = map(read_stored, paths)
    if judgments is None or cross_fitted is None:  # its states are the work, and are computed once
        probe = open_method()
        judgments, cross_fitted = probe.probabilities(pairs, progress=progress), probe.cross_fitted
        judgments.save(paths[0])
        cross_fitted.save(paths[1])
    return judgments, cross_fitted


def generates(method: str, judge: NamedJudge) -> bool:
    """Whether a judge on this machine reasons by a method, and does not judge in one forward pass a prompt."""
    if judge.method is not None:
        return False
    return method.endswith("_reasoning") or (method == "answer_mean" and judge.prompt_format.reasoning)


def cost(
    judge: NamedJudge,
    pairs: Sequence[Pair],
    methods: Sequence[str],
    prices: Mapping[str, float | None] | None = None,
    max_reasoning_tokens: int = 512,
    n_samples: int = 10,
    train: Sequence[Pair] = (),
) -> str:
    """What judging N pairs by every method costs, in a sentence.

    A few prompts are judged on this machine to measure the speed; the tokens of requests to a server are estimated
    from the characters.

    Args:
        prices: `price_in` and `price_out` in USD for a million tokens, if known.
        max_reasoning_tokens, n_samples: As in `judging_method`.
        train: Pairs that the linear probe is fitted on, if they are not among the N.
    """
    if isinstance(judge, RecordedJudge):
        return f"{judge.n_found(pairs):,} of {len(pairs):,} pairs, recorded already"
    if isinstance(judge, EndpointJudge):
        return _cost_of_requests(judge, pairs, prices or {})
    judge, encoded = copy(judge), judge.encoder.encode(pairs)
    timed = encoded[:: max(1, 2 * len(encoded) // _TIMED_PROMPTS)]
    fitted_on = train if "linear_probe" in methods else ()
    further = judge.encoder.encode(without_content(fitted_on, judge.encoder.format.slots))
    # a pointwise judge reads a response once, however many pairs have it
    prompts, timed_prompts, further_prompts = (
        {id(prompt): prompt for both in some for prompt in both} for some in (encoded, timed, further)
    )
    tokens, timed_tokens, further_tokens = (
        sum(len(p.ids) for p in some.values()) for some in (prompts, timed_prompts, further_prompts)
    )
    single = [method for method in methods if not generates(method, judge)]  # one forward pass a prompt
    text = f"{len(prompts):,} prompts, {tokens:,} tokens"
    if further:
        text += f"; {len(further_prompts):,} training prompts, {further_tokens:,} tokens, for linear_probe"
    if single and not judge.encoder.format.reasoning:
        judge.judge_prompts(timed[:1])  # the first forward pass of a process is slow
        start = time.perf_counter()
        judge.judge_prompts(timed)
        n_tokens = tokens * len(single) + further_tokens
        minutes = (time.perf_counter() - start) * n_tokens / timed_tokens / 60
        text += f"; {'under a minute' if minutes < 1 else f'about {minutes:.1f} minutes'} for {', '.join(single)}"
    longest = judge.max_reasoning_tokens or max_reasoning_tokens
    for method in methods:
        if generates(method, judge):
            n_tokens = longest * (n_samples if method.startswith("self_consistency") else 1)
            text += f"; up to {n_tokens:,} generated tokens a prompt for {method}"
    return text


def _cost_of_requests(judge: EndpointJudge, pairs: Sequence[Pair], prices: Mapping[str, float | None]) -> str:
    pairs = [*pairs, *content_free_pairs()]
    layout = sum(map(len, judge.prompt_format.pieces))
    texts = sum(len(plain_text(text)) for pair in pairs for text in (pair.prompt, pair.response_a, pair.response_b))
    n_requests, per_request = judge.n_requests(pairs), judge.prompts_per_request
    prompt_tokens = n_requests * per_request * (layout + texts / len(pairs)) / CHARACTERS_PER_TOKEN
    answer_tokens = n_requests * per_request * judge.longest_answer
    text = (
        f"{n_requests:,} requests to {judge.model}, about {prompt_tokens:,.0f} prompt tokens (a token taken for "
        f"{CHARACTERS_PER_TOKEN} characters) and at most {answer_tokens:,} completion tokens"
    )
    price = prompt_tokens * (prices.get("price_in") or 0) + answer_tokens * (prices.get("price_out") or 0)
    return f"{text}, at most about {price / 1e6:.2f} USD" if price else text
