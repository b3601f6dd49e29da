"""How well pictures are restored: signal-to-noise ratio and structural similarity.

Both take pictures in [-1, 1], (B, C, H, W), clamp them and map them to [0, 1], so that the data
range is 1, and return one number per picture, (B,).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def psnr(originals: Tensor, outputs: Tensor) -> Tensor:
    """10 log₁₀(1 / MSE) in dB, each picture by its own MSE; at most 100 dB, for equal ones."""
    return decibels(mse(originals, outputs))


def mse(originals: Tensor, outputs: Tensor) -> Tensor:
    """The mean squared error of each picture."""
    a, b = _pair(originals, outputs)
    return (a - b).square().flatten(1).mean(1)


def decibels(errors: Tensor) -> Tensor:
    """The signal-to-noise ratio of mean squared errors; at most 100 dB, where nothing is wrong."""
    return -10 * torch.log10(errors.clamp(min=1e-10))


def ssim(originals: Tensor, outputs: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), 1 for equal pictures.

    Gaussian window of 11 × 11 (the largest odd one that fits a smaller picture), σ = 1.5,
    K = (.01, .03), over the windows that lie inside the picture, averaged over channels.
    """
    a, b = _pair(originals, outputs)
    width = min(11, *((n - 1) // 2 * 2 + 1 for n in a.shape[2:]))
    kernel = gaussian(1.5, width).to(a)
    mean_a, mean_b = _smooth(a, kernel), _smooth(b, kernel)
    var_a = _smooth(a * a, kernel) - mean_a**2
    var_b = _smooth(b * b, kernel) - mean_b**2
    covariance = _smooth(a * b, kernel) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    means = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    spreads = (2 * covariance + c2) / (var_a + var_b + c2)
    return (means * spreads).flatten(1).mean(1)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Pictures (B, C, H, W) convolved with a Gaussian of σ pixels, edges repeated."""
    radius = max(1, round(3 * sigma))
    kernel = gaussian(sigma, 2 * radius + 1).to(images)
    return _smooth(functional.pad(images, (radius,) * 4, mode="replicate"), kernel)


def gaussian(sigma: float, width: int) -> Tensor:
    """The Gaussian at `width` whole numbers around zero, normalised to sum one; float64."""
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    weights = torch.exp(-0.5 * (x / sigma) ** 2)
    return weights / weights.sum()


def _smooth(x: Tensor, kernel: Tensor) -> Tensor:
    channels = x.shape[1]
    column = kernel[None, None, :, None].expand(channels, 1, -1, 1)
    rows = functional.conv2d(x, column, groups=channels)
    return functional.conv2d(rows, column.transpose(2, 3), groups=channels)


def _pair(originals: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    if originals.shape != outputs.shape or originals.ndim != 4:
        raise ValueError(
            "originals and outputs must be pictures of one shape (B, C, H, W), got "
            f"{tuple(originals.shape)} and {tuple(outputs.shape)}"
        )
    both = [((x.detach().double() + 1) / 2).clamp(0, 1) for x in (originals, outputs)]
    return both[0], both[1]
