"""Tokenizers: text to whole numbers and back, saved as JSON that names nothing to execute.

`BytePairs` knows every text: its tokens 0 … 255 are the bytes themselves, and each later one joins
two earlier ones (1508.07909, on bytes). `Symbols` has a closed alphabet, for SMILES. Neither has
tokens for padding, beginning or end: padding is a mask, and ends are the network's business.
"""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anylatent.core.support.files import UserError
from anylatent.core.support.packages import MissingPackage
from anylatent.modalities.text.words import WORD, Words

Ints: TypeAlias = NDArray[np.integer[Any]]

SYMBOL = re.compile(r"\[[^\[\]]*\]|Br|Cl|%\d\d|.", re.DOTALL)
"""A token of a SMILES: an atom in brackets, a two-letter element, a ring bond %NN, a character."""

_LONGEST_TOKEN = 4096
"""Bytes of one token: merges of merges double, and what a file says is not to be trusted."""

_MOST_TOKENS = 2**20


class Tokenizer(ABC):
    """Tokens 0 … `size` − 1 and the texts they stand for.

    `decode(encode(text)) == text` for every text that can be encoded.
    """

    size: int

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The tokens of a text. Raises UserError for a part of it that has none."""

    def encode_all(self, texts: Iterable[str]) -> tuple[Ints, Ints]:
        """The number of tokens of each of N texts (N,), −1 where `encode` has none for it, and the
        tokens of all, one text after another."""
        sizes, tokens = array("q"), array("i")
        for text in texts:
            try:
                found = self.encode(text)
            except UserError:
                sizes.append(-1)
            else:
                sizes.append(len(found))
                tokens.extend(found)
        return np.array(sizes, dtype=np.int64), np.array(tokens, dtype=np.int32)

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of any tokens; bytes that are no UTF-8 become the replacement character."""

    @abstractmethod
    def to_json(self) -> str:
        """All there is to it, for `from_json`."""

    @staticmethod
    def from_json(text: str) -> Tokenizer:
        """The tokenizer that `to_json` described.

        Nothing but lists of strings and numbers is read, and their meaning checked: a run's
        configuration may come from anywhere. Raises UserError for anything else.
        """
        try:
            node = json.loads(text)
            kind, entries = node["kind"], node["entries"]
            if set(node) != {"kind", "entries"} or not isinstance(entries, list):
                raise ValueError("it has the keys 'kind' and 'entries', a list")
            if len(entries) > _MOST_TOKENS:
                raise ValueError(f"{len(entries)} entries are more than {_MOST_TOKENS}")
            return _KINDS[kind](entries)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(
                f"this is no tokenizer of anylatent ({type(error).__name__}: {error}): "
                f"{text[:60]!r}. It is written by training; train again, or copy the run anew"
            ) from error


def spelled(tokens: Sequence[int], tokenizer: Tokenizer | None) -> str:
    """What tokens say; without a tokenizer, the tokens themselves as numbers."""
    return " ".join(map(str, tokens)) if tokenizer is None else tokenizer.decode(tokens)


class Symbols(Tokenizer):
    """A closed alphabet of strings, split off a text by `SYMBOL`; made for SMILES.

    `alphabet`: distinct strings, each of which is one token to `SYMBOL`. Raises UserError in
    `encode` for a token that is not in it, ValueError for an alphabet that is none.
    """

    def __init__(self, alphabet: Sequence[str]) -> None:
        wrong = [
            entry
            for entry in alphabet
            if not isinstance(entry, str) or SYMBOL.fullmatch(entry) is None
        ]
        if wrong or not alphabet or len(set(alphabet)) < len(alphabet):
            found = f"{wrong[0]!r}" if wrong else "none, or one of them twice"
            raise ValueError(f"an alphabet is of distinct single tokens, got {found}")
        self.alphabet = tuple(alphabet)
        self.size = len(self.alphabet)
        self._ids = {symbol: place for place, symbol in enumerate(self.alphabet)}

    @classmethod
    def train(cls, texts: Iterable[str]) -> Symbols:
        """The alphabet of some texts, sorted."""
        return cls(sorted({symbol for text in texts for symbol in SYMBOL.findall(text)}))

    def encode(self, text: str) -> list[int]:
        symbols = SYMBOL.findall(text)
        try:
            return [self._ids[symbol] for symbol in symbols]
        except KeyError as error:
            raise UserError(
                f"{text!r} has {error.args[0]!r}, which is no token of this model; there are "
                f"{' '.join(self.alphabet)}"
            ) from error

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.alphabet[token] for token in tokens)

    def to_json(self) -> str:
        return _dump("symbols", list(self.alphabet))


