"""`Preconditioned`: what the backbone sees, and that its output is made a point of the space."""

import pytest
import torch

import anylatent as al
from tests.core.toys import PointNet, distance, start

SPEC = al.LatentSpec({"z": al.Field((4096,))})


class Recorder(al.Backbone):
    """Keeps what it is given, returns zeros or its input."""

    def __init__(self, spec, gain=0.0):
        super().__init__()
        self.spec, self.conditions, self.gain, self.seen = spec, al.ConditionSpec(), gain, []

    def forward(self, x, c_noise, cond=None):
        self.seen.append((x, c_noise, cond))
        return self.gain * x


@pytest.mark.parametrize("name", ("vp", "cosine", "edm", "flow", "table"))
def test_the_input_has_unit_variance_at_every_noise_level(name):
    schedule, std = al.get("schedule", name)(), 0.4
    net = Recorder(SPEC)
    denoiser = al.Preconditioned(net, schedule, al.get("prediction", "v")(), data_std=std)
    blank = SPEC.blank(4, dtype=torch.float64)
    x0, z = std * al.Noise.of(0, 4).like(blank), al.Noise.of(1, 4).like(blank)
    for t in (0.0, 0.2, 0.7, 1.0):
        denoiser(schedule.alpha(t) * x0 + schedule.sigma(t) * z, t)
        variance = float(net.seen[-1][0]["z"].var())
        assert variance == pytest.approx(1, abs=5 * (2 / 4 / 4096) ** 0.5)


def test_equal_noise_levels_of_two_schedules_look_the_same():
    levels = torch.tensor([-8.0, -1.0, 0.0, 5.0, 12.0], dtype=torch.float64)
    seen = []
    for name in ("vp", "edm", "flow"):
        schedule, net = al.get("schedule", name)(), Recorder(SPEC)
        denoiser = al.Preconditioned(net, schedule, al.get("prediction", "edm")(0.5), 0.5)
        t = schedule.time(levels)
        x = SPEC.blank(5, dtype=torch.float64)
        x = al.combine((schedule.alpha(t), al.Noise.of(0, 5).like(x)))
        denoiser(x, t)
        seen.append((net.seen[0][0]["z"], net.seen[0][1]))
    for c_in_x, c_noise in seen[1:]:
        assert torch.allclose(c_in_x, seen[0][0], atol=1e-9)
        assert torch.allclose(c_noise, -levels / 4, atol=1e-9)


def test_c_noise_is_one_number_per_sample_clipped_and_in_the_precision_of_x():
    schedule, net = al.get("schedule", "flow")(), Recorder(SPEC)
    denoiser = al.Preconditioned(net, schedule, al.get("prediction", "velocity")())
    x = SPEC.blank(3)
    for t, wanted in ((0.0, -5.0), (1.0, 5.0), (0.5, 0.0)):
        denoiser(x, t)
        c_noise = net.seen[-1][1]
        assert c_noise.shape == (3,) and c_noise.dtype == torch.float32
        assert torch.equal(c_noise, torch.full((3,), wanted))


def test_times_per_frame_reach_the_backbone():
    spec = al.testing.SPECS["video"]
    net = Recorder(spec)
    denoiser = al.Preconditioned(net, al.get("schedule", "vp")(), al.get("prediction", "v")())
    t = torch.rand(2, 3, dtype=torch.float64)
    denoiser(spec.blank(2), t)
    assert net.seen[0][1].shape == (2, 3)


def test_the_output_of_a_backbone_is_projected():
    spec = al.testing.SPECS["molecule"]
    denoiser = al.Preconditioned(
        PointNet(spec).double(), al.get("schedule", "vp")(), al.get("prediction", "noise")()
    )
    x, _ = start(denoiser.schedule, al.testing.example(spec))
    assert al.testing.in_subspace(denoiser(x, 0.5), 1e-12)
    assert al.testing.in_subspace(denoiser.predict(x, 0.5), 1e-12)


@pytest.mark.parametrize("key", ("text", "molecule"))
def test_the_contract_with_a_toy_network(key):
    torch.manual_seed(0)
    spec = al.testing.SPECS[key]

    class Cast(PointNet):
        def forward(self, x, c_noise, cond=None):
            return super().forward(x.to(torch.float64), c_noise.double(), cond)

    net = Cast(spec).double()
    for kind in ("v", "data", "edm"):
        denoiser = al.Preconditioned(net, al.get("schedule", "vp")(), al.get("prediction", kind)())
        al.testing.check_denoiser(denoiser, spec)


def test_at_t_0_the_backbone_has_no_say():
    for kind in ("data", "noise", "v", "score", "edm"):
        net = Recorder(SPEC, gain=7.0)
        denoiser = al.Preconditioned(net, al.get("schedule", "vp")(), al.get("prediction", kind)())
        x = al.Noise.of(0, 2).like(SPEC.blank(2))
        assert distance(denoiser(x, 0.0), x) == 0, kind


def test_binding_a_condition():
    net = Recorder(SPEC)
    denoiser = al.Preconditioned(net, al.get("schedule", "vp")(), al.get("prediction", "v")())
    cond = al.Condition({"kind": torch.tensor([1, 2])})
    denoiser.bind(cond)(SPEC.blank(2), 0.5)
    assert net.seen[0][2] is cond
