"""The benchmark scripts at tiny sizes: what they print, and that what they hold equal is equal."""

import importlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from threading import Thread

import pytest

from autorater.models import shared_beginning, shared_prefix

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TINY_MODEL = ["--device", "cpu", "--hidden_size", "32", "--num_layers", "1"]
TINY_STEP = [
    *TINY_MODEL, "--prompt_tokens", "128", "--repeats", "2", "--num_generations", "4", "--completion_tokens", "3",
]  # fmt: skip
MACHINE = {"device", "threads", "dtype", "torch", "transformers", "trl"}


@pytest.fixture
def script(monkeypatch):
    """Imports a module of benchmarks/ the way a script there would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def run(script, capsys):
    """Runs a script and gives its JSON lines; there is nothing else on stdout."""

    def run(name: str, *argv: str) -> list[dict]:
        script(name).main(list(argv))
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_grpo_step(run):
    exact, sampled = run("grpo_step", *TINY_STEP, "--no-memory")
    assert [exact["ours"], sampled["ours"]] == ["exact", "sampled"]
    for record in (exact, sampled):
        assert set(record) >= {"prompt_tokens", "prompts", "num_generations", "completion_tokens", "parameters"}
        assert set(record) >= MACHINE
        assert record["ratio"] == pytest.approx(record["trl_seconds"] / record["ours_seconds"], rel=1e-4)
        assert record["ratio_sliced"] == pytest.approx(record["sliced_seconds"] / record["ours_seconds"], rel=1e-4)
        assert record["ours_peak_bytes"] is record["trl_peak_bytes"] is record["memory_ratio"] is None
        assert record["shared_prefix"]
        assert record["of_floor"] == pytest.approx(record["ours_seconds"] / record["floor_seconds"], rel=1e-4)
        assert record["utilization"] is None, "no card"
    assert sampled["distinct_tokens"] == 2 * (128 + 4 * 3)


def test_the_peak_of_a_card_is_that_of_its_whole_name(script):
    peak = script("harness.floor").peak_flops
    assert [peak(f"NVIDIA {name}") for name in ("L40", "A10G", "GeForce RTX 4090")] == [None] * 3
    assert peak("NVIDIA H100 80GB HBM3") > peak("NVIDIA H100 PCIe") > peak("NVIDIA L40S") > peak("NVIDIA L4") > 0


def test_shared_beginning(run):
    sizes = ["--shape", "small", "--pairs", "2", "--common_tokens", "100", "--own_tokens", "40", "--no-memory"]
    exact, sampled = run("shared_beginning", *TINY_MODEL, *sizes, "--repeats", "1")
    assert [exact["answers"], sampled["answers"]] == ["exact", "sampled"]
    for record in (exact, sampled):
        assert record["gradient_difference"] < 1e-5
        assert record["exact"]
        assert record["plain_tokens"] == 4 * (140 + record["suffix_tokens"])
        distinct = 100 + 2 * (8 + 2 * 32) + 4 * record["suffix_tokens"]
        assert record["distinct_tokens"] == distinct, "instructions once, a question once for both orders"
        assert record["ratio"] == pytest.approx(record["plain_seconds"] / record["shared_seconds"], rel=1e-4)


def test_repeated_cache(run):
    records = run("repeated_cache", *TINY_MODEL, "--num_layers", "4", "--prompts", "2", "--prompt_tokens", "20")
    assert [(r["family"], r["work"]) for r in records] == [
        (family, work) for family in ("qwen3_5", "lfm2") for work in ("read", "step")
    ]
    assert all(r["logps_difference"] < 1e-4 for r in records)


def test_exactness(run):
    records = run("exactness", *TINY_MODEL)
    assert [(r["dtype"], r["part"]) for r in records] == [
        (dtype, part) for dtype in ("float32", "bfloat16") for part in ("tree", "prefix", "beginning")
    ]
    assert all(r["exact"] for r in records)
    assert all(r["gradient_difference"] < 1e-5 for r in records[:3])


def half_gradient(packed_logits):
    """As `packed_logits`; half of its gradient is lost where beginnings are shared."""

    def wrong(model, *inputs):
        logits = packed_logits(model, *inputs)
        return (logits + logits.detach()) / 2 if shared_beginning.shares_beginnings(model) else logits

    return wrong


def half_gradient_of_suffixes(suffix_logits):
    """As `suffix_logits`; half of the gradient is lost."""

    def wrong(*inputs):
        logits = suffix_logits(*inputs)
        return (logits + logits.detach()) / 2

    return wrong


def positions_off_by_100(split_logits):
    """As `split_logits`; suffixes are 100 tokens further from the prompt than they should be."""

    def wrong(model, layout, *, position_ids, **inputs):
        position_ids[:, -layout.columns.shape[1] :] += 100
        return split_logits(model, layout, position_ids=position_ids, **inputs)

    return wrong


@pytest.mark.parametrize(
    ("mistake", "places", "found_in"),
    [
        (half_gradient_of_suffixes, ["shared_prefix.suffix_logits", "token_tree.suffix_logits"], ["tree", "prefix"]),
        (half_gradient, ["shared_prefix.packed_logits"], ["beginning"]),
        (positions_off_by_100, ["shared_prefix.split_logits"], ["tree", "prefix", "beginning"]),
        (positions_off_by_100, ["packing.split_logits"], ["beginning"]),
    ],
)
def test_exactness_finds_a_mistake(run, monkeypatch, mistake, places, found_in):
    for place in places:
        module, name = place.split(".")
        module = importlib.import_module(f"autorater.models.{module}")
        monkeypatch.setattr(module, name, mistake(getattr(module, name)))
    records = run("exactness", *TINY_MODEL)
    assert [r["part"] for r in records if not r["exact"]] == 2 * found_in, "in either dtype"


def test_a_wrong_gradient_of_shared_beginnings_is_not_exact(run, monkeypatch):
    monkeypatch.setattr(shared_prefix, "packed_logits", half_gradient(shared_prefix.packed_logits))
    options = "--pairs 2 --common_tokens 100 --own_tokens 40 --no-memory --repeats 1 --answers exact --dtype bfloat16"
    (record,) = run("shared_beginning", *TINY_MODEL, *options.split())
    assert not record["exact"]


def test_a_gradient_that_is_not_finite_is_not_exact(script):
    import torch

    bench = script("harness.gradients")
    model = torch.nn.Linear(2, 2)

    def step(factor):
        return lambda: (model(torch.ones(1, 2)) * torch.tensor([1.0, factor])).sum().backward()

    assert bench.gradient_difference(model, step(1.0), step(1.0)) == 0
    assert bench.gradient_difference(model, step(1.0), step(2.0)) == 0.5
    assert not bench.gradient_difference(model, step(float("nan")), step(1.0)) <= 1


def test_a_part_that_fails_does_not_stop_the_others(script, tmp_path, monkeypatch):
    bench = script("harness.on_gpu")
    parts = [
        bench.Part("bad option", "harness/fake_endpoint.py", "", "--nothing", 60),
        bench.Part("good", "deferral.py", "", "--n_pairs 200 --n_votes 5 --n_splits 10", 60),
    ]
    monkeypatch.setattr(bench, "PARTS", parts)
    assert bench.main(["--tiny", "--out", str(tmp_path)]) == 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["status"].split(";")[0] for r in results] == ["failed with exit status 2", "ok"]
    table = (tmp_path / "results.md").read_text().splitlines()
    parts = dict.fromkeys(row.split(" | ")[0] for row in table if row.startswith("| "))  # a row a record
    assert list(parts)[-2:] == ["| bad option", "| good"]
    monkeypatch.setattr(bench, "PARTS", [bench.Part("no records", "harness/fake_endpoint.py", "", "--help", 60)])
    assert bench.main(["--tiny", "--out", str(tmp_path)]) == 1
    assert bench._verdict([{"exact": True}, {"exact": False}, {}]) == "failed: 1 of 3 comparisons are not exact"
    slow = bench.run(bench.Part("slow", "harness/fake_endpoint.py", "", "", 0), [], 0.1, tmp_path)
    assert slow["status"] == "stopped after 0 s; see slow.log"


def test_the_parts_of_a_gpu_share_its_time(script, tmp_path, monkeypatch):
    bench = script("harness.on_gpu")
    assert sum(part.seconds for part in bench.PARTS) <= bench._LIMIT_SECONDS
    assert all(part.tiny for part in bench.PARTS)
    limits = []

    def run(part, options, limit, out):
        limits.append(limit)
        return {"part": part.name, "status": "ok", "records": []}

    monkeypatch.setattr(bench, "run", run)
    bench.main(["--out", str(tmp_path)])
    left = [bench._LIMIT_SECONDS - sum(part.seconds for part in bench.PARTS[i + 1 :]) for i in range(len(limits))]
    assert limits == pytest.approx(left, abs=1), "parts that take no time leave all of theirs"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_a_cpu_needs_a_new_process_for_memory(script, device):
    same = script("harness.measure").with_free_memory(os.getpid, device=device) == os.getpid()
    assert same == (device == "cuda")


def test_adapters_share_beginnings(run):
    options = "--pairs 2 --common_tokens 100 --own_tokens 40 --no-memory --repeats 1 --answers exact --lora_rank 2"
    (record,) = run("shared_beginning", *TINY_MODEL, *options.split())
    assert record["lora_rank"] == 2
    assert record["exact"]


@pytest.mark.parametrize("side", ["trl", "sliced", "sampled", "exact"])
def test_sides_take_the_same_step(script, tmp_path, side):
    """Prompts and completions have the lengths asked for, and a second `train()` goes on where the first ended."""
    bench = script("grpo_step")
    args = bench.parse([*TINY_STEP, "--prompts", "2"])
    trainer = bench.build_trainer(side, bench.chosen_shape(args), 128, args, str(tmp_path))
    clock = bench.add_clock(trainer, "cpu")
    assert {len(ids) for ids in trainer.train_dataset["prompt_ids"]} == {128}
    trainer.train()
    trainer.train()
    assert len(clock.seconds) == 2
    assert {state["step"].item() for state in trainer.optimizer.state.values()} == {2}
    if side != "exact":
        (log,) = (log for log in trainer.state.log_history if "completions/mean_length" in log)
        assert log["completions/min_length"] == log["completions/max_length"] == 3
        assert trainer.args.per_device_train_batch_size == 8


def test_sliced_trainer_has_the_loss_of_trl(script, tmp_path):
    """Same samples, same gradients; only the positions that nobody reads are left out."""
    import torch

    bench = script("grpo_step")
    args = bench.parse([*TINY_STEP])
    gradients = {}
    for side in ("trl", "sliced"):
        trainer = bench.build_trainer(side, bench.chosen_shape(args), 128, args, str(tmp_path))
        trainer.current_gradient_accumulation_steps = 1
        torch.manual_seed(0)
        trainer.model.train()
        inputs = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
        trainer.compute_loss(trainer.model, inputs).backward()
        gradients[side] = {name: p.grad for name, p in trainer.model.named_parameters()}
    for name, wanted in gradients["trl"].items():
        torch.testing.assert_close(gradients["sliced"][name], wanted, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.slow
def test_grpo_step_measures_memory(run):
    (record,) = run("grpo_step", *TINY_STEP, "--answers", "sampled")
    assert record["ours_peak_bytes"] > 0
    assert record["memory_ratio"] == pytest.approx(record["trl_peak_bytes"] / record["ours_peak_bytes"], rel=1e-4)
    assert record["peak_of_estimate"] > 0


@pytest.mark.parametrize(("side", "suffix"), [("exact", 124), ("sampled", 4 * 3)])
def test_the_estimate_of_a_step_is_of_its_tokens(script, tmp_path, side, suffix):
    bench = script("grpo_step")
    args = bench.parse([*TINY_STEP, "--prompts", "2"])
    trainer = bench.build_trainer(side, bench.chosen_shape(args), 128, args, str(tmp_path))
    logits = 2 * (1 + suffix) * 8192 * (12 if side == "exact" else 20)
    gradients = 4 * sum(p.numel() for p in trainer.model.parameters())
    assert 0 < bench.estimate(trainer, 128, args) - logits - gradients < 100_000 * (128 + suffix)


def test_exact_answers_need_two_prompts(run, capsys):
    with pytest.raises(SystemExit):
        run("grpo_step", "--prompts", "1")
    assert "--prompts must be at least 2" in capsys.readouterr().err


def test_judge_throughput(run):
    options = ["--repeats", "1", "--n_pairs", "2", "--generate_batch_sizes", "2", "4", "--answer_step", "0.1"]
    (record,) = run("judge_throughput", *TINY_MODEL, "--prompt_tokens", "400", *options)
    assert set(record) >= MACHINE
    assert record["layout"] == "full"
    assert record["mean_prompt_tokens"] == 400
    assert 100 < record["common_tokens"] < 300, "the instructions"
    own = 400 - record["common_tokens"] + record["tree_tokens"]
    assert record["distinct_tokens"] < record["common_tokens"] + 4 * own, "both orders share the question too"
    assert record["generate_tokens"] == 400 + record["answer_tokens"] - 1 < record["to_end_tokens"]
    assert record["answer_tokens"] >= 4, "0 . 5 </"
    assert record["generate_batch_size"] in (2, 4)
    assert record["distinct_tokens"] == 4 * record["exact_tokens"]
    assert record["of_floor"] > 0
    assert record["agreement"] is record["mode_is_greedy"] is None
    for name, side in (("ratio", "generate"), ("ratio_to_end", "to_end")):
        ratio = record["exact_pairs_per_second"] / record[f"{side}_pairs_per_second"]
        assert record[name] == pytest.approx(ratio, rel=1e-4)


def test_judge_throughput_of_a_saved_judge(run, script, tmp_path):
    import torch

    inputs = script("harness.inputs")
    tokenizer = inputs.judge_tokenizer()
    inputs.random_model(inputs.TINY, tokenizer, "cpu", torch.float32).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (record,) = run(
        "judge_throughput", "--device", "cpu", "--model", str(tmp_path), "--repeats", "1", "--n_pairs", "2"
    )
    assert record["prompt_tokens"] is None
    assert record["agreement"] == 1, "random weights write no number, and the read-out knows it"
    assert record["mode_is_greedy"] == 0
    assert record["ratio_to_vllm"] is None

    (votes := tmp_path / "votes.jsonl").write_text(
        "".join(json.dumps({"prompt": "?", "response_a": "so", "response_b": "so " * n}) + "\n" for n in range(2, 8))
    )
    with _vllm() as (url, received):
        options = ["--dataset_name", str(votes), "--vllm_url", url, "--repeats", "1", "--n_pairs", "3"]
        (record,) = run("judge_throughput", "--device", "cpu", "--model", str(tmp_path), *options)
    assert record["n_pairs"] == 3
    assert record["ratio_to_vllm"] > 0
    assert record["ratio_to_vllm_of_one_token"] > 0
    paths, bodies = zip(*received, strict=True)
    assert paths == ("/reset_prefix_cache", "/v1/completions") * 2, "a warm-up and a round, each with an empty cache"
    assert len(bodies[1]["prompt"]) == 6
    assert bodies[1]["max_tokens"] == 1


@contextmanager
def _vllm():
    """The address of a server that accepts everything, and what it receives."""
    received: list[tuple[str, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


@pytest.mark.slow
def test_judge_scale(run):
    (record,) = run("judge_scale", "--few", "200", "--many", "400", "--kills", "1")
    assert record["same_bytes"]
    assert 0 < record["killed_after_judgments"][0] < 800
    assert record["peak_bytes"][0] > 100 << 20
    assert abs(record["growth"]) < 0.1


def test_answers_off_the_grid_are_none(script):
    import numpy as np

    bench = script("judge_throughput")
    judge = bench.build_judge(bench.parse([*TINY_MODEL, "--answer_step", "0.1"]))
    np.testing.assert_array_equal(bench.on_grid([0.3, None, 0.35, 1.0], judge.tree), [0.3, np.nan, np.nan, 1.0])


def test_greedy_answers_are_read(script):
    """The text before the terminator is the answer; without a terminator there is none."""
    bench = script("judge_throughput")
    judge = bench.build_judge(bench.parse(TINY_MODEL))
    greedy = bench.GreedyJudge(judge.model, judge)
    answer = judge.tokenizer("0.85</prob_rb_better>", add_special_tokens=False)["input_ids"][: judge.tree.depth]
    assert greedy.ends == [answer[-1]]
    assert greedy._read(answer) == 0.85
    assert greedy._read(answer[:-1]) is None
    assert greedy._read([*answer[:2], answer[-1], *answer[2:]]) is None, "0. is no number"


def test_labels_to_calibration(run):
    options = {
        "device": "cpu", "seeds": 1, "target": 0.0, "eval_every": 1, "n_eval": 8, "max_steps": 2, "budget_ratio": 2,
        "num_generations": 2, "stock_learning_rates": 1e-3, "n_train": 100, "n_test": 10, "policy_hidden_size": 16,
        "policy_num_layers": 1, "warm_start_steps": 1, "per_device_train_batch_size": 4,
    }  # fmt: skip
    (record,) = run("labels_to_calibration", *(text for k, v in options.items() for text in (f"--{k}", str(v))))
    assert set(record) >= {*MACHINE, "budget_seconds", "votes_per_step", "ratio_stock_to_exact"}
    starts = set()
    for side in ("exact", "sampled", "stock"):
        summary = record[side]
        assert summary["seconds"] is summary["votes"] is summary["steps"] is None, "a target of 0 is out of reach"
        assert summary["wall_seconds"] is None
        assert summary["seconds_spent"] > 0
        assert summary["wall_seconds_spent"] > 0
        assert summary["best_excess_brier"] == min(excess for _, _, excess in summary["curve"])
        starts.add(summary["curve"][0][2])
    assert len(starts) == 1, "every side starts from the same policy and is measured on the same pairs"
    assert record["budget_seconds"] == pytest.approx(2 * record["exact"]["seconds_spent"], rel=1e-4)
    assert record["ratio_stock_to_exact"] is None


def test_metric_report(run):
    options = ["--n_pairs", "300", "--n_bootstrap", "20", "--repeats", "1", "--no-memory"]
    whole, tenth = (run("metric_report", *options, "--plain_rounds", rounds)[0] for rounds in ("20", "2"))
    assert [whole["plain_extrapolated"], tenth["plain_extrapolated"]] == [False, True]
    for record in (whole, tenth):
        assert set(record) >= {*MACHINE, "n_predictions", "ours_peak_bytes", "plain_peak_bytes"}
        assert record["ratio"] == pytest.approx(record["plain_seconds"] / record["ours_seconds"], rel=1e-4)
        assert record["ratio_recomputed"] == pytest.approx(
            record["recomputed_seconds"] / record["ours_seconds"], rel=1e-4
        )


def test_loops_over_resamples_measure_what_we_measure(script):
    """The same metrics on all pairs, and intervals as wide."""
    import numpy as np

    bench = script("metric_report")
    pairs = bench.judged_pairs(4000, 0)
    ours = bench.ours(pairs, 500)
    once = bench.values(bench.scores(**pairs))
    assert len(once) == 14
    assert {name: ours[name] for name in once} == pytest.approx(once, abs=1e-9)
    assert bench.plain(pairs, 3) == pytest.approx(bench.recomputed(pairs, 3), abs=1e-12)
    theirs = bench.plain(pairs, 500)
    for name in set(once) - {"ece", "parse_rate"}:  # a percentile interval does not fit an ECE
        widths = [ends[f"{name}_high"] - ends[f"{name}_low"] for ends in (ours, theirs)]
        assert widths[0] == pytest.approx(widths[1], rel=0.15), name
    assert np.isfinite(list(theirs.values())).all()


def test_best_of_runs(script):
    bench = script("labels_to_calibration")
    arrived = [bench.Run(1e-3, 16, seconds=s, steps=9, curve=[(9, s, 0.009)]) for s in (5.0, 3.0)]
    lost = [bench.Run(1e-3, 16, curve=[(9, 1.0, excess)]) for excess in (0.02, 0.03)]
    assert bench.best_of([lost[0], *arrived]).seconds == 3.0
    assert bench.best_of(lost[::-1]).best == 0.02
    assert arrived[0].summary()["votes"] == 144


def test_the_version_of_a_missing_package_is_none(script, monkeypatch):
    measure = script("harness.measure")

    def version(package):
        raise PackageNotFoundError(package)

    assert measure.machine("cpu", measure.torch.float32)["trl"]
    monkeypatch.setattr(measure, "version", version)
    assert measure.machine("cpu", measure.torch.float32)["trl"] is None


def test_ratio_needs_both_sides(script):
    ratio = script("harness.measure").ratio
    assert ratio(None, 1.0) is ratio(1.0, None) is ratio(1.0, 0.0) is None
    assert ratio(6.0, 3.0) == 2


def test_sides_take_turns(script):
    """One warm-up each, which does not count; then in turn; the median of each."""
    order = []
    took = {"a": iter([100.0, 1.0, 9.0, 2.0]), "b": iter([100.0, 4.0, 4.0, 5.0])}
    sides = {name: lambda name=name: order.append(name) or next(took[name]) for name in took}
    assert script("harness.measure").alternate(sides, repeats=3) == {"a": 2.0, "b": 4.0}
    assert order == ["a", "b"] * 4


def test_peak_counts_what_was_freed_again():
    code = (
        "import numpy as np; from harness.measure import peak_growth; "
        "print(peak_growth(lambda: np.ones(8 << 20).sum(), 'cpu'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None" or 60 << 20 < int(done.stdout) < 80 << 20


def test_charm_offset(run):
    (record,) = run("charm_offset", "--n_instructions", "500", "--repeats", "1", "--learning_rates", "0.1")
    assert set(record) >= MACHINE
    assert record["win_rate_error"] < 1e-9
    assert record["descent_difference"] <= 1e-4
    assert record["descent_converged_difference"] <= 1e-4
    assert record["ratio"] == pytest.approx(record["descent_seconds"] / record["ours_seconds"], rel=1e-4)


def test_projection(run):
    sizes = ["--batch", "16", "--cvxpy_rows", "8", "--repeats", "1", "--steps", "1", "--hidden_size", "32"]
    (record,) = run("projection", "--device", "cpu", "--num_layers", "1", *sizes)
    assert set(record) >= {*MACHINE, "adversary_share"}
    assert record["ratio"] == pytest.approx(record["cvxpy_seconds"] / record["exact_seconds"], rel=1e-4)
    assert record["error"] < 1e-3


def test_win_rates_and_deferral(run):
    records = run("win_rates", "--n_judged", "300", "--n_votes", "50", "--n_studies", "20")
    assert [(r["judge"], r["clustered"]) for r in records[::3]] == [
        ("calibrated", False), ("worthless", False), ("position-biased", True),
    ]  # fmt: skip
    assert all(r["n_studies"] == 20 and r["widest"] <= 1.05 + 1e-9 for r in records)
    records = run("deferral", "--n_pairs", "200", "--n_votes", "5", "--n_splits", "10")
    assert [r["judge"] for r in records] == ["calibrated", "raw"]
    assert all(0 <= r["best"] <= 1 and r["kept"] >= 0.8 for r in records)


def test_planted_biases(run):
    rows = run("planted_biases", "--n_pairs", "150", "--n_studies", "15", "--n_bootstrap", "100")
    assert [(row["probe"], row["judge"], row["planted"] > 0) for row in rows] == [
        (probe, judge, planted)
        for probe in ("style", "length", "self")
        for planted in (True, False)
        for judge in ("probabilities", "verdicts")
    ]
    for row in rows:
        assert row["coverage"] >= 0.75
        assert (row["truth"] != 0) == (row["planted"] != 0)
        if not row["planted"]:
            assert row["called_biased"] <= 0.25
    assert all(row["called_biased"] == 1 for row in rows[:2]), "a style bias of 0.5 logits in 150 pairs"


def test_position_shift(run):
    rows = run("position_shift", "--n_judges", "4", "--judges", "slight", "biased", "--sizes", "119 x 4")
    assert [row["judge"] for row in rows] == ["slight", "biased"]
    for row in rows:
        assert row["run"]["log_loss"] < min(row[name]["log_loss"] for name in ("none", "temperature"))
        assert row["run"]["bias"] == pytest.approx(row["best_bias"], abs=0.02)


@pytest.mark.slow
def test_populations(run, tmp_path):
    tiny = ["--n_train", "64", "--n_test", "8", "--max_steps", "1", "--warm_start_steps", "1", "--seeds", "0"]
    rows = run("populations", *tiny, "--output_dir", str(tmp_path))
    assert [row["arm"] for row in rows] == ["requested", "weighted", "unweighted", "group"] * 2
    assert rows[0]["ratio"] == rows[4]["ratio"] == 1
    assert rows[1]["rows"] == pytest.approx(64, abs=1)
    assert all(row["excess_brier"] > 0 for row in rows)
    assert run("populations", *tiny, "--output_dir", str(tmp_path)) == rows, "nothing is trained again"


def test_judge_as_reward(run, tmp_path):
    """The truth claims what is true; a judge that reads one order has no symmetry to average."""
    from autorater.judges import Judge
    from autorater.prompts.templates import PromptFormat
    from tests.conftest import make_model, make_tokenizer

    tokenizer = make_tokenizer()
    judge = Judge(make_model("qwen", len(tokenizer)), tokenizer, PromptFormat("short"), answer_step=0.1)
    for folder in (tmp_path / "judge", tmp_path / "judge" / "warm_start"):
        judge.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    judge.save_format(tmp_path / "judge")
    sizes = "--seeds 0 --arms raw_one_order trained truth --start_steps 2 --max_steps 2 --eval_steps 1 --n_test 4"
    folders = ["--judge", str(tmp_path / "judge"), "--output_dir", str(tmp_path / "runs")]
    argv = ["judge_as_reward", *folders, *sizes.split(), "--figure", str(tmp_path / "figure.png")]
    records = run(*argv)
    assert [record["arm"] for record in records] == ["raw_one_order", "trained", "truth"] * 2
    (truth,) = (record for record in records if record["arm"] == "truth" and "seed" in record)
    assert truth["claimed"] == truth["won"]
    assert truth["step"] == 2
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert run(*argv) == records, "resumed"
