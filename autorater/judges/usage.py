"""Requests and tokens that a judge behind a server has used, and the budget for them."""

from __future__ import annotations

from dataclasses import dataclass

from autorater.data.errors import UserError


@dataclass
class Usage:
    """Requests and tokens used so far, and the budget.

    Attributes:
        requests: Requests sent, including failed ones and retries.
        retries: Requests that repeated a failed one.
        prompt_tokens, completion_tokens: As the server counts them, of every reply.
        max_requests, max_tokens: No request is sent once this many are used; None for no limit.
        max_cost: The same in USD, for the prices `price_in` and `price_out`, in USD for a million tokens.
        answered: Whether a request was answered: then the server is there.
        reserved: Tokens that the requests in progress can use, so that at most one reply exceeds `max_tokens`, or
            `max_cost`.

    Raises:
        UserError: If there is a `max_cost` without a price.
    """

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    max_requests: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_in: float | None = None
    price_out: float | None = None

    answered: bool = False
    reserved: int = 0

    def __post_init__(self):
        if self.max_cost is not None and not (self.price_in or self.price_out):
            raise UserError(f"max_cost = {self.max_cost} requires price_in or price_out, in USD for a million tokens")

    @property
    def cost(self) -> float:
        """USD for the tokens used so far; 0 without prices."""
        used = self.prompt_tokens * (self.price_in or 0) + self.completion_tokens * (self.price_out or 0)
        return used / 1e6

    def add(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Adds the tokens of a reply."""
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        tokens = self.prompt_tokens + self.completion_tokens
        budget = ((self.requests, self.max_requests), (tokens, self.max_tokens), (self.cost, self.max_cost))
        return any(limit is not None and used >= limit for used, limit in budget)

    def has_room(self, tokens: int) -> bool:
        """Whether a request of at most this many tokens may be sent beside those in progress."""
        if (self.max_tokens is None and self.max_cost is None) or not self.reserved:
            return True
        used, tokens = self.prompt_tokens + self.completion_tokens, self.reserved + tokens
        most = self.cost + tokens * max(self.price_in or 0, self.price_out or 0) / 1e6
        budget = ((used + tokens, self.max_tokens), (most, self.max_cost))
        return used > 0 and all(limit is None or n <= limit for n, limit in budget)  # the first reply shows the cost
