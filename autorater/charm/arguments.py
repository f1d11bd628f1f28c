"""Options of a CHARM run, in sections (`recipes/charm.py --help`)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from autorater.data.errors import UserError, refuse_ineffective
from autorater.training.arguments import option
from autorater.training.config import check_values


@dataclass
class CharmDataArguments:
    """Responses, votes and Elo."""

    _argument_group_name = "data"

    responses_name: str | None = option(
        None, "Responses to calibrate on: .jsonl with prompt, model, response and, if known, score."
    )
    eval_responses_name: str | None = option(
        None, "Held-out responses to evaluate on. Without it a share of the prompts is held out."
    )
    dataset_name: str | None = option(
        None,
        "Pairs with votes, model_a and model_b: the held-out ones for the accuracy; the others for Elo without "
        "elo_table, as responses without responses_name, and to train a reward model without model_name_or_path.",
    )
    elo_table: str | None = option(None, "Elo by model: .csv or .json. Without it Elo is fitted to the votes.")
    allow_odd_responses: bool = option(
        False, "Keep blank responses, and JSON true or numbers as text, in dataset_name; they are counted."
    )
    held_out_fraction: float = option(0.3, "Share of the prompts that is held out.")


@dataclass
class CalibrationArguments:
    """Stages of the run, and the two models of the calibration."""

    _argument_group_name = "calibration"

    stage: Literal["all", "score", "diagnose", "train", "evaluate"] = option(
        "all", "The last stage; it includes the stages that it requires. `all` is every stage."
    )
    overvalued: str | None = option(None, "The model to calibrate; by default the most over-valued one.")
    reference: str | None = option(
        None, "The model to calibrate it against; by default the one nearest in Elo that is not over-valued."
    )


@dataclass
class ArenaArguments:
    """The simulated arena, without responses_name and dataset_name."""

    _argument_group_name = "simulated arena"

    n_pairs: int = option(6000, "Pairs that the reward model is trained on.")
    n_prompts: int = option(1400, "Prompts to calibrate on.")
    n_test_prompts: int = option(300, "Held-out prompts.")
    n_test_pairs: int = option(2000, "Held-out pairs for the accuracy.")


@dataclass
class BaseModelArguments:
    """The reward model from scratch, without model_name_or_path."""

    _argument_group_name = "reward model from scratch"

    base_epochs: float = option(2, "Epochs.")
    base_batch_size: int = option(16, "Preferences per step and device.")
    base_learning_rate: float = option(2e-3, "Peak learning rate.")
    base_hidden_size: int = option(64, "Width.")
    base_num_layers: int = option(2, "Layers.")


@dataclass
class CharmArguments(BaseModelArguments, ArenaArguments, CalibrationArguments, CharmDataArguments):
    """All sections."""

    def __post_init__(self):
        check_values(self)
        if not 0 < self.held_out_fraction < 1:
            raise UserError(f"held_out_fraction is {self.held_out_fraction}; expected a number between 0 and 1")
        if self.responses_name and not (self.elo_table or self.dataset_name):
            raise UserError("responses_name requires elo_table, or dataset_name with votes to fit Elo to")
        if self.eval_responses_name and not self.responses_name:
            raise UserError("eval_responses_name requires responses_name")
        if self.elo_table and self.simulated:
            raise UserError("elo_table requires responses_name or dataset_name; the simulated arena has a true Elo")

    @property
    def simulated(self) -> bool:
        """Whether the data is the simulated arena."""
        return not (self.responses_name or self.dataset_name)

    def check_effective(self, given: Collection[str], model_name_or_path: str | None) -> None:
        """Raises UserError if one of the `given` options has no effect in this run."""
        recorded = "the data is read from responses_name or dataset_name"
        cases = (
            (not self.simulated, recorded, ArenaArguments.__annotations__),
            (model_name_or_path, "the reward model is model_name_or_path", BaseModelArguments.__annotations__),
            (not self.dataset_name, "there is no dataset_name", ("allow_odd_responses",)),
            (self.simulated, "the data is the simulated arena", ("held_out_fraction",)),
        )
        refuse_ineffective(cases, given)
