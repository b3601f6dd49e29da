"""Molecules from end to end on real data, through the command line, with tiny networks."""

import json
import signal

import pytest
import torch
from PIL import Image

import anylatent as al
from anylatent.core.cli.main import main
from anylatent.core.runs.drawing import sample
from anylatent.core.runs.stored_noise import StoredNoise
from anylatent.core.training.module import StageModule
from anylatent.modalities.molecule.files import read_molecules
from anylatent.modalities.molecule.given import Fragments
from anylatent.modalities.molecule.metrics import properties
from tests.cli import answer
from tests.matrix import in_turns

PIECE = torch.pdist(torch.tensor([[0.0, 0, 0], [1.43, 0, 0], [1.75, 0.9, 0]]))

TINY = [
    "modality=molecule",
    "data.limit=400",
    "autoencoder.width=32",
    "autoencoder.edge=16",
    "backbone.width=32",
    "backbone.edge=16",
    "backbone.depth=2",
    "training.autoencoder.steps=8",
    "training.diffusion.steps=8",
    "training.autoencoder.batch=32",
    "training.diffusion.batch=32",
    "pictures.every=8",
    "pictures.samples=3",
    "steps=4",
    "trainer.accelerator=cpu",
]


@pytest.fixture(scope="module")
def latent(trained_once):
    return trained_once("molecules", TINY)


@pytest.fixture(scope="module")
def plain(trained_once):
    """In data space, conditioned on a property, learned from one half of the data."""
    sizes = [item for item in TINY if not item.startswith("autoencoder.")]
    settings = ["autoencoder=identity", "data.half=second", "conditioner=properties"]
    return trained_once("gaps", [*sizes, *settings, "conditioner.names=[gap]"])


def test_a_run_leaves_pictures_and_weights(latent):
    assert (latent / "model.safetensors").exists()
    for name in ("reconstructions_000008.png", "samples_000008.png"):
        assert Image.open(latent / "pictures" / name).size[0] > 100


@pytest.mark.parametrize("solver", in_turns(al.names("solver"), every=4))
def test_every_solver_samples_molecules(latent, solver, tmp_path, capsys):
    code, out, err = answer(
        capsys, "sample", f"run={latent}", "n=2", f"solver={solver}", f"out={tmp_path}"
    )
    assert code == 0, err
    assert "2 samples" in out and (tmp_path / "contact_sheet.png").exists()
    for index in range(2):
        (record,), problems = read_molecules(tmp_path / f"0_{index:05d}.sdf")
        assert not problems and bool(record.molecule.x.isfinite().all())
        assert len(read_molecules(tmp_path / f"0_{index:05d}.xyz")[0]) == 1


def test_a_size_can_be_asked_for(latent, tmp_path, capsys):
    code, _, err = answer(
        capsys, "sample", f"run={latent}", "n=3", "cond.atoms=11", f"out={tmp_path}"
    )
    assert code == 0, err
    sizes = [len(read_molecules(path)[0][0].molecule) for path in tmp_path.glob("*.xyz")]
    assert sizes == [11, 11, 11]


def test_sizes_outside_the_training_data_are_an_error_with_the_range(latent, capsys, tmp_path):
    for wrong in ("500", "0", "many"):
        code, _, err = answer(
            capsys, "sample", f"run={latent}", "n=2", f"cond.atoms={wrong}", f"out={tmp_path}"
        )
        assert code == 1 and "Traceback" not in err
        assert f"cond.atoms={wrong}" in err and "atoms, as in the training data" in err


def test_samples_do_not_depend_on_their_batch(latent):
    model = al.load(latent, device="cpu")
    joint = model.sample(5, seed=3, batch=5)
    parts = model.sample(5, seed=3, batch=2)
    alone = model.sample(seeds=[(3, 4)])
    for a, b in zip(joint, [*parts[:4], *alone], strict=True):
        assert torch.equal(a.z, b.z)
        assert torch.allclose(a.x, b.x, atol=1e-4)


@pytest.mark.parametrize("kind", ("latent", "plain"))
def test_a_fragment_is_in_every_sample(kind, request, tmp_path, capsys):
    path = request.getfixturevalue(kind)
    piece = tmp_path / "piece.xyz"
    piece.write_text("3\nhydroxyl on carbon\nC 0 0 0\nO 1.43 0 0\nH 1.75 0.9 0\n")
    out = tmp_path / "out"
    arguments = ["sample", f"run={path}", "n=3", f"cond.fragment={piece}", f"out={out}"]
    code, _, err = answer(capsys, *arguments, "cond.atoms=[9,12,15]")
    assert code == 0, err
    wanted = torch.tensor([[0.0, 0, 0], [1.43, 0, 0], [1.75, 0.9, 0]])
    sizes = []
    for file in sorted(out.glob("*.xyz")):
        molecule = read_molecules(file)[0][0].molecule
        sizes.append(len(molecule))
        assert molecule.z[:3].tolist() == [6, 8, 1]
        moved = (molecule.x[:3] - molecule.x[0]).float()
        assert torch.allclose(moved, wanted, atol=2e-3)
    assert sizes == [9, 12, 15]


