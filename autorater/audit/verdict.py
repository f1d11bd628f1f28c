"""The result of an audit in a sentence: is one side favoured, is the judge only noisy, or are its answers consistent?

    biased        one side is favoured: a sign-flip test rejects that neither is
    mixed         each side is favoured in some pairs: swapping changes more than repeating the same request does
    noisy         answers contradict each other when the same request is repeated, and neither side is favoured
    inconclusive  answers contradict each other and neither side is favoured; without noise, or without repetitions
    consistent    the answers for both presentations agree

The tests of one judge (verdicts, probabilities, any position) are corrected together (Holm), so that an unbiased judge
is called biased or mixed in at most one of twenty audits. The thresholds for consistency are a convention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from autorater.metrics.significance import holm
from autorater.report.glossary import GLOSSARY

State = Literal["biased", "mixed", "noisy", "inconclusive", "consistent"]
TESTS = ("p_value_verdicts", "p_value_probabilities", "p_value_any_slot")

_LEVEL = 0.05
_CONSISTENT_FLIPS, _CONSISTENT_DEVIATION = 0.01, 0.01
_HIGH_PARSE_RATE = 0.98
_FLAT = 0.001  # variance of the answers below which they carry little information about any pair


def corrected_p_values(metrics: Mapping[str, float]) -> dict[str, float]:
    """The p-values among the metrics, corrected for multiple testing."""
    tests = [name for name in TESTS if name in metrics]
    return dict(zip(tests, holm([metrics[name] for name in tests]), strict=True))


def bias_state(metrics: Mapping[str, float]) -> State:
    """The state of a judge, from the metrics of `audit_metrics`."""
    p_values = corrected_p_values(metrics)
    if min(p_values["p_value_verdicts"], p_values.get("p_value_probabilities", 1.0)) < _LEVEL:
        return "biased"
    if p_values.get("p_value_any_slot", 1.0) < _LEVEL:
        return "mixed"
    if metrics["flip_rate"] <= _CONSISTENT_FLIPS and metrics["symmetry_deviation_abs"] <= _CONSISTENT_DEVIATION:
        return "consistent"
    noise = max(metrics.get("repeated_flip_rate", 0.0), metrics.get("repeated_spread", 0.0))
    return "noisy" if noise > _CONSISTENT_DEVIATION else "inconclusive"


def favoured_side(metrics: Mapping[str, float], probe: str) -> str:
    """The side that a biased judge favours, in words, by the test with the smaller p-value."""
    p_values = corrected_p_values(metrics)
    by_verdicts = p_values["p_value_verdicts"] <= p_values.get("p_value_probabilities", 1.0)
    direction = metrics["preference_fairness" if by_verdicts else "symmetry_deviation_mean"]
    return GLOSSARY["probes"][probe]["favoured" if direction > 0 else "other"]


def finding(metrics: Mapping[str, float], probe: str) -> str:
    """The state in a few words, for a table."""
    if not metrics["n_pairs"]:
        return "nothing to compare"
    return {
        "biased": f"favours {favoured_side(metrics, probe)}",
        "mixed": "side depends on the pair",
        "noisy": "noisy, not biased",
        "inconclusive": "no side favoured",
        "consistent": "consistent",
    }[bias_state(metrics)]


def p_text(p_value: float) -> str:
    """A p-value as text."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def audit_verdict(metrics: Mapping[str, float], probe: str) -> str:
    """The result of a probe in a sentence, from its metrics."""
    if not metrics["n_pairs"]:
        return "No result: no pair has a parsed answer for both presentations."
    change = GLOSSARY["probes"][probe]["change"]
    flips = f"the winner changes in {_flip_rate(metrics)} of pairs when {change}"
    repeated = f"in {100 * metrics.get('repeated_flip_rate', 0):.1f} % when the same request is repeated"
    shift = f", a shift of {metrics['logit_shift']:+.2f} in log-odds" if "logit_shift" in metrics else ""
    p_value = p_text(min(corrected_p_values(metrics).values()))
    chance = f"p {p_value}" if p_value.startswith("<") else f"p = {p_value}"
    sentence = {
        "biased": f"The judge favours {favoured_side(metrics, probe)} ({chance}): {flips}; "
        f"the mean symmetry deviation is {metrics['symmetry_deviation_mean']:+.3f}{shift}",
        "mixed": f"The judge favours different sides in different pairs ({chance}): {flips}, but only {repeated}",
        "noisy": f"The judge is noisy, not biased: {flips}, and {repeated}; neither side is favoured ({chance})",
        "inconclusive": f"No side is favoured ({chance}), but {flips}. This is noise, or a bias that differs from "
        "pair to pair; more pairs and repetitions would separate the two",
        "consistent": f"The judge is consistent: {flips}, and its answers change by "
        f"{metrics['symmetry_deviation_abs']:.3f} on average",
    }[bias_state(metrics)]
    return ". ".join([sentence, *_caveats(metrics)]) + "."


def trait_verdicts(metrics: Mapping[str, float]) -> list[str]:
    """What else sways the judge, a sentence for each trait with an interval."""
    sentences = []
    for name, trait in GLOSSARY["traits"].items():
        for key in (f"{name}_bias", f"{name}_effect"):
            if f"{key}_low" not in metrics:
                continue
            low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
            amount = f"{metrics[key]:+.3f} [{low:+.3f}, {high:+.3f}]"
            if key.endswith("_effect"):
                sentences.append(
                    f"The judge's preference for {trait} is {amount}; without votes it is not known whether people "
                    "share it."
                )
            else:
                found = "a bias for it" if low > 0 else "a bias against it" if high < 0 else "no bias is seen"
                sentences.append(f"Beyond people's votes, the judge's preference for {trait} is {amount}: {found}.")
            break
    return sentences


def _caveats(metrics: Mapping[str, float]) -> list[str]:
    caveats = []
    left_out = sum(metrics[name] for name in ("n_unparsed", "n_refused", "n_not_asked"))
    if left_out:
        caveats.append(f"{left_out:,.0f} of {left_out + metrics['n_pairs']:,.0f} pairs could not be compared")
    if metrics["parse_rate"] < _HIGH_PARSE_RATE:
        share = f"{100 * metrics['parse_rate']:.1f} %"
        exact = not metrics["n_unparsed_answers"]  # the answers are distributions, of which a part does not parse
        of_probability = f"On average only {share} of the probability is on answers that parse"
        caveats.append(of_probability if exact else f"Only {share} of its answers parse")
    if metrics["sharpness"] < _FLAT:
        caveats.append("Its answers hardly vary, so they carry little information about any pair")
    return caveats


def _flip_rate(metrics: Mapping[str, float]) -> str:
    text = f"{100 * metrics['flip_rate']:.1f} %"
    if "flip_rate_low" in metrics:
        text += f" [{100 * metrics['flip_rate_low']:.1f}, {100 * metrics['flip_rate_high']:.1f}]"
    return text
