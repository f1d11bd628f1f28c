"""The parser against adversarial texts: written by hand, generated from fragments, and very long."""

import math
import os
import random
import re
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rewards.answer import (
    CLASS_CLOSE_TAG,
    CLASS_OPEN_TAG,
    CLOSE_TAG,
    OPEN_TAG,
    THINK_CLOSE,
    completion_text,
    is_prefilled,
    parse_distribution,
    parse_probability,
    render_answer,
)

THINK_OPEN = "<think>"
N_FUZZED = int(os.environ.get("FUZZED_STRINGS", "30000"))  # set it to 1000000 for the long run, about a minute


def tagged(inside: str) -> str:
    return f"{OPEN_TAG}{inside}{CLOSE_TAG}"


@pytest.mark.parametrize(
    ("inside", "value"),
    [
        ("0.85", 0.85),
        (".5", 0.5),
        ("0", 0.0),
        ("1", 1.0),
        ("1.0", 1.0),
        ("1.0000", 1.0),
        ("0.0", 0.0),
        (" 0.5\n", 0.5),
        ("\t\r\n\v\f.25 ", 0.25),
        ("00.5", 0.5),
        ("01", 1.0),
        ("0." + "0" * 400 + "1", 0.0),  # underflows to a valid answer
        ("0." + "9" * 400, 1.0),  # rounds up to a valid answer
    ],
)
def test_plain_decimals_are_parsed(inside, value):
    parsed = parse_probability(tagged(inside))
    assert isinstance(parsed, float)
    assert parsed == value


@pytest.mark.parametrize(
    "inside",
    [
        *("", " ", ".", "1.", "0.", "-", "+"),
        *("1.2", "1.0001", "2", "10", "100", "-0.3", "−0.3", "-0", "+0.5", "+ 0.5", "--0.5"),
        *("70%", "70 %", "0.5%", "0,5", "0.7.3", "0..5", "1/2", "½", "0.5 0.6", "0. 5", "0 .5", "~0.5", "$0.5"),
        *("nan", "NaN", "inf", "-inf", "Infinity", "1e-400", "1e-1", "5e-1", "0.5e0", "1E0", "0x1", "0b1", "1_0"),
        *("0_.5", "0.5f", "0.5d", "True", "None", "one half", "p=0.5", "0.5.", "(0.5)", "'0.5'", "`0.5`", "**0.5**"),
        *("０.５", "0．5", "٠.٥", "०.५", "𝟎.𝟓", "0.⁵", "0·5", "٠٫٥", "Ⅰ", "一"),
        *("0.5\0", "\x000.5", "0\0.5", "\ud8000.5", "0.5\udfff", "0.\ud83d5", "\ufeff0.5", "\u200b0.5", "0.5\u200f"),
        *("\u00a00.5", "0.5\u2009", "\u30000.5", "\x1c0.5", "\x850.5", "\u20280.5"),  # white space, but not ASCII's
        *("<b>0.5</b>", "<0.5>", "<", ">", "0.5<!-- -->", "0.5</prob_rb_better", "&#48;.5", "0.5;", "\\0.5"),
        "1." + "0" * 400 + "1",  # above 1 by less than float precision
        "1" * 5000,  # longer than CPython allows an int to be
    ],
)
def test_other_contents_are_unparsed(inside):
    assert parse_probability(tagged(inside)) is None
    assert parse_probability(inside + CLOSE_TAG, prefilled=True) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("So: " + tagged("0.4") + ", I think.", 0.4),
        ("0.9 " + tagged("0.4") + " 0.1", 0.4),
        (f"{THINK_OPEN}{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{THINK_OPEN}{tagged('0.9')}{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{THINK_OPEN}{OPEN_TAG}{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{THINK_OPEN}{CLOSE_TAG}{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{THINK_OPEN}a{THINK_OPEN}b{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{THINK_OPEN}a{THINK_CLOSE}b{THINK_OPEN}c{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (tagged("0.4") + f"{THINK_OPEN}checking: {tagged('0.9')}{THINK_CLOSE}", 0.4),
        # The prompt opened the reasoning: all text before its end is reasoning.
        (f"hm{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{tagged('0.9')}{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{tagged('0.9')}{THINK_CLOSE}{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{THINK_OPEN}a{THINK_CLOSE}{tagged('0.9')}{THINK_CLOSE}" + tagged("0.4"), 0.4),
        (f"{tagged('0.9')}{THINK_OPEN}a{THINK_CLOSE}b{THINK_CLOSE}" + tagged("0.4"), 0.4),
        ("<Think>" + tagged("0.4"), 0.4),  # not our tag, hence plain text
    ],
)
def test_one_answer_outside_the_reasoning_is_parsed(text, value):
    assert parse_probability(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0.4",
        OPEN_TAG,
        CLOSE_TAG,
        f"{OPEN_TAG}0.4",
        f"0.4{CLOSE_TAG}",
        f"{CLOSE_TAG}0.4{OPEN_TAG}",
        f"{OPEN_TAG}0.4{OPEN_TAG}",
        "<prob_rb_better >0.4</prob_rb_better>",
        "<PROB_RB_BETTER>0.4</PROB_RB_BETTER>",
        "<prob_rb_better/>0.4</prob_rb_better>",
        "＜prob_rb_better＞0.4＜/prob_rb_better＞",
        # two answers are no answer
        tagged("0.4") * 2,
        tagged("0.4") + tagged("nonsense"),
        tagged(tagged("0.4")),
        OPEN_TAG + tagged("0.4"),
        tagged("0.4") + CLOSE_TAG,
        tagged("0.4") + OPEN_TAG,
        CLOSE_TAG + tagged("0.4"),
        # the only answer is a thought
        f"{THINK_OPEN}{tagged('0.4')}{THINK_CLOSE}",
        f"{THINK_OPEN}{tagged('0.4')}{THINK_CLOSE}0.4",
        f"{tagged('0.4')}{THINK_CLOSE}",
        f"{THINK_OPEN}a{THINK_CLOSE}{tagged('0.4')}{THINK_CLOSE}",
        f"{tagged('0.4')}{THINK_OPEN}a{THINK_CLOSE}{THINK_CLOSE}",
        # reasoning that never ends
        f"{THINK_OPEN}{tagged('0.4')}",
        f"{tagged('0.4')}{THINK_OPEN}",
        f"{THINK_OPEN}a{THINK_CLOSE}{tagged('0.4')}{THINK_OPEN}but",
        # reasoning inside the answer, or the answer across it
        tagged(f"0.{THINK_OPEN}{THINK_CLOSE}4"),
        tagged(f"{THINK_OPEN}hm{THINK_CLOSE}0.4"),
        tagged(f"0.4{THINK_OPEN}hm{THINK_CLOSE}"),
        tagged(f"{THINK_CLOSE}0.4"),
        f"<prob_rb_{THINK_OPEN}{THINK_CLOSE}better>0.4{CLOSE_TAG}",
        f"{OPEN_TAG}{THINK_OPEN}{CLOSE_TAG}{THINK_CLOSE}0.4",
        f"{THINK_OPEN}{OPEN_TAG}{THINK_CLOSE}0.4{CLOSE_TAG}",
    ],
)
def test_texts_without_exactly_one_answer(text):
    assert parse_probability(text) is None


