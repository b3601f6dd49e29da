"""Templates: what a text must say around its gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from anylatent.core.latents import Latent, LatentSpec
from anylatent.core.modality import Batch, Given, Outputs, asked_of
from anylatent.core.support.files import UserError
from anylatent.modalities.text.batches import collate
from anylatent.modalities.text.templates import Layout, Template, filled
from anylatent.modalities.text.texts import Text, Texts
from anylatent.modalities.text.tokenizer import Tokenizer


class Templates(Given):
    """`cond.template`: a text in which each `___` is a gap of one token or more.

    The rest of it is in the sample, character for character. Gaps share evenly what a template
    leaves of a sample's length.
    """

    asks = ("template",)

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self.tokenizer = tokenizer

    def known(self, blank: Latent, cond: Mapping[str, Any]) -> Batch | None:
        """The tokens of the templates in samples of the sizes of `blank`, `given` (B, L).

        `spaced` (B, L) marks gaps before which the template has a space.
        """
        templates = self.read(blank.batch, cond)
        if not any(templates):
            return None
        if not variable(blank.spec):
            refuse(blank.spec, cond)
        lengths = blank.lengths(next(iter(blank.spec.fields))).tolist()
        items = []
        for template, length in zip(templates, lengths, strict=True):
            layout = Layout.free(length) if template is None else template.layout(length)
            columns = {name: torch.tensor(column) for name, column in vars(layout).items()}
            items.append({**columns, "length": length})
        return collate(items)

    def complete(self, outputs: Outputs, known: Batch) -> Texts:
        """The template's own tokens in their places; see `templates.filled`."""
        assert isinstance(outputs, Texts)
        tokenizer, found = self._tokenizer(), list[Text]()
        for row, made in enumerate(outputs):
            size = int(known["length"][row])
            columns = (known[name][row, :size].tolist() for name in ("tokens", "given", "spaced"))
            layout = Layout(*columns)
            if any(layout.given):
                made = Text.of(filled(layout, made.tokens.tolist(), tokenizer), tokenizer)
            found.append(made)
        return outputs.like(found)

    def read(self, samples: int, cond: Mapping[str, Any]) -> list[Template | None]:
        """The template of each sample, None where none is asked for."""
        texts = asked_of(cond, "template", samples)
        if cond.get("template") is None:
            return [None] * samples
        tokenizer = self._tokenizer()
        return [None if text is None else Template.parse(text, tokenizer) for text in texts]

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError("cond.template needs the tokenizer of the data, which is unknown")
        return self.tokenizer


def variable(spec: LatentSpec) -> bool:
    """Whether latents have an entry for each token."""
    return any(field.variable for field in spec.fields.values())


def refuse(spec: LatentSpec, cond: Mapping[str, Any]) -> None:
    """Raises UserError where latents of a fixed length are asked for a length or a template."""
    asked = [name for name in ("length", "template") if cond.get(name) is not None]
    if asked:
        raise UserError(
            f"cond.{asked[0]} needs a latent for each token, and this model's have a fixed "
            f"length, {spec}, from which its decoder writes texts that end by themselves: "
            "leave it out, or train with autoencoder=unit_embedding or embedding"
        )
