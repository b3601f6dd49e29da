"""A process that makes shards slowly, alone or as one of several that meet by gloo.

python -m tests.core.support.maker DIRECTORY SECONDS [RANK WORLD FILE]
"""

import sys
import time
from pathlib import Path

import torch

from anylatent.core.support.columns import Ragged
from anylatent.core.support.shards import Shards

SIZE, ROWS = 37, 5


def columns(items):
    """Made of the items' numbers alone."""
    index = torch.tensor(list(items))
    lengths = index % 4
    values = index.repeat_interleave(lengths)[:, None] * torch.tensor([1.0, 0.5])
    return {"x": index.double().sin()[:, None].expand(-1, 3).float(), "y": Ragged(values, lengths)}


def pieces(items, seconds=0.0):
    for start in range(items.start, items.stop, 2):
        time.sleep(seconds)
        yield columns(range(start, min(start + 2, items.stop)))


def main(directory, seconds, rank=None, world=None, meet=None):
    if rank is not None:
        where = {"init_method": f"file://{meet}", "rank": int(rank), "world_size": int(world)}
        torch.distributed.init_process_group("gloo", **where)

    def make(items):
        print(items.start // ROWS, flush=True)
        return pieces(items, float(seconds))

    Shards(Path(directory), SIZE, ROWS).fill(make, "making")
    if rank is not None:
        torch.distributed.barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
