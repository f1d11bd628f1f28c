"""Trainers whose model processes a prompt once for all tokens after it, if it can and was found exact.

The first batch is compared with the plain path. Where the model cannot share a prompt, or log-probabilities differ by
more than rounding, sharing is switched off with a warning that gives the reason.
"""

import logging
import warnings
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from autorater.data.errors import UserError
from autorater.models.checkpointed_cache import can_checkpoint_with_cache
from autorater.models.loading import without_router_logits
from autorater.models.shared_beginning import share_beginnings
from autorater.models.shared_prefix import check_shared_prefix
from autorater.models.split_attention import supports_shared_prefix, transformer_of
from autorater.models.token_tree import TokenTree

logger = logging.getLogger(__name__)
NOT_AT_ONCE = (
    "exact answers after reasoning require a model that processes a prompt once for all answers; use answers: sampled"
)


def check_answers_at_once(model: PreTrainedModel, tree: TokenTree, prompt: Sequence[int], checkpointing: bool) -> None:
    """Raises UserError if a model can neither share a prompt nor repeat its cache; found on this prompt."""
    shares, reason = supports_shared_prefix(model)
    if shares:
        return
    name = model.name_or_path or type(model).__name__
    if checkpointing and not can_checkpoint_with_cache(transformer_of(model)):
        raise UserError(f"{name}: {NOT_AT_ONCE}, or gradient_checkpointing: false ({reason})")
    if not tree.repeats_cache(model, prompt):
        raise UserError(f"{name}: {NOT_AT_ONCE} ({reason})")


class PrefixSharing:
    """To be listed before a trainer of TRL among the bases of a class.

    Attributes:
        share_prefix: Whether prompts are shared.
        can_repeat: Whether the trainer has a way for a model that cannot share a prompt: to repeat its cache, with a
            warning if it cannot be repeated (`autorater.models.repeated_cache`).
        repeat_prefix: Whether it takes this way.
    """

    share_prefix: bool
    repeat_prefix: bool
    can_repeat = True

    def _start_sharing(self, requested: bool = True) -> None:
        """Sets `share_prefix`; to be called when the trainer has its model."""
        wanted, self._prefix_checked = requested and not self.aux_loss_enabled, False
        model = self.accelerator.unwrap_model(self.model)
        without_router_logits(model)  # TRL requests them in its calls too; in the config they would be saved
        supported, reason = supports_shared_prefix(model)
        self.share_prefix, self.repeat_prefix = wanted and supported, wanted and self.can_repeat and not supported
        if requested and self.aux_loss_enabled:
            self._disable_shared_prefix("its router loss would count a shared prompt once")
        elif wanted and not supported and not self.can_repeat:
            self._disable_shared_prefix(reason)
        elif wanted and not supported:
            logger.info(f"prompts do not share a row with their answers: {reason}")
        if not self.share_prefix:
            share_beginnings(self.model, False)

    def _sharing_is_exact(self, model, *batch: torch.Tensor) -> bool:
        """Compares the shared with the plain path once; `batch` as in `check_shared_prefix`."""
        if not self._prefix_checked:
            self._prefix_checked = True
            try:
                here = check_shared_prefix(model, *batch)
            except torch.OutOfMemoryError:
                raise
            except (AttributeError, TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                self._disable_shared_prefix(str(error))
            else:
                of_processes = self.accelerator.gather(torch.tensor([here], device=self.accelerator.device)).tolist()
                if failed := [both for both in of_processes if not both[0] <= both[1]]:
                    found, tolerance = failed[0]
                    self._disable_shared_prefix(f"log-probabilities differ by {found:.1e}, tolerance {tolerance:.0e}")
        return self.share_prefix

    def _disable_shared_prefix(self, reason: str) -> None:
        self.share_prefix = False
        warnings.warn(
            f"shared prefix disabled, every answer has a row of its own: {reason}", RuntimeWarning, stacklevel=2
        )
