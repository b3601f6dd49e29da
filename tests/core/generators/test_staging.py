"""`generator=cascade`: stages of a configuration, each with what is its own."""

from dataclasses import replace

import pytest
import torch

import anylatent as al
from anylatent.core.cli.overrides import quoted
from anylatent.core.generators import schedules_of
from anylatent.core.likelihood.measures import Flow
from anylatent.core.registry import Part
from anylatent.core.registry.store import _parts
from anylatent.core.runs.design import Design
from anylatent.core.support.files import UserError
from tests.core.toys import distance
from tests.test_configs import train_config

SHAPE = al.testing.SPECS["shape"]
KIND = al.ConditionSpec(classes={"kind": 3})
MLP = ("backbone=mlp", "backbone.width=16", "backbone.depth=1")
POINTS = "generator.stages.points.backbone={name: transformer, width: 16, depth: 1, heads: 2}"


def made(spec, *overrides, conditions=KIND, generator="cascade"):
    told = train_config(*MLP, f"generator={generator}", *map(quoted, overrides)).model
    torch.manual_seed(0)
    return Design(told, spec, conditions).generator()


def woken(model):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def drawn(spec, batch=4, seed=2):
    return al.Noise.of(seed, batch).like(spec.blank(batch))


def sampler(steps=3, guidance=2.0, grid="log_snr", solver="dpmpp_2m"):
    guided = al.get("guidance", "classifier_free")
    how = None if guidance is None else lambda denoiser, noise: guided(denoiser, scale=guidance)
    return al.Sampler(al.get("solver", solver)(), al.get("grid", grid)(), steps, how)


COND = al.Condition({"kind": torch.tensor([0, 1, 2, 1])})


# ---- one stage --------------------------------------------------------------------------------
def test_a_cascade_of_one_stage_is_a_diffusion_model_bit_for_bit():
    spec = SHAPE.take(["shape"])
    plain, cascade = (made(spec, generator=name) for name in ("diffusion", "cascade"))
    weights = {f"stages.shape.{name}": x for name, x in plain.state_dict().items()}
    assert weights.keys() == cascade.state_dict().keys()
    assert all(torch.equal(x, weights[name]) for name, x in cascade.state_dict().items())
    x0, models = drawn(spec), [woken(model) for model in (plain, cascade)]
    for cond in (None, COND, COND.drop(0.5, al.Noise.of(4, 4))):
        losses = [model.loss(x0, cond, al.Noise.of(3, 4)) for model in models]
        assert torch.equal(*losses)
        for how in (sampler(), sampler(solver="ddpm"), sampler(guidance=None)):
            found = [m.sample(spec.blank(4), cond, how, al.Noise.of(5, 4)) for m in models]
            assert torch.equal(found[0]["shape"], found[1]["shape"])
        found = [model.invert(x0, cond, sampler(), al.Noise.of(5, 4)) for model in models]
        assert torch.equal(found[0]["shape"], found[1]["shape"])
    told = [model.nats(x0, COND, al.Noise.of(6, 4), Flow(steps=4)) for model in models]
    assert torch.equal(told[0][0], told[1][0]) and list(models[1].members) == ["shape"]


def test_a_molecule_is_one_stage_of_both_fields():
    """Its backbones see positions and features at a time; the other way is an error."""
    spec, small = al.testing.SPECS["molecule"], {"name": "egnn", "width": 16, "edge": 8, "depth": 1}
    models = []
    for node in (
        {"name": "diffusion"},
        {"name": "cascade", "stages": {"both": {"fields": ["x", "h"]}}},
    ):
        told = replace(train_config().model, backbone=small, generator=node)
        torch.manual_seed(0)
        models.append(woken(Design(told, spec, al.ConditionSpec()).generator()))
    blank = al.testing.example(spec, dtype=torch.float32)
    found = [model.sample(blank, None, sampler(), al.Noise.of(5, 4)) for model in models]
    assert distance(*found) == 0 and list(models[1].stages) == ["both"]
    with pytest.raises(ValueError, match=r"egnn takes positions .*stages.both.fields=\[x,h\]"):
        Design(replace(told, generator={"name": "cascade"}), spec, al.ConditionSpec()).generator()


# ---- what is a stage's own --------------------------------------------------------------------
def test_each_field_has_a_stage_with_settings_of_its_own():
    own = ("generator.stages.shape.backbone.width=24", "generator.stages.shape.schedule=vp")
    own += ("generator.stages.shape.prediction=noise", "generator.stages.points.times=uniform")
    model = made(SHAPE, POINTS, *own)
    assert model.spec == SHAPE and list(model.stages) == ["shape", "points"]
    shape, points = model.stages.values()
    assert shape.denoiser.backbone.last.in_features == 24
    assert type(points.denoiser.backbone).__name__ == "Transformer"
    assert type(shape.schedule).__name__ == "VariancePreserving" != type(points.schedule).__name__
    assert type(points.times).__name__ == "Uniform" != type(shape.times).__name__
    assert shape.denoiser.backbone.conditions.latents == {}
    assert points.denoiser.backbone.conditions.latents == {"shape": al.Field((5,))}
    assert points.denoiser.backbone.conditions.classes == KIND.classes
    assert list(model.members) == ["shape", "points"] and len(schedules_of(model)) == 2
    assert model.schedule is None


