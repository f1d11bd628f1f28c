"""`recipes/grpo.py`; each process also writes its curves and the bytes that it held to `recorded-RANK.json`.

Sampled answers are drawn by prompt and step and not by process: the answers of each prompt are generated separately,
after setting a seed. So runs on one and on several processes learn from the same answers.
"""

import json
import runpy
import sys
import zlib
from itertools import groupby
from pathlib import Path

import torch

import autorater.training.grpo as grpo
from autorater.models.shared_beginning import shares_beginnings

ROOT = Path(__file__).parents[2]


class Recorded:
    """A mixin that records the curves, and the bytes that this process held when the optimizer stepped."""

    most_bytes = 0

    def create_optimizer(self, *args, **kwargs):
        optimizer = super().create_optimizer(*args, **kwargs)
        optimizer.register_step_pre_hook(self._count)
        return optimizer

    def _count(self, optimizer, *_) -> None:
        self.most_bytes = max(self.most_bytes, held_bytes(self, optimizer))

    def train(self, *args, **kwargs):
        trained = super().train(*args, **kwargs)
        logs = self.state.log_history
        recorded = {
            "curves": {name: [log[name] for log in logs if name in log] for name in ("loss", "reward", "grad_norm")},
            "bytes": self.most_bytes,
            "shares_beginnings": shares_beginnings(self.model),
            "wrapper": type(self.model_wrapped).__name__,
            "dtypes": sorted({str(p.dtype) for p in self.model.parameters()}),
        }
        Path(self.args.output_dir, f"recorded-{self.args.process_index}.json").write_text(json.dumps(recorded))
        return trained

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        completions = []
        for prompt, repeated in groupby(prompt_ids):
            torch.manual_seed(zlib.crc32(f"{prompt} {self.state.global_step}".encode()))
            completions += super()._generate_single_turn(list(repeated), *args, **kwargs)[0]
        return completions, None


def held_bytes(trainer, optimizer) -> int:
    """Bytes of parameters, gradients and optimizer states on this process, no storage counted twice.

    Args:
        trainer: Its model is plain or DeepSpeed's.
        optimizer: Torch's, about to step.
    """
    parameters = list(trainer.model.parameters())
    stepped = [p for group in optimizer.param_groups for p in group["params"]]
    states = [x for state in optimizer.state.values() for x in state.values()]
    deepspeed = getattr(trainer.model_wrapped, "optimizer", None)
    gradients = getattr(deepspeed, "grad_partitions_flat_buffer", None)  # ZeRO-3 steps with a copy that it drops again
    gradients = [p.grad for p in parameters + stepped] if gradients is None else [gradients]
    tensors = [getattr(p, "ds_tensor", None) for p in parameters] + parameters + stepped + states + gradients
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors if torch.is_tensor(t)}
    return sum(storage.nbytes() for storage in storages.values())


if __name__ == "__main__":
    for mode, trainer in grpo._TRAINERS.items():
        grpo._TRAINERS[mode] = type("RecordedTrainer", (Recorded, trainer), {})
    grpo.PointwiseTrainer = type("RecordedTrainer", (Recorded, grpo.PointwiseTrainer), {})
    sys.argv[0] = str(ROOT / "recipes" / "grpo.py")
    runpy.run_path(sys.argv[0], run_name="__main__")
