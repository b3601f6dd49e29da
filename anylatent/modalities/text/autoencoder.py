"""Tokens to vectors and back: tables of embeddings that learn together with the diffusion model.

    token k (V of them) → vector e_k (D numbers);   latent z (None, D) → the nearest e_k

A latent has one vector per token, so nothing is compressed, and a text comes back exactly. The
table learns from the generator's loss, whose x0 it makes (stage=joint), and from what is here.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from anylatent.core.autoencoders import Autoencoder
from anylatent.core.latents import Codebook, Field, Latent, LatentSpec, Noise, Normaliser, Posterior
from anylatent.core.modality import Batch
from anylatent.core.nn.layers import outer
from anylatent.modalities.text.texts import Texts
from anylatent.modalities.text.tokenizer import Tokenizer

EXAMPLE = 32  # tokens, where no data say how many there are


class TokenTable(Autoencoder):
    """One vector of `channels` numbers per token, from a learned `table` (V, D).

    A batch has "tokens" (B, L) long and their "mask" (B, L); decoding rounds to the nearest vector
    and gives `Texts`. `tokenizer` is a tokenizer's JSON, None for texts of bare numbers. Without
    `learned` the table stays what it was drawn as, with rows that are nearly orthogonal.
    """

    alone = False

    def __init__(
        self,
        vocabulary: int | None,
        tokenizer: str | None,
        kind: str,
        *,
        channels: int,
        learned: bool,
    ) -> None:
        super().__init__()
        size = EXAMPLE if vocabulary is None else vocabulary
        if size < 2 or channels < 1:
            raise ValueError(f"a table needs 2 tokens and 1 channel, got {size} and {channels}")
        self.tokenizer, self.kind = read_tokenizer(tokenizer, vocabulary), kind
        self.spec = LatentSpec({"z": Field((None, channels))})
        self.table = outer(nn.Parameter(spread(size, channels), requires_grad=learned))

    @abstractmethod
    def vectors(self) -> Tensor:
        """The vectors (V, D) of all tokens as they are now, with gradient."""

    def codebook(self) -> Codebook:
        return Codebook(self.spec, self.vectors)

    def normaliser(self) -> Normaliser:
        """None that is fitted: the scale is the table's own, and learns with the generator."""
        return Normaliser.fixed(self.spec)

    def encode(self, batch: Batch) -> Posterior:
        return Posterior(self.codebook().latent(batch["tokens"], batch["mask"]))

    def decode(self, z: Latent) -> Texts:
        return Texts.unpack(self.codebook().tokens(z), z.masks["z"], self.tokenizer, self.kind)


class UnitEmbedding(TokenTable):
    """Vectors on a sphere: e_k = √D·table_k / |table_k|, unit mean square. CDCD (2211.15089).

    Their length being fixed, the table cannot make the task easy by growing, so the generator's
    cross-entropy is all the loss there is. Rows start nearly orthogonal instead of at random.
    """

    def __init__(
        self,
        vocabulary: int | None = None,
        tokenizer: str | None = None,
        kind: str = "text",
        *,
        channels: int = 64,
        learned: bool = True,
    ) -> None:
        super().__init__(vocabulary, tokenizer, kind, channels=channels, learned=learned)

    def vectors(self) -> Tensor:
        return math.sqrt(self.table.shape[1]) * normalize(self.table, dim=1)

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], None]:
        return {}, None


class LearnedEmbedding(TokenTable):
    """A free table with a learned rounding step. Diffusion-LM (2205.14217).

    z ~ N(e_k, std²), a point mass for std = 0. End to end, the variational bound of a text w is

        KL(q(x_T | w) | N(0, 1)) + Σ_t denoising terms + log q(z | w) - log p(w | z),

    where the denoising terms are the generator's loss, log q is constant on average, and the last
    is the rounding loss: the cross-entropy of softmax(scale·⟨z, e_k⟩ + bias_k), in nats per token,
    times `rounding`. The first, α_T²·|e|²/2 and a constant, holds the table back only as far as
    data survive at T, which is not at all. But a scale c of the table is a shift of the schedule's
    log-SNR by 2·log c, so something must hold it. Hence, times `pull`, what that term is where the
    variance itself is the table's mean square m: KL(N(0, m) | N(0, 1)) = (m - 1 - log m)/2 per
    coordinate. It is zero at m = 1 and lets the table neither collapse nor grow.
    """

    def __init__(
        self,
        vocabulary: int | None = None,
        tokenizer: str | None = None,
        kind: str = "text",
        *,
        channels: int = 64,
        std: float = 0.1,
        rounding: float = 1.0,
        pull: float = 1.0,
        learned: bool = True,
    ) -> None:
        super().__init__(vocabulary, tokenizer, kind, channels=channels, learned=learned)
        if min(std, rounding, pull) < 0:
            raise ValueError(f"std={std}, rounding={rounding} and pull={pull} can't be negative")
        self.std, self.rounding, self.pull = std, rounding, pull
        self.log_scale = nn.Parameter(
            torch.tensor(-0.5 * math.log(channels)), requires_grad=learned
        )
        self.bias = nn.Parameter(torch.zeros(len(self.table)), requires_grad=learned)

    def vectors(self) -> Tensor:
        return self.table

    def encode(self, batch: Batch) -> Posterior:
        mean = super().encode(batch).mean
        if self.std == 0:
            return Posterior(mean)
        return Posterior(mean, mean.map(lambda z: torch.full_like(z, math.log(self.std))))

    def loss(self, batch: Batch, noise: Noise, step: int) -> tuple[dict[str, Tensor], None]:
        z = self.encode(batch).sample(noise)
        nats = token_nats(self.rounding_logits(z["z"]), batch["tokens"], batch["mask"])
        m = self.table.square().mean()
        away = 0.5 * (m - 1 - m.log())
        return {"rounding": self.rounding * nats, "pull": self.pull * away}, None

    def rounding_logits(self, z: Tensor) -> Tensor:
        """scale·⟨z, e_k⟩ + bias_k of each token k, (B, L, V): Bayes' rule where scale = 1/std² and
        bias_k = log p(k) - |e_k|²/(2·std²)."""
        with torch.autocast(z.device.type, enabled=False):
            return self.log_scale.exp() * (z.to(self.table.dtype) @ self.table.T) + self.bias

    def report(self) -> dict[str, float]:
        return {"table_mean_square": float(self.table.detach().square().mean())}


def spread(count: int, size: int) -> Tensor:
    """`count` vectors (count, size) of unit mean square, orthogonal where count <= size, else rows
    of a random matrix with orthogonal columns."""
    rows = nn.init.orthogonal_(torch.empty(count, size))
    return math.sqrt(size) * normalize(rows, dim=1)


def token_nats(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of logits (B, L, V) against tokens (B, L), averaged over the valid ones of each
    sample, (B,)."""
    each = cross_entropy(logits.float().transpose(1, 2), tokens, reduction="none")
    return torch.where(mask, each, 0).sum(1) / mask.sum(1).clamp(min=1)


def read_tokenizer(text: str | None, vocabulary: int | None) -> Tokenizer | None:
    """The tokenizer of a JSON text, which must have the data's number of tokens."""
    if text is None:
        return None
    tokenizer = Tokenizer.from_json(text)
    if tokenizer.size != vocabulary:
        raise ValueError(f"a tokenizer of {tokenizer.size} tokens for a vocabulary of {vocabulary}")
    return tokenizer
