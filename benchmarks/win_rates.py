"""Win rates from few votes: coverage and width of the intervals, on simulated studies and on recorded votes.

    python benchmarks/win_rates.py
    python benchmarks/win_rates.py --data FOLDER       # pandalm_test, convincing_train, convincing_test (.jsonl.gz)

Simulated: 5,000 judged pairs, n of which have one vote each; or prompts of 5 pairs that share a difficulty. The
judges are calibrated, overconfident (its log odds are tripled), biased by position (the system is always shown
second, which adds 1 to the log odds) and worthless (uniform random answers).

Recorded: 10 % of the pairs show their votes; the truth is the win rate by all votes. The judge is a logistic
regression on TF-IDF and lengths, fitted on one vote per pair of convincing_train. Questions: each of PandaLM's five
systems against the others, and their Bradley–Terry ranking, clustered by prompt; and whether the longer argument of
convincing_test wins.

`coverage` is the share of studies whose 95 % interval contains the truth, `width` the mean width relative to that of
the votes alone in the same study, `widest` its maximum, `votes_gained` the median of the effective number of votes
gained.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from harness.measure import emit, say
from scipy.special import expit
from study.baselines import baseline_probabilities

from autorater.data.loading import load_pairs
from autorater.data.pairs import Pair, with_sparse_labels
from autorater.metrics import estimate_win_rate, rank_systems

JUDGES = ("calibrated", "overconfident", "position-biased", "worthless")
_PROMPT_SIZE = 5
_TRUTH_PAIRS = 4_000_000


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_judged", type=int, default=5_000, help="Pairs of a study, with and without votes.")
    parser.add_argument("--n_votes", type=int, nargs="+", default=[50, 200, 500])
    parser.add_argument("--n_studies", type=int, default=1_000)
    parser.add_argument("--data", type=Path, help="Folder of recorded votes; without it they are left out.")
    parser.add_argument("--n_resamples", type=int, default=500)
    return parser.parse_args(argv)


def simulate(generator: np.random.Generator, n_pairs: int, clustered: bool) -> tuple[np.ndarray, np.ndarray]:
    """Log odds that the system wins, and the prompt of each pair."""
    size = _PROMPT_SIZE if clustered else 1
    prompts = np.arange(n_pairs) // size
    of_prompt = generator.normal(0, 0.7, prompts[-1] + 1)[prompts] if clustered else 0.0
    return 0.4 + 1.5 * generator.normal(size=n_pairs) + of_prompt, prompts


@cache
def true_win_rate(clustered: bool) -> float:
    """The win rate in the population, to 0.0002."""
    return float(expit(simulate(np.random.default_rng(0), _TRUTH_PAIRS, clustered)[0]).mean())


def judge_pairs(judge: str, log_odds: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Pr[the system wins] by one of `JUDGES`."""
    if judge == "worthless":
        return generator.random(log_odds.size)
    return expit({"calibrated": log_odds, "overconfident": 3 * log_odds, "position-biased": log_odds + 1}[judge])


def simulated_studies(
    judge: str, n_votes: int, clustered: bool, *, n_judged: int = 5_000, n_studies: int = 1_000, seed: int = 0
) -> dict[str, object]:
    """Coverage and width over simulated studies; the first pairs have the votes."""
    truth = true_win_rate(clustered)

    def studies() -> Iterator[tuple[float, dict]]:
        generator = np.random.default_rng([seed, n_votes, clustered])
        for _ in range(n_studies):
            log_odds, prompts = simulate(generator, n_judged, clustered)
            votes = generator.random(n_votes) < expit(log_odds[:n_votes])
            answers = judge_pairs(judge, log_odds, generator)
            clusters = (prompts[n_votes:], prompts[:n_votes]) if clustered else None
            yield truth, estimate_win_rate(answers[n_votes:], answers[:n_votes], votes, clusters=clusters)

    settings = {"judge": judge, "n_votes": n_votes, "clustered": clustered, "n_judged": n_judged}
    return {**settings, "truth": truth, **summary(studies())}


def summary(studies: Iterator[tuple[float, dict]]) -> dict[str, float]:
    """Coverage and width from the truth and the estimate of each study."""
    rows = [
        (
            *(rate[f"{name}low"] <= truth <= rate[f"{name}high"] for name in ("", "votes_only_", "judge_only_")),
            rate["rogan_gladen_low"] <= truth <= rate["rogan_gladen_high"],
            (rate["high"] - rate["low"]) / (rate["votes_only_high"] - rate["votes_only_low"]),
            rate["votes_gained"],
            rate["method"] == "votes alone",
        )
        for truth, rate in studies
    ]
    hit, votes_hit, judge_hit, rogan_gladen_hit, width, gained, alone = np.array(rows, dtype=float).T
    return {
        "n_studies": len(rows),
        "coverage": hit.mean(),
        "coverage_votes_only": votes_hit.mean(),
        "coverage_judge_only": judge_hit.mean(),
        "coverage_rogan_gladen": rogan_gladen_hit.mean(),
        "width": width.mean(),
        "widest": width.max(),
        "votes_gained": np.median(gained),
        "share_votes_alone": alone.mean(),
    }


