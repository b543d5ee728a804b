"""python -m samebits: traces and profiles of transformers models.

One module a subcommand, cli_NAME.py. It has register(subparsers), which adds the parser and sets
its default `run`, a function from the parsed arguments to the exit code. Modules are imported at
every start, so they import torch only inside run.
"""

from __future__ import annotations

import argparse
import sys

from samebits import __version__, cli_capture, cli_probe

_SUBCOMMANDS = (cli_capture, cli_probe)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m samebits", description="Traces and profiles of transformers models."
    )
    parser.add_argument("--version", action="version", version=f"samebits {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for subcommand in _SUBCOMMANDS:
        subcommand.register(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except ModuleNotFoundError as error:
        print(f"error: {error}; install samebits[torch]", file=sys.stderr)
        return 2
    except (OSError, ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
