"""Policies built from scratch, and the paths of those that are loaded."""

import pytest
import torch

from autorater.models.loading import check_model_path, load_policy, train_only
from autorater.models.tiny import build_policy

TEXTS = ["How do I get better at chess? Keep it simple, do it often: 0.85 or 17.", "Be careful! 日本語 too."] * 20


@pytest.fixture(scope="module")
def policy():
    return build_policy(TEXTS, vocab_size=400, hidden_size=32, num_layers=2, num_heads=2, max_length=64)


def test_tokenizer_reads_any_text_back(policy):
    _, tokenizer = policy
    for text in ["0.85", " chess", "\x00 <|im_end|> 🙂\n\n  x", "</prob_rb_better>", ""]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("2024")["input_ids"]) == 4, "digits come one by one"


def test_policy_survives_saving(policy, tmp_path):
    model, tokenizer = policy
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, loaded_tokenizer = load_policy(str(tmp_path))
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)
    assert loaded_tokenizer(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    assert loaded_tokenizer.padding_side == "left"
    assert sorted(f.suffix for f in tmp_path.glob("*model*")) == [".safetensors"]


def test_same_seed_same_weights():
    a, b = (build_policy(TEXTS, vocab_size=300, hidden_size=16, num_layers=1, num_heads=2, seed=s)[0] for s in (1, 1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_all_but_the_named_parameters_freeze():
    model, _ = build_policy(TEXTS, vocab_size=300, hidden_size=16, num_layers=2, num_heads=2)
    train_only(model, ["embed_tokens", "layers.1.mlp"])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert "model.embed_tokens.weight" in trained
    assert trained - {"model.embed_tokens.weight"} == {
        f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    }
    with pytest.raises(ValueError, match="no parameter's name holds 'embeding'"):
        train_only(model, ["embed_tokens", "embeding"])


def test_model_paths_that_hold_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such model folder"):
        check_model_path(str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError, match="holds no model"):
        check_model_path(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match="is a file"):
        check_model_path(str(tmp_path / "file"))
    check_model_path("Qwen/Qwen2.5-7B-Instruct")  # a Hub name is left to transformers
