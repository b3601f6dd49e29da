"""Text: padded batches of tokens, saved as plain text, shown as a page or as drawings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from anylatent.core.latents import Field, Latent, LatentSpec, Noise
from anylatent.core.modality import Batch, Data, Item, Metrics, Modality, histogram_nats
from anylatent.core.support.files import UserError, save_text
from anylatent.modalities.text.templates import Layout, Template, filled
from anylatent.modalities.text.texts import Text, Texts
from anylatent.modalities.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from PIL import Image


class TextModality(Modality):
    """Texts of `vocabulary` tokens, of the lengths and by the tokenizer of the data's facts.

    A batch has `tokens` (B, L) int64, 0 at padding, `mask` (B, L), `length` (B,) and the columns of
    the data. Outputs are `Texts`. In data space a text is the latent z (L, V), the one-hot vectors
    of its tokens, whose normalised values have deviation `onehot_std`.

    Conditions that need no conditioner: `length`, a number of tokens; `template`, a text in which
    each `___` is a gap of one token or more: the rest of it is in the sample, character for
    character. Gaps share evenly what a template leaves of a sample's length.
    """

    asks: tuple[str, ...] = ("length", "template")
    encoding: tuple[str, ...] = ("vocabulary", "tokenizer")

    def __init__(
        self,
        vocabulary: int | None = None,
        tokenizer: str = "",
        lengths: Sequence[Sequence[int]] = (),
        shortest: int | None = None,
        longest: int | None = None,
        kind: str = "text",
        *,
        onehot_std: float = 1.0,
    ) -> None:
        if not onehot_std > 0:
            raise UserError(f"onehot_std={onehot_std:g} must be positive")
        self.tokenizer = Tokenizer.from_json(tokenizer) if tokenizer else None
        self.vocabulary, self.kind = vocabulary, kind
        self.lengths = tuple(sorted((int(n), int(count)) for n, count in lengths))
        known = [length for length, _ in self.lengths]
        self.shortest = min(known, default=1) if shortest is None else shortest
        self.longest = max(known, default=None) if longest is None else longest
        self.onehot_std = onehot_std

    # ---- batches ------------------------------------------------------------------------------
    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """Tokens padded with 0 to the longest; floats become float32, strings lists."""
        from anylatent.core.modality import pad_items

        batch = pad_items(items)
        batch["mask"] = torch.arange(batch["tokens"].shape[1]) < batch["length"][:, None]
        return batch

    # ---- lengths ------------------------------------------------------------------------------
    def blank(
        self, spec: LatentSpec, samples: int, noise: Noise, cond: Mapping[str, Any]
    ) -> Latent:
        """Of the lengths in `cond["length"]`; None entries, or all, are drawn as in training.

        Beside a template, they are drawn among those that leave a token for each gap. Each sample
        draws one uniform number in any case, so that what follows does not depend on its
        neighbours. Raises UserError for a length outside the range of the data, for one that is too
        short for the template, and for either where latents have a fixed length.
        """
        if not _variable(spec):
            self._refuse(spec, cond)
            return spec.blank(samples)
        asked, least = self._asked(samples, cond), self._least(samples, cond)
        lengths = [
            self._drawn(u, few) if value is None else self._length(value, few)
            for value, u, few in zip(asked, noise.uniform().tolist(), least, strict=True)
        ]
        return spec.blank(samples, torch.tensor(lengths))

    def largest(self, spec: LatentSpec, samples: int, cond: Mapping[str, Any]) -> Latent:
        """Of the lengths in `cond["length"]`, the data's longest where None is asked."""
        if not _variable(spec):
            self._refuse(spec, cond)
            return spec.blank(samples)
        if (longest := self.longest) is None:
            raise UserError("the lengths of the training data are unknown: give cond.length=...")
        asked, least = self._asked(samples, cond), self._least(samples, cond)
        lengths = [
            longest if value is None else self._length(value, few)
            for value, few in zip(asked, least, strict=True)
        ]
        return spec.blank(samples, torch.tensor(lengths))

    def unit(self, batch: Batch) -> tuple[str, Tensor]:
        return "token", batch["mask"].sum(1)

    def size_nats(self, x0: Latent) -> Tensor:
        """By the training part's histogram, with one more text of each length that there is room
        for, as a held-out text may be longer than any of it."""
        if not _variable(x0.spec) or self.longest is None:
            return super().size_nats(x0)
        return histogram_nats(x0, self.lengths, self.longest)

    def _asked(self, samples: int, cond: Mapping[str, Any]) -> list[Any]:
        asked = cond.get("length")
        return [None] * samples if asked is None else _listed("length", asked, samples)

    def _least(self, samples: int, cond: Mapping[str, Any]) -> list[int]:
        """The shortest length that each sample may have."""
        templates = self._templates(samples, cond)
        least = [1 if template is None else template.least for template in templates]
        most = self.lengths[-1][0] if self.lengths else self.longest
        if most is not None and max(least) > most:
            raise UserError(
                f"cond.template: with a token in each gap it has {max(least)} tokens, and the "
                f"longest text of the training data {most}; shorten it"
            )
        return least

    def _drawn(self, uniform: float, least: int) -> int:
        """A length by the inverse of the histogram's distribution function, `least` or more."""
        if not self.lengths:
            raise UserError("the lengths of the training data are unknown: give cond.length=...")
        fit = [(length, count) for length, count in self.lengths if length >= least]
        below, total = 0, sum(count for _, count in fit)
        for length, count in fit:
            below += count
            if uniform * total < below:
                return length
        return fit[-1][0]

    def _length(self, value: Any, least: int) -> int:
        low, high = max(self.shortest, least), self.longest
        try:
            length = int(value)
            whole = length == float(value) and not isinstance(value, bool)
        except (TypeError, ValueError, OverflowError):
            length, whole = 0, False
        if not whole or length < low or (high is not None and length > high):
            allowed = f"{low} to {high}" if high is not None else f"{low} or more"
            raise UserError(
                f"cond.length={value}: allowed are {allowed} tokens, as in the data"
                + (" and with one in each gap of the template" if least > 1 else "")
                + "; ask for a whole number in that range, or leave it out to draw lengths as in "
                "the data"
            )
        return length

    def _refuse(self, spec: LatentSpec, cond: Mapping[str, Any]) -> None:
        asked = [name for name in self.asks if cond.get(name) is not None]
        if asked:
            raise UserError(
                f"cond.{asked[0]} needs a latent for each token, and this model's have a fixed "
                f"length, {spec}, from which its decoder writes texts that end by themselves: "
                "leave it out, or train with autoencoder=unit_embedding or embedding"
            )

    # ---- templates ----------------------------------------------------------------------------
    def known(self, blank: Latent, cond: Mapping[str, Any]) -> Batch | None:
        """The tokens of `cond["template"]` in samples of the sizes of `blank`, `given` (B, L).

        `spaced` (B, L) marks gaps before which the template has a space.
        """
        templates = self._templates(blank.batch, cond)
        if not any(templates):
            return None
        if not _variable(blank.spec):
            self._refuse(blank.spec, cond)
        lengths = blank.lengths(next(iter(blank.spec.fields))).tolist()
        items = []
        for template, length in zip(templates, lengths, strict=True):
            layout = Layout.free(length) if template is None else template.layout(length)
            columns = {name: torch.tensor(column) for name, column in vars(layout).items()}
            items.append({**columns, "length": length})
        return self.collate(items)

    def complete(self, outputs: Texts, known: Batch) -> Texts:
        """The template's own tokens in their places; see `templates.filled`."""
        tokenizer, found = self._tokenizer(), list[Text]()
        for row, made in enumerate(outputs):
            size = int(known["length"][row])
            columns = (known[name][row, :size].tolist() for name in ("tokens", "given", "spaced"))
            layout = Layout(*columns)
            if any(layout.given):
                made = Text.of(filled(layout, made.tokens.tolist(), tokenizer), tokenizer)
            found.append(made)
        return Texts(found)

    def _templates(self, samples: int, cond: Mapping[str, Any]) -> list[Template | None]:
        asked = cond.get("template")
        if asked is None:
            return [None] * samples
        tokenizer = self._tokenizer()
        texts = _listed("template", asked, samples)
        return [None if text is None else Template.parse(text, tokenizer) for text in texts]

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError("cond.template needs the tokenizer of the data, which is unknown")
        return self.tokenizer

    # ---- data space ---------------------------------------------------------------------------
    def raw_spec(self) -> LatentSpec:
        """z (None, V)."""
        if self.vocabulary is None:
            raise ValueError("how many tokens there are is unknown: build it from the data's facts")
        return LatentSpec({"z": Field((None, self.vocabulary), std=self.onehot_std)})

    def lift(self, batch: Batch) -> Latent:
        """The one-hot vectors of the tokens of a batch, float32."""
        spec = self.raw_spec()
        onehot = torch.nn.functional.one_hot(batch["tokens"], spec.fields["z"].rest[0])
        return spec.wrap({"z": onehot.float()}, {"z": batch["mask"]})

    def lower(self, z: Latent) -> Texts:
        """The token of the largest entry at each place."""
        return Texts.unpack(z["z"].argmax(-1), z.masks["z"], self.tokenizer)

    # ---- outputs ------------------------------------------------------------------------------
    def originals(self, batch: Batch) -> Texts:
        return Texts.unpack(batch["tokens"], batch["mask"], self.tokenizer)

    def join(self, pieces: Sequence[Texts]) -> Texts:
        return Texts(text for piece in pieces for text in piece)

    def save(self, outputs: Texts, directory: Path, names: Sequence[str]) -> list[Path]:
        """NAME.txt of each; all as samples.jsonl, tokens included, and as lines of samples.txt.

        In samples.txt line breaks within a text are spaces.
        """
        folder = Path(directory)
        paths = [folder / f"{name}.txt" for name in names]
        for text, path in zip(outputs, paths, strict=True):
            save_text(path, f"{text.text}\n")
        rows = zip(names, outputs, strict=True)
        records = [{"name": n, "text": t.text, "tokens": t.tokens.tolist()} for n, t in rows]
        together = {
            "samples.jsonl": [json.dumps(record, ensure_ascii=False) for record in records],
            "samples.txt": [" ".join(text.splitlines()) for text in outputs.strings],
        }
        for name, lines in together.items():
            save_text(folder / name, "".join(f"{line}\n" for line in lines))
            paths.append(folder / name)
        return paths

    def show(
        self, outputs: Texts, columns: int | None = None, labels: Sequence[str] = ()
    ) -> Image.Image:
        """A numbered page; for SMILES, drawings with the string below, red where it is invalid.

        On a page each label heads the `columns` texts that it belongs to.
        """
        from anylatent.modalities.text.picture import drawings, page

        if self.kind == "smiles":
            return drawings(outputs.strings, columns, labels)
        return page(outputs.strings, columns, labels)

    def compare(self, originals: Texts, outputs: Texts) -> Image.Image:
        """Each text above its reconstruction, with the tokens that differ in colour."""
        from anylatent.modalities.text.picture import comparison

        return comparison(originals, outputs, self.tokenizer)

    def metrics(self, data: Data) -> Metrics:
        from anylatent.modalities.text.metrics import TextMetrics

        return TextMetrics(data)


def _variable(spec: LatentSpec) -> bool:
    return any(field.variable for field in spec.fields.values())


def _listed(name: str, value: Any, samples: int) -> list[Any]:
    """One entry for each sample, from a list or from one for all."""
    entries = value.tolist() if isinstance(value, Tensor) else value
    found = list(entries) if isinstance(entries, (list, tuple)) else [entries] * samples
    if len(found) != samples:
        raise UserError(f"cond.{name} has {len(found)} values for {samples} samples")
    return found
