"""sft.py, align.py and compare.py as a user runs them."""

import json
import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from safetensors.torch import load_file

from autorater import Judge
from autorater.alignment.judge import LabelJudge
from autorater.data.errors import UserError
from autorater.data.loading import write_pairs
from autorater.data.population import simulate_items, simulate_pairs
from autorater.training import recipe_process
from tests.recipes.forked import Forked, run_forked
from tests.recipes.test_grpo import error_of

ROOT = Path(__file__).parents[2]
WEIGHTS = "model.safetensors"
TINY = {
    "n_train": 60, "n_test": 12, "warm_start_steps": 2, "warm_start_batch_size": 4, "max_steps": 2,
    "per_device_train_batch_size": 4, "policy_hidden_size": 32, "policy_num_layers": 1, "use_cpu": True,
}  # fmt: skip


def run(recipe, *arguments):
    return run_forked(recipe, *arguments)


def tiny(**options):
    return [f"--{name}={value}" for name, value in {**TINY, **options}.items()]


def test_sft_writes_all_files(tmp_path):
    done = run("sft", *tiny(output_dir=tmp_path, objective="tokenized_brier"))
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"before/mse_dense", "after/mse_dense", "after/excess_brier", "training_seconds"} <= set(metrics)
    assert {"report.html", "reliability.png", "model.safetensors", "README.md"} <= {f.name for f in tmp_path.iterdir()}
    assert len(Judge.from_pretrained(str(tmp_path)).probabilities(simulate_pairs(2, seed=9).pairs)) == 2


@pytest.mark.slow
def test_text_on_two_processes_is_one_process_with_two_micro_batches(tmp_path):
    """The instructions of the full layout read once a batch; the tokens of both processes divide the loss."""
    steps = {}
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, launcher, accumulation in (("one", [], 2), ("two", two, 1)):
        arguments = tiny(
            output_dir=tmp_path / name, objective="text", prompt_template="full", report_to="none", optim="sgd",
            learning_rate=0.1, max_grad_norm=0, gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, *launcher, "recipes/sft.py", *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=900, env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        assert "disabled" not in done.stderr
        before, after = (load_file(tmp_path / name / part) for part in ("warm_start/" + WEIGHTS, WEIGHTS))
        steps[name] = {key: after[key] - before[key] for key in before}
    scale = max(step.abs().max() for step in steps["one"].values())
    assert scale > 1e-4
    for key, step in steps["one"].items():
        assert (steps["two"][key] - step).abs().max() <= 1e-4 * scale, key


def test_align_on_pairs_with_ties(tmp_path):
    """A file of votes with ties: three labels, both orders, the metrics of pairs."""
    pairs = simulate_pairs(40, n_votes=3, seed=0).pairs
    tied = [replace(p, votes_tie=p.votes_b, votes_b=0, label=p.votes_b / 6) for p in pairs]
    write_pairs(tied, tmp_path / "votes.jsonl")
    done = run(
        "align",
        *tiny(output_dir=tmp_path / "out", dataset_name=tmp_path / "votes.jsonl", data="pairs", split_by="topic"),
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert {"after/mse_dense", "after/symmetry_deviation_abs"} <= set(metrics)
    assert re.search(r"more than \d+ tokens: 0 prompts of training pairs, 0 held-out pairs\n", done.stdout)
    judge = LabelJudge.from_pretrained(str(tmp_path / "out"))
    assert judge.tree.names == ("A", "tie", "B")
    judgments = judge.probabilities(pairs[:3])
    assert ((judgments.p_sym > 0) & (judgments.p_sym < 1)).all()
    assert {"report.html", "reliability.png", "README.md"} <= {f.name for f in (tmp_path / "out").iterdir()}


def test_compare_runs_its_recipes_and_keeps_them(tmp_path, monkeypatch, capsys):
    plan = {
        "output_dir": str(tmp_path / "compared"),
        "before": "raw",
        "columns": {"kl_true": "KL", "training_seconds": "seconds"},
        "common": {"recipe": "align", "settings": "align_simulated.yaml", **TINY},
        "runs": {"full": {}, "no adversary": {"ablate": ["adversary"], "start_from": "full"}},
    }
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump(plan, sort_keys=False))
    monkeypatch.setattr(recipe_process, "subprocess", SimpleNamespace(Popen=Forked, STDOUT=subprocess.STDOUT))
    monkeypatch.setattr(sys, "argv", ["compare.py", "--config", str(config)])
    compare = runpy.run_path(str(ROOT / "recipes" / "compare.py"))["main"]
    compare()
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[1].strip() for row in rows] == ["", "---", "raw", "full", "no adversary"]
    folder = tmp_path / "compared" / "all" / "0"
    metrics = {name: json.loads((folder / name / "metrics.json").read_text()) for name in ("full", "no_adversary")}
    assert metrics["full"]["before/kl_true"] == pytest.approx(metrics["no_adversary"]["before/kl_true"], rel=1e-4)
    assert float(rows[3][2]) == pytest.approx(metrics["full"]["after/kl_true"], abs=1e-4)
    assert {f"after/kl_perturbed_{size:g}" for size in (0, 0.05, 0.1, 0.15, 0.2, 0.25)} <= set(metrics["full"])
    files = {f.name for f in (folder / "full").iterdir()}
    assert {"report.html", "reliability.png", "README.md", "predictions.jsonl"} <= files
    assert "LabelJudge.from_pretrained" in (folder / "full" / "README.md").read_text()
    judge = LabelJudge.from_pretrained(str(folder / "full"))
    probs, _ = judge.distributions(judge.encode(simulate_items(3, seed=5).items))
    assert probs.sum(axis=1) == pytest.approx([1, 1, 1])
    monkeypatch.delattr(recipe_process, "subprocess")
    compare()
    assert "100%" in capsys.readouterr().err, "nothing is run again"


