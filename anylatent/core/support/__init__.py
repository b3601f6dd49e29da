"""Files, packages, progress and caches: nothing of diffusion."""
