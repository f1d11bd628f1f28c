import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from autorater.report import write_report, write_report_page
from autorater.report.glossary import Metric, metric_rows

VOID = {"meta", "img"}
HOSTILE = (
    "<script>alert(1)</script></div></details></main></body></html>"
    '<img src=x onerror="alert(2)"><a href="javascript:alert(3)">x</a><style>*{display:none}</style>'
    "{{ 7 * 7 }}{% raw %}' onmouseover='alert(4)\" \x00\x1b[2J\x08\u202egnp.exe\u2066\ud800&lt;b&gt;]]><!--"
)


class Page(HTMLParser):
    """Elements with the names of their attributes, pictures, and the text outside style; every element is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.pictures, self.text, self.open = [], [], "", []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, [name for name, _ in attrs]))
        self.pictures += [dict(attrs)["src"]] if tag == "img" else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


@pytest.fixture
def page(tmp_path):
    def write(before, after, title="A run", settings=None, **details):
        write_report(tmp_path, before, after, title=title, settings=settings or {"reward": "brier"}, **details)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


def hostile(pairs, text=HOSTILE):
    return [
        replace(pair, id=f"{text}{i}", prompt=text, response_a=text, response_b=text, topic=f"{text}{i % 2}")
        for i, pair in enumerate(pairs)
    ]


def judged_on(evaluation, pairs):
    return replace(evaluation, pairs=pairs)


@pytest.mark.drawn
def test_files(judged, page, tmp_path):
    page(*judged)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reliability.png", "report.html"]
    with Image.open(tmp_path / "reliability.png") as picture:
        picture.verify()
        assert (picture.format, picture.size) == ("PNG", (1300, 676))
    assert (tmp_path / "reliability.png").stat().st_size < 150_000


@pytest.mark.drawn
def test_the_same_run_gives_the_same_bytes(judged, page, tmp_path):
    first = page(*judged), (tmp_path / "reliability.png").read_bytes()
    assert (page(*judged), (tmp_path / "reliability.png").read_bytes()) == first


def test_contents(judged, page):
    before, after = judged
    text = Page(page(before, after)).text
    assert "Training improved the judge" in text
    assert f"{before.metrics['brier']:.4f}" in text
    assert f"[{after.metrics['ece_low']:.3f}, {after.metrics['ece_high']:.3f}]" in text
    assert "ECE of a perfect judge" in text
    assert "lower is better" in text
    assert "10. Answer" in text
    assert "11. Answer" not in text
    assert "truth 0." in text
    assert "Calibration by topic" not in text  # these pairs have none


def test_a_warning_and_a_pointwise_judge(judged, page):
    text = Page(page(*judged, warning="8 of 36 pairs <b>", pointwise=True)).text
    assert "Warning: 8 of 36 pairs <b>." in text
    assert "400 held-out pairs, each response read alone." in text
    plain = Page(page(*judged)).text
    assert "400 held-out pairs, each judged in both orders." in plain
    assert "Warning" not in plain


def test_topics_and_no_truth(judged, page):
    pairs = [replace(pair, topic=f"topic {i % 3}", true_probability=None) for i, pair in enumerate(judged[0].pairs)]
    before, after = (judged_on(evaluation, pairs) for evaluation in judged)
    text = Page(page(before, after)).text
    assert "Calibration by topic" in text
    assert "topic 2" in text
    assert "truth 0." not in text
    assert "Hollow diamonds" not in text
    assert "With few votes a pair" in text


def test_nothing_is_loaded_and_nothing_runs(judged, page):
    html = page(*judged)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'<meta http-equiv="Content-Security-Policy" content="{policy}">' in html
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert [source[:22] for source in Page(html).pictures] == ["data:image/png;base64,"] * 2
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in Page(html).elements}


@pytest.mark.drawn
def test_hostile_texts_are_only_text(judged, page):
    before, after = judged
    tame = [replace(pair, topic=str(i % 2)) for i, pair in enumerate(hostile(after.pairs, "x"))]
    expected = Page(page(judged_on(before, tame), judged_on(after, tame), settings={"x": "x"}))
    pairs = hostile(after.pairs)
    html = page(judged_on(before, pairs), judged_on(after, pairs), title=HOSTILE, settings={HOSTILE: HOSTILE})
    shown = Page(html)
    assert shown.elements == expected.elements
    for fragment in (
        "<script>alert(1)</script>",
        "</details>",
        "{{ 7 * 7 }}",
        "{% raw %}",
        "&lt;b&gt;",
        "␀␛[2J␈⟨U+202E⟩gnp",
    ):
        assert fragment in shown.text
    assert not set("\x00\x1b\x08\u202e\u2066") & set(html)


def test_long_texts_are_folded_and_cut(judged, page):
    before, after = judged
    usual = len(page(before, after))
    pairs = [replace(pair, response_b="<" * 1_000_000) for pair in after.pairs]
    html = page(judged_on(before, pairs), judged_on(after, pairs))
    assert len(html) < usual + 10 * 30_000
    assert "Response B (1,000,000 characters)" in html
    assert "[…994,000 characters left out…]" in html


def test_a_page_of_any_run(tmp_path):
    metrics = [Metric("kl", "KL to the votes", "in nats", "lower")]
    before, after = ({"kl": kl, "kl_low": kl - 0.1, "kl_high": kl + 0.1} for kl in (0.9, 0.2))
    values = {"title": "A run", "headline": "The KL fell & fell.", "settings": {"hub_token": "secret"}}
    write_report_page(tmp_path, groups={"Items": metric_rows(metrics, before, after)}, **values)
    shown = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert shown.pictures == []
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    for fragment in (
        "The KL fell & fell.",
        "0.200",
        "[0.100, 0.300]",
        "better",
        "in nats; lower is better",
        "(hidden)",
    ):
        assert fragment in shown.text
    write_report_page(tmp_path, groups={}, picture=b"a picture", **values)
    assert (tmp_path / "reliability.png").read_bytes() == b"a picture"
    assert Page((tmp_path / "report.html").read_text(encoding="utf-8")).pictures == [
        "data:image/png;base64,YSBwaWN0dXJl"
    ]


@pytest.mark.drawn
def test_one_pair(make_pairs, make_evaluation, page):
    pairs = make_pairs([1.0])
    text = Page(page(make_evaluation(pairs, [0.5], [0.5]), make_evaluation(pairs, [1.0], [0.0]))).text
    assert "no clear difference" in text


def test_metrics_of_a_judge_without_intervals(make_pairs, make_evaluation, page):
    pairs = make_pairs(np.tile([0.0, 1.0], 10), n_votes=None)
    evaluation = make_evaluation(pairs, np.full(20, 0.5), np.full(20, 0.5), n_bootstrap=0)
    assert "hardly vary" in Page(page(evaluation, evaluation)).text


def test_other_pairs_are_refused_before_anything_is_written(make_pairs, make_evaluation, tmp_path):
    before = make_evaluation(make_pairs([1.0, 0.0]), [0.5, 0.5], [0.5, 0.5])
    after = make_evaluation(make_pairs([1.0]), [0.5], [0.5])
    with pytest.raises(ValueError, match="same pairs"):
        write_report(tmp_path, before, after, title="A run", settings={})
    assert list(tmp_path.iterdir()) == []


def test_a_report_needs_no_torch():
    unwanted = {"torch", "transformers", "matplotlib.pyplot"}
    code = f"import sys, autorater.report; sys.exit(', '.join({unwanted} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr.strip() == ""
    )