ALIGN = {"output_dir": "out", "columns": {"kl_true": "KL"}, "common": {"recipe": "align"}, "runs": {"full": {}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": {}}, "unknown key 'run'"),
        ({"runs": None}, r"plan\.yaml: no runs"),
        ({"runs": ["full"]}, r"plan\.yaml: runs: expected `name: value` lines, got list \['full'\]"),
        ({"runs": {"full": "align"}}, "runs: full: expected `name: value` lines, got str 'align'"),
        ({"runs": {0.1: {}, 0.3: {}}}, r"plan\.yaml: runs: got 0\.1 as a name, which YAML does not read as text; put"),
        ({"groups": {5: {}}}, r"plan\.yaml: groups: got 5 as a name"),
        ({"runs": {"0.1": {}, "full": {"start_from": 0.1}}}, r"run 'full': start_from: 0\.1 is not a run before it"),
        ({"seeds": 1}, "seeds: expected a list, got int 1"),
        ({"common": {"recipe": "algin"}}, "run 'full': recipe: expected the name of a recipe in .*, got 'algin'"),
        ({"common": {"recipe": "align", "settings": "no.yaml"}}, r"no\.yaml cannot be read: No such file"),
        ({"runs": {"full": {"start_from": "ful"}}}, "run 'full': start_from: 'ful' is not a run before it"),
    ],
)  # fmt: skip
def test_mistakes_of_a_plan_are_named(tmp_path, monkeypatch, changes, message):
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump(ALIGN | {"output_dir": str(tmp_path / "out")} | changes))
    assert re.search(message, error_of("compare", ["--config", str(config)], monkeypatch))


@pytest.mark.parametrize(
    ("recipe", "option"), [("compare", "--config"), ("study", "--config"), ("objective", "--judge")]
)
def test_several_processes_are_refused_before_anything_is_read(tmp_path, monkeypatch, recipe, option):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):  # each would do all the work, and write the same files
        monkeypatch.setenv(name, value)
    error = error_of(recipe, [option, str(tmp_path / "nowhere")], monkeypatch)
    assert "runs in one process, and was started in 2" in error


@pytest.mark.parametrize(
    ("recipe", "option"), [("compare", "--config"), ("study", "--config"), ("objective", "--judge")]
)
def test_a_script_without_its_options_is_one_line(monkeypatch, recipe, option):
    error = error_of(recipe, [], monkeypatch)
    assert error == f"the following arguments are required: {option}; see {recipe}.py --help"


def test_what_a_judge_of_labels_refuses_is_not_in_its_help(monkeypatch, capsys):
    refused = ("criteria", "reference", "population", "recalibration_dataset_name", "untrained_judgments_dir")
    for name in refused:
        assert error_of("align", [f"--{name}", "x"], monkeypatch).startswith(f"{name}: ")
    monkeypatch.setattr(sys, "argv", ["recipes/align.py", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "recipes" / "align.py"), run_name="__main__")
    shown = capsys.readouterr().out
    assert "--prompt_template STR" in shown
    assert not [name for name in (*refused, "warm_start_tilt", "warm_start_sharpness") if f"--{name} " in shown]


