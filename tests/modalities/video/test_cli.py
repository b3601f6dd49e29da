"""Clips from end to end through the command line, with tiny networks: from scratch, and from
pictures."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import anylatent as al
from anylatent.modalities.video.clips import Clips
from tests.cli import answer
from tests.modalities.video.test_clips import opened

DATA = ["data=moving_mnist", "data.size=32", "data.clips=24", "data.most=6", "data.frames=6"]
STEPS = [
    "training.diffusion.steps=6", "training.diffusion.batch=4", "training.diffusion.warmup=1",
    "training.autoencoder.steps=6", "training.autoencoder.batch=4", "pictures.samples=3",
    "pictures.every=6", "trainer.accelerator=cpu", "log_every=1", "steps=3",
]  # fmt: skip
NETS = ["{}channels=32", "{}multipliers=[1]", "{}blocks=1", "{}embedding=32", "{}heads=2"]
CONV = ["{}channels=16", "{}blocks=1", "{}heads=2"]
NET = [s.format("backbone.image.") for s in NETS] + ["backbone.heads=2"]
TINY = ["modality=video", *DATA, *STEPS, *NET, *(s.format("autoencoder.image.") for s in CONV)]
GIVEN = ["objective.masking=prefix", "objective.masking.entries=2"]
FIRST = ["conditioner=clip", "conditioner.also=[first,motion]"]
FIRST_FRAME = [*TINY, *FIRST, "data.motion=true", "objective.forcing=true"]
PICTURES = [
    "modality=image", "data=mnist", "data.size=32", "conditioner=none", *STEPS,
    *(s.format("backbone.") for s in NETS), *(s.format("autoencoder.") for s in CONV),
]  # fmt: skip
FROM = ["modality=video", *DATA, "training.diffusion.steps=8", "training.diffusion.batch=4"]
FROM += [
    "training.diffusion.warmup=0",
    "pictures.every=0",
    "trainer.accelerator=cpu",
    "log_every=1",
]


@pytest.fixture(scope="module")
def runs(trained_once):
    kinds = {
        "video_given": [*TINY, *GIVEN, "backbone.gate=1"],
        "video_first": FIRST_FRAME,
        "video_pictures": PICTURES,
    }
    return {name: trained_once(name, settings) for name, settings in kinds.items()}


@pytest.fixture(scope="module")
def tuned(runs, trained_once):
    more = ["tuning=temporal", "training.diffusion.optimizer.lr=3e-2"]
    return trained_once("video_tuned", [f"from={runs['video_pictures']}", *FROM, *more])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A real clip as a file that keeps every pixel, and its frames."""
    item = al.get("data", "moving_mnist")(size=32, clips=4, most=2, frames=6).held_out()[0]
    made = Clips(item["video"][None])
    (path,) = made.exact().save(tmp_path_factory.mktemp("clip"), ["clip"])
    return path, made.frames[0]


def frames_of(path):
    pixels = torch.from_numpy(opened(path)[0][..., :1]).permute(0, 3, 1, 2)
    return pixels.float() / 127.5 - 1


