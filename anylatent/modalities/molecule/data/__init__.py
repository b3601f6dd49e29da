"""Data sets of molecules: QM9, the components of the Protein Data Bank, and any folder."""

from anylatent.modalities.molecule.data.base import MoleculeData, MoleculeSet
from anylatent.modalities.molecule.data.components import Components
from anylatent.modalities.molecule.data.folder import MoleculeFolder
from anylatent.modalities.molecule.data.packed import Packed
from anylatent.modalities.molecule.data.qm9 import Qm9

__all__ = ["Components", "MoleculeData", "MoleculeFolder", "MoleculeSet", "Packed", "Qm9"]
