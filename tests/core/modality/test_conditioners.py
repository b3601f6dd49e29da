"""Conditions: labels by name and index, captions by a frozen encoder, and bad input."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from anylatent.core.latents.latent import Latent
from anylatent.core.modality.captions import Caption
from anylatent.core.modality.conditioners import ClassLabel, NoCondition
from anylatent.core.support.packages import MissingPackage
from anylatent.core.support.typed import typed_number

CLASSES = {"digit": ["zero", "One", "two"]}


@pytest.fixture(scope="module")
def caption() -> Caption:
    pytest.importorskip("transformers", reason="transformers is not installed")
    try:
        return Caption()
    except MissingPackage as error:
        pytest.skip(str(error))


def states(caption: Caption, texts: list[str | None]) -> tuple[Tensor, Tensor]:
    value = caption({"caption": texts}).values["caption"]
    assert isinstance(value, Latent)
    return value["tokens"], value.masks["tokens"]


def test_no_condition_ignores_columns() -> None:
    conditioner = NoCondition(CLASSES)
    assert not conditioner({"digit": [1], "image": torch.zeros(1, 1, 4, 4)})
    assert not (conditioner.spec.classes or conditioner.spec.tokens)


def test_labels_by_name_index_and_tensor() -> None:
    conditioner = ClassLabel(CLASSES)
    assert conditioner.spec.classes == {"digit": 3}
    for column in (["one", "TWO", "zero"], [1, 2, 0], torch.tensor([1, 2, 0])):
        cond = conditioner({"digit": column, "name": ["a", "b", "c"]})
        assert list(cond.values) == ["digit"]
        assert torch.equal(cond.values["digit"], torch.tensor([1, 2, 0]))
        assert cond.keep["digit"].all()


def test_none_drops_the_label_and_nothing_is_no_condition() -> None:
    cond = ClassLabel(CLASSES)({"digit": ["two", None]})
    assert cond.keep["digit"].tolist() == [True, False]
    assert not ClassLabel(CLASSES)({})


def test_one_word_is_one_entry() -> None:
    assert ClassLabel(CLASSES)({"digit": "two"}).values["digit"].tolist() == [2]


@pytest.mark.parametrize("entry", ["three", 3, -1, 1.0])
def test_unknown_label_lists_the_names(entry: object) -> None:
    with pytest.raises(ValueError, match="allowed are zero, One, two"):
        ClassLabel(CLASSES)({"digit": ["zero", entry]})


def test_names_that_are_numbers_are_names_and_an_index_is_numbered() -> None:
    """Folders 1, 2, 3 and 10: 10 is the folder, the last of them is #3."""
    label, names = ClassLabel({"c": ["1", "10", "2", "3"]}), ["1", "10", "2", "3"]
    typed = [ClassLabel.typed(entry, names) for entry in (10, 2, "3", "#1", "#0", None)]
    assert label({"c": typed}).values["c"].tolist() == [1, 2, 3, 1, 0, 0]
    with pytest.raises(ValueError, match="unknown c '0': allowed are 1, 10, 2, 3, or .* #0 to #3"):
        label({"c": [ClassLabel.typed(0, names)]})
    assert ClassLabel.typed(2, ["a", "b", "c"]) == 2 == ClassLabel.typed(2, ["0", "1", "2"])
    assert (
        ClassLabel.typed(True, ["True", "b"]) == "true" and ClassLabel.typed(1.5, ["1.5"]) == "1.5"
    )
    with pytest.raises(ValueError, match="unknown digit '#3'"):
        ClassLabel(CLASSES)({"digit": ["#3"]})


def test_names_that_differ_in_case_or_in_how_accents_are_written() -> None:
    label = ClassLabel({"c": ["Cat", "cat", "e\u0301t\u00e9", "#0"]})
    asked = ["cat", "Cat", "\u00e9t\u00e9", "\u00c9T\u00c9", "#0", "#1"]
    assert label({"c": asked}).values["c"].tolist() == [1, 0, 2, 2, 3, 1]
    with pytest.raises(ValueError, match="unknown c 'CAT': allowed are Cat, cat"):
        label({"c": ["CAT"]})


def test_unknown_columns() -> None:
    with pytest.raises(ValueError, match="the condition is 'digit', got colour"):
        ClassLabel(CLASSES)({"colour": ["red"]})
    with pytest.raises(ValueError, match="no entries"):
        ClassLabel(CLASSES)({"digit": []})
    with pytest.raises(ValueError, match="no class column 'category', and the data set has digit"):
        ClassLabel(CLASSES, key="category")
    with pytest.raises(ValueError, match="the data set has no classes"):
        ClassLabel({})
    with pytest.raises(ValueError, match="which class column is not said"):
        ClassLabel({"a": ["x"], "b": ["y"]})


@pytest.mark.parametrize("tokens", [2, 513, 600])
def test_tokens_that_the_encoder_has_no_room_for(tokens: int, caption: Caption) -> None:
    most = "at least 3" if tokens < 3 else "reads at most 512"
    with pytest.raises(ValueError, match=most):
        Caption(tokens=tokens)


