"""Noise that is found in data, kept, and started from: exact Gaussians, and files."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import anylatent as al
from anylatent.core.latents.noise import Started
from anylatent.core.reports.normality import normality
from anylatent.core.runs.config import SamplingConfig
from anylatent.core.runs.stored_noise import KEY, StoredNoise
from anylatent.core.support.files import UserError
from tests.core.generators.test_generators import (
    OFFSET,
    SLOPE,
    STD_A,
    STD_B,
    Conditional,
    law_a,
    law_b,
)
from tests.core.toys import alone, distance

SPEC = al.LatentSpec({"a": al.Field((1,)), "b": al.Field((1,))})
HOW = SamplingConfig({"name": "heun"}, {"name": "soft"}, None, 7)


def stage(field, law, schedule="cosine"):
    """A diffusion model whose denoiser is exact."""
    denoiser = Conditional(al.get("schedule", schedule)(), law)
    denoiser.backbone = SimpleNamespace(spec=SPEC.take([field]))
    return al.Diffusion(denoiser, al.get("objective", "denoising")())


def settings(steps, solver="adams"):
    return al.Sampler(al.get("solver", solver)(), al.get("grid", "log_snr")(), steps)


@pytest.mark.parametrize("name", ("cosine", "edm"))
def test_noise_of_a_diffusion_model_is_the_exact_flow_s(name):
    model = stage("a", law_a, name)
    drawn = al.Noise.of(1, 5).like(model.spec.blank(5, dtype=torch.float64))
    x0 = drawn.map(lambda z: 0.3 + 0.8 * z)
    noise = model.invert(x0, None, settings(100), al.Noise.of(0, 5))
    schedule, exact = model.denoiser.schedule, al.testing.GaussianDenoiser
    times = al.get("grid", "log_snr")()(schedule, 100)
    mean = x0.map(lambda z: torch.full_like(z, 0.5))
    top = exact(schedule, mean, STD_A).flow(schedule.alpha(times[-1]) * x0, times[-1], times[0])
    assert distance(noise, top / schedule.sigma(times[0])) < 2e-3
    back = model.sample(x0.zeros(), None, settings(100), Started(range(5), noise))
    assert distance(back, x0) < 2e-3


def test_each_stage_of_a_cascade_is_inverted_given_the_data_before_it():
    """Noise of data from a ~ N(.5, .8²), b | a is the standard normal that they came from."""
    model = al.Cascade([stage("a", law_a), stage("b", law_b)])
    drawn = al.Noise.of(2, 6).like(SPEC.blank(6, dtype=torch.float64))
    a = 0.5 + STD_A * drawn["a"]
    x0 = drawn.replace(a=a, b=OFFSET + SLOPE * a + STD_B * drawn["b"])
    steps = []
    noise = model.invert(
        x0, None, settings(100), al.Noise.of(0, 6), lambda i, t, x: steps.append(i)
    )
    assert distance(noise, drawn) < 2e-3
    assert len(steps) == 2 * 99  # the step to sigma = 0 is left out
    back = model.sample(x0.zeros(), None, settings(100), Started(range(6), noise))
    assert distance(back, x0) < 2e-3


def test_noise_that_is_drawn_first_makes_the_samples_that_it_would_have_made():
    """Also with a solver that goes on drawing."""
    model, ddpm = stage("a", law_a, "vp"), settings(5, "ddpm")
    blank = model.spec.blank(4, dtype=torch.float64)
    wanted = model.sample(blank, None, ddpm, al.Noise(range(4)))
    start = al.Noise(range(4)).like(blank)
    assert distance(model.sample(blank, None, ddpm, Started(range(4), start)), wanted) == 0
    other = model.sample(blank, None, ddpm, Started(range(4), start * 2.0))
    assert distance(other, wanted) > 1e-6


def test_a_generator_without_noise_has_nothing_to_invert():
    class Bare(al.Generator):
        spec, loss, sample, nats = SPEC, None, None, None

    with pytest.raises(UserError, match="nothing to invert"):
        Bare().invert(SPEC.blank(1), None, settings(3), al.Noise([0]))


# ---- files ------------------------------------------------------------------------------------
@pytest.mark.parametrize("key", al.testing.SPECS)
def test_a_file_brings_every_kind_of_latent_back(key, tmp_path):
    spec, path = al.testing.SPECS[key], tmp_path / "noise.safetensors"
    blank = al.testing.example(spec, dtype=torch.float32)
    noise = al.Noise.of(0, blank.batch).like(blank)
    columns = {"digit": ["3", None, "5", "7"]}
    StoredNoise(noise, HOW, columns, [4, 0, 2, 9]).save(path)
    found = StoredNoise.load(path, spec)
    assert distance(found.noise, noise) < 1e-6 and found.noise.masks.keys() == noise.masks.keys()
    assert all(torch.equal(found.noise.masks[k], noise.masks[k]) for k in noise.masks)
    assert (found.columns, found.items) == (columns, [4, 0, 2, 9])
    assert StoredNoise.told(path) == (HOW, blank.batch)
    for i in range(blank.batch):  # padding of the file is no part of it
        StoredNoise(alone(noise, i), HOW).save(path)
        assert distance(StoredNoise.load(path, spec).noise, alone(noise, i)) < 1e-6


def test_latents_of_different_padding_become_one_batch():
    spec = al.testing.SPECS["molecule"]
    blank = al.testing.example(spec, dtype=torch.float32)
    noise = al.Noise.of(0, blank.batch).like(blank)
    joined = blank.spec.together([alone(noise, i) for i in range(blank.batch)])
    assert distance(joined, noise) == 0


def test_what_does_not_fit_is_named(tmp_path):
    path, spec = tmp_path / "noise.safetensors", al.testing.SPECS["molecule"]
    blank = al.testing.example(spec, dtype=torch.float32)
    StoredNoise(al.Noise.of(0, blank.batch).like(blank), HOW).save(path)
    wrong = {
        "fields": al.LatentSpec({"z": al.Field((4,))}),
        "it has lengths": al.LatentSpec(
            {n: al.Field((9, *f.rest)) for n, f in spec.fields.items()}
        ),
        "field h has the shape": al.LatentSpec({**spec.fields, "h": al.Field((None, 99))}),
    }
    for message, other in wrong.items():
        with pytest.raises(UserError, match=message):
            StoredNoise.load(path, other)
    tensors, metadata = load_file(path), {KEY: json.dumps({"settings": asdict(HOW), "time": 1.0})}
    save_file(tensors, path, metadata)
    assert StoredNoise.load(path, spec).items == ()  # what else a file may say is not asked
    broken = {
        "not finite": {**tensors, "noise.x": tensors["noise.x"] / 0},
        "shorter": {**tensors, "lengths": tensors["lengths"] + 50},
    }
    for message, changed in broken.items():
        save_file(changed, path, metadata)
        with pytest.raises(UserError, match=message):
            StoredNoise.load(path, spec)
    save_file(tensors, path)
    with pytest.raises(UserError, match="holds no noise"):
        StoredNoise.load(path, spec)
    with pytest.raises(UserError, match="no such file"):
        StoredNoise.told(tmp_path / "other.safetensors")


def lengths(change):
    return lambda tensors, told: tensors.update(lengths=change(tensors["lengths"]))


def field_x(change):
    return lambda tensors, told: tensors.update({"noise.x": change(tensors["noise.x"])})


def conditions(value):
    return lambda tensors, told: told.update(columns=value)


DAMAGED = {
    "lengths of floats": (lengths(lambda x: x.float()), "its lengths are no 4 positive integers"),
    "a length too few": (lengths(lambda x: x[:-1]), r"integers but torch.int64 of shape \(3,\)"),
    "lengths in a table": (lengths(lambda x: x[:, None]), r"of shape \(4, 1\)"),
    "a negative length": (lengths(lambda x: x - 50), "positive integers"),
    "a sample too few": (field_x(lambda x: x[:-1]), "its fields are of 3 and 4 samples"),
    "integers": (field_x(lambda x: x.int()), "numbers of type torch.int32"),
    "complex numbers": (field_x(lambda x: x.to(torch.complex64)), "torch.complex64"),
    "conditions in a list": (conditions([1]), "columns must be names with values"),
    "a condition for all": (conditions({"digit": 3}), "columns must be names with values"),
    "a condition too few": (conditions({"digit": [1, 2, 3]}), "digit has 3 values for noise of 4"),
    "places by name": (lambda tensors, told: told.update(items={"a": 1}), "items must be a list"),
}


@pytest.fixture
def written(tmp_path):
    """Writes a file of noise for molecules, changed as is said: its path."""

    def write(change):
        path, spec = tmp_path / "noise.safetensors", al.testing.SPECS["molecule"]
        blank = al.testing.example(spec, dtype=torch.float32)
        StoredNoise(al.Noise.of(0, blank.batch).like(blank), HOW).save(path)
        tensors, told = load_file(path), {"settings": asdict(HOW)}
        change(tensors, told)
        save_file(tensors, path, {KEY: json.dumps(told)})
        return path

    return write


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files_are_one_sentence(kind, written):
    change, message = DAMAGED[kind]
    with pytest.raises(UserError, match=message):
        StoredNoise.load(written(change), al.testing.SPECS["molecule"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_noise_of_another_precision_is_read(dtype, written):
    spec = al.testing.SPECS["molecule"]
    found = StoredNoise.load(written(field_x(lambda x: x.to(dtype))), spec)
    assert {x.dtype for x in found.noise.parts.values()} == {torch.float32}
    whole = StoredNoise.load(written(lambda *_: None), spec)
    assert distance(found.noise, whole.noise) < 1e-2


# ---- figures ----------------------------------------------------------------------------------
@pytest.mark.parametrize("key", al.testing.SPECS)
def test_drawn_noise_is_normal(key):
    spec = al.testing.SPECS[key]
    variable = any(field.variable for field in spec.fields.values())
    blank = spec.blank(2000, torch.arange(2000) % 7 + 20 if variable else None)
    found = normality(al.Noise.of(0, 2000).like(blank))
    for name, value in found.items():
        wanted = 1.0 if name.startswith("deviation") else 0.0
        assert abs(value - wanted) < 0.06, found  # centred points are correlated by -1/N


def test_noise_with_a_shape_is_told_from_normal():
    spec = al.LatentSpec({"z": al.Field((2, 24, 24))})
    noise = al.Noise.of(0, 50).like(spec.blank(50))
    smooth = noise.map(lambda z: (z + z.roll(1, 2)) / 2**0.5)
    assert normality(smooth)["correlation"] == pytest.approx(0.5, abs=0.03)
    uniform = noise.map(lambda z: (2 * torch.special.ndtr(z) - 1) * 3**0.5)
    assert normality(uniform)["kurtosis"] == pytest.approx(-1.2, abs=0.02)
    moved = normality(noise.map(lambda z: 0.5 * z + 0.2))
    assert moved["mean"] == pytest.approx(0.2, abs=0.01)
    assert moved["deviation"] == pytest.approx((0.25 + 0.04) ** 0.5, abs=0.01)
