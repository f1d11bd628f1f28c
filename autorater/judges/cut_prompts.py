"""A warning where a server cuts long prompts without a word."""

from __future__ import annotations

import logging
import math

logger = logging.getLogger(__name__)


class CutPrompts:
    """Signs that a server cuts long prompts: many different ones have exactly the largest number of tokens."""

    def __init__(self):
        self.n, self.smallest, self.largest = 0, math.inf, 0  # prompts; tokens of a prompt
        self.lengths: list[int] = []  # characters of the prompts with the largest number of tokens

    def add(self, prompt_tokens: int, length: int) -> None:
        """Adds a prompt of `length` characters; `prompt_tokens` as the server counts them, 0 if it does not."""
        if not prompt_tokens:
            return
        self.n, self.smallest = self.n + 1, min(self.smallest, prompt_tokens)
        if prompt_tokens > self.largest:
            self.largest, self.lengths = prompt_tokens, []
        if prompt_tokens == self.largest:
            self.lengths.append(length)

    def warn(self) -> None:
        """Warns if there are such signs."""
        if len(set(self.lengths)) < 4 or len(self.lengths) < 0.1 * self.n:
            return
        # prompts of like lengths may be equal by chance, and some servers report the same number for every prompt
        constant = self.smallest == self.largest
        if self.smallest < 0.9 * self.largest or (constant and max(self.lengths) > 1.2 * min(self.lengths)):
            logger.warning(
                f"{len(self.lengths)} of {self.n} prompts have exactly the largest number of tokens, "
                f"{self.largest:,}: the server probably cuts long prompts; raise its context length"
            )
