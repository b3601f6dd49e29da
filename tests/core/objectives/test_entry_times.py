"""Times for each entry in training: a loop over entries, of which those given count nothing."""

import functools

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers.learned_variance import LearnedVariance
from anylatent.core.denoisers.preconditioned import preconditioned
from anylatent.core.latents.masking import Masking
from tests.core.toys import EntryNet, ExactData, alone, sizes, spiked

SPECS = al.testing.SPECS
CASES = [("video", 3), ("video", 2), ("text", 4)]  # B = T among them, frames and padded tokens


def net(spec, **settings):
    torch.manual_seed(0)
    return EntryNet(spec, **settings).double()


def denoiser(spec, part, schedule="vp", prediction="v", **settings):
    kind = al.get("prediction", prediction)()
    own = net(spec, **settings)
    return al.Preconditioned(own, al.get("schedule", schedule)(), kind, tells=part.tells)


def data(key, batch, seed=1):
    return al.Noise.of(seed, batch).like(sizes(SPECS[key], batch))


def by_hand(part, model, x0, t, draw, given):
    """Σ over entries of weight(t_e)·|F_e - target_e|², per number that is free; x by a loop too."""
    schedule, z0, z = model.schedule, x0["z"], draw["z"]
    mask = x0.masks.get("z", torch.ones(z0.shape[:2], dtype=torch.bool))
    shown = t.masked_fill(given, 0.0)
    x, target = torch.zeros_like(z0), torch.zeros_like(z0)
    for b in range(z0.shape[0]):
        for k in range(z0.shape[1]):
            alpha, sigma = schedule.coefficients(shown[b, k])
            x[b, k] = alpha * z0[b, k] + sigma * z[b, k]
            a, c = model.prediction.target(schedule, t[b, k])
            target[b, k] = a * z0[b, k] + c * z[b, k]
    output = model.predict(x0.replace(z=x), shown, None)["z"]
    losses = []
    for b in range(z0.shape[0]):
        entries = [k for k in range(z0.shape[1]) if bool(mask[b, k] & ~given[b, k])]
        each = [
            part.weighting(model, t[b, k : k + 1], part.times)[0]
            * (output[b, k] - target[b, k]).square().mean()
            for k in entries
        ]
        losses.append(torch.stack(each).mean())
    return torch.stack(losses)


@pytest.mark.parametrize("weighting", ("simple", "min_snr", "elbo"))
@pytest.mark.parametrize("masking", (None, "scattered"))
@pytest.mark.parametrize(("key", "batch"), CASES)
def test_the_loss_of_forcing_is_the_loop_over_entries(key, batch, masking, weighting):
    x0, rule = data(key, batch), masking and al.get("masking", masking)()
    part = al.Denoising(al.get("times", "uniform")(), al.get("weighting", weighting)(), rule, True)
    model = denoiser(SPECS[key], part)
    losses = part(model, x0, None, al.Noise.of(2, batch))
    noise, count = al.Noise.of(2, batch), x0["z"].shape[1]
    t = part.times.sample(noise, model.schedule, count)
    assert t.shape == (batch, count) and len(t.unique()) == batch * count
    draw = noise.like(x0)
    given = torch.zeros(batch, count, dtype=torch.bool)
    if rule is not None:
        given = rule.given(x0, noise)["z"]
        assert bool(given.any())
    assert torch.allclose(losses, by_hand(part, model, x0, t, draw, given), rtol=1e-9)


@pytest.mark.parametrize("masking", ("prefix", "ends", "every", "scattered", "spans", "mixed"))
@pytest.mark.parametrize(("key", "batch"), CASES)
def test_the_loss_of_a_masking_is_the_loop_over_entries_at_one_time(key, batch, masking):
    x0, rule = data(key, batch), al.get("masking", masking)()
    part = al.Denoising(al.get("times", "uniform")(), al.get("weighting", "min_snr")(), rule)
    model = denoiser(SPECS[key], part, "flow", "velocity")
    losses = part(model, x0, None, al.Noise.of(2, batch))
    noise, count = al.Noise.of(2, batch), x0["z"].shape[1]
    t = part.times.sample(noise, model.schedule)[:, None].expand(batch, count)
    draw = noise.like(x0)
    given = rule.given(x0, noise)["z"]
    assert torch.allclose(losses, by_hand(part, model, x0, t, draw, given), rtol=1e-9)


