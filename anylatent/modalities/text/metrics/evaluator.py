"""A language model that judges texts, learned from texts that no generator sees.

It is a plain autoregressive transformer: p(text) = Π p(token | tokens before), the end among the
tokens. One id beyond those of the tokenizer begins and ends every text. A text's figure is the
negative log-likelihood of its tokens and its end, in nats. It says how likely the model finds a
text, not how good the text is: sentences of frequent words alone fall below real ones, so a row is
good where it is near the row of held-out texts, not where it is least.

The model's final states also carry classifiers of texts, see `control`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from anylatent.core.nn.transformer import CausalTransformer
from anylatent.core.training.optimizers import AdamW, Muon
from anylatent.modalities.shared import probes

WIDTH, DEPTH, HEADS = 192, 4, 4
STEPS, TOKENS, EPOCHS = 800, 1024, 8
RATE, MATRIX_RATE = 2e-3, 3e-3
VERSION = 1
_IGNORED = -100
_TOGETHER, _LOGITS = 8192, 2**25
"""Tokens that are read at once, and logits that are held at once, about."""


def pack(texts: Sequence[Tensor], edge: int) -> tuple[Tensor, Tensor]:
    """What the model reads and what it should say, (B, L + 1) each, of texts of L tokens at most.

    `edge` begins a text in the first and ends it in the second; past the end stand `edge`, which
    no token before it sees, and -100, which no loss counts.
    """
    mark = torch.tensor([edge])
    pad = nn.utils.rnn.pad_sequence
    read = pad([torch.cat([mark, text]) for text in texts], True, edge)
    said = pad([torch.cat([text, mark]) for text in texts], True, _IGNORED)
    return read, said


def learn(texts: Sequence[Tensor], vocabulary: int, steps: int) -> dict[str, Tensor]:
    """The state of a model of these texts; deterministic for a number of threads.

    About `TOKENS` tokens a step. Few texts are read `EPOCHS` times at most, whatever `steps`:
    beyond that the model would learn them by heart.
    """
    lengths = torch.tensor([len(text) for text in texts])
    batch = max(1, min(len(texts), round(TOKENS / (float(lengths.double().mean()) + 1))))
    steps = max(1, min(steps, EPOCHS * len(texts) // batch))
    with probes.seeded():
        network = _network(vocabulary)
    probes.learn(
        network,
        _optimizers(network),
        probes.batches(len(texts), batch, steps),
        lambda rows: _backward(network, [texts[row] for row in rows], vocabulary),
        "learning to judge texts",
    )
    return network.state_dict()


def _optimizers(network: CausalTransformer) -> list[Optimizer]:
    """Muon (2502.16982) for the matrices between tokens and logits, which then learn in half as
    many steps, AdamW for the rest."""
    hidden = [p for p in network.blocks.parameters() if p.ndim == 2]
    known = {id(parameter) for parameter in hidden}
    others = [p for p in network.parameters() if id(p) not in known]
    return [Muon(hidden, MATRIX_RATE), *AdamW(RATE, (0.9, 0.98), 0.1)(others)]


def _backward(network: CausalTransformer, texts: Sequence[Tensor], vocabulary: int) -> None:
    """Gradients of the mean over all tokens, by pieces of similar length: little is padding.

    Whole batches of one length would be cheaper still, but each would teach that all texts end
    where its own do.
    """
    count = sum(len(text) + 1 for text in texts)
    for rows in _batches(texts, TOKENS // 4):
        read, said = pack([texts[row] for row in rows], vocabulary)
        loss = functional.cross_entropy(
            network(read).flatten(0, 1), said.flatten(), ignore_index=_IGNORED, reduction="sum"
        )
        (loss / count).backward()  # type: ignore[no-untyped-call]


class Evaluator:
    """The model whose state `learn` returned; texts are token ids (n,), n may be 0."""

    def __init__(self, state: Mapping[str, Tensor], vocabulary: int) -> None:
        self.network = probes.restored(lambda: _network(vocabulary), state)
        self.vocabulary = vocabulary

    def nats(self, texts: Sequence[Tensor]) -> Tensor:
        """−log p of each text and its end, (N,) float64."""
        found = torch.zeros(len(texts), dtype=torch.float64)
        for rows in _batches(texts, min(_TOGETHER, _LOGITS // (self.vocabulary + 1))):
            read, said = pack([texts[row] for row in rows], self.vocabulary)
            each = functional.cross_entropy(
                self.network(read).transpose(1, 2), said, ignore_index=_IGNORED, reduction="none"
            )
            found[rows] = each.double().sum(1)
        return found

    def features(self, texts: Sequence[Tensor]) -> Tensor:
        """The mean and the last of the final states, (N, 2 · width)."""
        found = torch.zeros(len(texts), 2 * WIDTH)
        for rows in _batches(texts, _TOGETHER):
            read, said = pack([texts[row] for row in rows], self.vocabulary)
            states, valid = self.network.states(read), (said != _IGNORED)[..., None]
            mean = torch.where(valid, states, 0).sum(1) / valid.sum(1)
            last = states[torch.arange(len(rows)), valid[..., 0].sum(1) - 1]
            found[rows] = torch.cat([mean, last], 1)
        return found


def _network(vocabulary: int) -> CausalTransformer:
    return CausalTransformer(vocabulary + 1, width=WIDTH, depth=DEPTH, heads=HEADS)


def _batches(texts: Sequence[Tensor], tokens: int) -> list[list[int]]:
    """Rows of texts of similar length, about `tokens` tokens to a batch."""
    lengths = torch.tensor([len(text) for text in texts], dtype=torch.long)
    batches: list[list[int]] = []
    for row in lengths.argsort(stable=True, descending=True).tolist():
        if not batches or len(batches[-1]) * (len(texts[batches[-1][0]]) + 1) >= tokens:
            batches.append([])
        batches[-1].append(row)
    return batches
