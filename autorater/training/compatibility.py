"""Options that are not compatible with a mode of training, in a table."""

from collections.abc import Callable
from typing import NamedTuple

from autorater.data.errors import OptionError

EXACT, REASONING, SAMPLED = "exact answers", "exact answers after reasoning", "sampled answers"
PPO, RLOO, POINTWISE = "ppo", "rloo", "pointwise judgments"
ALIGNMENT = "distribution alignment"
_TEXT, _TOKENIZED = ("text",), ("tokenized_brier", "tokenized_log")
_GRPO = (EXACT, REASONING, SAMPLED, POINTWISE, PPO, RLOO)  # on TRL's trainer of that name
_OTHERS = (*_TEXT, *_TOKENIZED, ALIGNMENT)

_NOT_SAMPLED = "no answer is sampled"
_FROM_VOTES = "batches are built from the votes; see batch_tokens"
_NOT_DIVIDED = "nothing is divided by a deviation of rewards"

VALUE_HEAD = ("lam", "vf_coef", "cliprange_value", "value_learning_rate")  # no effect on rloo, which shares a config


class Rule(NamedTuple):
    """An option that some modes refuse, and the reason.

    Attributes:
        option: Name of the option, or of several, separated by commas.
        violated_by: Whether a config uses it in the refused way; without it, every value but the default is refused.
    """

    modes: tuple[str, ...]
    option: str
    reason: str
    violated_by: Callable[[object], bool] | None = None


