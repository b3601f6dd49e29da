"""What is asked of RDKit by more than one modality."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from anylatent.core.support.packages import MissingPackage

if TYPE_CHECKING:
    from PIL import Image


def chemistry(purpose: str = "reading, writing and drawing molecules") -> Any:
    """RDKit's `Chem`, or an error that says how to get it."""
    try:
        from rdkit import Chem
    except ImportError as error:
        raise MissingPackage("rdkit", purpose) from error
    return Chem


def quiet() -> Any:
    """Holds back what RDKit prints: it goes past Python to the terminal."""
    chemistry()
    from rdkit import rdBase

    return rdBase.BlockLogs()


def drawing(mol: Any, width: int, height: int, options: Mapping[str, float]) -> Image.Image:
    """A Mol with a layout in the plane, on white, half as fine as it is drawn.

    `options` are those of RDKit's drawer, in pixels of the finer drawing.
    """
    from PIL import Image
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DCairo(2 * width, 2 * height)
    for name, value in options.items():
        setattr(drawer.drawOptions(), name, value)
    drawer.DrawMolecule(mol)
    drawer.FinishDrawing()
    picture = Image.open(io.BytesIO(drawer.GetDrawingText())).convert("RGB")
    return picture.resize((width, height), Image.Resampling.LANCZOS)
