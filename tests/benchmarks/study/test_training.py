"""Settings of a run: what a YAML file gets wrong is named."""

import pytest

from benchmarks.study.training import CONFIGS, parse_settings


@pytest.mark.parametrize("trainer", CONFIGS)
def test_a_word_is_no_number(trainer, tmp_path):
    with pytest.raises(ValueError, match=r"policy_rope_theta must be a number, got '1\.0e6'"):
        parse_settings(trainer, {"policy_rope_theta": "1.0e6"}, tmp_path)
    with pytest.raises(ValueError, match="learning_rate must be a number, got 'small'"):
        parse_settings(trainer, {"learning_rate": "small"}, tmp_path)
    args, _, training = parse_settings(trainer, {"policy_rope_theta": 1e6, "learning_rate": 1e-3}, tmp_path)
    assert (args.policy_rope_theta, training.learning_rate) == (1e6, 1e-3)
