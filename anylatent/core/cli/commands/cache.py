"""`anylatent cache` and `anylatent cache clear`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from anylatent.core.cli.command import Command
from anylatent.core.registry import register


@dataclass(frozen=True)
class CacheConfig:
    """Nothing: the directory is `$ANYLATENT_CACHE`, or that of the user."""


@register("command", "cache")
class Cache(Command):
    """What is kept of what was computed: path, size, when it was used last, what made it."""

    usage = """\
cache
    lists what is kept of what was computed, what was used last at the end"""

    @property
    def config(self) -> type:
        return CacheConfig

    def run(self, config: CacheConfig) -> None:
        from anylatent.core.support.cache_entries import entries
        from anylatent.core.support.disk_cache import cache_directory

        every = entries(cache_directory())
        for entry in every:
            day = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            print(f"{entry.path}\n  {_size(entry.size)}, used {day}, made by {entry.about or '?'}")
        total = _size(sum(entry.size for entry in every))
        print(f"{len(every)} entries of {total} in {cache_directory()}")


@register("command", "cache_clear")
class CacheClear(Command):
    """Removes what is kept, but for what another process makes or uses just now."""

    usage = """\
cache clear
    removes it, but for what another process makes or uses"""

    @property
    def config(self) -> type:
        return CacheConfig

    def run(self, config: CacheConfig) -> None:
        from anylatent.core.support.cache_entries import entries, remove
        from anylatent.core.support.disk_cache import cache_directory
        from anylatent.core.support.temporaries import sweep_dead

        sweep_dead(cache_directory())
        found = [(entry, remove(entry)) for entry in entries(cache_directory())]
        kept = [entry.path for entry, gone in found if not gone]
        freed = _size(sum(entry.size for entry, gone in found if gone))
        print(f"removed {len(found) - len(kept)} entries of {freed} from {cache_directory()}")
        for path in kept:
            print(f"kept, as a process uses it or it can't be removed: {path}")


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
