"""The cache of latents: what went in comes out, in half precision where that is as good."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

import anylatent as al
from anylatent.core.latents.condition import token_condition
from anylatent.core.latents.posterior import Posterior
from anylatent.core.support.files import UserError
from anylatent.core.training import latent_store
from anylatent.core.training.latent_store import cached_latents, flatten
from anylatent.core.training.precision import LIMIT, compact, divergence, lossless
from tests.core.toys import alone, distance

SIZES = torch.tensor([9, 4, 7, 5, 12, 6, 3, 8, 1, 10, 2, 11])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))


def entry(spec, sizes, spread=-1.0):
    """Posteriors that are known by their size, and conditions beside them."""
    variable = any(field.variable for field in spec.fields.values())
    blank = spec.blank(len(sizes), lengths=sizes) if variable else spec.blank(len(sizes))
    mean = al.Noise(seeds=[int(n) for n in sizes]).like(blank)
    mask = torch.arange(4) < (sizes[:, None] % 5)  # some have no words at all
    states = torch.where(mask[..., None], sizes[:, None, None] / torch.tensor([3.0, 7.0]), 0)
    cond = al.Condition({"n": sizes, "words": token_condition(states, mask)}, {"n": sizes % 3 != 0})
    log_std = mean.map(lambda x: (x * 0.1 + spread) * (x != 0))
    return Posterior(mean, log_std if spread is not None else None), cond


def cache_of(spec, sizes=SIZES, key="key", spread=-1.0, calls=None):
    def encode(entries):
        if calls is not None:
            calls.append(entries)
        return entry(spec, sizes[torch.tensor(entries)], spread)

    variable = any(field.variable for field in spec.fields.values())
    return cached_latents(spec, key, len(sizes), encode, sizes if variable else None)


def is_near(got, true, exact):
    return torch.equal(got, true) if exact else torch.equal(got, true.half().float())


# ---- what comes out ---------------------------------------------------------------------------
@pytest.mark.parametrize("key", al.testing.SPECS)
@pytest.mark.parametrize("rows", [1, 4, 64])
def test_the_cache_gives_back_what_went_in(key, rows, monkeypatch):
    """In the data's order, whatever the order of encoding; made, then read from the files."""
    monkeypatch.setattr(latent_store, "BATCH", 3)
    monkeypatch.setattr(latent_store, "rows_of", lambda *_: rows)
    spec, calls = al.testing.SPECS[key], []
    for _ in range(2):
        cache = cache_of(spec, calls=calls)
        assert len(cache) == len(SIZES)
        order = [7, 0, 11, 4, 7]
        posterior, cond = cache.__getitems__(order)
        assert al.testing.in_subspace(posterior.mean)
        for row, index in enumerate(order):
            true, given = entry(spec, SIZES[index : index + 1])
            for got, wanted in ((posterior.mean, true.mean), (posterior.log_std, true.log_std)):
                for name, field in spec.fields.items():
                    own, whole = alone(got, row)[name], wanted[name]
                    assert own.dtype == torch.float32
                    if field.centred:  # centred anew in each batch
                        assert torch.allclose(own, whole, rtol=0, atol=1e-6)
                    else:
                        assert torch.equal(own, whole.half().float())
            assert cond.values["n"][row] == given.values["n"][0]
            assert all(cond.keep[name][row] == given.keep[name][0] for name in ("n", "words"))
            words, wanted = cond.values["words"], given.values["words"]
            assert torch.equal(words["tokens"][row], wanted["tokens"][0])
            assert torch.equal(words.masks["tokens"][row], wanted.masks["tokens"][0])
        variable = any(field.variable for field in spec.fields.values())
        assert torch.equal(cache.lengths, SIZES) if variable else cache.lengths is None
    assert sorted(sum(calls, [])) == list(range(len(SIZES)))  # each was encoded once


def test_batches_go_through_all_in_order():
    spec = al.testing.SPECS["text"]
    cache = cache_of(spec)
    found = [int(n) for _, cond in cache.batches(5) for n in cond.values["n"]]
    assert found == SIZES.tolist()
    indices = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    for (posterior, _), own in zip(cache.batches(5), indices, strict=True):
        assert distance(posterior.mean, cache.__getitems__(own)[0].mean) == 0


