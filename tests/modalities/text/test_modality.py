"""The text modality: batches, lengths, templates, data space, files, pictures."""

import json
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import anylatent as al
from anylatent.core.registry.building import build
from anylatent.core.registry.part import Part
from anylatent.core.support.files import UserError
from anylatent.modalities.text.modality import TextModality
from anylatent.modalities.text.templates import GAP, Layout, Template, filled
from anylatent.modalities.text.texts import Text, Texts
from anylatent.modalities.text.tokenizer import BytePairs, Symbols

VERSES = [
    "In the beginning God created the heaven and the earth.",
    "And God said, Let there be light: and there was light.",
    "And God saw the light, that it was good.",
]
WORDS, ATOMS = BytePairs.train(VERSES, 300), Symbols.train(["C1=CC=CC=C1O", "CCl", "[NH4+]"])
LENGTHS = [[4, 10], [7, 60], [12, 25], [20, 5]]
TOKENS = al.LatentSpec({"z": al.Field((None, 3))})
FIXED = al.LatentSpec({"z": al.Field((5, 3))})
TEMPLATE = "In the beginning ___ the earth"


@pytest.fixture
def modality():
    return TextModality(WORDS.size, WORDS.to_json(), LENGTHS, longest=20)


def items(tokenizer, texts, **columns):
    found = []
    for place, text in enumerate(texts):
        tokens = torch.tensor(tokenizer.encode(text))
        own = {name: column[place] for name, column in columns.items()}
        found.append({"tokens": tokens, "length": len(tokens), "text": text, **own})
    return found


class Tiny(al.Data):
    classes, shape = {}, ()
    fingerprint = "tiny"

    def train(self):
        return items(WORDS, VERSES)

    def held_out(self):
        return items(WORDS, VERSES[:1])


def lengths(modality, count, cond, seed=0, spec=TOKENS):
    return modality.sizes.blank(spec, al.Noise.of(seed, count), cond).lengths("z").tolist()


# ---- the part ---------------------------------------------------------------------------------
def test_settings_are_those_alone_that_a_user_may_choose():
    settings = Part("modality", "text", TextModality).settings()
    assert {name: default for name, (_, default) in settings.items()} == {"onehot_std": 1.0}
    with pytest.raises(UserError, match="onehot_std=0 must be positive"):
        TextModality(onehot_std=0.0)


@pytest.mark.parametrize("spec", [None, TOKENS, FIXED], ids=["one-hot", "tokens", "fixed"])
def test_the_public_contract(modality, spec):
    al.testing.check_modality(modality, Tiny(), spec or modality.data_space.spec)


def test_the_identity_keeps_the_contract_of_autoencoders(modality):
    batch = modality.collate(items(WORDS, VERSES))
    al.testing.check_autoencoder(al.get("autoencoder", "identity")(modality), batch)


# ---- batches ----------------------------------------------------------------------------------
def test_a_batch_is_padded_and_masked(modality):
    batch = modality.collate(items(WORDS, ["a", "and the"], label=[1, 0], gap=[0.5, 1.5]))
    size = len(WORDS.encode("and the"))
    assert batch["tokens"].tolist() == [[97] + [0] * (size - 1), WORDS.encode("and the")]
    assert batch["mask"].tolist() == [[True] + [False] * (size - 1), [True] * size]
    assert batch["length"].tolist() == [1, size] and batch["label"].dtype == torch.int64
    assert batch["gap"].dtype == torch.float32 and batch["text"] == ["a", "and the"]


def test_texts_come_back_from_batches_and_from_data_space(modality):
    batch = modality.collate(items(WORDS, VERSES))
    z = modality.data_space.lift(batch)
    assert z["z"].shape[2] == WORDS.size and z.spec == modality.data_space.spec
    assert z.lengths("z").tolist() == batch["length"].tolist()
    assert torch.equal(z["z"].sum((1, 2)), batch["length"].float())
    for found in (
        modality.originals(batch),
        modality.data_space.lower(z),
        modality.data_space.lower(0.1 * z),
    ):
        assert found.strings == VERSES
        assert [text.tokens.tolist() for text in found] == [WORDS.encode(v) for v in VERSES]


