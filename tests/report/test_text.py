from autorater.report.text import visible, visible_line


def test_ordinary_text_stays():
    text = "Grüße, 你好 👩‍👩‍👧 می‌خواهم — “x²”\n\tnext line"
    assert visible(text) == text


def test_what_is_invisible_shows():
    assert visible("a\x00b\x1b[31m\x7f\x85") == "a␀b␛[31m␡⟨U+0085⟩"
    assert visible("\u202egnp.exe\u2066\u200b\ufeff\u2028") == "⟨U+202E⟩gnp.exe⟨U+2066⟩⟨U+200B⟩⟨U+FEFF⟩⟨U+2028⟩"
    assert visible("\U000e0041") == "⟨U+E0041⟩"


def test_half_surrogates_can_be_written():
    assert visible("\ud800x").encode("utf-8").decode() == "⟨U+D800⟩x"


def test_line_ends():
    assert visible("a\r\nb\rc") == "a\nb␍c"
    assert visible_line("a\nb\tc") == "a␊b␉c"


def test_long_texts_keep_start_and_end():
    shown = visible("s" * 500_000 + "e" * 500_000, limit=1000)
    assert shown == "s" * 750 + " […999,000 characters left out…] " + "e" * 250
    assert visible("x" * 1000, limit=1000) == "x" * 1000
