"""Errors of a disk, as the libraries that write weights and tokenizers raise them."""

import errno
import os
import resource

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from autorater.data.errors import disk_problem


@pytest.fixture
def small_files():
    """Files of at most 20 kB, as on a full disk."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


WEIGHTS = {"weight": torch.zeros(50_000)}
WORDS = {str(number): number for number in range(20_000)}
WRITES = {
    "bytes": lambda path: path.write_bytes(bytes(50_000)),
    "safetensors": lambda path: save_file(WEIGHTS, path),
    "torch": lambda path: torch.save(WEIGHTS, path),
    "tokenizers": lambda path: Tokenizer(models.WordLevel(WORDS, unk_token="0")).save(str(path)),
}


@pytest.mark.parametrize("library", WRITES)
def test_a_full_disk_is_found_in_the_errors_of_libraries(tmp_path, small_files, library):
    with pytest.raises(Exception) as raised:
        WRITES[library](tmp_path / "file")
    expected = "unexpected pos" if library == "torch" else os.strerror(errno.EFBIG)
    assert expected in disk_problem(raised.value)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (Exception("No space left on device (os error 28)"), "No space left on device"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "PytorchStreamWriter"),
        (RuntimeError("basic_ios::clear: iostream error"), "iostream error"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.json"), "x.json: No such file or directory"),
        (Exception("a bug (os error 2)"), None),
        (ValueError("unexpected pos of a token"), None),
        (RuntimeError("CUDA out of memory"), None),
    ],
)
def test_other_errors_are_none_of_a_disk(error, problem):
    found = disk_problem(error)
    assert found is None if problem is None else problem in found
