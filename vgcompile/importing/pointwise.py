"""Rules for operators of single elements: sums, products, functions, and what a constant makes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import dims
from vgcompile.importing.finding import Found, Reading, Rule, Unlike, operand, short
from vgcompile.importing.projection import base_of
from vgcompile.importing.trial import Array, Trial
from vgcompile.layers import LAYERS
from vgcompile.layers.formula import FUNCTIONS
from vgcompile.layers.positions import waves


def _sum(node: ir.Node, reading: Reading) -> Found:
    sources = [operand(node, position) for position in range(len(node.inputs))]
    fed = [value for value in sources if reading.region.fed(value)]
    if len(fed) == len(sources):
        return Found("add", sources, node.outputs[0], _broadcast(sources))
    if len(sources) != 2:
        raise Unlike("one of its operands is a constant")
    return _with_constant(node, reading) or _positions(node, fed[0], sources[sources[0] is fed[0]], reading)


def _multiplied(node: ir.Node, reading: Reading) -> Found:
    sources = [operand(node, position) for position in range(2)]
    fed = [value for value in sources if reading.region.fed(value)]
    if len(fed) == 2:
        return Found("multiply", sources, node.outputs[0], _broadcast(sources))
    factor = sources[sources[0] is fed[0]]
    array = reading.array(factor)
    if array is None:
        raise Unlike("one of its operands depends on extents that only a run knows")
    return _scaled(node, fed[0], array, learned=reading.learned(factor))


def _broadcast(sources: Sequence[ir.Value]) -> dict[str, Any]:
    return {"broadcast": len({dims(value) for value in sources}) > 1}


def _scaled(node: ir.Node, x: ir.Value, factor: Array, *, learned: bool) -> Found:
    """A number, or a learned one, or one for each entry of an axis."""
    rank = len(dims(x))
    long = [axis - factor.ndim + rank for axis, size in enumerate(factor.shape) if size > 1]
    if factor.ndim > rank or long[1:] or (long and (not learned or long[0] == 0)):
        raise Unlike("its constant factor is neither one number nor a learned one for each entry of an axis")
    if not learned:
        return Found("scale", [x], node.outputs[0], {"by": short(float(factor.reshape(-1)[0]))})
    first = short(float(factor.reshape(-1)[0]))
    axis = {"axis": long[0]} if long else {}
    stated = {"learned": first if np.all(factor == factor.reshape(-1)[0]) else 1.0, **axis}
    held = factor.reshape(-1, *(1 for _ in range(rank - long[0] - 1))) if long else factor.reshape(())
    return Found("scale", [x], node.outputs[0], {"by": stated}, {"scale": held})


def _positions(node: ir.Node, x: ir.Value, added: ir.Value, reading: Reading) -> Found:
    """A vector for each position: rows of a table that is learned, or waves."""
    shape = dims(x)
    if len(shape) != 3 or not isinstance(shape[2], int) or dims(node.outputs[0]) != shape:
        raise Unlike("a constant is added to it that is neither a bias nor a vector for each position of [batch, time, features]")
    rows = {
        dims(value)[0] for value in reading.parameters_above(added, x) if len(dims(value)) == 2 and dims(value)[1] == shape[2]
    }
    time = shape[1] if isinstance(shape[1], int) else max((size for size in rows if isinstance(size, int)), default=0)
    table = _rows(added, time, shape, reading) if time else None
    if table is None:
        raise Unlike("what it adds to each position is not known for every length; export with a fixed length")
    longer = max((size for size in rows if isinstance(size, int) and size > time), default=time)
    whole = next((reading.array(v) for v in reading.parameters_above(added, x) if dims(v) == (longer, shape[2])), None)
    if longer > time and whole is not None and np.array_equal(whole[:time], table):
        table = whole
    fields: dict[str, Any] = {} if len(table) == shape[1] else {"length": len(table)}
    base = _base(table)
    if np.allclose(table, waves(len(table), table.shape[1], base), atol=1e-5):
        return Found("positions", [x], node.outputs[0], {"encoding": "sinusoidal", "base": base, **fields})
    return Found("positions", [x], node.outputs[0], fields, {"weight": table})


def _rows(added: ir.Value, time: int, shape: Sequence[int | str], reading: Reading) -> Array | None:
    """What is added to ``time`` positions, [time, features], the same for each sample."""
    extents = {str(dim): time for value in reading.inputs for dim in dims(value)[1:]}
    extents |= {str(dims(value)[0]): 2 for value in reading.inputs if dims(value)} | {str(shape[1]): time}
    made = Trial(reading.opset, extents).run(added, {})
    if made is None or made.shape[-2:] != (time, shape[2]) or np.any(made != made.reshape(-1, *made.shape[-2:])[0]):
        return None
    rows: Array = made.reshape(-1, *made.shape[-2:])[0]
    return rows.astype(np.float32)


def _base(table: Array) -> float:
    """That of sinusoidal positions: entry 2i of position 1 is sin(base^(-2i / features)), of which the last one tells it best."""
    time, features = table.shape
    last = (features - 1) // 2 * 2
    return base_of(float(np.arcsin(np.clip(table[1, last], -1, 1))), last / features) if time > 1 and last else 10_000.0


def _with_constant(node: ir.Node, reading: Reading) -> Found | None:
    """A sum, difference, quotient or power of elements and one number that nobody learns, as a formula."""
    sign = {"Add": "+", "Sub": "-", "Div": "/", "Pow": "**"}[node.op_type]
    fed = [reading.region.fed(value) for value in node.inputs]
    number = next((reading.array(value) for value, from_data in zip(node.inputs, fed, strict=True) if not from_data), None)
    constant = operand(node, fed.index(False))
    if number is None or number.size != 1 or reading.learned(constant) or number.dtype.kind != "f":
        return None
    x, written = operand(node, fed.index(True)), f"{short(float(number.reshape(-1)[0])):g}"
    if float(written) != short(float(number.reshape(-1)[0])):
        written = repr(short(float(number.reshape(-1)[0])))
    written = f"({written})" if written.startswith("-") else written
    formula = f"x {sign} {written}" if fed[0] else f"{written} {sign} x"
    return Found("expression", [x], node.outputs[0], {"formula": formula}, function=True)


def _difference(node: ir.Node, reading: Reading) -> Sequence[Found] | Found:
    a, b = operand(node, 0), operand(node, 1)
    if reading.region.fed(a) and reading.region.fed(b):
        negative = ir.Value(name=None, shape=b.shape, type=b.type)
        return [Found("scale", [b], negative, {"by": -1.0}), Found("add", [a, negative], node.outputs[0], _broadcast([a, b]))]
    found = _with_constant(node, reading)
    if found is None:
        raise Unlike("one of its operands is a constant with axes")
    return found


def _quotient(node: ir.Node, reading: Reading) -> Found:
    found = None
    if not all(reading.region.fed(value) for value in node.inputs):
        found = _with_constant(node, reading)
    if found is None:
        raise Unlike("no layer is like it but for one operand that is a number")
    return found


def _negative(node: ir.Node, reading: Reading) -> Found:
    return Found("scale", [operand(node, 0)], node.outputs[0], {"by": -1.0})


def _clip(node: ir.Node, reading: Reading) -> Found:
    bounds = [reading.array(value) for value in [*node.inputs[1:], None, None][:2]]
    if any(bound is None for bound in bounds):
        raise Unlike("it is bounded on one side alone; clip has both a min and a max")
    low, high = (short(float(bound)) for bound in bounds if bound is not None)
    return Found("clip", [operand(node, 0)], node.outputs[0], {"min": low, "max": high}, function=True)


def _prelu(node: ir.Node, reading: Reading) -> Found:
    slope = reading.array(operand(node, 1))
    if slope is None or not reading.learned(operand(node, 1)):
        raise Unlike("its slope is not learned")
    as_scale = _scaled(node, operand(node, 0), slope, learned=True)
    return Found(
        "prelu", as_scale.sources, as_scale.output, {"slope": as_scale.fields["by"]}, {"slope": as_scale.weights["scale"]}
    )


def _dropout(node: ir.Node, reading: Reading) -> Found:
    ratio = reading.array(node.inputs[1]) if len(node.inputs) > 1 else None
    if len(node.outputs) > 1 and node.outputs[1].uses():
        raise Unlike("its mask is read")
    return Found("dropout", [operand(node, 0)], node.outputs[0], {"rate": 0.5 if ratio is None else short(float(ratio))})


def _silu(node: ir.Node, reading: Reading) -> Found:
    if attributes_of(node).get("alpha", 1.0) != 1.0:
        raise Unlike("its alpha is not 1")
    return Found("silu", [operand(node, 0)], node.outputs[0], function=True)


def function(node: ir.Node, reading: Reading) -> Found:
    """Softplus is softplus; attributes are fields, and one that is no field has to have the operator's usual value. What formulas
    have, and layers do not, is a formula."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", node.op_type).lower()
    layer = LAYERS.get(kind)
    if node.domain or len(node.inputs) != 1 or (layer is None and kind not in FUNCTIONS):
        raise Unlike("no layer is like it")
    if layer is None:
        return Found("expression", [operand(node, 0)], node.outputs[0], {"formula": f"{kind}(x)"}, function=True)
    if layer.takes != (1, 1):
        raise Unlike("no layer is like it")
    usual = attributes_of(ir.Node("", node.op_type, node.inputs, num_outputs=1))
    fields = {}
    for name, value in attributes_of(node).items():
        if name in layer.model_fields:
            fields[name] = short(value) if isinstance(value, float) else value
        elif value != usual.get(name):
            raise Unlike(f"{kind} has no {name}")
    return Found(kind, [operand(node, 0)], node.outputs[0], fields, function=True)


RULES: Mapping[str, Rule] = {
    "Add": _sum,
    "Sum": _sum,
    "Mul": _multiplied,
    "Sub": _difference,
    "Div": _quotient,
    "Pow": _quotient,
    "Neg": _negative,
    "Clip": _clip,
    "PRelu": _prelu,
    "Dropout": _dropout,
    "Swish": _silu,
}
