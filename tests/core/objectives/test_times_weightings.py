"""Time samplers as quantile functions, weightings as measures on the log-SNR."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.objectives.weightings import Weighting
from tests.core.denoisers.test_denoiser import SPEC, Recorder

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


def level_edm(log_snr):
    """N(λ; 2.4, 2.4²)·(e^{-λ} + .5²) from its greatest value towards noise level, that being 1."""
    curve = lambda x: torch.exp(-0.5 * ((x - 2.4) / 2.4) ** 2) * (torch.exp(-x) + 0.25)  # noqa: E731
    fine = curve(torch.linspace(-9, 9, 180001, dtype=torch.float64))
    peak = float(fine.argmax()) / 10000 - 9
    return curve(log_snr.clamp(min=peak)) / fine.max()


@pytest.mark.parametrize("weighting", ("elbo", "sigmoid", "monotone_edm", "exponential"))
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
    share = {
        "elbo": torch.ones_like(by_hand),
        "sigmoid": torch.sigmoid(2 - by_hand),
        "exponential": torch.exp(-0.5 * by_hand),
        "monotone_edm": level_edm(by_hand),
    }
    inside = inside * share[weighting]
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


def test_p2_on_noise_prediction_is_the_published_weight():
    denoiser, law = preconditioned("vp", "noise"), al.get("times", "uniform")()
    t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    snr = (denoiser.schedule.alpha(t) / denoiser.schedule.sigma(t)) ** 2
    for gamma, k in ((1.0, 1.0), (0.5, 1.0), (1.0, 3.0)):
        weight = al.get("weighting", "p2")(gamma, k)(denoiser, t, law)
        assert torch.allclose(weight, 1 / (k + snr) ** gamma)


def test_the_exponential_bound_is_flow_matching_s_loss():
    """½·e^{-λ/2}·SNR·|dλ| = dt/t², which is 1/c_out² of the velocity on straight lines."""
    denoiser, law = preconditioned("flow", "velocity"), al.get("times", "uniform")()
    t = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    weight = al.get("weighting", "exponential")()(denoiser, t, law)
    assert torch.allclose(weight, torch.ones_like(t))


def test_monotone_edm_is_edm_s_own_weight_and_law_on_the_side_of_data():
    """EDM: E over log-normal times of (SNR + 1/s²)·‖x̂0 - x0‖²; w(λ) up to a constant."""
    denoiser = preconditioned("edm", "data")
    t = torch.linspace(0.13, 0.7, 20, dtype=torch.float64)  # λ from -4 to 20
    law = al.get("times", "log_normal")()
    edm = al.get("weighting", "edm")(0.5)(denoiser, t, law) * law.density(t, denoiser.schedule)
    uniform = al.get("times", "uniform")()
    ours = al.get("weighting", "monotone_edm")()(denoiser, t, uniform)
    inner = denoiser.schedule.log_snr(t) > -3
    ratio = (ours / edm)[inner]
    assert int(inner.sum()) > 10 and torch.allclose(ratio, ratio[0].expand_as(ratio))
    share = al.get("weighting", "monotone_edm")().share(torch.tensor([-20.0, -8.0, -4.0]).double())
    assert torch.equal(share, torch.ones(3).double())  # level beyond the peak, at λ = -3.3
    with pytest.raises(ValueError, match="two peaks"):
        al.get("weighting", "monotone_edm")(mean=-3.0, std=2.4, data_std=1.0)


@pytest.mark.parametrize("name", ("uniform", "log_normal", "logit_normal", "importance_un"))
def test_the_uniform_weighting_is_the_noise_s_error_under_uniform_times(name):
    """Whatever times are drawn: E of half the noise's error = ∫ over t."""
    denoiser, law = preconditioned("vp", "noise"), al.get("times", name)()
    u = (torch.arange(200000, dtype=torch.float64) + 0.5) / 200000
    t = law.quantile(u, denoiser.schedule)
    bump = torch.exp(-0.5 * ((t - 0.4) / 0.1) ** 2)
    found = (al.get("weighting", "uniform")()(denoiser, t, law) * bump).mean()
    assert float(found) == pytest.approx(0.5 * 0.1 * math.sqrt(2 * math.pi), rel=2e-3)


def test_learned_uncertainty_finds_the_mean_loss_of_each_level():
    """loss/exp(u) + u is least where exp(u) is the mean of the loss at that level."""
    torch.manual_seed(0)
    denoiser, law = preconditioned("vp", "edm"), al.get("times", "uniform")()
    part = al.get("weighting", "learned")(al.get("weighting", "simple")())
    optimiser = torch.optim.Adam(part.parameters(), lr=1e-2)
    mean = lambda log_snr: torch.exp(torch.sin(log_snr / 3))  # noqa: E731
    for step in range(300):
        noise = al.Noise.of((0, step), 256)
        t = law.sample(noise, denoiser.schedule)
        error = mean(denoiser.schedule.log_snr(t)) * noise.normal().square()  # of mean 1
        optimiser.zero_grad()
        part.loss(denoiser, t, law, error).mean().backward()
        optimiser.step()
    t = torch.linspace(0.1, 0.95, 40, dtype=torch.float64)
    log_snr = denoiser.schedule.log_snr(t)
    with torch.no_grad():
        assert float((part.log_mean(log_snr) - mean(log_snr).log()).abs().max()) < 0.25
        weight = part(denoiser, t, law)
    assert torch.allclose(weight, torch.exp(-part.log_mean(log_snr)).detach())


def test_learned_uncertainty_starts_as_its_base_and_is_part_of_the_objective():
    base = al.get("weighting", "min_snr")()
    part, denoiser = al.get("weighting", "learned")(base), preconditioned("vp")
    t, law = torch.tensor([0.2, 0.8]).double(), al.get("times", "uniform")()
    error = torch.tensor([0.3, 2.0]).double()
    wanted = base(denoiser, t, law) * error
    assert torch.allclose(part.loss(denoiser, t, law, error), wanted)
    state = al.get("objective", "denoising")(law, part).state_dict()
    assert any(key.startswith("weighting.last") for key in state)


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
        ("weighting", "p2", {"k": 0.0}),
        ("weighting", "monotone_edm", {"std": 0.0}),
        ("times", "importance_un", {"bins": 0}),
        ("times", "adaptive", {"plain": 0.0}),
    ):
        with pytest.raises(ValueError):
            al.get(group, name)(**settings)
    assert math.isfinite(float(al.get("times", "uniform")().density(torch.tensor(0.5), None)))
