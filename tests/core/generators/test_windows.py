"""Samples of any length: their law within and across seams, whatever their neighbours."""

from types import SimpleNamespace

import pytest
import torch

import anylatent as al
from anylatent.core.denoisers import StationaryGaussian
from anylatent.core.generators import Rolling, Sampler, Start, Windows, steps_of
from anylatent.core.inverse import Completion, Known
from anylatent.core.latents import Condition, ConditionSpec, Started
from anylatent.core.support.files import UserError

SPEC = al.LatentSpec({"z": al.Field((None, 2))})
NONE = ConditionSpec()
CORRELATION = 0.8
SOLVERS = sorted(al.names("solver"))


def exact(spec=SPEC, schedule="flow", **settings):
    """A diffusion model that knows its law."""
    told = {"correlation": CORRELATION, **settings}
    denoiser = StationaryGaussian(al.get("schedule", schedule)(), **told)
    denoiser.backbone = SimpleNamespace(spec=spec)
    return al.Diffusion(denoiser, al.get("objective", "denoising")())


def sampler(name="heun", steps=24, **told):
    return Sampler(al.get("solver", name)(), al.get("grid", "log_snr")(-10.0, 14.0), steps, **told)


def drawn(generator, lengths, how=None, seeds=None, cond=None, callback=None):
    lengths = torch.as_tensor(lengths)
    seeds = range(len(lengths)) if seeds is None else seeds
    noise = al.Noise([(7, i) for i in seeds])
    return generator.sample(
        SPEC.blank(len(lengths), lengths), cond, how or sampler(), noise, callback
    )


# ---- the law ----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["windows", "rolling"])
def test_a_gaussian_process_keeps_its_autocovariance_within_and_across_seams(kind):
    inner, count, length = exact(), 2000, 30
    generator = (
        Windows(inner, NONE, window=9, context=2, noise=0.0)
        if kind == "windows"
        else Rolling(inner, NONE, window=10, context=2)
    )
    rows = (
        drawn(generator, [length] * count, sampler(steps=64))["z"]
        .double()
        .movedim(2, 0)
        .flatten(0, 1)
    )
    found, wanted = rows.T @ rows / len(rows), inner.denoiser.covariance(length)
    error = ((wanted.diag()[:, None] * wanted.diag() + wanted**2) / len(rows)).sqrt()
    away = (found - wanted) / error
    assert float(away.abs().max()) < 5  # of 465 pairs of entries
    assert float(away.square().mean().sqrt()) < 1.4  # 1 if they were independent
    # a window that knew nothing of the one before would lose this at its seam
    assert float(found[8, 9]) > 0.7 and float(found[15, 16]) > 0.7


def test_without_its_context_a_window_knows_nothing_of_the_one_before(monkeypatch):
    """That the test above could fail."""
    generator = Windows(exact(), NONE, window=9, context=2, noise=0.0)
    monkeypatch.setattr(Known, "around", lambda self, denoiser: denoiser)
    rows = drawn(generator, [16] * 1000)["z"].double().movedim(2, 0).flatten(0, 1)
    assert abs(float((rows[:, 8] * rows[:, 9]).mean())) < 0.15


def test_noise_on_the_context_is_noise_of_that_deviation():
    noisy = Windows(exact(correlation=0.0), NONE, window=4, context=3, noise=0.5)
    seen = []

    def see(self, denoiser):
        seen.append(self.latents["z"][:, :3])
        return Completion(denoiser, self.latents, self.given, self.strength)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Known, "around", see)
        made = drawn(noisy, [5] * 2000)["z"]
    assert float((seen[0] - made[:, 1:4]).std()) == pytest.approx(0.5, abs=0.02)


# ---- samples are their own --------------------------------------------------------------------
def kinds():
    return [
        Windows(exact(), NONE, window=6, context=2),
        Rolling(exact(), NONE, window=6, context=2),
    ]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("generator", kinds(), ids=lambda g: type(g).__name__)
def test_a_sample_of_a_batch_is_the_sample_alone(generator, name):
    """Of several lengths, by every solver."""
    how = sampler(name, 8)
    if name == "paradigms":
        how = Sampler(al.get("solver", name)(), how.grid, 8)
    batch = drawn(generator, [17, 4, 9], how)
    for i, length in enumerate([17, 4, 9]):
        alone = drawn(generator, [length], how, seeds=[i])["z"][0]
        assert torch.allclose(batch["z"][i, :length], alone, atol=2e-5), name
        assert not batch["z"][i, length:].any()


def test_a_longer_sample_begins_as_a_shorter_one():
    generator = kinds()[0]
    long, short = drawn(generator, [17])["z"], drawn(generator, [6])["z"]
    assert torch.equal(long[:, :6], short)
    assert torch.equal(short, drawn(generator.inner, [6])["z"])


