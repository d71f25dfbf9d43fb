# SPDX-License-Identifier: BSD-2-Clause
"""With a kernel that says which pages a device wrote (boot --iommufd): only those go again."""

import os

from ferrytest import run, test
from vms import Vms, move, same_memory
from harness.vmm import workload

PAGE = 4096


@test
def only_pages_that_a_device_wrote_go_again():
    with Vms() as vms:
        src, dst = vms.pair(2)
        src.qtest.write(0, os.urandom(16 << 20))
        src.devices[0].fill(31)

        def meanwhile():
            src.wait_for(lambda: src.cmd("query-migrate")["ram"]["normal"] >= (16 << 20) // PAGE,
                         "a first pass")
            assert src.devices[0].dma_fill(0x100000, 0x10000, 0x11111111) == 0
            assert src.devices[1].dma_fill(0x203000, 0x1000, 0x22222222) == 0

        # A device that changes its state all the time keeps the migration from ending at once.
        src.knobs[0]["dirty_rate"] = 8 << 20
        move(src, dst, meanwhile)
        sent = src.cmd("query-migrate")["ram"]["normal"]
        assert sent < (24 << 20) // PAGE, f"{sent} pages: everything went twice"
        assert same_memory(src, dst)
        assert dst.qtest.read(0x100000, 0x10000) == b"\x11" * 0x10000
        assert dst.qtest.read(0x203000, 0x1000) == b"\x22" * 0x1000


@test
def pages_of_device_and_guest_arrive_together():
    with Vms() as vms:
        work = workload("4M", offset="8M", pages_per_second=2000)
        src = vms.source(1, *work)
        dst = vms.destination(src, *work)
        src.knobs[0]["dirty_rate"] = 8 << 20

        def meanwhile():
            for number in range(64):
                at = 0x100000 + 0x3000 * number
                assert src.devices[0].dma_fill(at, 0x1000, 0x01010101 * number) == 0

        move(src, dst, meanwhile)
        for number in range(64):
            assert dst.qtest.read(0x100000 + 0x3000 * number, 0x1000) == bytes([number]) * 0x1000


run(timeout=90)
