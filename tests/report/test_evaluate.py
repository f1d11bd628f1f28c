"""`autorater evaluate`: local, served and recorded judges in one table; its options and stopped runs."""

import json
import re
import shutil

import numpy as np
import pytest
from scipy.special import expit

from autorater.cli import command as autorater
from autorater.data.errors import UserError
from autorater.data.loading import load_pairs, write_pairs
from autorater.data.population import simulate_pairs
from autorater.evaluation.arguments import parse_arguments
from autorater.evaluation.method_judgments import cost, methods_of
from autorater.judges.opening import open_judge
from autorater.metrics import estimate_win_rate
from autorater.report.evaluate import _open_judges as opened
from tests.audit.conftest import lines, serve  # noqa: F401  (fixture)
from tests.audit.test_local import model_dir  # noqa: F401  (fixture)


@pytest.fixture(scope="module")
def pointwise_dir(tmp_path_factory):
    from autorater.judges.pointwise import PointwiseJudge
    from tests.conftest import make_model, make_tokenizer

    folder = tmp_path_factory.mktemp("pointwise")
    tokenizer = make_tokenizer()
    judge = PointwiseJudge(make_model("qwen", len(tokenizer)), tokenizer)
    judge.model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    judge.save_format(folder)
    return folder


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "votes.jsonl"
    write_pairs(simulate_pairs(20, n_votes=3, seed=0).pairs, path)
    return str(path)


