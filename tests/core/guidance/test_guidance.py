"""Classifier-free guidance on conditional Gaussians, where it is known in closed form."""

import pytest
import torch

import anylatent as al
from anylatent.core.testing.denoisers import ConditionalGaussian
from tests.core.toys import distance, like, start

SPEC = al.LatentSpec({"z": al.Field((6,))})
COND = al.Condition({"mean": torch.tensor([1.0, -0.5, 2.0])})


def guided(schedule, **settings):
    return al.get("guidance", "classifier_free")(ConditionalGaussian(schedule), **settings)


@pytest.mark.parametrize("scale", (0.0, 1.0, 2.0, 7.5))
@pytest.mark.parametrize("t", (0.2, 0.7))
def test_guidance_shifts_the_mean_by_the_scale(scale, t):
    """x0(c) - x0(∅) = (1 - α·gain)·c for equal widths, so the guided mean is scale·c."""
    schedule = al.get("schedule", "vp")()
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    centre = (scale * COND.values["mean"].double()) * like(x, 1.0)
    wanted = al.testing.GaussianDenoiser(schedule, centre, 0.3)(x, t)
    assert distance(guided(schedule, scale=scale)(x, t, COND), wanted) < 1e-6


def test_the_tilt_of_a_mixture_s_component():
    """Equal widths: guiding by s samples N(s·c, .3²) from N(c, .3²); by a whole solve."""
    schedule, count = al.get("schedule", "flow")(), 400
    blank = SPEC.blank(count, dtype=torch.float64)
    cond = al.Condition({"mean": torch.full((count,), 0.5)})
    denoise = guided(schedule, scale=3.0).bind(cond)
    times = al.get("grid", "log_snr")()(schedule, 40)
    x, _ = start(schedule, blank)
    z = al.solve(al.get("solver", "dpmpp_2m")(), denoise, schedule, x, times)["z"]
    assert abs(float(z.mean()) - 1.5) < 3 * 0.3 / z.numel() ** 0.5 + 0.003
    assert float(z.std()) == pytest.approx(0.3, rel=0.05)


def test_scale_1_and_no_condition_cost_one_call_the_rest_one_of_twice_the_batch():
    schedule = al.get("schedule", "vp")()
    x, _ = start(schedule, SPEC.blank(3))
    for scale, cond in ((1.0, COND), (5.0, None), (5.0, al.Condition())):
        denoiser = guided(schedule, scale=scale)
        plain = ConditionalGaussian(schedule)(x, 0.5, cond)
        assert distance(denoiser(x, 0.5, cond), plain) == 0
        assert denoiser.inner.calls == 1
    denoiser = guided(schedule, scale=5.0)
    denoiser(x, 0.5, COND)
    assert denoiser.inner.calls == 1


def test_the_interval_is_one_of_sigma_over_alpha():
    schedule = al.get("schedule", "edm")()  # alpha = 1
    denoiser = guided(schedule, scale=4.0, sigma_min=0.5, sigma_max=5.0)
    plain = ConditionalGaussian(schedule)
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    for sigma, inside in ((0.4, False), (0.6, True), (4.9, True), (5.5, False)):
        t = (sigma / 80) ** (1 / 7)
        same = distance(denoiser(x, t, COND), plain(x, t, COND)) == 0
        assert same is not inside


def test_an_interval_per_sample():
    schedule = al.get("schedule", "edm")()
    denoiser = guided(schedule, scale=4.0, sigma_min=0.5, sigma_max=5.0)
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    t = (torch.tensor([0.4, 2.0, 20.0], dtype=torch.float64) / 80) ** (1 / 7)
    joint = denoiser(x, t, COND)
    for i in range(3):
        row = slice(i, i + 1)
        own = denoiser(x.select(row), t[i], COND.select(row))
        assert distance(own, joint.select(row)) < 1e-12


@pytest.mark.parametrize("rescale", (0.0, 0.3, 1.0))
def test_rescaling_moves_the_norm_towards_that_of_the_conditional(rescale):
    schedule = al.get("schedule", "vp")()
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    bound = ConditionalGaussian(schedule)(x, 0.6, COND).norm()
    plain = guided(schedule, scale=6.0)(x, 0.6, COND).norm()
    found = guided(schedule, scale=6.0, rescale=rescale)(x, 0.6, COND).norm()
    assert torch.allclose(found, (1 - rescale) * plain + rescale * bound)


def test_guidance_stacks():
    schedule = al.get("schedule", "vp")()
    make = al.get("guidance", "classifier_free")
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    twice = make(make(ConditionalGaussian(schedule), 2.0), 3.0)
    assert distance(twice(x, 0.5, COND), guided(schedule, scale=6.0)(x, 0.5, COND)) < 1e-9


def test_settings_without_meaning_are_errors():
    schedule = al.get("schedule", "vp")()
    for settings in ({"rescale": 2.0}, {"sigma_min": 3.0, "sigma_max": 1.0}, {"sigma_min": -1.0}):
        with pytest.raises(ValueError):
            guided(schedule, **settings)
