"""Slope and shift of a run (`recalibration: platt`): how they are best fitted, and whether they ever do harm.

    python benchmarks/position_shift.py          # 100 simulated sets of pairs in every row

The judge's logit is people's logit with noise, times a factor, plus a position bias that differs between pairs
(`JUDGES`). The maps are fitted to some pairs and measured on 30,000 others:

    none          no map
    temperature   what a run fits by default
    run           what a run fits with `recalibration: platt`: the slope by odd parts, with a prior, then the shift by
                  single answers to both orders, on which votes have no influence
    mean_logit    its slope; the shift is minus the mean of both logits times the slope, which needs no votes either
    votes         its slope; the shift is fitted to the votes and the answers to one order a pair, drawn at random
    joint         slope and shift together, without a prior, as `evaluate.py --save_recalibration platt` fits them

`log_loss`: of single answers relative to people's probabilities, in excess of the best slope and shift for all pairs,
times 1,000. `brier`: the same of the squared error. `bias`: the mean of |p_ab + p_ba − 1|, `best_bias` with that map.
"""

import argparse
import logging
from dataclasses import replace

import numpy as np
from harness.measure import emit, say
from scipy.optimize import brentq
from scipy.special import expit, logit

from autorater.data.pairs import Pair
from autorater.judges import Judgments
from autorater.judges.calibrators import LogitMap, fit_recalibration
from autorater.metrics.scores import LOG_CLIP
from autorater.training.recalibration import fit_platt, fit_temperature

JUDGES = {  # sharpness, mean and standard deviation of the bias
    "slight": (1.0, 0.12, 0.12),  # that of the taught judge of convincing with seed 1: +0.05, absolute 0.06
    "unbiased": (0.8, 0.0, 0.12),  # the best slope is 1: nothing to gain
    "varying": (0.8, 0.0, 0.4),  # the same, and the bias has no common part
    "overconfident": (2.0, 0.4, 0.3),
    "fading": (1.0, 0.4, 0.3),  # the bias fades where the judge is sure
    "biased": (0.2, 0.4, 0.2),  # says little about the responses: a temperature is limited by the bias
}
SIZES = {"100": (100, 1), "400": (400, 1), "765": (765, 1), "119 x 4": (119, 4)}  # pairs, votes each
_TEST_PAIRS = 30_000


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_judges", type=int, default=100, help="Simulated sets of pairs in every row.")
    parser.add_argument("--judges", choices=tuple(JUDGES), nargs="+", default=list(JUDGES))
    parser.add_argument("--sizes", choices=tuple(SIZES), nargs="+", default=list(SIZES))
    return parser.parse_args(argv)


def simulate(generator: np.random.Generator, n: int, judge: str) -> tuple[np.ndarray, Judgments]:
    """People's probabilities, shape (N,), and the judge's answers."""
    sharpness, shift, spread = JUDGES[judge]
    merit = generator.normal(0, 1.2, n)
    seen = sharpness * (merit + generator.normal(0, 0.5, n))
    bias = generator.normal(shift, spread, n) * (np.exp(-(seen**2) / 2) if judge == "fading" else 1)
    mean = expit(np.stack([seen + bias, bias - seen], axis=1))
    return expit(merit), Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


def maps(judgments: Judgments, votes: np.ndarray, n_votes: int, generator: np.random.Generator) -> dict[str, LogitMap]:
    """Every map, fitted to `votes` for B of `n_votes`, shape (N,)."""
    labels = votes / n_votes
    pairs = [Pair(f"{i}", "q", "a", "b", label, n_votes=n_votes) for i, label in enumerate(labels)]
    run = fit_platt(judgments, pairs, labels="dense")
    logits = logit(judgments.mean.clip(LOG_CLIP, 1 - LOG_CLIP))
    order = generator.integers(0, 2, len(pairs))
    shown = run.slope * logits[np.arange(len(pairs)), order]
    share = np.where(order == 0, labels, 1 - labels).mean()  # for the response shown second

    def with_shift(shift: float) -> LogitMap:
        return replace(run, intercept=float(shift))

    return {
        "none": LogitMap("platt"),
        "temperature": fit_temperature(judgments, pairs, labels="dense") or LogitMap("platt"),
        "run": run,
        "mean_logit": with_shift(-run.slope * logits.mean()),
        "votes": with_shift(brentq(lambda shift: expit(shown + shift).mean() - share, -100, 100)),
        "joint": fit_recalibration("platt", judgments.p_ab, judgments.p_ba, labels),
    }


def measured(fitted: LogitMap, people: np.ndarray, judgments: Judgments) -> np.ndarray:
    """Log loss and squared error of single answers, both times 1,000, and the absolute position bias."""
    mapped, targets = fitted(judgments.mean), np.stack([people, 1 - people], axis=1)
    log_loss = -(targets * np.log(mapped) + (1 - targets) * np.log1p(-mapped)).mean()
    return np.array([1e3 * log_loss, 1e3 * ((mapped - targets) ** 2).mean(), np.abs(mapped.sum(axis=1) - 1).mean()])


def row(judge: str, size: str, n_judges: int) -> dict[str, object]:
    (n_pairs, n_votes), results = SIZES[size], {}
    people, answers = simulate(np.random.default_rng(0), _TEST_PAIRS, judge)
    best = fit_recalibration("platt", answers.p_ab, answers.p_ba, people)
    least = measured(best, people, answers)
    for seed in range(1, n_judges + 1):
        generator = np.random.default_rng(seed)
        truth, judgments = simulate(generator, n_pairs, judge)
        votes = generator.binomial(n_votes, truth)
        for name, fitted in maps(judgments, votes, n_votes, generator).items():
            results.setdefault(name, []).append(measured(fitted, people, answers) - least * [1, 1, 0])
    columns = ("log_loss", "brier", "bias")
    found = {name: dict(zip(columns, np.mean(rows, axis=0), strict=True)) for name, rows in results.items()}
    return {"benchmark": "position_shift", "judge": judge, "size": size, "n_judges": n_judges,
            "best_slope": best.slope, "best_shift": best.intercept, "best_bias": least[2], **found}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    for judge in args.judges:
        for size in args.sizes:
            say(f"{judge}, {size} votes")
            emit(row(judge, size, args.n_judges))


if __name__ == "__main__":
    logging.getLogger("autorater").setLevel(logging.ERROR)  # it warns of a temperature that is not saved
    main()
