"""`autorater judge` and `autorater audit`: predictions of a local and a served judge, and runs that are stopped."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autorater import load_pairs
from autorater.audit import command, judge_command, judging
from autorater.audit.arguments import parse_judge_arguments
from autorater.audit.processes import Processes
from autorater.cli import command as autorater
from autorater.data.errors import UserError
from autorater.report.decisions.gate import gate_run
from tests.audit.conftest import ENV, ROOT, lines, make_pairs_file, serve  # noqa: F401  (fixtures)
from tests.audit.test_local import model_dir  # noqa: F401  (fixture)
from tests.judges.test_endpoint import chat, quirky  # noqa: F401  (fixture)

pytestmark = pytest.mark.usefixtures("undrawn")


def judge(argv):
    judge_command.run(parse_judge_arguments(argv, "autorater judge"))


def test_the_predictions_are_those_of_the_judge(model_dir, make_pairs_file, tmp_path, capsys):  # noqa: F811
    from autorater import Judge

    data, out = make_pairs_file(5), tmp_path / "out.jsonl"
    autorater(["judge", data, "--judge", str(model_dir), "--out", str(out)])
    assert f"{out}: 5 pairs in both orders" in capsys.readouterr().out
    pairs, rows = load_pairs(data), lines(out)
    judgments = Judge.from_pretrained(str(model_dir)).probabilities(pairs)
    assert [(row["id"], row["order"]) for row in rows] == [(p.id, order) for p in pairs for order in ("ab", "ba")]
    assert [row["probability"] for row in rows] == pytest.approx(judgments.mean.ravel().tolist(), abs=2e-6)
    assert [row["label"] for row in rows[:2]] == pytest.approx([pairs[0].label, 1 - pairs[0].label])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "pairs.jsonl"], "nothing is left over"


def test_a_stopped_run_gives_the_same_bytes(model_dir, make_pairs_file, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(judging, "_BLOCK", 8)
    data, whole, stopped = make_pairs_file(12), tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    judge([data, "--judge", str(model_dir), "--out", str(whole)])
    append = judging.JudgmentStore.append
    for n_before in (3, 9):  # within a block of requests, both times
        left = iter(range(n_before))

        def failing(store, number, record, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            append(store, number, record)

        monkeypatch.setattr(judging.JudgmentStore, "append", failing)
        with pytest.raises(KeyboardInterrupt):
            judge([data, "--judge", str(model_dir), "--out", str(stopped)])
        assert not stopped.exists()
    monkeypatch.setattr(judging.JudgmentStore, "append", append)
    judge([data, "--judge", str(model_dir), "--out", str(stopped)])
    assert stopped.read_bytes() == whole.read_bytes()


def test_several_processes_give_the_bytes_of_one(model_dir, make_pairs_file, tmp_path, monkeypatch):  # noqa: F811
    """One after the other here, which is legal: they wait for each other only before they read what others wrote."""
    monkeypatch.setattr(judging, "_BLOCK", 8)
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    data, whole, shared = make_pairs_file(12), tmp_path / "whole.jsonl", tmp_path / "shared.jsonl"
    judge([data, "--judge", str(model_dir), "--out", str(whole)])
    monkeypatch.setenv("WORLD_SIZE", "2")
    folder = tmp_path / "shared.jsonl.judging"
    folder.mkdir()
    (folder / "judgments.jsonl").touch()  # of the first process, which has stored nothing yet
    for rank in "10":
        monkeypatch.setenv("RANK", rank)
        judge([data, "--judge", str(model_dir), "--out", str(shared)])
        if rank == "1":
            assert [line["pair"] for line in lines(folder / "process-1" / "judgments.jsonl")] == [
                4,
                4,
                5,
                5,
                6,
                6,
                7,
                7,
            ]
            assert not shared.exists()
    assert shared.read_bytes() == whole.read_bytes()
    assert not folder.exists()
    monkeypatch.delenv("WORLD_SIZE")
    assert Processes.of_environment() == Processes(), "a RANK alone is a left-over"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="one process sends all requests to a server; raise --concurrency"):
        judge([data, "--judge", "endpoint:m", "--out", str(shared)])


@pytest.mark.slow
def test_torchrun_starts_several_processes(model_dir, make_pairs_file, tmp_path):  # noqa: F811
    data, one, two = make_pairs_file(600), tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    judge([data, "--judge", str(model_dir), "--out", str(one)])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--no-python"]
    command_line = [str(Path(sys.executable).with_name("autorater")), "judge", data, "--judge", str(model_dir)]
    done = subprocess.run([*launcher, *command_line, "--out", str(two)], env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("600 pairs in both orders") == 1
    assert two.read_bytes() == one.read_bytes()


def test_unlabelled_pairs_and_a_server_with_a_budget(serve, tmp_path):  # noqa: F811
    data, out = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl"
    rows = [{"prompt": p, "response_a": "x", "response_b": "y"} for p in ("fine", "unreadable", "always refused")]
    data.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["--judge", "endpoint:m", "--base_url", serve().base_url, "--out", str(out), "--concurrency", "1"]
    with pytest.raises(UserError, match="the budget ran out with 4 requests missing"):
        judge([str(data), *arguments, "--max_requests", "2"])
    assert not out.exists()
    judge([str(data), *arguments])
    found = lines(out)
    assert [row["valid"] for row in found] == [1, 1, 0, 0, 0, 0]
    assert [row["probability"] is None for row in found] == [False, False, True, True, True, True]
    assert set(found[0]) == {"id", "order", "probability", "valid"}


def test_refused_requests_can_be_repeated(quirky, make_pairs_file, tmp_path, caplog):  # noqa: F811
    caplog.set_level("INFO")
    data, out, refusing = make_pairs_file(3), tmp_path / "out.jsonl", iter([False, True])
    server = quirky(lambda sent: (400, {"error": "hiccup"}) if next(refusing, False) else (200, chat()))
    arguments = [data, "--judge", "endpoint:m", "--base_url", f"{server.url}/v1", "--out", str(out)]
    judge([*arguments, "--concurrency", "1"])
    assert [row["probability"] for row in lines(out)] == [0.7, None, 0.7, 0.7, 0.7, 0.7]
    assert "1 requests were refused; --ask_refused_again repeats them" in caplog.text
    judge([*arguments, "--ask_refused_again"])
    assert [row["probability"] for row in lines(out)] == [0.7] * 6
    assert len(server.seen) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "pairs.jsonl"]
    with pytest.raises(UserError, match="is finished and no request was refused"):
        judge([*arguments, "--ask_refused_again"])


def test_a_finished_file_with_refusals_may_be_judged_anew(quirky, make_pairs_file, tmp_path):  # noqa: F811
    server = quirky(lambda sent: (400, {"error": "no"}) if len(server.seen) == 2 else (200, chat()))
    arguments = [make_pairs_file(2), "--judge", "endpoint:m", "--base_url", f"{server.url}/v1", "--concurrency", "1"]
    judge([*arguments, "--out", str(tmp_path / "out.jsonl")])
    judge([*arguments, "--out", str(tmp_path / "out.jsonl"), "--prompt_template", "mt_bench"])
    assert len(server.seen) == 8
    assert [row["probability"] for row in lines(tmp_path / "out.jsonl")] == [0.7] * 4


@pytest.mark.parametrize(
    ("respond", "message"),
    [
        (lambda sent: (400, {"error": "no"}), "no request has an answer: 4 were refused, 0 are unparsed"),
        (lambda sent: (200, chat("Well.")), "no request has an answer: 0 were refused, 4 are unparsed"),
        (lambda sent: (503, {"error": "no"}), "all 4 requests were refused; .*: the server replied 503"),
    ],
)
def test_without_an_answer_nothing_is_written(quirky, make_pairs_file, tmp_path, respond, message):  # noqa: F811
    out = tmp_path / "out.jsonl"
    server = ["--judge", "endpoint:m", "--base_url", f"{quirky(respond).url}/v1", "--max_retries", "0"]
    with pytest.raises(UserError, match=message):
        judge([make_pairs_file(2), *server, "--out", str(out)])
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.jsonl", "--judge", "recorded:x", "--out", "o.jsonl"], "recorded verdicts are predictions already"),
        (["x.jsonl", "--judge", "endpoint:m", "--out", "o.csv"], "ends in .jsonl"),
        (["x.jsonl", "--judge", "endpoint:m"], "--out"),
        (["x.jsonl", "--judge", "endpoint:m", "--out", "{out}"], "x.jsonl: no such file"),
    ],
)
def test_mistakes(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        judge([argument.format(out=tmp_path / "o.jsonl") for argument in arguments])


def test_an_audit_against_a_baseline(tmp_path, capsys):
    def audit(name, rows, *more):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({"id": str(i)} | row) for i, row in enumerate(rows)))
        autorater(["audit", "--judge", f"recorded:{path}", "--output_dir", str(tmp_path / name), *more])

    fair = [{"p_ab": 0.8 if i % 2 else 0.3, "p_ba": 0.2 if i % 2 else 0.7, "label": float(i % 2)} for i in range(20)]
    audit("fair", fair)
    first = lines(tmp_path / "fair" / "predictions.jsonl")[:2]
    assert first == [
        {"id": "0", "order": "ab", "probability": 0.3, "label": 0.0},
        {"id": "0", "order": "ba", "probability": 0.7, "label": 1.0},
    ]
    biased = [row | {"p_ba": 0.9} for row in fair[:-1]] + [fair[-1] | {"p_ba": None}]
    with pytest.raises(SystemExit) as stopped:
        audit("biased", biased, "--baseline", str(tmp_path / "fair" / "metrics.json"))
    assert stopped.value.code == command.BIASED
    printed = capsys.readouterr()
    assert "The judge is worse than the baseline" in printed.out
    assert "missing answers: 0 of the baseline, 1 of this run; they count as 0.5 against votes" in printed.err
    table = (tmp_path / "biased" / "gate.md").read_text()
    assert "| Consistency |" in table
    assert "| Pairs answered in both orders | 1.0000 | 0.9500 |" in table
    with pytest.raises(SystemExit):
        audit("other", fair[:5], "--baseline", str(tmp_path / "fair"))
    assert "15 ids of the other run are missing" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        audit("fair", fair, "--baseline", str(tmp_path / "fair"))
    assert "is the output folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        audit("other", fair, "--baseline", str(tmp_path / "nowhere"))
    assert "expected the folder of a run of `autorater audit`" in capsys.readouterr().err


def test_the_audit_is_a_command(tmp_path, capsys):
    record = tmp_path / "verdicts.jsonl"
    record.write_text("\n".join(['{"p_ab": 0.9, "p_ba": 0.8}'] * 4))
    with pytest.raises(SystemExit) as stopped:
        autorater(
            ["audit", "--judge", f"recorded:{record}", "--output_dir", str(tmp_path / "o"), "--fail_above", "0.5"]
        )
    assert stopped.value.code == command.BIASED
    assert json.loads((tmp_path / "o" / "metrics.json").read_text())["flip_rate"] == 1


def test_predictions_are_recorded_judgments(tmp_path):
    verdicts = [
        {"id": str(i), "p_ab": p_ab, "p_ba": p_ba, "label": 1, "topic": f"t{i % 2}", "prompt": "?"}
        | {"response_a": f"a{i}", "response_b": "b"}
        for i, (p_ab, p_ba) in enumerate([(0.9, 0.7), (0.2, 0.7), (0.6, None), (0.8, 0.1)])
    ]
    predictions = []
    for row in verdicts:
        shown = {name: row[name] for name in ("id", "topic", "prompt")}
        a, b = row["response_a"], row["response_b"]
        predictions += [
            shown | {"order": "ab", "probability": row["p_ab"], "label": 1, "response_a": a, "response_b": b},
            shown | {"order": "ba", "probability": row["p_ba"], "label": 0, "response_a": b, "response_b": a},
        ]
    unlikely = [row | {"valid": 0.5 if row["topic"] == "t0" else 0.25} for row in predictions]
    ours, theirs, stated = tmp_path / "predictions", tmp_path / "verdicts", tmp_path / "stated"
    for folder, rows in ((ours, predictions), (theirs, verdicts), (stated, unlikely)):
        file = folder.with_suffix(".jsonl")
        file.write_text("\n".join(map(json.dumps, rows)))
        autorater(["audit", "--judge", f"recorded:{file}", "--group_by", "topic", "--output_dir", str(folder)])
    for name in ("metrics.json", "predictions.jsonl"):
        assert (ours / name).read_text() == (theirs / name).read_text()
    (flip,), (same,) = (lines(folder / "flips.jsonl") for folder in (ours, theirs))
    assert flip | same == flip | {"label": 1}
    metrics = json.loads((stated / "metrics.json").read_text())
    rates = {name.removesuffix("parse_rate"): metrics[name] for name in metrics if name.endswith("parse_rate")}
    assert sorted(rates.values()) == [0.25, (3 * 0.5 + 4 * 0.25) / 8, 3 * 0.5 / 4], "one of eight has no answer"


@pytest.mark.slow
def test_a_run_killed_three_times_gives_the_same_bytes(model_dir, make_pairs_file, tmp_path):  # noqa: F811
    """`kill -9` at three moments, found by the size of the store."""
    data, whole, killed = make_pairs_file(700), tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    judge([data, "--judge", str(model_dir), "--out", str(whole)])
    run = "from autorater.cli import command; command()"
    command = [sys.executable, "-c", run, "judge", data, "--judge", str(model_dir), "--out", str(killed)]
    stored, sizes = tmp_path / "killed.jsonl.judging" / "judgments.jsonl", []
    for least in (20_000, 60_000, 100_000):
        process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (stored.exists() and stored.stat().st_size >= least) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        assert not killed.exists()
        sizes.append(stored.stat().st_size)
    assert sizes == sorted(sizes)
    subprocess.run(command, cwd=ROOT, env=ENV, check=True, capture_output=True)
    assert killed.read_bytes() == whole.read_bytes()


def test_rows_that_repeat_a_pair_are_no_evidence_against_a_baseline(tmp_path):
    """Four rows of each of three pairs, as an audit and `autorater judge` write them: three clusters, not twelve."""
    rows = [{"id": str(i), "order": order, "cluster": i % 3} for i in range(12) for order in ("ab", "ba")]
    for name, answer in (("before", 0.2), ("after", 0.8)):
        (tmp_path / name).mkdir()
        lines_of = [row | {"probability": 0.8 if row["order"] == "ab" else answer} for row in rows]
        (tmp_path / name / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines_of)))
    gate_run(str(tmp_path / "before"), tmp_path / "after")
    changes = json.loads((tmp_path / "after" / "gate.json").read_text())["changes"]
    (change,) = (change for change in changes if change["metric"] == "consistency")
    assert change["p_value"] >= 0.25, "three clusters that all change alike"


def test_keys_in_an_address_are_stored_nowhere(quirky, make_pairs_file, tmp_path, capsys):  # noqa: F811
    key = "of-the-address"
    asked = quirky(lambda sent: (401, {"error": f"not {key}"}) if len(asked.seen) == 3 else (200, chat()))
    address = f"{asked.url}/v1?api-version=1&subscription-key="
    data = make_pairs_file(2)
    arguments = ["--judge", "endpoint:m", "--concurrency", "1", "--base_url"]
    with pytest.raises(SystemExit):
        autorater(["judge", data, "--out", str(tmp_path / "out.jsonl"), *arguments, address + key])
    assert "subscription-key=…, " in (shown := "".join(capsys.readouterr()))
    settings = json.loads((tmp_path / "out.jsonl.judging" / "settings.json").read_text())
    assert settings["base_url"] == address + "…"
    autorater(["judge", data, "--out", str(tmp_path / "out.jsonl"), *arguments, address + "another"])
    assert len(asked.seen) == 5, "the run is resumed"
    audit = ["audit", "--dataset_name", data, "--output_dir", str(tmp_path / "audit"), "--n_bootstrap", "0"]
    autorater([*audit, *arguments, address + key])
    assert all(path.startswith("/v1/chat/completions?api-version=1&subscription-key=") for path, _, _ in asked.seen)
    written = [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
    assert not written
    assert key not in shown
    assert "subscription-key=…" in (tmp_path / "audit" / "report.html").read_text(encoding="utf-8")


def test_blank_responses_are_judged_on_request(quirky, tmp_path, capsys):  # noqa: F811
    data, out, server = tmp_path / "pairs.jsonl", tmp_path / "out.jsonl", quirky(lambda sent: (200, chat()))
    data.write_text(json.dumps({"prompt": "Why?", "response_a": "", "response_b": "b"}) + "\n")
    options = ["--judge", "endpoint:m", "--base_url", f"{server.url}/v1"]
    audit = ["audit", "--dataset_name", str(data), "--output_dir", str(tmp_path / "audit")]
    for arguments in (["judge", str(data), "--out", str(out)], audit):
        with pytest.raises(SystemExit):
            autorater([*arguments, *options])
        assert "allow_odd_responses to keep blank ones" in capsys.readouterr().err
        assert not server.seen
        autorater([*arguments, *options, "--allow_odd_responses"])
        assert len(server.seen) == 2
        server.seen.clear()
    assert [row["probability"] for row in lines(out)] == [0.7, 0.7]
    recorded = ["audit", "--judge", f"recorded:{out}", "--allow_odd_responses"]
    with pytest.raises(SystemExit):
        autorater(recorded)
    assert "allow_odd_responses: no effect" in capsys.readouterr().err


def test_a_folder_in_place_of_the_file_is_refused_before_the_first_request(quirky, make_pairs_file, tmp_path):  # noqa: F811
    server = quirky(lambda sent: (200, chat()))
    (tmp_path / "out.jsonl").mkdir()
    arguments = [make_pairs_file(2), "--judge", "endpoint:m", "--base_url", f"{server.url}/v1"]
    with pytest.raises(UserError, match=r"^--out .*out\.jsonl is a folder; expected a file to write$"):
        judge([*arguments, "--out", str(tmp_path / "out.jsonl")])
    assert not server.seen
