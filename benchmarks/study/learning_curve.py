"""The learning curve of a training run: cost and calibration every few steps.

Cost includes optimizer steps only, from before generation until after the update; evaluation is excluded.

    seconds   CPU time of this process, all threads; other load on the machine does not count
    tokens    positions processed by the model, including padding: prompts, sampled answers, answer trees. Cached
              positions are not counted again, so this is the work of this implementation
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedModel, TrainerCallback

from autorater.data.pairs import Pair
from autorater.evaluation.judge import evaluate
from autorater.judges import Judge
from autorater.prompts.encoder import EncodedPrompt

WATCHED = ("excess_brier", "brier", "gap", "symmetry_deviation_abs", "agreement", "sharpness", "parse_rate")


class LearningCurve(TrainerCallback):
    """Counts seconds and tokens of training steps, and evaluates the judge between them.

    Args:
        judge: Judge of the trained model.
        pairs, prompts: Held-out pairs; a subset is taken evenly (a file may be sorted).
        n_pairs: Size of the subset.
        every: Steps between evaluations; 0 for none.

    Attributes:
        seconds, tokens: Totals so far.
        points: One dictionary per evaluation: `step`, `seconds`, `tokens` and the watched metrics.
    """

    def __init__(
        self,
        judge: Judge,
        pairs: Sequence[Pair],
        prompts: Sequence[tuple[EncodedPrompt, EncodedPrompt]],
        n_pairs: int,
        every: int,
    ):
        rows = np.linspace(0, len(pairs), min(n_pairs, len(pairs)), endpoint=False).astype(int)
        self.pairs, self.prompts = [pairs[i] for i in rows], [prompts[i] for i in rows]
        self.judge, self.every = judge, every
        self.seconds, self.tokens, self.points = 0.0, 0, []
        self._began: float | None = None

    def watch(self, model: PreTrainedModel) -> None:
        """Counts the tokens of this model."""
        model.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, module, inputs, output) -> None:
        if self._began is not None:
            self.tokens += inputs[0].numel()

    def on_train_begin(self, args, state, control, **kwargs):
        self._measure(0)

    def on_step_begin(self, args, state, control, **kwargs):
        self._began = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds += time.process_time() - self._began
        self._began = None
        self._measure(state.global_step)

    def _measure(self, step: int) -> None:
        if not self.every or step % self.every:
            return
        metrics = evaluate(self.judge, self.pairs, self.prompts, n_bootstrap=0).metrics
        watched = {name: metrics[name] for name in WATCHED if name in metrics}
        self.points.append({"step": step, "seconds": self.seconds, "tokens": self.tokens, **watched})
