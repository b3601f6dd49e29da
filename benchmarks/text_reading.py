"""What reading a corpus of text costs: seconds and memory for each byte of it, in fresh processes.

    python benchmarks/text_reading.py [--megabytes 20] [--directory /tmp]

Lines of words that are drawn as often as words of a language are (Zipf). "reading" is from the
file to documents in the cache, "again" from there, "tokens" from the file to the tokens of each
part, the training of the tokenizer included. Seconds are of the processor; memory is the most that
was resident above what the process had before.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--stage")
    given = parser.parse_args()
    if given.stage:
        _measure(given.stage, given.directory)
        return
    with tempfile.TemporaryDirectory(dir=given.directory) as folder:
        path = Path(folder) / "corpus.txt"
        size = _written(path, int(given.megabytes * 1e6))
        print(f"{size / 1e6:.1f} MB of text")
        for stage in ("reading", "again", "tokens"):
            env = {**os.environ, "ANYLATENT_CACHE": f"{folder}/{stage.replace('again', 'reading')}"}
            command = [sys.executable, __file__, "--stage", stage, "--directory", str(path)]
            done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
            seconds, memory = map(float, done.stdout.split()[-2:])
            each = f"{seconds / size * 1e6:.3f} s a MB, {memory / size:.1f} bytes a byte"
            print(f"{stage}: {seconds:.2f} s, {memory / 1e6:.0f} MB; {each}")


def _written(path: Path, size: int) -> int:
    """Lines of five to fifteen words, and their number of bytes."""
    source = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkqjxz"
    words = ["".join(source.choices(letters, k=source.randint(1, 9))) for _ in range(20_000)]
    weights = [1 / (place + 1) for place in range(len(words))]
    with open(path, "w", encoding="utf-8") as file:
        while file.tell() < size:
            drawn = source.choices(words, weights, k=100_000)
            start = 0
            while start < len(drawn):
                end = start + source.randint(5, 15)
                file.write(" ".join(drawn[start:end]) + "\n")
                start = end
    return path.stat().st_size


def _measure(stage: str, path: Path) -> None:
    import tokenizers  # noqa: F401 - no part of what is measured

    from anylatent.modalities.text.data.file import TextFile

    data = TextFile(path=str(path))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if stage == "tokens":
        assert len(data.train()) > 0
    else:
        assert len(data.documents()) > 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(time.process_time() - start, used * 1024)


if __name__ == "__main__":
    main()
