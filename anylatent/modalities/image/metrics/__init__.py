"""Figures about pictures: distances of samples to real ones, and losses of reconstructions."""

from anylatent.modalities.image.metrics.suite import ImageMetrics
from anylatent.modalities.shared.distances import (
    Nearest,
    frechet,
    kernel_distance,
    nearer,
    nearest,
    precision_recall,
)
from anylatent.modalities.shared.restoration import blur, psnr, ssim

__all__ = [
    "ImageMetrics",
    "Nearest",
    "blur",
    "frechet",
    "kernel_distance",
    "nearer",
    "nearest",
    "precision_recall",
    "psnr",
    "ssim",
]
