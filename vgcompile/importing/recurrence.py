"""The recurrent layers around RNN, GRU and LSTM: one or several in a row, their states laid out as a layer hands them on.

    x -> Transpose -> LSTM -> Squeeze -> LSTM -> Squeeze, Transpose -> y         becomes    {kind: lstm, layers: 2}

ONNX puts time first and the direction between; how a file gets there and back is known by running it on states that are all
different.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.emit import dims
from vgcompile.importing.finding import Composite, Found, Reading, Unlike
from vgcompile.importing.trial import Array, Trial

KINDS = {"RNN": "rnn", "GRU": "gru", "LSTM": "lstm"}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_LAYOUTS = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Gather", "Slice", "Concat", "Split", "Identity", "Flatten"}
)
_BATCH, _TIME = 2, 3  # of a trial


@dataclass(frozen=True)
class _Level:
    """One operator: ``input`` is x [batch, time, features], or the states of the operator ``below``."""

    node: ir.Node
    nodes: tuple[ir.Node, ...]  # from the input to the operator
    input: ir.Value
    below: ir.Node | None
    rate: float


def recurrent(node: ir.Node, reading: Reading) -> Composite | None:
    """The layer whose last operator this is; None where its states are read by the next one. Raises Unlike."""
    above = _above(node, reading)
    if above is not None and _continues(node, above, reading):
        return None
    levels = [_level(node, reading)]
    while levels[0].below is not None and _continues(levels[0].below, node, reading):
        levels.insert(0, _level(levels[0].below, reading))
    if levels[0].rate and not (levels[0].below and _continues(levels[0].below, node, reading)):
        raise Unlike("a dropout stands before it while time is the first axis; let the batch be that")
    return _composite(levels, reading, read_above=above is not None)


def _composite(levels: Sequence[_Level], reading: Reading, *, read_above: bool) -> Composite:
    top = levels[-1].node
    fields = _fields(top, reading)
    for level in levels:
        _require_plain(level.node, reading)
        if _fields(level.node, reading) != fields:
            raise Unlike("the operators that stand one behind the other differ in more than their weights")
    weights: dict[str, Array] = {}
    for number, level in enumerate(levels, 1):
        weights |= _weights(level.node, f"{number}/" if levels[1:] else "", reading)
    rates = {level.rate for level in levels[1:]}
    if len(rates) > 1:
        raise Unlike("the dropouts between its layers have different rates")
    stated = {**fields, "layers": len(levels), "dropout": rates.pop() if rates else 0.0}
    sequence, last, behind = (top.outputs[0], None, []) if read_above else _outputs(levels, reading)
    nodes = frozenset({*behind, *(node for level in levels for node in (*level.nodes, level.node))})
    kind, x = KINDS[top.op_type], levels[0].input
    if sequence is None and last is None:
        raise Unlike(
            "its states are read in a form that is neither a sequence [batch, time, units] nor the last ones [batch, units]"
        )
    if sequence is None:
        assert last is not None
        return Composite(top, (Found(kind, [x], last, {**stated, "output": "last"}, weights),), nodes)
    found = [Found(kind, [x], sequence, stated, weights)]
    if last is not None:
        if fields["bidirectional"]:
            raise Unlike("both all of its states and the last ones of both directions are read; a layer gives one of them")
        found.append(Found("select", [sequence], last, {"index": -1}))
    return Composite(top, tuple(found), nodes)


def _fields(node: ir.Node, reading: Reading) -> dict[str, Any]:
    given = attributes_of(node)
    ways = 2 if given.get("direction") == "bidirectional" else 1
    activations = [str(name) for name in given.get("activations") or ()]
    fields: dict[str, Any] = {
        "units": int(given["hidden_size"]),
        "bidirectional": ways == 2,
        "bias": len(node.inputs) > 3 and node.inputs[3] is not None,
    }
    if node.op_type == "RNN":
        kinds = {name.lower() for name in activations or ["Tanh"]}
        if len(kinds) > 1 or not kinds <= {"tanh", "relu"}:
            raise Unlike(f"its activation is {', '.join(sorted(kinds))}; rnn has tanh and relu")
        fields["activation"] = kinds.pop()
    else:
        usual = ["sigmoid", "tanh"] if node.op_type == "GRU" else ["sigmoid", "tanh", "tanh"]
        if activations and [name.lower() for name in activations] != usual * ways:
            raise Unlike(f"its activations are {', '.join(activations)}; {KINDS[node.op_type]} has {', '.join(usual)}")
    if node.op_type == "GRU":
        fields["reset_after"] = bool(given.get("linear_before_reset"))
    return fields


def _require_plain(node: ir.Node, reading: Reading) -> None:
    """Raises Unlike for what the language has no word for."""
    given = attributes_of(node)
    if given.get("direction") == "reverse":
        raise Unlike("it reads backward in time alone; the layers read forward, or both ways")
    if given.get("clip"):
        raise Unlike("it clips what enters its gates")
    if given.get("input_forget"):
        raise Unlike("its input and forget gates are coupled")
    rest = [*node.inputs[4:], None, None, None, None][:4]
    if rest[0] is not None:
        raise Unlike("sequences of different lengths are read")
    if rest[3] is not None and np.any(_known(rest[3], reading)):
        raise Unlike("it has peephole weights")
    for state in rest[1:3]:
        if state is not None and np.any(_known(state, reading)):
            raise Unlike("it starts from a state that is not 0")
    if len(node.outputs) > 2 and reading.users(node.outputs[2]):
        raise Unlike("its last cell state is read, which no layer gives")


def _known(value: ir.Value, reading: Reading) -> Array:
    """Raises Unlike where data have a part in it."""
    made = None if reading.region.fed(value) else _trial(reading).run(value, {})
    if made is None:
        raise Unlike("it starts from a state that data have a part in")
    return made


def _weights(node: ir.Node, prefix: str, reading: Reading) -> dict[str, Array]:
    arrays = [reading.array(value) for value in node.inputs[1:4]]
    if any(array is None and value is not None for array, value in zip(arrays, node.inputs[1:4], strict=True)):
        raise Unlike("its weights depend on data")
    weight, recurrent_weight, *biases = arrays
    assert weight is not None and recurrent_weight is not None
    ways = [prefix] if len(weight) == 1 else [f"{prefix}forward/", f"{prefix}backward/"]
    rows = _GATES[node.op_type] * recurrent_weight.shape[2]
    held: dict[str, Array] = {}
    for place, way in enumerate(ways):
        held |= {f"{way}weight": weight[place], f"{way}recurrent_weight": recurrent_weight[place]}
        if biases and biases[0] is not None:
            held |= {f"{way}bias": biases[0][place, :rows], f"{way}recurrent_bias": biases[0][place, rows:]}
    return held


# What it reads


def _level(node: ir.Node, reading: Reading) -> _Level:
    x, first = node.inputs[0], bool(attributes_of(node).get("layout"))
    assert x is not None
    for base, nodes in reading.region.passed([x]):
        producer = base.producer()
        rate = max([reading.rate(other) for other in nodes if other.op_type == "Dropout"], default=0.0)
        if producer is not None and producer.op_type in KINDS and base is producer.outputs[0]:
            if _same(x, base, _sequence, reading, batch_first=first, of=producer):
                return _Level(node, nodes, base, producer, rate)
            break
        if len(dims(base)) == 3 and _same(x, base, lambda x, _: x, reading, batch_first=first):
            return _Level(node, nodes, base, None, 0.0)
        if any(other.op_type not in _LAYOUTS | {"Dropout"} for other in nodes):
            break
    raise Unlike("its input is no sequence [batch, time, features] with time put first; let the batch be the first axis")


def _continues(below: ir.Node, top: ir.Node, reading: Reading) -> bool:
    """Whether two operators may be layers of one."""
    return below.op_type == top.op_type and _fields(below, reading) == _fields(top, reading)


def _above(node: ir.Node, reading: Reading) -> ir.Node | None:
    """The operator that reads this one's states while time is the first axis."""
    for other in reading.needed:
        if other.op_type in KINDS and other is not node:
            with suppress(Unlike):
                if _level(other, reading).below is node:
                    return other
    return None