RULES = (
    *(
        Rule(_GRPO + _OTHERS, name, f"held-out pairs are judged {how}")
        for name, how in (
            ("eval_delay", "every eval_steps steps from the first on"),
            ("fp16_full_eval", "in float32 or bfloat16, see bf16_full_eval"),
            ("per_device_eval_batch_size", "in batches that the judge makes by their tokens"),
        )
    ),
    Rule(_GRPO, "num_generations_eval", "held-out pairs are judged as the trained judge does it, not sampled"),
    Rule(_GRPO, "data_seed", "the rows are ordered by seed"),
    Rule(
        _OTHERS, "data_seed", "it orders the rows with train_sampling_strategy: random only",
        lambda c: c.data_seed is not None and c.train_sampling_strategy != "random",
    ),
    Rule((*_GRPO, *_TOKENIZED, ALIGNMENT), "label_smoothing_factor", "it is of the likelihood of a text"),
    Rule(
        _GRPO, "model_init_kwargs", "it is of the reference model, of which there is none without beta",
        lambda c: c.model_init_kwargs and c.beta == 0,
    ),
    Rule(_TEXT + _TOKENIZED, "model_init_kwargs", "the model is loaded before, with options such as dtype"),
    *(
        Rule(
            _GRPO, name, f"it requires loss_type: {loss}",
            lambda c, name=name, loss=loss: _is_changed(c, name) and c.loss_type != loss,
        )
        for loss, names in (
            ("sapo", ("sapo_temperature_pos", "sapo_temperature_neg")),
            ("vespo", ("vespo_k_pos", "vespo_k_neg", "vespo_lambda_pos", "vespo_lambda_neg")),
        )
        for name in names
    ),
    Rule(
        (EXACT, POINTWISE, *_TOKENIZED), "pad_to_multiple_of", "a batch is as long as its longest prompt",
        lambda c: c.pad_to_multiple_of not in ("auto", None),
    ),
    *(
        Rule((EXACT, POINTWISE), name, _NOT_SAMPLED)
        for name in (
            "max_completion_length", "temperature", "top_p", "top_k",
            "min_p", "repetition_penalty", "generation_kwargs", "cache_implementation", "use_vllm",
            "use_transformers_continuous_batching", "mask_truncated_completions", "loss_type", "epsilon",
            "epsilon_high", "delta", "importance_sampling_level",
        )
    ),
    Rule(
        (SAMPLED, REASONING, PPO, RLOO), "use_transformers_continuous_batching, bf16",
        "TRL casts the float32 weights to bfloat16 for good",
        lambda c: c.use_transformers_continuous_batching and c.bf16,
    ),
    Rule(
        (SAMPLED, REASONING, PPO, RLOO), "generation_kwargs", "rewards are of single samples",
        lambda c: any((c.generation_kwargs or {}).get(name, 1) != 1 for name in ("num_beams", "num_return_sequences")),
    ),
    Rule((EXACT, POINTWISE), "off_policy_mask_threshold", "no sampled answer is used again"),
    Rule(
        (EXACT, REASONING, POINTWISE, *_TOKENIZED), "router_aux_loss_coef",
        "its loss has no term for the balance of experts", lambda c: c.router_aux_loss_coef,
    ),
    Rule(
        _GRPO, "chat_template_kwargs", "prompts are rendered once, with thinking on or off as `reasoning` says",
    ),
    Rule((EXACT, POINTWISE), "use_bias_correction_kl", _NOT_SAMPLED),
    Rule((EXACT,), "num_generations", _NOT_SAMPLED),
    Rule(
        (POINTWISE,), "num_generations", f"{_NOT_SAMPLED}; answers: sampled does",
        lambda c: c.answers == "exact" and _is_changed(c, "num_generations"),
    ),
    Rule(
        (POINTWISE,), "num_generations", "samples are compared with each other: expected at least 2",
        lambda c: c.answers == "sampled" and c.num_generations < 2,
    ),
    Rule(
        (POINTWISE,), "scale_rewards", _NOT_DIVIDED,
        lambda c: c.scale_rewards != "none" and (c.answers == "exact" or c.scale_rewards == "batch"),
    ),
    Rule(
        (POINTWISE,), "objective", "sampled scores are rewarded, not their mean",
        lambda c: c.answers == "sampled" and c.objective == "score_of_mean",
    ),
    Rule((POINTWISE,), "shared_prefix", "a response is read once, whatever its votes"),
    *(
        Rule((EXACT, REASONING, POINTWISE), name, _NOT_SAMPLED)
        for name in ("use_adaptive_entropy", "top_entropy_quantile", "structured_answers")
    ),
    Rule((EXACT, REASONING), "scale_rewards", _NOT_SAMPLED, lambda c: c.scale_rewards == "batch"),
    Rule((EXACT, REASONING, PPO, RLOO, POINTWISE), "multi_objective_aggregation", _NOT_DIVIDED),
    *(Rule((POINTWISE,), name, "a score is one digit") for name in ("reasoning", "answer_step")),
    *(Rule((POINTWISE,), name, "a score has no order") for name in ("orders", "symmetry_coef")),
    *(
        Rule((POINTWISE,), name, _FROM_VOTES)
        for name in ("per_device_train_batch_size", "train_sampling_strategy", "shuffle_dataset")
    ),
    Rule(
        (POINTWISE,), "steps_per_generation, generation_batch_size", _FROM_VOTES,
        lambda c: c.steps_per_generation != c.gradient_accumulation_steps,
    ),
    Rule((POINTWISE,), "dataloader_num_workers", "its batches need no loading"),
    Rule((POINTWISE,), "num_iterations", "every batch is used once"),
    Rule((POINTWISE,), "beta", "it has no reference model"),
    Rule((POINTWISE,), "log_completions", "there are no completions"),
    *(
        Rule((EXACT, SAMPLED, REASONING), name, "it requires judgment: pointwise")
        for name in ("score_scale", "batch_tokens")
    ),
    *(Rule((PPO, RLOO), n, "their answers are sampled") for n in ("judgment", "score_scale", "batch_tokens")),
    Rule(
        (EXACT, REASONING), "objective", "score_of_mean requires scale_rewards: none",
        lambda c: c.objective == "score_of_mean" and c.scale_rewards != "none",
    ),
    Rule(
        (EXACT,), "symmetry_coef", "it requires orders: coupled",
        lambda c: c.symmetry_coef != 0 and c.orders == "separate",
    ),
    Rule((REASONING,), "symmetry_coef", "the orders of a pair have different reasonings"),
    Rule((REASONING,), "scale_rewards", "∇V(c) is not divided by a deviation", lambda c: c.scale_rewards == "group"),
    Rule((REASONING,), "loss_type", "it weights a reasoning by its length, but not its answers"),
    Rule(
        (REASONING,), "num_iterations, steps_per_generation", "∇V(c) requires reasonings of the current policy",
        lambda c: c.gradient_accumulation_steps % (c.steps_per_generation * c.num_iterations) != 0,
    ),
    Rule((REASONING,), "mask_truncated_completions", "reasoning that does not end is rewarded as an unparsed answer"),
    Rule((REASONING,), "shared_prefix", "answers are packed after the reasonings"),
    Rule((SAMPLED, PPO, RLOO), "symmetry_coef", "the expected answer is not known"),
    Rule((SAMPLED, PPO, RLOO), "objective", "only answers are rewarded, not their mean"),
    Rule(
        (SAMPLED, PPO, RLOO), "structured_answers", "it requires use_vllm",
        lambda c: c.structured_answers and not c.use_vllm,
    ),
    Rule(
        (SAMPLED, REASONING), "num_generations", "orders: coupled requires an even number",
        lambda c: c.orders == "coupled" and c.num_generations % 2 != 0,
    ),
    Rule((PPO, RLOO), "answers", "the sum over all answers needs no baseline; use recipes/grpo.py"),
    Rule((PPO, RLOO), "loss_type", "its losses are means over tokens"),
    Rule((PPO, RLOO), "importance_sampling_level", "it clips the ratio of a token"),
    Rule((PPO, RLOO), "scale_rewards", f"{_NOT_DIVIDED}; whiten_advantages divides over the batch"),
    Rule((PPO, RLOO), "mask_truncated_completions", "an answer that does not end is rewarded as an unparsed one"),
    Rule((RLOO,), "num_generations", "its baseline is the other answers of the pair", lambda c: c.answers_per_row < 2),
    Rule((RLOO,), "whiten_advantages", "its advantages are differences of rewards"),
    Rule((RLOO,), "kl_in", "its KL is a term of the loss", lambda c: c.beta != 0 and c.kl_in == "reward"),
    Rule(_TEXT, "entropy_coef", "the likelihood of the text has no entropy bonus"),
    Rule(_TEXT + _TOKENIZED, "max_length", "over-long prompts are dropped, see max_prompt_tokens"),
    Rule(_TEXT + _TOKENIZED, "completion_only_loss", "prompts are not learned"),
    Rule(_TEXT + _TOKENIZED, "assistant_only_loss", "only the answer is learned anyway"),
    Rule(_TEXT + _TOKENIZED, "packing", "rows are never joined or cut"),
    Rule(_TOKENIZED, "padding_free", "its batches are padded"),
    Rule(_TOKENIZED, "loss_type", "it is of the likelihood of a text"),
)  # fmt: skip


def check_compatible(config: object, mode: str) -> None:
    """Raises OptionError for the first option that a mode refuses, with the reason."""
    for modes, option, reason, violated_by in RULES:
        if mode in modes and (violated_by(config) if violated_by else _is_changed(config, option)):
            names = option.split(", ")
            settings = ", ".join(f"{name}: {getattr(config, name)}" for name in names)
            raise OptionError(f"{settings} is not compatible with {mode}: {reason}", names)


def is_pointwise(config: object) -> bool:
    """Whether the options of a training are those of a pointwise judge."""
    return getattr(config, "mode", "") == POINTWISE


def _is_changed(config: object, name: str) -> bool:
    return getattr(config, name) != type(config).__dataclass_fields__[name].default
