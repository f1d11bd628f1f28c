"""Known noise of the libraries is hidden, and no other warning."""

import logging
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


@pytest.mark.parametrize(("chosen", "level"), [(None, "ERROR"), ("info", "INFO")])
def test_retries_of_the_hub_are_hidden_unless_they_are_wanted(monkeypatch, shown, chosen, level):
    hub = logging.getLogger("huggingface_hub")
    before = hub.level
    monkeypatch.delenv("HF_HUB_VERBOSITY", raising=False)
    if chosen:
        monkeypatch.setenv("HF_HUB_VERBOSITY", chosen)
    hub.setLevel(logging.INFO)  # what the library has read from the environment
    try:
        quiet_libraries()
        assert logging.getLevelName(hub.level) == level
    finally:
        hub.setLevel(before)


@pytest.mark.parametrize("category", [UserWarning, FutureWarning, DeprecationWarning])
def test_warnings_of_other_code_are_shown(shown, category):
    warnings.warn("a reward of mine is deprecated", category, stacklevel=1)
    assert shown == ["a reward of mine is deprecated"]
