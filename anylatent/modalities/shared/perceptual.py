"""A perceptual distance between pictures, as a training loss and as a metric.

LPIPS (1801.03924): the activations of a trained network at five depths, each scaled to unit length
over its channels, are subtracted, squared, weighted per channel by what people find alike, averaged
over the picture and summed. The weights are those of the shift-tolerant version (2207.13686), whose
pooling blurs before it subsamples; they come from the package `stlpips-pytorch`, the networks are
our own. Values are not comparable with those of LPIPS's own weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from anylatent.core.support.packages import package_file

_SMALLEST = 32
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class _Blur(nn.Module):
    """Convolves with the binomial filter [1, 2, 1] ⊗ [1, 2, 1] / 16 and takes every other pixel."""

    filter: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("filter", torch.outer(line, line).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, (2, 2, 2, 2), mode="reflect")
        return functional.conv2d(padded, self.filter, stride=2, groups=x.shape[1])


def _vgg16() -> list[nn.Sequential]:
    """VGG16 (1409.1556) up to its 13th convolution, cut after the 2nd, 4th, 7th, 10th, 13th."""
    stages: list[nn.Sequential] = []
    before = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers: list[nn.Module] = [nn.MaxPool2d(2, 1), _Blur(before)] if stages else []
        for _ in range(count):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
            before = width
        stages.append(nn.Sequential(*layers))
    return stages


def _alexnet() -> list[nn.Sequential]:
    """AlexNet (1404.5997), cut after each of its five convolutions."""
    pool = nn.MaxPool2d(3, 1)
    return [
        nn.Sequential(nn.Conv2d(3, 64, 11, padding=2), _Blur(64), nn.ReLU()),
        nn.Sequential(pool, _Blur(64), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
        nn.Sequential(pool, _Blur(192), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
    ]


_TRUNKS = {"vgg": _vgg16, "alex": _alexnet}


class _Distance(nn.Module):
    """The trunk and the weight of each of its channels, frozen."""

    shift: Tensor
    scale: Tensor

    def __init__(self, trunk: str, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(_TRUNKS[trunk]())
        own = self.stages.state_dict()
        values = [value for name, value in weights.items() if name.startswith("net.")]
        if [v.shape for v in own.values()] != [v.shape for v in values]:
            raise ValueError(f"these are not the weights of the trunk '{trunk}'")
        self.stages.load_state_dict(dict(zip(own, values, strict=True)))
        for stage in range(len(self.stages)):
            self.register_buffer(f"weight{stage}", weights[f"lin{stage}.model.1.weight"])
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two passes, so that nothing flows back through the one that needs no gradient."""
        total = torch.zeros(len(a), device=a.device)
        pairs = zip(self._activations(a), self._activations(b), strict=True)
        for index, (first, second) in enumerate(pairs):
            weight = self.get_buffer(f"weight{index}")
            total = total + ((_unit(first) - _unit(second)) ** 2 * weight).sum(1).mean((1, 2))
        return total

    def _activations(self, x: Tensor) -> Iterator[Tensor]:
        x = (x - self.shift) / self.scale
        for stage in self.stages:
            x = stage(x)
            yield x


def _unit(x: Tensor) -> Tensor:
    """Scaled to unit length over the channels, in float32; the gradient is finite at zero too."""
    x = x.float()
    return x * torch.rsqrt((x * x).sum(1, keepdim=True) + 1e-10)


@lru_cache(maxsize=4)
def _network(trunk: str, device: torch.device) -> _Distance:
    path = package_file(
        "stlpips-pytorch",
        *("weights", "vST0.0", f"{trunk}_shift_tolerant.pth"),
        purpose="the perceptual distance",
    )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with torch.random.fork_rng():  # building draws weights that are thrown away
        network = _Distance(trunk, weights)
    return network.eval().requires_grad_(False).to(device)


class Perceptual(nn.Module):
    """The perceptual distance of pictures (B, 1 or 3, H, W) in [-1, 1], shape (B,).

    `trunk`: `vgg` (VGG16, the usual one for training) or `alex` (AlexNet, about a third of the
    work). Pictures smaller than 32 pixels are enlarged to that. The network is frozen, shared by
    all instances, follows the device of the pictures and is no part of the module's parameters,
    buffers or state: gradients flow to the pictures alone. Under autocast it runs in the lower
    precision and compares in float32.

    Raises `MissingPackage` at first use without the extra `anylatent[image]`.
    """

    def __init__(self, trunk: str = "vgg") -> None:
        super().__init__()
        if trunk not in _TRUNKS:
            raise ValueError(f"there is no trunk '{trunk}', only {', '.join(_TRUNKS)}")
        self.trunk = trunk

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] not in (1, 3):
            raise ValueError(
                "two batches of pictures must have one shape (B, 1 or 3, H, W), got "
                f"{tuple(a.shape)} and {tuple(b.shape)}"
            )
        distance: Tensor = _network(self.trunk, a.device)(_prepare(a), _prepare(b))
        return distance


def _prepare(x: Tensor) -> Tensor:
    x = x.float().expand(-1, 3, -1, -1)
    height, width = x.shape[2:]
    if min(height, width) >= _SMALLEST:
        return x
    size = (max(height, _SMALLEST), max(width, _SMALLEST))
    return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
