"""Generators: `Diffusion` samples what its denoiser says, `Cascade` a joint Gaussian."""

import pytest
import torch

import anylatent as al
from anylatent.core.likelihood.measures import Flow
from tests.core.toys import PointNet, alone, distance

SPEC = al.LatentSpec({"a": al.Field((1,)), "b": al.Field((1,))})
# a ~ N(.5, .8²), b | a ~ N(.3 - .7·a, .4²)
MEAN_A, STD_A, OFFSET, SLOPE, STD_B = 0.5, 0.8, 0.3, -0.7, 0.4


class Conditional(al.Denoiser):
    """E[b0 | b_t, a] for a linear Gaussian law; a comes as a condition whose value is a latent."""

    def __init__(self, schedule, law):
        super().__init__()
        self.schedule, self.law = schedule, law

    def forward(self, x, t, cond=None):
        mean, std = self.law(x, cond)
        return al.testing.GaussianDenoiser(self.schedule, mean, std)(x, t)


class Stage(al.Generator):
    """Samples with an exact denoiser; its loss records the condition it was given."""

    def __init__(self, spec, denoiser):
        super().__init__()
        self.spec, self.denoiser, self.given = spec, denoiser, None

    def loss(self, x0, cond, noise):
        self.given = cond
        return torch.full((x0.batch,), 1.0)

    def sample(self, blank, cond, sampler, noise, callback=None):
        schedule = self.denoiser.schedule
        times = sampler.grid(schedule, sampler.steps)
        x = schedule.sigma(times[0]) * noise.like(blank)
        return al.solve(
            sampler.solver, self.denoiser.bind(cond), schedule, x, times, noise, callback
        )

    def nats(self, x0, cond, noise, measure, guidance=None):
        return measure.nats(self.denoiser.bind(cond), self.denoiser.schedule, x0, noise)


def law_a(x, cond):
    return x.map(lambda z: torch.full_like(z, MEAN_A)), STD_A


def law_b(x, cond):
    a = cond.values["a"]["a"]
    return x.map(lambda z: OFFSET + SLOPE * a.to(z)), STD_B


def cascade():
    schedule = al.get("schedule", "vp")()
    return al.Cascade(
        [
            Stage(SPEC.take(["a"]), Conditional(schedule, law_a)),
            Stage(SPEC.take(["b"]), Conditional(schedule, law_b)),
        ]
    )


@pytest.mark.parametrize("solver", ("dpmpp_2m", "heun"))
def test_a_cascade_has_the_joint_covariance(solver):
    """cov(a, b) = slope·var(a), var(b) = slope²·var(a) + .4²; entries to 4 standard errors."""
    count = 6000
    blank = SPEC.blank(count, dtype=torch.float64)
    x = cascade().sample(
        blank,
        None,
        al.Sampler(al.get("solver", solver)(), al.get("grid", "log_snr")(), 60),
        al.Noise.of(0, count),
    )
    found = torch.cat([x["a"], x["b"]], 1)
    mean = torch.tensor([MEAN_A, OFFSET + SLOPE * MEAN_A], dtype=torch.float64)
    var_a = STD_A**2
    wanted = torch.tensor(
        [[var_a, SLOPE * var_a], [SLOPE * var_a, SLOPE**2 * var_a + STD_B**2]], dtype=torch.float64
    )
    assert float((found.mean(0) - mean).abs().max()) < 4 * STD_A / count**0.5 + 0.004
    product = wanted.diag()[:, None] * wanted.diag() + wanted**2
    allowed = 4 * (product / count).sqrt() + 0.005
    assert bool(((found.T.cov() - wanted).abs() < allowed).all())


def test_later_stages_are_given_the_earlier_ones_and_losses_add_up():
    model, x0 = cascade(), al.Noise.of(0, 3).like(SPEC.blank(3))
    losses = model.loss(x0, al.Condition({"kind": torch.arange(3)}), al.Noise.of(1, 3))
    assert losses.tolist() == [2.0] * 3
    first, second = model.stages.values()
    assert list(first.given.values) == ["kind"] and list(second.given.values) == ["kind", "a"]
    assert torch.equal(second.given.values["a"]["a"], x0["a"])
    assert second.given.droppable == ["kind"]  # what is made already is a fact
    assert second.given.null().keep["a"].all()


