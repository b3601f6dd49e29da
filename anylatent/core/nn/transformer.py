"""The transformer block that backbones and sequence models share, and a causal transformer.

A block on tokens x: (B, N, width) is three residual branches, each on normed tokens (pre-norm):

    x ← x + gate₁·attention(norm(x)·(1 + scale₁) + shift₁)
    x ← x + cross-attention(norm(x), context)
    x ← x + gate₂·network(norm(x)·(1 + scale₂) + shift₂)

Shifts, scales and gates come from an embedding and start at zero (adaLN-zero, 2212.09748); without
one, they are 0, 0 and 1, the norms learn their own, and the last layer of each branch starts at
zero. Either way a block starts as the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from anylatent.core.nn.attention import Attention
from anylatent.core.nn.layers import modulate, outer, per_token, zero
from anylatent.core.nn.rotary import head_size, rotation
from anylatent.core.nn.sites import Site, Visit


class Block(nn.Module):
    """Attention, cross-attention and a network `ratio` times as wide on tokens (B, N, width).

    `context` is the width of context tokens (B, L, context), None for no cross-attention; `normed`
    normalises queries and keys. With `steered`, `forward` takes an embedding (B, width), or one of
    each token, (B, N, width).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context: int | None = None,
        ratio: float = 4.0,
        dropout: float = 0.0,
        steered: bool = True,
        normed: bool = True,
    ) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.modulation = zero(nn.Linear(width, 6 * width)) if steered else None
        self.norm_attention = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not steered)
        self.attention = Attention(width, heads, normed=normed, zeroed=not steered)
        self.norm_cross = nn.LayerNorm(width) if context is not None else None
        self.cross = None if context is None else Attention(width, heads, context, normed=normed)
        self.norm_network = nn.LayerNorm(width, eps=1e-6, elementwise_affine=not steered)
        self.network = nn.Sequential(
            nn.Linear(width, hidden),
            nn.GELU(),  # its approximation by tanh is three to fourteen times slower on a CPU
            nn.Dropout(dropout),
            nn.Linear(hidden, width) if steered else zero(nn.Linear(hidden, width)),
        )

    def sites(self, name: str, embedding: int = 0) -> list[Site]:
        """After each branch."""
        width = self.attention.query.in_features
        kinds = {"attention": True, **({"cross": True} if self.cross else {}), "network": False}
        return [Site(f"{name}.{k}", width, "tokens", a, embedding) for k, a in kinds.items()]

    def forward(
        self,
        x: Tensor,
        embedding: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        turn: Tensor | None = None,
        causal: bool = False,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
        visit: Visit | None = None,
    ) -> Tensor:
        """`mask` and `context_mask`, bool (B, N) and (B, L), are True where a token may be seen;
        `turn` is the `rotation` of the positions, None for none."""
        self._check(context)

        def within(h: Tensor) -> Tensor:
            return self.attention(h, None, mask, turn=turn, causal=causal, visit=visit)  # type: ignore[no-any-return]

        def across(cross: Attention, h: Tensor) -> Tensor:
            return cross(h, context, context_mask, visit=visit)  # type: ignore[no-any-return]

        def gone(h: Tensor) -> Tensor:
            return h if visit is None else visit(h, mask)

        return self._branches(x, embedding, within, across, gone)

    def begin(self, most: int, context: Tensor | None, context_mask: Tensor | None) -> Memory:
        """An empty memory for `most` tokens, which has read the context once for all."""
        self._check(context)
        known = None if self.cross is None or context is None else self.cross.remember(context)
        return Memory(most, known, context_mask)

    def step(self, x: Tensor, memory: Memory, turn: Tensor) -> Tensor:
        """`forward`, causal and unsteered, for the next token alone, x: (B, 1, width)."""

        def within(h: Tensor) -> Tensor:
            k, v = memory.append(*self.attention.remember(h, turn))
            return self.attention.read(h, k, v, turn=turn)

        def across(cross: Attention, h: Tensor) -> Tensor:
            assert memory.context is not None
            return cross.read(h, *memory.context, memory.context_mask)

        return self._branches(x, None, within, across, lambda h: h)

    def _check(self, context: Tensor | None) -> None:
        if (self.cross is None) != (context is None):
            raise ValueError("a block takes a context if, and only if, it was built with one")

    def _branches(
        self,
        x: Tensor,
        embedding: Tensor | None,
        within: Callable[[Tensor], Tensor],
        across: Callable[[Attention, Tensor], Tensor],
        gone: Callable[[Tensor], Tensor],
    ) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self._steer(embedding)
        x = gone(_leave(x, within(_enter(self.norm_attention(x), shift, scale)), gate))
        if self.cross is not None and self.norm_cross is not None:
            x = gone(x + across(self.cross, self.norm_cross(x)))
        return gone(_leave(x, self.network(_enter(self.norm_network(x), shift2, scale2)), gate2))

    def _steer(self, embedding: Tensor | None) -> tuple[Tensor | None, ...]:
        if (self.modulation is None) != (embedding is None):
            raise ValueError("a block takes an embedding if, and only if, it is steered")
        if self.modulation is None:
            return (None,) * 6
        return tuple(self.modulation(embedding).chunk(6, -1))


