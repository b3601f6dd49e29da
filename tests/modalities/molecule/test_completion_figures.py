"""Figures of molecules that are completed from some of their atoms, in cases that are known."""

import json

import pytest
import torch

import anylatent as al
from anylatent.modalities.molecule.batches import collate
from anylatent.modalities.molecule.given import Fragments
from anylatent.modalities.molecule.metrics import MoleculeCompletions
from anylatent.modalities.molecule.metrics.completions import filled
from anylatent.modalities.molecule.molecules import Molecules
from tests.cli import answer
from tests.modalities.molecule import ideal
from tests.modalities.molecule.test_metrics_table import Few

pytest.importorskip("rdkit", reason="rdkit is not installed")

TRUE = [ideal.methane(), ideal.formaldehyde(), ideal.ammonia(), ideal.ethene()]
FIRST = torch.arange(6).expand(4, -1) < torch.tensor([1, 2, 1, 3])[:, None]
KEPT = (1 + 2 + 1 + 3) / (5 + 4 + 4 + 6)


def figures(*made, given=FIRST, true=TRUE):
    metric = MoleculeCompletions(Few(TRUE, TRUE))
    outputs = [Molecules(each) for each in made]
    return metric.completions(Molecules(true), outputs, given, {})


def test_an_ideal_completion():
    """The molecules themselves, elsewhere in space."""
    elsewhere = [ideal.replaced(m, x=m.x + torch.tensor([3.0, -1.0, 2.0])) for m in TRUE]
    rows = figures(elsewhere, elsewhere)
    assert list(rows) == ["samples", "held-out", "given and cloud"]
    wanted = {
        "molecules": 4, "completions": 2, "given": pytest.approx(KEPT), "given_elements": 1,
        "given_rmsd": pytest.approx(0, abs=1e-6), "atom_stability": 1, "molecule_stability": 1,
        "valid": 1, "connected": 1, "recovered": 1, "recovered_once": 1, "different": 0.5,
    }  # fmt: skip
    assert rows["samples"] == wanted and list(rows["samples"]) == list(wanted)
    del wanted["different"]
    assert rows["held-out"] == {**wanted, "completions": 1}


def test_a_completion_that_is_another_molecule():
    """Two of one size in one another's place: as good as molecules, and none is the right one."""
    true = [ideal.formaldehyde(), ideal.ammonia()]
    given = FIRST[[0, 0]]
    row = figures(true[::-1], given=given, true=true)["samples"]
    for name in ("valid", "connected", "molecule_stability"):
        assert row[name] == 1
    assert row["recovered"] == row["recovered_once"] == row["given_elements"] == 0
    turned = [ideal.replaced(m, x=m.x.flip(0), z=m.z.flip(0)) for m in true]
    row = figures(turned, given=given, true=true)["samples"]
    assert row["given_elements"] == 0 and row["recovered"] == 1, "atoms are not where they were"


def test_given_atoms_alone_are_no_completion():
    """All that is given is exactly there, and the rest is far away."""
    far = [ideal.moved(m, len(m) - 1, [60.0, 0, 0]) for m in TRUE]
    far = [ideal.moved(m, len(m) - 2, [0, 60.0, 0]) for m in far]
    row = figures(far)["samples"]
    assert row["given_elements"] == 1 and row["given_rmsd"] == pytest.approx(0, abs=1e-6)
    assert row["connected"] == row["molecule_stability"] == row["recovered"] == 0
    assert row["atom_stability"] < 0.5


def test_the_distance_from_what_was_given():
    """Of formaldehyde's C and O, 0.3 Å further apart, each is 0.15 Å off."""
    wrong = ideal.moved(TRUE[1], 1, TRUE[1].x[1] + torch.tensor([0.3, 0, 0]))
    row = figures([wrong], given=FIRST[1:2], true=TRUE[1:2])["samples"]
    assert row["given_rmsd"] == pytest.approx(0.15, abs=1e-6) and row["given_elements"] == 1


def test_one_of_several_completions_is_right():
    broken = [ideal.moved(m, 0, [9.0, 9.0, 9.0]) for m in TRUE]
    row = figures([TRUE[0], *broken[1:]], broken, [TRUE[0], TRUE[1], *broken[2:]])["samples"]
    assert row["recovered"] == pytest.approx(3 / 12) and row["recovered_once"] == 0.5
    assert row["completions"] == 3


def test_the_cloud_has_what_is_given():
    given = [row[: len(m)] for row, m in zip(FIRST, TRUE, strict=True)]
    made = filled(Molecules(TRUE), given)
    for one, other, here in zip(TRUE, made, given, strict=True):
        assert len(one) == len(other) and torch.equal(one.z[here], other.z[here])
        between = one.x[here] - one.x[here].mean(0)
        assert torch.allclose(other.x[here], between, atol=1e-6)
    row = figures(TRUE)["given and cloud"]
    assert row["given_elements"] == 1 and row["given_rmsd"] == pytest.approx(0, abs=1e-6)
    assert row["molecule_stability"] == 0 and row["recovered"] < 1


