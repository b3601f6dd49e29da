"""The public contract of metrics over every registered name, on few samples of each modality.

A metric of another modality needs an example here: data, outputs and the conditions asked of them.
"""

import pytest
import torch

import anylatent as al
from anylatent.core.registry import build
from anylatent.modalities.image.metrics import classifier
from anylatent.modalities.image.pictures import Pictures
from anylatent.modalities.molecule.metrics import properties
from anylatent.modalities.text.metrics import evaluator
from anylatent.modalities.video.clips import Clips
from anylatent.modalities.video.data.moving_mnist import MovingMnist

LABEL = {"rings": ("0", "1", "2", "3 or more"), "part": ("first", "second")}


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path_factory):
    """Judges that have hardly learned."""
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path_factory.getbasetemp() / "judges"))
    monkeypatch.setattr(classifier, "STEPS", 2)
    monkeypatch.setattr(properties, "STEPS", 2)
    for name, value in {"WIDTH": 16, "DEPTH": 1, "HEADS": 2}.items():
        monkeypatch.setattr(evaluator, name, value)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for index in range(12):
        place = root / ("left" if index % 2 else "right")
        place.mkdir(exist_ok=True)
        Image.effect_noise((16, 16), 20 * index).convert("RGB").save(place / f"{index}.png")
    data = al.get("data", "folder")(path=str(root), size=16, held_out=0.5)
    images = torch.stack([data.train()[i]["image"] for i in range(5)])
    return data, Pictures(images), {"category": [0, 1, "left", None, "Right"]}


@pytest.fixture(scope="module")
def molecule():
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    from anylatent.modalities.molecule.molecules import Molecules
    from tests.modalities.molecule import ideal
    from tests.modalities.molecule.test_metrics_table import Few

    class Measured(Few):
        """With a property: a tenth of the number of atoms."""

        published = {"some model (published)": {"valid": 0.5}}

        def _items(self, molecules):
            return [item | {"gap": item["atoms"] / 10} for item in super()._items(molecules)]

        @property
        def facts(self):
            return {**super().facts, "properties": {"gap": {"unit": "eV"}}}

    train = [ideal.methane(), ideal.water(), ideal.formaldehyde(), ideal.ammonia()]
    data = Measured(train, [ideal.ethene(), ideal.methane(1.10), ideal.water()])
    return data, Molecules(train[:3]), {"gap": [0.5, None, 0.4]}


@pytest.fixture(scope="module")
def text():
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    from tests.modalities.text.few import Few

    label = {"rings": 0, "part": 0}
    train = [("CCCC", label), ("CCCO", {**label, "part": 1}), ("CCCN", label)]
    held_out = [(smiles, label) for smiles in ("CCCO", "C1CC1", "CCCN", "OCCO")]
    data = Few(train, held_out, kind="smiles", classes=LABEL)
    return data, data.texts("CCCC", "C1CC1", "NCCN"), {"rings": [0, "1", None], "part": [1, 0, 1]}


@pytest.fixture(scope="module")
def video():
    pytest.importorskip("cv2", reason="opencv-python-headless is not installed")
    data = MovingMnist(clips=6, most=5, frames=6)
    items = [data.held_out()[i] for i in range(5)]
    columns = {name: [item[name] for item in items] for name in ("digits", "places")}
    columns["motion"] = [1.0, 0.5, None, 2.0, 1.5]
    return data, Clips(torch.stack([item["video"] for item in items])), columns


@pytest.mark.parametrize("name", al.names("metric"))
def test_metrics(name, request):
    kind = al.get("metric", name)
    if kind.modality not in ("image", "molecule", "text", "video"):
        pytest.fail(f"metric={name} has no example in {__file__}: add one, so that it is tested")
    data, outputs, columns = request.getfixturevalue(kind.modality)
    modality = build("modality", {"name": kind.modality}, **data.facts)
    assert kind.applies(modality, data)
    metric = build("metric", {"name": name}, modality=modality, data=data)
    completed = kind.completions is not al.Metric.completions
    given = torch.arange(6).expand(len(outputs), -1) < 2 if completed else None
    al.testing.check_metric(metric, outputs, columns, given)


FIGURES = {
    "image": ["pictures", "frechet_efficientnet", "kernel_efficientnet", "precision", "recall",
              "nearest_training", "nearer_than_held_out", "near_copies",
              "accuracy", "accuracy_macro", "accuracy_left", "accuracy_right"],
    "molecule": ["molecules", "atom_stability", "molecule_stability", "molecule_stability_charged",
                 "valid", "valid_charged", "valid_rdkit", "valid_and_unique", "unique", "novel",
                 "connected", "w1_bond_length", "w1_bond_angle", "w1_atoms", "tv_elements",
                 "mae_gap"],
    "text": ["texts", "divergence_1", "divergence_2", "divergence_3", "divergence_4",
             "distinct_1", "distinct_2", "distinct_3", "distinct_4",
             "length_w1", "evaluator_nll", "evaluator_nll_character", "copied", "valid", "unique",
             "novel", "valid_unique_novel", "accuracy_rings", "chance_rings", "judged_part",
             "chance_part"],
    "video": ["clips", "frames", "size", "frame_distance", "motion_distance", "warping_error",
              "frame_cosine", "motion_magnitude", "motion_strength", "motion_correlation",
              "asked_weak", "made_weak", "asked_middle", "made_middle",
              "asked_strong", "made_strong"],
}  # fmt: skip
ROWS = {
    "image": ["held-out", "training", "blurred"],
    "molecule": ["held-out", "training", "cloud", "random", "atom count", "some model (published)"],
    "text": ["held-out", "training", "shuffled"],
    "video": ["held-out", "training", "frozen", "shuffled", "blurred"],
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_and_rows_stand_in_their_order(name, request):
    data, outputs, columns = request.getfixturevalue(name)
    found = al.Metrics.of(build("modality", {"name": name}, **data.facts), data)
    assert list(found.samples(outputs, columns)) == FIGURES[name]
    rows = found.baselines(list(columns))
    assert list(rows) == ROWS[name]
