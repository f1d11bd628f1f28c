import errno
import json
import logging
import os

import pytest

from autorater.data.errors import DataError, UserError
from autorater.evaluation.judgment_store import JudgmentStore


def number_of(record):
    if not 0 <= record["number"] < 9:
        raise ValueError("no such request")
    return record["number"]


def open_at(folder, settings=None, **options):
    return JudgmentStore(folder, 9, number_of, settings or {}, **options)


def fill(store, *numbers):
    for number in numbers:
        store.append(number, {"number": number, "text": f"answer ☃ {number}"})


@pytest.fixture
def open_store(tmp_path):
    opened = []

    def open_():
        opened.append(open_at(tmp_path))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


def test_a_record_is_on_disk_when_append_returns(open_store, tmp_path):
    store = open_store()
    fill(store, 4, 1)
    assert (tmp_path / "judgments.jsonl").read_text().count("\n") == 2
    assert (4 in store, 2 in store, len(store)) == (True, False, 2)
    assert store[1]["text"] == "answer ☃ 1"
    with pytest.raises(KeyError):
        store[2]
    with pytest.raises(ValueError, match="has a judgment already"):
        fill(store, 4)


@pytest.mark.parametrize("n_cut", range(1, 36, 6))
def test_a_truncated_last_line_is_dropped(tmp_path, n_cut, caplog):
    store = open_at(tmp_path)
    fill(store, 3, 1)
    store.close()
    path = tmp_path / "judgments.jsonl"
    path.write_bytes(path.read_bytes()[:-n_cut])
    with caplog.at_level(logging.INFO):
        again = open_at(tmp_path)
    assert "the last line of judgments.jsonl was truncated" in caplog.text
    assert (3 in again, 1 in again, len(again)) == (True, False, 1)
    fill(again, 1)
    again.close()
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == [3, 1]


def test_the_final_file_does_not_depend_on_the_order_of_arrival(tmp_path):
    contents = []
    for name, order in (("a", (0, 1, 2, 3)), ("b", (3, 1, 0, 2))):
        (tmp_path / name).mkdir()
        store = open_at(tmp_path / name)
        fill(store, *order)
        store.sort()
        assert store[2]["number"] == 2
        fill(store, 8)
        assert store[8]["number"] == 8
        store.close()
        contents.append((tmp_path / name / "judgments.jsonl").read_bytes())
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["judgments.jsonl", "settings.json"]
    assert contents[0] == contents[1]


def test_records_can_be_dropped(tmp_path):
    first = open_at(tmp_path)
    fill(first, 0, 1, 2)
    first.close()
    again = open_at(tmp_path, is_refused=lambda record: record["number"] == 1, drop_refused=True)
    assert (len(again), 1 in again, 2 in again) == (2, False, True)
    assert [record["number"] for record in again.records()] == [0, 2]
    fill(again, 1)
    again.sort()
    assert [record["number"] for record in again.records()] == [0, 1, 2]
    again.close()


def test_a_folder_with_refusals_only_takes_new_settings(tmp_path):
    first = open_at(tmp_path, {"temperature": 0}, is_refused=lambda record: record["number"] < 2)
    fill(first, 0, 1)
    first.close()
    with pytest.raises(UserError, match="temperature"):
        open_at(tmp_path, {"temperature": 1}, is_refused=lambda record: record["number"] < 1)
    again = open_at(tmp_path, {"temperature": 1}, is_refused=lambda record: record["number"] < 2)
    assert len(again) == 0
    again.close()
    assert json.loads((tmp_path / "settings.json").read_text()) == {"temperature": 1}


@pytest.mark.parametrize("line", ["nonsense", '{"number": 99}', "[]", '{"other": 1}', '{"number": 0}'])
def test_a_damaged_line_inside_is_an_error(tmp_path, line):
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "judgments.jsonl").write_text(f'{{"number": 0}}\n{line}\n{{"number": 5}}\n')
    with pytest.raises(DataError, match="line 2: not a judgment of this run"):
        open_at(tmp_path)


def test_a_full_disk_is_an_error_of_the_user(open_store, monkeypatch):
    store = open_store()
    fill(store, 0)

    def full(file, line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left"):
        fill(store, 1)
    assert 1 not in store


def test_two_runs_do_not_write_at_once(open_store):
    store = open_store()
    with pytest.raises(UserError, match="in use by another run"):
        open_store()
    fill(store, 1, 0)
    store.sort()  # replaces the file
    with pytest.raises(UserError, match="in use by another run"):
        open_store()


def test_other_settings_are_refused(tmp_path):
    store = open_at(tmp_path, {"judge": "m", "temperature": 0})
    fill(store, 0)
    store.close()
    with pytest.raises(UserError, match="made with temperature = 0, but now it is 1"):
        open_at(tmp_path, {"judge": "m", "temperature": 1})
    (tmp_path / "settings.json").unlink()
    with pytest.raises(UserError, match=r"settings\.json cannot be read"):
        open_at(tmp_path, {"judge": "m", "temperature": 0})
