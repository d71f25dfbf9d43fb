#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""How long do 25,000 single-byte reads over qtest take: while the VM runs, stands still, and loads
an incoming migration's memory? One request at a time, as QEMU's test library sends them."""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "qtest"))
from harness.vmm import Vmm, start_migration, workload  # noqa: E402

READS = 25000


def seconds(vmm):
    begin = time.monotonic()
    for at in range(READS):
        vmm.qtest.readb(0x1000 + at % 4096)
    return round(time.monotonic() - begin, 2)


def main():
    # Written faster than it may be sent: the load lasts as long as we like.
    busy = workload("64M", offset="64M", pages_per_second=50000)
    with tempfile.TemporaryDirectory(prefix="ferry-") as folder, contextlib.ExitStack() as stack:
        src = Vmm(folder, "src", *busy, memory="256M")
        stack.callback(src.close)
        dst = Vmm(folder, "dst", *busy, "-incoming", "defer", memory="256M")
        stack.callback(dst.close)
        result = {"bench": "qtest-reads", "reads": READS, "running_s": seconds(src)}
        src.cmd("stop")
        result["stopped_s"] = seconds(src)
        src.cmd("cont")
        src.set_parameters(max_bandwidth=64 << 20, downtime_limit=1)
        start_migration(src, dst)
        dst.wait_migration("active")
        result["loading_s"] = seconds(dst)
        if dst.migration_status() != "active":
            sys.exit("qtest-reads: the load was over too early")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