def test_texts_are_a_sequence():
    texts = Texts(Text.of(WORDS.encode(verse), WORDS) for verse in VERSES)
    assert texts.strings == VERSES and texts[1].text == VERSES[1]
    assert texts[1:].strings == VERSES[1:] and (texts[:1] + texts[1:]).strings == VERSES
    assert texts.lengths.tolist() == [len(text) for text in texts]
    bare = Texts.unpack(torch.tensor([[5, 0, 9]]), torch.tensor([[True, True, False]]), None)
    assert bare[0].text == "5 0" and bare[0].tokens.tolist() == [5, 0]


def test_what_is_unknown_without_facts():
    with pytest.raises(ValueError, match="build it from the data's facts"):
        _ = TextModality().data_space.spec
    with pytest.raises(UserError, match="give cond.length"):
        lengths(TextModality(), 1, {})
    with pytest.raises(UserError, match="needs the tokenizer"):
        lengths(TextModality(), 1, {"template": TEMPLATE})
    assert lengths(TextModality(), 2, {"length": [3, 99]}) == [3, 99]


# ---- lengths ----------------------------------------------------------------------------------
def test_lengths_are_drawn_as_often_as_in_training(modality):
    count = 4000
    found = Counter(lengths(modality, count, {}))
    for length, weight in LENGTHS:
        share = weight / 100
        assert abs(found[length] / count - share) < 4.5 * (share * (1 - share) / count) ** 0.5
    assert sum(found.values()) == count


def test_drawing_inverts_the_distribution_function(modality):
    drawn = [
        modality.sizes._drawn(u, 1) for u in (0.0, 0.0999, 0.1, 0.6999, 0.7, 0.9499, 0.95, 0.9999)
    ]
    assert drawn == [4, 4, 7, 7, 12, 12, 20, 20]
    assert [modality.sizes._drawn(u, 8) for u in (0.0, 25 / 30 - 1e-9, 25 / 30, 0.9999)] == [12, 12, 20, 20]  # fmt: skip  # noqa: E501


def test_a_length_does_not_depend_on_the_neighbours(modality):
    together = lengths(modality, 8, {})
    alone = [modality.sizes.blank(TOKENS, al.Noise.of(0, [i]), {}).lengths("z").item()
             for i in range(8)]  # fmt: skip
    assert together == alone
    some = lengths(modality, 8, {"length": [None, 12, None, 12, None, None, 4, None]})
    assert [some[i] for i in (0, 2, 4, 5, 7)] == [together[i] for i in (0, 2, 4, 5, 7)]
    assert [some[i] for i in (1, 3, 6)] == [12, 12, 4]


def test_asking_uses_up_as_much_randomness_as_drawing(modality):
    left = []
    for cond in ({}, {"length": 9}, {"template": "And ___"}):
        noise = al.Noise.of(0, 3)
        modality.sizes.blank(TOKENS, noise, cond)
        left.append(noise.uniform().tolist())
    assert left[0] == left[1] == left[2]


@pytest.mark.parametrize("value", [3, 21, 0, -1, 7.5, "many", True, float("nan"), float("inf")])
def test_a_length_that_training_lacks_is_an_error(modality, value):
    with pytest.raises(UserError, match=f"cond.length={value}: allowed are 4 to 20 tokens"):
        lengths(modality, 2, {"length": value})


def test_lengths_within_the_range_are_taken(modality):
    assert lengths(modality, 3, {"length": 5}) == [5, 5, 5]
    assert lengths(modality, 3, {"length": torch.tensor([4, 20, 7])}) == [4, 20, 7]
    with pytest.raises(UserError, match="cond.length has 2 values for 3 samples"):
        lengths(modality, 3, {"length": [4, 5]})


