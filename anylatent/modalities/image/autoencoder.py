"""Convolutional autoencoders of pictures, with a KL or VQ bottleneck.

    picture (C, H, W) → pixel-unshuffle → ResNet levels → attention → posterior over z (c, H/f, W/f)

and back. The loss is that of latent diffusion (2112.10752):

    l1·|x̂ − x| + l2·(x̂ − x)² + bottleneck + perceptual + λ·adversarial

with means over the numbers of a picture, one value per sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Field, Latent, LatentSpec, Noise, Posterior
from anylatent.core.modality import Batch
from anylatent.core.nn.adversary import fooling, hinge
from anylatent.core.nn.bottleneck import BOTTLENECK, KL, Bottleneck
from anylatent.core.nn.guests import Guest
from anylatent.core.nn.layers import GroupNorm, convolution
from anylatent.core.nn.residual import AttentionBlock, Downsample, ResBlock, Upsample
from anylatent.core.nn.sites import Site, Visit, visiting
from anylatent.core.registry import Maker
from anylatent.modalities.image.data_space import Pixels
from anylatent.modalities.image.likelihood import log_prob
from anylatent.modalities.image.pictures import Pictures

FACTORS = (1, 2, 4, 8, 16)
PARTS = {**BOTTLENECK, "perceptual": ("perceptual", "none"), "adversary": ("adversary", "none")}


class ConvAutoencoder(Autoencoder):
    """Pictures (B, C, H, W) in [−1, 1] under the key "image", latents `z` (c, H/factor, W/factor).

    `patch` pixels a side are folded into channels before the first convolution, which saves most of
    the time at small loss; the remaining factor is made by strided convolutions, level i with
    `channels · multipliers[i]` channels (the last multiplier repeats) and `blocks` ResNet blocks.
    `perceptual(a, b)` gives (B,); `adversary` maps pictures to logits of patches, enters after
    `adversary_start` steps, with VQGAN's adaptive weight (2012.09841). Both are made by `equip`.
    """

    for_loss = ("perceptual", "adversary")
    perceptual: nn.Module | None

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 32, 32),
        bottleneck: Bottleneck | None = None,
        perceptual: Maker[nn.Module | None] | None = None,
        adversary: Maker[nn.Module | None] | None = None,
        *,
        factor: int = 4,
        patch: int = 2,
        latent_channels: int = 4,
        channels: int = 64,
        multipliers: Sequence[int] = (1, 2, 4, 4),
        blocks: int = 2,
        heads: int = 4,
        attention: bool = True,
        dropout: float = 0.0,
        l1: float = 1.0,
        l2: float = 1.0,
        perceptual_weight: float = 1.0,
        adversary_weight: float = 0.5,
        adversary_start: int = 1000,
    ) -> None:
        super().__init__()
        self.shape, self.factor, sides = tuple(shape), factor, _sides(shape, factor, patch)
        self.spec = LatentSpec({"z": Field((latent_channels, *sides), channels=0)})
        self.bottleneck = KL() if bottleneck is None else bottleneck
        self.bottleneck.attach(self.spec)
        widths = _widths(channels, multipliers, (factor // patch).bit_length())
        tuned = _Sizes(shape[0], widths, blocks, heads if attention else 0, dropout, patch)
        self.encoder = Encoder(latent_channels * self.bottleneck.pieces, tuned)
        self.decoder = Decoder(latent_channels, tuned)
        self.perceptual, self._makers = None, (perceptual, adversary)
        self.l1, self.l2, self.perceptual_weight = l1, l2, perceptual_weight
        self.adversary_weight, self.adversary_start = adversary_weight, adversary_start
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def sized(self, shape: tuple[int, int, int]) -> ConvAutoencoder:
        """The same, with the same weights, for pictures of other sides."""
        twin, channels = copy(self), self.spec.fields["z"].shape[0]
        sides = _sides(shape, self.factor, self.decoder.patch)
        twin.shape, twin.spec = (
            tuple(shape),
            LatentSpec({"z": Field((channels, *sides), channels=0)}),
        )
        return twin

    def equip(self) -> None:
        self.perceptual, self.adversary = (
            None if make is None else make() for make in self._makers
        )

    def encode(self, batch: Batch) -> Posterior:
        features = self.encoder(self._image(batch))
        pieces = features.float() if features.dtype != torch.float64 else features
        latents = [self.spec.wrap({"z": x}) for x in pieces.chunk(self.bottleneck.pieces, 1)]
        return self.bottleneck.posterior(*latents)

    @property
    def sites(self) -> Sequence[Site]:
        return self.decoder.sites

    def decode(self, z: Latent, guest: Guest | None = None) -> Pictures:
        """Pictures, about in [−1, 1] but not clamped, so that gradients pass. A guest is asked at
        the sites of the decoder, which nothing steers."""
        return Pictures(self._decode(self.bottleneck.decodable(z), guest))

    def restore(self, z: Latent) -> Latent:
        return Pixels(self.shape).spec.wrap({"z": self.decode(z).tensor})

    def loss(
        self, batch: Batch, noise: Noise, step: int, guest: Guest | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        image = self._image(batch)
        z, regular = self.bottleneck(self.encode(batch), noise)
        output = self._decode(z, guest)
        terms = self._reconstruction(output, image)
        if self.adversary is not None and step >= self.adversary_start:
            regular["adversarial"] = self._adversarial(terms, output)
        return {**terms, **regular}, output

    def log_prob(self, batch: Batch, z: Latent, guest: Guest | None = None) -> Tensor:
        """Of the bytes of pictures around the decoded ones, see `image.likelihood`."""
        return log_prob(self._image(batch), self.decode(z, guest).tensor)

    def adversary_loss(self, batch: Batch, output: Tensor, step: int) -> dict[str, Tensor]:
        if self.adversary is None or step < self.adversary_start:
            return {}
        real, fake = hinge(self.adversary(self._image(batch)), self.adversary(output.detach()))
        return {"real": real, "fake": fake}

    def report(self) -> dict[str, float]:
        return self.bottleneck.report()

    def _reconstruction(self, output: Tensor, image: Tensor) -> dict[str, Tensor]:
        difference = (output - image).flatten(1)
        terms = {}
        if self.l1:
            terms["l1"] = self.l1 * difference.abs().mean(1)
        if self.l2:
            terms["l2"] = self.l2 * difference.square().mean(1)
        if self.perceptual is not None and self.perceptual_weight:
            terms["perceptual"] = self.perceptual_weight * self.perceptual(output, image)
        return terms

    def _adversarial(self, terms: dict[str, Tensor], output: Tensor) -> Tensor:
        assert self.adversary is not None
        total = torch.stack(list(terms.values())).sum(0).mean()
        last = self.decoder.last
        where = last if last.requires_grad else output  # layers that were put into it learn alone
        return fooling(self.adversary(output), total, where, self.adversary_weight)

    def _decode(self, z: Latent, guest: Guest | None = None) -> Tensor:
        features = z["z"].contiguous(memory_format=torch.channels_last)
        output: Tensor = self.decoder(features, guest)
        return output.float() if output.dtype != torch.float64 else output

    def _image(self, batch: Batch) -> Tensor:
        image = batch["image"]
        if not isinstance(image, Tensor) or tuple(image.shape[1:]) != self.shape:
            got = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise ValueError(f"this autoencoder takes pictures (B, *{self.shape}), got {got}")
        return image.contiguous(memory_format=torch.channels_last)


class _Sizes:
    """What encoder and decoder have in common; heads = 0 means no attention."""

    def __init__(
        self,
        channels: int,
        widths: list[int],
        blocks: int,
        heads: int,
        dropout: float,
        patch: int,
    ) -> None:
        self.pixels = channels * patch**2
        self.widths, self.blocks, self.heads = widths, blocks, heads
        self.dropout, self.patch = dropout, patch

    def level(self, width: int) -> list[nn.Module]:
        return [ResBlock(width, dropout=self.dropout) for _ in range(self.blocks)]

    def middle(self) -> list[nn.Module]:
        """Attention between blocks at the lowest resolution."""
        width = self.widths[-1]
        attention = [AttentionBlock(width, self.heads)] if self.heads else []
        return [*attention, ResBlock(width, dropout=self.dropout)]


class Encoder(nn.Module):
    """Pictures (B, C, H, W) to features (B, outputs, H/f, W/f)."""

    def __init__(self, outputs: int, sizes: _Sizes) -> None:
        super().__init__()
        self.patch = sizes.patch
        layers: list[nn.Module] = [
            convolution(sizes.pixels, sizes.widths[0]),
            *sizes.level(sizes.widths[0]),
        ]
        for narrow, wide in zip(sizes.widths, sizes.widths[1:], strict=False):
            layers += [Downsample(narrow, wide), *sizes.level(wide)]
        self.body = nn.Sequential(*layers, *sizes.middle())
        self.norm = GroupNorm(sizes.widths[-1])
        self.out = convolution(sizes.widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        features: Tensor = self.out(silu(self.norm(self.body(x))))
        return features


class Decoder(nn.Module):
    """Latents (B, c, H/f, W/f) to pictures (B, C, H, W)."""

    def __init__(self, inputs: int, sizes: _Sizes) -> None:
        super().__init__()
        self.patch = sizes.patch
        widths = sizes.widths[::-1]
        layers: list[nn.Module] = [convolution(inputs, widths[0]), *sizes.middle()]
        layers += sizes.level(widths[0])
        for wide, narrow in zip(widths, widths[1:], strict=False):
            layers += [Upsample(wide, narrow), *sizes.level(narrow)]
        self.body = nn.Sequential(*layers)
        self.norm = GroupNorm(widths[-1])
        self.out = convolution(widths[-1], sizes.pixels)
        self.sites = self._sites(widths[0])

    def _sites(self, width: int) -> list[Site]:
        """After each layer of the body; after attention, tokens in the order of the positions."""
        found: list[Site] = []
        for i, layer in enumerate(self.body):
            if isinstance(layer, AttentionBlock):
                found += layer.sites(f"body.{i}")
                continue
            if isinstance(layer, Upsample):
                width = layer.width
            found.append(Site(f"body.{i}", width, "map"))
        return found

    @property
    def last(self) -> nn.Parameter:
        """The weight of the last layer, where the losses are weighed against each other."""
        weight = self.out.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    def forward(self, z: Tensor, guest: Guest | None = None) -> Tensor:
        visit = visiting(guest, self.sites)
        h = self.body(z) if visit is None else self._visited(z, visit)
        x: Tensor = self.out(silu(self.norm(h)))
        return pixel_shuffle(x, self.patch) if self.patch > 1 else x

    def _visited(self, h: Tensor, visit: Visit) -> Tensor:
        for layer in self.body:
            if isinstance(layer, AttentionBlock):
                h = layer(h, visit=visit)
            else:
                h = visit(layer(h))
        return h


def _widths(channels: int, multipliers: Sequence[int], levels: int) -> list[int]:
    """The channels of each level; the last multiplier repeats."""
    last = len(multipliers) - 1
    return [channels * multipliers[min(level, last)] for level in range(levels)]


def _sides(shape: tuple[int, int, int], factor: int, patch: int) -> tuple[int, int]:
    """Height and width of latents; raises ValueError for sizes that don't go together."""
    if factor not in FACTORS:
        raise ValueError(f"the down-sampling factor must be one of {FACTORS}, got {factor}")
    if patch not in FACTORS or factor % patch:
        raise ValueError(f"`patch` must be a power of two up to factor={factor}, got {patch}")
    if len(shape) != 3 or shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"pictures of shape {tuple(shape)} can't be reduced {factor} times: height and width "
            f"must be multiples of {factor}"
        )
    return shape[1] // factor, shape[2] // factor
