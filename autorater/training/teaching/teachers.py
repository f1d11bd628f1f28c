"""Teachers: Pr[B better] for pairs of training texts.

    probe     a linear probe on the frozen model's states, fitted to the votes of the run. Every probability is out of
              fold, of pairs without votes too: it comes from the fit that saw none of the votes on either text
    a folder  a trained judge. A pointwise judge scores every text once, which gives all pairs; a pairwise judge judges
              the pairs with votes, in both orders. Nothing is known of its training: on votes that it has learned, its
              probabilities are in-sample, and partly those votes again
    a file    recorded probabilities of pairs, for example out-of-fold predictions

The labels of the run reach a teacher in `probe` alone, and held-out texts reach none: a file that names a text or a
pair which is not among the training pairs is refused.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from scipy.special import expit

from autorater.data.errors import DataError, UserError, located
from autorater.data.fields import Row, bad_value, name_in, probability_in
from autorater.data.messages import plain_text
from autorater.data.pairs import Pair
from autorater.data.tables import iter_rows
from autorater.evaluation.judge import judge_all
from autorater.judges import Judge, LinearProbe
from autorater.judges.calibrators import Recalibration
from autorater.judges.pointwise import PointwiseJudge, expected_scores
from autorater.judges.saved import read_format
from autorater.models.shares import in_shares, interleaved
from autorater.training.teaching.texts import TrainingTexts

_TEXTS = ("prompt", "response_a", "response_b")
logger = logging.getLogger(__name__)


class Teacher(Protocol):
    """What a judge learns from."""

    def between(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Pr[text b better than text a] of pairs of texts, NaN where the teacher has none; shape (P,)."""


