"""What is printed reaches terminals that lack some of its signs."""

import io
import sys

import pytest

from anylatent.core.cli.main import main


@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_a_terminal_of_ascii_shows_escapes(errors, monkeypatch):
    shown = io.BytesIO()
    stream = io.TextIOWrapper(shown, encoding="ascii", errors=errors)
    monkeypatch.setattr(sys, "stdout", stream)
    main(["list"])
    stream.flush()
    text = shown.getvalue().decode("ascii")
    assert "dpmpp_2m" in text and ("\\u" in text) == (errors == "strict")


def test_a_terminal_of_utf8_shows_all(monkeypatch):
    shown = io.BytesIO()
    stream = io.TextIOWrapper(shown, encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    main(["list"])
    stream.flush()
    assert not shown.getvalue().isascii() and "\\u" not in shown.getvalue().decode()