@pytest.mark.parametrize("forcing", (False, True))
def test_neighbours_and_padding_change_no_loss(forcing):
    part = al.Denoising(masking=al.get("masking", "mixed")(), forcing=forcing)
    spec = SPECS["text"]
    model, x0 = denoiser(spec, part), al.Noise.of(1, 4).like(al.testing.example(spec, padded=20))
    joint = part(model, x0, None, al.Noise.of(2, 4))
    own = [part(model, alone(x0, i), None, al.Noise.of(2, [i])) for i in range(4)]
    assert torch.allclose(joint, torch.cat(own), rtol=1e-9)


def test_what_is_given_has_no_gradient_and_no_infinite_target():
    """The score's target is infinite at t = 0, and flow's velocity has c_out = 0 there."""
    for prediction, schedule in (("score", "vp"), ("velocity", "flow"), ("noise", "edm")):
        part = al.Denoising(masking=al.get("masking", "every")(2))
        model, x0 = denoiser(SPECS["video"], part, schedule, prediction), data("video", 4)
        part(model, x0, None, al.Noise.of(2, 4)).sum().backward()
        grads = [parameter.grad for parameter in model.parameters()]
        assert all(bool(grad.isfinite().all()) for grad in grads), prediction
        assert any(bool(grad.any()) for grad in grads)


@pytest.mark.parametrize("name", ("vp", "flow"))
def test_the_exact_denoiser_s_loss_is_the_conditional_variance(name):
    """Of the frame between the ends, at one time: tr Cov(x0 | x_t there, the ends)/dim."""

    class Fixed(al.Times):
        def quantile(self, u, schedule):
            return torch.full_like(u, 0.5)

        def density(self, t, schedule):
            return torch.ones_like(t)

    count, spec, schedule = 4000, SPECS["video"], al.get("schedule", name)()
    one = spec.blank(1, dtype=torch.float64)
    exact, _ = spiked(schedule, one, count=3)
    part = al.Denoising(Fixed(), masking=al.get("masking", "ends")())
    model = al.Preconditioned(
        ExactData(exact, spec), schedule, al.get("prediction", "data")(), tells=part.tells
    )
    x0 = exact.draw(al.Noise.of(1, count), spec.blank(count, dtype=torch.float64))
    losses = part(model, x0, None, al.Noise.of(2, count))
    alpha, sigma = (float(c) for c in schedule.coefficients(torch.tensor(0.5).double()))
    seen = torch.tensor([1.0, 0.0, 1.0]).double().view(1, 3, 1, 1, 1)

    def measure(v):  # the ends as they are, the frame between by σ/α-noise in units of its own
        scaled = torch.where(seen > 0, v["z"] * 1e4, v["z"] * alpha / sigma)
        return al.Latent({"z": scaled}, {}, spec)

    _, spread = exact.posterior(measure, measure(one), 1.0, one)
    middle = (seen == 0).expand(1, 3, 2, 4, 4).flatten()
    wanted = float(spread[0].diagonal()[middle].mean())
    assert abs(float(losses.mean()) - wanted) < 3 * float(losses.std()) / count**0.5
    plain = al.Denoising(Fixed())(model, x0, None, al.Noise.of(2, count))
    assert float(plain.mean()) > wanted + 10 * float(plain.std()) / count**0.5, "ends tell nothing"


class Sees(al.Times):
    """A law that keeps what it is shown."""

    def quantile(self, u, schedule):
        return u

    def density(self, t, schedule):
        return torch.ones_like(t)

    def observe(self, t, error, schedule, loss=None):
        self.seen = t, error, loss


