"""CHARM (arXiv 2504.10045): reward models calibrated by Elo.

offset        win rates, the offset Δ, preferences with the offset
elo           Elo from a table or fitted to votes
responses     responses of models with their scores; preferences between them
arena         simulated models of known strength, and biased votes
arguments     the options of a run
data          the data of a run, read or simulated
calibration   the over-valued model, its offset, the preference sets
reward_model  scores of a sequence classifier
training      Bradley–Terry training by trl.RewardTrainer
made_from     what a reward model was made from, noted beside it
run           the stages of a run
evaluation    win rates, Mismatch Degree, correlations, accuracy
report        report.html and report.md

Importing this package requires NumPy and SciPy only; reward_model, training, made_from and run import torch.
"""

from autorater.charm.offset import empirical_win_rate, fit_offset, preferences
from autorater.metrics.systems import expected_win_rate, mismatch_degree
