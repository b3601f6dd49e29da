"""Windows of long items: a function of the step, uniform, and no more is read than they are."""

from types import SimpleNamespace

import pytest
import torch

import anylatent as al
from anylatent.core.latents import Noise, Stream
from anylatent.core.latents.posterior import Posterior
from anylatent.core.support.columns import Window
from anylatent.core.support.files import UserError
from anylatent.core.training.latent_store import cached_latents
from anylatent.core.training.stages import diffusion
from anylatent.core.training.step_sampler import StepSampler
from anylatent.core.training.windows import WindowSampler, windows

LENGTHS = torch.tensor([9, 4, 7, 1, 12, 6, 3, 8])
SPEC = al.LatentSpec({"z": al.Field((None, 2)), "w": al.Field((3,))})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Entry k of item i is (i, k), in half precision exactly."""
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))

    def encode(entries):
        items, lengths = torch.tensor(entries), LENGTHS[torch.tensor(entries)]
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        places = torch.arange(mask.shape[1]).expand(mask.shape)
        z = torch.stack([items[:, None].expand(mask.shape), places], 2).float()
        w = items[:, None].expand(-1, 3).float()
        mean = SPEC.wrap({"z": z, "w": w}, {"z": mask})
        return Posterior(mean, mean.map(lambda x: x - 1).project()), None

    return cached_latents(SPEC, "windows", len(LENGTHS), encode, LENGTHS)


def sampler(size=3, start=0, rank=0, world=1, seed=0, count=6, batch=4):
    steps = StepSampler(len(LENGTHS), batch, count, start, seed, rank, world)
    return WindowSampler(steps, LENGTHS, size)


def test_a_batch_of_windows_is_that_part_of_the_items(cache):
    chosen = [Window(4, 7, 10), Window(1, 0, 3), Window(3, 0, 1), Window(0, 6, 9)]
    posterior, _ = cache.__getitems__(chosen)
    assert posterior.mean.masks["z"].sum(1).tolist() == [3, 3, 1, 3]
    for row, (item, start, stop) in enumerate(chosen):
        wanted = torch.stack([torch.full((stop - start,), item), torch.arange(start, stop)], 1)
        for latent, shift in ((posterior.mean, 0), (posterior.log_std, 1)):
            assert torch.equal(latent["z"][row, : stop - start], wanted.float() - shift)
            assert latent["w"][row].tolist() == [item - shift] * 3  # of fixed size: whole
    assert al.testing.in_subspace(posterior.mean) and al.testing.in_subspace(posterior.log_std)


def test_windows_are_uniform_and_inside():
    size, places = 5, []
    for k in range(4000):
        (window,) = windows([4], LENGTHS, size, Noise([(1, k)]))
        assert window.stop - window.start == size and window.stop <= 12
        places.append(window.start)
    counts = torch.bincount(torch.tensor(places), minlength=8).double()
    assert len(counts) == 8 and float(((counts - 500) ** 2 / 500).sum()) < 24.3  # χ², p = .001


def test_shorter_items_are_taken_whole():
    found = windows([3, 1, 6], LENGTHS, 4, Noise.of(0, 3))
    assert found == [Window(3, 0, 1), Window(1, 0, 4), Window(6, 0, 3)]


def test_a_window_depends_on_its_own_noise_alone():
    seeds = [(5, k) for k in range(4)]
    joint = windows([0, 4, 7, 2], LENGTHS, 3, Noise(seeds))
    for item, seed, window in zip([0, 4, 7, 2], seeds, joint, strict=True):
        assert windows([item], LENGTHS, 3, Noise([seed])) == [window]


def test_windows_of_a_step_whenever_it_is_resumed_and_however_many_processes():
    whole = list(sampler())
    assert list(sampler(start=4)) == whole[4:] and len(sampler(start=4)) == 2
    shares = [list(sampler(rank=rank, world=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole
    again = list(sampler(seed=1))
    assert again != whole
    drawn = {window for batch in sampler(count=40) for window in batch if window.item == 4}
    assert len(drawn) > 6  # not the same in each pass
    noise = Noise.of((0, Stream.WINDOWS, 2), 4)
    items = [window.item for window in whole[2]]
    assert windows(items, LENGTHS, 3, noise) == whole[2]


def test_a_loader_reads_windows(cache):
    loader = torch.utils.data.DataLoader(
        cache, batch_sampler=sampler(count=3), collate_fn=lambda entry: entry, num_workers=1
    )
    for batch, (posterior, _) in zip(sampler(count=3), loader, strict=True):
        assert posterior.mean["z"][:, 0].tolist() == [[w.item, w.start] for w in batch]


def test_windows_without_meaning(cache, tmp_path):
    with pytest.raises(ValueError, match="whole entries or of windows"):
        cache.__getitems__([0, Window(1, 0, 2)])
    with pytest.raises(IndexError, match="entries"):
        cache.__getitems__([Window(1, 2, 5)])
    with pytest.raises(ValueError, match="at least one entry"):
        sampler(size=0)
    for key, reason in (("molecule", "'x' is centred over it"), ("image", "there is none")):
        spec = al.testing.SPECS[key]
        made = cached_latents(
            spec, key, 4, lambda e, spec=spec: (Posterior(al.testing.example(spec, len(e))), None)
        )
        with pytest.raises(ValueError, match=reason):
            made.__getitems__([Window(0, 0, 2)])


def stage(spec, usual=None, **settings):
    generator = SimpleNamespace(draws_sizes=False)
    system = SimpleNamespace(autoencoder=SimpleNamespace(spec=spec), generator=generator)
    chosen = diffusion.DiffusionSettings(**settings)
    data = SimpleNamespace(window=usual, train=list)
    return diffusion.DiffusionStage(SimpleNamespace(system=system, data=data), chosen)


@pytest.mark.parametrize("window", [None, 3])
def test_the_stage_of_diffusion_is_told_its_windows(cache, window, monkeypatch):
    monkeypatch.setattr(diffusion, "latents", lambda training, copies: cache)
    chosen = stage(SPEC, window=window)
    data = chosen.dataset()
    for indices in chosen.sampler(StepSampler(len(LENGTHS), 4, 6, 0, 0, 0, 1)):
        found = data.__getitems__(indices)[0].mean.masks["z"].sum(1)
        whole = LENGTHS[torch.tensor([i if window is None else i.item for i in indices])]
        assert torch.equal(found, whole if window is None else whole.clamp(max=window))


def test_windows_are_those_of_the_data_where_the_settings_say_none(cache):
    assert stage(SPEC, usual=4).window == 4 and stage(SPEC, usual=4, window=2).window == 2
    assert stage(al.LatentSpec({"z": al.Field((4, 2))}), usual=4).window is None, "nothing to cut"


def test_a_share_of_the_steps_has_single_entries(cache):
    """All of a step or none, whoever has which share of its batch."""
    steps = [StepSampler(len(LENGTHS), 4, 400, 0, 0, rank, 2) for rank in (0, 1)]
    lengths = LENGTHS.clamp(min=2)
    drawn = [list(WindowSampler(one, lengths, 3, singles=0.25)) for one in steps]
    sizes = [[{w.stop - w.start for w in batch} for batch in part] for part in drawn]
    single = [found == {1} for found in sizes[0]]
    whole = [list(WindowSampler(one, lengths, 3)) for one in steps]
    assert 60 < sum(single) < 140
    for k, one in enumerate(single):
        assert (sizes[1][k] == {1}) == one
        assert one or (drawn[0][k] == whole[0][k] and drawn[1][k] == whole[1][k])
    with pytest.raises(UserError, match="give training.diffusion.window"):
        stage(SPEC, singles=0.5)
    with pytest.raises(ValueError, match="0 to less than 1"):
        stage(SPEC, window=2, singles=1.0)


def test_windows_of_what_can_not_be_cut_are_refused():
    with pytest.raises(UserError, match="window=3: .* but there is none"):
        stage(al.LatentSpec({"z": al.Field((4, 2))}), window=3)
    with pytest.raises(UserError, match="'z' is centred over it"):
        stage(al.LatentSpec({"z": al.Field((None, 3), centred=True)}), window=3)
    with pytest.raises(ValueError, match="window >= 1, got 0"):
        stage(SPEC, window=0)
