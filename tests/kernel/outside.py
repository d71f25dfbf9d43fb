# SPDX-License-Identifier: BSD-2-Clause
"""Guest memory after a migration, judged by a program that knows nothing of migration: the source has
stopped, the destination (-S) has not begun, and until then the guest and the devices wrote."""

import subprocess

import vfio
from ferrytest import run, test, test_where
from vms import Vms, move
from harness.soft import start_auto_dma
from harness.vmm import MEMCMP, options, workload

MIB = 1 << 20
PAGES_PER_SECOND = 2000
WORK = workload("8M", offset="4M", pages_per_second=PAGES_PER_SECOND)
REGIONS = ((16 * MIB, 4 * MIB), (24 * MIB, 2 * MIB))  # what each device writes to


def busy_pair(vms, count, *args, **keywords):
    """Both sides' devices would write at once if they ran."""
    src = vms.source(count, *WORK, *args, **keywords)
    dst = vms.destination(src, "-S", *WORK, *args, **keywords)
    for knobs in (*src.knobs, *dst.knobs):
        knobs["dma_rate"] = PAGES_PER_SECOND
    for one, (first, size) in zip(src.devices, REGIONS):
        start_auto_dma(one, first, size)
    return src, dst


def written(vmm):
    return [one.readq(one.AUTO_PAGES) for one in vmm.devices]


def wait_written(vmm, more):
    before = written(vmm)
    vmm.wait_for(lambda: all(now > then + more for now, then in zip(written(vmm), before)),
                 "pages written by every device")


def compare(src, dst):
    """The files behind the memory of both."""
    assert (src.run_state(), dst.run_state()) == ("postmigrate", "paused")
    done = subprocess.run([MEMCMP, src.memory_path, dst.memory_path], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def check(count, *args, **keywords):
    with Vms() as vms:
        src, dst = busy_pair(vms, count, *args, **keywords)

        def meanwhile():
            before = src.workload()["position"]
            wait_written(src, 200)
            src.wait_for(lambda: src.workload()["position"] > before + 200, "pages by the guest")

        move(src, dst, meanwhile)
        compare(src, dst)
        assert all(one.readl(one.AUTO_STATUS) == 0 for one in src.devices)
        assert written(src) == written(dst)
        dst.cmd("cont")
        wait_written(dst, 20)  # they go on where they were
        assert src.quit() == 0 and dst.quit() == 0


@test
def memory_is_identical_while_guest_and_two_devices_write():
    check(2)


@test
def memory_is_identical_without_a_log_of_the_devices():
    check(2, knobs={"dma_logging": 0}, properties={"enable_migration": True})


@test_where(vfio.has_iommufd())
def memory_is_identical_while_devices_opened_by_their_nodes_write():
    check(2, *options("-object", "iommufd", id="iommufd0"), properties={"iommufd": "iommufd0"})


@test
def a_page_that_differs_is_found():
    with Vms() as vms:
        src, dst = busy_pair(vms, 1)
        move(src, dst)
        with open(dst.memory_path, "r+b") as memory:
            memory.seek(REGIONS[0][0] + 0x3008)
            memory.write(b"\xEE")
        try:
            compare(src, dst)
        except AssertionError:
            return
        raise AssertionError("not found")


run(timeout=90)
