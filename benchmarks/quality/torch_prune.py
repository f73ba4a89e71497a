"""torch-pruning 1.6 on an imported model: group magnitude, or group Taylor on unlabelled calibration images.

The gradients of the Taylor measure need a loss, and there are no labels: the original's own first class stands for the
label (cross-entropy), or the mean square where the output is no class score.  One pruning step to the wanted share;
`global` lets the library spread it over the layers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable

import numpy as np
import onnx
import torch  # noqa: TID251
import torch_pruning as tp
from torch_net import OnnxNet, with_weights_of

from onnx_layermerge.errors import ModelError
from onnx_layermerge.graph import Session

__all__ = ["pruner_of", "taylor_gradients"]

LEAST_LEFT = 0.1
CLOSE = 1e-3


def pruner_of(
    proto: onnx.ModelProto, sample: np.ndarray, *, kind: str, batches: Iterable[np.ndarray] = ()
) -> Callable[[float, int], bytes]:
    """``make(share, tile)``, widths being multiples of ``tile``.

    ``kind`` is "magnitude", "taylor" or "taylor-global"; ``sample`` [1, …] is an input.

    Raises:
        ModelError: an operator that the importer does not know, or torch and onnxruntime disagree.
    """
    net = OnnxNet(proto).eval()
    _check(proto.SerializeToString(), net, sample)
    gradients = taylor_gradients(net, batches) if kind.startswith("taylor") else {}
    example = torch.from_numpy(sample)

    def make(share: float, tile: int) -> bytes:
        slim = copy.deepcopy(net)
        for name, parameter in slim.named_parameters():
            parameter.grad = gradients[name].clone() if name in gradients else None
        importance = (
            tp.importance.GroupTaylorImportance()
            if kind.startswith("taylor")
            else tp.importance.GroupMagnitudeImportance(p=2)
        )
        pruner = tp.pruner.BasePruner(
            slim,
            example,
            importance=importance,
            global_pruning=kind.endswith("global"),
            pruning_ratio=share,
            max_pruning_ratio=1 - LEAST_LEFT,
            ignored_layers=slim.heads(),
            round_to=tile,
        )
        pruner.step()
        made = with_weights_of(proto, slim)
        _check(made, slim, sample)
        return made

    return make


def taylor_gradients(net: OnnxNet, batches: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
    """Gradients of the stand-in loss, summed over the batches, by parameter name."""
    net.zero_grad()
    for batch in batches:
        out = net(torch.from_numpy(batch))
        if out.ndim == 2 and out.shape[1] >= 2:
            known = bool(out.min() >= 0) and bool(torch.allclose(out.sum(1), torch.ones(len(out)), atol=1e-3))
            logs = torch.log(out.clamp_min(1e-12)) if known else torch.log_softmax(out, dim=1)
            loss = torch.nn.functional.nll_loss(logs, out.argmax(1))
        else:
            loss = (out**2).mean()
        loss.backward()
    found = {name: p.grad.detach().clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    return found


def _check(model: bytes, net: OnnxNet, sample: np.ndarray) -> None:
    """Both runtimes give the same on one sample."""
    session = Session(model)
    wanted = next(iter(session.run({session.inputs[0]: sample}).values()))
    with torch.no_grad():
        got = net(torch.from_numpy(sample)).numpy()
    worst = float(np.abs(got - wanted).max()) / max(float(np.abs(wanted).max()), 1e-12)
    if got.shape != wanted.shape or not worst <= CLOSE:
        raise ModelError(f"torch and onnxruntime differ by {worst:.1e} on the imported model; see torch_net.py.")
