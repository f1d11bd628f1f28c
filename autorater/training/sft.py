"""Supervised training of a judge that verbalizes: `trl.SFTTrainer` on vote shares, both orders of every pair.

    text             −log π(share written as text | x): the dense setting of "Judging with Confidence" (2510.00263)
    tokenized_brier  −Σ_k π(k|x) S(k, y) − (1 − Σ_k π(k|x)) S_invalid, S Brier's rule: 1 − (k − y)², invalid 0
    tokenized_log    the same with the logarithmic rule

The last two are on the exact answer distribution (`autorater.training.exact_loss`), as in ConfTuner (2508.18847), which
takes its 101 confidences for single tokens and divides by their mass; here answers may have several tokens, and mass
outside the grid is paid as the worst answer, so that the format is learned too. Without an entropy bonus they push
towards one sharp answer, which is their optimum; `entropy_coef` is there, as in GRPO.

Prompts arrive tokenized (`autorater.prompts.encoder`), so that a response stays data; TRL reads the ids as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

import rewards
from autorater.data.pairs import Pair
from autorater.models.answers import AnswerTree, answer_decimals
from autorater.prompts.batching import pad_prompts
from autorater.prompts.encoder import EncodedPrompt
from autorater.training.checkpointing.resumable import ResumableTrainer
from autorater.training.config import CLOSING_COEF, RunConfig, check_choices
from autorater.training.exact_loss import ExactObjective, WeightedReward
from autorater.training.faults import check_lengths
from autorater.training.grpo import training_rows
from rewards import CLOSE_TAG, render_answer


@dataclass
class JudgeSFTConfig(RunConfig, SFTConfig):
    """`SFTConfig` for judges: tokenized prompts, loss on the answer alone, nothing truncated."""

    objective: Literal["text", "tokenized_brier", "tokenized_log"] = field(
        default="text",
        metadata={"help": "`text`: likelihood of the share's tokens; else a score summed over the answer grid."},
    )
    answer_step: float = field(default=0.01, metadata={"help": "Step of the answer grid, e.g. 0.01, 0.05 or 0.1."})
    entropy_coef: float = field(
        default=0.0, metadata={"help": "Weight of the entropy bonus of the tokenized objectives."}
    )
    closing_coef: float = field(
        default=CLOSING_COEF,
        metadata={"help": "Weight of the closing tag's log-likelihood in the tokenized objectives; text has it."},
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Kept off: long prompts are left out, see max_prompt_tokens; none is cut."}
    )
    completion_only_loss: bool | None = field(default=True, metadata={"help": "Kept on: only the answer is learned."})

    def __post_init__(self):
        check_choices(self)
        if self.entropy_coef and self.objective == "text":
            raise ValueError("entropy_coef goes with the tokenized objectives; text has none")
        if self.objective != "text":
            self.dataset_kwargs = {**(self.dataset_kwargs or {}), "skip_prepare_dataset": True}
        super().__post_init__()


def sft_rows(
    pairs: Sequence[Pair],
    prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]],
    tokenizer: PreTrainedTokenizerBase,
    config: JudgeSFTConfig,
) -> list[dict]:
    """Rows for `datasets.Dataset.from_list`, one a pair and order (swap augmentation).

    With `objective: text` they hold `input_ids` and `labels` (−100 on the prompt); the share is written as the nearest
    answer on the grid. Else they are those of `training_rows`.
    """
    sides = training_rows(pairs, prompts, "separate")
    for side in sides:
        side["length"] = len(side["prompt_ids"])
    if config.objective != "text":
        return sides
    rows = []
    for side in sides:
        nearest = round(side["label"] / config.answer_step) * config.answer_step
        text = render_answer(min(nearest, 1.0), answer_decimals(config.answer_step)) + CLOSE_TAG
        answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        prompt = side["prompt_ids"]
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer, "length": side["length"]})
    return rows


class JudgeSFTTrainer(ResumableTrainer, SFTTrainer):
    """Trains a judge on rows of `sft_rows`.

    Args:
        answer_tree: The answers behind this tokenizer's prompts, for the tokenized objectives.
        kwargs: Everything else as in `trl.SFTTrainer`.
    """

    _tag_names = ("trl", "sft", "autorater")

    def __init__(self, model, args: JudgeSFTConfig, answer_tree: AnswerTree | None = None, **kwargs):
        self.answer_tree, self.objective = answer_tree, None
        if args.objective != "text":
            if answer_tree is None:
                raise ValueError(f"objective: {args.objective} needs an answer_tree")
            reward = {"tokenized_brier": rewards.brier_reward, "tokenized_log": rewards.log_reward}[args.objective]
            self.objective = ExactObjective(
                WeightedReward([reward], [1.0]),
                coupled=False,
                entropy_coef=args.entropy_coef,
                closing_coef=args.closing_coef,
            )
            kwargs["data_collator"] = self._collate
        super().__init__(model=model, args=args, **kwargs)
        column, behind = ("input_ids", 0) if args.objective == "text" else ("prompt_ids", answer_tree.depth)
        check_lengths(self.model, self.train_dataset[column], behind, column)

    def _collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        ids, mask = pad_prompts([row["prompt_ids"] for row in rows], self._tokenizer.pad_token_id)
        return {"prompt_ids": ids, "prompt_mask": mask, "label": torch.tensor([row["label"] for row in rows])}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if self.objective is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        closing = self.objective.closing(self.answer_tree, self.state.global_step)
        answers = self.answer_tree.distribution(model, inputs["prompt_ids"], inputs["prompt_mask"], closing)
        loss, log = self.objective(answers, inputs["label"])
        mode = "train" if self.model.training else "eval"
        for name, values in log.items():
            self._metrics[mode][name].append(self.accelerator.gather(values).mean().item())
        return self.finite(loss)
