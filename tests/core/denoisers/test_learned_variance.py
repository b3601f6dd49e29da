"""The learned variance of ancestral steps, against Gaussians whose variance is known."""

import math

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.base import Recalling
from anylatent.core.denoisers.counted import Counted
from anylatent.core.denoisers.learned_variance import LearnedVariance, doubled
from anylatent.core.guidance import ClassifierFree
from anylatent.core.latents.condition import Condition
from anylatent.core.objectives.hybrid import Hybrid
from anylatent.core.support.files import UserError
from anylatent.core.testing.sampling import responses
from tests.core.toys import distance, start

SPEC = al.LatentSpec({"z": al.Field((2, 3, 3), channels=0)})


def levels(schedule, t, s):
    return tuple(float(f(u)) for u in (t, s) for f in (schedule.alpha, schedule.sigma))


def posterior(schedule, t, s, width):
    """The variance of x_s given x_t for data N(μ, width²), of joint Gaussians."""
    a_t, b_t, a_s, b_s = levels(schedule, t, s)
    total_t, total_s = a_t**2 * width**2 + b_t**2, a_s**2 * width**2 + b_s**2
    # x_t = (a_t/a_s)·x_s + fresh noise
    return total_s - ((a_t / a_s) * total_s) ** 2 / total_t


class Wise(al.Denoiser):
    """The exact denoiser of N(0.7, width²), which knows each step's best v."""

    def __init__(self, schedule, width, times):
        super().__init__()
        self.schedule, self.width = schedule, width
        self.exact = al.testing.GaussianDenoiser(schedule, 0.7, width)
        self.next = dict(zip(times.tolist()[:-1], times.tolist()[1:], strict=True))

    def forward(self, x, t, cond=None):
        return self.exact(x, t)

    def variance(self, x, t, cond=None):
        s = self.next[float(t)]
        a_t, b_t, a_s, b_s = levels(self.schedule, float(t), s)
        beta = b_t**2 - (a_t / a_s) ** 2 * b_s**2
        small = beta * b_s**2 / b_t**2
        large = beta * (a_s**2 + b_s**2) / (a_t**2 + b_t**2)
        v = 0.0
        if s > 0:
            wanted = posterior(self.schedule, float(t), s, self.width)
            v = math.log(wanted / small) / math.log(large / small)
            assert -1e-9 < v < 1 + 1e-9  # it does lie between the two
        return self.exact(x, t), x.map(lambda z: torch.full_like(z, v))


@pytest.mark.parametrize("name", ("vp", "edm", "flow"))
@pytest.mark.parametrize("width", (0.1, 0.3, 0.5, 1.0))
def test_the_best_variance_makes_every_step_exact(name, width, monkeypatch):
    """With it the chain has the law of x_t at every time, from 2 steps on."""
    schedule = al.get("schedule", name)()
    for steps in (2, 10):
        wise = Wise(schedule, width, al.get("grid", "log_snr")()(schedule, steps))
        monkeypatch.setattr(f"{responses.__module__}.GaussianDenoiser", lambda *a, w=wise: w)
        solver = al.get("solver", "ddpm")(variance="learned")
        *states, _ = responses(solver, schedule, steps, 0.7, width, steps + 1)
        for t, mean, std in states:
            alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
            assert mean == pytest.approx(alpha * 0.7, abs=1e-10)
            assert std == pytest.approx(math.hypot(alpha * width, sigma), rel=1e-9)


class Constant(al.Backbone):
    """Twice the channels: F = 0, and one number for v."""

    def __init__(self, spec=SPEC):
        super().__init__()
        self.spec, self.conditions, self.output = spec, al.ConditionSpec(), doubled(spec)
        self.mean = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.raw = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, c_noise, cond=None):
        z = x["z"]
        both = torch.cat([self.mean.expand_as(z), self.raw.expand_as(z)], 1)
        return al.Latent({"z": both}, x.masks, self.output)


@torch.no_grad()
def test_the_bound_is_least_at_the_best_variance():
    """Data N(0, width²) under edm's prediction, of which F = 0 is the exact denoiser."""
    schedule, width, t = al.get("schedule", "vp")(), 0.4, 0.6
    denoiser = LearnedVariance(Constant(), schedule, al.get("prediction", "edm")(width), width)
    objective = Hybrid(steps=20)
    blank = SPEC.blank(512, dtype=torch.float64)
    noise = al.Noise.of(1, 512)
    x0 = width * noise.like(blank)
    times = torch.full((512,), t, dtype=torch.float64)
    x = schedule.alpha(t) * x0 + schedule.sigma(t) * noise.like(blank)

    def bound(v):
        between = x.map(lambda z: torch.full_like(z, v))
        return float(objective.divergence(schedule, times, x0 - denoiser(x, t), between).mean())

    found = min((bound(v), v) for v in torch.linspace(0, 1, 201).tolist())[1]
    a_t, b_t, a_s, b_s = levels(schedule, t, t - 0.05)
    beta = b_t**2 - (a_t / a_s) ** 2 * b_s**2
    small, large = beta * b_s**2 / b_t**2, beta
    wanted = math.log(posterior(schedule, t, t - 0.05, width) / small) / math.log(large / small)
    assert found == pytest.approx(wanted, abs=0.03)
    # and there it is the divergence of Gaussians of that variance: its mean square is known
    log_ratio = wanted * math.log(large / small)
    assert bound(wanted) == pytest.approx(0.5 * log_ratio, rel=0.05)


