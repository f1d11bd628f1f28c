"""The items of an alignment run: read from a file or simulated, with one verdict each for the warm start."""

import json
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from autorater.data.formats import load_items
from autorater.data.items import ItemSet, pair_items
from autorater.data.pairs import split_by
from autorater.data.population import GRADER, Population, simulate_items
from autorater.training.config import DenseArguments
from autorater.training.data import TrainingData, prepare_data


@dataclass
class AlignmentArguments(DenseArguments):
    """The same for judges that are asked for labels (`recipes/align.py`)."""

    data: Literal["items", "pairs"] = field(
        default="items",
        metadata={
            "help": "`items`: texts with counts of K labels, see `autorater.data.formats`; `pairs`: A, tie or B, in "
            "both orders."
        },
    )
    synonyms: dict | str | None = field(
        default=None, metadata={"help": "More words for a label, as a mapping of labels to lists of words."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.data == "items" and self.warm_start_verdicts != "opinions":
            raise ValueError("warm_start_verdicts: lengths is for data: pairs")
        if isinstance(self.synonyms, str):
            self.synonyms = json.loads(self.synonyms)
        for label, words in (self.synonyms or {}).items():
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise ValueError(f"synonyms of {label!r} must be a list of words, got {words!r}")


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
