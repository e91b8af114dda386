"""Modules that packages of ours import and we do not use are loaded when somebody touches them.

onnx_ir imports SymPy for sums of symbolic extents, which are strings to us: half a second, a sixth of what ``check`` takes.
Only the command line does this, for in somebody else's process imports are not ours to change.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType

DEFERRED = frozenset({"sympy", "onnx_ir._symbolic_shapes"})  # the latter touches SymPy as it is loaded


class _Deferring:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in DEFERRED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec


def install() -> None:
    """From here on, in this process."""
    if _Deferring not in sys.meta_path:
        sys.meta_path.insert(0, _Deferring)
