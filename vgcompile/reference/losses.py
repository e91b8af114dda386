"""Losses by differences of logarithms: the evaluator takes that of a probability, which is 0 where a score is far behind."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

Array = np.ndarray[Any, Any]


def log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)), x.dtype)


class LogSoftmax(OpRun):
    op_domain = ""

    def _run(self, x: Array, axis: int = -1) -> tuple[Array]:
        return (log_softmax(x, -1 if axis is None else axis),)


class SoftmaxCrossEntropyLoss(OpRun):
    op_domain = ""

    def _run(
        self,
        x: Array,
        labels: Array,
        weights: Array | None = None,
        ignore_index: int | None = None,
        reduction: str | None = None,
    ) -> tuple[Array, ...]:
        """``x`` is [N, C, ...], ``labels`` [N, ...]; the mean is over the weights of the labels that count."""
        scores = log_softmax(x, 1)
        counts = np.ones(labels.shape, bool) if ignore_index is None else labels != ignore_index
        known = np.where(counts, labels, 0)
        share = np.where(counts, 1.0 if weights is None else weights[known], 0.0)
        loss = -np.take_along_axis(scores, np.expand_dims(known, 1), 1).squeeze(1) * share
        reduced = {"none": loss, "sum": loss.sum()}.get(reduction or "mean")
        reduced = loss.sum() / share.sum() if reduced is None else reduced
        return (np.asarray(reduced, x.dtype), scores)[: len(self.output)]


OPERATORS = (LogSoftmax, SoftmaxCrossEntropyLoss)
