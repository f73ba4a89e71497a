"""A process of two that train together; writes its weights as .npz."""

from __future__ import annotations

import sys

import numpy as np
import torch

from tests.recover.training import tiny

if __name__ == "__main__":
    torch.set_num_threads(1)
    found = tiny.trained(steps=8, ema=0.0, augment=False, rate=None)
    told = np.array([found.start_value, found.value, found.divergence.agreement, found.process, found.rate])
    np.savez(f"{sys.argv[1]}.{found.process}.npz", told=told, **dict(found.weights))
