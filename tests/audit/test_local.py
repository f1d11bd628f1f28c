"""The audit of a local judge: the same numbers as `Judge.probabilities`, with several probes."""

import json
from dataclasses import replace

import pytest

from tests.audit.conftest import lines


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    from autorater.judges import Judge
    from autorater.prompts.templates import PromptFormat
    from tests.conftest import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("judge")
    tokenizer = make_tokenizer()
    model = make_model("qwen", len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    Judge(model, tokenizer, PromptFormat("compact"), answer_step=0.1).save_format(folder)
    return folder


def test_the_audit_has_the_numbers_of_the_judge(model_dir, make_pairs_file, audit, tmp_path):
    from autorater import Judge, load_pairs
    from autorater.data.loading import write_pairs
    from autorater.metrics import position_bias

    data = make_pairs_file(9)
    pairs = load_pairs(data)
    pairs[3] = replace(pairs[3], response_a=pairs[3].response_a * 40)
    write_pairs(pairs, data)
    done = audit("--judge", model_dir, "--dataset_name", data, "--output_dir", tmp_path, "--probe", "swap,verbosity")
    assert done.returncode == 0, done.stderr
    assert "8 pairs compared; left out: 0 unparsed, 1 refused" in done.stdout
    kept = [pair for i, pair in enumerate(pairs) if i != 3]
    judgments = Judge.from_pretrained(str(model_dir)).probabilities(kept)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    for key, value in position_bias(judgments.p_ab, judgments.p_ba).items():
        assert metrics[key] == pytest.approx(value, abs=1e-5), key
    assert metrics["parse_rate"] == pytest.approx(judgments.valid.mean(), abs=1e-4)
    assert metrics["verbosity/n_pairs"] == 8
    assert len(lines(tmp_path / "judgments.jsonl")) == 36
    assert "its prompt has" in lines(tmp_path / "judgments.jsonl")[12]["error"]


def test_a_paraphrase_stands_in_the_saved_layout():
    """A chat template may have written the date of another day into it."""
    from autorater.audit.judging import _encoding
    from autorater.audit.probes import PROBES
    from autorater.data.pairs import Pair
    from autorater.judges import Judge
    from autorater.prompts.rendering import render_layout
    from autorater.prompts.templates import PromptFormat
    from tests.conftest import make_tokenizer

    tokenizer, full = make_tokenizer(chat=True), PromptFormat("full")
    first, *others = render_layout(tokenizer, full)
    judge = Judge(None, tokenizer, full, 0.1, pieces=["Today: 1 Jan\n" + first, *others])
    own, other = _encoding(judge)(PROBES["paraphrase"].present(Pair("0", "q", "x", "y", None)))
    assert own[0].text != other[0].text
    for prompt in (own[0], other[0]):
        assert prompt.text.count("Today: 1 Jan\n") == 1


def test_the_instruction_is_paraphrased(model_dir, make_pairs_file, audit, tmp_path):
    """The answers to our instruction are those of the judge, those to the paraphrase are of another prompt."""
    from autorater import Judge, load_pairs

    data = make_pairs_file(3)
    refused = audit("--judge", model_dir, "--dataset_name", data, "--output_dir", tmp_path, "--probe", "paraphrase")
    assert "prompt template compact has no instruction of ours" in refused.stderr
    options = ("--prompt_template", "full", "--probe", "paraphrase,style")
    done = audit("--judge", model_dir, "--dataset_name", data, "--output_dir", tmp_path / "full", *options)
    assert done.returncode == 0, done.stderr
    asked = {(row["order"], row["pair"]): row["probability"] for row in lines(tmp_path / "full" / "judgments.jsonl")}
    judge = Judge.from_pretrained(str(model_dir), "full")
    own = judge.probabilities(load_pairs(data)).p_ab
    assert [asked["instruction", i] for i in range(3)] == pytest.approx(own, abs=2e-6)
    judge.encoder = type(judge.encoder)(judge.tokenizer, judge.encoder.format.paraphrased)
    other = judge.probabilities(load_pairs(data)).p_ab
    assert [asked["paraphrase", i] for i in range(3)] == pytest.approx(other, abs=2e-6)
    assert abs(own - other).max() > 1e-5
    metrics = json.loads((tmp_path / "full" / "metrics.json").read_text())
    assert metrics["paraphrase/n_pairs"] == metrics["style/n_pairs"] == 3