def digest(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# ---- from scratch -----------------------------------------------------------------------------
def test_pictures_are_drawn_on_the_way(runs):
    for name in ("video_given", "video_first"):
        pictures = runs[name] / "pictures"
        assert (pictures / "samples_000006.png").stat().st_size > 500
        assert (pictures / "reconstructions_000006.png").stat().st_size > 500


def test_samples_have_the_frames_that_are_given(runs, clip, tmp_path, capsys):
    path, frames = clip
    asked = ["n=3", "cond.keep=[0,2]", f"cond.clip={path}", "cond.frames=5", "lossless=true"]
    code, out, err = answer(
        capsys, "sample", f"run={runs['video_given']}", *asked, f"out={tmp_path}"
    )
    assert code == 0, err
    found = sorted(tmp_path.glob("*.mkv"))
    assert len(found) == 3 and (tmp_path / "contact_sheet.png").exists()
    made = [frames_of(path) for path in found]
    for one in made:
        assert one.shape == (5, 1, 32, 32)
        assert torch.allclose(one[[0, 2]], frames[[0, 2]], atol=1e-6)
    assert not torch.equal(made[0][1], made[1][1])


def test_samples_are_films(runs, tmp_path, capsys):
    code, _, err = answer(capsys, "sample", f"run={runs['video_given']}", "n=2", f"out={tmp_path}")
    assert code == 0, err
    for path in sorted(tmp_path.glob("*.mp4")):
        frames, rate = opened(path)
        assert frames.shape == (6, 32, 32, 3) and rate == 8


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpmpp_2m", "euler_ancestral", "dpmpp_2m_sde"])
def test_a_sample_is_the_same_alone_and_in_its_batch(solver, runs, clip):
    run = al.load(runs["video_given"], device="cpu")
    cond = {"clip": str(clip[0]), "keep": [0, 1], "frames": [6, 3, 4]}
    joint = run.sample(3, seed=1, solver=solver, steps=3, cond=cond)
    for i, count in enumerate(cond["frames"]):
        alone = run.sample(seeds=[(1, i)], solver=solver, steps=3, cond={**cond, "frames": count})
        assert torch.allclose(alone[0], joint[i], atol=1e-4), i


def test_the_first_frame_is_the_picture(runs, clip, tmp_path, capsys):
    _, frames = clip
    pixels = ((frames[0, 0] + 1) * 127.5).round().byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "first.png")
    asked = [f"cond.first={tmp_path / 'first.png'}", "cond.motion=[1,5]", "n=2", "lossless=true"]
    asked += ["guidance.scales.motion=2", "guidance.scales.first=1.5", "guidance.first=1.0"]
    code, _, err = answer(
        capsys, "sample", f"run={runs['video_first']}", *asked, f"out={tmp_path / 'out'}"
    )
    assert code == 0, err
    for path in sorted((tmp_path / "out").glob("*.mkv")):
        assert torch.allclose(frames_of(path)[0], frames[0], atol=1e-6)


def test_completions_are_measured(runs, tmp_path, capsys):
    told = ["n=4", "likelihood=0", "completions=2", f"out={tmp_path}"]
    told += ["metrics=[{name: clip_completions, limit: 8}]"]
    code, out, err = answer(
        capsys, "benchmark", "modality=video", f"run={runs['video_given']}", *told
    )
    assert code == 0, err
    report = json.loads((tmp_path / "benchmark.json").read_text())
    rows = report["completions"]
    assert {"samples", "mean of samples", "last frame", "mean frame", "moved frame"} <= set(rows)
    assert rows["samples"]["psnr_1"] > 0 and "completed, 2 times each" in out


@pytest.mark.slow
def test_all_figures(runs, tmp_path, capsys):
    told = ["n=6", "likelihood=4", "completions=2", f"out={tmp_path}"]
    code, out, err = answer(
        capsys, "benchmark", "modality=video", f"run={runs['video_given']}", *told
    )
    assert code == 0, err
    report = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {"samples", "held-out", "training", "frozen", "shuffled", "blurred", "untrained"}
    assert set(report["samples"]) == rows
    restored, real = report["reconstruction"], report["samples"]["held-out"]
    assert restored["mean"]["flicker"] > 0 and list(restored) == ["mean", "sample", "held-out"]
    for row in restored.values():
        assert (row["clips"], row["frames"], row["size"]) == (6, 6, 32)
    assert restored["held-out"] == pytest.approx(real)
    assert restored["mean"]["frame_distance"] > 0 and "psnr" not in restored["held-out"]


