"""Sequential layers beside PyTorch's: what a person writes, and the same function of the same parameters in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Parameters = Mapping[str, Tensor]
SEQUENCE = "{shape: [batch, 5, 8]}"
WORDS = "{shape: [batch, 5], type: int64, classes: 7}"
VISIBLE = "{shape: [batch, 5], type: int64, classes: 2}"


@dataclass(frozen=True)
class Case:
    """``layers`` are flow mappings, one a line, of a model with ``inputs``; ``oracle`` takes the inputs' values in order, and the
    parameters by name."""

    layers: str
    oracle: Callable[..., Tensor]
    inputs: Mapping[str, str] = field(default_factory=lambda: {"x": SEQUENCE})

    @property
    def text(self) -> str:
        """The model file."""
        inputs = "".join(f"  {name}: {stated}\n" for name, stated in self.inputs.items())
        return f"inputs:\n{inputs}layers:\n" + "".join(f"  - {line.strip()}\n" for line in self.layers.strip().splitlines())


def called(module: nn.Module, weights: Mapping[str, Tensor], *given: Any, **options: Any) -> Any:
    """A module of torch's, in float64, with these weights in place of its own."""
    return functional_call(module.double(), dict(weights), given, options)


# ---- recurrent layers

# PyTorch's order of gates, as places in ONNX's
ORDER = {"rnn": (0,), "gru": (1, 0, 2), "lstm": (0, 2, 3, 1)}
NAMES = {"weight_ih": "weight", "weight_hh": "recurrent_weight", "bias_ih": "bias", "bias_hh": "recurrent_bias"}


def recurrent(
    kind: str, *, layers: int = 1, both: bool = False, last: bool = False, bias: bool = True, **options: Any
) -> Callable[..., Tensor]:
    def oracle(x: Tensor, p: Parameters) -> Tensor:
        weights: dict[str, Tensor] = {}
        for level in range(layers):
            for suffix, way in (("", "forward/" if both else ""), ("_reverse", "backward/"))[: 1 + both]:
                place = f"{kind}/{level + 1}/{way}" if layers > 1 else f"{kind}/{way}"
                for theirs, ours in NAMES.items() if bias else list(NAMES.items())[:2]:
                    gates = p[place + ours].chunk(len(ORDER[kind]))
                    weights[f"{theirs}_l{level}{suffix}"] = torch.cat([gates[gate] for gate in ORDER[kind]])
        made = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[kind]
        module = made(8, 6, layers, bias=bias, batch_first=True, bidirectional=both, **options)
        y, end = called(module, weights, x)
        state = end[0] if kind == "lstm" else end
        return torch.cat(list(state[-1 - both :]), -1) if last else y  # type: ignore[no-any-return]

    return oracle


def reset_before(x: Tensor, p: Parameters) -> Tensor:
    """Cho et al. 2014, eq. 5 to 8, step by step; gates in the order z, r, n."""
    (wz, wr, wn), (rz, rr, rn) = p["gru/weight"].chunk(3), p["gru/recurrent_weight"].chunk(3)
    bz, br, bn = (p["gru/bias"] + p["gru/recurrent_bias"]).chunk(3)
    h, states = x.new_zeros(len(x), 6), []
    for now in x.unbind(1):
        z, r = torch.sigmoid(now @ wz.T + h @ rz.T + bz), torch.sigmoid(now @ wr.T + h @ rr.T + br)
        h = (1 - z) * torch.tanh(now @ wn.T + (r * h) @ rn.T + bn) + z * h
        states.append(h)
    return torch.stack(states, 1)


