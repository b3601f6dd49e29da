"""Figures about pictures: distances of samples to real ones, and losses of reconstructions."""

from anylatent.modalities.image.metrics.distances import (
    Nearest,
    frechet,
    kernel_distance,
    nearer,
    nearest,
    precision_recall,
)
from anylatent.modalities.image.metrics.restoration import blur, psnr, ssim
from anylatent.modalities.image.metrics.suite import ImageMetrics

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
