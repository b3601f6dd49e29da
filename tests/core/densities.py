"""Laws with known log-densities, their draws, and a small network without one."""

import math

import torch

import anylatent as al
from anylatent.core.denoisers.exact import constant
from tests.core.toys import PointNet

LEVEL = 14.0
RHO = math.exp(-LEVEL / 2)


def normal(x, mean, variance):
    """log N(x; mean, variance) on the subspace."""
    gap = x - mean
    return -0.5 * gap.dot(gap) / variance - 0.5 * x.dim.double() * math.log(2 * math.pi * variance)


def pushed(schedule, x0, mean, std, level=LEVEL):
    """The law of what the exact flow makes of N(0, sigma(1)²), of which alpha(1) is neglected.

    In y = x/alpha the flow keeps (y - mean)/√(std² + ρ²).
    """
    alpha, sigma = float(schedule.alpha(1.0)), float(schedule.sigma(1.0))
    gain = math.sqrt((std**2 + math.exp(-level)) / (alpha**2 * std**2 + sigma**2))
    return normal(x0, (1 - gain * alpha) * mean, (gain * sigma) ** 2)


def data(blank, value=0.5, std=0.3, seed=0):
    mean = constant(blank, value) if isinstance(value, float) else value
    return mean + std * al.Noise.of(seed, blank.batch).like(blank), mean


def mixture(schedule, spec, std=0.3, lengths=None):
    """Three components at random places, as a denoiser, and its log-density with noise ρ."""
    blank = spec.blank(1, lengths, dtype=torch.float64)
    means = [al.Noise.of((7, k), 1).like(blank) for k in range(3)]
    weights = (0.5, 0.3, 0.2)

    def log_density(x, rho=RHO):
        rows = [m.map(lambda a, b: a.expand_as(b), x) for m in means]
        pairs = zip(rows, weights, strict=True)
        terms = [normal(x, m, std**2 + rho**2) + math.log(w) for m, w in pairs]
        return torch.stack(terms).logsumexp(0)

    return al.testing.MixtureDenoiser(schedule, means, std, weights), means, log_density


def typical(means, std, count, **sizes):
    """Draws of the mixture, the components in turn."""
    spec = means[0].spec
    blank = spec.blank(count, dtype=torch.float64, **sizes)
    centres = blank.map(lambda x, *m: torch.cat(m * count)[:count], *means)
    return centres + std * al.Noise.of(0, count).like(blank)


def network(spec, schedule=None, dtype=torch.float64, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = PointNet(spec).to(dtype)
        for parameter in net.parameters():
            parameter.data.mul_(2)
    schedule = schedule or al.get("schedule", "cosine")()
    return al.Preconditioned(net, schedule, al.get("prediction", "edm")()).eval()
