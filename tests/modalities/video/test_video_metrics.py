"""Figures of clips: what is measured of one, and tables of them."""

import math

import pytest
import torch
from torch.nn import functional

from anylatent.core.modality import Data, Metrics
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.metrics import (
    ClipDistances,
    ClipRestoration,
    Coherence,
    MotionAsked,
    temporal,
)
from anylatent.modalities.video.metrics.references import Part, mean_frame
from anylatent.modalities.video.metrics.temporal import flicker, measure, restlessness

pytest.importorskip("cv2", reason="opencv is not installed")


def shapes(count, length, seed, size=64):
    """Clips (count, length, 3, size, size) of a textured square that moves over a ramp."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float32),) * 2, indexing="ij")
    clips = torch.empty(count, length, 3, size, size)
    for clip in clips:
        tint, back = torch.rand(2, 3, 1, 1, generator=draw)
        top, left, turn, wave = torch.rand(4, generator=draw).tolist()
        down, right = 3 * math.sin(6.28 * turn), 3 * math.cos(6.28 * turn)
        for t, frame in enumerate(clip):
            u, v = y - 12 - 16 * top - down * t, x - 12 - 16 * left - right * t
            there = (u.abs() < 12) & (v.abs() < 12)
            stripes = 0.6 + 0.4 * torch.cos((0.4 + wave / 2) * (u + v))
            frame.copy_(torch.where(there, tint * stripes, back * (0.2 + 0.6 * x / size)))
    return clips * 2 - 1


class Few(Data):
    """Eight windows to learn from and six held out, cut from videos of 13 frames."""

    classes = {}
    shape = (3, 64, 64)
    window = 4
    fingerprint = "few shapes"

    def train(self):
        return Whole(shapes(3, 13, seed=1))

    def held_out(self):
        return Whole(shapes(2, 13, seed=2))


class Whole(torch.utils.data.Dataset):
    """Whole videos, which are read by windows."""

    def __init__(self, videos):
        self.videos, self.lengths = videos, torch.full((len(videos),), videos.shape[1])

    def __len__(self):
        return len(self.videos)

    def __getitem__(self, index):
        return {"video": self.videos[index.item, index.start : index.stop]}


def coarse(images, batch=8):
    """Features that cost nothing: 8 × 8 means of three colours, and zeros."""
    found = functional.adaptive_avg_pool2d(images.expand(-1, 3, -1, -1), 8).flatten(1)
    return functional.pad(found, (0, temporal.DIMENSION - found.shape[1]))


@pytest.fixture
def cheap(monkeypatch, tmp_path):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))
    monkeypatch.setattr(temporal, "features", coarse)


def table(limit=256):
    data = Few()
    return Metrics([ClipDistances(data, limit), Coherence(data, limit), ClipRestoration()])


# ---- one clip ---------------------------------------------------------------------------------
def test_a_clip_that_stands_still(cheap):
    (found,) = measure(shapes(1, 1, 0)[0].expand(5, -1, -1, -1), 8)
    for name in ("change", "warping", "difference", "strength"):
        assert not getattr(found, name).any()
    assert found.cosine.item() == pytest.approx(1) and found.length.item() == 5
    (single,) = measure(shapes(1, 1, 0)[0], 8)
    assert torch.equal(single.appearance, found.appearance) and single.length.item() == 1
    for name in ("change", "warping", "difference", "strength"):
        assert torch.equal(getattr(single, name), getattr(found, name))


def test_the_changes_of_features_and_pixels(cheap):
    """Grey frames of known brightness."""
    levels = torch.tensor([-0.5, -0.5, 0.3, 0.3, 0.3])
    (found,) = measure(levels[:, None, None, None].expand(5, 3, 64, 64), 8)
    change = found.change[0, :192]
    assert torch.allclose(change, torch.full((192,), 0.4), atol=1e-5)  # √(.8² / 4)
    assert found.cosine.item() == pytest.approx(0.5)  # 1, -1, 1, 1
    step = (0.8 * 127.5) / 4
    assert found.difference.item() == pytest.approx(step, abs=0.3)
    assert found.warping.item() == pytest.approx(step, abs=0.3)  # no flow makes it lighter


def test_features_are_of_the_middle_and_of_spread_frames(cheap, monkeypatch):
    asked = []
    monkeypatch.setattr(temporal, "features", lambda x: asked.append(x[:, 0, 0, 0]) or coarse(x))
    levels = torch.arange(20) / 10 - 1
    clip = levels[:, None, None, None].expand(20, 1, 64, 64)
    (found,) = measure(clip, 4)
    assert torch.equal(asked[0], levels[[0, 6, 8, 9, 10, 11, 13, 19]])
    assert torch.allclose(found.appearance[0, :, 0], levels[[0, 6, 13, 19]], atol=1e-6)
    assert torch.allclose(found.change[0, :64], torch.full((64,), 0.1), atol=1e-5)


def test_an_order_is_that_of_another_clip(cheap):
    clip, order = shapes(1, 6, 3)[0], torch.tensor([3, 1, 5, 0, 4, 2])
    own, other = measure(clip, 4, [torch.arange(6), order])
    for found, wanted in ((own, clip), (other, clip[order])):
        (alone,) = measure(wanted, 4)
        for name, x in found.tensors.items():
            assert torch.allclose(x, getattr(alone, name), atol=1e-6), name


def test_warping_undoes_what_moves(cheap):
    wide = shapes(1, 1, 5, size=96)[0, 0]
    clip = torch.stack([wide[:, 10 : 10 + 64, 10 + 2 * t : 74 + 2 * t] for t in range(5)])
    (found,) = measure(clip, 4)
    assert found.warping < 0.35 * found.difference
    assert found.strength.item() > 0.3


# ---- tables -----------------------------------------------------------------------------------
def test_rows_of_real_and_worse_clips(cheap):
    rows = table().baselines()
    assert list(rows) == ["held-out", "training", "frozen", "shuffled", "blurred"]
    assert {(row["clips"], row["frames"], row["size"]) for row in rows.values()} == {(6, 4, 64)}
    real, copied, frozen, shuffled, blurred = rows.values()
    for name in ("frame_distance", "motion_distance"):
        assert real[name] == pytest.approx(copied[name])
    for name in ("warping_error", "motion_magnitude", "motion_strength"):
        assert frozen[name] == 0 and shuffled[name] > real[name] > 0
    assert frozen["frame_cosine"] == pytest.approx(1) and real["frame_cosine"] < 1
    assert blurred["motion_magnitude"] < real["motion_magnitude"]


def test_samples_are_compared_with_as_many_held_out_clips(cheap):
    metrics, parts = table(), (Few().train(), Few().held_out())
    train, held_out = ([*Part(part, 4, 99)] for part in parts)
    same = metrics.samples(Clips(torch.stack(held_out)), {})
    assert same["frame_distance"] == pytest.approx(0, abs=1e-5)
    assert same["motion_distance"] == pytest.approx(0, abs=1e-5)
    assert same["motion_strength"] == metrics.baselines()["held-out"]["motion_strength"]
    assert metrics.samples(Clips(torch.stack(train)), {})["clips"] == 6
    assert metrics.samples(Clips(torch.stack(train[:5])), {})["clips"] == 5
    short = Clips(torch.stack(train), torch.tensor([4, 4, 1, 2, 4, 3, 3, 3, 4]))
    assert metrics.samples(short, {})["frames"] < 4
    with pytest.raises(ValueError, match=r"need 4 clips .* got 3 of \(3, 4, 3, 64, 64\)"):
        metrics.samples(Clips(torch.stack(train[:3])), {})
    with pytest.raises(ValueError, match="are of Clips, got list"):
        metrics.samples([1, 2, 3], {})


def test_restored_clips_have_the_figures_of_samples(cheap):
    """Beside the held-out clips' own, which are those of the table of samples."""
    metrics, held_out = table(), [*Part(Few().held_out(), 4, 99)]
    originals = Clips(torch.stack(held_out))
    same = metrics.reconstructions(originals, Clips(originals.frames.clone()))
    assert same["frame_distance"] == pytest.approx(0, abs=1e-5)
    assert same["motion_distance"] == pytest.approx(0, abs=1e-5)
    own, real = metrics.unrestored(originals), metrics.baselines()["held-out"]
    assert own == pytest.approx(real) and list(own) == list(real)
    for name in ("warping_error", "frame_cosine", "motion_magnitude", "motion_strength"):
        assert same[name] == own[name]
    frozen = Clips(originals.frames[:, :1].expand_as(originals.frames))
    still, worse = metrics.reconstructions(originals, frozen), metrics.baselines()["frozen"]
    for name in ("warping_error", "frame_cosine", "motion_magnitude", "motion_strength"):
        assert still[name] == pytest.approx(worse[name]), name
    assert still["motion_distance"] > 10 * max(same["motion_distance"], 1e-5)
    for row in (same, own, still):
        assert (row["clips"], row["frames"], row["size"]) == (6, 4, 64)
    assert {"psnr", "ssim", "flicker"} & set(own) == set()


