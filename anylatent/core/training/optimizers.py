"""Optimisers as parts: parameters in, torch optimisers out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from anylatent.core.nn.layers import is_outer
from anylatent.core.registry import group, register
from anylatent.core.support.hardware import has_bfloat16


class OptimizerFactory(ABC):
    """Torch optimisers for some parameters; several where these are not treated alike."""

    @abstractmethod
    def __call__(self, parameters: Iterable[nn.Parameter]) -> list[Optimizer]: ...


group("optimizer", OptimizerFactory)


@register("optimizer", "adamw")
class AdamW(OptimizerFactory):
    """Adam with decoupled weight decay (1711.05101)."""

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
    ) -> None:
        self.settings: dict[str, Any] = {"lr": lr, "betas": betas, "weight_decay": weight_decay}
        try:  # torch's own rules, before there is anything to train
            torch.optim.AdamW([nn.Parameter(torch.zeros(1))], **self.settings)
        except (ValueError, TypeError) as error:
            raise ValueError(f"settings of optimizer: {error}") from error

    def __call__(self, parameters: Iterable[nn.Parameter]) -> list[Optimizer]:
        return [torch.optim.AdamW(list(parameters), fused=True, **self.settings)]


@register("optimizer", "muon")
class MuonAdamW(OptimizerFactory):
    """Muon for hidden weights, AdamW for biases, gains, tables and the outermost layers.

    `matrix_lr` is Muon's rate, `lr` AdamW's. A weight is hidden if, flattened to (outputs, rest),
    its smaller side is at least `least`, and it is not marked as `outer` (see `nn.layers`): the
    vectors and logits of tokens, of which a batch has only some.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        matrix_lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        least: int = 48,
    ) -> None:
        if matrix_lr < 0:
            raise ValueError(f"settings of optimizer: need matrix_lr >= 0, got {matrix_lr}")
        self.matrix_lr, self.least = matrix_lr, least
        self.rest = AdamW(lr, betas, weight_decay)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> list[Optimizer]:
        every = list(parameters)
        large = [p for p in every if p.ndim >= 2 and min(p[:1].numel(), len(p)) >= self.least]
        hidden = [p for p in large if not is_outer(p)]
        known = {id(p) for p in hidden}
        others = [p for p in every if id(p) not in known]
        optimizers: list[Optimizer] = [Muon(hidden, self.matrix_lr)] if hidden else []
        return optimizers + (self.rest(others) if others else [])


LINEAR = 3.4445
"""Of a Newton-Schulz step's polynomial the coefficient of X."""

LONG = 2
"""How many times as long as wide a matrix is for which the steps are taken all at once."""


class Muon(Optimizer):
    """Momentum made orthogonal before each step, for any weight of two axes or more.

    Weights are flattened to (outputs, rest). The update U·Vᵀ of the momentum U·S·Vᵀ, found by five
    Newton-Schulz steps, is scaled to the root mean square of AdamW's (2502.16982). Unlike torch's,
    it takes convolutions.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95
    ) -> None:
        super().__init__(list(parameters), {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for settings in self.param_groups:
            alike: dict[tuple[torch.Size, torch.device], list[nn.Parameter]] = {}
            for parameter in settings["params"]:
                if parameter.grad is not None:
                    kind = (parameter.flatten(1).shape, parameter.device)
                    alike.setdefault(kind, []).append(parameter)
            for parameters in alike.values():
                self._update(parameters, settings["lr"], settings["momentum"])
        return loss

    def _update(self, parameters: list[nn.Parameter], lr: float, momentum: float) -> None:
        """One step of weights of one shape, made orthogonal together: they are many and small."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        averages = [self._average(parameter) for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        ahead = torch._foreach_lerp(gradients, averages, momentum)
        matrices = torch.stack([direction.flatten(1) for direction in ahead])
        scale = 0.2 * max(matrices.shape[1:]) ** 0.5
        for parameter, direction in zip(parameters, orthogonal(matrices), strict=True):
            parameter.add_(
                direction.to(parameter.dtype).reshape(parameter.shape), alpha=-lr * scale
            )

    def _average(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "average" not in state:
            state["average"] = torch.zeros_like(parameter)
        average: Tensor = state["average"]
        return average


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """About U·Vᵀ of each matrix U·S·Vᵀ, shape (..., M, N), by Newton-Schulz steps of degree five,
    in bfloat16 where the device has it."""
    fast = has_bfloat16(matrix.device.type)
    x: Tensor = matrix.to(torch.bfloat16 if fast else torch.float32)
    x = x.reshape(-1, *matrix.shape[-2:])
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    if fast or x.shape[-1] < LONG * x.shape[-2]:
        for _ in range(steps):
            x = torch.baddbmm(x, _polynomial(torch.bmm(x, x.mT)), x, beta=LINEAR)
    else:
        x = torch.bmm(_whole(torch.bmm(x, x.mT), steps), x)
    return (x.mT if tall else x).reshape(matrix.shape)


def _whole(gram: Tensor, steps: int) -> Tensor:
    """All steps at once, as a polynomial of X·Xᵀ: long matrices are multiplied twice then, not
    twice a step. It takes float32, whose rounding grows by the condition of X."""
    found: Tensor | None = None
    for step in range(steps):
        one = _polynomial(gram)
        one.diagonal(dim1=-2, dim2=-1).add_(LINEAR)
        found = one if found is None else torch.bmm(one, found)
        if step < steps - 1:
            gram = torch.bmm(torch.bmm(one, gram), one)
    assert found is not None
    return found


def _polynomial(gram: Tensor) -> Tensor:
    return torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