def test_room_is_that_of_the_longest(modality):
    assert modality.sizes.largest(TOKENS, 2, {}).lengths("z").tolist() == [20, 20]
    assert modality.sizes.largest(TOKENS, 2, {"length": [None, 5]}).lengths("z").tolist() == [20, 5]
    assert modality.sizes.largest(FIXED, 2, {})["z"].shape == (2, 5, 3)
    longer = TextModality(WORDS.size, WORDS.to_json(), LENGTHS, 2, 33)  # held-out texts have 33
    assert longer.sizes.largest(TOKENS, 1, {}).lengths("z").tolist() == [33]
    assert lengths(longer, 2, {"length": [2, 33]}) == [2, 33]
    assert set(lengths(longer, 200, {})) == {4, 7, 12, 20}
    with pytest.raises(UserError, match="longest text of the training data 20"):
        lengths(longer, 1, {"template": "\x01" * 25 + "___"})
    with pytest.raises(UserError, match="lengths of the training data are unknown"):
        TextModality().sizes.largest(TOKENS, 1, {})
    short = TextModality(WORDS.size, WORDS.to_json(), longest=5)
    with pytest.raises(UserError, match="the longest text of the training data 5"):
        short.sizes.largest(TOKENS, 1, {"template": TEMPLATE})


@pytest.mark.parametrize("cond", [{"length": 5}, {"template": TEMPLATE}])
def test_latents_of_a_fixed_length_take_neither_length_nor_template(modality, cond):
    assert modality.sizes.blank(FIXED, al.Noise.of(0, 2), {})["z"].shape == (2, 5, 3)
    wrong = f"cond.{next(iter(cond))} needs a latent for each token"
    drawn = lambda spec, n, cond: modality.sizes.blank(spec, al.Noise.of(0, 2), cond)  # noqa: E731
    for ask in (modality.sizes.largest, drawn):
        with pytest.raises(UserError, match=wrong):
            ask(FIXED, 2, cond)
    if "template" in cond:
        with pytest.raises(UserError, match=wrong):
            modality.given.known(FIXED.blank(2), cond)


def test_a_likelihood_is_per_token(modality):
    mask = torch.arange(7) < torch.tensor([3, 7])[:, None]
    name, count = modality.unit({"tokens": mask.long(), "mask": mask})
    assert name == "token" and count.tolist() == [3, 7]


# ---- templates --------------------------------------------------------------------------------
def known(modality, template, sizes):
    return modality.given.known(TOKENS.blank(len(sizes), sizes), {"template": template})


def test_given_tokens_lie_around_the_gap(modality):
    batch = known(modality, TEMPLATE, [12, 20])
    before, after = WORDS.encode("In the beginning"), WORDS.encode(" the earth")
    for row, size in enumerate((12, 20)):
        tokens = batch["tokens"][row, :size].tolist()
        gap = size - len(before) - len(after)
        assert tokens == [*before, *[0] * gap, *after]
        assert batch["given"][row].tolist() == (
            [True] * len(before) + [False] * gap + [True] * len(after) + [False] * (20 - size)
        )
        assert batch["spaced"][row].nonzero().tolist() == [[len(before)]]
    assert batch["mask"].sum(1).tolist() == batch["length"].tolist() == [12, 20]
    assert modality.given.known(TOKENS.blank(1, [5]), {}) is None


def test_gaps_share_what_is_left_evenly(modality):
    template = Template.parse("a___b___c___", WORDS)
    assert template.least == 6 and template.fixed == 3
    given = [template.layout(n).given for n in (6, 7, 8, 9)]
    shown = ["".join(".x"[int(flag)] for flag in row) for row in given]
    assert shown == ["x.x.x.", "x..x.x.", "x..x..x.", "x..x..x.."]
    with pytest.raises(ValueError, match="6 tokens or more in a sample of 5"):
        template.layout(5)


