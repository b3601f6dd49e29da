"""Time samplers as quantile functions, weightings as measures on the log-SNR."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.weightings import Weighting
from tests.core.test_denoiser import SPEC, Recorder

SCHEDULES = ("vp", "cosine", "edm", "flow", "table")


def preconditioned(name, kind="v"):
    return al.Preconditioned(
        Recorder(SPEC), al.get("schedule", name)(), al.get("prediction", kind)()
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_log_normal_is_normal_in_log_sigma_over_alpha(name):
    schedule, law = al.get("schedule", name)(), al.get("times", "log_normal")(mean=-0.4, std=0.5)
    t = law.sample(al.Noise.of(0, 8000), schedule)
    ratio = -0.5 * schedule.log_snr(t)
    assert abs(float(ratio.mean()) + 0.4) < 3 * 0.5 / 8000**0.5
    assert abs(float(ratio.std()) - 0.5) < 3 * 0.5 / 16000**0.5


def test_logit_normal_is_normal_in_logit_of_t():
    law = al.get("times", "logit_normal")(mean=0.3, std=0.8)
    t = law.sample(al.Noise.of(0, 8000), al.get("schedule", "flow")())
    assert abs(float(torch.logit(t).mean()) - 0.3) < 3 * 0.8 / 8000**0.5
    assert abs(float(torch.logit(t).std()) - 0.8) < 3 * 0.8 / 16000**0.5


def test_low_discrepancy_covers_the_batch_evenly_and_each_member_is_uniform():
    law, schedule = al.get("times", "low_discrepancy")(), al.get("schedule", "flow")()
    t = law.sample(al.Noise.of(0, 64), schedule).sort().values
    assert float(t.diff().max()) < 3 / 64  # three-gap theorem; independent draws reach 5/64
    firsts = torch.stack([law.sample(al.Noise.of(k, 4), schedule)[2] for k in range(2000)])
    below = (firsts[:, None] < torch.linspace(0.1, 0.9, 9)).double().mean(0)
    assert float((below - torch.linspace(0.1, 0.9, 9)).abs().max()) < 2.69 / 2000**0.5


def test_low_discrepancy_of_two_processes_is_that_of_the_joint_batch():
    law, schedule = al.get("times", "low_discrepancy")(), al.get("schedule", "flow")()
    joint = law.sample(al.Noise.of(3, 8), schedule)
    parts = [law.sample(al.Noise.of(3, range(k, k + 4)), schedule) for k in (0, 4)]
    assert torch.equal(torch.cat(parts), joint)


@pytest.mark.parametrize("weighting", ("elbo", "sigmoid"))
@pytest.mark.parametrize("name", ("vp", "cosine", "flow", "table"))
def test_the_expected_loss_does_not_depend_on_the_law_of_times(name, weighting):
    """E_t w·f = ∫ over λ, whatever the law (2107.00630); f a bump so that the ends don't count."""
    schedule, part = al.get("schedule", name)(), al.get("weighting", weighting)()
    denoiser = preconditioned(name)
    totals = []
    for law in (al.get("times", n)() for n in ("uniform", "log_normal", "logit_normal")):
        u = (torch.arange(200000, dtype=torch.float64) + 0.5) / 200000
        t = law.quantile(u, schedule)
        _, c_out = denoiser.prediction.inverse(schedule, t)
        log_snr = schedule.log_snr(t)
        bump = torch.exp(-0.5 * (log_snr - 1) ** 2) / log_snr.exp()
        totals.append(float((part(denoiser, t, law) / c_out**2 * bump).mean()))
    by_hand = torch.linspace(-12, 14, 20001, dtype=torch.float64)
    inside = torch.exp(-0.5 * (by_hand - 1) ** 2) * 0.5
    if weighting == "sigmoid":
        inside = inside * torch.sigmoid(2 - by_hand)
    covered = by_hand > float(schedule.log_snr(1.0))
    wanted = float(torch.trapezoid(inside * covered, by_hand))
    assert totals == pytest.approx([wanted] * 3, rel=2e-3)


@pytest.mark.parametrize("name", SCHEDULES)
def test_known_weights_by_hand(name):
    denoiser = preconditioned(name, "data")  # c_out = 1
    schedule, law = denoiser.schedule, al.get("times", "uniform")()
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    snr = (schedule.alpha(t) / schedule.sigma(t)) ** 2
    get = lambda kind, **settings: al.get("weighting", kind)(**settings)(denoiser, t, law)  # noqa: E731
    assert torch.allclose(get("min_snr", gamma=5.0), torch.minimum(snr, torch.tensor(5.0)))
    rho = snr.rsqrt()
    assert torch.allclose(get("edm", data_std=0.5), (rho**2 + 0.25) / (rho * 0.5) ** 2)
    assert torch.equal(get("simple"), torch.ones_like(t))


def test_min_snr_on_noise_prediction_is_the_published_min_gamma_over_snr():
    denoiser, law = preconditioned("vp", "noise"), al.get("times", "uniform")()
    t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    snr = (denoiser.schedule.alpha(t) / denoiser.schedule.sigma(t)) ** 2
    weight = al.get("weighting", "min_snr")(gamma=5.0)(denoiser, t, law)
    assert torch.allclose(weight, torch.minimum(snr, torch.tensor(5.0)) / snr)


def test_edm_weight_times_edm_target_is_one():
    """EDM's λ(σ)·c_out² = 1: its loss is plain in the space of its own output."""
    for name in SCHEDULES:
        denoiser = al.Preconditioned(
            Recorder(SPEC), al.get("schedule", name)(), al.get("prediction", "edm")(0.5), 0.5
        )
        t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
        weight = al.get("weighting", "edm")(data_std=0.5)(denoiser, t, al.get("times", "uniform")())
        assert torch.allclose(weight, torch.ones_like(t))


def test_a_weighting_is_one_method():
    class Half(Weighting):
        def data(self, log_snr, measure):
            return 0.5 * torch.ones_like(log_snr)

    al.testing.check_weighting(Half())


def test_settings_without_meaning_are_errors():
    for group, name, settings in (
        ("times", "log_normal", {"std": 0.0}),
        ("times", "logit_normal", {"std": -1.0}),
        ("weighting", "min_snr", {"gamma": 0.0}),
    ):
        with pytest.raises(ValueError):
            al.get(group, name)(**settings)
    assert math.isfinite(float(al.get("times", "uniform")().density(torch.tensor(0.5), None)))
