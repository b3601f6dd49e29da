"""Molecules from and to files: SDF, MOL, XYZ and PDB.

Positions are in Å. RDKit reads and writes everything but XYZ.
"""

from anylatent.modalities.molecule.files.reading import SUFFIXES, read_molecules
from anylatent.modalities.molecule.files.records import Record
from anylatent.modalities.molecule.files.writing import (
    formula,
    symbols,
    write_sdf,
    write_xyz,
)

__all__ = [
    "SUFFIXES",
    "Record",
    "formula",
    "read_molecules",
    "symbols",
    "write_sdf",
    "write_xyz",
]
