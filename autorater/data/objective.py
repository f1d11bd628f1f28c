"""Pairs with exactly one right answer, made by a seed from templates and the tables of `objective.json`.

    sum        What is 37 + 45?                                       82 against a number 1 to 10 away
    larger     Which number is larger, 348 or 384?                    the two numbers
    letters    How many letters does the word "garden" have?          6 against a number 1 or 2 away
    spelling   Which spelling is correct, "garden" or "gadren"?       a word against itself with two letters exchanged
    capital    What is the capital of Portugal?                       Lisbon against the capital of another country
    opposite   What is the opposite of "early"?                       late against the opposite of another word

Both answers are written alike, and half of the right ones are A. Training on opinions teaches none of this, so a judge
should be as accurate on them after training as before. A small model solves a part: the kinds differ in difficulty.
"""

import json
import random
from collections.abc import Callable
from pathlib import Path

from autorater.data.errors import UserError
from autorater.data.pairs import Pair

_TABLES = json.loads(Path(__file__).with_name("objective.json").read_text(encoding="utf-8"))
_WORDS, _CAPITALS, _OPPOSITES = (_TABLES[name] for name in ("words", "capitals", "opposites"))
Question = tuple[str, str, str]  # the question, the right answer, the wrong one


def objective_pairs(n_pairs: int, seed: int = 0) -> list[Pair]:
    """Distinct pairs of all kinds in turn, with label 1 where B is right and 0 where A is; `topic` names the kind.

    Args:
        n_pairs: Number of pairs, at most 1,000.
        seed: Draws numbers, words and the side of the right answer.

    Raises:
        UserError: If the number is out of range.
    """
    if not 1 <= n_pairs <= 1000:
        raise UserError(f"{n_pairs} objective pairs were requested; expected 1 to 1,000")
    draw, seen, pairs = random.Random(seed), set(), []
    while len(pairs) < n_pairs:
        kind = list(_KINDS)[len(pairs) % len(_KINDS)]
        question, right, wrong = _KINDS[kind](draw)
        if wrong == right or (question, wrong) in seen:  # "old" is the opposite of two words
            continue
        seen.add((question, wrong))
        b_is_right = (len(pairs) // len(_KINDS) + len(pairs)) % 2  # balanced, also within each kind
        answers = (wrong, right) if b_is_right else (right, wrong)
        votes = {"label": float(b_is_right), "n_votes": 1, "votes_a": 1 - b_is_right, "votes_b": b_is_right}
        pairs.append(Pair(f"{kind}-{seed}-{len(pairs)}", question, *answers, **votes, votes_tie=0, topic=kind))
    return pairs


def _sum(draw: random.Random) -> Question:
    a, b, away = draw.randint(3, 60), draw.randint(3, 39), draw.randint(1, 10)
    wrong = a + b + away * draw.choice((-1, 1)) if a + b > 10 else a + b + away
    return f"What is {a} + {b}?", f"It is {a + b}.", f"It is {wrong}."


def _larger(draw: random.Random) -> Question:
    a, b = draw.sample(range(10, 1000), 2)
    return f"Which number is larger, {a} or {b}?", f"{max(a, b)} is larger.", f"{min(a, b)} is larger."


def _letters(draw: random.Random) -> Question:
    word, away = draw.choice(_WORDS), draw.choice((-2, -1, 1, 2))
    question = f'How many letters does the word "{word}" have?'
    return question, f"It has {len(word)} letters.", f"It has {len(word) + away} letters."


def _spelling(draw: random.Random) -> Question:
    word = draw.choice(_WORDS)
    i = draw.choice([i for i in range(1, len(word) - 1) if word[i] != word[i + 1]])
    wrong = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    shown = draw.sample((word, wrong), 2)
    question = f'Which spelling is correct, "{shown[0]}" or "{shown[1]}"?'
    return question, f'"{word}" is correct.', f'"{wrong}" is correct.'


def _capital(draw: random.Random) -> Question:
    country, other = draw.sample(sorted(_CAPITALS), 2)
    return f"What is the capital of {country}?", f"It is {_CAPITALS[country]}.", f"It is {_CAPITALS[other]}."


def _opposite(draw: random.Random) -> Question:
    word, other = draw.sample(sorted(_OPPOSITES), 2)
    return f'What is the opposite of "{word}"?', f'It is "{_OPPOSITES[word]}".', f'It is "{_OPPOSITES[other]}".'


_KINDS: dict[str, Callable[[random.Random], Question]] = {
    "sum": _sum,
    "larger": _larger,
    "letters": _letters,
    "spelling": _spelling,
    "capital": _capital,
    "opposite": _opposite,
}
