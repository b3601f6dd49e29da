"""Contracts of data sets and modalities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.latents import LatentSpec, Noise
from anylatent.core.modality import (
    Data,
    DataSpace,
    Item,
    Modality,
    Sizes,
)
from anylatent.core.testing.examples import alone, distance, in_subspace
from anylatent.core.testing.outputs import Reader, check_outputs


def check_data(data: Data, limit: int = 500) -> None:
    """Two parts without a common item, the same items each time, plain facts; `limit` per part."""
    name = type(data).__name__
    parts = {"training": data.train(), "held-out": data.held_out()}
    seen: dict[str, str] = {}
    for part, items in parts.items():
        size = _length(items)
        assert size > 0, f"{name}: the {part} part is empty"
        for index in range(min(size, limit)):
            key = _digest(items[index])
            other = seen.setdefault(key, part)
            assert other == part, f"{name}: item {index} of the {part} part is also {other}"
        again = _digest(items[size - 1])
        assert again == _digest(items[size - 1]), f"{name}: an item changes from call to call"
        _check_columns(data, items[0], f"{name}, {part}")
    facts = json.loads(json.dumps(data.facts))
    assert facts == data.facts, f"{name}: the facts are not plain values: {data.facts}"
    assert isinstance(data.fingerprint, str) and data.fingerprint, f"{name}: no fingerprint"
    assert data.fingerprint == data.fingerprint, f"{name}: the fingerprint changes"


def _length(items: Dataset[Item]) -> int:
    return len(items)  # type: ignore[arg-type]


def _check_columns(data: Data, item: Item, where: str) -> None:
    for key, names in data.classes.items():
        assert key in item, f"{where}: no column '{key}' in {list(item)}"
        label = item[key]
        known = 0 <= int(label) < len(names)
        assert known, f"{where}: label {label} of '{key}', which has {len(names)} classes"


def _digest(item: Item) -> str:
    """Of the tensors alone: two items with the same tensors are the same sample."""
    state = hashlib.sha256()
    for key in sorted(item):
        if isinstance(item[key], Tensor):
            state.update(key.encode() + item[key].numpy().tobytes())
    return state.hexdigest()


def check_modality(
    modality: Modality, data: Data, spec: LatentSpec, readers: Mapping[str, Reader] | None = None
) -> None:
    """Batches, blanks, data space and outputs of a few items; `spec` is that of an autoencoder.

    `readers` are for the files of outputs, see `check_outputs`.
    """
    name, dataset = type(modality).__name__, data.train()
    count = min(3, _length(dataset))
    batch = modality.collate([dataset[i] for i in range(count)])
    for key, column in batch.items():
        assert len(column) == count, f"{name}: column '{key}' has {len(column)} of {count} samples"
    kept = modality.augment(batch, Noise.of(0, count))
    assert set(kept) == set(batch), f"{name}: augmenting changes the columns"
    _check_augment_alone(modality, dataset, kept, count, name)
    _check_sizes(modality.sizes, spec, count, f"{name}'s sizes")
    _check_nothing_asked(modality, spec, count, name)
    originals = modality.originals(batch)
    assert len(originals) == count, f"{name}: {len(originals)} originals of {count} items"
    check_outputs(originals, readers)
    if modality.data_space is not None:
        items = [dataset[i] for i in range(count)]
        _check_data_space(modality, modality.data_space, items, f"{name}'s data space")
        check_outputs(modality.data_space.lower(modality.data_space.lift(batch)), readers)


def _check_sizes(sizes: Sizes, spec: LatentSpec, count: int, where: str) -> None:
    blanks = {
        "blank": sizes.blank(spec, Noise.of(0, count), {}),
        "largest": sizes.largest(spec, count, {}),
    }
    for kind, blank in blanks.items():
        assert blank.spec == spec and blank.batch == count, f"{where}: {kind} {blank}"
        assert in_subspace(blank) and not bool(blank.norm().any()), f"{where}: {kind} is not zero"
    for name in blanks["blank"].masks:
        drawn, most = (blank.lengths(name) for blank in blanks.values())
        assert bool((drawn <= most).all()), f"{where}: {drawn.tolist()} is above {most.tolist()}"
    for i in range(count):
        lonely = sizes.blank(spec, Noise.of(0, [i]), {})
        own = [lonely.lengths(name).tolist() for name in lonely.masks]
        joint = [blanks["blank"].lengths(name)[i : i + 1].tolist() for name in lonely.masks]
        assert own == joint, f"{where}: that of sample {i} depends on its neighbours"
    nats = sizes.nats(blanks["blank"])
    fine = nats.shape == (count,) and bool((nats >= 0).all() & nats.isfinite().all())
    assert fine, f"{where}: nats {nats}"


def _check_nothing_asked(modality: Modality, spec: LatentSpec, count: int, name: str) -> None:
    """Without conditions nothing is given; those of sizes and of what is given are apart."""
    given = modality.given
    if given is None:
        return
    twice = set(given.asks) & set(modality.sizes.asks)
    assert given.asks and not twice, f"{name}: given data ask for {given.asks}, sizes for {twice}"
    blank = modality.sizes.blank(spec, Noise.of(0, count), {})
    assert given.known(blank, {}) is None, f"{name}: data are given that nobody asked for"
    assert given.strength > 0, f"{name}: strength {given.strength}"


def _check_data_space(
    modality: Modality, space: DataSpace, items: Sequence[Item], where: str
) -> None:
    batch = modality.collate(items)
    z, kind = space.lift(batch), type(modality.originals(batch))
    assert z.spec == space.spec and in_subspace(z), f"{where}: {z.spec} lifted, {space.spec} said"
    lowered, told = space.lower(z), space.log_prob(batch, z)
    assert type(lowered) is kind, f"{where}: {type(lowered).__name__}, of data {kind.__name__}"
    assert len(lowered) == len(items), f"{where}: {len(lowered)} outputs of {len(items)} items"
    assert told is None or told.shape == (len(items),), f"{where}: log_prob {told}"
    for i, item in enumerate(items):
        gap = distance(space.lift(modality.collate([item])), alone(z, i))
        assert gap <= 1e-5, f"{where}: lifted item {i} depends on its neighbours ({gap:.3g})"


def _check_augment_alone(
    modality: Modality, dataset: Dataset[Item], joint: Mapping[str, Any], count: int, name: str
) -> None:
    for i in range(count):
        lonely = modality.augment(modality.collate([dataset[i]]), Noise.of(0, [i]))
        for key, column in lonely.items():
            if isinstance(column, Tensor) and not isinstance(joint[key], list):
                row = joint[key][i][tuple(slice(size) for size in column[0].shape)]  # unpadded
                same = bool((column[0] == row).all())
                assert same, f"{name}: '{key}' of sample {i} depends on its neighbours"
