"""Pictures: spheres and sticks against geometry, captions, layout, and broken molecules."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anylatent.modalities.molecule import drawing
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.molecules import Molecules
from anylatent.modalities.molecule.render import (
    COLOURS,
    ball_and_stick,
    fitting_scale,
    present,
    principal_view,
)
from anylatent.modalities.shared import sheets

pytest.importorskip("rdkit", reason="rdkit is not installed")

FRONT = (torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))


def atoms(positions, numbers):
    z = torch.tensor(numbers)
    return Molecule(torch.tensor(positions, dtype=torch.float32), z, torch.zeros_like(z))


def pixels(molecule, view=FRONT, size=200, scale=40.0):
    return np.asarray(ball_and_stick(molecule, size, size, view, scale)).astype(int)


def hue(colour):
    """A colour without its brightness."""
    colour = np.asarray(colour, float)
    return colour / colour.sum()


def turned(molecule, seed):
    q, r = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)))
    q = q * r.diagonal().sign()
    q = q * q.det()  # a rotation
    return Molecule(molecule.x @ q.T, molecule.z, molecule.charge)


# ---- balls and sticks -------------------------------------------------------------------------
def test_a_ball_is_a_disc_of_its_radius_where_the_atom_is():
    seen = pixels(atoms([[1.0, 0.5, 3.0]], [6]))  # to the right, above
    rows, columns = np.nonzero((seen < 250).any(2))
    assert len(rows) == pytest.approx(np.pi * (0.40 * 40) ** 2, rel=0.06)
    assert columns.mean() == pytest.approx(99.5 + 40, abs=0.5)
    assert rows.mean() == pytest.approx(99.5 - 20, abs=0.5)


@pytest.mark.parametrize(("front", "back"), [(8, 7), (7, 8)])
def test_the_nearer_of_two_atoms_hides_the_other(front, back):
    seen = pixels(atoms([[0, 0, -2.0], [0, 0, 2.0]], [back, front]))
    assert np.abs(hue(seen[100, 100]) - hue(COLOURS[front])).max() < 0.06
    assert np.abs(hue(seen[100, 100]) - hue(COLOURS[back])).max() > 0.15


def test_balls_that_overlap_meet_half_way():
    seen = pixels(atoms([[-0.15, 0, 0], [0.15, 0, 0]], [8, 7]))
    for column, number in ((94, 8), (106, 7)):
        assert np.abs(hue(seen[100, column]) - hue(COLOURS[number])).max() < 0.06


def test_bonded_atoms_have_a_stick_in_two_colours_and_others_none():
    bonded = pixels(atoms([[-0.7, 0, 0], [0.7, 0, 0]], [6, 8]))
    for column, number in ((94, 6), (106, 8)):
        assert np.abs(hue(bonded[100, column]) - hue(COLOURS[number])).max() < 0.06
    apart = pixels(atoms([[-1.3, 0, 0], [1.3, 0, 0]], [6, 8]))
    assert (apart[:, 90:110] == 255).all()


@pytest.mark.parametrize(("distance", "order"), [(1.50, 1), (1.33, 2), (1.20, 3)])
def test_sticks_are_as_many_as_the_order_from_any_side(distance, order):
    pair = atoms([[-distance / 2, 0, 0], [distance / 2, 0, 0]], [6, 6])
    for seed in range(6):
        rotated = turned(pair, seed)
        seen = pixels(rotated, principal_view(rotated), scale=60.0)
        column = (seen[:, 100] < 235).any(1).astype(int)
        assert (np.diff(column) == 1).sum() == order


def test_the_widest_plane_is_seen_whichever_way_the_molecule_lies(build):
    benzene, _ = build("c1ccccc1")
    for seed in range(8):
        molecule = turned(benzene, seed)
        rotation, centre = principal_view(molecule)
        assert torch.allclose(rotation @ rotation.T, torch.eye(3).double(), atol=1e-6)
        assert float(rotation.det()) == pytest.approx(1)  # never a mirror image
        x = (molecule.x.double() - centre) @ rotation.T
        flat = torch.linalg.svd(x)[2][2]
        assert float(flat[2].abs()) > 0.94  # the ring faces the viewer but for the tilt
    hexane, _ = build("CCCCCC")
    molecule = turned(hexane, 3)
    rotation, centre = principal_view(molecule)
    spread = ((molecule.x.double() - centre) @ rotation.T).std(0)
    assert spread[0] > spread[1] and spread[0] > spread[2]


def test_a_mirror_image_is_drawn_as_one(build):
    molecule, _ = build("F[C@](Cl)(Br)C")
    mirrored = Molecule(molecule.x * torch.tensor([1.0, 1, -1]), molecule.z, molecule.charge)
    views = []
    for each in (molecule, mirrored):
        rotation, centre = principal_view(each)
        views.append((each.x.double() - centre) @ rotation.T)
    volumes = [torch.linalg.det(x[1:4] - x[0]) for x in views]
    assert float(volumes[0] * volumes[1]) < 0


def test_everything_fits_and_small_molecules_are_not_blown_up(build):
    for smiles in ("O", "CCCCCCCCCC", "c1ccccc1"):
        molecule, _ = build(smiles)
        seen = np.asarray(ball_and_stick(molecule, 160, 120))
        edge = np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]])
        assert (edge == 255).all() and (seen < 200).any()
    assert fitting_scale(np.zeros((1, 3)), 100, 100) == pytest.approx(21)
    assert fitting_scale(np.array([[9.5, 0, 0], [-9.5, 0, 0]]), 100, 100) == pytest.approx(4.7)


# ---- 2D ---------------------------------------------------------------------------------------
def test_bonds_of_the_drawing(build):
    from anylatent.modalities.molecule.perception import canonical

    for smiles, bonds in (("CCCCCC", ""), ("c1ccccc1", "RDKit's bonds"), ("C[N+](C)(C)C", "")):
        mol, remark = drawing.perceived(build(smiles)[0])
        assert (canonical(mol), remark) == (smiles, bonds)
    molecule, _ = build("CCO")
    heavy = molecule.z != 1
    bare = Molecule(molecule.x[heavy], molecule.z[heavy], molecule.charge[heavy])
    mol, remark = drawing.perceived(bare)  # hydrogen is taken to be left out
    assert (canonical(mol), remark) == ("CCO", "")
    open_valence = Molecule(molecule.x[:-1], molecule.z[:-1], molecule.charge[:-1])
    assert drawing.perceived(open_valence)[1] == "valences open"
    nitro = drawing.perceived(build("C[N+](=O)[O-]")[0])[0]
    assert canonical(nitro) == "C[N+](=O)[O-]"
    methanol, _ = build("CO")
    x = methanol.x.clone()
    x[-1] = x[1] + 3 * (x[-1] - x[1])  # RDKit would make a proton of it
    drifted = Molecule(x, methanol.z, methanol.charge)
    assert drawing.perceived(drifted)[1] == "valences open"
    crowd = atoms([[0, 0, 0], *np.eye(3).tolist(), *(-np.eye(3)).tolist()], [6] + [1] * 6)
    assert drawing.perceived(crowd) == (None, "invalid")


def test_a_drawing_has_the_colours_of_its_elements(build):
    picture = drawing.depiction(drawing.perceived(build("OCC#N")[0])[0], 200, 150)
    seen = np.asarray(picture).astype(int)
    assert seen.shape == (150, 200, 3)
    red, blue = seen[..., 0], seen[..., 2]
    assert ((red - blue) > 150).sum() > 20 and ((blue - red) > 150).sum() > 20
    assert (seen.max(2) < 60).sum() > 50
    assert (np.concatenate([seen[0], seen[-1], seen[:, 0], seen[:, -1]]) == 255).all()


# ---- sheets -----------------------------------------------------------------------------------
DRAW = pytest.mark.parametrize("name", ("sheet", "picture_3d", "cards"))


@DRAW
def test_rows_columns_and_labels(name, build):
    draw = getattr(drawing, name)
    molecules = Molecules([build("O")[0]] * 5)
    three, square = draw(molecules, 3), draw(molecules)
    assert square.size == three.size  # three columns, two rows
    row = draw(molecules, 5)
    assert row.width > 1.6 * three.width and row.height < 0.55 * three.height
    labelled = draw(molecules, 3, ["water", "and more"])
    margin = labelled.width - three.width
    assert labelled.height == three.height and margin > 20
    wide, narrow = np.asarray(labelled), np.asarray(three)
    assert (wide[:, margin:] == narrow).all()
    half = three.height // 2
    assert (wide[:half, : margin - 1] < 100).any() and (wide[half:, : margin - 1] < 100).any()
    cell = (three.width - 1) // 3
    assert (narrow[:half, :cell] == narrow[:half, cell : 2 * cell]).all()  # five equal cells
    assert (narrow[half + 2 :, 2 * cell + 2 :] == 255).all()  # and none


def test_captions_are_lowered_and_raised():
    text, faint = sheets.TEXT, -2
    assert drawing._pieces("C6H6") == [
        ("C", 0, text),
        ("6", 1, text),
        ("H", 0, text),
        ("6", 1, text),
    ]
    assert drawing._pieces("H4N+")[-2:] == [("N", 0, text), ("+", faint, text)]
    assert drawing._pieces("C2O4-2")[-2:] == [("4", 1, text), ("2−", faint, text)]
    assert drawing._pieces("") == []


def test_remarks_say_what_is_wrong(build):
    benzene, _ = build("c1ccccc1")
    x = benzene.x.clone()
    x[3], x[4, 1] = torch.nan, torch.inf
    lost = Molecule(x, benzene.z, benzene.charge)
    assert drawing._drawn(lost, 100, 100) == (None, "invalid, 2 of 12 atoms lost")
    assert len(present(lost)) == 10
    water, _ = build("O")
    both = Molecule(torch.cat([water.x, water.x + 9]), water.z.repeat(2), water.charge.repeat(2))
    drawn, remark = drawing._drawn(both, 100, 100)
    assert drawn is not None and remark == "2 pieces"


def broken():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=generator)
    z = torch.tensor([6, 6, 7, 8, 1, 1, 1, 1, 9, 16, 6, 1])
    q = torch.zeros(12, dtype=torch.long)
    hole, lost = x.clone(), x.clone()
    hole[4], lost[5] = torch.nan, torch.inf
    many = torch.randn(120, 3, generator=generator)
    return {
        "nan": Molecule(hole, z, q),
        "all nan": Molecule(torch.full_like(x, torch.nan), z, q),
        "infinite": Molecule(lost, z, q),
        "far": Molecule(x * 1e30, z, q),
        "stretched": Molecule(x * 300, z, q),
        "one place": Molecule(torch.zeros(12, 3), z, q),
        "one atom": Molecule(x[:1], z[:1], q[:1]),
        "one lost atom": Molecule(hole[4:5], z[:1], q[:1]),
        "no atom": Molecule(x[:0], z[:0], q[:0]),
        "unknown elements": Molecule(x, z + torch.tensor([-6, 200] + [0] * 10), q),
        "odd charges": Molecule(x, z, q + 7),
        "crowd": Molecule(many * 0.6, torch.full((120,), 6), torch.zeros(120).long()),
        "random": Molecule(x * 1.2, z, q),
        "pair": Molecule(x[:2] * 0, z[:2], q[:2]),
    }


@DRAW
@pytest.mark.parametrize("kind", broken())
def test_broken_molecules_are_drawn_beside_good_ones(name, kind, build, capfd):
    good, draw = build("CCO")[0], getattr(drawing, name)
    alone = np.asarray(draw(Molecules([good, good]), 2))
    seen = np.asarray(draw(Molecules([good, broken()[kind]]), 2))
    assert seen.shape == alone.shape
    half = seen.shape[1] // 2
    assert (seen[:, : half - 1] == alone[:, : half - 1]).all()  # its neighbour is as before
    if kind not in ("all nan", "one lost atom", "no atom", "far"):
        assert (seen[:-60, half + 8 : -8] < 240).any()  # something is there above the caption
    assert capfd.readouterr().err == ""


def test_a_sheet_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one molecule"):
        drawing.sheet(Molecules())


def test_a_huge_sheet_has_smaller_cells(monkeypatch):
    monkeypatch.setattr(sheets, "_MOST_PIXELS", 1e5)
    molecules = Molecules([atoms([[0.0, 0, 0]], [8])] * 25)
    for draw in (drawing.picture_3d, drawing.sheet, drawing.cards):
        picture = draw(molecules)
        assert picture.width * picture.height < 1.7e5


# ---- comparison -------------------------------------------------------------------------------
def test_a_reconstruction_is_seen_from_the_side_of_its_original(build):
    originals = Molecules([build(smiles)[0] for smiles in ("CCO", "c1ccccc1", "CC#N")])
    picture = drawing.comparison(originals, originals)
    seen = np.asarray(picture)
    half = (seen.shape[0] - 1) // 2
    left = np.nonzero((seen[2] < 230).any(1))[0][0]  # the frame of the first cell
    assert (seen[2:half, left:] == seen[half + 2 : -1, left:]).all()
    rotated = np.asarray(drawing.comparison(originals, Molecules(turned(m, 1) for m in originals)))
    assert (rotated[2:half, left:] == seen[2:half, left:]).all()
    for place, original in enumerate(originals):
        width, height = drawing._sized(6, drawing._WIDTH, drawing._SOLID)
        view = principal_view(original)
        wanted = np.asarray(ball_and_stick(turned(original, 1), width, height, view))
        corner = left + 4 + place * (width + 8)
        shown = rotated[half + 4 : half + 4 + height, corner : corner + width]
        assert (shown == wanted).all()


def test_ten_of_them_take_two_pairs_of_rows(build):
    ten = Molecules([build("O")[0]] * 10)
    eight, picture = drawing.comparison(ten[:8], ten[:8]), drawing.comparison(ten, ten)
    assert picture.width == pytest.approx(eight.width, rel=0.4)
    assert picture.height > 1.4 * eight.height
    with pytest.raises(ValueError, match="10 originals, but 9 outputs"):
        drawing.comparison(ten, ten[:9])
