"""What a denoiser is trained by: one number per sample."""

from anylatent.core.objectives.base import Objective
from anylatent.core.objectives.denoising import Denoising
from anylatent.core.objectives.token_cross_entropy import TokenCrossEntropy
from anylatent.core.objectives.weightings import Bound, Weighting

__all__ = ["Bound", "Denoising", "Objective", "TokenCrossEntropy", "Weighting"]
