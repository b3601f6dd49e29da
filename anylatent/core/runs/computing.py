"""Where a model computes outside training, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from anylatent.core.nn.backbone import compile_networks
from anylatent.core.nn.precision import compute_in, computed_in
from anylatent.core.runs.system import System
from anylatent.core.support.devices import device_of
from anylatent.core.support.files import UserError
from anylatent.core.support.hardware import has_bfloat16

PRECISIONS = ("32", "bf16", "run")
MODES = ("reduce-overhead",)


@dataclass(frozen=True)
class Computing:
    """`device`: where, by default the first GPU. `precision` of the networks, all else being in
    float32: 32, bf16, or run, which is what the run was trained in where the device computes in
    that. What a GPU multiplies in float32, it does by TF32 unless 32 is asked for; that setting is
    torch's own, and of the whole process. `compile`: torch.compile of the backbones, true, or
    reduce-overhead for graphs of a GPU.
    """

    device: str | None = None
    precision: Any = "run"
    compile: Any = False

    def __post_init__(self) -> None:
        device_of(self.device)
        if str(self.precision) in ("16", "16-mixed", "fp16", "half"):
            raise UserError(
                f"precision={self.precision}: numbers of 16 bits with a short exponent overflow in "
                "networks that were not trained for it; use bf16, or 32"
            )
        if str(self.precision) not in PRECISIONS:
            raise UserError(f"precision={self.precision}: there are {', '.join(PRECISIONS)}")
        if not (isinstance(self.compile, bool) or self.compile in MODES):
            raise UserError(f"compile={self.compile}: there are false, true, {', '.join(MODES)}")

    @property
    def exact(self) -> bool:
        """Whether products of float32 are to be no less."""
        return str(self.precision) == "32"

    def named(self, system: System) -> str:
        """What the networks of a model that was placed so compute in."""
        if computed_in(system) is not None:
            return "bf16"
        return "tf32" if system.device.type == "cuda" and not self.exact else "32"

    def placed(self, system: System, trained_in: str) -> System:
        """The model on its device, in its precision."""
        device = torch.device(device_of(self.device))
        compute_in(system, self._lower(trained_in, device.type))
        if device.type == "cuda":  # what is not in bfloat16
            torch.set_float32_matmul_precision("highest" if self.exact else "high")
        if self.compile:
            compile_networks(system, None if self.compile is True else self.compile)
        return system.to(device)

    def _lower(self, trained_in: str, device: str) -> torch.dtype | None:
        asked = str(self.precision)
        own = trained_in.startswith("bf16") and has_bfloat16(device)
        return torch.bfloat16 if asked == "bf16" or (asked == "run" and own) else None