@pytest.mark.parametrize("value", [None, 0.5, 1, b"<prob_rb_better>0.5</prob_rb_better>", [tagged("0.5")], object()])
def test_other_types_are_unparsed(value):
    assert parse_probability(value) is None
    assert parse_distribution(value, 3) is None


@pytest.mark.parametrize(
    ("continuation", "value"),
    [
        (f"0.4{CLOSE_TAG}", 0.4),
        (f" 0.4 {CLOSE_TAG} because", 0.4),
        ("0.4", None),
        (tagged("0.4"), None),
        (f"0.4{CLOSE_TAG}{tagged('0.4')}", None),
        (f"{THINK_OPEN}hm{THINK_CLOSE}0.4{CLOSE_TAG}", None),
        ("", None),
    ],
)
def test_a_prefilled_answer_is_continued(continuation, value):
    assert parse_probability(continuation, prefilled=True) == value


FRAGMENTS = [
    *(OPEN_TAG, CLOSE_TAG, THINK_OPEN, THINK_CLOSE, CLASS_OPEN_TAG, CLASS_CLOSE_TAG) * 3,
    *("0", "1", ".", "5", "0.5", "1.0", ".25", "00", "9" * 20, "1e-400", "nan", "inf", "-", "+", "−", "%", ",", "_"),
    *(" ", "\n", "\t", "\v", "\u00a0", "\u2009", "\0", "\ud800", "\udfff", "\ufeff", "\u200b", "０", ".５", "٠", "½"),
    *("<", ">", "/", "</", "<prob_rb_better", "prob_rb_better>", "</prob_rb_better", "<think", "think>", "é", "判"),
]


