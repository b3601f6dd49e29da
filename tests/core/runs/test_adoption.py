"""What of one model's weights has a place in another, tensor by tensor."""

import pytest
import torch

import anylatent as al
from anylatent.core.nn.layers import GroupNorm
from anylatent.core.registry import Part, RegistryError
from anylatent.core.registry.store import _parts
from anylatent.core.runs import System
from anylatent.core.runs.sources.adoption import adopt
from anylatent.core.support.files import UserError
from tests.cli import TINY
from tests.test_configs import train_config

BACKBONE = "generator.denoiser.backbone."


def model(classes=None, *overrides, conditioner="none"):
    """A woken model: every weight is a number of its own."""
    told = [word for word in TINY if not word.startswith("conditioner")]
    chosen = [f"conditioner={conditioner}"] if conditioner in ("none", "label") else []
    config = train_config(*told, *chosen, *overrides)
    if not chosen:
        object.__setattr__(config.model, "conditioner", {"name": conditioner})
    system = System(config.model, {"shape": [1, 16, 16], "classes": classes or {}})
    with torch.no_grad():
        for value in system.generator.parameters():
            value.normal_(0, 0.3)
    return system


def taken(new, old, classes=None, old_classes=None, take=""):
    found = adopt(new, classes or {}, old.trained(), old_classes or {}, take)
    found.put(new)
    return found


def called(system, cond=None):
    x = al.Noise.of(1, 4).like(system.autoencoder.spec.blank(4))
    with torch.no_grad():
        return system.generator.eval().denoiser(x, torch.full((4,), 0.5), cond)["z"]


def maps(monkeypatch, name, channels):
    """Registers a conditioner of these maps."""

    class Maps(al.Conditioner):
        def __init__(self):
            super().__init__()
            self.spec = al.ConditionSpec(maps=channels)

        def forward(self, columns):
            return al.Condition()

    monkeypatch.setitem(_parts["conditioner"], name, Part("conditioner", name, Maps))


# ---- classes ----------------------------------------------------------------------------------
OLD, NEW = {"digit": ["2", "7", "9"]}, {"digit": ["9", "2", "5"]}


def test_rows_of_classes_go_by_name():
    old, new = (model(c, conditioner="label") for c in (OLD, NEW))
    found = taken(new, old, NEW, OLD)
    name = f"{BACKBONE}condition.classes.digit.weight"
    before, after = (system.trained()[name] for system in (old, new))
    assert torch.equal(after, before[[2, 0, 3, 3]]), "9, 2, a class that it has not met, none"
    assert found.numbers[name] == 3 * before.shape[1] < found.taken[name].numel()
    met = called(new, al.Condition({"digit": torch.tensor([0, 1, 2, 0])}))
    known = al.Condition({"digit": torch.tensor([2, 0, 0, 2])})
    known.keep["digit"] = torch.tensor([True, True, False, True])
    assert torch.equal(met, called(old, known))


def test_a_new_condition_beside_one_that_is_known():
    old, new = model(), model(NEW, conditioner="label")
    assert not torch.equal(called(old), called(new))
    taken(new, old, NEW)
    for label in (None, 0, 2):
        cond = None if label is None else al.Condition({"digit": torch.full((4,), label)})
        assert torch.equal(called(new, cond), called(old))


# ---- maps -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"a": 2}),
        ({"a": 2}, {}),
        ({"b": 1}, {"b": 1, "c": 3}),
        ({"b": 1}, {"a": 2, "b": 1, "c": 1}),
    ],
)
@pytest.mark.parametrize(
    "backbone", [(), ("backbone=dit", "backbone.patch=2")], ids=["unet", "dit"]
)
def test_columns_of_maps_go_by_name(before, after, backbone, monkeypatch):
    maps(monkeypatch, "old_maps", before)
    maps(monkeypatch, "new_maps", after)
    if backbone:
        small = ("backbone.width=32", "backbone.depth=1", "backbone.heads=2")
        monkeypatch.setattr("tests.core.runs.test_adoption.TINY", TINY[:7])
        backbone = (*backbone, *small)
    old = model(None, *backbone, conditioner="old_maps")
    new = model(None, *backbone, conditioner="new_maps")
    taken(new, old)
    size = {"old": before, "new": after}
    fields = {
        key: {
            name: torch.randn(4, n, 4, 4, generator=torch.Generator().manual_seed(n))
            for name, n in known.items()
        }
        for key, known in size.items()
    }
    heard = {key: al.Condition(values) if values else None for key, values in fields.items()}
    if not after:  # what is left out is no longer heard, as if it were zero
        heard["old"] = al.Condition({"a": torch.zeros(4, 2, 4, 4)})
    assert torch.allclose(called(new, heard["new"]), called(old, heard["old"]), atol=2e-6)
    if before and after:
        assert float((called(old, heard["old"]) - called(old)).abs().max()) > 1e-3


