"""The pairs of a run: read from a file or simulated, with the votes that a judge is allowed to learn from.

    training pairs   label = one seeded vote (`labels: sparse`) or the vote share (`dense`)
    held-out pairs   label = the vote share, always; no response of theirs is among the training pairs
    judged pairs     what a warm start imitates the verdicts on: the training pairs, or growing ones

Deliberately left out: tokenization (`autorater.prompts`).
"""

from dataclasses import dataclass, replace

import numpy as np

from autorater.items import ItemSet, pair_items
from autorater.loading import load_pairs
from autorater.loading_items import load_items
from autorater.pairs import Pair, leaked_responses, sparse_label, split_by, with_sparse_labels
from autorater.population import GRADER, Population, simulate_items, simulate_pairs
from autorater.training.config import AlignmentArguments, JudgeArguments
from autorater.training.curriculum import with_growing_responses

_VOTE_STRENGTH = 0.25  # a vote says which side, not how surely: told as 3/8 or 5/8


@dataclass(frozen=True)
class TrainingData:
    """Pairs to learn from and to measure on.

    Attributes:
        train, held_out: The pairs.
        judged: The training pairs as a single opinionated judge saw them, which a warm start imitates.
        verdicts: Pr[B better] of that judge: the simulated grader's, the one vote of a pair where there is no grader,
            or the share of the characters that are in B. Shape (len(judged),).
        summary: What it is, in a line.
    """

    train: list[Pair]
    held_out: list[Pair]
    judged: list[Pair]
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
    data = _simulated(args, seed) if args.dataset_name is None else _recorded(args, seed)
    if args.warm_start_verdicts == "lengths":
        judged = with_growing_responses(
            data.train, max(1, args.warm_start_steps * args.warm_start_batch_size // 2), seed
        )
        in_a, in_b = np.array([(len(pair.response_a), len(pair.response_b)) for pair in judged]).T
        data = replace(data, judged=judged, verdicts=in_b / np.maximum(in_a + in_b, 1))
    return data


@dataclass(frozen=True)
class ItemData:
    """Items to learn from and to measure on.

    Attributes:
        train, held_out: The items.
        judged: The training items as a single opinionated judge saw them, which a warm start imitates.
        verdicts: Number of the one label that it gives each of them: the simulated grader's, that of one vote, or as
            in `TrainingData`. Shape (len(judged),).
        summary: What it is, in a line.
    """

    train: ItemSet
    held_out: ItemSet
    judged: ItemSet
    verdicts: np.ndarray
    summary: str


def prepare_items(args: AlignmentArguments, seed: int) -> ItemData:
    """Reads or simulates the items of a run.

    Args:
        args: Where they come from.
        seed: Draws the split, the verdicts and the simulated texts.

    Raises:
        DataError: If a row is bad.
        ValueError: If the options or the tasks of two files do not fit.
    """
    if args.dataset_name is None:
        population = Population(noise=args.population_noise).with_shares(args.persona_shares)
        simulated = simulate_items(args.n_train, population, n_votes=args.n_votes, seed=seed)
        test = simulate_items(args.n_test, population, n_votes=args.n_test_votes, seed=seed, held_out=True)
        verdicts = Population(personas=(GRADER,)).grades(simulated.traits).argmax(axis=1)
        train, held_out, where = simulated.items, test.items, "simulated annotators"
        votes = f" with {args.n_votes} vote(s) each", f" with {args.n_test_votes}"
    else:
        items, votes, where = load_items(args.dataset_name), ("", ""), args.dataset_name
        if args.eval_dataset_name:
            train, held_out = items, load_items(args.eval_dataset_name)
        else:
            column = "id" if any(item.topic is None for item in items.items) else "topic"
            sides = split_by(items.items, column, args.held_out_fraction, seed)
            train, held_out = (ItemSet(items.task, side) for side in sides)
        verdicts = _one_vote(train.shares, seed)
    if train.task != held_out.task:
        raise ValueError(f"{args.eval_dataset_name} has another task than {args.dataset_name}")
    if args.labels == "sparse":
        counts = np.eye(len(train.task.labels))[_one_vote(train.shares, seed + 1)]
        sparse = [replace(item, counts=tuple(row)) for item, row in zip(train.items, counts.tolist(), strict=True)]
        train = ItemSet(train.task, sparse)
    labels = ", ".join(train.task.labels)
    summary = f"{where}: {len(train):,} training items{votes[0]}, {len(held_out):,} held-out items{votes[1]}; {labels}"
    return ItemData(train, held_out, train, verdicts, summary)


def prepare_pair_items(args: AlignmentArguments, seed: int) -> tuple[TrainingData, ItemData]:
    """The pairs of a run, and both orders of each as items."""
    data = prepare_data(args, seed)
    ties = any(pair.votes_tie for pair in data.train + data.held_out)
    train, held_out, judged = (pair_items(pairs, ties) for pairs in (data.train, data.held_out, data.judged))
    says_b = np.stack([data.verdicts, 1 - data.verdicts], axis=1).flatten() > 0.5
    verdicts = np.where(says_b, len(train.task.labels) - 1, 0)
    return data, ItemData(train, held_out, judged, verdicts, data.summary)


def _one_vote(shares: np.ndarray, seed: int) -> np.ndarray:
    """The number of a label drawn from each distribution, shape (N,)."""
    draws = np.random.default_rng(seed).random((len(shares), 1))
    return (shares.cumsum(axis=1) <= draws).sum(axis=1).clip(max=shares.shape[1] - 1)


def _simulated(args: JudgeArguments, seed: int) -> TrainingData:
    population = Population(noise=args.population_noise, slot_bias=args.annotator_slot_bias)
    population = population.with_shares(args.persona_shares)
    train = simulate_pairs(args.n_train, population, n_votes=args.n_votes, seed=seed)
    test = simulate_pairs(args.n_test, population, n_votes=args.n_test_votes, seed=seed, held_out=True)
    verdicts = Population(personas=(GRADER,)).preference(train.traits_a, train.traits_b)
    pairs = _with_labels(train.pairs, args.labels, seed)
    return TrainingData(
        pairs,
        test.pairs,
        pairs,
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
    train = _with_labels(train, args.labels, seed)
    return TrainingData(train, held_out, train, verdicts, summary)


def _with_labels(pairs: list[Pair], labels: str, seed: int) -> list[Pair]:
    return with_sparse_labels(pairs, seed) if labels == "sparse" else pairs
