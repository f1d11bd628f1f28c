import json

import pytest

from autorater.audit.store import Journal
from autorater.data.errors import DataError


def slot_of(record):
    if not 0 <= record["slot"] < 9:
        raise ValueError("no such slot")
    return record["slot"]


@pytest.fixture
def open_journal(tmp_path):
    opened = []

    def open_():
        opened.append(Journal(tmp_path, 9, slot_of, {"judge": "m"}))
        return opened[-1]

    yield open_
    for journal in opened:
        journal.close()


def fill(journal, *slots):
    for slot in slots:
        journal.append(slot, {"slot": slot, "text": f"said ☃ {slot}"})


def test_what_is_written_is_there_at_once_and_found_again(open_journal, tmp_path):
    journal = open_journal()
    fill(journal, 4, 1)
    assert (tmp_path / "judgments.jsonl").read_text().count("\n") == 2
    assert 4 in journal
    assert 2 not in journal
    assert journal[1]["text"] == "said ☃ 1"
    with pytest.raises(KeyError):
        journal[2]
    with pytest.raises(ValueError, match="answered already"):
        fill(journal, 4)


@pytest.mark.parametrize("n_cut", range(1, 36, 6))
def test_a_torn_last_line_is_dropped(tmp_path, n_cut):
    journal = Journal(tmp_path, 9, slot_of, {})
    fill(journal, 3, 1)
    journal.close()
    path = tmp_path / "judgments.jsonl"
    path.write_bytes(path.read_bytes()[:-n_cut])
    again = Journal(tmp_path, 9, slot_of, {})
    assert again.torn
    assert (3 in again, 1 in again, again.n_kept) == (True, False, 1)
    fill(again, 1)
    again.close()
    assert [json.loads(line)["slot"] for line in path.read_text().splitlines()] == [3, 1]


def test_order_of_arrival_leaves_no_trace(tmp_path):
    contents = []
    for name, order in (("a", (0, 1, 2, 3)), ("b", (3, 1, 0, 2))):
        (tmp_path / name).mkdir()
        journal = Journal(tmp_path / name, 9, slot_of, {})
        fill(journal, *order)
        journal.sort()
        assert journal[2]["slot"] == 2
        fill(journal, 8)
        journal.close()
        contents.append((tmp_path / name / "judgments.jsonl").read_bytes())
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["judgments.jsonl", "settings.json"]
    assert contents[0] == contents[1]


def test_records_can_be_forgotten(tmp_path):
    first = Journal(tmp_path, 9, slot_of, {})
    fill(first, 0, 1, 2)
    first.close()
    again = Journal(tmp_path, 9, slot_of, {}, lambda record: record["slot"] == 1)
    assert (len(again), 1 in again, 2 in again) == (2, False, True)
    assert [record["slot"] for record in again.records()] == [0, 2]
    again.close()


@pytest.mark.parametrize("line", ["nonsense", '{"slot": 99}', "[]", '{"other": 1}', '{"slot": 0}'])
def test_a_damaged_line_inside_is_an_error(tmp_path, line):
    (tmp_path / "settings.json").write_text("{}")
    (tmp_path / "judgments.jsonl").write_text(f'{{"slot": 0}}\n{line}\n{{"slot": 5}}\n')
    with pytest.raises(DataError, match="line 2: not a judgment of this run"):
        Journal(tmp_path, 9, slot_of, {})


def test_two_runs_do_not_write_at_once(open_journal):
    open_journal()
    with pytest.raises(ValueError, match="being written by another run"):
        open_journal()


def test_other_settings_are_refused(tmp_path):
    journal = Journal(tmp_path, 9, slot_of, {"judge": "m", "temperature": 0})
    fill(journal, 0)
    journal.close()
    with pytest.raises(ValueError, match="made with temperature = 0, and now it is 1"):
        Journal(tmp_path, 9, slot_of, {"judge": "m", "temperature": 1})
    (tmp_path / "settings.json").unlink()
    with pytest.raises(ValueError, match=r"no readable settings\.json"):
        Journal(tmp_path, 9, slot_of, {"judge": "m", "temperature": 0})
