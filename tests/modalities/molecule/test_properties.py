"""The regressor of properties, and the rows that its errors stand beside."""

import pytest
import torch

from anylatent.modalities.molecule.metrics import properties
from anylatent.modalities.molecule.metrics.control import PropertyJudge
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules

ELEMENTS = torch.tensor([1, 6, 8])
COUNT = 300


def made(seed, count=COUNT):
    """Clouds of atoms; one property is the number of oxygens, one how far apart all are."""
    generator = torch.Generator().manual_seed(seed)
    items = []
    for _ in range(count):
        size = int(torch.randint(3, 6, (), generator=generator))
        width = 0.5 + 2 * torch.rand((), generator=generator)
        x = width * torch.randn(size, 3, generator=generator)
        element = torch.randint(0, 3, (size,), generator=generator)
        items.append(
            {
                "x": x - x.mean(0),
                "element": element,
                "charge": torch.zeros(size, dtype=torch.long),
                "atoms": size,
                "oxygens": float((element == 2).sum()),
                "spread": float((x - x.mean(0)).norm(dim=1).mean()),
            }
        )
    return items


class Fake:
    """A data set of clouds."""

    facts = {"properties": {name: {"unit": "1"} for name in ("oxygens", "spread")}}
    fingerprint = "clouds"

    def train(self):
        return made(1)

    def held_out(self):
        return made(2)

    def judged_by(self):
        return made(3)


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYLATENT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(properties, "STEPS", 80)
        patch.setattr(properties, "RATE", 1.5e-2)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        found = PropertyJudge(Fake(), ELEMENTS)
        found.state  # noqa: B018  learned here, once
        yield found
        torch.set_num_threads(threads)


def molecules(items):
    return Molecules(Molecule(i["x"], ELEMENTS[i["element"]], i["charge"]) for i in items)


def test_real_properties_are_found_and_those_of_others_are_not(judge):
    rows = judge.baselines(["oxygens", "spread"])
    assert set(rows) == {"held-out", "random", "atom count"}
    for name in ("oxygens", "spread"):
        key = f"mae_{name}"
        assert rows["held-out"][key] < 0.5 * rows["atom count"][key] < rows["random"][key]


def test_errors_count_only_what_was_asked_and_is_finite(judge):
    items = made(5, 6)
    values = [item["oxygens"] for item in items]
    whole = judge.errors(molecules(items), {"oxygens": values})["mae_oxygens"]
    found = properties.predict(judge.state, molecules(items))[:, 0]
    gaps = (found - torch.tensor(values)).abs()
    assert whole == pytest.approx(float(gaps.mean()), rel=1e-5)
    some = judge.errors(
        molecules(items), {"oxygens": [values[0], None, None, values[3], None, None]}
    )
    assert some["mae_oxygens"] == pytest.approx(float(gaps[[0, 3]].mean()), rel=1e-5)
    items[0]["x"] = items[0]["x"] * torch.nan
    rest = judge.errors(molecules(items), {"oxygens": values})["mae_oxygens"]
    assert rest == pytest.approx(float(gaps[1:].mean()), rel=1e-5)
    assert judge.errors(molecules(items), {"oxygens": [None] * 6}) == {}
    for item in items:
        item["x"] = item["x"] * torch.nan
    assert judge.errors(molecules(items), {"oxygens": values}) == {}


def test_predictions_do_not_depend_on_neighbours_order_or_place(judge):
    some = molecules(made(6, 5))
    joint = properties.predict(judge.state, some)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    for i, molecule in enumerate(some):
        moved = Molecule(molecule.x @ turn.T + 5, molecule.z, molecule.charge)
        alone = properties.predict(judge.state, Molecules([moved]))
        assert torch.allclose(joint[i], alone[0], atol=1e-4)


def test_the_guess_from_sizes_is_the_median_of_the_size():
    sizes, values = torch.tensor([3, 3, 3, 8]), torch.tensor([1.0, 2.0, 9.0, 5.0])
    guess = properties.guess_from_sizes(sizes, values, torch.tensor([3, 8, 4, 30]))
    assert guess.tolist() == [2.0, 5.0, 2.0, 5.0]


def test_learning_is_deterministic():
    some = molecules(made(4, 64))
    targets = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    first, second = (properties.learn(some, targets, steps=3) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
