"""How well pictures are restored: known errors, closed forms, and another package."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anylatent.modalities.shared.restoration import blur, psnr, ssim


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_psnr_of_known_errors() -> None:
    a = torch.zeros(3, 1, 8, 8)
    b = a + torch.tensor([0.2, 0.02, 0.0])[:, None, None, None]  # .1, .01 and 0 in [0, 1]
    assert psnr(a, b).tolist() == pytest.approx([20, 40, 100], abs=1e-4)
    noise = 0.1 * normal(1, 3, 256, 256).float()
    assert float(psnr(torch.zeros_like(noise), noise)) == pytest.approx(26.02, abs=0.05)
    assert float(psnr(torch.ones(1, 3, 8, 8), torch.full((1, 3, 8, 8), 7.0))) == 100  # clamped


def test_ssim_of_flat_pictures_in_closed_form() -> None:
    a, b = torch.full((1, 3, 16, 16), 0.0), torch.full((1, 3, 16, 16), 0.6)  # .5 and .8
    expected = (2 * 0.5 * 0.8 + 1e-4) / (0.25 + 0.64 + 1e-4)
    assert float(ssim(a, b)) == pytest.approx(expected, abs=1e-6)


def test_ssim_of_equals_is_one_and_falls_with_damage() -> None:
    a = blur(normal(4, 3, 32, 32).float(), 1.0).clamp(-1, 1)
    assert ssim(a, a).tolist() == pytest.approx([1] * 4, abs=1e-6)
    found = [float(ssim(a, blur(a, sigma)).mean()) for sigma in (0.5, 1.0, 2.0)]
    assert 1 > found[0] > found[1] > found[2]
    assert float(ssim(a, -a).mean()) < 0.1


def test_ssim_against_torchmetrics() -> None:
    image = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is missing")
    a, b = torch.rand(4, 3, 32, 24), torch.rand(4, 3, 32, 24)
    _, whole = image.structural_similarity_index_measure(
        a, b, data_range=1.0, reduction="none", return_full_image=True
    )
    theirs = whole[..., 5:-5, 5:-5].mean((1, 2, 3))  # they reflect the edges, we leave them out
    assert torch.allclose(ssim(2 * a - 1, 2 * b - 1).float(), theirs, atol=1e-5)


@pytest.mark.parametrize("size", [4, 8, 11])
def test_ssim_of_small_pictures(size: int) -> None:
    a = normal(2, 1, size, size).float().clamp(-1, 1)
    assert ssim(a, a).tolist() == pytest.approx([1, 1]) and float(ssim(a, -a).mean()) < 0.1


def test_blur_keeps_flat_pictures_and_has_its_width() -> None:
    assert torch.allclose(blur(torch.full((1, 3, 9, 9), 0.3), 1.5), torch.tensor(0.3))
    impulse = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    impulse[0, 0, 20, 20] = 1
    spread = blur(impulse, 2.0)[0, 0].sum(0)
    x = torch.arange(41, dtype=torch.float64) - 20
    assert float((spread * x**2).sum()) == pytest.approx(4, rel=0.03)


def test_pictures_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="one shape"):
        psnr(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))
