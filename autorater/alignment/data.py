"""The items of an alignment run, read or simulated, with a single label per item for the warm start."""

import logging
from dataclasses import replace

import numpy as np

from autorater.alignment.arguments import AlignmentArguments
from autorater.data.errors import DataError, counted
from autorater.data.formats import load_items
from autorater.data.items import ItemSet, pair_items
from autorater.data.pairs import Pair, split_by, turns_as_text
from autorater.data.population import GRADER, Population, simulate_items
from autorater.training.data import TrainingData, overlap_warning, prepare_data

logger = logging.getLogger(__name__)


def prepare_items(args: AlignmentArguments, seed: int) -> TrainingData[ItemSet]:
    """Reads or simulates the items of a run; DataError if a row is invalid or the tasks of the two files differ."""
    warning = ""
    if args.dataset_name is None:
        population = Population(noise=args.population_noise).with_shares(args.persona_shares)
        simulated = simulate_items(args.n_train, population, n_votes=args.n_votes, seed=seed)
        test = simulate_items(args.n_test, population, n_votes=args.n_test_votes, seed=seed, held_out=True)
        verdicts = Population(personas=(GRADER,)).grades(simulated.traits).argmax(axis=1)
        train, held_out, source = simulated.items, test.items, "simulated annotators"
        votes = f" with {counted(args.n_votes, 'vote')} each", f" with {args.n_test_votes}"
    else:
        items, votes, source = load_items(args.dataset_name), ("", ""), args.dataset_name
        if args.eval_dataset_name:
            train, held_out = items, load_items(args.eval_dataset_name)
            warning = overlap_warning((item.texts for item in train), [item.texts for item in held_out], args, "items")
        else:
            column = "id" if any(item.topic is None for item in items.items) else "topic"
            sides = split_by(items.items, column, args.held_out_fraction, seed)
            train, held_out = (ItemSet(items.task, side) for side in sides)
        verdicts = _one_vote(train.shares, seed)
    if train.task != held_out.task:
        raise DataError(f"the tasks of {args.eval_dataset_name} and {args.dataset_name} differ; expected the same")
    if args.labels == "sparse":
        # of recorded items the vote that the warm start has learned; simulated ones have a grader there
        vote = _one_vote(train.shares, seed if args.dataset_name else seed + 1)
        counts = np.eye(len(train.task.labels))[vote]
        sparse = [replace(item, counts=tuple(row)) for item, row in zip(train.items, counts.tolist(), strict=True)]
        train = ItemSet(train.task, sparse)
    labels = ", ".join(train.task.labels)
    summary = (
        f"{source}: {len(train):,} training items{votes[0]}, {len(held_out):,} held-out items{votes[1]}; "
        f"labels {labels}"
    )
    return TrainingData(train, held_out, train, verdicts, summary, warning=warning)


def prepare_pair_items(args: AlignmentArguments, seed: int) -> tuple[TrainingData[list[Pair]], TrainingData[ItemSet]]:
    """The pairs of a run, and both orders of each as items."""
    data = prepare_data(args, seed)
    if warning := turns_as_text(data.train + data.held_out):
        logger.warning(warning)
    ties = any(pair.votes_tie for pair in data.train + data.held_out)
    train, held_out, warm_start = (pair_items(pairs, ties) for pairs in (data.train, data.held_out, data.warm_start))
    prefers_b = np.stack([data.verdicts, 1 - data.verdicts], axis=1).flatten() > 0.5
    verdicts = np.where(prefers_b, len(train.task.labels) - 1, 0)
    return data, TrainingData(train, held_out, warm_start, verdicts, data.summary, warning=data.warning)


def _one_vote(shares: np.ndarray, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed).random((len(shares), 1))
    return (shares.cumsum(axis=1) <= draws).sum(axis=1).clip(max=shares.shape[1] - 1)
