"""The base of a run: the model whose weights it leans on instead of repeating them.

A run that was tuned in part saves what it trained, and names the rest by path and digest in the
metadata of its weights. That is the one path in a run which may lead out of its folder. What lies
there is read as data, and refused where its digest is another.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from anylatent.core.support.files import UserError


@dataclass(frozen=True)
class Base:
    """Where a base lies, absolutely and seen from the run's folder, and the digest of its
    weights."""

    path: str
    beside: str
    digest: str

    @classmethod
    def of(cls, path: Path, run: Path, digest: str) -> Base:
        absolute = path.resolve()
        return cls(str(absolute), os.path.relpath(absolute, run.resolve()), digest)

    @classmethod
    def read(cls, metadata: Mapping[str, str], where: Path) -> Base | None:
        """From the metadata of a file of weights, which need not be what they should; None where
        they name no base."""
        if "base" not in metadata:
            return None
        try:
            found = cls(**json.loads(metadata["base"]))
        except (TypeError, ValueError) as error:
            raise UserError(f"{where} names a base that can not be read: {error}") from error
        if not all(isinstance(value, str) for value in asdict(found).values()):
            raise UserError(f"{where} names a base that can not be read: {metadata['base']}")
        return found

    def json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    def find(self, run: Path, given: str | None) -> Path:
        """Where it is: at `given`, else where it was. Raises UserError where there is nothing."""
        places = [Path(given)] if given else [Path(self.path), run / self.beside]
        found = next((place for place in places if place.exists()), None)
        if found is None:
            raise UserError(
                f"{run} leans on {places[0]}, and there is nothing there: if that run has moved, "
                "add base= with its new path. To need no base, repeat the command that trained "
                f"{run} with base=... standalone=yes"
            )
        return found

    def check(self, run: Path, path: Path, digest: str) -> None:
        """Raises UserError where what was found is not what the run was trained on."""
        if digest != self.digest:
            raise UserError(
                f"{run} leans on the weights {self.digest}, but those of {path} are {digest}: they "
                "were changed or are of another run, and together they would be no model. Give "
                f"base= the path of the right one, or train {run} anew"
            )


class Leaning:
    """What a run need not save while it is trained: the tensors that are its base's."""

    def __init__(self, base: Base, values: Mapping[str, Tensor], system: nn.Module) -> None:
        """`values`: those of the base by their names in the model."""
        self.base = base
        learnable = {name for name, _ in system.named_parameters()}
        self.names = set(values)
        self.buffers = {n: x.clone() for n, x in values.items() if n not in learnable}

    def trained(self, names: Collection[str]) -> None:
        """From now on these are the run's own."""
        self.names -= set(names)

    def own(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of the tensors that the base does not give: what was trained, what it lacks, and
        buffers that have changed."""
        return {name: value for name, value in tensors.items() if not self._given(name, value)}

    def _given(self, name: str, value: Tensor) -> bool:
        if name not in self.names:
            return False
        before = self.buffers.get(name)
        return before is None or torch.equal(before, value.detach().to(before.device))
