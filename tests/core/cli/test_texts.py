"""Texts that a user types arrive as they were typed; what else is meant is said by quotes."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anylatent.core.cli import launch as launching
from anylatent.core.cli.kinds import kind_of
from anylatent.core.cli.overrides import told
from anylatent.core.cli.texts import Kind, listed, reading
from anylatent.core.registry import discover, get
from anylatent.core.support.files import UserError
from anylatent.core.support.typed import as_typed

discover("anylatent.core.cli.commands")
TRAIN, SAMPLE, EVALUATE = (get("command", name)() for name in ("train", "sample", "evaluate"))
SIGNS = st.sampled_from([*"[]{}()'\"\\,=$:;#@!?|&*~%^`<>+-. 0123456789", "${", "null", "äßé", "雪"])
TEXTS = st.one_of(st.text(st.characters(exclude_categories=("C",))), st.lists(SIGNS).map("".join))
PATHS = ["run", "out", "noise", "base", "each", "data.path", "guidance.weak", "device"]
MEANT = ["null", "???", "[]", "[a, b]", "42", "-1.5", "true", "'x'", '"x"', "{a: 1}", "[red] x"]


def meant(key, value, command=SAMPLE):
    return told([f"{key}={value}"], command).values[key]


def quotes_away(text):
    """Whether a text is wholly in quotes that would be taken off."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "'\""


@pytest.mark.parametrize("key", PATHS)
@given(text=TEXTS)
@example("a 'b' \"c\" [d] {e} f=g, h\\i ${j} äöü")
@example("20240517")
@example("'tis")
def test_any_text_arrives_as_typed(key, text):
    command = SAMPLE if key != "data.path" else EVALUATE
    if text not in ("null", "???") and not quotes_away(text):
        assert meant(key, text, command) == text


@given(TEXTS)
@example("[red] apple")
@example('"quoted" word')
@example("{a|b}")
@example("042")
@example("[a] and [b]")
@example("???")
def test_a_caption_arrives_as_typed(text):
    if text != "null" and not quotes_away(text) and listed(text) is None:
        assert as_typed(meant("cond.caption", text)) == text


@given(TEXTS, st.sampled_from("'\""))
def test_quotes_make_a_text_of_anything_that_could_mean_more(text, quote):
    for inner in [*MEANT, f"[{text}"]:
        escaped = inner.replace("\\", "\\\\").replace(quote, f"\\{quote}")
        found = meant("cond.caption", f"{quote}{escaped}{quote}")
        assert found == inner and isinstance(found, str)


@given(st.lists(TEXTS, min_size=1))
def test_texts_in_quotes_make_a_list(texts):
    inner = [text.replace("\\", "\\\\").replace("'", "\\'") for text in texts]
    typed = "[" + ", ".join(f"'{text}'" for text in inner) + "]"
    assert meant("cond.caption", typed) == texts


def test_lists_of_conditions():
    typed = "[red apple, 'a, b', \"it's\", null, 3, '3', 1.5, [1,2], don't (a, b)]"
    found = ["red apple", "a, b", "it's", None, 3, "3", 1.5, [1, 2], "don't (a, b)"]
    assert meant("cond.x", typed) == found
    assert meant("cond.x", "[]") == [] and meant("cond.x", "[a], [b]") == "[a], [b]"


def test_a_number_is_one_and_the_text_that_was_typed():
    for typed, number in (("7", 7), ("007", 7), ("-2.50", -2.5), ("0", 0)):
        found = meant("cond.x", typed)
        assert found == number and type(found + 0) is type(number) and as_typed(found) == typed
    assert meant("cond.x", "true") == "true" and meant("cond.x", "1e5") == "1e5"
    assert as_typed(3) == 3 and as_typed("3") == "3" and as_typed(None) is None


def test_nothing_is_said_by_null_where_there_may_be_nothing():
    assert meant("out", "null") is None and meant("out", "'null'") == "null"
    assert meant("cond.caption", "null") is None and meant("run", "null") == "null"


def test_kinds_come_from_annotations():
    kinds = {
        "run": Kind.TEXT,
        "source": Kind.OPTIONAL,
        "data.path": Kind.TEXT,
        "tuning.pattern": Kind.TEXT,
        "conditioner.names": Kind.TEXTS,
        "classifier.label": Kind.OPTIONAL,
        "autoencoder.perceptual.trunk": Kind.TEXT,
        "training.diffusion.steps": None,
        "training.diffusion.optimizer.lr": None,
        "guidance.scales.text": None,
        "generator.stages.draft.source": Kind.OPTIONAL,
        "generator.stages.draft.conditioner.path": Kind.TEXT,
        "generator.stages.draft.backbone.width": None,
        "data": None,
        "no.such": None,
    }
    assert {key: kind_of(key, TRAIN, {}) for key in kinds} == kinds


def test_entries_of_a_list_of_texts():
    assert reading("[a b, 'c, d', 7]", Kind.TEXTS) == ["a b", "c, d", "7"]
    assert reading("[a] b", Kind.TEXTS) == "[a] b"


def test_behind_hydra_s_own_signs_quotes_are_hydra_s():
    assert told(['++run="00:05"'], TRAIN).values["run"] == "00:05"
    assert told(["run=00:05"], TRAIN).values["run"] == "00:05"


@pytest.mark.parametrize("item", ["steps=${seed}", "data=${x}", "++a.b=${oc.env:HOME}"])
def test_a_reference_where_no_text_is_wanted_is_one_sentence(item):
    with pytest.raises(UserError, match="refers to nothing on the command line"):
        told([item], TRAIN)


HARD = ["\\frac{a}{b}", "(red:1.2), [a|b]", "#1", "%s", "__typed_0__", "\t", "~", "a\nb"]
HARD += ["bäume & wörter", "a=b", "20240517", "${oc.env:HOME}", "\\${x}", "it's", "[1, 2]", "a,b"]
HARD += [string.punctuation, "null ", "~x", "!@#", "-1", "1e3", "yes", "{}", " ", "\\"]


@pytest.mark.parametrize("text", HARD)
def test_what_is_typed_passes_hydra(text, monkeypatch):
    found = []
    monkeypatch.setattr(type(SAMPLE), "run", lambda self, config: found.append(config))
    monkeypatch.setattr("anylatent.core.cli.overrides.of_run", lambda *_: [])
    command = [f"run={text}", f"out={text}", f"cond.größe={text}", "cond.b=[ä, 7]"]
    launching.launch("sample", SAMPLE, command)
    (config,) = found
    assert (config.run, config.out, config.cond["b"]) == (text, text, ["ä", 7])
    assert as_typed(config.cond["größe"]) == (text if text != "[1, 2]" else [1, 2])