def test_later_fields_depend_on_earlier_ones_and_not_the_other_way_round():
    model, x0 = woken(made(SHAPE, POINTS)), drawn(SHAPE)

    def losses(x0):
        return {k: model.loss_of(k, x0, COND, al.Noise.of(5, 4)) for k in model.stages}

    before = losses(x0)
    for field, moved in (("shape", {"shape", "points"}), ("points", {"points"})):
        other = x0.replace(**{field: x0[field] + 1})
        after = losses(other)
        assert {name for name in after if not torch.equal(after[name], before[name])} == moved
    noise = al.Noise.of(5, 4)
    each = [model.loss_of(name, x0, COND, noise) for name in model.stages]
    assert torch.equal(model.loss(x0, COND, al.Noise.of(5, 4)), each[0] + each[1])


def test_a_group_of_fields_is_one_stage_in_the_place_of_its_first():
    class Both(al.Backbone):
        """Sees all fields."""

        def __init__(self, spec=None, conditions=None):
            super().__init__()
            self.spec, self.conditions = spec, conditions
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, c_noise, cond=None, guest=None):
            return self.scale * x

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_parts["backbone"], "both", Part("backbone", "both", Both))
        spec = al.LatentSpec({name: al.Field((3,)) for name in "abc"})
        told = ("generator.stages.ends.fields=[a,c]", "generator.stages.ends.backbone={name: both}")
        model = made(spec, *told)
    assert model.spec == spec and list(model.stages) == ["ends", "b"]
    assert list(model.stages["ends"].spec.fields) == ["a", "c"]
    assert list(model.stages["b"].denoiser.backbone.conditions.latents) == ["a", "c"]
    made_of = model.sample(spec.blank(2), None, sampler(), al.Noise.of(0, 2))
    assert list(made_of.parts) == ["a", "b", "c"]


def test_each_stage_is_sampled_at_its_own_times():
    """The grid `warped` follows the law that a stage has learned, and not another's."""
    model = made(SHAPE, POINTS, "times=warped")
    for name, level in (("shape", 0.2), ("points", 0.7)):
        stage = model.stages[name]
        t = torch.linspace(0.01, 0.99, 4096, dtype=torch.float64)
        error = 0.1 + torch.exp(-((t - level) ** 2) / 0.005)
        for _ in range(300):
            stage.times.observe(t, error, stage.schedule, error)
    seen = []
    how = sampler(steps=6, grid="warped", solver="euler")
    model.sample(
        SHAPE.blank(2), None, how, al.Noise.of(0, 2), lambda i, t, x: seen.append(float(t))
    )
    grids = [al.get("grid", "warped")(stage.times) for stage in model.stages.values()]
    pairs = zip(grids, model.stages.values(), strict=True)
    wanted = [t for grid, stage in pairs for t in grid(stage.schedule, 6)[1:].tolist()]
    assert seen == pytest.approx(wanted)
    assert abs(wanted[2] - wanted[8]) > 0.05


def test_each_stage_learns_a_schedule_of_its_own():
    model = made(SHAPE, POINTS, "schedule=learned", "prediction=v", "weighting=elbo").train()
    model.loss_of("shape", drawn(SHAPE), COND, al.Noise.of(0, 4)).sum().backward()
    moved = [
        any(p.grad is not None and bool(p.grad.any()) for p in stage.schedule.parameters())
        for stage in model.stages.values()
    ]
    assert moved == [True, False]
    model.sample(SHAPE.blank(2), None, sampler(), al.Noise.of(0, 2))


def test_a_start_is_taken_apart():
    model, x0 = woken(made(SHAPE, POINTS)), drawn(SHAPE)
    start = replace(sampler(), start=al.Start(1e-6, x0=x0))
    assert distance(model.sample(SHAPE.blank(4), COND, start, al.Noise.of(0, 4)), x0) < 1e-3


# ---- facts ------------------------------------------------------------------------------------
@pytest.fixture
def recorded(monkeypatch):
    """A backbone that writes down which rows of each call keep which conditions."""
    calls = []

    class Recorder(al.Backbone):
        """Is told, and makes nothing of it."""

        def __init__(self, spec=None, conditions=None):
            super().__init__()
            self.spec, self.conditions = spec, conditions
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, x, c_noise, cond=None, guest=None):
            keep = {} if cond is None else {k: v.tolist() for k, v in cond.keep.items()}
            calls.append((list(self.spec.fields), x.batch, keep))
            return self.scale * x

    monkeypatch.setitem(_parts["backbone"], "recorder", Part("backbone", "recorder", Recorder))
    return calls


