"""Known noise of the libraries is hidden, and no other warning."""

import warnings

import pytest

from autorater.models.libraries import quiet_libraries


@pytest.fixture
def shown(monkeypatch):
    """Messages of the warnings that are shown after `quiet_libraries`."""
    for name in ("TRANSFORMERS_VERBOSITY", "TRL_EXPERIMENTAL_SILENCE", "TOKENIZERS_PARALLELISM", "DS_LOG_LEVEL"):
        monkeypatch.setenv(name, "error")
    messages = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        quiet_libraries()
        monkeypatch.setattr(warnings, "showwarning", lambda message, *_: messages.append(str(message)))
        yield messages


def test_deprecations_of_the_libraries_are_hidden(shown):
    warnings.warn("`gradient_checkpointing` is deprecated and will be removed in v6.", FutureWarning, stacklevel=1)
    warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning, stacklevel=1)
    warnings.warn("`isinstance(treespec, LeafSpec)` is deprecated, use x", FutureWarning, stacklevel=1)
    warnings.warn("`torch.distributed.reduce_scatter_tensor` is deprecated.", FutureWarning, stacklevel=1)
    assert shown == []


@pytest.mark.parametrize("category", [UserWarning, FutureWarning, DeprecationWarning])
def test_warnings_of_other_code_are_shown(shown, category):
    warnings.warn("a reward of mine is deprecated", category, stacklevel=1)
    assert shown == ["a reward of mine is deprecated"]
