#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Checks that a section of MAINTAINERS claims every tracked file, and that sections are complete.

Usage: check-maintainers.py [--owner PATH...]     --owner prints the sections that claim PATH
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIELD = re.compile(r"([A-Z]):\s+(\S.*)")
REQUIRED = "MSF"


class Section:
    def __init__(self, title, line):
        self.title, self.line = title, line
        self.fields = {}

    def claims(self, path):
        return any(matches(pattern, path) for pattern in self.fields.get("F", []))


def matches(pattern, path):
    if pattern.endswith("/"):
        return path.startswith(pattern)
    regex = "".join("[^/]*" if char == "*" else re.escape(char) for char in pattern)
    return re.fullmatch(regex, path) is not None


def parse(text):
    """A section is a title line directly followed by fields."""
    sections, previous, problems = [], None, []
    for number, line in enumerate(text.splitlines(), start=1):
        found = FIELD.fullmatch(line.strip())
        if not found:
            previous = (line.strip(), number)
            continue
        if previous is not None:
            sections.append(Section(*previous))
            previous = None
        sections[-1].fields.setdefault(found[1], []).append(found[2].strip())
        if found[1] not in "MRSF":
            problems.append(f"MAINTAINERS:{number}: unknown field {found[1]}:")
    # The head explains the fields in the fields' own syntax; it has no F: line of its own.
    return [section for section in sections if section.title], problems


def tracked_files():
    output = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"],
                            check=True, capture_output=True, text=True).stdout
    return [path for path in output.split("\0") if path]


def main(arguments):
    sections, problems = parse((ROOT / "MAINTAINERS").read_text(encoding="utf-8"))
    if arguments[:1] == ["--owner"]:
        for path in arguments[1:]:
            owners = [section.title for section in sections if section.claims(path)]
            print(f"{path}: {', '.join(owners) or 'nobody'}")
        return 0
    for section in sections:
        for field in REQUIRED:
            if field not in section.fields:
                problems.append(f"MAINTAINERS:{section.line}: '{section.title}' has no {field}:")
    files = tracked_files()
    for path in files:
        if not any(section.claims(path) for section in sections):
            problems.append(f"{path}: no section of MAINTAINERS claims it")
    print("\n".join(problems + [f"check-maintainers: {len(files)} files, {len(sections)} sections, "
                                f"{len(problems)} problems"]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