def tfidf_judge(data: Path, pairs: list[Pair]) -> np.ndarray:
    """Pr[B preferred] by the text baseline, shape (N,)."""
    train = with_sparse_labels(load_pairs(str(data / "convincing_train.jsonl.gz")), seed=0)
    return baseline_probabilities([pair for pair in train if pair.label in (0, 1)], pairs)["tfidf"]


def recorded_studies(data: Path, n_resamples: int, shown: float = 0.1) -> Iterator[dict[str, object]]:
    """Coverage and width over resamples of the pairs whose votes are shown, by question."""
    pairs = load_pairs(str(data / "pandalm_test.jsonl.gz"), allow_odd_responses=True)
    answers, labels = tfidf_judge(data, pairs), np.array([pair.label for pair in pairs])
    prompts = np.unique([pair.prompt for pair in pairs], return_inverse=True)[1]
    names_a, names_b = ([getattr(pair, side) for pair in pairs] for side in ("model_a", "model_b"))
    for system in sorted({*names_a, *names_b}):
        won = np.array([b == system for b in names_b])
        here = won ^ np.array([a == system for a in names_a])
        sides = (np.where(won, values, 1 - values)[here] for values in (answers, labels))
        yield {"question": system, **resampled(*sides, prompts[here], n_resamples, shown)}
    yield {"question": "ranking", **resampled_ranking(answers, labels, names_a, names_b, prompts, n_resamples, shown)}

    pairs = load_pairs(str(data / "convincing_test.jsonl.gz"))
    answers, labels = tfidf_judge(data, pairs), np.array([pair.label for pair in pairs])
    longer = np.array([len(pair.response_b) > len(pair.response_a) for pair in pairs])
    sides = (np.where(longer, values, 1 - values) for values in (answers, labels))
    yield {"question": "longer argument", **resampled(*sides, None, n_resamples, shown)}


def resampled(
    answers: np.ndarray, labels: np.ndarray, prompts: np.ndarray | None, n_resamples: int, shown: float
) -> dict[str, object]:
    """Coverage of the win rate by all votes."""
    n_votes, truth = round(shown * labels.size), float(labels.mean())

    def studies() -> Iterator[tuple[float, dict]]:
        generator = np.random.default_rng(0)
        for _ in range(n_resamples):
            voted, others = np.split(generator.permutation(labels.size), [n_votes])
            clusters = None if prompts is None else (prompts[others], prompts[voted])
            yield truth, estimate_win_rate(answers[others], answers[voted], labels[voted], clusters=clusters)

    correlation = float(np.corrcoef(answers, labels)[0, 1])
    return {"n_votes": n_votes, "truth": truth, "judge_correlation": correlation, **summary(studies())}


def resampled_ranking(answers, labels, names_a, names_b, prompts, n_resamples, shown) -> dict[str, object]:
    """Coverage of the Bradley–Terry strengths by all votes, over systems and resamples, and of all ranks at once."""
    truth = {row.system: row for row in rank_systems(answers, labels, names_a, names_b, clusters=prompts)}
    generator = np.random.default_rng(0)
    hits, ranks, n_votes = [], [], round(shown * labels.size)
    for _ in range(n_resamples):
        votes = np.full(labels.size, np.nan)
        voted = generator.permutation(labels.size)[:n_votes]
        votes[voted] = labels[voted]
        rows = rank_systems(answers, votes, names_a, names_b, clusters=prompts)
        hits.append([row.low <= truth[row.system].strength <= row.high for row in rows])
        ranks.append(all(row.rank_low <= truth[row.system].rank <= row.rank_high for row in rows))
    return {
        "n_votes": n_votes,
        "n_studies": n_resamples,
        "coverage": float(np.mean(hits)),
        "coverage_all_ranks": float(np.mean(ranks)),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    for clustered in (False, True):
        for judge in JUDGES:
            for n_votes in args.n_votes:
                say(f"{judge}, {n_votes} votes{', clustered' if clustered else ''}")
                sizes = {"n_judged": args.n_judged, "n_studies": args.n_studies}
                emit({"benchmark": "win_rates", **simulated_studies(judge, n_votes, clustered, **sizes)})
    if args.data:
        for record in recorded_studies(args.data, args.n_resamples):
            emit({"benchmark": "win_rates", **record})


if __name__ == "__main__":
    main()
