"""The molecule modality: batches, sizes, data space, files, pictures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

import anylatent as al
from anylatent.core.registry.part import Part
from anylatent.core.support.files import UserError
from anylatent.modalities.molecule.files import read_molecules
from anylatent.modalities.molecule.modality import MoleculeModality
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules
from tests.modalities.molecule.readers import READERS

ELEMENTS, CHARGES = ("H", "C", "N", "O"), (-1, 0, 1)
SIZES = [[3, 10], [5, 60], [9, 25], [12, 5]]
SMILES = ("CCO", "C[C@H]([NH3+])C(=O)[O-]", "O", "c1ccccc1")


@pytest.fixture
def modality():
    return MoleculeModality(ELEMENTS, CHARGES, SIZES)


@pytest.fixture(scope="module")
def items(build):
    found = []
    for smiles in SMILES:
        molecule, _ = build(smiles)
        places = [[1, 6, 7, 8].index(number) for number in molecule.z.tolist()]
        found.append(
            {
                "x": molecule.x,
                "element": torch.tensor(places),
                "charge": molecule.charge,
                "atoms": len(molecule),
                "smiles": smiles,
                "gap": 0.1 * len(molecule),
            }
        )
    return found


class Tiny(al.Data):
    """As many items to learn from as are given."""

    classes, shape = {}, ()

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items

    @property
    def fingerprint(self) -> str:
        return "tiny"

    def train(self) -> Dataset[dict[str, Any]]:
        return self.items  # type: ignore[return-value]

    def held_out(self) -> Dataset[dict[str, Any]]:
        return self.items[:1]  # type: ignore[return-value]


def test_settings_are_those_alone_that_a_user_may_choose():
    settings = Part("modality", "molecule", MoleculeModality).settings()
    assert {name: default for name, (_, default) in settings.items()} == {
        "rotate": False,
        "feature_std": 0.08,
        "charge_scale": 0.4,
    }


@pytest.mark.parametrize("rotate", (False, True))
def test_the_public_contract(rotate, items):
    modality = MoleculeModality(ELEMENTS, CHARGES, SIZES, rotate=rotate)
    al.testing.check_modality(modality, Tiny(items), modality.data_space.spec, READERS)


# ---- batches ----------------------------------------------------------------------------------
def test_collate_pads_with_zero(modality, items):
    batch = modality.collate(items)
    assert batch["atoms"].tolist() == [9, 13, 3, 12] and batch["atoms"].dtype == torch.long
    assert batch["x"].shape == (4, 13, 3) and batch["x"].dtype == torch.float32
    assert batch["mask"].sum(1).tolist() == [9, 13, 3, 12]
    assert batch["smiles"] == list(SMILES)
    assert batch["gap"].dtype == torch.float32 and batch["gap"].shape == (4,)
    for i, item in enumerate(items):
        n = item["atoms"]
        for name in ("x", "element", "charge"):
            assert torch.equal(batch[name][i, :n], item[name])
            assert not bool(batch[name][i, n:].any())
            assert batch[name].dtype == item[name].dtype
        assert bool(batch["mask"][i, :n].all()) and not bool(batch["mask"][i, n:].any())


def test_originals_are_the_items(modality, items):
    outputs = modality.originals(modality.collate(items))
    for item, molecule in zip(items, outputs, strict=True):
        assert torch.equal(molecule.x, item["x"]) and torch.equal(molecule.charge, item["charge"])
        assert molecule.z.tolist() == [[1, 6, 7, 8][e] for e in item["element"].tolist()]
    both = Molecules.join([outputs, outputs[:1]])
    assert isinstance(both, Molecules) and both.sizes.tolist() == [9, 13, 3, 12, 9]


def test_turning_keeps_distances_and_mirrors_half(items):
    modality = MoleculeModality(ELEMENTS, CHARGES, SIZES, rotate=True)
    x = items[1]["x"]
    batch = modality.collate([items[1]] * 600)
    turned = modality.augment(batch, al.Noise.of(1, 600))
    assert set(turned) == set(batch) and torch.equal(turned["element"], batch["element"])
    assert torch.allclose(torch.cdist(turned["x"], turned["x"]), torch.cdist(x, x), atol=1e-4)
    turns = torch.linalg.lstsq(x.expand(600, -1, -1), turned["x"]).solution
    mirrored = (torch.linalg.det(turns) < 0).double().mean()
    assert abs(float(mirrored) - 0.5) < 4 * 0.5 / 600**0.5
    for entry in turns.flatten(1).T:  # of a uniform one: mean 0, mean square 1/3
        assert abs(float(entry.mean())) < 4 * (1 / 3 / 600) ** 0.5
        assert abs(float(entry.square().mean()) - 1 / 3) < 4 * (4 / 45 / 600) ** 0.5


def test_turning_a_sample_does_not_depend_on_neighbours_or_padding(items):
    modality = MoleculeModality(ELEMENTS, CHARGES, SIZES, rotate=True)
    joint = modality.augment(modality.collate(items), al.Noise.of(3, 4))
    for i, item in enumerate(items):
        alone = modality.augment(modality.collate([item]), al.Noise.of(3, [i]))
        n = item["atoms"]
        assert torch.equal(joint["x"][i, :n], alone["x"][0])
        assert not bool(joint["x"][i, n:].any())
    off = MoleculeModality(ELEMENTS, CHARGES, SIZES)
    assert torch.equal(
        off.augment(modality.collate(items), al.Noise.of(3, 4))["x"][0, :9], items[0]["x"]
    )


# ---- sizes ------------------------------------------------------------------------------------
def test_sizes_drawn_follow_the_histogram(modality):
    count = 4000
    blank = modality.sizes.blank(modality.data_space.spec, al.Noise.of(0, count), {})
    drawn = blank.lengths("x")
    assert torch.equal(drawn, blank.lengths("h"))
    observed = torch.tensor([int((drawn == n).sum()) for n, _ in SIZES]).double()
    expected = torch.tensor([share for _, share in SIZES]).double() * count / 100
    assert int(observed.sum()) == count
    chi_square = float(((observed - expected).square() / expected).sum())
    assert 0.07 < chi_square < 16.3  # 99.9 % of the law with three degrees of freedom; not too good


def test_the_size_of_a_sample_does_not_depend_on_its_neighbours(modality):
    spec, noise = modality.data_space.spec, al.Noise.of(5, 40)
    joint = modality.sizes.blank(spec, noise, {}).lengths("x").tolist()
    assert len(set(joint)) > 2
    after = noise.normal(2)
    for i in range(40):
        single = al.Noise.of(5, [i])
        assert modality.sizes.blank(spec, single, {}).lengths("x").tolist() == [joint[i]]
        assert torch.equal(single.normal(2)[0], after[i])
    some = [9 if i % 3 == 0 else None for i in range(40)]
    noise = al.Noise.of(5, 40)
    mixed = modality.sizes.blank(spec, noise, {"atoms": some}).lengths("x").tolist()
    assert mixed == [9 if i % 3 == 0 else n for i, n in enumerate(joint)]
    assert torch.equal(noise.normal(2), after)  # what follows is the same, asked or drawn
    noise = al.Noise.of(5, 40)
    modality.sizes.blank(spec, noise, {"atoms": [5] * 40})
    assert torch.equal(noise.normal(2), after)


@pytest.mark.parametrize("asked", ([4, 12, 3], torch.tensor([4, 12, 3]), (4.0, 12, "3")))
def test_sizes_asked_for(modality, asked):
    """Any in the range, also such as the training data lack."""
    blank = modality.sizes.blank(modality.data_space.spec, al.Noise.of(0, 3), {"atoms": asked})
    assert blank.lengths("x").tolist() == [4, 12, 3]
    assert blank["h"].shape == (3, 12, 5) and not bool(blank.norm().any())


@pytest.mark.parametrize(
    "wrong", (2, 13, 0, -5, 3.5, "many", True, float("nan"), float("inf"), [4])
)
def test_sizes_out_of_range_name_the_range(modality, wrong):
    with pytest.raises(UserError, match=r"cond\.atoms=.*3 to 12 atoms"):
        modality.sizes.blank(modality.data_space.spec, al.Noise.of(0, 2), {"atoms": [5, wrong]})


def test_the_largest_sizes(modality):
    """Those of the histogram's end, unless smaller ones are asked for."""
    spec, most = modality.data_space.spec, max(size for size, _ in SIZES)
    found = modality.sizes.largest(spec, 3, {"atoms": [None, 5, None]})
    assert found.lengths("x").tolist() == [most, 5, most]
    with pytest.raises(UserError, match="sizes of the training data are unknown"):
        MoleculeModality(ELEMENTS).sizes.largest(spec, 1, {})


