"""What several machines would make of a model: a decoded token and a prompt, by a cost model.

    python tools/predict_scaling.py                       the tables of docs/scaling.md
    python tools/predict_scaling.py --check MODEL FREE.json LIMITED.json...

Time is computing plus exchanging. Computing: bytes of the rank's weights at the speed of memory, or
operations at the speed of arithmetic, whichever takes longer. An exchange: a latency, and the
received bytes at the rate of the link. Between a gather and the gather behind it, more than 128
rows of a linear layer travel in pieces while others are computed.

--check holds the model against `samebits bench MODEL --json` of one plan. What was measured without
a limit gives the computing and the time of a free exchange; each other file's name ends with its
limit: name-1gbit.json, name-5ms.json.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BYTES = 2  # of an element, bfloat16
PIECE = 128  # rows that travel together (RuntimeOptions::exchange_rows)


@dataclass(frozen=True)
class Model:
    """Sizes of config.json."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int

    @property
    def layer_weights(self) -> int:
        attention = self.hidden * (2 * self.heads + 2 * self.kv_heads) * self.head_dim
        return attention + 3 * self.hidden * self.inner


MODELS = [
    Model("Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064),
    Model("Qwen2.5-72B", 80, 8192, 64, 8, 128, 29568, 152064),
]


@dataclass(frozen=True)
class Machine:
    """Seconds a byte of memory, seconds an operation."""

    byte: float
    operation: float


@dataclass(frozen=True)
class Network:
    """Seconds of an exchange without content, seconds a received byte."""

    name: str
    latency: float
    byte: float


def exchange(network: Network, received: float) -> float:
    return network.latency + received * network.byte


def overlapped(
    network: Network, pieces: int, computing: float, first: float, second: float
) -> float:
    """A gather, a linear layer and a gather, in pieces: one link, one processor, both in order.

    Of each piece the seconds of `computing`, the bytes received in front of it and behind it.
    """
    link = pieces * first * network.byte  # all of them are there to be sent at once
    processor = 0.0
    for i in range(pieces):
        arrival = (i + 1) * first * network.byte + network.latency
        processor = max(processor, arrival) + computing
        link = max(link, processor) + second * network.byte
    return link + network.latency


def decode(model: Model, machine: Machine, network: Network, ranks: int, reduce: bool) -> float:
    """Seconds of a token of one sequence, tensor parallel; reduce: by the usual all-reduces."""
    others = (ranks - 1) / ranks
    weights = model.layers * model.layer_weights + model.vocab * model.hidden
    reading = BYTES * weights / ranks * machine.byte
    if ranks == 1:
        return reading
    logits = exchange(network, BYTES * others * model.vocab)
    heads = model.heads * model.head_dim
    if reduce:
        ring = 2 * (ranks - 1) * exchange(network, BYTES * model.hidden / ranks)
        doubling = math.ceil(math.log2(ranks)) * exchange(network, BYTES * model.hidden)
        return reading + model.layers * 2 * min(ring, doubling) + logits
    layer = sum(
        exchange(network, BYTES * others * size)
        for size in (heads, model.hidden, model.inner, model.hidden)
    )
    return reading + model.layers * layer + logits


def prefill(
    model: Model, machine: Machine, network: Network, ranks: int, rows: int, reduce: bool
) -> float:
    """Seconds of a prompt, tensor parallel."""
    others = (ranks - 1) / ranks
    heads = model.heads * model.head_dim
    kv = model.kv_heads * model.head_dim

    def linear(inputs: int, outputs: int, of_rows: int) -> float:
        return 2 * of_rows * inputs * outputs / ranks * machine.operation

    attention = 2 * rows * rows * heads / ranks * machine.operation  # half of the keys are seen
    inside = linear(model.hidden, heads + 2 * kv + 2 * model.inner, rows) + attention
    if ranks == 1:
        return model.layers * (
            inside + linear(heads, model.hidden, rows) + linear(model.inner, model.hidden, rows)
        )
    total = model.layers * inside
    for size in (heads, model.inner):
        if reduce:
            moved = 2 * others * BYTES * rows * model.hidden
            both = linear(size, model.hidden, rows) + exchange(network, moved)
            both += (2 * ranks - 3) * network.latency
        else:
            pieces = math.ceil(rows / PIECE)
            part = rows / pieces
            both = overlapped(
                network,
                pieces,
                linear(size, model.hidden, rows) / pieces,
                BYTES * others * part * size,
                BYTES * others * part * model.hidden,
            )
        total += model.layers * both
    return total


def staged(
    model: Model, machine: Machine, network: Network, plan: tuple[int, int], rows: int, chunk: int
) -> tuple[float, float]:
    """Seconds of a decoded token and of a prompt for a plan of (tp, pp)."""
    tp, pp = plan
    token = decode(model, machine, network, tp, reduce=False)
    if pp == 1:
        return token, prefill(model, machine, network, tp, rows, reduce=False)
    token += (pp - 1) * exchange(network, BYTES * model.hidden)
    token += exchange(network, BYTES * model.vocab)
    chunks = math.ceil(rows / chunk)
    stage = prefill(model, machine, network, tp, rows // chunks, reduce=False) / pp
    sent = exchange(network, BYTES * rows / chunks * model.hidden)
    # The slower of computing and sending sets the pace; the first chunk passes all stages.
    return token, (pp - 1) * (stage + sent) + chunks * max(stage, sent)


def shown(speed: float) -> str:
    return f"{speed:.3g}" if speed < 999.5 else f"{speed:.0f}"


def tables(args: argparse.Namespace) -> None:
    machine = Machine(1 / (args.read * 1e9), 1 / (args.gflops * 1e9))
    networks = [
        Network("1 Gbit/s, 0.1 ms", 100e-6, 8 / 1e9),
        Network("10 Gbit/s, 0.03 ms", 30e-6, 8 / 10e9),
        Network("100 Gbit/s, 0.005 ms", 5e-6, 8 / 100e9),
    ]
    print(f"Each node reads {args.read:g} GB/s and computes {args.gflops:g} GFLOP/s.")
    for model in MODELS:
        one = decode(model, machine, networks[0], 1, reduce=False)
        prompt = prefill(model, machine, networks[0], 1, args.rows, reduce=False)
        print(
            f"\n{model.name}, tokens/s. One node that holds it decodes {shown(1 / one)} and ",
            end="",
        )
        print(f"reads a prompt of {args.rows} at {shown(args.rows / prompt)}.\n")
        print("| network | nodes | decode, tp | all-reduce | prompt, tp | all-reduce | ", end="")
        print("prompt, best plan (its decoding) |\n|---|---|---|---|---|---|---|")
        for network in networks:
            for ranks in (2, 4, 8, 16, 32, 64):
                print(f"| {network.name} | {ranks} ", end="")
                cells = [
                    rows / seconds(model, machine, network, ranks, *more, reduce=reduce)
                    for seconds, rows, more in ((decode, 1, ()), (prefill, args.rows, (args.rows,)))
                    for reduce in (False, True)
                ]
                texts = [shown(cell) if ranks <= model.heads else "" for cell in cells]
                plans = [
                    (tp, ranks // tp)
                    for tp in (1, 2, 4, 8, 16, 32, 64)
                    if tp <= min(ranks, model.heads) and ranks // tp <= model.layers
                ]
                times = {
                    plan: staged(model, machine, network, plan, args.rows, args.chunk)
                    for plan in plans
                }
                best = min(plans, key=lambda plan, times=times: times[plan][1])
                token, all_rows = times[best]
                plan = f"tp={best[0]},pp={best[1]}"
                texts.append(f"{shown(args.rows / all_rows)}: {plan} ({shown(1 / token)})")
                print(f"| {' | '.join(texts)} |")


def limit_of(path: Path) -> tuple[str, float, float]:
    """What the file's name says: its text, seconds an exchange, seconds a byte."""
    found = re.search(r"([\d.]+)(ms|mbit|gbit)$", path.stem)
    if found is None:
        raise SystemExit(f"{path}: expected a name that ends with its limit: -100mbit or -0.5ms")
    number, unit = float(found[1]), found[2]
    if unit == "ms":
        return found[0], number / 1e3, 0.0
    return found[0], 0.0, 8 / (number * (1e6 if unit == "mbit" else 1e9))


def model_of(folder: Path) -> Model:
    config = json.loads((folder / "config.json").read_text())
    heads = config["num_attention_heads"]
    return Model(
        folder.name,
        config["num_hidden_layers"],
        config["hidden_size"],
        heads,
        config.get("num_key_value_heads", heads),
        config.get("head_dim") or config["hidden_size"] // heads,
        config["intermediate_size"],
        config["vocab_size"],
    )


def predicted_prompt(
    model: Model, run: dict[str, Any], ranks: dict[str, int], network: Network
) -> float:
    """Seconds of a prompt in one chunk, from a run without a limit: what it computed, and the
    exchanges of this network in their pieces."""
    operations = run["operations"]
    computing = run["seconds"] * (1 - operations.get("gather", 0))
    heads, rows = model.heads * model.head_dim, run["tokens"]
    if ranks["pp"] > 1:  # stages one behind the other; rank 0 receives the logits
        sent = exchange(network, BYTES * rows * model.hidden)
        return run["seconds"] + (ranks["pp"] - 1) * sent + exchange(network, BYTES * model.vocab)
    others = (ranks["tp"] - 1) / ranks["tp"]
    layers = model.layers - 1  # of the last one a single row travels
    linear = run["seconds"] * operations["linear"]
    pieces = math.ceil(rows / PIECE)
    total = computing
    for size in (heads, model.inner):
        share = size * model.hidden / model.layer_weights
        part = linear * share / model.layers
        total += layers * overlapped(
            network,
            pieces,
            part / pieces,
            BYTES * others * rows / pieces * size,
            BYTES * others * rows / pieces * model.hidden,
        )
        total -= layers * part
    last = heads + model.inner + 2 * model.hidden + model.vocab
    return total + 5 * network.latency + BYTES * others * last * network.byte


def check(folder: Path, paths: list[Path]) -> None:
    model = model_of(folder)
    free = json.loads(paths[0].read_text())
    ranks = free["ranks"]
    decoded = next(run for run in free["runs"] if run["kind"] == "decode" and run["batch"] == 1)
    # An exchange of some kilobytes between these processes, without a limit.
    gathering = decoded["seconds"] * decoded["operations"].get("gather", 0)
    own = gathering / decoded["exchanged"]["exchanges"] if ranks["pp"] == 1 else 0.0
    print("| limit | | measured, ms | predicted, ms | measured by predicted |")
    print("|---|---|---|---|---|")
    for path in paths[1:]:
        name, latency, byte = limit_of(path)
        limited = json.loads(path.read_text())
        for base, run in zip(free["runs"], limited["runs"], strict=True):
            for key in ("kind", "tokens", "depth", "batch", "exchanged"):
                if base[key] != run[key]:
                    raise SystemExit(f"{path}: {key} {run[key]}, in {paths[0]} {base[key]}")
            network = Network(name, own + latency, byte)
            if run["kind"] == "prefill":
                predicted = predicted_prompt(model, base, ranks, network)
            elif ranks["pp"] > 1:
                step = exchange(network, BYTES * run["batch"] * model.hidden) * (ranks["pp"] - 1)
                step += exchange(network, BYTES * run["batch"] * model.vocab)
                predicted = base["seconds"] + run["tokens"] * step
            else:
                moved = run["exchanged"]
                predicted = base["seconds"] + moved["exchanges"] * latency
                predicted += moved["received_bytes"] * byte
            steps = run["tokens"] if run["kind"] == "decode" else 1
            what = {"prefill": f"prompt of {run['tokens']}", "decode": "a token"}[run["kind"]]
            what += f", {run['batch']} sequences" if run["batch"] > 1 else ""
            print(
                f"| {name} | {what} | {1e3 * run['seconds'] / steps:.1f} | "
                f"{1e3 * predicted / steps:.1f} | {run['seconds'] / predicted:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", nargs="+", type=Path, metavar="MODEL FILE FILE")
    parser.add_argument("--read", type=float, default=200, help="GB/s of a node (default: 200)")
    parser.add_argument(
        "--gflops", type=float, default=3000, help="GFLOP/s that a node reaches (default: 3000)"
    )
    parser.add_argument("--rows", type=int, default=2048, help="tokens of the prompt")
    parser.add_argument("--chunk", type=int, default=256, help="tokens between stages at once")
    args = parser.parse_args()
    if args.check:
        check(args.check[0], args.check[1:])
    else:
        tables(args)


if __name__ == "__main__":
    main()
