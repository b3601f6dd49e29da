"""Which entries of padded fields there are, and whether that is all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


class Masks(dict[str, Tensor]):
    """Masks (B, N) by field, True where an entry is. `full`: all entries are, as is known to the
    host without reading them: then networks need no masks, and attention has its fastest form."""

    def __init__(self, masks: Mapping[str, Tensor], full: bool = False) -> None:
        super().__init__(masks)
        self.full = full


def are_full(masks: Mapping[str, Tensor]) -> bool:
    """Whether nothing is padded, as far as that is known."""
    return not masks or (isinstance(masks, Masks) and masks.full)


def follow(
    masks: Mapping[str, Tensor], values: Mapping[str, Any], non_blocking: bool = False, **_: Any
) -> dict[str, Tensor]:
    """Masks moved to the devices of the values of their names, with the options of `Tensor.to`."""
    return {
        name: mask.to(values[name].device, non_blocking=non_blocking)
        for name, mask in masks.items()
    }
