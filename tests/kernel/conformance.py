# SPDX-License-Identifier: BSD-2-Clause
"""The suite that every device interface passes (tests/conformance), over this kernel's devices: each
case of the program counts as a test."""

import re
import subprocess
import sys

import vfio

SUITE = "/ferry/build/tests/unit/hw/vfio/vfio-kernel-conformance"  # where `run` puts it
# A stock kernel starts such a log and then refuses every report (smoke.py): these are for the other one.
REPORTS = "*DmaLogReport*:*DmaLogIsRead*:*ReportOfALogThatIsOff*"
VERDICT = re.compile(r"\[ +(OK|FAILED|SKIPPED) +\] ([^\s,]+).* \((\d+) ms\)$")
OUTCOMES = {"OK": "PASS", "FAILED": "FAIL", "SKIPPED": "SKIP"}


def verdict(line):
    """The line that `boot` counts, for one with which the program ends a case."""
    match = VERDICT.match(line)
    if not match:
        return None
    outcome, name, ms = match.groups()
    return f"FERRY-TEST {name.replace('/', '-')} {OUTCOMES[outcome]} {int(ms) / 1000:.2f} s"


def main():
    wanted = REPORTS if vfio.has_iommufd() else f"-{REPORTS}"
    command = [SUITE, "--gtest_color=no", "--gtest_print_time=1", f"--gtest_filter={wanted}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as program:
        counted = 0
        for line in program.stdout:
            said = verdict(line)
            counted += said is not None
            if said or not line.startswith(("[ RUN", "[---", "[===")):
                print(said or line.rstrip(), flush=True)
    if not counted or program.returncode not in (0, 1):
        print(f"FERRY-TEST conformance FAIL exit status {program.returncode}, {counted} cases",
              flush=True)
    return program.returncode


sys.exit(main())
