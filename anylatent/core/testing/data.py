"""Contracts of data sets, conditioners and modalities."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from anylatent.core.latents import Latent, LatentSpec, Noise
from anylatent.core.modality import Conditioner, Data, Item, Modality
from anylatent.core.testing.examples import in_subspace


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


def check_conditioner(conditioner: Conditioner, columns: Mapping[str, Sequence[Any]]) -> None:
    """`columns`: valid raw values, some per key; each of them may be None, which drops it.

    The condition has the keys of the spec, of one size; an entry does not depend on the others;
    nothing is trained; an unknown column is an error.
    """
    name = type(conditioner).__name__
    trained = [key for key, p in conditioner.named_parameters() if p.requires_grad]
    assert not trained, f"{name} is frozen, but {trained} would be trained"
    cond = conditioner(columns)
    spec = conditioner.spec
    assert set(cond.values) <= set(spec.names), f"{name}: {list(cond.values)}, spec {spec.names}"
    for key, value in cond.values.items():
        size = len(columns[key])
        assert cond.keep[key].shape == (size,), f"{name}: '{key}' has {cond.keep[key].shape}"
        assert bool(cond.keep[key].all()), f"{name}: '{key}' is dropped although it is given"
        if isinstance(value, Tensor) and key in spec.classes:
            assert not value.is_floating_point(), f"{name}: labels of '{key}' in {value.dtype}"
            assert bool((value >= 0).all() & (value < spec.classes[key]).all()), f"{name}: {value}"
        for i in range(size):
            lonely = conditioner({key: [columns[key][i]]}).values[key]
            _check_equal(lonely, _row(value, i), f"{name}: '{key}' of sample {i}")
        dropped = conditioner({key: [None, *columns[key][1:]]})
        assert not bool(dropped.keep[key][0]), f"{name}: None for '{key}' does not drop it"
    assert not conditioner({}).values, f"{name}: no columns, but {list(conditioner({}).values)}"
    if spec.names:
        _check_unknown(conditioner, name)


def _row(value: Tensor | Latent, i: int) -> Tensor | Latent:
    return value.select(slice(i, i + 1)) if isinstance(value, Latent) else value[i : i + 1]


def _check_equal(got: Tensor | Latent, wanted: Tensor | Latent, what: str) -> None:
    pairs = [(got, wanted)]
    if isinstance(got, Latent) and isinstance(wanted, Latent):
        pairs = [(got.project()[key], wanted.project()[key]) for key in got.parts]
    for a, b in pairs:
        assert isinstance(a, Tensor) and isinstance(b, Tensor), f"{what}: {a} and {b}"
        same = a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-4)
        assert same, f"{what} depends on its neighbours"


def _check_unknown(conditioner: Conditioner, name: str) -> None:
    try:
        conditioner({"no_such_column": [0]})
    except ValueError as error:
        assert any(key in str(error) for key in conditioner.spec.names), (
            f"{name}: the error does not say what is allowed: {error}"
        )
        return
    raise AssertionError(f"{name} accepts a column that it does not know")


def check_modality(modality: Modality, data: Data, spec: LatentSpec) -> None:
    """Batches, blanks, files and pictures of a few items; `spec` is that of an autoencoder."""
    name, dataset = type(modality).__name__, data.train()
    count = min(3, _length(dataset))
    batch = modality.collate([dataset[i] for i in range(count)])
    for key, column in batch.items():
        assert len(column) == count, f"{name}: column '{key}' has {len(column)} of {count} samples"
    kept = modality.augment(batch, Noise.of(0, count))
    assert set(kept) == set(batch), f"{name}: augmenting changes the columns"
    _check_augment_alone(modality, dataset, kept, count, name)
    blank = modality.blank(spec, count, Noise.of(0, count), {})
    assert blank.spec == spec and blank.batch == count, f"{name}: blank {blank}"
    assert in_subspace(blank) and not bool(blank.norm().any()), f"{name}: the blank is not zero"
    originals = modality.originals(batch)
    names = [f"item{i}" for i in range(count)]
    with tempfile.TemporaryDirectory() as directory:
        paths = modality.save(originals, Path(directory) / "new", names)
        missing = [path for path in paths if not path.exists() or not path.stat().st_size]
        assert len(paths) >= count and not missing, f"{name}: {len(paths)} files, lacking {missing}"
    for picture in (modality.show(originals), modality.compare(originals, originals)):
        assert picture.width > 0 and picture.height > 0, f"{name}: an empty picture"
    modality.show(modality.join([originals, originals]))


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
