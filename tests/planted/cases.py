"""The planted cases: shape x dtype x (bug or rounding chains), and how their traces are recorded.

    python tests/planted/cases.py OUT [PREFIX ...]

writes checkpoints to OUT/ckpt and every trace to OUT/traces/SHAPE-DTYPE-NAME.safetensors; with
prefixes only those whose file name starts with one of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in ("python", "examples/jax_port", "tests/planted"):
    if str(ROOT / folder) not in sys.path:
        sys.path.insert(0, str(ROOT / folder))

import numpy as np  # noqa: E402

import port  # noqa: E402
from faults import BOTH, BUGS, CHAINS, Plan  # noqa: E402
from make_checkpoints import SHAPES, prompt, write_checkpoint  # noqa: E402
from samebits import Trace  # noqa: E402

TOKENS = 32
# Below one step of bfloat16 the statistics need more values.
TOKENS_EPS_BF16 = 64
# Positions up to 256 are numbers of bfloat16.
TOKENS_POSITIONS = 280


@dataclass(frozen=True)
class Case:
    shape: str
    dtype: str
    bug: str = ""  # NAME:VARIANT
    chains: str = ""
    layers: str = "all"
    tokens: int = TOKENS

    @property
    def name(self) -> str:
        parts = [self.bug.removesuffix(":default")] if self.bug else []
        parts += ["chain", *self.chains.split(",")] if self.chains else []
        parts += [] if self.layers == "all" else ["layers", *self.layers.split(",")]
        what = "-".join(parts).replace(":", "_") or "healthy"
        return f"{self.shape}-{self.dtype}-{what}"

    @property
    def cause(self) -> str | None:
        return self.bug.partition(":")[0] or None

    @property
    def first_node(self) -> str | None:
        if not self.bug:
            return None
        bug, _, variant = self.bug.partition(":")
        layer = 0 if self.layers == "all" else min(int(n) for n in self.layers.split(","))
        cast = SHAPES[self.shape].dtype == "float32" and self.dtype != "float32"
        last = SHAPES[self.shape].num_hidden_layers - 1
        return BUGS[bug].first_node(variant, layer, cast, last)

    def record(self, checkpoints: Path, traces: Path) -> Path:
        out = traces / f"{self.name}.safetensors"
        plan = Plan.parse(self.bug, self.chains, self.layers)
        port.run(checkpoints / self.shape, prompt(self.shape, self.tokens), self.dtype, plan, out)
        return out


LAYER_NODES = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
    "self_attn.q_norm", "self_attn.k_norm",
    "self_attn.q_rope", "self_attn.k_rope", "self_attn.scores", "self_attn.probs",
    "self_attn.context", "self_attn.o_proj", "attn_residual", "post_attention_layernorm",
    "mlp.gate_proj", "mlp.up_proj", "mlp.act", "mlp.gated", "mlp.down_proj", "",
)  # fmt: skip


def node_names(shape: str) -> list[str]:
    """Every node of the trace format, in the order of execution."""
    names = ["model.embed_tokens", "model.rotary.cos", "model.rotary.sin"]
    for n in range(SHAPES[shape].num_hidden_layers):
        nodes = [*LAYER_NODES]
        if not SHAPES[shape].has("qk_norm"):
            nodes = [node for node in nodes if not node.endswith(("q_norm", "k_norm"))]
        names += [f"model.layers.{n}.{node}".removesuffix(".") for node in nodes]
    return [*names, "model.norm", "lm_head"]


def first_difference(shape: str, one: Trace, other: Trace) -> str | None:
    """The first node of which the traces have other bits, or only one has a tensor."""
    for name in node_names(shape):
        a, b = one.get(name), other.get(name)
        if a is None or b is None:
            if a is not b:
                return name
            continue
        if (a.dtype, a.shape) != (b.dtype, b.shape) or not np.array_equal(a.bits, b.bits):
            return name
    return None


def bug_cases(shape: str, dtype: str) -> list[Case]:
    cases = []
    for name, bug in BUGS.items():
        no_bias = SHAPES[shape].model_type != "qwen2"
        if dtype not in bug.dtypes or (bug.needs_bias and no_bias):
            continue
        if not SHAPES[shape].has(bug.needs):
            continue
        eps = name == "norm-eps" and dtype == "bfloat16"
        tokens = TOKENS_EPS_BF16 if eps else TOKENS
        for v in bug.variants:
            acts = dtype in bug.variant_dtypes.get(v, BOTH)
            if not acts or not SHAPES[shape].has(bug.variant_needs.get(v, "")):
                continue
            many = (name, v) == ("rope-low-precision", "position")
            length = TOKENS_POSITIONS if many else tokens
            cases.append(Case(shape, dtype, f"{name}:{v}", tokens=length))
    return cases


def layer_cases(shape: str, dtype: str) -> list[Case]:
    """Bugs in some layers only."""
    names = ("weight-not-transposed", "gqa-head-order", "mask-missing", "activation", "norm-eps")
    return [
        Case(shape, dtype, f"{name}:{BUGS[name].default}", layers="1,2", tokens=TOKENS_EPS_BF16)
        for name in names
    ]


def chain_cases(shape: str, dtype: str, every_subset: bool = False) -> list[Case]:
    """No chain, each alone, all, all but one; or each of the 64 subsets."""
    names = list(CHAINS)
    sizes = range(len(names) + 1) if every_subset else (0, 1, len(names) - 1, len(names))
    subsets = itertools.chain.from_iterable(itertools.combinations(names, n) for n in sizes)
    return [Case(shape, dtype, chains=",".join(subset)) for subset in subsets]


def mixed_cases(shape: str, dtype: str) -> list[Case]:
    """Bugs in a port that also rounds elsewhere than transformers, as real ones do."""
    chains = "bias-separate,norm-weight-fp32,rope-fp32,scale-bf16"
    return [
        dataclasses.replace(case, chains=chains)
        for case in bug_cases(shape, dtype)
        if BUGS[case.bug.partition(":")[0]].default == case.bug.partition(":")[2]
    ]


# Bugs that depend on what Qwen3 and Mistral add, or that are the same code in every family.
NEW_PARTS = (
    "norm-weight-plus-one", "qk-norm", "rope-position-offset", "rope-missing", "rope-scaling",
    "rope-theta", "sliding-window", "residual-source",
)  # fmt: skip
OLD_SHAPES, NEW_SHAPES = ("A", "B", "C", "L"), ("Q", "M")


def is_short(case: Case) -> bool:
    """Whether the tests have time for it: not when another shape or dtype shows the same."""
    bug = case.bug.partition(":")[0]
    if case.shape in NEW_SHAPES:
        healthy = not bug and not case.chains
        return healthy or (case.dtype == "bfloat16" and not case.chains and bug in NEW_PARTS)
    # One dtype is enough where another shape has both.
    if bug and case.dtype != {"B": "bfloat16", "C": "float32", "L": "bfloat16"}.get(
        case.shape, case.dtype
    ):
        return False
    default = not bug or BUGS[bug].default == case.bug.partition(":")[2]
    if case.shape != "A" and not default:
        return False
    seldom = ("rope-position-offset", "rope-missing", "residual-source", "sliding-window")
    return bug not in seldom or (case.shape == "A" and not case.chains)


def short_cases() -> list[Case]:
    return [case for case in all_cases() if is_short(case)]


def all_cases() -> list[Case]:
    cases = []
    for shape, dtype in itertools.product(SHAPES, BOTH):
        cases += bug_cases(shape, dtype) + chain_cases(shape, dtype)
    cases += layer_cases("A", "float32") + layer_cases("A", "bfloat16")
    cases += mixed_cases("A", "bfloat16") + mixed_cases("B", "bfloat16")
    kept = "scores-fp32"  # the softmax casts what the port kept
    cases += [Case(s, "bfloat16", "softmax-low-precision:default", kept) for s in SHAPES]
    return cases


def main() -> None:
    out, prefixes = Path(sys.argv[1]), tuple(sys.argv[2:]) or ("",)
    traces = out / "traces"
    traces.mkdir(parents=True, exist_ok=True)
    for shape in SHAPES:
        write_checkpoint(shape, out / "ckpt" / shape)
    for case in all_cases():
        if case.name.startswith(prefixes):
            print(case.record(out / "ckpt", traces))


if __name__ == "__main__":
    main()