def test_the_sampler_itself_keeps_a_fragment(plain, tmp_path, monkeypatch):
    """In data space what was given needs no repair afterwards."""
    piece = tmp_path / "piece.xyz"
    piece.write_text("3\n\nC 0 0 0\nO 1.43 0 0\nH 1.75 0.9 0\n")
    monkeypatch.setattr(Fragments, "complete", lambda self, outputs, known: outputs)
    for molecule in al.load(plain, device="cpu").sample(3, cond={"fragment": str(piece)}):
        assert molecule.z[:3].tolist() == [6, 8, 1]
        assert torch.allclose(torch.pdist(molecule.x[:3]), PIECE, atol=1e-3)


def test_a_fragment_in_latent_space_is_where_the_encoder_puts_it(latent, tmp_path):
    system = al.load(latent, device="cpu").system
    modality = system.modality
    piece = tmp_path / "piece.xyz"
    piece.write_text("3\n\nC 0 0 0\nO 1.43 0 0\nH 1.75 0.9 0\n")
    columns, seen = {"fragment": [str(piece)] * 2}, []
    sampler = al.Sampler(al.get("solver", "ddpm")(), al.get("grid", "log_snr")(), 4)
    sample(system, sampler, al.Noise.of(0, 2), columns, lambda i, t, z: seen.append(z))
    known = modality.given.known(seen[-1], columns)
    wanted = system.normaliser.encode(system.autoencoder.encode(known).mean)
    assert torch.allclose(seen[-1]["h"][:, :3], wanted["h"], atol=1e-4)
    for got, want in zip(seen[-1]["x"][:, :3], wanted["x"], strict=True):
        assert torch.allclose(torch.pdist(got), torch.pdist(want), atol=1e-4)


def test_wrong_fragments_are_errors(latent, tmp_path, capsys):
    (tmp_path / "two.xyz").write_text("1\n\nC 0 0 0\n1\n\nC 0 0 0\n")
    (tmp_path / "close.xyz").write_text("2\n\nC 0 0 0\nC 0 0 0.1\n")
    (tmp_path / "gold.xyz").write_text("1\n\nAu 0 0 0\n")
    (tmp_path / "junk.sdf").write_text("junk")
    line = [f"C {2 * i} 0 0\n" for i in range(40)]
    (tmp_path / "big.xyz").write_text("40\n\n" + "".join(line))
    expected = {
        "gold.xyz": "unknown element Au",
        "junk.sdf": "can't be read",
        "big.xyz": "leaves nothing to complete",
        "none.sdf": "can't be read",
        "two.xyz": "has 2 molecules",
        "close.xyz": "two atoms closer than 0.3",
    }
    for name, message in expected.items():
        code, _, err = answer(
            capsys, "sample", f"run={latent}", "n=1", f"cond.fragment={tmp_path / name}"
        )
        assert code == 1 and message in err and "Traceback" not in err, err


def test_evaluation_has_rows_and_reports(latent, tmp_path, capsys):
    arguments = ["benchmark", "modality=molecule", f"run={latent}", "n=12", "likelihood=4"]
    code, out, err = answer(capsys, *arguments, f"out={tmp_path}")
    assert code == 0, err
    found = json.loads((tmp_path / "benchmark.json").read_text())
    rows = ["samples", "held-out", "training", "cloud", "EDM (published)", "GeoLDM (published)"]
    assert set(rows) | {"untrained"} == set(found["samples"])
    assert found["samples"]["training"]["molecule_stability"] > 0.9
    assert found["samples"]["cloud"]["molecule_stability"] < 0.1
    assert set(found["reconstruction"]) == {"mean", "sample", "without x", "without h"}
    assert found["reconstruction"]["without x"]["rmsd"] > found["reconstruction"]["mean"]["rmsd"]
    for name in ("rate_bits_h", "effective_dimensions_x", "latent_bits_per_dimension"):
        assert name in found["other"]


@pytest.mark.slow
def test_properties_are_judged_beside_their_baselines(plain, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(properties, "STEPS", 60)
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))
    arguments = ["benchmark", f"run={plain}", "n=12", "likelihood=0", f"out={tmp_path}"]
    code, out, err = answer(capsys, *arguments)
    assert code == 0, err
    rows = json.loads((tmp_path / "benchmark.json").read_text())["samples"]
    for row in ("samples", "held-out", "random", "atom count"):
        assert rows[row]["mae_gap"] > 0
    assert rows["held-out"]["mae_gap"] < rows["random"]["mae_gap"]


