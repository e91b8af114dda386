"""Transformers as plain PyTorch has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.exports.architectures.recurrent import Classified, series
from benchmarks.exports.exporting import DYNAMO, SEED, Architecture


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    return Classified(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), 8)


class Decoder(nn.Module):
    """Tokens with learned positions, causal self-attention and attention to a memory."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(13, 8), nn.Embedding(32, 8)
        layer = nn.TransformerDecoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.body, self.head = nn.TransformerDecoder(layer, 1), nn.Linear(8, 13)

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        time = tokens.shape[1]
        x = self.tokens(tokens) + self.places(torch.arange(time, device=tokens.device))
        mask = torch.triu(torch.full((time, time), float("-inf")), 1).to(x.dtype)
        return self.head(self.body(x, memory, tgt_mask=mask, tgt_is_causal=True))


def translated(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    tokens = torch.randint(0, 13, (batch, batch + 3), generator=generator)
    return {"tokens": tokens, "memory": torch.randn(batch, 2 * batch + 3, 8, generator=generator)}


ARCHITECTURES = (
    Architecture("encoder", "Transformer encoder", encoder, series(8), "cross_entropy", DYNAMO, 18),
    Architecture("encoder_torchscript", "Transformer encoder", encoder, series(8), "cross_entropy", opset=14, form=SEED),
    Architecture("decoder", "Transformer decoder", Decoder, translated, "tokens", opset=17),
    Architecture("decoder_dynamo", "Transformer decoder", Decoder, translated, "tokens", DYNAMO, 23),
)
