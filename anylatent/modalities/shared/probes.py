"""Small networks that judge samples: learned once from real data, and the same for everybody.

Learning is deterministic for a number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from anylatent.core.support.progress import track
from anylatent.core.training.step_sampler import StepSampler

N = TypeVar("N", bound=nn.Module)


@contextmanager
def seeded() -> Iterator[None]:
    """What is drawn inside is always the same, and the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def restored(build: Callable[[], N], state: Mapping[str, Tensor]) -> N:
    """A network of this state, frozen."""
    with torch.random.fork_rng(devices=[]):  # building draws weights that are thrown away
        network = build()
    network.load_state_dict(dict(state))
    return network.eval().requires_grad_(False)


def batches(size: int, batch: int, steps: int, lengths: Tensor | None = None) -> StepSampler:
    """The rows of each step, always the same ones; of nearly equal lengths if these are given."""
    return StepSampler(size, batch, steps, start=0, seed=0, rank=0, world=1, lengths=lengths)


def learn(
    network: nn.Module,
    optimizers: Sequence[Optimizer],
    sampler: StepSampler,
    backward: Callable[[list[int]], None],
    description: str,
) -> None:
    """A step for each batch of rows, for which `backward` computes the network's gradients.

    Rates rise to their optimiser's over 100 steps and fall along half a cosine; gradients are
    clipped to norm 1.
    """
    for step, rows in enumerate(track(sampler, description, sampler.steps)):
        fall = 0.5 * (1 + math.cos(math.pi * step / sampler.steps))
        rate = min(1.0, (step + 1) / 100) * fall
        network.zero_grad()
        backward(rows)
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = optimizer.defaults["lr"] * rate
            optimizer.step()


def logistic_regression(
    x: Tensor, labels: Tensor, classes: int, *, penalty: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Weights (classes, D) and biases (classes,) that tell labels (N,) from features x (N, D).

    −mean log p + penalty · |W|² is convex; it is minimised from zero by L-BFGS in the precision
    of x, which should be standardised.
    """
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores = functional.linear(x, weight, bias)
        value = functional.cross_entropy(scores, labels) + penalty * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
