"""The pairs of a run: read from a file or simulated, with the votes that a judge may learn from.

    training pairs    label = one seeded vote (`labels: sparse`) or the vote share (`dense`, `all`)
    held-out pairs    label = the vote share; none of their responses is among the training pairs
    recalibration     pairs of a third file: a recalibration is fitted to them after training
    warm-start pairs  pairs with verdicts that the warm start imitates: the training pairs, or growing ones

Deliberately left out: tokenization (`autorater.prompts.encoder`).
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Generic, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerBase

from autorater.data.curriculum import with_growing_responses
from autorater.data.errors import UserError, counted, located
from autorater.data.gathering import shown_key
from autorater.data.loading import load_pairs
from autorater.data.messages import plain_text
from autorater.data.pairs import Pair, grouping, leaked_responses, sparse_label, split_by, with_sparse_labels
from autorater.data.population import GRADER, Population, simulate_pairs
from autorater.data.post_stratification import drawn_by_weight, pair_weights, parse_population, post_stratified
from autorater.judges.identity import rows_digest
from autorater.models.answers import answer_decimals
from autorater.prompts.encoder import EncodedPrompt
from autorater.prompts.tokens import inside
from autorater.training.arguments import JudgeArguments
from rewards import CLOSE_TAG, render_answer

Rows = TypeVar("Rows")
WARM_START_BATCH_SIZE = 64
_VOTE_STRENGTH = 0.25  # a vote has a side but no certainty: it becomes 3/8 or 5/8


@dataclass(frozen=True)
class TrainingData(Generic[Rows]):
    """Training and held-out rows, which are pairs or items, and a summary in one line.

    Attributes:
        warm_start: The N rows whose verdicts the warm start imitates: growing pairs, or all training rows, before
            some are drawn by their weights.
        verdicts: Their verdicts, shape (N,): Pr[B better] of pairs, by the simulated grader or one recorded vote, or
            the share of characters that are in B; of items the index of one label.
        warning: Why the held-out rows make a judge look better than new ones, or nothing.
    """

    train: Rows
    held_out: Rows
    warm_start: Rows
    verdicts: np.ndarray
    summary: str
    recalibration: Rows | None = None
    warning: str = ""

    @property
    def digest(self) -> str:
        """A hash of all rows but those of the warm start, to find out whether a file has changed."""
        return rows_digest(chain(self.train, self.held_out, self.recalibration or ()))


def prepare_data(args: JudgeArguments, seed: int) -> TrainingData[list[Pair]]:
    """Reads or simulates the pairs of a run; the seed draws the sparse votes, the split and the simulated texts.

    Raises:
        UserError: If a row is invalid, the pairs cannot be split, or an option does not fit.
    """
    if args.population is not None and "group" in args.prompt_format.slots:
        raise UserError(
            "population: the prompt shows {group}, so the judge answers for one group at a time; leave out one of them"
        )
    data = _simulated(args, seed) if args.dataset_name is None else _recorded(args, seed)
    if args.recalibration_dataset_name:
        data = _with_recalibration(data, args, seed)
    if args.warm_start_verdicts == "lengths":
        n_prompts = args.warm_start_steps * (args.warm_start_batch_size or WARM_START_BATCH_SIZE)
        growing = with_growing_responses(data.train, max(1, n_prompts // 2), seed)
        shown = [[len(plain_text(text)) for text in (pair.response_a, pair.response_b)] for pair in growing]
        in_a, in_b = np.array(shown).T
        data = replace(data, warm_start=growing, verdicts=in_b / np.maximum(in_a + in_b, 1))
    return data


def training_rows(
    pairs: Sequence[Pair], prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]], orders: str
) -> list[dict]:
    """Rows for `datasets.Dataset.from_list`: one per pair if orders are `coupled`, one per prompt if `separate`."""
    rows = []
    for pair, (ab, ba) in zip(pairs, prompts, strict=True):
        row = {"prompt": ab.text, "prompt_ids": ab.ids, "label": pair.label}
        if orders == "coupled":
            rows.append({**row, "swapped_prompt": ba.text, "swapped_prompt_ids": ba.ids})
        else:
            rows += [row, {"prompt": ba.text, "prompt_ids": ba.ids, "label": 1 - pair.label}]
    return rows


def answer_tokens(tokenizer: PreTrainedTokenizerBase, answer: float, step: float) -> list[int]:
    """An answer on the grid of a step, the closing tag and the end of the text, as token ids."""
    text = render_answer(answer, answer_decimals(step)) + CLOSE_TAG
    return [*inside(tokenizer, text), tokenizer.eos_token_id]


def _simulated(args: JudgeArguments, seed: int) -> TrainingData:
    population = Population(noise=args.population_noise, position_bias=args.annotator_position_bias)
    population = voters = population.with_shares(args.persona_shares)
    shares = None if args.population is None else parse_population(args.population)
    population = population.with_shares(shares)
    train = simulate_pairs(args.n_train, voters, n_votes=args.n_votes, seed=seed, by_group=shares is not None)
    test = simulate_pairs(args.n_test, population, n_votes=args.n_test_votes, seed=seed, held_out=True)
    verdicts = Population(personas=(GRADER,)).preference(train.traits_a, train.traits_b)
    shown = _with_labels(train.pairs, args.labels, seed)
    pairs, mix = (shown, "") if shares is None else _to_learn_from(train.pairs, args, seed, args.labels)
    summary = (
        f"simulated annotators: {args.n_train:,} training pairs with {counted(args.n_votes, 'vote')} each, "
        f"{args.n_test:,} held-out pairs with {args.n_test_votes}{mix}"
    )
    return TrainingData(pairs, test.pairs, shown, verdicts, summary)


def _recorded(args: JudgeArguments, seed: int) -> TrainingData:
    group, columns = grouping(args.split_by)
    pairs = load_pairs(args.dataset_name, None if args.eval_dataset_name else columns)
    if args.eval_dataset_name:
        train, held_out, how = pairs, load_pairs(args.eval_dataset_name, split="test"), args.eval_dataset_name
    else:
        with located(args.dataset_name):
            train, held_out = split_by(pairs, group, args.held_out_fraction, seed)
        how = f"split off by {args.split_by}"
    warning = overlap_warning(map(shown_key, train), [*map(shown_key, held_out)], args)
    leaked = leaked_responses(train, held_out)
    summary = (
        f"{args.dataset_name}: {len(train):,} training pairs ({args.labels} labels{_votes_used(train, args.labels)}), "
        f"{len(held_out):,} held-out pairs ({how})"
    )
    if leaked:
        summary += f"\nwarning: {leaked:,} response texts are in both{_advice(args)}"
    verdicts = _VOTE_STRENGTH * np.array([sparse_label(pair, seed) for pair in train]) + (1 - _VOTE_STRENGTH) / 2
    shown = _with_labels(train, args.labels, seed)
    train, mix = _to_learn_from(train, args, seed, args.labels)
    summary += mix
    if args.population is not None:
        held_out, mix = post_stratified(held_out, parse_population(args.population), "held-out pairs")
        summary += f"\npopulation of the held-out pairs: {mix}"
    return TrainingData(train, held_out, shown, verdicts, summary, warning=warning)


def overlap_warning(
    train: Iterable[Hashable], held_out: Sequence[Hashable], args: JudgeArguments, rows: str = "pairs"
) -> str:
    """A warning if held-out rows are training rows, or nothing.

    Args:
        train, held_out: A key of each row.
        rows: What they are called.
    """
    known = {hash(key) for key in train}
    n_known = sum(hash(key) in known for key in held_out)
    if not n_known:
        return ""
    return (
        f"{n_known:,} of {len(held_out):,} held-out {rows} are training {rows}, so the measurements are better than "
        f"on new {rows}{_advice(args)}"
    )


def _advice(args: JudgeArguments) -> str:
    return "" if args.eval_dataset_name else "; split_by a coarser column to separate them"


def _to_learn_from(
    pairs: list[Pair], args: JudgeArguments, seed: int, labels: str, name: str = "training pairs"
) -> tuple[list[Pair], str]:
    """Pairs with labels, weighted to the population by the number of their rows, and a line about it or nothing."""
    text = ""
    if args.population is not None:
        pairs, mix = post_stratified(pairs, parse_population(args.population), name)
        text = f"\npopulation of the {name}: {mix}"
    drawn = drawn_by_weight(pairs, seed)
    if pair_weights(pairs) is not None:
        used = len({pair.id for pair in pairs} & {pair.id for pair in drawn})
        rows = f"{len(drawn):,} rows drawn in proportion to them"
        text += f"\nweights of the {name}: {rows}, {used:,} of {len(pairs):,} pairs are used"
    return _with_labels(drawn, labels, seed), text


def _with_recalibration(data: TrainingData, args: JudgeArguments, seed: int) -> TrainingData:
    name, labels = args.recalibration_dataset_name, args.temperature_labels
    by_teacher = labels == "teacher"
    pairs = load_pairs(name, split="validation", labelled=not by_teacher)
    if len(pairs) < 2:
        raise UserError(f"recalibration_dataset_name: {name} has {len(pairs)} pairs; a recalibration requires more")
    used = ": the teacher's probabilities" if by_teacher else _votes_used(pairs, labels)
    summary = f"{data.summary}\nrecalibration: {len(pairs):,} pairs of {name}{used}"
    for rows, kind in ((data.train, "training"), (data.held_out, "held-out")):
        if leaked := leaked_responses(rows, pairs):
            summary += f"\nwarning: {leaked:,} response texts are in {name} and among the {kind} pairs"
    pairs, mix = _to_learn_from(pairs, args, seed, labels, "recalibration pairs")
    return replace(data, recalibration=pairs, summary=summary + mix)


def _votes_used(pairs: Sequence[Pair], labels: str) -> str:
    """How many of the votes are used, if their number is known."""
    n_votes = sum(pair.n_votes or 0 for pair in pairs)
    if not all(pair.n_votes for pair in pairs):
        return ""
    return f": {len(pairs):,} of {n_votes:,} votes" if labels == "sparse" else f": all {n_votes:,} votes"


def _with_labels(pairs: list[Pair], labels: str, seed: int) -> list[Pair]:
    return with_sparse_labels(pairs, seed) if labels == "sparse" else pairs
