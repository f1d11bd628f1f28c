"""Post-stratified votes: an independent sum over single votes, the draw, and the errors."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autorater.data.errors import DataError, UserError
from autorater.data.gathering import Gatherer
from autorater.data.loading import LoadReport, load_pairs
from autorater.data.pairs import Pair, sparse_label
from autorater.data.population import PERSONAS, Population, simulate_pairs
from autorater.data.post_stratification import drawn_by_weight, pair_weights, parse_population, post_stratified

TWO = {"x": 0.5, "y": 0.5}


def cell(text, group, votes_a, votes_b, **columns):
    n = votes_a + votes_b
    votes = {"label": votes_b / n, "n_votes": n, "votes_a": votes_a, "votes_b": votes_b, "votes_tie": 0}
    return Pair(f"{text}/{group}", text, f"{text} A", f"{text} B", **votes, group=group, **columns)


VOTES = st.tuples(st.integers(0, 3), st.integers(0, 3)).filter(any)
CELLS = st.dictionaries(st.tuples(st.sampled_from("pqrs"), st.sampled_from("xyz")), VOTES, min_size=3)


@settings(deadline=None)
@given(CELLS, st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), st.booleans())
def test_against_a_sum_over_single_votes(cells, numbers, swap):
    groups = sorted({group for _, group in cells})
    shares = {g: n / sum(numbers[: len(groups)]) for g, n in zip(groups, numbers, strict=False)}
    pairs = [cell(text, group, *votes) for (text, group), votes in cells.items()]
    pairs = [pair.swapped() if swap and i % 2 else pair for i, pair in enumerate(pairs)]
    merged, mix = post_stratified(pairs, shares)
    # every vote: (text, group, value), with mass 1 / votes of its text
    single = [(t, g, v) for (t, g), (a, b) in cells.items() for v in [0.0] * a + [1.0] * b]
    of_text = {t: sum(s[0] == t for s in single) for t, _ in cells}
    in_data = {g: sum(1 / of_text[s[0]] for s in single if s[1] == g) / len(of_text) for g in groups}
    assert mix.found == pytest.approx(in_data)
    for pair in merged:
        here = [(shares[g] / in_data[g], v) for t, g, v in single if t == pair.prompt]
        assert pair.weight == pytest.approx(np.mean([w for w, _ in here]))
        label = pair.label if pair.response_b.endswith("B") else 1 - pair.label
        assert label == pytest.approx(sum(w * v for w, v in here) / sum(w for w, _ in here))
        assert pair.group is None
    assert np.mean([pair.weight for pair in merged]) == pytest.approx(1)
    assert mix.design_effect >= 1 - 1e-12


def test_votes_of_equal_weight_stay_votes():
    merged, _ = post_stratified([cell("p", "x", 1, 2), cell("p", "y", 0, 3).swapped()], TWO)
    (pair,) = merged
    assert (pair.votes_a, pair.votes_b, pair.n_votes, pair.label) == (1, 5, 6, pytest.approx(5 / 6))
    merged, _ = post_stratified([cell("p", "x", 1, 2), cell("p", "y", 0, 3)], {"x": 0.8, "y": 0.2})
    assert merged[0].votes_a is merged[0].n_votes is None
    assert merged[0].label == pytest.approx(0.8 * 2 / 3 + 0.2)


def test_own_weights_multiply():
    pairs = [cell("p", "x", 0, 1, weight=3.0), cell("q", "x", 1, 0), cell("r", "y", 0, 1), cell("s", "y", 1, 0)]
    merged, mix = post_stratified(pairs, TWO)
    assert [pair.weight for pair in merged] == pytest.approx([1.5, 0.5, 1, 1])
    assert mix.found == pytest.approx({"x": 4 / 6, "y": 2 / 6})


def test_a_share_of_0_leaves_votes_out():
    merged, mix = post_stratified([cell("p", "x", 0, 1), cell("p", "y", 1, 0), cell("q", "y", 1, 0)], {"x": 1, "y": 0})
    assert [(pair.prompt, pair.label) for pair in merged] == [("p", 1.0)]
    assert mix.left_out == 2
    assert "2 pairs of groups with share 0 left out" in str(mix)


def test_groups_are_named_in_errors():
    pairs = [cell("p", "x", 0, 1), cell("q", "y", 1, 0)]
    with pytest.raises(DataError, match="held-out pairs: the population has no share for 'y'; expected one for every"):
        post_stratified(pairs, {"x": 1.0}, "held-out pairs")
    with pytest.raises(DataError, match="no votes of 'z'; groups: 'x', 'y'"):
        post_stratified(pairs, {"x": 0.5, "y": 0.25, "z": 0.25})
    with pytest.raises(DataError, match="pair 'q/y' has no group"):
        post_stratified([pairs[0], replace(pairs[1], group=None)], TWO)
    with pytest.raises(DataError, match="no votes of 'x'"):
        post_stratified([replace(pairs[0], weight=0.0), pairs[1]], TWO)


@pytest.mark.parametrize(
    ("population", "message"),
    [
        ("x=0.5,y=0.6", "the shares sum to 1.1; expected 1"),
        ("x=0.5,x=0.5", "every group once"),
        ("x", "expected group=share"),
        ("x=1,", "expected group=share"),
        ("x=half,y=0.5", "numbers from 0 to 1"),
        ("x=1.5,y=-0.5", "numbers from 0 to 1"),
        ({"x": None, "y": 1}, "numbers from 0 to 1"),
    ],
)
def test_populations_that_are_none(population, message):
    with pytest.raises(UserError, match=message):
        parse_population(population)


def test_populations():
    assert parse_population("a reader = 0.25, b=c=0.75") == {"a reader": 0.25, "b=c": 0.75}
    assert parse_population({1: 0.5, "y": 0.5}) == {"1": 0.5, "y": 0.5}


def test_rows_are_drawn_by_weight():
    pairs = [replace(cell(str(i), "x", 1, 1), weight=w) for i, w in enumerate([1, 1, 2.5, 0.5] * 50)]
    drawn = [drawn_by_weight(pairs, seed) for seed in range(200)]
    counts = np.array([np.bincount([int(p.prompt) for p in rows], minlength=200) for rows in drawn])
    assert np.abs(counts.mean(axis=0) - pair_weights(pairs)).max() < 0.2
    assert np.abs(counts - pair_weights(pairs)).max() < 1
    assert np.abs(counts.sum(axis=1) - 200).max() <= 1
    assert len({p.id for p in drawn[0]}) == len(drawn[0])
    assert drawn_by_weight(pairs[:2], 0) == pairs[:2], "equal weights"
    assert pair_weights([replace(pair, weight=None) for pair in pairs]) is None


def test_single_votes_of_the_mix_are_unbiased():
    """Over seeds, the drawn votes have the mean of the requested mix, and of every pair its label."""
    pairs = [cell("p", "x", 1, 2), cell("p", "y", 3, 0), cell("q", "x", 0, 1), cell("r", "y", 1, 1)]
    merged, _ = post_stratified(pairs, {"x": 0.3, "y": 0.7})
    wanted = float(np.average([p.label for p in merged], weights=[p.weight for p in merged]))
    votes = [sparse_label(p, seed) for seed in range(3000) for p in drawn_by_weight(merged, seed)]
    assert np.mean(votes) == pytest.approx(wanted, abs=0.02)


def test_simulated_groups():
    population = Population()
    simulated = simulate_pairs(4000, population, n_votes=2, by_group=True)
    shares = np.array([sum(p.n_votes for p in simulated.pairs if p.group == h.name) for h in PERSONAS]) / 8000
    assert np.abs(shares - population.shares).max() < 0.02
    by_persona = population.preference_by_persona(simulated.traits_a, simulated.traits_b)
    assert by_persona @ population.shares == pytest.approx([p.true_probability for p in simulated.pairs])
    names = [h.name for h in PERSONAS]
    of_group = by_persona[range(len(by_persona)), [names.index(p.group) for p in simulated.pairs]]
    votes = np.array([p.label for p in simulated.pairs])
    assert abs(np.mean(votes - of_group)) < 0.02
    assert np.corrcoef(votes, of_group)[0, 1] > np.corrcoef(votes, by_persona @ population.shares)[0, 1]
    assert len({p.id for p in simulated.pairs}) == len(simulated.pairs)
    assert np.isclose(population.with_shares({"specialist": 2.0}).shares, [0, 1, 0, 0, 0, 0, 0]).all()
    with pytest.raises(UserError, match="unknown persona 'nobody'"):
        population.with_shares({"nobody": 1.0})


def test_weights_are_read(tmp_path):
    file = tmp_path / "votes.csv"
    file.write_text("prompt,response_a,response_b,label,weight\nq,a,b,1,0.5\nr,a,b,0,\ns,a,b,0,-1\n")
    with pytest.raises(DataError, match="column 'weight': got '-1'; expected a number, 0 or more"):
        load_pairs(file)
    file.write_text(file.read_text().replace("-1", "2"))
    assert [pair.weight for pair in load_pairs(file)] == [0.5, None, 2.0]
    gatherer = Gatherer(LoadReport())
    for weight in (1.0, 1.0, 2.0):
        gatherer.add(cell("p", "x", 0, 1, weight=weight))
    assert [(pair.n_votes, pair.weight) for pair in gatherer.pairs] == [(2, 1.0), (1, 2.0)]
