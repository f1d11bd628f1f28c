"""Policies built from scratch, loaded policies, and what is wrong with those that cannot be loaded."""

import copy
import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from autorater.data.errors import UserError
from autorater.judges import Judge
from autorater.judges.merging import merge_adapter
from autorater.models import loading
from autorater.models.loading import check_has_end, load_on, load_policy, not_loaded, resolve_model, train_only
from autorater.models.split_attention import supports_shared_prefix
from autorater.models.tiny import build_policy
from autorater.models.token_tree import tokens_after
from tests.conftest import make_model, make_tokenizer

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
    with pytest.raises(UserError, match="no parameter's name contains 'embeding'"):
        train_only(model, ["embed_tokens", "embeding"])


def test_model_paths_that_hold_no_model(tmp_path):
    with pytest.raises(UserError, match="no such folder or file"):
        resolve_model(str(tmp_path / "missing"))
    with pytest.raises(UserError, match="holds no model"):
        resolve_model(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        resolve_model(str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"^model\.gguf: no such folder or file"):
        resolve_model("model.gguf")
    resolve_model("Qwen/Qwen2.5-7B-Instruct")  # a Hub name is left to transformers


def test_a_name_in_an_existing_folder_may_be_a_mistyped_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    error = OSError("no connection\nmore")
    message = "runs/nope: no such folder or file, and as a Hub name it cannot be loaded as a judge: no connection"
    assert str(not_loaded("runs/nope", error, "judge")) == message
    for name in ("runs/mine", "org/nope", "nope"):
        assert str(not_loaded(name, error, "judge")) == f"{name} cannot be loaded as a judge: no connection"


@pytest.fixture
def folder(policy, tmp_path):
    model, tokenizer = policy
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_device_map_stays_unless_a_device_is_named(monkeypatch):
    model = torch.nn.Linear(2, 2, device="meta")
    monkeypatch.setattr(loading, "load_policy", lambda name: (model, None))
    model.hf_device_map = {"": "meta"}
    assert load_on("m")[0].weight.is_meta
    with pytest.raises(NotImplementedError, match="meta"):  # it is moved
        load_on("m", "cpu")
    del model.hf_device_map
    with pytest.raises(NotImplementedError, match="meta"):
        load_on("m")


def test_an_unknown_dtype(folder):
    with pytest.raises(UserError, match="dtype is 'fp16'; expected auto or a torch dtype such as float32"):
        load_policy(str(folder), dtype="fp16")


def test_the_older_name_of_dtype(folder):
    assert load_policy(str(folder), torch_dtype="bfloat16")[0].dtype == torch.bfloat16
    with pytest.raises(UserError, match="dtype is 'float32' and torch_dtype, its older name, 'bfloat16'; expected"):
        load_policy(str(folder), dtype="float32", torch_dtype="bfloat16")


def test_a_mixture_of_experts_that_was_saved_with_the_router_logits_of_its_training(tmp_path):
    tokenizer = make_tokenizer()
    model = make_model("moe", len(tokenizer))
    model.config.output_router_logits = True
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert not supports_shared_prefix(model)[0]
    loaded, _ = load_policy(str(tmp_path))
    assert supports_shared_prefix(loaded)[0]
    assert loaded.config.router_aux_loss_coef == model.config.router_aux_loss_coef > 0


def test_the_chat_template_of_an_older_processor(folder):
    assert load_policy(str(folder))[1].chat_template is None
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert load_policy(str(folder))[1].chat_template == "{{ messages }}"
    (folder / "chat_template.jinja").write_text("{{ messages[0] }}")
    assert load_policy(str(folder))[1].chat_template == "{{ messages[0] }}"


def edit(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("named", ["generation_config.json", "config.json"])
def test_a_tokenizer_without_an_end_of_sequence_token_takes_that_of_the_model(policy, folder, named):
    _, tokenizer = policy
    edit(folder / "tokenizer_config.json", eos_token=None, pad_token=None)
    for file in ("generation_config.json", "config.json"):
        edit(folder / file, eos_token_id=[tokenizer.eos_token_id, 5] if file == named else None)
    loaded = load_policy(str(folder))[1]
    assert loaded.eos_token == loaded.pad_token == tokenizer.eos_token
    edit(folder / named, eos_token_id=None)
    edit(folder / named, eos_token_id=-1)
    loaded = load_policy(str(folder))[1]
    with pytest.raises(UserError, match=r"no eos_token in its tokenizer, nor eos_token_id in .*; expected the token"):
        check_has_end(str(folder), loaded)
    assert Judge.from_pretrained(str(folder)).tokenizer.eos_token is None, "exact answers need none"
    with pytest.raises(UserError, match=r"no eos_token"):
        Judge.from_pretrained(str(folder), reasoning=True)


SLOW = """
from transformers import PreTrainedTokenizer
class Bytes(PreTrainedTokenizer):
    def __init__(self, **options):
        super().__init__(eos_token="\\0")
    vocab_size = property(lambda self: 256)
    def get_vocab(self):
        return {chr(i): i for i in range(256)}
    def _tokenize(self, text, **options):
        return list(text)
    def _convert_token_to_id(self, token):
        return ord(token)
    def _convert_id_to_token(self, i):
        return chr(i)
"""


def test_a_slow_tokenizer_is_refused_for_answers_of_several_tokens(folder):
    without_tokenizer(folder)
    (folder / "tokenization_bytes.py").write_text(SLOW)
    of_class = {"tokenizer_class": "Bytes", "auto_map": {"AutoTokenizer": ["tokenization_bytes.Bytes", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(of_class))
    _, tokenizer = load_policy(str(folder), trust_remote_code=True)
    with pytest.raises(UserError, match=r"the tokenizer, Bytes, is slow: .*; expected a fast one, .* or a pointwise"):
        tokens_after(tokenizer, "x", "0.5")


def without_weights(folder):
    (folder / "model.safetensors").unlink()


def with_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def of_an_unknown_type(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "quen"}))


def of_its_own_code(folder):
    change(folder, {"auto_map": {"AutoConfig": "of_my.Config"}, "model_type": "my"}, lambda weights: weights)


def without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_weights, "no file named model.safetensors"),
        (with_truncated_weights, "deserializing header"),
        (of_an_unknown_type, "model type `quen`"),
        (without_tokenizer, "has no tokenizer"),
        (
            of_its_own_code,
            r"contains custom code .* \(Judge.from_pretrained\(…, trust_remote_code=True\) in Python executes it\)$",
        ),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_named_in_one_line(folder, damage, message, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda question: "n")  # transformers asks whether to run code
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_policy(str(folder))
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_model_without_a_language_model_head_is_refused(policy, tmp_path):
    """transformers would draw the head at random."""
    model, tokenizer = policy
    config = LlamaConfig.from_dict(model.config.to_dict() | {"tie_word_embeddings": False, "num_labels": 1})
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lacks 1 weights of a causal language model, such as lm_head\.weight; is it"):
        load_policy(str(tmp_path))


def change(folder, config, of_weights):
    """Other values in the config, and other weights in the file."""
    file, weights = folder / "config.json", folder / "model.safetensors"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    save_file(of_weights(load_file(weights)), weights, metadata={"format": "pt"})


def with_scales(weights):
    """As ModelOpt and others write weights in float8: the weight times its scale is the weight of the model."""
    of_scales = {name.replace("weight", "weight_scale"): torch.tensor(0.1) for name in weights if "proj" in name}
    in_float8 = {name: w.to(torch.float8_e4m3fn) if "proj" in name else w for name, w in weights.items()}
    return in_float8 | {name: w for name, w in of_scales.items() if "bias" not in name}


@pytest.mark.parametrize("config", [{}, {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}])
def test_quantized_weights_that_transformers_would_load_without_their_scales_are_refused(folder, config):
    change(folder, config, with_scales)
    with pytest.raises(UserError, match=r"transformers does not read: 14 scales, such as .*\.down_proj\.weight_scale"):
        load_policy(str(folder))


def with_layers(weights, *names):
    return weights | {f"model.layers.{name}": torch.ones(32) for name in names}


def test_layers_that_the_config_leaves_out_are_refused(folder):
    change(folder, {"num_hidden_layers": 1, "layer_types": ["full_attention"]}, lambda weights: weights)
    with pytest.raises(UserError, match=r"has 12 weights of layers that its config leaves out, such as .*layers\.1\."):
        load_policy(str(folder))
    change(folder, {"num_hidden_layers": 2, "layer_types": ["full_attention"] * 2}, lambda weights: weights)
    assert len(load_policy(str(folder), num_hidden_layers=1)[0].model.layers) == 1, "on purpose"


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"num_nextn_predict_layers": 1}, ["2.input_layernorm.weight", "2.mlp.up_proj.weight_scale_inv"]),
        ({}, ["2.input_layernorm.weight", "2.eh_proj.weight"]),
        ({}, ["0.self_attn.k_scale", "0.mlp.up_proj.input_scale"]),
        ({}, ["0.visual.qkv.weight_scale_inv"]),
    ],
    ids=["mtp in the config", "mtp in the names", "scales of activations", "an image encoder"],
)
def test_other_weights_that_a_model_does_not_have_are_logged(folder, config, names, caplog):
    change(folder, config, lambda weights: with_layers(weights, *names))
    with caplog.at_level(logging.INFO, "autorater"):
        load_policy(str(folder))
    (line,) = [record.message for record in caplog.records if record.name.startswith("autorater")]
    assert line.startswith(
        f"{folder}: {len(names)} weights in its files are not part of the model and are left out, such as"
    )


