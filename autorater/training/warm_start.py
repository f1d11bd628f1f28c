"""Warm start: a policy from scratch learns to answer at all, and to answer as raw judges do.

A few hundred steps of supervised learning on single verdicts told in extreme numbers, tilted towards the response
shown second. That is what a raw LLM judge is like (overconfident, slot-biased), it is what the training after it has
to mend, and it is done on purpose:

    answer = sigmoid(sharpness · logit(verdict) + tilt + jitter),    in both orders of a pair

Before a policy from scratch can imitate anybody it has to find out that there are two responses to compare. Single
votes on long responses say too little for that: hundreds of steps pass in vain. A grader that only counts characters
says it plainly, and plainest of responses that are cut to a few words at first and then grow
(`warm_start_verdicts: lengths`). Raw judges are fond of length too, and the votes are there to say how far it counts.

Deliberately left out: the label that the judge is later scored on enters only where a data set has no other verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

from autorater.models.answers import answer_decimals
from autorater.models.sharding import unsharded
from autorater.models.tiny import build_policy
from autorater.prompts.batching import drop_long, pad_prompts
from autorater.prompts.encoder import EncodedPrompt, PromptEncoder
from autorater.training.callbacks import show_progress
from autorater.training.config import JudgeArguments
from autorater.training.data import TrainingData
from autorater.training.sampling import LengthGroupedRepeatSampler
from rewards import CLOSE_TAG, OPEN_TAG, render_answer

_TOKENIZER_TEXTS = 5_000  # about as many pairs are enough


class WarmStartRun(Protocol):
    """What a warm start wants to know of the run that it opens; `answer_step` only where answers are numbers."""

    seed: int
    use_cpu: bool
    output_dir: str
    answer_step: float


@dataclass(frozen=True)
class RawVerdicts:
    """How extreme and how biased the imitated verdicts are.

    Args:
        sharpness: Factor on the verdict's logit; above 1 is overconfident.
        tilt: Logits added for the response shown second.
        jitter: Standard deviation of the noise on the logit, so that the policy learns to use many numbers.
        step: Grid on which the answers are written.
    """

    sharpness: float = 1.8
    tilt: float = 1.0
    jitter: float = 0.3
    step: float = 0.01

    def answers(self, verdicts: np.ndarray, seed: int) -> np.ndarray:
        """Answers for verdicts Pr[B better], shape (N,), in the orders ab and ba: shape (N, 2)."""
        clipped = np.clip(verdicts, 0.02, 0.98)
        logit = self.sharpness * np.log(clipped / (1 - clipped))
        noise = np.random.default_rng(seed).normal(0, self.jitter, size=(len(logit), 2))
        shown_second = np.stack([logit, -logit], axis=1) + self.tilt + noise
        return np.round(np.round(1 / (1 + np.exp(-shown_second)) / self.step) * self.step, 4)


def warm_start(
    model: PreTrainedModel,
    encoder: PromptEncoder,
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]],
    verdicts: np.ndarray,
    *,
    style: RawVerdicts | None = None,
    steps: int = 200,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    growing: bool = False,
    seed: int = 0,
    use_cpu: bool = False,
    output_dir: str | Path,
) -> None:
    """Trains the model in place, on the answer's tokens only.

    Args:
        model: A causal LM.
        encoder: Made the prompts; its tokenizer writes the answers.
        prompts: N prompts in both orders.
        verdicts: Pr[B better] of a single judge or a single vote, shape (N,), in [0, 1].
        style: How the verdicts are told.
        steps, batch_size, learning_rate: Length of the training; the processes divide the batch; the learning rate
            warms up, then falls to 0.
        growing: The prompts are to be learned in their order, which goes from short to long ones.
        seed: Draws jitter and batches.
        use_cpu: Train on the CPU even where there is a GPU.
        output_dir: Needed by the trainer; nothing is saved in it.
    """
    style, tokenizer = style or RawVerdicts(), encoder.tokenizer
    rows: list[AnswerRow] = []
    for both, answers in zip(prompts, style.answers(verdicts, seed), strict=True):
        for prompt, answer in zip(both, answers, strict=True):
            text = render_answer(answer, answer_decimals(style.step)) + CLOSE_TAG
            answer_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            rows.append({"prompt_ids": prompt.ids, "answer_ids": [*answer_ids, tokenizer.eos_token_id]})
    learn_answers(
        model,
        tokenizer,
        rows,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        growing=growing,
        seed=seed,
        use_cpu=use_cpu,
        output_dir=output_dir,
    )


class AnswerRow(TypedDict):
    """A prompt and the answer to be learned behind it, as token ids."""

    prompt_ids: list[int]
    answer_ids: list[int]


@unsharded()
def learn_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[AnswerRow],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    growing: bool,
    seed: int,
    use_cpu: bool,
    output_dir: str | Path,
) -> None:
    """Supervised learning of given answers, in place; arguments as in `warm_start`."""
    args = TrainingArguments(
        output_dir=str(output_dir),
        max_steps=steps,
        per_device_train_batch_size=max(1, batch_size // PartialState().num_processes),
        learning_rate=learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(20, steps // 5),
        adam_beta2=0.98,  # 0.999 would remember the first gradients for longer than the whole warm start
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        seed=seed,
        use_cpu=use_cpu,
        ddp_find_unused_parameters=False,
    )

    def collate(batch: list[dict]) -> dict[str, torch.Tensor]:
        ids, mask = pad_prompts([row["prompt_ids"] + row["answer_ids"] for row in batch], tokenizer.pad_token_id)
        answers, is_answer = pad_prompts([row["answer_ids"] for row in batch], tokenizer.pad_token_id)
        return {"input_ids": ids, "attention_mask": mask, "labels": answers.masked_fill(is_answer == 0, -100)}

    kind = _GrowingAnswerTrainer if growing else _AnswerTrainer
    trainer = kind(model, args=args, train_dataset=Dataset.from_list(rows), data_collator=collate)
    show_progress(trainer)
    trainer.train()


class _AnswerTrainer(Trainer):
    """Supervised learning of the last C tokens; only they go through the head (`SFTTrainer` scores every position)."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")  # (B, C), −100 in front of shorter answers
        logits = model(**inputs, logits_to_keep=labels.shape[1] + 1, use_cache=False).logits[:, :-1]  # (B, C, V)
        return cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)