def recording(conditions):
    told = train_config("generator=cascade").model
    object.__setattr__(told, "backbone", {"name": "recorder"})
    return Design(told, SHAPE, conditions).generator()


@pytest.mark.parametrize("name", ("classifier_free", "projected"))
def test_under_guidance_every_call_keeps_the_earlier_fields(recorded, name):
    guided = al.get("guidance", name)
    parts = al.get("solver", "heun")(), al.get("grid", "log_snr")()
    how = al.Sampler(*parts, 3, lambda denoiser, noise: guided(denoiser))
    model = recording(KIND)
    model.sample(SHAPE.blank(4), COND, how, al.Noise.of(0, 4))
    model.invert(drawn(SHAPE), COND, how, al.Noise.of(0, 4))
    own = [call for call in recorded if call[0] == ["points"]]
    assert len(own) >= 6 and {batch for _, batch, _ in own} == {8}
    assert all(all(keep["shape"]) and len(keep["shape"]) == batch for _, batch, keep in own)
    assert any(not all(keep["kind"]) for *_, keep in own), "the wish is dropped in one branch"


def test_training_never_drops_what_is_made_already(recorded):
    model = recording(KIND)
    model.loss(drawn(SHAPE), COND.drop(0.99, al.Noise.of(0, 4)), al.Noise.of(1, 4))
    ((_, _, first), (_, _, second)) = recorded
    assert set(first) == {"kind"} and not any(first["kind"])
    assert all(second["shape"]) and not any(second["kind"])


def test_an_unconditional_cascade_does_not_pay_double(recorded):
    model = recording(al.ConditionSpec())
    model.sample(SHAPE.blank(4), None, sampler(steps=5, solver="euler"), al.Noise.of(0, 4))
    assert [batch for _, batch, _ in recorded] == [4] * 10


# ---- one network for several stages -----------------------------------------------------------
CHAIN = al.LatentSpec({name: al.Field((3,)) for name in "abc"})
MARKOV = ("generator.stages.c.shares=b", "generator.stages.c.given=[b]")


def test_stages_that_share_weights():
    """The loss of the last stage is that of the middle one on the same numbers."""
    model = woken(made(CHAIN, *MARKOV))
    b, c = model.stages["b"], model.stages["c"]
    assert not list(c.denoiser.parameters()) and list(b.denoiser.parameters())
    x0 = drawn(CHAIN)
    other = x0.replace(a=x0["b"], b=x0["c"])
    losses = [model.loss_of(*told, COND, al.Noise.of(7, 4)) for told in (("c", x0), ("b", other))]
    assert torch.equal(*losses)
    gradients = torch.autograd.grad(losses[0].sum(), list(b.denoiser.parameters()))
    assert all(bool(gradient.any()) for gradient in gradients if gradient.numel() > 99)
    how, noise = sampler(steps=200, guidance=None), al.Noise.of(0, 4)
    found = model.sample(CHAIN.blank(4), COND, how, noise)
    again = model.invert(found, COND, how, al.Noise.of(0, 4))
    assert distance(again, al.Noise.of(0, 4).like(CHAIN.blank(4))) < 0.05 * float(
        again.norm().max()
    )


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (
            ("generator.stages.c=b",),
            r"stages.c=b: its latents that it is told of are a .* b .*given",
        ),
        (("generator.stages.b=c",), r"whose weights it can share are a$"),
        ((*MARKOV, "generator.stages.c.backbone.width=8"), "no other of its own"),
        (("generator.stages.d.backbone.width=8",), "no field d; the latents have a, b, c"),
        (("generator.stages.x.fields=[a,b]", "generator.stages.b.backbone.width=8"), "two stages"),
        (("generator.stages.b.given=[c]",), r"b.given: c is not made before it; there is a"),
        (("generator.stages.b.solver=heun",), "no solver of its own; it may have other backbone"),
        (("generator.stages.b.backbone.wdith=8",), "backbone=mlp has no setting wdith"),
    ],
)
def test_what_makes_no_sense_is_said(wrong, match):
    with pytest.raises((UserError, LookupError), match=match):
        made(CHAIN, *wrong)


def test_a_field_of_the_name_of_a_condition():
    with pytest.raises(UserError, match="kind is a field and a condition"):
        made(al.LatentSpec({"kind": al.Field((2,)), "b": al.Field((2,))}))


def test_a_cascade_in_a_cascade_is_refused():
    inner = made(SHAPE, POINTS)
    with pytest.raises(ValueError, match="a cascade in a cascade, all"):
        type(inner)({"all": inner})
