"""The same networks as others have them: torchvision, timm, transformers, or PyTorch's own modules.

``build`` makes the PyTorch module, ``published`` is the number of its parameters, and ``source`` says who states it or how it is
counted. ``variant`` and ``settings`` bring our model to what the module computes: no dropout, a smaller picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from benchmarks.models import pictures, sequences


@dataclass(frozen=True)
class Reference:
    source: str
    published: int
    build: Callable[[], nn.Module] | None = None
    settings: tuple[str, ...] = ()
    variant: str | None = None
    batch: int = 2


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


def _depth(depth: int) -> tuple[str, ...]:
    return (f"depth={depth}",)


REFERENCES: dict[str, Reference] = {
    "lenet5": Reference("LeCun et al. 1998, C3 joined to all of S2", 61_706, pictures.lenet5),
    "vgg16": Reference(
        "torchvision vgg16",
        138_357_544,
        lambda: pictures.vgg16(32, 4096),
        (_small(32), "layers.dropout_1.rate=0.0", "layers.dropout_2.rate=0.0"),
    ),
    "resnet18": Reference("torchvision resnet18", 11_689_512, _torchvision("resnet18"), (_small(64),), batch=4),
    "resnet50": Reference("torchvision resnet50", 25_557_032, _torchvision("resnet50"), (_small(64),), batch=4),
    "resnet110": Reference(
        "He et al. 2016, table 6: 1.7M; option A", 1_727_962, lambda: pictures.resnet110(3), _depth(3)
    ),
    "preact_resnet": Reference(
        "He et al. 2016 (Identity Mappings): 1.7M for ResNet-164", 1_703_258, lambda: pictures.preact_resnet(2), _depth(2)
    ),
    "densenet_bc": Reference(
        "Huang et al. 2017, table 2: 0.8M for L=100, k=12", 769_162, lambda: pictures.densenet_bc(4, 12), _depth(4)
    ),
    "mobilenet_v2": Reference(
        "torchvision mobilenet_v2", 3_504_872, _torchvision("mobilenet_v2"), (_small(64), "layers.dropout.rate=0"), batch=4
    ),
    "efficientnet_b0": Reference(
        "torchvision efficientnet_b0",
        5_288_548,
        _torchvision("efficientnet_b0"),
        (_small(64), "layers.dropout.rate=0"),
        batch=4,
    ),
    "convnext_t": Reference("torchvision convnext_tiny", 28_589_128, _torchvision("convnext_tiny"), (_small(64),)),
    "unet": Reference(
        "Ronneberger et al. 2015: 31M",
        31_030_658,
        lambda: pictures.UNet(64),
        ("inputs.image.shape=[batch, 1, 32, 32]", "inputs.label.shape=[batch, 32, 32]"),
    ),
    "lstm_classifier": Reference("PyTorch nn.LSTM, nn.Linear", 76_042, sequences.lstm_classifier),
    "gru_classifier": Reference("PyTorch nn.Embedding, nn.GRU, nn.Linear", 509_954, sequences.gru_classifier),
    "elman_rnn": Reference("PyTorch nn.RNN, nn.Linear", 19_978, sequences.elman_rnn),
    "transformer_prenorm": Reference(
        "PyTorch nn.TransformerEncoder", 38_342_658, lambda: sequences.transformer(2, 512, 8, 2048, pre=True), _depth(2)
    ),
    "transformer_postnorm": Reference(
        "PyTorch nn.TransformerEncoder", 38_341_634, lambda: sequences.transformer(2, 512, 8, 2048, pre=False), _depth(2)
    ),
    "gpt2_small": Reference(
        "transformers gpt2, output tied",
        124_439_808,
        lambda: sequences.gpt2(depth=2, width=64, heads=4, time=32, words=500),
        ("layers.dropout.rate=0", "layers.block.dropout=0"),
        variant="tiny",
    ),
    "vit_s": Reference(
        "timm vit_small_patch16_224",
        22_050_664,
        lambda: sequences.vit_s(2, 384, 6, 64),
        ("depth=2", _small(64)),
    ),
    "mlp_mixer": Reference("timm mixer_s16_224", 18_528_264, _timm("mixer_s16_224"), batch=1),
    "highway": Reference(
        "Srivastava et al. 2015: 50 layers of 50 units, counted", 258_760, lambda: sequences.highway(50), batch=4
    ),
    "fixup": Reference("Zhang et al. 2019: ResNet-110 without norms, 1.7M", 1_720_138, lambda: pictures.fixup(3), _depth(3)),
    "skipinit": Reference("De and Smith 2020, counted", 1_726_624, lambda: pictures.skipinit(3), _depth(3)),
}
