"""What a step sees is a function of the step: batches, the rate, the average."""

from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import anylatent as al
from anylatent.core.latents.posterior import Posterior
from anylatent.core.modality.batch import stack_items
from anylatent.core.support.disk_cache import digest
from anylatent.core.support.files import UserError
from anylatent.core.training import encoding
from anylatent.core.training.average import Average
from anylatent.core.training.settings import GeneratorSettings, StageSettings
from anylatent.core.training.step_sampler import StepSampler


def steps(size=10, batch=4, count=12, start=0, seed=0, rank=0, world=1):
    return list(StepSampler(size, batch, count, start, seed, rank, world))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.sampled_from([2, 4, 8]), st.integers(0, 11), st.integers(0, 5))
def test_a_run_resumes_anywhere(size, batch, start, seed):
    whole = steps(size, batch, 12, 0, seed)
    assert steps(size, batch, 12, start, seed) == whole[start:]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.sampled_from([1, 2, 4]), st.integers(0, 5))
def test_the_joint_batch_is_the_union_over_processes(size, world, seed):
    joint = steps(size, 4, 12, 0, seed)
    shares = [steps(size, 4, 12, 0, seed, rank, world) for rank in range(world)]
    for k, batch in enumerate(joint):
        assert [index for share in shares for index in share[k]] == batch


def test_every_pass_is_a_fresh_permutation():
    drawn = [index for batch in steps(10, 5, 6) for index in batch]
    passes = [drawn[k : k + 10] for k in (0, 10, 20)]
    assert all(sorted(each) == list(range(10)) for each in passes)
    assert len({tuple(each) for each in passes}) == 3
    assert steps(seed=0) != steps(seed=1)


def test_a_batch_may_exceed_the_data():
    assert [len(batch) for batch in steps(3, 8, 2)] == [8, 8]


def test_a_batch_that_does_not_divide_is_an_error():
    with pytest.raises(UserError, match="batch of 4 does not divide among 3"):
        StepSampler(10, 4, 1, 0, 0, 0, 3)


def test_items_are_stacked_by_kind():
    items = [{"image": torch.full((2,), k), "label": k, "caption": str(k)} for k in (0.0, 1.0)]
    batch = stack_items(items)
    assert batch["image"].shape == (2, 2) and batch["label"].tolist() == [0, 1]
    assert batch["caption"] == ["0.0", "1.0"]


def test_the_key_follows_everything_that_made_it():
    weights = {"w": torch.zeros(3)}
    keys = {
        digest({"size": 32}, weights),
        digest({"size": 64}, weights),
        digest({"size": 32}, {"w": torch.tensor([0.0, 0.0, 1e-7])}),
        digest({"size": 32}, {"v": torch.zeros(3)}),
    }
    assert len(keys) == 4 and digest({"size": 32}, weights) in keys


def test_the_learning_rate_rises_stays_and_falls():
    stage = StageSettings(steps=1000, batch=4, warmup=99, decay=0.5)
    rates = [stage.rate(k) for k in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[99] == 1 and rates[500] == 1
    assert rates[750] == pytest.approx(0.5) and 0 <= rates[999] < 1e-4
    for bad in ({"steps": 0}, {"batch": 0}, {"decay": 2.0}, {"average": 1.0}, {"drop": 1.0}):
        with pytest.raises(ValueError):
            GeneratorSettings(**{"steps": 1, "batch": 1, **bad})


def test_the_average_is_the_weighted_mean_of_the_past():
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 0.0)
    average, wanted = Average(net, 0.9), 0.0
    for step in range(50):
        net.weight.data.fill_(float(step))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * step
    assert float(average.shadow[0]) == pytest.approx(wanted, rel=1e-5)
    with average.applied():
        assert net.weight.item() == pytest.approx(wanted, rel=1e-5)
    assert net.weight.item() == 49


def test_the_average_comes_off_even_after_an_error():
    net = nn.Linear(1, 1, bias=False)
    before = net.weight.item()
    average = Average(net, 0.5)
    average.shadow[0].fill_(7.0)
    with pytest.raises(RuntimeError), average.applied():
        assert net.weight.item() == 7
        raise RuntimeError
    assert net.weight.item() == before


def test_only_a_normaliser_that_is_to_be_fitted_is_fitted(monkeypatch):
    """Tokens bring one that changes nothing; constants of an autoencoder's own stay."""
    spec = al.LatentSpec({"z": al.Field((None, 4))})
    posterior = Posterior(al.Noise.of(0, 6).like(spec.blank(6, [3] * 6)) * 5.0)

    class Cache:
        def batches(self, size):
            yield posterior, None

    monkeypatch.setattr(encoding, "posteriors", lambda training, copies: Cache())
    table = al.get("autoencoder", "unit_embedding")(channels=4)
    scales = {}
    for name, normaliser in {
        "fitted": al.Autoencoder.normaliser(table),
        "tokens": table.normaliser(),
        "constant": al.Normaliser.fixed(spec, scales={"z": 2.0}),
    }.items():
        system, done = SimpleNamespace(normaliser=normaliser), SimpleNamespace(normalised=False)
        encoding.latents(SimpleNamespace(system=system, done=done))
        scales[name] = float(normaliser.scale_z)
    assert scales["tokens"] == 1 and scales["constant"] == 2
    assert scales["fitted"] == pytest.approx(5, rel=0.3)
    system = SimpleNamespace(normaliser=al.Autoencoder.normaliser(table))
    done = SimpleNamespace(normalised=True)  # it came with the latents of another run
    encoding.latents(SimpleNamespace(system=system, done=done))
    assert float(system.normaliser.scale_z) == 1
