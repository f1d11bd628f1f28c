"""The calibration of a reward model: the over-valued model against a reference, the offset, two preference sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autorater.charm.offset import empirical_win_rate, fit_offset, preferences
from autorater.charm.responses import Preference, Response, Scores, by_model, matchups, scores_of
from autorater.data.errors import UserError
from autorater.metrics.systems import check_rated, expected_win_rate


@dataclass(frozen=True)
class Calibration:
    """The over-valued model against the reference, on the `n_prompts` prompts to calibrate on that both answered.

    Attributes:
        expected, empirical: Win rates of the over-valued model by Elo and by the reward model.
        offset: Δ.
        sets: Preferences for the continued training by version: `uncalibrated` and `calibrated`.
            Responses with equal scores are left out.
        turned: Number of preferences that the offset changes.
    """

    overvalued: str
    reference: str
    n_prompts: int
    expected: float
    empirical: float
    offset: float
    sets: dict[str, list[Preference]]
    turned: int

    @property
    def text(self) -> str:
        """The calibration in one line."""
        return (
            f"{self.overvalued} against {self.reference} on {self.n_prompts:,} prompts: win rate {self.empirical:.3f},"
            f" by Elo {self.expected:.3f}; the offset {self.offset:+.3f} changes {self.turned:,} preferences"
        )


def calibrate(
    responses: Sequence[Response], scores: Scores, elo: Mapping[str, float], overvalued: str, reference: str
) -> Calibration:
    """Fits the offset and builds the two preference sets; responses without a score are ignored.

    Raises:
        UserError: If the models are the same, one has no responses, they answered no common prompt, or their Elo
            differs so much that the expected win rate is 0 or 1.
        ValueError: If one has no Elo, or a score is NaN.
    """
    if overvalued == reference:
        raise UserError(f"overvalued and reference are both {overvalued!r}; expected two different models")
    check_rated(elo, {overvalued, reference})
    compared = matchups(by_model(responses, scores), overvalued, reference)
    if not compared:
        raise UserError(f"{overvalued!r} and {reference!r} answered no common prompt")
    over, other = scores_of(compared, scores)
    expected = expected_win_rate(elo[overvalued], elo[reference])
    if expected in (0, 1):
        raise UserError(
            f"by Elo {overvalued!r} has the win rate {expected:g} against {reference!r}; no finite offset fits"
        )
    offset = fit_offset(over, other, expected)
    signs = {"uncalibrated": preferences(over, other), "calibrated": preferences(over, other, offset)}
    return Calibration(
        overvalued=overvalued,
        reference=reference,
        n_prompts=len(compared),
        expected=expected,
        empirical=empirical_win_rate(over, other),
        offset=offset,
        sets={
            version: [
                Preference(o, r) if sign > 0 else Preference(r, o)
                for (o, r), sign in zip(compared, column, strict=True)
                if sign
            ]
            for version, column in signs.items()
        },
        turned=int((signs["uncalibrated"] != signs["calibrated"]).sum()),
    )
