"""An autoencoder of texts that compresses: few latent vectors for many tokens.

    tokens (L) → transformer → states (L, width)
    L' learned queries → read the states → posterior over z (L', D) → bottleneck
    z → a causal transformer that attends to it → the tokens again, one by one, and an end

as in latent diffusion for language (2212.09462): its latents have one size for texts of all
lengths, and the decoder decides where a text ends.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Field, Latent, LatentSpec, Noise, Posterior
from anylatent.core.modality import Batch
from anylatent.core.nn.bottleneck import KL, Bottleneck
from anylatent.core.nn.layers import outer
from anylatent.core.nn.rotary import head_size, rotation
from anylatent.core.nn.transformer import Block, CausalTransformer
from anylatent.modalities.text.autoencoder import EXAMPLE, read_tokenizer, token_nats
from anylatent.modalities.text.texts import Texts


class SequenceAutoencoder(Autoencoder):
    """Texts to `latents` vectors of `channels` numbers. 2212.09462, with a decoder of its own.

    A batch has "tokens" (B, L) long and their "mask" (B, L). `encoder`, `resampler` and `decoder`
    are numbers of blocks of `width` numbers per token. The loss is the cross-entropy of each token,
    and of the end, given those before it and z, in nats per token, and the bottleneck's. Decoding
    takes the most likely token until it is the end, or `longest` there are, at least one; it gives
    `Texts`. `tokenizer` is a tokenizer's JSON, None for texts of bare numbers.
    """

    def __init__(
        self,
        vocabulary: int | None = None,
        tokenizer: str | None = None,
        longest: int | None = None,
        bottleneck: Bottleneck | None = None,
        kind: str = "text",
        *,
        latents: int = 8,
        channels: int = 64,
        width: int = 192,
        encoder: int = 3,
        resampler: int = 2,
        decoder: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.end = EXAMPLE if vocabulary is None else vocabulary
        self.longest = 64 if longest is None else longest
        _check(latents, channels, resampler, self.longest)
        self.tokenizer, self.kind = read_tokenizer(tokenizer, vocabulary), kind
        self.spec = LatentSpec({"z": Field((latents, channels), channels=1)})
        self.bottleneck = KL() if bottleneck is None else bottleneck
        self.bottleneck.attach(self.spec)
        features = self.bottleneck.pieces * channels
        self.encoder = Encoder(self.end, width, encoder, heads, dropout)
        self.resampler = Resampler(latents, features, width, resampler, heads, dropout)
        self.lift = nn.Linear(channels, width)
        self.places = nn.Parameter(torch.randn(latents, width))
        self.decoder = CausalTransformer(
            self.end + 1, width=width, depth=decoder, heads=heads, context=width, dropout=dropout
        )

    def encode(self, batch: Batch) -> Posterior:
        tokens, mask = batch["tokens"], batch["mask"]
        features = self.resampler(self.encoder(tokens, mask), mask)
        pieces = features.float() if features.dtype != torch.float64 else features
        latents = [self.spec.wrap({"z": x}) for x in pieces.chunk(self.bottleneck.pieces, -1)]
        return self.bottleneck.posterior(*latents)

    @torch.no_grad()
    def decode(self, z: Latent) -> Texts:
        context = self._context(self.bottleneck.decodable(z))
        cache = self.decoder.begin(z.batch, self.longest, context)
        token = torch.full((z.batch,), self.end, device=z.device)
        tokens, going = [], [torch.ones_like(token, dtype=torch.bool)]
        for place in range(self.longest):
            logits = self.decoder.step(token, cache)
            token = (logits if place else logits[:, : self.end]).argmax(-1)
            tokens.append(token)
            going.append(going[-1] & (token != self.end))
            if not bool(going[-1].any()):  # the one wait for the device per token
                break
        written, mask = torch.stack(tokens, 1), torch.stack(going[1:], 1)
        return Texts.unpack(written, mask, self.tokenizer, self.kind)

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], None]:
        z, terms = self.bottleneck(self.encode(batch), noise)
        return {"reconstruction": self._nats(batch, z)[0], **terms}, None

    def log_prob(self, batch: Batch, z: Latent) -> Tensor:
        """Of all tokens and of the end."""
        nats, count = self._nats(batch, self.bottleneck.decodable(z))
        return -nats.double() * count

    def _nats(self, batch: Batch, z: Latent) -> tuple[Tensor, Tensor]:
        """Cross-entropy per token, the end included, and how many there are, (B,)."""
        tokens, mask = batch["tokens"], batch["mask"]
        begun = pad(tokens, (1, 0), value=self.end)
        logits = self.decoder(begun, None, self._context(z))
        ended = torch.where(pad(mask, (0, 1)), pad(tokens, (0, 1)), self.end)
        counted = pad(mask, (1, 0), value=True)
        return token_nats(logits, ended, counted), counted.sum(1)

    def report(self) -> dict[str, float]:
        return self.bottleneck.report()

    def _context(self, z: Latent) -> Tensor:
        """What the decoder attends to, (B, L', width); it tells the vectors apart by `places`."""
        context: Tensor = self.lift(z["z"]) + self.places
        return context


def _check(latents: int, channels: int, resampler: int, longest: int) -> None:
    if min(latents, channels, resampler, longest) < 1:
        raise ValueError(
            f"latents, channels, resampler and longest must be positive, got {latents}, "
            f"{channels}, {resampler} and {longest}"
        )


class Encoder(nn.Module):
    """Tokens (B, L) with their mask to states (B, L, width) that have seen one another."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.size = head_size(width, heads)
        self.embedding = outer(nn.Embedding(vocabulary, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, dropout=dropout, steered=False) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embedding(tokens)
        turn = rotation(x.shape[1], self.size, x)
        for block in self.blocks:
            x = block(x, mask=mask, turn=turn)
        states: Tensor = self.norm(x)
        return states


class Resampler(nn.Module):
    """Learned queries read states (B, L, width) of any number: (B, queries, outputs). 2103.03206.

    Each block is attention of the queries to one another, to the states, and a network.
    """

    def __init__(
        self, queries: int, outputs: int, width: int, depth: int, heads: int, dropout: float
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, context=width, dropout=dropout, steered=False) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, outputs)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        x = self.queries.expand(states.shape[0], -1, -1)
        for block in self.blocks:
            x = block(x, context=states, context_mask=mask)
        features: Tensor = self.last(self.norm(x))
        return features
