"""Several conditions, weaker denoisers and projections, on Gaussians with closed forms."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.guidance import Autoguidance, ClassifierFree, Projected
from anylatent.core.testing.denoisers import ConditionalGaussian
from tests.core.toys import alone, distance, start

SPEC = al.LatentSpec({"a": al.Field((3,)), "b": al.Field((2,))})
COND = al.Condition({"a": torch.tensor([1.0, -0.5, 2.0]), "b": torch.tensor([0.3, 0.8, -1.0])})


class Measured(al.Denoiser):
    """x ~ N(0, 1) in one field of 1 number, of which a condition k is told x + N(0, noise[k]²).

    The conditions are independent given x, and x given some of them is Gaussian.
    """

    def __init__(self, schedule, **noise):
        super().__init__()
        self.schedule, self.noise = schedule, noise

    def posterior(self, cond, powers=None):
        """Mean and variance of p(x)·Π p(c_k | x)^power_k."""
        precision, total = torch.ones(3, dtype=torch.float64), 0.0
        for name, noise in self.noise.items():
            if cond is not None and name in cond.values:
                share = (powers or {}).get(name, 1.0) * cond.keep[name].double() / noise**2
                precision = precision + share
                total = total + share * cond.values[name].double()
        return total / precision, 1 / precision

    def forward(self, x, t, cond=None):
        count = x.batch // 3
        parts = [] if cond is None else [cond.select(slice(3 * i, 3 * i + 3)) for i in range(count)]
        means, variances = zip(*map(self.posterior, parts or [None] * count), strict=True)
        mean, variance = (torch.cat(list(v)) if v[0].ndim else v for v in (means, variances))
        alpha, sigma = self.schedule.coefficients(torch.as_tensor(t, dtype=torch.float64))
        gain = alpha * variance / (alpha**2 * variance + sigma**2)
        centre = mean[:, None] * torch.ones_like(x["z"])
        return x.replace(z=centre + gain[:, None] * (x["z"] - alpha * centre))


class Halves(al.Denoiser):
    """Two independent fields N(c, .3²), each under a condition of its name, 0 where dropped."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.sizes = schedule, []

    def forward(self, x, t, cond=None):
        self.sizes.append(x.batch)
        kept = {n: torch.where(cond.keep[n], cond.values[n].double(), 0) for n in cond.values}
        means = {n: kept[n][:, None].expand_as(z) for n, z in x.parts.items()}
        mean = al.Latent(means, x.masks, x.spec)
        return al.testing.GaussianDenoiser(self.schedule, mean, 0.3)(x, t)


# ---- several conditions -----------------------------------------------------------------------
@pytest.mark.parametrize("scales", ({"a": 1.5, "b": 7.0}, {"b": 0.5, "a": 3.0}, {"a": 2.0}))
@pytest.mark.parametrize("t", (0.1, 0.6))
def test_independent_conditions_of_independent_halves_have_their_own_scales(scales, t):
    schedule = al.get("schedule", "vp")()
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    found = ClassifierFree(Halves(schedule), 4.0, scales=scales)(x, t, COND)
    means = {n: scales.get(n, 4.0) * COND.values[n].double()[:, None] for n in SPEC.fields}
    mean = x.map(lambda z, m: m.expand_as(z), al.Latent(means, {}, SPEC))
    assert distance(found, al.testing.GaussianDenoiser(schedule, mean, 0.3)(x, t)) < 1e-6


@pytest.mark.parametrize("order", (("a", "b"), ("b", "a")))
def test_the_tilt_by_two_conditions_that_are_independent_given_x(order):
    """At little noise the guided score is that of p(x)·p(a | x)^2·p(b | x)^.5: Bayes' rule."""
    schedule, spec = al.get("schedule", "vp")(), al.LatentSpec({"z": al.Field((1,))})
    denoiser, powers = Measured(schedule, a=0.5, b=1.5), {"a": 2.0, "b": 0.5}
    mean, variance = denoiser.posterior(COND, powers)
    x = spec.blank(3, dtype=torch.float64).replace(z=torch.tensor([[0.3], [-1.2], [2.0]]).double())
    guided, gaps = ClassifierFree(denoiser, scales={name: powers[name] for name in order}), []
    for level in (6.0, 9.0):
        t = schedule.time(torch.tensor(level, dtype=torch.float64))
        alpha, sigma = schedule.coefficients(t)
        score = (alpha * guided(alpha * x, t, COND)["z"] - alpha * x["z"]) / sigma**2 * alpha
        wanted = (mean[:, None] - x["z"]) / variance[:, None]
        gaps.append(float((score - wanted).abs().max()))
    assert gaps[1] < 0.01 and gaps[1] < gaps[0] / math.e**2.5, gaps


