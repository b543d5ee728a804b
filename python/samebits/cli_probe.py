"""python -m samebits probe: how torch, or jax, adds on this machine, as a profile."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samebits.cli_arguments import at_least, check_model, check_out, load, load_model
from samebits.profile import SECTIONS, compared, unproven
from samebits.progress import Progress
from samebits.trace import DTYPES

Json = dict[str, Any]
if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_EPILOG = """\
A profile covers what was probed and nothing else: the lengths of --prompts, each continued by
--steps single tokens, in batches of --batch sequences (padded: all of one length). It is of one
dtype and one number of threads.

An entry that no known order explains is searched for, and when that fails it is written all the
same, as unproven, with the counts; the exit code is then 1.

--framework jax: linear layers as jax.numpy.dot (kernel [in, out]) and as lax.dot_general (weight
[out, in]), and the products of attention, under jit. Needs jax and no torch; samebits does not
replay such a profile yet. XLA takes as many threads as the process may use: taskset limits them."""


def _lengths(text: str) -> list[int]:
    """1,70,200 or 1-64, in any mixture."""
    lengths: list[int] = []
    for item in text.split(","):
        low, _, high = item.partition("-")
        try:
            first, last = int(low), int(high or low)
        except ValueError:
            first, last = 1, 0
        if not 1 <= first <= last < 2**20:
            raise argparse.ArgumentTypeError(
                f"expected lengths such as 1,70,200 or 1-64, found {text[:60]!r}"
            )
        lengths += range(first, last + 1)
    return sorted(set(lengths))


def register(subparsers: Subparsers) -> None:
    probe = subparsers.add_parser(
        "probe",
        help="find and prove in which order torch or jax adds on this machine",
        description="Finds in which order torch or jax adds here, for what a model meets: proven.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = probe.add_argument
    add("--framework", choices=("torch", "jax"), default="torch", help="default: torch")
    add("--model", required=True, type=Path, metavar="DIR", help="Hugging Face folder")
    add("--dtype", choices=DTYPES, default="bfloat16", help="default: bfloat16")
    add(
        "--prompts", type=_lengths, default=list(range(1, 65)), metavar="LENGTHS",
        help="prompt lengths: 1,70,200 or 1-64 (default: 1-64)",
    )  # fmt: skip
    count = lambda text: at_least(0, text)  # noqa: E731
    add("--steps", type=count, default=64, metavar="N", help="decode steps (default: 64)")
    positive = lambda text: at_least(1, text)  # noqa: E731
    add("--batch", type=positive, default=1, metavar="N", help="sequences of a padded batch")
    add("--attention", choices=("eager", "sdpa", "both"), default="both", help="default: both")
    add("--threads", type=positive, metavar="N", help="torch threads (default: torch's choice)")
    add("-o", "--out", required=True, type=Path, metavar="FILE", help="profile to write")
    probe.set_defaults(run=run)


def _of_torch(arguments: argparse.Namespace) -> Json:
    import torch
    import transformers

    from samebits import probe as probing
    from samebits import torch_capture

    transformers.utils.logging.disable_progress_bar()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    config: Any = load(arguments.model, transformers.AutoConfig)
    torch_capture.check_model_type(config)
    model = load_model(arguments.model, arguments.dtype, "eager")
    attentions = probing.ATTENTIONS if arguments.attention == "both" else [arguments.attention]
    wanted = probing.Wanted(arguments.prompts, arguments.steps, arguments.batch, attentions)
    with closing(Progress("probe")) as progress:
        return probing.probe(model, wanted, progress)


def _of_jax(arguments: argparse.Namespace) -> Json:
    for name, otherwise in (("batch", 1), ("attention", "both"), ("threads", None)):
        if getattr(arguments, name) != otherwise:
            raise ValueError(f"--{name} goes with --framework torch alone")
    from samebits import probe_jax

    wanted = probe_jax.Wanted(arguments.prompts, arguments.steps)
    with closing(Progress("probe")) as progress:
        return probe_jax.probe_jax(arguments.model, arguments.dtype, wanted, progress)


def run(arguments: argparse.Namespace) -> int:
    check_model(arguments.model)
    check_out(arguments.out, arguments.model)
    begin = time.monotonic()
    profile = _of_torch(arguments) if arguments.framework == "torch" else _of_jax(arguments)
    temporary = arguments.out.with_name(f".{arguments.out.name}.{os.getpid()}.part")
    try:
        temporary.write_text(json.dumps(profile, separators=(",", ":")) + "\n", encoding="utf-8")
        os.replace(temporary, arguments.out)
    finally:
        temporary.unlink(missing_ok=True)
    missing = unproven(profile)
    for line in missing:
        print(f"not proven: {line}", file=sys.stderr)
    products = sum(len(profile[section]) for section in SECTIONS)
    print(
        f"{arguments.out}: {products} entries of matrix products under {len(profile['rules'])} "
        f"rules, {len(profile['functions'])} functions; {compared(profile):,} values "
        f"compared, {len(missing)} entries not proven; {time.monotonic() - begin:.0f} s",
        file=sys.stderr,
    )
    return 1 if missing else 0
