"""Linear probe: what a frozen model knows about a preference, read from its hidden states.

    Pr[B better] = σ(w · (φ(B) − φ(A))),   φ(r) = (mean state of r after its prompt / scale, log of its length)

Logistic regression without an intercept, one forward pass per response (`autorater.models.response_states`). Swapping
the responses negates the difference, so there is no position bias. On two datasets of human votes it is the bar that
judges of this size have to clear; related: probes as calibrated judges (arXiv 2512.22245).

Layer and strength of the regularization are chosen by cross-validation on the training pairs, if there are many on a
part of them: the states of all layers take width · layers · 4 bytes a text. A fold is a set of texts: whole prompts or
topics if there are enough of them. A pair is predicted by a fit on the pairs that share no fold with either of its
responses, so no text is on both sides. These out-of-fold probabilities also set the scale of the logits, and are
labels that a judge may learn from: they come from votes on other texts.

Products are computed in float64 on the model's device. In a run of several processes all of them fit the probe
together: they divide the texts and the layers among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit, logit
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from autorater.data.atomic import read_json, write_json
from autorater.data.errors import UserError
from autorater.data.loading import as_pairs, labelled_pairs
from autorater.data.messages import plain_text
from autorater.data.pairs import Pair
from autorater.data.tables import Source
from autorater.judges.calibrators import fit_recalibration, log_losses
from autorater.judges.judgments import Judgments
from autorater.metrics.clusters import cluster_numbers
from autorater.models.loading import load_on, named_model
from autorater.models.response_states import ReadText, ResponseStates
from autorater.models.shares import in_shares, interleaved

STRENGTHS = tuple(float(c) for c in 10.0 ** np.arange(-3, 1.25, 0.5))
"""Inverse strengths of the L2 penalty that are compared, for states with a mean squared norm of 1."""
N_FOLDS = 5
_TEXTS_FOR_CHOICE = 10_000  # on which layer and strength are chosen: 2.6 GB of states for 16 layers of width 4,096
_FILES = ("probe.json", "probe.npz")


@dataclass
class LinearProbe:
    """A judge of pairs, fitted by `LinearProbe.fit`.

    Attributes:
        states: The frozen model.
        name: Its name or folder.
        layer: The layer whose states are used.
        strength: Inverse strength of the L2 penalty.
        weights: Weights of the state and of the log length, shape (width + 1,).
        out_of_fold: Pr[B better] of the N training pairs, each predicted from pairs without its texts, shape (N,).
        folds: The fold of every training text; None if the probe was loaded.
        fold_weights: Weights of the fits, by the two folds that each left out (sorted; twice the same for one).
        revision: Revision of the model on the Hub, if one was requested.
    """

    states: ResponseStates
    name: str
    layer: int
    strength: float
    weights: np.ndarray
    out_of_fold: np.ndarray
    folds: Mapping[ReadText, int] | None = None
    fold_weights: Mapping[tuple[int, int], np.ndarray] | None = None
    revision: str | None = None

    @classmethod
    def fit(
        cls,
        model_name_or_path: str,
        pairs: Sequence[Pair] | Source,
        seed: int = 0,
        *,
        device: str | torch.device | None = None,
        progress: bool = False,
        **model_init_kwargs,
    ) -> LinearProbe:
        """Fits a probe to the labels of N pairs, vote shares or single votes.

        Args:
            model_name_or_path, model_init_kwargs: As in `load_policy`.
            pairs: Training pairs with labels, or a source of `load_pairs`.
            seed: Divides the texts into folds.
            device: By default where a `device_map` puts the model, else the GPU if there is one.
            progress: Show a progress bar.

        Raises:
            UserError: If the model cannot be loaded, a text is too long for it, a pair has no label, or the pairs are
                too few or too connected to be divided into folds without common texts.
        """
        model, tokenizer = load_on(model_name_or_path, device, **model_init_kwargs)
        probe = cls.fit_model(model, tokenizer, pairs, seed, name=model_name_or_path, progress=progress)
        probe.revision = model_init_kwargs.get("revision")
        return probe

    @classmethod
    def fit_model(
        cls,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        pairs: Sequence[Pair] | Source,
        seed: int = 0,
        *,
        name: str = "",
        progress: bool = False,
    ) -> LinearProbe:
        """As `fit`, for a loaded model; all processes of a run must call it together."""
        pairs = labelled_pairs(pairs)
        texts, sides = _texts_of(pairs)
        labels = np.array([pair.label for pair in pairs], dtype=float)
        folds = text_folds(pairs, texts, seed)
        states = ResponseStates(model, tokenizer)
        some = _some_pairs(sides, seed)
        layer, strength = _choose(states, texts, sides[some], labels[some], folds, progress)
        states.keep(layer)
        read = states.read(texts, progress=progress, together=True)[:, 0]
        scale = _scale(read)
        features = _on_device(_features(read, texts, scale), model)
        held_out = _held_out(folds[sides])
        (predicted,), (of_folds,) = _cross_fit(features, sides, labels, held_out, [strength])
        slope = fit_recalibration("temperature", predicted, 1 - predicted, labels).slope
        weights, *of_folds = slope * np.stack([_fit(features, sides, labels, strength), *of_folds])
        for fitted in (weights, *of_folds):
            fitted[:-1] /= scale
        left_out = [tuple(sorted(folds[sides[rows.argmax()]].tolist())) for _, rows in held_out]
        return cls(
            states,
            name,
            layer,
            strength,
            weights,
            expit(slope * logit(predicted)),
            dict(zip(texts, folds.tolist(), strict=True)),
            dict(zip(left_out, of_folds, strict=True)),
        )

    def probabilities(self, pairs: Sequence[Pair] | Source, *, progress: bool = False) -> Judgments:
        """Judges N pairs, or rows of a source (`as_pairs`); both orders give the same probability.

        Raises:
            UserError: If a row is no pair, or a text is too long for the model.
        """
        pairs = as_pairs(pairs)
        if not pairs:
            return Judgments.mirrored(np.empty(0))
        texts, sides = _texts_of(pairs)
        scores = _features(self.states.read(texts, progress=progress)[:, 0], texts) @ self.weights
        return Judgments.mirrored(expit(scores[sides[:, 1]] - scores[sides[:, 0]]))

    def out_of_fold_scores(self, texts: Sequence[ReadText]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores of T training texts by every fit that left texts out, and which fit left out the folds of two texts.

        Returns:
            Scores of M fits, shape (M, T): Pr[b better than a] is σ(scores[m, b] − scores[m, a]). The fold of every
            text, shape (T,). The fit m of two folds, shape (folds, folds), −1 if no fit left out both.
        """
        features = _features(self.states.read(texts)[:, 0], texts)
        fits = np.full((N_FOLDS, N_FOLDS), -1)
        for m, (f, g) in enumerate(self.fold_weights):
            fits[f, g] = fits[g, f] = m
        folds = np.array([self.folds[text] for text in texts])
        return np.stack(list(self.fold_weights.values())) @ features.T, folds, fits

    @property
    def cross_fitted(self) -> Judgments:
        """Judgments of the training pairs by `out_of_fold`."""
        return Judgments.mirrored(self.out_of_fold)

    def save(self, folder: str | Path) -> None:
        """Writes `probe.json` and `probe.npz`, without the model; creates the folder."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        description, arrays = (Path(folder, file) for file in _FILES)
        content = {"model": self.name, "layer": self.layer, "strength": self.strength}
        write_json(description, content | ({"revision": self.revision} if self.revision else {}))
        np.savez(arrays, weights=self.weights, out_of_fold=self.out_of_fold)

    @classmethod
    def load(cls, folder: str | Path, *, device: str | torch.device | None = None, **model_init_kwargs) -> LinearProbe:
        """Loads a saved probe and its model; UserError if either is missing.

        A relative path of the model is one from the working directory, or from the folder. Its revision is by default
        the one that the probe was fitted to.
        """
        description, arrays = (Path(folder, file) for file in _FILES)
        if not description.exists() or not arrays.exists():
            raise UserError(f"{folder} holds no linear probe; expected {' and '.join(_FILES)}")
        saved = read_json(description)
        if missing := {"model", "layer", "strength"} - saved.keys():
            raise UserError(f"{description}: no {', '.join(sorted(missing))}; expected what LinearProbe.save writes")
        name = named_model(description, "model", saved["model"])
        if "revision" in saved:
            model_init_kwargs.setdefault("revision", saved["revision"])
        model, tokenizer = load_on(name, device, **model_init_kwargs)
        states = ResponseStates(model, tokenizer, [saved["layer"]])
        with np.load(arrays) as columns:
            revision = model_init_kwargs.get("revision")
            return cls(states, name, saved["layer"], saved["strength"], **columns, revision=revision)


def text_folds(pairs: Sequence[Pair], texts: Sequence[ReadText], seed: int) -> np.ndarray:
    """The fold of every text, shape (T,): `N_FOLDS` folds of whole topics or prompts, or of texts if these are few.

    Of topics and prompts the coarser one with at least `N_FOLDS` values is used. Folds have about the same number of
    texts.

    Raises:
        UserError: If there are fewer than `N_FOLDS` texts.
    """
    if len(texts) < N_FOLDS:
        raise UserError(f"a linear probe is fitted to {N_FOLDS} or more distinct responses, got {len(texts)}")
    topics = {}
    for pair in pairs:
        for response in (pair.response_a, pair.response_b):
            topics.setdefault((pair.prompt, response), pair.topic)
    columns = ([topics[text] for text in texts], [plain_text(prompt) for prompt, _ in texts])
    usable = [column for column in columns if None not in column and len(set(column)) >= N_FOLDS]
    groups = min(usable, key=lambda column: len(set(column)), default=list(range(len(texts))))
    members = cluster_numbers(groups)
    sizes = np.bincount(members)
    order = np.random.default_rng(seed).permutation(len(sizes))
    fold_of, filled = np.empty(len(sizes), dtype=int), np.zeros(N_FOLDS, dtype=int)
    for group in sorted(order, key=lambda group: -sizes[group]):  # the largest first, into the emptiest fold
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[members]


def _texts_of(pairs: Sequence[Pair]) -> tuple[list[ReadText], np.ndarray]:
    """Distinct (prompt, response) texts, and their indices for A and B of every pair, shape (N, 2)."""
    index: dict[ReadText, int] = {}
    sides = [[index.setdefault((p.prompt, r), len(index)) for r in (p.response_a, p.response_b)] for p in pairs]
    return list(index), np.array(sides)


def _scale(states: np.ndarray) -> float:
    """The root mean square distance of the states from their mean."""
    centred = states - states.mean(axis=0)
    return float(np.sqrt((centred.astype(np.float64) ** 2).sum(axis=1).mean())) or 1.0


def _features(states: np.ndarray, texts: Sequence[ReadText], scale: float = 1.0) -> np.ndarray:
    """φ of T texts, shape (T, width + 1)."""
    lengths = np.log([1 + len(plain_text(response)) for _, response in texts])
    return np.column_stack([states / scale, lengths])  # float64, as the lengths


def _held_out(folds: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Masks of pairs to fit on and to predict, from the folds of both responses, shape (N, 2); each pair once."""
    folds, masks = np.sort(folds, axis=1), []
    for both in np.unique(folds, axis=0):
        fitted = ~np.isin(folds, both).any(axis=1)
        if not fitted.any():
            raise UserError(
                "a linear probe cannot be cross-validated: nearly all pairs share responses; expected pairs of many "
                "prompts, or of many responses"
            )
        masks.append((fitted, (folds == both).all(axis=1)))
    return masks


