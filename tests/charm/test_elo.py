from dataclasses import replace

import numpy as np
import pytest

from autorater.charm.elo import MEAN, SCALE, Rating, fit_elo, load_elo
from autorater.data.errors import DataError
from autorater.data.loading import load_pairs
from autorater.data.pairs import Pair, vote_share
from autorater.metrics.systems import expected_win_rate
from tests.conftest import DATA, needs_data

MODELS = ("ada", "bob", "cyd", "dee")


def a_pair(model_a, model_b, votes_a, votes_b, votes_tie=0, prompt="q", index=0):
    votes = {"votes_a": votes_a, "votes_b": votes_b, "votes_tie": votes_tie}
    return Pair(
        f"p{index}",
        prompt,
        "a",
        "b",
        vote_share(**votes),
        sum(votes.values()),
        model_a=model_a,
        model_b=model_b,
        **votes,
    )


def simulated_votes(elo, n_pairs=3000, n_prompts=300, n_votes=3, seed=0, prompt_effect=0.0):
    """Votes by Bradley–Terry; with `prompt_effect`, in logits, the strengths are other ones for every prompt."""
    rng = np.random.default_rng(seed)
    strength = np.array([elo[model] for model in MODELS]) / SCALE + rng.normal(0, prompt_effect, (n_prompts, 4))
    pairs = []
    for index in range(n_pairs):
        a, b = rng.choice(4, 2, replace=False)
        prompt = rng.integers(n_prompts)
        wins = rng.binomial(n_votes, 1 / (1 + np.exp(strength[prompt, a] - strength[prompt, b])))
        pairs.append(a_pair(MODELS[a], MODELS[b], int(n_votes - wins), int(wins), prompt=f"q{prompt}", index=index))
    return pairs


def minorize_maximize(pairs, rounds=3000):
    """Bradley–Terry by the classic fixed-point iteration (Hunter 2004), a tie being half a win each way."""
    wins = dict.fromkeys(MODELS, 0.0)
    games = []
    for pair in pairs:
        wins[pair.model_b] += pair.n_votes * pair.label
        wins[pair.model_a] += pair.n_votes * (1 - pair.label)
        games.append((pair.model_a, pair.model_b, pair.n_votes))
    strength = dict.fromkeys(MODELS, 1.0)
    for _ in range(rounds):
        total = dict.fromkeys(MODELS, 0.0)
        for a, b, n in games:
            total[a] += n / (strength[a] + strength[b])
            total[b] += n / (strength[a] + strength[b])
        strength = {model: wins[model] / total[model] for model in MODELS}
    logits = np.log([strength[model] for model in MODELS])
    return dict(zip(MODELS, MEAN + SCALE * (logits - logits.mean()), strict=True))


def test_the_maximum_is_that_of_the_classic_iteration():
    rng = np.random.default_rng(1)
    pairs = [
        a_pair(*rng.choice(MODELS, 2, replace=False), *map(int, rng.integers(1, 4, 3)), index=i) for i in range(25)
    ]
    expected = minorize_maximize(pairs)
    for model, rating in fit_elo(pairs).items():
        assert rating.elo == pytest.approx(expected[model], abs=1e-4)


def test_two_models_by_hand():
    # 30 wins, 10 losses, 20 ties: odds (30 + 10) / (10 + 10) = 2
    ratings = fit_elo([a_pair("ada", "bob", 30, 10, 20)])
    assert ratings["ada"].elo - ratings["bob"].elo == pytest.approx(SCALE * np.log(2), abs=1e-4)
    assert expected_win_rate(ratings["ada"].elo, ratings["bob"].elo) == pytest.approx(2 / 3, abs=1e-7)
    assert list(ratings) == ["ada", "bob"]
    assert (ratings["ada"].n_votes, ratings["ada"].low) == (60, None), "one prompt has no spread"


def test_a_pair_of_weight_two_is_two_pairs():
    pairs = simulated_votes({"ada": 1100, "bob": 1000, "cyd": 950, "dee": 950}, n_pairs=200)
    weighted = [replace(pair, weight=[None, 2.0, 0.0][i % 3]) for i, pair in enumerate(pairs)]
    repeated = [pair for i, pair in enumerate(pairs) for _ in range([1, 2, 0][i % 3])]
    found, expected = fit_elo(weighted), fit_elo(repeated)
    for model, rating in expected.items():
        assert (found[model].elo, found[model].low) == pytest.approx((rating.elo, rating.low), abs=1e-3)
        here = [pair for pair in weighted if model in (pair.model_a, pair.model_b) and pair.weight != 0]
        assert found[model].n_votes == sum(pair.n_votes for pair in here)


def test_weights_of_0_leave_nothing_to_compare():
    with pytest.raises(DataError, match="none of 1 pairs compares two different models with a weight above 0"):
        fit_elo([replace(a_pair("ada", "bob", 1, 1), weight=0.0)])


