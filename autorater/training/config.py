"""What a training run can be told: TRL's `GRPOConfig` with the fields a judge adds, and the data to train on."""

from dataclasses import MISSING, dataclass, field, fields
from typing import Literal, get_args, get_origin, get_type_hints

import torch
from trl import GRPOConfig, ModelConfig, get_quantization_config

from autorater.models.answers import answer_decimals
from autorater.prompts.templates import PromptFormat
from rewards.answer import THINK_CLOSE, answer_pattern

CLOSING_COEF = 0.1  # a tag that is written anyway costs nothing, so it need not be small


@dataclass
class JudgeArguments:
    """Data, population, policy and prompt of a run (`recipes/*.py`)."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Pairs to train on: .jsonl, .jsonl.gz, .csv or .parquet file, `save_to_disk` folder or Hub name. "
            "Without it the annotators are simulated."
        },
    )
    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "Held-out pairs. Without it they are split off by `split_by`."}
    )
    split_by: str = field(
        default="prompt",
        metadata={"help": "Column whose groups are never divided between training and held-out pairs."},
    )
    held_out_fraction: float = field(
        default=0.1, metadata={"help": "Share of the pairs that is held out by `split_by`."}
    )
    labels: Literal["sparse", "dense"] = field(
        default="sparse",
        metadata={"help": "`sparse`: one vote a pair, drawn once by the seed; `dense`: the vote share."},
    )
    max_prompt_tokens: int = field(
        default=1024, metadata={"help": "Longer prompts are dropped before training and counted, never cut."}
    )
    n_eval_pairs: int = field(
        default=200,
        metadata={
            "help": "Held-out pairs judged while training, spread over the file; before and after it is all of them."
        },
    )

    n_train: int = field(default=20_000, metadata={"help": "Simulated training pairs."})
    n_test: int = field(default=2_000, metadata={"help": "Simulated held-out pairs."})
    n_votes: int = field(default=1, metadata={"help": "Simulated votes a training pair."})
    n_test_votes: int = field(default=10, metadata={"help": "Simulated votes a held-out pair."})
    population_noise: float = field(default=1.0, metadata={"help": "Temperature of the simulated choices, > 0."})
    persona_shares: list[float] | None = field(
        default=None, metadata={"help": "Shares of the simulated personas, in the order of `population.PERSONAS`."}
    )
    annotator_position_bias: float = field(
        default=0.0, metadata={"help": "Logits that a simulated annotator adds to the response seen second."}
    )

    reward: Literal["brier", "log", "spherical", "kl"] = field(
        default="brier", metadata={"help": "Scoring rule that pays for an answer."}
    )
    prompt_layout: Literal["full", "compact"] = field(
        default="full", metadata={"help": "Wording of the prompt; `compact` is for small policies from scratch."}
    )

    policy_hidden_size: int = field(default=128, metadata={"help": "Width of a policy built from scratch."})
    policy_num_layers: int = field(default=4, metadata={"help": "Layers of a policy built from scratch."})
    policy_num_heads: int = field(default=4, metadata={"help": "Attention heads of a policy built from scratch."})
    policy_rope_theta: float = field(
        default=10_000.0, metadata={"help": "Base of its rotary positions; larger for long prompts and narrow heads."}
    )
    policy_vocab_size: int = field(default=2048, metadata={"help": "Vocabulary of a policy built from scratch."})
    train_only: list[str] | None = field(
        default=None,
        metadata={
            "help": "Parts of names of the parameters that are trained behind the warm start, such as embed_tokens; "
            "the others keep their values. Without it all are trained."
        },
    )
    warm_start_steps: int = field(
        default=0, metadata={"help": "SFT steps on single verdicts told in extreme numbers; 0 for a pretrained model."}
    )
    warm_start_verdicts: Literal["opinions", "lengths"] = field(
        default="opinions",
        metadata={
            "help": "`opinions`: of the simulated grader, or one vote of a real pair; `lengths`: the longer response "
            "is the better one, of responses that are cut to a few words at first and then grow, which soon teaches a "
            "policy from scratch that there is something to compare."
        },
    )
    warm_start_batch_size: int = field(default=64, metadata={"help": "Prompts a warm-start step."})
    warm_start_learning_rate: float = field(default=2e-3, metadata={"help": "Peak learning rate of the warm start."})
    warm_start_sharpness: float = field(
        default=1.8, metadata={"help": "Factor on the logits of its verdicts; above 1 they are overconfident."}
    )
    warm_start_tilt: float = field(
        default=1.0, metadata={"help": "Logits that its verdicts add for the response shown second."}
    )
    warm_start_jitter: float = field(
        default=0.3,
        metadata={
            "help": "Deviation of its verdicts' logits. Where they are single votes it should be wide, 1 or so: exact "
            "answers can only move where some probability is left."
        },
    )

    def __post_init__(self):
        check_choices(self)

    @property
    def prompt_format(self) -> PromptFormat:
        return PromptFormat(layout=self.prompt_layout)


@dataclass
class DenseArguments(JudgeArguments):
    """The same for training on vote shares without a reward (`recipes/sft.py`)."""

    labels: Literal["sparse", "dense"] = field(
        default="dense",
        metadata={"help": "`dense`: the vote share; `sparse`: one vote a pair, drawn once by the seed."},
    )

    def __post_init__(self):
        super().__post_init__()
        if self.reward != JudgeArguments.reward:
            raise ValueError("reward has no meaning here: nothing is rewarded")


@dataclass
class RunConfig:
    """What the trainers of judges are told alike; in front of a `TrainingArguments` among the bases of a class."""

    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "`auto`: go on with the run in output_dir, from its last whole checkpoint or, where it has none, "
            "the start; `true`, or no value: the same, but having none is an error; a folder: go on from it.",
            "nargs": "?",
            "const": "true",
        },
    )
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "`group_by_length`: prompts of like length in a batch, with little padding; `random`."},
    )
    remove_unused_columns: bool | None = field(default=False, metadata={"help": "Kept off: the labels are columns."})
    gradient_checkpointing: bool = field(default=False, metadata={"help": "Trade compute for memory."})
    bf16: bool | None = field(default=None, metadata={"help": "bfloat16 autocast; by default where there is a GPU."})

    def __post_init__(self):
        said = str(self.resume_from_checkpoint).lower()  # a YAML file may hold a truth value
        if said in ("true", "auto", "false", "none"):
            self.resume_from_checkpoint = said if said in ("true", "auto") else None
        bf16_by_default(self)
        super().__post_init__()


@dataclass
class JudgeGRPOConfig(RunConfig, GRPOConfig):
    """`GRPOConfig` for judges: nothing is divided by a group's standard deviation, and answers can be exact.

    With `answers="exact"` nothing is generated: `per_device_train_batch_size` counts pairs (both orders of a pair are
    learned together) or, with `orders="separate"`, single prompts; `num_generations` has no meaning. With
    `answers="sampled"` or `reasoning` it counts completions, as in TRL.
    """

    answers: Literal["exact", "sampled"] = field(
        default="exact",
        metadata={"help": "`exact`: sum over the whole answer grid; `sampled`: GRPO's sampled answers."},
    )
    objective: Literal["expected_score", "score_of_mean"] = field(
        default="expected_score",
        metadata={
            "help": "Exact answers: pay every answer, E[S(k, y)], or the mean answer, S(E[k], y), where only "
            "the mean is read."
        },
    )
    answer_step: float = field(default=0.01, metadata={"help": "Step of the answer grid, e.g. 0.01, 0.05 or 0.1."})
    reasoning: bool = field(
        default=False,
        metadata={
            "help": "Ask for reasoning before the answer; with exact answers the reasonings alone are sampled, "
            "`num_generations` a prompt of `max_completion_length` tokens at most."
        },
    )
    orders: Literal["coupled", "separate"] = field(
        default="coupled",
        metadata={
            "help": "`coupled`: both orders of a pair side by side, in one group with one baseline; `separate`: every "
            "order is a prompt with a group of its own (plain swap augmentation)."
        },
    )
    symmetry_coef: float = field(
        default=0.0,
        metadata={"help": "Weight of (E[p_ab] + E[p_ba] − 1)² in the loss; exact answers, coupled orders."},
    )
    structured_answers: bool = field(
        default=False,
        metadata={
            "help": "With vLLM: hold sampled answers to the format while they are written. For models that know it: "
            "what is never drawn is never punished."
        },
    )
    closing_coef: float = field(
        default=CLOSING_COEF,
        metadata={
            "help": "Weight of the closing tag's log-likelihood in the loss of exact answers; sampled ones have it."
        },
    )
    shared_prefix: bool = field(
        default=True,
        metadata={"help": "Process a prompt once for all its sampled answers, where the model allows it."},
    )

    # Dividing by the deviation of a group makes the update proportional to 2 p* − 1: majority voting (2508.11800).
    scale_rewards: str = field(
        default="none",
        metadata={"help": "`none`; `group` and `batch` are kept for ablations: they cause overconfidence."},
    )
    entropy_coef: float = field(
        default=0.02,
        metadata={"help": "Weight of the entropy bonus; without it small policies collapse on one answer."},
    )
    loss_type: str = field(default="dr_grpo", metadata={"help": "Loss of the sampled answers, see `GRPOConfig`."})
    max_completion_length: int | None = field(
        default=None,
        metadata={
            "help": "Longest completion, in tokens; by default 24 for an answer, 512 where reasoning precedes it."
        },
    )

    def __post_init__(self):
        check_choices(self)
        if self.max_completion_length is None:
            self.max_completion_length = 512 if self.reasoning else 24
        if self.symmetry_coef and (self.answers == "sampled" or self.orders == "separate" or self.reasoning):
            raise ValueError("symmetry_coef needs answers: exact, orders: coupled and no reasoning")
        if self.objective == "score_of_mean" and (self.answers == "sampled" or self.scale_rewards != "none"):
            raise ValueError("objective: score_of_mean needs answers: exact and scale_rewards: none")
        nothing_sampled = self.answers == "exact" and not self.reasoning
        if nothing_sampled:
            self.num_generations = 2  # GRPOConfig wants at least two; the trainer generates none
        elif self.orders == "coupled" and self.num_generations % 2:
            raise ValueError(f"orders: coupled needs an even num_generations, got {self.num_generations}")
        self._prepare_vllm()
        try:
            super().__post_init__()
        except ValueError as error:
            if nothing_sampled and "divisible by num_generations" in str(error):
                raise ValueError("with answers: exact, the pairs of a step over all processes must be even") from None
            raise
        if self.answers == "exact":
            self._refuse(
                {
                    "use_vllm": (self.use_vllm and not self.reasoning, "no answer is sampled"),
                    "use_adaptive_entropy": (self.use_adaptive_entropy, "no answer is sampled"),
                    "top_entropy_quantile": (self.top_entropy_quantile < 1, "no answer is sampled"),
                    "scale_rewards: batch": (self.scale_rewards == "batch", "no answer is sampled"),
                    "multi_objective_aggregation": (
                        self.multi_objective_aggregation != "sum_then_normalize",
                        "nothing is divided by a deviation",
                    ),
                }
            )
        if self.answers == "exact" and self.reasoning:
            on_policy = self.gradient_accumulation_steps % (self.steps_per_generation * self.num_iterations) == 0
            self._refuse(
                {
                    "scale_rewards: group": (self.scale_rewards == "group", "∇V(c) is not divided by a deviation"),
                    f"loss_type: {self.loss_type}": (
                        self.loss_type != "dr_grpo",
                        "it weighs a reasoning by its length, and its answers not",
                    ),
                    "several updates on a generation": (not on_policy, "∇V(c) needs the present policy's reasonings"),
                    "mask_truncated_completions": (
                        self.mask_truncated_completions,
                        "reasoning that does not end is paid as an invalid answer",
                    ),
                    "shared_prefix: false": (not self.shared_prefix, "answers are packed behind the reasonings"),
                }
            )

    def _prepare_vllm(self) -> None:
        """Tells vLLM where a completion ends, and what it may be."""
        if self.structured_answers:
            if not self.use_vllm or self.answers == "exact":
                raise ValueError("structured_answers needs use_vllm and answers: sampled")
            decimals = answer_decimals(self.answer_step)
            self.vllm_structured_outputs_regex = answer_pattern(decimals, reasoning=self.reasoning)
        if self.use_vllm and self.answers == "exact" and self.reasoning:  # what comes behind it is read, not written
            stop = {"stop": [THINK_CLOSE], "include_stop_str_in_output": True}
            self.generation_kwargs = stop | (self.generation_kwargs or {})

    def _refuse(self, options: dict[str, tuple[bool, str]]) -> None:
        for name, (is_set, reason) in options.items():
            if is_set:
                behind = " behind reasoning" if self.reasoning else ""
                raise ValueError(f"{name} does not go with exact answers{behind}: {reason}")


def bf16_by_default(arguments) -> None:
    """Sets bf16 where it is not said: on a GPU. TRL's own default is bf16 on a CPU too, where it is slow.

    Where there is nothing but a CPU, it says so: processes on CPUs find each other, and DeepSpeed, only if told.
    """
    arguments.use_cpu = arguments.use_cpu or not torch.accelerator.is_available()
    if arguments.bf16 is None and not arguments.fp16:
        arguments.bf16 = torch.cuda.is_available() and not arguments.use_cpu


def settings(*arguments) -> dict[str, object]:
    """What a run was told, as one flat dictionary: every field that differs from its default."""
    told = {}
    for part in arguments:
        for f in fields(part):
            default = f.default if f.default_factory is MISSING else f.default_factory()
            value = getattr(part, f.name)
            if f.init and value != default and isinstance(value, str | int | float | bool | list | None):
                told[f.name] = value
    return told


def model_init_kwargs(config: ModelConfig, use_cpu: bool = False) -> dict:
    """Keyword arguments of `load_policy` from TRL's `ModelConfig`."""
    kwargs = {
        "revision": config.model_revision,
        "attn_implementation": config.attn_implementation,
        "dtype": config.dtype or ("float32" if use_cpu else None),
        "quantization_config": get_quantization_config(config),
    }
    return {name: value for name, value in kwargs.items() if value is not None}


def check_choices(arguments) -> None:
    """Raises ValueError if a field with a fixed set of values holds another (argparse does not check a YAML file)."""
    for name, kind in get_type_hints(type(arguments)).items():
        value = getattr(arguments, name)
        if get_origin(kind) is Literal and value not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}; got {value!r}")
