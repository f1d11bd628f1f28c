"""A study read from its file: which runs it makes, and which of them a change touches."""

import pytest
import yaml

from benchmarks.study.plan import WARM_START, read_plan
from benchmarks.study.runner import in_order

DOCUMENT = {
    "output_dir": "runs/x",
    "seeds": [0, 1],
    "common": {"n_train": 8, "answer_step": 0.25},
    "training": {"max_steps": 5},
    "datasets": {
        "easy": {"title": "easy", "settings": {"population_noise": 0.5}},
        "hard": {"title": "hard", "training": {"max_steps": 7}, "seeds": [3]},
    },
    "methods": {
        "ours": {"title": "Ours", "trainer": "grpo", "datasets": ["easy", "hard"], "settings": {"answers": "exact"}},
        "usual": {"title": "Usual", "trainer": "grpo", "datasets": ["easy"]},
        "words": {"title": "Words", "trainer": "text", "datasets": ["easy"]},
    },
    "figures": {"dataset": "easy", "ours": "ours", "usual": "usual"},
    "quick": {"output_dir": "runs/y", "seeds": [0], "methods": {"words": None}, "training": {"max_steps": 2}},
}


@pytest.fixture
def write(tmp_path):
    def written(**changes):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(DOCUMENT | changes))
        return path

    return written


def settings_by_run(plan):
    return {(c.dataset, c.seed, c.method): c.settings for c in (*plan.starts, *plan.runs)}


def test_later_settings_win(write):
    settings = settings_by_run(read_plan(write()))
    assert len(settings) == 3 + 2 * 3 + 1
    assert settings["easy", 1, WARM_START] == {"n_train": 8, "answer_step": 0.25, "population_noise": 0.5, "seed": 1}
    assert settings["easy", 0, "ours"] == settings["easy", 0, WARM_START] | {"max_steps": 5, "answers": "exact"}
    assert settings["hard", 3, "ours"]["max_steps"] == 7
    assert settings["easy", 0, "words"] == settings["easy", 0, WARM_START], "what reads no language is not trained"


def test_a_pretrained_model_is_judged_once_as_it_comes_and_trained_seed_by_seed(write):
    plan = read_plan(write(common={"model_name_or_path": "some/model"}))
    assert plan.pretrained
    assert [(run.dataset, run.seed) for run in plan.starts] == [("easy", 0), ("hard", 3)]
    ordered = in_order([*plan.starts, *plan.runs])
    assert [run.seed for run in ordered] == sorted(run.seed for run in ordered)
    assert [run.method for run in ordered if run.seed == 0] == ["ours", "usual", "words", WARM_START]
    simulated = read_plan(write())
    assert in_order(simulated.runs) == simulated.runs


def test_quick_is_a_part_of_the_file(write):
    plan = read_plan(write(), quick=True)
    assert plan.output_dir == "runs/y"
    assert set(plan.methods) == {"ours", "usual"}
    assert {c.seed for c in plan.runs if c.dataset == "easy"} == {0}
    assert {c.settings["max_steps"] for c in plan.runs} == {2, 7}
    assert read_plan(write(), quick=True, output_dir="z", processes=None).output_dir == "z"


def hashes(path):
    plan = read_plan(path)
    return {(c.dataset, c.seed, c.method): c.hash for c in (*plan.starts, *plan.runs)}


def changed(write, **changes):
    before, after = hashes(write()), hashes(write(**changes))
    return {name for name in before if before[name] != after[name]}


def test_a_change_touches_what_it_changes(write):
    everything = set(hashes(write()))
    assert changed(write) == set()
    assert changed(write, processes=7, output_dir="elsewhere") == set()
    assert changed(write, common={"n_train": 9, "answer_step": 0.25}) == everything, "other data, other warm starts"
    trained = {name for name in everything if name[2] in ("ours", "usual")}
    assert changed(write, training={"max_steps": 6}) == {name for name in trained if name[0] == "easy"}
    methods = DOCUMENT["methods"] | {"usual": DOCUMENT["methods"]["usual"] | {"settings": {"answers": "sampled"}}}
    assert changed(write, methods=methods) == {("easy", 0, "usual"), ("easy", 1, "usual")}
    retitled = DOCUMENT["methods"] | {"usual": DOCUMENT["methods"]["usual"] | {"title": "Called otherwise"}}
    assert changed(write, methods=retitled) == set()


def test_a_changed_file_is_other_data(write, tmp_path):
    votes = tmp_path / "votes.jsonl"
    votes.write_text("{}")
    files = {"dataset_name": str(votes), "eval_dataset_name": "name/on-the-hub"}
    datasets = DOCUMENT["datasets"] | {"hard": {"title": "hard", "seeds": [3], "settings": files}}
    before = hashes(write(datasets=datasets))
    assert hashes(write(datasets=datasets)) == before
    votes.write_text("{ }")
    after = hashes(write(datasets=datasets))
    assert {name for name in before if before[name] != after[name]} == {name for name in before if name[0] == "hard"}


