"""Text baselines without a language model, fitted on the same votes.

    constant   always 1/2
    length     σ(w · log((1 + characters of B) / (1 + characters of A)))
    tfidf      σ(v · (TF-IDF(B) − TF-IDF(A)) + w · the log ratio of lengths), words and word pairs

Logistic regressions without an intercept on differences of features: swapping the responses turns p into 1 − p, so
they have no position bias. Fitted by scikit-learn on one vote per training pair, with its default regularization.
On UKPConvArg1 the log ratio is better than the difference in length for both (MSE 0.082 and 0.073 against 0.086 and
0.077).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from autorater.data.errors import UserError
from autorater.data.pairs import Pair

BASELINES = ("constant", "length", "tfidf")
_MIN_DOCUMENTS = 2  # words in a single training response carry no information about others


def baseline_probabilities(train: Sequence[Pair], held_out: Sequence[Pair]) -> dict[str, np.ndarray]:
    """Pr[B preferred] of the held-out pairs, shape (N,), by baseline.

    Args:
        train: Training pairs with labels 0 or 1.
        held_out: N pairs.

    Raises:
        UserError: If a training label is not a single vote, or all are equal.
    """
    votes = np.array([pair.label for pair in train])
    if not np.isin(votes, (0, 1)).all():
        raise UserError("the text baselines require single votes; set labels: sparse or n_votes: 1")
    texts = [text for pair in train for text in (pair.response_a, pair.response_b)]
    tfidf = TfidfVectorizer(ngram_range=(1, 2), min_df=_MIN_DOCUMENTS, sublinear_tf=True).fit(texts)

    def words(pairs: Sequence[Pair]) -> csr_matrix:
        sides = [[getattr(pair, side) for pair in pairs] for side in ("response_a", "response_b")]
        return hstack([tfidf.transform(sides[1]) - tfidf.transform(sides[0]), csr_matrix(_lengths(pairs))]).tocsr()

    return {
        "constant": np.full(len(held_out), 0.5),
        "length": _logistic(_lengths(train), votes, _lengths(held_out)),
        "tfidf": _logistic(words(train), votes, words(held_out)),
    }


def _lengths(pairs: Sequence[Pair]) -> np.ndarray:
    """Logarithm of the ratio of lengths, shape (N, 1)."""
    return np.array([[np.log((1 + len(pair.response_b)) / (1 + len(pair.response_a)))] for pair in pairs])


def _logistic(features, votes: np.ndarray, held_out) -> np.ndarray:
    fitted = LogisticRegression(fit_intercept=False, max_iter=1_000).fit(features, votes)
    return fitted.predict_proba(held_out)[:, 1]
