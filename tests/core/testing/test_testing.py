"""The contract tests must be able to fail: each refuses a part with one thing wrong."""

import pytest
import torch
from torch import nn

import anylatent as al
from anylatent.core.latents.latent import combine
from anylatent.core.modality.conditioner import Conditioner
from anylatent.core.objectives.weightings import Weighting
from anylatent.core.process.schedules import RectifiedFlow
from anylatent.core.process.times import Uniform
from anylatent.core.solvers.ddim import DDIM
from tests.core.toys import PointNet


class WrongRate(RectifiedFlow):
    def rates(self, t):
        alpha, sigma = super().rates(t)
        return alpha, 1.001 * sigma


class NeverClean(RectifiedFlow):
    def coefficients(self, t):
        return 1 - t, t + 1e-3


class WrongInverse(RectifiedFlow):
    def time(self, log_snr):
        return super().time(log_snr) ** 1.001


@pytest.mark.parametrize(
    ("part", "message"),
    ((WrongRate, "autograd"), (NeverClean, "exactly 0"), (WrongInverse, "time")),
)
def test_check_schedule(part, message):
    with pytest.raises(AssertionError, match=message):
        al.testing.check_schedule(part())


def test_check_prediction():
    class Careless(al.Prediction):
        def target(self, schedule, t):
            a, b = al.get("prediction", "noise")().target(schedule, t)
            return a, b

        def check(self, schedule):
            pass

    with pytest.raises(AssertionError, match="accepted although x0 is undefined"):
        al.testing.check_prediction(Careless())


def test_check_grid():
    class Short(al.Grid):
        def __call__(self, schedule, steps):
            return torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64)

        def interior(self, schedule, steps, start):
            raise NotImplementedError

    class Whole(al.Grid):
        """Begins anew from 1 whatever the start, if the start leaves it any room."""

        def interior(self, schedule, steps, start):
            return float(start) * torch.linspace(1, 0, steps + 1, dtype=torch.float64)[1:-1]

        def below(self, schedule, t, steps):
            return super().below(schedule, 1.0, steps)

    class OneStart(Whole):
        """The first sample's start for all."""

        def below(self, schedule, t, steps):
            t = torch.as_tensor(t, dtype=torch.float64)
            return al.Grid.below(self, schedule, torch.full_like(t, float(t.max())), steps)

    for part, message in ((Short(), "ends"), (Whole(), "ends"), (OneStart(), "for each sample")):
        with pytest.raises(AssertionError, match=message):
            al.testing.check_grid(part)


class Overstated(DDIM):
    order = 2


class Coupled(DDIM):
    """Subtracts a little of the batch's mean."""

    def step(self, denoise, x, step, memory, noise):
        x, memory = super().step(denoise, x, step, memory, noise)
        return x.map(lambda z: z + 1e-3 * z.mean(0, keepdim=True)).project(), memory


class Late(DDIM):
    """Evaluates at the end of each step."""

    def step(self, denoise, x, step, memory, noise):
        c_x, c_0, _ = step.coefficients
        return combine((c_0, denoise(x, step.s)), (c_x, x)), None


class Global(DDIM):
    """Draws from torch's own generator."""

    def step(self, denoise, x, step, memory, noise):
        c_x, c_0, up = step.coefficients
        z = x.map(torch.randn_like).project()
        return combine((c_0, denoise(x, step.t)), (c_x, x), (up, z)), None


@pytest.mark.parametrize(
    ("solver", "message"),
    (
        (Overstated(), "order"),
        (Coupled(), "mean is off|deviation is off|alone differs"),
        (Late(), "first evaluation"),
        (Global(eta=1.0), "is off"),
    ),
)
def test_check_solver(solver, message):
    with pytest.raises(AssertionError, match=message):
        al.testing.check_solver(solver)


def test_check_times():
    class Skewed(Uniform):
        def quantile(self, u, schedule):
            return u**1.1

    class Alike(Uniform):
        """One time for all entries of a sample."""

        def sample(self, noise, schedule, entries=None):
            found = super().sample(noise, schedule)
            return found if entries is None else found[:, None].expand(-1, entries)

    class OfPadding(Uniform):
        """As many draws as there are entries, shared in turn."""

        def sample(self, noise, schedule, entries=None):
            found = super().sample(noise, schedule, entries)
            return found if entries is None else found.roll(entries, 1).flip(1)

    parts = ((Skewed(), "density"), (Alike(), "depend on"), (OfPadding(), "neighbours"))
    for part, message in parts:
        with pytest.raises(AssertionError, match=message):
            al.testing.check_times(part)


def test_check_weighting():
    class Wild(Weighting):
        def data(self, log_snr, measure):
            return log_snr

    class Trusting(Weighting):
        """Multiplies whatever it gets: times (B, B) and errors (B,)."""

        def data(self, log_snr, measure):
            return torch.ones_like(log_snr)

        def loss(self, denoiser, t, times, error):
            return self(denoiser, t, times) * error

    class MeanOfBatch(Trusting):
        def loss(self, denoiser, t, times, error):
            super(Trusting, self).loss(denoiser, t, times, error)
            return self(denoiser, t, times) * error / error.mean()

    parts = ((Wild(), "negative"), (Trusting(), "refuse them"), (MeanOfBatch(), "of each entry"))
    for part, message in parts:
        with pytest.raises(AssertionError, match=message):
            al.testing.check_weighting(part)


