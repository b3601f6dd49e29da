"""QM9, the components and folders of files: parts, values in their units, and bad input."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

import anylatent as al
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage
from anylatent.core.training.step_sampler import StepSampler
from anylatent.modalities.molecule.data import Components, MoleculeData, MoleculeSet, Packed, Qm9
from anylatent.modalities.molecule.data import base as base_module
from anylatent.modalities.molecule.data import qm9 as qm9_module
from anylatent.modalities.molecule.elements import SYMBOLS, indices


def make(kind: Callable[..., Any], **settings: Any) -> Any:
    try:
        return kind(**settings)
    except MissingPackage as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def qm9() -> Qm9:
    return make(Qm9)


@pytest.fixture(scope="module")
def components() -> Components:
    return make(Components)


def find(parts: list[MoleculeSet], smiles: str) -> dict[str, Any]:
    (found,) = [part[k] for part in parts for k, s in enumerate(part.packed.smiles) if s == smiles]
    return found


def every(data: Qm9) -> list[MoleculeSet]:
    return [data.train(), data.validation(), data.held_out()]


# ---- elements ---------------------------------------------------------------------------------
def test_symbols_are_the_periodic_table() -> None:
    assert len(SYMBOLS) == 119 and len(set(SYMBOLS)) == 119
    known = {1: "H", 6: "C", 9: "F", 17: "Cl", 26: "Fe", 34: "Se", 53: "I", 79: "Au", 118: "Og"}
    assert {number: SYMBOLS[number] for number in known} == known


def test_an_element_that_a_model_does_not_know_is_an_error() -> None:
    z = torch.tensor([[6, 1], [8, 6]])
    assert indices(z, ["H", "C", "O"]).tolist() == [[1, 0], [2, 1]]
    with pytest.raises(UserError, match="unknown element O, Si: known are H, C"):
        indices(torch.tensor([6, 14, 8, 1]), ["H", "C"])


# ---- QM9 --------------------------------------------------------------------------------------
def test_the_usual_split(qm9: Qm9) -> None:
    parts = every(qm9)
    assert [len(part) for part in parts] == [100_000, 17_748, 13_083]
    smiles = [set(part.packed.smiles) for part in parts]
    assert len(set.union(*smiles)) == sum(map(len, smiles)) == 130_831
    again = Qm9().held_out()
    assert again.packed.smiles == parts[2].packed.smiles
    assert torch.equal(again.packed.x, parts[2].packed.x)


def test_methane_and_water(qm9: Qm9) -> None:
    methane, water = (find(every(qm9), smiles) for smiles in ("C", "O"))
    assert [qm9.elements[k] for k in methane["element"].tolist()] == list("CHHHH")
    assert methane["atoms"] == 5 and methane["x"].dtype == torch.float32
    assert not methane["charge"].any() and methane["charge"].dtype == torch.int64
    bonds = (methane["x"][1:] - methane["x"][0]).norm(dim=1)
    assert bonds == pytest.approx(torch.full((4,), 1.0919), abs=1e-3)  # Å
    # Bohr³, eV, eV, eV, Debye, cal/(mol K)
    wanted = {"alpha": 13.21, "gap": 13.7363, "homo": -10.5499, "lumo": 3.1865, "mu": 0.0}
    for name, value in {**wanted, "cv": 6.469}.items():
        assert methane[name] == pytest.approx(value, abs=1e-3), name
    a, o, b = water["x"][1], water["x"][0], water["x"][2]
    angle = torch.rad2deg(torch.acos(torch.cosine_similarity(a - o, b - o, dim=0)))
    assert float(angle) == pytest.approx(103.9, abs=0.2) and water["mu"] == pytest.approx(1.8511)


def test_items_are_centred_and_complete(qm9: Qm9) -> None:
    train = qm9.train()
    for index in (0, 1, 50_000, -1):
        item = train[index]
        n = item["atoms"]
        assert item["x"].shape == (n, 3) and item["element"].shape == item["charge"].shape == (n,)
        assert float(item["x"].mean(0).abs().max()) < 1e-6
        assert list(item)[5:] == ["alpha", "gap", "homo", "lumo", "mu", "cv"]
        assert item["gap"] == pytest.approx(item["lumo"] - item["homo"], abs=0.02)
        assert n == int(train.lengths[index])
    with pytest.raises(IndexError, match="molecule 100000 of 100000"):
        train[100_000]


def test_facts(qm9: Qm9) -> None:
    facts = qm9.facts
    assert facts["elements"] == ["H", "C", "N", "O", "F"] and facts["charges"] == [-1, 0, 1]
    assert sum(count for _, count in facts["sizes"]) == 100_000
    assert facts["sizes"][0][0] == 3 and facts["sizes"][-1][0] == 29
    assert dict(facts["sizes"]) == Counter(qm9.train().lengths.tolist())
    assert json.loads(json.dumps(facts)) == facts
    gap = facts["properties"]["gap"]
    values = torch.tensor([qm9.train()[i]["gap"] for i in range(0, 100_000, 20)])
    assert gap["unit"] == "eV" and gap["mean"] == pytest.approx(float(values.mean()), abs=0.05)
    assert gap["std"] == pytest.approx(float(values.std()), abs=0.05)
    assert gap["min"] <= float(values.min()) and float(values.max()) <= gap["max"]
    named = ["alpha", "gap", "homo", "lumo", "mu", "cv"]
    assert list(facts["properties"]) == named


def test_formal_charges_are_those_that_rdkit_reads(qm9: Qm9) -> None:
    """On the atoms that have the hydrogens and the bonds of the SMILES."""
    chem = pytest.importorskip("rdkit.Chem", reason="rdkit is not installed")
    ions = 0
    for part in every(qm9):
        packed = part.packed
        charged = torch.zeros(len(part)).index_add(0, packed.owners, packed.charge.abs().float())
        for row in charged.nonzero()[:, 0].tolist():
            item = part[row]
            mol = chem.MolFromSmiles(item["smiles"])
            heavy = item["element"] != 0
            x, hydrogens = item["x"][heavy], item["x"][~heavy]
            assert item["charge"][heavy].tolist() == [a.GetFormalCharge() for a in mol.GetAtoms()]
            owner = torch.cdist(hydrogens, x).argmin(1)
            counts = torch.bincount(owner, minlength=len(x)).tolist()
            assert counts == [atom.GetTotalNumHs() for atom in mol.GetAtoms()]
            ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]
            assert all(float((x[i] - x[j]).norm()) < 1.85 for i, j in ends)
            ions += 1
    assert ions == 443 + 137  # written with charges; nitro groups written without


def test_a_smiles_in_another_order_gives_no_charges() -> None:
    order = ["C", "O", "H", "N"]
    assert qm9_module.formal_charges("C[NH2+][O-]", order) == [0, 0, 0, 0]
    assert qm9_module.formal_charges("C[NH2+][O-]", ["C", "H", "N", "O"]) == [0, 0, 1, -1]
    assert qm9_module.formal_charges("CN(=O)=O", ["C", "N", "O", "O"]) == [0, 1, -1, 0]


def test_without_hydrogens(qm9: Qm9) -> None:
    data = make(Qm9, hydrogens=False)
    assert data.elements == ["C", "N", "O", "F"] and data.fingerprint != qm9.fingerprint
    assert [len(part) for part in every(data)] == [len(part) for part in every(qm9)]
    assert not data.published and data.facts["sizes"][-1][0] == 9
    for index in (0, 7, 99_999):
        whole, heavy = qm9.train()[index], data.train()[index]
        kept = whole["element"] != 0
        assert heavy["atoms"] == int(kept.sum()) and heavy["smiles"] == whole["smiles"]
        assert torch.equal(heavy["element"] + 1, whole["element"][kept])
        x = whole["x"][kept]
        assert torch.allclose(heavy["x"], x - x.mean(0), atol=1e-5)


def test_halves_and_limit(qm9: Qm9) -> None:
    first, second = make(Qm9, half="first"), make(Qm9, half="second", limit=300)
    smiles = qm9.train().packed.smiles
    assert first.train().packed.smiles == smiles[:50_000]
    assert second.train().packed.smiles == smiles[50_000:50_300]
    assert second.held_out().packed.smiles == qm9.held_out().packed.smiles
    assert len({data.fingerprint for data in (qm9, first, second)}) == 3
    assert sum(count for _, count in second.facts["sizes"]) == 300
    few = make(Qm9, properties=("mu",), limit=5)
    assert list(few.facts["properties"]) == ["mu"] and set(few.train()[0]) >= {"mu", "smiles"}
    assert "alpha" not in few.train()[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"properties": ("mu", "u0")}, "no property u0; it has alpha, gap, homo, lumo, mu, cv"),
        ({"half": "third"}, "half=third: allowed are 'first', 'second'"),
        ({"limit": -1}, "limit=-1: a number of molecules"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Qm9(**settings)


def test_published_rows(qm9: Qm9) -> None:
    rows = qm9.published
    assert len(rows) == 2 and all(
        0.8 < value < 1 for row in rows.values() for value in row.values()
    )
    geoldm = rows["GeoLDM (published)"]
    figures = ["atom_stability", "molecule_stability", "valid", "valid_and_unique"]
    assert geoldm == dict(zip(figures, (0.989, 0.894, 0.938, 0.927), strict=True))


def test_contract_of_qm9(qm9: Qm9) -> None:
    al.testing.check_data(qm9, limit=2000)


def test_parsed_once(qm9: Qm9, monkeypatch: pytest.MonkeyPatch) -> None:
    qm9.train()
    monkeypatch.setattr(qm9_module.qm9, "rows", lambda *_: pytest.fail("parsed again"))
    assert len(make(Qm9, hydrogens=False, limit=10).train()) == 10


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    hidden = ("qm9pack", "biotite")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in hidden else found(name)
    )
    for kind, package in ((Qm9, "qm9pack"), (Components, "biotite")):
        with pytest.raises(MissingPackage, match=f"needs the package '{package}'.*pip install"):
            kind()


# ---- buckets ----------------------------------------------------------------------------------
def padding(lengths: torch.Tensor, batch: int) -> float:
    """The share of a pass's atoms that are padding."""
    passes = StepSampler(len(lengths), batch, len(lengths) // batch, 0, 0, 0, 1, lengths)
    sizes = [lengths[torch.tensor(rows)] for rows in passes]
    return 1 - sum(int(n.sum()) for n in sizes) / sum(int(n.max()) * batch for n in sizes)


@pytest.mark.parametrize("batch", [64, 256])
def test_at_most_two_percent_of_a_pass_is_padding(qm9: Qm9, components: Components, batch: int):
    assert padding(qm9.train().lengths, batch) < 0.003
    assert padding(components.train().lengths, batch) < 0.006


# ---- components -------------------------------------------------------------------------------
def test_components(components: Components) -> None:
    train, held_out = components.train(), components.held_out()
    assert len(train) + len(held_out) == 36_990
    assert list(components.skipped.values()) == [182, 2]
    assert len(held_out) == pytest.approx(3_700, rel=0.05)
    assert int(train.lengths.min()) == 5 and int(train.lengths.max()) == 60
    assert len(components.elements) == 13 and components.elements[:3] == ["H", "B", "C"]
    assert {-1, 0, 1} <= set(components.facts["charges"])
    al.testing.check_data(components, limit=1500)


def test_components_are_molecules(components: Components) -> None:
    """Nearest neighbours of hydrogen are where chemistry has them; alanine is among them."""
    part = components.held_out()
    nearest = []
    for index in range(200):
        item = part[index]
        distances = torch.cdist(item["x"], item["x"]).fill_diagonal_(9.0)
        nearest += distances[item["element"] == 0].amin(1).tolist()
    near = torch.tensor(nearest)
    assert float(((near > 0.9) & (near < 1.2)).float().mean()) > 0.98
    alanine, found = Counter({"C": 3, "H": 7, "N": 1, "O": 2}), False
    for part in (components.train(), components.held_out()):
        for row in (part.lengths == 13).nonzero()[:, 0].tolist():
            found |= Counter(components.elements[k] for k in part[row]["element"]) == alanine
    assert found


def test_components_of_other_sizes(components: Components) -> None:
    small = make(Components, most=12, hydrogens=False)
    assert int(small.train().lengths.max()) <= 12 and "H" not in small.elements
    assert small.fingerprint != components.fingerprint
    al.testing.check_data(small)
    with pytest.raises(UserError, match="least=9, most=5"):
        make(Components, least=9, most=5)


# ---- packed storage ---------------------------------------------------------------------------
def test_packed_molecules_are_selected_whole() -> None:
    sizes = torch.tensor([2, 1, 3])
    packed = Packed(
        torch.arange(18.0).view(6, 3), torch.tensor([1, 6, 1, 8, 1, 1]), torch.arange(6), sizes,
        ["a", "b", "c"], {"p": torch.tensor([0.5, 1.5, 2.5])},
    )  # fmt: skip
    chosen = packed.select(torch.tensor([2, 0]))
    assert chosen.charge.tolist() == [3, 4, 5, 0, 1] and chosen.sizes.tolist() == [3, 2]
    assert chosen.smiles == ["c", "a"] and chosen.properties["p"].tolist() == [2.5, 0.5]
    heavy = packed.heavy()  # the second is hydrogen alone
    assert heavy.charge.tolist() == [1, 3] and heavy.smiles == ["a", "c"]
    centred = packed.centred().x
    assert centred[2].abs().max() == 0 and torch.allclose(centred[3:].mean(0), torch.zeros(3))
    kept = Packed.of_cache(packed.compact())
    assert torch.equal(kept.x, packed.x) and kept.smiles == packed.smiles
    assert torch.equal(kept.charge, packed.charge) and torch.equal(kept.sizes, sizes)
    assert torch.equal(kept.properties["p"], packed.properties["p"])


def test_nothing_but_hydrogen_is_an_error() -> None:
    class Hydrogen(MoleculeData):
        def parts(self) -> dict[str, Packed]:
            x, z = torch.tensor([[0.0, 0, 0], [0, 0, 0.74]]), torch.tensor([1, 1])
            one = Packed(x, z, torch.zeros(2).long(), torch.tensor([2]), [""])
            return {"train": one, "held_out": one}

    assert Hydrogen({}, hydrogens=True).facts["sizes"] == [[2, 1]]
    with pytest.raises(UserError, match="no molecule is left in the part train, held_out"):
        Hydrogen({}, hydrogens=False).train()


def test_facts_do_not_depend_on_the_number_of_threads() -> None:
    """They are compared with those of a run that goes on."""
    column = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) + 7
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(base_module._figures(column))
    torch.set_num_threads(before)
    assert found[0] == found[1] == found[2] and found[0]["mean"] == pytest.approx(7, abs=0.02)


def test_no_warning_from_reading(qm9: Qm9) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(Qm9, limit=3).train()
        make(Components, most=8).train()
