"""How long it takes to know that a folder's files are those of before: the pass over 20,000.

    python benchmarks/file_digests.py [--files 20000] [--bytes 50000] [--directory /tmp/...]

First with nothing known, when every file is read (the system has them in memory, unless `--drop`
makes it forget them, which only root may), then with all digests known.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--bytes", type=int, default=50_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--drop", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        os.environ["ANYLATENT_CACHE"] = str(Path(folder) / "cache")
        root = Path(folder) / "files"
        paths = _written(root, given.files, given.bytes)
        time.sleep(3)  # digests of files that were written just now are not kept
        if given.drop:
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3")
        for what in ("nothing known", "all known"):
            print(f"{given.files} files of {given.bytes} bytes, {what}: {_seconds(root, paths)} s")


def _written(root: Path, files: int, size: int) -> list[Path]:
    root.mkdir()
    paths = [root / f"{number:06d}.png" for number in range(files)]
    for path in paths:
        path.write_bytes(os.urandom(size))
    return paths


def _seconds(root: Path, paths: list[Path]) -> str:
    from anylatent.core.support.file_digests import file_digests

    start = time.perf_counter()
    assert len(set(file_digests(root, paths))) == len(paths)
    return f"{time.perf_counter() - start:.2f}"


if __name__ == "__main__":
    main()
