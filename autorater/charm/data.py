"""The data of a CHARM run: responses, Elo and held-out votes, read or simulated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from autorater.charm.arena import Arena
from autorater.charm.elo import Rating, elo_scores, fit_elo, load_elo
from autorater.charm.responses import Response, load_responses, responses_of
from autorater.data.loading import load_pairs
from autorater.data.pairs import Pair
from autorater.metrics.systems import check_rated
from autorater.training.config import check_choices

Stage = Literal["all", "score", "diagnose", "train", "evaluate"]


@dataclass
class CharmArguments:
    """Data, Elo and models of a CHARM run (`recipes/charm.py`)."""

    stage: Stage = field(
        default="all",
        metadata={"help": "`all`, or one of `score`, `diagnose`, `train`, `evaluate`; what they need is done first."},
    )
    responses_name: str | None = field(
        default=None,
        metadata={"help": "Responses to calibrate on: .jsonl with prompt, model, response and, where known, score."},
    )
    eval_responses_name: str | None = field(
        default=None, metadata={"help": "Responses to measure on. Without it a share of the prompts is held out."}
    )
    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Pairs with votes, model_a and model_b: for the accuracy on held-out ones, for Elo where no table "
            "is given, for responses where no file is given, to learn from where no reward model is named."
        },
    )
    elo_table: str | None = field(
        default=None, metadata={"help": "Elo by model: .csv or .json. Without it Elo is fitted from the votes."}
    )
    allow_odd_responses: bool = field(
        default=False, metadata={"help": "Keep blank responses, and JSON true or numbers as text; they are counted."}
    )
    held_out_fraction: float = field(default=0.3, metadata={"help": "Share of the prompts to measure on."})
    overvalued: str | None = field(
        default=None, metadata={"help": "The model to calibrate; by default the one that is over-valued the most."}
    )
    reference: str | None = field(
        default=None, metadata={"help": "The model to calibrate it against; by default the best judged one."}
    )
    score_batch_size: int = field(default=32, metadata={"help": "Responses scored at once."})

    n_pairs: int = field(default=6000, metadata={"help": "Simulated arena: pairs that the reward model learns from."})
    n_prompts: int = field(default=1400, metadata={"help": "Simulated arena: prompts to calibrate on."})
    n_test_prompts: int = field(default=300, metadata={"help": "Simulated arena: prompts to measure on."})
    n_test_pairs: int = field(default=2000, metadata={"help": "Simulated arena: held-out pairs for the accuracy."})
    annotator_bias: float = field(
        default=1.5, metadata={"help": "Simulated arena: logits for one house's style in what it learns from."}
    )

    base_epochs: float = field(default=2, metadata={"help": "Epochs of a reward model from scratch."})
    base_batch_size: int = field(default=16, metadata={"help": "Preferences a step of its training, on a device."})
    base_learning_rate: float = field(default=2e-3, metadata={"help": "Its learning rate."})
    base_hidden_size: int = field(default=64, metadata={"help": "Its width."})
    base_num_layers: int = field(default=2, metadata={"help": "Its layers."})

    def __post_init__(self):
        check_choices(self)
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(f"held_out_fraction is {self.held_out_fraction}; a number between 0 and 1 is wanted")
        if self.responses_name and not (self.elo_table or self.dataset_name):
            raise ValueError("responses_name needs an elo_table, or a dataset_name with votes to fit Elo from")
        if self.eval_responses_name and not self.responses_name:
            raise ValueError("eval_responses_name needs responses_name")
        if self.elo_table and not (self.responses_name or self.dataset_name):
            raise ValueError("elo_table needs responses_name or dataset_name; the simulated arena knows its Elo")


@dataclass(frozen=True)
class CharmData:
    """What a run works on; the prompts of the held-out part are in no other part.

    Attributes:
        pairs: Votes that a reward model from scratch learns from; may be empty.
        responses: To calibrate on.
        held_out: Responses to measure on.
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
        return elo_scores(self.ratings)

    @property
    def summary(self) -> str:
        """What it is, in a line."""
        prompts = [len({response.prompt for response in some}) for some in (self.responses, self.held_out)]
        models = len({response.model for response in self.responses + self.held_out})
        return (
            f"{models} models; {prompts[0]:,} prompts to calibrate on, {prompts[1]:,} held out; "
            f"{len(self.held_out_pairs):,} held-out pairs with votes"
        )


def prepare_charm(args: CharmArguments, seed: int) -> CharmData:
    """Reads or simulates the data of a run.

    Args:
        args: Where it comes from.
        seed: Draws the split and the simulated texts.

    Raises:
        DataError: If a row is bad.
        ValueError: If a model has no Elo, or no finite Elo fits the votes.
    """
    data = _recorded(args, seed) if args.responses_name or args.dataset_name else _simulated(args, seed)
    named = {args.overvalued, args.reference} - {None}
    check_rated(data.ratings, named | {response.model for response in data.responses + data.held_out})
    return data


def _recorded(args: CharmArguments, seed: int) -> CharmData:
    pairs = load_pairs(args.dataset_name, allow_odd_responses=args.allow_odd_responses) if args.dataset_name else []
    responses = load_responses(args.responses_name) if args.responses_name else responses_of(pairs)
    held_out = load_responses(args.eval_responses_name) if args.eval_responses_name else responses
    held_prompts = _held_out_prompts(args, pairs, responses, held_out, seed)
    train = [pair for pair in pairs if pair.prompt not in held_prompts]
    return CharmData(
        pairs=train,
        responses=[response for response in responses if response.prompt not in held_prompts],
        held_out=[response for response in held_out if response.prompt in held_prompts],
        held_out_pairs=[pair for pair in pairs if pair.prompt in held_prompts],
        ratings=load_elo(args.elo_table) if args.elo_table else fit_elo(train),
    )


def _simulated(args: CharmArguments, seed: int) -> CharmData:
    arena = Arena(bias=args.annotator_bias)
    return CharmData(
        pairs=arena.pairs(args.n_pairs, by_annotator=True, seed=seed),
        responses=arena.responses(args.n_prompts, seed=seed),
        held_out=arena.responses(args.n_test_prompts, seed=seed, held_out=True),
        held_out_pairs=arena.pairs(args.n_test_pairs, n_votes=5, seed=seed, held_out=True),
        ratings=arena.elo(),
    )


def _held_out_prompts(
    args: CharmArguments, pairs: list[Pair], responses: list[Response], held_out: list[Response], seed: int
) -> set[str]:
    """Prompts to measure on: those of the responses given for it, and a share of those that are given for nothing."""
    fixed = {response.prompt for response in held_out} if args.eval_responses_name else set()
    calibration = {response.prompt for response in responses}
    free = {pair.prompt for pair in pairs} | (set() if args.eval_responses_name else calibration)
    shuffled = np.random.default_rng(seed).permutation(sorted(free - fixed - (calibration if fixed else set())))
    return fixed | set(shuffled[: round(args.held_out_fraction * len(shuffled))].tolist())
