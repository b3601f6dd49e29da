"""The split of QM9 is fixed for good: a model must never be judged on what it learned from."""

import hashlib

import torch

from anylatent.modalities.molecule.data.qm9 import _order


def test_the_order_of_the_molecules_never_changes():
    order = _order(130_831)
    assert sorted(order.tolist()) == list(range(130_831))
    digest = hashlib.sha256(order.to(torch.int32).numpy().tobytes()).hexdigest()
    assert digest == "6b443d092be7c6ca62c4aed4bd30ff4df92a0d9d39699b7a176581756ee10b3b"
