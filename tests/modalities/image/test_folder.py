"""Folders of pictures as people have them: captions, tables, splits, copies, other kinds."""

import codecs
import importlib
import json
import os
import shutil
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

import anylatent as al
from anylatent.core.support.files import UserError
from anylatent.modalities.image.data import Folder

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path_factory.mktemp("cache")))


def paint(root: Path, *names: str, start: int = 0) -> None:
    """A picture of its own colour for each name."""
    for index, name in enumerate(names, start):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        colour = (40 + 9 * index % 200, 250 - 7 * index % 200, 30 * index % 250)
        Image.new("RGB", (12, 12), colour).save(root / name)


def items(root: Path, **settings):
    data = Folder(str(root), size=8, **{"held_out": 0.0, **settings})
    return {item["name"]: item for part in (data.train(), data.held_out()) for item in part}


def captions(root: Path, **settings) -> dict[str, str]:
    return {name: item["caption"] for name, item in items(root, **settings).items()}


def quiet(call, *args, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call(*args, **settings)


# ---- captions ---------------------------------------------------------------------------------
def test_files_beside_pictures_in_every_spelling(tmp_path):
    paint(tmp_path, "a.png", "b.png", "c.jpg", "d.png", "deep/e.png", "f.png")
    (tmp_path / "a.TXT").write_text(" a red\n square ")
    (tmp_path / "b.caption").write_bytes(codecs.BOM_UTF8 + "ein gr\u00fcnes".encode())
    (tmp_path / "c.jpg.txt").write_text("a third")
    (tmp_path / "d.json").write_text(json.dumps({"caption": ["a fourth", "other"], "x": 1}))
    (tmp_path / "deep" / "e.txt").write_bytes("fifth".encode("utf-16"))
    (tmp_path / "f.txt").write_text("sixth")
    (tmp_path / "README.txt").write_text("no caption")
    found = quiet(captions, tmp_path)
    assert found == {
        "a.png": "a red square",
        "b.png": "ein gr\u00fcnes",
        "c.jpg": "a third",
        "d.png": "a fourth",
        "deep/e.png": "fifth",
        "f.png": "sixth",
    }


TABLES = {
    "metadata.jsonl": '{"file_name": "a.png", "text": "x, y"}\n\n{"file": "d/b.png", "text": "z"}',
    "metadata.csv": 'file_name,text\na.png,"x, y"\nd/b.png,z\n',
    "METADATA.CSV": '\ufeffFile_Name,Caption\r\na.png,"x, y"\r\n./d/b.png,z\r\n',
    "any.tsv": "id\tpath\tprompt\n1\ta.png\tx, y\n2\td/b.png\tz\n",
    "german.csv": "image;caption\na.png;x, y\nd/b.png;z\n",
    "captions.txt": 'image,caption\na.png,"x, y"\nd\\b.png,z\n',
    "captions.json": '{"a.png": "x, y", "d/b.png": {"caption": "z"}}',
    "metadata.json": '[{"file": "a.png", "text": "x, y"}, {"file": "d/b.png", "text": "z"}]',
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_captions(name, tmp_path):
    paint(tmp_path, "a.png", "d/b.png", "d/c.png")
    (tmp_path / name).write_text(TABLES[name], encoding="utf-8", newline="")
    assert quiet(captions, tmp_path) == {"a.png": "x, y", "d/b.png": "z", "d/c.png": "d"}


def test_a_table_of_parquet_is_read_or_named(tmp_path, monkeypatch):
    paint(tmp_path, "a.png")
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    real, missing = importlib.import_module, []

    def absent(name, *rest):
        if name.split(".")[0] in ("pyarrow", "pandas"):
            missing.append(name)
            raise ImportError(name)
        return real(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(importlib, "import_module", absent)
        with pytest.warns(UserWarning, match="metadata.parquet: it needs the package pyarrow"):
            captions(tmp_path)
    assert missing == ["pyarrow.parquet", "pandas"]
    rows = [{"file_name": "a.png", "text": "from a table"}, {"file_name": None, "text": "x"}]
    table = types.SimpleNamespace(to_pylist=lambda: rows)
    fake = types.SimpleNamespace(read_table=lambda path: table)
    monkeypatch.setitem(sys.modules, "pyarrow", types.SimpleNamespace(parquet=fake))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", fake)
    with pytest.warns(UserWarning, match="metadata.parquet: 1 rows without a file or a caption"):
        assert captions(tmp_path) == {"a.png": "from a table"}


NOTED = {
    "latin": ("a.txt", b"carr\xe9", "a.txt, line 1: byte 0xe9 at place 5 is no UTF-8"),
    "empty": ("a.txt", b" \n", r"1 pictures without a caption: a.png"),
    "orphan": ("z.caption", b"x", r"1 captions of none of the pictures: z.caption"),
    "json": ("a.json", b"{", "a.json: Expecting property name"),
    "deep json": ("a.json", b"[" * 10**5, "a.json: maximum recursion depth"),
    "row": ("metadata.jsonl", b'{"file_name": "a.png", "text": "x"}\n{"file', "line 2: Unterm"),
    "nowhere": ("metadata.csv", b"file_name,text\na.png,x\ngone.png,y\n", "metadata.csv: 1 rows"),
    "columns": ("metadata.csv", b"a,b\n1,2\n", "without the columns file_name and text"),
    "bytes": ("metadata.csv", b"file_name,text\na.png,x\nb.png,\xe9\n", "line 3: byte 0xe9"),
    "no header": ("said.csv", b"a.png,x\nb.png,y\n", "without the columns file_name and text"),
    "no header in txt": ("all.txt", b"a.png\tx\n", "the columns file_name and text: all.txt"),
    "names as keys": ("all.jsonl", b'{"a.png": "x"}\n', "without the columns file_name"),
    "elsewhere": ("texts/a.txt", b"x", "1 captions of none of the pictures: texts/a.txt"),
    "zeros": ("metadata.csv", b"file_name,text\na.png,\0\n", "line 2: it has zero bytes"),
}


@pytest.mark.parametrize("case", NOTED)
def test_captions_that_are_none_are_named(case, tmp_path):
    paint(tmp_path, "a.png")
    name, content, message = NOTED[case]
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.warns(UserWarning, match=message):
        found = captions(tmp_path)
    assert len(found) == 1 and "\ufffd" not in repr(found)


def test_files_about_something_else_tell_nothing(tmp_path):
    paint(tmp_path, "a.png")
    (tmp_path / "sales.csv").write_text("year,amount\n2024,3\n")
    (tmp_path / "shopping.txt").write_text("apples, pears\n")
    (tmp_path / "log.jsonl").write_text('{"loss": 1}\n')
    assert quiet(captions, tmp_path) == {"a.png": ""}


def test_captions_in_the_encoding_that_is_asked_for(tmp_path):
    paint(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_bytes("carr\u00e9 rouge".encode("latin-1"))
    (tmp_path / "metadata.csv").write_bytes("file,text\nb.png,\u00fc".encode("latin-1"))
    found = quiet(captions, tmp_path, encoding="latin-1")
    assert found == {"a.png": "carr\u00e9 rouge", "b.png": "\u00fc"}


def test_what_says_nothing_is_said_to_be_empty(tmp_path):
    paint(tmp_path, "a.png")
    assert Folder(str(tmp_path)).empty == ["caption"]
    (tmp_path / "a.txt").write_text("red")
    assert not Folder(str(tmp_path)).empty


# ---- which pictures ---------------------------------------------------------------------------
def test_whatever_pillow_opens_is_read(tmp_path):
    for name, kind in [("a.jfif", "JPEG"), ("b.ppm", "PPM"), ("c.tga", "TGA"), ("d.PNG", "PNG")]:
        Image.new("RGB", (9, 9), "red").save(tmp_path / name, kind)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "without", "PNG")
    Image.new("RGB", (9, 9), "red").save(tmp_path / "e.download", "JPEG")
    assert len(quiet(items, tmp_path)) == 6
    (tmp_path / "f.heic").write_bytes(b"x")
    (tmp_path / "g.mp4").write_bytes(bytes(100))
    (tmp_path / "h.ppm").write_bytes(b"P6 9")
    with pytest.warns(UserWarning) as caught:
        assert len(items(tmp_path)) == 6
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "of 9 pictures in " in message
    assert "2 of another kind: f.heic, g.mp4" in message and "1 cannot be read: h.ppm: " in message


@pytest.mark.parametrize("name", ["~", "~nobody-of-that-name", "~root"])
def test_a_folder_whose_name_begins_with_a_tilde(name, tmp_path, monkeypatch):
    paint(tmp_path / name, "a.png")
    monkeypatch.chdir(tmp_path)
    assert list(quiet(items, name)) == ["a.png"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(quiet(items, f"~/{name}")) == ["a.png"]
    with pytest.raises(UserError, match="no folder '~nobody-at-all'"):
        items("~nobody-at-all")


def test_links_and_names_of_any_bytes(tmp_path):
    paint(tmp_path / "in", "cats/a.png", "cats/b.png")
    paint(tmp_path / "away", "c.png", start=5)
    (tmp_path / "in" / "dogs").symlink_to(tmp_path / "away")
    paint(tmp_path / "in", os.fsdecode(b"cats/\xe9.png"), start=9)
    data = quiet(Folder, str(tmp_path / "in"), size=8, held_out=0.25)
    found = quiet(lambda: [*data.train(), *data.held_out()])
    assert data.classes == {"category": ("cats", "dogs")}
    names = {"cats/a.png", "cats/b.png", "cats/\\xe9.png", "dogs/c.png"}
    assert {item["name"] for item in found} == names
    (tmp_path / "in" / "birds").symlink_to("gone")
    with pytest.warns(UserWarning, match=r"1 links that lead nowhere: birds: no such file"):
        items(tmp_path / "in")


def test_the_reason_is_kept_with_the_pictures(tmp_path, monkeypatch):
    paint(tmp_path, "a.png", "b.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes()[:45])
    access = os.access
    monkeypatch.setattr(os, "access", lambda p, how: Path(p).name != "b.png" and access(p, how))
    for _ in range(2):  # the second time from the cache
        data = Folder(str(tmp_path), size=8, held_out=0)
        with pytest.warns(UserWarning, match=r"2 cannot be read: b.png: permission denied, c"):
            assert len(data.train()) == 1
        assert (data.report.seen, data.report.used) == (3, 1)
    monkeypatch.setattr(os, "access", access)
    with pytest.warns(UserWarning, match="1 cannot"):  # allowed again, and read at once
        assert len(items(tmp_path)) == 2


# ---- splits -----------------------------------------------------------------------------------
def test_train_and_test_on_top_are_the_split(tmp_path):
    paint(tmp_path, "train/cat/1.png", "train/dog/2.png", "Test/cat/3.png", "val/dog/4.png")
    data = quiet(Folder, str(tmp_path), size=8)
    train, held_out = quiet(lambda: (data.train(), data.held_out()))
    assert data.classes == {"category": ("cat", "dog")}
    assert train.columns["name"] == ["train/cat/1.png", "train/dog/2.png"]
    assert held_out.columns["name"] == ["Test/cat/3.png", "val/dog/4.png"]
    assert train.columns["category"] == held_out.columns["category"] == [0, 1]
    assert train.columns["caption"] == ["cat", "dog"]
    al.testing.check_data(data)


def test_a_split_without_classes_and_what_lies_beside_it(tmp_path):
    paint(tmp_path, "train/1.png", "train/2.png", "test/3.png", "4.png", "more/5.png")
    shutil.copy(tmp_path / "train" / "1.png", tmp_path / "test" / "copy.png")
    data = Folder(str(tmp_path), size=8)
    with pytest.warns(UserWarning) as caught:
        assert data.train().columns["name"] == ["train/1.png", "train/2.png"]
    assert data.held_out().columns["name"] == ["test/3.png"]
    assert data.classes == {} and data.train().columns["caption"] == ["", ""]
    message = str(caught[0].message)
    assert "2 lie beside the folders of the split: 4.png, more/5.png" in message
    assert "1 are held-out copies of what is learned from: test/copy.png" in message


@pytest.mark.parametrize(
    "names", [("cat/train/1", "dog/test/2"), ("1", "all/train/2", "all/val/3")]
)
def test_a_split_below_other_folders_is_named(names, tmp_path):
    paint(tmp_path, *(f"{name}.png" for name in names))
    with pytest.warns(UserWarning, match="no split there and are mixed: train, (test|val)"):
        items(tmp_path)


def test_folders_that_read_alike_are_named(tmp_path):
    """As one letter is written by one sign or by two; in one case or the other they are names."""
    paint(tmp_path, "caf\u00e9/1.png", "cafe\u0301/2.png", "Bus/3.png", "bus/4.png")
    with pytest.warns(UserWarning, match="2 folders that read alike and are classes") as caught:
        items(tmp_path)
    assert "e\\u0301" in str(caught[0].message) and "bus" not in str(caught[0].message)
    assert len(quiet(Folder, str(tmp_path), size=8).classes["category"]) == 4


def test_rows_that_contradict_one_another_are_named(tmp_path):
    paint(tmp_path, "a.png", "b.png")
    table = tmp_path / "metadata.jsonl"
    for more in ([], [("a.png", "Z")]):
        pairs = [("a.png", "A"), ("b.png", "B"), ("a.png", "A"), *more]
        rows = [json.dumps({"file_name": name, "text": text}) for name, text in pairs]
        table.write_text("\n".join(rows))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = captions(tmp_path)
        told = " ".join(str(one.message) for one in caught)
        assert ("1 rows that contradict others" in told) == bool(more), told
        assert found == {"a.png": "A", "b.png": "B"}


def test_a_class_that_is_held_out_alone_is_named(tmp_path):
    paint(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/Cat/3.png", "test/4.png")
    with pytest.warns(UserWarning, match="2 classes that are held out and never .*: Cat, other"):
        items(tmp_path)


def test_train_alone_is_a_folder_around_everything(tmp_path):
    paint(tmp_path, *(f"train/{name}/{k}.png" for name in ("cat", "dog") for k in range(5)))
    data = quiet(Folder, str(tmp_path), size=8, held_out=0.2)
    assert data.classes == {"category": ("cat", "dog")}
    assert sorted(quiet(data.held_out).columns["category"]) == [0, 1]


def test_a_train_is_a_class_beside_others(tmp_path):
    paint(tmp_path, "train/1.png", "car/2.png", "bus/3.png")
    assert quiet(Folder, str(tmp_path)).classes == {"category": ("bus", "car", "train")}


@pytest.mark.parametrize("seed", range(3))
def test_copies_stay_on_one_side(seed, tmp_path):
    """Byte by byte, and the same pixels in another file."""
    paint(tmp_path, *(f"{k}.png" for k in range(20)))
    for k in range(20):
        shutil.copy(tmp_path / f"{k}.png", tmp_path / f"{k}_copy.png")
        Image.open(tmp_path / f"{k}.png").save(tmp_path / f"{k}_other.bmp")
    data = quiet(Folder, str(tmp_path), size=8, seed=seed, held_out=0.2)
    train, held_out = quiet(lambda: (data.train(), data.held_out()))
    assert (len(train), len(held_out)) == (48, 12)

    def bits(part):
        return {item["image"].numpy().tobytes() for item in part}

    assert not bits(train) & bits(held_out)


def test_the_split_of_different_pictures_is_what_it_was(tmp_path):
    paint(tmp_path, *(f"{k}.png" for k in range(20)))
    held_out = quiet(lambda: Folder(str(tmp_path), size=8, held_out=0.2).held_out())
    from anylatent.modalities.shared.splits import by_quota

    names = sorted(path.name for path in tmp_path.glob("*.png"))
    rows = by_quota(names, [0] * 20, 0.2, 0, "pictures")[1]
    assert held_out.columns["name"] == [names[row] for row in rows]


# ---- the range of pixels ----------------------------------------------------------------------
RAMP = np.linspace(0, 1, 400).reshape(20, 20)


def save(path, values):
    Image.fromarray(values).save(path)


def means(root, **settings):
    return {name: float(item["image"].mean()) for name, item in items(root, **settings).items()}


@pytest.mark.parametrize("kind", ["<u2", ">u2", "i4", "f4"])
@pytest.mark.parametrize("most", [4095, 1023, 65535])
def test_a_ramp_goes_from_black_to_white(kind, most, tmp_path):
    save(tmp_path / "a.tif", (RAMP * most).round().astype(kind))
    found = quiet(items, tmp_path)["a.tif"]["image"]
    assert float(found.mean()) == pytest.approx(0, abs=0.01)
    assert float(found.min()) < -0.9 and float(found.max()) > 0.9


def test_the_range_is_that_of_all_pictures(tmp_path, capsys):
    save(tmp_path / "a.png", np.full((20, 20), 1000, dtype="u2"))
    save(tmp_path / "b.png", np.full((20, 20), 3000, dtype="u2"))
    save(tmp_path / "c.png", np.full((20, 20), 100, dtype="u1"))
    wanted = {"a.png": 1000 / 4095, "b.png": 3000 / 4095, "c.png": 100 / 255}
    for name, mean in quiet(means, tmp_path).items():
        assert mean == pytest.approx(2 * wanted[name] - 1, abs=1 / 255), name
    told = capsys.readouterr().out
    assert "2 pictures have integers of more than 8 bits from 1000 to 3000" in told
    assert "12 bits are used: 0 is black, 4095 is white" in told


def test_floats_and_negative_integers_by_their_range_or_as_said(tmp_path):
    save(tmp_path / "a.tif", (5 * RAMP - 2).astype("f4"))
    save(tmp_path / "b.tif", np.zeros((20, 20), dtype="f4"))
    assert quiet(means, tmp_path)["b.tif"] == pytest.approx(2 * 0.4 - 1, abs=0.01)
    assert quiet(means, tmp_path, levels=(-1, 1))["b.tif"] == pytest.approx(0, abs=0.01)
    save(tmp_path / "in.png", np.full((9, 9), 500, dtype="u2"))
    assert quiet(means, tmp_path, levels=(0, 1000))["in.png"] == pytest.approx(0, abs=0.01)
    signed = tmp_path / "signed"
    signed.mkdir()
    save(signed / "c.tif", (3000 * RAMP - 1000).astype("i4"))
    assert quiet(means, signed)["c.tif"] == pytest.approx(0, abs=0.01)
    prints = {Folder(str(signed), levels=levels).fingerprint for levels in ((), (0, 1), (0, 2))}
    assert len(prints) == 3


@pytest.mark.parametrize("levels", [(1,), (1, 1), (0, float("nan")), (0, 1, 2)])
def test_levels_are_two_numbers(levels, tmp_path):
    paint(tmp_path, "a.png")
    with pytest.raises(UserError, match="two different numbers are wanted"):
        Folder(str(tmp_path), levels=levels)


def test_numbers_that_are_none_leave_the_picture_out_and_the_range_alone(tmp_path):
    save(tmp_path / "a.tif", RAMP.astype("f4"))
    save(tmp_path / "b.tif", np.where(RAMP > 0.5, np.inf, 7 * RAMP).astype("f4"))
    with pytest.warns(UserWarning, match="b.tif: 200 of its 400 values are not finite"):
        assert means(tmp_path) == {"a.tif": pytest.approx(0, abs=0.01)}


def test_pictures_that_are_all_nearly_black_are_a_warning(tmp_path):
    for k in range(3):
        save(tmp_path / f"{k}.png", (RAMP * (5 + k)).astype("u1"))
    with pytest.warns(UserWarning, match="nearly black: the brightest of their pixels is 6 of 255"):
        items(tmp_path)
    save(tmp_path / "star.png", np.where(RAMP > 0.9, 255, 0).astype("u1"))
    assert len(quiet(items, tmp_path)) == 4