def test_padding_is_not_kept():
    spec = al.testing.SPECS["text"]
    flat = flatten(*entry(spec, torch.tensor([5, 9, 2, 7])))
    assert flat["mean.z"].values.shape == (5 + 9 + 2 + 7, 6)
    assert flat["tokens.words"].values.shape == (0 + 4 + 2 + 2, 2)  # sizes modulo 5


def test_conditions_may_be_none_and_posteriors_certain():
    spec = al.testing.SPECS["image"]
    mean = entry(spec, SIZES)[0].mean
    cache = cached_latents(
        spec, "key", len(SIZES), lambda e: (Posterior(mean.select(torch.tensor(e))), None)
    )
    posterior, cond = cache.__getitems__([3, 1])
    assert posterior.log_std is None and cond is None
    assert torch.equal(posterior.mean["z"], mean["z"][[3, 1]])  # a point mass is kept exactly


def test_conditions_of_several_fields_and_facts():
    """Tokens with a vector, a vector for each entry, a picture as a latent, and what is a fact."""
    spec, n = al.testing.SPECS["text"], len(SIZES)
    noise, mask = al.Noise.of(1, n), torch.arange(12) < SIZES[:, None]
    words, cameras = noise.normal(12, 2), noise.normal(12, 3)
    rows = al.LatentSpec({"vector": al.Field((None, 3))})
    values = {
        "caption": token_condition(words * mask[..., None], mask, noise.normal(4)),
        "camera": al.Latent({"vector": cameras}, {"vector": mask}, rows).project(),
        "source": noise.like(al.testing.SPECS["image"].blank(n)),
    }
    cond = al.Condition(values, {"caption": SIZES % 2 == 0}, frozenset({"source"}))
    mean = entry(spec, SIZES)[0].mean

    def encode(entries):
        return Posterior(mean.select(entries)), cond.select(torch.tensor(entries))

    cache = cached_latents(spec, "key", n, encode, SIZES)
    index = [7, 0, 3]
    posterior, found = cache.__getitems__(index)
    assert found.always == {"source"}
    assert torch.equal(found.keep["caption"], cond.keep["caption"][index])
    for name, value in found.values.items():
        for row, item in enumerate(index):
            gap = distance(alone(value, row), alone(values[name], item))
            assert gap == 0, f"{name}: {gap}"
    longest = posterior.mean["z"].shape[1]
    assert found.values["camera"]["vector"].shape == (3, longest, 3)
    windows = [latent_store.Window(item, 1, 3) for item in index]
    posterior, found = cache.__getitems__(windows)
    assert torch.equal(found.values["camera"]["vector"], values["camera"]["vector"][index, 1:3])
    assert found.values["caption"].masks["tokens"].sum(1).tolist() == SIZES[index].tolist()


def test_workers_read_the_same():
    spec = al.testing.SPECS["molecule"]
    cache, batches = cache_of(spec), [[4, 1], [0, 7], [11, 11]]
    loader = DataLoader(cache, batch_sampler=batches, collate_fn=lambda entry: entry, num_workers=2)
    for indices, (posterior, cond) in zip(batches, loader, strict=True):
        wanted, given = cache.__getitems__(indices)
        assert distance(posterior.mean, wanted.mean) == 0
        assert torch.equal(cond.values["n"], given.values["n"])


def test_the_normaliser_fits_from_the_files_as_from_the_tensors():
    for key, spec in al.testing.SPECS.items():
        whole, cache = entry(spec, SIZES)[0], cache_of(spec, key=key)
        fitted, wanted = al.Normaliser(spec), al.Normaliser(spec)
        fitted.fit(posterior for posterior, _ in cache.batches(5))
        wanted.fit([whole])
        for name, value in wanted.state_dict().items():
            assert torch.allclose(fitted.state_dict()[name], value, rtol=2e-3, atol=1e-3), name


def test_a_damaged_cache_is_made_again(tmp_path):
    spec = al.testing.SPECS["image"]
    cache_of(spec)
    (path,) = tmp_path.rglob("shard-*")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.warns(UserWarning, match="damaged"):
        assert len(cache_of(spec)) == len(SIZES)


def test_long_latents_make_short_shards():
    lengths = torch.full((100,), 1000)
    small, large = al.LatentSpec({"z": al.Field((8,))}), al.LatentSpec({"z": al.Field((None, 64))})
    assert latent_store._bytes(small, None) == 64
    assert latent_store._bytes(large, lengths) == 8 * 64 * 1000
    assert latent_store.rows_of(8 * 64 * 1000, 64) == 64  # one batch, of 32 MB


