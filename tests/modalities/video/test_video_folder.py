"""Folders of videos: captions, classes, splits, copies, and what is left out."""

import shutil
import warnings

import pytest
import torch

from anylatent.core.support.files import UserError
from anylatent.core.testing.data import check_data
from anylatent.modalities.video.data.readers import PyAV
from anylatent.modalities.video.data.video_folder import VideoFolder
from tests.modalities.video.filming import animation, cut, film, lossless, moving

pytest.importorskip("av", reason="av is not installed")
pytest.importorskip("decord", reason="decord is not installed")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")
pytestmark = pytest.mark.usefixtures("own_cache", "decoder")


def shoot(root, *names, frames=6, **settings):
    """A video of its own for each name."""
    for place, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = moving(frames, 32, 48, start=50 * place)
        if name.endswith((".gif", ".webp")):
            animation(path, [Image.fromarray(x) for x in pixels], [50] * frames)
        elif name.endswith(".webm"):
            film(path, pixels, codec="libvpx", **settings)
        else:
            film(path, pixels, **settings)


def folder(root, **settings):
    usual = {"size": 16, "frames": 4, "held_out": 0.0, "motion": False}
    return VideoFolder(str(root), **{**usual, **settings})


def parts(data):
    return {item["name"] for item in data.train()}, {item["name"] for item in data.held_out()}


# ---- items ------------------------------------------------------------------------------------
def test_all_kinds_with_captions_and_classes(tmp_path):
    shoot(tmp_path, "cats/a.mp4", "cats/b.webm", "dogs_at_sea/c.MOV", "d.mkv", "e.gif", "f.webp")
    shoot(tmp_path, "g.avi", codec="mpeg4")
    (tmp_path / "cats" / "a.txt").write_text("a cat that jumps")
    (tmp_path / "z.caption").write_text("of no film")
    (tmp_path / "metadata.csv").write_text("file_name,text\ne.gif,a wave\ngone.gif,x\n")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data = folder(tmp_path)
        items = {item["name"]: item for item in data.train()}
    assert {name: item["caption"] for name, item in items.items()} == {
        "cats/a.mp4": "a cat that jumps",
        "cats/b.webm": "cats",
        "dogs_at_sea/c.MOV": "dogs at sea",
        "d.mkv": "",
        "e.gif": "a wave",
        "f.webp": "",
        "g.avi": "",
    }
    assert data.classes == {"category": ("cats", "dogs_at_sea", "other")}
    assert [item["category"] for item in items.values()] == [0, 0, 2, 1, 2, 2, 2]
    for item in items.values():
        assert item["video"].shape == (6, 3, 16, 16) and float(item["video"].abs().max()) <= 1
        assert item["rate"] == pytest.approx(20 if item["name"] in ("e.gif", "f.webp") else 10)
        assert item["frames"] == 6 and not item["motion"].any()
    (one,) = [str(warning.message) for warning in told]
    assert "7 are used. Besides, " in one and "picture" not in one
    assert "3 videos without a caption: d.mkv, f.webp, g.avi" in one
    assert "1 captions of none of the videos: z.caption" in one
    assert "1 tables with rows of none of the videos: metadata.csv: 1 rows" in one, one
    assert data.facts["rate"] == 10 and data.facts["frames"] == 4
    check_data(data_with_a_part_held_out(tmp_path))


def data_with_a_part_held_out(root):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = folder(root, held_out=0.3)
        data.train()
    return data


def test_the_central_square_by_the_time_it_is_shown(tmp_path):
    frames = moving(10, 32, 48)
    lossless(tmp_path / "a.mkv", frames)
    (item,) = folder(tmp_path, size=32, rate=5.0).train()
    centre = torch.from_numpy(frames[::2, :, 8:40].copy()).permute(0, 3, 1, 2)
    assert torch.equal(item["video"], centre.float() / 127.5 - 1)
    assert item["rate"] == 5.0


def test_motion_is_measured_where_it_is_asked_for(tmp_path):
    pytest.importorskip("cv2", reason="opencv is not installed")
    shoot(tmp_path, "moves.mkv", codec="ffv1", layout="bgr0")
    lossless(tmp_path / "rests.mkv", moving(1, 32, 48).repeat(6, 0))
    items = {item["name"]: item for item in folder(tmp_path, size=32, motion=True).train()}
    assert float(items["moves.mkv"]["motion"].min()) > 0.5
    assert float(items["rests.mkv"]["motion"].max()) < 0.05
    assert items["moves.mkv"]["motion"].shape == (6,)


# ---- what is left out -------------------------------------------------------------------------
def test_what_cannot_be_used_is_counted_and_named(tmp_path):
    shoot(tmp_path, "a.mp4", "b.mp4")
    shoot(tmp_path, "short.mp4", "still.webp", frames=3)
    Image.new("RGB", (16, 16)).save(tmp_path / "still.webp")
    cut(tmp_path / "b.mp4", tmp_path / "cut.mp4")
    (tmp_path / "text.mp4").write_text("no film")
    (tmp_path / "notes.xyz").write_text("?")
    data = folder(tmp_path)
    with pytest.warns(UserWarning, match="of 7 videos in .*, 1 of another kind: notes.xyz") as told:
        assert len(data.train()) == 2
        data.held_out()
    assert len(told) == 1
    assert [name.split(":")[0] for name in data.report.left_out["cannot be read"]] == [
        "cut.mp4",
        "text.mp4",
    ]
    assert data.report.left_out["are too short"] == [
        "short.mp4: 3 frames, 4 are wanted",
        "still.webp: 1 frame, 4 are wanted",
    ]
    assert data.report.used == 2


