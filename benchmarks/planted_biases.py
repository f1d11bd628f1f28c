"""Planted biases: does the interval of the audit hold a bias of known size, and is a clean judge called clean?

    python benchmarks/planted_biases.py          # 400 simulated audits of 500 pairs in every row

People prefer a response by its merit, by its length (0.3 logits per doubling) and some systems by 0.4 logits; a pair
has one vote. The judge states probabilities with two decimals, or verdicts drawn from them as a person would, in both
orders, and favours the position shown second by 0.3 logits. On top of people's preferences it adds

    style    0.5 logits for the response in Markdown, as seen by the probe `style`
    length   0.3 logits per doubling of the length
    self     0.5 logits for systems of its own family, which are one side of 40 % of the pairs

or nothing. `truth` is the value of the metric in 2,000,000 pairs (for probabilities and `style`: the planted 0.5).
`coverage` is the share of audits whose 95 % interval holds it, `called_biased` the share whose interval excludes 0
(`style`: the share that the tests, corrected together, call biased): false alarms of a clean judge, power for another.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from harness.measure import emit, say
from scipy.special import expit

from autorater.audit.verdict import bias_state
from autorater.metrics.intervals import bootstrap
from autorater.metrics.position import symmetrize
from autorater.metrics.position_audit import audit_metrics
from autorater.metrics.preferences import trait_statistics

PLANTED = {"style": 0.5, "length": 0.3, "self": 0.5}
_METRICS = {"style": {"probabilities": "logit_shift", "verdicts": "preference_fairness"}}
_TRUTH_PAIRS = 2_000_000


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n_pairs", type=int, default=500)
    parser.add_argument("--n_studies", type=int, default=400)
    parser.add_argument("--n_bootstrap", type=int, default=1_000)
    parser.add_argument("--probes", choices=tuple(PLANTED), nargs="+", default=list(PLANTED))
    return parser.parse_args(argv)


def study(generator: np.random.Generator, n_pairs: int, probe: str, planted: float, verdicts: bool):
    """Answers as in `audit_metrics`, shape (N, 2), votes (N,), and traits by name."""
    traits = {
        "length": generator.normal(0, 0.8, n_pairs),
        "self": generator.choice([-1.0, 0.0, 1.0], n_pairs, p=[0.2, 0.6, 0.2]),
    }
    people = generator.normal(0, 1.2, n_pairs) + 0.3 * traits["length"] + 0.4 * traits["self"]
    votes = (generator.random(n_pairs) < expit(people)).astype(float)
    position = 0.3 if planted or probe == "style" else 0.0
    if probe == "style":  # the same order twice; B in Markdown, then A
        logits = np.stack([people + position + planted, people + position - planted])
    else:
        swayed = people + planted * traits[probe]
        logits = np.stack([swayed + position, -swayed + position])
    if planted or probe == "style":  # noise of each answer; a clean judge has none, which would shrink its answers
        logits = logits + 0.4 * generator.standard_normal(logits.shape)
    answers = expit(logits)
    answers = (generator.random(answers.shape) < answers).astype(float) if verdicts else answers.round(2)
    if probe == "style":
        answers[1] = 1 - answers[1]
    return answers.T, votes, traits


def measured(probe: str, answers, votes, traits, n_bootstrap: int) -> dict[str, float]:
    if probe == "style":
        return audit_metrics(answers, n_bootstrap=n_bootstrap)
    preferences = symmetrize(*answers.T)  # as in audit_metrics, without its other metrics
    return bootstrap(trait_statistics(probe, traits[probe], preferences, votes), n_bootstrap)


def truth_of(probe: str, key: str, planted: float, verdicts: bool) -> float:
    """The value in a large population, from the definition of the metric."""
    if not planted or key == "logit_shift":
        return planted
    answers, votes, traits = study(np.random.default_rng(0), _TRUTH_PAIRS, probe, planted, verdicts)
    if probe == "style":  # verdicts for the response in Markdown in both presentations, less those against it
        both = np.sign(answers - 0.5).sum(axis=1)
        return float((both > 0).mean() - (both < 0).mean())
    x, p = traits[probe], (answers[:, 0] + 1 - answers[:, 1]) / 2
    return float((x * (p - votes)).sum() / (x**2).sum())


def studies(probe: str, planted: float, verdicts: bool, args: argparse.Namespace) -> dict[str, object]:
    kind = "verdicts" if verdicts else "probabilities"
    key = _METRICS.get(probe, {}).get(kind, f"{probe}_bias")
    truth = truth_of(probe, key, planted, verdicts)

    def audits() -> Iterator[tuple[bool, bool]]:
        for seed in range(args.n_studies):
            found = measured(
                probe, *study(np.random.default_rng(seed), args.n_pairs, probe, planted, verdicts), args.n_bootstrap
            )
            low, high = found[f"{key}_low"], found[f"{key}_high"]
            biased = bias_state(found | {"n_repeats": 1.0}) == "biased" if probe == "style" else not low <= 0 <= high
            yield low <= truth <= high, biased

    hits, alarms = np.array(list(audits())).T
    sizes = {"n_pairs": args.n_pairs, "n_studies": args.n_studies}
    result = {"coverage": hits.mean(), "called_biased": alarms.mean()}
    return {"benchmark": "planted_biases", "probe": probe, "judge": kind, "planted": planted, "metric": key,
            "truth": truth, **sizes, **result}  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    for probe in args.probes:
        for planted in (PLANTED[probe], 0.0):
            for verdicts in (False, True):
                say(f"{probe}, {planted:g} logits, {'verdicts' if verdicts else 'probabilities'}")
                emit(studies(probe, planted, verdicts, args))


if __name__ == "__main__":
    main()
