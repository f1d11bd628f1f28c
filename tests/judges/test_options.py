"""Options of the commands that ask a judge."""

import pytest

from autorater.data.errors import UserError
from autorater.judges.options import CommandParser, add_server_options, is_address, parse_given


def parsed(*argv):
    parser = CommandParser(prog="test")
    add_server_options(parser)
    return parse_given(parser, argv)


def test_headers_with_values_of_the_environment(monkeypatch):
    monkeypatch.setenv("TOKEN", "s$cret")
    args, given = parsed("--header", "api-key: $TOKEN", "--header", "X-Team=${TOKEN}", "--timeout", "60")
    assert args.header == [("api-key", "s$cret"), ("X-Team", "s$cret")]
    assert sorted(given) == ["header", "timeout"]
    assert parsed()[0].header == []
    with pytest.raises(UserError, match=r"\$MISSING is not set in the environment"):
        parsed("--header", "api-key: $MISSING")


def test_addresses():
    assert all(
        map(is_address, ("http://localhost:8000/v1", "https://api.example.com/v1?version=1", "http://[::1]:8/v1"))
    )
    assert not any(map(is_address, ("localhost:8000/v1", "http://127.0.0.1:port/v1", "http://", "ftp://x/v1", "")))
