"""Renders every template of a folder with jinja2 and with ours, and counts.

    build/venv/bin/python tests/live/compare_templates.py FOLDER [--show N]

FOLDER holds *.jinja files. Each is rendered with the conversations of template_oracle.py. The exit
code is 1 when any differs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import template_oracle as oracle


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", type=int, default=5, help="how many differences are printed")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    failures: list[str] = []
    paths = sorted(options.folder.rglob("*.jinja"))
    for path in paths:
        counts, different = oracle.compare(
            oracle.template_entries(path.name, path.read_text(encoding="utf-8"))
        )
        total += counts
        failures += different
        summary = ", ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
        print(f"{path.name:60} {summary}")
    print(f"{len(paths)} templates: ", dict(sorted(total.items())))
    for failure in failures[: options.show]:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
