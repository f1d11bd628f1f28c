"""Where position bias sits: symmetry deviation by how close a pair is, and by how unlike its responses are in length.

|SD| is largest where the judge is undecided, and near ties contradict themselves by nature; a bias that is still there
far from 1/2 changes verdicts that matter. A judge that is drawn to length rather than to slots deviates no more for
pairs of unlike length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autorater.metrics.position import position_terms, symmetrize
from autorater.metrics.validation import DECIMALS

_MARGINS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_RATIOS = (1.0, 1.1, 1.5, 2.0, 4.0, float("inf"))


@dataclass(frozen=True)
class Stratum:
    """The pairs between two values of something, the upper one included; the lowest stratum has both.

    Attributes:
        low, high: Its bounds; `high` may be infinite.
        n_pairs: How many there are, at least 1.
        consistency: Share with the same winner in both readings.
        deviation_mean, deviation_abs: Means of SD and |SD|.
    """

    low: float
    high: float
    n_pairs: int
    consistency: float
    deviation_mean: float
    deviation_abs: float


def deviation_by_margin(p_ab: np.ndarray, p_ba: np.ndarray) -> list[Stratum]:
    """Position bias by |p_sym − 1/2|, from undecided pairs to clear ones; empty strata are left out.

    Args:
        p_ab: shape (N,), Pr[B better] read from order ab.
        p_ba: shape (N,), Pr[A better] read from order ba.
    """
    return _strata(np.abs(symmetrize(p_ab, p_ba) - 0.5), _MARGINS, p_ab, p_ba)


def deviation_by_length(
    p_ab: np.ndarray, p_ba: np.ndarray, length_a: np.ndarray, length_b: np.ndarray
) -> list[Stratum]:
    """Position bias by how many times longer the longer response is, 1 for equal lengths; empty strata are left out.

    Args:
        p_ab, p_ba: As in `deviation_by_margin`.
        length_a, length_b: shape (N,), lengths of the responses in any unit, above 0.
    """
    return _strata(np.maximum(length_a, length_b) / np.minimum(length_a, length_b), _RATIOS, p_ab, p_ba)


def _strata(values: np.ndarray, edges: Sequence[float], p_ab: np.ndarray, p_ba: np.ndarray) -> list[Stratum]:
    terms = position_terms(p_ab, p_ba)
    places = np.searchsorted(edges, values.round(DECIMALS)).clip(1) - 1
    strata = []
    for place in np.unique(places):
        here = places == place
        strata.append(
            Stratum(
                low=edges[place],
                high=edges[place + 1],
                n_pairs=int(here.sum()),
                consistency=float(terms["consistent"][here].mean()),
                deviation_mean=float(terms["deviation"][here].mean()),
                deviation_abs=float(np.abs(terms["deviation"][here]).mean()),
            )
        )
    return strata
