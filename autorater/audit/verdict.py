"""One sentence about an audited judge: does it favour a slot, is it only noisy, or is there nothing to see?

    biased       one side is favoured: a sign-flip test rejects that none is
    unsteady     sides are favoured, now one, now the other: swapping changes more than asking again does
    noisy        answers contradict each other as much when the question is repeated as when it is swapped
    unexplained  answers contradict each other in no direction, and asking again did not show noise, or was not done
    clean        the answers of both orders agree

The tests made for one judge (verdicts, probabilities, any slot) are corrected together (Holm), so that a judge without
bias is called biased or unsteady once in twenty audits at most. What is small enough to be clean is a convention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from autorater.audit.probes import PROBES, Probe
from autorater.metrics.significance import holm

State = Literal["biased", "unsteady", "noisy", "unexplained", "clean"]

_LEVEL = 0.05
_CLEAN_FLIPS, _CLEAN_DEVIATION = 0.01, 0.01
TESTS = ("p_value_verdicts", "p_value_probabilities", "p_value_any_slot")
_READABLE = 0.98
_FLAT = 0.001  # variance of the answers below which they say little about any pair


def corrected_p_values(metrics: Mapping[str, float]) -> dict[str, float]:
    """The p-values among the metrics, corrected for being several."""
    made = [name for name in TESTS if name in metrics]
    return dict(zip(made, holm([metrics[name] for name in made]), strict=True))


def bias_state(metrics: Mapping[str, float]) -> State:
    """Which of the above a judge is, from the metrics of `autorater.metrics.position_audit.audit_metrics`."""
    p_values = corrected_p_values(metrics)
    if min(p_values["p_value_verdicts"], p_values.get("p_value_probabilities", 1.0)) < _LEVEL:
        return "biased"
    if p_values.get("p_value_any_slot", 1.0) < _LEVEL:
        return "unsteady"
    if metrics["flip_rate"] <= _CLEAN_FLIPS and metrics["symmetry_deviation_abs"] <= _CLEAN_DEVIATION:
        return "clean"
    noise = max(metrics.get("repeated_flip_rate", 0.0), metrics.get("repeated_spread", 0.0))
    return "noisy" if noise > _CLEAN_DEVIATION else "unexplained"


def finding(metrics: Mapping[str, float], probe: str = "swap") -> str:
    """The state in a few words, for a table."""
    if not metrics["n_pairs"]:
        return "nothing to compare"
    return {
        "biased": f"favours {favoured_side(metrics, PROBES[probe])}",
        "unsteady": "favours now one side, now the other",
        "noisy": "noisy, not biased",
        "unexplained": "no side favoured",
        "clean": "clean",
    }[bias_state(metrics)]


def p_text(p_value: float) -> str:
    """A p-value for people."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def favoured_side(metrics: Mapping[str, float], probe: Probe) -> str:
    """What a biased judge favours, in words; by the test that speaks more clearly."""
    p_values = corrected_p_values(metrics)
    by_verdicts = p_values["p_value_verdicts"] <= p_values.get("p_value_probabilities", 1.0)
    leaning = metrics["preference_fairness" if by_verdicts else "symmetry_deviation_mean"]
    return probe.favoured if leaning > 0 else probe.other


def audit_verdict(metrics: Mapping[str, float], probe: str = "swap") -> str:
    """The sentence; computed from the figures alone."""
    if not metrics["n_pairs"]:
        return "Nothing can be said: no pair has a readable answer in both orders."
    described, state = PROBES[probe], bias_state(metrics)
    flips = f"the winner changes in {_percent(metrics, 'flip_rate')} of pairs when {described.change}"
    tests = [corrected_p_values(metrics)[name] for name in TESTS if name in metrics]
    chance = f"p {p_text(min(tests))}" if min(tests) < 0.001 else f"p = {p_text(min(tests))}"
    if state == "biased":
        side = favoured_side(metrics, described)
        size = f"mean SD {metrics['symmetry_deviation_mean']:+.3f}"
        if "logit_shift" in metrics:
            size += f", a shift of {metrics['logit_shift']:+.2f} in log-odds"
        sentence = f"The judge favours {side} ({chance}): {flips}; {size}"
    elif state == "unsteady":
        sentence = (
            f"The judge favours now one side, now the other ({chance}): {flips}, more than when a question is only "
            f"repeated ({100 * metrics['repeated_flip_rate']:.1f} %)"
        )
    elif state == "noisy":
        sentence = (
            f"The judge is noisy, not biased: {flips}, and in {100 * metrics['repeated_flip_rate']:.1f} % when a "
            f"question is only repeated; neither side is favoured ({chance})"
        )
    elif state == "unexplained":
        sentence = (
            f"No side is favoured ({chance}), but {flips}: noise, or a bias that differs from pair to pair; more "
            "pairs and repetitions would tell them apart"
        )
    else:
        sentence = (
            f"The judge is clean: {flips}, and answers move by {metrics['symmetry_deviation_abs']:.3f} on average"
        )
    caveats = _caveats(metrics)
    return f"{sentence}{'; but ' + ' and '.join(caveats) if caveats else ''}."


def _caveats(metrics: Mapping[str, float]) -> list[str]:
    caveats = []
    left_out = sum(metrics[name] for name in ("n_unparsed", "n_refused", "n_not_asked"))
    if left_out:
        caveats.append(f"{left_out:,.0f} of {left_out + metrics['n_pairs']:,.0f} pairs could not be compared")
    if metrics["parse_rate"] < _READABLE:
        caveats.append(f"only {100 * metrics['parse_rate']:.1f} % of its answers can be read")
    if metrics["sharpness"] < _FLAT:
        caveats.append("its answers hardly vary, so they say little about any pair")
    return caveats


def _percent(metrics: Mapping[str, float], key: str) -> str:
    text = f"{100 * metrics[key]:.1f} %"
    if f"{key}_low" in metrics:
        text += f" [{100 * metrics[f'{key}_low']:.1f}, {100 * metrics[f'{key}_high']:.1f}]"
    return text
