"""The splits from tiny clones in the published layouts, and, where a clone is given, equal to the human judgments."""

import gzip
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from autorater.cli import command
from autorater.data import public_splits
from autorater.data.errors import UserError
from autorater.data.loading import load_pairs
from autorater.data.public_splits import SOURCES, write_public_splits
from tests.conftest import DATA, ROOT

CONFIGS = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def debate(title, stance, *pairs):
    """A file of UKPConvArg1: pairs of arguments with the values of their assignments."""
    return f'<?xml version="1.0"?>\n<list>{"".join(_pair(title, stance, *pair) for pair in pairs)}</list>'


def _pair(title, stance, a, b, *values):
    arguments = "".join(
        f"<arg{i}><author>x</author><stance>{stance}</stance><text>{escape(text)}</text><id>{text[0]}</id></arg{i}>"
        for i, text in ((1, a), (2, b))
    )
    votes = "".join(f"<mTurkAssignment><turkID>T</turkID><value>{v}</value></mTurkAssignment>" for v in values)
    return (
        f"<annotatedArgumentPair><id>{a[0]}_{b[0]}</id>{arguments}<debateMetaData><title>{title}</title>"
        f"</debateMetaData><mTurkAssignments>{votes}</mTurkAssignments></annotatedArgumentPair>"
    )


def convincing(clone):
    folder = clone / "data" / "UKPConvArg1-full-XML"
    pair = ("Yes & no.", "Lines\nof text.", "a1", "a2", "a1", "equal", "a1")
    write(folder / "tea-or-coffee_tea.xml", debate("Tea or coffee?", "Tea", pair, ("b", "a", "a2", "a2", "a2", "a2")))
    write(folder / "is-porn-wrong-_no-is-is-not.xml", debate("Is it?", "No", pair))
    write(folder / "should-physical-education-be-mandatory-in-schools-_no-.xml", debate("Should it?", "No!", pair))
    write(folder / "tv-is-better-than-books_tv.xml", debate("TV?", "TV", pair, pair))


def humour(clone, n=40, votes=((0, 1),)):
    folder = clone / "data" / "pl-humor-full"
    write(folder / "item_scores.txt", "".join(f"{i}\t0.5\tJoke {i}, “quoted”.\n" for i in reversed(range(n))))
    write(folder / "pairs.csv", "".join(f"{a},{b}\n" for a, b in votes))


def pandalm(clone):
    row = {"idx": 7, "cmp_key": "opt-7b_cerebras-gpt-6.7B", "instruction": "Add.", "input": "1, 2", "response1": "3"}
    rows = [
        {**row, "response2": True, "annotator1": 1, "annotator2": 0, "annotator3": 2},
        {**row, "idx": 8, "input": "", "response2": "", "annotator1": 1, "annotator2": 1, "annotator3": 1},
    ]
    write(clone / "data" / "testset-v1.json", json.dumps(rows))


def llmbar(clone):
    results = [{"swap = False": {"completion": ["x"], "winner": "2"}, "swap = True": {"winner": None}}]
    for judge in public_splits._JUDGES:
        for prompting in ("CoT", "Vanilla"):
            for subset in public_splits._SUBSETS:
                path = clone / "Dataset" / subset / "evaluators" / judge / prompting / "result.json"
                write(path, json.dumps([{"label": 1, "results": results}]))


def rows_of(name, clone):
    """The rows of a tiny clone, whose content is not checked."""
    source = SOURCES[name]
    return source.read(clone / source.folder)


def test_debates_are_divided_by_name_and_votes_counted(tmp_path):
    convincing(tmp_path)
    splits = rows_of("convincing", tmp_path)
    assert {split: len(rows) for split, rows in splits.items()} == {
        "convincing_train": 2, "convincing_validation": 1, "convincing_test": 1, None: 2,
    }  # fmt: skip
    assert list(splits["convincing_train"][0].items()) == [
        ("id", "Y_L"), ("topic", "tea-or-coffee_tea"), ("prompt", "Tea or coffee?"), ("stance", "Tea"),
        ("response_a", "Yes & no."), ("response_b", "Lines\nof text."),
        ("votes_a", 3), ("votes_b", 1), ("votes_tie", 1),
    ]  # fmt: skip
    assert splits["convincing_train"][1]["votes_b"] == 4


