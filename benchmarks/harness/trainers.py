"""TRL's `GRPOTrainer` on our prompt ids, and a clock for whole steps.

STOCK["trl"]      unchanged
STOCK["sliced"]   with a language-model head that skips prompt positions, as with Triton
"""

import os
import shutil
import time

import trl.kernels.chunked_logprob
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ProgressCallback
from trl import GRPOTrainer

from autorater.models.shared_prefix import plain_logps
from harness.measure import synchronize

if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
    trl.kernels.chunked_logprob._TRITON_AVAILABLE = False  # Triton compiles a C file; TRL has the same in PyTorch


class StockGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer` with tokenized prompts (column `prompt_ids`).

    TRL would tokenize the prompt as one text, and its ids could differ from ours where the pieces of a prompt meet.
    Nothing else is changed; that it need not tokenize is to its advantage.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._ids = dict(zip(self.train_dataset["prompt"], self.train_dataset["prompt_ids"], strict=True))

    def _tokenize_prompts(self, prompts: list):
        return [self._ids[prompt] for prompt in prompts], None, {}


class SlicedGRPOTrainer(StockGRPOTrainer):
    """Scores completion tokens only.

    TRL's fused head does so where there is Triton; on a CPU it multiplies every prompt position by the vocabulary too.
    This side shows how much of a ratio that is.
    """

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        sizes = [input_ids.shape[1] - logits_to_keep, logits_to_keep]
        prompt_ids, ids = input_ids.split(sizes, dim=1)
        prompt_mask, mask = attention_mask.split(sizes, dim=1)
        logps, entropies = plain_logps(model, prompt_ids, prompt_mask, ids[:, None], mask[:, None], self.temperature)
        return logps[:, 0], entropies[:, 0] if compute_entropy else None, None


STOCK = {"trl": StockGRPOTrainer, "sliced": SlicedGRPOTrainer}


class StepClock(TrainerCallback):
    """Seconds of every optimizer step, from before generation until after `zero_grad`; logging does not count.

    Attributes:
        seconds: One number a step.
        cpu_seconds: The same in CPU time of this process, all threads together. With one thread on a quiet machine
            the two are equal; on a busy one this is what the step would have taken alone.
    """

    def __init__(self, device: str):
        self.device, self.seconds, self.cpu_seconds = device, [], []
        self._start = self._cpu_start = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        synchronize(self.device)
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        synchronize(self.device)
        self.seconds.append(time.perf_counter() - self._start)
        self.cpu_seconds.append(time.process_time() - self._cpu_start)

    @property
    def spent(self) -> float:
        """Seconds of all steps: CPU time where the CPU does the work, else wall time."""
        return sum(self.cpu_seconds if self.device == "cpu" else self.seconds)

    @property
    def wall_spent(self) -> float:
        """Wall seconds of all steps."""
        return sum(self.seconds)


def add_clock(trainer: Trainer, device: str) -> StepClock:
    """Replaces the trainer's output, which would go to stdout, by a clock."""
    for noisy in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(noisy)
    clock = StepClock(device)
    trainer.add_callback(clock)
    return clock
