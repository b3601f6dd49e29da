"""Classifiers of noisy latents: what they see, what they cannot see, their files."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import anylatent as al
from anylatent.core.denoisers.noisy_classifier import NoisyClassifier
from anylatent.core.guidance import ClassifierGuidance
from anylatent.core.process.schedules import as_time
from anylatent.core.runs.classifiers import Classification, load_classifiers
from anylatent.core.support.files import UserError
from tests.core.toys import PointNet, alone, distance, start

SPEC = al.testing.SPECS["molecule"]
PICTURE = al.LatentSpec({"z": al.Field((3, 4, 4), channels=0)})
SMALL = {"name": "dit", "width": 32, "depth": 1, "heads": 2, "patch": 2}


def classifier(spec=SPEC, name="vp", classes=3, seed=0):
    """With random weights, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        found = NoisyClassifier(PointNet(spec), al.get("schedule", name)(), classes)
    return found.double().eval()


class Echo(al.Backbone):
    """Returns its input, with something in the padding, and notes what it was called with."""

    def __init__(self, spec):
        super().__init__()
        self.spec, self.conditions, self.calls = spec, al.ConditionSpec(), []

    def forward(self, x, c_noise, cond=None):
        self.calls.append((x, c_noise, cond))
        return x.map(lambda z: torch.where(z == 0, 7.0, z)) if x.masks else x


def made(spec_node=SMALL, label="kind"):
    return Classification(label, ("one", "two", "three"), spec_node, {"steps": 3})


# ---- what it computes -------------------------------------------------------------------------
@pytest.mark.parametrize("name", al.names("schedule"))
def test_its_input_has_unit_variance_and_the_level_of_a_denoiser_s(name):
    schedule = al.get("schedule", name)()
    spec = al.LatentSpec({"z": al.Field((5,))})
    echo = Echo(spec)
    found = NoisyClassifier(echo, schedule, 2).double()
    noise, blank = al.Noise.of(0, 4000), spec.blank(4000, dtype=torch.float64)
    for t in (0.9, 0.3, 0.02):
        alpha, sigma = schedule.coefficients(as_time(t))
        found(alpha * noise.like(blank) + sigma * noise.like(blank), t)
        seen, c_noise, cond = echo.calls[-1]
        assert float(seen["z"].std()) == pytest.approx(1, abs=0.03)
        assert cond is None and c_noise.shape == (4000,)
        assert float(c_noise[0]) == pytest.approx(
            min(5.0, max(-5.0, -float(schedule.log_snr(t)) / 4))
        )


def test_its_features_by_hand():
    """Means of a padded field, mean squared lengths of a centred one, all of a fixed one."""
    spec = al.LatentSpec(
        {"x": al.Field((None, 3), centred=True), "h": al.Field((None, 2)), "z": al.Field((2, 2))}
    )
    schedule = al.get("schedule", "edm")()
    found = NoisyClassifier(Echo(spec), schedule, 2).double()
    assert found.head.in_features == 1 + 2 + 4
    x = spec.blank(2, [2, 3], dtype=torch.float64)
    x = al.Noise.of(0, 2).like(x)
    t = 0.5
    c_in = float((1 + schedule.sigma(t) ** 2).rsqrt())
    wanted = []
    for i, size in ((0, 2), (1, 3)):
        square = float((x["x"][i, :size] ** 2).sum() * c_in**2 / size)
        mean = x["h"][i, :size].mean(0) * c_in
        wanted.append([square, *mean.tolist(), *(c_in * x["z"][i].flatten()).tolist()])
    features = torch.tensor(wanted, dtype=torch.float64)
    logits = c_in * features @ found.head.weight.T + found.head.bias  # alpha is 1, hence c = c_in
    assert torch.allclose(found(x, t), torch.log_softmax(logits, -1), atol=1e-12)


def test_it_gives_log_probabilities_for_every_kind_of_time():
    found, blank = (
        classifier(al.testing.SPECS["text"]),
        al.testing.example(al.testing.SPECS["text"]),
    )
    x, _ = start(found.schedule, blank)
    once = found(x, 0.4)
    assert once.shape == (4, 3)
    assert torch.allclose(once.exp().sum(1), torch.ones(4, dtype=torch.float64))
    each = found(x, torch.full((4,), 0.4, dtype=torch.float64))
    assert torch.allclose(each, once, atol=1e-12)
    assert not torch.allclose(found(x, 0.6), once, atol=1e-3)
    for t in (0.0, 1.0):
        assert bool(found(x, t).isfinite().all())


