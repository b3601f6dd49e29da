"""Where a model computes: what the user asks for, if the machine has it."""

from __future__ import annotations

import torch

from anylatent.core.support.files import UserError


def device_of(asked: str | None = None) -> str:
    """A device by its name; by default the first GPU, or else the processor. Raises UserError for
    one that is not there."""
    there = available()
    if asked is None:
        return "cuda" if "cuda" in there else "cpu"
    if str(asked) not in there:
        kind = str(asked).partition(":")[0]
        built = kind != "cuda" or torch.version.cuda is not None
        why = "" if built else "; this torch is built without CUDA"
        raise UserError(
            f"device={asked}: there is {', '.join(there)} here{why}. Leave device out to take what "
            "there is"
        )
    return str(asked)


def available() -> list[str]:
    """The names of all devices that tensors can be moved to."""
    found = ["cpu"]
    for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu)):
        if module.is_available():
            found += [kind, *(f"{kind}:{k}" for k in range(module.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found