# ---- from pictures ----------------------------------------------------------------------------
def test_layers_over_time_alone_have_moved(runs, tuned):
    base, own = (load_file(path / "model.safetensors") for path in (runs["video_pictures"], tuned))
    assert own and all(".temporal." in name for name in own), "the rest is the base's"
    rows = list(csv.DictReader((tuned / "logs" / "diffusion.csv").open()))
    assert len(rows) >= 8
    fresh = al.get("backbone", "video_unet")
    system, pictures = al.load(tuned).system, al.load(runs["video_pictures"]).system
    for name, value in pictures.trained().items():
        place = name.replace("autoencoder.", "autoencoder.image.", 1)
        place = place.replace("backbone.", "backbone.image.", 1)
        assert torch.equal(system.trained()[place], value), place
    gates = [v for k, v in own.items() if k.endswith("gate")]
    assert gates and all(bool(gate.any()) for gate in gates), fresh
    assert base


def test_the_start_is_the_pictures_model_bit_for_bit(runs, tmp_path, capsys):
    before = digest(runs["video_pictures"])
    still = ["tuning=temporal", "training.diffusion.steps=1", "training.diffusion.optimizer.lr=0"]
    still += ["training.diffusion.optimizer.matrix_lr=0"]
    told = [f"from={runs['video_pictures']}", f"run={tmp_path / 'run'}", *FROM, *still]
    code, out, err = answer(capsys, "train", *told)
    assert code == 0, err
    assert "autoencoder 1/" not in out and "| normaliser |" in out
    clips, pictures = al.load(tmp_path / "run"), al.load(runs["video_pictures"])
    system, frames = clips.system, pictures.system
    x = al.Noise.of(0, 2).like(system.autoencoder.spec.blank(2, torch.tensor([3, 3])))
    t = torch.tensor([0.3, 0.8])
    folded = frames.autoencoder.spec.wrap({"z": x["z"].flatten(0, 1)})
    with torch.no_grad():
        ours = system.generator.denoiser(x, t)["z"].flatten(0, 1)
        theirs = frames.generator.denoiser(folded, t.repeat_interleave(3))["z"]
    assert torch.equal(ours, theirs)
    assert digest(runs["video_pictures"]) == before


def test_all_weights_may_be_tuned(runs, tmp_path, capsys):
    told = [f"from={runs['video_pictures']}", f"run={tmp_path / 'run'}", *FROM]
    code, _, err = answer(capsys, "train", *told, "training.diffusion.steps=2", "backbone.gate=0.5")
    assert code == 0, err
    own = load_file(tmp_path / "run" / "model.safetensors")
    assert any(".temporal." in name for name in own)
    assert any(name.startswith("autoencoder.image.") for name in own)


def test_a_dit_becomes_one_of_clips(tmp_path, capsys):
    dit = ["backbone=dit", "backbone.width=32", "backbone.depth=1", "backbone.heads=2"]
    pictures = [s for s in PICTURES if not s.startswith("backbone.")]
    code, _, err = answer(capsys, "train", f"run={tmp_path / 'base'}", *pictures, *dit)
    assert code == 0, err
    told = [f"from={tmp_path / 'base'}", f"run={tmp_path / 'run'}", *FROM, "tuning=temporal"]
    code, _, err = answer(capsys, "train", *told)
    assert code == 0, err
    assert al.load(tmp_path / "run").config.model.backbone["name"] == "video_dit"
    code, _, err = answer(capsys, "sample", f"run={tmp_path / 'run'}", "n=1", "steps=2")
    assert code == 0, err


def test_what_was_stopped_goes_on(runs, tmp_path, stop_at, capsys):
    """Windows of frames too are a function of the step."""
    told = [*TINY, *GIVEN, "backbone.gate=1", f"run={tmp_path / 'run'}", "pictures.every=0"]
    undo = stop_at("diffusion", 3)
    code, _, err = answer(capsys, "train", *told)
    assert code == 1 and "step 3 of 6" in err
    undo()
    code, _, err = answer(capsys, "train", *told)
    assert code == 0, err
    whole, parts = (
        load_file(p / "model.safetensors") for p in (runs["video_given"], tmp_path / "run")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


# ---- what can't be ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.size=64"], "the shape of data is"),
        (["schedule=vp"], "schedule is vp"),
        (["prediction=data"], "prediction is data"),
    ],
)
def test_frozen_pictures_are_asked_for_what_they_know(more, message, runs, tmp_path, fails):
    told = [f"from={runs['video_pictures']}", f"run={tmp_path / 'run'}", *FROM, "tuning=temporal"]
    assert message in fails("train", *told, *more)
    assert not (tmp_path / "run").exists()


