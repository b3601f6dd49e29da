"""A folder of files that a data set is read from: which they are, and what was left out.

The files below a path, hidden ones left out, are read in the order of their paths; their names and
digests of their contents are the key under which what was read of them is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from anylatent.core.support.disk_cache import cached
from anylatent.core.support.file_digests import file_digests
from anylatent.core.support.files import UserError, visible_files


class Files:
    """The files with one of `suffixes` below the folder `path`, or `path` itself where `single`.

    `purpose` ("the data set 'folder'"), `wanted` ("a folder of pictures") and `what` ("pictures")
    are for messages. Raises UserError without a path, for one that does not exist or is no folder,
    and where there is no such file.
    """

    def __init__(
        self,
        path: str,
        suffixes: Sequence[str],
        *,
        purpose: str,
        wanted: str,
        what: str,
        single: bool = False,
    ) -> None:
        if not path:
            raise UserError(f"{purpose} needs data.path=..., {wanted}")
        self.root = Path(path).expanduser()
        self.paths = _find(self.root, suffixes, what, single)
        base = self.root if self.root.is_dir() else self.root.parent
        self.names = [file.relative_to(base) for file in self.paths]
        found = zip(self.names, file_digests(self.root, self.paths), strict=True)
        self.stamps = [[str(name), content] for name, content in found]

    @property
    def place(self) -> str:
        """The absolute path of the folder or file."""
        return str(self.root.resolve())

    def read(
        self, name: str, made_by: Mapping[str, object], build: Callable[[], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """What `build` reads of the files, kept on disk as `name` until one of them changes.

        `made_by` is all else that determines it, as plain values.
        """
        return cached(name, {"files": self.stamps, "root": self.place, **made_by}, build)


def _find(root: Path, suffixes: Sequence[str], what: str, single: bool) -> list[Path]:
    if not root.exists():
        kinds = "file or folder" if single else "folder"
        raise UserError(f"there is no {kinds} {str(root)!r} to read {what} from")
    if not root.is_dir():
        if single:
            return [root]
        raise UserError(f"{str(root)!r} is a file: give the folder that it is in")
    found = visible_files(root, suffixes)
    if not found:
        raise UserError(f"no {what} in {str(root)!r} or below it: looked for {' '.join(suffixes)}")
    return found
