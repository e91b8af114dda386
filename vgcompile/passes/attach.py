"""A file that ends at its outputs gets a loss and the input that it is compared with.

... -> logits                  before
... -> logits, target -> loss  after
"""

from __future__ import annotations

import onnx_ir as ir

from vgcompile.errors import UserError, nearest
from vgcompile.graph.emit import Emitter, dims
from vgcompile.layers.criterion import CRITERIA, classes_second

TARGET, LOSS = "target", "loss"


def attach(model: ir.Model, output: ir.Value, kind: str, class_axis: int = 1) -> ir.Value:
    """Append the mean loss ``kind`` of ``output`` to ``model``; returns it. Its target becomes the graph input ``target``: class
    numbers int64 in the output's shape without the class axis for ``cross_entropy``, else numbers of the output's type and shape.

    Raises UserError for an unknown kind, or an output that does not suit it.
    """
    if kind not in CRITERIA:
        raise UserError(f"--attach-loss {kind!r}: {nearest(kind, CRITERIA) or 'it takes ' + ', '.join(CRITERIA)}")
    emitter = Emitter(model.graph, model.opset_imports[""])
    extents, dtype = list(dims(output)), output.dtype
    assert dtype is not None
    with emitter.scope("loss", dtype=dtype):
        if kind == "cross_entropy":
            rank = len(extents)
            if rank < 2 or not -rank <= class_axis < rank:
                shape = ", ".join(map(str, extents))
                raise UserError(f"--attach-loss cross_entropy needs logits with a class axis {class_axis}, found [{shape}]")
            axis = class_axis % rank
            extents.pop(axis)
            dtype = ir.DataType.INT64
            output = classes_second(emitter, output, axis)
        target = ir.Value(name=emitter.fresh_value_name(TARGET), shape=ir.Shape(extents), type=ir.TensorType(dtype))
        model.graph.inputs.append(target)
        loss = CRITERIA[kind](emitter, output, target, "mean")
    loss.name = emitter.fresh_value_name(LOSS)
    model.graph.outputs.append(loss)
    return loss
