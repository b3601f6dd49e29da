"""What an import costs, and that the public names are there."""

import subprocess
import sys

import pytest

import anylatent as al

HEAVY = (
    "pytorch_lightning", "transformers", "e3nn", "torch_geometric", "trimesh", "nerfacc",
    "decord", "rdkit", "matplotlib", "scipy", "tensorboard", "torchmetrics", "diffusers",
)  # fmt: skip


def modules_after(code):
    """The modules that a fresh interpreter has imported after some code."""
    script = f"import sys\n{code}\nprint('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in done.stderr.splitlines()[-1].split()}


def test_importing_the_package_imports_no_torch():
    assert not {"torch", "numpy", *HEAVY} & modules_after("import anylatent")


@pytest.mark.parametrize("arguments", ([], ["--help"], ["--version"]))
def test_help_imports_no_torch(arguments):
    code = f"from anylatent.core.cli.main import main\nmain({arguments!r})"
    assert not {"torch", "hydra", *HEAVY} & modules_after(code)


def test_listing_the_parts_imports_nothing_heavy():
    loaded = modules_after("from anylatent.core.cli.main import main\nmain(['list'])")
    assert "torch" in loaded and not set(HEAVY) & loaded


OTHER = ("testing", "Node")  # a module, and another name of Mapping[str, Any]


@pytest.mark.parametrize("name", [name for name in al.__all__ if name not in OTHER])
def test_public_names_resolve_to_documented_things(name):
    found = getattr(al, name)
    assert callable(found) and found.__name__ == name and found.__doc__


def test_the_contract_tests_are_public():
    from anylatent import testing
    from anylatent.core import testing as source

    assert al.testing is testing
    for name in source.__all__:
        assert getattr(testing, name) is getattr(source, name)
    wanted = (
        "schedule prediction grid solver weighting times guidance denoiser backbone autoencoder"
    )
    for group in (*wanted.split(), "conditioner", "modality", "data"):
        assert callable(getattr(testing, f"check_{group}"))


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(AttributeError, match="no 'Laten'; it has .*Latent"):
        _ = al.Laten
    assert "solve" in dir(al)