class BytePairs(Tokenizer):
    """Byte-level byte-pair encoding: lossless on any text.

    Token b < 256 is the byte b. `merges` (i, j), in their order, make tokens of the bytes of i
    followed by those of j; one whose bytes a token has already makes no new one. A text is first
    split as GPT-2 does it, a space going with the word after it, so no token spans two words.
    Raises ValueError for merges of tokens that do not exist yet or that grow beyond 4,096 bytes;
    `MissingPackage` without `tokenizers`, which only encoding and training need.
    """

    def __init__(self, merges: Sequence[Sequence[int]]) -> None:
        self._bytes = [bytes([value]) for value in range(256)]
        known = {piece: place for place, piece in enumerate(self._bytes)}
        for pair in merges:
            left, right = (self._piece(place) for place in _two(pair))
            if len(left) + len(right) > _LONGEST_TOKEN:
                raise ValueError(f"the merge {list(pair)} is longer than {_LONGEST_TOKEN} bytes")
            if known.setdefault(left + right, len(self._bytes)) == len(self._bytes):
                self._bytes.append(left + right)
        self.merges = [(int(left), int(right)) for left, right in merges]
        self.size = len(self._bytes)
        self._words = Words(self._tokens)

    def _piece(self, place: int) -> bytes:
        if not 0 <= place < len(self._bytes):
            raise ValueError(f"a merge of token {place}, before which there is no such token")
        return self._bytes[place]

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> BytePairs:
        """Merges of the pairs that are most frequent, up to `vocabulary` tokens; deterministic."""
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = _splitter()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocabulary,
            initial_alphabet=list(_CHARACTERS),
            show_progress=False,
            max_token_length=_LONGEST_TOKEN,
        )
        with _one_thread():
            tokenizer.train_from_iterator(texts, trainer)
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        places = {character: value for value, character in enumerate(_CHARACTERS)}
        found = []
        for left, right in merges:
            found.append((places[left], places[right]))
            places.setdefault(left + right, len(places))
        return cls(found)

    def encode(self, text: str) -> list[int]:
        return self.encode_all([text])[1].tolist()  # type: ignore[no-any-return]

    def encode_all(self, texts: Iterable[str]) -> tuple[Ints, Ints]:
        """As the library does it, in a few percent of the time: it sees each word once."""
        known = self._words
        known.make_room()
        words = [WORD.findall(text) for text in texts]
        places = np.array(array("q", map(known.__getitem__, chain.from_iterable(words))), dtype=int)
        table, ends = np.array(known.tokens, dtype=np.int32), np.array(known.ends)
        sizes = np.diff(ends)[places]
        last = np.concatenate([[0], sizes.cumsum()])
        tokens = table[np.arange(last[-1]) + (ends[places] - last[:-1]).repeat(sizes)]
        counts = np.array([len(some) for some in words], dtype=int)
        return np.diff(last[np.concatenate([[0], counts.cumsum()])]), tokens

    def _tokens(self, text: str) -> list[int]:
        return list(self._encoder.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self._bytes[token] for token in tokens).decode("utf-8", "replace")

    def to_json(self) -> str:
        return _dump("byte_pairs", [list(pair) for pair in self.merges])

    @cached_property
    def _encoder(self) -> Any:
        library = _library()
        names = ["".join(_CHARACTERS[value] for value in piece) for piece in self._bytes]
        merges = [(names[left], names[right]) for left, right in self.merges]
        vocabulary = {name: place for place, name in enumerate(names)}
        encoder = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=merges))
        encoder.pre_tokenizer = _splitter()
        return encoder


_KINDS: Mapping[str, type[Symbols] | type[BytePairs]] = {
    "symbols": Symbols,
    "byte_pairs": BytePairs,
}


def _dump(kind: str, entries: list[Any]) -> str:
    """JSON without "$", which a configuration would take for the beginning of a reference."""
    text = json.dumps({"kind": kind, "entries": entries}, separators=(",", ":"))
    return text.replace("$", "\\u0024")


def _two(pair: Sequence[int]) -> Sequence[int]:
    whole = [type(place) is int for place in pair]
    if whole != [True, True]:
        raise ValueError(f"a merge is of two tokens, got {pair!r}")
    return pair


def _characters() -> str:
    """The character that stands for each byte in byte-level encoding: itself where it is visible,
    else one of those from U+0100 on."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return "".join(chr(byte if byte in visible else next(others)) for byte in range(256))


_CHARACTERS = _characters()


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingPackage("tokenizers", "byte-pair encoding") from error
    return tokenizers


def _splitter() -> Any:
    return _library().pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The library's threads would make it complain wherever this process forks later."""
    name, before = "TOKENIZERS_PARALLELISM", os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
