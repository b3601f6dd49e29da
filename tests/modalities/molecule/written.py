"""Molecules as files of structures, as their formats say, apart from the code that reads them."""

from pathlib import Path

import numpy as np
import pytest

from anylatent.modalities.molecule.elements import SYMBOLS
from anylatent.modalities.molecule.files import read_molecules
from anylatent.modalities.molecule.molecule import Molecule
from tests.modalities.molecule.test_binarycif import packed


def hetatm(serial, name, alt, position, element, occupancy=1.0, residue="LIG", seq=1):
    """A line of a PDB file."""
    x, y, z = position
    return (
        f"HETATM{serial:>5} {name:<4}{alt or ' '}{residue:>3} A{seq:>4}    "
        f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{0:6.2f}          {element.upper():>2}\n"
    )


def pdb_text(molecule):
    """The lines of all atoms."""
    rows = zip(molecule.z.tolist(), molecule.x.tolist(), strict=True)
    return "".join(
        hetatm(k, f"{SYMBOLS[z]}{k}", "", x, SYMBOLS[z]) for k, (z, x) in enumerate(rows, 1)
    )


COLUMNS = (
    "group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_seq_id "
    "Cartn_x Cartn_y Cartn_z occupancy pdbx_formal_charge pdbx_PDB_model_num"
).split()


def cif_row(k, symbol, position, charge="?", model=1, alt=".", name="", occupancy="1.00"):
    """A row of _atom_site."""
    x = " ".join(f"{value:.3f}" for value in position)
    label = f'"{name or symbol + str(k)}"'
    return f"HETATM {k} {symbol} {label} {alt} LIG A . {x} {occupancy} {charge} {model}"


def cif_of_rows(rows):
    head = "".join(f"_atom_site.{name}\n" for name in COLUMNS)
    about = "data_TEST\n#\n_entry.id TEST\n_struct.title\n;A title\nof two lines\n;\n#\n"
    return f"{about}loop_\n{head}" + "\n".join(rows) + "\n#\n"


def cif_text(molecules):
    """A data block with a model for each molecule."""
    rows = []
    for model, m in enumerate(molecules, 1):
        for z, x, q in zip(m.z.tolist(), m.x.tolist(), m.charge.tolist(), strict=True):
            rows.append(cif_row(len(rows) + 1, SYMBOLS[z], x, q or "?", model))
    return cif_of_rows(rows)


def _words(values):
    """A column of strings: each once, and which one a row has."""
    known = sorted(set(values))
    ends = np.cumsum([0, *(len(word) for word in known)]).astype("<i4")
    bytes_of = [{"kind": "ByteArray", "type": 3}]
    encoding = {
        "kind": "StringArray",
        "stringData": "".join(known),
        "offsets": ends.tobytes(),
        "offsetEncoding": bytes_of,
        "dataEncoding": bytes_of,
    }
    rows = np.array([known.index(value) for value in values], "<i4")
    return {"data": rows.tobytes(), "encoding": [encoding]}


def _numbers(values, kind="<i4", *encodings):
    code = {"<i4": 3, "<f8": 33}[kind]
    data = np.array(values, kind).tobytes()
    return {"data": data, "encoding": [*encodings, {"kind": "ByteArray", "type": code}]}


def bcif_bytes(molecules):
    """As `cif_text`, in binary: positions as whole thousandths, models as runs."""
    z, x, q, models, runs = [], [], [], 0, []
    for models, m in enumerate(molecules, 1):
        z += [SYMBOLS[n] for n in m.z.tolist()]
        x += m.x.tolist()
        q += m.charge.tolist()
        runs += [models, len(m)]
    fixed = {"kind": "FixedPoint", "factor": 1000, "srcType": 33}
    lengths = {"kind": "RunLength", "srcType": 3, "srcSize": len(z)}
    columns = {
        "type_symbol": _words(z),
        "label_atom_id": _words([f"{symbol}{k}" for k, symbol in enumerate(z, 1)]),
        "occupancy": _numbers([1.0] * len(z), "<f8"),
        "pdbx_formal_charge": _numbers(q),
        "pdbx_PDB_model_num": _numbers(runs, "<i4", lengths),
    }
    for axis, name in enumerate(("Cartn_x", "Cartn_y", "Cartn_z")):
        whole = [int(f"{row[axis]:.3f}".replace(".", "")) for row in x]
        columns[name] = _numbers(whole, "<i4", fixed)
    masks = {"pdbx_formal_charge": _numbers([2 * (charge == 0) for charge in q])}
    stored = [{"name": n, "data": d, "mask": masks.get(n)} for n, d in columns.items()]
    category = {"name": "_atom_site", "rowCount": len(z), "columns": stored}
    block = {"header": "TEST", "categories": [category]}
    return packed({"encoder": "test", "version": "0.3.0", "dataBlocks": [block]})


def only(path: Path, text: str) -> Molecule:
    """The one molecule of a good file."""
    path.write_text(text)
    (record,), problems = read_molecules(path)
    assert not problems
    return record.molecule


def refused(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_molecules(path)
    return str(error.value)
