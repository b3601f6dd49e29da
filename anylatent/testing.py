"""Exact denoisers and contract tests, for our own tests and for those of plugins."""

from anylatent.core.testing import *  # noqa: F403
