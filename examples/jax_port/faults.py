"""What can be planted in the port: bugs, as porters make them, and legitimate rounding chains.

This file only names them, with what a checker should say; the code that is wrong stands in port.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BOTH = ("float32", "bfloat16")
LOW = ("bfloat16",)


@dataclass(frozen=True)
class Bug:
    """`variants` maps a parameter to the first wrong node; the first one is the default.

    {L} in a node stands for the first layer that the bug is planted in. `values`: the parameter may
    also be a number, with the first node of the default.
    """

    description: str
    variants: dict[str, str]
    dtypes: tuple[str, ...] = BOTH  # where it changes a value
    needs_bias: bool = False
    # Other parts of a model that it needs: "qk_norm", "window", "no window", "scaling" of the
    # rotary embedding, "yarn"; and of single variants.
    needs: str = ""
    variant_needs: dict[str, str] = field(default_factory=dict)
    variant_dtypes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # where one acts
    values: bool = False
    casts_weights: bool = False  # visible in the embedding where the checkpoint is wider

    @property
    def default(self) -> str:
        return next(iter(self.variants))

    def node(self, variant: str) -> str:
        return self.variants.get(variant, self.variants[self.default])

    def first_node(
        self, variant: str, layer: int = 0, weights_cast: bool = False, last: int = 0
    ) -> str:
        """`weights_cast`: the weights are loaded into a narrower dtype than they are stored in.

        `last`: the last layer, {N}. Empty: none in particular.
        """
        if self.casts_weights and weights_cast:
            return "model.embed_tokens"
        return self.node(variant).format(L=f"model.layers.{layer}", N=last)


_QKV = {name: f"{{L}}.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")}

# Name of the bug = cause id that `samebits check` reports.
BUGS: dict[str, Bug] = {
    "weight-not-transposed": Bug(
        "square projections used as they are stored, [out, in]: x W for x W^T",
        {
            "both": "{L}.self_attn.q_proj",
            "q_proj": "{L}.self_attn.q_proj",
            "o_proj": "{L}.self_attn.o_proj",
        },
    ),
    "weights-swapped": Bug(
        "two modules of equal shape exchanged by the name mapping: k_proj and v_proj, or the norms",
        {"kv": "{L}.self_attn.k_proj", "norms": "{L}.input_layernorm"},
    ),
    "gate-up-swapped": Bug(
        "a fused gate_up kernel split in the wrong order, or (act) SiLU applied to the up half",
        {"split": "{L}.mlp.gate_proj", "act": "{L}.mlp.act"},
    ),
    "bias-missing": Bug(
        "attention biases not loaded (all three, or the one named)",
        {"all": "{L}.self_attn.q_proj", **_QKV},
        needs_bias=True,
    ),
    "bias-twice": Bug(
        "attention biases added by the linear and again by its caller",
        {"all": "{L}.self_attn.q_proj", **_QKV},
        needs_bias=True,
    ),
    "bias-on-wrong-op": Bug(
        "the biases of k_proj and v_proj exchanged", {"kv": "{L}.self_attn.k_proj"}, needs_bias=True
    ),
    "head-layout": Bug(
        "projections reshaped to (head_dim, heads), or a fused [q; k; v] split group by group",
        {"projection": "{L}.self_attn.q_rope", "fused": "{L}.self_attn.q_proj"},
        variant_needs={"fused": "groups"},
    ),
    "layer-order": Bug(
        "layers sorted by name: 0, 1, 10, 2",
        {"default": "model.layers.2.input_layernorm"},
        needs="many layers",
    ),
    "lm-head-tying": Bug(
        "lm_head tied to the embedding by a checkpoint that does not tie",
        {"default": "lm_head"},
        needs="untied",
    ),
    "weight-random": Bug(
        "a key that was missing on loading keeps its initial values: normal, std 0.02",
        {"down_proj": "{L}.mlp.down_proj", "q_proj": "{L}.self_attn.q_proj"},
    ),
    "weight-dtype-chain": Bug(
        "weights loaded through float16",
        {"f16": "model.embed_tokens"},
        needs="float32 weights",
    ),
    "embedding-scale": Bug(
        "the embedding times sqrt(hidden_size)", {"default": "model.embed_tokens"}
    ),
    "norm-missing": Bug(
        "no normalisation in front of attention, in front of the MLP, or at the end",
        {
            "input": "{L}.input_layernorm",
            "post": "{L}.post_attention_layernorm",
            "final": "model.norm",
        },
    ),
    "norm-mean-subtracted": Bug("LayerNorm for RMSNorm", {"default": "{L}.input_layernorm"}),
    "norm-eps": Bug(
        "an eps of its own: 1e-5 where the file says 1e-6 and the reverse, or the value given",
        {"default": "{L}.input_layernorm"},
        values=True,
    ),
    "norm-weight-plus-one": Bug(
        "(1 + w) in the norms, Gemma's convention; or (qk) in q_norm and k_norm alone",
        {"default": "{L}.input_layernorm", "qk": "{L}.self_attn.q_norm"},
        variant_needs={"qk": "qk_norm"},
    ),
    "qk-norm": Bug(
        "q and k are rotated as they are projected, or normalised after the rotation",
        {"missing": "{L}.self_attn.q_norm", "after-rope": "{L}.self_attn.q_norm"},
        needs="qk_norm",
    ),
    "rope-theta": Bug(
        "a base of its own: 10000, or the value given",
        {"10000": "model.rotary.cos"},
        values=True,
    ),
    "rope-interleaved": Bug(
        "pairs (2i, 2i + 1), GPT-J's layout, tables too; or (rope) tables right, rotation wrong",
        {"tables": "model.rotary.cos", "rope": "{L}.self_attn.q_rope"},
    ),
    "rope-rotation-direction": Bug(
        "rotates the other way: (x2, -x1) for (-x2, x1), or (sin) a table of -sin",
        {"rotate": "{L}.self_attn.q_rope", "sin": "model.rotary.sin"},
    ),
    "rope-position-offset": Bug("positions count from 1", {"1": "model.rotary.cos"}, values=True),
    "rope-missing": Bug(
        "no rotation, or none of k",
        {"default": "{L}.self_attn.q_rope", "k": "{L}.self_attn.k_rope"},
    ),
    "rope-scaling": Bug(
        "rope_scaling is not read, yarn's factor of cos and sin left out, or the factor doubled",
        {
            "missing": "model.rotary.cos",
            "attention-factor": "model.rotary.cos",
            "doubled": "model.rotary.cos",
        },
        needs="scaling",
        variant_needs={"attention-factor": "yarn"},
    ),
    "rope-partial": Bug(
        "half of each head is rotated, with tables of half the width",
        {"half": "model.rotary.cos"},
    ),
    "rope-low-precision": Bug(
        "inverse frequencies, positions or angles in bfloat16",
        {
            "frequency": "model.rotary.cos",
            "angle": "model.rotary.cos",
            "position": "model.rotary.cos",
        },
    ),
    "rope-row-permutation": Bug(
        "rows of q_proj and k_proj permuted for pairs (2i, 2i + 1), rotated in halves",
        {"default": "{L}.self_attn.q_proj"},
    ),
    "attention-scale": Bug(
        "no scale, or 1/sqrt(hidden_size), or the scale applied twice",
        {
            "missing": "{L}.self_attn.scores",
            "hidden": "{L}.self_attn.scores",
            "squared": "{L}.self_attn.scores",
        },
    ),
    "gqa-head-order": Bug(
        "tile for repeat: head h reads KV head h mod n", {"default": "{L}.self_attn.scores"}
    ),
    "cache-low-precision": Bug(
        "k and v kept in float16 or bfloat16 by a model that runs in float32",
        {"f16": "{L}.self_attn.scores", "bf16": "{L}.self_attn.scores"},
        ("float32",),
    ),
    "softcap": Bug(
        "scores capped at 50, or logits at 30, with tanh, as Gemma 2 does",
        {"scores": "{L}.self_attn.scores", "logits": "lm_head"},
    ),
    "mask-missing": Bug("not causal", {"default": "{L}.self_attn.probs"}),
    "mask-offset": Bug(
        "a token does not see itself, or (next) sees the next one",
        {"self": "{L}.self_attn.probs", "next": "{L}.self_attn.probs"},
    ),
    "sliding-window": Bug(
        "sliding_window is not read, is wider or narrower by one, or the value given, in layers "
        "that have none, too",
        {
            "missing": "{L}.self_attn.probs",
            "wider": "{L}.self_attn.probs",
            "narrower": "{L}.self_attn.probs",
            "5": "{L}.self_attn.probs",
        },
        variant_needs={"missing": "window", "wider": "window", "narrower": "window"},
        values=True,
    ),
    "residual-source": Bug(
        "the residual is the normalised input, in front of attention or of the MLP, or is left out",
        {"attention": "{L}.attn_residual", "mlp": "{L}", "missing": "{L}.attn_residual"},
    ),
    "residual-low-precision": Bug(
        "the residual is kept in bfloat16 by a float32 model",
        {"default": "{L}.attn_residual"},
        dtypes=("float32",),
    ),
    "activation": Bug(
        "GELU (erf), GELU (tanh) or ReLU for SiLU",
        {"gelu": "{L}.mlp.act", "gelu_tanh": "{L}.mlp.act", "relu": "{L}.mlp.act"},
    ),
    "cast-truncation": Bug(
        "every cast from float32 cuts the surplus bits off (that of float32 weights, too)",
        {"default": "model.rotary.cos"},
        dtypes=LOW,
        casts_weights=True,
    ),
    "accumulator-low-precision": Bug(
        "products summed in bfloat16, block by block, or float32 operands rounded to bfloat16",
        {"blocks": "{L}.self_attn.q_proj", "operands": "{L}.self_attn.q_proj"},
        variant_dtypes={"operands": ("float32",)},
    ),
    "softmax-low-precision": Bug(
        "jax.nn.softmax on a bfloat16 array: exp and sum in bfloat16",
        {"default": "{L}.self_attn.probs"},
        dtypes=LOW,
    ),
    "norm-low-precision": Bug(
        "RMSNorm without the cast to float32: squares and their mean in bfloat16",
        {"default": "{L}.input_layernorm"},
        dtypes=LOW,
    ),
    "activation-low-precision": Bug(
        "jax.nn.silu on a bfloat16 array: each step of 1 / (1 + exp(-x)) rounded",
        {"default": "{L}.mlp.act"},
        dtypes=LOW,
    ),
}

# Not the port but its trace is wrong.
BUGS |= {
    "trace-tap-point": Bug(
        "the last layer recorded after the final norm, scores before the scale, q before its bias",
        {
            "final-norm": "model.layers.{N}",
            "scores": "{L}.self_attn.scores",
            "bias": "{L}.self_attn.q_proj",
        },
        variant_needs={"bias": "bias"},
    ),
    "trace-dtype": Bug(
        "ran in another dtype than stated: (stored) a float32 run cast as it was written, (wide) a "
        "float32 run that says bfloat16, (upcast) a bfloat16 run written as float32",
        {"stored": "", "wide": "", "upcast": ""},
    ),
    "trace-inputs": Bug(
        "input_ids of another text, or positions from 1, in the metadata alone",
        {"ids": "model.embed_tokens", "positions": "model.rotary.cos"},
    ),
    "trace-stale": Bug(
        "one buffer recorded under two names",
        {"kv": "{L}.self_attn.v_proj", "layers": "model.layers.1"},
    ),
}

# Healthy: other places to round. None changes a value in float32 beyond rounding.
CHAINS: dict[str, str] = {
    "bias-separate": "the bias is added after the product was rounded, as x @ w + b does",
    "norm-weight-fp32": "the norm's weight multiplied in float32, one cast",
    "rope-fp32": "the rotation computed in float32, one cast",
    "scale-before-cast": "the scores scaled in float32 before their only cast",
    "scores-fp32": "the scores kept in float32 up to the softmax",
    "scale-bf16": "the scale constant rounded to the scores' dtype, as JAX's weak typing does",
}

# Healthy: other accumulators than IEEE float32, simulated. The products matter in float32 only.
ACCUMULATORS: dict[str, str] = {
    "products-tf32": "operands of products rounded to 10 bits of mantissa",
    "products-bf16x3": "three products of bfloat16 parts",
    "sums-truncated": "blocks of 8 products, aligned and cut off, as tensor cores add them",
    "exp-approximate": "exponentials with a relative error of 2^-14",
}


@dataclass(frozen=True)
class Plan:
    """What is planted in one run."""

    bugs: dict[str, str] = field(default_factory=dict)  # name to variant
    chains: frozenset[str] = frozenset()
    layers: frozenset[int] | None = None  # None: all

    @classmethod
    def parse(cls, bugs: str = "", chains: str = "", layers: str = "all") -> Plan:
        """`bugs`: NAME[:VARIANT], comma-separated; `chains`: names; `layers`: "all" or "0,3"."""
        chosen: dict[str, str] = {}
        for item in filter(None, bugs.split(",")):
            name, _, variant = item.partition(":")
            if name not in BUGS:
                raise ValueError(f"no bug {name!r}; --list prints them")
            bug = BUGS[name]
            variant = variant or bug.default
            if variant not in bug.variants:
                if not bug.values:
                    raise ValueError(f"{name}: {variant!r} is not one of {', '.join(bug.variants)}")
                float(variant)
            chosen[name] = variant
        names = frozenset(filter(None, chains.split(",")))
        if unknown := names - CHAINS.keys() - ACCUMULATORS.keys():
            raise ValueError(f"no chain {', '.join(sorted(unknown))}; --list prints them")
        where = None if layers == "all" else frozenset(int(n) for n in layers.split(","))
        return cls(chosen, names, where)

    def bug(self, name: str, layer: int | None = None) -> str | None:
        """The variant to plant here, or None. `layer` None: outside of the layers."""
        variant = self.bugs.get(name)
        if variant is None or self.layers is None or "{L}" not in BUGS[name].node(variant):
            return variant
        return variant if layer in self.layers else None


def listing() -> str:
    lines = ["bugs:"]
    for name, bug in BUGS.items():
        variants = "|".join(bug.variants) + ("|VALUE" if bug.values else "")
        suffix = "" if variants == "default" else f" [:{variants}]"
        only = "" if bug.dtypes == BOTH else f" ({', '.join(bug.dtypes)} only)"
        lines.append(f"  {name}{suffix}: {bug.description}{only}")
    lines.append("healthy rounding chains:")
    lines += [f"  {name}: {text}" for name, text in CHAINS.items()]
    lines.append("healthy accumulators:")
    lines += [f"  {name}: {text}" for name, text in ACCUMULATORS.items()]
    return "\n".join(lines)
