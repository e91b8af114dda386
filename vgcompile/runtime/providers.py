"""Execution providers of ONNX Runtime: which there are, and which one a session gets."""

from __future__ import annotations

from typing import Any

import onnxruntime

from vgcompile.errors import EngineError, nearest

NAMES = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 rounds a matrix product's operands to 10 bits of mantissa: far too few for gradients that are compared with bounds.
SETTINGS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
INSTALL = "install CUDA support with `pip install vgcompile[gpu]`, or use --provider cpu"


def providers() -> tuple[str, ...]:
    """The providers of the installed ONNX Runtime that we use, by our short names, the preferred one first."""
    built_in = onnxruntime.get_available_providers()
    return tuple(short for short in ("cuda", "cpu") if NAMES[short] in built_in)


def choose(provider: str) -> str:
    """The short name of the provider for a wish: ``auto`` takes the first of :func:`providers`.

    Raises EngineError for an unknown name, or where the provider is not part of the installed ONNX Runtime.
    """
    there = providers()
    if provider == "auto":
        return there[0]
    if provider not in NAMES:
        raise EngineError(
            f"unknown provider {provider!r}; " + (nearest(provider, NAMES) or f"there are auto, {', '.join(NAMES)}")
        )
    if provider not in there:
        raise EngineError(f"the installed ONNX Runtime has no provider {provider!r}, only {', '.join(there)}; {INSTALL}")
    return provider


def request(provider: str) -> list[tuple[str, dict[str, Any]]]:
    """What ONNX Runtime is asked for: the provider, then the CPU for operators that it lacks."""
    order = dict.fromkeys((provider, "cpu"))
    return [(NAMES[short], SETTINGS[short]) for short in order]
