"""Damaged files of text: each line is a document, empty, or told; none ends the folder."""

import pytest

from anylatent.modalities.shared.reading import read_text
from anylatent.modalities.text.data import TextFile
from tests.modalities.mutation import mutated

COUNT = 500
LINES = (
    "a red square\nbelow a gr\u00fcner Kreis, \u7d05\u3044\n\nthird\n",
    "a line\r\nand another \U0001f7e5\r\n",
)
CODES = ("utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_every_line_is_accounted_for(tmp_path, recwarn):
    """Of 500 damaged files and a good one of each kind, whose lines are all there."""
    for place, code in enumerate(CODES):
        contents = [text.encode(code, "ignore") for text in LINES]
        if code != "latin-1":
            (tmp_path / f"good{place}.txt").write_bytes(contents[0])
        for seed in range(place, COUNT, len(CODES)):
            (tmp_path / f"{seed:03d}.txt").write_bytes(mutated(contents[seed % 2], seed))
    data = TextFile(path=str(tmp_path), vocabulary=256)
    texts, bad = data.documents().texts, data.report.noted["lines that are no text"]
    read = {path.name: read_text(path) for path in tmp_path.glob("*.txt")}
    assert len(bad) == sum(len(text.bad) for text in read.values()) > COUNT / 10
    lines = [line.strip() for text in read.values() for line in text.lines]
    assert sorted(texts) == sorted(filter(None, lines))
    assert texts.count("third") >= len(CODES) - 1
    assert not any(name.split(",")[0].startswith("good") for name in bad)
    assert all("\n" not in entry and len(entry) < 200 for entry in bad)
    (told,) = [str(w.message) for w in recwarn if "lines that are no text" in str(w.message)]
    assert f"{len(bad)} lines that are no text" in told
