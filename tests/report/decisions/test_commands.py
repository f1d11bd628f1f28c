"""The commands `autorater winrate`, `defer` and `gate`, from files to files."""

import json

import numpy as np
import pytest
from scipy.special import expit

from autorater import load_pairs
from autorater.cli import command
from autorater.data.errors import DataError
from autorater.judges.judged import judged_in_both_orders, one_a_pair, read_judged
from autorater.metrics import compare_with_baseline, deferral_threshold, estimate_win_rate, rank_systems
from autorater.report.decisions.page import deferral_figure


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def rows():
    """600 judged pairs of three systems, three a prompt; one in three has five votes."""
    generator = np.random.default_rng(0)
    strengths = {"ada": 0.6, "bob": 0.0, "<b>cyd</b>": -0.6}
    rows = []
    for i in range(600):
        a, b = generator.permutation(list(strengths))[:2]
        p = expit(strengths[b] - strengths[a] + 1.5 * generator.normal())
        row = {"id": f"pair {i}", "prompt": f"prompt {i // 3}", "response_a": f"x {i}", "response_b": "y"}
        row |= {"model_a": str(a), "model_b": str(b), "p_ab": float(p), "p_ba": float(1 - p) * 0.9}
        if generator.random() < 1 / 3:
            votes_b = int(generator.binomial(5, p))
            row |= {"votes_a": 5 - votes_b, "votes_b": votes_b}
        rows.append(row)
    return rows


@pytest.mark.drawn
def test_win_rates_of_systems_and_their_ranking(tmp_path, rows, capsys):
    judged = write(tmp_path / "judged.jsonl", rows)
    command(["winrate", judged, "--output_dir", str(tmp_path), "--width", "0.05"])
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "winrate.json").read_text())

    b = np.array([row["model_b"] == "bob" for row in rows])
    here = b | np.array([row["model_a"] == "bob" for row in rows])
    p = np.array([(row["p_ab"] + 1 - row["p_ba"]) / 2 for row in rows])
    votes = np.array([row["votes_b"] / 5 if "votes_b" in row else np.nan for row in rows])
    prompts = np.arange(600) // 3
    won, vote = np.where(b, p, 1 - p), np.where(b, votes, 1 - votes)
    voted = ~np.isnan(votes)
    expected = estimate_win_rate(
        won[here & ~voted],
        won[here & voted],
        vote[here & voted],
        clusters=(prompts[here & ~voted], prompts[here & voted]),
    )
    assert {k: v for k, v in results["systems"]["bob"].items() if k != "more_votes"} == pytest.approx(expected)
    names = [[row[column] for row in rows] for column in ("model_a", "model_b")]
    ranking = rank_systems(p, votes, *names, clusters=prompts)
    assert [row["system"] for row in results["ranking"]] == [row.system for row in ranking]
    assert results["ranking"][0]["low"] == pytest.approx(ranking[0].low)
    assert next(iter(results["systems"])) == "ada"
    assert f"bob: win rate {expected['value']:.3f} [{expected['low']:.3f}, {expected['high']:.3f}]" in printed
    assert "more votes for a width of 0.05" in printed
    assert "rank 1 (" in printed
    page = (tmp_path / "winrate.html").read_text()
    assert "<b>cyd</b>" not in page
    assert "&lt;b&gt;cyd&lt;/b&gt;" in page
    assert page.count("<img") == 1


def test_weights_are_not_used_and_that_is_a_warning(tmp_path, rows, capsys):
    judged = write(tmp_path / "judged.jsonl", rows)
    weighted = write(tmp_path / "weighted.jsonl", [row | {"weight": 1 + i % 3} for i, row in enumerate(rows)])
    printed = {}
    for path in (judged, weighted):
        command(["winrate", path, "--output_dir", str(tmp_path)])
        printed[path] = capsys.readouterr()
    assert printed[judged].out == printed[weighted].out
    assert ["weight is not used" in printed[path].err for path in (judged, weighted)] == [False, True]