def test_the_order_of_the_responses_does_not_matter():
    pairs = simulated_votes(dict(zip(MODELS, (900, 1000, 1000, 1100), strict=True)), n_pairs=300)
    turned = [pair.swapped() if i % 2 else pair for i, pair in enumerate(pairs)]
    for model, rating in fit_elo(turned).items():
        assert rating.elo == pytest.approx(fit_elo(pairs)[model].elo, abs=1e-6)


@pytest.mark.parametrize("prompt_effect", [0.0, 1.0])
def test_intervals_cover(prompt_effect):
    """With prompts that favour models, votes on the same prompt are dependent; the intervals must include this."""
    truth = dict(zip(MODELS, (850, 1000, 1050, 1100), strict=True))
    if prompt_effect:  # what the fit aims at is the marginal win rate, so the truth is a fit of very many prompts
        truth = {m: r.elo for m, r in fit_elo(simulated_votes(truth, 60_000, 60_000, 3, 99, prompt_effect)).items()}
    covered = []
    for seed in range(60):
        ratings = fit_elo(
            simulated_votes(
                truth if not prompt_effect else dict(zip(MODELS, (850, 1000, 1050, 1100), strict=True)),
                1200,
                100,
                3,
                seed,
                prompt_effect,
            )
        )
        covered += [ratings[model].low <= truth[model] <= ratings[model].high for model in MODELS]
    assert 0.89 < np.mean(covered) < 0.99


def test_models_without_a_finite_elo_are_refused():
    never_lost = [a_pair("ada", "bob", 3, 0), a_pair("bob", "cyd", 1, 2)]
    with pytest.raises(ValueError, match="no finite Elo fits: 'bob', 'cyd' never won a vote against 'ada'"):
        fit_elo(never_lost)
    apart = [a_pair("ada", "bob", 1, 1), a_pair("cyd", "dee", 1, 1)]
    with pytest.raises(ValueError, match="no finite Elo fits: 'ada', 'bob' never won a vote against 'cyd', 'dee'"):
        fit_elo(apart)
    with pytest.raises(ValueError, match="none of 1 pairs compares two different models"):
        fit_elo([a_pair("ada", "ada", 1, 1)])
    with pytest.raises(ValueError, match="pair 'p0' has no model_a"):
        fit_elo([a_pair(None, "bob", 1, 1)])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("arena.csv", "Rank,Model,Arena Score,95% CI\n1,big-1,1250.5,+3/-3\n2,small,1100,+5/-4\n"),
        ("table.csv", "\ufeffelo,model\n1250.5,big-1\n1100,small\n"),
        ("list.json", '[{"model": "big-1", "rating": 1250.5}, {"model": "small", "rating": "1100"}]'),
        ("object.json", '{"big-1": 1250.5, "small": 1100}'),
        ("rows.jsonl", '{"name": "big-1", "score": 1250.5}\n{"name": "small", "score": 1100}\n'),
    ],
)
def test_tables_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_elo(tmp_path / name) == {"big-1": Rating(1250.5), "small": Rating(1100.0)}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "model,votes\na,3\n", "line 2: the columns are model, votes; expected one of elo, rating, "),
        ("t.csv", "model,elo\na,high\n", "line 2: column 'elo': got 'high'; expected a finite number"),
        ("t.csv", "model,elo\na,nan\n", "line 2: column 'elo': got 'nan'"),
        (
            "t.csv",
            "model,elo\na,1\na,2\n",
            "line 3: column 'model': got 'a'; expected the name of a model that no earlier row has",
        ),
        ("t.csv", "model,elo\n,1\n", "line 2: column 'model': got ''; expected the name of a model"),
        ("t.csv", "model,elo\n", "no rows"),
        ("t.csv", 'model,elo\n"a,1\n', "not CSV"),
        ("t.json", "{", "not usable JSON"),
        ("t.json", "3", "got 3; expected a JSON object"),
        ("t.json", "[3]", r"got \[3\]; expected a JSON object"),
        ("t.json", '{"a": true}', "column 'elo': got True"),
        ("t.txt", "", "unknown file type"),
    ],
)
def test_bad_tables_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message) as refused:
        load_elo(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        load_elo(tmp_path / "nowhere.csv")


@needs_data("pandalm_test")
@pytest.mark.filterwarnings("ignore::autorater.data.errors.DataWarning")
def test_five_models_by_real_votes_rank_as_by_their_win_rates():
    pairs = load_pairs(DATA / "pandalm_test.jsonl.gz", allow_odd_responses=True)
    ratings = fit_elo(pairs)
    won = {model: [] for model in ratings}
    for pair in pairs:
        won[pair.model_b].append(pair.label)
        won[pair.model_a].append(1 - pair.label)
    assert list(ratings) == ["llama-7b", "pythia-6.9b", "bloom-7b", "opt-7b", "cerebras-gpt-6.7B"]
    for stronger, one in ratings.items():
        for weaker, other in ratings.items():
            if one.low > other.high:
                assert np.mean(won[stronger]) > np.mean(won[weaker])