def test_sizes_without_a_histogram(items):
    modality = MoleculeModality(ELEMENTS)
    spec = modality.data_space.spec
    with pytest.raises(UserError, match=r"give cond\.atoms"):
        modality.sizes.blank(spec, al.Noise.of(0, 1), {})
    assert modality.sizes.blank(spec, al.Noise.of(0, 1), {"atoms": [77]}).lengths("x").tolist() == [
        77
    ]
    with pytest.raises(UserError, match="1 or more"):
        modality.sizes.blank(spec, al.Noise.of(0, 1), {"atoms": [0]})
    with pytest.raises(UserError, match="3 values for 2 samples"):
        modality.sizes.blank(spec, al.Noise.of(0, 2), {"atoms": [1, 2, 3]})


# ---- data space -------------------------------------------------------------------------------
def test_lifted_and_lowered_molecules_are_the_same(modality, items):
    batch = modality.collate(items)
    z = modality.data_space.lift(batch)
    assert z.spec == modality.data_space.spec and al.testing.in_subspace(z)
    assert z["h"].shape == (4, 13, 5)
    assert torch.equal(z["h"][..., :4].sum(-1), 1.0 * batch["mask"])
    assert z.spec.fields["h"].std == 0.08
    assert torch.allclose(z["h"][..., 4], 0.4 * batch["charge"])
    assert bool((z["h"][1, :, 4] != 0).any())
    for got, wanted in zip(modality.data_space.lower(z), modality.originals(batch), strict=True):
        assert torch.equal(got.z, wanted.z) and torch.equal(got.charge, wanted.charge)
        assert torch.allclose(got.x, wanted.x, atol=1e-6)


