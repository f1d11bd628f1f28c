"""The course of a training: what it has cost and how calibrated the judge is, every few steps.

Cost is counted in optimizer steps only, from before generation until after the update; measuring is not part of it.

    seconds   CPU time of this process, all its threads together: what others do on the machine does not stretch it
    tokens    positions that go through the model, padding included: prompts, sampled answers, answer trees. One that
              is read from a cache is not counted again, so the figure is the work of this implementation
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


class Course(TrainerCallback):
    """Counts seconds and tokens of training steps, and measures the judge between them.

    Args:
        judge: Reads the model that is trained.
        pairs, prompts: What it is measured on, taken evenly from all of them (a file may be sorted).
        n_pairs: How many of them.
        every: Steps between measurements; 0 for none.

    Attributes:
        seconds, tokens: So far.
        points: A measurement each: `step`, `seconds`, `tokens` and the watched metrics.
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
        """Counts what goes through this model."""
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
