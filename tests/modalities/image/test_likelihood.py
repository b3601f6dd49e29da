"""Bits per dimension of pictures, against laws of bytes that are known."""

import math
from types import SimpleNamespace

import pytest
import torch

import anylatent as al
from anylatent.core.latents.normaliser import Normaliser
from anylatent.core.likelihood.measures import Elbo
from anylatent.core.reports.likelihood import DataLikelihood
from anylatent.modalities.image.likelihood import log_prob
from tests.core.likelihood.test_measures import Exact

LEVELS = torch.arange(256).double() / 127.5 - 1
SHAPE = (1, 2, 2)


def all_of(output):
    """Every picture of one number, beside one restored value."""
    return LEVELS.reshape(-1, 1, 1, 1), torch.full((256, 1, 1, 1), output, dtype=torch.float64)


@pytest.mark.parametrize("output", (-1.7, -1.0, -0.3, 0.00392, 0.999, 2.0))
def test_the_probabilities_of_all_bytes_add_up(output):
    p = log_prob(*all_of(output)).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-9) and bool((p > 0).all())
    assert abs(float(LEVELS[p.argmax()]) - max(-1, min(1, output))) <= 1 / 255


def test_the_scale_of_a_picture_is_unknown():
    """Mean over the scales of products over the numbers, by hand."""
    images = LEVELS[torch.tensor([[0, 255, 7, 130], [9, 9, 9, 200]])].reshape(2, *SHAPE)
    outputs = images + torch.tensor([0.01, -0.02, 0.3, 0.0]).double().reshape(1, *SHAPE)
    total = []
    for scale in (2 ** (-k / 2) for k in range(25)):
        low = torch.sigmoid((images - 1 / 255 - outputs) / scale)
        high = torch.sigmoid((images + 1 / 255 - outputs) / scale)
        low, high = torch.where(images < -0.999, 0, low), torch.where(images > 0.999, 1, high)
        total.append((high - low).flatten(1).prod(1))
    assert torch.allclose(log_prob(images, outputs), torch.stack(total).mean(0).log())


def test_good_restorations_cost_few_bits_and_bad_ones_eight():
    image = LEVELS[(al.Noise.of(0, 2).uniform(3, 16, 16) * 256).long()]
    dims, nats = image[0].numel(), math.log(2)
    perfect = -log_prob(image, image) / dims / nats
    assert float(perfect.max()) < 0.02, "log 25 in all, and a little beside the level"
    blind = -log_prob(image, torch.zeros_like(image)) / dims / nats
    assert 8 < float(blind.min()) < float(blind.max()) < 8.6
    off = -log_prob(image, image + 0.05 * al.Noise.of(1, 2).normal(3, 16, 16)) / dims / nats
    entropy = math.log2(0.05 * 127.5 * math.sqrt(2 * math.pi * math.e))
    assert entropy < float(off.min()) and float(off.max()) < entropy + 0.1


class Uniform(al.Denoiser):
    """E[x0 | x_t] where every number is one of the levels, equally likely."""

    def __init__(self, schedule, levels):
        super().__init__()
        self.schedule, self.levels = schedule, levels

    def forward(self, x, t, cond=None):
        alpha, sigma = self.schedule.coefficients(torch.as_tensor(t, dtype=torch.float64))
        z, (alpha, sigma) = x["z"][..., None], (c.reshape(-1, 1, 1, 1, 1) for c in (alpha, sigma))
        weights = torch.softmax(-((z - alpha * self.levels) ** 2) / (2 * sigma**2), -1)
        return x.replace(z=weights @ self.levels)


def test_equally_likely_bytes_have_eight_bits_each():
    """Through the diffusion model and the autoencoder that does nothing: the bound is met."""
    modality, schedule = al.get("modality", "image")(SHAPE), al.get("schedule", "cosine")()
    autoencoder = al.get("autoencoder", "identity")(modality)
    normaliser = Normaliser(autoencoder.spec).double()
    normaliser.scale_z.fill_(0.58)
    levels = LEVELS / 0.58
    system = SimpleNamespace(
        modality=modality,
        autoencoder=autoencoder,
        normaliser=normaliser,
        generator=Exact(autoencoder.spec, Uniform(schedule, levels)),
        condition=lambda columns: None,
    )
    images = LEVELS[(al.Noise.of(3, 2000).uniform(*SHAPE) * 256).long()]
    measure = Elbo(log_snr=12.0, draws=32)
    found = DataLikelihood(system, measure, ()).figures([{"image": images}], 0)
    bits, error = (found[f"bound_bits_per_dimension{end}"] for end in ("", "_error"))
    overhead = math.log2(25) / 4  # of the unknown scale, for pictures of four numbers
    assert error < 0.06
    assert 8 - 3 * error < bits < 8 + overhead + 0.1 + 3 * error
    assert found["bound_nats"] == pytest.approx(4 * math.log(2) * bits)


def test_the_autoencoder_of_pictures():
    """Its decoded mean, and a law per sample whatever the neighbours."""
    images = LEVELS[(al.Noise.of(0, 3).uniform(3, 32, 32) * 256).long()].float()
    part = al.get("autoencoder", "conv")(channels=32).eval()
    z = part.encode({"image": images}).mean
    found = part.log_prob({"image": images}, z)
    assert torch.allclose(found, log_prob(images, part.decode(z).tensor))
    own = part.log_prob({"image": images[1:2]}, z.select(slice(1, 2)))
    assert torch.allclose(own, found[1:2], rtol=1e-5)
