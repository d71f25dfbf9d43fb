#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks what clang-format cannot.  Usage: check-style.py [PATH...]   (default: all files git knows)

Errors: no SPDX line; a to-do note; a header without #pragma once or with 'using namespace'; glib or
json in an installed header; a NOLINT without check and reason; a file name that is not kebab-case.
Warning only: a file longer than LONG_FILE_LINES.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LONG_FILE_LINES = 700
SPDX_WITHIN_LINES = 5
CPP = {".h", ".cc"}
SOURCE = CPP | {".c", ".py", ".sh"}
KERNEL_MODULE = "tests/kernel/module/"
THIS = "scripts/check-style.py"

TO_DO = re.compile(r"(//|/\*|#|\*|\.\.).*\b(TODO|FIXME|XXX|HACK)\b")
NOLINT = re.compile(r"\bNOLINT(NEXTLINE|BEGIN)?\b(?!\([\w\-,. *]+\): \S)")
USING_NAMESPACE = re.compile(r"\s*using\s+namespace\b")
FOREIGN_INCLUDE = re.compile(r'\s*#\s*include\s*[<"](glib|gio/|gobject/|nlohmann/|json)')
KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def is_source(path, text):
    return path.suffix in SOURCE or (path.suffix == "" and text.startswith("#!"))


def licence(name):
    return "GPL-2.0-only" if name.startswith(KERNEL_MODULE) else "BSD-2-Clause"


def check_line(name, path, line):
    if TO_DO.search(line):
        yield "a to-do note; do it, or write it into the tracker"
    if path.suffix in CPP and NOLINT.search(line):
        yield "NOLINT needs its check and a reason: NOLINT(check-name): why"
    if path.suffix == ".h" and USING_NAMESPACE.match(line):
        yield "'using namespace' in a header"
    if name.startswith("include/") and FOREIGN_INCLUDE.match(line):
        yield "no glib or json in an installed header"


def check_file(name, text):
    path = Path(name)
    lines = text.splitlines()
    wanted = f"SPDX-License-Identifier: {licence(name)}"
    if not any(wanted in line for line in lines[:SPDX_WITHIN_LINES]):
        yield f"{name}:1: no '{wanted}' in the first {SPDX_WITHIN_LINES} lines"
    included = path.suffix == ".h" and path.parent.name != "pch"  # that is compiled by itself
    if included and not name.startswith(KERNEL_MODULE) and "#pragma once" not in lines:
        yield f"{name}:1: no #pragma once"
    if path.suffix in CPP and not KEBAB_CASE.fullmatch(path.stem):
        yield f"{name}:1: file names are kebab-case"
    for number, line in enumerate(lines, start=1):
        for problem in check_line(name, path, line):
            yield f"{name}:{number}: {problem}"


def known_files():
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sorted(set(filter(None, output.split("\0"))))


def main(arguments):
    names = [Path(name).resolve().relative_to(ROOT).as_posix() for name in arguments] or known_files()
    count, problems, warnings = 0, [], []
    for name in names:
        path = ROOT / name
        if name == THIS or path.is_symlink() or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # data, not source
        if not is_source(path, text):
            continue
        count += 1
        problems += check_file(name, text)
        if text.count("\n") > LONG_FILE_LINES:
            warnings.append(f"{name}: warning: {text.count(chr(10))} lines; is it one idea?")
    print("\n".join(warnings + problems + [f"check-style: {count} files, {len(problems)} problems, "
                                           f"{len(warnings)} warnings"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
