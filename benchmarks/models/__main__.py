"""Our models beside those that people know.

    python -m benchmarks.models counts [NAME ...]   # parameters: ours, the published number, and the source
    python -m benchmarks.models check [NAME ...]    # value and gradients against PyTorch in float64, weights copied over

``check`` needs torchvision and timm, each for its own models; what is not installed is said and passed over.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vgcompile
from benchmarks.models.references import REFERENCES, Reference
from vgcompile.graph.emit import dims
from vgcompile.graph.network import Network
from vgcompile.passes.check import check
from vgcompile.passes.gradient import gradient
from vgcompile.runtime.data import batch
from vgcompile.runtime.session import Session

MODELS = Path(__file__).parents[2] / "models"
ALLOWED = 1e-5  # relative l2 error of values and of the whole gradient; or 16 times what PyTorch's own float32 loses

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.models", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["counts", "check"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args(arguments)
    return (counts if given.what == "counts" else checked)(given.names or list(REFERENCES))


def counts(names: Sequence[str]) -> int:
    """From shapes alone: no weight is drawn."""
    differ = 0
    print(f"{'model':22}{'ours':>13}{'published':>13}  source")
    for name in names:
        ours, reference = sum(vgcompile.open_network(MODELS / f"{name}.yaml").sizes().values()), REFERENCES[name]
        differ += ours != reference.published
        verdict = "" if ours == reference.published else "  DIFFERS"
        print(f"{name:22}{ours:>13,}{reference.published:>13,}  {reference.source}{verdict}")
    return int(differ > 0)


def checked(names: Sequence[str]) -> int:
    wrong = 0
    print(f"{'model':22}{'value':>10}{'gradient':>10}{'PyTorch float32':>17}  verdict")
    for name in names:
        reference = REFERENCES[name]
        if reference.build is None:
            continue
        try:
            module = reference.build()
        except (ImportError, RuntimeError) as error:  # a library that is not there, or of another build
            print(f"{name:22}not compared: {type(error).__name__}: {str(error)[:80]}")
            continue
        value, slopes, theirs = compared(name, reference, module)
        good = max(value, slopes) <= max(ALLOWED, 16 * theirs)
        wrong += not good
        print(f"{name:22}{value:>10.1e}{slopes:>10.1e}{theirs:>17.1e}  {'equal' if good else 'DIFFERS'}", flush=True)
    return int(wrong > 0)


def compared(name: str, reference: Reference, module: torch.nn.Module) -> tuple[float, float, float]:
    """Relative l2 errors: of the output, of the whole gradient, and of PyTorch's own float32 gradient."""
    path = MODELS / f"{name}.yaml"
    network = vgcompile.open_network(path, variant=reference.variant, settings=reference.settings)
    feeds = batch(network, size=reference.batch, seed=0)
    pairs = matched(network, module)
    session = Session(check(gradient(network)), "cpu")
    weights = {ours: fitted(theirs.detach().numpy(), shape) for ours, (theirs, shape) in pairs.items()}
    found = session.run(None, {**{k: v for k, v in feeds.items() if k in session.required}, **weights})
    exact, truth = run(module.double(), feeds, network)
    _, rough = run(module.float(), feeds, network)
    mine = flat({ours: found[f"grad.{ours}"] for ours in pairs})
    wanted, loose = (flat({ours: fitted(g[id(p)], shape) for ours, (p, shape) in pairs.items()}) for g in (truth, rough))
    return relative(found[network.outputs[0]], exact), relative(mine, wanted), relative(loose, wanted)


def flat(arrays: Mapping[str, Array]) -> Array:
    return np.concatenate([array.astype(np.float64).ravel() for array in arrays.values()])


def relative(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a.astype(np.float64).ravel() - b.ravel()) / (np.linalg.norm(b.ravel()) or 1.0))


def matched(network: Network, module: torch.nn.Module) -> dict[str, tuple[torch.nn.Parameter, Shape]]:
    """Each of our parameters with PyTorch's: both stand in the order of the layers, so the first of its shape that is left; a
    dense weight lies the other way round, and PyTorch holds no axes of extent 1 where ours broadcasts."""
    left = dict.fromkeys(module.parameters())
    values = {value.name: value for value in network.model.graph.inputs}
    pairs = {}
    for ours in network.parameters:
        shape = tuple(int(dim) for dim in dims(values[ours]))
        near = [p for p in left if long(tuple(p.shape)) in (long(shape), long(shape)[::-1])]
        theirs = next((p for p in near if tuple(p.shape) in (shape, shape[::-1])), next(iter(near), None))
        if theirs is None:
            raise LookupError(f"{ours} {shape} has no counterpart in {type(module).__name__}")
        del left[theirs]
        pairs[ours] = (theirs, shape)
    return pairs


def long(shape: Shape) -> Shape:
    """Without axes of extent 1."""
    return tuple(n for n in shape if n != 1)


def fitted(array: Array, shape: Shape) -> Array:
    """In our shape; matrices of dense layers are turned."""
    turned = array.ndim == 2 and len(shape) == 2
    return np.ascontiguousarray(array.T if turned else array).reshape(shape)


def run(module: torch.nn.Module, feeds: Mapping[str, Array], network: Network) -> tuple[Array, dict[int, Array]]:
    """PyTorch's output and its gradients, by identity of the parameter."""
    module.train()
    module.zero_grad()
    dtype = next(module.parameters()).dtype
    (target,) = (name for name, declared in network.inputs.items() if declared.role == "target")
    (source,) = (name for name in feeds if name != target)
    x, labels = torch.tensor(feeds[source]), torch.tensor(feeds[target])
    y = module(x.to(dtype) if x.is_floating_point() else x)
    torch.nn.functional.cross_entropy(y, labels).backward()
    gradients = {id(p): p.grad.numpy().copy() for p in module.parameters() if p.grad is not None}
    return y.detach().numpy().copy(), gradients


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