def test_the_finished_part_has_whole_methods(write):
    plan = read_plan(write())
    everything = {*plan.starts, *plan.runs}
    assert [run.hash for run in plan.finished(everything).runs] == [run.hash for run in plan.runs]
    left = plan.finished({c for c in everything if (c.method, c.seed) != ("words", 1) and c.dataset != "hard"})
    assert set(left.datasets) == {"easy"}
    assert set(left.methods) == {"ours", "usual"}
    assert left.methods["ours"].datasets == ["easy"]
    assert {c.hash for c in left.runs} <= {c.hash for c in plan.runs}, "what is left out changes no other"
    with pytest.raises(ValueError, match="ours and usual are not finished on easy"):
        plan.finished({c for c in everything if c.method != "usual"})


def test_a_new_warm_start_is_a_new_run(write):
    """What goes on from a warm start depends on it, though its own settings stay what they are."""
    usual = DOCUMENT["methods"]["usual"] | {"settings": {"n_train": 4}}
    methods = DOCUMENT["methods"] | {"usual": usual}
    before, after = (
        hashes(write(methods=methods)),
        hashes(write(methods=methods, common={"n_train": 9, "answer_step": 0.25})),
    )
    assert before["easy", 0, "usual"] != after["easy", 0, "usual"]


def test_a_method_depends_on_the_one_whose_judge_it_names(write):
    taught = {
        "title": "Taught",
        "trainer": "grpo",
        "datasets": ["easy"],
        "settings": {"model_name_or_path": "method:ours"},
    }
    ours = DOCUMENT["methods"]["ours"]
    methods = DOCUMENT["methods"] | {"taught": taught}
    other = methods | {"ours": ours | {"settings": {"answers": "sampled"}}}
    before, after = hashes(write(methods=methods)), hashes(write(methods=other))
    assert before["easy", 0, "taught"] != after["easy", 0, "taught"]
    assert before["easy", 0, "usual"] == after["easy", 0, "usual"] == hashes(write())["easy", 0, "usual"]
    (run,) = (run for run in read_plan(write(methods=methods)).runs if (run.method, run.seed) == ("taught", 1))
    assert [(needed.method, needed.seed) for needed in run.needs] == [("ours", 1)]
    with pytest.raises(ValueError, match="taught: method:hers names no other method of the study"):
        hashes(write(methods=methods | {"taught": taught | {"settings": {"model_name_or_path": "method:hers"}}}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sedes": [1]}, "unknown key 'sedes'"),
        ({"methods": {"x": {"title": "x", "trainer": "grpo", "dataset": "easy"}}}, "x: unknown key 'dataset'"),
        ({"methods": {"x": {"title": "x", "trainer": "grpo"}}}, "x: no datasets; required: title, trainer, datasets"),
        ({"methods": {"ours": {"title": "x", "trainer": "dpo", "datasets": ["easy"]}}}, "unknown trainer 'dpo'"),
        ({"methods": {"ours": {"title": "x", "trainer": "grpo", "datasets": ["flat"]}}}, "unknown dataset 'flat'"),
        ({"figures": {"dataset": "easy", "ours": "ours", "usual": "hers"}}, "unknown method 'hers'"),
        ({"methods": ["ours"]}, r"study\.yaml: methods: expected `name: value` lines, got list \['ours'\]"),
        ({"methods": {"ours": None}}, "methods: ours: no title, trainer, datasets"),
        ({"methods": {"ours": {"title": "x", "trainer": "grpo", "datasets": "easy"}}},
         "ours: datasets: expected a list, got str 'easy'"),
        ({"datasets": {"easy": "votes.jsonl"}}, "datasets: easy: expected `name: value` lines, got str"),
        ({"datasets": {1: {"title": "one"}}}, r"study\.yaml: datasets: got 1 as a name, .*; put it in quotes"),
        ({"figures": {"dataset": "easy", "ours": 5, "usual": "hers"}}, "unknown method 5"),
        ({"seeds": 1}, "seeds: expected a list, got int 1"),
        ({"figures": {"dataset": "flat", "ours": "ours", "usual": "ours"}}, "unknown dataset 'flat'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(write, changes, message):
    with pytest.raises(ValueError, match=message):
        read_plan(write(**changes))


@pytest.mark.parametrize(
    ("content", "message"), [("a: [", "is not YAML"), ("", "is empty"), (None, "cannot be read: No such file")]
)
def test_a_file_that_is_no_plan(tmp_path, content, message):
    path = tmp_path / "study.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_plan(path)