def test_a_template_for_each_sample(modality):
    batch = known(modality, ["And ___", None, "___ light."], [7, 7, 7])
    assert batch["given"].any(1).tolist() == [True, False, True]
    made = Texts(Text.of(WORDS.encode("abcdefghi"), WORDS) for _ in range(3))
    found = modality.given.complete(made, batch)
    assert found[0].text.startswith("And ") and found[2].text.endswith(" light.")
    assert found[1].text == "abcdefghi"
    with pytest.raises(UserError, match="cond.template has 2 values for 3 samples"):
        known(modality, ["And ___", "___"], [7, 7, 7])


def test_lengths_beside_a_template_leave_room_for_it(modality):
    least = Template.parse(TEMPLATE, WORDS).least
    assert 7 < least <= 12  # of the histogram's lengths, two are long enough
    found = Counter(lengths(modality, 2000, {"template": TEMPLATE}))
    assert set(found) == {12, 20} and found[12] / 2000 == pytest.approx(25 / 30, abs=0.04)
    assert lengths(modality, 2, {"template": TEMPLATE, "length": least}) == [least] * 2
    with pytest.raises(UserError, match=f"allowed are {least} to 20 tokens.*gap of the template"):
        lengths(modality, 2, {"template": TEMPLATE, "length": least - 1})


@pytest.mark.parametrize("template", ["", "no gap", "two __ underscores", 5, True, ["a"]])
def test_what_is_no_template(modality, template):
    with pytest.raises(UserError, match="cond.template=.*a text with a gap is wanted"):
        lengths(modality, 1, {"template": [template]})


def test_a_template_longer_than_any_text_is_an_error(modality):
    with pytest.raises(UserError, match="has 31 tokens, and the longest text of .* 20; shorten"):
        lengths(modality, 1, {"template": "\x01" * 30 + "___"})
    assert lengths(modality, 1, {"template": "\x01" * 19 + "___"}) == [20]


def test_characters_without_a_token_are_an_error():
    for template, symbol in (("C ___", "' '"), ("C___N", "'N'"), ("___ C", "' '")):
        with pytest.raises(UserError, match=f"cond.template=.* has {symbol}, which is no token"):
            Template.parse(template, ATOMS)
    template = Template.parse("[NH4+]___Cl", ATOMS)
    assert [ATOMS.decode(piece) for piece in template.pieces] == ["[NH4+]", "Cl"]


def pattern_holds(template, text):
    """Whether the pieces of a template lie in a text, in order, with something in each gap."""
    first, *others = GAP.split(template)
    if not text.startswith(first):
        return False
    place = len(first)
    for piece in others[:-1]:
        place = text.find(piece, place + 1)
        if place < 0:
            return False
        place += len(piece)
    return text.endswith(others[-1]) and len(text) - len(others[-1]) > place


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_template_is_in_every_sample_whatever_fills_it(data):
    piece = st.text(st.characters(blacklist_characters="_", codec="utf-8"), max_size=8)
    pieces = data.draw(st.lists(piece, min_size=2, max_size=4))
    text = "___".join(pieces)
    template = Template.parse(text, WORDS)
    length = template.least + data.draw(st.integers(0, 9))
    made = data.draw(st.lists(st.integers(0, WORDS.size - 1), min_size=length, max_size=length))
    layout = template.layout(length)
    whole = WORDS.decode(filled(layout, made, WORDS))
    assert pattern_holds(text, whole), (text, whole)
    assert sum(layout.given) == template.fixed and len(layout.tokens) == length


def test_a_space_is_put_in_where_the_gap_lacks_it(modality):
    batch = known(modality, "And ___ light.", [6])
    count = 6 - int(batch["given"].sum())
    with_space = Text.of([0] + [WORDS.encode(" G")[0]] * (count + 5), WORDS)
    assert modality.given.complete(Texts([with_space]), batch)[0].text.startswith("And ")
    made = Text.of([ord("x")] * 6, WORDS)
    (found,) = modality.given.complete(Texts([made]), batch)
    assert found.text == f"And {'x' * count} light." and len(found) == 7
    spaced = Text.of([0, 32, *[ord("x")] * 4], WORDS)
    (found,) = modality.given.complete(Texts([spaced]), batch)
    assert found.text == f"And {'x' * (count - 1)} light." and len(found) == 6