RECURRENT = {
    "rnn": Case("{kind: rnn, units: 6}", recurrent("rnn")),
    "rnn, relu, stacked, last": Case(
        "{kind: rnn, units: 6, activation: relu, layers: 2, output: last}",
        recurrent("rnn", layers=2, last=True, nonlinearity="relu"),
    ),
    "rnn, both ways, no bias": Case(
        "{kind: rnn, units: 6, bidirectional: true, bias: false}", recurrent("rnn", both=True, bias=False)
    ),
    "gru": Case("{kind: gru, units: 6}", recurrent("gru")),
    "gru, stacked both ways": Case(
        "{kind: gru, units: 6, layers: 3, bidirectional: true}", recurrent("gru", layers=3, both=True)
    ),
    "gru, reset before": Case("{kind: gru, units: 6, reset_after: false}", reset_before),
    "lstm": Case("{kind: lstm, units: 6}", recurrent("lstm")),
    "lstm, last": Case("{kind: lstm, units: 6, output: last, bias: false}", recurrent("lstm", last=True, bias=False)),
    "lstm, stacked both ways, last": Case(
        "{kind: lstm, units: 6, layers: 2, bidirectional: true, output: last}", recurrent("lstm", layers=2, both=True, last=True)
    ),
}


# ---- tables, tokens, positions


