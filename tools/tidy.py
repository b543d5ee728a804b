#!/usr/bin/env python3
"""clang-tidy over every committed C++ source; any finding is an error (.clang-tidy).

    tools/tidy.py BUILD_DIR [JOBS]        BUILD_DIR holds compile_commands.json

A file without a finding is remembered, as a compiler cache would: by the digest of all that
clang-tidy reads for it (its version, the checks, how the file is compiled, the file and every
header). SAMEBITS_TIDY_CACHE names the folder; removing it makes everything be checked anew.

SAMEBITS_TIDY_SECONDS sets a limit: what was committed last comes first, and what is left when the
time is up is counted and named as not checked.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["samebits/*.cc", "apps/*.cc", "tests/*.cc"]


def digest(command: str, folder: str, constants: bytes) -> str:
    """The compiler lists the headers; what it cannot compile, clang-tidy shall report."""
    listed = subprocess.run(
        f"{command} -w -M -MF - -MT all", shell=True, cwd=folder, capture_output=True, text=True
    )
    if listed.returncode != 0:
        return ""
    key = hashlib.sha256(constants)
    # The same compilation in another checkout: its folder is no part of the key.
    key.update(command.replace(str(ROOT), ".").encode())
    for path in listed.stdout.replace("\\\n", " ").split()[1:]:
        key.update(hashlib.sha256(Path(folder, path).read_bytes()).digest())
    return key.hexdigest()


def latest_first(files: list[str]) -> list[str]:
    """By the last commit that touched each; in a shallow checkout as they come."""
    log = subprocess.run(
        ["git", "log", "--name-only", "--format=", "--", *SOURCES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    place: dict[str, int] = {}
    for file in log.stdout.split():
        place.setdefault(file, len(place))
    return sorted(files, key=lambda file: place.get(file, len(place)))


def main() -> int:
    build = Path(sys.argv[1]).resolve()
    jobs = int(sys.argv[2]) if len(sys.argv) > 2 else os.cpu_count()
    home = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    cache = Path(os.environ.get("SAMEBITS_TIDY_CACHE", Path(home) / "samebits-tidy"))
    cache.mkdir(parents=True, exist_ok=True)
    version = subprocess.run(["clang-tidy-14", "--version"], capture_output=True, check=True).stdout
    constants = version + (ROOT / ".clang-tidy").read_bytes()
    entries = json.loads((build / "compile_commands.json").read_text())
    commands = {entry["file"]: entry for entry in entries}
    listed = subprocess.run(
        ["git", "ls-files", *SOURCES], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = latest_first(listed.stdout.split())
    limit = float(os.environ.get("SAMEBITS_TIDY_SECONDS", "inf"))
    begin = time.monotonic()
    left_out: list[str] = []

    def check(file: str) -> tuple[bool, str]:
        """Whether it is known from before, and what was found."""
        entry = commands.get(str(ROOT / file))
        key = digest(entry["command"], entry["directory"], constants) if entry else ""
        if key and (cache / key).exists():
            return True, ""
        if time.monotonic() - begin > limit:
            left_out.append(file)
            return False, ""
        tidy = ["clang-tidy-14", "-p", str(build), "--quiet"]
        done = subprocess.run(
            [*tidy, "--extra-arg=-Wno-unknown-warning-option", file],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            return False, done.stdout or done.stderr or f"{file}: clang-tidy failed\n"
        if key:
            (cache / key).touch()
        return False, ""

    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(check, files))
    findings = [text for _, text in results if text]
    print("".join(findings), end="")
    known = sum(before for before, _ in results)
    verdict = f"{len(findings)} with findings" if findings else "no finding"
    print(f"clang-tidy: {len(files) - len(left_out)} files ({known} known from before), {verdict}")
    if left_out:
        print(f"clang-tidy: {len(left_out)} files not checked, the {limit:.0f} s were up:")
        print("".join(f"  {file} (not checked)\n" for file in sorted(left_out)), end="")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
