"""Files as people save them: Excel's and pandas' CSV, JSON lists, other separators, tables in memory."""

import gzip
import json
import re
from decimal import Decimal

import pytest

from autorater.data.errors import DataError, UserError
from autorater.data.loading import LoadReport, as_pairs, iter_pairs, load_pairs

HEAD = "prompt,response_a,response_b,votes_a,votes_b"
LINES = [HEAD, "Tea?,Yes.,No.,1,4", '"Rivers, three?","Loire, Seine.",Thames.,2,3']
VOTES = [("Tea?", 1, 4), ("Rivers, three?", 2, 3)]
ROW = {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": 0.25}


def votes(path):
    return [(pair.prompt, pair.votes_a, pair.votes_b) for pair in load_pairs(path)]


def separated_by(separator):
    return "\n".join(
        [
            HEAD.replace(",", separator),
            *(f"{p}{separator}a{separator}b{separator}{a}{separator}{b}" for p, a, b in VOTES),
        ]
    )


COMMAS = "\n".join(LINES)
SAVED = {
    "byte-order mark and CRLF": ("a.csv", "\ufeff" + COMMAS.replace("\n", "\r\n")),
    "CR only": ("a.csv", COMMAS.replace("\n", "\r")),
    "CR only, a last one": ("a.csv", COMMAS.replace("\n", "\r") + "\r"),
    "semicolons": ("a.csv", "\ufeff" + separated_by(";")),
    "tabs": ("a.tsv", separated_by("\t")),
    "tabs under another name": ("a.csv", separated_by("\t")),
    "bars": ("a.csv", separated_by("|")),
    "sep= line": ("a.csv", "\ufeffsep=;\r\n" + separated_by(";")),
    "quoted sep= line": ("a.csv", '"sep=;"\n' + separated_by(";")),
    "sep= line with commas": ("a.csv", "sep=,\n" + COMMAS),
    "blanks in the header": ("a.csv", COMMAS.replace(HEAD, "prompt, response_a,response_b ,Votes_A,votes b")),
    "blanks after commas": ("a.csv", COMMAS.replace(", ", "; ").replace(",", ", ").replace("; ", ", ")),
    "trailing commas": ("a.csv", "\n".join(f"{line},," for line in LINES)),
    "blank lines": ("a.csv", "\n" + COMMAS.replace("\n", "\n\n") + "\n\n"),
}


@pytest.mark.parametrize("case", SAVED)
def test_csv_as_programs_save_it(tmp_path, case):
    name, text = SAVED[case]
    (tmp_path / name).write_bytes(text.encode())
    assert votes(tmp_path / name) == VOTES
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert votes(tmp_path / f"{name}.gz") == VOTES


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_cells_of_several_lines(tmp_path, end):
    lines = ['prompt,response_a,response_b,label,"why\nso"', '"Tea?","Yes.\nPlease.",No.,1,', "Milk?,a,b,0,"]
    (tmp_path / "a.csv").write_bytes("".join(line + end for line in lines).encode())
    assert [pair.response_a for pair in load_pairs(tmp_path / "a.csv")] == ["Yes.\nPlease.", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'prompt,response_a,response_b,label,x"\r"\nTea?,a,b,1,\n', "line 1: not CSV .new-line character"),
        (COMMAS.encode("utf-16"), "line 1: saved as UTF-16; expected a file saved as UTF-8"),
        (COMMAS.replace("Seine", "Sèine").encode("cp1252"), r"line 3: byte 0xe8 at position 27 is not UTF-8"),
        (b"\xef\xbb\xbfsep=;\n" + separated_by(";").encode() + b";x", r"line 4: 6 fields; expected 5.*semicolons"),
        (COMMAS.replace("4", "B").encode("utf-8"), "line 2: column 'votes_b': got 'B'"),
        (COMMAS.replace("\n", "\r").replace("4", "B").encode(), "line 2: column 'votes_b': got 'B'"),
        (
            COMMAS.replace(HEAD, "prompt,answer").encode(),
            r"line 1: column 'response_a' is missing.*\['prompt', 'answer'\]",
        ),
        (COMMAS.replace("votes_b", "votes_a").encode(), "line 1: column 'votes_b' is missing"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_pairs(tmp_path / "a.csv")


def test_decimal_commas_of_labels_and_not_of_counts(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt;response_a;response_b;label\nTea?;Yes.;No.;0,25\nMilk?;Yes.;No.;1,0\nTea?;a;b;,5\n")
    assert [pair.label for pair in load_pairs(path)] == [0.25, 1.0, 0.5]
    path.write_text("prompt;response_a;response_b;votes_a;votes_b;weight\nTea?;Yes.;No.;2,0;1;1,5\n")
    (pair,) = load_pairs(path)
    assert (pair.votes_a, pair.weight) == (2, 1.5)
    for thousand in ("1,000", "1.000.000"):  # 3.000 may be a 3 with three decimals
        path.write_text(f"prompt;response_a;response_b;votes_a;votes_b\nTea?;Yes.;No.;{thousand};2\n")
        with pytest.raises(DataError, match=f"'votes_a': got '{thousand}'; expected a whole number"):
            load_pairs(path)


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
def test_json_lists_and_lines_under_either_name(tmp_path, name, indent):
    rows = [ROW, ROW | {"prompt": "Milk?", "response_b": "No, [1]."}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    for text in ("\ufeff" + json.dumps(rows, indent=indent), lines):
        content = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert [pair.prompt for pair in load_pairs(tmp_path / name)] == ["Tea?", "Milk?"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps([ROW, ROW | {"label": 2}], indent=1), "line 8: column 'label': got 2"),
        (json.dumps([ROW, 3]), r"line 1: column '\(all\)': got 3; expected a JSON object"),
        (json.dumps([ROW])[:-1], "line 1: not usable JSON .no comma or"),
        (
            json.dumps([ROW] * 9)[:-1] + ", {,",
            "line 1: not usable JSON .* at character 2.; expected a list of JSON objects",
        ),
        ("[\n{,", "line 2: not usable JSON .*expected a list of JSON objects"),
        ('{\n"prompt": "x"}', "line 1: not usable JSON .*one JSON object per line, or one list"),
    ],
)
def test_bad_json_lists(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message):
        load_pairs(tmp_path / "a.json")


def test_tables_in_memory():
    datasets, pd = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    rows = [ROW | {"id": "x"}, ROW | {"id": "y", "prompt": [{"role": "user", "content": "Milk?"}]}]
    expected = load_pairs(rows)
    assert load_pairs(tuple(rows)) == list(iter_pairs(rows)) == expected
    assert load_pairs(pd.DataFrame(rows)) == expected
    assert load_pairs(datasets.Dataset.from_list([rows[0]])) == expected[:1]
    both = datasets.DatasetDict({"test": datasets.Dataset.from_list([rows[0]])})
    assert load_pairs(both, split="test") == expected[:1]
    with pytest.raises(DataError, match="no split 'train'; expected one of test"):
        load_pairs(both)
    for wrong in (3, {"prompt": ["x"]}, [1], "x".join):
        with pytest.raises(DataError, match="cannot be read as rows; expected a path, a Hub name"):
            load_pairs(wrong)


def test_a_stream_without_features_has_the_columns_of_its_rows():
    datasets = pytest.importorskip("datasets")
    rows = [ROW, {"topic": "x", **ROW, "prompt": "Milk?"}, {**TEXTS, "votes_a": 1}]
    stream = datasets.IterableDataset.from_generator(lambda: iter(rows[:2]))
    assert load_pairs(stream) == load_pairs(rows[:2])
    with pytest.raises(DataError, match=r"row 2 .counted from 0.: column 'votes_b'"):
        load_pairs(datasets.IterableDataset.from_generator(lambda: iter(rows)))
    with pytest.raises(DataError, match="no rows"):
        load_pairs(datasets.IterableDataset.from_generator(lambda: iter(())))


def test_pandas_nulls_and_whole_floats(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {
            "id": [0.0, 1.0], "topic": [3.0, None], "prompt": ["Tea?", "Milk?"], "response_a": ["a", "b"],
            "response_b": ["c", "d"], "votes_a": [1.0, 2.0], "votes_b": [2, 0], "votes_tie": [float("nan"), 1.0],
            "model_a": pd.array(["m", pd.NA], dtype="string"),
        }
    )  # fmt: skip
    pairs = load_pairs(frame)
    assert [(p.id, p.topic, p.votes_a, p.votes_b, p.votes_tie, p.model_a) for p in pairs] == [
        ("0", "3", 1, 2, 0, "m"), ("1", None, 2, 0, 1, None),
    ]  # fmt: skip
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in frame.astype(object).to_dict("records")[:1])
    )
    assert load_pairs(tmp_path / "a.csv") == load_pairs(tmp_path / "a.parquet") == pairs
    assert "NaN" in (tmp_path / "a.jsonl").read_text()
    assert load_pairs(tmp_path / "a.jsonl") == pairs[:1]


