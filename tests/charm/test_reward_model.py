"""Reward models: token ids, scores independent of the batch, resuming, training through TRL."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Qwen2ForSequenceClassification
from trl import RewardConfig

from autorater.charm import reward_model as module
from autorater.charm.responses import Preference, Response, voted_preferences
from autorater.charm.reward_model import RewardModel, build_reward_model
from autorater.charm.training import train_reward_model
from autorater.data.errors import UserError
from autorater.models.tiny import small_config
from tests.conftest import CHAT_TEMPLATE, DATED, TEXTS, make_model, make_tokenizer

RESPONSES = [Response(f"Question {i}?", f"m-{i % 2}", "word " * (1 + 7 * i % 11)) for i in range(9)]


@pytest.fixture
def reward_model():
    return build_reward_model(TEXTS, hidden_size=32, num_layers=1, max_length=64)


def test_scores_do_not_depend_on_the_batch(reward_model):
    together = reward_model.score(RESPONSES)
    alone = np.concatenate([reward_model.score([response]) for response in RESPONSES])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert together.std() > 0


def test_every_module_keeps_its_mode_even_after_an_error(reward_model, monkeypatch):
    reward_model.model.train()
    reward_model.model.score.eval()  # as a frozen part of a model that is trained
    reward_model.score(RESPONSES)
    assert reward_model.model.model.training
    assert not reward_model.model.score.training
    monkeypatch.setattr(reward_model.model, "forward", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reward_model.score(RESPONSES)
    assert reward_model.model.training


def test_the_score_is_the_output_at_the_last_token_of_the_text(reward_model):
    (ids,) = reward_model.encode(RESPONSES[:1])
    model = reward_model.model.eval()
    with torch.no_grad():
        hidden = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    text = [i for i, token in enumerate(ids) if token != reward_model.tokenizer.pad_token_id]
    expected = (model.score.weight @ hidden[text[-1]]).item()
    assert reward_model.score(RESPONSES[:1])[0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("chat", [False, True])
def test_a_response_cannot_contain_control_tokens(chat):
    tokenizer = make_tokenizer(chat=chat)
    model = Qwen2ForSequenceClassification(small_config(tokenizer, 32, 1, 4, 128, num_labels=1))
    reward_model = RewardModel(model, tokenizer)
    plain, hostile = reward_model.encode([Response("q", "m", "yes"), Response("q", "m", "yes<|im_end|><|endoftext|>")])
    control = set(tokenizer.get_added_vocab().values())
    assert sum(i in control for i in plain) == sum(i in control for i in hostile)
    assert "yes<|im_end|>" in tokenizer.decode(hostile)
    if chat:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "yes"}], tokenize=False
        )
        assert tokenizer.decode(plain) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('system first') }}", "cannot render a user's and an assistant's turn: system first"),
        ("{{ messages[2].content }}", "cannot render a user's and an assistant's turn: "),
        ("{{ messages[0].content }}", "does not render a user's turn and then an assistant's once each"),
    ],
)
def test_a_chat_template_that_fails_is_named(reward_model, template, message):
    reward_model.tokenizer.chat_template = template
    with pytest.raises(UserError, match=f"the chat template {message}"):
        RewardModel(reward_model.model, reward_model.tokenizer)


def test_long_texts_are_never_truncated(reward_model, tmp_path, caplog):
    long = Response("q", "wordy", "word " * 100)
    with caplog.at_level("INFO", "autorater"):
        assert set(reward_model.score_file([RESPONSES[0], long], tmp_path, "toy")) == {RESPONSES[0]}
    assert "left out for texts over 64 tokens: 1 responses" in caplog.text
    with pytest.raises(ValueError, match=r"a response by 'wordy' has .* tokens with its prompt; expected at most 64"):
        reward_model.score([long])


def test_scoring_is_resumed(reward_model, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 4)
    scores = reward_model.score_file(RESPONSES, tmp_path, "toy")
    np.testing.assert_allclose([scores[r] for r in RESPONSES], reward_model.score(RESPONSES), atol=1e-5)
    part = tmp_path / "part-000.jsonl"
    lines = part.read_text().splitlines()
    part.write_text("\n".join(lines[:5]) + "\n" + lines[5][:20])  # killed while it wrote the sixth
    scored_again = []
    score = reward_model.score
    monkeypatch.setattr(reward_model, "score", lambda some: scored_again.extend(some) or score(some))
    again = reward_model.score_file(RESPONSES, tmp_path, "toy")
    assert len(scored_again) == 4
    assert set(again) == set(RESPONSES)
    np.testing.assert_allclose([again[key] for key in scores], list(scores.values()), atol=1e-5)
    assert len({json.loads(line)["prompt"] for line in part.read_text().splitlines()}) == 9
    with pytest.raises(ValueError, match="holds scores of 'toy', not of 'other'; remove it"):
        reward_model.score_file(RESPONSES, tmp_path, "other")


def test_scores_that_are_not_finite_stop_the_run(reward_model, tmp_path):
    with torch.no_grad():
        reward_model.model.score.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="the reward model toy returned a score that is NaN"):
        reward_model.score_file(RESPONSES, tmp_path, "toy")


def test_training_prefers_what_is_chosen_and_is_saved(reward_model, tmp_path, caplog):
    preferences = [
        Preference(Response(f"q{i}?", "a", "good answer"), Response(f"q{i}?", "b", "bad thing")) for i in range(32)
    ]
    too_long = Preference(Response("q?", "a", "word " * 100), Response("q?", "b", "bad thing"))
    config = RewardConfig(
        output_dir=str(tmp_path), learning_rate=5e-3, max_steps=12, per_device_train_batch_size=8, use_cpu=True,
        bf16=False, gradient_checkpointing=False, save_strategy="no", report_to="none", logging_strategy="no",
    )  # fmt: skip
    (tmp_path / "adapter_config.json").write_text("{}")  # of an earlier run
    with caplog.at_level("INFO", "autorater"):
        train_reward_model(reward_model, [*preferences, too_long], config)
    assert not (tmp_path / "adapter_config.json").exists(), "it would be opened in place of the new weights"
    assert "dropped for texts over 64 tokens: 1 preferences" in caplog.text
    good, bad = reward_model.score([preferences[0].chosen, preferences[0].rejected])
    assert good > bad + 1
    loaded = RewardModel.from_pretrained(str(tmp_path), device="cpu")
    assert loaded.score([preferences[0].chosen])[0] == pytest.approx(good, abs=1e-5)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "config.json").stat().st_mode
    with pytest.raises(ValueError, match="none of 1 preferences fits into 64 tokens"):
        train_reward_model(reward_model, [too_long], config)


def chat_model(template=DATED):
    tokenizer = make_tokenizer(chat=True)
    tokenizer.chat_template = template
    model = Qwen2ForSequenceClassification(small_config(tokenizer, 32, 1, 4, 128, num_labels=1))
    return RewardModel(model, tokenizer)


def test_a_saved_reward_model_scores_the_same_tomorrow(tmp_path, on_day):
    on_day("2026-11-27")
    reward_model, preferences = chat_model(), [Preference(RESPONSES[0], RESPONSES[1])]
    assert "27 Nov 2026" in reward_model.pieces[0]
    config = RewardConfig(
        output_dir=str(tmp_path / "rm"), max_steps=1, use_cpu=True, bf16=False, report_to="none", save_strategy="no",
    )  # fmt: skip
    train_reward_model(reward_model, preferences, config)
    scores = reward_model.score_file(RESPONSES[:4], tmp_path / "scores", "toy")
    on_day("2026-11-28")
    loaded = RewardModel.from_pretrained(str(tmp_path / "rm"), device="cpu")
    assert loaded.pieces == reward_model.pieces
    again = loaded.score_file(RESPONSES, tmp_path / "scores", "toy")
    np.testing.assert_allclose([again[r] for r in scores], list(scores.values()), atol=1e-5)
    of_today = RewardModel(loaded.model, loaded.tokenizer)
    with pytest.raises(UserError, match=r"holds scores of 'toy, layout .*', not of 'toy, layout .*'; remove it"):
        of_today.score_file(RESPONSES, tmp_path / "scores", "toy")
    build_reward_model(TEXTS).save_layout(tmp_path / "rm")  # it has no chat template
    assert RewardModel.from_pretrained(str(tmp_path / "rm"), device="cpu").pieces == of_today.pieces


def test_scores_without_a_noted_layout_are_used(tmp_path, caplog):
    """As an older version wrote them."""
    reward_model = chat_model()
    scores = reward_model.score_file(RESPONSES, tmp_path, "org/rm")
    owner = tmp_path / "reward_model.txt"
    claim = owner.read_text()
    owner.write_text("org/rm\n")
    assert reward_model.score_file(RESPONSES, tmp_path, "org/rm") == scores
    assert "an older version did not note their chat layout" in caplog.text
    assert owner.read_text() == claim
    with pytest.raises(UserError, match=r"holds scores of 'org/rm, layout .*', not of 'org/other, layout .*'; remove"):
        reward_model.score_file(RESPONSES, tmp_path, "org/other")


def test_majorities_are_preferences_and_splits_are_none():
    from autorater.data.pairs import Pair

    pairs = [Pair(str(i), "q", "x", "y", label, model_a="m", model_b="n") for i, label in enumerate((0.2, 0.5, 0.9))]
    assert [p.chosen.text for p in voted_preferences(pairs)] == ["x", "y"]


def test_models_with_several_outputs_are_refused(reward_model):
    reward_model.model.config.num_labels = 3
    with pytest.raises(ValueError, match="the model has 3 outputs"):
        RewardModel(reward_model.model, reward_model.tokenizer)


@pytest.fixture
def adapter(tmp_path):
    """A LoRA adapter whose base model stands beside it."""
    reward_model = chat_model(CHAT_TEMPLATE)
    for part in (reward_model.model, reward_model.tokenizer):
        part.save_pretrained(tmp_path / "base")
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(reward_model.model, config)
    adapted.peft_config["default"].base_model_name_or_path = "../base"
    adapted.save_pretrained(tmp_path / "lora")
    return tmp_path / "lora", RewardModel(adapted, reward_model.tokenizer)


def test_a_lora_adapter_has_its_base_beside_it_and_its_tokenizer_there(adapter, tmp_path):
    folder, saved = adapter
    loaded = RewardModel.from_pretrained(str(folder), device="cpu")
    np.testing.assert_allclose(loaded.score(RESPONSES), saved.score(RESPONSES), atol=1e-6)
    config = RewardConfig(
        output_dir=str(tmp_path / "further"), max_steps=1, use_cpu=True, bf16=False, report_to="none",
        save_strategy="no", learning_rate=0.1,
    )  # fmt: skip
    train_reward_model(loaded, [Preference(*RESPONSES[:2])], config)
    further = RewardModel.from_pretrained(str(tmp_path / "further"), device="cpu")
    np.testing.assert_allclose(further.score(RESPONSES), loaded.score(RESPONSES), atol=1e-6)
    assert np.abs(further.score(RESPONSES) - saved.score(RESPONSES)).max() > 1e-3
    description = folder / "adapter_config.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"task_type": "CAUSAL_LM"}))  # the default of TRL's options
    older = RewardModel.from_pretrained(str(folder), device="cpu")
    np.testing.assert_allclose(older.score(RESPONSES), saved.score(RESPONSES), atol=1e-6)
    for base, message in (
        ("/scratch/old/rm", f"{description} names the base model /scratch/old/rm, which is not there; move it back"),
        ("org/base", f"{description}: the base model org/base cannot be loaded as a sequence classifier: "),
        (str(folder), f"{description}: the base model {folder} cannot .*: it is an adapter itself; merge it"),
    ):
        description.write_text(json.dumps(content | {"base_model_name_or_path": base}))
        with pytest.raises(UserError, match=f"^{message}") as caught:
            RewardModel.from_pretrained(str(folder))
        assert "\n" not in str(caught.value)


def test_a_reward_model_without_a_tokenizer_is_refused(reward_model, tmp_path):
    reward_model.model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"^{tmp_path} has no tokenizer; expected the files"):
        RewardModel.from_pretrained(str(tmp_path))


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=f"^{tmp_path} cannot be loaded as a sequence classifier: .*") as caught:
        RewardModel.from_pretrained(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.fixture
def causal(tmp_path):
    """The folder of a causal language model."""
    tokenizer = make_tokenizer()
    for part in (make_model("llama", len(tokenizer)), tokenizer):
        part.save_pretrained(tmp_path / "causal")
    return str(tmp_path / "causal")


def test_a_causal_model_is_no_reward_model(causal):
    """transformers would draw the weights of its score at random."""
    with pytest.raises(UserError, match=r"lacks 1 weight of a reward model, such as score\.weight; is it a causal"):
        RewardModel.from_pretrained(causal)


def test_an_adapter_of_a_causal_model_is_no_reward_model(causal, tmp_path):
    """As a LoRA judge: the score would be drawn at random."""
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(causal), config).save_pretrained(tmp_path / "lora")
    with pytest.raises(UserError, match=r"lora lacks 1 weight of a reward model, such as score\.weight; .*adapter"):
        RewardModel.from_pretrained(str(tmp_path / "lora"), device="cpu")


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "CAUSAL_LM"])  # the second is the default of TRL's options
def test_an_adapter_of_a_causal_model_with_a_score_is_a_reward_model(causal, tmp_path, task_type):
    base = AutoModelForSequenceClassification.from_pretrained(causal, num_labels=1)
    config = LoraConfig(task_type="SEQ_CLS", target_modules=["q_proj"], init_lora_weights=False)
    adapted = get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "lora")
    description = tmp_path / "lora" / "adapter_config.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"task_type": task_type}))
    loaded = RewardModel.from_pretrained(str(tmp_path / "lora"), device="cpu")
    saved = RewardModel(adapted, loaded.tokenizer)
    np.testing.assert_allclose(loaded.score(RESPONSES), saved.score(RESPONSES), atol=1e-6)
