"""Documents to tokens, part by part, and what is said of those that are left out."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.core.support.progress import bar
from anylatent.modalities.shared.strings import Picked, text_tensor
from anylatent.modalities.text.data.documents import Documents
from anylatent.modalities.text.tokenizer import BytePairs, Ints, Symbols, Tokenizer

Bools: TypeAlias = NDArray[np.bool_]

_MARK = "left_out."
_BLOCK = 2**20

REASONS: Mapping[str, str] = {
    "copy": "left out: cut, they are texts of another part",
    "cut": "cut to their first LONGEST tokens",
    "duplicate": "left out: other spellings of molecules that are used",
    "no_molecule": "left out: RDKit finds no molecule in them",
    "too_long": "left out: longer than LONGEST tokens",
    "unknown_symbol": "left out: a symbol of theirs is not in the training part",
}
"""What is said of the documents that `left_out` counts."""


_ENOUGH = 2**24
"""Characters from which byte pairs are learned: more of a language move no frequent pair."""


def taught(texts: Iterable[str], kind: str, vocabulary: int) -> Tokenizer:
    """The tokenizer that texts in random order teach: the symbols of SMILES, else the byte pairs of
    the first ones."""
    if kind == "smiles":
        return Symbols.train(texts)
    return BytePairs.train(_first(texts, _ENOUGH), vocabulary)


def _first(texts: Iterable[str], characters: int) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        characters -= len(text)
        yield text


def left_out(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many documents are missing among what `tokenized` made, or were cut, by reason."""
    found = {key: n for key, n in tensors.items() if key.startswith(_MARK)}
    return {key.removeprefix(_MARK): int(n) for key, n in sorted(found.items())}


def in_words(counts: Mapping[str, int], longest: int) -> str:
    """What `left_out` counted."""
    words = "; ".join(f"{n} {REASONS[reason]}" for reason, n in sorted(counts.items()))
    return words.replace("LONGEST", str(longest))


def tokenized(
    documents: Documents, parts: Mapping[str, Sequence[int]], encoder: Encoder, name: str
) -> dict[str, Tensor]:
    """The tokenizer, rows, sizes and tokens of each part, and what is left out, for a cache.

    Raises UserError, naming the data set, where nothing is left of a part.
    """
    tensors = {"tokenizer": text_tensor(encoder.tokenizer.to_json())}
    with bar(f"tokenizing {name}", len(documents)) as advance:
        for part, rows in parts.items():
            found = encoder(part, rows, documents.texts, advance)
            tensors |= {f"{part}.{key}": tensor for key, tensor in found.items()}
    counts = encoder.left_out + Counter(documents.left_out)
    for reason, count in counts.items():
        tensors[f"{_MARK}{reason}"] = torch.tensor([count])
    empty = [part for part, rows in parts.items() if rows and not len(tensors[f"{part}.rows"])]
    if empty:
        reasons = in_words(counts, encoder.longest)
        raise UserError(
            f"{name}: nothing is left of the part {empty[0]} ({reasons}): "
            "raise data.longest, cut texts there with data.truncate=true, or give more"
        )
    return tensors


class Encoder:
    """Documents to tokens, one part after another; `left_out` counts by reason.

    Texts that are equal once they are cut stay in the part in which they were first.
    """

    def __init__(self, tokenizer: Tokenizer, longest: int, truncate: bool) -> None:
        self.tokenizer, self.longest, self.truncate = tokenizer, longest, truncate
        self.left_out: Counter[str] = Counter()
        self._seen = set[bytes]()  # tokens of other parts that are texts which were cut

    def __call__(
        self, part: str, rows: Sequence[int], texts: Sequence[str], advance: Callable[[int], None]
    ) -> dict[str, Tensor]:
        """`rows` (M,) that are used, `sizes` (M,), and `tokens`, one text after another."""
        few = self.tokenizer.size <= 2**15
        kept, sizes, flat = array("q"), array("i"), array("h" if few else "i")
        cut, done = set[bytes](), 0
        for block in _blocks(Picked(texts, rows)):
            some = np.array(rows[done : done + len(block)])
            found, lengths, tokens = self._used(*self.tokenizer.encode_all(block), cut)
            kept.frombytes(some[found].astype("q").tobytes())
            sizes.frombytes(lengths.astype("i").tobytes())
            flat.frombytes(tokens.astype(flat.typecode).tobytes())
            done += len(block)
            advance(len(block))
        self._seen |= cut
        return {"rows": _tensor(kept), "sizes": _tensor(sizes), "tokens": _tensor(flat)}

    def _used(self, sizes: Ints, tokens: Ints, cut: set[bytes]) -> tuple[Bools, Ints, Ints]:
        """Which of some texts are used, the sizes of these and their tokens."""
        found, whole = sizes >= 0, np.maximum(sizes, 0)
        long, ends = whole > self.longest, whole.cumsum()
        self.left_out["unknown_symbol"] += int((~found).sum())
        self.left_out["cut" if self.truncate else "too_long"] += int(long.sum())
        if self.truncate:
            sizes = np.minimum(whole, self.longest)
            for place in np.flatnonzero(found & (sizes == self.longest)):  # a text, or cut to one
                start = ends[place] - whole[place]
                key = tokens[start : start + self.longest].tobytes()
                found[place] = key not in self._seen
                self.left_out["copy"] += not found[place]
                cut.add(key)
        else:
            sizes, found = whole, found & ~long
        places = np.arange(len(tokens)) - (ends - whole).repeat(whole)
        return found, sizes[found], tokens[places < (sizes * found).repeat(whole)]


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Some texts at a time, of so many characters together, however long each is."""
    block, characters = list[str](), 0
    for text in texts:
        block.append(text)
        characters += len(text)
        if characters >= _BLOCK:
            yield block
            block, characters = [], 0
    if block:
        yield block


def _tensor(numbers: array[int]) -> Tensor:
    dtype = {"h": torch.int16, "i": torch.int32, "q": torch.int64}[numbers.typecode]
    return torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
