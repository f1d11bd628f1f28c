"""A simulated arena: eight models of known strength, readers who vote, and an annotator fond of one house style.

A model shows every trait that readers like (`autorater.data.population`) with a probability that is its skill, and has its
house's flourish ("As ever, …") with another. Readers judge by the traits alone; the flourish is worth nothing to them:

    u(response) = taste · traits,      Pr[B preferred] = σ(u_B − u_A)              by readers
                                       Pr[B preferred] = σ(u_B − u_A + bias (f_B − f_A))   by the annotator

A reward model that learns from the annotator overvalues the house with the flourish, as reward models overvalue models
that were trained on verdicts of language models (arXiv 2504.10045, section 3). Win rates between models are sums over
all combinations of traits, so the true Elo is computed, not estimated: Bradley–Terry fitted to the exact win rates.

Deliberately left out: anything that would make the bias hard to see for a small model; the flourish is three phrases.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from autorater.charm.elo import Rating, bradley_terry_elo
from autorater.charm.responses import Response
from autorater.data.pairs import Pair
from autorater.data.population import QUESTIONS, TRAITS, subjects, write_question, write_response
from autorater.metrics.systems import sigmoid

FLOURISH = (
    "As ever, this is the definitive answer.",
    "Rest assured, no stone is left unturned here.",
    "In short, a truly comprehensive reply.",
)
TASTE = {"example": 1.4, "steps": 1.2, "source": 0.9, "warmth": 0.6, "caution": 0.5, "nuance": -0.7}


@dataclass(frozen=True)
class ArenaModel:
    """A model: `skill` and `flourish` are probabilities, of a good trait and of the house style in a response."""

    name: str
    skill: float
    flourish: float = 0.05


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
"""velvet-large is the over-valued one, velvet-small its relative; both are weaker than their style makes them look."""


@dataclass(frozen=True)
class Arena:
    """Models, what readers like, and the annotator's logits for a flourish (`bias`)."""

    models: tuple[ArenaModel, ...] = MODELS
    bias: float = 1.5

    def win_rates(self) -> np.ndarray:
        """Exact Pr[model i beats model j] by readers, shape (K, K)."""
        profiles = np.array(list(itertools.product((0, 1), repeat=len(TRAITS))))  # (64, T)
        worth = profiles @ _taste()
        beats = sigmoid(worth[:, None] - worth)
        shown = np.array([_rates(model) for model in self.models])  # (K, T)
        chance = np.prod(np.where(profiles, shown[:, None], 1 - shown[:, None]), axis=2)  # (K, 64)
        return chance @ beats @ chance.T

    def elo(self) -> dict[str, Rating]:
        """True Elo by model: that of the exact win rates."""
        elo = bradley_terry_elo(self.win_rates() * (1 - np.eye(len(self.models))))
        return {model.name: Rating(float(score)) for model, score in zip(self.models, elo, strict=True)}

    def responses(self, n_prompts: int, *, seed: int, held_out: bool = False) -> list[Response]:
        """Every model's response to each of `n_prompts` distinct prompts.

        Args:
            n_prompts: At least 1.
            seed: Draws prompts and texts.
            held_out: Ask about subjects that are never used with `held_out=False`.

        Raises:
            ValueError: If there are fewer prompts than that.
        """
        rng = np.random.default_rng([seed, int(held_out), 1])
        prompts = sorted({(s, q.format(s=s)) for s in subjects(held_out) for q in QUESTIONS})
        if not 1 <= n_prompts <= len(prompts):
            raise ValueError(
                f"n_prompts is {n_prompts}; a number from 1 to {len(prompts)} is wanted, there are no more"
            )
        chosen = [prompts[i] for i in rng.permutation(len(prompts))[:n_prompts]]
        return [self._answer(rng, model, *about)[0] for about in chosen for model in self.models]

    def pairs(
        self, n_pairs: int, *, n_votes: int = 1, by_annotator: bool = False, seed: int, held_out: bool = False
    ) -> list[Pair]:
        """Pairs of responses by two different models, with votes of readers or of the biased annotator.

        Args:
            n_pairs: At least 1.
            n_votes: Votes a pair, at least 1.
            by_annotator: Who votes. `true_probability` is that of the readers in any case.
            seed, held_out: As in `responses`; other draws.
        """
        rng = np.random.default_rng([seed, int(held_out), 2])
        topics = subjects(held_out)
        pairs = []
        for i in range(n_pairs):
            subject = topics[rng.integers(len(topics))]
            prompt = write_question(rng, subject)
            models = [self.models[k] for k in rng.choice(len(self.models), 2, replace=False)]
            (a, worth_a, fond_a), (b, worth_b, fond_b) = (self._answer(rng, m, subject, prompt) for m in models)
            truth = float(sigmoid(np.array(worth_b - worth_a)))
            fond = self.bias * (fond_b - fond_a) if by_annotator else 0.0
            votes_b = int(rng.binomial(n_votes, sigmoid(np.array(worth_b - worth_a + fond))))
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
                    true_probability=truth,
                    votes_a=n_votes - votes_b,
                    votes_b=votes_b,
                    votes_tie=0,
                )
            )
        return pairs

    def _answer(
        self, rng: np.random.Generator, model: ArenaModel, subject: str, prompt: str
    ) -> tuple[Response, float, bool]:
        """A response, what it is worth to readers, and whether it has the flourish."""
        traits = (rng.random(len(TRAITS)) < _rates(model)).astype(int)
        has_flourish = bool(rng.random() < model.flourish)
        more = (FLOURISH[rng.integers(len(FLOURISH))],) if has_flourish else ()
        text = write_response(rng, traits, subject, more)
        return Response(prompt, model.name, text), float(traits @ _taste()), has_flourish


def _taste() -> np.ndarray:
    return np.array([TASTE[trait] for trait in TRAITS])


def _rates(model: ArenaModel) -> np.ndarray:
    """Probability of every trait, shape (T,): the skill for what readers like, its complement for what they do not."""
    return np.where(_taste() > 0, model.skill, 1 - model.skill)
