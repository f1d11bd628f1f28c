"""CHARM (arXiv 2504.10045): reward models calibrated by Elo.

offset        win rates and the offset Δ
elo           Elo from a table or fitted to votes
arena         simulated models of known strength
responses     responses of models, with scores
data          what a run works on
calibration   the over-valued model, its offset, the preference sets
reward_model  scores of a sequence classifier
training      Bradley–Terry training by trl.RewardTrainer
run           the stages of a run
evaluation    win rates, Mismatch Degree, correlations
report        report.html and report.md

Importing this package needs NumPy alone.
"""

from autorater.charm.offset import empirical_win_rate, expected_win_rate, fit_offset, mismatch_degree, preferences

__all__ = ["empirical_win_rate", "expected_win_rate", "fit_offset", "mismatch_degree", "preferences"]
