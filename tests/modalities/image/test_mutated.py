"""Damaged pictures, captions and tables: each is counted, none ends the folder."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest

from anylatent.modalities.image.data import Folder
from anylatent.modalities.image.data.captions import Captions
from anylatent.modalities.image.data.tables import rows
from anylatent.modalities.shared.folder import DOCUMENTS, Files, Kinds
from anylatent.modalities.shared.reading import read_text
from anylatent.modalities.shared.report import Report
from tests.modalities.mutation import mutated

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

COUNT = 500
RAMP = np.linspace(0, 1, 24 * 24).reshape(24, 24)
KINDS = ("png", "jpg", "gif", "webp", "bmp", "tif", "ppm", "tga", "ico", "deep.png", "deep.tif")
KINDS += ("float.tif", "palette.png", "alpha.png")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path_factory.mktemp("cache")))


def encoded(kind):
    colours = Image.effect_noise((24, 24), 60).convert("RGB")
    made = {
        "deep.png": Image.fromarray((RAMP * 4095).astype("u2")),
        "deep.tif": Image.fromarray((RAMP * 4095).astype(">u2")),
        "float.tif": Image.fromarray(RAMP.astype("f4")),
        "palette.png": colours.convert("P"),
        "alpha.png": colours.convert("RGBA"),
    }.get(kind, colours)
    buffer = io.BytesIO()
    made.save(buffer, Image.registered_extensions()["." + kind.split(".")[-1]])
    return buffer.getvalue()


def test_pictures(tmp_path):
    """Each of 500 is used or left out with a reason; the good ones beside them are all used."""
    for place, kind in enumerate(KINDS):
        content = encoded(kind)
        (tmp_path / f"good{place}.{kind}").write_bytes(content)
        for seed in range(place, COUNT, len(KINDS)):
            (tmp_path / f"{seed}.{kind}").write_bytes(mutated(content, seed))
    data = Folder(str(tmp_path), size=8, held_out=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        names = data.train().columns["name"]
    report = data.report
    assert len([name for name in names if name.startswith("good")]) == len(KINDS)
    assert report.seen == COUNT + len(KINDS) and report.used == len(names)
    left = report.left_out["cannot be read"]
    assert len(left) == report.seen - report.used > COUNT / 20
    assert all(": " in entry and "\n" not in entry and len(entry) < 200 for entry in left)
    assert [str(w.message) for w in caught if "cannot be read" in str(w.message)] == [
        report.summary
    ]


def test_captions(tmp_path):
    """Each is the good lines of its file, and each bad line is noted."""
    texts = [
        "a red square\nbelow a gr\u00fcner Kreis, \u7d05\u3044",
        "a line\r\nand another \U0001f7e5\r\n",
    ]
    kinds = ("utf-8", "utf-8-sig", "utf-16", "latin-1")
    for seed in range(COUNT):
        (tmp_path / f"{seed}.png").write_bytes(b"")
        content = texts[seed % 2].encode(kinds[seed % 4], "ignore")
        (tmp_path / f"{seed}.txt").write_bytes(mutated(content, seed))
    files = Files(
        str(tmp_path), Kinds((".png",), DOCUMENTS), purpose="it", wanted="it", what="pictures"
    )
    report = Report(tmp_path, "pictures")
    said = Captions(files, "", report)
    bad = 0
    for seed in range(COUNT):
        text = read_text(tmp_path / f"{seed}.txt")
        bad += len(text.bad)
        assert said[Path(f"{seed}.png")] == " ".join(" ".join(text.lines).split())
    noted = report.noted["lines that are no text"]
    assert len(said) == COUNT and len(noted) == bad > COUNT / 10


TABLE = {
    ".jsonl": '{"file_name": "a.png", "text": "x, \u00fc"}\n{"file_name": "b.png", "text": ["y"]}\n'
    * 3,
    ".csv": 'file_name,text\na.png,"x, \u00fc"\nb.png,y\n"c.png",z\n',
    ".tsv": "id\tpath\tprompt\n1\ta.png\tx, \u00fc\n2\tb.png\ty\n",
    ".json": '[{"file": "a.png", "text": "x"}, {"file": "b.png", "text": {"caption": "\u00fc"}}]',
    ".parquet": "PAR1 is no table",
}


@pytest.mark.parametrize("suffix", TABLE)
def test_tables(suffix, tmp_path):
    path = tmp_path / f"metadata{suffix}"
    whole = 0
    for seed in range(COUNT):
        path.write_bytes(mutated(TABLE[suffix].encode(), seed))
        report = Report(tmp_path, "pictures")
        found = list(rows(path, "", report, path.name))
        assert all(isinstance(file, str) and isinstance(text, str) for file, text in found)
        assert not any("\n" in text for _, text in found)
        told = [entry for kind in report.noted.values() for entry in kind]
        assert all("\n" not in entry and len(entry) < 250 for entry in told)
        whole += not told
        if suffix == ".jsonl":
            _accounted(path, len(found), told)
        assert found or told or suffix != ".jsonl" or not path.read_bytes().strip()
    assert (whole > 0) == (suffix != ".parquet")


def _accounted(path, found, told):
    """Every line that is not empty is a row or noted."""
    text = read_text(path)
    lines = sum(bool(line.strip()) for line in text.lines) + len(text.bad)
    without = [int(t.split(": ")[1].split()[0]) for t in told if "rows without" in t]
    columns = [t for t in told if t == path.name]
    if not columns:
        assert found + sum(without) + len(told) - len(without) == lines


@pytest.mark.parametrize("suffix", [suffix for suffix in TABLE if suffix != ".parquet"])
def test_a_good_table_tells_nothing(suffix, tmp_path):
    (tmp_path / f"metadata{suffix}").write_text(TABLE[suffix], encoding="utf-8")
    report = Report(tmp_path, "pictures")
    assert len(list(rows(tmp_path / f"metadata{suffix}", "", report, "it"))) >= 2
    assert not report.noted
