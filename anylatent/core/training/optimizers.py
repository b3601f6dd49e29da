"""Optimisers as parts: parameters in, torch optimisers out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from anylatent.core.registry import register


@register("optimizer", "adamw")
class AdamW:
    """Adam with decoupled weight decay (1711.05101)."""

    def __init__(
        self,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
    ) -> None:
        self.settings: dict[str, Any] = {"lr": lr, "betas": betas, "weight_decay": weight_decay}

    def __call__(self, parameters: Iterable[nn.Parameter]) -> list[Optimizer]:
        return [torch.optim.AdamW(list(parameters), **self.settings)]


@register("optimizer", "muon")
class MuonAdamW:
    """Muon for hidden weights, AdamW for biases, gains, tables and the outermost layers.

    `matrix_lr` is Muon's rate, `lr` AdamW's. A weight is hidden if, flattened to (outputs, rest),
    its smaller side is at least `least`.
    """

    def __init__(
        self,
        lr: float = 1e-3,
        matrix_lr: float = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
        least: int = 48,
    ) -> None:
        self.matrix_lr, self.least = matrix_lr, least
        self.rest = AdamW(lr, betas, weight_decay)

    def __call__(self, parameters: Iterable[nn.Parameter]) -> list[Optimizer]:
        every = list(parameters)
        hidden = [p for p in every if p.ndim >= 2 and min(p[:1].numel(), len(p)) >= self.least]
        known = {id(p) for p in hidden}
        others = [p for p in every if id(p) not in known]
        optimizers: list[Optimizer] = [Muon(hidden, self.matrix_lr)] if hidden else []
        return optimizers + (self.rest(others) if others else [])


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
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group["lr"], group["momentum"])
        return loss

    def _update(self, parameter: nn.Parameter, lr: float, momentum: float) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "average" not in state:
            state["average"] = torch.zeros_like(parameter)
        average: Tensor = state["average"].lerp_(gradient, 1 - momentum)
        matrix = gradient.lerp(average, momentum).flatten(1)
        scale = 0.2 * max(matrix.shape) ** 0.5
        direction = orthogonal(matrix).to(parameter.dtype).reshape(parameter.shape)
        parameter.add_(direction, alpha=-lr * scale)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """About U·Vᵀ of a matrix U·S·Vᵀ, by Newton-Schulz steps of degree five in bfloat16."""
    x: Tensor = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.mT if tall else x