class _GrowingAnswerTrainer(_AnswerTrainer):
    """The same, row after row; prompts of like length share a batch."""

    def _get_train_sampler(self, train_dataset=None):
        lengths = [len(ids) for ids in self.train_dataset["prompt_ids"]]
        batch_size = self.args.train_batch_size * self.args.world_size
        return LengthGroupedRepeatSampler(
            lengths, mini_repeat_count=1, batch_size=batch_size, seed=self.args.seed, in_order=True
        )


def build_warm_policy(args: JudgeArguments, training: WarmStartRun, data: TrainingData) -> str:
    """Builds a policy from scratch on the training texts, warm-starts it and saves it.

    Returns:
        The folder it is saved in, `output_dir/warm_start`; a reference model or a LoRA adapter finds its base there.
    """
    layout = args.prompt_format.text + "".join(str(d) for d in range(10)) + OPEN_TAG + CLOSE_TAG
    texts = [(pair.prompt, pair.response_a, pair.response_b) for pair in data.train]
    model, tokenizer = new_policy(args, training.seed, texts, layout)
    encoder = PromptEncoder(tokenizer, args.prompt_format)
    if args.warm_start_steps:
        verdicts, prompts, _ = drop_long(data.verdicts, encoder.encode(data.judged), args.max_prompt_tokens)
        warm_start(
            model,
            encoder,
            prompts,
            np.array(verdicts),
            style=RawVerdicts(
                args.warm_start_sharpness, args.warm_start_tilt, args.warm_start_jitter, training.answer_step
            ),
            steps=args.warm_start_steps,
            batch_size=args.warm_start_batch_size,
            learning_rate=args.warm_start_learning_rate,
            growing=args.warm_start_verdicts == "lengths",
            seed=training.seed,
            use_cpu=training.use_cpu,
            output_dir=training.output_dir,
        )
    return save_policy(model, tokenizer, training.output_dir)


def new_policy(
    args: JudgeArguments, seed: int, texts: Sequence[Sequence[str]], layout: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A policy with random weights whose tokenizer knows the texts and the layout around them."""
    some = texts[:: max(1, len(texts) // _TOKENIZER_TEXTS)]  # from all over the file: it may be sorted
    return build_policy(
        [text for row in some for text in (*row, layout)],
        vocab_size=args.policy_vocab_size,
        hidden_size=args.policy_hidden_size,
        num_layers=args.policy_num_layers,
        num_heads=args.policy_num_heads,
        rope_theta=args.policy_rope_theta,
        max_length=args.max_prompt_tokens + 32,
        seed=seed,
    )


def save_policy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output_dir: str) -> str:
    folder, state = Path(output_dir, "warm_start"), PartialState()
    if state.is_main_process:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    state.wait_for_everyone()
    return str(folder)
