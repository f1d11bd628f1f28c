"""A judge whose answers are known: it likes long responses, and the second position."""

import numpy as np
import pytest

from autorater.data.messages import plain_text
from autorater.judges.judgments import Judgments


@pytest.fixture(autouse=True)
def nothing_opened(monkeypatch):
    """The judges that a process has opened are kept; no test sees those of another."""
    monkeypatch.setattr("autorater.integrations.preferences._opened", {})


class LengthJudge:
    """Pr[second better] = σ((length of the second − length of the first) / 4 + bias); no answer to 'unjudgeable'."""

    def __init__(self, bias=1.0):
        self.bias, self.batches = bias, []

    def probabilities(self, pairs, *, progress=False):
        self.batches.append([(p.prompt, p.response_a, p.response_b) for p in pairs])
        sizes = np.array([[len(plain_text(r)) for r in (p.response_a, p.response_b)] for p in pairs]).reshape(-1, 2)
        forth = (sizes[:, 1] - sizes[:, 0]) / 4
        mean = 1 / (1 + np.exp(-np.stack([forth + self.bias, -forth + self.bias], axis=1)))
        unjudgeable = ["unjudgeable" in (p.response_a, p.response_b) for p in pairs]
        valid = np.ones_like(mean)
        valid[unjudgeable, 1] = 0
        return Judgments(np.where(valid > 0, mean, 0.5), mean, np.zeros_like(mean), valid)


def preference(a, b, bias=1.0):
    """Pr[b preferred] of `LengthJudge`, both orders averaged."""
    ab, ba = ((len(y) - len(x)) / 4 + bias for x, y in ((a, b), (b, a)))
    return (1 / (1 + np.exp(-ab)) + 1 - 1 / (1 + np.exp(-ba))) / 2