def _on_device(features: np.ndarray, model: PreTrainedModel) -> torch.Tensor:
    """Features for the fits, on the device of the model if it has float64."""
    device = next(model.parameters()).device
    return torch.from_numpy(features).to("cpu" if device.type == "mps" else device)


def _cross_fit(
    features: torch.Tensor, sides: np.ndarray, labels: np.ndarray, held_out: list, strengths: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Out-of-fold probabilities for every strength, shape (strengths, N), and the weights of the M fits."""
    predicted = np.empty((len(strengths), len(labels)))
    fits = np.empty((len(strengths), len(held_out), features.shape[1]))
    for m, (fitted, rows) in enumerate(held_out):
        weights = None
        for i, strength in enumerate(strengths):
            fits[i, m] = weights = _fit(features, sides[fitted], labels[fitted], strength, weights)
            scores = _product(features, weights)
            predicted[i, rows] = expit(scores[sides[rows, 1]] - scores[sides[rows, 0]])
    return predicted, fits


def _choose(
    states: ResponseStates,
    texts: Sequence[ReadText],
    sides: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    progress: bool,
) -> tuple[int, float]:
    """Layer and strength, by cross-validation on the pairs given; every process fits some layers."""
    held_out = _held_out(folds[sides])
    used, sides = np.unique(sides, return_inverse=True)
    sides, texts = sides.reshape(-1, 2), [texts[i] for i in used]
    read = states.read(texts, progress=progress, together=True)  # (T, layers, width)

    def errors(rows: Sequence[int]) -> np.ndarray:
        of_layers = []
        for row in rows:
            features = _on_device(_features(read[:, row], texts, _scale(read[:, row])), states.model)
            predicted, _ = _cross_fit(features, sides, labels, held_out, STRENGTHS)
            of_layers.append((predicted - labels) ** 2)
        return np.stack(of_layers)

    row, column = _best(interleaved(in_shares(range(len(states.layers)), errors)))
    return int(states.layers[row]), STRENGTHS[column]


def _some_pairs(sides: np.ndarray, seed: int) -> np.ndarray:
    """Rows of `sides`, shape (N, 2), in order: all, or randomly as many as have `_TEXTS_FOR_CHOICE` texts."""
    order = np.random.default_rng(seed).permutation(len(sides))
    _, first = np.unique(sides[order], return_index=True)
    n_texts = np.cumsum(np.bincount(first // 2, minlength=len(sides)))
    return np.sort(order[n_texts <= _TEXTS_FOR_CHOICE])


def _best(errors: np.ndarray) -> tuple[int, int]:
    """Layer and strength from squared errors, shape (layers, strengths, N): the first layer that is not worse.

    Several layers are about equally good, and the best of them is chance: the first one whose error is within one
    standard error (of the paired difference) of the lowest is taken, with its best strength (Breiman et al. 1984).
    """
    means = errors.mean(axis=2)
    columns = means.argmin(axis=1)
    of_layers = errors[np.arange(len(errors)), columns]  # (layers, N)
    excess = of_layers - of_layers[means.min(axis=1).argmin()]
    tolerance = excess.std(axis=1) / np.sqrt(excess.shape[1])
    row = int((excess.mean(axis=1) <= tolerance).argmax())
    return row, int(columns[row])


def _fit(
    features: torch.Tensor, sides: np.ndarray, labels: np.ndarray, strength: float, start: np.ndarray | None = None
) -> np.ndarray:
    """Minimizes Σ log loss + |w|² / (2 strength). Scores are computed per text, of which there are few."""
    used, sides = np.unique(sides, return_inverse=True)
    features, (a, b) = features[torch.from_numpy(used).to(features.device)], sides.reshape(-1, 2).T

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = _product(features, weights)
        logits = scores[b] - scores[a]
        errors = expit(logits) - labels
        of_texts = np.bincount(b, errors, len(used)) - np.bincount(a, errors, len(used))
        loss = log_losses(logits, labels).sum() + weights @ weights / (2 * strength)
        return loss, _product(features.T, of_texts) + weights / strength

    start = np.zeros(features.shape[1]) if start is None else start
    return minimize(loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


def _product(matrix: torch.Tensor, vector: np.ndarray) -> np.ndarray:
    return (matrix @ torch.from_numpy(vector).to(matrix.device)).cpu().numpy()
