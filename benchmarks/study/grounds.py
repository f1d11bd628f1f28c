"""What a cell learns from and is measured on.

    test         the held-out pairs of the ground, from its own population; of recorded votes the file of them
    shifted      the same texts judged by another population (`persona_shares`, `population_noise`): p* has changed
    objective    held-out pairs on which every kind of annotator, sure of itself, prefers the same response: one right
                 answer, the label 0 or 1 (`n_pairs`); p* of the population that trained the judge is not asked

Calibration pairs, on which recalibrations are fitted, are drawn apart from all of these: simulated ones from the
subjects and the population of the training pairs with one vote each, recorded ones from a file of their own.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from autorater.data.loading import load_pairs
from autorater.data.pairs import Pair
from autorater.data.population import Population, simulate_pairs
from autorater.training.config import JudgeArguments
from autorater.training.data import TrainingData, prepare_data

TEST = "test"
_FRESH = 10_000  # added to a seed: texts and votes that nothing else in the study has seen
_SURE = 0.01  # noise at which every kind of annotator is sure of itself


@dataclass
class StudyArguments:
    """What a cell can be told besides its trainer's settings."""

    calibration_dataset_name: str | None = field(
        default=None, metadata={"help": "Recorded pairs that recalibrations are fitted on."}
    )
    n_calibration: int = field(
        default=400, metadata={"help": "Simulated pairs that they are fitted on, one vote each."}
    )
    both_orders: bool = field(
        default=True, metadata={"help": "False: without swap augmentation, every pair is learned as it is given."}
    )
    curve_steps: int = field(default=0, metadata={"help": "Steps between measurements while training; 0 for none."})
    n_curve_pairs: int = field(default=150, metadata={"help": "Held-out pairs that are measured on while training."})
    n_bootstrap: int = field(default=500, metadata={"help": "Rounds of the bootstrap over pairs."})


def prepare_ground(args: JudgeArguments, seed: int, more_tests: dict[str, dict]) -> tuple[TrainingData, dict]:
    """Training data, and all tests by name.

    Args:
        args: The data.
        seed: Draws texts and votes.
        more_tests: What the tests other than `test` are told.

    Raises:
        ValueError: If a test is unknown, or needs simulated annotators and the votes are recorded.
    """
    data = prepare_data(args, seed)
    tests = {TEST: data.held_out}
    makers = {"shifted": _shifted, "objective": _objective}
    for name, told in more_tests.items():
        if name not in makers:
            raise ValueError(f"unknown test {name!r}; known: {', '.join(makers)}")
        if args.dataset_name is not None:
            raise ValueError(f"test {name!r} needs simulated annotators, and {args.dataset_name} holds recorded votes")
        tests[name] = makers[name](args, seed, **told)
    return data, tests


def calibration_pairs(args: JudgeArguments, study: StudyArguments, seed: int) -> list[Pair]:
    """Pairs that recalibrations may be fitted on."""
    if args.dataset_name is None:
        return simulate_pairs(study.n_calibration, population(args), seed=seed + _FRESH).pairs
    if study.calibration_dataset_name is None:
        raise ValueError("recorded votes need a calibration_dataset_name to fit recalibrations on")
    return load_pairs(study.calibration_dataset_name)


def population(args: JudgeArguments) -> Population:
    """Who votes on a simulated ground."""
    everyone = Population(noise=args.population_noise, slot_bias=args.annotator_slot_bias)
    return everyone.with_shares(args.persona_shares)


def _shifted(
    args: JudgeArguments,
    seed: int,
    persona_shares: list[float] | None = None,
    population_noise: float | None = None,
) -> list[Pair]:
    texts = simulate_pairs(args.n_test, population(args), n_votes=args.n_test_votes, seed=seed, held_out=True)
    others = population(args).with_shares(persona_shares)
    others = replace(others, noise=population_noise or others.noise)
    truth = others.preference(texts.traits_a, texts.traits_b)
    votes = np.random.default_rng([seed, _FRESH]).binomial(args.n_test_votes, truth)
    return [
        _voted(pair, float(p), int(votes_b), args.n_test_votes)
        for pair, p, votes_b in zip(texts.pairs, truth, votes, strict=True)
    ]


def _objective(args: JudgeArguments, seed: int, n_pairs: int = 300) -> list[Pair]:
    sure = Population(noise=_SURE)
    drawn = simulate_pairs(20 * n_pairs, sure, seed=seed + _FRESH, held_out=True)
    agreed = [p for p in drawn.pairs if min(p.true_probability, 1 - p.true_probability) < 1e-6][:n_pairs]
    if len(agreed) < n_pairs:
        raise ValueError(f"objective: only {len(agreed)} of {len(drawn.pairs)} pairs have one right answer")
    return [_voted(pair, right := round(pair.true_probability), right, 1) for pair in agreed]


def _voted(pair: Pair, truth: float, votes_b: int, n_votes: int) -> Pair:
    return replace(
        pair,
        true_probability=truth,
        label=votes_b / n_votes,
        n_votes=n_votes,
        votes_a=n_votes - votes_b,
        votes_b=votes_b,
        votes_tie=0,
    )
