"""SMILES of QM9 (Ramakrishnan et al. 2014, doi 10.1038/sdata.2014.22) from `qm9pack`."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import package_version
from anylatent.modalities.shared import qm9
from anylatent.modalities.text.chemistry import CLASSES, chemistry, classes_of, parse
from anylatent.modalities.text.data.base import TextData
from anylatent.modalities.text.data.documents import Documents

_PURPOSE = "the data set 'smiles'"


class Smiles(TextData):
    """The molecules of QM9 as strings: up to 9 atoms of C, N, O and F, a token per symbol.

    `gap`, between the frontier orbitals in eV, is a column. With RDKit the strings are canonical,
    each molecule occurs once, what RDKit calls no molecule is left out and counted, and there are
    the classes `rings` and `hetero` (atoms of N, O or F), each 0, 1, 2, "3 or more", and
    `aromatic` (no, yes). Without it the strings are QM9's own and have no classes. `limit` keeps
    only the first so many (0: all). `longest` and `truncate`: see `TextData`.

    Raises `MissingPackage` without `qm9pack`, UserError for wrong settings.
    """

    kind: ClassVar[str] = "smiles"

    def __init__(self, *, longest: int = 64, truncate: bool = False, limit: int = 0) -> None:
        if limit < 0:
            raise UserError(f"limit={limit}: a number of molecules is wanted, 0 for all")
        self.chemical = importlib.util.find_spec("rdkit") is not None
        self.classes: Mapping[str, Sequence[str]] = CLASSES if self.chemical else {}
        versions = [f"{name} {package_version(name)}" for name in ("qm9pack", "rdkit")]
        self._source = {"made by": [*versions, "1"]}
        self.limit = limit
        super().__init__({**self._source, "limit": limit}, 256, longest, truncate)
        qm9.check(_PURPOSE)

    def documents(self) -> Documents:
        read = _canonical if self.chemical else _plain
        every = Documents.of_cache(cached("smiles", self._source, lambda: read().compact()))
        if not self.limit:
            return every
        kept = slice(self.limit)
        columns = {name: column[kept] for name, column in every.columns.items()}
        return Documents(every.texts[kept], columns, every.left_out)


def _canonical() -> Documents:
    """Each molecule once, with its classes."""
    found: dict[str, tuple[float, dict[str, int]]] = {}
    left_out: Counter[str] = Counter()
    write = chemistry().MolToSmiles
    for smiles, gap in _rows():
        mol = parse(smiles)
        if mol is None:
            left_out["no_molecule"] += 1
            continue
        text = str(write(mol))
        if text in found:
            left_out["duplicate"] += 1
        else:
            found[text] = gap, classes_of(mol)
    classes = {name: [row[name] for _, row in found.values()] for name in CLASSES}
    return Documents(list(found), {**classes, "gap": [gap for gap, _ in found.values()]}, left_out)


def _plain() -> Documents:
    """The strings as they are, each once."""
    every = list(_rows())
    found = {smiles: gap for smiles, gap in reversed(every)}  # the first of a string stays
    missing = len(every) - len(found)
    left_out = {"duplicate": missing} if missing else {}
    texts = list(reversed(found))
    return Documents(texts, {"gap": [found[text] for text in texts]}, left_out)


def _rows() -> Iterator[tuple[str, float]]:
    """SMILES and gap in eV, in the order of the files."""
    for row in qm9.rows(_PURPOSE, "reading SMILES of QM9"):
        yield row["SMILES"], float(row["HOMO_LUMO_gap_au"]) * qm9.HARTREE
