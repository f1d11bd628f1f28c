"""Merged adapters: they judge as before wherever their layers are, and a merge that fails leaves nothing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from autorater.data.errors import UserError
from autorater.judges.merging import merge_adapter
from tests.conftest import make_model, make_tokenizer

IDS = torch.arange(10, 30)[None]


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings", "ignore:Setting `save_embedding_layers")
@pytest.mark.parametrize(
    ("layers", "is_kept_tied"),
    [
        (["embed_tokens"], False),
        (["embed_tokens"], True),
        (["lm_head"], False),
        (["embed_tokens", "lm_head"], False),
    ],
)
def test_adapted_embeddings_or_head_that_share_their_weights(tmp_path, layers, is_kept_tied):
    base, adapter, merged = (str(tmp_path / name) for name in ("base", "adapter", "merged"))
    tokenizer = make_tokenizer("split")
    model = make_model("gemma", len(tokenizer))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for part in (model, tokenizer):
        part.save_pretrained(base)
    model.name_or_path = base
    options = {"init_lora_weights": False, "ensure_weight_tying": is_kept_tied}
    with_adapter = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", *layers], **options)).eval()
    for part in (with_adapter, tokenizer):
        part.save_pretrained(adapter)
    merge_adapter(adapter, merged)
    with torch.no_grad():
        expected = with_adapter(IDS).logits
        got = AutoModelForCausalLM.from_pretrained(merged).eval()(IDS).logits
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)


def test_a_full_disk_leaves_no_part_of_a_model(tmp_path, monkeypatch):
    """What is left would have to be removed before the same command is accepted again."""

    def save_pretrained(folder):
        Path(folder).mkdir()
        Path(folder, "config.json").touch()
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    model = SimpleNamespace(merge_and_unload=lambda: SimpleNamespace(save_pretrained=save_pretrained))
    monkeypatch.setattr("autorater.judges.merging._untie_adapted", lambda _: None)
    monkeypatch.setattr("autorater.models.loading.load_policy", lambda *_, **__: (model, None))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    with pytest.raises(UserError, match=r"merged cannot be written \(No space left on device\)"):
        merge_adapter(str(tmp_path), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
