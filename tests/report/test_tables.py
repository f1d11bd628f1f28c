from autorater.report import summary_table
from autorater.report.tables import fixed_width, markdown_table, settings_rows


def test_fixed_width():
    rows = [("", "votes", "ECE"), "a heading that spans all columns", ("sft", "12", ""), ("grpo", "1,024", "0.1")]
    assert fixed_width(rows, "lr").splitlines() == [
        "      votes  ECE",
        "a heading that spans all columns",
        "sft      12",
        "grpo  1,024  0.1",
    ]
    assert fixed_width([("a", "b"), ("aaa", "bbb")]) == "a    b\naaa  bbb"


def test_markdown_table():
    assert markdown_table(("", "p|q", "n"), [("x\ny", "*1*", "|2|")], "lr").splitlines() == [
        "|  | p\\|q | n |",
        "| --- | ---: | ---: |",
        "| x␊y | *1* | \\|2\\| |",
    ]


def test_fits_the_terminal(judged):
    table = summary_table(*judged)
    assert max(map(len, table.splitlines())) <= 79
    assert len(table.splitlines()) > 15
    assert not any(line.endswith(" ") for line in table.splitlines())


def test_columns_are_aligned(judged):
    before, after = judged
    head, *lines = summary_table(before, after).splitlines()
    (line,) = (line for line in lines if line.startswith("  Log loss") and "[" in line)
    assert line[head.index("before") :].startswith(f"{before.metrics['log_loss']:.3f} [")
    assert line[head.index("after") :].startswith(f"{after.metrics['log_loss']:.3f} [")


def test_secrets_are_hidden():
    settings = {"hub_token": "hf_x", "WANDB_API_KEY": "y", "password": None, "max_tokens": 5, "lr": 1e-4}
    assert settings_rows(settings) == [
        ("hub_token", "(hidden)"),
        ("WANDB_API_KEY", "(hidden)"),
        ("password", "None"),
        ("max_tokens", "5"),
        ("lr", "0.0001"),
    ]
