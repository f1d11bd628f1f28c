"""The stages of a CHARM run, and what they leave in its output directory.

    original/                    the reward model, where it is trained here from the votes
    scores/VERSION/              what a version makes of the responses
    preferences_VERSION.jsonl    the preference sets, columns as `trl.RewardTrainer` takes them
    uncalibrated/, calibrated/   the models trained on, without and with calibration
    metrics.json                 flat keys VERSION/KEY, see `RewardEvaluation.metrics`

A stage may be repeated: scores are taken up where they were left, and those of a model that is trained anew are
removed.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import PartialState
from trl import ModelConfig, RewardConfig, get_peft_config

from autorater.charm.calibration import Calibration, calibrate
from autorater.charm.data import CharmArguments, CharmData
from autorater.charm.evaluation import RewardEvaluation, evaluate_scores
from autorater.charm.responses import Response, responses_of
from autorater.charm.reward_model import RewardModel, build_reward_model
from autorater.charm.training import train_reward_model, voted_preferences
from autorater.training.config import model_init_kwargs

_MADE_FROM = "made_from.txt"


@dataclass
class RewardTrainingConfig(RewardConfig):
    """`RewardConfig` with the continued training of the paper for a reward model of 8 B parameters."""

    learning_rate: float = field(default=2e-6, metadata={"help": "Peak learning rate of the continued training."})
    weight_decay: float = field(default=1e-3, metadata={"help": "Weight decay."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the preference set."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Trade compute for memory."})
    bf16: bool | None = field(default=None, metadata={"help": "bfloat16 autocast; by default where there is a GPU."})

    def __post_init__(self):
        if self.bf16 is None and not self.fp16:  # TRL's own default is bf16 on a CPU too, where it is slow
            self.bf16 = torch.cuda.is_available() and not self.use_cpu
        super().__post_init__()


class CharmRun:
    """The stages of a run, in any order in which each finds what it needs.

    Args:
        args, training, model_config: What it was told.
        data: What it works on.
        say: Takes lines for a person.
    """

    def __init__(
        self,
        args: CharmArguments,
        training: RewardTrainingConfig,
        model_config: ModelConfig,
        data: CharmData,
        say: Callable[[str], None] = print,
    ):
        self.args, self.training, self.model_config, self.say = args, training, model_config, say
        self.folder = Path(training.output_dir)
        self.data = data
        self._scored: dict[str, dict[tuple[str, str, str], float]] = {}
        self._base: str | None = None

    def score(self, version: str) -> None:
        """Scores the held-out responses, and with the original those to calibrate on, too. Resumable."""
        some = [*self.data.held_out, *responses_of(self.data.held_out_pairs)]
        if version == "original":
            some = [*self.data.responses, *some]
        given = {
            response.key: response.score for response in some if version == "original" and response.score is not None
        }
        todo = [replace(response, score=None) for response in some if response.key not in given]
        if todo:
            name = self.base if version == "original" else str(self.folder / version)
            reward_model = self._load(name)
            fitting = reward_model.fitting(todo)
            if len(fitting) < len(todo):
                self.say(f"over {reward_model.max_length} tokens, left out: {len(todo) - len(fitting)} responses")
                self._leave_out({r.key for r in todo} - {r.key for r in fitting})
            scored = reward_model.score_file(
                fitting,
                self.folder / "scores" / version,
                self._name(name),
                progress=self.training.process_index == 0,
            )
            given |= {response.key: response.score for response in scored}
        self._scored[version] = given

    def calibrate(self) -> Calibration:
        """Picks the models where none are named, fits the offset and writes the preference sets."""
        responses = self._with_scores(self.data.responses, "original")
        diagnosis = evaluate_scores(responses, self.data.elo, n_bootstrap=0)
        overvalued = self.args.overvalued or diagnosis.most_overvalued
        reference = self.args.reference or diagnosis.reference_for(overvalued)
        gaps = ", ".join(f"{model} {gap:+.3f}" for model, gap in diagnosis.gaps.items())
        self.say(f"win rate less expected, on the prompts to calibrate on: {gaps}")
        calibration = calibrate(responses, self.data.elo, overvalued, reference)
        if self.training.process_index == 0:
            for version, preferences in calibration.sets.items():
                with (self.folder / f"preferences_{version}.jsonl").open("w", encoding="utf-8") as file:
                    for preference in preferences:
                        chosen, rejected = preference.chosen, preference.rejected
                        row = {"prompt": chosen.prompt, "chosen": chosen.text, "rejected": rejected.text}
                        row |= {"chosen_model": chosen.model, "rejected_model": rejected.model}
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        return calibration

    def train(self, version: str, calibration: Calibration) -> None:
        """Trains the original on with one of the preference sets; `stage: evaluate` takes a model that is there."""
        folder = self.folder / version
        if self.args.stage == "evaluate" and any(folder.glob("*config.json")):
            self.say(f"{version}: as it is in {folder}")
            return
        preferences = calibration.sets[version]
        self.say(
            f"{version}: training on {len(preferences):,} preferences, {calibration.undecided[version]} undecided"
        )
        training = copy(self.training)
        training.output_dir = str(folder)
        dropped = train_reward_model(
            self._load(self.base), preferences, training, peft_config=get_peft_config(self.model_config)
        )
        if dropped:
            self.say(f"{version}: {dropped} preferences left out, too long")
        self._remove_scores(version)

    def evaluate(self, version: str) -> RewardEvaluation:
        """Measures a scored version on the held-out prompts."""
        return evaluate_scores(
            self._with_scores(self.data.held_out, version),
            self.data.elo,
            self.data.held_out_pairs,
            pair_scores=self._scored[version],
        )

    def write_metrics(self, versions: Mapping[str, RewardEvaluation], calibration: Calibration) -> None:
        """Writes `metrics.json`."""
        metrics: dict[str, object] = {
            f"calibration/{name}": getattr(calibration, name)
            for name in ("overvalued", "reference", "n_prompts", "expected", "empirical", "offset", "turned")
        }
        for version, evaluation in versions.items():
            metrics |= {f"{version}/{key}": value for key, value in evaluation.metrics().items()}
        (self.folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")

    @property
    def base(self) -> str:
        """The original: the model that was named, or one trained here on the votes."""
        if self._base is None:
            self._base = self.model_config.model_name_or_path or self._from_scratch()
        return self._base

    def _from_scratch(self) -> str:
        folder = self.folder / "original"
        made_from = "".join(
            f"{name}: {getattr(self.args, name)}\n"
            for name in sorted(vars(self.args))
            if name.startswith("base_") or name in ("dataset_name", "held_out_fraction", "n_pairs", "annotator_bias")
        )
        made_from += f"seed: {self.training.seed}\nmax_length: {self.training.max_length}\n"
        note = folder / _MADE_FROM
        if note.exists() and note.read_text(encoding="utf-8") == made_from:
            self.say(f"original: the reward model in {folder}")
            return str(folder)
        preferences = voted_preferences(self.data.pairs)
        if not preferences:
            raise ValueError(
                "no votes to train a reward model on; name one (model_name_or_path) or give a dataset_name"
            )
        self.say(f"original: a small reward model from scratch, trained on {len(preferences):,} preferences")
        reward_model = build_reward_model(
            [text for pair in self.data.pairs for text in (pair.prompt, pair.response_a, pair.response_b)],
            hidden_size=self.args.base_hidden_size,
            num_layers=self.args.base_num_layers,
            max_length=self.training.max_length or 1024,
            seed=self.training.seed,
        )
        reward_model.model.to(self.training.device)
        training = copy(self.training)
        training.output_dir, training.learning_rate = str(folder), self.args.base_learning_rate
        training.num_train_epochs, training.max_steps = self.args.base_epochs, -1
        training.per_device_train_batch_size = self.args.base_batch_size
        training.adam_beta2, training.warmup_steps = 0.98, 20  # 0.999 would remember the first gradients for too long
        train_reward_model(reward_model, preferences, training)
        self._remove_scores("original")
        if self.training.process_index == 0:
            note.write_text(made_from, encoding="utf-8")
        PartialState().wait_for_everyone()
        return str(folder)

    def _load(self, name: str) -> RewardModel:
        return RewardModel.from_pretrained(
            name,
            device=self.training.device,
            batch_size=self.args.score_batch_size,
            max_length=self.training.max_length,
            **model_init_kwargs(self.model_config, self.training.use_cpu),
        )

    def _name(self, path: str) -> str:
        """A folder of this run by its name: the output directory may be moved."""
        return Path(path).name if Path(path).parent == self.folder else path

    def _with_scores(self, responses: list[Response], version: str) -> list[Response]:
        scores = self._scored[version]
        return [replace(response, score=scores[response.key]) for response in responses]

    def _leave_out(self, keys: set[tuple[str, str, str]]) -> None:
        data = self.data
        self.data = replace(
            data,
            responses=[r for r in data.responses if r.key not in keys],
            held_out=[r for r in data.held_out if r.key not in keys],
            held_out_pairs=[p for p in data.held_out_pairs if keys.isdisjoint(r.key for r in responses_of([p]))],
        )

    def _remove_scores(self, version: str) -> None:
        state = PartialState()
        state.wait_for_everyone()
        if state.is_main_process:
            shutil.rmtree(self.folder / "scores" / version, ignore_errors=True)
        state.wait_for_everyone()