def slow_reference(text: str) -> Fraction | None:
    """An independent parser of the grammar: one character at a time, with exact arithmetic."""
    tags, position, plain = [], 0, []
    while position < len(text):
        for tag in (OPEN_TAG, CLOSE_TAG, THINK_OPEN, THINK_CLOSE):
            if text.startswith(tag, position):
                plain.append(tag)
                position += len(tag)
                break
        else:
            plain.append(text[position])
            position += 1
    thinking = False
    for symbol in plain:
        if thinking:
            thinking = symbol != THINK_CLOSE
            if not thinking:
                tags.append("thought")
        elif symbol == THINK_OPEN:
            thinking = True
        elif symbol == THINK_CLOSE:
            tags = ["thought"]
        else:
            tags.append(symbol)
    if thinking or tags.count(OPEN_TAG) != 1 or tags.count(CLOSE_TAG) != 1:
        return None
    inside = tags[tags.index(OPEN_TAG) + 1 : tags.index(CLOSE_TAG)]
    while inside and inside[0] in " \t\n\r\f\v":
        inside = inside[1:]
    while inside and inside[-1] in " \t\n\r\f\v":
        inside = inside[:-1]
    if any(symbol not in "0123456789." for symbol in inside) or inside.count(".") > 1:
        return None
    if not inside or inside[-1] == ".":
        return None
    value = Fraction("0" + "".join(inside))
    return value if value <= 1 else None


def check_against_reference(text: str) -> bool:
    """Returns whether the text had an answer."""
    parsed = parse_probability(text)
    expected = slow_reference(text)
    assert (parsed is None) == (expected is None), repr(text)
    if parsed is not None:
        assert type(parsed) is float
        assert 0.0 <= parsed <= 1.0
        assert parsed == float(expected), repr(text)
    continued = parse_probability(text, prefilled=True)
    assert continued == parse_probability(OPEN_TAG + text), repr(text)
    for distribution in (parse_distribution(text, 3), parse_distribution(text, 3, prefilled=True)):
        assert distribution is None or math.isclose(sum(distribution), 1.0)
    return parsed is not None


def test_many_random_texts():
    dice = random.Random(20250)
    n_answers = 0
    for _ in range(N_FUZZED):
        text = "".join(dice.choices(FRAGMENTS, k=dice.randrange(8)))
        if dice.random() < 0.5:  # random fragments alone would hardly ever form an answer
            inside = "".join(dice.choices(FRAGMENTS[18:], k=dice.randrange(4)))
            text = text[: dice.randrange(9)] + tagged(inside) + text
        n_answers += check_against_reference(text)
    assert n_answers > N_FUZZED / 100


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=12).map("".join))
@example(tagged(" 0.5\n"))
def test_random_texts_of_hypothesis(text):
    check_against_reference(text)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters()))
def test_any_text_between_the_tags(inside):
    check_against_reference(tagged(inside))


@pytest.mark.parametrize(
    "text",
    [
        "<" * 2**20,
        ">" * 2**20,
        "</" * 2**19,
        "<think" * 2**17,
        OPEN_TAG * 10**6,
        CLOSE_TAG * 10**6,
        tagged("0.5") * 10**6,
        THINK_OPEN * 10**6,
        THINK_CLOSE * 10**6,
        (THINK_OPEN + THINK_CLOSE) * 10**6,
        (THINK_CLOSE + THINK_OPEN) * 10**6,
        tagged("1" * 10**6),
        tagged("0." + "1" * 10**6 + "x"),
        tagged("0" * 10**6 + "x"),
        tagged("." * 10**6),
        tagged(" " * 10**6),
        tagged(" " * 10**6 + "x" + " " * 10**6),
        tagged("0." + " " * 10**6 + "5"),
    ],
    ids=lambda text: f"{text[:24]}…",
)
def test_long_texts_are_parsed_in_linear_time(text):
    # Parsing in quadratic time would take hours, so the test checks that it ends.
    assert parse_probability(text) is None
    assert parse_probability(text, prefilled=True) is None
    as_classes = text.replace(OPEN_TAG, CLASS_OPEN_TAG).replace(CLOSE_TAG, CLASS_CLOSE_TAG)
    assert parse_distribution(as_classes, 3) is None


