"""The likelihood of held-out data under a run: of their latents, and through the autoencoder.

With q(y | data) the posterior of the autoencoder with noise of deviation ρ added, p(y) the law of
the diffusion model at that level and p(data | y) that of the decoder,

    -log p(data) <= E_q[-log p(data | y) + log q(y | data) - log p(y)],

by Jensen's inequality; -log p of a sample's size is added where the model is told sizes. The
latents are those of the diffusion model's scale, whose volumes cancel. A decoder that is no law of
data has no such bound; generators of tokens know their probability itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from anylatent.core.generators import READABLE, Guidance
from anylatent.core.latents import Codebook, Condition, Noise, Posterior, Stream
from anylatent.core.likelihood import LOG_SNR, Measure
from anylatent.core.modality import Batch
from anylatent.core.nn.precision import exactly
from anylatent.core.runs import System


class DataLikelihood:
    """Measures batches of held-out data under a model, guided or not, by a registered measure.

    `names` are the columns of a batch under which it is likely.
    """

    def __init__(
        self,
        system: System,
        measure: Measure,
        names: Sequence[str],
        guidance: Guidance | None = None,
    ) -> None:
        self.system, self.names, self.guidance = system, names, guidance
        self.codebook = system.autoencoder.codebook()
        self.measure = measure.at(LOG_SNR if self.codebook is None else READABLE)

    @torch.no_grad()
    def figures(self, batches: Iterable[Batch], seed: int) -> dict[str, float]:
        """Means over all samples: nats and bits per unit, as far as the model has them. Networks
        compute in float32."""
        with exactly():
            return self._figures(batches, seed)

    def _figures(self, batches: Iterable[Batch], seed: int) -> dict[str, float]:
        found: dict[str, list[Tensor]] = {}
        unit = ""
        for index, batch in enumerate(batches):
            unit, count = self.system.modality.unit(batch)
            columns = {**self._measured(batch, (seed, Stream.LIKELIHOOD, index)), "count": count}
            for name, values in columns.items():
                found.setdefault(name, []).append(values.double().cpu())
        joined = {name: torch.cat(values) for name, values in found.items()}
        return _summary(joined, unit)

    def _measured(self, batch: Batch, seed: tuple[int, ...]) -> dict[str, Tensor]:
        """Of each sample, (B,): `latent` and `data` nats, as far as there are, and `dim`."""
        system = self.system
        raw = system.autoencoder.encode(batch)
        posterior = system.normaliser.posterior(raw)
        noise = Noise.of(seed, raw.mean.batch)
        cond = system.condition({name: batch[name] for name in self.names if name in batch})
        if self.codebook is not None:
            nats = self._of_tokens(posterior, cond, noise, self.codebook)
            return {"data": self._with_size(nats, posterior)}
        x0 = posterior.sample(noise)
        latent, y = system.generator.nats(x0, cond, noise, self.measure, self.guidance)
        found = {"latent": latent, "dim": x0.dim}
        told = system.autoencoder.log_prob(batch, system.normaliser.decode(y))
        if told is not None:
            nats = latent - posterior.entropy(self.measure.rho) - told.to(latent)
            found["data"] = self._with_size(nats, posterior)
        return found

    def _of_tokens(
        self, posterior: Posterior, cond: Condition | None, noise: Noise, codebook: Codebook
    ) -> Tensor:
        generator, x0 = self.system.generator, posterior.mean
        return generator.bound(x0, cond, noise, codebook, self.measure, self.guidance)

    def _with_size(self, nats: Tensor, posterior: Posterior) -> Tensor:
        if self.system.generator.draws_sizes:  # it decides the sizes itself
            return nats
        return nats + self.system.modality.sizes.nats(posterior.mean).to(nats)


def _summary(found: dict[str, Tensor], unit: str) -> dict[str, float]:
    figures: dict[str, Tensor] = {}
    if "latent" in found:
        figures["latent_nll_nats"] = found["latent"].mean()
        rate = found["latent"] / found["dim"].clamp(min=1) / math.log(2)
        figures["latent_bits_per_dimension"] = rate.mean()
    if "data" in found:
        total, count = found["data"], found["count"]
        rate = total.sum() / count.sum()
        error = (total - rate * count).std() / (len(total) ** 0.5 * count.mean())
        figures["bound_nats"] = total.mean()
        figures[f"bound_nats_per_{unit}"] = rate
        figures[f"bound_bits_per_{unit}"] = rate / math.log(2)
        figures[f"bound_bits_per_{unit}_error"] = error / math.log(2)
    return {name: float(value) for name, value in figures.items()}