def test_weights_of_another_shape_are_named(folder):
    change(folder, {"vocab_size": 500}, lambda weights: weights)
    with pytest.raises(UserError) as caught:
        load_policy(str(folder))
    rows = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert str(caught.value) == (
        f"{folder}: the shapes of 1 weights are not those of its config, such as model.embed_tokens.weight: got "
        f"({len(rows)}, 32); expected (500, 32)"
    )


@pytest.mark.parametrize("name", ["nobody/nothing", "no name?"])
def test_an_unknown_hub_name_is_named(name):
    with pytest.raises(UserError, match="cannot be loaded as a causal language model") as caught:
        load_policy(name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("content", "kind"), [('{"base_model_name_or_path": "x"}', "None"), ('{"peft_type": "NEW"}', "'NEW'")]
)
def test_an_adapter_of_an_unknown_kind(tmp_path, content, kind):
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(UserError, match=rf"adapter_config\.json: peft_type is {kind}; expected one of .*LORA"):
        load_policy(str(tmp_path))


def test_an_adapter_whose_base_model_was_moved(tmp_path):
    config = tmp_path / "adapter_config.json"
    config.write_text(json.dumps({"base_model_name_or_path": "/scratch/old/llama", "peft_type": "LORA"}))
    message = f"{config} names the base model /scratch/old/llama, which is not there"
    with pytest.raises(UserError) as caught:
        load_policy(str(tmp_path))
    assert str(caught.value).startswith(message)
    config.write_text(json.dumps({"base_model_name_or_path": str(tmp_path), "peft_type": "LORA"}))
    resolve_model(str(tmp_path))
    for base in (None, ""):
        config.write_text(json.dumps({"base_model_name_or_path": base, "peft_type": "LORA"}))
        with pytest.raises(UserError, match=f"{config}: base_model_name_or_path is {base!r}; expected the Hub name"):
            load_policy(str(tmp_path))
    config.write_text(json.dumps({"base_model_name_or_path": "C:\\models\\llama", "peft_type": "LORA"}))
    with pytest.raises(UserError, match="which is not there"):
        resolve_model(str(tmp_path))
    config.write_text("[]")
    with pytest.raises(UserError, match="expected a JSON object"):
        resolve_model(str(tmp_path))