STAND_IN = """
import json, pathlib, sys, yaml
settings = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text())
folder = pathlib.Path(settings["output_dir"])
print("started", *sys.argv[3:])
(folder / "metrics.json").write_text(json.dumps({"after/kl_true": settings["max_steps"]}))
(folder / "run.json").write_text(json.dumps({"run": "r1", "settings": {}, "completed": ["report"]}))
"""


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """Compares runs of a stand-in of align.py in this process; returns the folder of the run and the arguments."""
    (tmp_path / "align.py").write_text(STAND_IN)
    (tmp_path / "votes.jsonl").write_text("{}")
    common = {"recipe": "align", "max_steps": 4, "dataset_name": str(tmp_path / "votes.jsonl")}
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump(ALIGN | {"columns": {"kl_true": "KL"}, "common": common}))
    monkeypatch.setattr(sys, "argv", ["compare.py", "--config", str(config), "--output_dir", str(tmp_path / "out")])

    def compare():
        main = runpy.run_path(str(ROOT / "recipes" / "compare.py"))["main"]
        monkeypatch.setitem(main.__globals__, "RECIPES", tmp_path)
        main()
        return tmp_path / "out" / "all" / "0" / "full"

    return compare


def test_a_run_is_finished_when_its_run_json_says_so(compared, capsys):
    folder = compared()
    assert "| full | 4.0000 |" in capsys.readouterr().out
    compared()
    log = folder / "log.txt"
    assert log.read_text() == "started --resume_from_checkpoint auto\n"
    (folder / "run.json").write_text('{"run": "r1", "settings": {}, "completed": ["before"]}')
    (folder / "metrics.json").write_text('{"after/kl')
    compared()
    assert log.read_text().count("started") == 2
    (folder / "metrics.json").write_text('{"after/kl')
    with pytest.raises(UserError, match=r"metrics\.json cannot be read \(.*\); move its folder away, and the run is"):
        compared()


def test_the_table_is_printed_also_where_it_cannot_be_written(compared, capsys, tmp_path):
    compared()
    (tmp_path / "out" / "comparison.md").unlink()
    (tmp_path / "out" / "comparison.md").mkdir()
    capsys.readouterr()
    with pytest.raises(IsADirectoryError):
        compared()
    assert "| full | 4.0000 |" in capsys.readouterr().out


def test_results_of_changed_data_are_not_taken(compared, tmp_path):
    folder = compared()
    (tmp_path / "votes.jsonl").write_text("[]")
    with pytest.raises(UserError, match=r"other settings \(contents of dataset_name was '\w+', is '\w+'\)"):
        compared()
    (folder / "run.json").write_text('{"run": "r1", "settings": {}, "completed": ["before"]}')
    with pytest.raises(UserError, match="an unfinished run of other settings"):
        compared()
    (folder / "contents.json").unlink()
    compared()  # a run of an older version


def test_results_of_another_start_are_not_taken(compared, tmp_path, monkeypatch):
    config = tmp_path / "plan.yaml"
    plan = yaml.safe_load(config.read_text())
    plan["runs"] = {"full": {}, "other run": {}, "third": {"start_from": "full"}}

    def compare_with(**runs):
        config.write_text(yaml.safe_dump(plan | {"runs": plan["runs"] | runs}, sort_keys=False))
        compared()

    compare_with()
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-1], str(tmp_path / "moved")])
    compare_with()
    assert not (tmp_path / "out").exists(), "a folder of results can be moved"
    with pytest.raises(UserError, match=r"third has .* \(model_name_or_path was 'full', is 'other_run'\)"):
        compare_with(third={"start_from": "other run"})
    with pytest.raises(UserError, match=r"other_run has .* \(model_name_or_path was None, is 'full'\)"):
        compare_with(**{"other run": {"start_from": "full"}})


def test_a_missing_file_of_a_later_run_is_found_at_the_start(compared, tmp_path):
    config = tmp_path / "plan.yaml"
    plan = yaml.safe_load(config.read_text())
    plan["runs"] |= {"other": plan["runs"]["full"] | {"eval_dataset_name": str(tmp_path / "nowhere.jsonl")}}
    config.write_text(yaml.safe_dump(plan))
    with pytest.raises(UserError, match=r"^eval_dataset_name: .*nowhere\.jsonl: no such file$"):
        compared()
    assert not list((tmp_path / "out").rglob("log.txt"))


def test_results_of_other_settings_are_not_taken(tmp_path, monkeypatch):
    folder = tmp_path / "moved" / "all" / "0" / "full"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    (folder / "run.json").write_text('{"run": "r1", "settings": {}, "completed": ["report"]}')
    used = {"output_dir": "elsewhere", "max_steps": 3, "seed": 0, "run_name": "0 full"}
    (folder / "settings.yaml").write_text(yaml.safe_dump(used))
    config = tmp_path / "plan.yaml"
    config.write_text(yaml.safe_dump(ALIGN | {"common": {"recipe": "align", "max_steps": 4}}))
    arguments = ["--config", str(config), "--output_dir", str(tmp_path / "moved")]
    error = error_of("compare", arguments, monkeypatch)
    assert "full has the results of other settings (max_steps was 3, is 4)" in error
    assert json.loads((folder / "metrics.json").read_text()) == {}, "they are kept"
