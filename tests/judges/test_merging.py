"""A merge that fails; those that succeed are in tests/recipes/test_adapters.py."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from autorater.data.errors import UserError
from autorater.judges.merging import merge_adapter


def test_a_full_disk_leaves_no_part_of_a_model(tmp_path, monkeypatch):
    """What is left would have to be removed before the same command is accepted again."""

    def save_pretrained(folder):
        Path(folder).mkdir()
        Path(folder, "config.json").touch()
        raise Exception("No space left on device (os error 28)")  # as tokenizers does

    model = SimpleNamespace(merge_and_unload=lambda: SimpleNamespace(save_pretrained=save_pretrained))
    monkeypatch.setattr("autorater.models.loading.load_policy", lambda *_, **__: (model, None))
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "base"}')
    with pytest.raises(UserError, match=r"merged cannot be written \(No space left on device\)"):
        merge_adapter(str(tmp_path), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