def test_a_property_can_be_asked_for(plain, tmp_path, capsys):
    out = f"out={tmp_path}"
    code, _, err = answer(capsys, "sample", f"run={plain}", "n=2", "cond.gap=7.1", out)
    assert code == 0, err
    code, _, err = answer(capsys, "sample", f"run={plain}", "n=2", "cond.gap=700", out)
    assert code == 1 and "eV" in err and "far outside" in err
    code, _, err = answer(capsys, "sample", f"run={plain}", "n=2", "cond.mass=7", out)
    assert code == 1 and "gap" in err and "atoms" in err and "fragment" in err


def test_a_stopped_run_goes_on_to_the_same_weights(latent, tmp_path, monkeypatch, capsys):
    path, step = tmp_path / "again", StageModule.training_step

    def interrupted(self, batch, index):
        step(self, batch, index)
        if self.stage.name == "diffusion" and self.number == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(StageModule, "training_step", interrupted)
        code, _, err = answer(capsys, "train", f"run={path}", *TINY)
    assert code == 1 and "stopped at diffusion step 5 of 8" in err
    main(["train", f"run={path}", *TINY])
    first, second = (al.load(p, device="cpu").system.trained() for p in (latent, path))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_data_of_your_own(tmp_path, capsys):
    folder = tmp_path / "mine"
    folder.mkdir()
    items = al.get("data", "qm9")(limit=30)
    modality = al.get("modality", "molecule")(items.facts["elements"], items.facts["charges"])
    batch = modality.collate([items.train()[i] for i in range(30)])
    modality.originals(batch).save(folder, [f"m{i}" for i in range(30)])
    (folder / "broken.sdf").write_text("nothing")
    for path in folder.glob("*_rdkit.sdf"):
        path.unlink()
    settings = ["data=molecule_folder", f"data.path={folder}"]
    names = [item for item in TINY if not item.startswith("data.")]
    batches = ["training.autoencoder.batch=4", "training.diffusion.batch=4"]
    run_path = tmp_path / "run"
    code, _, err = answer(capsys, "train", f"run={run_path}", *names, *settings, *batches)
    assert code == 0 and "anylatent: warning: " in err and "broken.sdf" in err, err
    assert (run_path / "model.safetensors").exists()


@pytest.mark.parametrize("kind", ("latent", "plain"))
def test_molecules_are_inverted_and_made_again(kind, request, tmp_path, capsys):
    path, out = request.getfixturevalue(kind), tmp_path / "inversion"
    arguments = [f"run={path}", "n=3", "batch=2", "steps=4", f"out={out}"]
    code, told, err = answer(capsys, "invert", *arguments)
    assert code == 0, err
    assert "rmsd" in told and "error_h" in told and "deviation_x" in told
    noise = StoredNoise.load(out / "noise.safetensors", al.load(path).system.autoencoder.spec)
    sizes = [
        len(read_molecules(out / "originals" / f"{i:05d}.sdf")[0][0].molecule) for i in range(3)
    ]
    assert noise.noise.lengths("x").tolist() == sizes and al.testing.in_subspace(noise.noise)
    again = ["sample", f"run={path}", f"noise={out / 'noise.safetensors'}", f"out={tmp_path / 'o'}"]
    code, told, err = answer(capsys, *again)
    assert code == 0 and "3 samples" in told, err
    for i in range(3):
        files = out / "restored" / f"{i:05d}.xyz", tmp_path / "o" / f"0_{i:05d}.xyz"
        before, after = (read_molecules(file)[0][0].molecule for file in files)
        assert torch.equal(before.z, after.z) and torch.allclose(before.x, after.x, atol=1e-3)
    code, _, err = answer(capsys, *again, "cond.atoms=9")
    assert code == 1 and "cond.atoms: noise that is given has its own sizes" in err
    code, _, err = answer(capsys, "invert", *arguments, "data.hydrogens=false")
    assert code == 1 and "leave out data.hydrogens=False (the run: True)" in err


def test_a_molecule_of_one_s_own_is_inverted(latent, tmp_path, capsys):
    """Of fewer elements and charges than the model knows; of others is an error."""
    (tmp_path / "mine").mkdir()
    ethyne = "4\n\nC 0 0 0.6\nC 0 0 -0.6\nH 0 0 1.66\nH 0 0 -1.66\n"
    (tmp_path / "mine" / "ethyne.xyz").write_text(ethyne)
    own = ["data=molecule_folder", f"data.path={tmp_path / 'mine'}", "steps=4"]
    arguments = ["invert", f"run={latent}", *own, f"out={tmp_path / 'out'}"]
    code, told, err = answer(capsys, *arguments)
    assert code == 0 and "1 samples" in told, err
    (record,) = read_molecules(tmp_path / "out" / "originals" / "00000.xyz")[0]
    assert sorted(record.molecule.z.tolist()) == [1, 1, 6, 6]
    (tmp_path / "mine" / "ethyne.xyz").write_text(ethyne.replace("H", "Br"))
    code, _, err = answer(capsys, *arguments)
    assert code == 1 and "elements is ['C', 'Br'] there" in err