def test_a_batch_is_pinned_as_a_whole(monkeypatch):
    """As a data loader does it for a GPU; pinned tensors are marked by adding one."""
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    posterior, cond = entry(al.testing.SPECS["text"], SIZES)
    pinned, pinned_cond = pin_memory((posterior, cond))
    assert torch.equal(pinned.mean["z"], posterior.mean["z"] + 1)
    assert torch.equal(pinned.log_std["z"], posterior.log_std["z"] + 1)
    assert int(pinned.mean.masks["z"].max()) == 2  # masks too
    assert torch.equal(pinned_cond.values["n"], cond.values["n"] + 1)
    moved = pinned_cond.values["words"]["tokens"]
    assert torch.equal(moved, cond.values["words"]["tokens"] + 1)


# ---- precision --------------------------------------------------------------------------------
def gaussians(std, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean = scale * torch.randn(4096, generator=generator)
    return mean, torch.full((4096,), math.log(std))


@pytest.mark.parametrize(("std", "scale"), [(0.3, 1.0), (0.01, 1.0), (0.05, 8.0)])
def test_the_divergence_is_that_of_the_gaussians(std, scale):
    mean, log_std = gaussians(std, scale)
    other = mean.half().double(), log_std.half().double()
    laws = [torch.distributions.Normal(m, s.exp()) for m, s in (other, (mean.double(), log_std))]
    wanted = float(torch.distributions.kl_divergence(*laws).mean())
    assert divergence(mean, log_std) == pytest.approx(wanted, rel=0.01, abs=1e-9)


@pytest.mark.parametrize(
    ("std", "scale", "half"),
    [
        (1.0, 1.0, True),
        (0.05, 1.0, True),
        (0.005, 1.0, False),  # rounding by 3e-4 is a twentieth of it
        (0.005, 0.05, True),
        (0.05, 100.0, False),
        (1.0, 1e6, False),  # overflows
    ],
)
def test_half_precision_is_for_posteriors_wider_than_its_rounding(std, scale, half):
    mean, log_std = gaussians(std, scale)
    kept, width = compact(mean, log_std, False)
    assert (kept.dtype, width.dtype) == ((torch.float16,) * 2 if half else (torch.float32,) * 2)
    assert (divergence(mean, log_std) <= LIMIT) == half
    if half:  # as a share of the posterior's own deviation
        error = (kept.float() - mean) / log_std.exp()
        assert float(error.square().mean().sqrt()) < math.sqrt(2 * LIMIT)
    else:
        assert torch.equal(kept, mean)


def test_what_is_certain_or_centred_is_kept_exactly():
    third, log_std = torch.tensor([1 / 3, 2.0]), torch.zeros(2)
    assert compact(third, None, False)[0] is third
    assert compact(third, log_std, True)[0] is third
    assert compact(third.double(), log_std.double(), False)[0].dtype == torch.float64
    exact, _ = compact(torch.tensor([0.5, -2.0]), None, False)
    assert exact.dtype == torch.float16 and exact.tolist() == [0.5, -2.0]
    assert lossless(torch.tensor([0.5])) and not lossless(third)


def test_token_states_are_exact_and_those_of_half_precision_take_half():
    spec = al.testing.SPECS["image"]
    posterior, cond = entry(spec, SIZES)
    assert flatten(posterior, cond)["tokens.words"].values.dtype == torch.float32
    words = cond.values["words"]
    rounded = token_condition(words["tokens"].half().float(), words.masks["tokens"])
    assert flatten(posterior, al.Condition({"w": rounded}))["tokens.w"].values.dtype == torch.half


def test_numbers_that_are_not_finite_are_not_learned_from(tmp_path):
    """A file of the right size whose numbers were overwritten."""
    spec = al.testing.SPECS["image"]
    cache = cache_of(spec)
    assert all(bool(m.mean["z"].isfinite().all()) for m, _ in cache.batches(3))
    (path,) = tmp_path.rglob("shard-*")
    content, row = path.read_bytes(), cache.store.take("mean.z", torch.arange(1)).numpy().tobytes()
    assert content.count(row) == 1
    path.write_bytes(content.replace(row, b"\xff" * len(row)))
    with pytest.raises(UserError, match="numbers in 'z' that are not finite: it is damaged"):
        list(cache_of(spec).batches(3))
    path.write_bytes(content)
    list(cache_of(spec).batches(3))
