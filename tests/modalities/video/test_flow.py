"""Optical flow of pictures that were moved by known amounts, and the strength of motion."""

import sys

import pytest
import torch

from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.shared.restoration import blur
from anylatent.modalities.video.flow import flow, flows, motion, small, warp

pytest.importorskip("cv2", reason="opencv is not installed")


def picture(size=64, channels=1, right=0.0, down=0.0, scale=1.0):
    """A sum of waves, moved by pixels exactly, uint8."""
    noise = torch.Generator().manual_seed(1)
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64),) * 2, indexing="ij")
    y, x = (y + 0.5) / scale - down, (x + 0.5) / scale - right
    total = torch.zeros(channels, size, size, dtype=torch.float64)
    for _ in range(40):
        u, v, phase = (torch.rand(3, generator=noise, dtype=torch.float64) - 0.5).tolist()
        tint = torch.rand(channels, generator=noise, dtype=torch.float64)[:, None, None] + 0.5
        total += tint * torch.cos(1.2 * (u * x + v * y) + 6.28 * phase)
    total = total * 9 + 128
    return total.round().clamp(0, 255).to(torch.uint8)


def clip(*moves, **how):
    return torch.stack([picture(right=right, down=down, **how) for right, down in moves])


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("move", ((3.0, -2.0), (0.5, 0.25), (0.0, 0.0)))
def test_a_moved_picture_has_that_flow(move, channels):
    a, b = clip((0, 0), move, channels=channels)
    found = flow(a, b)
    assert found.shape == (2, 64, 64) and found.dtype == torch.float32
    inner = found[:, 6:-6, 6:-6]
    wanted = torch.tensor(move)[:, None, None]
    assert (inner - wanted).norm(dim=0).mean() < 0.1


def test_strength_is_the_length_of_the_flow():
    moves = [(0, 0), (3, -2), (3, -2), (3.5, -1.75)]
    found = motion(clip(*moves))
    assert found.shape == (4,) and found.dtype == torch.float32
    wanted = torch.tensor([13**0.5, 0, 0.3125**0.5, 0.3125**0.5])
    assert (found - wanted).abs().max() < 0.2  # what comes in at the edges is not known
    assert found[1] == 0 and found[3] == found[2]


def test_what_stands_still_has_none():
    assert torch.equal(motion(clip(*[(0, 0)] * 5)), torch.zeros(5))
    assert torch.equal(motion(clip((0, 0))), torch.zeros(1))
    assert flows(clip((0, 0))).shape == (0, 2, 64, 64)


def test_strength_does_not_depend_on_the_size():
    moves = [(0, 0), (2, -1), (4, 1)]
    once, twice = motion(clip(*moves)), motion(clip(*moves, size=128, scale=2.0))
    assert (once - twice).abs().max() < 0.1
    assert small(clip((0, 0), size=96)).shape == (1, 1, 64, 64)


def test_warping_undoes_the_move():
    a, b = clip((0, 0), (3, -2)).float()
    back = warp(b[None], torch.tensor([3.0, -2.0])[None, :, None, None].expand(1, 2, 64, 64))[0]
    assert (back - a)[:, 2:, :-3].abs().max() < 1.5  # both were rounded
    assert torch.equal(back[:, :, -1], back[:, :, -4])  # from outside: the edge's
    half = torch.full((1, 2, 64, 64), 0.5)
    ramp = torch.arange(64.0).expand(1, 1, 64, 64)
    assert torch.allclose(warp(ramp, half)[..., :-1], ramp[..., :-1] + 0.5, atol=1e-4)


def test_smooth_pictures_give_the_same_each_time():
    frames = blur(torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)), 2.0)
    pixels = (frames * 255).to(torch.uint8)
    assert torch.equal(flows(pixels), flows(pixels))


@pytest.mark.parametrize("frames", (torch.rand(2, 3, 64, 64), torch.zeros(2, 64, 64).byte()))
def test_other_frames_are_refused(frames):
    with pytest.raises(ValueError, match=r"uint8 \(T, 1 or 3, H, W\), got torch"):
        flows(frames)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackage, match="optical flow needs the package 'opencv-python"):
        motion(clip((0, 0), (1, 0)))


def test_long_films_are_compared_piece_by_piece(monkeypatch):
    frames = (torch.rand(11, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 255).byte()
    whole = motion(frames)
    monkeypatch.setattr("anylatent.modalities.video.flow._PIECE", 4)
    assert torch.equal(motion(frames), whole)
