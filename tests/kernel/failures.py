# SPDX-License-Identifier: BSD-2-Clause
"""Every change of state that a device may refuse, and every stream that may break: the VM goes on."""

import errno
import os

from ferrytest import run, test
from harness.qmp import QmpError
from testdev import DEFAULTS
from vms import AT_ONCE, Vms, begin, error_of, move, says

SOURCE_ARCS = ("running pre-copy", "pre-copy pre-copy-p2p", "pre-copy-p2p stop-copy")
DESTINATION_ARCS = ("running running-p2p", "running-p2p stop", "stop resuming", "resuming stop")
START_ARCS = ("stop running-p2p", "running-p2p running")


# A change of state is named by where the device was asked to go to, however long the way.
ASKED_FOR = {
    SOURCE_ARCS[0]: "running to pre-copy",
    SOURCE_ARCS[1]: "pre-copy to pre-copy-p2p",
    SOURCE_ARCS[2]: "pre-copy-p2p to stop-copy",
    DESTINATION_ARCS[0]: "running to resuming",
    DESTINATION_ARCS[1]: "running to resuming",
    DESTINATION_ARCS[2]: "running to resuming",
    DESTINATION_ARCS[3]: "resuming to stop",
    START_ARCS[0]: "stop to running-p2p",
    START_ARCS[1]: "running-p2p to running",
}


def step(arc):
    return f"changing from {ASKED_FOR[arc]}:"


def fails(vms, where, knob, value, words, cause=errno.EIO, count=1):
    """A migration during which the last device of source or destination has this knob; then the
    VM runs at the source as if nothing had happened. `words`: how the error names the step."""
    src, dst = vms.pair(count)
    one = src.devices[-1]
    one.fill(21)
    one.writel(one.SCRATCH, 0x1234)
    before = one.digest()
    held = [src.resources(), dst.resources()]
    (src if where == "source" else dst).knobs[-1][knob] = value
    begin(src, dst, **AT_ONCE)
    src.wait_migration("failed")
    src.wait_run_state("running")
    src.wait_for(lambda: all(k["state"] == "running" for k in src.knobs), "running devices")
    dst.wait_migration("failed")
    told = [f"device d{count - 1}", words, os.strerror(cause)]
    if where == "source":
        says(src, "source: ", *told)
        assert "destination" not in error_of(src), error_of(src)
    else:
        says(src, "the destination failed", *told)
        says(dst, *told)
        assert dst.run_state() == "inmigrate", dst.run_state()
        dst.wait_for(lambda: all(k["state"] == "stop" for k in dst.knobs), "stopped devices")
    assert one.digest() == before and one.readl(one.SCRATCH) == 0x1234
    assert [int(k["resets"]) for k in src.knobs] == src.resets_before
    src.wait_resources(held[0])
    dst.wait_resources(held[1])
    (src if where == "source" else dst).knobs[-1][knob] = DEFAULTS[knob]
    return src, dst


class Counting(Vms):
    """Vms that remember how often the source's devices had been reset."""

    def source(self, *args, **keywords):
        vmm = super().source(*args, **keywords)
        vmm.resets_before = [int(knobs["resets"]) for knobs in vmm.knobs]
        return vmm


def goes_on(vms, src, dst):
    """The next attempt succeeds."""
    before = src.devices[-1].digest()
    dst.close()
    again = vms.destination(src, name="again")
    move(src, again)
    assert again.devices[-1].digest() == before


def arcs_fail(where, arc):
    with Counting() as vms:
        src, dst = fails(vms, where, "fail_arc", f"{arc} {errno.EIO}", step(arc), count=2)
        goes_on(vms, src, dst)


@test
def running_to_pre_copy_fails():
    arcs_fail("source", SOURCE_ARCS[0])


@test
def pre_copy_to_pre_copy_p2p_fails():
    arcs_fail("source", SOURCE_ARCS[1])


@test
def pre_copy_p2p_to_stop_copy_fails():
    arcs_fail("source", SOURCE_ARCS[2])


@test
def stop_to_resuming_fails():
    arcs_fail("destination", DESTINATION_ARCS[2])