def test_a_time_per_frame():
    spec = al.testing.SPECS["video"]
    found = NoisyClassifier(Echo(spec), al.get("schedule", "flow")(), 3).double()
    x, _ = start(found.schedule, al.testing.example(spec))
    frames = torch.full((4, 3), 0.4, dtype=torch.float64)
    assert torch.allclose(found(x, frames), found(x, 0.4), atol=1e-12)
    guided = ClassifierGuidance(al.testing.GaussianDenoiser(found.schedule, 0.5, 0.3), {"a": found})
    cond = al.Condition({"a": torch.tensor([0, 1, 2, 0])})
    assert distance(guided(x, frames, cond), guided(x, 0.4, cond)) < 1e-10


@pytest.mark.parametrize("name", ("flow", "cosine", "vp", "edm"))
def test_without_signal_only_the_prior_is_left_and_the_pull_stays_finite(name):
    """c = α/√(α² + σ²): where x_t is noise the answer is the bias, whatever the network says."""
    found = classifier(name=name)
    torch.nn.init.normal_(found.head.bias)
    schedule, pulls = found.schedule, []
    x, _ = start(schedule, al.testing.example(SPEC))
    if schedule.terminal_snr_is_zero:
        prior = torch.log_softmax(found.head.bias, 0).expand(4, 3)
        assert torch.allclose(found(x, 1.0), prior)
    exact = al.testing.GaussianDenoiser(schedule, 0.0, 1.0)
    guided = ClassifierGuidance(exact, {"kind": found}, 1.0)
    cond = al.Condition({"kind": torch.tensor([0, 1, 2, 0])})
    for level in (-8.0, -4.0, 0.0):
        t = float(schedule.time(level)) if level > float(schedule.log_snr(1.0)) else 1.0
        alpha, sigma = schedule.coefficients(as_time(t))
        y = float((alpha**2 + sigma**2).sqrt() / schedule.sigma(1.0)) * x
        pulls.append(float((guided(y, t, cond) - exact(y, t)).norm().max()))
    assert 0.05 < pulls[0] / pulls[-1] < 20, pulls


def test_neither_neighbours_nor_padding_nor_rotations():
    found = classifier()
    x, _ = start(found.schedule, al.testing.example(SPEC))
    joint = found(x, 0.5)
    for i in range(4):
        assert torch.allclose(found(alone(x, i), 0.5), joint[i : i + 1], atol=1e-12)
    wide, _ = start(found.schedule, al.testing.example(SPEC, padded=20))
    assert torch.allclose(found(wide, 0.5), joint, atol=1e-12)
    echo = NoisyClassifier(Echo(SPEC), found.schedule, 3).double()  # equivariant
    turn, _ = torch.linalg.qr(al.Noise.of(3, 1).normal(3, 3)[0].double())
    turned = x.replace(x=x["x"] @ turn)
    assert torch.allclose(echo(turned, 0.5), echo(x, 0.5), atol=1e-12)
    assert not torch.allclose(echo(x.replace(x=2 * x["x"]), 0.5), echo(x, 0.5), atol=1e-3)


def test_its_gradient_is_the_derivative():
    found = classifier(al.testing.SPECS["text"])
    x, _ = start(found.schedule, al.testing.example(al.testing.SPECS["text"]))
    denoiser = al.testing.GaussianDenoiser(found.schedule, 0.0, 1e-9)
    guided = ClassifierGuidance(denoiser, {"kind": found}, 1.0)
    labels, t = torch.tensor([0, 1, 2, 0]), 0.5
    alpha, sigma = found.schedule.coefficients(as_time(t))
    pull = guided(x, t, al.Condition({"kind": labels})) - denoiser(x, t)
    step = 1e-5 * al.Noise.of(9, 4).like(x)
    ends = [found(y, t).gather(1, labels[:, None])[:, 0] for y in (x + step, x - step)]
    wanted = float(sigma**2 / alpha) * (ends[0] - ends[1]) / 2
    assert torch.allclose(pull.dot(step), wanted, rtol=1e-4, atol=1e-12)


