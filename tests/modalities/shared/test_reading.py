"""One reader of text: marks, encodings, line breaks, and lines that are none."""

import codecs
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anylatent.core.support.files import UserError
from anylatent.modalities.shared.reading import check_encoding, lines_of, read_text

LINES = ["a red square", "", "un carré rouge", "красный 🟥", "ਊĊ ਊ"]  # U+0A0A is 0x0a twice
MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.fixture
def read(tmp_path):
    def read(content, encoding=""):
        (tmp_path / "it").write_bytes(content)
        return read_text(tmp_path / "it", encoding)

    return read


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", MARKS)
def test_marks_say_the_encoding_whatever_is_asked(read, kind, end):
    content = MARKS[kind] + "".join(f"{line}{end}" for line in LINES).encode(kind)
    for asked in ("", "latin-1"):
        text = read(content, asked)
        assert (text.lines, text.bad) == (LINES, {})


def test_without_a_mark_it_is_utf8_or_what_is_asked(read):
    assert read("\n".join(LINES).encode()).lines == LINES
    assert read("é\nü".encode("latin-1"), "latin-1").lines == ["é", "ü"]
    assert read("é\nü".encode("utf-16-le"), "utf-16").lines == ["é", "ü"]
    assert read("表\n示".encode("shift_jis"), "shift_jis").lines == ["表", "示"]
    assert read(b"").lines == [] and read(codecs.BOM_UTF8).lines == []


def test_one_bad_byte_costs_one_line_and_is_named(read):
    text = read(b"one\ncarr\xe9 rouge\nthree\n")
    assert text.lines == ["one", "", "three"]
    assert text.problems("a.txt") == ["a.txt, line 2: byte 0xe9 at place 5 is no UTF-8"]
    wide = codecs.BOM_UTF16_LE + "one\n".encode("utf-16-le") + b"\x00\xd8" + b"\n\x00" + b"x\x00"
    assert read(wide).lines == ["one", "", "x"] and list(read(wide).bad) == [2]
    assert list(read(wide + b"y").bad) == [2, 3]  # half a unit at the end


def test_utf16_without_a_mark_is_no_text_in_silence(read):
    text = read("one\ntwo".encode("utf-16-le"))
    assert "zero bytes" in text.bad[1] and not any(text.lines)


def test_names_of_no_encoding_are_refused():
    for name in ("klingon", "base64", "rot13"):
        with pytest.raises(UserError, match=f"encoding={name}: .* common ones are utf-8"):
            check_encoding(name)
    check_encoding("")
    check_encoding("cp1252")


def test_lines_come_one_by_one(tmp_path):
    path = tmp_path / "long"
    for mark, kind in ((b"", "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le")):
        path.write_bytes(mark + (("x" * 99 + "\n") * 100_000).encode(kind))
        tracemalloc.start()
        assert sum(len(line) for line, _ in lines_of(path)) == 9_900_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8e6


@settings(max_examples=500, deadline=None)
@given(content=st.binary(max_size=200), mark=st.sampled_from([b"", *MARKS.values()]))
def test_any_bytes_are_lines_or_named(tmp_path_factory, content, mark):
    """No byte of a good line is lost, and no bad line is kept."""
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(mark + content)
    text = read_text(path)
    assert all(text.lines[number - 1] == "" for number in text.bad)
    assert not any("\n" in line or "\r" in line or "\0" in line for line in text.lines)
    for kind, own in MARKS.items():
        if mark == own and kind != "utf-16-le":
            expected = content.decode(kind, "replace")
            if "\ufffd" not in expected and "\0" not in expected:
                breaks = expected.replace("\r\n", "\n").replace("\r", "\n")
                assert "".join(text.lines) == breaks.replace("\n", "")