def test_lowering_takes_the_nearest(items):
    modality = MoleculeModality(("C", "O"), (-1, 0, 2), SIZES, charge_scale=0.5)
    blank = modality.data_space.spec.blank(1, [5])
    h = torch.tensor([[0.1, 0.2, -3], [0.5, 0.4, -0.2], [-1, -2, 0.45], [0, 9, 0.55], [2, 1, 7.0]])
    molecule = modality.data_space.lower(blank.replace(h=h[None]))[0]
    assert molecule.z.tolist() == [8, 6, 6, 8, 6]
    assert molecule.charge.tolist() == [-1, 0, 0, 2, 2]


def test_one_charge_takes_no_feature(items):
    modality = MoleculeModality(ELEMENTS, (0,), SIZES)
    batch = modality.collate([items[0], items[2]])
    z = modality.data_space.lift(batch)
    assert z["h"].shape == (2, 9, 4)
    for got, wanted in zip(modality.data_space.lower(z), modality.originals(batch), strict=True):
        assert torch.equal(got.z, wanted.z) and not bool(got.charge.any())


def test_lifting_commutes_with_permutation_and_does_not_see_padding(modality, items):
    double = [{**item, "x": item["x"].double()} for item in items]
    joint = modality.data_space.lift(modality.collate(double))
    assert joint.dtype == torch.float64
    for i, item in enumerate(double):
        order = torch.randperm(item["atoms"], generator=torch.Generator().manual_seed(i))
        other = {key: item[key][order] for key in ("x", "element", "charge")}
        alone = modality.data_space.lift(modality.collate([{**item, **other}]))
        for name in ("x", "h"):
            wanted = joint[name][i, : item["atoms"]][order]
            assert float((alone[name][0] - wanted).abs().max()) < 1e-14


def test_lifting_centres(modality, items):
    moved = [{**item, "x": item["x"] + torch.tensor([3.0, -2, 7])} for item in items]
    z = modality.data_space.lift(modality.collate(moved))
    assert al.testing.in_subspace(z)
    assert torch.allclose(z["x"], modality.data_space.lift(modality.collate(items))["x"], atol=1e-5)


def test_errors_of_construction():
    bare = MoleculeModality()  # every registered part constructs with its defaults
    assert bare.sizes.histogram == () and bare.asks == ["atoms", "fragment"]
    with pytest.raises(ValueError, match="build it from the data's facts"):
        _ = bare.data_space.spec
    with pytest.raises(ValueError, match="no elements: Qq, X"):
        MoleculeModality(("C", "Qq", "X"))
    with pytest.raises(UserError, match="feature_std=0 .* must be positive"):
        MoleculeModality(("C",), feature_std=0.0)