def sinusoidal(x: Tensor, p: Parameters) -> Tensor:
    """Vaswani et al. 2017, section 3.5, entry by entry."""
    table = [
        [(math.cos if i % 2 else math.sin)(place / 10_000 ** (2 * (i // 2) / x.shape[2])) for i in range(x.shape[2])]
        for place in range(x.shape[1])
    ]
    return x + torch.tensor(table, dtype=x.dtype)


def padded(x: Tensor, p: Parameters) -> Tensor:
    table = p["embedding/weight"] * (torch.arange(7) != 2)[:, None]
    return F.embedding(x, table, padding_idx=2)


TABLES = {
    "embedding": Case("{kind: embedding, units: 4}", lambda x, p: F.embedding(x, p["embedding/weight"]), {"x": WORDS}),
    "embedding, padding": Case("{kind: embedding, units: 4, padding: 2}", padded, {"x": WORDS}),
    "embedding, tied": Case(
        "{kind: embedding, name: tokens, units: 4, size: 9}\n{kind: tanh}\n{kind: unembedding, share: tokens}",
        lambda x, p: torch.tanh(F.embedding(x, p["tokens/weight"])) @ p["tokens/weight"].T,
        {"x": WORDS},
    ),
    "unembedding": Case(
        "{kind: unembedding, classes: 3, bias: true}", lambda x, p: F.linear(x, p["unembedding/weight"], p["unembedding/bias"])
    ),
    "unembedding, a row": Case(
        "{kind: unembedding, classes: 3}", lambda x, p: F.linear(x, p["unembedding/weight"]), {"x": "{shape: [batch, 8]}"}
    ),
    "positions": Case("{kind: positions}", lambda x, p: x + p["positions/weight"]),
    "positions, longer": Case("{kind: positions, length: 9}", lambda x, p: x + p["positions/weight"][: x.shape[1]]),
    "positions, sinusoidal": Case("{kind: positions, encoding: sinusoidal, length: 7}", sinusoidal),
    "positions, odd width": Case("{kind: positions, encoding: sinusoidal}", sinusoidal, {"x": "{shape: [batch, 5, 7]}"}),
    "class_token": Case("{kind: class_token}", lambda x, p: torch.cat([p["class_token/weight"].expand(len(x), 1, -1), x], 1)),
    "select, first": Case("{kind: select, index: 0}", lambda x, p: x[:, 0]),
    "select, last": Case("{kind: select, index: -1}", lambda x, p: x[:, -1]),
    "select, by number": Case("{kind: select, index: -2}", lambda x, p: x[:, -2]),
    "time_pool": Case("{kind: time_pool}", lambda x, p: x.mean(1)),
    "time_pool, max": Case("{kind: time_pool, take: max}", lambda x, p: x.amax(1)),
}


# ---- attention


def multihead(p: Parameters, at: str) -> dict[str, Tensor]:
    """The parameters of attention layer ``at`` as nn.MultiheadAttention has them, where all are of one width."""
    projections = [f"{at}/{part}" for part in ("query", "key", "value")]
    return {
        "in_proj_weight": torch.cat([p[f"{part}/weight"].T for part in projections]),
        "in_proj_bias": torch.cat([p[f"{part}/bias"] for part in projections]),
        "out_proj.weight": p[f"{at}/output/weight"].T,
        "out_proj.bias": p[f"{at}/output/bias"],
    }


def attending(heads: int, **options: Any) -> Callable[..., Tensor]:
    """nn.MultiheadAttention; ``options`` are its own, or functions of the given values."""

    def oracle(x: Tensor, *rest: Any) -> Tensor:
        *given, p = rest
        memory = given[0] if given and given[0].ndim == 3 and given[0].shape[-1] == 8 else x
        masks = {name: make(x, *given) for name, make in options.items()}
        return called(
            nn.MultiheadAttention(8, heads, batch_first=True),
            multihead(p, "attention"),
            x,
            memory,
            memory,
            need_weights=False,
            **masks,
        )[0]  # type: ignore[no-any-return]

    return oracle


def later(x: Tensor, *_: Any) -> Tensor:
    return torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)


def divided(y: Tensor, size: int) -> Tensor:
    return y.unflatten(-1, (-1, size)).transpose(1, 2)


def written(
    size: int, *, change: Callable[[Tensor, Tensor], Tensor] = lambda x, scale: x, **options: Any
) -> Callable[..., Tensor]:
    """torch's scaled_dot_product_attention between projections; ``change`` is done to queries and keys."""

    def oracle(x: Tensor, *rest: Any) -> Tensor:
        *given, p = rest
        memory = given[0] if given else x

        def projected(part: str, x: Tensor) -> Tensor:
            bias = p.get(f"attention/{part}/bias")
            y = x @ p[f"attention/{part}/weight"]
            return y if bias is None else y + bias

        q, k, v = (divided(projected(part, x), size) for part, x in (("query", x), ("key", memory), ("value", memory)))
        q, k = (change(x, p.get(f"attention/{part}/scale", x.new_ones(()))) for part, x in (("query", q), ("key", k)))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True, **options)
        return projected("output", y.transpose(1, 2).flatten(2))

    return oracle


def turned(x: Tensor, _: Tensor, *, base: float = 10_000.0, pairs: int = 2, interleaved: bool = False) -> Tensor:
    """Pairs as complex numbers, times exp(i position / base^(2 pair / rotated)) (Su et al. 2021)."""
    angles = torch.arange(x.shape[2])[:, None] * base ** (-torch.arange(pairs) / pairs)
    members = x[..., : 2 * pairs].unflatten(-1, (pairs, 2) if interleaved else (2, pairs)).movedim(-1 if interleaved else -2, 0)
    whole = torch.complex(members[0], members[1]) * torch.polar(torch.ones_like(angles, dtype=x.dtype), angles.to(x.dtype))
    joined = torch.stack([whole.real, whole.imag], -1 if interleaved else -2).flatten(-2)
    return torch.cat([joined, x[..., 2 * pairs :]], -1)


def from_zero(x: Tensor, mask: Tensor, p: Parameters) -> Tensor:
    """Rows from which all is hidden are zeros in each head."""
    q, k, v = (divided(x @ p[f"attention/{part}/weight"] + p[f"attention/{part}/bias"], 4) for part in ("query", "key", "value"))
    seen = mask[:, None, None, :].bool() & ~later(x)
    weights = torch.nan_to_num(torch.where(seen, q @ k.mT / 2.0, -math.inf).softmax(-1))
    weights = torch.where(seen.any(-1, keepdim=True), weights, 0.0)
    return (weights @ v).transpose(1, 2).flatten(2) @ p["attention/output/weight"] + p["attention/output/bias"]


MEMORY = {"x": SEQUENCE, "memory": "{shape: [batch, 3, 8]}"}
CROSS = "{kind: attention, heads: 2, from: [x, memory]}"
ATTENTION = {
    "attention": Case("{kind: attention, heads: 2}", attending(2)),
    "attention, causal": Case("{kind: attention, heads: 4, causal: true}", attending(4, attn_mask=later)),
    "attention, cross": Case(CROSS, attending(2), MEMORY),
    "attention, padding mask": Case(
        "{kind: attention, heads: 2, from: [x, x, mask]}",
        attending(2, key_padding_mask=lambda x, mask: mask == 0),
        {"x": SEQUENCE, "mask": VISIBLE},
    ),
    "attention, mask and causal": Case(
        "{kind: attention, heads: 2, causal: true, from: [x, x, mask]}", from_zero, {"x": SEQUENCE, "mask": VISIBLE}
    ),
    "attention, added mask": Case(
        "{kind: attention, heads: 2, from: [x, x, mask]}",
        attending(2, attn_mask=lambda x, mask: mask.repeat_interleave(2, 0)),
        {"x": SEQUENCE, "mask": "{shape: [batch, 5, 5]}"},
    ),
    "attention, grouped, mask of each head": Case(
        "{kind: attention, heads: 4, kv_heads: 2, from: [x, x, mask]}",
        lambda x, mask, p: written(2, attn_mask=mask)(x, p),
        {"x": SEQUENCE, "mask": "{shape: [batch, 4, 5, 5]}"},
    ),
    "attention, grouped": Case("{kind: attention, heads: 4, kv_heads: 2, causal: true}", written(2, is_causal=True)),
    "attention, one of keys": Case("{kind: attention, heads: 4, kv_heads: 1, from: [x, memory]}", written(2), MEMORY),
    "attention, widths of its own": Case(
        "{kind: attention, heads: 3, head_size: 4, units: 5, output_bias: false, scale: 0.3, from: [x, memory]}",
        written(4, scale=0.3),
        {"x": SEQUENCE, "memory": "{shape: [batch, 3, 6]}"},
    ),
    "attention, no bias": Case("{kind: attention, heads: 2, bias: false}", written(4)),
    "attention, rotary": Case(
        "{kind: attention, heads: 2, rotary: true, causal: true}", written(4, change=turned, is_causal=True)
    ),
    "attention, rotary, half of it": Case(
        "{kind: attention, heads: 2, kv_heads: 1, rotary: {base: 500, fraction: 0.5}}",
        written(4, change=lambda x, s: turned(x, s, base=500.0, pairs=1)),
    ),
    "attention, rotary, neighbours": Case(
        "{kind: attention, heads: 1, rotary: {interleaved: true, fraction: 0.75}}",
        written(8, change=lambda x, s: turned(x, s, pairs=3, interleaved=True)),
    ),
    "attention, qk_norm": Case(
        "{kind: attention, heads: 2, qk_norm: true}", written(4, change=lambda x, scale: F.rms_norm(x, (4,), scale, 1e-6))
    ),
}


# ---- transformer blocks


def block_weights(p: Parameters, at: str, parts: Mapping[str, str], *, pre: bool) -> dict[str, Tensor]:
    """Parameters of a block as torch's encoder and decoder layers have them; ``parts`` maps its attentions to theirs."""
    norms = [f"{part}/norm" if pre else f"{part}_norm" for part in (*parts, "feed_forward")]
    found = {
        f"norm{index}.{theirs}": p[f"{at}/{norm}/{ours}"]
        for index, norm in enumerate(norms, 1)
        for theirs, ours in (("weight", "scale"), ("bias", "bias"))
    }
    for part, theirs in parts.items():
        found |= {f"{theirs}.{name}": value for name, value in multihead(p, f"{at}/{part}/attention").items()}
    for theirs, ours in (("linear1", "expand"), ("linear2", "contract")):
        found[f"{theirs}.weight"] = p[f"{at}/feed_forward/feed_forward/{ours}/weight"].T
        found[f"{theirs}.bias"] = p[f"{at}/feed_forward/feed_forward/{ours}/bias"]
    return found


def encoder(names: Sequence[str], *, pre: bool, activation: str, causal: bool = False) -> Callable[..., Tensor]:
    def oracle(x: Tensor, p: Parameters) -> Tensor:
        for name in names:
            module = nn.TransformerEncoderLayer(8, 2, 12, 0.0, activation, batch_first=True, norm_first=pre)
            weights = block_weights(p, name, {"attention": "self_attn"}, pre=pre)
            x = called(module, weights, x, src_mask=later(x) if causal else None)
        return x

    return oracle


def decoder(names: Sequence[str], *, pre: bool) -> Callable[..., Tensor]:
    def oracle(x: Tensor, memory: Tensor, p: Parameters) -> Tensor:
        for name in names:
            module = nn.TransformerDecoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=pre)
            parts = {"attention": "self_attn", "cross_attention": "multihead_attn"}
            x = called(module, block_weights(p, name, parts, pre=pre), x, memory, tgt_mask=later(x))
        return x

    return oracle


def llama(x: Tensor, p: Parameters) -> Tensor:
    """Touvron et al. 2023: RMS norms before each part, rotary positions, SwiGLU, no biases."""
    inner = {name.removeprefix("block/attention/"): value for name, value in p.items() if name.startswith("block/attention/")}
    normed = F.rms_norm(x, (8,), p["block/attention/norm/scale"], 1e-6)
    x = x + written(4, change=turned, is_causal=True)(normed, inner)
    normed = F.rms_norm(x, (8,), p["block/feed_forward/norm/scale"], 1e-6)
    w = {part: p[f"block/feed_forward/feed_forward/{part}/weight"] for part in ("expand", "gate", "contract")}
    return x + (F.silu(normed @ w["gate"]) * (normed @ w["expand"])) @ w["contract"]


def gated(phi: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def oracle(x: Tensor, p: Parameters) -> Tensor:
        value, gate = (x @ p[f"feed_forward/{part}/weight"] + p[f"feed_forward/{part}/bias"] for part in ("expand", "gate"))
        return (phi(gate) * value) @ p["feed_forward/contract/weight"] + p["feed_forward/contract/bias"]

    return oracle


COPIES = ("block/1", "block/2")
FIELDS = "name: block, heads: 2, feed_forward: 12"
DECODED = f"{{kind: tanh, name: norm, from: memory}}\n{{kind: transformer_decoder, {FIELDS}, from: x, memory: norm, repeat: 2"
TRANSFORMERS = {
    "rms_norm": Case("{kind: rms_norm}", lambda x, p: F.rms_norm(x, (8,), p["rms_norm/scale"], 1e-5)),
    "feed_forward": Case(
        "{kind: feed_forward, activation: relu}",
        lambda x, p: (
            torch.relu(x @ p["feed_forward/expand/weight"] + p["feed_forward/expand/bias"]) @ p["feed_forward/contract/weight"]
            + p["feed_forward/contract/bias"]
        ),
    ),
    "feed_forward, swiglu": Case("{kind: feed_forward, units: 5, activation: swiglu}", gated(F.silu)),
    "feed_forward, geglu": Case("{kind: feed_forward, units: 5, activation: geglu}", gated(F.gelu)),
    "feed_forward, reglu": Case("{kind: feed_forward, units: 5, activation: {kind: reglu}}", gated(torch.relu)),
    "feed_forward, glu": Case("{kind: feed_forward, units: 5, activation: glu}", gated(torch.sigmoid)),
    "encoder": Case(f"{{kind: transformer_encoder, {FIELDS}, repeat: 2}}", encoder(COPIES, pre=True, activation="gelu")),
    "encoder, post-norm, causal": Case(
        f"{{kind: transformer_encoder, {FIELDS}, norm: post, activation: relu, causal: true}}",
        encoder(["block"], pre=False, activation="relu", causal=True),
    ),
    "decoder": Case(f"{DECODED}}}", lambda x, memory, p: decoder(COPIES, pre=True)(x, torch.tanh(memory), p), MEMORY),
    "decoder, post-norm": Case(
        f"{DECODED}, norm: post}}", lambda x, memory, p: decoder(COPIES, pre=False)(x, torch.tanh(memory), p), MEMORY
    ),
    "decoder, llama": Case(
        "{kind: transformer_decoder, name: block, heads: 2, kv_heads: 1, feed_forward: 6, activation: swiglu, "
        "norm_kind: rms_norm, epsilon: 1e-6, rotary: true, bias: false}",
        llama,
    ),
}

CASES = {**TABLES, **RECURRENT, **ATTENTION, **TRANSFORMERS}
