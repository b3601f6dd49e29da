"""Text through the command line: a file of one's own, templates, lengths, bad input."""

import json
import re

import pytest

import anylatent as al
from anylatent.core.cli.main import main
from anylatent.core.training import loop
from tests.cli import answer

TINY = [
    "modality=text", "data=text_file", "data.vocabulary=300", "backbone.width=32",
    "backbone.depth=1", "backbone.heads=2", "training.autoencoder.steps=2",
    "training.diffusion.steps=2", "training.autoencoder.batch=16", "training.diffusion.batch=16",
    "pictures.every=2", "pictures.samples=3", "steps=4", "trainer.accelerator=cpu",
]  # fmt: skip
DATA_SPACE = [
    "autoencoder=identity", "denoiser=preconditioned", "objective=denoising", "grid=log_snr",
    "times=log_normal", "prediction=edm",
]  # fmt: skip
TEMPLATE = "the cat ___ sees ___ birds"


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "lines.txt"
    kinds = ("cat", "dog", "owl")
    written = [f"the {kinds[k % 3]} number {k} sees {k * 7 % 100} birds" for k in range(300)]
    path.write_text("\n".join([*written, "long " * 100]))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANYLATENT_CACHE", str(folder / "cache"))
        main(["train", f"run={folder / 'run'}", *TINY, f"data.path={lines}"])
    return folder / "run"


def sampled(folder, *names):
    texts = [(folder / f"{name}.txt").read_bytes() for name in names]
    return [text.decode().removesuffix("\n") for text in texts]


def test_a_run_says_what_was_left_out_and_keeps_its_tokenizer(model):
    facts = al.load(model).config.facts
    assert facts["left_out"] == {"too_long": 1} and facts["kind"] == "text"
    assert al.load(model).system.modality.tokenizer.size == facts["vocabulary"] == 300


def test_a_text_of_one_s_own_is_inverted(model, tmp_path, capsys):
    """By the model's tokenizer, which such a file would never teach."""
    (tmp_path / "mine.txt").write_text("a bird sees the king\n")
    own = [f"data.path={tmp_path / 'mine.txt'}", "n=3", "steps=2", f"out={tmp_path / 'out'}"]
    code, told, error = answer(capsys, "invert", f"run={model}", *own)
    assert code == 0 and "1 samples" in told, error
    assert (tmp_path / "out" / "originals" / "samples.txt").read_text().strip() == (
        "a bird sees the king"
    )


def test_a_template_is_in_every_sample(model, tmp_path, capsys):
    command = ["sample", f"run={model}", "n=5", "seed=3", f"out={tmp_path}"]
    code, _, error = answer(capsys, *command, f"cond.template={TEMPLATE}")
    assert code == 0, error
    texts = sampled(tmp_path, *(f"3_{k:05}" for k in range(5)))
    for text in texts:
        assert re.fullmatch("the cat .+ sees .+ birds", text, re.DOTALL), text
    assert (tmp_path / "contact_sheet.png").stat().st_size > 1000
    rows = (tmp_path / "samples.jsonl").read_bytes().split(b"\n")[:-1]
    assert [json.loads(row)["text"] for row in rows] == texts
    alone = al.load(model).sample(seeds=[(3, 4)], cond={"template": TEMPLATE})
    assert alone[0].text == texts[4]  # whatever its neighbours


def test_a_template_in_brackets_is_quoted(model, tmp_path, capsys):
    command = ["sample", f"run={model}", "n=1", f"out={tmp_path}", "cond.template='[1] the ___'"]
    code, _, error = answer(capsys, *command)
    assert code == 0, error
    assert sampled(tmp_path, "0_00000")[0].startswith("[1] the ")


def test_templates_and_lengths_of_their_own(model):
    loaded = al.load(model)
    histogram = dict(loaded.config.facts["lengths"])
    longest = max(histogram)
    cond = {"template": ["the ___", "___ birds"], "length": [longest, None]}
    first, second = loaded.sample(2, cond=cond)
    assert first.text.startswith("the ") and second.text.endswith(" birds")
    assert len(first) in (longest, longest + 1)
    plain = loaded.sample(4, cond={"length": longest})
    assert plain.lengths.tolist() == [longest] * 4


WRONG = {
    "length": ("cond.length=1000", "cond.length=1000: allowed are"),
    "no number": ("cond.length=long", "cond.length=long: allowed are"),
    "no gap": ("cond.template=nothing to fill in", "a text with a gap is wanted"),
    "long template": (f"cond.template={'word ' * 80}___", "longest text of the training data"),
    "unknown": ("cond.keyword=cat", "no condition keyword; this run has length, template"),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.replace(" ", "_"))
def test_a_wrong_condition_is_one_message(case, model, tmp_path, capsys):
    condition, message = WRONG[case]
    code, _, error = answer(capsys, "sample", f"run={model}", f"out={tmp_path / 'out'}", condition)
    assert code == 1 and message in error and "Traceback" not in error
    assert error.startswith("anylatent: ") and not (tmp_path / "out").exists()


LONG = [" ".join(str(n * n) for n in range(k, k + 99)) for k in (0, 200, 300)]
BAD = {
    "no path": (None, "needs data.path=..."),
    "missing": (..., "there is no file or folder"),
    "empty": (b"", "has no text: a document is wanted on each line"),
    "bytes": (b"good\nbad \xff\n", "some.txt, line 2: byte 0xff at place 5 is no UTF-8"),
    "long": ("\n".join(LONG).encode(), "3 left out: longer than 64 tokens"),
}


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "_"))
def test_bad_files_stop_a_training_before_it_begins(case, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loop, "run_stage", lambda *_: pytest.fail("the training began"))
    content, message = BAD[case]
    path = tmp_path / "some.txt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    given = [] if content is None else [f"data.path={path}"]
    code, _, error = answer(capsys, "train", f"run={tmp_path / 'run'}", *TINY, *given)
    assert code == 1 and message in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_data_space(lines, tmp_path, capsys, monkeypatch):
    """One-hot vectors with Gaussian noise, without an autoencoder."""
    monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "run"
    code, _, error = answer(
        capsys, "train", f"run={path}", *TINY, *DATA_SPACE, f"data.path={lines}"
    )
    assert code == 0, error
    found = al.load(path).sample(3, cond={"template": TEMPLATE})
    assert all(re.fullmatch("the cat .+ sees .+ birds", str(text), re.DOTALL) for text in found)
