"""Deferral: is the promise kept, and how many pairs are left to people?

    python benchmarks/deferral.py
    python benchmarks/deferral.py --n_pairs 500 --n_votes 3 --n_splits 1000

Every split draws pairs with votes, takes the threshold of `deferral_threshold`, and measures the disagreement with the
majority on 400,000 fresh pairs with as many votes. `kept`: share of splits in which it is at most alpha (a refusal
keeps it). `to_people`: mean share of the pairs that people have to judge; a refusal leaves all of them. `refused`:
share of refusals. `best`: share left to people by the lowest threshold of risk alpha, which nobody knows.

The calibrated judge states p*. The raw judge triples the log odds, adds 1.5 for the second response and noise of
standard deviation 1, and answers in steps of 0.1.
"""

import argparse

import numpy as np
from harness.measure import emit
from scipy.special import expit

from autorater.metrics import deferral_threshold
from autorater.metrics.deferral import risk_curve

JUDGES = ("calibrated", "raw")
_FRESH_PAIRS = 400_000


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_pairs", type=int, nargs="+", default=[500, 2_000], help="Pairs with votes in a split.")
    parser.add_argument("--n_votes", type=int, nargs="+", default=[3, 5], help="Votes per pair.")
    parser.add_argument("--n_splits", type=int, default=1_000)
    parser.add_argument("--alpha", type=float, default=0.1)
    parser.add_argument("--delta", type=float, default=0.05)
    return parser.parse_args(argv)


def simulate(judge: str, n_pairs: int, n_votes: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Answers, votes for A and votes for B."""
    log_odds = 1.8 * generator.normal(size=n_pairs)
    votes_b = generator.binomial(n_votes, expit(log_odds))
    answers = expit(log_odds)
    if judge == "raw":
        answers = expit(3 * log_odds + 1.5 + generator.normal(size=n_pairs)).round(1)
    return answers, n_votes - votes_b, votes_b


def simulated_splits(
    judge: str, n_pairs: int, n_votes: int, n_splits: int, alpha: float = 0.1, delta: float = 0.05
) -> dict[str, object]:
    """Whether the promise is kept, and the share left to people."""
    generator = np.random.default_rng(n_pairs)
    fresh = simulate(judge, _FRESH_PAIRS, n_votes, generator)
    shares, risks = risk_curve(*fresh)
    margins = np.sort(np.abs(fresh[0] - 0.5))[::-1]
    risks_and_shares = []
    for _ in range(n_splits):
        threshold = deferral_threshold(*simulate(judge, n_pairs, n_votes, generator), alpha=alpha, delta=delta)
        share = 0.0 if threshold is None else np.searchsorted(-margins, 1e-9 - threshold, "right") / margins.size
        at = np.searchsorted(shares, share - 1e-12)
        risks_and_shares.append((risks[at] if share else 0.0, share))
    risk, share = np.array(risks_and_shares).T
    return {
        "judge": judge, "n_pairs": n_pairs, "n_votes": n_votes, "n_splits": n_splits, "alpha": alpha, "delta": delta,
        "kept": float((risk <= alpha).mean()),
        "to_people": float(1 - share.mean()),
        "refused": float((share == 0).mean()),
        "best": float(1 - shares[risks <= alpha].max(initial=0.0)),
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    for n_votes in args.n_votes:
        for n_pairs in args.n_pairs:
            for judge in JUDGES:
                record = simulated_splits(judge, n_pairs, n_votes, args.n_splits, args.alpha, args.delta)
                emit({"benchmark": "deferral", **record})


if __name__ == "__main__":
    main()
