"""Simulated annotators whose disagreement is known exactly.

A population is a mixture of personas. Persona h weights the traits z of a response (gives an example, warns, is warm,
…) with a taste w_h and prefers B over A with probability

    Pr[B | h] = sigmoid((w_h · (z_B − z_A)) / noise),            p*(x) = Σ_h share_h Pr[B | h]

so p* (`true_probability`) is computed, not estimated. Real data never provide it, and only p* shows whether an answer
of 0.7 should have been 0.7. Responses are short English texts built from phrases, one phrase per trait.

Annotators may favour the response shown second (`position_bias`, in logits). They see both orders equally often, so p*
remains symmetric: swapping the responses turns p* into 1 − p*.

The same personas grade single responses from 1 to 5, by an ordered logit of their liking:

    Pr[grade ≤ k | h] = sigmoid((θ_k − w_h · z) / noise)

Deliberately left out: annotator ids, ties. A mixture of personas need not satisfy a Bradley–Terry model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from autorater.data.errors import UserError
from autorater.data.items import Item, ItemSet, Task
from autorater.data.pairs import Pair

_TEXTS = json.loads(Path(__file__).with_name("simulated_texts.json").read_text(encoding="utf-8"))
PHRASES: dict[str, list[str]] = _TEXTS["phrases"]  # by the trait that they show; {s} is the subject of the question
TRAITS: tuple[str, ...] = tuple(PHRASES)
QUESTIONS: list[str] = _TEXTS["questions"]
CORES: list[str] = _TEXTS["cores"]  # a response begins with one


@dataclass(frozen=True)
class Persona:
    """One kind of annotator: `share` of the population (any positive weight), `taste` in logits per trait."""

    name: str
    share: float
    taste: dict[str, float]


# All personas like examples and clear steps; they disagree about the other traits.
PERSONAS: tuple[Persona, ...] = (
    Persona("everyday reader", 4, {"example": 3.0, "steps": 2.6, "warmth": 1.4, "nuance": -2.2}),
    Persona("specialist", 1, {"example": 1.4, "steps": 1.0, "source": 3.4, "warmth": -1.6}),
    Persona("guardian", 1, {"example": 1.6, "steps": 1.4, "caution": 3.6, "source": 1.0}),
    Persona("listener", 1, {"example": 2.2, "steps": 0.8, "warmth": 3.6, "caution": 0.8, "nuance": -0.6}),
    Persona("hurried reader", 1, {"steps": 3.2, "example": 0.8, "nuance": -2.4, "caution": -1.6}),
    Persona("sceptic", 1, {"example": 1.4, "nuance": 2.6, "source": 2.0, "warmth": -1.0}),
    Persona("optimist", 1, {"example": 2.4, "steps": 0.6, "warmth": 1.2, "caution": -2.6, "nuance": -1.0}),
)

_GRADE_THRESHOLDS = (-1.0, 1.0, 3.0, 5.0)  # of the liking, in logits; the mean liking is near 2
GRADE_TASK = Task(
    labels=("1", "2", "3", "4", "5"),
    titles=("Question", "Response"),
    question="People graded a response to a question from 1 (worst) to 5 (best).",
    ordinal=True,
)

# Not in the population: the grader whose verdicts the warm start imitates.
GRADER = Persona(
    "grader", 1, {"example": 2.6, "steps": 2.0, "source": 1.6, "warmth": 1.0, "caution": 0.6, "nuance": -1.4}
)


@dataclass(frozen=True)
class Population:
    """A mixture of personas.

    Args:
        personas: Kinds of annotators; their shares are normalized.
        noise: Temperature of every choice, > 0. Near 0, personas decide deterministically and p* takes few values; if
            large, p* tends to 0.5.
        position_bias: Logits that an annotator adds to the response shown second. Both orders are equally likely.
    """

    personas: tuple[Persona, ...] = PERSONAS
    noise: float = 1.0
    position_bias: float = 0.0

    def __post_init__(self):
        if self.noise <= 0:
            raise UserError(f"noise must be > 0, got {self.noise}")
        shares = [persona.share for persona in self.personas]
        if not (min(shares, default=0) >= 0 and sum(shares) > 0):
            raise UserError(f"shares of personas must be >= 0 and not all 0, got {shares}")
        for persona in self.personas:
            if unknown := sorted(set(persona.taste) - set(TRAITS)):
                raise UserError(f"persona {persona.name!r}: unknown traits {unknown}; known: {list(TRAITS)}")

    @property
    def shares(self) -> np.ndarray:
        """Shares of the personas, shape (H,), sum 1."""
        share = np.array([p.share for p in self.personas], dtype=float)
        return share / share.sum()

    def _tastes(self) -> np.ndarray:
        """Shape (H, T)."""
        return np.array([[p.taste.get(t, 0.0) for t in TRAITS] for p in self.personas])

    def preference(self, traits_a: np.ndarray, traits_b: np.ndarray) -> np.ndarray:
        """Exact Pr[B preferred], shape (N,), in (0, 1), for the traits of both responses, shape (N, len(TRAITS))."""
        return self.preference_by_persona(traits_a, traits_b) @ self.shares

    def preference_by_persona(self, traits_a: np.ndarray, traits_b: np.ndarray) -> np.ndarray:
        """The same of every persona, shape (N, H)."""
        logit = (np.asarray(traits_b, float) - np.asarray(traits_a, float)) @ self._tastes().T / self.noise
        return (_sigmoid(logit + self.position_bias) + _sigmoid(logit - self.position_bias)) / 2

    def grades(self, traits: np.ndarray) -> np.ndarray:
        """Exact distributions of grades from 1 to 5, shape (N, 5), for traits of responses, shape (N, len(TRAITS))."""
        liking = np.asarray(traits, float) @ self._tastes().T  # (N, H)
        at_most = _sigmoid((np.array(_GRADE_THRESHOLDS) - liking[..., None]) / self.noise)  # (N, H, 4)
        edges = np.concatenate([np.zeros_like(at_most[..., :1]), at_most, np.ones_like(at_most[..., :1])], axis=-1)
        return self.shares @ np.diff(edges, axis=-1)

    def with_shares(self, shares: list[float] | Mapping[str, float] | None) -> "Population":
        """The same personas with other shares (None: unchanged); by name, personas that are not named have none."""
        if shares is None:
            return self
        if isinstance(shares, Mapping):
            names = [p.name for p in self.personas]
            if unknown := sorted(set(shares) - set(names)):
                raise UserError(f"unknown persona {unknown[0]!r}; expected {', '.join(names)}")
            shares = [shares.get(name, 0.0) for name in names]
        if len(shares) != len(self.personas):
            names = [p.name for p in self.personas]
            raise UserError(f"got {len(shares)} persona shares for {len(names)} personas: {names}")
        return replace(self, personas=tuple(replace(p, share=s) for p, s in zip(self.personas, shares, strict=True)))


@dataclass(frozen=True)
class SimulatedPairs:
    """Pairs and their traits: `traits_a`, `traits_b` of shape (N, len(TRAITS)), 0 or 1."""

    pairs: list[Pair]
    traits_a: np.ndarray = field(repr=False)
    traits_b: np.ndarray = field(repr=False)


def simulate_pairs(
    n_pairs: int,
    population: Population | None = None,
    *,
    n_votes: int = 1,
    seed: int = 0,
    held_out: bool = False,
    by_group: bool = False,
) -> SimulatedPairs:
    """Questions with two responses, judged by `n_votes` annotators drawn from the population.

    Args:
        n_pairs: Number of pairs.
        population: The annotators; the default is `PERSONAS`.
        n_votes: Votes per pair, ≥ 1; each by a newly drawn annotator.
        seed: Draws texts and votes; the same seed gives the same pairs.
        held_out: Use the fifth of the subjects that is never used otherwise, so that no response is on both sides.
        by_group: Name the persona of the votes as their `group`; votes of several personas on the same texts are then
            pairs of their own.

    Raises:
        UserError: If `n_pairs` or `n_votes` is below 1.
    """
    if n_pairs < 1 or n_votes < 1:
        raise UserError(f"n_pairs and n_votes must be at least 1, got {n_pairs} and {n_votes}")
    population = population or Population()
    rng = np.random.default_rng([seed, int(held_out)])
    topics = subjects(held_out)
    traits_a, traits_b = rng.integers(0, 2, size=(2, n_pairs, len(TRAITS)))
    truth = population.preference(traits_a, traits_b)
    if by_group:
        voters = rng.multinomial(n_votes, population.shares, size=n_pairs)  # (N, H)
        votes_b = rng.binomial(voters, population.preference_by_persona(traits_a, traits_b))
    else:
        voters = np.full((n_pairs, 1), n_votes)
        votes_b = rng.binomial(n_votes, truth)[:, None]
    prefix = "test" if held_out else "train"
    pairs, shown = [], []
    for i in range(n_pairs):
        subject = _pick(rng, topics)
        pair = Pair(
            id=f"{prefix}-{i}",
            prompt=write_question(rng, subject),
            response_a=write_response(rng, traits_a[i], subject),
            response_b=write_response(rng, traits_b[i], subject),
            label=None,
            votes_tie=0,
            topic=subject,
            true_probability=float(truth[i]),
        )
        voting = np.flatnonzero(voters[i])
        for h in voting.tolist():
            n, for_b = int(voters[i, h]), int(votes_b[i, h])
            named = {"group": population.personas[h].name} if by_group else {}
            named |= {"id": f"{pair.id}/{h}"} if len(voting) > 1 else {}
            pairs.append(replace(pair, label=for_b / n, n_votes=n, votes_a=n - for_b, votes_b=for_b, **named))
            shown.append(i)
    return SimulatedPairs(pairs, traits_a[shown], traits_b[shown])


@dataclass(frozen=True)
class SimulatedItems:
    """Graded responses and their traits: shape (N, len(TRAITS)), 0 or 1."""

    items: ItemSet
    traits: np.ndarray = field(repr=False)


def simulate_items(
    n_items: int, population: Population | None = None, *, n_votes: int = 5, seed: int = 0, held_out: bool = False
) -> SimulatedItems:
    """Questions with one response, graded from 1 to 5 by `n_votes` annotators; the options of `simulate_pairs`."""
    if n_items < 1 or n_votes < 1:
        raise UserError(f"n_items and n_votes must be at least 1, got {n_items} and {n_votes}")
    rng = np.random.default_rng([seed, int(held_out), len(GRADE_TASK.labels)])
    topics = subjects(held_out)
    traits = rng.integers(0, 2, size=(n_items, len(TRAITS)))
    truth = (population or Population()).grades(traits)
    votes = rng.multinomial(n_votes, truth)
    prefix = "test" if held_out else "train"
    items = []
    for i in range(n_items):
        subject = _pick(rng, topics)
        texts = (write_question(rng, subject), write_response(rng, traits[i], subject))
        items.append(Item(f"{prefix}-{i}", texts, tuple(votes[i].tolist()), subject, tuple(truth[i].tolist())))
    return SimulatedItems(ItemSet(GRADE_TASK, items), traits)


def subjects(held_out: bool) -> list[str]:
    """The subjects of questions: four fifths of all, or the held-out fifth."""
    return [s for i, s in enumerate(_TEXTS["subjects"]) if (i % 5 == 4) == held_out]


def write_question(rng: np.random.Generator, subject: str) -> str:
    """A question about the subject."""
    return _pick(rng, QUESTIONS).format(s=subject)


def write_response(rng: np.random.Generator, traits: np.ndarray, subject: str, more: Sequence[str] = ()) -> str:
    """A response with phrases for its traits, shape (len(TRAITS),), 0 or 1, and `more` phrases, in random order."""
    phrases = [_pick(rng, PHRASES[name]) for name, shown in zip(TRAITS, traits, strict=True) if shown] + list(more)
    rng.shuffle(phrases)
    return " ".join([_pick(rng, CORES), *phrases]).format(s=subject)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[rng.integers(len(options))]


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))
