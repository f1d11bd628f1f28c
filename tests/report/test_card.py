import re

import pytest

from autorater.report import write_model_card


@pytest.fixture
def card(judged, tmp_path):
    def write(base_model="a small policy", prompt_text="[Question] {prompt}", settings=None):
        before, after = judged
        write_model_card(
            tmp_path,
            base_model=base_model,
            prompt_text=prompt_text,
            before=before,
            after=after,
            settings={} if settings is None else settings,
        )
        return (tmp_path / "README.md").read_text(encoding="utf-8")

    return write


def test_front_matter(card):
    yaml = pytest.importorskip("yaml")
    _, front, body = card().split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "transformers",
        "tags": ["autorater", "trl", "grpo", "llm-as-a-judge", "calibration"],
    }
    assert body.startswith("\n# ")


def test_contents(card, judged):
    text = card(settings={"learning_rate": 1e-4})
    assert "Trained from a small policy to read" in text
    assert "Training improved the judge" in text
    assert 'Judge.from_pretrained("PATH_OR_HUB_NAME_OF_THIS_MODEL")' in text
    assert '[{"prompt": "…", "response_a": "…", "response_b": "…"}]' in text
    assert f"| Log loss | {judged[0].metrics['log_loss']:.3f} \\[" in text
    assert "```text\n[Question] {prompt}\n```\n" in text
    assert "## Limits" in text
    assert "| learning\\_rate | 0.0001 |" in text


def test_no_settings_no_heading(card):
    assert "## Settings" not in card()


def test_table_rows_have_as_many_cells_as_the_header(card):
    rows = [line for line in card(settings={"a|b": "c\\|d\n|e"}).splitlines() if line.startswith("|")]
    cells = [len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows]
    assert set(cells) == {4, 2}
    assert rows[-1] == "| a&#124;b | c\\\\&#124;d␊&#124;e |"


def test_data_is_no_markup(card):
    text = card(
        base_model="[x](http://evil.example) <img src=x> `a` *b* www.evil.example a@b.example\n---\nlicense: mit"
    )
    assert "<img" not in text
    assert "http://evil" not in text
    assert "www.evil" not in text
    assert "a@b" not in text
    assert r"\[x\](http&#58;//evil.example) &#60;img src=x&#62; \`a\` \*b\*" in text
    assert text.count("\n---\n") == 1


@pytest.mark.parametrize("ticks", [1, 3, 7])
def test_the_fence_is_longer_than_any_in_the_prompt(card, ticks):
    text = card(prompt_text=f"before\n{'`' * ticks}\n# not a heading\n{'`' * ticks}")
    fence = "`" * max(3, ticks + 1)
    assert f"\n{fence}text\nbefore\n{'`' * ticks}\n# not a heading\n{'`' * ticks}\n{fence}\n" in text
    assert not re.search(rf"`{{{len(fence) + 1}}}", text)