def _same(value: ir.Value, base: ir.Value, form: Any, reading: Reading, *, batch_first: bool, of: ir.Node | None = None) -> bool:
    """Whether ``value`` is ``base`` in the form of a sequence, with time first unless the operator takes the batch first."""
    trial = _trial(reading)
    shape = trial.shape(base)
    if shape is None:
        return False
    x = np.arange(float(np.prod(shape))).reshape(shape)
    expected = form(x, bool(of is not None and attributes_of(of).get("layout")))
    made = trial.run(value, {base: x})
    return made is not None and np.array_equal(made, expected if batch_first else expected.swapaxes(0, 1))


# What it gives


def _sequence(states: Array, batch_first: bool) -> Array:
    """[batch, time, directions * units] of an operator's first output."""
    x = states if batch_first else states.transpose(2, 0, 1, 3)
    return x.reshape(*x.shape[:2], -1)


def _ends(states: Array, batch_first: bool) -> Array:
    """[batch, directions * units] of its second output."""
    x = states if batch_first else states.swapaxes(0, 1)
    return x.reshape(len(x), -1)


def _outputs(levels: Sequence[_Level], reading: Reading) -> tuple[ir.Value | None, ir.Value | None, list[ir.Node]]:
    """The values that are all states, and the last ones, and the nodes that lay them out."""
    top, trial = levels[-1].node, _trial(reading)
    states = [*top.outputs[:2], *(value for level in levels[:-1] for value in level.node.outputs[1:2])]
    draws, given = np.random.default_rng(0), {}
    for value in states:
        shape = trial.shape(value)
        if shape is not None:
            given[value] = draws.normal(size=shape)
    first = bool(attributes_of(top).get("layout"))
    forms = {0: (_sequence, top.outputs[0])}
    if len(top.outputs) > 1:
        forms[1] = (_ends, top.outputs[1])
    found: dict[int, ir.Value] = {}
    for node in _laid_out(given, (), reading):
        for value in node.outputs:
            made = trial.run(value, given)
            for place, (form, source) in forms.items():
                fits = made is not None and source in given and np.array_equal(made, form(given[source], first))
                if fits and place not in found:
                    found[place] = value
    kept = [value for value in found.values() if reading.users(value) or value.name in reading.outputs]
    nodes = [node for node in _laid_out(given, kept, reading) if not any(value in kept for value in node.outputs)]
    ends = [end for value in kept if (end := value.producer()) is not None]
    return (*(found.get(place) if found.get(place) in kept else None for place in (0, 1)), [*nodes, *ends])  # type: ignore[return-value]


def _laid_out(given: dict[ir.Value, Array], ends: Sequence[ir.Value], reading: Reading) -> Iterator[ir.Node]:
    """The nodes that rearrange states and nothing else, but for what is made of the ends."""
    reached = set(given)
    for node in reading.needed:
        operands = reading.region.operands(node)
        if operands and node.op_type in _LAYOUTS and all(value in reached for value in operands):
            reached |= set(node.outputs) - set(ends)
            yield node


def _trial(reading: Reading) -> Trial:
    symbols = {str(dim) for node in reading.needed for value in node.outputs if value.shape is not None for dim in dims(value)}
    batches = {str(dims(value)[0]) for value in reading.inputs if dims(value)}
    return Trial(reading.opset, {name: _BATCH if name in batches else _TIME for name in symbols})
