# SPDX-License-Identifier: BSD-2-Clause
"""What comes between: a cancel inside an arc, a reset, a lost peer, a way back that fails."""

import errno
import os

from ferrytest import run, test
from harness.qmp import QmpError
from vms import AT_ONCE, NOT_YET, Vms, begin, move, says


def all_in(vmm, state):
    vmm.wait_for(lambda: all(knobs["state"] == state for knobs in vmm.knobs), f"devices in {state}")


def arrives(vms, src, **keywords):
    """The VM is as it was, and may leave."""
    before = [one.digest() for one in src.devices]
    again = vms.destination(src, name="again", **keywords)
    move(src, again)
    assert [one.digest() for one in again.devices] == before


@test
def cancel_inside_an_arc_waits_for_it_and_goes_back():
    for arc in ("running pre-copy", "pre-copy pre-copy-p2p", "pre-copy-p2p stop-copy"):
        with Vms() as vms:
            src, dst = vms.pair(2)
            src.devices[1].fill(41)
            src.knobs[1]["latency_us"] = f"{arc} 500000"
            begin(src, dst, **AT_ONCE)
            # The other device has done it already.
            src.wait_for(lambda: src.knobs[0]["state"] == arc.split()[1], arc)
            src.cmd("migrate_cancel")
            src.wait_migration("cancelled", "completed")
            assert src.migration_status() == "cancelled", arc
            src.wait_run_state("running")
            all_in(src, "running")
            src.knobs[1]["latency_us"] = 0
            dst.close()
            arrives(vms, src)


@test
def a_way_back_that_fails_once_is_tried_again():
    with Vms() as vms:
        src, dst = vms.pair()
        src.devices[0].fill(42)
        begin(src, dst, **NOT_YET)
        src.wait_migration("active")
        all_in(src, "pre-copy")
        src.knobs[0]["fail_arc"] = f"pre-copy running {errno.EIO}"
        src.cmd("migrate_cancel")
        src.wait_migration("cancelled", "failed")
        assert src.run_state() == "running"
        src.wait_for(lambda: src.knobs[0]["fail_arc"] == "none", "the failure")
        all_in(src, "running")
        said = "at the second try: device d0: changing from pre-copy to running:"
        src.wait_for(lambda: said in src.log(), said)
        dst.close()
        arrives(vms, src)
        assert src.knobs[0].states()[:3] == ["pre-copy", "running", "pre-copy"], src.knobs[0].states()


@test
def a_session_that_does_not_end_costs_the_source_only():
    with Vms() as vms:
        src, dst = vms.pair()
        src.devices[0].fill(43)
        src.knobs[0]["fail_arc"] = f"stop-copy stop {errno.EIO}"
        begin(src, dst, **AT_ONCE)
        src.wait_migration()
        dst.wait_migration()
        assert dst.run_state() == "running"
        assert dst.devices[0].digest() == src.devices[0].digest()


@test
def a_paused_vm_whose_device_refuses_stays_paused():
    with Vms() as vms:
        src, dst = vms.pair(2)
        src.cmd("stop")
        src.knobs[1]["fail_arc"] = f"stop stop-copy {errno.EIO}"
        begin(src, dst, **AT_ONCE)
        src.wait_migration("failed")
        says(src, "device d1", "changing from stop to stop-copy:", os.strerror(errno.EIO))
        src.wait_run_state("paused")
        all_in(src, "stop")
        src.cmd("cont")
        all_in(src, "running")


@test
def the_operator_decides_about_the_switchover():
    with Vms() as vms:
        src, dst = vms.pair(2)
        src.devices[0].fill(48)
        src.set_capabilities("pause-before-switchover")
        begin(src, dst, **AT_ONCE)
        src.wait_migration("pre-switchover")
        all_in(src, "stop-copy")
        src.cmd("migrate_cancel")
        src.wait_migration("cancelled")
        src.wait_run_state("running")
        all_in(src, "running")
        dst.close()
        again = vms.destination(src, name="again")
        begin(src, again)
        src.wait_migration("pre-switchover")
        src.cmd("migrate-continue", state="pre-switchover")
        src.wait_migration()
        again.wait_migration()
        assert again.devices[0].digest() == src.devices[0].digest()


@test
def the_destination_confirms_the_initial_data_before_the_switchover():
    with Vms() as vms:
        src, dst = vms.pair(2, knobs={"state_bytes": 8 << 20})
        src.devices[0].fill(49)
        for vmm in (src, dst):
            vmm.set_capabilities("return-path", "switchover-ack")
        move(src, dst)
        assert dst.devices[0].digest() == src.devices[0].digest()


@test
def a_reset_in_pre_copy_begins_the_device_anew():
    with Vms() as vms:
        src, dst = vms.pair(2)
        for one in src.devices:
            one.fill(44)

        def meanwhile():
            all_in(src, "pre-copy")
            src.wait_for(lambda: src.cmd("query-migrate")["vfio"]["transferred"] > 2 << 20, "data")
            src.cmd("system_reset")
            all_in(src, "pre-copy")
            for one in src.devices:
                one.setup()
            src.devices[0].fill(45)

        move(src, dst, meanwhile)
        assert [one.digest() for one in src.devices] == [one.digest() for one in dst.devices]
        assert int(dst.knobs[0]["resets"]) > 0


@test
def a_lost_destination_leaves_all_running():
    with Vms() as vms:
        src, dst = vms.pair(2)
        src.devices[0].fill(46)
        begin(src, dst, **NOT_YET)
        src.wait_migration("active")
        all_in(src, "pre-copy")
        dst.kill()
        src.wait_migration("failed")
        says(src, "the destination was lost")
        assert src.run_state() == "running"
        all_in(src, "running")
        arrives(vms, src)


@test
def a_lost_source_leaves_the_destination_waiting_with_stopped_devices():
    with Vms() as vms:
        src, dst = vms.pair(2)
        begin(src, dst, **NOT_YET)
        src.wait_migration("active")
        all_in(dst, "resuming")
        src.kill()
        dst.wait_migration("failed")
        assert dst.run_state() == "inmigrate", dst.run_state()
        all_in(dst, "stop")


@test
def a_device_is_not_unplugged_while_it_migrates():
    with Vms() as vms:
        src, dst = vms.pair(2)
        begin(src, dst, **NOT_YET)
        src.wait_migration("active")
        try:
            src.cmd("device_del", id="d1")
        except QmpError as refused:
            assert "migrat" in refused.desc, refused.desc
        else:
            raise AssertionError("not refused")
        src.cmd("migrate_cancel")
        src.wait_migration("cancelled")
        src.cmd("device_del", id="d1")
        src.wait_event("DEVICE_DELETED")


@test
def quit_in_pre_copy_ends_both_in_order():
    with Vms() as vms:
        src, dst = vms.pair(2)
        begin(src, dst, **NOT_YET)
        src.wait_migration("active")
        all_in(src, "pre-copy")
        assert src.quit() == 0
        dst.wait_migration("failed")
        assert dst.quit() == 0


run(timeout=90)
