"""The command `autorater convert`."""

import errno
import json
import os
import resource
import subprocess
import sys

import pytest

from autorater.cli import command
from autorater.data.loading import load_pairs
from tests.conftest import full_disk

ROWS = [
    {"instruction": "Tea?", "output_1": "Yes.", "output_2": "No.", "preference": preference, "annotator": annotator}
    for annotator, preference in enumerate((1, 2, 2, None))
]


def convert(*argv):
    command(["convert", *map(str, argv)])


def test_any_layout_becomes_jsonl_and_what_happened_is_said(tmp_path, capsys):
    source, out = tmp_path / "annotations.json", tmp_path / "pairs.jsonl"
    source.write_text(json.dumps(ROWS))
    convert(source, out)
    (pair,) = load_pairs(out)
    assert (pair.prompt, pair.votes_a, pair.votes_b) == ("Tea?", 1, 2)
    assert load_pairs(source) == [pair]
    assert capsys.readouterr().out.splitlines() == [
        f"{source}: 4 rows in the layout alpaca_eval",
        "1 row left out (preference is null); 1 pair kept",
        "2 rows with the texts of an earlier pair, votes added; 1 pair kept",
        f"{out}: 1 pair with 3 known votes",
    ]


@pytest.mark.parametrize(
    ("name", "problem"), [("nowhere/pairs.jsonl", "No such file or directory"), ("pairs.csv", "ends in .jsonl")]
)
def test_an_unwritable_file_is_named_before_the_source_is_read(tmp_path, capsys, name, problem):
    with pytest.raises(SystemExit):
        convert(tmp_path / "no_source.json", tmp_path / name)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / name) in line
    assert problem in line


def test_conversations_read_back_equal(tmp_path):
    source, out = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    transcripts = [f"\n\nHuman: Hi {i}.\n\nAssistant: Hello.\n\nHuman: Tea?\n\nAssistant:" for i in range(20)]
    source.write_text("".join(json.dumps({"chosen": t + " Yes.", "rejected": t + " No."}) + "\n" for t in transcripts))
    convert(source, out, "--seed", 3)
    assert load_pairs(out) == load_pairs(source, seed=3) != load_pairs(source)


def test_columns_layout_and_pairs_without_labels(tmp_path, capsys):
    source, out = tmp_path / "a.csv", tmp_path / "pairs.jsonl.gz"
    source.write_text("question;left;right;chosen\nTea?;Yes.;No.;x\n")
    convert(
        source,
        out,
        "--columns",
        "prompt=question,response_a=left,response_b=right",
        "--unlabelled",
        "--layout",
        "pairs",
    )
    assert [(pair.prompt, pair.label) for pair in load_pairs(out, labelled=False)] == [("Tea?", None)]
    assert "1 pair with 0 known votes, 1 without a label" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nowhere.jsonl", "out.jsonl"], "error: nowhere.jsonl: no such file"),
        (["a.jsonl", "out.csv"], "error: cannot write pairs to 'out.csv'"),
        (["a.jsonl", "out.jsonl", "--columns", "prompt"], "error: argument --columns: 'prompt': expected OURS=THEIRS"),
        (["a.jsonl", "out.jsonl", "--columns", "question=prompt"], "error: columns: unknown name 'question'"),
        (["a.jsonl", "out.jsonl", "--layout", "arena"], "error: unknown layout 'arena'"),
        (["a.jsonl"], "error: the following arguments are required: OUT"),
        (["a.jsonl", "out.jsonl", "--seeds", "1"], "error: unrecognized arguments: --seeds"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, argv, message):
    monkeypatch.chdir(tmp_path)
    row = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": 1}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(SystemExit) as ended:
        convert(*argv)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch, capsys, name):
    source, out = tmp_path / "annotations.json", tmp_path / name
    source.write_text(json.dumps(ROWS))
    convert(source, out)
    earlier = out.read_bytes()
    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(SystemExit) as ended:
        convert(source, out, "--seed", "1")
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {out}: No space left on device\n"
    assert out.read_bytes() == earlier
    assert sorted(tmp_path.iterdir()) == sorted([source, out])


def test_a_pipe_is_no_file(tmp_path, capsys):
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(SystemExit):
        convert(tmp_path / "rows.jsonl", tmp_path / "out.jsonl")
    assert "rows.jsonl: is no file but a pipe or device; expected a file" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys, monkeypatch):
    def unreadable(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    source = tmp_path / "annotations.jsonl"
    source.write_text(json.dumps(ROWS[0]))
    monkeypatch.setattr("autorater.data.text_files.head_of", unreadable)
    with pytest.raises(SystemExit):
        convert(source, tmp_path / "out.jsonl")
    assert capsys.readouterr().err == (
        f"error: {source}: cannot be read (Input/output error); expected a readable file\n"
    )


def test_help_is_quick():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    code = "from autorater.cli import command; command(['--help'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "convert" in shown
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
