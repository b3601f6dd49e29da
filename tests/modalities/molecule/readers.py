"""Files of molecules as other programs read them: by RDKit, whatever their valences."""

from rdkit import Chem


def _sdf(path):
    (found,) = Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False)
    assert found is not None and found.GetNumAtoms(), f"RDKit finds no molecule in {path.name}"


def _xyz(path):
    found = Chem.MolFromXYZFile(str(path))
    assert found is not None and found.GetNumAtoms(), f"RDKit finds no molecule in {path.name}"


READERS = {".sdf": _sdf, ".xyz": _xyz}
