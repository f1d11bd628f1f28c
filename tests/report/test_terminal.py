from autorater.report import summary_table


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
