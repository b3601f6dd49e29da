"""Text from end to end on real SMILES, through the command line, with tiny networks."""

import json
import signal
from types import SimpleNamespace

import pytest
import torch

import anylatent as al
from anylatent.core.cli.main import main
from anylatent.core.training.module import StageModule
from anylatent.core.training.stages.base import Stage
from anylatent.core.training.stages.joint import JointStage
from tests.cli import answer
from tests.matrix import in_turns

TINY = [
    "modality=text", "data.limit=400", "backbone.width=32", "backbone.depth=1", "backbone.heads=2",
    "autoencoder.channels=16", "training.diffusion.steps=8", "training.diffusion.batch=32",
    "pictures.every=8", "pictures.samples=3", "steps=4", "trainer.accelerator=cpu",
]  # fmt: skip
BARE = [item for item in TINY if not item.startswith("backbone.")]
RIVAL = ["generator=autoregressive", "generator.width=32", "generator.depth=1", "generator.heads=2"]
LATENT = [
    "autoencoder=sequence", "denoiser=preconditioned", "objective=denoising", "prediction=edm",
    "times=log_normal", "grid=log_snr", "autoencoder.width=32", "autoencoder.encoder=1",
    "autoencoder.decoder=1", "autoencoder.heads=2", "autoencoder.latents=3",
    "training.autoencoder.steps=8", "training.autoencoder.batch=32",
]  # fmt: skip
LM = [
    "autoencoder=embedding", "denoiser=rounded", "objective=denoising", "prediction=data",
    "schedule=cosine", "times=uniform", "grid=uniform",
]  # fmt: skip

FIGURES = (
    "metrics=[{name: ngrams, limit: 20}, {name: text_likelihood, limit: 20, steps: 3}, "
    "{name: smiles_shares, limit: 20}, {name: text_copies, limit: 20}, texts_restored]"
)


@pytest.fixture(scope="module")
def runs(trained_once):
    """CDCD, its autoregressive rival, Diffusion-LM, and latents of a compressing autoencoder."""
    kinds = {
        "cdcd": [*TINY, "masking@objective.masking=mixed"],
        "rival": [*BARE, *RIVAL],
        "lm": [*TINY, *LM],
        "latent": [*TINY, *LATENT],
    }
    return {name: trained_once(name, settings) for name, settings in kinds.items()}


@pytest.mark.parametrize("kind", ["cdcd", "rival", "lm", "latent"])
def test_every_kind_trains_samples_and_is_measured(kind, runs, tmp_path, capsys):
    path = runs[kind]
    assert (path / "pictures" / "samples_000008.png").stat().st_size > 500
    code, out, error = answer(capsys, "sample", f"run={path}", "n=3", f"out={tmp_path}")
    assert code == 0, error
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and all(row["tokens"] for row in rows)
    code, out, error = answer(
        capsys,
        "benchmark",
        "modality=text",
        f"run={path}",
        "n=8",
        "likelihood=4",
        FIGURES,
        f"out={tmp_path}",
    )
    assert code == 0, error
    report = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(report["samples"]) == {"samples", "held-out", "training", "shuffled", "untrained"}
    assert report["samples"]["held-out"]["valid"] == 1
    unit = "latent_bits_per_dimension" if kind == "latent" else "bound_bits_per_token"
    assert 0 < abs(report["other"][unit]) < 1e4  # networks that have learned nothing
    if kind != "latent":
        assert report["reconstruction"]["mean"]["texts_restored"] == 1


@pytest.mark.parametrize("solver", in_turns(al.names("solver"), every=4))
def test_every_solver_samples_text(runs, solver, tmp_path, capsys):
    command = ["sample", f"run={runs['cdcd']}", "n=2", f"solver={solver}", f"out={tmp_path}"]
    code, _, error = answer(capsys, *command)
    assert code == 0, error
    assert len((tmp_path / "samples.txt").read_text().splitlines()) == 2


@pytest.mark.parametrize("kind", ["cdcd", "rival", "lm", "latent"])
def test_samples_do_not_depend_on_their_batch(kind, runs):
    model = al.load(runs[kind], device="cpu")
    joint = model.sample(5, seed=3, batch=5)
    parts = [*model.sample(4, seed=3, batch=2), *model.sample(seeds=[(3, 4)])]
    assert [text.text for text in joint] == [text.text for text in parts]


@pytest.mark.parametrize("kind", ["cdcd", "lm"])
def test_lengths_and_templates(kind, runs):
    """`cdcd` was trained to complete; `lm` rounds, so that given tokens are only put in place."""
    model = al.load(runs[kind], device="cpu")
    assert {len(text.tokens) for text in model.sample(4, cond={"length": 11})} == {11}
    for text in model.sample(4, seed=1, cond={"template": "CC___O"}):
        assert text.text.startswith("CC") and text.text.endswith("O") and len(text.tokens) > 3


def test_temperature_is_of_tokens_alone(runs, capsys):
    for kind, code in (("cdcd", 0), ("rival", 0), ("lm", 1), ("latent", 1)):
        got, _, error = answer(capsys, "sample", f"run={runs[kind]}", "n=1", "temperature=.5")
        assert got == code and "Traceback" not in error
        assert code == 0 or "has no logits of tokens" in error


