"""What a conditioner may be: columns of other names, variants, weights that learn; its contract."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import anylatent as al
from anylatent.core.autoencoders import FrozenEncoder
from anylatent.core.runs import System
from anylatent.core.support.files import UserError
from anylatent.core.training.learned_from import check_told
from tests.cli import TINY
from tests.test_configs import train_config


class Numbers(al.Conditioner):
    """Two conditions from the column `number`, one from `width` and `height`."""

    def __init__(self):
        super().__init__()
        self.spec = al.ConditionSpec(classes={"parity": 2, "tens": 10}, scalars=("area",))
        self.columns = ("number", "width", "height")

    def forward(self, columns):
        if unknown := set(columns) - set(self.columns):
            raise ValueError(f"unknown {unknown}: allowed are {self.columns}")
        if not columns:
            return al.Condition()
        read = {name: self._read(columns[name]) for name in self.columns}
        (n, known), (w, wide), (h, high) = read.values()
        values = {"parity": (n % 2).long(), "tens": (n // 10).long(), "area": w * h}
        return al.Condition(values, {"parity": known, "tens": known, "area": wide & high})

    def _read(self, column):
        there = torch.tensor([x is not None for x in column])
        return torch.tensor([0.0 if x is None else float(x) for x in column]), there


COLUMNS = {"number": [12, 7, 99], "width": [1, 2, 3], "height": [0.5, 0.5, 2]}


class Cloud(al.Conditioner):
    """A cloud of four points, one of which is gone at each step, read by a network."""

    def __init__(self):
        super().__init__()
        self.spec, self.columns = al.ConditionSpec(vectors={"shape": al.Field((2,))}), ("points",)
        self.network = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 2))

    def forward(self, columns):
        if columns and "points" not in columns:
            raise ValueError(f"no points in {list(columns)}")
        column = list(columns.get("points", ()))
        if not column:
            return al.Condition()
        clouds = [torch.zeros(4, 3) if x is None else torch.as_tensor(x) for x in column]
        kept = torch.tensor([x is not None for x in column])
        return al.Condition({"points": torch.stack(clouds)}, {"points": kept})

    def vary(self, cond, noise):
        gone = noise.uniform(4).argmax(1)
        points = cond.values["points"].clone()
        points[torch.arange(len(gone)), gone] = 0
        return al.Condition({"points": points}, cond.keep)

    def learned(self, cond):
        shape = self.network(cond.values["points"]).mean(1)
        return al.Condition({"shape": shape}, {"shape": cond.keep["points"]})


POINTS = {"points": list(al.Noise.of(2, 3).normal(4, 3))}


class Global(Cloud):
    def vary(self, cond, noise):
        return al.Condition({"points": torch.randn_like(cond.values["points"])}, cond.keep)


class Shared(Cloud):
    def vary(self, cond, noise):
        first = noise.uniform(1)[0].float()
        return al.Condition({"points": cond.values["points"] * first}, cond.keep)


class Drops(Cloud):
    def vary(self, cond, noise):
        return al.Condition(cond.values, {"points": cond.keep["points"] & (noise.uniform() > 2)})


class Early(Cloud):
    def forward(self, columns):
        cond = super().forward(columns)
        read = {k: self.network[0](v)[..., :3] for k, v in cond.values.items()}
        return al.Condition(read, cond.keep)


class EarlyInSecret(Early):
    def forward(self, columns):
        with torch.no_grad():
            return super().forward(columns)


class Idle(Cloud):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(1))


class Undropped(Cloud):
    def learned(self, cond):
        return al.Condition(super().learned(cond).values)


def test_the_contract_is_kept_and_broken():
    al.testing.check_conditioner(Numbers(), COLUMNS)
    cloud = Cloud()
    before = [p.clone() for p in cloud.parameters()]
    al.testing.check_conditioner(cloud, POINTS)
    assert all(torch.equal(a, b) for a, b in zip(before, cloud.parameters(), strict=True))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Global, "vary draws other noise than it has"),
        (Shared, "sample 1, varied, depends on its neighbours"),
        (Drops, "varied drops other samples"),
        (Early, "is cached, but has a gradient"),
        (EarlyInSecret, "cached, depends on weights"),
        (Idle, "no gradient reaches unused"),
        (Undropped, "does not drop 'shape'"),
    ],
)
def test_what_breaks_it_is_said(kind, message):
    torch.manual_seed(0)
    with pytest.raises(AssertionError, match=message):
        al.testing.check_conditioner(kind(), POINTS)


# ---- in a model -------------------------------------------------------------------------------
def system(conditioner, monkeypatch):
    from anylatent.core.registry import Part
    from anylatent.core.registry.store import _parts

    monkeypatch.setitem(_parts["conditioner"], "toy", Part("conditioner", "toy", conditioner))
    config = train_config(*[word for word in TINY if not word.startswith("conditioner")])
    object.__setattr__(config.model, "conditioner", {"name": "toy"})
    return System(config.model, {"shape": [1, 16, 16], "classes": {}}).eval()


def test_a_model_asks_for_columns_and_embeds_conditions(monkeypatch):
    model = system(Numbers, monkeypatch)
    assert model.asks == ["number", "width", "height"]
    batch = {**COLUMNS, "image": torch.zeros(3, 1, 16, 16)}
    assert list(model.columns(batch)) == ["number", "width", "height"]
    cond = model.condition(batch)
    assert cond.values["tens"].tolist() == [1, 0, 9] and cond.values["area"].tolist() == [0.5, 1, 6]
    assert cond.values["parity"].tolist() == [0, 1, 1]
    assert not any(name.startswith("conditioner") for name in model.trained())
    assert model.condition({"image": batch["image"]}) is None


@pytest.mark.parametrize("label", ["number", "parity"])
def test_a_classifier_of_a_column_that_means_something_else_is_refused(label, monkeypatch):
    with pytest.raises(UserError, match=f"cond.{label} can not be the label"):
        system(Numbers, monkeypatch).add_classifier(label, ["a", "b"], None)


def test_a_model_varies_with_noise_alone_and_its_weights_are_its_own(monkeypatch):
    model = system(Cloud, monkeypatch)
    names = {f"conditioner.network.{k}" for k in ("0.weight", "0.bias", "2.weight", "2.bias")}
    assert model.learned == names == {n for n in model.trained() if n.startswith("conditioner")}
    plain = model.condition(POINTS).values["shape"]
    assert torch.equal(plain, model.condition(POINTS).values["shape"]) and plain.requires_grad
    varied = [model.condition(POINTS, al.Noise.of((0, step), 3)) for step in (1, 2, 1)]
    first, second, again = (cond.values["shape"] for cond in varied)
    assert torch.equal(first, again) and not torch.equal(first, second)
    read = model.finished(model.read(POINTS), al.Noise.of((0, 1), 3))
    assert torch.equal(read.values["shape"], first)


def test_the_encoder_is_frozen_and_owned_by_nobody():
    """As in evaluation, without a gradient, while the autoencoder itself is in training."""
    conv = al.get("autoencoder", "conv")(shape=(1, 16, 16), channels=8, blocks=1, heads=1)
    conv.train()
    encode, batch = FrozenEncoder(conv), {"image": al.Noise.of(0, 2).normal(1, 16, 16)}
    assert encode.spec is conv.spec and not isinstance(encode, nn.Module)
    found = encode(batch)
    assert not found["z"].requires_grad and all(m.training for m in conv.modules())
    assert torch.equal(found["z"], conv.eval().encode(batch).mean["z"])


def test_a_column_that_is_empty_throughout_is_a_warning(monkeypatch):
    """Where the conditioner reads it; another one, or data that have some, are told nothing."""
    model = system(Numbers, monkeypatch)
    (column,) = model.conditioner.columns[:1]
    item = dict.fromkeys([*model.conditioner.columns, "caption"], 0)

    def data(empty, item=item):
        return SimpleNamespace(empty=empty, train=lambda: [item])

    with pytest.warns(UserWarning, match=f"'{column}', which is empty in every item"):
        check_told(model, data([column]))
    with pytest.warns(UserWarning, match=f"'{column}', which the data do not have"):
        check_told(model, data([], {"caption": 0}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_told(model, data(["caption"]))
        check_told(model, data([]))
