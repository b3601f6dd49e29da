"""The code in CONTRIBUTING.md does what it says."""

import re
from pathlib import Path

import pytest
import torch

import anylatent as al
from anylatent.core.registry import store as registry

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


@pytest.fixture
def registered_for_now():
    al.names("weighting")
    yield
    registry._parts["weighting"].pop("truncated_snr", None)


def test_python_blocks_run(registered_for_now):
    backbone = al.get("backbone", "unet")(al.LatentSpec({"z": al.Field((2, 8))}), channels=8)
    scope = {"__name__": "my_parts", "torch": torch, "backbone": backbone}
    assert len(blocks("python")) == 3
    for block in blocks("python"):
        exec(block, scope)
    part = registry.part("weighting", "truncated_snr")
    assert part.settings()["floor"][1] == 1.0 and "2202.00512" in part.summary
    scales, x = scope["hosted"].guest.scales, backbone.spec.blank(1)
    assert len(scales) == sum(site.layout == "map" for site in backbone.sites)
    scope["hosted"](x, torch.zeros(1))["z"].sum().backward()
    assert all(scale.grad is not None for scale in scales.values())


def test_outside_plugin_is_as_described():
    outside = ROOT / "tests" / "plugins" / "outside"
    waves = (outside / "outside_waves" / "conf" / "modality" / "waves.yaml").read_text()
    assert blocks("yaml") == [waves]
    assert blocks("toml")[0] in (outside / "pyproject.toml").read_text()
    for file in re.findall(r"^\| `([\w/.]+)` \|", TEXT, re.M):
        assert (outside / "outside_waves" / file).is_file(), file


def test_named_contract_tests_are_all_there_are():
    named = set(re.findall(r"`(check_\w+)`", TEXT))
    assert named == {name for name in dir(al.testing) if name.startswith("check_")}
