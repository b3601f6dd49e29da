"""What made a run: each command that trained it, with what and where, a line of JSON each."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import torch

from anylatent.core.support.files import save_text

FILE = "provenance.jsonl"


def note(directory: Path) -> None:
    """Adds this process's command to those that trained the run."""
    path = directory / FILE
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    now = json.dumps(_now(), ensure_ascii=False).encode(errors="backslashreplace").decode()
    save_text(path, f"{before}{now}\n")


def _now() -> dict[str, object]:
    import anylatent

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": ["anylatent", *sys.argv[1:]],
        "directory": os.getcwd(),
        "anylatent": anylatent.__version__,
        "commit": _commit(Path(anylatent.__file__).parent),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "gpus": gpus,
    }


def _commit(folder: Path) -> str | None:
    """Of the source, where it is under version control."""
    if not (folder.parent / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
