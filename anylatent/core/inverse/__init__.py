"""Denoisers around denoisers that keep to what is known of a sample."""

from anylatent.core.inverse.completion import Completion, Known, begin_with

__all__ = ["Completion", "Known", "begin_with"]
