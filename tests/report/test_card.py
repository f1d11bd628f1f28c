import re

import pytest

from autorater.report import write_model_card
from autorater.report.card import write_card
from autorater.report.glossary import metric_groups


@pytest.fixture
def card(judged, tmp_path):
    def write(base_model="a small policy", prompt_text="[Question] {prompt}", settings=None, **values):
        before, after = judged
        write_model_card(
            tmp_path,
            base_model=base_model,
            prompt_text=prompt_text,
            before=before,
            after=after,
            settings={} if settings is None else settings,
            **values,
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


@pytest.mark.parametrize("method", ["grpo", "ppo", "rloo", "sft", "alignment"])
def test_the_training_method_is_a_tag(card, method):
    yaml = pytest.importorskip("yaml")
    text = card(method=method, base_model="x: [y", settings={"- z": "---\nlicense: mit"})
    assert yaml.safe_load(text.split("---\n")[1])["tags"] == [
        "autorater",
        "trl",
        method,
        "llm-as-a-judge",
        "calibration",
    ]


def test_an_unknown_method_is_an_error(card):
    with pytest.raises(ValueError, match=r"expected a method among grpo, .*, got 'magic'"):
        card(method="magic")


def test_a_judge_of_labels_of_items(tmp_path):
    write_card(
        tmp_path,
        headline="Training improved the judge: KL 0.4000 → 0.1000.",
        groups=metric_groups({"ece": 0.2}, {"ece": 0.1}),
        measured_on="200 held-out items",
        base_model="a small policy",
        prompt_text="[Text] {text}",
        settings={},
        method="alignment",
        labels=["1", "2", "<b>"],
    )
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "# A judge that answers with a distribution over labels" in text
    assert "1, 2, &#60;b&#62;." in text
    assert "Training improved the judge: KL 0.4000 → 0.1000." in text
    assert "LabelJudge.from_pretrained" in text
    assert "Measured on 200 held-out items. In brackets: 95 % bootstrap intervals.\n\n| metric |" in text
    assert "| Calibration error (ECE) | 0.200 | 0.100 | lower is better |" in text
    assert "p_ab" not in text
    assert "response" not in text.split("## Limits")[0]


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


def test_a_pointwise_judge(card):
    text = card(method="pointwise", pointwise=True)
    assert "# A judge that scores single responses" in text
    assert "to read a prompt and one response and to answer with a score from 0 to 9" in text
    assert "judge.scores(" in text
    assert "Measured on 400 held-out pairs, each response read alone." in text
    assert "no position bias" in text
    assert "both orders" not in text.replace("Both orders averaged", "")
    assert "a number in [0, 1]" not in text
    assert "judge.scores(" not in card()


def test_a_warning_is_in_front_of_the_table(card):
    text = card(warning="8 of 36 held-out pairs are training pairs; <b>")
    assert "\n\n**Warning:** 8 of 36 held-out pairs are training pairs; &#60;b&#62;.\n\n## How to use" in text
    assert "Warning" not in card()


def test_no_settings_no_heading(card):
    assert "## Settings" not in card()


def test_table_rows_have_as_many_entries_as_the_header(card):
    rows = [line for line in card(settings={"a|b": "c\\|d\n|e"}).splitlines() if line.startswith("|")]
    n_entries = [len(re.findall(r"(?<!\\)\|", row)) - 1 for row in rows]
    assert set(n_entries) == {4, 2}
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


def test_simulated_annotators_are_named(card):
    assert "intervals. The annotators are simulated: these figures say nothing about people.\n\n| metric |" in card()


def test_the_example_of_a_judge_of_items_reads_a_file(tmp_path):
    write_card(
        tmp_path, headline="x", groups={}, measured_on="x", base_model="x", prompt_text="x", settings={},
        method="alignment", labels=["a", "b"], simulated=True,
    )  # fmt: skip
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "load_items(" in text
    assert "The annotators are simulated" in text
    compile(text.split("```python\n")[1].split("```")[0], "card", "exec")