def test_new_conditions_want_to_be_learned(runs, tmp_path, fails, capsys):
    told = [f"from={runs['video_pictures']}", f"run={tmp_path / 'run'}", *FROM, *FIRST]
    told += ["data.motion=true", "training.diffusion.steps=2"]
    message = fails("train", *told, "tuning=temporal")
    assert "start at zero" in message and "tuning=all" in message
    pattern = ["tuning=matching", "tuning.pattern=temporal|condition|first"]
    code, _, err = answer(capsys, "train", *told, *pattern)
    assert code == 0, err
    own = load_file(tmp_path / "run" / "model.safetensors")
    assert any("condition.scalars.motion" in name and bool(v.any()) for name, v in own.items())


def test_as_many_frames_given_as_there_are(tmp_path, fails):
    told = [*TINY, "objective.masking=prefix", "objective.masking.entries=6"]
    assert "windows of 6 entries" in fails("train", *told, f"run={tmp_path / 'run'}")


def test_what_runs_with_a_first_frame_are_measured(runs, tmp_path, capsys):
    """Under the first frames and the motion of held-out clips."""
    told = ["n=4", "metrics=[clip_motion_asked]", "completions=0", f"out={tmp_path}"]
    code, out, err = answer(
        capsys, "evaluate", "modality=video", f"run={runs['video_first']}", *told
    )
    assert code == 0, err
    assert (
        "asked_weak" in json.loads((tmp_path / "evaluation.json").read_text())["samples"]["samples"]
    )


@pytest.mark.parametrize("name", ["video_cpu", "video_gpu", "vdm", "forcing"])
def test_the_presets_are_what_they_say(name, cli, tmp_path):
    code, out, err = cli("train", f"experiment={name}", f"run={tmp_path / 'run'}", "--cfg", "job")
    assert code == 0, err
    assert "video_unet" in out and "moving_mnist" in out
    assert ("identity" in out) == (name == "vdm") and ("forcing: true" in out) == (
        name == "forcing"
    )


def test_a_model_of_clips_begins_as_one_of_pictures_or_clips(tmp_path, runs, fails):
    told = [f"run={tmp_path / 'run'}", "data.limit=50"]
    message = fails("train", "modality=text", f"from={runs['video_pictures']}", *told)
    assert "a model of image, as which no model of text begins" in message


@pytest.mark.parametrize(
    ("cond", "message"),
    [
        ("cond.frames=0", "from 1 to 1024"),
        ("cond.frames=1000000", "from 1 to 1024"),
        ("cond.keep=[0]", "cond.keep names frames"),
        ("cond.clip=nowhere.mp4", "nowhere.mp4"),
    ],
)
def test_conditions_that_can_not_be(cond, message, runs, tmp_path, fails):
    told = ["sample", f"run={runs['video_given']}", "n=1", f"out={tmp_path / 'out'}"]
    assert message in fails(*told, cond).replace("1 to 1024", "from 1 to 1024").replace(
        "from from", "from"
    )


def test_tuning_over_time_needs_layers_over_time(tmp_path, runs, fails):
    told = [f"from={runs['video_pictures']}", f"run={tmp_path / 'run'}", "tuning=temporal"]
    assert "layers over time" in fails("train", *told, "training.diffusion.steps=9")


def test_more_frames_than_a_held_out_video_has(tmp_path, fails):
    message = fails("train", *TINY, "data.frames=0", f"run={tmp_path / 'run'}")
    assert "must be positive" in message


def test_a_copy_of_a_run_is_whole(tuned, runs, tmp_path, capsys):
    """What it leans on is named, and found from elsewhere."""
    moved = Path(shutil.copytree(tuned, tmp_path / "moved"))
    code, out, err = answer(
        capsys, "sample", f"run={moved}", f"base={runs['video_pictures']}", "n=1", "steps=2"
    )
    assert code == 0, err


