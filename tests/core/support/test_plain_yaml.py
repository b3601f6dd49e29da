"""Configurations are plain values: what is more is refused in a sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anylatent.core.support import plain_yaml
from anylatent.core.support.files import LONGEST, UserError, file_name
from anylatent.core.support.plain_yaml import dump_yaml, load_yaml

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(), PLAIN, max_size=5))
def test_what_is_written_is_read(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("yaml") / "config.yaml"
    path.write_text(dump_yaml(values), encoding="utf-8")
    assert load_yaml(path) == values


def test_interpolations_are_text(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: ${oc.env:HOME}\nb: '${a}'")
    assert load_yaml(path) == {"a": "${oc.env:HOME}", "b": "${a}"}


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
HOSTILE = {
    "aliases": (BOMB, "alias"),
    "tags": ("a: !!python/object/apply:os.system [ls]", "constructor"),
    "depth": ("[" * 5000 + "]" * 5000, "deeper than 64"),
    "mappings": ("".join(f"{' ' * i}a:\n" for i in range(100)), "deeper than 64"),
    "bytes": ("a: \x00", "not allowed"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_configuration_is_one_sentence(name, tmp_path):
    text, expected = HOSTILE[name]
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as raised:
        load_yaml(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_a_large_file_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_yaml, "LARGEST", 10)
    (tmp_path / "config.yaml").write_text("a: 12345678901")
    with pytest.raises(UserError, match="14 bytes, more than"):
        load_yaml(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="configuration of 17 bytes is more than a run can have"):
        dump_yaml({"a": "12345678901"})
    assert dump_yaml({"a": 1}) == "a: 1\n"


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"a: \xff\xfe\xfd")
    with pytest.raises(UserError, match="can not be read"):
        load_yaml(tmp_path / "config.yaml")


# ---- names of files ---------------------------------------------------------------------------
@given(st.text(max_size=300))
def test_a_text_names_one_file_in_its_folder(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    name = file_name(text)
    path = folder / name
    assert path.parent == folder and path.resolve().parent == folder.resolve()
    assert name and not name.startswith(".") and len(name.encode()) <= LONGEST + 1
    path.write_text("")
    assert path.is_file()
    path.unlink()


def test_usual_names_stay():
    for name in ("flags", "0_00001", "smileys & people", "日本", "a.b", "diffusion.top"):
        assert file_name(name) == name
    for name in ("../../etc/passwd", "/tmp/x", "..", ".", "", "a/b", "a\\b", "\n", ".hidden"):
        assert "/" not in file_name(name) and not file_name(name).startswith(".")