@pytest.mark.parametrize("generator", kinds(), ids=lambda g: type(g).__name__)
def test_what_is_known_is_in_the_sample(generator):
    lengths = torch.tensor([13, 8])
    known, given = (
        al.Noise.of(3, 2).like(SPEC.blank(2, lengths)),
        torch.zeros(2, 13, dtype=torch.bool),
    )
    given[0, [0, 3, 7, 11]], given[1, 5] = True, True
    how = sampler(known=Known(known, {"z": given}))
    made = drawn(generator, lengths, how)["z"]
    assert torch.allclose(made[given], known["z"][given], atol=1e-4)
    assert not torch.allclose(made[~given], drawn(generator, lengths)["z"][~given], atol=1e-2)


# ---- what it tells and refuses ----------------------------------------------------------------
@pytest.mark.parametrize("generator", kinds(), ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("lengths", [[6], [3, 2], [17, 4, 9]])
def test_as_many_steps_are_told_as_are_taken(generator, lengths):
    taken = []
    blank = SPEC.blank(len(lengths), torch.tensor(lengths))
    drawn(generator, lengths, sampler(steps=8), callback=lambda i, t, x: taken.append(x.batch))
    assert len(taken) == steps_of(generator, blank, 8)
    assert set(taken) == {len(lengths)}  # of whole samples


def test_what_is_told_of_each_entry_is_told_of_that_of_the_window():
    spec = ConditionSpec(vectors={"camera": al.Field((None, 3))}, opening=["first"])
    spec = ConditionSpec(["c"], vectors=spec.vectors, opening=spec.opening, scalars=["first"])
    seen, inner = [], exact()
    inner.denoiser.bind = lambda cond: seen.append(cond) or al.Denoiser.bind(inner.denoiser, None)
    cameras = torch.arange(2 * 11 * 3).float().reshape(2, 11, 3)
    cond = Condition({"camera": cameras, "c": torch.tensor([4, 5]), "first": torch.ones(2)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Known, "around", lambda self, denoiser: denoiser)
        drawn(Windows(inner, spec, window=6, context=2), [11, 6], cond=cond)
    first, second, third = seen
    assert torch.equal(first.values["camera"], cameras[:, :6])
    assert torch.equal(second.values["camera"], cameras[:1, 4:10])
    assert torch.equal(third.values["camera"], cameras[:1, 5:11])
    assert first.keep["first"].tolist() == [True, True]
    assert second.keep["first"].tolist() == [False]  # it begins elsewhere
    assert second.values["c"].tolist() == [4] and second.keep["c"].tolist() == [True]


@pytest.mark.parametrize(("window", "context"), [(4, 4), (3, 5), (4, 0)])
@pytest.mark.parametrize("kind", [Windows, Rolling])
def test_a_window_is_longer_than_its_context(kind, window, context):
    with pytest.raises(UserError, match="longer than its context"):
        kind(exact(), NONE, window, context)


@pytest.mark.parametrize("key", ["image", "molecule"])
def test_windows_need_entries(key):
    spec = al.testing.SPECS[key]
    with pytest.raises(UserError, match="axis of variable length"):
        Windows(exact(spec), NONE, 4, 1)


def test_steps_that_can_not_be_shared():
    generator = Rolling(exact(), NONE, window=6, context=2)
    with pytest.raises(UserError, match="steps=10.*multiple"):
        drawn(generator, [9], sampler(steps=10))


def test_noise_that_is_given_is_that_of_one_piece():
    generator = kinds()[0]
    long, short = (al.Noise.of(0, 1).like(SPEC.blank(1, torch.tensor([n]))) for n in (9, 5))
    with pytest.raises(UserError, match="leave out noise="):
        generator.sample(long.zeros(), None, sampler(), Started([1], long))
    made = generator.sample(short.zeros(), None, sampler(steps=100), Started([1], short))
    back = generator.invert(made, None, sampler(steps=100), al.Noise([1]))
    assert torch.allclose(back["z"], short["z"], atol=0.05)
    with pytest.raises(UserError, match="window of 6"):
        generator.invert(long, None, sampler(), al.Noise([1]))


def test_a_start_is_that_of_each_window():
    """SDEdit of a clip that is longer than a window: with next to no noise it comes back."""
    x0 = al.Noise.of(3, 1).like(SPEC.blank(1, torch.tensor([13])))
    grid = al.get("grid", "uniform")()
    how = Sampler(al.get("solver", "heun")(), grid, 4, start=Start(0.01, x0=x0))
    made = drawn(kinds()[0], [13], how)
    assert torch.allclose(made["z"], x0["z"], atol=0.1)
    with pytest.raises(UserError, match="leave out the start"):
        drawn(kinds()[1], [13], how)
