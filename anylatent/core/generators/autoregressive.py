"""The classical rival of diffusion on tokens: one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from anylatent.core.denoisers import positive_temperature
from anylatent.core.generators.base import TOKENS, Generator
from anylatent.core.generators.sampler import Guidance, Sampler
from anylatent.core.latents import Codebook, Condition, ConditionSpec, Latent, LatentSpec, Noise
from anylatent.core.likelihood import Measure
from anylatent.core.modality import Modality
from anylatent.core.nn.conditioning import ConditionEmbedder
from anylatent.core.nn.precision import Mixed
from anylatent.core.nn.transformer import CausalTransformer
from anylatent.core.registry import register
from anylatent.core.solvers import Callback
from anylatent.core.support.files import UserError


@register("generator", "autoregressive")
class Autoregressive(Mixed, Generator):
    """p(x0) = Π_i p(token_i | tokens before i), by a causal transformer (1706.03762).

    Works on latents with a codebook, of which it sees the tokens alone. One more id, V, begins and
    ends a sequence, so that it draws lengths itself; where latents have a fixed length, nothing
    ends early. `temperature` divides the logits of sampling. Conditions enter by cross-attention.
    Backbone, denoiser, objective, solver, grid and steps mean nothing to it. At depth 6 it has as
    many parameters as a diffusion transformer of this width and depth 4.
    """

    draws_sizes = True
    slopes = False

    def __init__(
        self,
        codebook: Codebook | None = None,
        conditions: ConditionSpec | None = None,
        *,
        width: int = 192,
        depth: int = 6,
        heads: int = 4,
        dropout: float = 0.0,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if codebook is None:
            raise UserError(
                "generator=autoregressive needs latents that stand for tokens: choose an "
                "autoencoder with a codebook, such as unit_embedding"
            )
        self.codebook, self.spec = codebook, codebook.spec
        self.draws_ends = codebook.spec.fields[codebook.name].variable
        self.temperature = positive_temperature(temperature)
        wishes = conditions or ConditionSpec()
        self.condition = ConditionEmbedder(wishes, width) if wishes.names else None
        self.network = CausalTransformer(
            codebook.size + 1,
            width=width,
            depth=depth,
            heads=heads,
            dropout=dropout,
            context=width if wishes.names else None,
        )

    @property
    def end(self) -> int:
        """The id that begins and ends a sequence."""
        return self.codebook.size

    def accepts(self, sampler: Sampler) -> None:
        if sampler.guidance is not None and self.condition is not None:
            raise UserError("generator=autoregressive knows no guidance: add guidance=none")

    def blank(
        self, modality: Modality, spec: LatentSpec, noise: Noise, columns: Mapping[str, Any]
    ) -> Latent:
        """The largest that samples may be: where they end is drawn on the way."""
        asked = [name for name in modality.asks if columns.get(name) is not None]
        if asked:
            raise UserError(
                f"cond.{asked[0]}: generator=autoregressive writes samples from beginning to end "
                "and decides itself where that is; leave it out, or train generator=diffusion"
            )
        return modality.sizes.largest(spec, noise.batch, columns)

    def loss(self, x0: Latent, cond: Condition | None, noise: Noise) -> Tensor:
        """Nats per token, the end counted as one."""
        nats, count = self._nats(x0, cond)
        return nats / count

    def bound(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        codebook: Codebook,
        measure: Measure = TOKENS,
        guidance: Guidance | None = None,
    ) -> Tensor:
        """-log p of the tokens and of where they end, in nats, shape (B,); exact."""
        return self.nats(x0, cond, noise, measure, guidance)[0]

    def nats(
        self,
        x0: Latent,
        cond: Condition | None,
        noise: Noise,
        measure: Measure,
        guidance: Guidance | None = None,
    ) -> tuple[Tensor, Latent]:
        """Exact by any measure: of tokens, with no noise."""
        if guidance is not None and cond is not None and cond.droppable:
            raise UserError("generator=autoregressive knows no guidance: add likelihood.guided=no")
        return self._nats(x0, cond)[0], x0

    def _nats(self, x0: Latent, cond: Condition | None) -> tuple[Tensor, Tensor]:
        tokens = self.codebook.tokens(x0)
        lengths, ends = x0.lengths(self.codebook.name), self.draws_ends
        begin = torch.full_like(tokens[:, :1], self.end)
        seen = torch.cat([begin, tokens], 1)
        wanted = torch.cat([tokens, begin], 1)
        place = torch.arange(seen.shape[1], device=tokens.device)
        wanted = torch.where(place == lengths[:, None], self.end, wanted)
        counted = place < (lengths + ends)[:, None]
        logits = self.network(seen, None, *self._context(cond, x0))
        nats = cross_entropy(logits.float().transpose(1, 2), wanted, reduction="none")
        return torch.where(counted, nats, 0).sum(1), counted.sum(1)

    def _context(self, cond: Condition | None, like: Latent) -> tuple[Tensor | None, Tensor | None]:
        """Tokens for cross-attention, and their mask."""
        if self.condition is None:
            return None, None
        known = self.condition(cond, like[self.codebook.name])
        vector = known.vector[:, None]
        if known.context is None or known.mask is None:
            return vector, None
        mask = nn.functional.pad(known.mask, (1, 0), value=True)
        return torch.cat([vector, known.context], 1), mask

    @torch.no_grad()
    def sample(
        self,
        blank: Latent,
        cond: Condition | None,
        sampler: Sampler,
        noise: Noise,
        callback: Callback | None = None,
    ) -> Latent:
        self.accepts(sampler)
        if sampler.temperature is not None:
            positive_temperature(sampler.temperature)
        temperature = sampler.temperature or self.temperature
        name, most = self.codebook.name, blank.lengths(self.codebook.name)
        room = blank[name].shape[1]
        uniform = noise.uniform(room).to(blank.device)
        cache = self.network.begin(blank.batch, room, *self._context(cond, blank))
        token = torch.full((blank.batch,), self.end, device=blank.device)
        tokens, going = [], [torch.ones_like(token, dtype=torch.bool)]
        for place in range(room):
            may_end = self.draws_ends and place > 0
            with self.computing(blank.device):
                logits = self.network.step(token, cache).double() / temperature
            token = _draw(logits if may_end else logits[:, : self.end], uniform[:, place])
            going.append(going[-1] & (token != self.end) & (place < most))
            if not bool(going[-1].any()):
                break
            tokens.append(torch.where(going[-1], token, 0))
            _tell(callback, place, room, sampler.steps, blank)
        mask = torch.stack(going[1 : len(tokens) + 1], 1)
        return self.codebook.latent(torch.stack(tokens, 1), mask if blank.masks else None)


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """A token each, (B,), by the inverse of the distribution function at `uniform` (B,)."""
    ends = logits.softmax(-1).cumsum(-1)
    place = torch.searchsorted(ends, (uniform * ends[:, -1])[:, None], right=True)[:, 0]
    return place.clamp(max=logits.shape[1] - 1)


def _tell(callback: Callback | None, place: int, room: int, steps: int, x: Latent) -> None:
    """Calls back `steps` times on the way through `room` places."""
    if callback is not None:
        for step in range(place * steps // room, (place + 1) * steps // room):
            callback(step, torch.tensor(1 - (place + 1) / room), x)