@dataclass(frozen=True)
class ScoreTeacher:
    """Pr[b better] = σ(s_m(b) − s_m(a)), with the model m that two texts have.

    Attributes:
        scores: Scores of T texts by M models, shape (M, T).
        folds: The fold of every text, shape (T,).
        models: The model for two folds, −1 for none, shape (folds, folds).
        recalibration: Applied to every probability.
    """

    scores: np.ndarray
    folds: np.ndarray
    models: np.ndarray
    recalibration: Recalibration | None = None

    def between(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """As in `Teacher`."""
        model = self.models[self.folds[a], self.folds[b]]
        p = expit(self.scores[model, b] - self.scores[model, a])
        return np.where(model < 0, np.nan, p if self.recalibration is None else self.recalibration(p))


@dataclass(frozen=True)
class PairTeacher:
    """Probabilities of single pairs: Pr[b better] by the texts (a, b), given in one order."""

    known: Mapping[tuple[int, int], float]

    def between(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """As in `Teacher`."""
        both = zip(np.asarray(a).tolist(), np.asarray(b).tolist(), strict=True)
        return np.array([self.known.get((i, j), 1 - self.known.get((j, i), math.nan)) for i, j in both])


def find_teacher(name: str, texts: TrainingTexts, judge: Judge, base: str, seed: int, progress: bool) -> Teacher:
    """The teacher that `warm_start_verdicts` names. All processes of a run call this, and divide the texts among them.

    Args:
        name: `probe`, a folder of a judge, or a file of `read_file`.
        texts: The training texts; a probe is fitted to the labels of their pairs.
        judge: The judge to teach; its model's states are those of the probe.
        base: The name or folder of this model.
        seed: Divides the texts of a probe into folds.
        progress: Show progress bars.

    Raises:
        UserError: If there is no such teacher, or it cannot be fitted or read.
    """
    if name == "probe":
        if read_format(base):
            logger.warning(
                f"{base} is a trained judge: if it has learned these votes, so have its states, and the probe's "
                "probabilities are not out of fold"
            )
        probe = LinearProbe.fit_model(judge.model, judge.tokenizer, texts.pairs, seed, name=base, progress=progress)
        error = np.mean((probe.out_of_fold - [pair.label for pair in texts.pairs]) ** 2)
        logger.info(f"teacher: linear probe of layer {probe.layer}; out of fold its Brier score is {error:.4f}")
        return ScoreTeacher(*probe.out_of_fold_scores(texts.read))
    if Path(name).is_dir():
        return _of_judge(name, texts, next(judge.model.parameters()).device, progress)
    if Path(name).is_file():
        return read_file(name, texts)
    hint = "; pointwise is trained by recipes/grpo.py alone" if name == "pointwise" else ""
    raise UserError(
        f"warm_start_verdicts: got {name!r}; expected probe, the folder of a trained judge, or a file of "
        f"probabilities{hint}"
    )


def labelled_by(folder: str, pairs: Sequence[Pair], device, progress: bool) -> list[Pair]:
    """Pairs with Pr[B better] of a judge, both orders averaged, as their label, and without votes.

    All processes of a run call this, and divide the pairs among them.
    """
    probabilities = judge_all(_open_judge(folder, device), pairs, progress=progress).p_sym
    no_votes = dict.fromkeys(("n_votes", "votes_a", "votes_tie", "votes_b"))
    return [replace(pair, label=float(p), **no_votes) for pair, p in zip(pairs, probabilities, strict=True)]


def _open_judge(folder: str, device) -> Judge:
    if not read_format(folder):
        raise UserError(f"warm_start_verdicts: {folder} is no trained judge; expected a folder with autorater.json")
    return Judge.from_pretrained(folder, device=device)


def _of_judge(folder: str, texts: TrainingTexts, device, progress: bool) -> Teacher:
    teacher = _open_judge(folder, device)
    logger.info(f"teacher: {folder}; on votes that it was trained on, its probabilities are in-sample")
    if isinstance(teacher, PointwiseJudge):
        prompts = [prompt for prompt, _ in teacher.encoder.encode([texts.pair(i, i) for i in range(len(texts))])]
        probs = interleaved(in_shares(prompts, partial(teacher.read_digits, progress=progress)))  # (T, 10)
        scores = teacher.scale * expected_scores(probs)
        folds = np.zeros(len(texts), dtype=int)
        return ScoreTeacher(scores[None], folds, np.zeros((1, 1), dtype=int), teacher.recalibration)
    judgments = judge_all(teacher, texts.pairs, progress=progress)
    return PairTeacher(dict(zip(map(tuple, texts.sides.tolist()), judgments.p_sym.tolist(), strict=True)))


def read_file(path: str, texts: TrainingTexts) -> PairTeacher:
    """Reads probabilities of pairs of training texts.

    A row has `probability`, Pr[the response shown second is better], and says which pair it is about: by `prompt`,
    `response_a` and `response_b`, in the order shown whatever `order` says, or by the `id` of a training pair, with
    `order: ba` for the swapped one, as in the `predictions.jsonl` of a run. Rows about the same pair are averaged;
    rows about training pairs that were left out are skipped and counted.

    Raises:
        DataError: If a row has no probability in [0, 1], or is about no pair of training texts.
    """
    every = TrainingTexts.of([*texts.pairs, *texts.loaded])  # begins with `texts`, whose numbers are the same
    by_id = {
        pair.id: tuple(sides)
        for those in (every, texts)
        for pair, sides in zip(those.pairs, those.sides.tolist(), strict=True)
    }
    by_text: dict[tuple[str, str], list[int]] = {}
    for text, read in enumerate(every.read):
        by_text.setdefault(tuple(map(plain_text, read)), []).append(text)
    found: dict[tuple[int, int], list[float]] = {}
    n_left_out = 0
    for place, row in iter_rows(path):
        with located(f"{path}: {place}"):
            probability = probability_in(row, "probability")
            if probability is None:
                raise bad_value("probability", row.get("probability"), "a number in [0, 1]")
            sides = [(a, b) for a, b in _sides(row, by_id, by_text, every.group) if max(a, b) < len(texts)]
            n_left_out += not sides
            for a, b in sides:
                if (b, a) in found:
                    found[b, a].append(1 - probability)
                else:
                    found.setdefault((a, b), []).append(probability)
    if not found:
        raise DataError(f"{path}: no row is about a pair that is trained; expected at least one")
    known = {pair: float(np.mean(values)) for pair, values in found.items()}
    missing = sum(not {(a, b), (b, a)} & known.keys() for a, b in texts.sides.tolist())
    logger.info(
        f"teacher: {len(known):,} pairs of {path}; {missing:,} of {len(texts.pairs):,} training pairs are not among "
        f"them, and are not taught{f'; skipped {n_left_out:,} rows about pairs left out' if n_left_out else ''}"
    )
    return PairTeacher(known)


def _sides(row: Row, by_id: Mapping, by_text: Mapping, group: np.ndarray) -> list[tuple[int, int]]:
    """The two texts that a row is about, in the order shown; in several groups if both texts are."""
    if all(name in row for name in _TEXTS):
        prompt, *responses = (plain_text(row[name]) for name in _TEXTS)
        sides = []
        for name, response in zip(_TEXTS[1:], responses, strict=True):
            if (prompt, response) not in by_text:
                raise bad_value(name, response, "a response to this prompt among the training pairs")
            sides.append(by_text[prompt, response])
        pairs = [(a, b) for a in sides[0] for b in sides[1] if group[a] == group[b]]
        if not pairs:
            raise bad_value("response_b", responses[1], "a response of the same topic and slots as response_a")
        return pairs
    id, order = name_in(row, "id"), row.get("order", "ab")
    if id not in by_id:
        raise bad_value("id", row.get("id"), "the id of a training pair, or prompt, response_a and response_b")
    if order not in ("ab", "ba"):
        raise bad_value("order", order, "ab or ba")
    a, b = by_id[id]
    return [(a, b) if order == "ab" else (b, a)]
