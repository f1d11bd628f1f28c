from hypothesis import given
from hypothesis import strategies as st

from autorater.audit.probes import PROBES
from autorater.audit.style import as_markdown, as_prose
from autorater.data.messages import Message
from autorater.data.pairs import Pair

CODE = "```sh\n# not a heading\n- x\n```"
TEXT = f"# Basil\n\n1. **Water** it, *daily*.\n2. Give it sun! See:\n\n{CODE}\n\n> Done: a*b*c, __init__."


def test_markdown_is_removed():
    prose = f"Basil\n\nWater it, daily. Give it sun! See:\n\n{CODE}\n\nDone: a*b*c, __init__."
    assert as_prose(TEXT) == prose
    assert as_prose(prose) == prose
    assert as_prose("***") == ""
    assert as_prose("4. Because two plus two is four.") == "4. Because two plus two is four."
    assert as_prose("The answer is\n42. That is all.") == "The answer is 42. That is all."
    assert as_prose("1. One.\n1. Two.\n1. Three.") == "One. Two. Three."
    assert as_prose("- 1. One.\n- 2. Two.") == "One. Two."
    assert as_markdown("4. Because two plus two is four.") == "## 4. Because two plus two is four."
    assert as_prose("> 1. One.\n> 2) Two.\n\n- 7. Seven.") == "One. Two.\n\n7. Seven."


def test_markdown_is_added():
    assert as_markdown("One word. Two more words. Three!") == "## One word.\n\n- **Two more** words.\n- **Three!**"
    assert as_markdown(TEXT).startswith(
        "## Basil\n\n- **Water it,** daily.\n- **Give it** sun!\n- **See:**\n\n```sh\n# not"
    )
    assert as_markdown("one") == "## one"


WORDS = st.lists(st.sampled_from(["Go.", "a", "Why?", "b,", "c!", "1.", "d", "\n\n", "x*y"]), max_size=30)


@given(WORDS)
def test_the_words_are_the_same(words):
    prose = as_prose(" ".join(words))
    assert as_prose(as_markdown(prose)).split() == as_prose(prose).split()


def test_the_probe_moves_the_style():
    turns = (Message("user", "- Why?"), Message("assistant", "- So. There."))
    first, second = (shown.pair for shown in PROBES["style"].present(Pair("x", "- q", "**A**. B.", turns, 0.5)))
    assert (first.prompt, first.response_a) == ("- q", "A. B.")
    assert first.response_b == (turns[0], Message("assistant", "## So.\n\n- **There.**"))
    assert (second.response_a, second.response_b[1].content) == ("## A.\n\n- **B.**", "So. There.")
