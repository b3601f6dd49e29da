"""Points of masked linear subspaces, noise on them, and what is told about them."""

from anylatent.core.latents.codebook import Codebook
from anylatent.core.latents.condition import Condition, ConditionSpec, Value, token_condition
from anylatent.core.latents.entries import cut, free_mse, over
from anylatent.core.latents.latent import Coefficient, Latent, cat, choose, combine
from anylatent.core.latents.masking import Masking, gap, given_map, reveal
from anylatent.core.latents.noise import Noise, Path, Started
from anylatent.core.latents.normaliser import Normaliser
from anylatent.core.latents.posterior import Posterior
from anylatent.core.latents.spec import Field, LatentSpec
from anylatent.core.latents.streams import Stream

__all__ = [
    "Codebook",
    "Coefficient",
    "Condition",
    "ConditionSpec",
    "Field",
    "Latent",
    "LatentSpec",
    "Masking",
    "Noise",
    "Normaliser",
    "Path",
    "Posterior",
    "Started",
    "Stream",
    "Value",
    "cat",
    "choose",
    "combine",
    "cut",
    "free_mse",
    "gap",
    "given_map",
    "over",
    "reveal",
    "token_condition",
]
