"""The linear probe: what its states hold, no order, no prediction from votes on the same texts."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForCausalLM, Gemma3nTextConfig, RwkvConfig

from autorater.data.errors import UserError
from autorater.data.loading import load_pairs, write_pairs
from autorater.data.pairs import Pair, with_sparse_labels
from autorater.judges import LinearProbe, probe
from autorater.models import loading
from autorater.models.response_states import ResponseStates
from tests.conftest import DATA, make_model, make_tokenizer, needs_data

SMOLLM2 = os.environ.get("AUTORATER_SMOLLM2", "")
GOOD, BAD = ["fox", "jumps", "over", "brown", "dogs"], ["the", "lazy", "cats", "fun", "one"]


def response(rng, goodness: float) -> str:
    words = [rng.choice(GOOD if rng.uniform() < goodness else BAD) for _ in range(12)]
    return " ".join(words)


@pytest.fixture(scope="module")
def pairs():
    """Single votes for the response with more good words; 12 prompts with 8 responses each."""
    rng, pairs = np.random.default_rng(0), []
    for prompt in range(12):
        quality = rng.uniform(size=8)
        texts = [response(rng, q) for q in quality]
        for _ in range(25):
            a, b = rng.choice(8, size=2, replace=False)
            vote = float(rng.uniform() < 1 / (1 + np.exp(-6 * (quality[b] - quality[a]))))
            pairs.append(Pair(str(len(pairs)), f"Question {prompt}?", texts[a], texts[b], vote, 1))
    return pairs


@pytest.fixture(scope="module")
def parts():
    tokenizer = make_tokenizer()
    return make_model("llama", len(tokenizer)), tokenizer


@pytest.fixture(scope="module")
def fitted(parts, pairs):
    return LinearProbe.fit_model(*parts, pairs[:-50], seed=0)


def test_it_learns_and_has_no_order(fitted, pairs):
    held_out = pairs[-50:]  # of two other prompts
    judgments = fitted.probabilities(held_out)
    labels = np.array([pair.label for pair in held_out])
    assert np.mean((judgments.p_ab - labels) ** 2) < 0.21
    swapped = fitted.probabilities([pair.swapped() for pair in held_out])
    np.testing.assert_allclose(swapped.p_ab, 1 - judgments.p_ab, atol=1e-12)
    np.testing.assert_allclose(judgments.p_ab + judgments.p_ba, 1, atol=1e-12)
    same = replace(held_out[0], response_b=held_out[0].response_a)
    assert fitted.probabilities([same]).p_ab == pytest.approx([0.5])
    assert fitted.probabilities([]).mean.shape == (0, 2)


def test_same_seed_same_probe(parts, pairs, fitted):
    again = LinearProbe.fit_model(*parts, pairs[:-50], seed=0)
    np.testing.assert_array_equal(again.weights, fitted.weights)
    np.testing.assert_array_equal(again.out_of_fold, fitted.out_of_fold)


def test_out_of_fold_probabilities_do_not_know_the_votes_on_their_texts(parts, pairs, fitted):
    """Votes of one prompt reversed: its own out-of-fold predictions are made from the others, which did not change."""
    train = pairs[:-50]
    flipped = [replace(p, label=1 - p.label) if p.prompt == train[0].prompt else p for p in train]
    texts, sides = probe._texts_of(train)
    folds = probe.text_folds(train, texts, 0)
    held_out = probe._held_out(folds[sides])
    features = torch.from_numpy(probe._features(ResponseStates(*parts).read(texts)[:, 0], texts))
    before, after = (
        probe._cross_fit(features, sides, np.array([p.label for p in part]), held_out, probe.STRENGTHS)[0]
        for part in (train, flipped)
    )
    own = folds[sides][:, 0] == folds[sides][0, 0]
    np.testing.assert_array_equal(before[:, own], after[:, own])
    assert not np.allclose(before[:, ~own], after[:, ~own])


def test_folds_divide_prompts_or_texts(pairs):
    texts, sides = probe._texts_of(pairs)
    folds = probe.text_folds(pairs, texts, 0)
    by_prompt = {}
    for (prompt, _), fold in zip(texts, folds, strict=True):
        assert by_prompt.setdefault(prompt, fold) == fold
    assert set(folds) == set(range(probe.N_FOLDS))

    one_prompt = [replace(pair, prompt="Which?") for pair in pairs]
    texts, sides = probe._texts_of(one_prompt)
    folds = probe.text_folds(one_prompt, texts, 0)
    predicted = np.zeros(len(pairs), dtype=int)
    for fit_on, rows in probe._held_out(folds[sides]):
        assert not set(sides[fit_on].ravel()) & set(sides[rows].ravel()), "no text is on both sides"
        predicted += rows
    assert (predicted == 1).all()

    with_topics = [replace(pair, topic=f"topic {int(pair.id) // 25 % 6}") for pair in pairs]
    texts, _ = probe._texts_of(with_topics)
    topics = {(p.prompt, r): p.topic for p in with_topics for r in (p.response_a, p.response_b)}
    folds = probe.text_folds(with_topics, texts, 0)
    assert len({(topics[text], fold) for text, fold in zip(texts, folds, strict=True)}) == 6, "topics are coarser"


def test_the_fit_is_logistic_regression():
    rng = np.random.default_rng(0)
    features, sides = rng.normal(size=(30, 5)), rng.integers(30, size=(200, 2))
    labels = rng.integers(2, size=200).astype(float)
    difference = features[sides[:, 1]] - features[sides[:, 0]]
    expected = LogisticRegression(C=0.3, fit_intercept=False, tol=1e-8).fit(difference, labels).coef_[0]
    fitted = probe._fit(torch.from_numpy(features), sides, labels, 0.3)
    np.testing.assert_allclose(fitted, expected, atol=1e-3)


def test_layer_and_strength_are_chosen_on_some_of_many_pairs(parts, pairs, monkeypatch):
    """All layers are read of few texts, one layer of the others; the probabilities are of all pairs."""
    monkeypatch.setattr(probe, "_TEXTS_FOR_CHOICE", 60)
    read = []
    forward = ResponseStates._forward
    monkeypatch.setattr(
        ResponseStates,
        "_forward",
        lambda s, ids, counts: read.append((len(ids), len(s.layers))) or forward(s, ids, counts),
    )
    fitted = LinearProbe.fit_model(*parts, pairs)
    of_layers = {n: sum(rows for rows, layers in read if layers == n) for n in (1, 2)}
    assert 50 <= of_layers[2] <= 60
    assert sum(of_layers.values()) == 12 * 8, "no text is read twice"
    assert np.isfinite(fitted.out_of_fold).all()
    labels = np.array([pair.label for pair in pairs])
    assert np.mean((fitted.out_of_fold - labels) ** 2) < 0.24


@pytest.mark.parametrize("limit", [1, 2, 9, 10, 40])
def test_some_pairs_have_few_texts(limit, monkeypatch):
    monkeypatch.setattr(probe, "_TEXTS_FOR_CHOICE", limit)
    sides = np.random.default_rng(0).integers(10, size=(30, 2))
    some = probe._some_pairs(sides, seed=1)
    assert len(np.unique(sides[some])) <= limit
    assert (np.diff(some) > 0).all()
    if limit >= 10:
        np.testing.assert_array_equal(some, np.arange(30))


def test_states_are_means_over_the_response_alone(parts):
    model, tokenizer = parts
    states = ResponseStates(model, tokenizer, [1, 2], max_batch_tokens=64)
    texts = [("Which?", "The quick brown fox"), ("Why is it so?", "one " * 9), ("Which?", ""), ("Which?", "0.85")]
    read = states.read(texts)
    for (prompt, answer), row in zip(texts, read, strict=True):
        before, after = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (prompt + "\n\n", answer))
        with torch.no_grad():
            hidden = model(torch.tensor([before + after]), output_hidden_states=True).hidden_states
        for layer, state in zip((1, 2), row, strict=True):
            expected = hidden[layer][0, -max(1, len(after)) :].mean(dim=0)
            np.testing.assert_allclose(state, expected, atol=1e-5)
    states.keep(2)
    np.testing.assert_array_equal(states.read(texts)[:, 0], read[:, 1])
    with pytest.raises(UserError, match="this model has room for 1024"):
        states.read([("x", "y " * 2000)])


def test_padding_does_not_enter_the_states_of_a_recurrent_model(parts):
    config = RwkvConfig(vocab_size=len(parts[1]), hidden_size=32, attention_hidden_size=32, num_hidden_layers=2)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, 0, 0.3)
    texts = [("Which?", "The quick brown fox"), ("Why is it so?", "one " * 9)]
    together = ResponseStates(model, parts[1]).read(texts)
    alone = [ResponseStates(model, parts[1]).read([text])[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_several_streams_of_states_are_read_as_the_active_one(parts):
    options = {"head_dim": 8, "hidden_size_per_layer_input": 8, "laurel_rank": 4, "num_kv_shared_layers": 0}
    config = Gemma3nTextConfig(
        vocab_size=len(parts[1]), vocab_size_per_layer_input=len(parts[1]), hidden_size=32, intermediate_size=32,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, layer_types=["full_attention"] * 2,
        activation_sparsity_pattern=[0.0] * 2, pad_token_id=0, bos_token_id=0, eos_token_id=0, **options,
    )  # fmt: skip
    states = ResponseStates(AutoModelForCausalLM.from_config(config).eval(), parts[1]).read(
        [("Why?", "a"), ("b", "c")]
    )
    assert states.shape == (2, 2, 32)


def test_means_are_float32_where_the_model_computes_in_bfloat16(parts, pairs):
    """As in a run on a GPU, which reads under autocast."""
    states = ResponseStates(*parts)
    texts = [(pair.prompt, pair.response_a) for pair in pairs[:3]]
    in_float32 = states.read(texts)
    with torch.autocast("cpu", torch.bfloat16):
        read = ResponseStates(*parts).read(texts)
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, in_float32, atol=0.02)
    assert not np.array_equal(read, in_float32), "the model computed in bfloat16"


def test_a_text_is_read_once(parts, pairs, monkeypatch):
    rows = []
    forward = ResponseStates._forward
    monkeypatch.setattr(ResponseStates, "_forward", lambda s, ids, counts: rows.extend(ids) or forward(s, ids, counts))
    fitted = LinearProbe.fit_model(*parts, pairs)
    assert len(rows) == 12 * 8
    fitted.probabilities(pairs)
    assert len(rows) == 12 * 8


def test_pairs_without_labels_and_sources(parts, pairs, fitted, tmp_path):
    with pytest.raises(UserError, match="pair '3' has no label; expected labels or votes to learn from"):
        LinearProbe.fit_model(*parts, [replace(pair, label=None) if pair.id == "3" else pair for pair in pairs])
    write_pairs(pairs[:-50], tmp_path / "pairs.jsonl")
    of_file = LinearProbe.fit_model(*parts, tmp_path / "pairs.jsonl", seed=0)
    np.testing.assert_array_equal(of_file.weights, fitted.weights)


def test_saved_and_loaded(parts, pairs, fitted, tmp_path):
    model, tokenizer = parts
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    fitted.name = str(tmp_path / "model")
    fitted.save(tmp_path / "runs" / "probe")
    loaded = LinearProbe.load(tmp_path / "runs" / "probe")
    np.testing.assert_allclose(loaded.probabilities(pairs[-9:]).mean, fitted.probabilities(pairs[-9:]).mean, atol=1e-6)
    np.testing.assert_array_equal(loaded.cross_fitted.p_ab, fitted.out_of_fold)
    assert (loaded.layer, loaded.strength) == (fitted.layer, fitted.strength)
    with pytest.raises(UserError, match="holds no linear probe"):
        LinearProbe.load(tmp_path / "model")
    description = tmp_path / "runs" / "probe" / "probe.json"
    description.write_text('{"model": "m"}')
    with pytest.raises(UserError, match=r"probe\.json: no layer, strength"):
        LinearProbe.load(description.parent)
    description.write_text('{"model": "m"')
    with pytest.raises(UserError, match=r"probe\.json cannot be read"):
        LinearProbe.load(description.parent)


def test_the_revision_of_the_model_is_saved(parts, pairs, tmp_path, monkeypatch):
    revisions = []

    def load_on(name, device, revision=None):
        revisions.append(revision)
        return parts

    monkeypatch.setattr(probe, "load_on", load_on)
    fitted = LinearProbe.fit("org/model", pairs, device="cpu", revision="v1")
    fitted.save(tmp_path / "probe")
    loaded = LinearProbe.load(tmp_path / "probe", device="cpu")
    loaded.save(tmp_path / "again")
    LinearProbe.load(tmp_path / "again", device="cpu")
    LinearProbe.load(tmp_path / "again", device="cpu", revision="v2")
    replace(fitted, revision=None).save(tmp_path / "probe")
    LinearProbe.load(tmp_path / "probe", device="cpu")
    assert revisions == ["v1", "v1", "v1", "v2", None]


def test_a_probe_whose_model_was_moved(parts, fitted, tmp_path):
    for part in parts:
        part.save_pretrained(tmp_path / "model")
    named = replace(fitted, name="../model")  # as from another working directory
    named.save(tmp_path / "probe")
    loaded = LinearProbe.load(tmp_path / "probe", device="cpu")
    assert loaded.name == str(tmp_path / "model")
    replace(fitted, name="/scratch/old/llama").save(tmp_path / "probe")
    message = f"{tmp_path}/probe/probe.json names the model /scratch/old/llama, which is not there; move it back, or"
    with pytest.raises(UserError, match=f"^{message} change model in that file to its new place$"):
        LinearProbe.load(tmp_path / "probe")


def test_pairs_that_cannot_be_divided(parts, pairs):
    with pytest.raises(UserError, match="5 or more distinct responses, got 2"):
        LinearProbe.fit_model(*parts, [pairs[0]] * 9)
    against_one = [replace(pair, prompt="Which?", response_a="the same") for pair in pairs]
    with pytest.raises(UserError, match="share responses"):
        LinearProbe.fit_model(*parts, against_one)


@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2, reason="AUTORATER_SMOLLM2 names no model")
@needs_data("convincing_train", "convincing_test", "humour_train", "humour_test")
@pytest.mark.parametrize(("name", "error", "agreement"), [("convincing", 0.0500, 0.81), ("humour", 0.0770, 0.69)])
def test_human_votes(name, error, agreement):
    train, test = (load_pairs(f"{DATA}/{name}_{part}.jsonl.gz") for part in ("train", "test"))
    fitted = LinearProbe.fit(SMOLLM2, with_sparse_labels(train, seed=0))
    p, labels = fitted.probabilities(test).p_ab, np.array([pair.label for pair in test])
    assert np.mean((p - labels) ** 2) < error
    assert np.mean(((p > 0.5) == (labels > 0.5))[labels != 0.5]) > agreement


def test_a_model_stays_where_a_device_map_put_it(monkeypatch):
    model = torch.nn.Linear(2, 2, device="meta")
    model.hf_device_map = {"": "meta"}
    monkeypatch.setattr(loading, "load_policy", lambda name, **options: (model, None))
    monkeypatch.setattr(LinearProbe, "fit_model", lambda model, *args, **options: model)
    assert LinearProbe.fit("m", [], device_map="auto").weight.is_meta
