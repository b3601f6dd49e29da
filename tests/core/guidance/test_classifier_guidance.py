"""Guidance by classifiers, on mixtures whose posterior and class-conditional laws are known."""

import functools
import math

import pytest
import torch
from torch import nn

import anylatent as al
from anylatent.core.guidance import ClassifierFree, ClassifierGuidance
from anylatent.core.likelihood.flow import log_likelihood
from anylatent.core.testing.denoisers import ConditionalGaussian
from tests.core.densities import normal
from tests.core.toys import alone, distance, start

SCHEDULES = ("vp", "cosine", "edm", "flow", "table", "shifted")
WEIGHTS = (0.5, 0.3, 0.2)
LABELS = torch.tensor([2, 0, 1, 2])


class Exact(nn.Module):
    """log p(component | x_t) of a mixture of Gaussians N(mean_k, std²)."""

    def __init__(self, schedule, means, std, weights=WEIGHTS):
        super().__init__()
        self.schedule, self.means, self.std, self.weights = schedule, means, std, weights

    def forward(self, x, t):
        alpha, sigma = self.schedule.coefficients(torch.as_tensor(t, dtype=torch.float64))
        variance = (alpha**2 * self.std**2 + sigma**2).expand(x.batch)
        scores = []
        for mean, weight in zip(self.means, self.weights, strict=True):
            mean = x.map(lambda z, m: m[:, : z.shape[1]].expand_as(z), mean).project()
            gap = x - alpha * mean
            scores.append(math.log(weight) - 0.5 * gap.dot(gap) / variance)
        return torch.log_softmax(torch.stack(scores, -1), -1)


def long_means(spec):
    """Means for samples of up to 20 entries, of which `Exact` takes as many as it needs."""
    variable = any(field.variable for field in spec.fields.values())
    blank = spec.blank(1, [20] if variable else None, dtype=torch.float64)
    return [al.Noise.of((7, k), 1).like(blank) for k in range(3)]


def problem(schedule, key, std=0.4):
    """Denoiser and classifier of three components for samples of one length, and x at t = 1."""
    spec = al.testing.SPECS[key]
    variable = any(field.variable for field in spec.fields.values())
    blank = spec.blank(4, [5] * 4 if variable else None, dtype=torch.float64)
    one = blank.select(slice(1))
    means = [0.6 * al.Noise.of((7, k), 1).like(one) for k in range(3)]
    x, _ = start(schedule, blank)
    denoiser = al.testing.MixtureDenoiser(schedule, means, std, WEIGHTS)
    # log-weights of the denoiser are float32: the classifier must have the very same
    weights = [math.exp(w) for w in denoiser.log_weights.tolist()]
    return denoiser, Exact(schedule, means, std, weights), means, x


def conditional(schedule, means, std, like):
    """The denoiser of each sample's own component."""
    mean = like.map(lambda _, *m: torch.cat([m[int(k)] for k in LABELS]), *means)
    return al.testing.GaussianDenoiser(schedule, mean, std)