def test_restored_clips_are_cut_into_windows(cheap):
    """Held-out videos are restored as a whole, and compared in the lengths of all others."""
    videos, metrics = shapes(2, 13, seed=2), table()
    long, restored = Clips(videos), Clips(videos * 0.9)
    row, own = metrics.reconstructions(long, restored), metrics.unrestored(long)
    assert (row["clips"], row["frames"]) == (own["clips"], own["frames"]) == (6, 4)
    assert own == pytest.approx(metrics.baselines()["held-out"])
    alone = table(limit=5).reconstructions(long, restored)
    assert alone["clips"] == 5
    with pytest.raises(ValueError, match="as long as the originals, got frames .12, 13. of .13"):
        metrics.reconstructions(long, Clips(restored.frames, torch.tensor([12, 13])))
    with pytest.raises(ValueError, match=r"need 4 clips .* got 3 of \(1, 13, 3, 64, 64\)"):
        metrics.reconstructions(long[:1], restored[:1])


def test_each_clip_is_measured_once(cheap, monkeypatch):
    metrics, clips = table(), Clips(torch.stack([*Part(Few().held_out(), 4, 99)]))
    other = Clips(clips.frames * 0.5)
    metrics.baselines()
    counted = []
    monkeypatch.setattr(temporal, "features", lambda x: counted.append(1) or coarse(x))
    for made in (other, clips):
        metrics.reconstructions(clips, made)
    metrics.unrestored(clips)
    assert len(counted) == 12