def test_check_denoiser_at_times_of_entries():
    class Loose(al.testing.GaussianDenoiser):
        """Takes the mean time of a sample for that of its entries."""

        entry_times = True

        def forward(self, x, t, cond=None):
            t = torch.as_tensor(t, dtype=torch.float64)
            return super().forward(x, t.mean(1) if t.ndim == 2 else t)

    class Refuses(al.testing.GaussianDenoiser):
        def forward(self, x, t, cond=None):
            if isinstance(t, torch.Tensor) and t.ndim == 2:
                raise ValueError("one time for each sample")
            return super().forward(x, t)

    class Promises(Refuses):
        entry_times = True

    schedule, spec = al.get("schedule", "vp")(), al.testing.SPECS["text"]
    al.testing.check_denoiser(Refuses(schedule, 0.5, 0.3), spec)
    for kind, message in ((Loose, "an entry at t = 0 moves"), (Promises, "but refuses")):
        with pytest.raises(AssertionError, match=message):
            al.testing.check_denoiser(kind(schedule, 0.5, 0.3), spec)


def test_check_guidance():
    class Loud(al.Denoiser):
        def __init__(self, denoiser):
            super().__init__()
            self.denoiser, self.schedule = denoiser, denoiser.schedule

        def forward(self, x, t, cond=None):
            return 1.01 * self.denoiser(x, t, cond)

    with pytest.raises(AssertionError, match="plain|x/alpha"):
        al.testing.check_guidance(Loud)


class Embeds(PointNet):
    """A toy that meets the contract: classes with a null row, padding left out."""

    def __init__(self, conditions=None):
        super().__init__(al.testing.SPECS["molecule"], conditions)
        self.table = nn.Embedding(self.conditions.classes["kind"] + 1, 1)

    def level(self, c_noise, cond):
        index = torch.full((len(c_noise),), self.table.num_embeddings - 1)
        if cond is not None and "kind" in cond.values:
            index = torch.where(cond.keep["kind"], cond.values["kind"], index)
        return c_noise + self.table(index)[:, 0]

    def forward(self, x, c_noise, cond=None, guest=None):
        return super().forward(x, self.level(self.levels(c_noise, x), cond), cond)


class SeesNeighbours(Embeds):
    def forward(self, x, c_noise, cond=None, guest=None):
        c_noise = self.levels(c_noise, x)
        return super().forward(x, c_noise + 0.01 * c_noise.mean(), cond)


class ForgetsDropping(Embeds):
    def level(self, c_noise, cond):
        if cond is None or "kind" not in cond.values:
            return super().level(c_noise, None)
        return c_noise + self.table(cond.values["kind"])[:, 0]


class SeesPadding(Embeds):
    def forward(self, x, c_noise, cond=None, guest=None):
        size = x.masks["x"].shape[1]
        return super().forward(x, self.levels(c_noise, x) + 0.01 * size, cond)


class Idle(Embeds):
    def __init__(self, conditions=None):
        super().__init__(conditions)
        self.unused = nn.Parameter(torch.zeros(3))


KINDS = al.ConditionSpec(classes={"kind": 3})


@pytest.mark.parametrize(
    ("backbone", "message"),
    (
        (SeesNeighbours, "alone differs"),
        (SeesPadding, "alone differs"),
        (ForgetsDropping, "dropping"),
        (Idle, "no gradient ever reaches .*unused"),
    ),
)
def test_check_backbone(backbone, message):
    al.testing.check_backbone(Embeds, KINDS)
    with pytest.raises(AssertionError, match=message):
        al.testing.check_backbone(backbone, KINDS)


def test_check_conditioner():
    class Lenient(Conditioner):
        def __init__(self):
            super().__init__()
            self.spec = KINDS

        def forward(self, columns):
            if "kind" not in columns:
                return al.Condition()
            entries = columns["kind"]
            keep = torch.tensor([entry is not None for entry in entries])
            return al.Condition({"kind": torch.tensor([e or 0 for e in entries])}, {"kind": keep})

    with pytest.raises(AssertionError, match="accepts a column"):
        al.testing.check_conditioner(Lenient(), {"kind": [1, 2]})


def test_in_subspace():
    blank = al.testing.example(al.testing.SPECS["molecule"])
    inside = al.Noise.of(0, 4).like(blank)
    assert al.testing.in_subspace(inside)
    for value in (1e-6, torch.inf, torch.nan):
        outside = al.Latent(dict(inside.parts), inside.masks, inside.spec)
        outside.parts["h"] = outside.parts["h"].clone()
        outside.parts["h"][2, -1] = value  # padding
        assert not al.testing.in_subspace(outside)
    moved = al.Latent({**inside.parts, "x": inside["x"] + 1e-6}, inside.masks, inside.spec)
    assert not al.testing.in_subspace(moved)
