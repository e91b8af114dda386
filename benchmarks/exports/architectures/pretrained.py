"""Architectures of the library transformers, of random weights and a small configuration; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.exports.exporting import DYNAMO, SEED, Architecture


class Answer(nn.Module):
    """One tensor of what a model answers."""

    def __init__(self, model: nn.Module, field: str, given: str) -> None:
        super().__init__()
        self.model, self.field, self.given = model, field, given.split()

    def forward(self, *inputs: Tensor) -> Tensor:
        answer = self.model(**dict(zip(self.given, inputs, strict=True)))
        return getattr(answer, self.field)


def of(kind: str, field: str, given: str, attention: str | None = "sdpa", **settings: object) -> Callable[[], nn.Module]:
    """``transformers.<kind>`` at a small configuration; it answers with ``field`` when ``given`` these inputs."""

    def build() -> nn.Module:
        import transformers  # slow to import, and only these models need it

        made = getattr(transformers, kind)
        config = made.config_class(**settings)
        config.use_cache = False
        if attention is not None:
            config._attn_implementation = attention
        return Answer(made(config), field, given)

    return build


SMALL = {"vocab_size": 17, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
QUIET = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tokens(*names: str, time: int = 4, grow: int = 1):
    def draw(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
        shape = (batch, time + grow * batch)
        drawn = {name: torch.randint(3, 17, shape, generator=generator) for name in names}
        if "attention_mask" in drawn:
            drawn["attention_mask"] = torch.ones(shape, dtype=torch.int64)
            drawn["attention_mask"][:, -1] = torch.arange(batch) % 2
        return drawn

    return draw


def pictures(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(batch, 3, 16, 16, generator=generator)}


def spectra(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"input_features": torch.randn(batch, 6, 16, generator=generator)}


def waves(batch: int, generator: torch.Generator) -> dict[str, Tensor]:
    return {"input_values": torch.randn(batch, 160 + 40 * batch, generator=generator)}


BERT = of(
    "BertForTokenClassification", "logits", "input_ids attention_mask", **SMALL, **QUIET, num_labels=5, max_position_embeddings=32
)
GPT2 = of("GPT2LMHeadModel", "logits", "input_ids", vocab_size=17, n_embd=8, n_layer=2, n_head=2, n_positions=32)
LLAMA = of("LlamaForCausalLM", "logits", "input_ids", **SMALL, num_key_value_heads=1, max_position_embeddings=32)
T5 = of(
    "T5ForConditionalGeneration",
    "logits",
    "input_ids decoder_input_ids",
    attention="eager",
    vocab_size=17,
    d_model=8,
    d_kv=4,
    d_ff=16,
    num_layers=1,
    num_heads=2,
    dropout_rate=0.0,
)
VIT = of(
    "ViTForImageClassification",
    "logits",
    "pixel_values",
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=16,
    patch_size=4,
    num_labels=5,
)
WAV2VEC2 = of(
    "Wav2Vec2ForCTC",
    "logits",
    "input_values",
    **SMALL,
    conv_dim=(4, 4),
    conv_stride=(5, 2),
    conv_kernel=(10, 3),
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
)


def whisper() -> nn.Module:
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = WhisperConfig(
        d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, num_mel_bins=6, max_source_positions=8
    )
    config._attn_implementation = "sdpa"
    return Answer(WhisperEncoder(config), "last_hidden_state", "input_features")


MAMBA = of(
    "MambaForCausalLM",
    "logits",
    "input_ids",
    attention=None,
    vocab_size=17,
    hidden_size=8,
    state_size=3,
    num_hidden_layers=1,
    expand=1,
)

ARCHITECTURES = (
    Architecture("bert", "BERT", BERT, tokens("input_ids", "attention_mask"), "tokens", DYNAMO, 18),
    Architecture("bert_torchscript", "BERT", BERT, tokens("input_ids", "attention_mask"), "tokens", opset=14, form=SEED),
    Architecture("gpt2", "GPT-2", GPT2, tokens("input_ids"), "tokens", DYNAMO, 18),
    Architecture("llama", "Llama", LLAMA, tokens("input_ids"), "tokens", DYNAMO, 18),
    # ONNX Runtime wants the caches of RotaryEmbedding in the batch of its input; the exporter writes one
    Architecture("llama_attention", "Llama", LLAMA, tokens("input_ids"), "tokens", DYNAMO, 23, form=SEED, batches=(1,)),
    Architecture("t5", "T5", T5, tokens("input_ids", "decoder_input_ids"), "tokens", DYNAMO, 18),
    Architecture("vit", "ViT", VIT, pictures, "cross_entropy", DYNAMO, 18),
    Architecture("whisper", "Whisper encoder", whisper, spectra, "mse", DYNAMO, 18),
    Architecture("wav2vec2", "wav2vec 2.0", WAV2VEC2, waves, "tokens", DYNAMO, 18, folding=False),
    Architecture("mamba", "Mamba", MAMBA, tokens("input_ids", grow=0), "tokens", opset=17),
)
