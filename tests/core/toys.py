"""Problems with known answers, and small networks, that several tests use."""

import torch
from torch import nn

import anylatent as al
from anylatent.core.denoisers import flatten
from anylatent.core.testing.examples import alone, distance

__all__ = ["ExactBackbone", "PointNet", "alone", "distance", "gaussian", "like", "start"]

MEANS = (0.5, -1.0, 0.3, 1.0)
WIDTHS = (0.1, 0.3, 0.6, 1.0)


def like(blank, value):
    """The projected latent with one value everywhere."""
    return blank.map(lambda x: torch.full_like(x, value)).project()


def per_coordinate(blank, values):
    """A latent whose last axis runs through the given values."""

    def fill(x):
        row = torch.tensor([values[i % len(values)] for i in range(x.shape[-1])], dtype=x.dtype)
        return row.expand_as(x).clone()

    return blank.map(fill)


def gaussian(schedule, blank):
    """An exact denoiser with means ≠ 0 and a width ≤ 1 per coordinate, and those two."""
    mean, std = per_coordinate(blank, MEANS).project(), per_coordinate(blank, WIDTHS)
    return al.testing.GaussianDenoiser(schedule, mean, std), mean, std


def start(schedule, blank, mean=None, seed=0):
    """x at t = 1 and the noise that it came from."""
    noise = al.Noise.of(seed, blank.batch)
    x = schedule.sigma(1.0) * noise.like(blank)
    return (x if mean is None else x + schedule.alpha(1.0) * mean), noise


class ExactBackbone(al.Backbone):
    """The network that would give the exact denoiser: F = (x0 - c_skip·x)/c_out.

    Wrapped in `Preconditioned` it must give the exact x0 back, through c_in, c_skip and c_out.
    """

    def __init__(self, exact, prediction, spec, data_std=1.0):
        super().__init__()
        self.spec, self.conditions = spec, al.ConditionSpec()
        self.exact, self.prediction, self.data_std = exact, prediction, data_std
        self.t = None  # told by the test: c_noise is clipped, hence not invertible everywhere

    def forward(self, x, c_noise, cond=None, guest=None):
        schedule = self.exact.schedule
        alpha, sigma = schedule.alpha(self.t), schedule.sigma(self.t)
        x = (alpha**2 * self.data_std**2 + sigma**2).sqrt() * x
        x0 = self.exact(x, self.t)
        c_skip, c_out = self.prediction.inverse(schedule, self.t)
        return (x0 - c_skip * x) / c_out


class PointNet(al.Backbone):
    """A permutation-equivariant toy on padded points: each sees itself and the mean of all.

    It doesn't project: its output is neither centred nor zero at the padding.
    """

    def __init__(self, spec, conditions=None, width=32):
        super().__init__()
        self.spec, self.conditions = spec, conditions or al.ConditionSpec()
        size = sum(field.rest[0] for field in spec.fields.values())
        self.first = nn.Linear(size + 1, width)
        self.second = nn.Linear(2 * width, width)
        self.last = nn.Linear(width, size)

    def forward(self, x, c_noise, cond=None, guest=None):
        names = list(self.spec.fields)
        mask = x.masks[names[0]][..., None]
        points = torch.cat([torch.where(mask, x[name], 0) for name in names], -1)
        level = self.levels(c_noise, x).to(points)[:, None, None].expand(*points.shape[:2], 1)
        h = torch.tanh(self.first(torch.cat([points, level], -1)))
        mean = torch.where(mask, h, 0).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        h = torch.tanh(self.second(torch.cat([h, mean.expand_as(h)], -1)))
        sizes = [self.spec.fields[name].rest[0] for name in names]
        out = self.last(h).split(sizes, -1)
        return al.Latent(dict(zip(names, out, strict=True)), x.masks, x.spec)


def sizes(spec, batch):
    """A float64 blank of different lengths, where the spec has a variable field."""
    variable = any(field.variable for field in spec.fields.values())
    return spec.blank(batch, [5, 2, 3, 4][:batch] if variable else None, dtype=torch.float64)


def spiked(schedule, blank, count=2, std=0.4, mean=0.3, seed=11, **settings):
    """A Gaussian with `count` random spikes, not at right angles, of variances 1.5, 3, ..."""
    draw = al.Noise.of(seed, blank.batch)
    spikes = [draw.like(blank) for _ in range(count)]
    spikes = [spike / spike.norm() for spike in spikes]
    variances = [1.5 * (k + 1) for k in range(count)]
    return al.testing.SpikedGaussian(schedule, mean, std, spikes, variances, **settings), spikes


def dense(exact, spikes, std, blank):
    """The covariance (B, D, D) of `spiked`, by outer products, and the projection (B, D, D)."""
    flat = flatten
    unit = torch.eye(flat(blank).shape[1], dtype=torch.float64)
    onto = torch.stack([flat(unflat(row, blank).project()) for row in unit], -1)
    total = std**2 * onto
    for k, spike in enumerate(spikes):
        row = flat(spike)
        total = total + 1.5 * (k + 1) * row[:, :, None] * row[:, None, :]
    return total, onto


def unflat(row, like):
    """A latent of the batch of `like` with these numbers (D,) or (B, D) in the order of flatten."""
    rows = row.expand(like.batch, -1)
    parts, at = {}, 0
    for name, z in like.parts.items():
        size = z[0].numel()
        parts[name] = rows[:, at : at + size].reshape(z.shape)
        at += size
    return al.Latent(parts, like.masks, like.spec)


class EntryNet(al.Backbone):
    """A toy on entries of any shape that reads a noise level for each, (B, T), or one for all."""

    def __init__(self, spec, conditions=None, width=16, maps=0):
        super().__init__()
        self.spec, self.conditions = spec, conditions or al.ConditionSpec()
        (self.name,) = spec.fields
        size = 1
        for length in spec.fields[self.name].rest:
            size *= length
        self.first, self.second = nn.Linear(size + 1 + maps, width), nn.Linear(2 * width, width)
        self.last = nn.Linear(width, size)

    def forward(self, x, c_noise, cond=None, guest=None):
        z = x[self.name].flatten(2)
        mask = x.masks.get(self.name, torch.ones(z.shape[:2], dtype=torch.bool))[..., None]
        z = torch.where(mask, z, 0)
        level = c_noise.to(z).reshape(len(z), -1, 1).expand(*z.shape[:2], 1)
        h = torch.tanh(self.first(torch.cat([z, level], -1)))
        mean = torch.where(mask, h, 0).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        h = torch.tanh(self.second(torch.cat([h, mean.expand_as(h)], -1)))
        return x.replace(**{self.name: self.last(h).reshape(x[self.name].shape)})


class ExactData(al.Backbone):
    """An exact denoiser as the network of a `Preconditioned` with prediction=data, whose noise
    levels, of |λ| up to 20, it reads as times."""

    def __init__(self, exact, spec):
        super().__init__()
        self.exact, self.spec, self.conditions = exact, spec, al.ConditionSpec()

    def forward(self, x, c_noise, cond=None, guest=None):
        t = self.exact.schedule.time(-4 * c_noise.double())
        alpha, sigma = self.exact.schedule.coefficients(t)
        return self.exact((alpha**2 + sigma**2).sqrt() * x, t)
