"""Files that are written in one step."""

import errno
import json
import os
import re

import pytest

from autorater.data.atomic import check_writable, open_atomic, read_json, write_json
from autorater.data.errors import UserError
from tests.conftest import ROOT, full_disk


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text("old")
    with open_atomic(path) as file:
        file.write("näw")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text(encoding="utf-8") == "näw"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_and_no_temporary_one(tmp_path, monkeypatch):
    for path in (tmp_path / "nowhere" / "run.json", tmp_path / f"{'a' * 300}.json"):
        with pytest.raises(OSError) as raised:
            write_json(path, {})
        assert raised.value.filename == str(path)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError) as raised:
        write_json(tmp_path / "run.json", {})
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "run.json"))


def test_whether_a_file_can_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "old").write_text("old")
    os.mkfifo(tmp_path / "pipe")  # opened, it would wait for its reader
    for name in ("old", "new", "pipe"):
        check_writable(tmp_path / name)
    assert (tmp_path / "old").read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"old", "pipe"}
    for path, number in ((tmp_path, errno.EISDIR), (tmp_path / "nowhere" / "a", errno.ENOENT)):
        with pytest.raises(OSError) as raised:
            check_writable(path)
        assert (raised.value.errno, raised.value.filename) == (number, str(path))


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("天" * 83 + ".json")
    write_json(path, {"a": 1})
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch, failing):
    write_json(tmp_path / "run.json", {"a": 1})
    monkeypatch.setattr(os, failing, full_disk)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "run.json", {"a": 2})
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [tmp_path / "run.json"]


def test_an_interrupted_write_leaves_the_old_content(tmp_path):
    (tmp_path / "weights").write_bytes(b"old")

    def interrupted():
        with open_atomic(tmp_path / "weights", "wb") as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"weights": b"old"}


def test_links_modes_and_devices_stay(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    write_json(link, {"a": 1})
    assert link.is_symlink()
    assert json.loads(real.read_text()) == {"a": 1}
    assert real.stat().st_mode & 0o777 == 0o600
    write_json("/dev/null", {"a": 1})
    assert not os.path.isfile("/dev/null")


def test_what_holds_no_json_object_is_named(tmp_path):
    path = tmp_path / "a.json"
    for content, reason in ((None, "No such file"), ("{", "Expecting"), (b"\xff", "decode"), ("[3]", r"it is \[3\]")):
        if content is not None:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(UserError, match=rf"a\.json cannot be read \(.*{reason}.*\); expected a JSON object$"):
            read_json(path)
    write_json(path, {"a": "é"})
    assert read_json(path) == {"a": "é"}


def test_the_package_writes_every_other_file_in_one_step():
    written = re.compile(r"\.write_(text|bytes)\(|open\([^()]*\"wb?\"")
    modules = [
        path for folder in ("autorater", "recipes", "benchmarks/study") for path in (ROOT / folder).rglob("*.py")
    ]
    lines = [(path.name, line.strip()) for path in modules for line in path.read_text(encoding="utf-8").splitlines()]
    assert {name for name, line in lines if written.search(line)} == {
        "label_studio.py",  # an example
        "results.py",  # the attempt to write into a folder
        "runner.py",  # /dev/null, and a traceback
    }