def test_a_law_of_times_observes_what_is_free_and_nothing_else():
    x0, rule = data("text", 4), al.get("masking", "scattered")()
    part = al.Denoising(Sees(), al.get("weighting", "min_snr")(), rule, forcing=True)
    part(denoiser(SPECS["text"], part), x0, None, al.Noise.of(2, 4))
    t, error, loss = part.times.seen
    noise = al.Noise.of(2, 4)
    drawn = part.times.sample(noise, al.get("schedule", "vp")(), 5)
    noise.like(x0)
    free = x0.masks["z"] & ~rule.given(x0, noise)["z"]
    assert torch.equal(t, drawn[free]) and error.shape == loss.shape == t.shape
    assert not torch.allclose(error, loss) and bool((error > 0).all())
    for name in ("warped", "adaptive"):
        law = al.get("times", name)()
        law.observe(drawn, drawn, al.get("schedule", "vp")())
        flat = al.get("times", name)()
        flat.observe(drawn.flatten(), drawn.flatten(), al.get("schedule", "vp")())
        assert torch.equal(law.loss, flat.loss) and float(law.loss.sum()) > 0
        with pytest.raises(ValueError, match="one error for each time"):
            law.observe(drawn, drawn[:, 0], al.get("schedule", "vp")())


class TooMany(Sees):
    """A law that gives a time for each of T entries whoever asks."""

    def sample(self, noise, schedule, entries=None):
        return super().sample(noise, schedule, 4)


def test_times_for_entries_that_nobody_asked_for_are_an_error_also_where_b_is_t():
    """They once met an error for each sample: a (B, T) loss of wrong products for B = T."""
    spec = al.LatentSpec({"z": al.Field((4, 6))})
    for batch in (4, 3):
        x0 = al.Noise.of(0, batch).like(spec.blank(batch, dtype=torch.float64))
        part = al.Denoising(TooMany())
        with pytest.raises(ValueError, match="forcing=true"):
            part(denoiser(spec, part), x0, None, al.Noise.of(1, batch))
        with pytest.raises(ValueError, match="an error for each entry"):
            t = torch.full((batch, 4), 0.5).double()
            al.get("weighting", "edm")().loss(
                denoiser(spec, part), t, Sees(), torch.ones(batch).double()
            )

    class Halves(EntryNet):
        def forward(self, x, c_noise, cond=None):
            out = super().forward(x, c_noise, cond)
            return al.Latent({"z": torch.cat([out["z"]] * 2, -1)}, out.masks, out.spec)

    part = al.get("objective", "hybrid")(TooMany())
    model = LearnedVariance(
        Halves(spec).double(), al.get("schedule", "vp")(), al.get("prediction", "v")()
    )
    x0 = al.Noise.of(0, 4).like(spec.blank(4, dtype=torch.float64))
    with pytest.raises(ValueError, match="forcing=true"):
        part(model, x0, None, al.Noise.of(1, 4))


# ---- what times can't tell ----------------------------------------------------------------------
class Recorder(al.Backbone):
    """Returns its input, and keeps it with what it was told."""

    def __init__(self, spec, maps=None):
        super().__init__()
        self.spec, self.conditions = spec, al.ConditionSpec(maps=maps or {})

    def forward(self, x, c_noise, cond=None):
        self.seen = x, c_noise, cond
        return 0.3 * x


def recorded(spec, part):
    made = functools.partial(Recorder, spec)
    network = lambda output=None, maps=None: made(maps)  # noqa: E731
    kind = al.get("prediction", "v")()
    return preconditioned(network, al.get("schedule", "vp")(), kind, spec=spec, tells=part.tells)


