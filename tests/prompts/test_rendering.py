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
        (
            "<assistant>\n<think>\n",
            "<assistant>\n<response>\n",
            False,
            "<assistant>\n<think>\n\n</think>\n\n<response>\n",
        ),
        ("<bot><think>", "<assistant>", False, "<bot><think>\n\n</think>\n\n"),
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
        ("<assistant><|START_THOUGHT|>", "<assistant><|START_THOUGHT|>", False, None),
        ("<assistant><|part>thought\n", "<assistant><|part>thought\n", False, None),
        ("<assistant><reason:deep>", "<assistant><reason:deep>", True, None),
        ("<assistant><|END_THOUGHT|>", "<assistant><|END_THOUGHT|>", False, "<assistant><|END_THOUGHT|>"),
        ("<assistant><think></think>", "<assistant></think>", False, "<assistant><think></think>"),
        ("<assistant></think>", "<assistant>", False, "<assistant></think>"),
        ("<assistant>", "<assistant></think>", True, "<assistant>"),
        (
            "<end>\n  <assistant>\n",
            "<end>\n\n   <assistant>",
            False,
            "<end>\n  <assistant>\n",
        ),  # differs in white space alone
        ("<end>\n  Assistant:\n", "<end>\n    Assistant: ", True, "<end>\n  Assistant:\n"),
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


