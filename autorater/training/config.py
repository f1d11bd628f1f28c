"""Options of the trainers: TRL's `GRPOConfig` with the options of a judge, and what all judge trainers share."""

import os
from dataclasses import MISSING, dataclass, field, fields
from enum import Enum
from typing import Literal, get_args, get_origin, get_type_hints

import torch
from trl import GRPOConfig, ModelConfig, get_quantization_config

from autorater.data.errors import UserError
from autorater.models.devices import gpu_has_bf16
from autorater.training.compatibility import EXACT, POINTWISE, REASONING, SAMPLED, check_compatible

_OF_EVALUATIONS = {  # values that require evaluations by transformers, and what to do instead
    ("load_best_model_at_end", True): "leave it out; a run saves the model of its last step",
    ("save_strategy", "best"): "expected no, steps or epoch",
    **dict.fromkeys(
        (("lr_scheduler_type", "reduce_lr_on_plateau"), ("lr_scheduler_type", "greedy")),
        "expected another schedule, such as linear or cosine",
    ),
}
SECRETS = ("hub_token",)  # options that are neither written nor sent; the eos_token of SFT is none
_LOWEST = {  # of whole numbers
    **dict.fromkeys(("n_eval_pairs", "warm_start_steps"), 0),
    **dict.fromkeys(("n_train", "n_test", "n_votes", "n_test_votes", "warm_start_batch_size", "max_prompt_tokens"), 1),
    **dict.fromkeys(("n_pairs", "n_prompts", "n_test_prompts", "n_test_pairs", "base_batch_size"), 1),
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"), 1),
    **dict.fromkeys(("steps_per_generation", "generation_batch_size"), 1),
}


def option(default, help: str, **metadata):
    """A dataclass field with its help text."""
    return field(default=default, metadata={"help": help, **metadata})


@dataclass
class RunConfig:
    """Options of all judge trainers; a base class in front of a `TrainingArguments`."""

    _argument_group_name = "run"

    resume_from_checkpoint: str | None = option(
        None,
        "`auto`: resume the run in output_dir from its last complete checkpoint, or start it if there is none; "
        "`true`, or no value: the same, but a missing checkpoint is an error; a folder: resume from it.",
        nargs="?",
        const="true",
    )
    train_sampling_strategy: str = option(
        "group_by_length", "`group_by_length`: prompts of similar length in a batch, with little padding; `random`."
    )
    remove_unused_columns: bool | None = option(False, "Must be off: labels are columns.")
    gradient_checkpointing: bool = option(False, "Trade compute for memory.")
    eval_steps: float | None = option(
        None,
        "Update steps between evaluations on `n_eval_pairs` held-out pairs, or below 1 a share of all steps; by "
        "default the judge is measured before and after training only.",
    )
    bf16: bool | None = option(
        None,
        "bfloat16 autocast; by default on with a GPU, and for a pretrained model on a CPU with bfloat16 instructions.",
    )
    bf16_full_eval: bool = option(
        False, "Evaluate under bfloat16 autocast on a CPU too; on a GPU this is done with `bf16` anyway."
    )
    disable_tqdm: bool | None = option(False, "Log lines instead of progress bars; always done without a terminal.")
    ddp_find_unused_parameters: bool | None = option(
        False, "Search each step for parameters without a gradient; not needed here."
    )

    def __post_init__(self):
        resume = str(self.resume_from_checkpoint).lower()  # a YAML file may hold a truth value
        if resume in ("true", "auto", "false", "none"):
            self.resume_from_checkpoint = resume if resume in ("true", "auto") else None
        for (name, value), expected in _OF_EVALUATIONS.items():
            if getattr(self, name) == value:
                raise UserError(f"{name}: {value}: the evaluations during a training choose nothing; {expected}")
        bf16_by_default(self)
        super().__post_init__()

    def __getstate__(self) -> dict:
        return without_secrets(self)


