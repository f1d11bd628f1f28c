"""The metric report of a judge with bootstrap intervals, against a loop over resamples.

    python benchmarks/metric_report.py
    python benchmarks/metric_report.py --n_pairs 100000 --plain_rounds 1000      # nothing extrapolated
    python benchmarks/metric_report.py --topics 500                              # whole topics are resampled

    ours         `judge_metrics`: every metric, noise floors, and the intervals of fourteen metrics
    plain        the same fourteen intervals only: the scores of every pair are computed once; then each
                 round draws pairs, gathers their scores and takes means
    recomputed   the usual implementation: each round draws pairs and calls the metrics on them

Both loops use NumPy within a round. All rounds cost the same, so by default `--plain_rounds` are run and the time of
`--n_bootstrap` is extrapolated, as the record states. Only our side resamples whole topics; the loops resample pairs,
which is cheaper.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from harness.measure import alternate, emit, in_fresh_process, machine, peak_growth, ratio, say, timed

from autorater.metrics import Targets, judge_metrics

EPSILON = 1e-3
TIE_BAND = 0.05
Table = dict[str, np.ndarray]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_pairs", type=int, default=1_000_000, help="Each is judged in two orders.")
    parser.add_argument("--n_bootstrap", type=int, default=1000)
    parser.add_argument("--plain_rounds", type=int, default=10, help="Rounds of the loops that are run and timed.")
    parser.add_argument("--topics", type=int, default=0, help="Clusters that are resampled whole; 0 for none.")
    parser.add_argument("--repeats", type=int, default=3, help="Rounds of measurement that count, per side.")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(argv)


def judged_pairs(n_pairs: int, topics: int) -> Table:
    """Answers of an overconfident judge that favours the second response; almost all distinct."""
    generator = np.random.default_rng(0)
    truth = generator.beta(0.8, 0.8, n_pairs)
    noise = 0.1 * generator.normal(size=(2, n_pairs))
    table = {
        "p_ab": (0.55 + 1.2 * (truth - 0.5) + noise[0]).clip(0, 1),
        "p_ba": (0.55 - 1.2 * (truth - 0.5) + noise[1]).clip(0, 1),
        "labels": (generator.random(n_pairs) < truth) * 1.0,
        "true_probability": truth,
    }
    return table | ({"clusters": generator.integers(topics, size=n_pairs)} if topics else {})


def scores(p_ab: np.ndarray, p_ba: np.ndarray, labels: np.ndarray, true_probability: np.ndarray) -> Table:
    """Scores averaged by both loops: one per pair, or one per answer of a pair, per row."""
    p = np.stack([p_ab, p_ba])
    y, truth = np.stack([labels, 1 - labels]), np.stack([true_probability, 1 - true_probability])
    clipped = p.clip(EPSILON, 1 - EPSILON)
    side, majority = np.sign(p - 0.5), np.sign(y - 0.5)
    judged, voted = (np.where(np.abs(v - 0.5) <= TIE_BAND, 0, np.sign(v - 0.5)) for v in (p, y))
    deviation = p_ab + p_ba - 1
    consistent = (side[0] == -side[1]) * 1.0
    return {
        "brier": (y * (1 - p) ** 2 + (1 - y) * p**2).mean(axis=0),
        "log_loss": -(y * np.log(clipped) + (1 - y) * np.log(1 - clipped)).mean(axis=0),
        "mse_dense": ((p - y) ** 2).mean(axis=0),
        "excess_brier": ((p - truth) ** 2).mean(axis=0),
        "gap": (side * (p - y)).mean(axis=0),
        "agreement": ((1 + side * majority) / 2 * (majority != 0)).mean(axis=0),
        "counted": (majority != 0).mean(axis=0),
        "agreement_three_way": (judged == voted).mean(axis=0),
        "consistency": consistent,
        "flip_rate": 1 - consistent,
        "first_slot_share": (side < 0).mean(axis=0),
        "decided": (side != 0).mean(axis=0),
        "symmetry_deviation_mean": deviation,
        "symmetry_deviation_abs": np.abs(deviation),
        "parse_rate": np.ones(p_ab.size),
        "residual_ab": y[0] - p[0],
        "residual_ba": y[1] - p[1],
        "bin_ab": np.maximum(np.ceil(p[0] * 10) - 1, 0).astype(np.int64),
        "bin_ba": np.maximum(np.ceil(p[1] * 10) - 1, 0).astype(np.int64),
    }


def values(table: Table) -> dict[str, float]:
    """The fourteen metrics of one resample."""
    gaps = sum(np.bincount(table[f"bin_{order}"], table[f"residual_{order}"], 10) for order in ("ab", "ba"))
    means = {name: column.mean() for name, column in table.items() if not name.startswith(("bin", "residual"))}
    means["ece"] = np.abs(gaps).sum() / (2 * table["brier"].size)
    means["agreement"] /= means.pop("counted")
    means["first_slot_share"] /= means.pop("decided")
    return means


def loop(resample: Callable[[np.ndarray], dict[str, float]], n_pairs: int, n_rounds: int) -> dict[str, float]:
    """Percentile intervals, round by round."""
    generator = np.random.default_rng(0)
    rounds = [resample(generator.integers(n_pairs, size=n_pairs)) for _ in range(n_rounds)]
    ends = {}
    for name in rounds[0]:
        low, high = np.quantile([found[name] for found in rounds], [0.025, 0.975])
        ends |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return ends


def ours(pairs: Table, n_rounds: int) -> dict[str, float]:
    targets = Targets(pairs["labels"], true_probability=pairs["true_probability"], clusters=pairs.get("clusters"))
    return judge_metrics(np.stack([pairs["p_ab"], pairs["p_ba"]], axis=1), targets, n_bootstrap=n_rounds)


def plain(pairs: Table, n_rounds: int) -> dict[str, float]:
    table = scores(**{name: column for name, column in pairs.items() if name != "clusters"})
    n_pairs = pairs["p_ab"].size
    return loop(lambda draw: values({name: column[draw] for name, column in table.items()}), n_pairs, n_rounds)


def recomputed(pairs: Table, n_rounds: int) -> dict[str, float]:
    columns = {name: column for name, column in pairs.items() if name != "clusters"}
    n_pairs = pairs["p_ab"].size
    return loop(lambda draw: values(scores(**{k: column[draw] for k, column in columns.items()})), n_pairs, n_rounds)


def peak_bytes(side: str, n_pairs: int, topics: int, n_rounds: int) -> int | None:
    """Growth of the peak memory by one run of a side; called in a separate process."""
    pairs = judged_pairs(n_pairs, topics)
    runs = {"ours": lambda: ours(pairs, n_rounds), "plain": lambda: plain(pairs, n_rounds)}
    return peak_growth(runs[side], "cpu")


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    pairs = judged_pairs(args.n_pairs, args.topics)
    say(f"{args.n_pairs} pairs, {args.n_bootstrap} rounds; the loops run {args.plain_rounds}")
    seconds = alternate(
        {
            "ours": timed(partial(ours, pairs, args.n_bootstrap), "cpu"),
            "plain": timed(partial(plain, pairs, args.plain_rounds), "cpu"),
            "recomputed": timed(partial(recomputed, pairs, args.plain_rounds), "cpu"),
        },
        args.repeats,
    )
    scale = args.n_bootstrap / args.plain_rounds
    peaks: dict[str, int | None] = {"ours": None, "plain": None}
    if args.memory:
        for side, n_rounds in (("ours", args.n_bootstrap), ("plain", args.plain_rounds)):
            peaks[side] = in_fresh_process(peak_bytes, side, args.n_pairs, args.topics, n_rounds)
    emit(
        {
            "benchmark": "metric_report",
            "n_pairs": args.n_pairs,
            "n_predictions": 2 * args.n_pairs,
            "topics": args.topics or None,
            "n_bootstrap": args.n_bootstrap,
            "repeats": args.repeats,
            "plain_rounds": args.plain_rounds,
            "plain_extrapolated": args.plain_rounds != args.n_bootstrap,
            "ours_seconds": seconds["ours"],
            "plain_seconds": seconds["plain"] * scale,
            "recomputed_seconds": seconds["recomputed"] * scale,
            "ratio": ratio(seconds["plain"] * scale, seconds["ours"]),
            "ratio_recomputed": ratio(seconds["recomputed"] * scale, seconds["ours"]),
            "ours_peak_bytes": peaks["ours"],
            "plain_peak_bytes": peaks["plain"],
            **machine("cpu", torch.float64),
        }
    )


if __name__ == "__main__":
    main()
