"""Tables of captions: rows with the name of a file and what is said of it."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from anylatent.modalities.image.data.decoding import SUFFIXES
from anylatent.modalities.shared.reading import lines_of
from anylatent.modalities.shared.report import Report, reason_of

TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
FILE = ("file_name", "filename", "file", "file_path", "image", "image_path", "img", "path", "name")
TEXT = ("text", "caption", "captions", "prompt", "description", "title")
"""The names of the two columns, the first that is there."""

_EXPECTED = ("metadata", "caption", "captions", "prompts")
_COLUMNS = "tables without the columns file_name and text"
_BAD = "lines that are no captions"


def is_table(path: Path, encoding: str) -> bool:
    """Whether a .txt or .json file that belongs to no picture is a table, by how it begins."""
    if path.suffix.lower() == ".json":
        return path.stem.lower() in _EXPECTED
    try:
        first = next((line for line, _ in lines_of(path, encoding) if line and line.strip()), "")
        names = _split(first)
    except (OSError, csv.Error):
        return False
    both = _column(names, FILE) is not None and _column(names, TEXT) is not None
    return both or _names_pictures(names[:1])


def caption_of(entry: object) -> str | None:
    """The caption of an entry of JSON: a text, the first of several, or under a usual name."""
    if isinstance(entry, Mapping):
        names = {str(name).strip().lower(): value for name, value in entry.items()}
        return next((caption_of(names[name]) for name in TEXT if name in names), None)
    if isinstance(entry, list):
        return caption_of(entry[0]) if entry else ""
    if isinstance(entry, str | int):
        return " ".join(str(entry).split())
    return None


def rows(path: Path, encoding: str, report: Report, place: str) -> Iterator[tuple[str, str]]:
    """Names of files, below the table's folder, and captions; the rest is noted in the report."""
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            found: Iterable[Mapping[str, Any]] = _parquet(path)
        elif kind == ".jsonl":
            found = _json_lines(_lines(path, encoding, report, place), report, place)
        elif kind == ".json":
            found = _json("\n".join(text for _, text in _lines(path, encoding, report, place)))
        else:
            found = _csv(text for _, text in _lines(path, encoding, report, place))
        yield from _pairs(found, path, report, place)
    except (OSError, ValueError, RecursionError, csv.Error, ImportError) as error:
        report.note("tables that can't be read", place, reason_of(error))


def _pairs(
    found: Iterable[Mapping[str, Any]], path: Path, report: Report, place: str
) -> Iterator[tuple[str, str]]:
    """Where no row has both columns, that is noted for a file that by its name, or by names of
    pictures in its first row, should."""
    any_row = bad = 0
    expected = path.stem.lower() in _EXPECTED
    for row in found:
        names = {str(name).strip().lower(): value for name, value in row.items()}
        file, text = (names.get(_column(names, wanted) or "") for wanted in (FILE, TEXT))
        caption = caption_of(text)
        if isinstance(file, str) and caption is not None:
            any_row += 1
            yield file, caption
        else:
            bad += 1
            expected = expected or _names_pictures(row)
    if bad and any_row:
        report.note(_BAD, place, f"{bad} rows without a file or a caption")
    elif not any_row and expected:
        report.note(_COLUMNS, place)


def _column(names: Iterable[str], wanted: Iterable[str]) -> str | None:
    there = [name.strip().lower() for name in names]
    return next((name for name in wanted if name in there), None)


def _names_pictures(names: Iterable[Any]) -> bool:
    """Whether what should be the names of columns are those of pictures: a table without a
    header."""
    return any(Path(str(name)).suffix.lower() in SUFFIXES for name in names)


# ---- kinds of tables ----------------------------------------------------------------------------
def _lines(path: Path, encoding: str, report: Report, place: str) -> Iterator[tuple[int, str]]:
    for number, (line, reason) in enumerate(lines_of(path, encoding), 1):
        if line is None:
            report.note("lines that are no text", f"{place}, line {number}", reason)
        elif line.strip():
            yield number, line


def _json_lines(
    lines: Iterable[tuple[int, str]], report: Report, place: str
) -> Iterator[Mapping[str, Any]]:
    for number, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            report.note(_BAD, f"{place}, line {number}", reason_of(error))
            continue
        yield row if isinstance(row, Mapping) else {}


def _json(text: str) -> Iterator[Mapping[str, Any]]:
    """A list of rows, or captions by the names of files."""
    found = json.loads(text)
    if isinstance(found, list):
        yield from (row if isinstance(row, Mapping) else {} for row in found)
    elif isinstance(found, Mapping):
        yield from ({FILE[0]: name, TEXT[0]: entry} for name, entry in found.items())


def _csv(lines: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    rest = iter(lines)
    first = next(rest, "")
    header = _split(first)
    if _names_pictures(header):  # it is a row like the others
        rest = chain([first], rest)
    for row in csv.reader((f"{line}\n" for line in rest), delimiter=_sign(first)):
        yield dict(zip(header, row, strict=False))


def _sign(header: str) -> str:
    """What parts the columns."""
    return max("\t,;|", key=header.count)


def _split(header: str) -> list[str]:
    return next(csv.reader([header], delimiter=_sign(header)), [])


def _parquet(path: Path) -> Iterable[Mapping[str, Any]]:
    """Needs pyarrow, or pandas with an engine of its own."""
    for name, read in (("pyarrow.parquet", _by_arrow), ("pandas", _by_pandas)):
        try:
            package = importlib.import_module(name)
        except ImportError:
            continue
        try:
            return read(package, path)
        except Exception as error:  # both have errors of many kinds
            raise ValueError(reason_of(error)) from error
    raise ImportError("it needs the package pyarrow, which is not installed")


def _by_arrow(package: Any, path: Path) -> Iterable[Mapping[str, Any]]:
    return list(package.read_table(path).to_pylist())


def _by_pandas(package: Any, path: Path) -> Iterable[Mapping[str, Any]]:
    return list(package.read_parquet(path).to_dict("records"))