def block_sites(blocks: nn.ModuleList, embedding: int) -> list[Site]:
    """The sites of a stack of blocks."""
    own = [block for block in blocks if isinstance(block, Block)]
    return [site for i, b in enumerate(own) for site in b.sites(f"blocks.{i}", embedding)]


def _enter(x: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    return x if shift is None or scale is None else modulate(x, shift, scale)


def _leave(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    return x + branch if gate is None else torch.addcmul(x, per_token(gate), branch)


@dataclass
class Memory:
    """Keys and values of the tokens that one block has seen, and of its context."""

    most: int
    context: tuple[Tensor, Tensor] | None
    context_mask: Tensor | None
    length: int = 0
    keys: Tensor | None = None
    values: Tensor | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keeps keys and values (B, heads, 1, size); returns those of all tokens so far."""
        if self.keys is None or self.values is None:
            size = (*k.shape[:2], self.most, k.shape[-1])
            self.keys, self.values = k.new_empty(size), v.new_empty(size)
        self.keys[:, :, self.length] = k[:, :, 0]
        self.values[:, :, self.length] = v[:, :, 0]
        self.length += 1
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


@dataclass
class Cache:
    """What a causal transformer remembers of `length` tokens: one memory per block."""

    batch: int
    most: int
    memories: list[Memory]
    turn: Tensor
    length: int = 0


class CausalTransformer(nn.Module):
    """A language model: logits of the next token given those so far. 1706.03762, pre-norm, rotary.

    `vocabulary` counts every id that it reads or predicts, so an id for "begin" and "end" is one of
    them. `context` is the width of context tokens (B, C, context) that it attends to, None for
    none. The logits start near zero. There is no longest sequence.
    """

    def __init__(
        self,
        vocabulary: int,
        *,
        width: int = 192,
        depth: int = 4,
        heads: int = 4,
        context: int | None = None,
        ratio: float = 4.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if vocabulary < 2:
            raise ValueError(f"a vocabulary needs at least 2 tokens, got {vocabulary}")
        self.vocabulary, self.width, self.size = vocabulary, width, head_size(width, heads)
        self.embedding = outer(nn.Embedding(vocabulary, width))
        self.blocks = nn.ModuleList(
            Block(width, heads, context=context, ratio=ratio, dropout=dropout, steered=False)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.last = outer(nn.Linear(width, vocabulary))
        for layer in (self.embedding, self.last):
            nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(self.last.bias)

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits (B, L, vocabulary) of the tokens after each of `tokens`, (B, L) long.

        Those at i see tokens 0 … i, except where `mask`, bool (B, L), is False.
        """
        logits: Tensor = self.last(self.states(tokens, mask, context, context_mask))
        return logits

    def states(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """The normed states (B, L, width) that the logits are a linear map of."""
        x = self.embedding(tokens)
        turn = rotation(x.shape[1], self.size, x)
        for block in self.blocks:
            x = block(
                x, mask=mask, turn=turn, causal=True, context=context, context_mask=context_mask
            )
        states: Tensor = self.norm(x)
        return states

    @torch.no_grad()
    def begin(
        self,
        batch: int,
        most: int,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Cache:
        """An empty cache for `batch` sequences of up to `most` tokens each."""
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        memories = [block.begin(most, context, context_mask) for block in blocks]
        return Cache(batch, most, memories, rotation(most, self.size, self.last.weight))

    @torch.no_grad()
    def step(self, tokens: Tensor, cache: Cache) -> Tensor:
        """Logits (B, vocabulary) after one more token (B,) each, which the cache remembers.

        Equal to the last logits of `forward` on all tokens so far, without computing them anew.
        """
        if tokens.shape != (cache.batch,):
            raise ValueError(f"one token for each of {cache.batch}, got {tuple(tokens.shape)}")
        if cache.length == cache.most:
            raise ValueError(f"the cache was begun for {cache.most} tokens, and this is one more")
        x = self.embedding(tokens)[:, None]
        turn = cache.turn[cache.length : cache.length + 1]
        for block, memory in zip(self.blocks, cache.memories, strict=True):
            assert isinstance(block, Block)
            x = block.step(x, memory, turn)
        cache.length += 1
        logits: Tensor = self.last(self.norm(x[:, 0]))
        return logits
