"""What a run says of itself may have been written by anyone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anylatent.core.registry import RegistryError
from anylatent.core.support.files import UserError


@contextmanager
def described_by(path: Path) -> Iterator[None]:
    """While the block makes what a configuration describes, errors of any kind are one sentence,
    if the configuration is there: raises UserError for what no part has checked."""
    try:
        yield
    except (UserError, RegistryError, ValueError, ImportError):
        raise
    except Exception as error:
        if not path.exists():
            raise
        told = " ".join(str(error).split())
        raise UserError(
            f"{path} describes nothing that can be built ({type(error).__name__}: {told}). "
            "ANYLATENT_DEBUG=1 shows where"
        ) from error
