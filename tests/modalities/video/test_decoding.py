"""Videos out of files: frames by the time at which they are shown, and files that can't be read."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from anylatent.core.registry import build, store
from anylatent.core.support.files import UserError
from anylatent.modalities.video.data.decoding import Decoder, read_clip
from anylatent.modalities.video.data.probing import Probe, Unreadable
from anylatent.modalities.video.data.readers import Chunk, Decord, PyAV
from anylatent.modalities.video.data.squares import Squares, Wanted
from anylatent.modalities.video.data.video_folder import VideoFolder
from tests.modalities.video.filming import (
    Crashing,
    Failing,
    animation,
    cut,
    film,
    flat,
    lossless,
    moving,
    sound,
)

pytest.importorskip("av", reason="av is not installed")
pytest.importorskip("decord", reason="decord is not installed")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


# ---- time -------------------------------------------------------------------------------------
def chosen(times, end, rate, unit=1000, told=True):
    """Which of the frames at these times are taken, and how many a second they are."""
    levels = [10 * place for place in range(len(times))]
    found = Probe("video", "", "", 16, 16, tuple(times), end, Fraction(1, unit))
    squares = Squares(found, Wanted(8, rate))
    if told:
        chunks = [Chunk(flat([level]), [time]) for level, time in zip(levels, times, strict=True)]
    else:
        chunks = [Chunk(flat(levels[:2])), Chunk(flat(levels[2:]))]
    taken = np.concatenate(list(squares.cut(chunks)))
    return [int(level) // 10 for level in taken[:, 0, 0, 0, 0]], squares.rate


VARIABLE = [0, 100, 150, 400, 500, 520, 900]


@pytest.mark.parametrize("told", [True, False])
def test_the_last_frame_that_is_shown_at_each_time(told):
    assert chosen(VARIABLE, 1000, 10, told=told) == ([0, 1, 2, 2, 3, 4, 5, 5, 5, 6], 10)
    assert chosen(VARIABLE, 1000, 4, told=told) == ([0, 2, 4, 5], 4)
    twentieths = [0, 0, 1, 2, 2, 2, 2, 2, 3, 3, 4, 5, 5, 5, 5, 5, 5, 5, 6]
    assert chosen(VARIABLE, 910, 20, told=told)[0] == twentieths


def test_times_count_from_the_first_frame():
    later = [time + 12_345 for time in VARIABLE]
    assert chosen(later, 13_345, 10)[0] == chosen(VARIABLE, 1000, 10)[0]


def test_all_frames_at_their_mean_rate():
    assert chosen(VARIABLE, 1000, None) == (list(range(7)), pytest.approx(6 / 0.9))
    assert chosen([0], 250, None) == ([0], 4.0)


@pytest.mark.parametrize("rate", [24, 25, 30, 60])
def test_rounded_times_neither_drop_nor_double_a_frame(rate):
    """Matroska rounds times to milliseconds: at the file's own rate each frame is taken once."""
    times = [round(1000 * k / rate) for k in range(20)]
    assert chosen(times, round(20_000 / rate), float(rate))[0] == list(range(20))
    half = chosen(times, round(20_000 / rate), rate / 2)[0]
    assert half == list(range(0, 20, 2))
    assert chosen(times, round(20_000 / rate), 2.0 * rate)[0] == [k // 2 for k in range(40)]


def test_a_count_that_is_not_as_it_should_be():
    found = Probe("video", "", "", 16, 16, tuple(VARIABLE), 1000, Fraction(1, 1000))
    with pytest.raises(Unreadable, match="3 of 7 frames can be read"):
        list(Squares(found, Wanted(8)).cut([Chunk(flat([1, 2, 3]))]))
    with pytest.raises(Unreadable, match="no frame of it"):
        list(Squares(found, Wanted(8)).cut([]))
    three = Chunk(flat([1, 2, 3]), [0, 1, 2])
    assert len(list(Squares(found, Wanted(8)).cut([three]))) == 3


def test_squares_lie_along_the_long_side():
    """Columns of their own grey, so that each square tells where it was cut out."""
    pixels = np.repeat(np.arange(0, 240, 5, dtype=np.uint8)[None, :, None], 16, 0)  # 16 × 48
    frame = np.repeat(pixels, 3, 2)[None]
    found = Probe("video", "", "", 48, 16, (0,), 1, Fraction(1, 10))
    wanted = Wanted(16, channels=1, places=(0.0, 0.5, 1.0))
    (squares,) = Squares(found, wanted).cut([Chunk(frame)])
    assert squares.shape == (1, 3, 1, 16, 16)
    for square, first in zip(squares[0, :, 0], (0, 16, 32), strict=True):
        assert np.array_equal(square, frame[0, :, first : first + 16, 0])


@pytest.mark.parametrize("rate", [0, -1, 1e9, float("nan")])
def test_a_rate_that_cannot_be_had(rate):
    with pytest.raises(UserError, match="rate=.*up to 240"):
        Wanted(8, rate)


# ---- files ------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_of_a_file_with_a_variable_rate(name, tmp_path, decoder):
    frames, codec = flat([20 * k for k in range(7)], 64, 64), {}
    if name == "a.mkv":
        codec = {"codec": "ffv1", "layout": "bgr0"}
    path = film(tmp_path / name, frames, times=VARIABLE, **codec)
    for reader in (Decord(), PyAV()):
        with decoder(reader) as own:
            found = own.read(path, Wanted(8, 10.0))
        levels = found.frames[:, 0, 0, 0, 0].float() / 20
        assert levels.round().tolist()[:10] == [0, 1, 2, 2, 3, 4, 5, 5, 5, 6]
        assert found.rate == 10 and bool(((levels - levels.round()).abs() < 0.2).all())


def test_both_readers_in_the_process(tmp_path, decoder):
    path, reads = film(tmp_path / "a.mp4", moving(20, 64, 96)), []
    for reader in (Decord(), PyAV()):
        with decoder(reader) as own:
            reads.append(own.read(path, Wanted(32, places=(0.0, 1.0))).frames)
    assert reads[0].shape == (20, 2, 3, 32, 32) and torch.equal(*reads)
    assert not torch.equal(reads[0][:, 0], reads[0][:, 1])


def gif(path):
    return animation(path, [Image.fromarray(x) for x in moving(12)], [50] * 12)


BAD = {
    "empty.mp4": (lambda good, bad: bad.write_bytes(b""), "the file is empty"),
    "text.mp4": (lambda good, bad: bad.write_text("a letter\n" * 99), "no video that FFmpeg knows"),
    "audio.mp4": (lambda good, bad: sound(bad), "it has no video, only sound"),
    "headless.mp4": (lambda good, bad: cut(good, bad), "no video that FFmpeg knows, or damaged"),
    "promises.mp4": (lambda good, bad: cut(good, bad), r"cut short after \d+ of 40 frames"),
    "cut.avi": (lambda good, bad: cut(good, bad), r"cut short after \d+ of 40 frames"),
    "cut.mkv": (lambda good, bad: cut(good, bad), r"cut short after [\d.]+ of 4 s"),
    "cut.webm": (lambda good, bad: cut(good, bad), r"cut short after [\d.]+ of 4 s"),
    "cut.webp": (lambda good, bad: cut(good, bad), r"cut short after \d frames"),
    "cut.gif": (lambda good, bad: cut(good, bad), r"damaged or cut short \("),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_beside_its_good_twin(name, tmp_path, decoder):
    make, reason = BAD[name]
    good, bad = tmp_path / f"good.{name.split('.')[1]}", tmp_path / name
    if name.endswith((".gif", ".webp")):
        gif(good)
    else:
        codec = {"codec": "libvpx"} if name.endswith("webm") else {}
        codec = {"codec": "mpeg4"} if name.endswith("avi") else codec
        container = {"movflags": "faststart"} if name == "promises.mp4" else {}
        film(good, moving(40), container=container, **codec)
    make(good, bad)
    with decoder() as own:
        count = own.read(good, Wanted(16)).frames.shape[0]
        assert count == own.length(good).frames == (12 if name.endswith((".gif", ".webp")) else 40)
        with pytest.raises(Unreadable, match=reason):
            own.read(bad, Wanted(16))


def test_another_reader_takes_over(tmp_path, decoder):
    path = film(tmp_path / "a.mp4", moving(12))
    reads = []
    for reader in (Failing(), PyAV()):
        with decoder(reader) as own:
            reads.append(own.read(path, Wanted(16)))
    assert torch.equal(reads[0].frames, reads[1].frames) and reads[0].rate == reads[1].rate == 10


def test_a_reader_that_cannot_be_taken_elsewhere(tmp_path, decoder):
    class Local(PyAV):
        pass

    path = film(tmp_path / "a.mp4", moving(2))
    with decoder(Local()) as own, pytest.raises(UserError, match="can't be used in a process"):
        own.read(path, Wanted(16))


# ---- one that hangs, one that crashes ---------------------------------------------------------
STUCK = '''
import ctypes
from anylatent.core.registry import register
from anylatent.modalities.video.data.readers import PyAV

@register("reader", "stuck")
class Stuck(PyAV):
    """Waits without end, and lets no other thread run, at files that are called so."""

    def chunks(self, path, probe):
        if "stuck" in path.name:
            ctypes.PyDLL(None).sleep(10_000)
        yield from super().chunks(path, probe)
'''


@pytest.fixture
def stuck(tmp_path, monkeypatch):
    """A reader of a plugin."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "stuck_reader.py").write_text(STUCK)
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    monkeypatch.setenv("ANYLATENT_PLUGINS", "stuck_reader")
    monkeypatch.setitem(store._parts, "reader", dict(store._parts["reader"]))
    __import__("stuck_reader")
    return build("reader", {"name": "stuck"})


def test_one_that_hangs_is_ended_and_its_file_named(stuck, tmp_path, own_cache):
    """By a process that is started anew, the other files are read."""
    bad = film(tmp_path / "films" / "a-stuck.mp4", moving(6))
    film(tmp_path / "films" / "b.mp4", moving(6, start=9))
    settings = {"size": 16, "frames": 4, "held_out": 0.0, "motion": False}
    data = VideoFolder(str(bad.parent), reader=stuck, seconds=1.5, **settings)
    with pytest.warns(UserWarning, match="a-stuck.mp4: the decoder hangs: nothing in 1.5 s"):
        assert [item["name"] for item in data.train()] == ["b.mp4"]


def test_one_that_crashes_is_named_and_replaced(tmp_path, decoder):
    path = film(tmp_path / "a.mp4", moving(4))
    with decoder(Crashing()) as own:
        with pytest.raises(Unreadable, match=r"the decoder crashed \(exit status 9\)"):
            own.read(path, Wanted(16))
        own.reader = Failing()
        assert len(own.read(path, Wanted(16)).frames) == 4


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_limit_that_is_none(seconds):
    with pytest.raises(UserError, match="seconds="):
        Decoder(seconds=seconds)


# ---- what a user gives ------------------------------------------------------------------------
def test_a_clip_of_a_user(tmp_path, decoder):
    path = lossless(tmp_path / "a.mkv", flat([0, 51, 102, 255], 32, 64))
    clip = read_clip(str(path), 16, 3, None)
    assert clip.shape == (4, 3, 16, 16) and clip.dtype == torch.float32
    assert clip[:, 0, 0, 0].tolist() == pytest.approx([-1, -0.6, -0.2, 1])
    assert read_clip(str(path), 16, 1, 5.0, PyAV())[:, 0, 0, 0].tolist() == pytest.approx(
        [-1, -0.2]
    )


def test_a_clip_that_is_none(tmp_path, decoder):
    (tmp_path / "a.mp4").write_text("no film")
    with pytest.raises(UserError, match="a.mp4 can't be read as a video: no video"):
        read_clip(str(tmp_path / "a.mp4"), 16, 3, None)
    with pytest.raises(UserError, match="b.mp4: there is no such file"):
        read_clip(str(tmp_path / "b.mp4"), 16, 3, None)
