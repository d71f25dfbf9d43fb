#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks who includes whom.  Usage: check-layering.py [ROOT]

1. Includes point left only, and not between folders of one rank:
       util <- system <- accel, migration <- hw <- monitor <- executables
   Executables are system/vmm, each folder of tools and each of examples.
2. A header that another folder includes lies in include/<folder>; one beside its .cc is private to
   its folder. Folders that are parts of programs, not of the installed library (PROGRAM_PARTS), keep
   their headers beside the .cc for the executables.
3. A header in include/ includes only headers of include/.
Tests may include everything.
"""

import re
import sys
from pathlib import Path

RULE = "util <- system <- accel, migration <- hw <- monitor <- executables"
RANKS = {"util": 0, "system": 1, "accel": 2, "migration": 2, "hw": 3, "monitor": 4}
EXECUTABLE_RANK = 5
EXECUTABLES = ("system/vmm", "tools", "examples")
PROGRAM_PARTS = ("accel", "hw/nvme", "monitor")
SUFFIXES = {".h", ".cc"}
INCLUDE = re.compile(r'\s*#\s*include\s*["<]([^">]+)[">]')


def below(path, folder):
    return path == folder or path.startswith(folder + "/")


class Place:
    """Where a file stands in the order: subsystem, rank, and the folder its privates belong to."""

    def __init__(self, path):  # path relative to the root, as a string
        self.path = path
        self.installed = path.startswith("include/")
        logical = path.removeprefix("include/")
        self.folder = str(Path(logical).parent)
        self.executable = any(below(logical, folder) for folder in EXECUTABLES)
        if self.executable:
            parts = Path(logical).parts
            self.subsystem = "/".join(parts[:2] if len(parts) > 2 else parts[:1])
            self.rank = EXECUTABLE_RANK
        else:
            self.subsystem = Path(logical).parts[0]
            self.rank = RANKS.get(self.subsystem)
        self.program_part = any(below(self.folder, part) for part in PROGRAM_PARTS)


def resolve(root, includer, name):
    """The included file relative to the root, or None for headers from outside."""
    for base in (Path(includer).parent, Path("include"), Path(".")):
        candidate = base / name
        if (root / candidate).is_file():
            parts = []
            for part in candidate.parts:
                if part == "..":
                    parts.pop()
                else:
                    parts.append(part)
            return "/".join(parts)
    return None


def problem(source, target):
    if target.rank is None:
        return f"{target.path} belongs to no layer; only tests may include it"
    if target.subsystem != source.subsystem and target.rank >= source.rank:
        return f"'{source.subsystem}' may not include '{target.subsystem}'; the rule is {RULE}"
    if source.installed and not target.installed:
        return f"{target.path} is not installed; a header in include/ includes only such"
    if target.installed or target.folder == source.folder:
        return None
    if source.executable and (target.subsystem == source.subsystem or target.program_part):
        return None
    return (f"{target.path} is private to its folder; "
            f"a header that other folders include lies in include/{target.folder}/")


def check_file(root, path):
    source = Place(path)
    for number, line in enumerate((root / path).read_text(encoding="utf-8").splitlines(), start=1):
        found = INCLUDE.match(line)
        target = found and resolve(root, path, found[1])
        text = target and problem(source, Place(target))
        if text:
            yield f"{path}:{number}: {text}"


def sources(root):
    for top in (*RANKS, "include", "tools", "examples"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in SUFFIXES:
                yield path.relative_to(root).as_posix()


def main(arguments):
    root = Path(arguments[0] if arguments else Path(__file__).parent.parent).resolve()
    files = list(sources(root))
    problems = [text for path in files for text in check_file(root, path)]
    print("\n".join(problems + [f"check-layering: {len(files)} files, {len(problems)} problems"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
