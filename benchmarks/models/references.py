"""The same networks as others have them: torchvision, timm, transformers, PyTorch's own modules, or plain PyTorch after a paper.

``published`` is the number of parameters, and ``source`` says who states it or how it is counted. ``build`` makes the PyTorch
module; ``sizes`` are its arguments and our file's ``params`` in one. ``settings`` bring our model to what the module computes: no
dropout, a smaller picture. ``small`` are sizes for a quick comparison, where the file may be made small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from benchmarks.models import pictures, sequences


@dataclass(frozen=True)
class Reference:
    source: str
    published: int
    build: Callable[..., nn.Module]
    sizes: Mapping[str, int] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    batch: int = 2
    small: Mapping[str, int] | None = None


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        module: nn.Module = getattr(torchvision.models, name)()
        return _without_noise(module)

    return build


def _timm(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        module: nn.Module = timm.create_model(name)
        return _without_noise(module)

    return build


def _without_noise(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Dropout) or type(part).__name__ in ("StochasticDepth", "DropPath"):
            part.p = 0.0  # type: ignore[assignment]
    return module


def _small(size: int) -> str:
    return f"inputs.image.shape=[batch, 3, {size}, {size}]"


_WITHOUT_DROPOUT = (_small(64), "layers.dropout.rate=0")
_TRANSFORMER = {"depth": 12, "width": 512, "heads": 8}

REFERENCES: dict[str, Reference] = {
    "lenet5": Reference("LeCun et al. 1998, C3 joined to all of S2", 61_706, pictures.lenet5, small={}),
    "vgg16": Reference(
        "torchvision vgg16",
        138_357_544,
        partial(pictures.vgg16, size=32),
        settings=(_small(32), "layers.dropout_1.rate=0", "layers.dropout_2.rate=0"),
    ),
    "resnet18": Reference("torchvision resnet18", 11_689_512, _torchvision("resnet18"), settings=(_small(64),), batch=4),
    "resnet50": Reference("torchvision resnet50", 25_557_032, _torchvision("resnet50"), settings=(_small(64),), batch=4),
    "resnet110": Reference(
        "He et al. 2016, table 6: 1.7M; option A", 1_727_962, pictures.resnet110, {"depth": 18}, small={"depth": 2}
    ),
    "preact_resnet": Reference(
        "He et al. 2016 (Identity Mappings): 1.7M for ResNet-164",
        1_703_258,
        pictures.preact_resnet,
        {"depth": 18},
        small={"depth": 2},
    ),
    "densenet_bc": Reference(
        "Huang et al. 2017, table 2: 0.8M for L=100, k=12",
        769_162,
        pictures.densenet_bc,
        {"depth": 16, "growth": 12},
        small={"depth": 2, "growth": 4},
    ),
    "mobilenet_v2": Reference(
        "torchvision mobilenet_v2", 3_504_872, _torchvision("mobilenet_v2"), settings=_WITHOUT_DROPOUT, batch=4
    ),
    "efficientnet_b0": Reference(
        "torchvision efficientnet_b0", 5_288_548, _torchvision("efficientnet_b0"), settings=_WITHOUT_DROPOUT, batch=4
    ),
    "convnext_t": Reference("torchvision convnext_tiny", 28_589_128, _torchvision("convnext_tiny"), settings=(_small(64),)),
    "unet": Reference(
        "Ronneberger et al. 2015: 31M",
        31_030_658,
        pictures.UNet,
        settings=("inputs.image.shape=[batch, 1, 64, 64]", "inputs.label.shape=[batch, 64, 64]"),
    ),
    "lstm_classifier": Reference(
        "PyTorch nn.LSTM, nn.Linear", 76_042, sequences.lstm_classifier, {"units": 128}, small={"units": 16}
    ),
    "gru_classifier": Reference(
        "PyTorch nn.Embedding, nn.GRU, nn.Linear", 509_954, sequences.gru_classifier, {"units": 128}, small={"units": 16}
    ),
    "elman_rnn": Reference("PyTorch nn.RNN, nn.Linear", 19_978, sequences.elman_rnn, {"units": 128}, small={"units": 16}),
    "transformer_prenorm": Reference(
        "PyTorch nn.TransformerEncoder",
        38_342_658,
        partial(sequences.transformer, pre=True),
        _TRANSFORMER,
        small={"depth": 2, "width": 64, "heads": 4},
    ),
    "transformer_postnorm": Reference(
        "PyTorch nn.TransformerEncoder",
        38_341_634,
        partial(sequences.transformer, pre=False),
        _TRANSFORMER,
        small={"depth": 2, "width": 64, "heads": 4},
    ),
    "gpt2_small": Reference(
        "transformers gpt2, output tied",
        124_439_808,
        sequences.gpt2,
        {"depth": 12, "width": 768, "heads": 12, "time": 64, "words": 50257},
        settings=("layers.dropout.rate=0", "layers.block.dropout=0"),
        small={"depth": 2, "width": 64, "heads": 4, "time": 32, "words": 500},
    ),
    "vit_s": Reference(
        "timm vit_small_patch16_224",
        22_050_664,
        sequences.vit_s,
        {"depth": 12, "width": 384, "heads": 6},
        small={"depth": 1, "width": 48, "heads": 4},
        batch=1,
    ),
    "mlp_mixer": Reference("timm mixer_s16_224", 18_528_264, _timm("mixer_s16_224"), batch=1),
    "highway": Reference(
        "Srivastava et al. 2015: 50 layers of 50 units, counted",
        258_760,
        sequences.highway,
        {"depth": 50},
        small={"depth": 4},
    ),
    "fixup": Reference(
        "Zhang et al. 2019: ResNet-110 without norms, 1.7M", 1_720_138, pictures.fixup, {"depth": 18}, small={"depth": 2}
    ),
    "skipinit": Reference("De and Smith 2020, counted", 1_726_624, pictures.skipinit, {"depth": 18}, small={"depth": 2}),
}
