"""python -m samebits capture: records a transformers model as a trace."""

from __future__ import annotations

import argparse
import json
import re
import sys
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samebits.blind_spots import PromptWarning
from samebits.cli_arguments import at_least, check_model, check_out, load, load_model
from samebits.progress import Progress
from samebits.trace import DTYPES, read_metadata

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_EPILOG = """\
--prompt, --chat and --ids may be given several times, in any mixture: they become one batch, in
this order, padded on the left with the pad token of the tokenizer or of the configuration (as
`generate` pads: with the end token where there is none), with an attention_mask. A single one
has no batch axis in the trace.

  --prompt TEXT   the text as the checkpoint's tokenizer encodes it, special tokens included; no
                  chat template
  --chat FILE     a JSON list of messages, or {"messages": [...], "tools": [...], ...}, through
                  the checkpoint's chat template with the generation prompt; - is standard input
  --ids 1,2,3     token ids as they are; needs no tokenizer

--steps N appends N decode steps, each with the most probable token of the step before, through the
key/value cache; they do not stop at an end token. The trace holds prompt and steps together."""


_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


class _Source(argparse.Action):
    """Keeps the sequences in the order in which they were given."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option: str | None = None,
    ) -> None:
        namespace.sources = [*(namespace.sources or []), (option, values)]


def _ids(text: str) -> list[int]:
    try:
        return [int(item) for item in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected ids such as 1,2,3, found {text[:60]!r}"
        ) from None


def register(subparsers: Subparsers) -> None:
    capture = subparsers.add_parser(
        "capture",
        help="run a transformers model and record every node",
        description="Runs a transformers model, unchanged, and writes every node as a trace.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = capture.add_argument
    add("--model", required=True, type=Path, metavar="DIR", help="Hugging Face folder")
    add("--prompt", action=_Source, dest="sources", metavar="TEXT", help="see below")
    add("--chat", action=_Source, dest="sources", metavar="FILE", help="see below")
    add("--ids", action=_Source, dest="sources", type=_ids, metavar="IDS", help="see below")
    add("--dtype", choices=DTYPES, default="bfloat16", help="default: bfloat16")
    add("--attention", choices=("eager", "sdpa"), default="eager", help="default: eager")
    count = lambda text: at_least(0, text)  # noqa: E731
    add("--steps", type=count, default=0, metavar="N", help="decode steps after the prompt")
    positive = lambda text: at_least(1, text)  # noqa: E731
    add("--threads", type=positive, metavar="N", help="torch threads (default: torch's choice)")
    add("--pad", type=count, metavar="ID", help="token that pads a batch")
    add("-o", "--out", required=True, type=Path, metavar="FILE", help="trace to write")
    capture.set_defaults(run=run)


@dataclass
class _Prompts:
    ids: list[list[int]]
    texts: list[str]  # of --prompt and --chat


def run(arguments: argparse.Namespace) -> int:
    if not arguments.sources:  # before the model is loaded and run
        raise ValueError("give a --prompt, a --chat or --ids")
    check_model(arguments.model)
    check_out(arguments.out, arguments.model)
    import torch
    import transformers

    from samebits import torch_capture

    transformers.utils.logging.disable_progress_bar()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    config = load(arguments.model, transformers.AutoConfig)
    torch_capture.check_model_type(config)
    prompts = _read_prompts(arguments, config)
    longest = max(len(row) for row in prompts.ids)
    pad = _pad_token(arguments, config) if any(len(r) != longest for r in prompts.ids) else 0
    metadata = {"prompt": prompts.texts[0]} if len(prompts.texts) == 1 else {}
    if len(prompts.texts) > 1:
        metadata["prompt"] = json.dumps(prompts.texts, ensure_ascii=False)

    model = load_model(arguments.model, arguments.dtype, arguments.attention)
    progress = Progress("capture: layers")
    with warnings.catch_warnings(record=True) as caught, closing(progress):
        warnings.simplefilter("always", PromptWarning)
        torch_capture.capture(
            model,
            [[pad] * (longest - len(row)) + row for row in prompts.ids],
            arguments.out,
            attention_mask=[[0] * (longest - len(row)) + [1] * len(row) for row in prompts.ids],
            steps=arguments.steps,
            attention=arguments.attention,
            progress=progress,
            **metadata,
        )
    _report(arguments, caught)
    return 0


def _load_tokenizer(folder: Path, option: str) -> Any:
    from transformers import AutoTokenizer

    # Without any, transformers 5 makes a tokenizer that knows no word.
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise ValueError(f"{option}: {folder} has no tokenizer.json; use --ids")
    return load(folder, AutoTokenizer)


def _read_prompts(arguments: argparse.Namespace, config: Any) -> _Prompts:
    tokenizer: Any = None
    prompts = _Prompts([], [])
    for option, value in arguments.sources:
        if option == "--ids":
            ids = value
        else:
            if tokenizer is None:
                tokenizer = _load_tokenizer(arguments.model, option)
            text = _well_formed(value if option == "--prompt" else _render(tokenizer, value))
            ids = tokenizer(text, add_special_tokens=option == "--prompt")["input_ids"]
            prompts.texts.append(text)
        bad = [value for value in ids if not 0 <= value < config.vocab_size]
        if bad:
            raise ValueError(f"{option}: {bad[0]} is not below vocab_size {config.vocab_size}")
        if not ids:
            raise ValueError(f"{option}: no tokens")
        prompts.ids.append(ids)
    return prompts


def _well_formed(text: str) -> str:
    """Half a surrogate pair, which UTF-8 can not hold, becomes U+FFFD as in `samebits tokenize`."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _render(tokenizer: Any, name: str) -> str:
    """The chat of a file in the form of `samebits tokenize --chat`, as text."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        chat = json.loads(text)
    except OSError as error:
        raise ValueError(f"--chat {name}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"--chat {name}: no JSON: {error}") from None
    variables = {"messages": chat} if isinstance(chat, list) else chat
    if not isinstance(variables, dict) or not isinstance(variables.get("messages"), list):
        raise ValueError(f'--chat {name}: expected a list of messages or {{"messages": [...]}}')
    variables = {"add_generation_prompt": True, **variables}
    try:
        rendered: str = tokenizer.apply_chat_template(
            variables.pop("messages"), tokenize=False, **variables
        )
    except Exception as error:  # the template is a program of the checkpoint's
        raise ValueError(f"--chat {name}: {type(error).__name__}: {error}") from error
    return rendered


def _pad_token(arguments: argparse.Namespace, config: Any) -> int:
    """The token that fills the rows of a batch up."""
    token = arguments.pad
    if token is None and any((arguments.model / name).is_file() for name in _TOKENIZERS):
        token = _load_tokenizer(arguments.model, "--pad").pad_token_id
    for name in ("pad_token_id", "eos_token_id"):
        if token is None:
            token = getattr(config, name, None)
            token = token[0] if isinstance(token, list) and token else token
    if token is None:
        raise ValueError(f"{arguments.model}: no pad token and no end token; give --pad ID")
    if not 0 <= token < config.vocab_size:
        raise ValueError(f"pad token {token} is not below vocab_size {config.vocab_size}")
    return int(token)


def _report(arguments: argparse.Namespace, caught: list[warnings.WarningMessage]) -> None:
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    metadata = read_metadata(arguments.out)
    for text in json.loads(metadata["blind_spots"]):
        print(f"not shown by this trace: {text}", file=sys.stderr)
    for name, reason in json.loads(metadata.get("absent", "{}")).items():
        print(f"absent: {name}: {reason}", file=sys.stderr)
    ids = json.loads(metadata["input_ids"])
    batch = f"{len(ids)} sequences of " if isinstance(ids[0], list) else ""
    tokens, passes = sum(chunks := json.loads(metadata["chunks"])), len(chunks)
    print(f"{arguments.out}: {batch}{tokens} tokens, {passes} passes recorded", file=sys.stderr)