# ---- outputs ----------------------------------------------------------------------------------
def test_saved_files_hold_the_molecules(modality, items, tmp_path):
    outputs = modality.originals(modality.collate(items))
    names = [f"0_{i:05d}" for i in range(4)]
    paths = outputs.save(tmp_path / "new", names)
    assert sorted(paths) == sorted((tmp_path / "new").iterdir())
    assert {path.name for path in paths} == {
        f"{name}{end}" for name in names for end in (".sdf", ".xyz", "_rdkit.sdf")
    }
    for path in paths:
        ((title, molecule, smiles),), problems = read_molecules(path)
        wanted = outputs[names.index(path.stem.removesuffix("_rdkit"))]
        assert title == path.stem and not problems
        assert torch.equal(molecule.z, wanted.z)
        assert float((molecule.x - wanted.x).abs().max()) < 1e-4
        assert bool(smiles) == (path.suffix == ".sdf")
    text = {path.name: path.read_text() for path in paths}
    assert ">  <bonds>\ndistance table\n" in text["0_00001.sdf"]
    assert ">  <bonds>\nRDKit\n" in text["0_00001_rdkit.sdf"]
    perceived = [read_molecules(tmp_path / "new" / f"{n}_rdkit.sdf")[0][0].smiles for n in names]
    assert perceived == list(SMILES[:1]) + [perceived[1]] + list(SMILES[2:])
    assert perceived[1].replace("@@", "@") in ("C[C@H]([NH3+])C(=O)[O-]",)


def test_a_broken_sample_is_saved_and_takes_no_old_file_for_its_own(modality, build, tmp_path):
    good, _ = build("O")
    apart = Molecule(good.x * 40, good.z, good.charge)
    Molecules([good]).save(tmp_path, ["a"])
    assert (tmp_path / "a_rdkit.sdf").exists()
    paths = Molecules([apart]).save(tmp_path, ["a"])
    assert [path.name for path in paths] == ["a.sdf", "a.xyz"]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    lost = Molecule(good.x / 0, good.z, good.charge)
    paths = Molecules([lost]).save(tmp_path, ["b"])
    assert [path.name for path in paths] == ["b.sdf", "b.xyz"]
    with pytest.raises(ValueError, match="not finite"):
        read_molecules(tmp_path / "b.xyz")


def test_without_hydrogen_rdkit_is_not_asked(build, tmp_path):
    molecule, _ = build("CC#N")
    heavy = molecule.z != 1
    bare = [Molecule(molecule.x[heavy], molecule.z[heavy], molecule.charge[heavy])]
    paths = Molecules(bare, hydrogens=False).save(tmp_path, ["a"])
    assert [path.name for path in paths] == ["a.sdf", "a.xyz"]
    assert read_molecules(paths[0])[0][0].smiles == "CC#N"


def test_all_ways_to_molecules_say_whether_data_have_hydrogen():
    for elements in (("H", "C"), ("C", "N")):
        modality, has = MoleculeModality(elements, CHARGES, SIZES), "H" in elements
        mask = torch.ones(2, 3, dtype=torch.bool)
        zeros = torch.zeros(2, 3, dtype=torch.long)
        batch = {"x": torch.randn(2, 3, 3), "element": zeros, "charge": zeros, "mask": mask}
        made = modality.originals(batch)
        decoder = al.get("autoencoder", "geoldm")(elements, CHARGES, width=16, edge=8)
        z = modality.data_space.lift(batch)
        ways = [made, modality.data_space.lower(z), made[:1], made + made, made.to("cpu")]
        ways += [Molecules.join([made, made]), modality.given.complete(made, batch)]
        ways += [decoder.decode(decoder.encode(batch).mean)]
        assert [way.hydrogens for way in ways] == [has] * len(ways)


def test_pictures(modality, items):
    import numpy as np

    outputs = modality.originals(modality.collate(items))
    plain, labelled = outputs.show(2), outputs.show(2, ["first", "second"])
    assert labelled.width > plain.width and labelled.height == plain.height
    both = np.asarray(al.compare(outputs, outputs))
    half = (both.shape[0] - 1) // 2
    left = int(np.nonzero((both[2] < 230).any(1))[0][0])
    assert (both[2:half, left:] == both[half + 2 : -1, left:]).all()