def test_what_a_model_can_not_do_is_an_error(runs, capsys):
    cases = {
        ("latent", "cond.length=9"): "fixed length",
        ("latent", "cond.template=C___"): "fixed length",
        ("rival", "cond.template=C___"): "from beginning to end",
        ("rival", "cond.length=9"): "from beginning to end",
        ("cdcd", "cond.length=99"): "allowed are",
        ("cdcd", "cond.rings=2"): "stage=classifier",
    }
    for (kind, wish), message in cases.items():
        code, _, error = answer(capsys, "sample", f"run={runs[kind]}", "n=1", wish)
        assert code == 1 and message in error and "Traceback" not in error, (kind, wish, error)


def test_parts_that_do_not_fit_are_an_error(tmp_path, capsys):
    cases = {
        "backbone=dit": "parameter `output`",
        "autoencoder=sequence": "choose an autoencoder with a codebook",
    }
    for choice, message in cases.items():
        settings = [item for item in BARE if not item.startswith("autoencoder.")]
        code, _, error = answer(capsys, "train", f"run={tmp_path / 'x'}", *settings, choice)
        assert code == 1 and message in error and "Traceback" not in error, error
        assert not (tmp_path / "x").exists()


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path, monkeypatch, capsys):
    """Joint training: table, network, warped times and averages are all taken up again."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    main(["train", f"run={whole}", *TINY])
    step = StageModule.training_step

    def interrupted(self, batch, index):
        step(self, batch, index)
        if self.number == 4:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(StageModule, "training_step", interrupted)
        code, _, error = answer(capsys, "train", f"run={parts}", *TINY)
    assert code == 1 and "stopped at joint step 4" in error
    main(["train", f"run={parts}", *TINY])
    one, other = (al.load(path).system.trained() for path in (whole, parts))
    assert list(one) == list(other) and "generator.objective.times.loss" in one
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_the_table_learns_together_with_the_network_unless_it_is_frozen(runs, tmp_path):
    torch.manual_seed(0)
    fresh = al.load(runs["cdcd"]).system
    main(["train", f"run={tmp_path / 'frozen'}", *TINY, "autoencoder.learned=false"])
    frozen = al.load(tmp_path / "frozen").system.autoencoder.table
    moved = (fresh.autoencoder.table - frozen).abs().max()
    assert float(moved) > 1e-5 and not frozen.requires_grad


def test_a_rival_is_not_taught_by_batches_of_one_length(runs):
    stage = JointStage.__new__(JointStage)
    for kind, told in (("rival", False), ("cdcd", True)):
        Stage.__init__(stage, SimpleNamespace(system=al.load(runs[kind]).system), None)
        assert stage.told_lengths == told


def test_a_rival_with_conditions_is_refused_before_it_learns(tmp_path, capsys):
    settings = [
        f"run={tmp_path / 'x'}",
        *BARE,
        *RIVAL,
        "conditioner=label",
        "conditioner.key=rings",
    ]
    code, _, error = answer(capsys, "train", *settings)
    assert code == 1 and "guidance=none" in error and not (tmp_path / "x").exists()
    code, _, error = answer(capsys, "train", *settings, "guidance=none")
    assert code == 0, error
    command = ["sample", f"run={tmp_path / 'x'}", "n=2", "cond.rings=2", f"out={tmp_path}"]
    code, _, error = answer(capsys, *command)
    assert code == 0, error


def test_temperature_does_not_stay(runs):
    for kind in ("cdcd", "rival"):
        model = al.load(runs[kind], device="cpu")
        before = [text.text for text in model.sample(6)]
        assert [text.text for text in model.sample(6, temperature=0.05)] != before
        assert [text.text for text in model.sample(6)] == before


def test_a_model_is_told_in_sampling_only_what_it_was_told_in_training(tmp_path, runs):
    told = al.load(runs["cdcd"]).system.generator.denoiser
    assert told.self_conditioned and told.sees_given
    plain = ["objective.recall=0", "training.diffusion.steps=2"]
    main(["train", f"run={tmp_path / 'x'}", *TINY, *plain])
    model = al.load(tmp_path / "x", device="cpu")
    assert not model.system.generator.denoiser.self_conditioned
    assert not model.system.generator.denoiser.sees_given
    for text in model.sample(3, cond={"template": "CC___O"}):  # guided instead
        assert text.text.startswith("CC") and text.text.endswith("O")


@pytest.mark.parametrize("kind", ["cdcd", "lm", "latent"])
def test_texts_are_inverted_and_made_again(kind, runs, tmp_path, capsys):
    path, out = runs[kind], tmp_path / "inversion"
    code, told, error = answer(capsys, "invert", f"run={path}", "n=3", "steps=4", f"out={out}")
    assert code == 0, error
    assert "tokens_restored" in told and (out / "comparison.png").stat().st_size > 500
    noise = f"noise={out / 'noise.safetensors'}"
    code, told, error = answer(capsys, "sample", f"run={path}", noise, f"out={tmp_path}")
    assert code == 0, error
    read = [(folder / "samples.txt").read_text() for folder in (out / "restored", tmp_path)]
    assert read[0] == read[1]
    more = ["solver=dopri5", "n=2", "steps=2", f"out={out}"]  # a model that recalls is not asked
    code, told, error = answer(capsys, "invert", f"run={path}", *more)
    assert code == 0, error
    code, _, error = answer(capsys, "sample", f"run={path}", noise, "cond.length=9")
    assert code == 1 and "noise that is given has its own sizes" in error


def test_what_writes_word_by_word_is_not_inverted(runs, tmp_path, capsys):
    code, _, error = answer(capsys, "invert", f"run={runs['rival']}", f"out={tmp_path}")
    assert code == 1 and "generator=autoregressive" in error and not list(tmp_path.iterdir())
