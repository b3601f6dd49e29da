"""The contract of backbones."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from anylatent.core.latents import (
    Condition,
    ConditionSpec,
    Field,
    Latent,
    LatentSpec,
    Noise,
    Value,
    token_condition,
)
from anylatent.core.nn.backbone import Backbone
from anylatent.core.testing.examples import alone, distance, example, spoil
from anylatent.core.testing.guests import check_invariance, check_sites

CONDITIONS = ConditionSpec(
    classes={"kind": 3},
    tokens={"words": 5},
    latents={"code": Field((3,))},
    vectors={"words": Field((2,)), "pose": Field((4,))},
)
CAMERAS = ConditionSpec(vectors={"camera": Field((None, 3))})
OTHERS = {
    "few": Field((4, 3)),
    "many": Field((None, 2)),
    "line": Field((2, 5), channels=0),
    "plane": Field((2, 3, 11), channels=0),
    "clip": Field((3, 2, 5, 4), channels=1),
}
"""Latents of further shapes that a backbone may read as conditions."""
TOLERANCE = 1e-5


def check_backbone(
    factory: Callable[..., Backbone], conditions: ConditionSpec | None = None
) -> None:
    """`factory(conditions=...)` makes the backbone.

    Padding and neighbours never change a sample; a dropped key is a missing key is no condition;
    every trainable parameter learns; the output has the precision of the input. Where entries may
    have noise levels of their own, equal ones are one level, and each reaches its entry and, by
    attention or messages, others; where not, (B, T) is refused. Latents of any shape, vectors of
    entries, and maps laid over x, are conditions like any other, or are refused by name. Guests are
    asked at the sites that it names; see `check_sites`.
    """
    spec = CONDITIONS if conditions is None else conditions
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = factory(conditions=spec)
        name = type(backbone).__name__
        x = _noisy(backbone, torch.float32)
        c_noise = torch.tensor([-2.5, 0.0, 1.0, 4.0])
        cond = some_condition(spec, 4)
        _check_learning(backbone, x, c_noise, cond, name)
        if conditions is None:
            _check_latents(factory, c_noise, name)
            _check_entry_vectors(factory, x, c_noise, name)
            _check_maps(factory, x, c_noise, name)
    backbone.eval()
    with torch.no_grad():
        _check_samples_apart(backbone, x, c_noise, cond, name)
        _check_drop(backbone, x, c_noise, cond, name)
        _check_levels(backbone, x, c_noise, cond, name)
        check_sites(backbone, lambda guest: backbone(x, c_noise, cond, guest=guest), x)
        if any(field.centred for field in x.spec.fields.values()):
            call = lambda x, guest: backbone(x, c_noise, cond, guest=guest)  # noqa: E731
            check_invariance(backbone, call, x, _turn())
        _check_precision(backbone, x, c_noise, cond, name)


def _check_latents(factory: Callable[..., Backbone], c_noise: Tensor, name: str) -> None:
    """Latents of other shapes are read, all at once, or refused one by one by an error that names
    them."""
    read = {}
    for key, field in OTHERS.items():
        try:
            factory(conditions=ConditionSpec(latents={key: field}))
        except ValueError as error:
            assert f"'{key}'" in str(error), f"{name}: refuses a latent by no name: {error}"
        else:
            read[key] = field
    if not read:
        return
    spec = ConditionSpec(latents=read)
    backbone, cond = factory(conditions=spec), some_condition(spec, 4)
    x = _noisy(backbone, torch.float32)
    _check_learning(backbone, x, c_noise, cond, name)
    backbone.eval()
    with torch.no_grad():
        _check_samples_apart(backbone, x, c_noise, cond, name)
        _check_drop(backbone, x, c_noise, cond, name)


def _check_maps(factory: Callable[..., Backbone], x: Latent, c_noise: Tensor, name: str) -> None:
    """Maps are refused by name, or are read without padding, and dropped like any condition."""
    spec = ConditionSpec(maps={"map": 2})
    try:
        backbone = factory(conditions=spec)
    except ValueError as error:
        assert "'map'" in str(error), f"{name}: refuses maps by no name: {error}"
        return
    key, field = next(iter(x.spec.fields.items()))
    shape = list(x[key].shape)
    shape[-1 if field.variable and field.channels is None else 1 + (field.channels or 0)] = 2
    value = Noise.of(6, x.batch).normal(*shape[1:])
    if key in x.masks:
        value[~x.masks[key]] = torch.nan
    cond = Condition({"map": value}, {"map": torch.arange(x.batch) % 4 != 1})
    _check_learning(backbone, x, c_noise, cond, name)
    backbone.eval()
    with torch.no_grad():
        _check_drop(backbone, x, c_noise, cond, name)
        joint = backbone(x, c_noise, cond)
        for i in range(x.batch):
            size = x.lengths(key)[i] if key in x.masks else shape[1]
            own = Condition({"map": value[i : i + 1, :size]}, {"map": cond.keep["map"][i : i + 1]})
            lonely = backbone(alone(x, i), c_noise[i : i + 1], own)
            gap = distance(lonely, alone(joint, i))
            assert gap <= TOLERANCE * max(1.0, _size(joint)), f"{name}: the map of sample {i}"


def _check_entry_vectors(
    factory: Callable[..., Backbone], x: Latent, c_noise: Tensor, name: str
) -> None:
    """Vectors of entries are refused by name, or each reaches its own entry, and is dropped with
    the others of its sample."""
    try:
        backbone = factory(conditions=CAMERAS)
    except ValueError as error:
        assert "'camera'" in str(error), f"{name}: refuses vectors by no name: {error}"
        return
    mask = next(iter(x.masks.values()), None)
    entries = next(iter(x.parts.values())).shape[1]
    cameras = Noise.of(4, x.batch).normal(entries, 3)
    spec = LatentSpec({"vector": Field((None, 3))})
    valid = torch.ones(x.batch, entries, dtype=torch.bool) if mask is None else mask
    value = spoil(Latent({"vector": cameras}, {"vector": valid}, spec))
    cond = Condition({"camera": value}, {"camera": torch.arange(x.batch) % 4 != 1})
    _check_learning(backbone, x, c_noise, cond, name)
    backbone.eval()
    with torch.no_grad():
        joint = backbone(x, c_noise, cond)
        _check_drop(backbone, x, c_noise, cond, name)
        for i in range(x.batch):
            own = Condition({"camera": alone(value, i)}, {"camera": cond.keep["camera"][i : i + 1]})
            lonely = backbone(alone(x, i), c_noise[i : i + 1], own)
            gap = distance(lonely, alone(joint, i))
            assert gap <= TOLERANCE * max(1.0, _size(joint)), f"{name}: cameras of sample {i}"
        turned = value["vector"].clone()
        turned[:, 1] += 1.0
        other = Condition({"camera": Latent({"vector": turned}, value.masks, spec)}, cond.keep)
        moved = (backbone(x, c_noise, other) - joint).map(lambda z: z.flatten(2).abs().sum(-1))
        change = next(iter(moved.parts.values()))
        assert not bool(change[1].any()), f"{name}: dropped vectors have an effect"
        assert bool(change[0].argmax() == 1), f"{name}: a vector does not steer its own entry most"


def _turn() -> Tensor:
    """A rotation and reflection of space, (3, 3)."""
    generator = torch.Generator().manual_seed(1)
    found: Tensor = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    return found


def some_condition(spec: ConditionSpec, batch: int) -> Condition:
    """A condition with a value for every class, scalar, token and latent key; one sample in four
    lacks each key."""
    generator = torch.Generator().manual_seed(0)
    values: dict[str, Value] = {}
    for name, count in spec.classes.items():
        values[name] = torch.arange(batch) % count
    for name in spec.scalars:
        values[name] = torch.randn(batch, generator=generator)
    for name, width in spec.tokens.items():
        states = torch.randn(batch, 6, width, generator=generator)
        lengths = torch.tensor([2, 6, 3, 5])[torch.arange(batch) % 4]
        mask = torch.arange(6) < lengths[:, None]
        states = states.masked_fill(~mask[..., None], torch.inf)
        values[name] = token_condition(states, mask)
    for name, field in spec.vectors.items():
        sizes = [size or 1 for size in field.shape]
        drawn = torch.randn(batch, *sizes, generator=generator)
        tokens = values.get(name)
        if isinstance(tokens, Latent):
            values[name] = token_condition(tokens["tokens"], tokens.masks["tokens"], drawn)
        else:
            values[name] = drawn
    for seed, (name, field) in enumerate(spec.latents.items()):
        blank = example(LatentSpec({name: field}), batch, dtype=torch.float32)
        values[name] = spoil(Noise.of(seed, batch).like(blank))
    keep = {name: torch.arange(batch) % 4 != 1 for name in values}
    return Condition(values, keep)


def _noisy(backbone: Backbone, dtype: torch.dtype) -> Latent:
    blank = example(backbone.spec, dtype=dtype)
    return Noise.of(0, blank.batch).like(blank)


def _size(latent: Latent) -> float:
    return max(1e-3, max(float(x[x.isfinite()].abs().max()) for x in latent.parts.values()))


def _check_learning(
    backbone: Backbone, x: Latent, c_noise: Tensor, cond: Condition, name: str
) -> None:
    """A few steps towards a target, after which every parameter has had a gradient."""
    target = Noise.of(1, x.batch).like(x)
    silent = {key for key, p in backbone.named_parameters() if p.requires_grad}
    optimiser = torch.optim.Adam(backbone.parameters(), lr=1e-3)
    for _ in range(6):
        output = backbone(x, c_noise, cond)
        assert output.spec == x.spec, f"{name}: got {x.spec}, gave {output.spec}"
        assert output.dtype == x.dtype, f"{name}: {x.dtype} in, {output.dtype} out"
        optimiser.zero_grad()
        loss = output.project().mse(target).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        for key, parameter in backbone.named_parameters():
            if parameter.grad is not None:
                assert bool(parameter.grad.isfinite().all()), f"{name}: gradient of {key}"
                if bool(parameter.grad.any()):
                    silent.discard(key)
        optimiser.step()
    assert not silent, f"{name}: no gradient ever reaches {sorted(silent)}"
    moved = backbone(x, c_noise, cond).project().norm()
    assert bool((moved > 0).all()), f"{name}: the output is still zero after training"


def _check_samples_apart(
    backbone: Backbone, x: Latent, c_noise: Tensor, cond: Condition, name: str
) -> None:
    joint = backbone(x, c_noise, cond)
    allowed = TOLERANCE * max(1.0, _size(joint))
    if x.masks:
        gap = distance(joint, backbone(spoil(x), c_noise, cond))
        assert gap <= allowed, f"{name}: infinities in the padding change the output by {gap:.3g}"
    for i in range(x.batch):
        row = slice(i, i + 1)
        lonely = backbone(alone(x, i), c_noise[row], cond.select(row))
        gap = distance(lonely, alone(joint, i))
        assert gap <= allowed, f"{name}: sample {i} alone differs by {gap:.3g} from in its batch"


def _check_levels(
    backbone: Backbone, x: Latent, c_noise: Tensor, cond: Condition, name: str
) -> None:
    entries = next(iter(x.parts.values())).shape[:2]
    each = c_noise[:, None].expand(entries).clone()
    if not backbone.per_entry:
        try:
            backbone(x, each, cond)
        except ValueError as error:
            assert "one noise level per sample" in str(error), f"{name}: {error}"
            return
        raise AssertionError(f"{name}: takes noise levels {tuple(entries)}, and is not per_entry")
    joint = backbone(x, c_noise, cond)
    gap = distance(backbone(x, each, cond), joint)
    assert gap <= TOLERANCE * max(1.0, _size(joint)), f"{name}: equal levels differ by {gap:.3g}"
    other = each.clone()
    other[:, 1] += 1.5
    moved = (backbone(x, other, cond) - joint).map(lambda z: z.flatten(2).abs().sum(-1))
    for field, change in moved.parts.items():
        assert bool((change[:, 1] > 0).all()), f"{name}: the level of an entry of {field} is unread"


def _check_precision(
    backbone: Backbone, x: Latent, c_noise: Tensor, cond: Condition, name: str
) -> None:
    """The output has the precision of the input; the backbone is in float64 afterwards."""
    single = backbone(x, c_noise, cond)
    backbone.double()
    double = backbone(x.to(torch.float64), c_noise.double(), cond.to(torch.float64))
    assert double.dtype == torch.float64, f"{name}: float64 in, {double.dtype} out"
    gap = distance(single.to(torch.float64), double)
    assert gap < 1e-3 * _size(double), f"{name}: float32 and float64 differ by {gap:.3g}"


def _check_drop(backbone: Backbone, x: Latent, c_noise: Tensor, cond: Condition, name: str) -> None:
    nothing = backbone(x, c_noise, None)
    allowed = TOLERANCE * max(1.0, _size(nothing))
    gap = distance(nothing, backbone(x, c_noise, cond.null()))
    assert gap <= allowed, f"{name}: dropping all keys differs by {gap:.3g} from no condition"
    for key in cond.values:
        rest = [other for other in cond.values if other != key]
        less = Condition({k: cond.values[k] for k in rest}, {k: cond.keep[k] for k in rest})
        gap = distance(backbone(x, c_noise, less), backbone(x, c_noise, cond.null(key)))
        assert gap <= allowed, f"{name}: dropping '{key}' differs by {gap:.3g} from leaving it out"
        full = backbone(x, c_noise, Condition(cond.values))
        only = backbone(x, c_noise, Condition(cond.values).null(key))
        assert distance(full, only) > 0, f"{name}: '{key}' has no effect"
