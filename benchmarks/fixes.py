"""What `vgcompile fix` advises, verified: each unhealthy model before and after its first change, measured and trained.

    python -m benchmarks.fixes [MODEL.yaml[:VARIANT] ...] [--steps 300] [--largest 5000000]

Training is plain SGD over NAME.grad.onnx, on batches of the model's own data in one order; the loss is that of other batches.
Every net gets the rate of 0.001, 0.003, ... 3.0 that leaves it with the least loss, of the three that do so after a fifth of the
steps, so that neither is held back by the other's. A loss falls where it ends below 0.8 of where it began:
a net that learns nothing of its inputs comes to 0.91, by its last bias.

A model without data of its own is given a task that its inputs decide: each class has a pattern, drawn once, that is added, twice
as large, to the noise of its samples; in a recurrent net to the first tenth of the steps alone, so that it has to be remembered
(the latch problem of Bengio, Simard and Frasconi 1994, section II). No noise comes twice: nothing can be learned by heart.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.progress import track

import vgcompile
from vgcompile.analysis import Options
from vgcompile.fixing.advice import advice, in_all_tiers
from vgcompile.fixing.trial import Model
from vgcompile.graph.network import Network
from vgcompile.passes.check import check
from vgcompile.passes.gradient import gradient
from vgcompile.runtime.data import batch
from vgcompile.runtime.session import Session

ROOT = Path(__file__).parents[1]
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
FINALISTS = 3
FALLS = 0.8
BATCHES = 16  # that the loss is taken over
STRENGTH = 2.0
LATCHED = 0.1  # of the steps show the class

Array = np.ndarray[Any, Any]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.fixes", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL.yaml[:VARIANT]", help="else all unhealthy ones of models/")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--largest", type=int, default=5_000_000, help="parameters of a net that is trained")
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args(arguments)
    failed = 0
    print(f"{'model':28}{'change':34}{'gain before':>12}{'after':>8}{'verdict':>10}{'loss before':>18}{'loss after':>18}")
    for subject in given.models or unhealthy(given.batch):
        path, _, variant = subject.partition(":")
        name, options = Path(subject).name.replace(".yaml", ""), Options(batch=given.batch)
        found = advice(Model(path, Path(path).read_text(), variant or None), options)
        if not found.helpful:
            failed += 1
            print(f"{name:28}nothing helps", flush=True)
            continue
        best = found.helpful[0]
        before, after = (analysis for _, analysis in islice(in_all_tiers(found, options), 2))
        small = max(best.parameters, found.start.parameters) <= given.largest
        losses = [trained(net, given.steps, given.batch) if small else None for net in (found.start.network, best.network)]
        healed = after.verdict.kind == "healthy" and (losses[1] is None or falls(losses[1]))
        failed += not healed
        gains = (measured(before), measured(after))
        print(
            f"{name:28}{best.name:34}{gains[0]:>12}{gains[1]:>8}{after.verdict.kind:>10}"
            + "".join(f"{told(pair):>18}" for pair in losses)
            + ("" if healed else "  NOT HEALED"),
            flush=True,
        )
    return int(failed > 0)


def unhealthy(size: int) -> list[str]:
    """All models, and variants of them, whose measured verdict is ill."""
    paths = sorted((ROOT / "models").glob("*.yaml"))
    subjects = [
        (path, variant) for path in paths for variant in (None, *(yaml.safe_load(path.read_text()).get("variants") or ()))
    ]
    found = []
    for path, variant in track(subjects, "looking for unhealthy models", transient=True):
        network = vgcompile.open_network(path, variant=variant)
        name = f"{path}:{variant}" if variant else str(path)
        if sum(network.sizes().values()) > 60_000_000:
            print(f"{name}: more than 60 million parameters, passed over", file=sys.stderr)
        elif vgcompile.analyze(network, Options(batch=size, tiers=("expected", "measured"))).verdict.ill:
            found.append(name)
    return found


def measured(analysis: Any) -> str:
    layer = analysis.worst_layer
    assert layer is not None
    return layer.worst.why.get("measured", "") if layer.worst.measured is None else f"{layer.worst.measured:.2f}"


def falls(losses: tuple[float, float]) -> bool:
    return math.isfinite(losses[1]) and losses[1] < FALLS * losses[0]


def told(losses: tuple[float, float] | None) -> str:
    return "not trained" if losses is None else f"{losses[0]:.3f} -> {losses[1]:.3f}"


def trained(network: Network, steps: int, size: int) -> tuple[float, float]:
    """Mean loss over other batches before, and after so many steps at the rate that serves the net best."""
    session = Session(check(gradient(network)))
    feeds = [shown(network, batch(network, size=size, seed=seed)) for seed in range(steps + BATCHES)]
    others, feeds = feeds[steps:], feeds[:steps]
    start = network.parameter_values()
    before = loss_over(session, network, others, start)

    def left(rate: float, count: int) -> float:
        found = loss_over(session, network, others, descend(session, network, feeds[:count], start, rate))
        return found if math.isfinite(found) else math.inf

    after_a_fifth = {rate: left(rate, steps // 5) for rate in RATES}
    return before, min(left(rate, steps) for rate in sorted(RATES, key=lambda rate: after_a_fifth[rate])[:FINALISTS])


def shown(network: Network, feed: Mapping[str, Array]) -> dict[str, Array]:
    """A batch whose inputs tell its classes: a model's own data, or noise with a pattern of each sample's class."""
    labels = [(feed[name], given.classes) for name, given in network.inputs.items() if given.role == "target" and given.classes]
    if network.data is not None or len(labels) != 1 or labels[0][0].ndim != 1:
        return dict(feed)
    ((drawn, classes),) = labels
    recurrent = any(node.op_type in ("RNN", "GRU", "LSTM") for node in network.model.graph)
    made = dict(feed)
    for name, given in network.inputs.items():
        if given.role == "input" and feed[name].dtype.kind == "f":
            patterns = np.random.default_rng(0).standard_normal((classes, *feed[name].shape[1:]))
            if recurrent:
                patterns[:, round(LATCHED * patterns.shape[1]) :] = 0.0
            made[name] = (feed[name] + STRENGTH * patterns[drawn]).astype(feed[name].dtype)
    return made


def descend(
    session: Session, network: Network, feeds: Sequence[Mapping[str, Array]], start: Mapping[str, Array], rate: float
) -> dict[str, Array]:
    held = dict(start)
    names = [f"grad.{name}" for name in held]
    for feed in feeds:
        slopes = session.run(names, {**needed(session, feed), **held})
        held = {name: np.asarray(array - np.float32(rate) * slopes[f"grad.{name}"]) for name, array in held.items()}
    return held


def loss_over(session: Session, network: Network, feeds: Sequence[Mapping[str, Array]], held: Mapping[str, Array]) -> float:
    assert network.loss is not None
    found = [session.run([network.loss], {**needed(session, feed), **held})[network.loss] for feed in feeds]
    return float(np.mean(found))


def needed(session: Session, feed: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in feed.items() if name in session.required}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
