"""Properties as conditions: units, what drops them, and bad input."""

from __future__ import annotations

import pytest
import torch

import anylatent as al
from anylatent.modalities.molecule.conditioner import Properties

FACTS = {
    "gap": {"mean": 6.86, "std": 1.28, "min": 0.67, "max": 16.93, "unit": "eV"},
    "mu": {"mean": 2.67, "std": 1.5, "min": 0.0, "max": 29.56, "unit": "Debye"},
}


def test_contract() -> None:
    columns = {"gap": [5.0, 6, 9.5], "mu": [0.0, 3.3, 1]}
    al.testing.check_conditioner(Properties(FACTS), columns)
    al.testing.check_conditioner(Properties(FACTS, names=("mu",)), {"mu": [0.0, 3.3, 1]})


def test_values_are_normalised_by_the_training_data() -> None:
    conditioner = Properties(FACTS)
    assert list(conditioner.spec.scalars) == ["gap", "mu"]
    cond = conditioner({"gap": [6.86, 8.14], "mu": torch.tensor([2.67, 1.17])})
    assert cond.values["gap"].tolist() == pytest.approx([0, 1], abs=1e-6)
    assert cond.values["mu"].tolist() == pytest.approx([0, -1], abs=1e-6)
    assert cond.values["gap"].dtype == torch.float32
    back = conditioner.denormalised("gap", cond.values["gap"])
    assert back.tolist() == pytest.approx([6.86, 8.14])


def test_names_choose_and_order() -> None:
    assert list(Properties(FACTS, names=("mu",)).spec.scalars) == ["mu"]
    assert list(Properties(FACTS, names=("mu", "gap")).spec.scalars) == ["mu", "gap"]


def test_none_drops_a_property_and_so_does_leaving_it_out() -> None:
    conditioner = Properties(FACTS)
    cond = conditioner({"gap": [6.0, None], "smiles": ["C", "O"]})
    assert list(cond.values) == ["gap"] and cond.keep["gap"].tolist() == [True, False]
    assert bool(cond.values["gap"].isfinite().all())
    assert not conditioner({})


def test_a_property_that_never_changes_is_not_divided_by_zero() -> None:
    fact = {"mean": 3.0, "std": 0.0, "min": 3.0, "max": 3.0, "unit": "eV"}
    assert Properties({"gap": fact})({"gap": [3.0]}).values["gap"].tolist() == [0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 6860.0, -100.0])
def test_values_far_outside_the_data_say_the_range(value: float) -> None:
    with pytest.raises(ValueError, match=r"gap=.*0.67 to 16.9 eV, mean 6.86"):
        Properties(FACTS)({"gap": [6.0, value]})


@pytest.mark.parametrize("value", ["large", True, [1.0]])
def test_what_is_no_number(value: object) -> None:
    with pytest.raises(ValueError, match=r"gap is a number, got .*gap \(0.67 to 16.9 eV"):
        Properties(FACTS)({"gap": [value]})


def test_unknown_properties_list_units_and_ranges() -> None:
    with pytest.raises(ValueError, match=r"no property alpha; it has gap \(.* eV.*mu \(.* Debye"):
        Properties(FACTS, names=("mu", "alpha"))
    with pytest.raises(ValueError, match=r"unknown condition alpha; .* gap \(0.67 to 16.9 eV"):
        Properties(FACTS)({"alpha": [70.0]})
    with pytest.raises(ValueError, match="has no properties: use conditioner=none"):
        Properties({})