def test_the_mean_learns_from_the_plain_loss_alone():
    schedule = al.get("schedule", "vp")()
    blank = SPEC.blank(8, dtype=torch.float64)
    slopes = []
    for weight in (1e-3, 10.0):
        denoiser = LearnedVariance(Constant(), schedule, al.get("prediction", "noise")())
        noise = al.Noise.of(3, 8)
        loss = Hybrid(weight=weight)(denoiser, noise.like(blank), None, noise)
        assert loss.shape == (8,)
        loss.sum().backward()
        slopes.append((float(denoiser.backbone.mean.grad), float(denoiser.backbone.raw.grad)))
    assert slopes[0][0] == pytest.approx(slopes[1][0], rel=1e-12) != 0
    assert slopes[1][1] == pytest.approx(1e4 * slopes[0][1], rel=1e-9) != 0


@pytest.mark.parametrize("key", ("image", "video", "text", "shape"))
def test_padding_and_channels(key):
    spec = al.testing.SPECS[key]
    for name, field in doubled(spec).fields.items():
        sizes = zip(field.shape, spec.fields[name].shape, strict=True)
        assert sorted(a // b for a, b in sizes if a is not None)[-1] == 2
    with pytest.raises(UserError, match="would leave its subspace"):
        doubled(al.testing.SPECS["molecule"])


def test_training_finds_the_variance_and_sampling_uses_it():
    """A text transformer on padded data N(0, 0.3²): its samples have that deviation."""
    spec = al.LatentSpec({"z": al.Field((None, 2))})
    torch.manual_seed(0)
    schedule = al.get("schedule", "vp")()
    net = al.get("backbone", "transformer")(spec, None, doubled(spec), width=32, depth=1, heads=2)
    denoiser = LearnedVariance(net, schedule, al.get("prediction", "edm")(0.3), 0.3)
    objective, noise = Hybrid(steps=10), al.Noise.of(0, 64)
    blank = spec.blank(64, [1 + i % 4 for i in range(64)], padded=4)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        loss = objective(denoiser, 0.3 * noise.like(blank), None, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(map(math.isfinite, losses))
    moved = [float((p.grad if p.grad is not None else p).abs().sum()) for p in net.parameters()]
    assert sum(moved) > 0
    x, draws = start(schedule, blank)
    times, spreads = al.get("grid", "uniform")()(schedule, 10), []
    for variance in ("small", "large", "learned"):
        with torch.no_grad():
            found = al.solve(
                al.get("solver", "ddpm")(variance=variance),
                denoiser.bind(None),
                schedule,
                x,
                times,
                al.Noise.of(9, 64),
            )
        spreads.append(float(found["z"][found.masks["z"]].std()))
        assert al.testing.in_subspace(found)
    assert spreads[0] < spreads[2] < spreads[1], spreads


def test_guidance_leaves_the_variance_as_it_is():
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(2, dtype=torch.float64)
    denoiser = LearnedVariance(Constant(), schedule, al.get("prediction", "v")())
    x, _ = start(schedule, blank)
    cond = Condition({"label": torch.zeros(2)})
    found, between = ClassifierFree(denoiser).bind(cond).variance(x, 0.5)
    assert distance(found, denoiser(x, 0.5)) < 1e-12
    assert float(between["z"].min()) == float(between["z"].max()) == 0.5


def test_every_view_of_the_denoiser_tells_it():
    """A count of its calls, a guidance that remembers, a model that recalls its estimates."""
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(2, dtype=torch.float64)
    denoiser = LearnedVariance(Constant(), schedule, al.get("prediction", "v")())
    x, _ = start(schedule, blank)
    cond = Condition({"label": torch.zeros(2)})
    counted = Counted(denoiser.bind(None), 2)
    views = [counted, al.get("guidance", "projected")(denoiser).bind(cond)]
    views.append(Recalling(denoiser, None))
    for view in views:
        x0, between = view.variance(x, 0.5)
        assert distance(x0, denoiser(x, 0.5)) < 1e-6 and between.spec == x.spec
    assert counted.calls == 1 and counted.evaluations.tolist() == [1, 1]
    assert views[2].estimate is not None
    with pytest.raises(ValueError, match="learned no variance"):
        Counted(lambda x, t: x, 2).variance(x, 0.5)


def test_a_model_without_says_so():
    schedule, blank = al.get("schedule", "vp")(), SPEC.blank(2)
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    x, noise = start(schedule, blank)
    solver, times = al.get("solver", "ddpm")(variance="learned"), torch.tensor([1.0, 0.0])
    for denoise in (exact, exact.bind(None), lambda x, t: x):
        with pytest.raises(ValueError, match="denoiser=learned_variance"):
            al.solve(solver, denoise, schedule, x, times, noise)
    plain = al.Preconditioned(Constant(), schedule, al.get("prediction", "v")())
    with pytest.raises(ValueError, match="needs denoiser=learned_variance"):
        Hybrid()(plain, x, None, noise)
    with pytest.raises(ValueError, match="weight > 0"):
        Hybrid(weight=0.0)
