import os
import re
from types import SimpleNamespace

import numpy as np
import pytest

from autorater.data.population import simulate_pairs
from autorater.evaluation.stored_judgments import judge_in_parts
from autorater.judges.identity import file_digests, model_digest
from autorater.judges.judgments import Judgments
from tests.conftest import full_disk


class Counting:
    """A judge that remembers how many pairs it was given, and fails after some."""

    def __init__(self, n_before_failure=10**9):
        self.n, self.left = 0, n_before_failure

    def probabilities(self, pairs, *, progress=False):
        self.left -= len(pairs)
        if self.left < 0:
            raise KeyboardInterrupt
        self.n += len(pairs)
        mean = np.array([[len(pair.response_a) % 7, len(pair.response_b) % 7] for pair in pairs]) / 10
        return Judgments(mean, mean, np.zeros_like(mean), np.ones_like(mean))


def test_a_stopped_evaluation_resumes(tmp_path):
    pairs = simulate_pairs(20, seed=0).pairs
    with pytest.raises(KeyboardInterrupt):
        judge_in_parts(Counting(17), pairs, tmp_path, "model", size=8)
    again = Counting()
    judgments = judge_in_parts(again, pairs, tmp_path, "model", size=3)
    assert again.n == 4, "the first two parts are stored, also if new ones are smaller"
    np.testing.assert_array_equal(judgments.mean, Counting().probabilities(pairs).mean)
    assert judgments.greedy is None
    for other_pairs, model in ((pairs, "another model"), (pairs[::-1], "model")):
        fresh = Counting()
        judge_in_parts(fresh, other_pairs, tmp_path, model)
        assert fresh.n == 20, "nothing stale is used"


@pytest.mark.parametrize("damage", [b"", b"PK", b"no zip"])
def test_a_damaged_part_is_judged_again(tmp_path, caplog, damage):
    pairs = simulate_pairs(20, seed=0).pairs
    expected = judge_in_parts(Counting(), pairs, tmp_path, "model", size=8)
    (path,) = tmp_path.glob("*/8.npz")
    path.write_bytes(damage)
    again = Counting()
    np.testing.assert_array_equal(judge_in_parts(again, pairs, tmp_path, "model", size=8).mean, expected.mean)
    assert again.n == 8
    (message,) = caplog.messages
    assert re.fullmatch(r".*8\.npz cannot be read \(.+\); its pairs are judged again", message)
    judge_in_parts(again, pairs, tmp_path, "model", size=8)
    assert again.n == 8, "it is stored"


def test_judgments_are_on_the_disk_before_they_replace_others(tmp_path, monkeypatch):
    judgments = Judgments(*np.zeros((4, 3, 2)))
    judgments.save(tmp_path / "0.npz")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        Judgments(*np.ones((4, 3, 2))).save(tmp_path / "0.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["0.npz"]
    np.testing.assert_array_equal(Judgments.load(tmp_path / "0.npz").mean, judgments.mean)


def test_the_digest_of_a_model_changes_with_its_files(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    first = model_digest(str(tmp_path))
    assert first == model_digest(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"another")
    assert (second := model_digest(str(tmp_path))) != first
    (tmp_path / "chat_template.jinja").write_text("another layout of the same texts")
    assert model_digest(str(tmp_path)) != second
    assert model_digest("org/name") != model_digest("org/other")
    commits = [SimpleNamespace(config=SimpleNamespace(_commit_hash=name)) for name in ("0a", "0b")]
    assert len({model_digest("org/name", model) for model in commits}) == 2, "the Hub has another version"
    first = model_digest(str(tmp_path / "model.safetensors"))
    (tmp_path / "model.safetensors").write_bytes(b"a third")
    assert model_digest(str(tmp_path / "model.safetensors")) != first, "a GGUF file is a model too"


def test_the_files_that_settings_name_have_digests(tmp_path):
    (tmp_path / "elo.csv").write_text("one")
    settings = {"elo_table": str(tmp_path / "elo.csv"), "model": str(tmp_path), "system_prompt": "x" * 5000, "seed": 1}
    first = file_digests(settings)
    assert list(first) == ["elo_table"]
    (tmp_path / "elo.csv").write_text("two")
    assert file_digests(settings) != first