def test_columns_are_named_by_the_caller(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("instruction,first,second,share,kind\nTea?,Yes.,No.,0.25,drinks\n")
    names = {"prompt": "instruction", "response_a": "first", "response_b": "second", "label": "share", "topic": "kind"}
    (pair,) = load_pairs(path, names)
    assert (pair.prompt, pair.label, pair.topic) == ("Tea?", 0.25, "drinks")
    with pytest.raises(
        DataError, match=r"line 1: columns: no column 'question' to read as prompt; expected one of \['instruction'"
    ):
        load_pairs(path, names | {"prompt": "question"})
    path.write_text("prompt,respnse_a,response_b,label\nTea?,Yes.,No.,0.25\n")
    with pytest.raises(DataError, match=r"'response_a': 'respnse_a'. .* OUT\.jsonl --columns response_a=respnse_a,"):
        load_pairs(path)
    with pytest.raises(UserError, match="unknown name 'question' of ours; expected one of id, prompt"):
        load_pairs(path, {"question": "instruction"})
    path.write_text("instruction,first,second,share\nTea?,Yes.,No.,2\n")
    del names["topic"]
    with pytest.raises(DataError, match="line 2: column 'share': got '2'"):
        load_pairs(path, names)


def test_criteria_reference_and_group():
    (pair,) = load_pairs([ROW | {"criteria": "Brevity.", "reference": "Yes!", "group": "experts", "rubric": "x"}])
    assert (pair.criteria, pair.reference, pair.group) == ("Brevity.", "Yes!", "experts")


def test_pairs_without_labels_are_read_on_request(tmp_path):
    row = {name: value for name, value in ROW.items() if name != "label"}
    with pytest.raises(
        DataError,
        match=r"'label' is missing.*labelled=False, or --unlabelled of autorater conv",
    ):
        load_pairs([row])
    assert [pair.label for pair in load_pairs([row], labelled=False)] == [None]
    labels = [pair.label for pair in load_pairs([ROW, ROW | {"label": None, "prompt": "Q"}], labelled=False)]
    assert labels == [0.25, None]
    (tmp_path / "a.csv").write_text("prompt,response_a,response_b\nTea?,Yes.,No.\n")
    assert load_pairs(tmp_path / "a.csv", labelled=False)[0].label is None
    assert next(iter_pairs([row], labelled=False)).swapped().label is None


def test_columns_in_another_case_and_names_as_floats(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("prompt,response_a,response_b,votes_a,votes_b,Votes_Tie,Item\nTea?,Yes.,No.,1,0,1,3.0\n,,,,,,\n")
    report = LoadReport()
    (pair,) = load_pairs(path, {"id": "Item"}, report=report)
    assert (pair.id, pair.label) == ("3", 0.25)
    assert dict(report.left_out) == {"the row is blank": 1}
    path.write_text("prompt,response_a,response_b,votes_a,votes_b,votes_tie\nTea?,Yes.,No.,1,0,NULL\n")
    assert load_pairs(path)[0].label == 0


@pytest.mark.parametrize(
    "name",
    ["Ties", "Votes Both", "draws", "votes_bothbad", "votes_draws", "n_ties", "Tie Count", "neither_votes", "neutral"],
)
def test_counts_of_ties_under_another_name_are_an_error(tmp_path, name):
    path = tmp_path / "a.csv"
    path.write_text(f"prompt,response_a,response_b,Votes A,Votes B,{name}\nTea?,Yes.,No.,1,2,3\n")
    with pytest.raises(DataError, match=f"line 1: column '{name}' is beside votes_a and is not read"):
        load_pairs(path)
    (pair,) = load_pairs(path, {"votes_tie": name})
    assert (pair.n_votes, pair.label) == (6, 3.5 / 6)
    assert load_pairs(path, {"votes_tie": name, "topic": name})[0].topic == "3"
    assert load_pairs(path, {"topic": name})[0].n_votes == 3
    path.write_text(f"prompt,response_a,response_b,votes_a,votes_b,votes_tie,{name}\nTea?,Yes.,No.,1,2,0,3\n")
    with pytest.raises(DataError, match=f"column '{name}' .* expected it to be added to votes_tie, or another name"):
        load_pairs(path)


def test_columns_of_a_layout_in_another_case(tmp_path):
    path, report = tmp_path / "a.csv", LoadReport()
    path.write_text("Prompt,Chosen,Rejected,Chosen Score,Rejected Score,Images\nTea?,Yes.,No.,1,1,x\n")
    (pair,) = load_pairs(path, report=report)
    assert (pair.prompt, {pair.response_a, pair.response_b}, pair.label) == ("Tea?", {"Yes.", "No."}, 0.5)
    assert (report.layout, report.unread) == ("preference", ["Images"])
    path.write_text("Prompt,Chosen,Rejected\nTea?,,No.\n")
    with pytest.raises(DataError, match="line 2: column 'Chosen': got ''"):
        load_pairs(path)
    path.write_text("Question,Response 1,Response 2,Winner\nTea?,Yes.,No.,A\n")
    expected = (
        r"'prompt' is missing.*columns={'prompt': 'Question', 'response_a': 'Response 1', 'response_b': 'Response 2'}"
        r".*among \['Question', 'Response 1', 'Response 2', 'Winner'\]"
    )
    with pytest.raises(DataError, match=expected):
        load_pairs(path)


def test_the_columns_to_name_for_chosen_and_rejected_in_pairs_to_judge():
    rows = [{"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}]
    named = {"response_a": "chosen", "response_b": "rejected"}
    with pytest.raises(DataError, match=re.escape(f"columns={named} to name it")):
        as_pairs(rows)
    (pair,) = load_pairs(rows, labelled=False, columns=named)
    assert (pair.response_a, pair.response_b) == ("Yes.", "No.")


def test_empty_counts_are_no_vote_and_half_empty_ones_an_error(tmp_path):
    path, columns = tmp_path / "a.csv", {"votes_a": "left", "votes_b": "right"}
    path.write_text("prompt,response_a,response_b,left,right\nTea?,Yes.,No.,,\nTea?,No.,Well.,1,0\n")
    report = LoadReport()
    (pair,) = load_pairs(path, columns, report=report)
    assert (pair.response_a, dict(report.left_out)) == ("No.", {"left and right are null": 1})
    assert [pair.label for pair in load_pairs(path, columns, labelled=False)] == [None, 0]
    for votes, message in (
        (",3", "line 2: column 'left': got ''; expected a whole number of votes, 0 or more"),
        ("0,0", "line 2: column 'left': got '0'; expected at least one vote in it or in another count"),
    ):
        path.write_text(f"prompt,response_a,response_b,left,right\nTea?,Yes.,No.,{votes}\n")
        with pytest.raises(DataError, match=message):
            load_pairs(path, columns)


def test_numbers_of_numpy():
    np = pytest.importorskip("numpy")
    (pair,) = load_pairs([ROW | {"label": None, "votes_a": np.int64(2), "votes_b": np.float32(1)}])
    assert (pair.votes_a, pair.votes_b) == (2, 1)


@pytest.mark.parametrize("kind", ["float32", "float16", "Float32", "float[pyarrow]"])
def test_short_floats_are_their_decimals(tmp_path, kind):
    datasets, pd = pytest.importorskip("datasets"), pytest.importorskip("pandas")
    labels = [0.3, 0.7, None]
    frame = pd.DataFrame([ROW | {"id": i} for i in range(3)])
    frame["label"] = pd.Series(labels, dtype=kind)
    frame.to_parquet(tmp_path / "a.parquet")
    for source in (frame, tmp_path / "a.parquet", datasets.Dataset.from_pandas(frame)):
        assert [pair.label for pair in iter_pairs(source, labelled=False)] == labels
    assert load_pairs([ROW | {"label": pytest.importorskip("numpy").float32(0.3)}])[0].label == 0.3


def test_class_labels_are_their_names(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = [ROW | {"id": str(i), "label": None, "winner": i} for i in (1, 2, -1)]
    features = datasets.Features(
        {name: datasets.Value("string") for name in ("id", "prompt", "response_a", "response_b")}
        | {"label": datasets.Value("float64"), "winner": datasets.ClassLabel(names=["model_a", "model_b", "tie"])}
    )
    table = datasets.Dataset.from_list(rows, features=features)
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(tmp_path / "a")
    stream = table.to_iterable_dataset()
    streams = (stream, stream.filter(bool), stream.shuffle(seed=1), stream.rename_column("label", "kind"))
    for source in (table, *streams, tmp_path / "a.parquet", tmp_path / "a"):
        assert [pair.label for pair in iter_pairs(source)] == [1, 0.5]
    table = table.rename_columns({"label": "kind", "winner": "label"})
    with pytest.raises(DataError, match="'label': got 'model_b'; expected a number"):
        load_pairs(table)
    assert [pair.label for pair in iter_pairs(table, {"vote": "label"})] == [1, 0.5]


CSV = "prompt,response_a,response_b,label\nTea?,Yes.,No.,1\n"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.csv.gz"])
def test_gzip_is_read_under_any_name(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(CSV.encode()))
    assert [pair.label for pair in load_pairs(tmp_path / name)] == [1]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.xlsx", "a.parquet", "a.csv.zip"])
@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"PK\x03\x04\x14\0", "a zip file"),
        (b"BZh91AY&SY", "packed by bzip2"),
        (b"\x28\xb5\x2f\xfd\x04", "packed by Zstandard"),
        (b"\xfd7zXZ\0\0", "packed by xz"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: this is {what}"):
        load_pairs(tmp_path / name)


def test_parquet_and_json_under_the_name_of_csv_are_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"PAR1\x15\x04")
    with pytest.raises(DataError, match=r"a Parquet file; expected a name that ends in \.parquet"):
        load_pairs(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text('{"prompt": "Tea?", "label": 1}\n')
    with pytest.raises(DataError, match="line 1: begins like JSON"):
        load_pairs(tmp_path / "a.csv")


ROWS = [{"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": label} for label in (0, 1)]


@pytest.mark.parametrize(
    "table",
    [
        {"data": ROWS, "version": 1},
        {name: {"0": value, "1": value} for name, value in ROWS[0].items()},
        {name: [value, value] for name, value in ROWS[0].items()},
        {"0": ROWS[0], "1": ROWS[1]},
        {"columns": list(ROWS[0]), "data": [list(row.values()) for row in ROWS]},
    ],
)
def test_a_table_in_one_json_object_is_named(tmp_path, table):
    (tmp_path / "a.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=r"line 1: one JSON object with .* for the whole file.*orient='records'"):
        load_pairs(tmp_path / "a.json")


def test_a_file_of_one_row_is_no_table(tmp_path):
    asked, answers = [{"role": "user", "content": "Tea?"}], [[{"role": "assistant", "content": x}] for x in "ab"]
    row = {"chosen": asked + answers[0], "rejected": asked + answers[1]}
    for name in ("a.json", "a.ndjson"):
        (tmp_path / name).write_text(json.dumps(row) + "\n\n")
        assert len(load_pairs(tmp_path / name)) == 1


def test_a_quote_that_takes_in_rows_is_named(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('prompt\tresponse_a\tresponse_b\tlabel\nQ\t"Yes he is\tb\t1\nR\tx"\ty\t0\n')
    with pytest.raises(DataError, match=r"line 2: column 'response_a': .*whole rows"):
        load_pairs(path)
    path.write_text(
        'prompt\tresponse_a\tresponse_b\tlabel\ttopic\nQ\t"Yes, it is\tb\t1\t\nR\tabout 5"\ty\t0\t\nS\tx\ty\t1\t\n'
    )
    with pytest.raises(DataError, match=r"line 2: column 'response_a': .*whole rows"):
        load_pairs(path)
    path.write_text('prompt\tresponse_a\tresponse_b\tlabel\nQ\t"one\ttab\nand a line"\tb\t1\n')
    assert load_pairs(path)[0].response_a == "one\ttab\nand a line"
    for separator, text in (
        ("\t", "def f():\n\t\t\treturn 1"),
        (";", "int a; int b;\nreturn a;"),
        ("|", "| a |\nb |"),
    ):
        cells = ("Q", f'"{text}"', "b", "1")
        header = ("prompt", "response_a", "response_b", "label")
        path.write_text("\n".join(map(separator.join, (header, cells))) + "\n")
        assert load_pairs(path)[0].response_a == text


def test_nulls_of_databases_are_no_texts(tmp_path):
    (tmp_path / "a.csv").write_text(CSV.replace("Yes.", r"\N"))
    with pytest.raises(DataError, match="line 2: column 'response_a': got None"):
        load_pairs(tmp_path / "a.csv")


def test_nulls_of_r_are_no_names_and_no_votes(tmp_path):
    names = ("id", "topic", "group", "model_a", "model_b", "criteria", "reference")
    columns = ["prompt", "response_a", "response_b", "annotator", "vote", *names]
    rows = [["Tea?", "NA", "No.", "NA", vote, *(["NA"] * len(names))] for vote in ("A", "A", "NA")]
    (tmp_path / "a.csv").write_text("\n".join(",".join(row) for row in [columns, *rows]))
    report = LoadReport()
    (pair,) = load_pairs(tmp_path / "a.csv", report=report)
    assert (pair.response_a, pair.votes_a, dict(report.left_out)) == ("NA", 2, {"vote is 'NA'": 1})
    assert (pair.id, {getattr(pair, name) for name in names[1:]}) == ("0", {None})


def test_names_with_a_decimal_comma(tmp_path):
    (tmp_path / "a.csv").write_text("id;topic;prompt;response_a;response_b;label\n1,0;-2,0;Q;a;b;0,5\n")
    (pair,) = load_pairs(tmp_path / "a.csv")
    assert (pair.id, pair.topic, pair.label) == ("1", "-2", 0.5)


TEXTS = {name: ROWS[0][name] for name in ("prompt", "response_a", "response_b")}


def test_decimals_are_numbers():
    (pair,) = load_pairs([TEXTS | {"id": Decimal(7), "votes_a": Decimal("1"), "votes_b": Decimal("3.0")}])
    assert (pair.id, pair.label, pair.n_votes) == ("7", 0.75, 4)
    (pair,) = load_pairs([TEXTS | {"label": Decimal("0.25"), "topic": Decimal("NaN")}])
    assert (pair.label, pair.topic) == (0.25, None)
    with pytest.raises(DataError, match="'votes_a': got Decimal"):
        load_pairs([TEXTS | {"votes_a": Decimal("0.5"), "votes_b": Decimal(1)}])


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ({"label": "B"}, "columns={'vote': 'label'} reads words"),
        ({"votes_a": 0.4, "votes_b": 0.6}, "a share of votes for B belongs into the column label"),
        ({"votes_a": "40%", "votes_b": "60%"}, "a share of votes for B belongs into the column label"),
    ],
)
def test_verdicts_in_the_wrong_column_are_told_the_right_one(given, way):
    with pytest.raises(DataError, match=way):
        load_pairs([TEXTS | given])


def test_a_vote_may_name_a_model():
    row = {**TEXTS, "model_a": "gpt-4", "model_b": "llama-3"}
    winners = [load_pairs([row | {"winner": name}])[0].label for name in ("gpt-4", "llama-3", "tie")]
    assert winners == [0, 1, 0.5]
    with pytest.raises(DataError, match="got 'mistral'"):
        load_pairs([row | {"winner": "mistral"}])
    with pytest.raises(DataError, match="the name of model B and may mean the other one"):
        load_pairs([row | {"model_a": "2", "model_b": "1", "winner": "1"}])
    with pytest.raises(DataError, match=r"got '\+1'"):
        load_pairs([row | {"winner": "+1"}])


def test_errors_of_excel_are_no_texts(tmp_path):
    (tmp_path / "a.csv").write_text(CSV.replace("No.", "#NAME?"))
    with pytest.raises(DataError, match=r"line 2: column 'response_b': got '#NAME\?'; expected the text; Excel"):
        load_pairs(tmp_path / "a.csv")
    assert load_pairs([ROWS[0] | {"response_a": "#NAME?"}])[0].response_a == "#NAME?"
    for error in ("#¿NOMBRE?", "#DEEL/0!", "#N/D", "#NV", "#SPILL!", "#ИМЯ?", "#BAŞV!"):
        (tmp_path / "a.csv").write_text(CSV.replace("No.", error))
        with pytest.raises(DataError, match=re.escape(f"got {error!r}; expected the text; Excel")):
            load_pairs(tmp_path / "a.csv")
    for text in ("#NVIDIA", "#thanks!", "# NO?", "#A/B test"):
        (tmp_path / "a.csv").write_text(CSV.replace("No.", text))
        assert text in {load_pairs(tmp_path / "a.csv")[0].response_a, load_pairs(tmp_path / "a.csv")[0].response_b}


def test_a_boolean_is_no_label(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,response_a,response_b,label\nTea?,Yes.,No.,TRUE\n")
    with pytest.raises(DataError, match=r"got 'TRUE'; expected a number in \[0, 1\], or null; 1 where B is preferred"):
        load_pairs(tmp_path / "a.csv")


@pytest.mark.parametrize("column", ["images", "tools", "image"])
def test_columns_that_are_not_text_are_reported(column):
    report = LoadReport()
    load_pairs([ROWS[0] | {column: ["x"]}], report=report)
    assert report.lines(1) == [f"column '{column}' is not read; a judge sees the texts alone"]


def test_a_column_that_is_there_twice_is_an_error_in_every_layout(tmp_path):
    pd = pytest.importorskip("pandas")
    header, row = ["prompt", "chosen", "rejected", "chosen"], ["Tea?", "Yes.", "No.", "Maybe."]
    (tmp_path / "a.csv").write_text("\n".join(map(",".join, (header, row))))
    for source in (tmp_path / "a.csv", pd.DataFrame([row], columns=header)):
        with pytest.raises(DataError, match="column 'chosen' is there 2 times; expected it once"):
            load_pairs(source)