@pytest.mark.parametrize("before", [{"a": 1}, {"a": 1, "b": 1}], ids=str)
def test_maps_that_are_exchanged_are_refused(before, monkeypatch):
    maps(monkeypatch, "old_maps", before)
    maps(monkeypatch, "new_maps", {"b": 1})
    with pytest.raises(UserError, match="reads the map a, which"):
        taken(model(conditioner="new_maps"), model(conditioner="old_maps"))


# ---- wrappers ---------------------------------------------------------------------------------
def renamed(system, before, after):
    return {name.replace(before, after, 1): x for name, x in system.trained().items()}


@pytest.mark.parametrize("inside", ["backbone.", "inner.host."])
def test_a_wrapper_s_names_are_seen_through(inside):
    """The old weights are those of a backbone in a wrapper, with a guest beside it."""
    old, new = model(), model()
    names = renamed(old, BACKBONE, BACKBONE + inside)
    names[f"{BACKBONE}guest.out.weight"] = torch.ones(2)
    found = adopt(new, {}, names, {})
    found.put(new)
    assert torch.equal(called(new), called(old)) and not found.fresh
    assert list(found.left) == [f"{BACKBONE}guest.out.weight"]


def test_names_of_two_meanings_are_left_alone():
    old, new = model(), model()
    twice = {**renamed(old, BACKBONE, f"{BACKBONE}a."), **renamed(old, BACKBONE, f"{BACKBONE}b.")}
    found = adopt(new, {}, twice, {})
    assert all(name.startswith(BACKBONE) for name in found.fresh) and found.fresh
    assert not [name for name in found.taken if name.startswith(BACKBONE)]


# ---- less than all ----------------------------------------------------------------------------
def test_what_has_another_shape_is_new_and_left():
    old, new = model(), model(None, "backbone.channels=12")
    before = {name: value.clone() for name, value in new.trained().items()}
    found = taken(new, old)
    assert found.whole("autoencoder") and found.came("normaliser") and not found.whole("generator")
    for name, value in new.trained().items():
        expected = old.trained()[name] if name in found.taken else before[name]
        assert torch.equal(value, expected), name
    numbers = [sum(x.numel() for x in known.values()) for known in (new.trained(), old.trained())]
    assert sum(found.numbers.values()) + sum(found.fresh.values()) == numbers[0]
    assert sum(found.numbers.values()) + sum(found.left.values()) == numbers[1]
    assert f"{sum(found.left.values()):,} numbers in {len(found.left)} tensors" in found.table()


def test_autoencoder_alone():
    found = taken(model(), model(), take="autoencoder")
    assert set(found.taken) == {n for n in model().trained() if n.startswith("autoencoder.")}
    assert not found.fresh and not found.left and not found.came("normaliser")


# ---- frozen layers ----------------------------------------------------------------------------
def test_group_norm_behind_frozen_layers_learns():
    """torch crashes there on the CPU, for channels last."""
    x = torch.randn(2, 8, 4, 4)
    norms = [GroupNorm(8), GroupNorm(8)]
    for norm, layout in zip(norms, (torch.contiguous_format, torch.channels_last), strict=True):
        out = norm(x.contiguous(memory_format=layout))
        (out * x).sum().backward()
        assert not x.requires_grad
    for one, two in zip(*(norm.parameters() for norm in norms), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-5) and float(one.grad.abs().max()) > 0


def test_outside_tunings_and_sources_are_checked():
    assert al.names("tuning") and "run" in al.names("source")
    with pytest.raises(RegistryError, match="Tuning"):
        al.register("tuning", "wrong")(GroupNorm)


# ---- latents as conditions --------------------------------------------------------------------
def test_latents_that_a_backbone_has_not_heard_of_start_as_nothing(monkeypatch):
    fields = {
        "code": al.Field((3,)),
        "few": al.Field((4, 2)),
        "plane": al.Field((2, 3, 3), False, 0),
    }

    class Latents(al.Conditioner):
        def __init__(self):
            super().__init__()
            self.spec = al.ConditionSpec(latents=fields)

        def forward(self, columns):
            return al.Condition()

    monkeypatch.setitem(_parts["conditioner"], "latents", Part("conditioner", "latents", Latents))
    old, new = model(), model(conditioner="latents")
    found = taken(new, old)
    assert found.whole("autoencoder") and not found.left
    with torch.no_grad():
        for key, value in new.generator.state_dict().items():
            if ".cross.output" in key:  # what reads tokens starts at zero of itself
                value.zero_()
    values = {n: al.Noise.of(0, 4).like(al.LatentSpec({n: f}).blank(4)) for n, f in fields.items()}
    assert torch.equal(called(new, al.Condition(values)), called(old))
