"""Molecules from files, SDF, MOL, XYZ, PDB and mmCIF, and to SDF and XYZ. Positions are in Å.

RDKit reads SDF, MOL and PDB, and writes SDF.
"""

from anylatent.modalities.molecule.files.reading import SUFFIXES, Reading, read, read_molecules
from anylatent.modalities.molecule.files.records import Record
from anylatent.modalities.molecule.files.rules import Rules
from anylatent.modalities.molecule.files.writing import (
    formula,
    symbols,
    write_sdf,
    write_xyz,
)

__all__ = [
    "SUFFIXES",
    "Reading",
    "Record",
    "Rules",
    "formula",
    "read",
    "read_molecules",
    "symbols",
    "write_sdf",
    "write_xyz",
]