def test_humour_texts_are_in_one_split_and_votes_follow_the_order(tmp_path):
    rng = random.Random(0)
    votes = [rng.sample(range(40), 2) for _ in range(3_000)]
    humour(tmp_path, votes=votes)
    splits = rows_of("humour", tmp_path)
    texts = [{row[column] for row in rows for column in ("response_a", "response_b")} for rows in splits.values()]
    in_files = [texts[i] for i, split in enumerate(splits) if split is not None]
    assert sorted(map(len, in_files)) == [3, 8, 22]  # 0.07, 0.19 and 0.55 of 40 texts
    assert len(set.union(*in_files)) == 33
    rows = [row for some in splits.values() for row in some]
    assert sum(row["votes_a"] + row["votes_b"] for row in rows) == 3_000
    assert len({frozenset(row["id"].split("-")[1:]) for row in rows}) == len(rows)
    for row in rows:
        a, b = map(int, row["id"].split("-")[1:])
        assert row["response_a"] == f"Joke {a}, “quoted”."
        assert row["votes_a"] == votes.count([a, b])
    swapped = [int(a) > int(b) for a, b in (row["id"].split("-")[1:] for row in splits["humour_train"])]
    assert 0.3 < sum(swapped) / len(swapped) < 0.7


def test_pandalm_keeps_what_is_not_text(tmp_path):
    pandalm(tmp_path)
    first, second = rows_of("pandalm", tmp_path)["pandalm_test"]
    assert list(first.values()) == ["pandalm-7", "Add.\n\n1, 2", "3", True, 1, 1, 1, "opt-7b", "cerebras-gpt-6.7B"]
    assert list(second.values())[1:7] == ["Add.", "3", "", 3, 0, 0]


def test_verdicts_of_every_judge_in_both_orders(tmp_path):
    llmbar(tmp_path)
    rows = rows_of("llmbar", tmp_path)["llmbar_judges"]
    assert len(rows) == 4 * 2 * 10
    assert list(rows[0].values()) == ["ChatGPT", "CoT", "CaseStudy/Base_10", 0, 1, "2", None]


@pytest.fixture
def unchecked(monkeypatch):
    """Accepts the content of tiny clones."""
    monkeypatch.setattr(public_splits, "_is_published", lambda *_: True)


def test_command_writes_the_same_bytes_again_and_pairs_load(tmp_path, capsys, unchecked):
    convincing(tmp_path / "clone")
    for folder in ("a", "deep/er"):
        command(["splits", "convincing", str(tmp_path / "clone"), str(tmp_path / folder)])
    assert capsys.readouterr().out.splitlines()[:4] == [
        f"{tmp_path}/a/convincing_train.jsonl.gz: 2 rows",
        f"{tmp_path}/a/convincing_validation.jsonl.gz: 1 rows",
        f"{tmp_path}/a/convincing_test.jsonl.gz: 1 rows",
        "2 rows are in no file",
    ]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "deep/er" / path.name).read_bytes()
    pairs = load_pairs(tmp_path / "a" / "convincing_train.jsonl.gz")
    assert [(pair.votes_a, pair.votes_b, pair.votes_tie) for pair in pairs] == [(3, 1, 1), (0, 4, 0)]


