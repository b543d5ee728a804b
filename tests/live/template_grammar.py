"""Makes templates at random: expressions and statements that jinja2 knows, right and wrong ones.

python tests/live/template_grammar.py COUNT SEED         compares COUNT templates
python tests/live/template_grammar.py COUNT SEED --record FILE
                                                         writes them with jinja2's results
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import template_oracle as oracle

VARIABLES: dict[str, Any] = {
    "s": "Hello, World",
    "u": "Grüße ΑΣ 東京 ß👩‍👧 ǆ",
    "t": "  a b\tc\n d\r\ne  ",
    "e": "",
    "n": 7,
    "m": -3,
    "z": 0,
    "f": 2.5,
    "g": -0.1,
    "b": True,
    "w": False,
    "o": None,
    "l": [3, 1, 2, 1],
    "k": ["b", "A", "c", "a"],
    "x": [1, "a", None, 2.0, True, [1], {"q": 1}],
    "d": {"a": 1, "B": "two", "c": [1, 2], "n": None, "x y": {"z": "deep"}},
    "p": [
        {"name": "Ann", "age": 30, "tags": ["x", "y"], "on": True},
        {"name": "bob", "age": 25, "tags": [], "on": False},
        {"name": "Cid", "age": 30, "tags": ["y"], "sub": {"k": "v"}},
    ],
}

NAMES = [*VARIABLES, "missing"]
LITERALS = [
    "0", "1", "2", "-1", "10", "3.0", "0.5", "1e3", "1e16", "1.5e-7", "'a'", "'ab'", '"it\'s"',
    "''", "' '", "'é\\n'", "'\\u00df'", "true", "false", "none", "[]", "[1, 2, 3]", "['x', 'y']",
    "(1, 2)", "(1,)", "()", "{}", "{'a': 1, 'b': [2]}", "'%s-%s'", "'{}{}'", "1_000", "0x1f",
]  # fmt: skip
BINARY = ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "and", "or",
          "in", "not in"]  # fmt: skip
FILTERS = [
    "abs", "attr('items')", "attr('name')", "batch(2)|list", "batch(3, 'x')|list", "capitalize",
    "center(9)", "default('D')", "default('D', true)", "d", "dictsort", "dictsort(true)",
    "dictsort(by='value')", "dictsort(reverse=true)", "escape", "e", "first", "float",
    "float(1.5)", "forceescape", "format(1, 'b')", "groupby('age')", "groupby('name')|list",
    "indent", "indent(2, true)", "indent('> ', blank=true)", "int", "int(9)", "int(0, 16)",
    "items|list", "join", "join('-')", "join(', ', attribute='name')", "last", "length", "count",
    "list", "lower", "map('upper')|list", "map(attribute='name')|list", "map('int')|list",
    "map(attribute='age', default=0)|join('+')", "max", "min", "max(attribute='age')",
    "min(case_sensitive=true)", "reject('none')|list", "reject|list", "rejectattr('on')|list",
    "replace('a', 'b')", "replace('', '-')", "replace('l', 'LL', 1)", "reverse", "reverse|list",
    "round", "round(1)", "round(2, 'floor')", "round(method='ceil')", "safe", "select|list",
    "select('string')|list", "select('gt', 1)|list", "selectattr('on')|list",
    "selectattr('age', 'equalto', 30)|map(attribute='name')|list",
    "selectattr('tags')|list|length", "slice(2)|list", "slice(3, '-')|list", "sort",
    "sort(reverse=true)", "sort(attribute='age')", "sort(attribute='age,name')",
    "sort(case_sensitive=true)", "string", "striptags", "sum", "sum(attribute='age')", "title",
    "tojson", "tojson(indent=2)", "tojson(sort_keys=true)", "tojson(ensure_ascii=true)",
    "tojson(separators=(',', ':'))", "trim", "trim('a ')", "truncate(5)", "truncate(6, true, '~')",
    "truncate(8, leeway=0)", "unique|list", "unique(attribute='age')|list", "upper", "urlencode",
    "wordcount", "xmlattr", "nosuchfilter", "sum(start=2)", "join(d)", "length(1)",
]  # fmt: skip
TESTS = [
    "defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true",
    "false", "mapping", "iterable", "sequence", "callable", "odd", "even", "divisibleby(2)",
    "divisibleby 3", "lower", "upper", "eq(1)", "== 1", "ne 2", "gt 1", "lt(5)", "ge 0", "le 2",
    "in [1, 'a']", "in(l)", "sameas true", "sameas none", "equalto 'a'", "filter", "test",
    "escaped", "not none", "not defined", "nosuchtest",
]  # fmt: skip
METHODS = [
    "strip()", "lstrip()", "rstrip('d ')", "strip('H')", "split()", "split(',')", "split('l', 1)",
    "split(none, 1)", "rsplit('l', 1)", "rsplit(none, 1)", "splitlines()", "splitlines(true)",
    "startswith('H')", "endswith(('d', 'e'))", "startswith(('x', 'G'))", "replace('l', 'L')",
    "replace('l', '', 1)", "replace('', '.')", "upper()", "lower()", "title()", "capitalize()",
    "swapcase()", "casefold()", "find('o')", "rfind('o')", "find('o', 5)", "index('l')",
    "rindex('l', 0, 4)", "index(1)", "count('l')", "count('')", "count(1)", "join(['p', 'q'])",
    "join(k)", "join(d)", "format(1, 2)", "isdigit()", "isalpha()", "isalnum()", "isspace()",
    "isupper()", "islower()", "istitle()", "isnumeric()", "isdecimal()", "isascii()",
    "isprintable()", "removeprefix('He')", "removesuffix('ld')", "zfill(15)", "ljust(14, '.')",
    "rjust(14)", "center(15, '*')", "partition(',')", "rpartition('o')", "get('a')",
    "get('q', 5)", "items()", "keys()", "values()", "items()|list", "keys()|list", "append(1)",
    "pop()", "update({})", "copy()", "nosuch()", "nosuch", "__class__", "upper", "a", "B", "name",
    "real_name", "0", "encode()",
]  # fmt: skip
SUBSCRIPTS = [
    "0", "-1", "1", "5", "'a'", "'name'", "'items'", "'x y'", ":2", "1:", "-2:", "::-1", "::2",
    "1:3", "3:1:-1", ":-1", "n", "none", "'nosuch'", "100:", "-100:2", "::0", "true",
]  # fmt: skip


class Maker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def pick(self, choices: list[str]) -> str:
        return self.random.choice(choices)

    def expression(self, depth: int) -> str:
        if depth <= 0:
            return self.pick(NAMES) if self.random.random() < 0.6 else self.pick(LITERALS)
        inner = self.expression(depth - 1)
        kind = self.random.randrange(12)
        if kind <= 2:
            return f"{inner}|{self.pick(FILTERS)}"
        if kind == 3:
            return f"({inner} {self.pick(BINARY)} {self.expression(depth - 1)})"
        if kind == 4:
            return f"{inner} {self.pick(BINARY)} {self.expression(depth - 2)}"
        if kind == 5:
            return f"({inner} is {self.pick(TESTS)})"
        if kind == 6:
            return f"({inner}).{self.pick(METHODS)}"
        if kind == 7:
            return f"({inner})[{self.pick(SUBSCRIPTS)}]"
        if kind == 8:
            otherwise = f" else {self.expression(depth - 2)}" if self.random.random() < 0.7 else ""
            return f"({inner} if {self.expression(depth - 1)}{otherwise})"
        if kind == 9:
            return f"{self.pick(['not ', '-', '+'])}{inner}"
        if kind == 10:
            return f"[{inner}, {self.expression(depth - 2)}]"
        return f"{self.pick(NAMES)}.{self.pick(METHODS)}"

    def mark(self, kind: str, text: str) -> str:
        left = self.pick(["", "", "-", "+"])
        right = self.pick(["", "", "-", "+"]) if kind == "%" else self.pick(["", "", "-"])
        return f"{{{kind}{left} {text} {right}{'}' if kind == '{' else kind}}}"

    def text(self) -> str:
        return self.pick(["", " ", "\n", "x", " y \n", "\n\n  ", "\t", "{ }", "\n z\n", "  \n"])

    def block(self, depth: int) -> str:
        return "".join(self.piece(depth) for _ in range(self.random.randint(1, 3)))

    def piece(self, depth: int) -> str:
        kind = self.random.randrange(14) if depth > 0 else self.random.randrange(3)
        if kind == 0:
            return self.text()
        if kind <= 2:
            return self.text() + self.mark("{", self.expression(self.random.randint(0, 3)))
        return self.text() + self.statement(kind, depth - 1) + self.text()

    def statement(self, kind: int, depth: int) -> str:
        body, tag = self.block(depth), self.mark
        name = self.pick(["v", "y", "n", "s"])
        if kind <= 4:
            condition = self.pick(["", " if i", " if loop is defined", " if i is string"])
            values = self.expression(1)
            inside = self.pick(
                ["i", "loop.index", "loop.last", "loop.length", "loop.cycle('p', 'q')", "i.name",
                 "loop.previtem", "loop.nextitem|default('-')", "loop.changed(i)", "loop.depth",
                 "loop.revindex", "v", "y", "i[0]"]
            )  # fmt: skip
            stop = self.pick(["", "", "{% if loop.index == 2 %}{% break %}{% endif %}",
                              "{% if i == 1 %}{% continue %}{% endif %}"])  # fmt: skip
            otherwise = tag("%", "else") + self.block(depth - 1) if kind == 4 else ""
            target = self.pick(["i", "i", "i", "i, j", "(i, j)"])
            return (
                tag("%", f"for {target} in {values}{condition}") + stop + tag("{", inside) + body
                + otherwise + tag("%", "endfor")
            )  # fmt: skip
        if kind <= 6:
            middle = tag("%", f"elif {self.expression(1)}") + self.block(depth - 1)
            return (
                tag("%", f"if {self.expression(2)}") + body + (middle if kind == 6 else "")
                + tag("%", "else") + self.block(depth - 1) + tag("%", "endif")
            )  # fmt: skip
        if kind == 7:
            return tag("%", f"set {name} = {self.expression(2)}") + tag("{", name)
        if kind == 8:
            part = self.pick(["", "|upper", "|trim|length"])
            return tag("%", f"set {name}{part}") + body + tag("%", "endset") + tag("{", name)
        if kind == 9:
            return (
                tag("%", f"set q = namespace(c=0, v={self.expression(0)})")
                + tag("%", "for i in l") + tag("%", "set q.c = q.c + i") + tag("%", "endfor")
                + tag("{", "q.c") + tag("{", self.pick(["q", "q.v", "q.nosuch", "q['c']"]))
            )  # fmt: skip
        if kind == 10:
            use = self.pick(["f1(1)", "f1(s, b=u)", "f1()", "f1(1, 2)", "f1(1, 2, 3)", "f1(c=1)"])
            extra = self.pick(["", tag("{", "varargs"), tag("{", "kwargs"), tag("{", "v")])
            return (
                tag("%", f"macro f1(a, b={self.expression(0)})") + tag("{", "a") + tag("{", "b")
                + extra + body + tag("%", "endmacro") + tag("{", use)
            )  # fmt: skip
        if kind == 11:
            return (
                "{% macro c1(a) %}<{{ caller(a) if caller else '?' }}>{% endmacro %}"
                + tag("%", "call(z1) c1(n)") + tag("{", "z1") + body + tag("%", "endcall")
            )  # fmt: skip
        if kind == 12:
            applied = self.pick(["upper", "trim", "replace(' ', '_')"])
            return tag("%", f"filter {applied}") + body + tag("%", "endfilter")
        return (
            tag("%", f"with {name} = {self.expression(1)}, y = {name}") + tag("{", "y") + body
            + tag("%", "endwith")
            + self.pick(["", tag("#", "note"), "{% raw %} {{ n }} {% endraw %}",
                         "{% generation %}g{{ n }}{% endgeneration %}"])
        )  # fmt: skip


def candidates(count: int, seed: int) -> list[oracle.Entry]:
    maker = Maker(seed)
    entries = []
    for i in range(count):
        if i % 2 == 0:
            template = "{{ " + maker.expression(maker.random.randint(1, 4)) + " }}"
        else:
            template = maker.block(maker.random.randint(1, 3))
        entries.append({"template": template, "variables": VARIABLES})
    return entries


def templates(count: int, seed: int) -> list[oracle.Entry]:
    """Most templates at random are wrong: here one in five that jinja2 refuses, four it renders."""
    entries = candidates(4 * count, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        results = oracle.reference(entries)
    good = [
        e for e, r in zip(entries, results, strict=True) if " at 0x" not in r.get("text", " at 0x")
    ]
    bad = [e for e, r in zip(entries, results, strict=True) if "error" in r]
    return good[: count - count // 5] + bad[: count // 5]


def record(path: Path, entries: list[oracle.Entry]) -> None:
    """A fixture for tests without Python: null stands for an error of jinja2."""
    cases = [
        [entry["template"], result.get("text")]
        for entry, result in zip(entries, oracle.reference(entries), strict=True)
    ]
    document = {"variables": VARIABLES, "cases": cases}
    path.write_text(json.dumps(document, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases in {path}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--show", type=int, default=10)
    options = parser.parse_args()
    entries = templates(options.count, options.seed)
    if options.record:
        record(options.record, entries)
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        counts, failures = oracle.compare(entries)
    print(dict(sorted(counts.items())))
    for failure in failures[: options.show]:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
