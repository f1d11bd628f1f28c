"""Template files: slots, braces and answer tags, checked when loaded; the built-in ones."""

import pytest

from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.prompts.templates import BUILT_IN, PromptFormat, parse_template
from rewards import OPEN_TAG

PAIR = Pair("7", "Why?", "Because.", "No idea.", None, criteria="Be kind.", reference="It is so.", group="north")
SLOTS = "{prompt}\n{response_a}\n{response_b}\n"


@pytest.fixture
def template(tmp_path):
    def write(text, name="mine.txt"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_templates_ask_for_the_tag(name):
    built_in = PromptFormat(name)
    assert {"prompt", "response_a", "response_b"} <= set(built_in.slots)
    assert built_in.is_bare == (name in ("compact", "scored"))
    assert OPEN_TAG in built_in.text or built_in.is_bare
    assert [len(value) > 0 for value in built_in.values(PAIR)] == [True] * len(built_in.slots)


def test_the_instruction_is_appended_or_stands_in_its_slot(template):
    appended = PromptFormat(template(SLOTS))
    assert appended.pieces[-1].startswith("\n\nPeople were asked")
    assert f"the answer is {OPEN_TAG}0.3" in appended.pieces[-1]
    inside = PromptFormat(template("First.\n{how_to_answer}\n" + SLOTS))
    assert inside.slots == ("prompt", "response_a", "response_b")
    assert inside.pieces[0].startswith("First.\nPeople were asked")
    assert inside.pieces[-1] == ""
    own = PromptFormat(template(SLOTS + "Say <prob_rb_better>p</prob_rb_better>."))
    assert own.pieces[-1] == "\nSay <prob_rb_better>p</prob_rb_better>."
    assert "A or B" in PromptFormat(template(SLOTS), answer="letter").pieces[-1]
    assert "<think>" in PromptFormat(template(SLOTS), reasoning=True).pieces[-1]


@pytest.mark.parametrize("at", range(4))
def test_the_instruction_and_the_tag_at_the_end(template, at):
    """Every text stands under its own heading, wherever the instruction is."""
    parts = ["[Q]{prompt}", "[A]{response_a}", "[B]{response_b}"]
    parts.insert(at, "Do this: {how_to_answer}")
    mine = PromptFormat(template("\n".join([*parts, "[Answer] " + OPEN_TAG])))
    assert mine.slots == ("prompt", "response_a", "response_b")
    assert len(mine.pieces) == 4
    for marker, piece in zip(("[Q]", "[A]", "[B]"), mine.pieces, strict=False):
        assert piece.endswith(marker)
    assert mine.text.count("Do this: People were asked") == 1
    assert mine.pieces[-1].endswith("[Answer]")
    assert (mine.is_bare, mine.gap, mine.prefill) == (True, " ", OPEN_TAG)
    assert mine.paraphrased.text != mine.text
    assert "A or B" in PromptFormat(mine.template, answer="letter").text


def test_slots_in_any_order_with_optional_ones(template):
    mine = PromptFormat(template("{criteria}|{group}|{response_a}|{response_b}|{prompt}|{reference}"))
    assert mine.values(PAIR) == ["Be kind.", "north", "Because.", "No idea.", "Why?", "It is so."]
    assert mine.responses == (2, 3)
    # an answer is about the response shown second, and so is every measure of position bias
    with pytest.raises(UserError, match=r"shows {response_b} first; expected {response_a} first"):
        PromptFormat(template("{prompt}|{response_b}|{response_a}"))


def test_braces_that_are_no_slots_are_text(template):
    example = '{"score": 0.3, "nested": {"a": []}} {} {1} {{criteria}} {{{x}}}'
    pieces, slots = parse_template(example + ' {prompt} {"q": {a}}', "t", ("prompt", "a"))
    assert pieces == ['{"score": 0.3, "nested": {"a": []}} {} {1} {criteria} {{x}} ', ' {"q": ', "}"]
    assert slots == ["prompt", "a"]
    # the prompt of Prometheus (arXiv 2405.01535), and names of slots among other words
    for text in (
        "{{write a feedback for criteria}} [RESULT]",
        "Write {your verdict on the prompt}.",
        "{a, or prompt}",
    ):
        pieces, slots = parse_template(text + " {prompt} {a}", "t", ("prompt", "a"), ("criteria",))
        assert (pieces[0], slots) == (text + " ", ["prompt", "a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{prompt}\n{response_a}", r"slot \{response_b\} is missing; expected it once"),
        ("{prompt}\n{response_a}\n{{response_b}}", r"\{response_b\} is missing \(line 3 has it with double braces\)"),
        (SLOTS + "x\n{prompt}", r"line 5: slot \{prompt\} is there already, in line 1"),
        (
            SLOTS + "{rubric}",
            r"line 4: unknown slot \{rubric\}; expected .*\{criteria\}.*\{\{rubric\}\} for the",
        ),
        ("{Prompt}\n" + SLOTS, r"line 1: unknown slot \{Prompt\}"),
        ("{prompt}\n{ response_a }\n{response_b}", r"line 2: '\{ response_a' is not a slot; expected \{response_a\}"),
        (SLOTS + "{criteria | trim}", r"line 4: '\{criteria' is not a slot"),
        (SLOTS + "{criteria.}", r"line 4: '\{criteria' is not a slot"),
        ("{prompt}\n{response_a\n{response_b}", r"line 2: '\{response_a' is not a slot"),
        ("{prompt}\nresponse_a}\n{response_b}", r"line 2: 'response_a\}' is not a slot"),
        ("", r"slot \{prompt\} is missing"),
    ],
)
def test_mistakes_name_the_file_and_the_line(template, text, message):
    path = template(text)
    with pytest.raises(UserError, match=message) as error:
        PromptFormat(path)
    assert path in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="no such file; expected a text file, or one of compact, criteria, full"):
        PromptFormat("loud")
    (tmp_path / "latin").write_bytes("{prompt} é".encode("latin-1"))
    with pytest.raises(UserError, match="expected text in UTF-8"):
        PromptFormat(str(tmp_path / "latin"))