def test_as_many_tokens_as_the_encoder_reads(caption: Caption) -> None:
    assert Caption(tokens=512).tokens == 512 and Caption(tokens=3).tokens == 3


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is damaged"), ("[1]", "is no configuration"), ("{}", "width")]
)
def test_an_encoder_that_says_nothing_of_itself(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=f"config.json.* {message}"):
        Caption(path=str(tmp_path))


def test_caption_does_not_depend_on_its_neighbours(caption: Caption) -> None:
    texts = ["red apple", "family: man, woman, girl, girl", "", "flag"]
    together, mask = states(caption, list(texts))
    assert together.shape == (4, caption.tokens, caption.width)
    for row, text in enumerate(texts):
        alone, alone_mask = states(caption, [text])
        assert torch.equal(alone_mask[0], mask[row])
        assert float((alone[0] - together[row]).abs().max()) < 1e-5
    assert mask.sum(1)[0] == 4  # start, two words, end


def test_caption_means_something(caption: Caption) -> None:
    """The mean state is what this encoder was trained to compare sentences by (MiniLM)."""
    found, mask = states(caption, ["a happy dog", "a cheerful puppy", "tax law"])
    mean = torch.nn.functional.normalize(found.sum(1) / mask.sum(1, keepdim=True), dim=1)
    likeness = mean @ mean.T
    assert likeness[0, 1] > 0.6 > 0.3 > likeness[0, 2]


def test_caption_padding_is_zero_and_long_texts_are_cut(caption: Caption) -> None:
    with pytest.warns(UserWarning, match="has 102, of which 78 are lost, 'dog dog"):
        short, mask = states(caption, ["dog", "dog " * 100])
    assert bool((short[~mask] == 0).all()) and bool((short[mask].abs().sum(1) > 0).all())
    assert mask.sum(1).tolist() == [3, caption.tokens]


def test_captions_that_are_cut_are_told_ever_less_often(caption: Caption) -> None:
    caption, words = Caption(tokens=5), "red green blue gold"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        caption({"caption": ["red green blue"] * 3})
    with pytest.warns(UserWarning) as told:
        caption({"caption": [f"{words} {k}" for k in range(120)]})
        caption({"caption": [words] * 5})
    found = [" ".join(str(warning.message).split()[:3]) for warning in told]
    assert found == ["1 of 2", "10 of 11", "100 of 101"]
    assert "'red green blue gold 0' has 7, of which 2 are lost, 'gold 0'" in str(told[0].message)
    assert "conditioner.tokens=7" in str(told[0].message)


def test_a_number_that_was_typed_is_a_caption(caption: Caption) -> None:
    found, _ = states(caption, [typed_number("042"), "042"])
    assert torch.equal(found[0], found[1])


def test_the_encoder_s_files_are_told(caption: Caption) -> None:
    assert {"config.json", "model.safetensors"} <= {path.name for path in caption.files}


def test_caption_is_frozen_and_weighs_nothing(caption: Caption) -> None:
    before = torch.get_rng_state()
    assert not states(caption, ["dog"])[0].requires_grad
    assert torch.equal(before, torch.get_rng_state())
    assert not caption.state_dict() and not list(caption.parameters())
    cond = caption({"caption": ["dog", None]})
    assert cond.keep["caption"].tolist() == [True, False]
    assert caption.spec.tokens == {"caption": 384}


def test_caption_bad_input(caption: Caption, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a caption is a text, got 7"):
        caption({"caption": ["dog", 7]})
    with pytest.raises(ValueError, match="the condition is 'caption', got category"):
        caption({"category": ["food"]})
    with pytest.raises(FileNotFoundError, match="wanted a directory with config.json"):
        Caption(path=str(tmp_path))
    with pytest.raises(ValueError, match="at least 3 tokens"):
        Caption(tokens=2)


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_other_encoders_from_a_directory(kind: str, caption: Caption, tmp_path: Path) -> None:
    """Architectures that hold more than a text encoder; tiny, random, saved as users save them."""
    import transformers

    words = {"vocab_size": 30522, "bos_token_id": 101, "eos_token_id": 102, "pad_token_id": 0}
    if kind == "t5":
        config = transformers.T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, **words)
        encoder = transformers.T5ForConditionalGeneration(config)
    else:
        small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        small |= {"num_attention_heads": 2}
        config = transformers.CLIPConfig(text_config={**small, **words}, vision_config=small)
        encoder = transformers.CLIPModel(config)
    encoder.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(caption.path).save_pretrained(tmp_path)
    other = Caption(path=str(tmp_path), tokens=6)
    found, mask = states(other, ["red apple", "dog"])
    assert found.shape == (2, 6, 16) and other.spec.tokens == {"caption": 16}
    assert mask.sum(1).tolist() == [4, 3] and float(found[0, 1].abs().sum()) > 0
    assert float((found[1] - states(other, ["dog"])[0][0]).abs().max()) < 1e-5


def test_weights_that_are_a_pickle_are_refused(caption: Caption, tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    encoder = transformers.BertModel(config)
    config.save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(caption.path).save_pretrained(tmp_path)
    torch.save(encoder.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        Caption(path=str(tmp_path))({"caption": ["dog"]})
