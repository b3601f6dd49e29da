"""Pictures of molecules: 2D drawings, ball-and-stick pictures, and sheets of both.

Whatever a half-trained network makes can be drawn: atoms that are nowhere are left out and
counted in the caption, and what is no molecule is shown in space alone, as "invalid".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from anylatent.modalities.molecule.files import formula
from anylatent.modalities.molecule.molecule import Molecule
from anylatent.modalities.molecule.render import ball_and_stick, present, principal_view
from anylatent.modalities.shared.chemistry import chemistry, drawing, quiet
from anylatent.modalities.shared.sheets import BAD, FAINT, TEXT, Sheet, zoom

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont
    from rdkit.Chem import Mol

_WIDTH, _FLAT, _SOLID, _CAPTION = 220, 170, 190, 26  # pixels of a cell
_USUAL_PIXELS = 1.6e6  # of a sheet
_LARGEST_PERCEIVED = 100  # atoms: beyond, RDKit's perception is not asked
_NOTHING = Molecule(torch.zeros(0, 3), torch.zeros(0).long(), torch.zeros(0).long())


@dataclass(frozen=True)
class Cell:
    """One molecule on a sheet: pictures one below the other, and a caption."""

    pictures: tuple[Image.Image, ...]
    caption: str
    remark: str = ""


def sheet(
    molecules: Sequence[Molecule], columns: int | None = None, labels: Sequence[str] = ()
) -> Image.Image:
    """2D drawings without hydrogen, the formula below; see `perceived` for the bonds.

    A molecule without valid bonds is shown in space, framed, as "invalid". `labels` are written
    left of the rows.
    """
    width, height = _sized(len(molecules), _WIDTH, _FLAT)
    cells = []
    for molecule in molecules:
        drawn, remark = _drawn(molecule, width, height)
        cells.append(Cell((drawn or _framed(molecule, width, height),), formula(molecule), remark))
    return arrange(cells, columns, labels)


def picture_3d(
    molecules: Sequence[Molecule],
    columns: int | None = None,
    labels: Sequence[str] = (),
    like: Sequence[Molecule] | None = None,
) -> Image.Image:
    """Ball-and-stick pictures with the bonds of the distance table, from their widest side.

    `like`: as many molecules, from whose sides these are seen; for a comparison in one frame.
    """
    size = _sized(len(molecules), _WIDTH, _SOLID)
    cells = [
        Cell((ball_and_stick(molecule, *size, principal_view(other)),), *_words(molecule))
        for molecule, other in zip(molecules, like or molecules, strict=True)
    ]
    return arrange(cells, columns, labels)


def cards(
    molecules: Sequence[Molecule], columns: int | None = None, labels: Sequence[str] = ()
) -> Image.Image:
    """Each molecule as a ball-and-stick picture above its 2D drawing."""
    width, height = _sized(len(molecules), _WIDTH, _SOLID + _FLAT)
    flat = round(height * _FLAT / (_SOLID + _FLAT))
    cells = []
    for molecule in molecules:
        drawn, remark = _drawn(molecule, width, flat)
        solid = ball_and_stick(molecule, width, height - flat)
        below = drawn or _framed(None, width, flat)
        cells.append(Cell((solid, below), formula(molecule), remark))
    return arrange(cells, columns, labels)


def comparison(originals: Sequence[Molecule], outputs: Sequence[Molecule]) -> Image.Image:
    """In space, up to eight to a row, each row of originals above that of their outputs.

    Both are seen from the side of the original, so that they lie in one frame.
    """
    if len(originals) != len(outputs):
        raise ValueError(f"{len(originals)} originals, but {len(outputs)} outputs")
    columns = min(8, len(originals))
    shown, like, labels = list[Molecule](), list[Molecule](), list[str]()
    for start in range(0, len(originals), columns or 1):
        part = slice(start, start + columns)
        filler = [_NOTHING] * (columns - len(originals[part]))
        shown += [*originals[part], *filler, *outputs[part], *filler]
        like += [*originals[part], *filler, *originals[part], *filler]
        labels += ["data", "restored"]
    return picture_3d(shown, columns, labels, like)


def _sized(count: int, width: int, height: int) -> tuple[int, int]:
    """Width and height of a cell: twice as large where there are few, smaller on huge sheets."""
    factor = zoom(count, width, height, _USUAL_PIXELS, 2.0)
    return max(32, round(width * factor)), max(32, round(height * factor))


# ---- one molecule -----------------------------------------------------------------------------
def perceived(molecule: Molecule) -> tuple[Mol | None, str]:
    """The Mol to draw, if any, and a remark.

    Its bonds are those of the distance table where these fill all valences, or where there is no
    hydrogen, which is then taken to be left out. Else, as in benzene, whose bonds are single ones
    to the table, they are those that RDKit perceives, and the remark says so. Where it finds none,
    or needs several pieces or charges far apart, they are the table's again, with open valences, or
    there is no Mol: "invalid".
    """
    from anylatent.modalities.molecule.perception import mol_by_rdkit, mol_by_table

    table = mol_by_table(molecule)
    bare = not bool((molecule.z == 1).any())
    if table is not None and (bare or not any(a.GetTotalNumHs() for a in table.GetAtoms())):
        return table, ""
    mol = mol_by_rdkit(molecule) if len(molecule) <= _LARGEST_PERCEIVED else None
    if mol is not None and _plausible(mol, molecule):
        return mol, "RDKit's bonds"
    return table, "invalid" if table is None else "valences open"


def _plausible(mol: Mol, molecule: Molecule) -> bool:
    """One piece, whose charges are known or cancel along a bond, as in a nitro group."""
    if len(chemistry().GetMolFrags(mol)) > 1:
        return False
    for atom, known in zip(mol.GetAtoms(), molecule.charge.tolist(), strict=True):
        charge = atom.GetFormalCharge()
        cancelled = any(charge * other.GetFormalCharge() < 0 for other in atom.GetNeighbors())
        if charge not in (0, known) and not cancelled:
            return False
    return True


def _drawn(molecule: Molecule, width: int, height: int) -> tuple[Image.Image | None, str]:
    """The 2D drawing, None where there is nothing to draw, and what to remark."""
    caption, lost = _words(molecule)
    if lost or not caption:
        return None, ", ".join(filter(None, ["invalid", lost]))
    mol, remark = perceived(molecule)
    if mol is None:
        return None, remark
    pieces = len(chemistry().GetMolFrags(mol))
    remark = ", ".join(filter(None, [remark, f"{pieces} pieces" if pieces > 1 else ""]))
    try:
        return depiction(mol, width, height), remark
    except (ValueError, RuntimeError):  # of RDKit: no layout, or a broken invariant
        return None, remark


def _words(molecule: Molecule) -> tuple[str, str]:
    """The formula, and how many atoms are nowhere."""
    count = len(molecule) - len(present(molecule))
    return formula(molecule), f"{count} of {len(molecule)} atoms lost" if count else ""


def depiction(mol: Mol, width: int, height: int) -> Image.Image:
    """A 2D drawing on white of a molecule with bonds; hydrogen is left out where it can be."""
    from rdkit.Chem import rdDepictor

    with quiet():
        mol = chemistry().Mol(mol)
        chemistry().AssignStereochemistryFrom3D(mol)
        mol = chemistry().RemoveHs(mol)
    mol.RemoveAllConformers()
    rdDepictor.Compute2DCoords(mol, useRingTemplates=True)
    rdDepictor.NormalizeDepiction(mol)
    rdDepictor.StraightenDepiction(mol)
    factor = width / _WIDTH
    options = {
        "fixedBondLength": 56 * factor,
        "bondLineWidth": max(1, round(3 * factor)),
        "minFontSize": round(10 * factor),
        "maxFontSize": round(34 * factor),
        "padding": 0.07,
    }
    return drawing(mol, width, height, options)


def _framed(molecule: Molecule | None, width: int, height: int) -> Image.Image:
    """In place of a 2D drawing: a frame with the molecule in space, or with words."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (width, height), "white")
    if molecule is not None:
        picture.paste(ball_and_stick(molecule, width - 12, height - 12), (6, 6))
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((3, 3, width - 4, height - 4), 6, outline=BAD)
    if molecule is None:
        font = ImageFont.load_default(size=max(8, width // 16))
        draw.text((width / 2, height / 2), "no valid bonds", fill=FAINT, font=font, anchor="mm")
    return picture


# ---- the sheet --------------------------------------------------------------------------------
def arrange(
    cells: Sequence[Cell], columns: int | None = None, labels: Sequence[str] = ()
) -> Image.Image:
    """Cells of equal size in rows of `columns` (about square if not given), labelled on the left.

    Raises ValueError without a cell.
    """
    from PIL import ImageFont

    if not cells:
        raise ValueError("a sheet needs at least one molecule, got none")
    width = cells[0].pictures[0].width + 8
    caption = max(12, width * _CAPTION // _WIDTH)
    height = sum(picture.height for picture in cells[0].pictures) + caption + 8
    font = ImageFont.load_default(size=max(9, width // 14))
    whole = Sheet(len(cells), (width, height), columns, labels, font)
    for index, cell in enumerate(cells):
        left, top = whole.corner(index)
        below = top + 4
        for picture in cell.pictures:
            whole.image.paste(picture, (left + 4, below))
            below += picture.height
        _write(whole.draw, cell, left + width / 2, below + caption / 2, width - 10, caption)
    return whole.image


def _write(
    draw: ImageDraw.ImageDraw, cell: Cell, x: float, y: float, width: float, height: int
) -> None:
    """The formula with lowered numbers and a raised charge, then the remark; centred on (x, y)."""
    pieces = _pieces(cell.caption)
    if cell.remark:
        bad = "invalid" in cell.remark or "lost" in cell.remark
        pieces.append(("   " + cell.remark, 0, BAD if bad else FAINT))
    size = max(8, round(height * 0.56))
    length = sum(_font(size, shift).getlength(text) for text, shift, _ in pieces)
    size = max(6, min(size, int(0.95 * size * width / max(length, 1))))
    left = x - sum(_font(size, shift).getlength(text) for text, shift, _ in pieces) / 2
    for text, shift, colour in pieces:
        font = _font(size, shift)
        draw.text((left, y + size * (0.36 + 0.2 * shift)), text, colour, font, "ls")
        left += font.getlength(text)


def _font(size: int, shift: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    font = ImageFont.load_default(size=size * (0.72 if shift else 1.0))
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _pieces(text: str) -> list[tuple[str, int, str]]:
    """Runs of a formula with their shift: 1 for lowered numbers, -2 for the raised charge."""
    charge = re.search(r"([+-])(\d*)$", text)
    body = text[: charge.start()] if charge else text
    runs = [(run, int(run.isdigit()), TEXT) for run in re.findall(r"\d+|\D+", body)]
    return [*runs, (charge[2] + charge[1].replace("-", "−"), -2, TEXT)] if charge else runs