# ---- the decoder over time, and samples of any length -----------------------------------------
@pytest.fixture(scope="module")
def decoded(runs, trained_once):
    """A run of clips whose decoder was tuned, with an adversary of clips."""
    more = ["stage=autoencoder", "tuning=temporal", "adversary@autoencoder.adversary=patch3d"]
    more += ["autoencoder.adversary.channels=8", "autoencoder.adversary_start=2"]
    more += ["training.autoencoder.warmup=0", "training.autoencoder.optimizer.lr=3e-2"]
    more += ["training.autoencoder.steps=5", "training.autoencoder.batch=2", "pictures.every=0"]
    return trained_once("video_decoded", [f"from={runs['video_first']}", *more])


def test_a_tuned_decoder_has_layers_over_time_and_leaves_the_rest(runs, decoded):
    own, base = (load_file(run / "model.safetensors") for run in (decoded, runs["video_first"]))
    assert own and all(".temporal." in name for name in own)
    fresh = al.load(decoded).system.autoencoder
    gates = [x for name, x in own.items() if name.endswith("gate")]
    assert all(bool(gate.any()) for gate in gates)
    kept = {k: v for k, v in al.load(decoded).system.trained().items() if k not in own}
    assert set(kept) == set(base) and all(torch.equal(kept[k], base[k]) for k in base)
    assert fresh.temporal is not None and not fresh.by_entry
    text = (decoded / "config.yaml").read_text()
    assert "patch3d" in text and "temporal: true" in text


def test_a_tuned_decoder_draws_what_the_run_did(runs, decoded):
    cond = {"motion": [0.5]}
    own, base = (
        al.load(run).sample(1, cond=cond, steps=3) for run in (decoded, runs["video_first"])
    )
    assert own.frames.shape == base.frames.shape and not torch.equal(own.frames, base.frames)
    assert float((own.frames - base.frames).abs().mean()) < 0.3


def test_a_decoder_without_layers_over_time_can_not_be_tuned_so(runs, tmp_path, fails):
    told = [f"from={runs['video_pictures']}", f"run={tmp_path / 'run'}", "stage=autoencoder"]
    assert "autoencoder.temporal=true" in fails("train", *told, "tuning=temporal")


@pytest.mark.parametrize("kind", ["windows", "rolling"])
def test_samples_of_any_length(runs, tmp_path, cli, kind):
    """From a run that drew short ones; each begins in the same way whatever else is drawn."""
    around = [f"generator={kind}", "generator.window=4", "generator.context=1", "steps=3"]
    for n in (2, 1):
        out = ["cond.frames=11", f"n={n}", f"out={tmp_path / str(n)}", "lossless=true"]
        cli("sample", f"run={runs['video_first']}", *around, *out)
    (joint, rate), (alone, _) = (opened(tmp_path / n / "0_00000.mkv") for n in ("2", "1"))
    assert len(joint) == 11 and rate == 8
    assert abs(joint.astype(int) - alone.astype(int)).max() <= 1


def test_windows_of_a_run_can_not_be_other_models(runs, fails):
    told = ["sample", f"run={runs['video_given']}", "n=1"]
    assert "around its generator there can be" in fails(*told, "generator=cascade")
    assert "objective.forcing=true" in fails(*told, "generator=rolling")
    assert "longer than its context" in fails(
        *told, "generator=windows", "generator.window=3", "generator.context=3"
    )
    assert "leave it out" in fails(*told, "generator=windows", "generator.of=cascade")


def test_a_run_may_be_trained_to_draw_windows(tmp_path, trained_once):
    around = ["generator=windows", "generator.window=4", "generator.context=2"]
    run = trained_once("video_windows", [*TINY, *GIVEN, *around])
    made = al.load(run).sample(1, steps=3, cond={"frames": 9})
    assert made.frames.shape[1] == 9 and bool(made.frames.isfinite().all())
