"""Rates and effective dimensions against closed forms."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.latents.posterior import Posterior
from anylatent.core.reports.latents import effective_dimensions, participation, rate

FIXED = al.LatentSpec({"z": al.Field((4, 2, 2), channels=0)})
POINTS = al.LatentSpec({"x": al.Field((None, 3), centred=True), "h": al.Field((None, 2), std=0.5)})


def constant(blank, value):
    return blank.map(lambda x: torch.full_like(x, value))


def test_rate_of_a_gaussian_in_bits():
    mean = al.Noise.of(0, 5).like(FIXED.blank(5, dtype=torch.double))
    posterior = Posterior(mean, constant(mean, math.log(0.1)))
    kl = 0.5 * (mean["z"] ** 2 + 0.01 - 1) - math.log(0.1)
    expected = kl.flatten(1).sum(1).mean() / math.log(2)
    assert rate([posterior]) == {"rate_bits": pytest.approx(float(expected))}


def test_rate_of_fields_is_measured_at_unit_deviation_and_adds_up():
    blank = POINTS.blank(2, [3, 5], dtype=torch.double)
    mean = al.Noise.of(0, 2).like(blank)
    mean = mean.replace(h=0.5 * mean["h"])
    log_std = mean.replace(x=mean["x"] * 0, h=mean["h"] * 0).map(lambda x: x + math.log(0.05))
    found = rate([Posterior(mean, log_std)])
    assert found["rate_bits"] == pytest.approx(found["rate_bits_x"] + found["rate_bits_h"])
    h = (mean["h"] / 0.5)[mean.masks["h"]]
    kl = (0.5 * (h**2 + 0.1**2 - 1) - math.log(0.1)).sum() / 2 / math.log(2)
    assert found["rate_bits_h"] == pytest.approx(float(kl))


def test_point_masses_have_no_rate():
    assert rate([]) == {}


def test_effective_dimensions_of_known_spectra():
    rows = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    assert participation(rows) == pytest.approx(6, abs=0.05)
    assert participation(rows * torch.tensor([1.0, 1, 0, 0, 0, 0])) == pytest.approx(2, abs=0.02)
    assert participation(rows[:, :1].expand(-1, 6)) == pytest.approx(1)


def test_effective_dimensions_of_latents():
    fixed = al.Noise.of(0, 2000).like(FIXED.blank(2000))
    found = effective_dimensions([fixed])
    assert found["latent_dimensions"] == 16
    assert found["effective_dimensions"] == pytest.approx(16, abs=0.5)
    points = al.Noise.of(0, 2).like(POINTS.blank(2, [3, 500]))
    points = points.replace(h=points["h"] * torch.tensor([1.0, 0.0]))
    found = effective_dimensions([points])
    assert found["latent_dimensions"] == (2 * 3 + 3 * 2 + 499 * 3 + 500 * 2) / 2
    assert found["effective_dimensions_x"] == pytest.approx(3, abs=0.1)
    assert found["effective_dimensions_h"] == pytest.approx(1)