def test_windows_files_are_read(template):
    plain = PromptFormat(template(SLOTS))
    path = template("")
    with open(path, "wb") as file:
        file.write("\ufeff".encode() + SLOTS.replace("\n", "\r\n").encode())
    assert PromptFormat(path).pieces == plain.pieces


def test_options_that_do_not_fit(template):
    with pytest.raises(UserError, match="compact ends with <prob_rb_better>; reasoning requires"):
        PromptFormat("compact", reasoning=True)
    own = template(SLOTS + OPEN_TAG + "0.3</prob_rb_better>")
    with pytest.raises(UserError, match="no reasoning inside <think> tags"):
        PromptFormat(own, reasoning=True)
    with pytest.raises(UserError, match="answers by letter require"):
        PromptFormat(own, answer="letter")
    with pytest.raises(UserError, match=r"criteria: no effect, because prompt template full has no slot \{criteria\}"):
        PromptFormat("full", criteria="Be kind.")
    with pytest.raises(UserError, match="criteria: no effect, because it is blank"):
        PromptFormat("criteria", criteria=" ")
    with pytest.raises(UserError, match=r"system_prompt has \{criteria\}"):
        PromptFormat("full", system_prompt="Mind {criteria}.")


def test_a_pair_without_a_value_is_named():
    bare = Pair("7", "Why?", "Because.", "No idea.", None)
    with pytest.raises(UserError, match="pair '7' has no criteria, which prompt template criteria shows"):
        PromptFormat("criteria").values(bare)
    shared = PromptFormat("criteria", criteria="Be brief.")
    assert shared.values(bare)[0] == "Be brief."
    assert shared.values(PAIR)[0] == "Be kind."  # a row's own value comes first
    assert PromptFormat("full").unshown([bare]) is None
    assert "does not see criteria and reference of the pairs: prompt template full has no {c" in PromptFormat(
        "full"
    ).unshown([bare, PAIR])


def test_saved_formats_load(template):
    mine = PromptFormat(template(SLOTS), system_prompt="Be fair.")
    (saved := mine.to_dict())["template"] = "gone.txt"  # the text is saved, so the file is not needed
    loaded = PromptFormat.from_dict(saved)
    assert (loaded.pieces, loaded.system_prompt) == (mine.pieces, "Be fair.")
    old = {"layout": "compact", "reasoning": False, "answer": "number"}
    assert PromptFormat.from_dict(old) == PromptFormat("compact")


def test_a_new_template_drops_the_options_of_the_old_one():
    saved = PromptFormat("criteria", criteria="Be kind.", system_prompt="Be fair.")
    assert saved.with_options(criteria="Be brief.").system_prompt == "Be fair."
    assert saved.with_options() == saved
    assert saved.with_options("full") == PromptFormat("full")
