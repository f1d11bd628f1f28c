"""Pairs: loading, error messages, votes, swaps, splits. No network, no model."""

import csv
import gzip
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autorater.data import loading
from autorater.data.errors import DataError, DataWarning
from autorater.data.loading import COLUMNS, iter_pairs, load_pairs, write_pairs
from autorater.data.messages import plain_text
from autorater.data.pairs import (
    Pair,
    leaked_responses,
    sparse_label,
    split_by,
    vote_share,
    with_sparse_labels,
)
from autorater.data.tables import iter_rows
from tests.conftest import DATA, needs_data

ROW = {"prompt": "Tea or coffee?", "response_a": "Tea.", "response_b": "Coffee.", "label": 0.25}
VOTED = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "votes_a": 1, "votes_b": 3, "votes_tie": 1}
RICH = [
    {
        **VOTED,
        "id": "first",
        "response_a": 'He wrote "yes, please".\nTwice,\r\nin fact.',
        "response_b": "Ünïcödé 🍵 \u2028 line, separator",
        "topic": "drinks",
        "model_a": "m-1",
        "model_b": "m-2",
        "true_probability": 0.625,
    },
    {**VOTED, "id": "second", "votes_a": 0, "votes_tie": 0, "topic": None, "model_a": "m-2", "model_b": None},
]


def a_pair(**changes):
    return replace(Pair("p", "Tea?", "Yes.", "No.", 0.25), **changes)


def voted_pair(votes_a, votes_b, votes_tie=0, **changes):
    votes = {"votes_a": votes_a, "votes_b": votes_b, "votes_tie": votes_tie}
    return a_pair(label=vote_share(**votes), n_votes=sum(votes.values()), **votes, **changes)


def jsonl(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows, columns):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def error_of(source, *parts, **options):
    """The error message, after checking that it contains the source and every part."""
    with pytest.raises(DataError) as caught:
        load_pairs(source, **options)
    message = str(caught.value)
    for part in (str(source), *parts):
        assert part in message
    return message


# Valid files.


def test_label_given(tmp_path):
    (pair,) = load_pairs(jsonl(tmp_path / "a.jsonl", ROW))
    assert pair == Pair("0", "Tea or coffee?", "Tea.", "Coffee.", 0.25)


def test_votes_become_the_vote_share_and_a_tie_counts_one_half(tmp_path):
    (pair,) = load_pairs(jsonl(tmp_path / "a.jsonl", VOTED))
    assert pair.label == pytest.approx(0.7)
    assert (pair.votes_a, pair.votes_b, pair.votes_tie, pair.n_votes) == (1, 3, 1, 5)


def test_ties_are_optional(tmp_path):
    no_column = {column: value for column, value in VOTED.items() if column != "votes_tie"}
    pairs = load_pairs(jsonl(tmp_path / "a.jsonl", no_column, {**VOTED, "votes_tie": None}))
    assert [(pair.label, pair.votes_tie, pair.n_votes) for pair in pairs] == [(0.75, 0, 4)] * 2


def test_label_and_votes_together(tmp_path):
    (pair,) = load_pairs(jsonl(tmp_path / "a.jsonl", {**VOTED, "label": 0.7000005, "n_votes": 5}))
    assert pair.label == 0.7000005


def test_number_of_votes_beside_a_label(tmp_path):
    (pair,) = load_pairs(jsonl(tmp_path / "a.jsonl", {**ROW, "n_votes": 4}))
    assert (pair.n_votes, pair.votes_a) == (4, None)


def test_null_and_empty_optional_columns_are_absent(tmp_path):
    optional = ("id", "topic", "model_a", "model_b", "true_probability", "votes_a", "votes_b", "n_votes")
    for nothing in (None, ""):
        (pair,) = load_pairs(jsonl(tmp_path / "a.jsonl", {**ROW, **dict.fromkeys(optional, nothing)}))
        assert pair == Pair("0", "Tea or coffee?", "Tea.", "Coffee.", 0.25)


def test_whole_numbers_are_counts_and_names(tmp_path):
    (pair,) = load_pairs(jsonl(tmp_path / "a.jsonl", {**VOTED, "votes_b": 3.0, "id": 17, "topic": 4}))
    assert (pair.votes_b, type(pair.votes_b), pair.id, pair.topic) == (3, int, "17", "4")


def test_blank_lines_are_skipped_and_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps(ROW)
    path.write_bytes(f"\ufeff{good}\r\n\r\n  \n{good}\n\n".encode())
    assert [pair.id for pair in load_pairs(path)] == ["0", "1"]
    path.write_text(f"{good}\n\n{{}}\n")
    error_of(path, "line 3:")


def test_other_columns_are_not_read(tmp_path):
    (pair,) = load_pairs(jsonl(tmp_path / "a.jsonl", {**ROW, "stance": ["pro"], "worker": {"id": 3}}))
    assert pair == Pair("0", "Tea or coffee?", "Tea.", "Coffee.", 0.25)


