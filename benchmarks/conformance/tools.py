"""The gradient compilers that are judged, each behind one function: a model to a file with its inputs and outputs by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from benchmarks.conformance.cases import Case


@dataclass(frozen=True)
class Compiled:
    """A gradient file: ``seeds`` are its inputs for the adjoints of the outputs, ``gradients`` its outputs by input.

    ``axis`` says that both carry one more axis, for the number of seeds.
    """

    model: onnx.ModelProto
    seeds: Mapping[str, str]
    gradients: Mapping[str, str]
    axis: bool = False


class Refused(Exception):
    """A tool says that it does not differentiate this case, and why."""


def _vgcompile(case: Case) -> Compiled:
    from vgcompile.derivatives import gradients
    from vgcompile.errors import GradientRefused, UserError
    from vgcompile.passes.gradient import ADJOINT

    try:
        made = gradients(case.model, wrt="inputs", seed_input=True)
    except GradientRefused as refused:
        raise Refused(f"{refused.operator}: {refused.reason}") from None
    except UserError as refused:
        raise Refused(str(refused).removeprefix("model.onnx: ")) from None
    return Compiled(made.model, {name: f"{ADJOINT}{name}" for name in made.root}, made.by)


def _onnx_ad(case: Case) -> Compiled:
    """By position: it puts its seed inputs and its adjoints behind the model's own inputs and outputs."""
    import onnx_ad

    try:
        made = onnx_ad.reverse(case.model, inputs=list(case.real_inputs), outputs=list(case.real_outputs), layout="onnx")
    except (onnx_ad.UnsupportedOperator, NotImplementedError, ValueError) as refused:
        raise Refused(" ".join(str(refused).split())) from None
    seeds = made.graph.input[-len(case.real_outputs) :]
    gradients = made.graph.output[-len(case.real_inputs) :]
    return Compiled(
        made,
        {name: value.name for name, value in zip(case.real_outputs, seeds, strict=True)},
        {name: value.name for name, value in zip(case.real_inputs, gradients, strict=True)},
        axis=True,
    )


TOOLS: dict[str, Callable[[Case], Compiled]] = {"vgcompile": _vgcompile, "onnx-ad": _onnx_ad}
