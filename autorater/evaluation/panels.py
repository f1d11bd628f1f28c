"""A panel of the judges of a comparison: fitted on the calibration pairs, measured as one more method.

Beside it the plain mean of the same judges' probabilities, which needs no votes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from autorater.data.pairs import Pair
from autorater.evaluation.judge import measure
from autorater.evaluation.method_judgments import Parts
from autorater.evaluation.methods import Entry
from autorater.judges.judgments import Judgments
from autorater.judges.panel import Panel, fit_panel, mean_judgments

PANEL, PANEL_MEAN = "panel", "panel_mean"


def panel_entries(
    members: Sequence[Entry],
    calibration: Sequence[Pair],
    *,
    groups: Sequence[Hashable] | None = None,
    clusters: Sequence[Hashable] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Entry]:
    """The entries `panel` and `panel_mean` of judges that were compared on the same pairs.

    Args:
        members: The entry of each judge, with its judgments of the calibration pairs.
        calibration: M pairs with labels, on which the weights are fitted.
        groups: M values; pairs with equal ones are in one fold of the cross-validation.
        clusters, n_bootstrap: As in `ComparedPairs` and `compare_methods`.
        seed: Seed of the folds.

    Raises:
        UserError: Fewer than two judges.
    """
    judged = [member.parts.calibration for member in members]
    fitted = fit_panel(judged, [pair.label for pair in calibration], groups, seed=seed)
    fitted = replace(fitted, names=tuple(member.judge for member in members))
    pairs, entries = members[0].evaluation.pairs, []
    for method, combine, panel in ((PANEL, fitted.combined, fitted), (PANEL_MEAN, mean_judgments, None)):
        parts = _combined(combine, [member.parts for member in members])
        measured = measure(pairs, parts.measured, clusters=clusters, n_bootstrap=n_bootstrap)
        entries.append(Entry(method, evaluation=measured, recalibration=panel, parts=parts))
    return entries


def _combined(combine: Callable[[Sequence[Judgments]], Judgments], parts: Sequence[Parts]) -> Parts:
    return Parts(
        combine([part.measured for part in parts]),
        combine([part.calibration for part in parts]),
        combine([part.unvoted for part in parts]),
        content_free=None,
    )


def panel_line(panel: Panel) -> str:
    """The weights in a line."""
    weights = ", ".join(f"{weight:.2f} {name}" for name, weight in zip(panel.names, panel.weights, strict=True))
    return f"panel: {weights} (ridge {panel.ridge:g}; weights of logits, fitted on the calibration pairs)"
