"""Multi-head attention over tokens, of a sequence to itself or to a context.

softmax(q·k / √d)·v (1706.03762), by torch's fused kernel. A query that may see no key reads zeros,
not NaN; neither masks nor empty contexts cost a transfer to the host.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from anylatent.core.nn.layers import RMSNorm, exact, zero
from anylatent.core.nn.rotary import rotate
from anylatent.core.nn.sites import Visit


class Attention(nn.Module):
    """Tokens (B, N, width) attend to themselves, or to a context (B, L, `context`).

    `mask`, bool of shape (B, L), is True where a key may be seen. With `zeroed` the output layer
    starts at zero, so that a residual branch starts as the identity. `normed` normalises queries
    and keys per head (2302.05442), which keeps large learning rates stable. `turn`, a `rotation`,
    gives queries and keys rotary positions; with `causal`, token i sees tokens 0 … i. The guest of
    a `visit` attends in its own way.

    `forward` is `read` after `remember`: whoever decodes token by token keeps what it remembers.
    """

    def __init__(
        self,
        width: int,
        heads: int = 4,
        context: int | None = None,
        *,
        normed: bool = False,
        zeroed: bool = True,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"a width of {width} does not split into {heads} heads")
        self.heads = heads
        self.crossed = context is not None
        self.query = nn.Linear(width, width)
        self.keys_values = nn.Linear(width if context is None else context, 2 * width)
        self.output = zero(nn.Linear(width, width)) if zeroed else nn.Linear(width, width)
        size = width // heads
        self.norm_query = RMSNorm(size) if normed else nn.Identity()
        self.norm_key = RMSNorm(size) if normed else nn.Identity()

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        turn: Tensor | None = None,
        causal: bool = False,
        visit: Visit | None = None,
    ) -> Tensor:
        if self.crossed != (context is not None):
            raise ValueError("cross-attention needs a context, self-attention takes none")
        k, v = self.remember(x if context is None else context, turn)
        return self.read(x, k, v, mask, turn=turn, causal=causal, visit=visit)

    def remember(self, source: Tensor, turn: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values (B, heads, L, width/heads) of a source (B, L, ...), to be read."""
        k, v = (self._split(part) for part in self.keys_values(source).chunk(2, -1))
        k = self.norm_key(k)
        return (k if turn is None else rotate(k, turn)).to(v.dtype), v

    def read(
        self,
        x: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        *,
        turn: Tensor | None = None,
        causal: bool = False,
        visit: Visit | None = None,
    ) -> Tensor:
        """What tokens x: (B, N, width) read from remembered keys and values."""
        q = self.norm_query(self._split(self.query(x)))
        q = q if turn is None else rotate(q, turn)
        fused = partial(attend, causal=causal)
        by = fused if visit is None else visit.attending(fused)
        attended = by(q.to(v.dtype), k, v, mask)
        out: Tensor = self.output(attended.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        size = x.shape[-1] // self.heads
        return exact(x).reshape(*x.shape[:2], self.heads, size).transpose(1, 2)


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """Attention of q: (B, heads, N, d) to k, v: (B, heads, L, d), with a mask (B, L) of keys.

    Zero where no key is visible; masked keys and values must be finite. With `causal`, N = L and
    query i sees keys 0 … i.
    """
    if k.shape[-2] == 0:
        return torch.zeros_like(q)
    with torch.autocast(q.device.type, enabled=False):
        if mask is None:
            return scaled_dot_product_attention(q, k, v, is_causal=causal)
        seen = mask[:, None, None]
        if causal:
            seen = seen & seen.new_ones(q.shape[-2], k.shape[-2]).tril()
        some = seen.any(-1, keepdim=True)
        attended = scaled_dot_product_attention(q, k, v, attn_mask=seen | ~some)
        return torch.where(some, attended, 0)
