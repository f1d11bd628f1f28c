"""What a CHARM run is told, its data, and its preference sets. The method itself is `autorater.charm.offset`.

Responses to calibrate on and to measure on, Elo and held-out votes are read, or a simulated arena's. Prompts are
divided before anything is fitted: nothing that is measured has been trained or calibrated on, nor been used for Elo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autorater.charm.offset import empirical_win_rate, expected_win_rate, fit_offset, preferences
from autorater.charm.responses import Response, by_model, meetings, scores_of
from autorater.charm.training import Preference
from autorater.metrics.systems import check_rated

VERSIONS = ("original", "uncalibrated", "calibrated")


"""The reward model as it came, trained on with its own preferences, and with debiased ones."""


@dataclass(frozen=True)
class Calibration:
    """The over-valued model against the reference, on the prompts to calibrate on.

    Attributes:
        overvalued, reference: The models.
        n_prompts: Prompts that both answered.
        expected: Win rate of the over-valued model by Elo.
        empirical: By the reward model.
        offset: Δ.
        sets: The preference set of both continued trainings.
        turned: Preferences that the offset has turned round.
        undecided: Pairs of responses with equal scores, left out, by version.
    """

    overvalued: str
    reference: str
    n_prompts: int
    expected: float
    empirical: float
    offset: float
    sets: dict[str, list[Preference]]
    turned: int
    undecided: dict[str, int]

    @property
    def text(self) -> str:
        """In a line."""
        return (
            f"{self.overvalued} against {self.reference} on {self.n_prompts:,} prompts: wins {self.empirical:.3f}, by "
            f"Elo {self.expected:.3f}; offset {self.offset:+.3f} turns {self.turned:,} preferences"
        )


def calibrate(responses: Sequence[Response], elo: Mapping[str, float], overvalued: str, reference: str) -> Calibration:
    """Fits the offset and makes the two preference sets.

    Args:
        responses: Scored responses to calibrate on.
        elo: Elo by model.
        overvalued, reference: The two models.

    Raises:
        ValueError: If they are the same, one has no responses or no Elo, or both answered no common prompt.
    """
    if overvalued == reference:
        raise ValueError(f"overvalued and reference are both {overvalued!r}; two models are wanted")
    check_rated(elo, {overvalued, reference})
    met = meetings(by_model(responses), overvalued, reference)
    if not met:
        raise ValueError(f"{overvalued!r} and {reference!r} answered no common prompt")
    over, other = scores_of(met)
    expected = expected_win_rate(elo[overvalued], elo[reference])
    offset = fit_offset(over, other, expected)
    labels = {"uncalibrated": preferences(over, other), "calibrated": preferences(over, other, offset)}
    return Calibration(
        overvalued=overvalued,
        reference=reference,
        n_prompts=len(met),
        expected=expected,
        empirical=empirical_win_rate(over, other),
        offset=offset,
        sets={
            version: [
                Preference(o, r) if s > 0 else Preference(r, o) for (o, r), s in zip(met, side, strict=True) if s
            ]
            for version, side in labels.items()
        },
        turned=int((labels["uncalibrated"] != labels["calibrated"]).sum()),
        undecided={version: int((side == 0).sum()) for version, side in labels.items()},
    )
