"""Metrics of judges: proper scores, calibration, agreement, position bias, and their intervals. NumPy only.

validation    the door: arrays are checked once
binning       predictions to bins
scores        the score of one prediction
calibration   ECE and its relatives, Murphy's decomposition
smoothing     smooth ECE
noise         the ECE of a perfect judge
agreement     verdicts against majorities
position      what swapping the responses does
systems       win rates of whole models, against votes and Elo
intervals     the bootstrap
summary       all of it for one judge, as flat keys
"""

from autorater.metrics.agreement import agreement
from autorater.metrics.calibration import calibration_metrics, expected_calibration_error, reliability_curve
from autorater.metrics.intervals import BinnedGap, Mean, bootstrap
from autorater.metrics.noise import ece_noise_floor
from autorater.metrics.position import position_bias
from autorater.metrics.summary import judge_metrics
from autorater.metrics.systems import WinRate, win_rates

__all__ = [
    "BinnedGap",
    "Mean",
    "WinRate",
    "agreement",
    "bootstrap",
    "calibration_metrics",
    "ece_noise_floor",
    "expected_calibration_error",
    "judge_metrics",
    "position_bias",
    "reliability_curve",
    "win_rates",
]