def test_nothing_left_is_an_error(tmp_path):
    shoot(tmp_path, "a.mp4", frames=3)
    with pytest.raises(UserError, match="a.mp4: 3 frames, 4 are wanted; 0 are used"):
        folder(tmp_path).train()
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no videos in .*: looked for .mp4 .webm"):
        folder(tmp_path / "none")
    with pytest.raises(UserError, match="needs data.path=..., a folder of videos"):
        VideoFolder()


# ---- splits -----------------------------------------------------------------------------------
def test_folders_on_top_are_the_split(tmp_path):
    shoot(tmp_path, "train/cats/a.mp4", "train/dogs/b.mp4", "test/cats/c.mp4")
    shutil.copy(tmp_path / "train/dogs/b.mp4", tmp_path / "test/cats/copy.mp4")
    data = folder(tmp_path)
    with pytest.warns(UserWarning, match="1 are held-out copies .*: test/cats/copy.mp4"):
        train, held_out = parts(data)
    assert (train, held_out) == ({"train/cats/a.mp4", "train/dogs/b.mp4"}, {"test/cats/c.mp4"})
    assert data.classes["category"] == ("cats", "dogs")


def test_copies_are_in_one_part(tmp_path):
    """Copied files, and another container with the same frames."""
    for place in range(6):
        frames = moving(6, 32, 48, start=40 * place)
        lossless(tmp_path / f"{place}.mkv", frames)
        lossless(tmp_path / f"{place}-again.avi", frames)
        shutil.copy(tmp_path / f"{place}.mkv", tmp_path / f"{place}-copy.mkv")
    held_out = set()
    for seed in range(4):
        train, gone = parts(folder(tmp_path, held_out=0.4, seed=seed))
        assert train and gone and len(train | gone) == 18
        assert not {name[0] for name in train} & {name[0] for name in gone}
        held_out |= gone
    assert len(held_out) > 9  # by the seed others


def test_windows_are_held_out(tmp_path):
    shoot(tmp_path, "a.mp4", "b.mp4", frames=15)
    data = folder(tmp_path, held_out=0.5)
    assert [len(item["video"]) for item in data.train()] == [15]
    assert [len(item["video"]) for item in data.held_out()] == [4, 4, 4]
    assert len(folder(tmp_path, held_out=0.5, most=2).held_out()) == 2


# ---- once -------------------------------------------------------------------------------------
def test_files_are_decoded_once(tmp_path, decoder):
    shoot(tmp_path, "a.mp4", "b.mp4")
    first = folder(tmp_path, held_out=0.5)
    items = list(first.train()) + list(first.held_out())
    assert sorted(set(decoder.asked)) == ["a.mp4", "b.mp4"]
    decoder.asked.clear()
    again = folder(tmp_path, held_out=0.5)
    others = list(again.train()) + list(again.held_out())
    assert decoder.asked == [] and again.fingerprint == first.fingerprint
    pairs = zip(items, others, strict=True)
    assert all(torch.equal(a["video"], b["video"]) for a, b in pairs)
    (tmp_path / "b.mp4").rename(tmp_path / "c.mp4")  # another name, the same content
    assert len(folder(tmp_path).train()) == 2 and decoder.asked == []
    shoot(tmp_path, "c.mp4", frames=7)
    assert sorted(folder(tmp_path).train().lengths.tolist()) == [6, 7]
    assert "c.mp4" in decoder.asked


CHANGES = {
    "size": 24,
    "frames": 5,
    "rate": 4.0,
    "held_out": 0.5,
    "seed": 1,
    "most": 9,
    "motion": True,
    "reader": PyAV(),
}


def test_the_fingerprint_changes_with_the_items(tmp_path):
    shoot(tmp_path, "a.mp4")
    known = {folder(tmp_path).fingerprint}
    for name, value in CHANGES.items():
        known.add(folder(tmp_path, **{name: value}).fingerprint)
    assert len(known) == len(CHANGES) + 1
    assert folder(tmp_path, seconds=9.0).fingerprint in known
    (tmp_path / "a.txt").write_text("a caption")
    assert folder(tmp_path).fingerprint not in known


def test_shards_are_small_also_where_videos_are_long(monkeypatch, tmp_path):
    from anylatent.modalities.video.data import files
    from anylatent.modalities.video.data.decoding import Length

    def rows(counts):
        sources = [files.Source(tmp_path, str(place)) for place in range(len(counts))]
        lengths = [Length(count, 1.0) for count in counts]
        return files._Reading(sources, files.How(64), None, lengths).rows

    minute = 1500 * 3 * 64 * 64
    assert rows([1500] * 40) == files.SHARD // minute
    assert rows([1500]) == 1 and rows([0, 0]) == 2
    mixed = rows([10] * 300 + [20_000] * 4)  # whose mean is small, and which lie together
    assert mixed * 20_000 * 3 * 64 * 64 <= files._MOST or mixed == 1
