"""The contract of conditioners."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from anylatent.core.latents import Condition, Latent, Noise, Value
from anylatent.core.modality import Conditioner


def check_conditioner(conditioner: Conditioner, columns: Mapping[str, Sequence[Any]]) -> None:
    """`columns`: valid raw values, some per column that it reads; each of them may be None.

    What is computed once has no gradient and depends on nothing that learns. Varied and learned, it
    is what the spec says, of one size; a sample depends on no other, nor does its variation, which
    is a function of the noise alone; None in all columns drops it. All that learns has a gradient.
    No columns at all are no condition, unknown ones an error.
    """
    name, spec = type(conditioner).__name__, conditioner.spec
    size = len(next(iter(columns.values()))) if columns else 0
    cond = finished(conditioner, columns)
    _check_values(conditioner, cond, size, name)
    for i in range(size):
        lonely = finished(conditioner, {key: [column[i]] for key, column in columns.items()})
        for key, value in lonely.values.items():
            _check_equal(value, _row(cond.values[key], i), f"{name}: '{key}' of sample {i}")
    if spec.names:
        _check_dropped(conditioner, columns, name)
        _check_varied(conditioner, conditioner(columns), size, name)
        _check_unknown(conditioner, name)
    _check_once(conditioner, columns, name)
    _check_learned(conditioner, columns, name)
    assert not conditioner({}).values, f"{name}: no columns, but {list(conditioner({}).values)}"


def finished(conditioner: Conditioner, columns: Mapping[str, Sequence[Any]]) -> Condition:
    """What a backbone sees of raw columns when samples are drawn."""
    cond = conditioner(columns)
    return conditioner.learned(cond) if cond else cond


def _check_values(conditioner: Conditioner, cond: Condition, size: int, name: str) -> None:
    spec = conditioner.spec
    assert set(cond.values) <= set(spec.names), f"{name}: {list(cond.values)}, spec {spec.names}"
    for key, value in cond.values.items():
        assert cond.keep[key].shape == (size,), f"{name}: '{key}' has {cond.keep[key].shape}"
        assert bool(cond.keep[key].all()), f"{name}: '{key}' is dropped although it is given"
        if isinstance(value, Tensor) and key in spec.classes:
            assert not value.is_floating_point(), f"{name}: labels of '{key}' in {value.dtype}"
            assert bool((value >= 0).all() & (value < spec.classes[key]).all()), f"{name}: {value}"


def _check_dropped(
    conditioner: Conditioner, columns: Mapping[str, Sequence[Any]], name: str
) -> None:
    """The first sample without some of its columns: those with the name of a condition, or all."""
    own = [key for key in columns if key in conditioner.spec.names]
    for keys, gone in [([key], [key]) for key in own] + [(list(columns), conditioner.spec.names)]:
        cut = {key: [None, *columns[key][1:]] for key in keys}
        cond = finished(conditioner, {**columns, **cut})
        for key in gone:
            kept = key in cond.keep and bool(cond.keep[key][0])
            assert not kept, f"{name}: None for {', '.join(keys)} does not drop '{key}'"


def _check_varied(conditioner: Conditioner, cond: Condition, size: int, name: str) -> None:
    before = torch.get_rng_state()
    varied = conditioner.vary(cond, Noise.of(1, size))
    again = conditioner.vary(cond, Noise.of(1, size))
    assert torch.equal(before, torch.get_rng_state()), f"{name}: vary draws other noise than it has"
    for key, value in varied.values.items():
        if key in cond.keep:
            same = torch.equal(varied.keep[key], cond.keep[key])
            assert same, f"{name}: '{key}' varied drops other samples"
        _check_equal(again.values[key], value, f"{name}: '{key}' varied", "is not always the same")
        for i in range(size):
            alone = conditioner.vary(cond.select(slice(i, i + 1)), Noise.of(1, [i]))
            what = f"{name}: '{key}' of sample {i}, varied,"
            _check_equal(alone.values[key], _row(value, i), what)
    _check_values(conditioner, conditioner.learned(varied), size, name)


def _check_once(conditioner: Conditioner, columns: Mapping[str, Sequence[Any]], name: str) -> None:
    """What is cached does not change while something learns."""
    learning = [p for p in conditioner.parameters() if p.requires_grad]
    before, kept = conditioner(columns), [p.detach().clone() for p in learning]
    for key, value in before.values.items():
        tensors = value.parts.values() if isinstance(value, Latent) else [value]
        bound = any(x.requires_grad for x in tensors)
        assert not bound, f"{name}: '{key}' is cached, but has a gradient: compute it in `learned`"
    with torch.no_grad():
        for parameter in learning:
            parameter.add_(1)
        after = conditioner(columns)
        for parameter, value in zip(learning, kept, strict=True):
            parameter.copy_(value)
    for key, value in before.values.items():
        _check_equal(after.values[key], value, f"{name}: '{key}', cached,", "depends on weights")


def _check_learned(
    conditioner: Conditioner, columns: Mapping[str, Sequence[Any]], name: str
) -> None:
    """In a few steps towards a random target every parameter that learns has a gradient."""
    learning = {key: p for key, p in conditioner.named_parameters() if p.requires_grad}
    if not learning:
        return
    kept = {key: p.detach().clone() for key, p in learning.items()}
    silent, optimiser = set(learning), torch.optim.Adam(learning.values(), lr=1e-2)
    for _ in range(4):
        optimiser.zero_grad()
        loss = torch.stack([_square(v) for v in finished(conditioner, columns).values.values()])
        loss.sum().backward()  # type: ignore[no-untyped-call]
        grown = {key for key, p in learning.items() if p.grad is not None and bool(p.grad.any())}
        silent -= grown
        optimiser.step()
    with torch.no_grad():
        for key, parameter in learning.items():
            parameter.copy_(kept[key])
            parameter.grad = None
    assert not silent, f"{name}: no gradient reaches {', '.join(sorted(silent))}"


def _square(value: Value) -> Tensor:
    """The distance of a value from numbers that are all different."""
    parts = value.project().parts.values() if isinstance(value, Latent) else [value]
    found = [(x.double() - torch.arange(x.numel()).view(x.shape).cos()) ** 2 for x in parts]
    return torch.stack([x.sum() for x in found]).sum()


def _row(value: Value, i: int) -> Value:
    return value.select(slice(i, i + 1)) if isinstance(value, Latent) else value[i : i + 1]


def _check_equal(
    got: Value, wanted: Value, what: str, problem: str = "depends on its neighbours"
) -> None:
    pairs = [(got, wanted)]
    if isinstance(got, Latent) and isinstance(wanted, Latent):
        pairs = [(got.project()[key], wanted.project()[key]) for key in got.parts]
    for a, b in pairs:
        assert isinstance(a, Tensor) and isinstance(b, Tensor), f"{what}: {a} and {b}"
        same = a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-4)
        assert same, f"{what} {problem}"


def _check_unknown(conditioner: Conditioner, name: str) -> None:
    try:
        conditioner({"no_such_column": [0]})
    except ValueError as error:
        assert any(key in str(error) for key in conditioner.columns), (
            f"{name}: the error does not say what is allowed: {error}"
        )
        return
    raise AssertionError(f"{name} accepts a column that it does not know")
