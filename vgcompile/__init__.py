"""vgcompile: see vanishing gradients before the first training step.

>>> import vgcompile
>>> network = vgcompile.open_network("models/deep_sigmoid.yaml")          # doctest: +SKIP
>>> vgcompile.compile_network(network).files.keys()                       # doctest: +SKIP
dict_keys(['deep_sigmoid.onnx', 'deep_sigmoid.grad.onnx'])
>>> vgcompile.analyze(network).verdict.kind                               # doctest: +SKIP
'vanishing'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgcompile.analysis import Analysis, Options
    from vgcompile.analysis.view import as_networkx
    from vgcompile.compiler import Compiled, analyze, compile_network, open_network
    from vgcompile.derivatives import grad, hvp
    from vgcompile.graph.network import Network
    from vgcompile.runtime.session import Session

__version__ = "0.1.0"

# Names are imported when they are first used: `vgcompile --help` must not wait for onnx.
_HOMES = {
    "Analysis": "vgcompile.analysis",
    "Compiled": "vgcompile.compiler",
    "Network": "vgcompile.graph.network",
    "Options": "vgcompile.analysis",
    "Session": "vgcompile.runtime.session",
    "analyze": "vgcompile.compiler",
    "as_networkx": "vgcompile.analysis.view",
    "compile_network": "vgcompile.compiler",
    "grad": "vgcompile.derivatives",
    "hvp": "vgcompile.derivatives",
    "open_network": "vgcompile.compiler",
}

__all__ = [
    "Analysis",
    "Compiled",
    "Network",
    "Options",
    "Session",
    "analyze",
    "as_networkx",
    "compile_network",
    "grad",
    "hvp",
    "open_network",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vgcompile' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
