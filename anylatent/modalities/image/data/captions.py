"""What files beside pictures, or films, say of them: a file for each, or a table for many."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from anylatent.modalities.image.data.tables import TABLES, caption_of, is_table, rows
from anylatent.modalities.shared.folder import Files
from anylatent.modalities.shared.reading import read_text
from anylatent.modalities.shared.report import Report, reason_of, shown

_SINGLE = (".txt", ".caption", ".json")
_ABOUT = ("readme", "license", "notes", "classes", "labels", "info", "about", "requirements")
_NO_TEXT = "captions that can't be read"
_OTHERWISE = "rows that contradict others, of which the first is taken"


class Captions:
    """The captions of the pictures, or films, `names` of a folder, "" where they are empty, None
    without any.

    A picture a.png has that of a.txt, a.caption or a.json (`caption` or `text`), or of a.png.txt,
    in any case; else that of the row with its path in a table (jsonl, csv, tsv, json, parquet) in
    its folder or above it: `file_name` and `text`, or other usual names. What is no caption, or of
    none of them, is noted in `report`, which says what they are.
    """

    def __init__(self, files: Files, encoding: str, report: Report) -> None:
        self._root, self._names, self._report = files.root, files.names, report
        self._encoding, self._stems = encoding, {name.stem for name in files.names}
        self._all, self._said = f"the {report.what}", dict[Path, str]()
        for path in self._single(files.others):
            self._table(path)

    def __getitem__(self, name: Path) -> str | None:
        return self._said.get(name)

    def __len__(self) -> int:
        return len(self._said)

    # ---- a file for each picture --------------------------------------------------------------
    def _single(self, others: Sequence[Path]) -> list[Path]:
        """Reads the files that are of one picture; returns the tables among the others."""
        pictures: dict[Path, list[Path]] = {}
        for name in self._names:
            for key in (name, name.with_suffix("")):
                pictures.setdefault(key, []).append(name)
        left, used = list[Path](), set[Path]()
        for path in sorted(others, key=lambda path: (_order(path), path)):
            name = path.relative_to(self._root)
            mine = pictures.get(name.with_suffix("")) if _order(path) < len(_SINGLE) else None
            if not mine:
                left.append(path)
                continue
            used.add(path.parent)
            if all(picture in self._said for picture in mine):
                self._report.note(f"captions of {self._all} that have another one", name)
            elif (text := self._text(path)) is not None:
                for picture in mine:
                    self._said.setdefault(picture, text)
        return [path for path in left if self._may_be_table(path, used)]

    def _text(self, path: Path) -> str | None:
        """The caption of a file of one picture; "" where it is none, which is noted."""
        name = path.relative_to(self._root)
        try:
            text = read_text(path, self._encoding)
        except OSError as error:
            self._report.note(_NO_TEXT, name, reason_of(error))
            return ""
        for problem in text.problems(shown(name)):
            self._report.note("lines that are no text", problem)
        whole = " ".join(" ".join(text.lines).split())
        if path.suffix.lower() != ".json":
            return whole
        try:
            found = caption_of(json.loads(whole))
        except (ValueError, RecursionError) as error:
            self._report.note(_NO_TEXT, name, reason_of(error))
            return ""
        return found  # None for what else a picture's JSON may tell

    # ---- tables -------------------------------------------------------------------------------
    def _may_be_table(self, path: Path, used: set[Path]) -> bool:
        name, suffix = path.relative_to(self._root), path.suffix.lower()
        if suffix in TABLES or (suffix in _SINGLE and is_table(path, self._encoding)):
            return True
        about = path.stem.lower() in _ABOUT
        elsewhere = path.stem in self._stems  # in a folder of their own, say
        beside = path.parent in used and not about
        if suffix == ".caption" or (suffix == ".txt" and (elsewhere or beside)):
            self._report.note(f"captions of none of {self._all}", name)
        return False

    def _table(self, path: Path) -> None:
        place, known = path.relative_to(self._root), set(self._names)
        missing = 0
        for file, text in rows(path, self._encoding, self._report, shown(place)):
            name = place.parent / (file if "/" in file else file.replace("\\", "/"))
            if name in known:
                if self._said.setdefault(name, text) != text:
                    self._report.note(_OTHERWISE, name)
            else:
                missing += 1
        if missing:
            self._report.note(f"tables with rows of none of {self._all}", place, f"{missing} rows")


def _order(path: Path) -> int:
    suffix = path.suffix.lower()
    return _SINGLE.index(suffix) if suffix in _SINGLE else len(_SINGLE)