def test_every_kind_of_file_gives_the_same_pairs(tmp_path):
    datasets = pytest.importorskip("datasets")
    columns = list(RICH[0])
    expected = load_pairs(jsonl(tmp_path / "a.jsonl", *RICH))
    assert expected[0].response_a == RICH[0]["response_a"]
    assert expected[0].response_b == RICH[0]["response_b"]
    assert expected[1].topic is None

    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    write_csv(tmp_path / "a.csv", RICH, columns)
    (tmp_path / "bom.CSV").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "a.csv").read_bytes())
    pq.write_table(pa.Table.from_pylist(RICH, schema=None), tmp_path / "a.parquet")
    saved = datasets.Dataset.from_list([{column: row.get(column) for column in columns} for row in RICH])
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": saved, "test": saved.select([1])}).save_to_disk(tmp_path / "two")

    for name in ("a.jsonl.gz", "a.csv", "bom.CSV", "a.parquet", "one", "two"):
        assert load_pairs(tmp_path / name) == expected, name
        assert load_pairs(str(tmp_path / name)) == expected, name
    assert load_pairs(tmp_path / "two", split="test") == expected[1:]
    error_of(tmp_path / "two", "no split 'dev'", "train, test", split="dev")


def test_tables_longer_than_one_batch_keep_order_and_row_numbers(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [{**ROW, "prompt": f"Question {i}?"} for i in range(9000)]
    rows.append({**ROW, "label": 2.0})
    for size, source in ((9000, "good"), (9001, "bad")):
        table = pa.Table.from_pylist(rows[:size])
        pq.write_table(table, tmp_path / f"{source}.parquet", row_group_size=1000)
        datasets.Dataset(table).save_to_disk(tmp_path / source)
    for source in ("good", "good.parquet"):
        pairs = load_pairs(tmp_path / source)
        assert [pair.prompt for pair in pairs] == [row["prompt"] for row in rows[:9000]]
        assert pairs[-1].id == "8999"
    for source in ("bad", "bad.parquet"):
        error_of(tmp_path / source, "row 9000 (counted from 0)", "'label'", "2.0")


def test_csv_fields_longer_than_the_default_limit(tmp_path):
    csv.field_size_limit(131_072)
    path = write_csv(tmp_path / "a.csv", [{**ROW, "response_a": "long " * 50_000}], list(ROW))
    assert len(load_pairs(path)[0].response_a) == 250_000
    error_of(write_csv(path, [{**ROW, "label": 3}], list(ROW)), "line 2", "'3'")
    assert csv.field_size_limit() == 131_072


# Invalid files. Each case: the row, then parts of the message.

BAD_ROWS = {
    "no prompt": ({k: v for k, v in ROW.items() if k != "prompt"}, "'prompt'", "missing"),
    "no response": ({k: v for k, v in ROW.items() if k != "response_b"}, "'response_b'", "missing"),
    "no label": ({k: v for k, v in ROW.items() if k != "label"}, "'label'", "missing", "votes_a and votes_b"),
    "half the votes": ({k: v for k, v in VOTED.items() if k != "votes_a"}, "'votes_a'", "missing"),
    "label null": ({**ROW, "label": None}, "'label'", "None", "[0, 1]"),
    "label above 1": ({**ROW, "label": 1.5}, "'label'", "1.5", "[0, 1]"),
    "label below 0": ({**ROW, "label": -1e-9}, "'label'", "-1e-09", "[0, 1]"),
    "label NaN": ({**ROW, "label": float("nan")}, "'label'", "nan", "[0, 1]"),
    "label infinite": ({**ROW, "label": float("inf")}, "'label'", "inf", "[0, 1]"),
    "label a letter": ({**ROW, "label": "B"}, "'label'", "'B'", "[0, 1]"),
    "label the text nan": ({**ROW, "label": "nan"}, "'label'", "'nan'", "[0, 1]"),
    "label in other digits": ({**ROW, "label": "٠.٥"}, "'label'", "[0, 1]"),
    "label with underscore": ({**ROW, "label": "0_1"}, "'label'", "'0_1'", "[0, 1]"),
    "label true": ({**ROW, "label": True}, "'label'", "True", "[0, 1]"),
    "label a list": ({**ROW, "label": [0.5]}, "'label'", "[0.5]", "[0, 1]"),
    "label too big for a float": ({**ROW, "label": 10**400}, "'label'", "[0, 1]"),
    "votes negative": ({**VOTED, "votes_a": -1}, "'votes_a'", "-1", "whole number"),
    "votes fractional": ({**VOTED, "votes_b": 2.5}, "'votes_b'", "2.5", "whole number"),
    "votes true": ({**VOTED, "votes_b": True}, "'votes_b'", "True", "whole number"),
    "votes infinite": ({**VOTED, "votes_tie": float("inf")}, "'votes_tie'", "inf", "whole number"),
    "votes text": ({**VOTED, "votes_tie": "many"}, "'votes_tie'", "'many'", "whole number"),
    "votes null beside votes": ({**VOTED, "votes_b": None}, "'votes_b'", "None", "whole number"),
    "only ties": ({**ROW, "votes_tie": 2}, "'votes_a'", "None", "whole number"),
    "no vote": ({**VOTED, "votes_a": 0, "votes_b": 0, "votes_tie": 0}, "votes_a", "at least one vote"),
    "label against votes": ({**VOTED, "label": 0.25}, "'label'", "0.25", "0.7", "'votes_b': 3"),
    "label rounded too far": ({**VOTED, "label": 0.700002}, "'label'", "0.700002", "0.7"),
    "total against votes": ({**VOTED, "n_votes": 4}, "'n_votes'", "4", "expected 5"),
    "label of no votes": ({**ROW, "n_votes": 0}, "'n_votes'", "0", "at least one"),
    "response empty": ({**ROW, "response_a": ""}, "'response_a'", "''", "not blank"),
    "response blank": ({**ROW, "response_b": " \n\t\u00a0"}, "'response_b'", "not blank"),
    "response null": ({**ROW, "response_b": None}, "'response_b'", "None", "text"),
    "response true": ({**ROW, "response_a": True}, "'response_a'", "True", "text"),
    "response a number": ({**ROW, "response_a": 42}, "'response_a'", "42", "text"),
    "response of parts": ({**ROW, "response_a": [{"type": "text"}]}, "'response_a[0]'", "role and content"),
    "response half a character": ({**ROW, "response_a": "\ud83c"}, "'response_a'", "surrogate"),
    "prompt empty": ({**ROW, "prompt": ""}, "'prompt'", "''", "not blank"),
    "prompt a list": ({**ROW, "prompt": ["Tea?"]}, "'prompt'", "['Tea?']", "text"),
    "id true": ({**ROW, "id": True}, "'id'", "True", "text"),
    "id a float": ({**ROW, "id": 1.5}, "'id'", "1.5", "text"),
    "topic a list": ({**ROW, "topic": ["tea"]}, "'topic'", "['tea']", "text"),
    "model half a character": ({**ROW, "model_a": "\udc00"}, "'model_a'", "surrogate"),
    "truth above 1": ({**ROW, "true_probability": 62.5}, "'true_probability'", "62.5", "[0, 1]"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_row(tmp_path, case):
    row, *parts = BAD_ROWS[case]
    other = VOTED if "votes_b" in row else ROW
    error_of(jsonl(tmp_path / "a.jsonl", other, row, other), "line 2: column ", *parts)


def test_long_values_are_cut(tmp_path):
    message = error_of(jsonl(tmp_path / "a.jsonl", {**ROW, "prompt": ["x" * 10_000]}), "'prompt'")
    assert "x" * 60 in message
    assert len(message) < len(str(tmp_path)) + 300


def test_repeated_id_names_both_lines(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", {**ROW, "id": "x"}, {**ROW, "id": "y"}, {**ROW, "id": "x"})
    error_of(path, "line 3: column 'id': got 'x'", "line 1 ")


BAD_LINES = {
    "cut off": (b'{"prompt": "Tea?", "respo', "not usable JSON", "character"),
    "no JSON": (b"prompt,response_a", "not usable JSON", "character 1"),
    "two objects": (b"{} {}", "not usable JSON", "character 4"),
    "a list": (b'["prompt"]', "['prompt']", "JSON object"),
    "a number": (b"NaN", "nan", "JSON object"),
    "a key twice": (json.dumps(ROW).encode()[:-1] + b', "label": 1}', "'label'", "2 times"),
    "NaN": (json.dumps({**ROW, "label": 0}).replace('"label": 0', '"label": NaN').encode(), "'label'", "nan"),
    "too deep": (b"[" * 200_000, "not usable JSON"),
    "Latin-1": ('{"prompt": "Thé?"}'.encode("latin-1"), "byte 0xe9 at position 15", "UTF-8"),
}


@pytest.mark.parametrize("case", BAD_LINES)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_bad_line(tmp_path, case, suffix):
    line, *parts = BAD_LINES[case]
    content = b"\n".join([json.dumps(ROW).encode(), b"", line, json.dumps(ROW).encode()])
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    error_of(path, "line 3: ", *parts)


def test_broken_gzip(tmp_path):
    lines = [json.dumps({**ROW, "prompt": f"{i} {np.random.default_rng(i).bytes(400).hex()}"}) for i in range(200)]
    whole = gzip.compress("\n".join(lines).encode())
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    assert "line 1:" not in error_of(path, "broken gzip data", "line ")
    path.write_bytes(json.dumps(ROW).encode())
    error_of(path, "line 1:", "broken gzip data")
    path.write_bytes(whole[:200] + b"\0\0\0\0\0\0\0\0" + whole[208:])
    error_of(path)


def test_no_rows(tmp_path):
    datasets = pytest.importorskip("datasets")
    for name, content in {"a.jsonl": b"", "b.jsonl": b"\n \n", "a.csv": b"", "b.csv": b"prompt"}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("a.jsonl", "b.jsonl", "a.csv"):
        error_of(tmp_path / name, "no rows")
    error_of(tmp_path / "b.csv", "line 1", "'response_a'", "missing")
    empty = pa.Table.from_pylist([ROW]).slice(0, 0)
    pq.write_table(empty, tmp_path / "a.parquet")
    error_of(tmp_path / "a.parquet", "no rows")
    datasets.Dataset(empty).save_to_disk(tmp_path / "saved")
    error_of(tmp_path / "saved", "dataset not loaded")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b""))
    error_of(tmp_path / "a.jsonl.gz", "no rows")


def test_bad_csv(tmp_path):
    path = tmp_path / "a.csv"
    good = 'Tea?,"a\nb\n\nc",No.,0.5\n'
    head = "prompt,response_a,response_b,label\n"
    cases = {
        head + good + good + "Tea?,Yes.,No.,B\n": ("line 10: column 'label'", "'B'"),
        head + "\n" + good + '"Tea\n?",Yes.,"N\no.",7\n': ("line 7: column 'label'", "'7'"),
        head + good + "Tea?,Yes.,No.\n": ("line 6: 3 fields", "expected 4"),
        head + good + "Tea?,Yes.,No, thanks.,0.5\n": ("line 6: 5 fields", "expected 4"),
        head + good + 'Tea?,"Yes."!,No.,0.5\n': ("line 6: not CSV",),
        head + good + 'Tea?,"Yes.,No.,0.5\n' + "a,b,c,1\n" * 9: ("line 6: not CSV", "unexpected end of data"),
        head.replace("response_b", "response_a") + good: ("line 1: column 'response_b'", "missing"),
        head.replace("label", "label,label") + good: ("line 1: column 'label' is there 2 times",),
    }
    for content, parts in cases.items():
        path.write_text(content, encoding="utf-8")
        error_of(path, *parts)
    path.write_bytes((head + good).encode() + b"Caf\xe9?,Yes.,No.,1\n")
    error_of(path, "line 6: byte 0xe9 at position 4")


def test_bad_table(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([ROW, {**ROW, "response_a": None}]), path)
    error_of(path, "row 1 (counted from 0): column 'response_a': got None")
    pq.write_table(pa.table({"prompt": ["Tea?"], "answer": ["Yes."]}), path)
    error_of(path, "'response_a' is missing", "'answer'")
    pq.write_table(pa.Table.from_pylist([{**ROW, "response_a": b"Yes."}]), path)
    error_of(path, "row 0 (counted from 0): column 'response_a': got b'Yes.'")
    wrong = pa.array([b"Caf\xe9"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.Table.from_pylist([ROW]).set_column(0, "prompt", wrong), path)
    error_of(path, "rows 0 to 0", "UTF-8")
    path.write_bytes(b"PAR1 this is not a table PAR1")
    error_of(path, "Parquet")
    pq.write_table(pa.Table.from_pylist([ROW] * 5000), path)
    path.write_bytes(path.read_bytes()[:-100])
    error_of(path, "Parquet")


def test_no_such_source(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # the Hub must not be reached
    for source in (
        tmp_path / "a.jsonl",
        tmp_path / "no-suffix",
        "a.csv",
        "org/name.parquet",
        "org/name.json",
        "./name",
        "../name",
        "/name",
        "~/name",
        "a/b/c",
        "two words",
    ):
        error_of(source, "no such file")
    (tmp_path / "a.txt").write_text("x")
    error_of(tmp_path / "a.txt", "unknown file type", ".jsonl.gz")


def test_folder_without_a_dataset(tmp_path):
    pytest.importorskip("datasets")
    error_of(tmp_path, "save_to_disk")


def test_hub_names(monkeypatch):
    datasets = pytest.importorskip("datasets")
    requested = []

    def load_dataset(name, configuration, *, split):
        requested.append((name, configuration, split))
        if split != "test":
            raise ValueError(f"Unknown split\n{split!r}\nExample of usage:\n\tload_dataset")
        return datasets.Dataset.from_list([{**ROW, "extra": 1}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert load_pairs("org/name-v1.5", split="test") == [Pair("0", "Tea or coffee?", "Tea.", "Coffee.", 0.25)]
    assert len(load_pairs("org/name:comparisons", split="test")) == 1
    error_of("name", "(Unknown split 'train'); expected", "or org/name:configuration")
    assert requested == [("org/name-v1.5", None, "test"), ("org/name", "comparisons", "test"), ("name", None, "train")]


def test_missing_datasets_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for source in ("org/name", tmp_path):
        with pytest.raises(ImportError, match=r"pip install 'autorater-rl\[train\]'"):
            load_pairs(source)


def test_import_is_light():
    code = "import sys, autorater.data.pairs, autorater.data.loading; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "datasets", "pyarrow", "pandas", "numpy"}
    assert not heavy & set(done.stdout.split())


# Writing.

TEXT = st.text(min_size=1).filter(lambda text: not text.isspace())
NAME = st.none() | st.text(min_size=1)
PROBABILITY = st.floats(0, 1)
VOTES = st.tuples(*[st.integers(0, 9)] * 3).filter(any)


@st.composite
def pairs_with_anything(draw):
    votes = draw(st.none() | VOTES)
    counts = {} if votes is None else dict(zip(("votes_a", "votes_b", "votes_tie"), votes, strict=True))
    return Pair(
        id=draw(st.text(min_size=1)),
        prompt=draw(TEXT),
        response_a=draw(TEXT),
        response_b=draw(TEXT),
        label=vote_share(*votes) if votes else draw(PROBABILITY),
        n_votes=sum(votes) if votes else draw(st.none() | st.integers(1, 9)),
        topic=draw(NAME),
        model_a=draw(NAME),
        model_b=draw(NAME),
        true_probability=draw(st.none() | PROBABILITY),
        **counts,
    )


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(pairs_with_anything(), min_size=1, max_size=5, unique_by=lambda pair: pair.id))
def test_written_pairs_are_read_back(tmp_path_factory, pairs):
    folder = tmp_path_factory.mktemp("round")
    for name in ("a.jsonl", "a.jsonl.gz"):
        write_pairs(pairs, folder / name)
        assert load_pairs(folder / name) == pairs
    assert gzip.decompress((folder / "a.jsonl.gz").read_bytes()) == (folder / "a.jsonl").read_bytes()
    rows = [{column: getattr(pair, column) for column in COLUMNS} for pair in pairs]
    assert load_pairs(write_csv(folder / "a.csv", rows, COLUMNS)) == pairs


def test_swapped_and_sparse_pairs_are_read_back(tmp_path):
    pairs = [voted_pair(1, 1, 1), voted_pair(2, 1, id="q"), a_pair(id="r", label=1 / 3)]
    for derived in ([pair.swapped() for pair in pairs], with_sparse_labels(pairs, 0)):
        write_pairs(derived, tmp_path / "a.jsonl")
        assert load_pairs(tmp_path / "a.jsonl") == derived


def test_writing_is_deterministic_and_strict(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_pairs([a_pair()], tmp_path / name)
    packed = (tmp_path / "a.jsonl.gz").read_bytes()
    assert packed == (tmp_path / "b.jsonl.gz").read_bytes()
    assert packed[4:8] == bytes(4), "a time stamp in the gzip header"
    with pytest.raises(ValueError, match=r"ends in \.jsonl"):
        write_pairs([a_pair()], tmp_path / "a.csv")
    with pytest.raises(ValueError):
        write_pairs([a_pair(label=float("nan"))], tmp_path / "a.jsonl")


# Swaps.


def test_swapped_keeps_only_the_id_and_the_prompt():
    pair = voted_pair(3, 1, 0, model_a="m", model_b="n", true_probability=0.125, topic="tea")
    swapped = Pair("p", "Tea?", "No.", "Yes.", 0.75, 4, "tea", "n", "m", 0.875, 1, 3, 0)
    assert pair.swapped() == swapped
    assert pair.swapped().swapped() == pair


@given(pair=pairs_with_anything())
def test_swap_is_an_involution(pair):
    twice = pair.swapped().swapped()
    assert twice.label == pytest.approx(pair.label, abs=1e-15)
    assert replace(twice, label=pair.label, true_probability=pair.true_probability) == pair


# Sparse labels.


@pytest.mark.parametrize(
    "pair",
    [
        voted_pair(4, 1, 0),
        voted_pair(1, 4, 0),
        voted_pair(0, 1, 4),
        voted_pair(1, 2, 2),
        a_pair(label=0.3),
        a_pair(label=0.9),
        voted_pair(4, 1, 0, response_a="No.", response_b="Yes."),
    ],
)
def test_draws_have_the_frequency_of_the_votes(pair):
    n = 20_000
    draws = np.array([sparse_label(pair, seed) for seed in range(n)])
    assert set(draws) <= {0.0, 1.0}
    assert abs(draws.mean() - pair.label) < 4 * 0.5 / n**0.5
    over_ids = np.mean([sparse_label(replace(pair, id=f"p{i}"), 7) for i in range(n)])
    assert abs(over_ids - pair.label) < 4 * 0.5 / n**0.5


def test_only_given_votes_are_drawn():
    for seed in range(500):
        assert sparse_label(voted_pair(5, 0), seed) == sparse_label(a_pair(label=0.0), seed) == 0.0
        assert sparse_label(voted_pair(0, 5), seed) == sparse_label(a_pair(label=1.0), seed) == 1.0


def test_draws_are_the_same_in_every_process():
    """Fixed values: another hash, or Python's salted one, would re-draw the votes of a resumed run."""
    drawn = "".join(str(int(sparse_label(a_pair(id=f"p{i}", label=0.5), 0))) for i in range(24))
    assert drawn == "001101111100110110110001"


def test_draws_do_not_depend_on_the_order_of_the_rows():
    pairs = [voted_pair(2, 2, 1, id=f"p{i}") for i in range(200)]
    drawn = {pair.id: pair for pair in with_sparse_labels(pairs, 3)}
    assert {pair.id: pair for pair in with_sparse_labels(pairs[::-1], 3)} == drawn
    assert {pair.label for pair in drawn.values()} == {0.0, 1.0}
    assert [p.label for p in with_sparse_labels(pairs, 4)] != [p.label for p in with_sparse_labels(pairs, 3)]


@given(pair=pairs_with_anything(), seed=st.integers())
def test_the_swap_has_the_complementary_draw(pair, seed):
    assume((pair.response_a, pair.model_a) != (pair.response_b, pair.model_b) or abs(pair.label - 0.5) > 1e-9)
    assert sparse_label(pair.swapped(), seed) == 1 - sparse_label(pair, seed)


def test_swaps_and_sparse_labels_commute():
    pairs = [voted_pair(2, 2, 1, id=f"p{i}", response_b=f"{'AZ'[i % 2]}{i}") for i in range(200)]
    pairs += [a_pair(label=0.5, id=f"q{i}", response_b=f"{'AZ'[i % 2]}{i}") for i in range(200)]
    swapped = [pair.swapped() for pair in pairs]
    assert with_sparse_labels(swapped, 5) == [pair.swapped() for pair in with_sparse_labels(pairs, 5)]


def test_sparse_pairs_keep_the_one_vote_only():
    for pair in (voted_pair(2, 2, 1), a_pair(label=0.4, n_votes=5), a_pair(label=0.4)):
        (sparse,) = with_sparse_labels([pair], 0)
        votes = (sparse.votes_a, sparse.votes_b, sparse.votes_tie)
        assert votes == ((0, 1, 0) if sparse.label else (1, 0, 0))
        assert sparse.n_votes == 1
    certain = [a_pair(label=0.0), a_pair(label=1.0, n_votes=3)]
    assert with_sparse_labels(certain, 0) == certain


# Splits.


def grouped(sizes):
    return [
        a_pair(id=f"{topic}-{i}", topic=topic, response_a=f"{topic} a{i}", response_b=f"{topic} b{i}")
        for topic, size in sizes.items()
        for i in range(size)
    ]


@settings(deadline=None)
@given(
    sizes=st.dictionaries(st.text(max_size=3), st.integers(1, 12), min_size=2, max_size=12),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
def test_split_keeps_groups_whole_and_is_near_the_fraction(sizes, fraction, seed):
    pairs = grouped(sizes)
    train, held_out = split_by(pairs, "topic", fraction, seed)
    assert train
    assert held_out
    assert not {pair.topic for pair in train} & {pair.topic for pair in held_out}
    assert sorted(pairs, key=pairs.index) == sorted(train + held_out, key=pairs.index)
    assert abs(len(held_out) - fraction * len(pairs)) <= max(sizes.values())
    assert leaked_responses(train, held_out) == 0
    again = split_by(pairs[::-1], "topic", fraction, seed)
    assert (again[0][::-1], again[1][::-1]) == (train, held_out)


def test_split_depends_on_the_seed_and_balances_many_groups():
    pairs = grouped({f"topic {i}": 5 for i in range(60)})
    splits = [split_by(pairs, "topic", 0.2, seed)[1] for seed in range(5)]
    assert [len(held_out) for held_out in splits] == [60] * 5
    assert len({tuple(pair.id for pair in held_out) for held_out in splits}) == 5


def test_split_with_one_dominant_group():
    for fraction in (0.01, 0.5, 0.99):
        train, held_out = split_by(grouped({"big": 98, "x": 1, "y": 1}), "topic", fraction, 0)
        assert train
        assert held_out


def test_invalid_splits():
    pairs = grouped({"tea": 2, "coffee": 2})
    with pytest.raises(ValueError, match=r"cannot split by 'debate'; expected one of topic, prompt"):
        split_by(pairs, "debate", 0.5, 0)
    with pytest.raises(ValueError, match=r"pair 'odd' has no topic"):
        split_by([*pairs, a_pair(id="odd")], "topic", 0.5, 0)
    with pytest.raises(ValueError, match=r"4 pairs with 1 distinct prompt"):
        split_by(pairs, "prompt", 0.5, 0)
    for fraction in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="fraction is"):
            split_by(pairs, "topic", fraction, 0)


def test_leaked_responses_are_counted_once_and_in_either_slot():
    train = [a_pair(response_a="x", response_b="y"), a_pair(response_a="x", response_b="z")]
    assert (
        leaked_responses(train, [a_pair(response_a="z", response_b="x"), a_pair(response_a="x", response_b="w")]) == 2
    )
    assert leaked_responses(train, [a_pair(response_a="X", response_b="w")]) == 0


# The human judgments.


@needs_data("convincing_train", "convincing_validation", "convincing_test")
@pytest.mark.parametrize(("part", "size"), [("train", 12_414), ("validation", 765), ("test", 1_856)])
def test_convincing_arguments(part, size):
    pairs = load_pairs(DATA / f"convincing_{part}.jsonl.gz")
    labels = np.array([pair.label for pair in pairs])
    assert len(pairs) == size
    assert 0.48 < labels.mean() < 0.52
    assert all(pair.topic for pair in pairs)
    if part == "test":
        assert np.mean((labels - 0.5) ** 2) == pytest.approx(0.1156, abs=5e-5)


@needs_data("convincing_train", "convincing_test")
def test_convincing_arguments_split_by_topic():
    train = load_pairs(DATA / "convincing_train.jsonl.gz")
    test = load_pairs(DATA / "convincing_test.jsonl.gz")
    assert leaked_responses(train, test) == 0
    kept, held_out = split_by(train, "topic", 0.1, 0)
    assert len(held_out) == pytest.approx(0.1 * len(train), rel=0.1)
    assert len(kept) + len(held_out) == len(train)


@needs_data("convincing_train")
def test_one_vote_a_pair_on_convincing_arguments():
    pairs = load_pairs(DATA / "convincing_train.jsonl.gz")
    dense, sparse = (np.array([pair.label for pair in some]) for some in (pairs, with_sparse_labels(pairs, 0)))
    spread = np.sqrt(np.sum(dense * (1 - dense))) / len(pairs)
    assert abs(sparse.mean() - dense.mean()) < 4 * spread


@needs_data("pandalm_test")
def test_pandalm_has_blank_and_boolean_responses(tmp_path):
    path = DATA / "pandalm_test.jsonl.gz"
    error_of(path, "line 19: column 'response_a': got ''")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    assert len(rows) == 999
    usable = [
        row for row in rows if all(isinstance(row[c], str) and row[c].strip() for c in ("response_a", "response_b"))
    ]
    pairs = load_pairs(jsonl(tmp_path / "a.jsonl", *usable))
    assert len(pairs) == 939
    assert {pair.n_votes for pair in pairs} == {3}
    assert len({pair.model_a for pair in pairs} | {pair.model_b for pair in pairs}) == 5
    with pytest.warns(DataWarning, match="odd responses among 999 pairs: 54 blank, 6 not text, read as true"):
        pairs = load_pairs(path, allow_odd_responses=True)
    assert len(pairs) == 999
    assert sum(not response for pair in pairs for response in (pair.response_a, pair.response_b)) == 54


def test_odd_responses_are_kept_and_counted_on_request(tmp_path):
    path = jsonl(
        tmp_path / "a.jsonl", {**ROW, "response_a": ""}, {**ROW, "response_b": True}, {**ROW, "response_b": 4}
    )
    with pytest.warns(DataWarning, match=r"a\.jsonl: odd responses among 3 pairs: 1 blank, 1 not text, read as true"):
        pairs = load_pairs(path, allow_odd_responses=True)
    assert [(pair.response_a, pair.response_b) for pair in pairs] == [("", "Coffee."), ("Tea.", "true"), ("Tea.", "4")]


def test_lone_surrogates_are_replaced_on_request(tmp_path):
    half = {**ROW, "prompt": [{"role": "user", "content": "Tea \ud83d?"}], "response_a": "\ud83d\ude00 \ude00"}
    path = jsonl(tmp_path / "a.jsonl", half, ROW)
    error_of(path, "line 1: column 'prompt[0]': got 'Tea \\ud83d?'; expected text without lone surrogates")
    with pytest.warns(DataWarning, match="odd responses among 2 pairs: 2 with a lone surrogate, read as U"):
        pair, other = load_pairs(path, allow_odd_responses=True)
    assert (pair.prompt[0].content, pair.response_a, other.response_a) == ("Tea \ufffd?", "\U0001f600 \ufffd", "Tea.")
    texts = {"prompt": '["Tea?"]', "response_a": r'["Yes \ud83d"]', "response_b": '["No"]'}
    arena = texts | {"winner_model_a": "1", "winner_model_b": "0", "winner_tie": "0"}
    write_csv(tmp_path / "a.csv", [arena], list(arena))
    with pytest.warns(DataWarning, match="1 with a lone surrogate"):
        (pair,) = load_pairs(tmp_path / "a.csv", allow_odd_responses=True)
    assert plain_text(pair.response_a) == "Yes \ufffd"


def test_what_is_no_surrogate_stays_as_it_is(tmp_path):
    rows = [{"prompt": "Q", "chosen": r'{"a": "\ud83d"}', "rejected": "no"}]  # an answer that is JSON
    assert load_pairs(rows, allow_odd_responses=True) == load_pairs(rows)
    report = loading.LoadReport()
    rows = [ROW | {"weight": float("nan"), "comment": "\ud83d"}, ROW | {"topic": pytest.importorskip("pandas").NA}]
    load_pairs(rows[:1], allow_odd_responses=True, report=report)
    assert not report.odd


@pytest.mark.parametrize("sender", ["Human", "USER", "GPT", "human"])
def test_chats_of_sharegpt_in_text(tmp_path, sender):
    chat = json.dumps([{"from": sender, "value": "Tea?"}])
    write_csv(tmp_path / "a.csv", [ROW | {"prompt": chat}], list(ROW))
    (pair,) = load_pairs(tmp_path / "a.csv")
    assert pair.prompt[0].content == "Tea?"
    write_csv(tmp_path / "a.csv", [ROW | {"prompt": chat.replace(sender, "bing")}], list(ROW))
    error_of(tmp_path / "a.csv", "'prompt[0]': got 'bing'; expected a role out of")


@pytest.mark.parametrize("value", [True, 0.5, 3])
def test_groups_and_topics_may_be_truth_values_and_numbers(value):
    (pair,) = load_pairs([ROW | {"is_code": value, "share": value}], {"topic": "is_code", "group": "share"})
    assert (pair.topic, pair.group) == (str(value), str(value))


@pytest.mark.parametrize(
    "answer",
    [
        '[{"name": "Jo", "role": "Engineer"}]',
        '[{"from": "A", "to": "B", "value": 5}]',
        '[{"role": "user", "permissions": ["read"]}]',
    ],
)
def test_an_answer_that_is_a_list_of_other_mappings_is_text(tmp_path, answer):
    for row, column in ((ROW, "response_a"), ({"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}, "chosen")):
        write_csv(tmp_path / "a.csv", [row | {column: answer}], list(row))
        (pair,) = load_pairs(tmp_path / "a.csv")
        assert answer in (pair.response_a, pair.response_b)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"response_a": None}, "'response_a': got None"),
        ({"response_a": ["Tea."]}, r"'response_a': got \['Tea.'\]"),
        ({"prompt": " "}, "'prompt': got ' '"),
        ({"prompt": True}, "'prompt': got True"),
    ],
)
def test_other_values_are_refused_even_with_odd_responses(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        load_pairs(jsonl(tmp_path / "a.jsonl", {**ROW, **row}), allow_odd_responses=True)


def test_no_warning_without_odd_responses(tmp_path, recwarn):
    load_pairs(jsonl(tmp_path / "a.jsonl", ROW), allow_odd_responses=True)
    assert not recwarn.list


def test_pairs_one_at_a_time_have_distinct_ids(tmp_path, monkeypatch):
    """Only hashes of ids are kept: if a hash repeats, the file is searched, since two ids may have the same hash."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"id": i, "prompt": "q", "response_a": "a", "response_b": "b", "label": 1} for i in ("x", "y", "x")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = iter_pairs(path)
    assert [next(pairs).id, next(pairs).id] == ["x", "y"]
    with pytest.raises(DataError, match=r"line 3: column 'id': got 'x'; expected distinct ids; line 1 already"):
        next(pairs)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    monkeypatch.setattr(loading, "hash", lambda text: 0, raising=False)
    assert [pair.id for pair in iter_pairs(path)] == ["x", "y"]


def test_rows_of_any_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"judge": "m", "p": 0.5}, {"judge": "n", "p": 1.0}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in rows))
    (tmp_path / "t.csv").write_text("judge,p\nm,0.5\nn,1.0\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    assert list(iter_rows(tmp_path / "t.jsonl")) == [("line 1", rows[0]), ("line 3", rows[1])]
    assert list(iter_rows(tmp_path / "t.csv")) == [
        ("line 2", {"judge": "m", "p": "0.5"}),
        ("line 3", {"judge": "n", "p": "1.0"}),
    ]
    assert list(iter_rows(tmp_path / "t.parquet"))[1] == ("row 1 (counted from 0)", rows[1])
    (tmp_path / "t.csv").write_text("p,p\n1,2\n")
    with pytest.raises(DataError, match="column 'p' is there 2 times"):
        list(iter_rows(tmp_path / "t.csv"))
    with pytest.raises(DataError, match=r"nowhere\.csv: no such file"):
        list(iter_rows(tmp_path / "nowhere.csv"))


def test_whole_floats_of_pandas_are_ids_and_topics(tmp_path):
    path = tmp_path / "votes.jsonl"
    row = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "votes_a": 1.0, "votes_b": 2.0}
    path.write_text(json.dumps(row | {"id": 0.0, "topic": 1.0}) + "\n")
    (pair,) = load_pairs(path)
    assert (pair.id, pair.topic, pair.votes_b) == ("0", "1", 2)
    path.write_text(json.dumps(row | {"id": 0.5}) + "\n")
    error_of(path, "line 1", "'id'", "0.5", "a whole number")


def test_a_row_without_an_id_does_not_take_that_of_another(tmp_path):
    row = ROW | {"prompt": "Why?"}
    for without in (row, row | {"id": None}):
        pairs = load_pairs([ROW | {"id": 1.0}, without, ROW | {"id": 2, "label": 1.0, "prompt": "How?"}])
        assert [pair.id for pair in pairs] == ["1", "row 1", "2"]
    for others in ([ROW | {"id": "0"}, ROW], [ROW | {"id": None}, ROW | {"id": "1"}]):
        with pytest.raises(DataError, match=r"expected distinct ids; row \d .counted from 0. already has"):
            load_pairs([row, *others])


def test_semicolons_in_a_column_name_are_not_separators(tmp_path):
    path = write_csv(tmp_path / "a.csv", [{**ROW, "notes; remarks": "x"}], [*ROW, "notes; remarks"])
    assert len(load_pairs(path)) == 1
