"""A Gaussian process along the entries of a latent, of which every window has one law."""

from __future__ import annotations

import torch
from torch import Tensor

from anylatent.core.denoisers.base import Denoiser
from anylatent.core.latents import Condition, Latent, over
from anylatent.core.process import Schedule, Time, as_time


class StationaryGaussian(Denoiser):
    """E[x0 | x_t] where each number of entry i is N(0, std²), and correlated by
    `correlation`^|i - j| with that of entry j: who knows an entry learns nothing from earlier ones
    about what comes after it.

    For latents with entries, and times (), (B,) or (B, T).
    """

    def __init__(self, schedule: Schedule, std: float = 1.0, correlation: float = 0.8) -> None:
        super().__init__()
        if not (std > 0 and -1 < correlation < 1):
            raise ValueError(f"need std > 0, |correlation| < 1, got {std} and {correlation}")
        self.schedule, self.std, self.correlation = schedule, std, correlation

    @property
    def entry_times(self) -> bool:
        return True

    def covariance(self, count: int) -> Tensor:
        """Of the entries, (count, count)."""
        places = torch.arange(count, dtype=torch.float64)
        gaps = (places[:, None] - places).abs()
        return self.std**2 * torch.as_tensor(self.correlation, dtype=torch.float64) ** gaps

    def forward(self, x: Latent, t: Time, cond: Condition | None = None) -> Latent:
        count = x.entries
        alpha, sigma = (c.to(x.device) for c in self.schedule.coefficients(as_time(t)))
        if alpha.ndim < 2:
            alpha, sigma = (c.reshape(-1, 1).expand(-1, count) for c in (alpha, sigma))
        law = self.covariance(count).to(x.device)
        parts = {}
        for name, z in x.parts.items():
            there = x.masks[name].double() if name in x.masks else torch.ones_like(z[:, :, 0])
            gain = (alpha * there).double()
            spread = gain[:, :, None] * law * gain[:, None]
            spread = spread + torch.diag_embed(sigma**2 * there + (1 - there))
            rows = z.double().flatten(2)
            found = law @ (gain[..., None] * torch.linalg.solve(spread, rows))
            parts[name] = torch.where(over(there > 0, z), found.reshape(z.shape).to(z.dtype), 0)
        return Latent(parts, x.masks, x.spec)