def test_equal_scales_are_one_and_weights_of_zero_cost_nothing():
    schedule = al.get("schedule", "flow")()
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    wanted = ClassifierFree(Halves(schedule), 3.0)(x, 0.5, COND)
    for scales, size in (
        ({"a": 3.0, "b": 3.0}, 6),
        ({"a": 3.0, "b": 2.0}, 9),
        ({"a": 1.0, "b": 3.0}, 6),
        ({"a": 1.0, "b": 1.0}, 3),
    ):
        denoiser = Halves(schedule)
        found = ClassifierFree(denoiser, 3.0, scales=scales)(x, 0.5, COND)
        assert denoiser.sizes == [size], "one call"
        assert (distance(found, wanted) < 1e-10) == (scales["a"] == scales["b"] == 3)


def test_a_scale_for_a_condition_that_is_not_there_changes_nothing():
    schedule = al.get("schedule", "vp")()
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    plain = ClassifierFree(Halves(schedule), 3.0)(x, 0.4, COND)
    assert (
        distance(ClassifierFree(Halves(schedule), 3.0, scales={"c": 9})(x, 0.4, COND), plain) == 0
    )


def test_a_condition_that_a_sample_has_dropped_does_not_guide_it():
    schedule = al.get("schedule", "vp")()
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    keep = torch.tensor([True, False, True])
    guided = ClassifierFree(Halves(schedule), scales={"a": 5.0, "b": 2.0})
    found = guided(x, 0.4, al.Condition(COND.values, {"a": keep}))
    full, none = guided(x, 0.4, COND), guided(x, 0.4, COND.null("a"))
    for i in range(3):
        assert distance(alone(found, i), alone(full if keep[i] else none, i)) < 1e-12
    assert distance(alone(full, 1), alone(none, 1)) > 0.1


# ---- weaker denoisers -------------------------------------------------------------------------
@pytest.mark.parametrize("scale", (0.0, 1.0, 2.5))
def test_autoguidance_leads_away_from_the_weak_mean(scale):
    """Equal widths: mean + (scale - 1)·(mean - weak mean), by a whole solve."""
    schedule, count = al.get("schedule", "flow")(), 300
    strong = al.testing.GaussianDenoiser(schedule, 0.5, 0.3)
    weak = al.testing.GaussianDenoiser(schedule, 0.2, 0.3)
    guided = Autoguidance(strong, weak, scale)
    x, _ = start(schedule, SPEC.blank(count, dtype=torch.float64))
    times = al.get("grid", "log_snr")()(schedule, 40)
    z = al.solve(al.get("solver", "heun")(), guided.bind(None), schedule, x, times)["a"]
    assert float(z.mean()) == pytest.approx(0.5 + (scale - 1) * 0.3, abs=4 * 0.3 / 900**0.5)
    assert float(z.std()) == pytest.approx(0.3, rel=0.1)


def test_a_wider_weak_law_sharpens():
    """At little noise the guided precision is scale/s² - (scale - 1)/w², of p^scale/weak^(...)."""
    schedule, spec = al.get("schedule", "vp")(), al.LatentSpec({"z": al.Field((4,))})
    strong = al.testing.GaussianDenoiser(schedule, 0.0, 0.5)
    guided = Autoguidance(strong, al.testing.GaussianDenoiser(schedule, 0.0, 1.0), 2.0)
    x = al.Noise.of(0, 3).like(spec.blank(3, dtype=torch.float64))
    t = schedule.time(torch.tensor(9.0, dtype=torch.float64))
    alpha, sigma = schedule.coefficients(t)
    pull = (alpha**2 / sigma**2) * (guided(alpha * x, t) - x)
    assert distance(pull, -(2 / 0.25 - 1 / 1.0) * x) < 0.03


# ---- projections ------------------------------------------------------------------------------
def pair(x, t, **settings):
    schedule = al.get("schedule", "vp")()
    cond = al.Condition({"mean": torch.tensor([1.0, -0.5, 0.2, 2.0])})
    plain = ConditionalGaussian(schedule)
    guided = Projected(plain, **{"momentum": 0.0, **settings})
    return guided(x, t, cond), plain(x, t, cond), plain(x, t)