@pytest.mark.parametrize(
    ("key", "axes"),
    (("image", (1, 2)), ("video", (2, 3)), ("molecule", (0,)), ("shape", (0,))),
)
def test_a_region_is_shown_clean_with_its_map_and_counts_nothing(key, axes):
    spec, rule = SPECS[key], al.get("masking", "scattered")(axes=axes)
    part, x0 = al.Denoising(masking=rule), data(key, 4)
    model = recorded(spec, part)
    assert model.sees_given and not model.entry_times
    assert model.backbone.conditions.maps == {"given": 1}
    losses = part(model, x0, None, al.Noise.of(2, 4))
    x, c_noise, cond = model.backbone.seen
    noise = al.Noise.of(2, 4)
    t = part.times.sample(noise, model.schedule)
    draw = noise.like(x0)
    given = rule.given(x0, noise)
    name = "points" if key == "shape" else "h" if key == "molecule" else "z"
    mask = given[name]
    mask = mask.reshape(mask.shape + (1,) * (x0[name].ndim - mask.ndim)).expand_as(x0[name])
    alpha, sigma = (
        c.reshape(-1, *[1] * (x0[name].ndim - 1)) for c in model.schedule.coefficients(t)
    )
    shown = torch.where(mask, x0[name], alpha * x0[name] + sigma * draw[name])
    assert torch.allclose(x[name], shown, atol=1e-12) and c_noise.shape == (4,)
    axis = 1 if key == "image" else 2 if key == "video" else -1
    told = cond.values["given"].expand_as(x0[name]) if key != "shape" else None
    assert told is None or torch.equal(told, mask.to(told)), axis
    assert "given" in cond.always
    if key in ("image", "video"):
        gap = (0.3 * x[name] - (alpha * draw[name] - sigma * x0[name])).square()
        gap = torch.where(mask, 0, gap)
        wanted = gap.flatten(1).sum(1) / (~mask).flatten(1).sum(1)
        assert torch.allclose(losses, wanted, rtol=1e-9)
    model(x0, 0.5)
    assert not bool(model.backbone.seen[2].values["given"].any()), "in sampling nothing is given"


def test_who_was_not_built_for_it_says_so():
    spec = SPECS["video"]
    part = al.Denoising(masking=al.get("masking", "prefix")())
    assert part.tells == {"given"}
    assert al.Denoising(forcing=True).tells == {"times"} and al.Denoising().tells == set()
    model = al.Preconditioned(net(spec), al.get("schedule", "vp")(), al.get("prediction", "v")())
    with pytest.raises(ValueError, match="tells=objective.tells"):
        part(model, data("video", 2), None, al.Noise.of(0, 2))
    with pytest.raises(ValueError, match="no entries"):
        recorded(SPECS["image"], al.Denoising(forcing=True))
    with pytest.raises(ValueError, match="axis 0"):
        al.get("objective", "score_interpolation")(masking=al.get("masking", "prefix")(axes=(1,)))


def test_a_plugin_s_masking_is_one_method():
    class Second(Masking):
        def __call__(self, valid, noise):
            return valid & (torch.arange(valid.shape[1]) == 1) & (valid.sum(1) > 2)[:, None]

    part = al.Denoising(masking=Second())
    model, x0 = recorded(SPECS["text"], part), data("text", 4)
    part(model, x0, None, al.Noise.of(0, 4))
    x, c_noise, cond = model.backbone.seen
    assert model.entry_times and not model.sees_given and cond is None
    assert c_noise.shape == (4, 5)
    long = x0.lengths("z") > 2
    assert bool((c_noise[long, 1] == -5).all()) and bool((c_noise[:, 0] > -5).all())
    assert torch.allclose(x["z"][long, 1], x0["z"][long, 1])


def test_a_learned_schedule_s_prior_counts_what_is_free():
    """½·SNR(1)·|x0|² over what is not given; the loss of a schedule that learns is finite."""
    part = al.Denoising(
        weighting=al.get("weighting", "elbo")(), masking=al.get("masking", "ends")()
    )
    spec, schedule = SPECS["video"], al.get("schedule", "learned")()
    torch.manual_seed(0)
    model = al.Preconditioned(net(spec), schedule, al.get("prediction", "v")(), tells=part.tells)
    x0 = data("video", 4)
    plain = part(model, x0, None, al.Noise.of(2, 4))
    twice = x0.replace(
        z=torch.where(torch.tensor([1.0, 0, 1]).view(3, 1, 1, 1) > 0, 2, 1) * x0["z"]
    )
    ends = part._ending(
        schedule, x0, plain, {"z": torch.tensor([[True, False, True]]).expand(4, 3)}
    )
    same = part._ending(
        schedule, twice, plain, {"z": torch.tensor([[True, False, True]]).expand(4, 3)}
    )
    assert torch.allclose(ends, same)
    snr = float(schedule.log_snr(1.0).exp().detach())
    assert torch.allclose(ends, 0.5 * snr * x0["z"][:, 1].flatten(1).square().mean(1), rtol=1e-6)
    plain.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in schedule.parameters())
