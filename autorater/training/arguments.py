"""Options of a training run other than those of its trainer, in sections (`recipes/*.py --help`)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from autorater.data.errors import UserError, ineffective
from autorater.prompts.pointwise import ScoreFormat
from autorater.prompts.templates import BUILT_IN, PromptFormat
from autorater.training.compatibility import POINTWISE, RLOO, VALUE_HEAD
from autorater.training.config import check_values, option


@dataclass
class DataArguments:
    """Training and held-out pairs."""

    _argument_group_name = "data"

    dataset_name: str | None = option(
        None,
        "Pairs to train on: .jsonl, .json, .csv, .tsv or .parquet file, `save_to_disk` folder or Hub name, in one of "
        "the layouts of docs/data.md. Without it the annotators are simulated.",
    )
    eval_dataset_name: str | None = option(None, "Held-out pairs. Without it they are split off by `split_by`.")
    split_by: str = option(
        "prompt", "Any column of the file; its groups are never divided between training and held-out pairs."
    )
    held_out_fraction: float = option(0.1, "Share of the pairs that `split_by` holds out.")
    labels: Literal["sparse", "dense", "all"] = option(
        "sparse",
        "`sparse`: one vote per pair, drawn once by the seed; `dense`: the vote share is the label; `all`: the reward "
        "is the mean of the rewards for every vote.",
    )
    population: dict | str | None = option(  # noqa: RUF009
        None,
        "Annotators to train and measure for: group=share,group=share or a mapping in YAML. Votes are weighted by the "
        "column `group` (of simulated annotators: the persona); see docs/decisions.md.",
    )
    max_prompt_tokens: int = option(1024, "Pairs with longer prompts are dropped and counted; prompts are never cut.")


@dataclass
class SimulationArguments:
    """Simulated annotators, without `dataset_name`."""

    _argument_group_name = "simulated annotators"

    n_train: int = option(20_000, "Training pairs.")
    n_test: int = option(2_000, "Held-out pairs.")
    n_votes: int = option(1, "Votes per training pair.")
    n_test_votes: int = option(10, "Votes per held-out pair.")
    population_noise: float = option(1.0, "Temperature of the annotators' choices, > 0.")
    persona_shares: list[float] | None = option(None, "Shares of the personas, in the order of `population.PERSONAS`.")  # noqa: RUF009
    annotator_position_bias: float = option(0.0, "Logits that an annotator adds to the response shown second.")


@dataclass
class PromptArguments:
    """The judge prompt."""

    _argument_group_name = "prompt"

    prompt_template: str = option(
        "full",
        f"Wording of the prompt: a file with slots, see docs/prompts.md, or one of {', '.join(BUILT_IN)}; `compact` "
        "is for small policies from scratch.",
    )
    system_prompt: str | None = option(None, "System message in front of the prompt.")
    criteria: str | None = option(None, "Fills the slot {criteria} for pairs without a value in that column.")
    reference: str | None = option(None, "Fills the slot {reference} for pairs without a value in that column.")

    @property
    def prompt_format(self) -> PromptFormat:
        """The format without reasoning."""
        return PromptFormat(self.prompt_template, **self._prompt_options)

    @property
    def score_format(self) -> ScoreFormat:
        """The format of a pointwise judge."""
        template = ScoreFormat.template if self.prompt_template in BUILT_IN else self.prompt_template
        return ScoreFormat(template, **self._prompt_options)

    @property
    def _prompt_options(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in ("system_prompt", "criteria", "reference")}


@dataclass
class PolicyArguments:
    """A small policy from scratch and its warm start, without `model_name_or_path`; the parameters to train."""

    _argument_group_name = "policy from scratch"

    policy_hidden_size: int = option(128, "Width.")
    policy_num_layers: int = option(4, "Layers.")
    policy_num_heads: int = option(4, "Attention heads.")
    policy_rope_theta: float = option(
        10_000.0, "Base of the rotary positions; larger for long prompts and small heads."
    )
    policy_vocab_size: int = option(2048, "Vocabulary.")
    warm_start_steps: int = option(
        0,
        "SFT steps on single, overconfident verdicts; for a pretrained model steps on a teacher's probabilities or, "
        "without a teacher, on the format alone if it does not answer on the grid (30 to 60).",
    )
    warm_start_verdicts: str = option(
        "opinions",
        "`opinions`: those of the simulated grader, or one vote of a recorded pair; `lengths`: the longer response is "
        "better, on responses that grow from a few words to complete ones; a policy from scratch learns to compare "
        "texts faster this way. A pretrained model has a teacher: `probe`, a linear probe fitted to the training "
        "votes, out of fold; `pointwise`, a pointwise judge that is trained on the same votes first, and from which "
        "the judge begins; the folder of a trained judge; or a file of probabilities of training pairs.",
    )
    warm_start_batch_size: int | None = option(
        None,
        "Prompts per warm-start step; by default 64, 4 to teach the format, or 24 with a teacher, in multiples of 12 "
        "(all orders of four responses). A pointwise judge has batch_tokens.",
    )
    warm_start_learning_rate: float | None = option(
        None,
        "Peak learning rate of the warm start; by default 2e-3; for a pretrained model 5e-5 (an adapter 1e-3), with a "
        "teacher 6e-5 (2e-4).",
    )
    warm_start_sharpness: float | None = option(
        None,
        "Factor on the logits of the verdicts, by default 1.8: above 1 they are overconfident. With a teacher it is "
        "that of the first quarter of the steps, and falls to 1 by half of them; by default 3 for a pairwise judge, "
        "which learns to compare from clear cases, and 1 for a pointwise one.",
    )
    warm_start_tilt: float = option(1.0, "Logits that the verdicts add to the response shown second.")
    train_only: list[str] | None = option(  # noqa: RUF009
        None,
        "Parts of names of the parameters to train, such as embed_tokens; the others are frozen. Without it all are "
        "trained. A policy from scratch is warm-started as a whole.",
    )

    @property
    def teacher(self) -> str | None:
        """The teacher that `warm_start_verdicts` names: `probe`, `pointwise`, a folder or a file; None for none."""
        return None if self.warm_start_verdicts in ("opinions", "lengths") else self.warm_start_verdicts


_FORMAT_OPTIONS = {"warm_start_steps", "warm_start_batch_size", "warm_start_learning_rate"}
_TEACHER_OPTIONS = {*_FORMAT_OPTIONS, "warm_start_verdicts", "warm_start_sharpness"}


@dataclass
class EvaluationArguments:
    """Evaluation during training."""

    _argument_group_name = "evaluation"

    n_eval_pairs: int = option(
        200,
        "Held-out pairs judged every `eval_steps` steps of training, spread over the file; before and after it all "
        "are judged.",
    )
    untrained_judgments_dir: str | None = option(
        None,
        "Folder that keeps the judgments before training, for other runs of the same pretrained model with the same "
        "prompts and held-out pairs, as in a search for a learning rate.",
    )
    recalibration_dataset_name: str | None = option(
        None,
        "Pairs that are neither trained on nor held out: after training a `recalibration` is fitted to them and saved "
        "with the judge.",
    )
    recalibration: Literal["temperature", "platt"] = option(
        "temperature",
        "`temperature`, fitted to the votes of these pairs; `platt`, for pairwise judges: a temperature and a shift, "
        "which removes the position bias that all pairs have in common.",
    )
    recalibration_labels: Literal["sparse", "dense", "teacher"] | None = option(
        None,
        "Votes of these pairs that count: `sparse`, one each, drawn by the seed; `dense`, all. By default one with "
        "`labels: sparse`, else all. `teacher`: no votes, which may be missing, but the probabilities of the judge "
        "that `warm_start_verdicts` names; they fix a slope more exactly than few votes.",
    )


@dataclass
class JudgeArguments(EvaluationArguments, PolicyArguments, PromptArguments, SimulationArguments, DataArguments):
    """All sections of a run that trains a judge of pairs."""

    def __post_init__(self):
        check_values(self)
        if not 0 < self.held_out_fraction < 1:
            raise UserError(f"held_out_fraction is {self.held_out_fraction}; expected a number between 0 and 1")

    @property
    def temperature_labels(self) -> str:
        """The labels that a recalibration is fitted to: `sparse`, `dense` or `teacher`."""
        return self.recalibration_labels or ("sparse" if self.labels == "sparse" else "dense")


@dataclass
class DenseArguments(JudgeArguments):
    """The same for training on vote shares (`recipes/sft.py`)."""

    labels: Literal["sparse", "dense"] = option(
        "dense", "`dense`: the vote share; `sparse`: one vote per pair, drawn once by the seed."
    )


def ineffective_options(
    args: JudgeArguments,
    pretrained: bool,
    mode: str,
    given: Collection[str],
    eval_steps: float | None = None,
    use_peft: bool = False,
    use_vllm: bool = False,
) -> dict[str, list[str]]:
    """Names of the `given` options that have no effect in a run, by the reason why; `mode` as in `compatibility`."""
    recorded, split = args.dataset_name is not None, ("split_by", "held_out_fraction")
    policy = [name for name in PolicyArguments.__annotations__ if name != "train_only"]
    warm_start = [name for name in policy if name.startswith("warm_start") and name != "warm_start_steps"]
    of_pretrained = _TEACHER_OPTIONS if args.teacher else _FORMAT_OPTIONS
    from_scratch = [name for name in policy if name not in of_pretrained]
    if pretrained:
        warm_start = [name for name in warm_start if name in of_pretrained]
    cases = (
        (pretrained, "the policy is pretrained (model_name_or_path)", from_scratch),
        (not args.warm_start_steps, "warm_start_steps is 0", warm_start),
        (recorded, "the pairs are read from dataset_name", SimulationArguments.__annotations__),
        (not recorded, "the annotators are simulated", ("eval_dataset_name", *split)),
        (recorded and args.eval_dataset_name, "eval_dataset_name holds the held-out pairs", split),
        (not pretrained, "every policy from scratch is another one", ("untrained_judgments_dir",)),
        (
            not args.recalibration_dataset_name,
            "there is no recalibration_dataset_name",
            ("recalibration", "recalibration_labels"),
        ),
        (args.n_eval_pairs and not eval_steps, "eval_steps is not set", ("n_eval_pairs",)),
        (mode == RLOO, "rloo has no value head", VALUE_HEAD),
        (not use_peft, "use_peft is not set", [name for name in given if name.startswith("lora_")]),
        (not use_vllm, "use_vllm is not set", [name for name in given if name.startswith("vllm_")]),
        (
            mode == POINTWISE and args.prompt_template in BUILT_IN,
            "a pointwise judge reads one response and has a template of its own",
            ("prompt_template",),
        ),
        (
            mode == POINTWISE and args.recalibration == "platt",
            "a pointwise judge has no position bias",
            ("recalibration",),
        ),
        (
            mode == POINTWISE and args.teacher,
            "a row of a pointwise judge has batch_tokens tokens",
            ("warm_start_batch_size",),
        ),
    )
    return ineffective(cases, given)