@pytest.fixture
def recorded(data, tmp_path):
    path = tmp_path / "recorded.jsonl"
    rows = [{"id": pair.id, "p_ab": pair.label, "p_ba": 1 - pair.label} for pair in load_pairs(data)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"recorded:{path}"


def metrics_in(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_pairs_that_a_recorded_file_lacks_are_not_counted(data, recorded, tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join((tmp_path / "recorded.jsonl").read_text().splitlines()[:8]))
    judge = open_judge(f"recorded:{path}")
    assert cost(judge, load_pairs(data), ["verbalized"]) == "8 of 20 pairs, recorded already"


def test_three_kinds_of_judges_in_one_table(model_dir, serve, data, recorded, tmp_path, capsys):  # noqa: F811
    server, out = serve(), tmp_path / "out"
    judges = [str(model_dir), "endpoint:m", recorded]
    arguments = [
        "evaluate", "--judge", *judges, "--dataset_name", data, "--base_url", server.base_url, "--n_bootstrap", "20",
        "--output_dir", str(out), "--methods", "answer_mean", "letter_logits", "--price_in", "1000",
    ]  # fmt: skip
    autorater(arguments)
    text = capsys.readouterr().out
    assert "endpoint:m: by verbalized alone; answer_mean, letter_logits require a model on this machine" in text
    assert "46 requests to m, about" in text
    assert "USD" in text
    assert re.search(r"recorded\.jsonl: (\d+) of \1 pairs, recorded already", text)
    found = metrics_in(out)
    assert "endpoint:m/verbalized/brier" in found
    recorded_key = "recorded.jsonl/recorded"
    assert found[f"{recorded_key}/mse_dense"] == 0
    assert found[f"{recorded_key}+odd_temperature/brier"] <= 1
    assert f"{recorded_key}+contextual/brier" not in found, "it was not asked about content-free pairs"
    assert "endpoint:m/verbalized+contextual/brier" in found
    asked = server.stats()["requests"]
    assert asked == 46, "20 pairs in both orders, and six content-free prompts"
    autorater(arguments)
    assert server.stats()["requests"] == asked, "the same command requests nothing again"
    assert metrics_in(out) == found


def test_a_budget_that_is_too_small_resumes(serve, data, tmp_path, capsys):  # noqa: F811
    server = serve()
    arguments = ["evaluate", "--judge", "endpoint:m", "--dataset_name", data, "--base_url", server.base_url]
    arguments += ["--output_dir", str(tmp_path / "out"), "--n_bootstrap", "0", "--concurrency", "1"]
    with pytest.raises(SystemExit) as stopped:
        autorater([*arguments, "--max_requests", "30"])
    assert stopped.value.code == 2
    assert "the budget ran out with 16 requests missing" in capsys.readouterr().err
    autorater(arguments)
    assert server.stats()["requests"] == 46
    assert "verbalized/brier" in metrics_in(tmp_path / "out")


def test_a_panel(data, recorded, tmp_path, capsys):
    other = tmp_path / "other.jsonl"
    rows = [{"id": pair.id, "p_ab": 0.5, "p_ba": 0.6} for pair in load_pairs(data)]
    other.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["--dataset_name", data, "--output_dir", str(tmp_path / "o"), "--n_bootstrap", "0", "--panel"]
    autorater(["evaluate", "--judge", recorded, f"recorded:{other}", *arguments])
    text = capsys.readouterr().out
    assert "panel: " in text
    assert " recorded.jsonl, " in text
    assert "Panel of the judges" in text
    found = metrics_in(tmp_path / "o")
    assert found["panel/weight/recorded.jsonl"] > found["panel/weight/other.jsonl"] >= 0
    assert found["panel/symmetry_deviation_abs"] < 1e-9
    assert found["panel/brier"] < found["panel_mean/brier"] < found["other.jsonl/recorded/brier"]


@pytest.mark.parametrize("turns", [(1,), (1, 3)])
def test_prompts_that_are_conversations(turns, tmp_path, capsys):
    """They are the clusters where there are no topics, of equal length or not."""
    rows, judged = [], []
    for i in range(40):
        messages = [
            {"role": ("user", "assistant")[j % 2], "content": f"{i // 2}"} for j in range(turns[i // 2 % len(turns)])
        ]
        rows.append(
            {"id": str(i), "prompt": messages, "response_a": f"{i} so", "response_b": f"{i} no", "label": i % 2}
        )
        judged.append({"id": str(i), "p_ab": 0.6, "p_ba": 0.4})
    for name, content in (("pairs", rows), ("judged", judged)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    files = ["--judge", f"recorded:{tmp_path / 'judged.jsonl'}", "--dataset_name", str(tmp_path / "pairs.jsonl")]
    autorater(["evaluate", *files, "--output_dir", str(tmp_path / "o")])
    assert "split by prompt" in capsys.readouterr().out
    assert metrics_in(tmp_path / "o")["recorded/brier_low"] < metrics_in(tmp_path / "o")["recorded/brier_high"]


def test_options_of_the_pairwise_judges(model_dir, pointwise_dir, tmp_path):  # noqa: F811
    options = ["--answer_step", "0.5", "--reasoning", "--device", "cpu"]
    full, other = tmp_path / "full", tmp_path / "other"
    shutil.copytree(model_dir, full)
    (full / "autorater.json").unlink()  # its template has no place for a reasoning
    args = parse_arguments(["--judge", str(pointwise_dir), str(full), *options], "")
    pointwise, pairwise = opened(args).values()
    assert pointwise.is_pointwise
    assert (pairwise.tree.step, pairwise.prompt_format.reasoning) == (0.5, True)
    other.symlink_to(pointwise_dir)
    with pytest.raises(UserError, match="reasoning, answer_step has no effect on a pointwise judge"):
        opened(parse_arguments(["--judge", str(pointwise_dir), str(other), *options], ""))


def test_all_work_is_in_the_cost(model_dir, data, tmp_path, capsys, monkeypatch):  # noqa: F811
    monkeypatch.setattr("autorater.report.evaluate.methods.compare_methods", lambda *_, **__: [])
    train = tmp_path / "train.jsonl"
    write_pairs(simulate_pairs(30, n_votes=1, seed=1).pairs, train)
    arguments = ["evaluate", "--judge", str(model_dir), "--dataset_name", data, "--train_dataset_name", str(train)]
    arguments += ["--methods", "linear_probe", "verbalized_reasoning", "self_consistency_reasoning"]
    arguments += ["--prompt_template", "full", "--n_samples", "3", "--max_reasoning_tokens", "400"]
    arguments += ["--n_bootstrap", "0", "--output_dir", str(tmp_path / "o")]
    with pytest.raises(SystemExit):  # nothing was judged
        autorater(arguments)
    text = capsys.readouterr().out
    assert re.search(r"40 prompts, [\d,]+ tokens; 60 training prompts, [\d,]+ tokens, for linear_probe; under", text)
    assert "400 generated tokens a prompt for verbalized_reasoning; up to 1,200 generated tokens a prompt for" in text


def test_a_pointwise_judge_has_fewer_methods(pointwise_dir, data, tmp_path, capsys):
    arguments = ["evaluate", "--judge", str(pointwise_dir), "--dataset_name", data, "--n_bootstrap", "0"]
    arguments += ["--output_dir", str(tmp_path / "o")]
    autorater(arguments)
    text = capsys.readouterr().out
    assert "under a minute for answer_mean\n" in text
    assert "not available" not in text
    autorater([*arguments, "--methods", "letter_logits", "answer_mean"])
    text = capsys.readouterr().out
    assert "under a minute for answer_mean\n" in text
    assert "not available" in text, "it was requested"


@pytest.mark.parametrize("more", [[], ["--panel"], ["--baseline", "BASELINE"]])
def test_no_method_is_available(pointwise_dir, recorded, data, tmp_path, capsys, more):
    if more == ["--baseline", "BASELINE"]:
        more = ["--baseline", str(tmp_path / "baseline")]
        autorater(["evaluate", "--judge", recorded, "--dataset_name", data, "--output_dir", more[1]])
    judges = [str(pointwise_dir)]
    if more == ["--panel"]:
        (tmp_path / "other").symlink_to(pointwise_dir)
        judges.append(str(tmp_path / "other"))
    arguments = ["evaluate", "--judge", *judges, "--dataset_name", data, "--output_dir", str(tmp_path / "o"), *more]
    with pytest.raises(SystemExit) as stopped:
        autorater([*arguments, "--methods", "verbalized", "letter_logits"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "no judging method is available (" in error
    assert "letter_logits: this judge is pointwise: its scores are answer_mean or pointwise" in error


def test_one_process_evaluates(data, recorded, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    with pytest.raises(SystemExit):
        autorater(["evaluate", "--judge", recorded, "--dataset_name", data, "--output_dir", str(tmp_path / "o")])
    assert "runs in one process, and was started in 8; start it with python" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_baseline(data, recorded, tmp_path, capsys):
    def judged(name, sharpness):
        path = tmp_path / name
        rows = [
            {"id": p.id, "p_ab": 0.5 + sharpness * (p.label - 0.5), "p_ba": 0.5 - sharpness * (p.label - 0.5)}
            for p in load_pairs(data)
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        return ["evaluate", "--judge", f"recorded:{path}", "--dataset_name", data, "--n_bootstrap", "0"]

    autorater([*judged("good.jsonl", 1), "--output_dir", str(tmp_path / "good")])
    worse = [*judged("bad.jsonl", -1), "--output_dir", str(tmp_path / "bad"), "--baseline"]
    for baseline in ("good", "good/metrics.json", "good/predictions.jsonl"):
        with pytest.raises(SystemExit) as stopped:
            autorater([*worse, str(tmp_path / baseline)])
        assert stopped.value.code == 3
        text = capsys.readouterr().out
        assert "The judge is worse than the baseline: Brier score" in text
        assert (tmp_path / "bad" / "gate.md").read_text() in text
    autorater([*judged("good.jsonl", 1), "--output_dir", str(tmp_path / "o"), "--baseline", str(tmp_path / "bad")])
    assert "The judge is not clearly worse. Better: Brier score" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        autorater([*worse, str(tmp_path / "empty")])
    assert "empty/predictions.jsonl; expected the folder of a run of" in capsys.readouterr().err
    (tmp_path / "empty" / "predictions.jsonl").write_text('{"id": "x", "probabilities": {"other": 0.5}}')
    with pytest.raises(SystemExit):
        autorater([*worse, str(tmp_path / "empty")])
    assert "has 1 methods (other); expected one of recorded," in capsys.readouterr().err


@pytest.mark.drawn
def test_win_rates_of_systems(tmp_path, capsys):
    rng = np.random.default_rng(0)
    rows, judged = [], []
    for i in range(240):
        a, b = rng.permutation(["strong", "medium", "weak"])[:2]
        truth = expit({"strong": 1, "medium": 0, "weak": -1}[b] - {"strong": 1, "medium": 0, "weak": -1}[a])
        row = {"id": str(i), "prompt": f"p{i // 2}", "response_a": f"{a} {i}", "response_b": f"{b} {i}"}
        row |= {"model_a": a, "model_b": b}
        if i % 4 == 0:
            row["label"] = float(rng.random() < truth)
        rows.append(row)
        judged.append({"id": str(i), "p_ab": truth, "p_ba": 1 - truth})
    for name, content in (("pairs", rows), ("judged", judged)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, content)))
    arguments = ["evaluate", "--judge", f"recorded:{tmp_path / 'judged.jsonl'}", "--n_bootstrap", "0"]
    autorater([*arguments, "--dataset_name", str(tmp_path / "pairs.jsonl"), "--output_dir", str(tmp_path / "o")])
    text = capsys.readouterr().out
    assert "180 pairs without votes, for win rates only" in text
    found = metrics_in(tmp_path / "o")
    sides = [(r, j, 1 if r["model_b"] == "strong" else 0) for r, j in zip(rows, judged, strict=True)]
    sides = [
        (r, j["p_ab"] if b else 1 - j["p_ab"], b) for r, j, b in sides if "strong" in (r["model_a"], r["model_b"])
    ]
    voted = [(p, r["label"] if b else 1 - r["label"], r["prompt"]) for r, p, b in sides if "label" in r]
    unvoted = [(p, r["prompt"]) for r, p, _ in sides if "label" not in r]
    expected = estimate_win_rate(
        [p for p, _ in unvoted], [p for p, *_ in voted], [y for _, y, _ in voted],
        clusters=([c for *_, c in unvoted], [c for *_, c in voted]),
    )  # fmt: skip
    for key in ("value", "low", "high", "votes_only_value", "judge_only_value", "n_votes"):
        assert found[f"win_rate/strong/{key}"] == pytest.approx(expected[key], abs=1e-6), key
    page = (tmp_path / "o" / "report.html").read_text()
    assert "Win rates of systems" in page
    assert "strong wins more than half of its pairs" in page

    for row in rows:  # all pairs have votes: the votes alone
        row.setdefault("label", 1.0)
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    autorater([*arguments, "--dataset_name", str(tmp_path / "pairs.jsonl"), "--output_dir", str(tmp_path / "o")])
    found = metrics_in(tmp_path / "o")
    assert found["win_rate/strong/value"] == found["win_rate/strong/votes_only_value"]
    assert found["win_rate/strong/n_judged"] == 0


def test_pairs_without_votes(data, recorded, tmp_path, capsys):
    rows = lines(data)
    for row in rows[:5]:
        for name in ("label", "votes_a", "votes_b", "votes_tie", "n_votes"):
            row.pop(name, None)
    partly = tmp_path / "partly.jsonl"
    partly.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["evaluate", "--judge", recorded, "--output_dir", str(tmp_path / "o"), "--n_bootstrap", "0"]
    autorater([*arguments, "--dataset_name", str(partly)])
    assert "5 pairs without votes are left out" in capsys.readouterr().err
    partly.write_text("\n".join(map(json.dumps, rows[:5])))
    with pytest.raises(SystemExit):
        autorater([*arguments, "--dataset_name", str(partly)])
    assert "none of 5 pairs has votes" in capsys.readouterr().err


def test_a_config_file_and_the_command_line(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        "judge: [a, b]\nn_pairs: 50\nreasoning: true\ndevice: null\npopulation: {expert: 0.2, lay: 0.8}\n"
    )
    args = parse_arguments(["--config", str(config), "--n_pairs", "7"], "")
    assert (args.judge, args.n_pairs, args.reasoning, args.device) == (["a", "b"], 7, True, None)
    assert args.population == "expert=0.2,lay=0.8"
    config.write_text("judge: [a]\nn_bootstrap: 0\npanel: false\n")
    args = parse_arguments(["--config", str(config)], "")
    assert (args.n_bootstrap, args.panel) == (0, False)
    config.write_text("judge: [a]\ncalibration_fraction: 0\n")
    with pytest.raises(UserError, match="calibration_fraction: '0': expected a number between 0 and 1"):
        parse_arguments(["--config", str(config)], "")
    config.write_text("n_piars: 50\n")
    with pytest.raises(UserError, match=r"unknown option n_piars in .*; did you mean n_pairs"):
        parse_arguments(["--judge", "a", "--config", str(config)], "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--judge", "endpoint:"], "expected a model after the colon"),
        (["--judge", "runs/a", "--base_url", "http://x"], "base_url: no effect"),
        (["--judge", "endpoint:m", "--methods", "pointwise"], "methods: no effect, because no judge runs on"),
        (["--judge", "recorded:x", "--criteria", "c"], "criteria: no effect, because a recorded file"),
        (["--judge", "runs/a", "--dataset_name", "d", "--n_pairs", "3"], "n_pairs: no effect, because the pairs are"),
        (["--judge", "runs/a", "--split", "test"], "split: no effect, because the pairs are simulated"),
        (["--judge", "runs/a", "endpoint:m", "--save_recalibration", "platt"], "endpoint:m is not a local folder"),
        (["--judge", "runs/a", "--save_recalibration", "plat"], "invalid choice: 'plat'"),
        (["--judge", "runs/a", "--save_recalibration", "platt", "--methods", "verbalized"], "fitted on answer_mean"),
        (["--judge", "runs/a", "--calibration_fraction", "1"], "between 0 and 1"),
        (
            ["--judge", "runs/a", "--train_dataset_name", "d"],
            "train_dataset_name: no effect, because linear_probe is not among the methods",
        ),
        (
            ["--judge", "runs/a", "--methods", "verbalized_reasoning", "--n_samples", "3"],
            "n_samples: no effect, because self_consistency is not among the methods",
        ),
        (["--judge", "runs/a", "--methods", "linear_prob", "--train_dataset_name", "d"], "did you mean linear_probe"),
        (["--judge", "runs/a", "--panel"], "--panel: got one judge, runs/a; expected at least two"),
        (["--judge", "runs/a", "--methods", "answer_meen"], "'answer_meen'; .*; did you mean answer_mean\\?"),
        (["--judge", "runs/a", "--variants", "swap+isotonik"], "step 'isotonik'; .*; did you mean isotonic\\?"),
        ([], "--judge"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        parse_arguments(arguments, "autorater evaluate")


def test_options_of_the_chosen_methods():
    arguments = ["--judge", "runs/a", "--n_samples", "3", "--train_dataset_name", "d"]
    for methods in (["all"], ["linear_probe", "self_consistency_reasoning"]):
        assert parse_arguments([*arguments, "--methods", *methods], "").n_samples == 3


def test_a_longest_reasoning_of_judges_that_do_not_reason(model_dir, data, tmp_path, capsys):  # noqa: F811
    arguments = ["evaluate", "--judge", str(model_dir), "--dataset_name", data, "--output_dir", str(tmp_path / "o")]
    arguments += ["--n_bootstrap", "0", "--max_reasoning_tokens", "4", "--prompt_template", "full"]
    with pytest.raises(SystemExit):
        autorater(arguments)
    expected = "max_reasoning_tokens: no effect, because no judge reasons by the chosen methods"
    assert expected in capsys.readouterr().err
    autorater([*arguments, "--reasoning", "--methods", "answer_mean"])
    autorater([*arguments, "--methods", "verbalized_reasoning"])


@pytest.mark.parametrize(("options", "tokens"), [([], 512), (["--max_reasoning_tokens", "4"], 4)])
def test_the_longest_reasoning_of_a_judge_that_reasons(model_dir, options, tokens):  # noqa: F811
    args = parse_arguments(
        ["--judge", str(model_dir), "--reasoning", "--prompt_template", "full", *options], "autorater evaluate"
    )
    (judge,) = opened(args).values()
    assert judge.max_reasoning_tokens == tokens
    text = cost(judge, simulate_pairs(2, seed=0).pairs, ["verbalized_reasoning"], max_reasoning_tokens=tokens)
    assert f"up to {tokens} generated tokens a prompt" in text


def test_the_methods_of_a_judge(recorded):
    assert methods_of(open_judge(recorded), ["verbalized"], "x") == ["recorded"]
    assert methods_of(open_judge("endpoint:m"), ["answer_mean"], "x") == ["verbalized"]
    assert methods_of(open_judge("endpoint:m", reasoning=True), ["answer_mean"], "x") == ["verbalized_reasoning"]
