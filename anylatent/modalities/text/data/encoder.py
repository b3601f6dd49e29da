"""Documents to tokens, part by part, and what is said of those that are left out."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from anylatent.core.support.files import UserError
from anylatent.core.support.progress import bar
from anylatent.modalities.shared.strings import text_tensor
from anylatent.modalities.text.data.documents import Documents
from anylatent.modalities.text.tokenizer import BytePairs, Symbols, Tokenizer

_MARK = "left_out."

REASONS: Mapping[str, str] = {
    "copy": "left out: cut, they are texts of another part",
    "cut": "cut to their first LONGEST tokens",
    "duplicate": "left out: other spellings of molecules that are used",
    "no_molecule": "left out: RDKit finds no molecule in them",
    "too_long": "left out: longer than LONGEST tokens",
    "unknown_symbol": "left out: a symbol of theirs is not in the training part",
}
"""What is said of the documents that `left_out` counts."""


def taught(texts: Sequence[str], kind: str, vocabulary: int) -> Tokenizer:
    """The tokenizer that texts teach: the symbols of SMILES, else byte pairs."""
    return Symbols.train(texts) if kind == "smiles" else BytePairs.train(texts, vocabulary)


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
        self._known = torch.empty(0, dtype=torch.long)  # keys of what other parts have

    def __call__(
        self, part: str, rows: Sequence[int], texts: Sequence[str], advance: Callable[[], None]
    ) -> dict[str, Tensor]:
        """`rows` (M,) that are used, `sizes` (M,), and `tokens`, one text after another."""
        kept, sizes, flat, keys = array("i"), array("i"), array("i"), array("q")
        for row in rows:
            tokens = self._tokens(texts[row])
            if tokens is not None:
                kept.append(row)
                sizes.append(len(tokens))
                flat.extend(tokens)
                keys.append(_key(tokens))
            advance()
        found = [_tensor(numbers) for numbers in (kept, sizes, flat, keys)]
        return self._apart(*found)

    def _apart(
        self, rows: Tensor, sizes: Tensor, tokens: Tensor, keys: Tensor
    ) -> dict[str, Tensor]:
        """Without what another part has."""
        copies = torch.isin(keys, self._known)
        self._known = torch.cat([self._known, keys])
        if bool(copies.any()):
            self.left_out["copy"] += int(copies.sum())
            tokens = tokens[~copies.repeat_interleave(sizes)]
            rows, sizes = rows[~copies], sizes[~copies]
        return {"rows": rows, "sizes": sizes, "tokens": tokens}

    def _tokens(self, text: str) -> list[int] | None:
        """The tokens of a text, None where it is left out."""
        try:
            tokens = self.tokenizer.encode(text)
        except UserError:
            self.left_out["unknown_symbol"] += 1
            return None
        if len(tokens) > self.longest:
            self.left_out["cut" if self.truncate else "too_long"] += 1
            return tokens[: self.longest] if self.truncate else None
        return tokens


def _key(tokens: Sequence[int]) -> int:
    """64 bits that tell some tokens from others."""
    content = hashlib.blake2b(array("i", tokens), digest_size=8).digest()
    return int.from_bytes(content, "little", signed=True)


def _tensor(numbers: array[int]) -> Tensor:
    dtype = torch.int32 if numbers.typecode == "i" else torch.int64
    return torch.frombuffer(numbers, dtype=dtype) if numbers else torch.empty(0, dtype=dtype)
