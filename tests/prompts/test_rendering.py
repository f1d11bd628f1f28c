"""Where the answer begins, by every chat template that TRL ships and by some that none ships."""

from pathlib import Path

import pytest
import trl

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.prompts.encoder import PromptEncoder
from autorater.prompts.templates import PromptFormat
from rewards import OPEN_TAG
from tests.conftest import make_tokenizer

TEMPLATES = sorted(Path(trl.__file__).with_name("chat_templates").glob("*.jinja"))
PAIR = Pair("1", "How do I keep basil alive?", "Water it.", "Water it daily.", None)
EMPTY_THOUGHTS = ("<think>\n\n</think>\n\n", "<think></think>\n", "<think></think>", "")
CHANNELS = {"gptoss": "<|start|>assistant<|channel|>final<|message|>", "muse_glimmer": " to=user<|message|>"}


def tokenizer_of(template):
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<BOS>"})
    tokenizer.chat_template = template
    return tokenizer


def turn_of_assistant(tokenizer, thinks, parts):
    """What a chat template writes between the user's message and the assistant's."""

    def content(text):
        return [{"type": "text", "text": text}] if parts else text

    messages = [{"role": "user", "content": content("QQ")}, {"role": "assistant", "content": content("AA")}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=thinks)
    return text.split("QQ")[-1].split("AA")[0]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_answer_stands_where_a_turn_has_it(path):
    tokenizer = tokenizer_of(path.read_text(encoding="utf-8"))
    parts = path.stem.removesuffix("_training") in ("llava_next", "idefics3", "smolvlm")
    encoder = PromptEncoder(tokenizer, PromptFormat("short"))
    tail = encoder.pieces[-1].split("inside <prob_rb_better> tags.")[1]
    real = turn_of_assistant(tokenizer, False, parts)
    empty = next(thought for thought in EMPTY_THOUGHTS if tail.endswith(thought + OPEN_TAG))
    assert tail == real.removesuffix(empty) + empty + OPEN_TAG  # equal, or with an empty thought added
    assert tail.count("<think>") == tail.count("</think>")
    assert tail.endswith(CHANNELS.get(path.stem.removesuffix("_training"), "") + empty + OPEN_TAG)

    prompt = encoder.encode([PAIR])[0][0]
    assert tokenizer.decode(prompt.ids) == prompt.text
    assert prompt.text.count("<BOS>") == prompt.ids.count(tokenizer.bos_token_id) <= 1

    thinking = PromptEncoder(tokenizer, PromptFormat("full", reasoning=True)).pieces[-1]
    assert "</think>" not in thinking.split("[The End of Response B]")[1]
    system = PromptEncoder(tokenizer, PromptFormat("short", system_prompt="Be fair to both.")).pieces
    assert "".join(system).count("Be fair to both.") == 1
    assert system[-1] == encoder.pieces[-1]


USER = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("generation", "turn", "reasoning", "expected"),
    [
        ("<assistant>", "<assistant>", False, "<assistant>"),
        ("<model>", "<assistant>", False, "<model>"),  # another word for the role
        ("", "<assistant>", False, "<assistant>"),  # no generation prompt
        ("<assistant><think>", "<assistant>", False, "<assistant><think>\n\n</think>\n\n"),
        ("<assistant><think>", "<assistant>", True, "<assistant><think>"),
        ("<assistant>", "<assistant><think>\n\n</think>\n\n", True, "<assistant>"),
        ("<assistant><think>\n", "<assistant><think>\n\n</think>\n\n", False, "<assistant><think>\n\n</think>\n\n"),
        ("<assistant>", "<assistant>[final]", True, "<assistant>[final]"),
        ("ASSISTANT:", "ASSISTANT: ", False, "ASSISTANT: "),
        ("ASSISTANT:", "ASSISTANT: ", True, "ASSISTANT:"),  # what is generated begins with its own space
        ("<assistant>\n<think>\n\n</think>\n\n", "<assistant>\n", False, "<assistant>\n<think>\n\n</think>\n\n"),
        ("<assistant><think></think>", "<assistant>", False, "<assistant><think></think>"),
        ("<assistant><think></think>", "<assistant>", True, None),
        ("<assistant><think></think>", "<assistant>[final]", False, None),
        ("<assistant><thinking>\n", "<assistant><thinking>\n", False, None),  # the answer would be inside the thought
        ("<assistant><thinking>\n", "<assistant><thinking>\n", True, None),
        ("<assistant>", "<assistant><seed:think>", False, None),
        ("<thinking></thinking>", "<thinking></thinking>", False, "<thinking></thinking>"),
        ("<assistant>[THINK]", "<assistant>", False, None),
        ("<assistant>[analysis]", "<assistant>[final]", False, None),
        ("<assistant><reason>", "<assistant>", True, None),
    ],
)
def test_generation_prompts(generation, turn, reasoning, expected):
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}TURN{{ m.content }}{% else %}<user>{{ m.content }}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}GENERATION{% endif %}"
    )
    tokenizer = tokenizer_of(template.replace("TURN", turn).replace("GENERATION", generation))
    format = PromptFormat("full", reasoning=reasoning)
    if expected is None:
        with pytest.raises(UserError, match="the place of the answer is not known"):
            PromptEncoder(tokenizer, format)
    else:
        tail = PromptEncoder(tokenizer, format).pieces[-1].split("[The End of Response B]")[1]
        assert tail == expected + format.prefill


def test_a_system_prompt_that_the_template_refuses_or_drops_joins_the_message():
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + USER
    drops = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    for template in (refuses, drops):
        pieces = PromptEncoder(tokenizer_of(template), PromptFormat("short", system_prompt="Be fair.")).pieces
        assert pieces[0] == "<user>Be fair.\n\n[Question]\n"
    without = make_tokenizer()
    assert PromptEncoder(without, PromptFormat("short", system_prompt="Be fair.")).pieces[0].startswith("Be fair.\n\n")


def test_a_template_that_fails_is_a_users_error():
    with pytest.raises(UserError, match="cannot render the judge prompt: never"):
        PromptEncoder(tokenizer_of("{{ raise_exception('never') }}"))
