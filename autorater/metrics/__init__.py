"""Metrics of judges: proper scores, calibration, agreement, position bias, and their intervals. NumPy only.

validation    the door: arrays are checked once
binning       predictions to bins
scores        the score of one prediction
calibration   ECE and its relatives, Murphy's decomposition
smoothing     smooth ECE
noise         what a perfect judge would show
agreement     verdicts against majorities
position      what swapping the responses does
shares        Wilson's interval
systems       win rates of whole models, against votes and Elo
intervals     the bootstrap
summary       all of it for one judge, as flat keys
groups        all of it for every group of pairs
distributions the score of one distribution over several classes
classes       metrics of distributions over several classes, ordered or not
"""

from autorater.metrics.agreement import agreement, three_way_agreement
from autorater.metrics.calibration import calibration_metrics, expected_calibration_error, reliability_curve
from autorater.metrics.classes import class_metrics
from autorater.metrics.groups import GroupMetrics, group_metrics, length_quartiles
from autorater.metrics.intervals import BinnedGap, Mean, Share, bootstrap
from autorater.metrics.noise import ece_noise_floor, noise_floors
from autorater.metrics.position import position_bias
from autorater.metrics.summary import judge_metrics
from autorater.metrics.systems import WinRate, win_rates

__all__ = [
    "BinnedGap",
    "GroupMetrics",
    "Mean",
    "Share",
    "WinRate",
    "agreement",
    "bootstrap",
    "calibration_metrics",
    "class_metrics",
    "ece_noise_floor",
    "expected_calibration_error",
    "group_metrics",
    "judge_metrics",
    "length_quartiles",
    "noise_floors",
    "position_bias",
    "reliability_curve",
    "three_way_agreement",
    "win_rates",
]