def test_the_second_time_comes_from_disk(cheap, monkeypatch):
    rows = table().baselines()
    monkeypatch.setattr(temporal, "features", lambda x: pytest.fail("made again"))
    assert table().baselines() == rows
    with pytest.raises(pytest.fail.Exception, match="made again"):
        table(limit=5).baselines()


def test_too_few_clips(cheap):
    with pytest.raises(ValueError, match=r"need 4 clips or more in each part .* got 3 \(train\)"):
        table(limit=3).baselines()


def test_parts_are_windows_of_long_videos():
    part = Part(Few().train(), 4, 256)
    assert [tuple(w) for w in part.windows[:4]] == [(0, 0, 4), (0, 4, 8), (0, 8, 12), (1, 0, 4)]
    assert len(part) == 9 and len(Part(Few().train(), 4, 5)) == 5
    assert torch.equal([*part][4], shapes(3, 13, seed=1)[1, 4:8])
    whole = Part(Few().train(), 20, 256)  # shorter than a window
    assert [tuple(w) for w in whole.windows] == [(i, 0, 13) for i in range(3)]
    assert Part([{"video": 1}, {"video": 2}], None, 9).windows == [0, 1]


def test_the_mean_frame_counts_frames():
    clips = [torch.zeros(3, 1, 2, 2), torch.ones(1, 1, 2, 2)]
    assert torch.equal(mean_frame(clips), torch.full((1, 2, 2), 0.25))


