"""A latent is a point of a masked linear subspace with a standard Gaussian on it.

Solvers, objectives, guidance and likelihoods need sums, scalings with one coefficient per
sample, inner products and Gaussian noise *on the right space*. Padding (variable lengths) and a
zero centre of mass (point sets modulo translation) are linear subspaces, which linear
combinations never leave. Hence one invariant:

    A latent always lies in its subspace. Only an encoder, a backbone and fresh noise could leave
    it, and each of the three projects once. Everything else is blind to masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from torch.utils import _pytree

from anylatent.core.latents.masks import Masks, are_full, follow

if TYPE_CHECKING:
    from anylatent.core.latents.spec import Field, LatentSpec


Coefficient: TypeAlias = float | Tensor
"""A number, or a tensor of shape (), (B,) or (B, T): one per batch, per sample or per frame."""


@dataclass(frozen=True, eq=False, repr=False)
class Latent:
    """Named tensors of shape (B, ...), the masks (B, N) of the padded ones, and their spec.

    Supports `+ - * /` with coefficients of shape (), (B,) or (B, T), `dot`, `norm`, `dim` and
    `mse` per sample. The constructor trusts its arguments; `LatentSpec.wrap` checks them.
    """

    parts: dict[str, Tensor]
    masks: dict[str, Tensor]
    spec: LatentSpec

    # ---- arithmetic ---------------------------------------------------------------------------
    def __add__(self, other: Latent) -> Latent:
        if not isinstance(other, Latent):
            return NotImplemented
        return combine((1.0, self), (1.0, other))

    def __sub__(self, other: Latent) -> Latent:
        if not isinstance(other, Latent):
            return NotImplemented
        return combine((1.0, self), (-1.0, other))

    def __mul__(self, coefficient: Coefficient) -> Latent:
        if not isinstance(coefficient, (int, float, Tensor)):
            return NotImplemented
        return combine((coefficient, self))

    __rmul__ = __mul__

    def __truediv__(self, coefficient: Coefficient) -> Latent:
        if not isinstance(coefficient, (int, float, Tensor)):
            return NotImplemented
        return combine((1 / coefficient, self))

    def __neg__(self) -> Latent:
        return combine((-1.0, self))

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Lets `tensor * latent` reach `__rmul__`; no other torch function takes a latent."""
        if func in (Tensor.mul, Tensor.__mul__, torch.mul) and len(args) == 2:
            return args[1] * args[0] if isinstance(args[1], Latent) else args[0] * args[1]
        return NotImplemented

    # ---- geometry -----------------------------------------------------------------------------
    def project(self) -> Latent:
        """The nearest point of the subspace: zero at padding, zero mean where centred."""
        return Latent({name: self._project(name) for name in self.parts}, self.masks, self.spec)

    def _project(self, name: str) -> Tensor:
        x, mask = self.parts[name], self.masks.get(name)
        if mask is not None:
            mask = mask.reshape(mask.shape + (1,) * (x.ndim - 2))
            x = torch.where(mask, x, 0)  # not a product: padding may hold infinities
        if self.spec.fields[name].centred:
            count = x.shape[1] if mask is None else mask.sum(1, keepdim=True)
            mean = x.sum(1, keepdim=True) / count
            x = x - mean if mask is None else torch.where(mask, x - mean, 0)
        return x

    def dot(self, other: Latent) -> Tensor:
        """The inner product per sample, shape (B,), accumulated in float32 at least."""
        self._check(other)
        pairs = ((wide(x), wide(other.parts[name])) for name, x in self.parts.items())
        return torch.stack([(x * y).flatten(1).sum(1) for x, y in pairs]).sum(0)

    def norm(self) -> Tensor:
        """The Euclidean norm per sample, shape (B,)."""
        return self.dot(self).sqrt()

    @property
    def dim(self) -> Tensor:
        """Degrees of freedom per sample, shape (B,): (N - 1)·3 for N centred points in space."""
        total = torch.zeros(self.batch, device=self.device)
        for name, field in self.spec.fields.items():
            count = self.lengths(name) - int(field.centred)
            total = total + count * math.prod(field.rest)
        return total

    def mse(self, other: Latent) -> Tensor:
        """Squared distance per degree of freedom, shape (B,)."""
        difference = self - other
        return difference.dot(difference) / self.dim.clamp(min=1)

    def lengths(self, name: str) -> Tensor:
        """Valid entries of a field along its first axis, shape (B,)."""
        mask = self.masks.get(name)
        if mask is None:
            return torch.full((self.batch,), self.parts[name].shape[1], device=self.device)
        return mask.sum(1)

    # ---- structure ----------------------------------------------------------------------------
    @property
    def entries(self) -> int:
        """T. Raises ValueError where not all fields have the same entries."""
        if not self.spec.has_entries:
            raise ValueError(
                f"no time for each entry of {self.spec}: that takes fields with one first axis in "
                "common, which holds neither channels nor centred points; use one time for each "
                "sample"
            )
        return next(iter(self.parts.values())).shape[1]

    @property
    def batch(self) -> int:
        return next(iter(self.parts.values())).shape[0]

    @property
    def device(self) -> torch.device:
        return next(iter(self.parts.values())).device

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.parts.values())).dtype

    def __getitem__(self, name: str) -> Tensor:
        return self.parts[name]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(x.shape)}" for name, x in self.parts.items())
        return f"Latent({shapes}, {self.dtype}, {self.device})"

    def map(self, function: Callable[..., Tensor], *others: Latent) -> Latent:
        """Applies a function to the tensors of each field; the caller keeps to the subspace."""
        for other in others:
            self._check(other)
        parts = {n: function(x, *(o.parts[n] for o in others)) for n, x in self.parts.items()}
        return Latent(parts, self.masks, self.spec)

    def replace(self, **parts: Tensor) -> Latent:
        """Other tensors for some of the fields, projected."""
        unknown = set(parts) - set(self.parts)
        if unknown:
            raise ValueError(f"no field {sorted(unknown)} in {self.spec}")
        return Latent({**self.parts, **parts}, self.masks, self.spec).project()

    def select(self, index: Any) -> Latent:
        """Some of the samples, by anything that indexes the batch axis and keeps it."""
        return self._each(lambda x: x[index])

    def take(self, names: Iterable[str]) -> Latent:
        """Some of the fields, as a latent of their own spec."""
        parts = {name: self.parts[name] for name in names}
        masks = {name: mask for name, mask in self.masks.items() if name in parts}
        return Latent(parts, Masks(masks, self.full), self.spec.take(parts))

    def to(self, *args: Any, **kwargs: Any) -> Latent:
        """As `Tensor.to`; masks follow the device and stay bool."""
        parts = {name: x.to(*args, **kwargs) for name, x in self.parts.items()}
        return Latent(parts, Masks(follow(self.masks, parts, **kwargs), self.full), self.spec)

    @property
    def full(self) -> bool:
        """Whether it is known that nothing is padded."""
        return are_full(self.masks)

    def unpadded(self) -> Latent:
        """The same, of which the host knows that nothing is padded."""
        return Latent(self.parts, Masks(self.masks, True), self.spec)

    def pin_memory(self) -> Latent:
        """In page-locked memory, from which a copy to the device does not make the host wait."""
        return self._each(Tensor.pin_memory)

    def detach(self) -> Latent:
        return self.map(Tensor.detach)

    def zeros(self) -> Latent:
        return self.map(torch.zeros_like)

    def _each(self, function: Callable[[Tensor], Tensor]) -> Latent:
        parts, masks = (
            {name: function(x) for name, x in own.items()} for own in (self.parts, self.masks)
        )
        return Latent(parts, Masks(masks, self.full), self.spec)

    def _check(self, other: Latent) -> None:
        if self.spec != other.spec:
            raise ValueError(f"latents of different spaces: {self.spec} and {other.spec}")


