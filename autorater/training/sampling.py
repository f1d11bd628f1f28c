"""The order of the training rows: batches of prompts of similar length, with little padding.

With texts as variable as arguments or answers, half of a random batch is padding. Rows are shuffled, sorted by length
within large blocks, divided into generation batches, and the batches are shuffled.
"""

from collections.abc import Iterator, Sequence

import torch
from trl.trainer.utils import RepeatSampler

_BATCHES_A_BLOCK = 32


class LengthGroupedRepeatSampler(RepeatSampler):
    """`trl`'s `RepeatSampler`, which repeats rows for their generations and iterations, on rows of similar length.

    `in_order` keeps rows near their positions instead of shuffling all: a curriculum.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        mini_repeat_count: int,
        batch_size: int = 1,
        repeat_count: int = 1,
        seed: int = 0,
        in_order: bool = False,
    ):
        super().__init__(lengths, mini_repeat_count, batch_size, repeat_count, shuffle=False)
        self.lengths = torch.as_tensor(lengths)
        self.generator = torch.Generator().manual_seed(seed)
        self.in_order = in_order

    def __iter__(self) -> Iterator[int]:
        n = self.num_samples
        # the rows beyond the last whole batch are others in every epoch; after sorting they would be the longest
        rows = torch.arange(n) if self.in_order else self._shuffled(n)[: n - n % self.batch_size]
        blocks = rows.split(_BATCHES_A_BLOCK * self.batch_size)
        rows = torch.cat([block[self.lengths[block].argsort(stable=True)] for block in blocks])
        batches = [batch for batch in rows.split(self.batch_size) if len(batch) == self.batch_size]
        if self.in_order:
            places = torch.arange(len(batches)).split(_BATCHES_A_BLOCK)
            order = [block[i] for block in places for i in self._shuffled(len(block))]
        else:
            order = self._shuffled(len(batches))
        rows = torch.cat([batches[i] for i in order]).tolist() if batches else []
        # the parent yields positions 0, 1, 2, … in its pattern; rows of a last, incomplete batch are dropped
        return (rows[position] for position in super().__iter__() if position < len(rows))

    def _shuffled(self, n: int) -> torch.Tensor:
        return torch.randperm(n, generator=self.generator)
