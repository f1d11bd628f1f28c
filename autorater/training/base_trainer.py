"""What the trainers of judges share: `trl.GRPOTrainer` on tokenized prompts, in both orders of a pair.

Hooks of TRL that are overridden here: `_get_train_sampler` groups prompts by length; `_tokenize_prompts` returns the
token ids made when the data was loaded, because TRL's tokenization would turn text of a response into control tokens.

Deliberately left out: TRL's evaluation loop, which generates; `CalibrationCallback` evaluates judges.
"""

import warnings

import torch
from trl import GRPOTrainer

from autorater.data.errors import UserError
from autorater.models.answers import AnswerTree
from autorater.models.distribution import AnswerDistribution
from autorater.training.checkpointing.resumable import ResumableTrainer
from autorater.training.config import JudgeGRPOConfig
from autorater.training.faults import check_batch, check_lengths
from autorater.training.prefix_sharing import PrefixSharing
from autorater.training.sampling import LengthGroupedRepeatSampler


class JudgeTrainer(PrefixSharing, ResumableTrainer, GRPOTrainer):
    """Trains a judge on rows of `training_rows`; arguments as in `trl.GRPOTrainer`.

    Exact answers require `answer_tree`, the answers for this tokenizer's prompts, and rewards of `rewards/`, which can
    score a whole grid. `unparsed_batches` counts the batches without a single parsed answer.
    """

    _tag_names = ("trl", "grpo", "autorater")

    def __init__(self, model, reward_funcs, args: JudgeGRPOConfig, answer_tree: AnswerTree | None = None, **kwargs):
        self.answer_tree, self.unparsed_batches = answer_tree, 0
        super().__init__(model=model, reward_funcs=reward_funcs, args=args, **kwargs)
        self._prompt_ids: list[list[int]] = []
        self._start_sharing(args.shared_prefix)
        for column in ("prompt_ids", "swapped_prompt_ids"):
            if column in (self.train_dataset.column_names or ()):  # None: a stream of unknown columns
                check_lengths(self.model, self.train_dataset[column], self.suffix_length, column)

    @property
    def suffix_length(self) -> int:
        """Most tokens after a prompt."""
        return self.max_completion_length

    def _check_scores_grid(self) -> None:
        if self.answer_tree is None:
            raise UserError("answers: exact requires an answer_tree")
        for reward in self.reward_funcs:
            if not hasattr(reward, "score"):
                name = getattr(reward, "__name__", reward)
                raise UserError(
                    f"answers: exact requires rewards that score a grid (score, invalid_score); {name} does not"
                )

    def _get_train_sampler(self, dataset=None):
        check_batch(len(self.train_dataset), self.args)
        if self.args.train_sampling_strategy != "group_by_length" or not self.shuffle_dataset:
            return super()._get_train_sampler(dataset)
        return LengthGroupedRepeatSampler(
            [len(ids) for ids in self.train_dataset["prompt_ids"]],
            mini_repeat_count=self.num_generations,
            batch_size=self.args.rows_a_batch,
            repeat_count=self.num_iterations * self.args.steps_per_generation,
            seed=self.args.seed,
        )

    def _tokenize_prompts(self, prompts: list):
        return self._prompt_ids, None, {}

    @property
    def phase(self) -> str:
        """`train` or `eval`, the keys of TRL's metrics."""
        return "train" if self.model.training else "eval"

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches by which a training loss is divided."""
        return self.current_gradient_accumulation_steps if self.phase == "train" else 1

    def _labels(self, rows: list[dict]) -> torch.Tensor:
        return torch.tensor([row["label"] for row in rows], dtype=torch.float32, device=self.accelerator.device)

    def _log_distributions(
        self, answers: AnswerDistribution, log: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], list[float]]:
        """Logs the values of a loss and statistics of the answers; returns values and modes of all processes."""
        metrics = self._metrics[self.phase]
        gathered = {name: self.accelerator.gather(values) for name, values in log.items()}
        for name, values in gathered.items():
            metrics[name].append(values.float().mean().item())
        modes, probs = self.accelerator.gather((answers.mode.detach(), answers.probs.detach()))
        metrics["answers/distinct"].append(len(modes.unique()))
        metrics["answers/fraction_at_0"].append(probs[:, 0].mean().item())
        metrics["answers/fraction_at_1"].append(probs[:, -1].mean().item())
        self._count_unparsed()
        return gathered, modes.tolist()

    def _count_unparsed(self) -> None:
        if self.phase == "train" and self._metrics["train"].get("answers/parse_rate", [])[-1:] == [0]:
            self.unparsed_batches += 1
            if self.unparsed_batches == 1:
                warnings.warn(
                    f"step {self.state.global_step + 1}: no answer of the batch parses, so all rewards are equal; "
                    "such batches are counted in answers/unparsed_batches",
                    RuntimeWarning,
                    stacklevel=2,
                )
        self._metrics[self.phase]["answers/unparsed_batches"] = [self.unparsed_batches]


def swapped(row: dict) -> dict:
    """A row of coupled orders with the swapped prompt first."""
    return {
        **row,
        "prompt": row["swapped_prompt"],
        "prompt_ids": row["swapped_prompt_ids"],
        "label": 1 - row["label"],
    }
