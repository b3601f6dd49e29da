"""Chemical elements by symbol and atomic number, and their places among those a model knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from anylatent.core.support.files import UserError

SYMBOLS = tuple(
    "* H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf "
    "Es Fm Md No Lr Rf Db Sg Bh Hs Mt Ds Rg Cn Nh Fl Mc Lv Ts Og".split()
)
"""The symbol of each atomic number; "*", number 0, is no element."""

NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS)}
"""The atomic number of each symbol."""


def indices(z: Tensor, elements: Sequence[str]) -> Tensor:
    """The place of each atomic number of `z`, of any shape, among `elements`; int64.

    Raises UserError for an element that is not among them.
    """
    places = torch.full((len(SYMBOLS),), -1, dtype=torch.long, device=z.device)
    for place, symbol in enumerate(elements):
        places[NUMBERS[symbol]] = place
    found = places[z.long()]
    if bool((found < 0).any()):
        unknown = ", ".join(SYMBOLS[number] for number in torch.unique(z[found < 0]).tolist())
        raise UserError(
            f"unknown element {unknown}: known are {', '.join(elements)}. Leave out the molecules "
            "that have it, or train on data that has it"
        )
    return found


def atomic_numbers(places: Tensor, elements: Sequence[str]) -> Tensor:
    """Of places among elements, of any shape; undoes `indices`."""
    numbers = torch.tensor([NUMBERS[symbol] for symbol in elements])
    return numbers.to(places.device)[places]