def test_an_adapter_without_a_tokenizer_has_that_of_its_base_model(folder, tmp_path_factory):
    from peft import LoraConfig, get_peft_model

    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    model, tokenizer = load_policy(str(folder))
    adapter = str(tmp_path_factory.mktemp("adapter"))
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
    loaded = load_policy(adapter)[1]
    assert (loaded.get_vocab(), loaded.chat_template) == (tokenizer.get_vocab(), "{{ messages }}")


def test_an_adapter_of_an_adapter_is_refused(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    base = str(folder)
    for name in ("inner", "outer"):
        model, tokenizer = load_policy(str(folder))
        adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
        adapted.peft_config["default"].base_model_name_or_path = base
        base = str(tmp_path / name)
        adapted.save_pretrained(base)
        tokenizer.save_pretrained(base)
    load_policy(str(tmp_path / "inner"))
    with pytest.raises(UserError) as caught:
        load_policy(str(tmp_path / "outer"))
    assert str(caught.value) == (
        f"{tmp_path / 'outer' / 'adapter_config.json'}: the base model {tmp_path / 'inner'} cannot be loaded as a "
        "causal language model: it is an adapter itself; merge it first (autorater merge), or name its own base model"
    )


@pytest.mark.parametrize("of_tokens", ["modules_to_save", "trainable_token_indices"])
@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_with_added_tokens(policy, tmp_path, of_tokens, tied):
    from peft import LoraConfig, get_peft_model

    tokenizer, base, adapter = copy.deepcopy(policy[1]), str(tmp_path / "base"), str(tmp_path / "adapter")
    config = LlamaConfig.from_dict(policy[0].config.to_dict() | {"model_type": "llama", "tie_word_embeddings": tied})
    model = LlamaForCausalLM(config)
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    model.name_or_path = base
    added = [tokenizer.convert_tokens_to_ids(token) for token in ("<a>", "<b>") if tokenizer.add_tokens(token)]
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    modules = ["embed_tokens", *([] if tied else ["lm_head"])]
    options = {"modules_to_save": modules, "trainable_token_indices": {"embed_tokens": added}}
    adapted = get_peft_model(
        model, LoraConfig(target_modules=["q_proj"], ensure_weight_tying=tied, **{of_tokens: options[of_tokens]})
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 4)
    adapted.save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    ids = torch.tensor([[3, *added, 4]])
    with torch.no_grad():
        expected = adapted.eval()(ids).logits
    merge_adapter(adapter, tmp_path / "merged")
    for folder in (adapter, str(tmp_path / "merged")):
        with torch.no_grad():
            logits = load_policy(folder)[0].eval()(ids).logits
        torch.testing.assert_close(logits, expected)


def test_an_adapter_of_a_model_with_fewer_or_more_rows(policy, tmp_path):
    """Spare rows are cut by TRL's clone_chat_template, and `pad_to_multiple_of` adds some."""
    from peft import LoraConfig, get_peft_model

    tokenizer, base = policy[1], str(tmp_path / "base")
    for rows in (len(tokenizer) - 3, 512):
        model = copy.deepcopy(policy[0])
        model.save_pretrained(base)
        tokenizer.save_pretrained(base)
        model.name_or_path = base
        model.resize_token_embeddings(rows, mean_resizing=False)
        adapter = str(tmp_path / str(rows))
        adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
        adapted.save_pretrained(adapter, save_embedding_layers=True)
        with torch.no_grad():
            expected = adapted.eval()(torch.tensor([[3, 4]])).logits
            torch.testing.assert_close(load_policy(adapter)[0].eval()(torch.tensor([[3, 4]])).logits, expected)
    weights = load_file(f"{adapter}/adapter_model.safetensors")
    save_file(
        {n: w[:, :5].contiguous() if "lora_A" in n else w for n, w in weights.items()},
        f"{adapter}/adapter_model.safetensors",
    )
    with pytest.raises(UserError, match="cannot be loaded as a LoRA adapter of"):
        load_policy(adapter)


def test_a_relative_base_model_is_in_the_working_directory_or_beside_the_adapter(policy, tmp_path, monkeypatch):
    from peft import LoraConfig, PeftModel, get_peft_model

    model, tokenizer = policy
    adapter, work = tmp_path / "runs" / "lora", tmp_path / "work"
    get_peft_model(copy.deepcopy(model), LoraConfig(target_modules=["q_proj"])).save_pretrained(adapter)
    tokenizer.save_pretrained(adapter)
    work.mkdir()
    monkeypatch.chdir(work)
    config = json.loads((adapter / "adapter_config.json").read_text())
    places = {"base": adapter / "base", "../../other": tmp_path / "other", "here": work / "here"}
    for base, place in places.items():
        model.save_pretrained(place)
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        loaded, _ = load_policy(str(adapter))
        assert isinstance(loaded, PeftModel)
    loaded.save_pretrained(tmp_path / "elsewhere")
    tokenizer.save_pretrained(tmp_path / "elsewhere")
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "../../other"}))
    load_policy(str(adapter))[0].save_pretrained(tmp_path / "a" / "deeper" / "copy")
    tokenizer.save_pretrained(tmp_path / "a" / "deeper" / "copy")
    for copied in ("elsewhere", "a/deeper/copy"):
        assert isinstance(load_policy(str(tmp_path / copied))[0], PeftModel)
    config["base_model_name_or_path"] = "runs/base"  # could be a Hub name
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as caught:
        load_policy(str(adapter))
    assert str(caught.value).startswith(f"{adapter}/adapter_config.json: the base model runs/base cannot be loaded")
