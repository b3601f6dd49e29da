"""Molecules of mmCIF files, as text and in binary: structures and chemical components.

`_atom_site` has the atoms of a structure, model by model, of whose alternate locations one is
taken; `_chem_comp_atom` those of components, in ideal coordinates where all atoms have them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from anylatent.modalities.molecule.files.alternates import Site, taken
from anylatent.modalities.molecule.files.records import (
    BadRecord,
    Parsed,
    atomic_number,
    checked,
    number,
    short,
)
from anylatent.modalities.molecule.molecule import Molecule

Rows = list[Mapping[str, str]]
Category = Mapping[str, Sequence[str]]
"""Columns by name; what is unknown or does not apply is ""."""
Block = Mapping[str, Category]
"""Categories by name, without the underscore."""


class Entry(NamedTuple):
    """The atoms of a model or component, or why there are none."""

    title: str
    rows: Rows
    problem: str = ""


_IDEAL, _MODEL = "pdbx_model_Cartn_{}_ideal", "model_Cartn_{}"


def entries(blocks: Sequence[tuple[str, Block]]) -> Iterator[Entry]:
    """The models and components of the blocks of a file."""
    for title, block in blocks:
        if "atom_site" in block:
            yield from _grouped(block["atom_site"], "pdbx_PDB_model_num", "")
        elif "chem_comp_atom" in block:
            yield from _grouped(block["chem_comp_atom"], "comp_id", title)
        elif any(name.startswith("atom_site_") for name in block):
            yield Entry(title, [], "a crystal in fractional coordinates; wanted mmCIF, in Å")
        elif len(blocks) == 1:
            yield Entry(title, [], "no atoms: neither _atom_site nor _chem_comp_atom")


def parse(entry: Entry) -> Parsed:
    """The atoms of a model or component; raises BadRecord."""
    if entry.problem or not entry.rows:
        raise BadRecord(entry.problem or "no atoms")
    rows, columns = entry.rows, _positions(entry.rows)
    if "Cartn_x" in columns:
        rows = [rows[place] for place in taken([_site(row) for row in rows])]
    x = [[_value(row, name) for name in columns] for row in rows]
    z = [atomic_number(row.get("type_symbol", "")) for row in rows]
    charge = [_charge(row) for row in rows]
    positions = torch.tensor(x, dtype=torch.float64)
    molecule = Molecule(positions, torch.tensor(z), torch.tensor(charge))
    return Parsed(entry.title, checked(molecule))


def _grouped(category: Category, by: str, title: str) -> Iterator[Entry]:
    """The rows of a category, apart where the column `by` has another value."""
    lengths = {len(column) for column in category.values()}
    if len(lengths) > 1:
        yield Entry(title, [], f"its columns are of {min(lengths)} to {max(lengths)} rows")
        return
    names = list(category)
    groups: dict[str, Rows] = {}
    for values in zip(*category.values(), strict=True):
        row = dict(zip(names, values, strict=True))
        groups.setdefault(row.get(by, ""), []).append(row)
    for name, rows in groups.items():
        yield Entry(title if len(groups) == 1 else (name if title else ""), rows)


def _positions(rows: Rows) -> list[str]:
    """The names of the columns of positions; ideal ones where each atom has them."""
    ideal, model = ([form.format(axis) for axis in "xyz"] for form in (_IDEAL, _MODEL))
    if all(row.get(name) for row in rows for name in ideal):
        return ideal
    cartesian = [f"Cartn_{axis}" for axis in "xyz"]
    for names in (cartesian, model):
        if any(name in rows[0] for name in names):
            return names
    kind = "fractional coordinates" if "fract_x" in rows[0] else "no positions"
    raise BadRecord(f"{kind}: wanted {', '.join(cartesian)}, in Å")


def _value(row: Mapping[str, str], name: str) -> float:
    """A coordinate, whose uncertainty may stand behind it in brackets: 1.23(4)."""
    text = row.get(name, "")
    head, bracket, tail = text.partition("(")
    found = number(head if bracket and tail.rstrip(")").isdigit() else text)
    if found is None:
        label = row.get("label_atom_id") or row.get("atom_id") or row.get("id") or "?"
        raise BadRecord(f"atom {short(label)} has no position: {name} is '{short(text)}'")
    return found


def _charge(row: Mapping[str, str]) -> int:
    text = row.get("pdbx_formal_charge") or row.get("charge") or "0"
    found = number(text)
    if found is None or not (abs(found) <= 20 and found == int(found)):
        raise BadRecord(f"'{short(text)}' is no formal charge")
    return int(found)


def _site(row: Mapping[str, str]) -> Site:
    """By the names of the authors where there are some, as residues of waters have no others."""

    def one(name: str) -> str:
        return row.get(f"auth_{name}") or row.get(f"label_{name}", "")

    letter, text = row.get("label_alt_id", ""), row.get("occupancy") or "1"
    occupancy = number(text.partition("(")[0])
    if letter and (occupancy is None or occupancy != occupancy):
        raise BadRecord(f"an alternate location, but '{short(text)}' is no occupancy")
    chain = row.get("label_asym_id") or one("asym_id")
    place = (chain, one("asym_id"), one("seq_id"), row.get("pdbx_PDB_ins_code", ""))
    return Site(place, one("comp_id"), one("atom_id"), letter, occupancy or 0.0)
