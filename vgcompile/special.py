"""SciPy's special functions, imported when one is first evaluated: that takes a quarter of a second, and most models are checked
and compiled without."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def _late(name: str) -> Callable[..., Any]:
    def evaluated(*arguments: Any, **options: Any) -> Any:
        return getattr(import_module("scipy.special"), name)(*arguments, **options)

    return evaluated


erf = _late("erf")
expit = _late("expit")  # the logistic sigmoid
logit = _late("logit")  # its inverse
ndtr = _late("ndtr")  # the distribution function of the standard normal
logsumexp = _late("logsumexp")
softmax = _late("softmax")
log_softmax = _late("log_softmax")
