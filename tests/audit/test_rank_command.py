"""`autorater rank`: local pairwise and pointwise judges, one behind a server, runs that are stopped."""

import json

import numpy as np
import pytest

from autorater.audit import judging
from autorater.cli import command as autorater
from autorater.data.errors import UserError
from autorater.judges import Judge
from autorater.judges.pointwise import PointwiseJudge
from tests.audit.conftest import lines, serve  # noqa: F401  (fixture)
from tests.audit.test_local import model_dir  # noqa: F401  (fixture)
from tests.conftest import make_model, make_tokenizer

ROWS = [
    {"id": "q", "prompt": "Why is the sky blue?", "responses": ["Scattering.", "Magic, they say.", "No idea."]},
    {"prompt": [{"role": "user", "content": "Hi"}], "responses": ["Hello!", "Go away."]},
    {"prompt": "Alone?", "responses": ["Yes."]},
]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return str(path)


def test_the_rankings_are_those_of_a_pairwise_judge(model_dir, prompts, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out.jsonl"
    autorater(["rank", prompts, "--judge", str(model_dir), "--out", str(out)])
    assert "3 rankings" in capsys.readouterr().out
    found = lines(out)
    for row, question in zip(found, ROWS, strict=True):
        expected = Judge.from_pretrained(str(model_dir)).rank(question["prompt"], question["responses"])
        np.testing.assert_allclose(row["probabilities"], expected.probabilities, atol=1e-5)
        assert (row["order"], row["n_judgments"]) == (expected.order.tolist(), expected.n_judgments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "prompts.jsonl"], "nothing is left over"


def test_a_row_has_criteria_of_its_own(model_dir, tmp_path):  # noqa: F811
    rows = [ROWS[1] | {"criteria": criteria} for criteria in ("Be brief.", None)]
    path, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    options = ["--prompt_template", "criteria", "--criteria", "Be right."]
    autorater(["rank", str(path), "--judge", str(model_dir), "--out", str(out), *options])
    for row, criteria in zip(lines(out), ("Be brief.", "Be right."), strict=True):
        judge = Judge.from_pretrained(str(model_dir), prompt_template="criteria", criteria="Be kind.")
        expected = judge.rank(ROWS[1]["prompt"], ROWS[1]["responses"], criteria=criteria)
        np.testing.assert_allclose(row["probabilities"], expected.probabilities, atol=1e-5)
    assert lines(out)[0]["probabilities"] != lines(out)[1]["probabilities"]


def test_a_pointwise_judge_reads_every_response_once(prompts, tmp_path, monkeypatch):
    tokenizer = make_tokenizer("split")
    judge = PointwiseJudge(make_model("qwen", len(tokenizer)), tokenizer, scale=2.0)
    folder = tmp_path / "judge"
    judge.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    judge.save_format(folder)
    read, n_read = PointwiseJudge.logits_after, []

    def counting(self, prompts, *args, **options):
        n_read.append(len(prompts))
        return read(self, prompts, *args, **options)

    monkeypatch.setattr(PointwiseJudge, "logits_after", counting)
    out = tmp_path / "out.jsonl"
    autorater(["rank", prompts, "--judge", str(folder), "--out", str(out)])
    assert n_read == [5], "the responses of the prompts with several"
    found = lines(out)
    assert [row["n_judgments"] for row in found] == [3, 2, 1]
    for row, question in zip(found, ROWS, strict=True):
        expected = judge.rank(question["prompt"], question["responses"])
        np.testing.assert_allclose(row["strengths"], expected.strengths, atol=1e-4)


def test_a_stopped_run_gives_the_same_bytes(model_dir, prompts, tmp_path, monkeypatch):  # noqa: F811
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    arguments = ["rank", prompts, "--judge", str(model_dir), "--out"]
    autorater([*arguments, str(whole)])
    append, left = judging.JudgmentStore.append, iter(range(3))

    def failing(store, number, record):
        if next(left, None) is None:
            raise KeyboardInterrupt
        append(store, number, record)

    monkeypatch.setattr(judging.JudgmentStore, "append", failing)
    with pytest.raises(SystemExit):
        autorater([*arguments, str(stopped)])
    assert not stopped.exists()
    monkeypatch.setattr(judging.JudgmentStore, "append", append)
    autorater([*arguments, str(stopped)])
    assert stopped.read_bytes() == whole.read_bytes()


def test_a_judge_behind_a_server(serve, tmp_path):  # noqa: F811
    prompts, out = tmp_path / "p.jsonl", tmp_path / "out.jsonl"
    rows = [{"prompt": "fine", "responses": ["x", "y", "z"]}, {"prompt": "unreadable", "responses": ["x", "y"]}]
    prompts.write_text("\n".join(map(json.dumps, rows)))
    autorater(["rank", str(prompts), "--judge", "endpoint:m", "--base_url", serve().base_url, "--out", str(out)])
    first, second = lines(out)
    assert (first["n_judgments"], "n_unanswered" in first) == (6, False)
    assert (second["n_unanswered"], second["probabilities"]) == (1, [[0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p"}, "p.jsonl: line 1: column 'responses' is missing"),
        ({"prompt": "p", "responses": []}, "line 1: column 'responses': got .*; expected a list of at least one"),
        ({"prompt": "p", "responses": ["a", 3]}, r"responses\[1\]"),
        ({"prompt": " ", "responses": ["a"]}, "column 'prompt'"),
    ],
)
def test_bad_rows(row, message, tmp_path, capsys):
    from autorater.audit.arguments import parse_rank_arguments
    from autorater.audit.rank_command import run

    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row))
    arguments = [str(path), "--judge", "endpoint:m", "--base_url", "http://127.0.0.1:1", "--out"]
    with pytest.raises(UserError, match=message):
        run(parse_rank_arguments([*arguments, str(tmp_path / "o.jsonl")], ""))
    with pytest.raises(UserError, match=r"ends in \.jsonl"):
        parse_rank_arguments([*arguments, "o.csv"], "")
    with pytest.raises(UserError, match="recorded verdicts are predictions already"):
        parse_rank_arguments([str(path), "--judge", "recorded:x", "--out", "o.jsonl"], "")