@dataclass
class JudgeGRPOConfig(RunConfig, GRPOConfig):
    """`GRPOConfig` for judges: rewards are not divided by a group's standard deviation, and answers can be exact.

    With `answers="exact"` nothing is generated: `per_device_train_batch_size` counts pairs (with both orders) or, with
    `orders="separate"`, single prompts. With `answers="sampled"` or `reasoning` it counts completions, as in TRL. With
    `judgment="pointwise"` a batch has as many votes as `batch_tokens` tokens of responses can serve.
    """

    reward: Literal["brier", "log", "spherical", "kl"] = option("brier", "Scoring rule that rewards an answer.")
    answers: Literal["exact", "sampled"] = option(
        "exact",
        "`exact`: sum over the whole answer grid; `sampled`: sampled answers as in GRPO; pointwise: `num_generations` "
        "scores of a response, drawn from its exact digits.",
    )
    objective: Literal["expected_score", "score_of_mean"] | None = option(
        None,
        "Exact answers: reward every answer, E[S(k, y)], the default; or the mean answer, S(E[k], y), for judges used "
        "only by their mean, the default of pointwise judges.",
    )
    judgment: Literal["pairwise", "pointwise"] = option(
        "pairwise",
        "`pairwise`: the prompt shows both responses, the answer is Pr[B better]; `pointwise`: it shows one response, "
        "the answer is a score from 0 to 9, and Pr[B better] follows from the difference of two scores.",
    )
    score_scale: float = option(1.0, "Pointwise: factor on the difference of two scores; the logit of Pr[B better].")
    batch_tokens: int = option(
        2048, "Pointwise: tokens of the responses of a micro-batch, each read once for all its votes among them."
    )
    answer_step: float = option(0.01, "Step of the answer grid, e.g. 0.01, 0.05 or 0.1.")
    reasoning: bool = option(
        False,
        "Request reasoning before the answer. With exact answers only the reasonings are sampled, `num_generations` "
        "per prompt of at most `max_completion_length` tokens.",
    )
    orders: Literal["coupled", "separate"] = option(
        "coupled",
        "`coupled`: both orders of a pair in one group with one baseline; `separate`: every order is a prompt with "
        "its own group (plain swap augmentation).",
    )
    symmetry_coef: float = option(
        0.0,
        "Weight of (E[p_ab] + E[p_ba] − 1)² in the loss; exact answers, coupled orders. While a teacher's sharpened "
        "targets are learned it is 0, and then grows to this.",
    )
    structured_answers: bool = option(
        False,
        "With vLLM: constrain sampled answers to the format. For models that already write it: answers that are never "
        "sampled are never penalized.",
    )
    shared_prefix: bool = option(
        True,
        "Process a prompt once for all its sampled answers, and what the prompts of a batch begin with once, if the "
        "model supports it.",
    )

    # Dividing by the deviation of a group makes the update proportional to 2 p* − 1: majority voting (2508.11800).
    scale_rewards: str = option(
        "none", "`none`; `group` and `batch` are kept for ablations: they cause overconfidence."
    )
    entropy_coef: float = option(
        0.02, "Weight of the entropy bonus; without it small policies collapse to one answer."
    )
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = option(
        "dr_grpo", "Loss of sampled answers, see `GRPOConfig`."
    )
    importance_sampling_level: Literal["token", "sequence"] = option(
        "token", "Sampled answers: ratios of single tokens, or their mean over an answer."
    )
    max_completion_length: int | None = option(
        None, "Longest completion, in tokens; by default 24 for an answer, 512 with reasoning."
    )

    @property
    def mode(self) -> str:
        """How answers are trained, a mode of `compatibility`."""
        if self.judgment == "pointwise":
            return POINTWISE
        if self.answers == "sampled":
            return SAMPLED
        return REASONING if self.reasoning else EXACT

    @property
    def answers_per_row(self) -> int:
        """Sampled answers to a row of the data, a pair in both orders or a single prompt; 1 if none is sampled."""
        return self.num_generations if self.mode in (SAMPLED, REASONING) else 1

    @property
    def rows_a_batch(self) -> int:
        """Rows of the data in a batch of all processes and micro-batches."""
        return self.generation_batch_size // self.answers_per_row

    @property
    def rewards_mean(self) -> bool:
        """Whether the objective is S(E[k], y)."""
        by_default = self.mode == POINTWISE and self.answers == "exact"
        return self.objective == "score_of_mean" or (self.objective is None and by_default)

    def __post_init__(self):
        check_values(self)
        generations, is_single = self.num_generations, False
        if self.mode not in (SAMPLED, REASONING):  # no groups of TRL's, for which it validates the batch size
            is_single = self._satisfy_trl()
        super().__post_init__()
        if self.scale_rewards not in ("none", "group", "batch"):  # TRL has made names of truth values
            raise UserError(f"scale_rewards: got {self.scale_rewards!r}; expected none, group or batch")
        self.num_generations = generations
        if is_single:
            self.generation_batch_size = self.steps_per_generation = 1
        check_compatible(self, self.mode)
        for name in ("score_scale", "batch_tokens", "temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: got {getattr(self, name)}; expected a number above 0")
        if self.max_completion_length is None:
            self.max_completion_length = 512 if self.reasoning else 24

    def _satisfy_trl(self) -> bool:
        """Sets a number of generations that divides the batch; whether it is a single row, counted as two for TRL."""
        steps = self.steps_per_generation or self.gradient_accumulation_steps
        processes = int(os.environ.get("WORLD_SIZE") or 1)  # accelerate's state is not there yet
        rows = self.generation_batch_size or self.per_device_train_batch_size * steps * processes
        is_single = rows == 1
        if is_single:
            self.generation_batch_size, self.steps_per_generation = 2, None
            rows = 2
        self.num_generations = next(n for n in range(2, rows + 1) if rows % n == 0)
        return is_single


