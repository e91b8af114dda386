"""PyTorch as an independent oracle: THE graph run operator by operator on torch tensors, differentiated by torch's autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import torch.nn.functional as F

from vgcompile.graph.attributes import attributes_of
from vgcompile.graph.network import Network

Array = np.ndarray[Any, Any]


def gradients(
    network: Network, feeds: Mapping[str, Array], parameters: Mapping[str, Array], dtype: torch.dtype
) -> tuple[float, dict[str, Array]]:
    """Loss and its gradient by every parameter, in ``dtype``."""
    values = {name: _tensor(array, dtype) for name, array in {**_constants(network), **feeds}.items()}
    leaves = {name: _tensor(array, dtype).requires_grad_() for name, array in parameters.items()}
    values.update(leaves)
    for node in network.model.graph:
        inputs = [None if v is None else values[v.name] for v in node.inputs]
        found = OPERATORS[node.op_type](*inputs, **attributes_of(node))
        for value, tensor in zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False):
            values[value.name] = tensor
    loss = values[network.loss]
    loss.backward()
    zero = {name: np.zeros(leaf.shape) for name, leaf in leaves.items()}
    return float(loss.detach()), {name: zero[name] if leaf.grad is None else leaf.grad.numpy() for name, leaf in leaves.items()}


def _constants(network: Network) -> dict[str, Array]:
    return {value.name: value.const_value.numpy() for value in network.model.graph.initializers.values()}


def _tensor(array: Array, dtype: torch.dtype) -> torch.Tensor:
    tensor = torch.from_numpy(np.array(array))
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _gemm(a: Any, b: Any, c: Any = None, *, alpha: float, beta: float, transA: int, transB: int) -> Any:
    product = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return product if c is None else product + beta * c


def _padded(x: Any, pads: list[int] | None, value: float) -> Any:
    if not pads or not any(pads):
        return x
    half = len(pads) // 2
    flat = [side for axis in reversed(range(half)) for side in (pads[axis], pads[axis + half])]
    return F.pad(x, flat, value=value)


def _conv(
    x: Any, w: Any, b: Any = None, *, auto_pad: str, dilations: Any, group: int, kernel_shape: Any, pads: Any, strides: Any
) -> Any:
    assert auto_pad == "NOTSET"
    rank = w.ndim - 2
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    return convolve(_padded(x, pads, 0.0), w, b, stride=strides or 1, dilation=dilations or 1, groups=group)


def _max_pool(
    x: Any, *, auto_pad: str, ceil_mode: int, dilations: Any, kernel_shape: Any, pads: Any, storage_order: int, strides: Any
) -> Any:
    assert auto_pad == "NOTSET" and not ceil_mode
    return F.max_pool2d(_padded(x, pads, -float("inf")), kernel_shape, strides, dilation=dilations or 1)


def _average_pool(
    x: Any, *, auto_pad: str, ceil_mode: int, count_include_pad: int, dilations: Any, kernel_shape: Any, pads: Any, strides: Any
) -> Any:
    assert auto_pad == "NOTSET" and not ceil_mode and (count_include_pad or not any(pads or [0]))
    return F.avg_pool2d(_padded(x, pads, 0.0), kernel_shape, strides)


def _batch_norm(
    x: Any, scale: Any, bias: Any, mean: Any, var: Any, *, epsilon: float, momentum: float, training_mode: int
) -> Any:
    return F.batch_norm(
        x, None if training_mode else mean, None if training_mode else var, scale, bias, bool(training_mode), 0.0, epsilon
    )


def _layer_norm(x: Any, scale: Any, bias: Any = None, *, axis: int, epsilon: float, stash_type: int) -> Any:
    return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


def _cross_entropy(logits: Any, labels: Any, weight: Any = None, *, ignore_index: int | None, reduction: str) -> Any:
    return F.cross_entropy(
        logits, labels.long(), weight, ignore_index=-100 if ignore_index is None else ignore_index, reduction=reduction
    )


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Any, axes: Any = None, *, keepdims: int, noop_with_empty_axes: int) -> Any:
        given = [] if axes is None else axes.tolist()
        return x if not given and noop_with_empty_axes else function(x, dim=given or list(range(x.ndim)), keepdim=bool(keepdims))

    return reduce


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": torch.add,
    "Sub": torch.sub,
    "Mul": torch.mul,
    "Div": torch.div,
    "Neg": torch.neg,
    "Pow": torch.pow,
    "Sqrt": torch.sqrt,
    "Exp": torch.exp,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Relu": torch.relu,
    "LeakyRelu": lambda x, alpha: F.leaky_relu(x, alpha),
    "Elu": lambda x, alpha: F.elu(x, alpha),
    "Selu": lambda x, alpha, gamma: gamma * F.elu(x, alpha),
    "Gelu": lambda x, approximate: F.gelu(x, approximate=approximate),
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "HardSigmoid": lambda x, alpha, beta: torch.clamp(alpha * x + beta, 0.0, 1.0),
    "Mish": F.mish,
    "Swish": F.silu,
    "Identity": lambda x: x,
    "Gemm": _gemm,
    "MatMul": torch.matmul,
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Flatten": lambda x, axis: x.reshape(int(np.prod(x.shape[:axis])), -1),
    "Reshape": lambda x, shape, allowzero: x.reshape([x.shape[i] if d == 0 else d for i, d in enumerate(shape.tolist())]),
    "Transpose": lambda x, perm: x.permute(perm),
    "Concat": lambda *xs, axis: torch.cat(xs, dim=axis),
    "ReduceMean": _reduce(torch.mean),
    "ReduceSum": _reduce(torch.sum),
    "SoftmaxCrossEntropyLoss": _cross_entropy,
}


def supported(network: Network) -> bool:
    return all(isinstance(node, ir.Node) and node.op_type in OPERATORS for node in network.model.graph)