def test_a_cascade_s_samples_do_not_depend_on_their_neighbours():
    sampler = al.Sampler(al.get("solver", "ddpm")(), al.get("grid", "log_snr")(), 8)
    joint = cascade().sample(SPEC.blank(4), None, sampler, al.Noise.of(0, 4))
    for i in range(4):
        own = cascade().sample(SPEC.blank(1), None, sampler, al.Noise.of(0, [i]))
        assert distance(own, joint.select(slice(i, i + 1))) < 1e-6


def test_two_stages_of_one_field_are_an_error():
    stage = cascade().stages["a"]
    with pytest.raises(ValueError, match="two stages model one field"):
        al.Cascade({"first": stage, "second": stage})
    with pytest.raises(ValueError, match="at least one stage"):
        al.Cascade([])


def diffusion():
    torch.manual_seed(0)
    spec = al.testing.SPECS["molecule"]
    denoiser = al.Preconditioned(
        PointNet(spec), al.get("schedule", "vp")(), al.get("prediction", "v")()
    )
    return al.get("generator", "diffusion")(denoiser, al.get("objective", "denoising")())


@pytest.mark.parametrize("solver", ("heun", "ddpm"))
def test_diffusion_samples_one_by_one_and_in_the_subspace(solver):
    model = diffusion()
    blank = al.testing.example(model.spec, dtype=torch.float32)
    sampler = al.Sampler(al.get("solver", solver)(), al.get("grid", "log_snr")(), 6)
    states = []
    joint = model.sample(
        blank, None, sampler, al.Noise.of(0, 4), lambda i, t, x: states.append((i, float(t)))
    )
    assert [i for i, _ in states] == list(range(1, 7)) and states[-1][1] == 0
    assert al.testing.in_subspace(joint)
    for i in range(4):
        own = model.sample(alone(blank, i), None, sampler, al.Noise.of(0, [i]))
        assert distance(own, alone(joint, i)) < 1e-5


def test_sampling_goes_through_the_guidance():
    """What it draws is each sample's own, of this solution, and moves no draw of the solver's."""
    model, seen = diffusion(), []

    def guidance(denoiser, noise):
        seen.append((denoiser, noise.normal(3)))
        return denoiser

    def drawn(guidance, positions):
        parts = al.get("solver", "ddpm")(), al.get("grid", "log_snr")()
        start, noise = blank.select(list(positions)), al.Noise.of(0, positions)
        return model.sample(start, None, al.Sampler(*parts, 2, guidance), noise)

    blank = al.testing.example(model.spec, dtype=torch.float32)
    assert distance(drawn(guidance, range(4)), drawn(None, range(4))) == 0
    drawn(guidance, [2])
    assert [denoiser for denoiser, _ in seen] == [model.denoiser] * 2
    assert torch.equal(seen[0][1][2:3], seen[1][1])
    assert not torch.equal(seen[0][1], al.Noise.of(0, 4).normal(3))


def test_training_lowers_the_loss_of_a_generator():
    model = diffusion()
    x0 = 0.3 * al.Noise.of(9, 4).like(al.testing.example(model.spec, dtype=torch.float32))
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(150):
        loss = model.loss(x0, None, al.Noise.of(1, 4)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_the_likelihood_of_a_cascade_is_the_joint_density():
    x = al.Noise.of(0, 5).like(SPEC.blank(5, dtype=torch.float64))
    measure = Flow(log_snr=16.0, steps=60)
    nats, y = cascade().nats(x, None, al.Noise.of(1, 5), measure)
    assert distance(y, x) < 5 * measure.rho
    found, a, b = -nats, y["a"][:, 0], y["b"][:, 0]
    law_of_a = torch.distributions.Normal(MEAN_A, STD_A)
    law_of_b = torch.distributions.Normal(OFFSET + SLOPE * a, STD_B)
    expected = law_of_a.log_prob(a) + law_of_b.log_prob(b)
    # alpha(1) = .007 is neglected by the prior
    assert torch.allclose(found, expected.double(), atol=0.05)