def test_long_texts_with_an_answer():
    assert parse_probability((THINK_OPEN + "<" + THINK_CLOSE) * 10**6 + tagged("0.5")) == 0.5
    assert parse_probability(THINK_CLOSE * 10**6 + tagged("0.5")) == 0.5
    assert parse_probability(THINK_OPEN * 10**6 + THINK_CLOSE + tagged("0.5")) == 0.5
    assert parse_probability("<" * 2**20 + tagged(" " * 10**6 + "0.5" + "\n" * 10**6)) == 0.5
    assert parse_probability(tagged("0" * 10**6 + ".5")) == 0.5
    assert parse_probability(tagged("0." + "1" * 10**6)) == pytest.approx(1 / 9)
    assert parse_probability(tagged("1." + "0" * 10**6)) == 1.0
    assert parse_probability(tagged("0." + "0" * 10**6 + "1")) == 0.0


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("0.1 0.3 0.6", (0.1, 0.3, 0.6)),
        ("0.1,0.3,0.6", (0.1, 0.3, 0.6)),
        ("\n0.1 ,\t0.3, 0.6 ", (0.1, 0.3, 0.6)),
        ("0 1 0", (0.0, 1.0, 0.0)),
        (".33 .33 .33", (1 / 3, 1 / 3, 1 / 3)),
        ("0.34 0.34 0.35", (34 / 103, 34 / 103, 35 / 103)),
        *((bad, None) for bad in ("", "1", "0.5 0.5", "0.25 0.25 0.25 0.25", "0.1 0.3 0.5", "0.4 0.4 0.4", "0 0 0")),
        *((bad, None) for bad in ("0.1,,0.3 0.6", ",0.1 0.3 0.6", "0.1 0.3 0.6,", "0.1;0.3;0.6", "0.1 0.3 0.6 x")),
        *(
            (bad, None)
            for bad in ("-0.1 0.5 0.6", "1.1 0 0", "10% 30% 60%", "[0.1 0.3 0.6]", "0.1\u00a00.3 0.6", "nan 0 1")
        ),
    ],
)
def test_distributions(inside, expected):
    parsed = parse_distribution(f"{CLASS_OPEN_TAG}{inside}{CLASS_CLOSE_TAG}", 3)
    assert parsed == (expected if expected is None else pytest.approx(expected, abs=1e-15))
    assert parse_distribution(f"{inside}{CLASS_CLOSE_TAG}", 3, prefilled=True) == parsed
    assert parse_distribution(f"{THINK_OPEN}{CLASS_OPEN_TAG}{inside}{CLASS_CLOSE_TAG}{THINK_CLOSE}", 3) is None


def test_a_distribution_of_many_classes_needs_some_mass():
    zeros = f"{CLASS_OPEN_TAG}{'0 ' * 200}{CLASS_CLOSE_TAG}"
    assert parse_distribution(zeros, 200) is None


def test_a_distribution_has_two_classes():
    with pytest.raises(ValueError, match="n_classes=1"):
        parse_distribution("", 1)


@given(st.floats(0, 1), st.integers(0, 12))
@example(-0.0, 2)
@example(1.0, 0)
def test_rendered_answers_are_parsed_back(value, decimals):
    text = render_answer(value, decimals)
    assert re.fullmatch(r"[01](\.[0-9]+)?", text)
    assert parse_probability(tagged(text)) == pytest.approx(value, abs=0.51 * 10.0**-decimals)


def test_rendered_answers():
    assert [render_answer(0.85), render_answer(1), render_answer(0.5, 0), render_answer(0.123456, 4)] == [
        "0.85",
        "1.00",
        "0",
        "0.1235",
    ]


@pytest.mark.parametrize(("value", "decimals"), [(1.01, 2), (-0.01, 2), (math.nan, 2), (0.5, -1)])
def test_only_probabilities_are_rendered(value, decimals):
    with pytest.raises(ValueError):
        render_answer(value, decimals)


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([{"role": "assistant", "content": "text"}], "text"),
        ([{"content": "text"}], "text"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "assistant"}], ""),
        ([{"role": "assistant", "content": "call"}, {"role": "tool", "content": "42"}], "call"),
        ([{"role": "assistant", "content": "call"}, {"role": "assistant", "content": "text"}], "text"),
        ([{"role": "user", "content": "question"}], ""),
        ([{"role": "assistant", "content": [{"type": "text", "text": "te"}, {"type": "text", "text": "xt"}]}], "text"),
        ([{"role": "assistant", "content": [{"type": "image"}, {"type": "text", "text": None}]}], ""),
        ([], ""),
    ],
)
def test_completion_text(completion, text):
    assert completion_text(completion) == text


@pytest.mark.parametrize("completion", [None, 0.5, b"bytes", {"role": "assistant", "content": "text"}, ["text"]])
def test_other_types_of_completions_are_errors(completion):
    with pytest.raises(TypeError, match="list of chat messages"):
        completion_text(completion)
    with pytest.raises(TypeError, match="list of chat messages"):
        is_prefilled(completion)


@pytest.mark.parametrize(
    ("prompt", "prefilled"),
    [
        (f"Which is better? {OPEN_TAG}", True),
        (f"Which is better? {OPEN_TAG}\n ", True),
        (f"Answer as {tagged('p')}", False),
        (f"{OPEN_TAG}0.", False),
        ("", False),
        ([{"role": "user", "content": "?"}, {"role": "assistant", "content": OPEN_TAG}], True),
        ([{"role": "assistant", "content": [{"type": "text", "text": f"So {OPEN_TAG} "}]}], True),
        ([{"role": "assistant", "content": OPEN_TAG}, {"role": "user", "content": "?"}], False),
        ([{"role": "user", "content": None}], False),
        ([], False),
    ],
)
def test_prefilled_prompts(prompt, prefilled):
    assert is_prefilled(prompt) is prefilled
