"""What a run is made from, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]
"""A resolved configuration: plain dictionaries, lists, strings and numbers."""