def combine(*terms: tuple[Coefficient, Latent], room: Latent | None = None) -> Latent:
    """Σ c·x over (c, x) pairs: the one place where coefficients meet fields.

    A coefficient is a number or a tensor of shape (), (B,) or (B, T), cast to the field's dtype.
    Without gradients the sum may be written into the memory of `room`, which is none of the terms.
    """
    (once, first), *rest = terms
    for _, other in rest:
        first._check(other)
    parts, in_place = {}, not torch.is_grad_enabled()
    bare = bool(rest) and not isinstance(once, Tensor) and once == 1
    for name, x in first.parts.items():
        field = first.spec.fields[name]
        out = room.parts[name] if room is not None and in_place else None
        total = x if bare else torch.mul(x, _align(once, x, field), out=out)
        own = in_place and not bare
        for c, other in rest:
            if isinstance(c, Tensor):
                total = total + _align(c, x, field) * other.parts[name]
            elif own:  # nobody else knows the sum so far
                total.add_(other.parts[name], alpha=c)
            else:
                total = torch.add(total, other.parts[name], alpha=c, out=out)
            own = in_place
        parts[name] = total
    return Latent(parts, first.masks, first.spec)


def _align(coefficient: Coefficient, x: Tensor, field: Field) -> Coefficient:
    if not isinstance(coefficient, Tensor):
        return coefficient
    if coefficient.ndim == 0 and coefficient.device.type == "cpu":
        return coefficient  # a CPU scalar meets a tensor of any device and keeps its dtype
    shape = coefficient.shape
    if coefficient.ndim > 2 or shape != x.shape[: coefficient.ndim]:
        raise ValueError(
            f"a coefficient must have shape (), (B,) or (B, T) matching the field's leading axes "
            f"{tuple(x.shape[:2])}, got {tuple(shape)}"
        )
    if coefficient.ndim == 2 and field.centred:
        raise ValueError("a coefficient per point would leave the subspace of a centred field")
    return coefficient.to(x).reshape(tuple(shape) + (1,) * (x.ndim - coefficient.ndim))


def choose(good: Tensor, new: Latent, old: Latent) -> Latent:
    """The new sample where it is good, (B,); not a sum, for a bad one may hold infinities."""

    def each(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(good.to(a.device).reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return new.map(each, old)


def cat(latents: Sequence[Latent]) -> Latent:
    """Latents of one spec and one padded length, one batch after the other."""
    first = latents[0]
    for other in latents[1:]:
        first._check(other)
    parts = {name: torch.cat([x.parts[name] for x in latents]) for name in first.parts}
    masks = {name: torch.cat([x.masks[name] for x in latents]) for name in first.masks}
    return Latent(parts, Masks(masks, all(x.full for x in latents)), first.spec)


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x if x.dtype == torch.float64 else x.float()


def _flatten(latent: Latent) -> tuple[list[Tensor], Any]:
    values = [*latent.parts.values(), *latent.masks.values()]
    return values, (tuple(latent.parts), tuple(latent.masks), latent.spec, latent.full)


def _unflatten(values: Iterable[Any], context: Any) -> Latent:
    parts, masks, spec, full = context
    values = list(values)
    return Latent(
        dict(zip(parts, values[: len(parts)], strict=True)),
        Masks(dict(zip(masks, values[len(parts) :], strict=True)), full),
        spec,
    )


_pytree.register_pytree_node(Latent, _flatten, _unflatten, serialized_type_name="anylatent.Latent")