def test_it_learns_the_posterior_of_a_mixture():
    """Trained on noisy draws of two components it comes near the exact log-probabilities."""
    spec, schedule = al.LatentSpec({"z": al.Field((None, 2))}), al.get("schedule", "vp")()
    found = classifier(spec, classes=2).float().train()
    optimizer = torch.optim.Adam(found.parameters(), lr=1e-2)
    losses, best = [], []
    for step in range(150):
        noise = al.Noise.of((0, step), 64)
        labels = (noise.uniform() > 0.5).long()
        blank = spec.blank(64, [3] * 64)
        x0 = (2.0 * labels - 1) * blank.map(torch.ones_like) + 0.5 * noise.like(blank)
        t = noise.uniform() * 0.9 + 0.05
        alpha, sigma = schedule.coefficients(t)
        x = alpha * x0 + sigma * noise.like(blank)
        loss = torch.nn.functional.nll_loss(found(x, t), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        # log-odds of N(±alpha, alpha²/4 + sigma²) in 6 dimensions
        odds = 2 * alpha * x["z"].sum((1, 2)) / (0.25 * alpha**2 + sigma**2)
        best.append(float(torch.nn.functional.softplus(-(2 * labels - 1) * odds).mean()))
    late = sum(losses[-50:]) / 50 - sum(best[-50:]) / 50
    assert losses[0] > 0.6 and late < 0.03, (losses[0], late)


def test_one_class_is_no_classification():
    with pytest.raises(ValueError, match="at least 2"):
        NoisyClassifier(PointNet(SPEC), al.get("schedule", "vp")(), 1)


# ---- files ------------------------------------------------------------------------------------
@pytest.fixture
def saved(tmp_path):
    """A file, and what was written to it."""
    schedule = al.get("schedule", "flow")()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = made().build(PICTURE, schedule).eval()
    for parameter in found.parameters():
        parameter.data.add_(0.01)
    return made().save(tmp_path, found), found


def system(spec, found):
    """As much of one as a classifier is built for."""
    return SimpleNamespace(autoencoder=SimpleNamespace(spec=spec), schedule=found.schedule)


def test_a_file_gives_the_same_classifier_back(saved, tmp_path):
    path, found = saved
    assert path == tmp_path / "classifiers" / "kind.safetensors"
    ((label, (what, again)),) = load_classifiers(tmp_path, system(PICTURE, found)).items()
    assert label == "kind" and what == made()
    x, _ = start(found.schedule, PICTURE.blank(3))
    assert torch.equal(again.eval()(x, 0.5), found(x, 0.5))
    assert load_classifiers(tmp_path / "none", system(PICTURE, found)) == {}


WRONG = {
    "nothing": None,
    "no JSON": "{",
    "a list": "[1]",
    "no classes": json.dumps({"label": "kind", "backbone": {}, "how": {}}),
    "too much": json.dumps(
        {"label": "kind", "classes": ["a", "b"], "backbone": {}, "how": {}, "x": 1}
    ),
    "numbers": json.dumps({"label": "kind", "classes": [1, 2], "backbone": {}, "how": {}}),
    "another label": made(label="other").json(),
    "a backbone without name": made({"width": 3}).json(),
    "an unknown backbone": made({"name": "os.system", "command": "true"}).json(),
    "a target": made({"name": "dit", "_target_": "os.system"}).json(),
    "another size": made({**SMALL, "width": 64}).json(),
    "an impossible size": made({**SMALL, "width": 33}).json(),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_are_none_are_errors(case, saved, tmp_path):
    path, found = saved
    metadata = None if WRONG[case] is None else {"classifier": WRONG[case]}
    save_file(load_file(path), path, metadata)
    with pytest.raises(UserError, match=r"kind\.safetensors"):
        load_classifiers(tmp_path, system(PICTURE, found))


def test_a_file_for_other_latents_or_cut_short_is_an_error(saved, tmp_path):
    path, found = saved
    other = al.LatentSpec({"z": al.Field((5, 4, 4), channels=0)})
    with pytest.raises(UserError, match="does not fit this run.*Remove it"):
        load_classifiers(tmp_path, system(other, found))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="not a whole safetensors"):
        load_classifiers(tmp_path, system(PICTURE, found))


def test_the_log_of_the_classes_is_where_it_starts():
    """A fresh backbone returns zeros, so that all classes are equally likely."""
    schedule = al.get("schedule", "flow")()
    found = made().build(PICTURE, schedule).eval()
    x, _ = start(schedule, PICTURE.blank(3))
    assert torch.allclose(found(x, 0.3), torch.full((3, 3), -math.log(3)))
