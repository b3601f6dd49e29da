"""Which of the clips are worth learning from, by their motion: neither still nor cut together.

Stable Video Diffusion (2311.15127) leaves out clips of little optical flow, and parts videos where
they are cut.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.modalities.video.data.table import Table

Motion: TypeAlias = bool | tuple[float, ...]
"""Whether it is measured, or the two bounds of what is kept: `data.motion=[0.5,8]`."""


@dataclass(frozen=True)
class Curation:
    """Shots whose mean motion is `least` or more, between cuts: from one frame to the next there
    is more than `most`. Both are pixels a frame at 64 px. A shot has `frames` frames at least."""

    least: float
    most: float
    frames: int

    @classmethod
    def of(cls, motion: Motion, frames: int) -> Curation | None:
        """None where nothing is asked for. Raises UserError for what are no two bounds."""
        if isinstance(motion, bool):
            return None
        if len(motion) != 2 or not 0 <= motion[0] < motion[1] < math.inf:
            raise UserError(
                f"data.motion={list(motion)}: true, false, or the least mean motion of a clip and "
                "the most from one frame to the next, in pixels a frame at 64 px, such as [0.5,8]"
            )
        return cls(*motion, frames)

    def __call__(self, table: Table, moved: Callable[[int], Tensor]) -> Table:
        """The shots of a table that are kept; `moved` has the motion of a row's frames, (L,).

        Tells how many went. Raises UserError where nothing of a part is left.
        """
        found, spans = list[int](), list[tuple[int, int]]()
        cuts, still, short = 0, 0, 0
        used = [row for row, part in enumerate(table.parts) if part]
        for row in used:
            first, motion = table.spans[row][0], moved(row)
            shots = self._shots(motion)
            cuts += len(shots) - 1
            for start, end in shots:
                if end - start < self.frames:
                    short += 1
                elif float(motion[start:end].mean()) < self.least:
                    still += 1
                else:
                    found.append(row)
                    spans.append((first + start, first + end))
        told = (
            f"data.motion=[{self.least:g},{self.most:g}]: of {len(used)} clips, cut at {cuts} "
            f"places into {len(used) + cuts}, {still} are left out as static, {short} as shorter "
            f"than {self.frames} frames; {len(found)} are used"
        )
        parts = [table.parts[row] for row in found]
        gone = [part for part in dict.fromkeys(table.parts) if part and part not in parts]
        if gone:
            raise UserError(f"{told}, none of them {gone[0].replace('_', ' ')}: give wider bounds")
        if still or cuts:
            warnings.warn(told, stacklevel=2)
        return _rows(table, found, spans)

    def _shots(self, motion: Tensor) -> Sequence[tuple[int, int]]:
        """The first frame of each shot, and the one after its last; the frame before a cut, whose
        motion is the cut's, is in none."""
        cuts = (motion[:-1] > self.most).nonzero().flatten().tolist()
        return list(zip([0, *(cut + 1 for cut in cuts)], [*cuts, len(motion)], strict=True))


def _rows(table: Table, rows: Sequence[int], spans: Sequence[tuple[int, int]]) -> Table:
    return replace(
        table,
        columns={name: [column[row] for row in rows] for name, column in table.columns.items()},
        parts=[table.parts[row] for row in rows],
        spans=spans,
        sources=[table.sources[row] for row in rows],
        stored_rows=[table.place(row) for row in rows],
    )
