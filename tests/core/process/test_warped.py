"""The learned time warp: it recovers a known loss curve and makes the loss linear."""

import pytest
import torch

import anylatent as al

COUNT = 512


def loss_of(log_snr):
    """A loss that rises with the noise around λ = 3, as that of tokens does."""
    return 2.5 * torch.sigmoid(1.5 * (3 - log_snr))


def fitted(schedule, steps=400, scatter=0.3):
    times = al.get("times", "warped")()
    for step in range(steps):
        noise = al.Noise.of((0, step), COUNT)
        t = times.sample(noise, schedule)
        loss = loss_of(schedule.log_snr(t)) * (1 + scatter * noise.normal().double())
        times.observe(t, loss, schedule)
    return times


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_it_recovers_a_loss_curve_and_makes_it_linear(name):
    schedule = al.get("schedule", name)()
    times = fitted(schedule)
    u = torch.linspace(0, 1, 101, dtype=torch.float64)
    t = times.quantile(u, schedule).clamp(0, 1)
    most = loss_of(schedule.log_snr(torch.tensor(1.0)))
    share = loss_of(schedule.log_snr(t)) / most
    assert float((share - u).abs().max()) < 0.08  # of which 0.05 is the uniform part
    middles = (torch.arange(times.bins) + 0.5) / times.bins
    known = times.seen > 20
    wanted = loss_of(-times.scale * torch.logit(middles))[known]
    assert float((times.loss[known] - wanted).abs().max()) < 0.12 * 2.5
    plain = loss_of(schedule.log_snr(u[1:-1].clamp(1e-3))) / most
    assert float((plain - u[1:-1]).abs().max()) > 0.2  # and it was not so before


def test_the_law_is_one_after_fitting_too():
    for name in ("vp", "cosine", "edm", "flow"):
        schedule = al.get("schedule", name)()
        times = fitted(schedule, steps=30)
        u = torch.linspace(0.003, 0.997, 53, dtype=torch.float64)
        step = 1e-7
        slope = (times.quantile(u + step, schedule) - times.quantile(u - step, schedule)) / step / 2
        product = times.density(times.quantile(u, schedule), schedule) * slope
        inner = slope > 1e-9
        assert torch.allclose(product[inner], torch.ones_like(product[inner]), atol=1e-3)


def test_its_state_is_saved_and_no_other_law_has_one():
    times = fitted(al.get("schedule", "vp")(), steps=5)
    fresh = al.get("times", "warped")()
    fresh.load_state_dict(times.state_dict())
    u = torch.rand(20, generator=torch.Generator().manual_seed(0)).double()
    schedule = al.get("schedule", "vp")()
    assert torch.equal(fresh.quantile(u, schedule), times.quantile(u, schedule))
    assert not al.get("times", "uniform")().state_dict()


def test_the_warped_grid_has_equal_shares_of_the_loss():
    schedule = al.get("schedule", "vp")()
    times = fitted(schedule)
    grid = al.get("grid", "warped")(times=times)(schedule, 20)
    loss = loss_of(schedule.log_snr(grid[1:-1]))
    assert float(loss.diff().abs().std() / loss.diff().abs().mean()) < 0.35
    wide = loss_of(schedule.log_snr(al.get("grid", "uniform")()(schedule, 20)[1:-1]))
    assert float(wide.diff().abs().std() / wide.diff().abs().mean()) > 0.7


def test_bad_settings():
    for bad in ({"bins": 1}, {"memory": 0}, {"plain": 0.0}, {"scale": 0.0}):
        with pytest.raises(ValueError):
            al.get("times", "warped")(**bad)