def test_without_systems_it_is_the_rate_of_response_b(tmp_path, rows, capsys):
    for row in rows:
        del row["model_a"], row["model_b"]
    command(["winrate", write(tmp_path / "judged.jsonl", rows), "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "winrate.json").read_text())
    assert list(results["systems"]) == ["response B"]
    assert results["ranking"] == []
    assert capsys.readouterr().out.startswith("response B: win rate 0.")


def test_pairs_for_people_are_the_least_certain_first(tmp_path, rows, capsys):
    judged = write(tmp_path / "judged.jsonl", rows)
    command(["defer", judged, "--alpha", "0.2", "--output_dir", str(tmp_path)])
    results = json.loads((tmp_path / "defer.json").read_text())
    p = np.array([(row["p_ab"] + 1 - row["p_ba"]) / 2 for row in rows])
    voted = np.array(["votes_a" in row for row in rows])
    votes = np.array([[row.get("votes_a", 0), row.get("votes_b", 0)] for row in rows])[voted].T
    threshold = deferral_threshold(p[voted], *votes, alpha=0.2, delta=0.05)
    assert results["threshold"] == pytest.approx(threshold)
    people = [json.loads(line) for line in (tmp_path / "for_people.jsonl").read_text().splitlines()]
    margins = np.abs(np.array([row["probability"] for row in people]) - 0.5)
    assert (np.diff(margins) >= 0).all()
    assert margins.max() < threshold
    assert len(people) == results["n_for_people"] == ((np.abs(p - 0.5) < threshold) & ~voted).sum()
    assert {"prompt", "response_a", "response_b"} <= set(people[0])
    assert not any("votes_a" in row for row in people)
    assert f"{results['n_standing']} of {(~voted).sum()} judgments may stand" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["judged", "--votes"])
def test_votes_that_people_filled_in_are_not_overwritten(tmp_path, rows, capsys, option):
    judged, people = write(tmp_path / "judged.jsonl", rows), tmp_path / "for_people.jsonl"
    write(people, [row | {"votes_a": 1, "votes_b": 2} for row in rows])
    filled_in = people.read_text()
    sources = [str(people)] if option == "judged" else [judged, option, str(people)]
    with pytest.raises(SystemExit, match="2"):
        command(["defer", *sources, "--alpha", "0.2", "--output_dir", str(tmp_path)])
    assert f"{people} would be overwritten, and it is the file to read; choose another" in capsys.readouterr().err
    assert people.read_text() == filled_in
    assert not (tmp_path / "defer.json").exists()
    command(["defer", *sources, "--alpha", "0.2", "--output_dir", str(tmp_path / "again")])


def one_row_a_vote(rows):
    """Every vote of the rows in a row of its own, every other one with the responses in the other order."""
    for row in rows:
        for vote in range(5) if "votes_a" in row else ():
            one = row | {"id": f"{row['id']}/{vote}"}
            one |= {"votes_a": int(vote < row["votes_a"]), "votes_b": int(vote >= row["votes_a"])}
            if vote % 2:
                for a, b in (("response_a", "response_b"), ("votes_a", "votes_b"), ("p_ab", "p_ba")):
                    one |= {a: one[b], b: one[a]}
                one["prompt"] += "\n"
            yield one
        if "votes_a" not in row:
            yield row


@pytest.mark.parametrize("with_texts", [True, False])
def test_rows_that_show_the_same_texts_are_one_pair(tmp_path, rows, capsys, with_texts):
    votes = [*one_row_a_vote(rows)]
    if not with_texts:
        clusters = {row["response_a"]: number for number, row in enumerate(rows)} | {"y": None}
        for row in votes:
            number = clusters[row.pop("response_a")]
            row["cluster"] = clusters[row.pop("response_b")] if number is None else number
    results, for_people = [], []
    for name, some in (("pairs", rows), ("votes", votes)):
        command(["defer", write(tmp_path / f"{name}.jsonl", some), "--alpha", "0.2", "--output_dir", str(tmp_path)])
        results.append(json.loads((tmp_path / "defer.json").read_text()))
        for_people.append([json.loads(line)["id"] for line in (tmp_path / "for_people.jsonl").open()])
    assert results[0] == pytest.approx(results[1])
    assert for_people[0] == for_people[1]
    n_repeated = 4 * results[0]["n_votes"]
    printed = capsys.readouterr().out
    assert printed.count("repeat a pair") == 1
    assert f"{n_repeated} rows with votes repeat a pair; the votes of a pair count together" in printed


def test_repeated_votes_are_no_evidence(tmp_path, capsys):
    """Twelve pairs cannot support 0.1 with 95 % confidence, however many rows their votes are in."""
    shown = [{"prompt": f"p {i}", "response_a": "a", "response_b": "b", "probability": 0.9} for i in range(32)]
    voted = [row | {"votes_a": 0, "votes_b": 1} for row in shown[:12] for _ in range(3)]
    command(["defer", write(tmp_path / "judged.jsonl", voted + shown[12:]), "--output_dir", str(tmp_path)])
    assert "No judgment may stand: the 12 pairs with votes" in capsys.readouterr().out
    assert json.loads((tmp_path / "defer.json").read_text())["n_judged"] == 20


def test_every_vote_of_a_pair_counts_alike(tmp_path):
    """Nine of eleven prefer A: in counts, with the second response first, in single rows, and in a second file."""
    texts = {"prompt": "p", "response_a": "a", "response_b": "b", "probability": 0.9}
    turned = {"prompt": "p", "response_a": "b", "response_b": "a", "probability": 0.1}
    rows = [texts | {"votes_a": 5, "votes_b": 0}, turned | {"label": 1, "n_votes": 4}]
    rows += [texts | {"label": 1}, texts | {"votes_a": 0, "votes_b": 1}]
    probabilities, labels = one_a_pair(read_judged(write(tmp_path / "judged.jsonl", rows)))
    assert (probabilities.tolist(), labels.tolist()) == ([0.9], [pytest.approx(2 / 11, abs=1e-6)])
    votes = [{"id": str(i), "votes_a": 4 * (i == 0), "votes_b": int(i > 0)} for i in range(4)]
    votes[1] = {"id": "1", "votes_a": 0, "votes_b": 2}
    _, labels = one_a_pair(read_judged(tmp_path / "judged.jsonl", write(tmp_path / "votes.jsonl", votes)))
    assert labels.tolist() == [pytest.approx(2 / 8, abs=1e-6)], "the turned row's two are for A"


def test_other_criteria_or_texts_make_another_pair(tmp_path):
    """In the last two the order of the texts is another one; the messages of the last are the texts of the first."""
    texts = {"prompt": "p", "response_a": "a", "response_b": "b"}
    turned = {"prompt": [{"role": "user", "content": "p"}], "response_a": "b ", "response_b": "a"}
    shown = [texts, texts | {"criteria": "short"}, texts | {"group": "x"}, texts | {"response_b": ""}, {}, turned]
    rows = [row | {"probability": 0.9, "votes_a": 0, "votes_b": 1} for row in shown]
    pairs = read_judged(write(tmp_path / "judged.jsonl", rows))
    probabilities, labels = one_a_pair(pairs)
    np.testing.assert_allclose(probabilities, [0.5, 0.9, 0.9, 0.9, 0.9])
    np.testing.assert_allclose(labels, [0.5, 1, 1, 1, 1])


def test_answers_on_the_grid_stand_on_both_sides_of_a_half(tmp_path):
    """In binary 0.7 − 0.5 is below 0.5 − 0.3, the threshold of these votes."""
    voted = [{"id": f"v{i}", "probability": 0.3, "votes_a": 1, "votes_b": 0} for i in range(100)]
    others = [{"id": f"o{i}", "probability": p} for i, p in enumerate([0.3, 0.7, 0.31, 0.69])]
    judged = write(tmp_path / "judged.jsonl", [*voted, *others])
    command(["defer", judged, "--alpha", "0.1", "--output_dir", str(tmp_path)])
    assert json.loads((tmp_path / "defer.json").read_text())["n_standing"] == 2


def test_refuses_where_the_votes_cannot_support_it(tmp_path, rows, capsys):
    command(["defer", write(tmp_path / "judged.jsonl", rows), "--alpha", "0.01", "--output_dir", str(tmp_path)])
    assert "No judgment may stand" in capsys.readouterr().out
    results = json.loads((tmp_path / "defer.json").read_text())
    assert results["threshold"] is None
    assert (
        results["n_for_people"] == results["n_judged"] == len((tmp_path / "for_people.jsonl").read_text().splitlines())
    )


@pytest.mark.parametrize(("alpha", "answer"), [("0.2", "of further pairs may stand"), ("0.01", "do not show")])
def test_defer_says_that_every_pair_has_votes(tmp_path, rows, capsys, alpha, answer):
    voted = [row for row in rows if "votes_a" in row]
    command(["defer", write(tmp_path / "judged.jsonl", voted), "--alpha", alpha, "--output_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    assert f"ll {len(voted)} pairs have votes, so none is left to decide on" in printed
    assert answer in printed
    assert " 0 " not in printed


@pytest.mark.drawn
@pytest.mark.parametrize("risks", [np.linspace(0.4, 0.2, 100), np.zeros(100)])
def test_the_curve_of_a_deferral_is_visible(risks):
    figure = deferral_figure(np.linspace(0.01, 1, 100), risks, 0.05, share=1.0)
    figure.draw_without_rendering()
    (legend,), (axes,) = figure.legends, figure.axes
    shown = legend.get_window_extent()
    assert not shown.overlaps(axes.get_window_extent())
    assert 0 <= shown.x0 < shown.x1 <= figure.bbox.width
    assert axes.get_ylim()[0] < risks.min(), "a curve of zeros is not on the axis"


def test_predictions_of_a_run_with_votes_in_another_file(tmp_path, caplog):
    judged = write(
        tmp_path / "predictions.jsonl",
        [
            {"id": "x", "order": "ab", "probability": 0.8, "label": 0.9},
            {"id": "x", "order": "ba", "probability": 0.4, "label": 0.1},
            {"id": "y", "order": "ba", "probability": 0.4, "label": 0.2},
        ],
    )
    x, y = read_judged(judged)
    assert (x.probability, x.label) == pytest.approx((0.7, 0.9))
    assert (y.probability, y.label) == pytest.approx((0.6, 0.8))
    votes = write(tmp_path / "votes.jsonl", [{"id": "y", "votes_a": 1, "votes_b": 2, "votes_tie": 1}])
    x, y = read_judged(judged, votes)
    assert f"the votes of 1 judged pair are not used beside those of {votes}" in caplog.text
    assert np.isnan(x.label)
    assert y.label == pytest.approx(2.5 / 4)


def test_votes_of_both_orders_are_those_of_the_pair(tmp_path):
    shown = [{"id": i, "order": order, "probability": 0.6} for i in "xy" for order in ("ab", "ba")]
    one_row = [row | ({"votes_a": 1, "votes_b": 3} if row["order"] == "ab" else {}) for row in shown]
    for rows in (one_row, one_row[::-1]):
        assert [pair.label for pair in read_judged(write(tmp_path / "judged.jsonl", rows))] == [0.75, 0.75]
    joined = [row | {"votes_a": 1, "votes_b": 3} for row in shown]
    with pytest.raises(DataError, match=r"line 2: id 'x': the votes of its two orders differ: 0.75 and 0.25 for B"):
        read_judged(write(tmp_path / "judged.jsonl", joined))


def test_audits_read_the_votes_beside_recorded_verdicts(tmp_path):
    rows = [{"id": i, "p_ab": 0.6, "p_ba": 0.3, "votes_a": i, "votes_b": 1} for i in range(3)]
    (read,) = {tuple(pair.label for pair in judged_in_both_orders(write(tmp_path / "a.jsonl", rows))())}
    assert read == (1, 0.5, 1 / 3)


def test_a_rare_system_without_votes_is_left_out(tmp_path, rows, capsys):
    rare = [rows[0] | {"id": f"rare {i}", "model_a": "rare", "votes_a": None, "votes_b": None} for i in range(3)]
    new = [row | {"id": f"new {i}", "model_a": "new", "votes_a": 1, "votes_b": 1} for i, row in enumerate(rows[:20])]
    judged = write(tmp_path / "judged.jsonl", [*rows, *rare, *new])
    command(["winrate", judged, "--output_dir", str(tmp_path), "--width", "0.05"])
    results = json.loads((tmp_path / "winrate.json").read_text())["systems"]
    assert "no votes, so no win rate: rare (3 pairs)" in capsys.readouterr().err
    assert {*results} == {"ada", "bob", "<b>cyd</b>", "new"}
    assert (results["new"]["method"], results["new"]["value"]) == ("votes alone", 0.5)


@pytest.mark.parametrize("answers", [{"probability": 0.6}, {"p_ab": 0.6, "p_ba": 0.4}])
def test_votes_are_read_as_by_load_pairs(tmp_path, answers):
    votes = [
        ({"votes_a": None, "votes_b": float("nan"), "votes_tie": None, "label": 0.3}, 0.3),
        ({"votes_a": 0, "votes_b": 0, "votes_tie": 2}, 0.5),
        ({"votes_a": 1, "votes_b": 3, "votes_tie": None, "label": 0.75}, 0.75),
        ({"votes_a": 0, "votes_b": 0, "label": None}, np.nan),
    ]
    rows = [{"id": i, **answers, **row} for i, (row, _) in enumerate(votes)]
    pairs = read_judged(write(tmp_path / "judged.jsonl", rows))
    assert [pair.label for pair in pairs] == pytest.approx([label for _, label in votes], nan_ok=True)
    for row, message in (
        ({"votes_a": None, "votes_b": None, "votes_tie": 2}, "column 'votes_a': got None; expected a whole number"),
        ({"votes_a": 3, "votes_b": 0, "label": 0.9}, "column 'label': got 0.9; expected 0, the share for B"),
    ):
        judged = write(tmp_path / "judged.jsonl", [*rows[:1], {"id": "x", **answers, **row}])
        with pytest.raises(DataError, match=f"judged.jsonl: (line 2|pair 'x'): {message}"):
            read_judged(judged)
        with pytest.raises(DataError, match=message):
            load_pairs([{"prompt": "p", "response_a": "a", "response_b": "b", **row}])


def test_gate_finds_a_loss_and_only_that(tmp_path, rows, capsys):
    for row in rows:
        row["label"] = 0.5 + 0.3 * (row["p_ab"] > 0.5) - 0.3 * (row["p_ab"] < 0.5)
        row.pop("votes_a", None), row.pop("votes_b", None)
    judged = write(tmp_path / "baseline.jsonl", rows)
    worse = [{**row, "p_ba": 1 - row["p_ba"]} if i % 8 == 0 else row for i, row in enumerate(rows)]
    current = write(tmp_path / "current.jsonl", worse[::-1])
    with pytest.raises(SystemExit, match="3"):
        command(["gate", judged, current, "--output_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "gate.md").read_text()
    assert printed.startswith("The judge is worse than the baseline: Brier score, ")
    answers = [np.array([[row["p_ab"], row["p_ba"]] for row in side]) for side in (rows, worse)]
    options = {"clusters": np.arange(600) // 3, "labels": [row["label"] for row in rows]}
    expected = {change.metric: change.p_value for change in compare_with_baseline(*answers, **options)}
    results = json.loads((tmp_path / "gate.json").read_text())
    assert {change["metric"]: change["p_value"] for change in results["changes"]} == pytest.approx(expected)

    command(["gate", judged, judged, "--output_dir", str(tmp_path)])
    assert capsys.readouterr().out.startswith("The judge is not clearly worse. 600 pairs")
    assert json.loads((tmp_path / "gate.json").read_text())["failed"] is False


def test_gate_reads_the_folders_of_runs(tmp_path, capsys):
    folders = [tmp_path / name for name in ("before", "after")]
    for folder in folders:
        folder.mkdir()
        rows = [{"id": i, "order": order, "probability": 0.4} for i in range(4) for order in ("ab", "ba")]
        write(folder / "predictions.jsonl", rows)
    command(["gate", *map(str, folders), "--output_dir", str(tmp_path)])
    assert "4 pairs compared" in capsys.readouterr().out
    (folders[1] / "predictions.jsonl").unlink()
    with pytest.raises(SystemExit, match="2"):
        command(["gate", *map(str, folders), "--output_dir", str(tmp_path)])
    assert f"{folders[1]}: no {folders[1] / 'predictions.jsonl'}; expected the folder" in capsys.readouterr().err


def test_one_method_of_an_evaluation_is_named(tmp_path, capsys):
    answers = {"answer_mean": 0.4, "tokens": 0.6, "probe": 0.7, "panel": 0.2, "pointwise": 0.1}
    rows = [
        {"id": i, "order": order, "probabilities": answers, **({"label": float(order == "ab")} if i < 2 else {})}
        for i in range(4)
        for order in ("ab", "ba")
    ]
    judged = write(tmp_path / "predictions.jsonl", rows)
    output = ["--output_dir", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        command(["gate", judged, judged, *output])
    error = capsys.readouterr().err
    assert "has 5 methods (answer_mean, tokens, probe, …); expected one of them, which --method of winrate" in error
    plain = write(
        tmp_path / "plain.jsonl", [{"id": i, "p_ab": 0.4, "p_ba": 0.5, "label": 1 - i % 2} for i in range(3)]
    )
    for argv in (["winrate", plain], ["defer", plain], ["gate", plain, plain]):
        with pytest.raises(SystemExit, match="2"):
            command([*argv, *output, "--method", "tokens"])
        assert "--method: no effect, because the judged pairs have no column probabilities" in capsys.readouterr().err
    for argv in (["winrate", judged, "--confidence", "0.999"], ["defer", judged, "--delta", "0.001"]):
        command([*argv, *output, "--method", "tokens"])
        page = (tmp_path / f"{argv[0]}.html").read_text()
        assert "99.9 % confidence" in page
        assert "100% confidence" not in page


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 1, "p_ab": 0.5, "p_ba": 0.5}], "2 ids of the other run are missing, first '2'"),
        ([{"id": i, "p_ab": 0.5, "p_ba": None} for i in (1, 2, 3)], "3 pairs lack an order"),
        (
            [{"id": i, "p_ab": 0.5, "p_ba": 0.5, "label": 1 if i == 1 else None} for i in (1, 2, 3)],
            "2 of 3 pairs have no",
        ),
    ],
)
def test_gate_requires_the_same_pairs(tmp_path, capsys, rows, message):
    judged = write(tmp_path / "baseline.jsonl", [{"id": i, "p_ab": 0.4, "p_ba": 0.5} for i in (1, 2, 3)])
    with pytest.raises(SystemExit, match="2"):
        command(["gate", judged, write(tmp_path / "current.jsonl", rows), "--output_dir", str(tmp_path)])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "votes", "message"),
    [
        ([{"id": 1}], None, "expected the columns probability or p_ab, p_ba"),
        ([{"id": 1, "probability": 1.5}], None, "line 1: column 'probability': got 1.5"),
        ([{"id": 1, "probability": None}], None, "got None; expected a number in"),
        ([{"id": 1, "probability": 0.5}] * 2, None, "line 2: id '1' is repeated"),
        ([{"id": 1, "p_ab": None, "p_ba": None}], None, "pair '1' has no answer of the judge"),
        ([{"id": 1, "probability": 0.5, "order": "x"}], None, "column 'order': got 'x'; expected ab or ba"),
        ([{"id": 1, "probability": 0.5}], [{"id": 2, "label": 1}], "1 ids are not among the judged pairs, first '2'"),
        ([{"id": 1, "probability": 0.5}], [{"label": 1}], "column 'id': got None"),
        ([{"id": 1, "probability": 0.5, "votes_a": -1}], None, "column 'votes_a': got -1"),
    ],
)
def test_bad_files_are_named(tmp_path, rows, votes, message):
    judged = write(tmp_path / "judged.jsonl", rows)
    with pytest.raises(DataError, match=message):
        read_judged(judged, votes and write(tmp_path / "votes.jsonl", votes))


@pytest.mark.parametrize(
    ("argv", "label", "message"),
    [
        (["winrate", "--width", "2"], 1, "--width: '2': expected a number between 0 and 1"),
        (["winrate", "--cluster_by", "topic"], 1, "--cluster_by: a pair has no 'topic'"),
        (["winrate"], None, "none of 2 pairs has votes"),
        (["defer", "--alpha", "0"], 1, "--alpha: '0': expected a number between 0 and 1"),
        (["defer"], None, "none of 2 pairs has votes"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path, capsys, argv, label, message):
    judged = write(tmp_path / "judged.jsonl", [{"probability": 0.5, "label": label}, {"probability": 0.6}])
    with pytest.raises(SystemExit, match="2"):
        command([argv[0], judged, *argv[1:], "--output_dir", str(tmp_path)])
    assert message in capsys.readouterr().err