def test_other_content_is_an_error_and_nothing_is_written(tmp_path):
    convincing(tmp_path)
    with pytest.raises(UserError, match=r"the 2 rows of convincing_train are not those .* at commit ca9d24e41b88"):
        write_public_splits("convincing", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "make", "file", "text", "message"),
    [
        ("convincing", convincing, "data/UKPConvArg1-full-XML", None, "UKPConvArg1-full-XML: no such folder"),
        ("convincing", convincing, "data/UKPConvArg1-full-XML/tea-or-coffee_tea.xml", "<list>", "ParseError"),
        ("convincing", convincing, "data/UKPConvArg1-full-XML/tea-or-coffee_tea.xml", "<l><p/></l>", "AttributeError"),
        ("humour", humour, "data/pl-humor-full/pairs.csv", None, "pairs.csv: No such file"),
        ("humour", humour, "data/pl-humor-full/pairs.csv", "1,99\n", "pairs.csv is not as published"),
        ("humour", humour, "data/pl-humor-full/item_scores.txt", "1 text\n", "item_scores.txt is not as published"),
        ("pandalm", pandalm, "data/testset-v1.json", '[{"idx": 1}]', "testset-v1.json is not as published"),
        ("llmbar", llmbar, "Dataset/LLMBar/Natural/evaluators/GPT-4/CoT/result.json", None, "GPT-4/CoT/result.json"),
        ("llmbar", llmbar, "Dataset/LLMBar/Natural/evaluators/GPT-4/CoT/result.json", "[", "JSONDecodeError"),
    ],
)  # fmt: skip
def test_incomplete_clones_name_the_file_the_repository_and_the_commit(tmp_path, name, make, file, text, message):
    make(tmp_path)
    path = tmp_path / file
    if text is not None:
        path.write_text(text)
    else:
        path.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError) as error:
        write_public_splits(name, tmp_path, tmp_path / "out")
    assert message in str(error.value)
    assert f"{SOURCES[name].url} at commit {SOURCES[name].commit}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, unchecked):
    pandalm(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file cannot be written: File exists"):
        write_public_splits("pandalm", tmp_path, tmp_path / "file")


def test_an_unknown_name_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        command(["splits", "convincin", "clone", "out"])
    assert "'convincing', 'humour', 'pandalm', 'llmbar'" in capsys.readouterr().err


def test_needs_no_torch():
    code = "import sys, autorater.data.public_splits; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_configs_and_documents_name_files_and_commands_that_exist():
    texts = {path: path.read_text() for path in [*CONFIGS, ROOT / "docs" / "data.md", ROOT / "README.md"]}
    files = {file: name for name, source in SOURCES.items() for file in source.contents}
    for path, text in texts.items():
        named = set(re.findall(r"\bdata/(\w+)\.jsonl\.gz", text))
        assert named <= files.keys(), path
        for name, clone in re.findall(r"autorater splits (\w+) (\S+) data$", text, re.MULTILINE):
            assert f"git clone --depth 1 {SOURCES[name].url} {clone}\n" in text, path
        assert path not in CONFIGS or ": ../" not in text, f"{path} reads files outside the checkout"
        if path in CONFIGS and named:
            names = {files[file] for file in named}
            assert all(f"autorater splits {name} " in text or "grpo_convincing.yaml" in text for name in names), path
    assert all(f"autorater splits {name} " in texts[ROOT / "docs" / "data.md"] for name in SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_equal_to_the_human_judgments(name, tmp_path):
    """What the digests stand for is the content of the files with which all tables were made, line by line."""
    source = SOURCES[name]
    clone = Path(os.environ.get("AUTORATER_CLONES", "")) / name
    if not os.environ.get("AUTORATER_CLONES") or not clone.is_dir():
        pytest.skip(f"AUTORATER_CLONES names no folder with {name}, a clone of {source.url}")
    if missing := [file for file in source.contents if not (DATA / f"{file}.jsonl.gz").is_file()]:
        pytest.skip(f"no {', '.join(missing)} in {DATA}")
    write_public_splits(name, clone, tmp_path)
    for file in source.contents:
        ours, made = (gzip.decompress((folder / f"{file}.jsonl.gz").read_bytes()) for folder in (DATA, tmp_path))
        assert made.splitlines(keepends=True) == ours.splitlines(keepends=True)
