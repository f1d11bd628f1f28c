"""CHARM's offset: a bracketed root against gradient descent, on the same scores.

    python benchmarks/charm_offset.py
    python benchmarks/charm_offset.py --n_instructions 1000000 --repeats 3

    ours       `autorater.charm.fit_offset`
    descent    the paper's pseudo-code (arXiv 2504.10045, algorithm 1) in torch: Adam on (mean σ(s_O + Δ − s_R) − P)²
               from Δ = 0, a fixed number of epochs

The paper gives neither the number of epochs nor the learning rate. The descent uses the given learning rate with the
fewest epochs to `--tolerance`, and stops there, which requires knowing the root. `descent_converged_seconds` uses a
stopping rule: Δ changes by less than a tenth of the tolerance over 20 epochs.
"""

import argparse

import numpy as np
import torch
from harness.measure import alternate, emit, machine, ratio, say, timed

from autorater.charm import empirical_win_rate, expected_win_rate, fit_offset

_WINDOW = 20  # epochs


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_instructions", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=11, help="Rounds that count, per side.")
    parser.add_argument("--learning_rates", type=float, nargs="+", default=[0.01, 0.03, 0.1, 0.3])
    parser.add_argument("--max_epochs", type=int, default=5_000)
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("--elo", type=float, nargs=2, default=[1216, 1273], help="Of the over-valued, the reference.")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def descend(differences: torch.Tensor, expected: float, learning_rate: float, stop) -> tuple[float, int]:
    """Δ and the epochs it took; `stop(offsets)` sees the offsets so far."""
    offset = torch.zeros((), dtype=differences.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([offset], lr=learning_rate)
    offsets: list[float] = []
    while not stop(offsets):
        optimizer.zero_grad()
        ((torch.sigmoid(differences + offset).mean() - expected) ** 2).backward()
        optimizer.step()
        offsets.append(offset.item())
    return offsets[-1], len(offsets)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    rng = np.random.default_rng(args.seed)
    over, reference = rng.normal(2.0, 3.0, args.n_instructions), rng.normal(0.0, 3.0, args.n_instructions)
    expected = expected_win_rate(*args.elo)
    root = fit_offset(over, reference, expected)
    differences = torch.tensor(over - reference)

    def near_root(offsets: list[float]) -> bool:
        """Within the tolerance for a window of epochs, so that crossing the root does not count."""
        recent = offsets[-_WINDOW:]
        arrived = len(recent) == _WINDOW and max(abs(offset - root) for offset in recent) <= args.tolerance
        return arrived or len(offsets) >= args.max_epochs

    def at_rest(offsets: list[float]) -> bool:
        still = len(offsets) > _WINDOW and np.ptp(offsets[-_WINDOW:]) < args.tolerance / 10
        return still or len(offsets) >= args.max_epochs

    epochs = {}
    for learning_rate in args.learning_rates:
        found, epochs[learning_rate] = descend(differences, expected, learning_rate, near_root)
        say(f"  learning rate {learning_rate:g}: {epochs[learning_rate]} epochs, off by {abs(found - root):.1e}")
    best = min(epochs, key=epochs.get)
    n_epochs = max(1, epochs[best] - _WINDOW + 1)  # arrived at the first epoch of the window
    offset, _ = descend(differences, expected, best, lambda offsets: len(offsets) == n_epochs)
    rested, rest_epochs = descend(differences, expected, best, at_rest)
    seconds = alternate(
        {
            "ours": timed(lambda: fit_offset(over, reference, expected), "cpu"),
            "descent": timed(lambda: descend(differences, expected, best, lambda o: len(o) == n_epochs), "cpu"),
            "descent_converged": timed(lambda: descend(differences, expected, best, at_rest), "cpu"),
        },
        args.repeats,
    )
    emit(
        {
            "benchmark": "charm_offset",
            "n_instructions": args.n_instructions,
            "expected": expected,
            "offset": root,
            "win_rate_error": abs(empirical_win_rate(over, reference, root) - expected),
            "descent_learning_rate": best,
            "descent_epochs": n_epochs,
            "descent_difference": abs(offset - root),
            "descent_converged_epochs": rest_epochs,
            "descent_converged_difference": abs(rested - root),
            "ours_seconds": seconds["ours"],
            "descent_seconds": seconds["descent"],
            "descent_converged_seconds": seconds["descent_converged"],
            "ratio": ratio(seconds["descent"], seconds["ours"]),
            "ratio_converged": ratio(seconds["descent_converged"], seconds["ours"]),
            **machine("cpu", differences.dtype),
        }
    )


if __name__ == "__main__":
    main()
