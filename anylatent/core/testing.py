"""Exact denoisers, and contract tests for whoever writes a part.

Each `check_*` raises AssertionError with what went wrong. The package runs them over every
registered name, so a part is tested by being registered; plugins call them from their own tests.
"""

from anylatent.core.exact import GaussianDenoiser, MixtureDenoiser

__all__ = ["GaussianDenoiser", "MixtureDenoiser"]
