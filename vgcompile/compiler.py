"""The compiler, read from top to bottom: a file is opened, compiled and checked, one call per arrow.

    models/x.yaml -- spec.load --> Spec -- build --> Network (THE graph) -- inference --> NAME.onnx
    x.onnx -------- graph.load --------------------> Network ------------- gradient ---> NAME.grad.onnx

An arrow bears the name of the module or pass that takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vgcompile.errors import UserError
from vgcompile.graph.pause import uncollected

if TYPE_CHECKING:
    import onnx

    from vgcompile.analysis import Analysis, Options
    from vgcompile.graph.network import Network
    from vgcompile.graph.skeleton import Outline


@dataclass(frozen=True)
class Compiled:
    """The graphs of one network, by file name: ``NAME.onnx`` and, where it has a loss, ``NAME.grad.onnx``.

    Their weights are drawn when they are asked for: ``write`` holds one of them at a time, what is in memory holds all.
    """

    name: str
    outlines: Mapping[str, Outline]

    @cached_property
    def forward(self) -> onnx.ModelProto:
        return self.outlines[f"{self.name}.onnx"].whole()

    @cached_property
    def gradient(self) -> onnx.ModelProto | None:
        joint = self.outlines.get(f"{self.name}.grad.onnx")
        return None if joint is None else joint.whole()

    @property
    def files(self) -> dict[str, bytes]:
        """The content of each file, weights and all, which must be less than 2 GB."""
        protos = zip(self.outlines, (self.forward, self.gradient), strict=False)
        return {name: proto.SerializeToString(deterministic=True) for name, proto in protos if proto is not None}

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write the files; returns them. Weights of more than 256 MB lie in ``NAME.data`` beside, which both graphs read.

        Raises UserError where the place cannot be written."""
        from vgcompile.graph.storing import save_models

        folder = Path(folder)
        return save_models({folder / name: outline for name, outline in self.outlines.items()}, folder / f"{self.name}.data")


@uncollected()
def open_network(
    given: str | Path | onnx.ModelProto | Network,
    *,
    loss: str | None = None,
    output: str | None = None,
    mode: Literal["training", "inference"] = "training",
    seed: int | None = None,
    variant: str | None = None,
    settings: Sequence[str] = (),
    batch_axes: Mapping[str, int] | int | None = None,
) -> Network:
    """Read a YAML model, an ONNX file or an ONNX model in memory into a Network; a network is handed back as it is.

    ``loss`` and ``output`` name values of an ONNX file, ``batch_axes`` the axes of its inputs that count samples; ``variant``
    names one of a YAML model's, ``settings`` (``depth=50``) replace values of it. Raises SpecError with every complaint about a
    YAML model, ModelError for an ONNX file that cannot be taken, UserError for a missing file.
    """
    if not isinstance(given, str | Path):
        return _opened(given, loss, output, mode, batch_axes)
    path = Path(given)
    if path.is_dir():
        raise UserError(f"{path}: a folder; give a YAML model or an .onnx file")
    if not path.exists():
        raise UserError(f"{path}: no such file; give a YAML model or an .onnx file")
    if path.suffix == ".onnx":
        if variant is not None or settings:
            raise UserError(f"{path}: --variant and --set are for YAML models")
        from vgcompile.graph.load import load

        return _in_mode(load(path, loss=loss, output=output, batch_axes=batch_axes), mode)
    if batch_axes is not None:
        raise UserError(f"{path}: --batch-axis is for .onnx files; the first axis of a YAML model's inputs counts samples")
    if loss is not None or output is not None:
        raise UserError(f"{path}: --loss and --output name values of an .onnx file; a YAML model states its loss itself")
    from vgcompile import spec

    # The text is read and judged before anything heavy is imported: a complaint comes at once.
    loaded = spec.load(path, variant=variant, settings=settings)
    from vgcompile.build import build

    return _in_mode(build(loaded, seed=seed), mode)


def _opened(
    given: onnx.ModelProto | Network,
    loss: str | None,
    output: str | None,
    mode: Literal["training", "inference"],
    batch_axes: Mapping[str, int] | int | None,
) -> Network:
    from vgcompile.graph.load import load
    from vgcompile.graph.network import Network

    if isinstance(given, Network):
        return given
    return _in_mode(load(given, loss=loss, output=output, batch_axes=batch_axes), mode)


def analyze(
    model: str | Path | onnx.ModelProto | Network,
    options: Options | None = None,
    progress: Callable[[str], None] = lambda stage: None,
) -> Analysis:
    """How much gradient gets through every edge of a model: a file, an ONNX model in memory, or a network.

    Raises what ``open_network`` does, DataError for data that do not fit, GradientRefused where the measured tier meets an
    operator without a gradient rule. ``progress`` is told the name of each stage as it begins.
    """
    from vgcompile import analysis

    options = options or analysis.Options()
    return analysis.analyze(open_network(model, mode=options.mode), options, progress)


def _in_mode(network: Network, mode: Literal["training", "inference"]) -> Network:
    if mode == "inference":
        from vgcompile.passes.inference import as_inference

        as_inference(network.model)
    return network


def compile_network(network: Network) -> Compiled:
    """Forward and joint graph as checked ONNX. A network without a loss has no joint graph.

    Raises GradientRefused where an operator has no gradient rule for its case.
    """
    from vgcompile.passes.check import verified
    from vgcompile.passes.gradient import gradient
    from vgcompile.passes.inference import inference

    outlines = {f"{network.name}.onnx": verified(inference(network))}
    if network.loss is not None:
        outlines[f"{network.name}.grad.onnx"] = verified(gradient(network))
    return Compiled(network.name, outlines)