@pytest.mark.parametrize(
    ("thinking", "off", "turn", "expected", "with_reasoning"),
    [
        ("<a>", "<a><idea>\n</idea>", "<a>", "<a><idea>\n</idea>", "<a><idea>\n</idea>"),
        ("<a>", "<a><idea></idea>", "<a><say>", "<a><idea></idea><say>", "<a><idea></idea><say>"),
        ("<a><|START_THOUGHT|>", "<a><|START_THOUGHT|><|END_THOUGHT|>", "<a><|START_SAY|>",
         "<a><|START_THOUGHT|><|END_THOUGHT|><|START_SAY|>", "<a><|START_THOUGHT|><|END_THOUGHT|><|START_SAY|>"),
        ("<a><think>", "<a></think>", "<a>", "<a></think>", "<a><think>"),
        ("<a>", "<a><think></think>", "<a>", "<a><think></think>", "<a>"),
        ("<a><thinking>", "<a>", "<a>", "<a>", "<a>"),
        ("<a><idea>", "<b><say>", "<c>", None, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("option", ["enable_thinking", "thinking", "reasoning"])
def test_the_option_to_think(option, thinking, off, turn, expected, with_reasoning):
    template = (
        "{% for m in messages %}{% if m.role == 'assistant' %}TURN{% endif %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{% if OPTION %}THINKING{% else %}OFF{% endif %}{% endif %}"
    )
    for word, text in (("TURN", turn), ("OPTION", option), ("THINKING", thinking), ("OFF", off)):
        template = template.replace(word, text)
    for reasoning, tail in ((False, expected), (True, with_reasoning)):
        format = PromptFormat("full", reasoning=reasoning)
        if tail is None:
            with pytest.raises(UserError, match="the place of the answer is not known"):
                PromptEncoder(tokenizer_of(template), format)
        else:
            last = PromptEncoder(tokenizer_of(template), format).pieces[-1]
            assert last.split("[The End of Response B]")[1] == tail + format.prefill


@pytest.mark.parametrize("reasoning", [False, True])
def test_tags_in_the_instruction_are_no_thought(tmp_path, reasoning):
    path = tmp_path / "mine.txt"
    end = "Reason inside <think> tags, if asked to. Answer in <prob_rb_better>."
    path.write_text(f"{{prompt}}\n{{response_a}}\n{{response_b}}\n{end}\n.")
    template = USER.replace("{{ m.content }}", "{% if m.role == 'assistant' %}<final>{% endif %}{{ m.content }}")
    tokenizer = tokenizer_of(template + "{% if add_generation_prompt %}<assistant>{% endif %}")
    format = PromptFormat(str(path), reasoning=reasoning)
    assert PromptEncoder(tokenizer, format).pieces[-1] == f"\n{end}\n.<assistant><final>{format.prefill}"


def test_a_system_prompt_in_the_last_message_alone():
    template = (
        "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}{% endif %}"
        "{% for m in messages if m.role != 'system' %}<{{ m.role }}>"
        "{% if loop.last and m.role == 'user' and system %}{{ system }}\n\n{% endif %}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    pieces = PromptEncoder(tokenizer_of(template), PromptFormat("short", system_prompt="Be fair.")).pieces
    assert pieces[0] == "<user>Be fair.\n\n[Question]\n"
    assert pieces[-1].endswith("tags.<assistant><prob_rb_better>")


def test_a_system_prompt_whose_words_stand_in_the_message():
    drops = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    format = PromptFormat("short", system_prompt="How likely is it that a person prefers response B?")
    pieces = PromptEncoder(tokenizer_of(drops), format).pieces
    assert "".join(pieces).count(format.system_prompt) == 2


@pytest.mark.parametrize(
    "turn",
    [
        "{% if messages|length > 1 %}{{ 'x'.index('y') }}{% endif %}",  # any exception
        "{% if messages|length > 1 %}{{ raise_exception('no turn of an assistant') }}{% endif %}",
        "{% set messages = messages[-1:] %}",
    ],
)
def test_templates_that_render_no_turn_of_an_assistant(turn):
    pieces = PromptEncoder(tokenizer_of(turn + USER + "<assistant>"), PromptFormat("short")).pieces
    assert pieces[-1].endswith("tags.<assistant><prob_rb_better>")


@pytest.mark.parametrize("change", ["m.content | e", "m.content | tojson", "m.content | upper", "'Hi'"])
def test_a_template_that_changes_the_words_is_refused(change):
    with pytest.raises(UserError, match="leaves the judge prompt out or changes its words"):
        PromptEncoder(tokenizer_of(USER.replace("m.content", change)), PromptFormat("full"))


@pytest.mark.parametrize("change", ["m.content | trim", "m.content | indent(4)", "m.content.replace('\n\n', '\n')"])
def test_a_template_may_change_white_space_of_the_layout(change):
    encoder = PromptEncoder(tokenizer_of(USER.replace("m.content", change) + "<assistant>"), PromptFormat("full"))
    text = " first\n\n    second \n"
    prompt, _ = encoder.encode([Pair("1", text, text, "No.", None)])[0]
    assert prompt.text.count(text) == 2
    assert prompt.text.endswith("[The End of Response B]<assistant><prob_rb_better>")


def test_a_template_that_writes_the_time_is_read_twice():
    encoder = PromptEncoder(tokenizer_of("{{ strftime_now('%S.%f') }}" + USER + "<assistant>"), PromptFormat("short"))
    assert encoder.pieces[-1].endswith("tags.<assistant><prob_rb_better>")


def test_named_templates():
    template = USER + "{% if add_generation_prompt %}<assistant>{% endif %}"
    pieces = PromptEncoder(tokenizer_of({"default": template, "tool_use": "{{ tools[0] }}"})).pieces
    assert pieces == PromptEncoder(tokenizer_of(template)).pieces
    with pytest.raises(UserError, match=r"cannot render the judge prompt: .*\['rag', 'tool_use'\]"):
        PromptEncoder(tokenizer_of({"rag": template, "tool_use": template}))


def test_a_system_prompt_that_the_template_refuses_or_drops_joins_the_message():
    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + USER
    drops = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    for template in (refuses, drops):
        pieces = PromptEncoder(tokenizer_of(template), PromptFormat("short", system_prompt="Be fair.")).pieces
        assert pieces[0] == "<user>Be fair.\n\n[Question]\n"
    without = make_tokenizer()
    assert PromptEncoder(without, PromptFormat("short", system_prompt="Be fair.")).pieces[0].startswith("Be fair.\n\n")


@pytest.mark.parametrize(
    ("system", "shown"),
    [
        ("/no_think", ""),
        ("/no_think You are fair.", " You are fair."),
        ("You are fair. /think", "You are fair."),
        ("Say /no_thinking, /think.", "Say ing, ."),
    ],
)
def test_a_switch_that_the_template_takes_out_of_the_system_prompt(system, shown):
    """As SmolLM3 and Nemotron do."""
    takes = "{% if m.role == 'system' %}{{ m.content.replace('/no_think', '').replace('/think', '').rstrip() }}"
    template = USER.replace("{{ m.content }}", takes + "{% else %}{{ m.content }}{% endif %}")
    pieces = PromptEncoder(tokenizer_of(template), PromptFormat("short", system_prompt=system)).pieces
    assert pieces[0] == f"<system>{shown}<user>[Question]\n"


def test_a_blank_system_prompt_is_rendered():
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    encoder = PromptEncoder(tokenizer_of(template), PromptFormat("full", system_prompt=" "))
    assert encoder.pieces[0].startswith("[system] [user]")


def test_a_template_that_fails_is_a_users_error():
    with pytest.raises(UserError, match="cannot render the judge prompt: never"):
        PromptEncoder(tokenizer_of("{{ raise_exception('never') }}"))


def test_an_error_names_the_model_and_what_to_do():
    tokenizer = tokenizer_of("{{ raise_exception('never') }}")
    tokenizer.name_or_path = "some/model"
    message = r"^the chat template of some/model cannot render .*: never \(.* chat_template.jinja in a local copy"
    with pytest.raises(UserError, match=message):
        PromptEncoder(tokenizer, PromptFormat("short", system_prompt="Be fair."))