# ---- restored clips ---------------------------------------------------------------------------
def test_restless_are_restored_frames_where_nothing_moves():
    real = torch.zeros(5, 1, 8, 8)
    real[:, :, :, :4] = torch.linspace(-1, 1, 5).view(5, 1, 1, 1)  # this half moves
    made = real + 0.1 * torch.tensor([1.0, -1, 1, -1, 1]).view(5, 1, 1, 1)
    made[:, :, :, :4] = 0.9  # what is made of it does not count
    assert restlessness([real], [made]) == pytest.approx(0.1 * 255)
    assert restlessness([real], [real]) == 0
    assert restlessness([torch.linspace(-1, 1, 5).view(5, 1, 1, 1)], [made[:, :, :1, :1]]) is None


def test_flicker_of_errors_that_stay_change_sign_and_are_independent():
    real = torch.zeros(400, 1, 4, 4)
    still = torch.full_like(real, 0.2)
    signs = torch.where(torch.arange(400) % 2 == 0, 1.0, -1.0)[:, None, None, None]
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    assert flicker([real], [still]) == 0
    assert flicker([real], [still * signs]) == pytest.approx(2**0.5)
    assert flicker([real], [noise]) == pytest.approx(1, abs=0.02)
    assert flicker([real, real], [still, noise]) < 0.8
    assert flicker([real], [real]) is None


def test_restored_clips_average_their_frames_own_figures():
    before = torch.zeros(2, 3, 1, 32, 32)
    errors = torch.tensor([[0.2, 0.02, 0.2], [0.02, 0.2, 9.0]])[..., None, None, None]
    lengths = torch.tensor([3, 2])
    pair = (Clips(x, lengths) for x in (before, before + errors))
    row = ClipRestoration().reconstructions(*pair)
    assert row["psnr"] == pytest.approx((3 * 20 + 2 * 40) / 5, abs=1e-4)
    changes, sides = 3 * 0.18**2, 3 * (0.2**2 + 0.02**2)
    assert row["flicker"] == pytest.approx((changes / sides) ** 0.5, abs=1e-5)
    assert set(row) == {"psnr", "ssim", "perceptual", "flicker", "restlessness"}
    same = ClipRestoration().reconstructions(Clips(before), Clips(before))
    assert (same["psnr"], same["perceptual"]) == (100, 0) and "flicker" not in same


def test_motion_that_was_asked_for_is_measured():
    """Clips of a dot field that moves as far as was asked, and some that do not move at all."""
    field = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    field = torch.nn.functional.avg_pool2d(field, 5, 1, 2) * 4
    paces = [0, 1, 2, 3, 4, 5]
    moved = [torch.stack([field.roll(k * pace, -1) for k in range(5)]) for pace in paces]
    metric, asked = MotionAsked(), [float(pace) for pace in paces]
    row = metric.samples(Clips(torch.stack(moved)), {"motion": asked})
    assert row["motion_correlation"] > 0.97
    assert row["asked_weak"] == 0.5 and row["asked_strong"] == 4.5
    assert row["made_weak"] < row["made_middle"] < row["made_strong"]
    assert abs(row["made_middle"] - 2.5) < 0.6
    still = Clips(torch.stack([moved[0]] * 6))
    row = metric.samples(still, {"motion": [torch.full((5,), pace) for pace in asked]})
    assert "motion_correlation" not in row and row["made_strong"] == pytest.approx(0, abs=1e-3)
    assert metric.samples(still, {}) == {} and metric.samples(still, {"motion": [None] * 6}) == {}
