"""A simulated arena: eight models of known strength, unbiased annotators, and one biased towards a house style.

A response has each trait that annotators like (`autorater.data.population`) with a probability, the skill of its
model, and a flourish ("As ever, …"; f = 1) with another one. Unbiased annotators judge by the traits alone:

    u(response) = taste · traits,      Pr[B preferred] = σ(u_B − u_A)                      unbiased
                                       Pr[B preferred] = σ(u_B − u_A + bias (f_B − f_A))   biased

A reward model trained on votes of the biased annotator overvalues the models with the flourish, as reward models
overvalue models that were trained on verdicts of language models (arXiv 2504.10045, section 3). Win rates between
models are sums over all combinations of traits, so the true Elo is exact: Bradley–Terry fitted to the exact win rates.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from autorater.charm.elo import Rating, bradley_terry_elo
from autorater.charm.responses import Response
from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.data.population import QUESTIONS, TRAITS, subjects, write_question, write_response

FLOURISH = (
    "As ever, this is the definitive answer.",
    "Rest assured, no stone is left unturned here.",
    "In short, a truly comprehensive reply.",
)
TASTE = {"example": 1.4, "steps": 1.2, "source": 0.9, "warmth": 0.6, "caution": 0.5, "nuance": -0.7}
_TASTE = np.array([TASTE[trait] for trait in TRAITS])


@dataclass(frozen=True)
class ArenaModel:
    """A model: the probabilities of each good trait (or no bad one) and of the flourish in a response."""

    name: str
    skill: float
    flourish: float = 0.05

    @property
    def trait_rates(self) -> np.ndarray:
        """Probability of every trait, shape (T,)."""
        return np.where(_TASTE > 0, self.skill, 1 - self.skill)


MODELS: tuple[ArenaModel, ...] = (
    ArenaModel("aspen", 0.75),
    ArenaModel("birch", 0.68),
    ArenaModel("cedar", 0.61),
    ArenaModel("elm", 0.54),
    ArenaModel("velvet-large", 0.47, flourish=0.9),
    ArenaModel("fir", 0.40),
    ArenaModel("velvet-small", 0.33, flourish=0.6),
    ArenaModel("hazel", 0.26),
)
"""From strong to weak. velvet-large is over-valued for its style; velvet-small is of the same house."""


@dataclass(frozen=True)
class Arena:
    """Models, and the logits that the biased annotator adds for a flourish (`bias`)."""

    models: tuple[ArenaModel, ...] = MODELS
    bias: float = 1.5

    def win_rates(self) -> np.ndarray:
        """Exact Pr[model i beats model j] by unbiased annotators, shape (K, K)."""
        profiles = np.array(list(itertools.product((0, 1), repeat=len(TRAITS))))  # (64, T)
        utility = profiles @ _TASTE
        beats = expit(utility[:, None] - utility)
        rates = np.array([model.trait_rates for model in self.models])  # (K, T)
        probabilities = np.prod(np.where(profiles, rates[:, None], 1 - rates[:, None]), axis=2)  # (K, 64)
        return probabilities @ beats @ probabilities.T

    def elo(self) -> dict[str, Rating]:
        """True Elo by model, from the exact win rates."""
        elo = bradley_terry_elo(self.win_rates() * (1 - np.eye(len(self.models))))
        return {model.name: Rating(float(score)) for model, score in zip(self.models, elo, strict=True)}

    def responses(self, n_prompts: int, *, seed: int, held_out: bool = False) -> list[Response]:
        """Every model's response to each of `n_prompts` distinct prompts.

        `held_out` prompts are about subjects of their own. A `UserError` if there are fewer prompts.
        """
        rng = np.random.default_rng([seed, int(held_out), 1])
        prompts = sorted({(s, q.format(s=s)) for s in subjects(held_out) for q in QUESTIONS})
        if not 1 <= n_prompts <= len(prompts):
            raise UserError(f"n_prompts is {n_prompts}; expected a number from 1 to {len(prompts)}, all there are")
        chosen = [prompts[i] for i in rng.permutation(len(prompts))[:n_prompts]]
        return [self._respond(rng, model, *about)[0] for about in chosen for model in self.models]

    def pairs(
        self, n_pairs: int, *, n_votes: int = 1, biased: bool = False, seed: int, held_out: bool = False
    ) -> list[Pair]:
        """Pairs of responses by two different models, with `n_votes` votes each, of `biased` or unbiased annotators.

        `true_probability` is always that of unbiased ones. `seed` and `held_out` as in `responses`; other draws.
        """
        rng = np.random.default_rng([seed, int(held_out), 2])
        topics = subjects(held_out)
        pairs = []
        for i in range(n_pairs):
            subject = topics[rng.integers(len(topics))]
            prompt = write_question(rng, subject)
            models = [self.models[k] for k in rng.choice(len(self.models), 2, replace=False)]
            (a, utility_a, style_a), (b, utility_b, style_b) = (
                self._respond(rng, model, subject, prompt) for model in models
            )
            bias = self.bias * (style_b - style_a) if biased else 0.0
            votes_b = int(rng.binomial(n_votes, expit(utility_b - utility_a + bias)))
            pairs.append(
                Pair(
                    id=f"arena-{i}",
                    prompt=prompt,
                    response_a=a.text,
                    response_b=b.text,
                    label=votes_b / n_votes,
                    n_votes=n_votes,
                    topic=subject,
                    model_a=a.model,
                    model_b=b.model,
                    true_probability=float(expit(utility_b - utility_a)),
                    votes_a=n_votes - votes_b,
                    votes_b=votes_b,
                    votes_tie=0,
                )
            )
        return pairs

    def _respond(
        self, rng: np.random.Generator, model: ArenaModel, subject: str, prompt: str
    ) -> tuple[Response, float, bool]:
        """A response, its utility to unbiased annotators, and whether it has the flourish."""
        traits = (rng.random(len(TRAITS)) < model.trait_rates).astype(int)
        has_flourish = bool(rng.random() < model.flourish)
        phrases = (FLOURISH[rng.integers(len(FLOURISH))],) if has_flourish else ()
        text = write_response(rng, traits, subject, phrases)
        return Response(prompt, model.name, text), float(traits @ _TASTE), has_flourish
