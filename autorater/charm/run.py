"""The stages of a CHARM run, and their files in its output folder.

    original/                    the reward model, if it is trained here on the votes
    layouts.json                 the rendered chat layout by reward model, used again when the run is repeated
    scores/VERSION/              scores of the responses by a version
    preferences_VERSION.jsonl    the preference sets, with the columns of `trl.RewardTrainer`
    uncalibrated/, calibrated/   the reward models after continued training, without and with calibration
    metrics.json                 flat keys VERSION/KEY, see `RewardEvaluation.metrics`
    report.html, report.md       the same for people

A stage may be repeated: scoring is resumed, and the scores of a model that is trained again are removed.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from transformers.integrations import is_deepspeed_zero3_enabled
from trl import ModelConfig

from autorater.charm.arguments import CharmArguments
from autorater.charm.calibration import Calibration, calibrate
from autorater.charm.data import prepare_charm
from autorater.charm.evaluation import RewardEvaluation, evaluate_scores
from autorater.charm.made_from import (
    MADE_FROM,
    built_from,
    continued_from,
    forget,
    holds_model_of,
    identity_of,
    name_of,
)
from autorater.charm.report import ALIGN, versions_table, write_charm_report
from autorater.charm.responses import Preference, Scores, responses_of, voted_preferences
from autorater.charm.reward_model import RewardModel, build_reward_model
from autorater.charm.training import RewardTrainingConfig, train_reward_model
from autorater.data.atomic import open_atomic, read_json, write_json, write_text
from autorater.data.errors import UserError
from autorater.data.tables import write_rows
from autorater.evaluation.results import write_metrics
from autorater.models.sharding import gathered
from autorater.report.tables import fixed_width
from autorater.training.adapters import new_adapter
from autorater.training.checkpointing.record import from_main
from autorater.training.checks import check_optimizer
from autorater.training.config import model_init_kwargs, non_default_settings, refuse_remote_code, refuse_several_gpus
from autorater.training.precision import evaluation_precision, warn_of_emulation, warn_of_rounding

ORIGINAL = "original"
_LAYOUTS = "layouts.json"
logger = logging.getLogger(__name__)


class CharmRun:
    """A run of `recipes/charm.py` with its options; errors as in `prepare_charm` and `check_run`."""

    def __init__(self, args: CharmArguments, training: RewardTrainingConfig, model_config: ModelConfig):
        refuse_several_gpus(training)
        refuse_remote_code(training)
        check_optimizer(training)
        warn_of_emulation(training)
        self.args, self.training, self.model_config = args, training, model_config
        self.folder, self.data = Path(training.output_dir), prepare_charm(args, training.seed)
        self._scores: dict[str, Scores] = {}
        logger.info(self.data.summary)

    def execute(self) -> None:
        """Executes the stages up to `stage`, and writes metrics and report after an evaluation."""
        self.score(ORIGINAL)
        if self.args.stage == "score":
            return
        calibration = self.calibrate()
        logger.info(calibration.text)
        versions = {ORIGINAL: self.evaluate(ORIGINAL)}
        if self.args.stage != "diagnose":
            for version in calibration.sets:
                self.train(version, calibration)
                if self.args.stage != "train":
                    self.score(version)
                    versions[version] = self.evaluate(version)
        if self.args.stage != "train" and self.training.process_index == 0:
            self.write(versions, calibration)

    def score(self, version: str) -> None:
        """Scores the held-out responses; the original also scores those to calibrate on, if they have no scores."""
        responses = [*self.data.held_out, *responses_of(self.data.held_out_pairs)]
        scores = {}
        if version == ORIGINAL:
            responses = [*self.data.responses, *responses]
            scores = {response: response.score for response in responses if response.score is not None}
        if missing := [response for response in responses if response not in scores]:
            model = self.base if version == ORIGINAL else str(self.folder / version)
            loaded = self._load(model)
            with gathered(loaded.model), evaluation_precision(self.training):
                scores |= loaded.score_file(missing, self.folder / "scores" / version, self._name_of(model))
        self._scores[version] = scores

    def calibrate(self) -> Calibration:
        """Chooses the models that the options do not name, fits the offset and writes the preference sets."""
        scored = self.data.responses, self._scores[ORIGINAL], self.data.elo
        diagnosis = evaluate_scores(*scored, n_bootstrap=0)
        overvalued = self.args.overvalued or next(iter(diagnosis.gaps))
        reference = self.args.reference or diagnosis.reference_for(overvalued)
        self._check_held_out(overvalued, reference)
        gaps = ", ".join(f"{model} {gap:+.3f}" for model, gap in diagnosis.gaps.items())
        logger.info(f"win rate minus expected win rate, on the prompts to calibrate on: {gaps}")
        calibration = calibrate(*scored, overvalued, reference)
        if self.training.process_index == 0:
            for version, preferences in calibration.sets.items():
                _write_preferences(self.folder / f"preferences_{version}.jsonl", preferences)
        return calibration

    def _check_held_out(self, overvalued: str, reference: str) -> None:
        """UserError, before anything is trained, if the two cannot be compared on the held-out prompts."""
        prompts = [{r.prompt for r in self.data.held_out if r.model == model} for model in (overvalued, reference)]
        if not prompts[0] & prompts[1]:
            raise UserError(
                f"{overvalued} and {reference} answered no common held-out prompt; expected at least one to measure "
                "the calibration on; --reference names another model"
            )

    def train(self, version: str, calibration: Calibration) -> None:
        """Continues the training of the original on a preference set; `stage: evaluate` uses an existing model."""
        folder, preferences = self.folder / version, calibration.sets[version]
        base = identity_of(self.base, self.folder, self.model_config)
        now = continued_from(self.training, self.model_config, calibration.overvalued, preferences, base)
        if self.args.stage == "evaluate" and self._holds(version, now):
            return
        n_equal = calibration.n_prompts - len(preferences)
        logger.info(f"{version}: training on {len(preferences):,} preferences; equal scores: {n_equal}")
        model = self._load(self.base)
        peft_config = new_adapter(model.model, self.model_config)
        if peft_config is None:  # its new weights are float32
            warn_of_rounding(model.model, self.training)
        self._train(model, preferences, version, self.training, peft_config=peft_config)
        if self.training.process_index == 0:
            write_text(folder / MADE_FROM, now)

    def _holds(self, version: str, now: str) -> bool:
        """Whether the reward model of a version is there; `stage: evaluate` refuses another one."""
        folder = self.folder / version
        if same := holds_model_of(folder, now, refuse=self.args.stage == "evaluate"):
            logger.info(f"{version}: using the reward model in {folder}")
        return same

    def evaluate(self, version: str) -> RewardEvaluation:
        """The metrics of a scored version on the held-out prompts."""
        data = self.data
        return evaluate_scores(data.held_out, self._scores[version], data.elo, data.held_out_pairs)

    def write(self, versions: Mapping[str, RewardEvaluation], calibration: Calibration) -> None:
        """Writes `report.html` and `report.md`, and last `metrics.json`: then the run is finished."""
        names = ("overvalued", "reference", "n_prompts", "expected", "empirical", "offset", "turned")
        metrics = {f"calibration/{name}": getattr(calibration, name) for name in names}
        for version, evaluation in versions.items():
            metrics |= {f"{version}/{key}": value for key, value in evaluation.metrics().items()}
        settings = non_default_settings(self.args, self.training, self.model_config)
        write_charm_report(self.folder, versions, self.data.ratings, calibration, settings)
        write_metrics(self.folder, metrics)
        table = fixed_width(versions_table(versions, calibration.overvalued, calibration.reference), ALIGN)
        logger.info(f"\n{table}\n\nreport: {self.folder / 'report.html'}")

    @cached_property
    def base(self) -> str:
        """The original: `model_name_or_path`, or the folder of a model that is trained here on the votes."""
        return self.model_config.model_name_or_path or self._from_scratch()

    def _from_scratch(self) -> str:
        folder, args = self.folder / ORIGINAL, self.args
        preferences = voted_preferences(self.data.pairs)
        now = built_from(args, self.training, preferences)
        if self._holds(ORIGINAL, now):
            return str(folder)
        if not preferences:
            raise UserError("there are no votes to train a reward model on; give model_name_or_path or dataset_name")
        if is_deepspeed_zero3_enabled():
            raise UserError("ZeRO-3 shards a model that is built from scratch; give model_name_or_path, or use ZeRO-2")
        logger.info(f"original: training a small reward model from scratch on {len(preferences):,} preferences")
        reward_model = build_reward_model(
            [text for pair in self.data.pairs for text in (pair.prompt, pair.response_a, pair.response_b)],
            hidden_size=args.base_hidden_size,
            num_layers=args.base_num_layers,
            max_length=self.training.max_length or 1024,
            seed=self.training.seed,
        )
        reward_model.model.to(self.training.device)
        training = copy(self.training)
        training.learning_rate, training.per_device_train_batch_size = args.base_learning_rate, args.base_batch_size
        training.num_train_epochs, training.max_steps = args.base_epochs, -1
        training.adam_beta2, training.warmup_steps = 0.98, 20  # 0.999 averages the first gradients over too many steps
        self._train(reward_model, preferences, ORIGINAL, training)
        from_main(lambda: write_text(folder / MADE_FROM, now))
        return str(folder)

    def _train(
        self,
        reward_model: RewardModel,
        preferences: list[Preference],
        version: str,
        training: RewardTrainingConfig,
        **options,
    ) -> None:
        from_main(lambda: forget(self.folder, version))
        # constructed, not copied: this makes accelerate forget the trainer before, which DeepSpeed requires
        training = replace(training, output_dir=str(self.folder / version))
        train_reward_model(reward_model, preferences, training, **options)

    def _name_of(self, model: str) -> str:
        return name_of(model, self.folder, self.model_config)

    def _load(self, model: str) -> RewardModel:
        loaded = RewardModel.from_pretrained(
            model,
            device=self.training.device,
            batch_size=self.training.per_device_eval_batch_size,
            max_length=self.training.max_length,
            **model_init_kwargs(self.model_config, self.training.use_cpu),
        )
        if loaded.pieces is None or model != self.base:  # a version is saved with its layout
            return loaded
        pieces = from_main(lambda: self._recorded_layout(self._name_of(model), loaded.pieces))
        return RewardModel(loaded.model, loaded.tokenizer, loaded.batch_size, loaded.max_length, pieces)

    def _recorded_layout(self, name: str, pieces: Sequence[str]) -> Sequence[str]:
        """The layout of the first time that this run loaded a model: the template may write the date."""
        path = self.folder / _LAYOUTS
        layouts = read_json(path) if path.exists() else {}
        if name not in layouts:
            layouts[name] = pieces
            write_json(path, layouts)
        return layouts[name]


def _write_preferences(path: Path, preferences: list[Preference]) -> None:
    rows = (
        {
            "prompt": preference.chosen.prompt,
            "chosen": preference.chosen.text,
            "rejected": preference.rejected.text,
            "chosen_model": preference.chosen.model,
            "rejected_model": preference.rejected.model,
        }
        for preference in preferences
    )
    with open_atomic(path) as file:
        write_rows(rows, file)
