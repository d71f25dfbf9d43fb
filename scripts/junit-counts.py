#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Counts the test cases of meson's JUnit reports.  Usage: junit-counts.py TESTLOG.junit.xml...

Prints "FAIL suite.case" with the message below it and "SKIP suite.case: reason" lines, then "N passed, N failed, N skipped".
Cases of GoogleTest executables count one by one (meson takes them over); an executable that
died before it wrote its report counts as one failure.
"""

import sys
import xml.etree.ElementTree as ElementTree

LINES = 20  # of a failure's message


def reason(element):
    """The last line of a message: GoogleTest puts the place before it."""
    lines = [line.strip() for line in (element.get("message") or element.text or "").splitlines()]
    return next((line for line in reversed(lines) if line), "no reason given")


def count(path):
    passed = failed = skipped = 0
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        for case in suite.findall("testcase"):
            owner = case.get("classname")
            name = case.get("name") if owner in (None, suite.get("name")) else f"{owner}.{case.get('name')}"
            problems = case.findall("failure") + case.findall("error")
            if problems:
                failed += 1
                print(f"FAIL {name}")
                for line in (problems[0].get("message") or "").splitlines()[:LINES]:
                    print(f"    {line}")
            elif case.find("skipped") is not None:
                skipped += 1
                print(f"SKIP {name}: {reason(case.find('skipped'))}")
            elif case.get("status") == "notrun":
                skipped += 1
                print(f"SKIP {name}: disabled in its source")
            else:
                passed += 1
    return passed, failed, skipped


def main(paths):
    if not paths:
        sys.exit("usage: junit-counts.py TESTLOG.junit.xml...")
    totals = [sum(column) for column in zip(*(count(path) for path in paths))]
    print("{} passed, {} failed, {} skipped".format(*totals))


if __name__ == "__main__":
    main(sys.argv[1:])
