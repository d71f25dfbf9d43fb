# SPDX-License-Identifier: BSD-2-Clause
"""Guests that this kernel's KVM runs, with VFIO devices of the same kernel beside them."""

import contextlib
import ctypes
import os
import pathlib
import subprocess

from ferrytest import run, test
from vms import DESTINATION, SOURCE, Vms, begin, move
from harness.kvm import WorkingGuest, boot_disk

MODULES = ("kvm", "ccp", "kvm-amd")
IMAGE = pathlib.Path("/ferry/guests/device.img")  # `run` makes it


@test
def kvm_is_there():
    # KVM patches its own code when CPUs of guests come and go, and a processor that QEMU emulates
    # beside the one that patches may execute the middle of it. So there is one from here on.
    for online in pathlib.Path("/sys/devices/system/cpu").glob("cpu*/online"):
        online.write_text("0")
    for module in MODULES:
        if not pathlib.Path("/sys/module", module.replace("-", "_")).exists():
            subprocess.run(["insmod", f"/lib/modules/{module}.ko"], check=True)
    subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=True)
    assert os.access("/dev/kvm", os.R_OK | os.W_OK)
    with Vms() as vms:
        assert vms.start(accel="kvm", memory="8M").cmd("query-kvm") == {"enabled": True,
                                                                       "present": True}


def machine(vms, names, *args, **keywords):
    return vms.over(names, *boot_disk(IMAGE), *args, accel="kvm", memory="16M", **keywords)


@contextlib.contextmanager
def main_loop_stopped(vmm):
    """Its first thread executes nothing; the others go on."""
    seize, interrupt, detach, wait_for_all = 0x4206, 0x4207, 17, 0x40000000
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    for request in (seize, interrupt):
        assert ptrace(request, vmm.pid, None, None) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(vmm.pid, wait_for_all)
    try:
        yield
    finally:
        assert ptrace(detach, vmm.pid, None, None) == 0, os.strerror(ctypes.get_errno())


def exits_per_round(vmm):
    """How often the CPU left the guest for an access to a device."""
    (stats,) = pathlib.Path("/sys/kernel/debug/kvm").glob(f"{vmm.pid}-*")

    def look():
        vmm.cmd("stop")
        seen = vmm.qtest.readl(WorkingGuest.ROUNDS), int((stats / "mmio_exits").read_text())
        vmm.cmd("cont")
        return seen

    rounds, exits = look()
    WorkingGuest.wait_rounds(vmm, 100)
    rounds_after, exits_after = look()
    return (exits_after - exits) / (rounds_after - rounds)


def working(vms):
    """A VM whose guest works with ferry.0."""
    vmm = machine(vms, SOURCE[:1], "-S", name="src")
    WorkingGuest.prepare(vmm.devices[0])
    vmm.cmd("cont")
    WorkingGuest.wait_rounds(vmm)
    return vmm


def waiting(vms, name="dst", devices=DESTINATION):
    return machine(vms, devices[:1], "-incoming", "defer", name=name)


def check_stopped(vmm):
    vmm.cmd("stop")
    rounds = WorkingGuest.check(vmm)
    vmm.cmd("cont")
    return rounds


@test
def a_guest_works_with_its_device():
    with Vms() as vms:
        vmm = working(vms)
        one = check_stopped(vmm)
        WorkingGuest.wait_rounds(vmm)
        assert check_stopped(vmm) > one


@test
def interrupts_reach_the_guest_without_the_main_loop():
    with Vms() as vms:
        vmm = working(vms)
        with main_loop_stopped(vmm):
            WorkingGuest.wait_rounds(vmm)
        check_stopped(vmm)


@test
def memory_of_the_device_is_reached_without_leaving_the_guest():
    with Vms() as vms:
        vmm = working(vms)
        exits = exits_per_round(vmm)  # two registers of the device are written in each
        assert exits < 2.5, exits


@test
def a_guest_and_its_device_migrate_live():
    with Vms() as vms:
        src = working(vms)
        dst = waiting(vms)
        before = check_stopped(src)
        move(src, dst, lambda: WorkingGuest.wait_rounds(src))
        assert (src.run_state(), dst.run_state()) == ("postmigrate", "running")
        left = WorkingGuest.check(src)
        WorkingGuest.wait_rounds(dst)
        assert before < left < check_stopped(dst)
        assert src.quit() == 0
        back = waiting(vms, "back", SOURCE)
        move(dst, back, lambda: WorkingGuest.wait_rounds(dst))
        WorkingGuest.wait_rounds(back)
        check_stopped(back)
        assert dst.quit() == 0 and back.quit() == 0


@test
def a_guest_goes_on_after_a_migration_that_fails_at_its_end():
    with Vms() as vms:
        src = working(vms)
        dst = waiting(vms)
        dst.knobs[0]["reject_image"] = 1
        begin(src, dst, downtime_limit=100000)
        src.wait_migration("failed")
        src.wait_run_state("running")
        WorkingGuest.wait_rounds(src)
        check_stopped(src)


run(timeout=90)
