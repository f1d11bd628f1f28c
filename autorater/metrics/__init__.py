"""Metrics of judges: proper scores, calibration, agreement, position bias, and their intervals. NumPy and SciPy only.

validation      input checks
clusters        rows with equal values
binning         assignment of predictions to bins
scores          the score of one prediction
agreement       verdicts against majorities
chance_agreement   the same corrected for chance: Cohen's κ, Krippendorff's α
calibration     ECE and related errors, Murphy's decomposition
noise           noise floors: the values of a perfect judge
position        effects of swapping the responses
intervals       bootstrap and Wilson intervals
significance    tests of position bias
summary         all metrics of one judge, as flat keys
groups          the same for every group of pairs
position_audit  position metrics of an audit, with repetitions
preferences     what else sways a judge: traits of responses; effects that can be seen
classes         metrics of distributions over several classes, ordered or not
systems         win rates of models, against votes and Elo
win_rate        win rate of one system from many judged pairs and few votes
ranking         the same for several systems: Bradley–Terry strengths
deferral        which judgments may stand, and which pairs go to people
paired          means of paired differences
gate            is a judge worse than a recorded baseline
"""

from autorater.metrics.agreement import agreement, three_way_agreement
from autorater.metrics.calibration import calibration_metrics, expected_calibration_error, reliability_curve
from autorater.metrics.chance_agreement import cohen_kappa, krippendorff_alpha
from autorater.metrics.classes import class_metrics
from autorater.metrics.deferral import deferral_threshold
from autorater.metrics.gate import Change, compare_with_baseline, gate_fails
from autorater.metrics.groups import GroupMetrics, group_metrics, length_quartiles
from autorater.metrics.intervals import BinnedGap, Mean, Share, bootstrap
from autorater.metrics.noise import ece_noise_floor, noise_floors
from autorater.metrics.position import position_bias
from autorater.metrics.ranking import RankedSystem, rank_systems
from autorater.metrics.summary import Targets, judge_metrics
from autorater.metrics.systems import WinRate, win_rates
from autorater.metrics.win_rate import estimate_win_rate, votes_for_width, votes_only_win_rate
