"""Training data and tests of a run.

    test         the held-out pairs of the dataset, from its own population or file
    shifted      the same texts with votes of another population (`persona_shares`, `population_noise`): p* differs
    objective    pairs with one correct answer, label 0 or 1 (`n_pairs`). Simulated: held-out pairs on which every kind
                 of annotator, with negligible noise, prefers the same response; independent of the population of the
                 training votes. Recorded votes: `autorater.data.objective`

Calibration pairs, on which recalibrations are fitted, are drawn separately: simulated ones from the subjects and the
population of the training pairs with one vote each, recorded ones from a separate file.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from autorater.data.errors import UserError
from autorater.data.loading import load_pairs
from autorater.data.objective import objective_pairs
from autorater.data.pairs import Pair
from autorater.data.population import Population, simulate_pairs
from autorater.training.arguments import JudgeArguments
from autorater.training.data import TrainingData, prepare_data

TEST = "test"
_FRESH = 10_000  # added to a seed: texts and votes used nowhere else in the study
_SURE = 0.01  # noise at which annotators of a kind always agree


@dataclass
class StudyArguments:
    """Settings of a run in addition to those of its trainer."""

    calibration_dataset_name: str | None = field(
        default=None, metadata={"help": "Recorded pairs that recalibrations are fitted on."}
    )
    n_calibration: int = field(default=400, metadata={"help": "Simulated calibration pairs, one vote each."})
    both_orders: bool = field(
        default=True, metadata={"help": "False: no swap augmentation, only the given order is used."}
    )
    curve_steps: int = field(default=0, metadata={"help": "Steps between evaluations during training; 0 for none."})
    n_curve_pairs: int = field(default=150, metadata={"help": "Held-out pairs of these evaluations."})
    zero_shot_template: str | None = field(
        default=None, metadata={"help": "Template of a pretrained model as it comes; default: prompt_template."}
    )
    n_bootstrap: int = field(default=500, metadata={"help": "Rounds of the bootstrap over pairs."})


def prepare_dataset(args: JudgeArguments, seed: int, more_tests: dict[str, dict]) -> tuple[TrainingData, dict]:
    """Training data, and all tests by name.

    Args:
        args: Settings of the data.
        seed: Seed of texts and votes.
        more_tests: Settings of the tests other than `test`, by name.

    Raises:
        UserError: If a test is unknown, or requires simulated annotators and the votes are recorded.
    """
    data = prepare_data(args, seed)
    tests = {TEST: data.held_out}
    makers = {"shifted": _shifted, "objective": _objective}
    for name, settings in more_tests.items():
        if name not in makers:
            raise UserError(f"unknown test {name!r}; known: {', '.join(makers)}")
        recorded = args.dataset_name is not None
        if recorded and name != "objective":
            raise UserError(
                f"test {name!r} requires simulated annotators, but {args.dataset_name} holds recorded votes"
            )
        tests[name] = objective_pairs(**settings) if recorded else makers[name](args, seed, **settings)
    return data, tests


def calibration_pairs(args: JudgeArguments, study: StudyArguments, seed: int) -> list[Pair]:
    """Pairs that recalibrations may be fitted on."""
    if args.dataset_name is None:
        return simulate_pairs(study.n_calibration, population(args), seed=seed + _FRESH).pairs
    if study.calibration_dataset_name is None:
        raise UserError("recorded votes require a calibration_dataset_name to fit recalibrations")
    return load_pairs(study.calibration_dataset_name)


def population(args: JudgeArguments) -> Population:
    """The annotators of a simulated dataset."""
    everyone = Population(noise=args.population_noise, position_bias=args.annotator_position_bias)
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
        raise UserError(f"objective: only {len(agreed)} of {len(drawn.pairs)} pairs have one correct answer")
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
