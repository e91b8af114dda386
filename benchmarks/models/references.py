"""The same networks as others have them: torchvision, timm, transformers, or PyTorch's own modules.

``build`` makes the PyTorch module, ``published`` is the number of its parameters, and ``source`` says who states it or how it is
counted. ``variant`` and ``settings`` bring our model to what the module computes: no dropout, a smaller picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn


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


def _gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return _without_noise(GPT2LMHeadModel(GPT2Config(vocab_size=500, n_positions=32, n_embd=64, n_layer=2, n_head=4)))


def _without_noise(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Dropout) or type(part).__name__ in ("StochasticDepth", "DropPath"):
            part.p = 0.0  # type: ignore[assignment]
    return module


class _Classified(nn.Module):
    """A recurrent network whose last states are classified."""

    def __init__(self, memory: nn.RNNBase, classes: int, embedding: nn.Module | None = None) -> None:
        super().__init__()
        self.embedding, self.memory = embedding, memory
        self.logits = nn.Linear(memory.hidden_size * (2 if memory.bidirectional else 1), classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, last = self.memory(x if self.embedding is None else self.embedding(x))
        last = last[0] if isinstance(last, tuple) else last
        ends = torch.cat([last[-2], last[-1]], -1) if self.memory.bidirectional else last[-1]
        return self.logits(ends)  # type: ignore[no-any-return]


class _Encoder(nn.Module):
    """PyTorch's encoder over words, with sinusoidal positions; the first position is classified."""

    def __init__(self, depth: int, pre: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 512)
        block = nn.TransformerEncoderLayer(512, 8, 2048, 0.0, batch_first=True, norm_first=pre)
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(512) if pre else None, enable_nested_tensor=False)
        self.logits = nn.Linear(512, 2)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        place = torch.arange(words.shape[1], dtype=torch.float64)[:, None]
        wave = place * 10_000.0 ** (-torch.arange(0, 512, 2, dtype=torch.float64) / 512)
        x = self.embedding(words)
        positions = torch.stack([wave.sin(), wave.cos()], -1).reshape(words.shape[1], 512).to(x.dtype)
        return self.logits(self.blocks(x + positions)[:, 0])  # type: ignore[no-any-return]


def _small(size: int) -> str:
    return f"inputs.image.shape=[batch, 3, {size}, {size}]"


REFERENCES: dict[str, Reference] = {
    "lenet5": Reference("LeCun et al. 1998, C3 joined to all of S2", 61_706),
    "vgg16": Reference(
        "torchvision vgg16", 138_357_544, _torchvision("vgg16"), ("layers.dropout_1.rate=0.0", "layers.dropout_2.rate=0.0"), batch=1
    ),
    "resnet18": Reference("torchvision resnet18", 11_689_512, _torchvision("resnet18"), (_small(64),), batch=8),
    "resnet50": Reference("torchvision resnet50", 25_557_032, _torchvision("resnet50"), (_small(64),), batch=8),
    "resnet110": Reference("He et al. 2016, table 6: 1.7M; option A", 1_727_962),
    "preact_resnet": Reference("He et al. 2016 (Identity Mappings): 1.7M for ResNet-164", 1_703_258),
    "densenet_bc": Reference("Huang et al. 2017, table 2: 0.8M for L=100, k=12", 769_162),
    "mobilenet_v2": Reference(
        "torchvision mobilenet_v2", 3_504_872, _torchvision("mobilenet_v2"), (_small(64), "layers.dropout.rate=0.0"), batch=8
    ),
    "efficientnet_b0": Reference(
        "torchvision efficientnet_b0", 5_288_548, _torchvision("efficientnet_b0"), (_small(64), "layers.dropout.rate=0.0"), batch=8
    ),
    "convnext_t": Reference("torchvision convnext_tiny", 28_589_128, _torchvision("convnext_tiny"), (_small(64),)),
    "unet": Reference("Ronneberger et al. 2015: 31M", 31_030_658),
    "lstm_classifier": Reference("PyTorch nn.LSTM, nn.Linear", 76_042),
    "gru_classifier": Reference("PyTorch nn.Embedding, nn.GRU, nn.Linear", 509_954),
    "elman_rnn": Reference("PyTorch nn.RNN, nn.Linear", 19_978, lambda: _Classified(nn.RNN(16, 128, batch_first=True), 10)),
    "transformer_prenorm": Reference("PyTorch nn.TransformerEncoder", 38_342_658),
    "transformer_postnorm": Reference("PyTorch nn.TransformerEncoder", 38_341_634),
    "gpt2_small": Reference("transformers gpt2, output tied", 124_439_808),
    "vit_s": Reference("timm vit_small_patch16_224", 22_050_664),
    "mlp_mixer": Reference("timm mixer_s16_224", 18_528_264, _timm("mixer_s16_224"), batch=1),
    "highway": Reference("Srivastava et al. 2015: 50 layers of 50 units, counted", 258_760),
    "fixup": Reference("Zhang et al. 2019: ResNet-110 without norms, 1.7M", 1_720_082),
    "skipinit": Reference("De and Smith 2020, counted", 1_726_624),
}
