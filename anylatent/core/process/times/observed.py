"""Laws of time that follow what training observes: moving averages over bins of noise levels."""

from __future__ import annotations

import torch
from torch import Tensor

from anylatent.core.process.schedules import Schedule
from anylatent.core.process.times.base import Times, level_limits, positive
from anylatent.core.process.times.curve import Curve
from anylatent.core.registry import register


class Observed(Times):
    """Means of what is observed in `bins` equal steps of a base variable in [0, 1], by moving
    averages over about `memory` steps; `plain` is the share of the uniform law."""

    loss: Tensor
    seen: Tensor

    def __init__(self, bins: int, memory: int, plain: float, stratified: bool) -> None:
        super().__init__()
        if bins < 2 or memory < 1 or not 0 < plain <= 1:
            raise ValueError(
                f"need bins >= 2, memory >= 1 and 0 < plain <= 1, got {bins}, {memory}, {plain}"
            )
        self.bins, self.memory, self.plain, self.stratified = bins, memory, plain, stratified
        self.register_buffer("loss", torch.zeros(bins))
        self.register_buffer("seen", torch.zeros(bins))

    def _record(self, base: Tensor, values: Tensor) -> None:
        """Adds values at places in [0, 1] of the same shape, of all processes."""
        base, values = base.flatten(), values.flatten()
        place = (base * self.bins).long().clamp(0, self.bins - 1)
        sums = self.loss.new_zeros(2, self.bins)
        rows = torch.stack([values.to(sums), torch.ones_like(values).to(sums)])
        sums.index_add_(1, place.to(sums.device), rows)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        total, count = sums
        self.seen += (count > 0).to(sums)
        rate = 1 / self.seen.clamp(1, self.memory)
        self.loss += torch.where(count > 0, rate * (total / count.clamp(min=1) - self.loss), 0)

    def _means(self) -> Tensor:
        return self.loss.cpu().double() if self.loss.device.type == "mps" else self.loss.double()


@register("times", "adaptive")
class Adaptive(Observed):
    """Density ∝ √E[L²] of the loss L at each λ: the least variance that a law of times can give.

    2102.09672's importance sampling in continuous time. L is the loss that uniform λ would have;
    its square is averaged in `bins` equal parts of λ over about `memory` steps, and the law is
    uniform in λ until each has been seen `trials` times. The weighting must divide by the density,
    as `elbo`, `sigmoid`, `monotone_edm` and `uniform` do, so that only the variance changes.
    """

    adapts = True

    def __init__(
        self,
        bins: int = 100,
        memory: int = 300,
        plain: float = 0.05,
        trials: int = 10,
        stratified: bool = True,
    ) -> None:
        super().__init__(bins, memory, plain, stratified)
        self.trials = trials

    @torch.no_grad()
    def observe(
        self, t: Tensor, error: Tensor, schedule: Schedule, loss: Tensor | None = None
    ) -> None:
        _check_pairs(t, error)
        place, found = self._place(t, schedule), error if loss is None else loss
        self._record(place, (found.double() * self._curve().slope(place).to(found.device)) ** 2)

    def _place(self, t: Tensor, schedule: Schedule) -> Tensor:
        """λ's place between the most, 0, and the least, 1."""
        low, high = level_limits(schedule)
        return (high - schedule.log_snr(t)) / (high - low)

    def _curve(self) -> Curve:
        root = self._means().sqrt()
        known = (self.seen.min() >= self.trials).to(root.device) & (root.sum() > 0)
        share = torch.where(known, root / root.mean().clamp(min=1e-300), 1.0)
        return Curve.of((1 - self.plain) * share + self.plain)

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        low, high = level_limits(schedule)
        return schedule.time(high - self._curve().inverse(u) * (high - low))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        low, high = level_limits(schedule)
        slope = self._curve().slope(self._place(t, schedule))
        return slope * (-schedule.log_snr_rate(t) / (high - low)).to(slope)


@register("times", "warped")
class Warped(Observed):
    """Noise levels as often as the loss grows there: linear in warped time. CDCD (2211.15089).

    The mean loss L is followed in `bins` equal steps of b = 1/(1 + exp(λ/scale)), which grows with
    the noise, by moving averages over about `memory` steps; L made monotone, F = (L - L(0)) / (L(1)
    - L(0)) is the distribution function of b, mixed with a share `plain` of the uniform law. Before
    any loss is known, b is uniform.
    """

    def __init__(
        self,
        bins: int = 100,
        scale: float = 2.0,
        memory: int = 300,
        plain: float = 0.05,
        stratified: bool = True,
    ) -> None:
        super().__init__(bins, memory, plain, stratified)
        self.scale = positive(scale)

    @torch.no_grad()
    def observe(
        self, t: Tensor, error: Tensor, schedule: Schedule, loss: Tensor | None = None
    ) -> None:
        _check_pairs(t, error)
        self._record(self._base(schedule.log_snr(t)), error)

    def _base(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr / self.scale)

    def _curve(self, schedule: Schedule) -> Curve:
        """F over b, at the ends and the middles of the bins, up to the schedule's most noise."""
        loss = self._means()
        b = (torch.arange(self.bins, dtype=torch.float64, device=loss.device) + 0.5) / self.bins
        b = torch.cat([b.new_zeros(1), b, b.new_ones(1)])
        level = _monotone(loss, (self.seen > 0).to(loss.device))
        level = torch.cat([level[:1], level, level[-1:]])
        rise = level[-1] - level[0]
        grown = torch.where(rise > 0, (level - level[0]) / rise.clamp(min=1e-300), b)
        f = (1 - self.plain) * grown + self.plain * b
        most = self._base(torch.as_tensor(schedule.log_snr(1.0), dtype=torch.float64)).to(b)
        return Curve(b, f / Curve(b, f)(most))

    def quantile(self, u: Tensor, schedule: Schedule) -> Tensor:
        return schedule.time(-self.scale * torch.logit(self._curve(schedule).inverse(u)))

    def density(self, t: Tensor, schedule: Schedule) -> Tensor:
        at = self._base(schedule.log_snr(t))
        slope = self._curve(schedule).slope(at)
        return slope * (at * (1 - at) / self.scale * -schedule.log_snr_rate(t)).to(slope)


def _check_pairs(t: Tensor, error: Tensor) -> None:
    if t.shape != error.shape:
        raise ValueError(
            f"errors of shape {tuple(error.shape)} at times of shape {tuple(t.shape)}: a law of "
            "times observes one error for each time"
        )


def _monotone(values: Tensor, known: Tensor) -> Tensor:
    """A rising curve near the known values: the mean of the least one above and the greatest one
    below. Unknown values follow their neighbours."""
    above = torch.where(known, values, torch.inf).flip(0).cummin(0).values.flip(0)
    below = torch.where(known, values, -torch.inf).cummax(0).values
    above, below = (
        torch.where(above.isinf(), below, above),
        torch.where(below.isinf(), above, below),
    )
    return torch.where(known.any(), (above + below) / 2, 0.0)
