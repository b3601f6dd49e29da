"""What a folder says of its pictures, or films, beside what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anylatent.core.support.files import UserError
from anylatent.core.support.shards import Shards
from anylatent.modalities.image.data.captions import Captions
from anylatent.modalities.image.data.choice import Places, first_copies
from anylatent.modalities.shared.folder import Files
from anylatent.modalities.shared.layout import layout, note_folders
from anylatent.modalities.shared.report import Report, shown

_OTHER = "other"


class Described:
    """Their split by folders, `layout`; their classes, `folders`: the first one on the way to each,
    "other" beside the folders, none where there are no folders; and their `captions`: those of
    files beside them, else the name of the innermost folder, else "".

    `encoding` is that of such files that are not in UTF-8 and have no mark; `report` has what was
    told on the way.
    """

    def __init__(self, files: Files, encoding: str) -> None:
        self.report, self.names = files.report.extended(), files.names
        self.layout = layout(self.names)
        note_folders(self.layout, self.report)
        inner = self.layout.inner
        folders = [shown(name.parts[0]) if len(name.parts) > 1 else _OTHER for name in inner]
        self.folders = folders if any(len(name.parts) > 1 for name in inner) else []
        said = Captions(files, encoding, self.report)
        own = [said[name] for name in self.names]
        self._captioned = any(text is not None for text in own)
        spaces = str.maketrans("_-", "  ")
        usual = [shown(name.parent.name).translate(spaces) for name in inner]
        self.captions = [u if text is None else text for u, text in zip(usual, own, strict=True)]

    @property
    def classes(self) -> Mapping[str, Sequence[str]]:
        return {"category": sorted(set(self.folders))} if self.folders else {}

    @property
    def labels(self) -> list[int]:
        """The class of each, 0 where there are none."""
        names = list(self.classes.get("category", ()))
        return [names.index(folder) for folder in self.folders] or [0] * len(self.names)

    @property
    def empty(self) -> Sequence[str]:
        """See `Data.empty`."""
        return [] if any(self.captions) else ["caption"]

    def used(self, stored: Shards, rows: Sequence[int], report: Report) -> list[int]:
        """Those of the rows that were read that are used; tells the report of the others. Raises
        UserError where none is."""
        places = Places(self.names, self.layout, self.folders)
        kept = places.kept(first_copies(stored, places.names), rows, report)
        if self._captioned:
            for row in (row for row in kept if not self.captions[row]):
                report.note(f"{report.what} without a caption", self.names[row])
        report.used = len(kept)
        if not kept:
            raise UserError(report.summary)
        return kept
