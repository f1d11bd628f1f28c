"""Supervised training of a judge: `trl.SFTTrainer` on vote shares, both orders of every pair.

    text             −log π(share as text | x): the dense setting of "Judging with Confidence" (2510.00263)
    tokenized_brier  −Σ_k π(k|x) S(k, y) − (1 − Σ_k π(k|x)) S_invalid, S Brier's rule: 1 − (k − y)², invalid 0
    tokenized_log    the same with the logarithmic rule

The last two use the exact answer distribution (`autorater.training.exact_loss`), as in ConfTuner (2508.18847), which
treats its 101 confidences as single tokens and normalizes by their mass. Here answers may have several tokens, and
mass outside the grid is rewarded as the worst answer, so that the format is learned too. Without an entropy bonus
their optimum is one sharp answer; `entropy_coef` acts as in GRPO.

What the prompts of a batch begin with is processed once (`autorater.models.shared_beginning`), with the text too:
there TRL's `compute_loss` gets the scores of the answers in place of those of whole rows, and sums them as before.

Prompts are tokenized before (`autorater.prompts.encoder`), so that a response stays data; TRL uses the ids unchanged.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

import rewards
from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.models.answers import AnswerTree
from autorater.models.shared_prefix import suffix_logits
from autorater.models.suffixes import branch_suffixes
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.checkpointing.resumable import ResumableTrainer
from autorater.training.compatibility import check_compatible
from autorater.training.config import RunConfig, check_values, option
from autorater.training.data import answer_tokens, training_rows
from autorater.training.exact_loss import ExactLoss, WeightedReward
from autorater.training.faults import check_lengths
from autorater.training.prefix_sharing import PrefixSharing

# inputs of a call of the model that TRL makes for the scores of the labels of unpacked rows
_SCORED = {"input_ids", "attention_mask", "labels", "use_cache", "fused_lm_head"}


@dataclass
class JudgeSFTConfig(RunConfig, SFTConfig):
    """`SFTConfig` for judges: tokenized prompts, loss on the answer alone, nothing truncated."""

    objective: Literal["text", "tokenized_brier", "tokenized_log"] = option(
        "text", "`text`: likelihood of the share's tokens; others: a score summed over the answer grid."
    )
    answer_step: float = option(0.01, "Step of the answer grid, e.g. 0.01, 0.05 or 0.1.")
    entropy_coef: float = option(0.0, "Weight of the entropy bonus of the tokenized objectives.")
    max_length: int | None = option(None, "Must be off: over-long prompts are dropped, see max_prompt_tokens.")
    completion_only_loss: bool | None = option(True, "Must be on: only the answer is learned.")

    def __post_init__(self):
        check_values(self)
        check_compatible(self, self.objective)
        if self.objective != "text":
            self.dataset_kwargs = {**(self.dataset_kwargs or {}), "skip_prepare_dataset": True}
        super().__post_init__()


def sft_rows(
    pairs: Sequence[Pair],
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]],
    tokenizer: PreTrainedTokenizerBase,
    config: JudgeSFTConfig,
) -> list[dict]:
    """Rows for `datasets.Dataset.from_list`, one per pair and order (swap augmentation).

    With `objective: text` they hold `input_ids` and `labels` (−100 on the prompt) with the share as the nearest answer
    of the grid. Otherwise they are those of `training_rows`.
    """
    sides = training_rows(pairs, prompts, "separate")
    for side in sides:
        side["length"] = len(side["prompt_ids"])
    if config.objective != "text":
        return sides
    rows = []
    for side in sides:
        nearest = round(side["label"] / config.answer_step) * config.answer_step
        answer = answer_tokens(tokenizer, min(nearest, 1.0), config.answer_step)
        prompt = side["prompt_ids"]
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer, "length": side["length"]})
    return rows


class JudgeSFTTrainer(PrefixSharing, ResumableTrainer, SFTTrainer):
    """Trains a judge on rows of `sft_rows`; arguments as in `trl.SFTTrainer`.

    The tokenized objectives require `answer_tree`, the answers for this tokenizer's prompts.
    """

    _tag_names = ("trl", "sft", "autorater")

    def __init__(self, model, args: JudgeSFTConfig, answer_tree: AnswerTree | None = None, **kwargs):
        self.answer_tree, self.loss = answer_tree, None
        if args.objective != "text":
            if answer_tree is None:
                raise UserError(f"objective: {args.objective} requires an answer_tree")
            reward = {"tokenized_brier": rewards.brier_reward, "tokenized_log": rewards.log_reward}[args.objective]
            self.loss = ExactLoss(WeightedReward([reward], [1.0]), coupled=False, entropy_coef=args.entropy_coef)
            kwargs["data_collator"] = self._collate
        self.can_repeat = self.loss is not None
        super().__init__(model=model, args=args, **kwargs)
        self.aux_loss_enabled = self.aux_loss_enabled and self.loss is None
        self._start_sharing()
        if self.share_prefix and self.label_smoother is not None and args.loss_type == "nll":
            warnings.warn(
                f"label_smoothing_factor: {args.label_smoothing_factor} requires the logits of whole rows, so the "
                "loss shares no prompts; the logged entropy and accuracy do",
                RuntimeWarning,
                stacklevel=2,
            )
        if args.objective == "text":
            check_lengths(self.model, self.train_dataset["input_ids"], 0, "input_ids")
        else:
            check_lengths(self.model, self.train_dataset["prompt_ids"], answer_tree.longest, "prompt_ids")

    def _collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        ids, mask = pad_prompts([row["prompt_ids"] for row in rows], self._tokenizer.pad_token_id)
        return {"prompt_ids": ids, "prompt_mask": mask, "label": torch.tensor([row["label"] for row in rows])}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.loss is None:
            called = partial(self._answer_scores, model)
            return super().compute_loss(called, inputs, return_outputs, num_items_in_batch)
        closing = self.loss.closing(self.answer_tree, self.state.global_step)
        answers = self.answer_tree.distribution(model, inputs["prompt_ids"], inputs["prompt_mask"], closing)
        loss, log = self.loss(answers, inputs["label"])
        mode = "train" if self.model.training else "eval"
        for name, values in log.items():
            self._metrics[mode][name].append(self.accelerator.gather(values).mean().item())
        return self.finite(loss)

    def _answer_scores(self, model, **inputs):
        """TRL's `model(**inputs)`, with scores (B, C) of the answers alone where prompts are shared."""
        other = inputs.keys() ^ _SCORED
        if other and self.share_prefix and "labels" in inputs:  # without labels TRL needs the logits of whole rows
            differing = ", ".join(sorted(other))
            self._disable_shared_prefix(f"TRL's call of the model differs from that for padded rows in {differing}")
        if other or not self.share_prefix:
            return model(**inputs)
        learned = inputs["labels"] != -100
        starts = learned.int().argmax(dim=1).tolist()
        prompts = [ids[:start].tolist() for ids, start in zip(inputs["input_ids"], starts, strict=True)]
        answers = [ids[own].tolist() for ids, own in zip(inputs["input_ids"], learned, strict=True)]
        pad, device = self._tokenizer.pad_token_id, inputs["input_ids"].device
        prompt_ids, prompt_mask = pad_prompts(prompts, pad, device)
        ids, mask = pad_prompts(answers, pad, device, side="right")  # (B, C)
        batch = prompt_ids, prompt_mask, ids[:, None], mask[:, None]
        if not self._sharing_is_exact(model, *(x[:1] for x in batch)):
            return model(**inputs)
        suffixes = branch_suffixes(ids[:, None, :-1], mask[:, None, :-1])  # nothing follows the last token
        log_probs = suffix_logits(model, prompt_ids, prompt_mask, suffixes).float().log_softmax(dim=-1)
        scores = {"log_probs": log_probs.gather(-1, ids[..., None])[..., 0]}  # (B, C)
        with torch.no_grad():
            scores["entropy"] = torch.special.entr(log_probs.exp()).sum(dim=-1)
            scores["is_top1"] = log_probs.argmax(dim=-1) == ids
        padding = ~mask.bool()
        scores = {name: values.masked_fill(padding, 0) for name, values in scores.items()}
        return FusedCausalLMOutput(**scores, label_mask=~padding)
