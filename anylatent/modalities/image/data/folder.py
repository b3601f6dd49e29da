"""Any pictures in a folder, with captions from text files beside them or from folder names."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage, package_version
from anylatent.core.support.stored import Stored
from anylatent.modalities.image.data.base import PictureData, Table
from anylatent.modalities.shared.folder import Files
from anylatent.modalities.shared.strings import listed

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_OTHER = "other"


class Folder(PictureData):
    """The pictures below `path`, cropped to their central square, `size` × `size` pixels.

    Read recursively in the order of their paths, hidden files left out: png, jpg, jpeg, webp, bmp,
    gif, tif and tiff (the first frame); turned as their EXIF says, transparency on white.

    Columns: `image` (3, size, size) in [-1, 1], `caption`, `name` (path below the folder) and,
    where there are sub-folders, `category`: the first folder on the way to the picture, "other"
    for pictures that lie beside the folders. The caption is the text of the `.txt` file of the
    same name, else the name of the innermost sub-folder, else empty.

    A picture that cannot be read is left out; one warning counts and names them. Raises UserError
    for the path, where no picture is found, and where none is left to hold out, unless `held_out`
    is 0.
    """

    def __init__(
        self, path: str = "", size: int = 64, held_out: float = 0.1, seed: int = 0
    ) -> None:
        self.files = Files(
            path,
            SUFFIXES,
            purpose="the data set 'folder'",
            wanted="a folder of pictures",
            what="pictures",
        )
        self.names = self.files.names
        folders = [name.parts[0] if len(name.parts) > 1 else _OTHER for name in self.names]
        self._folders = folders if any(len(name.parts) > 1 for name in self.names) else []
        self._captions = [_caption(self.files.root, name) for name in self.names]
        key = {
            "files": self.files.stamps,
            "captions": self._captions,
            "size": size,
            "made by": [f"pillow {package_version('pillow')}", "1"],
        }
        classes = {"category": sorted(set(self._folders))} if self._folders else {}
        super().__init__(key, (3, size, size), classes, held_out, seed)

    def table(self) -> Table:
        key = {name: value for name, value in self._key.items() if name != "captions"}
        key["root"] = self.files.place
        stored = self.stored("folder", key, len(self.names), self._read, "reading pictures")
        fine = Stored(stored, "good")[range(len(self.names))]
        good = fine.nonzero()[:, 0].tolist()
        self._warn(sorted(set(range(len(self.names))) - set(good)))
        columns: dict[str, list[object]] = {
            "caption": [self._captions[i] for i in good],
            "name": [self.names[i].as_posix() for i in good],
        }
        strata = [0] * len(good)
        if self._folders:
            names = list(self.classes["category"])
            strata = [names.index(self._folders[i]) for i in good]
            columns["category"] = list(strata)
        pixels = Stored(stored, "pixels").select(good)
        return Table(pixels, columns, [str(self.names[i]) for i in good], strata)

    def _read(self, items: range) -> Iterator[dict[str, Tensor]]:
        """The pixels of some pictures, black where they can't be read, and which ones can."""
        size, black = self.shape[1], torch.zeros(self.shape, dtype=torch.uint8)
        with ThreadPoolExecutor() as pool:
            for found in pool.map(lambda i: read_picture(self.files.paths[i], size), items):
                fine = not isinstance(found, Exception)
                yield {
                    "pixels": found[None] if isinstance(found, Tensor) else black[None],
                    "good": torch.tensor([fine]),
                }

    def _warn(self, bad: Sequence[int]) -> None:
        if not bad:
            return
        shown = listed([self.names[i].as_posix() for i in bad], between=", ")
        message = f"of {len(self.names)} pictures in {self.files.root}, {len(bad)} cannot be read"
        if len(bad) == len(self.names):
            raise UserError(f"{message}: {shown}")
        warnings.warn(f"{message} and are left out: {shown}", stacklevel=2)


def read_picture(path: Path, size: int) -> Tensor | Exception:
    """A picture as uint8, (3, size, size); or why it cannot be read."""
    try:
        import numpy as np
        from PIL import Image
    except ImportError as error:
        raise MissingPackage("pillow", "the data set 'folder'") from error
    try:
        with Image.open(path) as image:
            pixels = np.array(_square(image, size))
    except Exception as error:  # decoders raise whatever they like at broken files
        return error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _square(image: Image.Image, size: int) -> Image.Image:
    """Upright, on white, the central square, resized with antialiasing."""
    from PIL import Image, ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits a pixel, which `convert` would clip
        upright = upright.point(lambda value: value / 257).convert("L")
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return ImageOps.fit(upright.convert("RGB"), (size, size), Image.Resampling.LANCZOS)


def _caption(root: Path, name: Path) -> str:
    text = (root / name).with_suffix(".txt")
    if text.is_file():
        return " ".join(text.read_text(encoding="utf-8", errors="replace").split())
    return name.parent.name.replace("_", " ").replace("-", " ")
