"""The public contract tests over every registered name: a part is tested by being registered.

A group with parts that need something to work on (pictures, columns) has an example here for each
name; a new name without one fails with what to add.
"""

import functools
from pathlib import Path

import pytest
import torch

import anylatent as al
from anylatent.core.guidance import Autoguidance
from anylatent.core.registry import build, part
from anylatent.modalities.video.autoencoder import FramesAutoencoder
from anylatent.modalities.video.data.moving_mnist import MovingMnist
from tests.modalities.molecule.readers import READERS
from tests.modalities.video.small import DIT, UNET
from tests.modalities.video.test_clips import READERS as FILMS

GROUPS = ("schedule", "prediction", "grid", "solver", "times", "weighting", "features")
CLASSES = {"kind": ["one", "two", "three"]}
SMALL = {
    ("backbone", "unet"): {"channels": 32, "embedding": 64},
    ("backbone", "dit"): {"width": 64, "depth": 2},
    ("backbone", "video_unet"): {"image": UNET, "gate": 0.3},
    ("backbone", "video_dit"): {"image": DIT, "gate": 0.3},
}
FACTS = {"mean": 6.9, "std": 1.3, "min": 0.7, "max": 17.0, "unit": "eV"}
PICTURES = {"image": torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1}
SIZES = torch.tensor([5, 9, 2])
MASK = torch.arange(9) < SIZES[:, None]
MOLECULES = {
    "x": torch.randn(3, 9, 3, generator=torch.Generator().manual_seed(0)) * MASK[..., None],
    "element": torch.arange(9) % 5 * MASK,
    "charge": torch.zeros(3, 9, dtype=torch.long),
    "mask": MASK,
    "atoms": SIZES,
}
TEXTS = {
    "tokens": torch.arange(27).view(3, 9) % 7 * MASK,
    "mask": MASK,
    "length": SIZES,
}
FRAMES = torch.tensor([2, 4, 1])
CLIPS = {
    "video": torch.rand(3, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1,
    "mask": torch.arange(4) < FRAMES[:, None],
    "frames": FRAMES,
}
CLIPS["video"] *= CLIPS["mask"][..., None, None, None]
LONG_CLIPS = {
    "video": torch.rand(3, 5, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1,
    "mask": torch.ones(3, 5, dtype=torch.bool),
    "frames": torch.full((3,), 5),
}
BATCHES = {
    "embedding": (TEXTS, {}),
    "unit_embedding": (TEXTS, {}),
    "sequence": (TEXTS, {"width": 48, "encoder": 1, "decoder": 1, "heads": 2, "latents": 3}),
    "conv": (PICTURES, {"channels": 32}),
    "frames": (CLIPS, {"at_once": 5}),
    "pyramid": (LONG_CLIPS, {"keys": 2}),
    "geoldm": (MOLECULES, {"width": 32, "edge": 16}),
    "identity": (PICTURES, {"modality": al.get("modality", "image")(shape=(3, 32, 32))}),
}
ELEMENTS = ("H", "C", "N", "O", "F")
GEOLDM = al.get("autoencoder", "geoldm")(width=32, edge=16).spec
COLUMNS = {
    "none": ({}, {}),
    "label": ({"classes": CLASSES}, {"kind": ["one", 2, "Two"]}),
    "properties": (
        {"properties": {"gap": FACTS, "mu": FACTS}},
        {"gap": [7.0, 5.5], "mu": [1, 9.0]},
    ),
    "clip": (
        {"motion": (1.0, 2.0, 3.0), "also": ("motion", "rate")},
        {"motion": [0.5, 2, 3], "rate": [8, 4, 2]},
    ),
    "caption": ({}, {"caption": ["a red apple", "sky", "a much longer sentence about a flag"]}),
}


def named(examples, group, name):
    if name not in examples:
        pytest.fail(f"{group}={name} has no example in {__file__}: add one, so that it is tested")
    return examples[name]


@pytest.mark.parametrize(("group", "name"), [(g, n) for g in GROUPS for n in al.names(g)])
def test_parts_with_defaults(group, name):
    getattr(al.testing, f"check_{group}")(al.get(group, name)())


@pytest.mark.parametrize(
    ("name", "settings"),
    (
        ("ddim", {"eta": 0.5}),
        ("heun", {"churn": 10.0}),
        pytest.param("heun", {"churn": 5.0, "churn_min": 0.1}, marks=pytest.mark.slow),
        ("ddpm", {"variance": "large"}),
        ("dpm_solver", {"order": 2}),
        ("dpmpp_2s", {"eta": 0.5}),
        pytest.param("dopri5", {"tolerance": 1e-6}, marks=pytest.mark.slow),
    ),
)
def test_solvers_with_other_settings(name, settings):
    al.testing.check_solver(al.get("solver", name)(**settings))


@pytest.mark.parametrize("name", al.names("guidance"))
def test_guidance(name):
    al.testing.check_guidance(al.get("guidance", name))


def test_guidance_with_interval_and_rescale():
    part = al.get("guidance", "classifier_free")
    al.testing.check_guidance(
        functools.partial(part, scale=4.0, sigma_min=0.3, sigma_max=9.0, rescale=0.7)
    )


def test_guidance_that_remembers_in_an_interval():
    part = al.get("guidance", "projected")
    settings = {"momentum": -0.7, "sigma_min": 0.3, "sigma_max": 2.0}
    for threshold in (0.1, 10.0):
        factory = functools.partial(part, scale=4.0, threshold=threshold, parallel=0.2, **settings)
        al.testing.check_guidance(factory)


def test_guidance_by_a_weaker_denoiser():
    def factory(denoiser):
        weak = al.testing.GaussianDenoiser(denoiser.schedule, 0.2, 0.5)
        return Autoguidance(denoiser, weak, 3.0, sigma_max=5.0, rescale=0.3)

    al.testing.check_guidance(factory, unconditional=True)


@pytest.mark.parametrize("key", al.testing.SPECS)
@pytest.mark.parametrize("schedule", ("vp", "flow", "edm"))
def test_exact_denoisers(key, schedule):
    spec, part = al.testing.SPECS[key], al.get("schedule", schedule)()
    al.testing.check_denoiser(al.testing.GaussianDenoiser(part, 0.5, 0.3), spec)


@pytest.mark.parametrize("name", al.names("backbone"))
def test_backbones(name):
    factory = functools.partial(al.get("backbone", name), **SMALL.get(("backbone", name), {}))
    al.testing.check_backbone(factory)


@pytest.mark.parametrize("bottleneck", al.names("bottleneck"))
@pytest.mark.parametrize("name", al.names("autoencoder"))
def test_autoencoders(name, bottleneck):
    batch, settings = named(BATCHES, "autoencoder", name)
    node = {"name": name, **{k: v for k, v in settings.items() if k != "modality"}}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if "bottleneck" in part("autoencoder", name).parts:
            node["bottleneck"] = {"name": bottleneck}
        autoencoder = build("autoencoder", node, **settings)
        al.testing.check_autoencoder(autoencoder, batch)


def test_data_space_of_variable_length():
    modality = al.get("modality", "molecule")(ELEMENTS, (-1, 0, 1))
    al.testing.check_autoencoder(al.get("autoencoder", "identity")(modality), MOLECULES)


def test_an_autoencoder_with_an_adversary():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        part = al.get("autoencoder", "conv")(adversary=al.get("adversary", "patch"), channels=32)
        al.testing.check_autoencoder(part, PICTURES)


@pytest.mark.parametrize("name", al.names("conditioner"))
def test_conditioners(name):
    settings, columns = named(COLUMNS, "conditioner", name)
    al.testing.check_conditioner(al.get("conditioner", name)(**settings), columns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve pictures in two folders."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for index in range(12):
        place = root / ("left" if index % 2 else "right")
        place.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (20 * index, 255 - 20 * index, 7)).save(place / f"{index}.png")
    return al.get("data", "folder")(path=str(root))


def test_the_folder_of_pictures(folder):
    al.testing.check_data(folder)


def test_a_text_file(tmp_path):
    lines = [f"line {number} of {number * 7919 % 101} words" for number in range(60)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    al.testing.check_data(al.get("data", "text_file")(path=str(tmp_path / "lines.txt")))


OWN = ("folder", "molecule_folder", "text_file", "video_folder", "animated_emoji")  # need a path


@pytest.mark.parametrize("name", [n for n in al.names("data") if n not in OWN])
def test_data_sets(name):
    if name == "wordnet" and not Path("/usr/share/wordnet").is_dir():
        pytest.skip("the Debian package wordnet-base is not installed")
    al.testing.check_data(al.get("data", name)(), limit=300)


@pytest.mark.parametrize("name", al.names("modality"))
def test_modalities(name, folder):
    spec = al.get("autoencoder", "conv")(channels=32).spec
    examples = {
        "image": (spec, lambda: folder),
        "molecule": (GEOLDM, lambda: al.get("data", "qm9")()),
        "video": (FramesAutoencoder((1, 64, 64)).spec, lambda: MovingMnist(clips=8, most=4)),
        "text": (al.get("autoencoder", "unit_embedding")().spec, lambda: al.get("data", "kjv")()),
    }
    spec, data = named(examples, "modality", name)
    part = build("modality", {"name": name}, **data().facts)
    al.testing.check_modality(part, data(), spec, {**READERS, **FILMS})


@pytest.mark.parametrize("name", al.names("autoencoder"))
def test_outputs(name):
    """What an autoencoder of each modality, that has learned nothing, makes of a latent."""
    batch, settings = named(BATCHES, "autoencoder", name)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        autoencoder = al.get("autoencoder", name)(**settings).eval()
        al.testing.check_outputs(
            autoencoder.decode(autoencoder.encode(batch).mean), {**READERS, **FILMS}
        )
