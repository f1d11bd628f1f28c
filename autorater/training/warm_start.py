"""Warm start: a policy from scratch learns to answer, and to answer as raw LLM judges do.

Supervised learning on single verdicts as extreme probabilities that favour the second response. Raw LLM judges are
overconfident and position-biased in this way, and the training afterwards has to correct it:

    answer = sigmoid(sharpness · logit(verdict) + tilt + jitter),    in both orders of a pair

A policy from scratch first has to learn that there are two responses to compare. Single votes on long responses carry
too little signal for that. Verdicts that compare lengths are clear, above all on responses that grow from a few words
(`warm_start_verdicts: lengths`); the votes later teach how much length counts.

Deliberately left out: labels. They are used only if a dataset has no other verdict.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from scipy.special import expit, logit
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from autorater.data.errors import UserError
from autorater.data.messages import plain_text
from autorater.models.saving import replacing_weights
from autorater.models.sharding import unsharded
from autorater.models.tiny import build_policy
from autorater.prompts.batching import drop_long, pad_prompts
from autorater.prompts.encoder import EncodedPrompt, PromptEncoder
from autorater.training.arguments import JudgeArguments, PolicyArguments
from autorater.training.callbacks import show_progress
from autorater.training.checkpointing.checkpoints import writes_to
from autorater.training.compatibility import POINTWISE, is_pointwise
from autorater.training.data import WARM_START_BATCH_SIZE as BATCH_SIZE
from autorater.training.data import TrainingData, answer_tokens
from autorater.training.sampling import LengthGroupedRepeatSampler
from rewards import CLOSE_TAG, OPEN_TAG

CLUSTER = 4
"""Texts that a pairwise judge with a teacher compares at a time."""
PROMPTS_A_ROW = CLUSTER * (CLUSTER - 1)
"""Their prompts: all pairs in both orders."""
OF_MEMORY = (
    "optim", "optim_args", "optim_target_modules", "gradient_checkpointing", "gradient_checkpointing_kwargs"
)  # fmt: skip
"""Options of the training that a warm start and the run of a teacher share, since they fit the model into memory."""
SHARPNESS = 1.8  # default factor on the logit of a verdict
_JITTER = 0.3  # standard deviation of the noise on a logit, so that the policy learns many numbers
_LEARNING_RATE = 2e-3
_TOKENIZER_TEXTS = 5_000  # about as many pairs are enough


def check_warm_start(args: PolicyArguments, training: TrainingArguments, pretrained: bool) -> None:
    """Raises UserError if the options `warm_start_…` are not compatible with each other or with the training."""
    steps, size, pointwise = args.warm_start_steps, args.warm_start_batch_size, is_pointwise(training)
    teacher = f"warm_start_verdicts: {args.teacher}"
    if args.teacher and not pretrained:
        raise UserError(f"{teacher} teaches a pretrained model; set model_name_or_path, or expected opinions, lengths")
    if args.teacher and not steps:
        raise UserError(f"{teacher} has no effect, because warm_start_steps is 0; set the number of steps")
    if args.teacher and size and size % PROMPTS_A_ROW:
        raise UserError(f"warm_start_batch_size: got {size}; expected a multiple of {PROMPTS_A_ROW} with a teacher")
    if args.warm_start_sharpness is not None and args.warm_start_sharpness <= 0:
        raise UserError(f"warm_start_sharpness: got {args.warm_start_sharpness:g}; expected a factor above 0")
    if steps and pointwise and not args.teacher:
        raise UserError(
            f"warm_start_steps: {steps} is not compatible with {POINTWISE}: without a teacher it teaches verbalized "
            "probabilities, and a pointwise judge writes a digit; set model_name_or_path and warm_start_steps: 0, or "
            "name a teacher in warm_start_verdicts"
        )
    if steps and pretrained and getattr(training, "reasoning", False):
        raise UserError("warm_start_steps teaches answers without reasoning; train without reasoning first")
    if steps and pretrained and is_deepspeed_zero3_enabled():
        raise UserError(
            "warm_start_steps: a model that ZeRO-3 shards cannot be warm-started; do it without sharding, e.g. with "
            "--use_peft, and train its folder warm_start"
        )


def raw_answers(
    verdicts: np.ndarray, seed: int, sharpness: float = SHARPNESS, tilt: float = 1.0, step: float = 0.01
) -> np.ndarray:
    """Overconfident answers in the orders ab and ba, shape (N, 2), that favour the second response.

    Args:
        verdicts: Pr[B better] of a single judge or a single vote, shape (N,), in [0, 1].
        sharpness: Factor on a verdict's logit; above 1 is overconfident.
        tilt: Logits added for the response shown second.
    """
    clipped = np.clip(verdicts, 0.02, 0.98)
    logits = sharpness * logit(clipped)
    noise = np.random.default_rng(seed).normal(0, _JITTER, size=(len(logits), 2))
    shown_second = np.stack([logits, -logits], axis=1) + tilt + noise
    return np.round(np.round(expit(shown_second) / step) * step, 4)


def raw_answer_rows(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]],
    verdicts: np.ndarray,
    args: PolicyArguments,
    seed: int,
    answer_step: float = 0.01,
) -> list[dict]:
    """Rows with the raw answers of `raw_answers` after N prompts in both orders; `verdicts` has the shape (N,)."""
    sharpness = SHARPNESS if args.warm_start_sharpness is None else args.warm_start_sharpness
    answers = raw_answers(verdicts, seed, sharpness, args.warm_start_tilt, answer_step)
    return [
        {"prompt_ids": prompt.ids, "answer_ids": answer_tokens(tokenizer, answer, answer_step)}
        for both, of_both in zip(prompts, answers, strict=True)
        for prompt, answer in zip(both, of_both, strict=True)
    ]


@unsharded()
def learn_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    args: PolicyArguments,
    training: TrainingArguments,
) -> None:
    """Supervised learning of rows of `prompt_ids` and `answer_ids`, in place; the processes divide a batch."""
    rate = args.warm_start_learning_rate or _LEARNING_RATE
    options = warm_start_options(args, training, args.warm_start_batch_size or BATCH_SIZE, rate)

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        ids, mask = pad_prompts([row["prompt_ids"] + row["answer_ids"] for row in batch], tokenizer.pad_token_id)
        answers, is_answer = pad_prompts([row["answer_ids"] for row in batch], tokenizer.pad_token_id)
        return {"input_ids": ids, "attention_mask": mask, "labels": answers.masked_fill(is_answer == 0, -100)}

    trainer = _AnswerTrainer(model, args=options, train_dataset=Dataset.from_list(rows), data_collator=collate)
    trainer.growing = args.warm_start_verdicts == "lengths"
    show_progress(trainer, "warm start")
    trainer.train()


def warm_start_options(
    args: PolicyArguments, training: TrainingArguments, batch_size: int, learning_rate: float, **options
) -> TrainingArguments:
    """Options of the `Trainer` of a warm start, which by default saves and logs nothing; processes divide a batch."""
    defaults = {
        "output_dir": training.output_dir,  # required
        "max_steps": args.warm_start_steps,
        "per_device_train_batch_size": max(1, batch_size // PartialState().num_processes),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(20, args.warm_start_steps // 5),
        "adam_beta2": 0.98,  # 0.999 averages the first gradients over more than the whole warm start
        "remove_unused_columns": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "seed": training.seed,
        "bf16": training.bf16,
        "use_cpu": training.use_cpu,
        "disable_tqdm": training.disable_tqdm,
        "ddp_find_unused_parameters": False,
    }
    return TrainingArguments(**defaults | {name: getattr(training, name) for name in OF_MEMORY} | options)


class _AnswerTrainer(Trainer):
    """Supervised learning of the last C tokens; only their logits are computed (`SFTTrainer` computes all).

    `growing` rows are in order of length and are learned in this order.
    """

    growing = False

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")  # (B, C), −100 in front of shorter answers
        logits = model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1]  # (B, C, V)
        return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)

    def _get_train_sampler(self, train_dataset=None):
        if not self.growing:
            return super()._get_train_sampler(train_dataset)
        lengths = [len(ids) for ids in self.train_dataset["prompt_ids"]]
        batch_size = self.args.train_batch_size * self.args.world_size
        return LengthGroupedRepeatSampler(lengths, 1, batch_size, seed=self.args.seed, in_order=True)


def build_warm_policy(args: JudgeArguments, training: TrainingArguments, data: TrainingData) -> str:
    """Builds a policy from scratch on the training texts, warm-starts and saves it; returns its folder."""

    def rows(tokenizer: PreTrainedTokenizerBase) -> list[dict]:
        encoded = PromptEncoder(tokenizer, args.prompt_format).encode(data.warm_start)
        verdicts, prompts, _ = drop_long(data.verdicts, encoded, args.max_prompt_tokens)
        return raw_answer_rows(tokenizer, prompts, np.array(verdicts), args, training.seed, training.answer_step)

    texts = [[plain_text(text) for text in (pair.prompt, pair.response_a, pair.response_b)] for pair in data.train]
    prompt_format = args.score_format if is_pointwise(training) else args.prompt_format
    layout = prompt_format.text + "".join(str(d) for d in range(10)) + OPEN_TAG + CLOSE_TAG
    return warm_started(args, training, texts, layout, rows)


def warm_started(
    args: PolicyArguments,
    training: TrainingArguments,
    texts: Sequence[Sequence[str]],
    layout: str,
    rows: Callable[[PreTrainedTokenizerBase], list[dict]],
) -> str:
    """Builds a policy from scratch, teaches it the `rows` for its tokenizer and saves it; returns its folder.

    The tokenizer is trained on the texts of the training data and the layout around them. A reference model or a LoRA
    adapter uses the folder, `output_dir/warm_start`, as base. `UserError` if there are no rows to teach.
    """
    some = texts[:: max(1, len(texts) // _TOKENIZER_TEXTS)]  # from the whole file, which may be sorted
    model, tokenizer = build_policy(
        [text for row in some for text in (*row, layout)],
        vocab_size=args.policy_vocab_size,
        hidden_size=args.policy_hidden_size,
        num_layers=args.policy_num_layers,
        num_heads=args.policy_num_heads,
        rope_theta=args.policy_rope_theta,
        max_length=args.max_prompt_tokens + 32,
        seed=training.seed,
    )
    if args.warm_start_steps:
        fitting = rows(tokenizer)
        if not fitting:
            raise UserError(f"no training pair or item has a prompt of at most {args.max_prompt_tokens} tokens")
        learn_answers(model, tokenizer, fitting, args, training)
    return save_warm_start(model, tokenizer, training)


def save_warm_start(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, training: TrainingArguments) -> str:
    """Saves a warm-started model in `output_dir/warm_start`; returns this folder."""
    folder, state = Path(training.output_dir, "warm_start"), PartialState()
    if state.is_main_process:
        with writes_to(folder), replacing_weights(folder):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    state.wait_for_everyone()
    return str(folder)
