"""autorater: LLM judges that say how likely it is that one response is preferred, and mean it.

pairs, loading       a pair of responses with its votes; reading it from files
items, loading_items texts with counts of K labels; reading them, published data sets included
responses            what models wrote to prompts, one at a time, with scores
population, arena    simulated annotators and models with a known truth
prompts              the judge prompt, as text and as token ids
policy, reward_model the language model and the reward model, loaded or built from scratch
prefix, token_tree   one forward pass for a prompt with everything behind it; finitely many strings behind a prompt
answers, labels      the exact distribution over numbers and over labels
reasoning            where a reasoning ends and its answer is read
judges               what gives probabilities: models, servers, records, judging methods, wrappers around any judge
recalibration        answers mapped to better ones by a curve fitted on other votes
training             warm start, GRPO, PPO, SFT, alignment, reward models; runs that die and go on; tracking
projection           the nearest distribution within a distance of another (simplex ∩ ball)
charm, elo           reward models calibrated by Elo; Elo from a table or from votes
metrics              calibration, agreement, position bias, several classes, groups of pairs, intervals
evaluation (…_items) a judge measured on held-out pairs or items; `reward_evaluation` a reward model on whole models
comparison, audit    judging methods on the same pairs; a judge read twice, its journal, figures and flips
study                every method on the same grounds, votes and seeds; its tables and figures
report, console      pictures and pages; what a script prints
sharding, preemption several processes with a part of the model each; being asked to leave

Data flows one way: pairs → prompts → answers → rewards → update → metrics → report. Importing this package imports no
torch; `Judge` does when it is first touched.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from autorater.data.errors import DataError
from autorater.data.loading import load_pairs
from autorater.data.pairs import Pair

if TYPE_CHECKING:
    from autorater.judges import Judge

__all__ = ["DataError", "Judge", "Pair", "load_pairs"]


def __getattr__(name: str):
    if name == "Judge":
        return import_module("autorater.judges").Judge
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