@test
def the_way_to_resuming_fails():
    for arc in DESTINATION_ARCS[:2]:
        with Counting() as vms:
            fails(vms, "destination", "fail_arc", f"{arc} {errno.EIO}", step(arc))


@test
def resuming_to_stop_fails():
    arcs_fail("destination", DESTINATION_ARCS[3])


@test
def the_image_is_rejected():
    with Counting() as vms:
        src, dst = fails(vms, "destination", "reject_image", 1, step("resuming stop"),
                         cause=errno.EINVAL, count=2)
        says(dst, "does not accept the received state")
        goes_on(vms, src, dst)


@test
def reading_fails():
    for offset in (0, 5000, 1 << 20):  # the last is the part that is read while the VM is stopped
        with Counting() as vms:
            src, _ = fails(vms, "source", "read_fail_at", offset, "reading its state")
            says(src, f"after {offset} bytes")


@test
def writing_fails():
    for offset in (0, 5000, 1 << 20):
        with Counting() as vms:
            _, dst = fails(vms, "destination", "write_fail_at", offset, "writing its state")
            says(dst, f"after {offset} bytes")


@test
def the_start_fails_after_the_destination_got_the_vm():
    for arc in START_ARCS:
        with Vms() as vms:
            src, dst = vms.pair(2)
            src.devices[1].fill(22)
            before = src.devices[1].digest()
            dst.knobs[1]["fail_arc"] = f"{arc} {errno.EIO}"
            begin(src, dst, **AT_ONCE)
            src.wait_migration("failed")
            dst.wait_migration("failed")
            assert src.run_state() == "postmigrate", src.run_state()
            assert dst.run_state() == "paused", dst.run_state()
            says(src, "destination", "device d1", step(arc), os.strerror(errno.EIO), "'cont'")
            says(dst, "starting the VM", "device d1", step(arc), os.strerror(errno.EIO), "'cont'")
            for vmm in (src, dst):
                assert [k["state"] for k in vmm.knobs] == ["stop"] * 2, [k.states() for k in vmm.knobs]
            dst.cmd("cont")
            assert dst.run_state() == "running" and dst.devices[1].digest() == before
            assert [k["state"] for k in dst.knobs] == ["running"] * 2


@test
def the_source_may_take_the_vm_back_after_such_a_failure():
    with Vms() as vms:
        src, dst = vms.pair()
        src.devices[0].fill(23)
        before = src.devices[0].digest()
        dst.knobs[0]["fail_arc"] = f"stop running-p2p {errno.EIO}"
        begin(src, dst, **AT_ONCE)
        src.wait_migration("failed")
        src.cmd("cont")
        assert src.run_state() == "running" and src.devices[0].digest() == before
        assert src.knobs[0]["state"] == "running"


@test
def a_device_in_error_is_reset_and_the_vm_goes_on():
    for arc in SOURCE_ARCS:
        with Vms() as vms:
            src, dst = vms.pair()
            resets = int(src.knobs[0]["resets"])
            src.knobs[0]["fail_arc"] = f"{arc} {errno.EIO} error"
            begin(src, dst, **AT_ONCE)
            src.wait_migration("failed")
            src.wait_run_state("running")
            src.wait_for(lambda: src.knobs[0]["state"] == "running", "a running device")
            assert int(src.knobs[0]["resets"]) == resets + 1
            says(src, "device d0", step(arc), os.strerror(errno.EIO), "the device was reset")


@test
def a_pause_that_fails_is_undone():
    for arc, command in (("running running-p2p", "stop"), ("running-p2p stop", "stop")):
        with Vms() as vms:
            src = vms.source(2)
            src.knobs[1]["fail_arc"] = f"{arc} {errno.EIO}"
            try:
                src.cmd(command)
            except QmpError as refused:
                for word in ("device d1", f"changing from {arc.replace(' ', ' to ')}:",
                             os.strerror(errno.EIO)):
                    assert word in refused.desc, (word, refused.desc)
            else:
                raise AssertionError("the command succeeded")
            assert src.run_state() == "running"
            assert [k["state"] for k in src.knobs] == ["running"] * 2
            src.cmd(command)
            assert src.run_state() == "paused"


run(timeout=90)