# ---- closed forms -----------------------------------------------------------------------------
@pytest.mark.parametrize("key", al.testing.SPECS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_scale_1_is_the_denoiser_of_the_class(name, key):
    schedule = al.get("schedule", name)()
    denoiser, classify, means, x = problem(schedule, key)
    guided = ClassifierGuidance(denoiser, {"kind": classify}, 1.0)
    cond = al.Condition({"kind": LABELS})
    wanted = conditional(schedule, means, 0.4, x)
    for t in (0.9, 0.5, 0.2, 0.01, torch.tensor([0.9, 0.4, 0.1, 0.6], dtype=torch.float64)):
        # where the classes are told apart and where they are not
        alpha, sigma = schedule.coefficients(torch.as_tensor(t, dtype=torch.float64))
        level = sigma / float(schedule.sigma(1.0))
        near = alpha * x.map(lambda z, m: m.expand_as(z), means[0]) + level * x
        found = guided(near, t, cond)
        assert distance(found, wanted(near, t)) < 1e-8 * max(1, float(near.norm().max()))
        assert al.testing.in_subspace(found)
    assert distance(denoiser(near, t), wanted(near, t)) > 0.01, "or there was nothing to guide"


@pytest.mark.parametrize("name", SCHEDULES)
def test_scale_0_is_the_denoiser(name):
    schedule = al.get("schedule", name)()
    denoiser, classify, _, x = problem(schedule, "molecule")
    guided = ClassifierGuidance(denoiser, {"kind": classify}, 0.0)
    for t in (1.0, 0.5, 0.0):
        assert distance(guided(x, t, al.Condition({"kind": LABELS})), denoiser(x, t)) == 0


@pytest.mark.parametrize("name", ("cosine", "flow"))
def test_nothing_is_added_where_nothing_of_the_data_is_left(name):
    schedule = al.get("schedule", name)()
    denoiser, classify, _, x = problem(schedule, "text")
    guided = ClassifierGuidance(denoiser, {"kind": classify}, 3.0)
    assert float(schedule.alpha(1.0)) == 0
    assert distance(guided(x, 1.0, al.Condition({"kind": LABELS})), denoiser(x, 1.0)) == 0
    some = torch.tensor([1.0, 0.5, 1.0, 0.9], dtype=torch.float64)
    gap = (guided(x, some, al.Condition({"kind": LABELS})) - denoiser(x, some)).norm()
    assert (gap == 0).tolist() == [True, False, True, False]


def test_the_pull_grows_with_the_scale_in_proportion():
    schedule = al.get("schedule", "vp")()
    denoiser, classify, _, x = problem(schedule, "shape")
    cond, plain = al.Condition({"kind": LABELS}), denoiser(x, 0.4)
    pulls = [
        ClassifierGuidance(denoiser, {"kind": classify}, scale)(x, 0.4, cond) - plain
        for scale in (1.0, 2.5)
    ]
    assert distance(pulls[1], 2.5 * pulls[0]) < 1e-10
    assert float(pulls[0].norm().min()) > 1e-3


def test_a_solve_draws_from_the_class():
    """From one component of two with a solver, to the error of its steps."""
    schedule, spec, count = al.get("schedule", "flow")(), al.LatentSpec({"z": al.Field((2,))}), 400
    blank = spec.blank(count, dtype=torch.float64)
    means = [spec.blank(1, dtype=torch.float64).map(lambda z, v=v: z + v) for v in (-2.0, 2.0)]
    denoiser = al.testing.MixtureDenoiser(schedule, means, 0.3)
    classify = Exact(schedule, means, 0.3, (0.5, 0.5))
    labels = torch.arange(count) % 2
    guided = ClassifierGuidance(denoiser, {"side": classify}, 1.0)
    x, _ = start(schedule, blank)
    times = al.get("grid", "log_snr")()(schedule, 40)
    denoise = guided.bind(al.Condition({"side": labels}))
    z = al.solve(al.get("solver", "heun")(), denoise, schedule, x, times)["z"]
    assert bool(((z > 0) == (labels[:, None] > 0)).all())
    centred = z - (4.0 * labels[:, None] - 2)
    assert abs(float(centred.mean())) < 4 * 0.3 / (2 * count) ** 0.5
    assert float(centred.std()) == pytest.approx(0.3, rel=0.1)


def test_labels_add_up():
    """Independent labels of independent halves: each is steered as if alone."""
    schedule, spec = (
        al.get("schedule", "vp")(),
        al.LatentSpec({"a": al.Field((2,)), "b": al.Field((2,))}),
    )
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    x, _ = start(schedule, spec.blank(3, dtype=torch.float64))

    def half(name):
        return lambda x, t: torch.log_softmax(2.0 * x[name], -1)

    cond = al.Condition({"first": torch.tensor([0, 1, 0]), "second": torch.tensor([1, 1, 0])})
    both = ClassifierGuidance(exact, {"first": half("a"), "second": half("b")}, 1.5)(x, 0.3, cond)
    alone_a = ClassifierGuidance(exact, {"first": half("a")}, 1.5)
    alone_b = ClassifierGuidance(exact, {"second": half("b")}, 1.5)
    plain = exact(x, 0.3)
    assert distance(both.take(["a"]), alone_a(x, 0.3, cond).take(["a"])) < 1e-12
    assert distance(both.take(["b"]), alone_b(x, 0.3, cond).take(["b"])) < 1e-12
    assert distance(alone_a(x, 0.3, cond).take(["b"]), plain.take(["b"])) == 0, "a field unused"
    assert float((both - plain).norm().min()) > 0.1


# ---- conditions -------------------------------------------------------------------------------
class Spy(al.Denoiser):
    def __init__(self, schedule):
        super().__init__()
        self.schedule, self.seen = schedule, []

    def forward(self, x, t, cond=None):
        self.seen.append(cond)
        return 0.5 * x


def test_the_denoiser_never_sees_the_labels_and_keeps_the_rest():
    schedule = al.get("schedule", "vp")()
    _, classify, _, x = problem(schedule, "text")
    spy = Spy(schedule)
    guided = ClassifierGuidance(spy, {"kind": classify}, 1.0)
    cond = al.Condition({"kind": LABELS, "mean": torch.ones(4)}, {"mean": LABELS > 1})
    guided(x, 0.5, cond.fixed(given=torch.ones(4)))
    (seen,) = spy.seen
    assert set(seen.values) == {"mean", "given"} and seen.always == {"given"}
    assert torch.equal(seen.keep["mean"], LABELS > 1)


def test_labels_that_the_denoiser_knows_stay():
    """A conditional model is sharpened by a classifier of the same label (2105.05233)."""
    schedule = al.get("schedule", "vp")()
    _, classify, _, x = problem(schedule, "text")
    cond = al.Condition({"kind": LABELS, "other": torch.ones(4)})
    for known, seen in ((("kind", "other"), {"kind", "other"}), (("other",), {"other"})):
        spy = Spy(schedule)
        ClassifierGuidance(spy, {"kind": classify}, 1.0, known=known)(x, 0.5, cond)
        assert set(spy.seen[0].values) == seen


def test_the_interval_and_the_rescaling_of_all_guidance():
    schedule = al.get("schedule", "edm")()  # alpha = 1
    denoiser, classify, _, x = problem(schedule, "molecule")
    make = functools.partial(ClassifierGuidance, denoiser, {"kind": classify}, 3.0)
    cond, sigmas = al.Condition({"kind": LABELS}), torch.tensor([0.2, 1.0, 3.0, 9.0]).double()
    t = (sigmas / 80) ** (1 / 7)
    everywhere, plain = make()(x, t, cond), denoiser(x, t)
    found = make(sigma_min=0.5, sigma_max=5.0)(x, t, cond)
    for i, inside in enumerate((False, True, True, False)):
        assert distance(alone(found, i), alone(everywhere if inside else plain, i)) < 1e-12
        assert distance(alone(everywhere, i), alone(plain, i)) > 1e-6
    assert torch.allclose(make(rescale=1.0)(x, t, cond).norm(), plain.norm())


def test_a_dropped_label_steers_nothing_for_that_sample():
    schedule = al.get("schedule", "vp")()
    denoiser, classify, _, x = problem(schedule, "molecule")
    keep = torch.tensor([True, False, True, False])
    guided = ClassifierGuidance(denoiser, {"kind": classify}, 2.0)
    found = guided(x, 0.5, al.Condition({"kind": LABELS}, {"kind": keep}))
    full, plain = guided(x, 0.5, al.Condition({"kind": LABELS})), denoiser(x, 0.5)
    for i in range(4):
        wanted = full if bool(keep[i]) else plain
        assert distance(alone(found, i), alone(wanted, i)) == 0
    assert distance(alone(full, 1), alone(plain, 1)) > 1e-3


def test_neither_neighbours_nor_padding():
    schedule, spec = al.get("schedule", "cosine")(), al.testing.SPECS["molecule"]
    x, _ = start(schedule, al.testing.example(spec))
    wide, _ = start(schedule, al.testing.example(spec, padded=20))
    classify, cond = Exact(schedule, long_means(spec), 0.4), al.Condition({"kind": LABELS})
    guided = ClassifierGuidance(al.testing.GaussianDenoiser(schedule, 0.1, 0.5), {"kind": classify})
    joint = guided(x, 0.6, cond)
    assert distance(joint, guided.inner(x, 0.6)) > 1e-2
    for i in range(4):
        own = guided(alone(x, i), 0.6, cond.select(slice(i, i + 1)))
        assert distance(own, alone(joint, i)) < 1e-12
        assert distance(alone(guided(wide, 0.6, cond), i), alone(joint, i)) < 1e-12


@pytest.mark.parametrize("key", al.testing.SPECS)
def test_it_is_a_denoiser(key):
    schedule, spec = al.get("schedule", "flow")(), al.testing.SPECS[key]
    classify = Exact(schedule, long_means(spec), 0.5)
    guided = ClassifierGuidance(
        al.testing.GaussianDenoiser(schedule, 0.0, 0.5), {"kind": classify}, 1.5
    )
    cond = al.Condition({"kind": LABELS})
    al.testing.check_denoiser(guided, spec, cond)


def test_the_contract_of_guidance_with_and_without_classifiers():
    part = al.get("guidance", "classifier")
    assert part is ClassifierGuidance
    al.testing.check_guidance(part)
    steep = functools.partial(part, classifiers={"other": lambda x, t: None}, scale=3.0)
    al.testing.check_guidance(steep)


def test_it_stacks_with_classifier_free_guidance():
    """The one steers by its labels, the other by what is left: both orders, the same."""
    schedule = al.get("schedule", "flow")()
    _, classify, _, x = problem(schedule, "image")
    classifiers, plain = {"kind": classify}, ConditionalGaussian(schedule)
    cond = al.Condition({"kind": LABELS, "mean": torch.tensor([1.0, -0.5, 0.2, 2.0])})
    outer = ClassifierGuidance(ClassifierFree(plain, 3.0), classifiers, 1.0)
    free = ClassifierFree(plain, 3.0)(x, 0.5, cond.without("kind"))
    pull = ClassifierGuidance(plain, classifiers, 1.0)(x, 0.5, cond) - plain(
        x, 0.5, cond.without("kind")
    )
    assert distance(outer(x, 0.5, cond), free + pull) < 1e-10


def test_it_works_where_no_gradients_are_kept_and_keeps_none():
    schedule = al.get("schedule", "vp")()
    denoiser, classify, _, x = problem(schedule, "text")
    guided, cond = ClassifierGuidance(denoiser, {"kind": classify}), al.Condition({"kind": LABELS})
    with torch.no_grad():
        found = guided(x, 0.5, cond)
    assert not found["z"].requires_grad and not x["z"].requires_grad
    assert distance(found, guided(x, 0.5, cond)) == 0


def test_the_guided_flow_has_the_likelihood_of_the_class():
    """Its divergence needs second derivatives of the classifier."""
    schedule, spec = al.get("schedule", "cosine")(), al.LatentSpec({"z": al.Field((3,))})
    means = [al.Noise.of((7, k), 1).like(spec.blank(1, dtype=torch.float64)) for k in range(3)]
    denoiser = al.testing.MixtureDenoiser(schedule, means, 0.4, WEIGHTS)
    weights = [math.exp(w) for w in denoiser.log_weights.tolist()]
    guided = ClassifierGuidance(denoiser, {"kind": Exact(schedule, means, 0.4, weights)}, 1.0)
    mean = spec.blank(4, dtype=torch.float64).map(
        lambda _, *m: torch.cat([m[int(k)] for k in LABELS]), *means
    )
    x0 = mean + 0.4 * al.Noise.of(0, 4).like(mean)
    denoise = guided.bind(al.Condition({"kind": LABELS}))
    found = log_likelihood(denoise, schedule, x0, noise=None, tolerance=1e-6, log_snr=8.0).log_p
    assert torch.allclose(found, normal(x0, mean, 0.16 + math.exp(-8.0)), atol=1e-3)


def test_a_label_that_is_no_number_is_an_error():
    schedule = al.get("schedule", "vp")()
    denoiser, classify, _, x = problem(schedule, "text")
    with pytest.raises(ValueError, match="kind"):
        ClassifierGuidance(denoiser, {"kind": classify})(x, 0.5, al.Condition({"kind": x}))
