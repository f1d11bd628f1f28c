"""The pairs of a run: read from a file or simulated, with the votes that a judge is allowed to learn from.

    training pairs   label = one seeded vote (`labels: sparse`) or the vote share (`dense`)
    held-out pairs   label = the vote share, always; no response of theirs is among the training pairs

Deliberately left out: tokenization (`autorater.prompts`).
"""

from dataclasses import dataclass

import numpy as np

from autorater.loading import load_pairs
from autorater.pairs import Pair, leaked_responses, sparse_label, split_by, with_sparse_labels
from autorater.population import GRADER, Population, simulate_pairs
from autorater.training.config import JudgeArguments

_VOTE_STRENGTH = 0.25  # a vote says which side, not how surely: told as 3/8 or 5/8


@dataclass(frozen=True)
class TrainingData:
    """Pairs to learn from and to measure on.

    Attributes:
        train, held_out: The pairs.
        verdicts: Pr[B better] of a single opinionated judge of the training pairs, which a warm start imitates: the
            simulated grader's, or the one vote of a pair where there is no grader. Shape (len(train),).
        summary: What it is, in a line.
    """

    train: list[Pair]
    held_out: list[Pair]
    verdicts: np.ndarray
    summary: str


def prepare_data(args: JudgeArguments, seed: int) -> TrainingData:
    """Reads or simulates the pairs of a run.

    Args:
        args: Where they come from.
        seed: Draws the sparse votes, the split and the simulated texts.

    Raises:
        DataError: If a row is bad.
        ValueError: If training and held-out pairs share responses, or the options do not fit.
    """
    return _simulated(args, seed) if args.dataset_name is None else _recorded(args, seed)


def _simulated(args: JudgeArguments, seed: int) -> TrainingData:
    population = Population(noise=args.population_noise, slot_bias=args.annotator_slot_bias)
    population = population.with_shares(args.persona_shares)
    train = simulate_pairs(args.n_train, population, n_votes=args.n_votes, seed=seed)
    test = simulate_pairs(args.n_test, population, n_votes=args.n_test_votes, seed=seed, held_out=True)
    verdicts = Population(personas=(GRADER,)).preference(train.traits_a, train.traits_b)
    return TrainingData(
        _with_labels(train.pairs, args.labels, seed),
        test.pairs,
        verdicts,
        f"simulated annotators: {args.n_train:,} training pairs with {args.n_votes} vote(s) each, "
        f"{args.n_test:,} held-out pairs with {args.n_test_votes}",
    )


def _recorded(args: JudgeArguments, seed: int) -> TrainingData:
    pairs = load_pairs(args.dataset_name)
    if args.eval_dataset_name:
        train, held_out, how = pairs, load_pairs(args.eval_dataset_name, split="test"), args.eval_dataset_name
    else:
        train, held_out = split_by(pairs, args.split_by, args.held_out_fraction, seed)
        how = f"split off by {args.split_by}"
    leaked = leaked_responses(train, held_out)
    summary = (
        f"{args.dataset_name}: {len(train):,} training pairs ({args.labels} labels), "
        f"{len(held_out):,} held-out pairs ({how})"
    )
    if leaked:
        summary += f"\nwarning: {leaked:,} response texts are in both; to divide them, split_by a coarser column"
    verdicts = _VOTE_STRENGTH * np.array([sparse_label(pair, seed) for pair in train]) + (1 - _VOTE_STRENGTH) / 2
    return TrainingData(_with_labels(train, args.labels, seed), held_out, verdicts, summary)


def _with_labels(pairs: list[Pair], labels: str, seed: int) -> list[Pair]:
    return with_sparse_labels(pairs, seed) if labels == "sparse" else pairs
