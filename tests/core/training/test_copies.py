"""Augmented copies of the data: each of its own kind, the same on resume, and none for one copy."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

import anylatent as al
from anylatent.core.latents import Stream
from anylatent.core.latents.posterior import Posterior
from anylatent.core.support.files import UserError
from anylatent.core.training import latent_store
from anylatent.core.training.encoding import Encoder, check_copies, latents, posteriors
from anylatent.core.training.latent_store import BATCH
from anylatent.core.training.stages.diffusion import DiffusionSettings

COUNT = 150


class Sets(torch.utils.data.Dataset):
    """Sets of points of any size, each with its own number in it."""

    lengths = torch.randint(1, 21, (COUNT,), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        return torch.full((int(self.lengths[index]), 1), float(index))


class System(torch.nn.Module):
    """What the encoding asks of a system; counts the padding. Augmenting adds one number in [0, 1)
    to a set, and normal noise to its points."""

    spec = al.LatentSpec({"z": al.Field((None, 1))})

    def __init__(self, augments=True):
        super().__init__()
        augment = self.augment if augments else lambda batch, noise: batch
        self.modality = SimpleNamespace(collate=self.collate, augment=augment)
        self.conditioner = SimpleNamespace(files=())
        self.autoencoder = SimpleNamespace(
            encode=self.encode, spec=self.spec, codebook=lambda: None
        )
        self.normaliser = al.Normaliser(self.spec)
        self.padding = self.valid = 0
        self.encoded = []

    def collate(self, items):
        mask = torch.arange(max(map(len, items))) < torch.tensor([len(x) for x in items])[:, None]
        self.padding, self.valid = self.padding + int((~mask).sum()), self.valid + int(mask.sum())
        return {"z": pad_sequence(items, batch_first=True), "mask": mask}

    def augment(self, batch, noise):
        moved = batch["z"] + noise.uniform()[:, None, None].float()
        return {**batch, "z": moved + 0.01 * noise.normal(*batch["z"].shape[1:])}

    def encode(self, batch):
        mean = self.spec.wrap({"z": batch["z"]}, {"z": batch["mask"]})
        self.encoded.append(mean.batch)
        return Posterior(mean)

    def columns(self, batch):
        return {}

    def read(self, columns):
        return None

    def trained(self):
        return {}


def training(seed=0, augments=True):
    data = SimpleNamespace(train=lambda: Sets(), fingerprint="sets", facts={})
    model = SimpleNamespace(modality={}, autoencoder={}, conditioner={})
    config = SimpleNamespace(model=model, seed=seed, run="run")
    done = SimpleNamespace(normalised=False)
    return SimpleNamespace(system=System(augments), data=data, config=config, done=done)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path))


def item(cache, index):
    return cache[index][0].mean["z"][0, :, 0]


def test_encoding_wastes_little_and_keeps_the_datas_order():
    made = training()
    cache = posteriors(made)
    assert made.system.padding < 0.4 * made.system.valid  # 0.9 in the order of the data
    for index in (0, 1, 50, 149):
        assert item(cache, index).tolist() == [float(index)] * int(Sets.lengths[index])
    assert torch.equal(cache.lengths, Sets.lengths)


def test_one_copy_is_the_items_as_they_are_bit_for_bit():
    one, never = posteriors(training(), 1), posteriors(training(augments=False))
    assert one.store.directory == never.store.directory and len(one) == COUNT
    made = training()
    encoder = Encoder(made, 1)
    order = Sets.lengths.argsort(stable=True)
    for entries in order.split(BATCH):  # the batches of a cache that knows no copies
        alone = made.system.collate([Sets()[i] for i in entries.tolist()])
        wanted, found = alone["z"], encoder(entries.tolist())[0].mean["z"]
        assert torch.equal(found, wanted)
        posterior, _ = one.__getitems__(entries.tolist())
        assert torch.equal(posterior.mean["z"], wanted)


def test_every_copy_differs_and_follows_its_item():
    cache = posteriors(training(), 4)
    assert len(cache) == 4 * COUNT and torch.equal(cache.lengths, Sets.lengths.repeat(4))
    for index in (0, 7, 149):
        views = [item(cache, copy * COUNT + index) for copy in range(4)]
        shifts = torch.stack([view.mean() - index for view in views])
        assert bool((shifts.diff().abs() > 1e-3).all()) and bool((shifts > -0.1).all())
        assert bool((shifts < 1.1).all())  # augmented views of this item
    first = torch.stack([item(cache, i)[0] - i for i in range(COUNT)])
    assert 0.4 < float(first.mean()) < 0.6 and len(first.unique()) > 0.9 * COUNT


def test_a_copy_is_a_function_of_seed_copy_and_item():
    made = training(seed=3)
    cache = posteriors(made, 3)
    for copy, index in ((0, 5), (2, 5), (1, 149)):
        noise = al.Noise([(3, Stream.COPIES, copy, index)])
        batch = made.system.collate([Sets()[index]])
        wanted = made.system.augment(batch, noise)["z"][0, :, 0]
        assert torch.equal(item(cache, copy * COUNT + index), wanted)
    other = posteriors(training(seed=4), 3)
    assert not torch.equal(item(other, 5), item(cache, 5))


def test_copies_are_the_same_when_the_encoding_is_resumed(monkeypatch):
    monkeypatch.setattr(latent_store, "rows_of", lambda *_: BATCH)
    made, calls = training(), []
    encode = made.system.encode

    def interrupted(batch):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return encode(batch)

    made.system.autoencoder.encode = interrupted
    with pytest.raises(KeyboardInterrupt):
        posteriors(made, 5)
    again = training()
    resumed = posteriors(again, 5)
    assert sum(again.system.encoded) == 5 * COUNT - 4 * BATCH  # what was made is kept
    monkeypatch.setenv("ANYLATENT_CACHE", str(resumed.store.directory / "elsewhere"))
    whole = posteriors(training(), 5)
    for (a, _), (b, _) in zip(resumed.batches(100), whole.batches(100), strict=True):
        assert torch.equal(a.mean["z"], b.mean["z"])


def test_copies_that_would_be_alike_are_an_error():
    with pytest.raises(UserError, match="copies=2 would all be alike.*anylatent list modality"):
        check_copies(training(augments=False), 2)
    check_copies(training(augments=False), 1)
    check_copies(training(), 2)


def test_the_normaliser_is_fitted_to_the_copies():
    made = training()
    latents(made, 3)
    plain = training()
    latents(plain)
    shift = float(made.system.normaliser.shift_z - plain.system.normaliser.shift_z)
    assert shift == pytest.approx(0.5, abs=0.1)


def test_copies_without_meaning():
    with pytest.raises(ValueError, match="copies >= 1"):
        DiffusionSettings(copies=0)


def test_an_item_that_is_encoded_into_nothing_finite_is_named(monkeypatch):
    encode = System.encode

    def broken(self, batch):
        posterior = encode(self, batch)
        posterior.mean.parts["z"][posterior.mean.parts["z"] == 33.0] = float("nan")
        return posterior

    monkeypatch.setattr(System, "encode", broken)
    with pytest.raises(UserError, match="encodes item 33 of the training data into 'z'"):
        posteriors(training())