def bf16_by_default(arguments) -> None:
    """Sets bf16 if it is not set (TRL's default is slow on a CPU) and, without an accelerator, `use_cpu`."""
    arguments.use_cpu = arguments.use_cpu or not torch.accelerator.is_available()
    if arguments.bf16 is None and not arguments.fp16:
        arguments.bf16 = gpu_has_bf16() and not arguments.use_cpu


def non_default_settings(*arguments) -> dict[str, object]:
    """All options that differ from their defaults, as one flat dictionary without `SECRETS`."""
    changed = {}
    for part in arguments:
        for f in fields(part):
            default = f.default if f.default_factory is MISSING else f.default_factory()
            value = getattr(part, f.name)
            is_shown = f.init and f.name not in SECRETS
            if is_shown and value != default and isinstance(value, str | int | float | bool | list | dict | None):
                changed[f.name] = value.value if isinstance(value, Enum) else value
    return changed


def refuse_several_gpus(arguments) -> None:
    """Raises a `UserError` if this process would train on several GPUs: transformers then uses `DataParallel`."""
    if arguments.n_gpu > 1:
        raise UserError(
            f"one process sees {arguments.n_gpu} GPUs; start it with accelerate launch or torchrun, or set "
            "CUDA_VISIBLE_DEVICES=0"
        )


def refuse_remote_code(arguments) -> None:
    """Raises a `UserError` if options say that code of a model's repository is to be executed, which no run does."""
    of_reference = getattr(arguments, "model_init_kwargs", None) or {}
    if getattr(arguments, "trust_remote_code", False) or of_reference.get("trust_remote_code"):
        raise UserError(
            "trust_remote_code: true: a run executes no code of a model's repository; expected a model whose class is "
            "in transformers"
        )


def without_secrets(arguments) -> dict[str, object]:
    """The attributes of options for pickle: trainers write `training_args.bin`, and upload it with the model."""
    return {name: value for name, value in vars(arguments).items() if name not in SECRETS}


def model_init_kwargs(config: ModelConfig, use_cpu: bool = False) -> dict:
    """Keyword arguments of `load_policy` from TRL's `ModelConfig`."""
    kwargs = {
        "revision": config.model_revision,
        "attn_implementation": config.attn_implementation,
        "dtype": config.dtype or ("float32" if use_cpu else None),
        "quantization_config": get_quantization_config(config),
        "trust_remote_code": False,  # transformers would ask on the terminal
    }
    return {name: value for name, value in kwargs.items() if value is not None}


def check_values(arguments) -> None:
    """Checks what argparse does not: choices in a YAML file, numbers that are too small, and the length of a training.

    Raises:
        UserError: An option has another value.
    """
    for name, kind in get_type_hints(type(arguments)).items():
        value = getattr(arguments, name)
        choices = next((part for part in (kind, *get_args(kind)) if get_origin(part) is Literal), None)
        if choices and value not in get_args(choices) and (choices is kind or value is not None):
            raise UserError(f"{name}: got {value!r}; expected one of {', '.join(get_args(choices))}")
    for name, lowest in _LOWEST.items():
        if (value := getattr(arguments, name, None)) is not None and value < lowest:
            raise UserError(f"{name}: got {value}; expected a whole number, {lowest} or more")
    max_steps, epochs = getattr(arguments, "max_steps", -1), getattr(arguments, "num_train_epochs", 1)
    if max_steps < 1 and max_steps != -1:
        raise UserError(f"max_steps: got {max_steps}; expected 1 or more, or -1 for num_train_epochs")
    if max_steps == -1 and epochs <= 0:
        raise UserError(f"num_train_epochs: got {epochs}; expected a number above 0, or max_steps")
