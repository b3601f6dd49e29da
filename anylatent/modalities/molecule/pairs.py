"""All pairs of atoms within each molecule of a batch, once each, dense or as a list.

EGNN's messages (2102.09844) are functions of |x_i - x_j| and of both ends. With a symmetric first
layer m_ij = m_ji, so that each pair is computed once: half the work of all ordered pairs, and no
diagonal. What a network needs of the pairs is linear: the sum of a node's value over both ends,
the difference of positions, and their transposes. Two forms give the same numbers:

    DensePairs   (B, P, C) with P = N(N - 1)/2, by products with incidence matrices
    ListedPairs  (1, P', C), the valid pairs of the whole batch, by indices
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache

import torch
from torch import Tensor

LARGE, FULL = 60, 0.7
"""Atoms from which lists are faster, and the share of valid pairs above which dense ones are."""


class Pairs(ABC):
    """Linear maps between nodes (B, N, C) and pairs (·, P, C)."""

    @abstractmethod
    def total(self, node: Tensor, pair: Tensor) -> Tensor:
        """node_i + node_j + pair_ij."""

    @abstractmethod
    def gather(self, pair: Tensor, weight: Tensor) -> Tensor:
        """The sum of weight·pair over the pairs of each node; `weight` (·, P, 1)."""

    @abstractmethod
    def difference(self, node: Tensor) -> Tensor:
        """node_i - node_j."""

    @abstractmethod
    def spread(self, pair: Tensor, weight: Tensor) -> Tensor:
        """The transpose of `difference`, of weight·pair."""


class DensePairs(Pairs):
    """Every pair of the N slots of a padded batch with the node mask (B, N)."""

    def __init__(self, mask: Tensor, dtype: torch.dtype) -> None:
        batch, count = mask.shape
        self.ends, self.sides = (
            matrix.to(dtype).expand(batch, -1, -1) for matrix in _incidence(count, mask.device)
        )
        first, second = _ends(count, mask.device)
        self.valid = (mask[:, first] & mask[:, second])[:, None]

    def total(self, node: Tensor, pair: Tensor) -> Tensor:
        return torch.baddbmm(pair, self.ends.mT.to(node.dtype), node)

    def gather(self, pair: Tensor, weight: Tensor) -> Tensor:
        weights = torch.where(self.valid, weight.mT, 0)
        return torch.bmm((self.ends * weights).to(pair.dtype), pair)

    def difference(self, node: Tensor) -> Tensor:
        return torch.bmm(self.sides.mT, node)

    def spread(self, pair: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(self.sides * torch.where(self.valid, weight.mT, 0), pair)


class ListedPairs(Pairs):
    """The valid pairs alone, in one list over the batch: no work for padding."""

    def __init__(self, mask: Tensor) -> None:
        batch, count = mask.shape
        self.shape = (batch, count)
        first, second = _ends(count, mask.device)
        row, pair = (mask[:, first] & mask[:, second]).nonzero(as_tuple=True)
        self.first, self.second = row * count + first[pair], row * count + second[pair]

    def total(self, node: Tensor, pair: Tensor) -> Tensor:
        flat = node.flatten(0, 1)
        return (flat[self.first] + flat[self.second])[None] + pair

    def gather(self, pair: Tensor, weight: Tensor) -> Tensor:
        return self._sum(pair * weight, 1)

    def difference(self, node: Tensor) -> Tensor:
        flat = node.flatten(0, 1)
        return (flat[self.first] - flat[self.second])[None]

    def spread(self, pair: Tensor, weight: Tensor) -> Tensor:
        return self._sum(pair * weight, -1)

    def _sum(self, pair: Tensor, sign: int) -> Tensor:
        node = pair.new_zeros(self.shape[0] * self.shape[1], pair.shape[-1])
        node = node.index_add(0, self.first, pair[0]).index_add(0, self.second, pair[0], alpha=sign)
        return node.reshape(*self.shape, -1)


def faster(mask: Tensor) -> str:
    """Which form is faster for the node mask (B, N), by benchmarks/molecule_pairs.py on a CPU.

    Dense pairs up to N = 60 where most of them are valid. On a GPU, and where it is compiled, the
    size alone decides: to count the valid ones would make the host wait.
    """
    count = mask.shape[1]
    if count >= LARGE or mask.device.type != "cpu" or torch.compiler.is_compiling():
        return "list" if count >= LARGE else "dense"
    sizes = mask.sum(1).float()
    valid = (sizes * (sizes - 1)).sum() / max(1, mask.shape[0] * count * (count - 1))
    return "dense" if float(valid) > FULL else "list"


def _ends(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both ends of each pair, (P,). A compiled network computes them, by one graph for all N."""
    if torch.compiler.is_compiling():
        return ends_of(count, torch.arange(count * (count - 1) // 2, device=device))
    return _known_ends(count, device)


def _incidence(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, P), twice: 1 at both ends of the pair; 1 at its first end and -1 at the second."""
    if torch.compiler.is_compiling():
        return _matrices(count, *_ends(count, device))
    return _known_incidence(count, device)


def ends_of(count: int, pair: Tensor) -> tuple[Tensor, Tensor]:
    """The ends of the pairs of these numbers, as `torch.triu_indices` orders them: pairs before
    those that begin at node i are i·(2N - i - 1)/2."""
    odd = 2 * count - 1
    first = ((odd - (odd * odd - 8 * pair).double().sqrt()) / 2).floor().long()
    return first, pair - first * (odd - first) // 2 + first + 1


def _matrices(count: int, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    node = torch.arange(count, device=first.device)[:, None]
    at_first, at_second = (node == first).double(), (node == second).double()
    return at_first + at_second, at_first - at_second


@lru_cache(maxsize=64)
def _known_ends(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(count, count, 1, device=device)
    return first, second


@lru_cache(maxsize=64)
def _known_incidence(count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _matrices(count, *_known_ends(count, device))
