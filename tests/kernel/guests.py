# SPDX-License-Identifier: BSD-2-Clause
"""Guests that this kernel's KVM runs, with VFIO devices of the same kernel beside them."""

import pathlib

from ferrytest import run, test
from kvm import exits_per_round, load_kvm, main_loop_stopped
from vms import DESTINATION, SOURCE, Vms, begin, move
from harness.kvm import WorkingGuest, boot_disk

IMAGE = pathlib.Path("/ferry/guests/device.img")  # `run` makes it


@test
def kvm_is_there():
    load_kvm()
    with Vms() as vms:
        vmm = vms.start(accel="kvm,dirty-ring-size=0", memory="8M")
        assert vmm.cmd("query-kvm") == {"enabled": True, "present": True}


def machine(vms, names, *args, accel="kvm", **keywords):
    return vms.over(names, *boot_disk(IMAGE), *args, accel=accel, memory="16M", **keywords)


def working(vms, *args, **keywords):
    """A VM whose guest works with ferry.0."""
    vmm = machine(vms, SOURCE[:1], "-S", *args, name="src", **keywords)
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
        exits = exits_per_round(vmm, WorkingGuest)  # two registers of the device are written in each
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
        with main_loop_stopped(dst):  # its unmasked vectors were routed again
            WorkingGuest.wait_rounds(dst)
        assert before < left < check_stopped(dst)
        assert src.quit() == 0
        back = waiting(vms, "back", SOURCE)
        move(dst, back, lambda: WorkingGuest.wait_rounds(dst))
        WorkingGuest.wait_rounds(back)
        check_stopped(back)
        assert dst.quit() == 0 and back.quit() == 0


@test
def a_guest_whose_dirty_ring_is_often_full_migrates_live():
    with Vms() as vms:
        trace = pathlib.Path(vms.folder, "trace")
        entries = 256  # it writes four times as many pages in each round
        src = working(vms, "-trace", f"kvm_dirty_ring_full,file={trace}",
                      accel=f"kvm,dirty-ring-size={entries}")
        dst = waiting(vms)
        move(src, dst, lambda: WorkingGuest.wait_rounds(src))
        WorkingGuest.wait_rounds(dst)
        check_stopped(dst)
        assert "kvm_dirty_ring_full" in trace.read_text()


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