@pytest.mark.parametrize("key", al.testing.SPECS)
def test_the_parts_of_the_change(key):
    x = al.Noise.of(2, 4).like(al.testing.example(al.testing.SPECS[key]))
    found, bound, free = pair(x, 0.5, scale=3.0, parallel=1.0)
    assert distance(found, bound + 2.0 * (bound - free)) < 1e-10, "classifier-free guidance"
    change = pair(x, 0.5, scale=3.0, parallel=0.0)[0] - bound
    size = change.norm() * bound.norm()
    assert bool((change.dot(bound).abs() <= 1e-9 * size.clamp(min=1e-9)).all())
    half = pair(x, 0.5, scale=3.0, parallel=0.5)[0] - bound
    assert distance(half, 0.5 * (change + 2.0 * (bound - free))) < 1e-10
    assert al.testing.in_subspace(found)


def test_the_threshold_is_a_norm_per_degree_of_freedom():
    x = al.Noise.of(2, 4).like(al.testing.example(al.testing.SPECS["text"]))
    found, bound, free = pair(x, 0.5, scale=2.0, parallel=1.0, threshold=0.7)
    d = bound - free
    size, most = d.norm(), 0.7 * d.dim.double().sqrt()
    assert 0 < int((size > most).sum()) < 4
    wanted = (most / size).clamp(max=1) * d
    assert distance(found - bound, wanted) < 1e-10


def test_momentum_is_a_recursion_along_falling_times():
    schedule, cond = al.get("schedule", "vp")(), al.Condition({"mean": torch.tensor([1.0, -0.5])})
    plain = ConditionalGaussian(schedule)
    x = al.Noise.of(0, 2).like(al.LatentSpec({"z": al.Field((6,))}).blank(2, dtype=torch.float64))
    guided = Projected(plain, 2.0, parallel=1.0, momentum=-0.5)
    denoise, average = guided.bind(cond), 0.0
    for t in (0.9, 0.6, 0.6, 0.2, 0.5, 0.4):
        average = 0.0 if t == 0.5 else average  # where time rises it begins anew
        d = (plain(x, t, cond) - plain(x, t))["z"]
        average = d - 0.5 * average
        assert torch.allclose(denoise(x, t)["z"], plain(x, t, cond)["z"] + average, atol=1e-12)
    fresh = plain(x, 0.4, cond)["z"] + (plain(x, 0.4, cond) - plain(x, 0.4))["z"]
    assert torch.allclose(guided(x, 0.4, cond)["z"], fresh, atol=1e-12), "a plain call has none"
    assert torch.allclose(guided.bind(cond)(x, 0.4)["z"], fresh, atol=1e-12), "nor a new solution"


def test_momentum_within_another_guidance():
    """The outer one's `bind` renews the memory of the inner one, which the original never has."""
    schedule, cond = al.get("schedule", "vp")(), al.Condition({"mean": torch.tensor([1.0, -0.5])})
    inner = Projected(ConditionalGaussian(schedule), 4.0, momentum=-0.5)
    outer = Autoguidance(inner, al.testing.GaussianDenoiser(schedule, 0.0, 0.5), 2.0)
    x = al.Noise.of(0, 2).like(al.LatentSpec({"z": al.Field((6,))}).blank(2, dtype=torch.float64))
    for _ in range(2):
        denoise = outer.bind(cond)
        first, second = denoise(x, 0.9), denoise(x, 0.6)
        assert distance(first, outer(x, 0.9, cond)) == 0
        assert distance(second, outer(x, 0.6, cond)) > 1e-3
    assert inner.memory is None and outer.inner is inner


def test_settings_without_meaning_are_errors():
    plain = ConditionalGaussian(al.get("schedule", "vp")())
    for settings in ({"threshold": 0.0}, {"momentum": 1.0}, {"momentum": math.nan}):
        with pytest.raises(ValueError, match="momentum"):
            Projected(plain, **settings)


def test_some_samples_of_a_batch():
    """`select` follows the values that are per sample, also of the weak denoiser."""
    schedule = al.get("schedule", "vp")()
    x, _ = start(schedule, SPEC.blank(3, dtype=torch.float64))
    mean = al.Noise.of(5, 3).like(x)
    weak = al.testing.GaussianDenoiser(schedule, mean, 0.6)
    guided = Autoguidance(al.testing.GaussianDenoiser(schedule, 0.5, 0.3), weak, 3.0)
    index = torch.tensor([2, 0, 2])
    chosen = guided.select(index)
    assert distance(chosen(x.select(index), 0.4), guided(x, 0.4).select(index)) == 0
    assert guided.weak is weak
    steady = Projected(ConditionalGaussian(schedule), momentum=0.0)
    assert steady.fresh() is steady and steady.select(index) is steady
    assert Projected(ConditionalGaussian(schedule)).select(index) is None, "it remembers"
