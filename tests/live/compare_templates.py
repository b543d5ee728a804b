"""Renders every template of a folder with jinja2 and with ours, and counts.

    build/venv/bin/python tests/live/compare_templates.py FOLDER [--show N]

FOLDER holds *.jinja files. Each is rendered with the conversations of template_oracle.py. The exit
code is 1 when any differs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import template_oracle as oracle


def record(folder: Path, file: Path) -> None:
    """A fixture for tests without Python: null stands for an error."""
    chats = oracle.conversations()
    results = {}
    for path in sorted(folder.glob("*.jinja")):
        entries = oracle.template_entries(path.name, path.read_text(encoding="utf-8"))
        texts = [result.get("text") for result in oracle.reference(entries)]
        results[path.name] = dict(zip(chats, texts, strict=True))
    document = {"tokens": oracle.TOKENS, "chats": chats, "results": results}
    file.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--show", type=int, default=5, help="how many differences are printed")
    parser.add_argument("--record", type=Path, help="writes what jinja2 makes instead")
    options = parser.parse_args()
    if options.record:
        record(options.folder, options.record)
        return 0
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