def test_what_does_not_count():
    nothing = FIRST.clone()
    nothing[0], nothing[1] = False, True
    rows = figures(TRUE, given=nothing)
    assert rows["samples"]["molecules"] == 2 and rows["samples"]["given"] == pytest.approx(0.4)
    assert figures(TRUE, given=FIRST < 0) == {} and figures(TRUE, given=FIRST >= 0) == {}
    assert figures() == {}


def test_data_without_hydrogens_have_no_stability():
    bare = [ideal.molecule("CO", [[0, 0, 0], [1.43, 0, 0]])]
    metric = MoleculeCompletions(Few(bare, bare, elements=("C", "O")))
    rows = metric.completions(Molecules(bare), [Molecules(bare)], FIRST[:1], {})
    assert "atom_stability" not in rows["samples"] and rows["samples"]["recovered"] == 1


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"as many atoms as the originals, \[5, 4, 4, 6\], got"):
        figures(TRUE[::-1])
    with pytest.raises(ValueError, match=r"given .* 4 molecules of up to 6 atoms, got \(4, 5\)"):
        figures(TRUE, given=FIRST[:, :5])
    with pytest.raises(ValueError, match="need Molecules"):
        MoleculeCompletions(Few(TRUE, TRUE)).completions([1], [Molecules(TRUE)], FIRST, {})


# ---- given atoms ------------------------------------------------------------------------------
def test_given_atoms_are_put_where_they_were_restored():
    data = Few(TRUE, TRUE)
    batch = collate(data.held_out())
    fragments = Fragments(data.facts["elements"], (0, 1))
    draw = torch.Generator().manual_seed(0)
    made = Molecules(
        ideal.replaced(m, x=torch.randn(m.x.shape, generator=draw), z=m.z.roll(1)) for m in TRUE
    )
    given = FIRST.clone()
    given[0], given[3] = False, torch.tensor([False, True, False, True, True, False])
    put = fragments.put(made, batch, given)
    for one, own, true, row in zip(put, made, TRUE, given, strict=True):
        here = row[: len(true)]
        assert torch.equal(one.x[~here], own.x[~here]) and torch.equal(one.z[~here], own.z[~here])
        assert torch.equal(one.z[here], true.z[here])
        if bool(here.any()):
            assert torch.allclose(one.x[here].mean(0), own.x[here].mean(0), atol=1e-6)
            assert torch.allclose(torch.pdist(one.x[here]), torch.pdist(true.x[here]), atol=1e-5)
    pieces = collate(Few([ideal.methane(), ideal.water()], TRUE).train())
    both = Molecules([made[0], made[3]])
    completed = fragments.complete(both, pieces)
    for one, other, piece in zip(completed, both, (ideal.methane(), ideal.water()), strict=True):
        n = len(piece)
        assert torch.equal(one.x[n:], other.x[n:]) and torch.equal(one.z[:n], piece.z)
        assert torch.allclose(torch.pdist(one.x[:n]), torch.pdist(piece.x), atol=1e-5)
        assert torch.allclose(one.x[:n].mean(0), other.x[:n].mean(0), atol=1e-6)


# ---- the command line -------------------------------------------------------------------------
def test_completions_are_measured(trained_once, tmp_path, capsys):
    told = [
        "modality=molecule", "data.limit=400", "autoencoder=identity", "backbone.width=32",
        "backbone.edge=16", "backbone.depth=2", "training.diffusion.steps=8",
        "training.diffusion.batch=32", "objective.masking=scattered", "pictures.every=8",
        "pictures.samples=3", "steps=4", "trainer.accelerator=cpu",
    ]  # fmt: skip
    run = trained_once("molecules_given", told)
    asked = ["n=4", "likelihood=0", "completions=2", "metrics=[molecule_completions]"]
    code, out, err = answer(
        capsys, "benchmark", "modality=molecule", f"run={run}", *asked, f"out={tmp_path}"
    )
    assert code == 0, err
    rows = json.loads((tmp_path / "benchmark.json").read_text())["completions"]
    assert list(rows) == ["samples", "held-out", "given and cloud"]
    assert "completed, 2 times each" in out and "| given_rmsd" in out
    made, real = rows["samples"], rows["held-out"]
    assert made["given_elements"] == 1 and made["given_rmsd"] < 1e-5
    assert real["valid"] > 0.9 and made["valid"] < real["valid"] and real["recovered"] > 0.9
    assert 20 < made["molecules"] == real["molecules"] <= 64 and 0.2 < made["given"] < 0.8
    assert al.load(run, device="cpu").system.generator.masking is not None
