"""The prompt as a chat template rendered it belongs to a saved judge: it answers the same on another day."""

import json
import logging

import numpy as np
import pandas as pd
import pytest

from autorater import Judge
from autorater.data.errors import UserError
from autorater.data.pairs import Pair
from autorater.judges.saved import FORMAT_FILE
from autorater.prompts.templates import PromptFormat
from tests.conftest import CHAT_TEMPLATE, DATED, make_model, make_tokenizer

SLOTS = "{criteria}\n{prompt}\n{response_a}\n{response_b}\n"
PAIRS = [Pair("1", "Why?", "Because.", "No idea.", None, criteria="Be kind.")]


def saved_judge(folder, format=None, template=DATED):
    tokenizer = make_tokenizer("split", chat=True)
    tokenizer.chat_template = template
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, format, answer_step=0.25)
    judge.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    judge.save_format(folder)
    return judge


def load(folder, *args, **options):
    return Judge.from_pretrained(str(folder), *args, dtype="float32", device="cpu", **options)


def test_a_judge_answers_the_same_tomorrow(tmp_path, on_day, caplog):
    on_day("2026-11-27")
    judge = saved_judge(tmp_path, PromptFormat("criteria"))
    assert "27 Nov 2026" in judge.encoder.pieces[0]
    with caplog.at_level(logging.INFO, "autorater"):
        same_day = load(tmp_path).probabilities(PAIRS).mean
        assert not caplog.records
        on_day("2027-06-01")
        later = load(tmp_path)
    np.testing.assert_array_equal(later.probabilities(PAIRS).mean, same_day)
    assert later.encoder.pieces == judge.encoder.pieces
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert "'01 Jun 2027" in record.message
    later.save_format(tmp_path)  # saved again, the layout stays
    assert load(tmp_path).encoder.pieces == judge.encoder.pieces


def test_a_later_chat_template_does_not_change_a_judge(tmp_path):
    judge = saved_judge(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(DATED.replace("assistant", "helper"))
    loaded = load(tmp_path)
    assert "helper" in loaded.tokenizer.chat_template
    assert loaded.encoder.pieces == judge.encoder.pieces
    assert "helper" in load(tmp_path, "short").encoder.pieces[-1]  # another template is rendered now


def test_a_later_chat_template_that_would_be_refused(tmp_path, caplog):
    judge = saved_judge(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no judges') }}")
    with caplog.at_level(logging.INFO, "autorater"):
        assert load(tmp_path).encoder.pieces == judge.encoder.pieces
    (record,) = caplog.records
    assert "no judges" in record.message
    assert "the saved prompt layout is used" in record.message


def test_the_template_and_its_options_are_saved(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(SLOTS)
    judge = saved_judge(tmp_path, PromptFormat(str(path), system_prompt="Be fair.", criteria="Be brief."))
    path.unlink()
    loaded = load(tmp_path)
    assert loaded.encoder.format == judge.encoder.format
    assert loaded.encoder.encode(PAIRS) == judge.encoder.encode(PAIRS)
    assert "Be fair." in loaded.encoder.pieces[0]
    other = load(tmp_path, criteria="Be long.").encoder
    assert other.encode([Pair("1", "Why?", "a", "b", None)])[0][0].text.count("Be long.") == 1
    assert load(tmp_path, "full", system_prompt="Hi.").encoder.format == PromptFormat("full", system_prompt="Hi.")
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path, "nowhere.txt")


def test_older_files_load_and_their_judges_answer_the_same(tmp_path):
    template = CHAT_TEMPLATE.replace("assistant\n'", "assistant\n<think>\n'")  # an open thought, closed by new judges
    judge = saved_judge(tmp_path, template=template)
    assert judge.encoder.pieces[-1].endswith("<think>\n\n</think>\n\n<prob_rb_better>")
    old = {"prompt_format": {"layout": "compact", "reasoning": False, "answer": "number"}, "answer_step": 0.5}
    (tmp_path / FORMAT_FILE).write_text(json.dumps(old))
    loaded = load(tmp_path)
    assert loaded.encoder.format == PromptFormat("compact")
    assert loaded.encoder.pieces[-1] == "\n[Answer]<|im_end|>\n<|im_start|>assistant\n<think>\n<prob_rb_better>"


def test_tables_and_messages_are_judged(tmp_path):
    judge = saved_judge(tmp_path, PromptFormat("short"))
    rows = [{"prompt": f"Why {i}?", "response_a": "Because.", "response_b": "No idea."} for i in range(3)]
    expected = judge.probabilities([Pair(str(i), *row.values(), None) for i, row in enumerate(rows)]).mean
    from datasets import Dataset

    as_messages = [
        {"prompt": [{"role": "user", "content": row["prompt"]}], "response_a": row["response_a"],
         "response_b": [{"role": "assistant", "content": row["response_b"]}]}
        for row in rows
    ]  # fmt: skip
    for source in (rows, as_messages, pd.DataFrame(rows), Dataset.from_list(rows)):
        np.testing.assert_array_equal(judge.probabilities(source).mean, expected)
    assert len(judge.probabilities([rows[0]] * 3)) == 3  # repeated rows stay rows


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE])
def test_a_prompt_that_is_no_chat_is_said_of_a_model_that_was_not_trained_here(tmp_path, caplog, template):
    saved_judge(tmp_path, template=template)
    with caplog.at_level(logging.INFO, "autorater"):
        load(tmp_path)
        assert not caplog.records
        (tmp_path / FORMAT_FILE).unlink()
        load(tmp_path)
    logged = [] if template else [f"{tmp_path} has no chat template; its prompt is plain text"]
    assert caplog.messages == logged


def test_criteria_that_no_slot_shows_are_said_once(tmp_path, caplog):
    judge = saved_judge(tmp_path, PromptFormat("short"))
    judge.probabilities(PAIRS)
    judge.probabilities(PAIRS)
    (record,) = caplog.records
    assert "the judge does not see criteria of the pairs: prompt template short has no {criteria}" in record.message
    with pytest.raises(UserError, match="pair '2' has no criteria"):
        load(tmp_path, "criteria").probabilities([Pair("2", "Why?", "a", "b", None)])
