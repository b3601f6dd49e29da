"""The rooms of core: no circles, no way past a door, nothing that grows out of sight.

The layers themselves are contracts in pyproject.toml, which `lint-imports` keeps.
"""

import ast
import tomllib
from pathlib import Path

import pytest

import anylatent

PACKAGE = Path(anylatent.__file__).parent
CORE = PACKAGE / "core"
FILES = {
    ".".join(["anylatent", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}
ROOMS = sorted(path.name for path in CORE.iterdir() if (path / "__init__.py").exists())
OPEN = ("support", "nn", "testing", "training", "reports", "cli")  # whose modules are their doors
ALLOWED = {  # what is longer than it should be, and may only become shorter
    "Latent": "a vector: its methods are its algebra",
}


def imports(name, typing=False):
    """(module, names) of every import of ours; those for types alone are left out by default."""
    tree = TREES[name]
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("anylatent"):
            if typing or id(node) not in hidden:
                yield node.module, [alias.name for alias in node.names]


def room_of(name):
    parts = name.split(".")
    return parts[2] if name.startswith("anylatent.core.") else None


def edges(name):
    for module, names in imports(name):
        for inner in names:
            found = f"{module}.{inner}" if f"{module}.{inner}" in FILES else module
            if found != name:
                yield found


def circles():
    """Strongly connected components of more than one module, by Tarjan's algorithm."""
    index, low, stack, found = {}, {}, [], []

    def visit(name):
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges(name):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            circle = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(circle) > 1:
                found.append(sorted(circle))

    for name in FILES:
        if name not in index:
            visit(name)
    return found


def test_no_modules_import_one_another_in_a_circle():
    assert circles() == []


@pytest.mark.parametrize("name", FILES)
def test_nobody_reaches_past_a_door(name):
    """A room exports what others may use; its own modules don't go through its door."""
    own = room_of(name)
    for module, names in imports(name, typing=True):
        room = room_of(module)
        if room is None or room in OPEN or name == "anylatent.core.builtin":
            continue
        if room != own:
            door = CORE.joinpath(*module.split(".")[2:]) / "__init__.py"
            sub = module.split(".")[2:4] in (["process", "predictions"], ["process", "grids"])
            assert door.exists() or sub, f"{name} imports {names} from {module}, not from its room"
        elif not name.endswith(f"core.{own}"):
            assert module != f"anylatent.core.{own}", f"{name} goes through its own room's door"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_is_in_it_and_is_in_the_layers(room):
    text = (CORE / room / "__init__.py").read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)) and len(text.splitlines()) <= 40
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = (
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == ["anylatent.core"]
    )
    assert any(room in layer.split(" | ") for layer in layers)


def test_builtin_is_the_only_loose_file():
    assert [p.name for p in CORE.glob("*.py")] == ["__init__.py", "builtin.py"]


BUILT_ON = {"video": {"image"}}  # what the domain itself has: a clip is made of pictures


@pytest.mark.parametrize("name", [n for n in FILES if n.startswith("anylatent.modalities.")])
def test_modalities_know_themselves_and_what_all_share(name):
    own = name.split(".")[2]
    known = {
        module.split(".")[2] for module, _ in imports(name, typing=True) if "modalities." in module
    }
    allowed = {own, "shared"} | BUILT_ON.get(own, set())
    assert known <= allowed, f"{name} imports {known - allowed}"


def test_the_wheel_has_every_file_of_the_package():
    """A pattern of .gitignore that fits a room's name would leave the room out, in silence."""
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(PACKAGE.parent))
    shipped = {Path(file.distribution_path) for file in builder.recurse_included_files()}
    wanted = {
        path.relative_to(PACKAGE.parent)
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted <= shipped, sorted(wanted - shipped)
    assert any("runs" in path.parts for path in shipped)
