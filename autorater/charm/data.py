"""The data of a CHARM run: responses, Elo and held-out votes, read or simulated.

The prompts are divided first: held-out prompts are used neither for training nor for the calibration nor to fit Elo.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autorater.charm.arena import Arena
from autorater.charm.elo import Rating, fit_elo, load_elo
from autorater.charm.responses import Response, load_responses, responses_of
from autorater.data.errors import DataError
from autorater.data.loading import load_pairs
from autorater.data.pairs import Pair, turns_as_text
from autorater.metrics.systems import check_rated

if TYPE_CHECKING:
    from autorater.charm.arguments import CharmArguments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CharmData:
    """The data; held-out prompts are in no other part.

    Attributes:
        pairs: Votes to train a reward model from scratch on; may be empty.
        responses, held_out: Responses to calibrate on and to evaluate on.
        held_out_pairs: Votes for the accuracy; may be empty.
        ratings: Elo by model, of every model that wrote a response.
    """

    pairs: list[Pair]
    responses: list[Response]
    held_out: list[Response]
    held_out_pairs: list[Pair]
    ratings: dict[str, Rating]

    @property
    def elo(self) -> dict[str, float]:
        """Elo by model."""
        return {model: rating.elo for model, rating in self.ratings.items()}

    @property
    def summary(self) -> str:
        """The data in one line."""
        prompts = [len({response.prompt for response in part}) for part in (self.responses, self.held_out)]
        both = self.responses + self.held_out
        models = len({response.model for response in both})
        further = len(both) - len({(response.prompt, response.model) for response in both})
        return (
            f"{models} models; {prompts[0]:,} prompts to calibrate on, {prompts[1]:,} held out; "
            f"{len(self.held_out_pairs):,} held-out pairs with votes"
        ) + (f"; of a model's responses to one prompt the first is compared, {further:,} are not" if further else "")


def prepare_charm(args: CharmArguments, seed: int) -> CharmData:
    """Reads or simulates the data of a run; `seed` draws the split and the simulated texts.

    Raises:
        DataError: If a row is invalid, a model has no Elo, or no finite Elo fits the votes.
    """
    data = _simulated(args, seed) if args.simulated else _recorded(args, seed)
    named = {args.overvalued, args.reference} - {None}
    try:
        check_rated(data.ratings, named | {response.model for response in data.responses + data.held_out})
    except ValueError as error:
        raise DataError(str(error)) from error
    return data


def _recorded(args: CharmArguments, seed: int) -> CharmData:
    pairs: list[Pair] = []
    if args.dataset_name:
        found = load_pairs(args.dataset_name, allow_odd_responses=args.allow_odd_responses)
        pairs = [pair.in_plain_text() for pair in found]  # a reward model reads texts
        if warning := turns_as_text(found):
            logger.warning(f"{args.dataset_name}: {warning}")
    responses = load_responses(args.responses_name) if args.responses_name else responses_of(pairs)
    held_out = load_responses(args.eval_responses_name) if args.eval_responses_name else responses
    held_out_prompts = _held_out_prompts(args, pairs, responses, held_out, seed)
    train = [pair for pair in pairs if pair.prompt not in held_out_prompts]
    return CharmData(
        pairs=train,
        responses=[response for response in responses if response.prompt not in held_out_prompts],
        held_out=[response for response in held_out if response.prompt in held_out_prompts],
        held_out_pairs=[pair for pair in pairs if pair.prompt in held_out_prompts],
        ratings=load_elo(args.elo_table) if args.elo_table else fit_elo(train),
    )


def _simulated(args: CharmArguments, seed: int) -> CharmData:
    arena = Arena()
    return CharmData(
        pairs=arena.pairs(args.n_pairs, biased=True, seed=seed),
        responses=arena.responses(args.n_prompts, seed=seed),
        held_out=arena.responses(args.n_test_prompts, seed=seed, held_out=True),
        held_out_pairs=arena.pairs(args.n_test_pairs, n_votes=5, seed=seed, held_out=True),
        ratings=arena.elo(),
    )


def _held_out_prompts(
    args: CharmArguments, pairs: list[Pair], responses: list[Response], held_out: list[Response], seed: int
) -> set[str]:
    """The prompts of `eval_responses_name`, and a share of the prompts that no file assigns to either part."""
    calibration, of_pairs = {response.prompt for response in responses}, {pair.prompt for pair in pairs}
    assigned = {response.prompt for response in held_out} if args.eval_responses_name else set()
    free = of_pairs - assigned - calibration if args.eval_responses_name else of_pairs | calibration
    shuffled = np.random.default_rng(seed).permutation(sorted(free))
    return assigned | set(shuffled[: round(args.held_out_fraction * len(shuffled))].tolist())