def test_a_text_that_ended_early_keeps_the_template():
    layout = Layout([97, 0, 0, 98], [True, False, False, True], [False] * 4)
    assert filled(layout, [120, 121], WORDS) == [97, 121, 98]
    assert filled(layout, [], WORDS) == [97, 98]


# ---- files and pictures -----------------------------------------------------------------------
def test_texts_are_saved_one_by_one_and_together(modality, tmp_path):
    strange = "two\nlines, é and 日本"
    texts = Texts(Text.of(WORDS.encode(text), WORDS) for text in [*VERSES, strange, ""])
    names = [f"7_{k}" for k in range(5)]
    paths = texts.save(tmp_path / "new", names)
    assert {path.name for path in paths} == {
        *(f"{name}.txt" for name in names), "samples.jsonl", "samples.txt",
    }  # fmt: skip
    for name, text in zip(names, texts, strict=True):
        assert (tmp_path / "new" / f"{name}.txt").read_text(encoding="utf-8") == f"{text}\n"
    lines = (tmp_path / "new" / "samples.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    records = [json.loads(line) for line in lines]
    assert [record["name"] for record in records] == names
    assert [record["text"] for record in records] == texts.strings
    assert [record["tokens"] for record in records] == [text.tokens.tolist() for text in texts]
    plain = (tmp_path / "new" / "samples.txt").read_text(encoding="utf-8").split("\n")[:-1]
    assert plain == [*VERSES, "two lines, é and 日本", ""]


def test_all_ways_to_texts_say_by_what_and_of_what_kind():
    for kind in ("text", "smiles"):
        facts = {"vocabulary": WORDS.size, "tokenizer": WORDS.to_json(), "kind": kind}
        modality = build("modality", {"name": "text"}, **facts)
        batch = modality.collate(items(WORDS, VERSES))
        made, space = modality.originals(batch), modality.data_space
        given = {**batch, "given": batch["mask"], "spaced": ~batch["mask"]}
        ways = [made, space.lower(space.lift(batch)), made[:1], made + made, made.to("cpu")]
        ways += [Texts.join([made, made]), modality.given.complete(made, given)]
        for name in ("unit_embedding", "embedding", "sequence"):
            autoencoder = build("autoencoder", {"name": name}, modality=modality, **facts)
            ways.append(autoencoder.decode(autoencoder.encode(batch).mean))
        assert [way.kind for way in ways] == [kind] * len(ways)
        assert {way.tokenizer.to_json() for way in ways} == {WORDS.to_json()}


def test_texts_keep_the_contract_of_outputs():
    strange = ["", "two\nlines\u2028, é", *VERSES]
    texts = Texts((Text.of(WORDS.encode(text), WORDS) for text in strange), WORDS)
    al.testing.check_outputs(texts)


def test_joined_texts_keep_their_order(modality):
    texts = Texts(Text.of(WORDS.encode(verse), WORDS) for verse in VERSES)
    assert Texts.join([texts[:2], texts[2:], texts]).strings == VERSES * 2


def test_lengths_cost_what_their_law_says():
    """Probabilities of 1 … longest sum to one; each is its count and one more, of all."""
    part = al.get("modality", "text")(lengths=[[2, 5], [4, 3]], longest=6)
    spec = al.get("autoencoder", "unit_embedding")().spec
    nats = part.sizes.nats(spec.blank(6, [1, 2, 3, 4, 5, 6]))
    assert torch.allclose((-nats).exp(), torch.tensor([1, 6, 1, 4, 1, 1]).double() / 14)
    fixed = al.LatentSpec({"z": al.Field((3, 4))})
    assert float(part.sizes.nats(fixed.blank(2)).abs().max()) == 0
