import pytest

from autorater.report.glossary import METRICS, metric_groups


def rows_by_key(before, after):
    return {row.metric.key: row for rows in metric_groups(before, after).values() for row in rows}


def with_interval(key, value, low, high):
    return {key: value, f"{key}_low": low, f"{key}_high": high}


def test_every_metric_is_one_that_judges_have(judged):
    with_weights, with_several_votes = {"n_pairs_effective"}, {"alpha_annotators", "alpha_with_judge"}
    assert {metric.key for metric in METRICS} - with_weights - with_several_votes <= set(judged[0].metrics)
    assert len({metric.key for metric in METRICS}) == len(METRICS)


def test_labels_fit_the_terminal():
    assert max(len(metric.label) for metric in METRICS) <= 27


def test_metrics_that_are_absent_have_no_row():
    assert list(rows_by_key({"brier": 0.2}, {"brier": 0.1, "ece": 0.05})) == ["brier", "ece"]
    assert metric_groups({}, {"something_else": 1.0}) == {}


def test_formatted_values():
    row = rows_by_key({"ece": 0.25}, with_interval("ece", 0.0456, 0.0401, 0.0499))["ece"]
    assert row.before.text == "0.250"
    assert row.after.text == "0.046 [0.040, 0.050]"
    assert rows_by_key({}, {"distinct_answers": 17.0})["distinct_answers"].after.text == "17"
    assert rows_by_key({}, {"distinct_answers": 17.0})["distinct_answers"].before.text == "-"
    assert rows_by_key({}, {"symmetry_deviation_mean": 0.1})["symmetry_deviation_mean"].after.text == "+0.100"


def test_orders_averaged_have_a_heading_of_their_own():
    headings = list(metric_groups({}, {"brier": 0.2, "brier_symmetrized": 0.1}))
    assert headings == ["Each order separately", "Both orders averaged"]


@pytest.mark.parametrize(
    ("key", "before", "after", "change"),
    [
        ("brier", (0.3, 0.28, 0.32), (0.2, 0.18, 0.22), "better"),
        ("brier", (0.2, 0.18, 0.22), (0.3, 0.28, 0.32), "worse"),
        ("brier", (0.2, 0.18, 0.22), (0.21, 0.19, 0.23), ""),
        ("agreement", (0.6, 0.58, 0.62), (0.7, 0.68, 0.72), "better"),
        ("agreement", (0.7, 0.68, 0.72), (0.6, 0.58, 0.62), "worse"),
        ("symmetry_deviation_mean", (-0.3, -0.4, -0.2), (0.1, 0.05, 0.15), "better"),
        ("symmetry_deviation_mean", (0.1, 0.05, 0.15), (-0.3, -0.4, -0.2), "worse"),
        ("symmetry_deviation_mean", (-0.16, -0.17, -0.14), (0.16, 0.14, 0.17), ""),
        ("symmetry_deviation_mean", (-0.16, -0.17, -0.14), (0.01, -0.02, 0.04), "better"),
        ("sharpness", (0.1, 0.09, 0.11), (0.2, 0.19, 0.21), ""),
    ],
)
def test_change_where_intervals_do_not_overlap(key, before, after, change):
    assert rows_by_key(with_interval(key, *before), with_interval(key, *after))[key].change == change


def test_no_change_without_intervals():
    assert rows_by_key({"brier": 0.3}, {"brier": 0.1})["brier"].change == ""
