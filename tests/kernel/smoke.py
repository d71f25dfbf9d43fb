# SPDX-License-Identifier: BSD-2-Clause
"""Proves the test device by itself, without a VMM: runs in the guest that `boot` starts."""

import contextlib
import errno
import mmap
import os
import select
import struct
import subprocess
import time

import testdev
import vfio
from ferrytest import fails_with, run, test, test_where
from testdev import Knobs, TestDevice
from vfio import ERROR, PRE_COPY, PRE_COPY_P2P, RESUMING, RUNNING, RUNNING_P2P, STOP, STOP_COPY

STATES_OF_FLAGS = {1: 0x1E, 3: 0x3E, 5: 0x5E, 7: 0xFE}
SAVING = {STOP_COPY, PRE_COPY, PRE_COPY_P2P}
IOVA = 0x100000
RAISE, CONNECT = vfio.IRQ_NONE | vfio.IRQ_TRIGGER, vfio.IRQ_EVENTFD | vfio.IRQ_TRIGGER


@contextlib.contextmanager
def devices(*names, **knobs):
    """Open devices in one container, with these knobs; closed and restored afterwards."""
    container, opened = vfio.Container(), []
    try:
        for name in names:
            Knobs(name).restore()
            for knob, value in knobs.items():
                Knobs(name)[knob] = value
            opened.append(TestDevice(name, container))
            opened[-1].knobs["state_log"] = ""
        yield container, *opened
    finally:
        for device in opened:
            device.close()
        container.close()


def path(flags, start, goal):
    """The states from start to goal by the kernel's documented rule; None where there is no way."""
    arcs = {STOP: {STOP_COPY, RESUMING}, STOP_COPY: {STOP}, RESUMING: {STOP}}
    if flags & vfio.MIG_P2P:
        arcs[RUNNING], arcs[RUNNING_P2P] = {RUNNING_P2P}, {RUNNING, STOP}
        arcs[STOP] |= {RUNNING_P2P}
    else:
        arcs[RUNNING] = {STOP}
        arcs[STOP] |= {RUNNING}
    if flags & vfio.MIG_PRE_COPY:
        arcs[RUNNING] |= {PRE_COPY}
        arcs[PRE_COPY] = {RUNNING, STOP_COPY}
        if flags & vfio.MIG_P2P:
            arcs[PRE_COPY] = {RUNNING, PRE_COPY_P2P}
            arcs[RUNNING_P2P] |= {PRE_COPY_P2P}
            arcs[PRE_COPY_P2P] = {RUNNING_P2P, PRE_COPY, STOP_COPY}
    if start == STOP_COPY and goal in (PRE_COPY, PRE_COPY_P2P):
        return None
    ways = [[start]]
    while ways:
        way = ways.pop(0)
        if way[-1] == goal:
            return way[1:]
        if way[-1] in SAVING and len(way) > 1 and not (start in SAVING and goal in SAVING):
            continue
        ways += [way + [after] for after in sorted(arcs[way[-1]]) if after not in way]
    return None


def connect(device, vector, *fds):
    """Eventfds for the vectors from this one on; -1 removes."""
    device.set_irqs(CONNECT, vfio.IRQ_MSIX, vector, len(fds), struct.pack(f"={len(fds)}i", *fds))


def load(device, image):
    """Feeds an image; the device is left in RESUMING."""
    fd = device.set_state(RESUMING)
    vfio.write_all(fd, image)
    return fd


def save(device):
    """A whole image without pre-copy; the device is left in STOP."""
    fd = device.set_state(STOP_COPY)
    image = vfio.read_all(fd)
    device.set_state(STOP)
    os.close(fd)
    return image


def check_pair(device, flags, start, goal, image):
    """Brings the device from start to goal, and compares the outcome with path()."""
    device.reset()
    fd = device.set_state(start)
    if start == RESUMING:
        vfio.write_all(fd, image)
    device.knobs["state_log"] = ""
    supported = goal < 8 and STATES_OF_FLAGS[flags] >> goal & 1
    want = path(flags, start, goal) if supported else None
    new = None
    if want is None:
        fails_with(errno.EINVAL, device.set_state, goal)
    else:
        new = device.set_state(goal)
        assert device.state() == goal
        opens = goal in SAVING | {RESUMING} and goal != start and not {start, goal} <= SAVING
        assert (new is not None) == opens, (flags, start, goal)
    got = [vfio.STATE_NAMES.index(name) for name in device.knobs.states()]
    assert got == (want or []), (flags, start, goal, got, want)
    for old in (fd, new):
        if old is not None:
            os.close(old)


@test
def every_pair_of_states_takes_the_documented_path():
    with devices("ferry.0", state_bytes=4096) as (_, source):
        image = save(source)
    for flags, states in STATES_OF_FLAGS.items():
        with devices("ferry.0", mig_flags=flags, state_bytes=4096) as (_, device):
            assert device.mig_flags() == flags
            for start in range(8):
                if not states >> start & 1:
                    fails_with(errno.EINVAL, device.set_state, start)
                    continue
                for goal in range(9):
                    check_pair(device, flags, start, goal, image)


@test
def a_device_without_flags_does_not_migrate():
    with devices("ferry.0", mig_flags=0, dma_logging=0) as (_, device):
        fails_with(errno.ENOTTY, device.mig_flags)
        fails_with(errno.ENOTTY, device.set_state, STOP)
        fails_with(errno.ENOTTY, device.log_start, 0, 1 << 20)


@test
def registers_describe_the_state():
    with devices("ferry.0", state_bytes=8192) as (_, device):
        assert device.reg(testdev.ID) == 0x52524546
        assert device.reg64(testdev.STATE_BYTES) == 8192
        device.reg(testdev.FILL, 5)
        state = bytearray(testdev.pattern(5, 8192))
        assert device.digest() == testdev.digest_of(state)
        device.reg(testdev.STATE_OFS, 4100)
        device.reg(testdev.STATE_DATA, 0xABCD)
        struct.pack_into("<I", state, 4100, 0xABCD)
        assert device.digest() == testdev.digest_of(state)
        assert device.reg(testdev.STATE_OFS) == 4104
        device.reg(testdev.STATE_OFS, 4100)
        assert device.reg(testdev.STATE_DATA) == 0xABCD
        assert device.reg(testdev.GENERATION) == 2
        device.reg(testdev.STATE_OFS, 8192)
        assert device.reg(testdev.STATE_DATA) == 0xFFFFFFFF
        fails_with(errno.EINVAL, device.read, 0, 1, 4)


@test
def an_image_carries_the_state_to_another_device():
    with devices("ferry.0", "ferry.1") as (_, source, target):
        source.reg(testdev.FILL, 77)
        source.reg(testdev.SCRATCH, 0x1234)
        source.write(0, testdev.RAM_OFFSET + 5000, b"in the BAR")
        before = source.digest()
        assert target.digest() != before
        size = source.data_size()
        image = save(source)
        assert (1 << 20) < len(image) < size + 4096, (len(image), size)
        os.close(load(target, image))
        target.set_state(RUNNING)
        assert target.knobs["image_error"] == "none"
        assert target.digest() == before
        assert target.reg(testdev.SCRATCH) == 0x1234 and target.reg(testdev.FILL) == 77
        assert target.read(0, testdev.RAM_OFFSET + 5000, 10) == b"in the BAR"


@test
def precopy_sends_what_changes_again():
    with devices("ferry.0", "ferry.1") as (_, source, target):
        source.reg(testdev.FILL, 1)
        fd = source.set_state(PRE_COPY)
        assert vfio.precopy_info(fd) == (1 << 20, 0)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(0)
        image = vfio.read_all(fd)
        assert vfio.precopy_info(fd) == (0, 0) and not poll.poll(0)
        fails_with(errno.ENOMSG, os.read, fd, 10)
        source.knobs["enomsg"] = 0
        assert os.read(fd, 10) == b"" and poll.poll(0)
        source.reg(testdev.STATE_OFS, 0x5000)
        source.reg(testdev.STATE_DATA, 99)
        assert vfio.precopy_info(fd) == (0, 4096) and poll.poll(0)
        assert source.set_state(STOP_COPY) is None
        fails_with(errno.EINVAL, vfio.precopy_info, fd)
        final = vfio.read_all(fd)
        assert 4096 < len(final) < 32768, len(final)
        assert os.read(fd, 10) == b""
        before = source.digest()
        source.set_state(STOP)
        fails_with(errno.ENODEV, os.read, fd, 10)
        os.close(fd)
        os.close(load(target, image + final))
        target.set_state(RUNNING_P2P)
        assert target.digest() == before


@test
def dirty_rate_changes_the_running_device_only():
    with devices("ferry.0", "ferry.1", dirty_rate=4 << 20) as (_, source, target):
        fd = source.set_state(PRE_COPY)
        image, deadline = b"", time.monotonic() + 10
        while len(image) < 3 << 20 and time.monotonic() < deadline:
            image += vfio.read_all(fd)
        assert len(image) >= 3 << 20
        source.set_state(STOP_COPY)
        image += vfio.read_all(fd)
        before = source.digest(), source.reg(testdev.GENERATION)
        assert before[1] > 0
        time.sleep(0.05)
        assert before == (source.digest(), source.reg(testdev.GENERATION))
        os.close(fd)
        os.close(load(target, image))
        target.set_state(STOP)
        assert before == (target.digest(), target.reg(testdev.GENERATION))


@test
def wrong_images_are_refused_when_resuming_ends():
    with devices("ferry.0", "ferry.1", state_bytes=65536) as (_, source, target):
        one, two = save(source), save(source)
        source.set_state(RUNNING)
        fd = source.set_state(PRE_COPY)
        abandoned = vfio.read_all(fd)
        os.close(fd)
        garbage = bytearray(one)
        garbage[0] ^= 1
        for image, reason in (
            (one + two, "data after the end"), (one[:-1], "incomplete"), (b"", "incomplete"),
            (one[:-20000], "incomplete"), (abandoned, "incomplete"),
            (abandoned + one, "a second image begins"), (one[32:], "no beginning"),
            (one[:32] + two[32:], "mixed sessions"), (bytes(garbage), "bad magic"),
            (one + b"x" * 32, "bad magic"),
        ):
            os.close(load(target, image))
            fails_with(errno.EINVAL, target.set_state, STOP)
            assert target.state() == RESUMING
            assert target.knobs["image_error"] == reason, (reason, target.knobs["image_error"])
            target.reset()
        target.knobs["reject_image"] = 1
        os.close(load(target, one))
        fails_with(errno.EINVAL, target.set_state, RUNNING)
        target.knobs["reject_image"] = 0
        target.set_state(RUNNING)
    with devices("ferry.1", state_bytes=4096) as (_, target):
        os.close(load(target, one))
        fails_with(errno.EINVAL, target.set_state, STOP)
        assert target.knobs["image_error"] == "made with another state_bytes"


@test
def small_pieces_make_the_same_image():
    with devices("ferry.0", "ferry.1", state_bytes=8192) as (_, source, target):
        source.reg(testdev.FILL, 3)
        fd = source.set_state(STOP_COPY)
        pieces = []
        while piece := os.read(fd, 701):
            pieces.append(piece)
        os.close(fd)
        fd = target.set_state(RESUMING)
        for piece in pieces:
            half = len(piece) // 2
            vfio.write_all(fd, piece[:half])
            vfio.write_all(fd, piece[half:])
        os.close(fd)
        target.set_state(STOP)
        assert target.digest() == source.digest()
        fd = target.set_state(RESUMING)
        fails_with(errno.ESPIPE, os.lseek, fd, 0, 0)
        os.close(fd)


@test
def a_scripted_arc_fails_once():
    with devices("ferry.0") as (_, device):
        device.knobs["fail_arc"] = f"running-p2p stop {errno.EBUSY}"
        assert device.knobs["fail_arc"] == f"running-p2p stop {errno.EBUSY}"
        fails_with(errno.EBUSY, device.set_state, STOP)
        assert device.state() == RUNNING_P2P and device.knobs["fail_arc"] == "none"
        device.set_state(STOP)
        device.knobs["fail_arc"] = f"stop stop-copy {errno.EIO} error"
        fails_with(errno.EIO, device.set_state, STOP_COPY)
        assert device.state() == ERROR and device.knobs["state"] == "error"
        fails_with(errno.EINVAL, device.set_state, RUNNING)
        device.reset()
        assert device.state() == RUNNING
        assert device.knobs.states() == ["running-p2p", "stop", "error", "running"]
        fails_with(errno.EINVAL, device.knobs.__setitem__, "fail_arc", "running nowhere 5")


@test
def arcs_take_as_long_as_told():
    with devices("ferry.0") as (_, device):
        device.knobs["latency_us"] = "running running-p2p 50000"
        assert device.knobs["latency_us"] == "running running-p2p 50000"
        started = time.monotonic()
        device.set_state(STOP)
        assert time.monotonic() - started >= 0.05


@test
def streams_fail_where_told():
    with devices("ferry.0", data_size_fails=errno.EIO) as (_, device):
        fails_with(errno.EIO, device.data_size)
        device.knobs["read_fail_at"] = 5000
        fd = device.set_state(STOP_COPY)
        assert len(os.read(fd, 8192)) == 5000
        fails_with(errno.EIO, os.read, fd, 1)
        device.knobs["read_fail_at"] = -1
        assert os.read(fd, 1)
        os.close(fd)
        device.reset()
        device.knobs["write_fail_at"] = 10
        fd = device.set_state(RESUMING)
        assert os.write(fd, bytes(20)) == 10
        fails_with(errno.EIO, os.write, fd, b"x")
        fails_with(errno.EBADF, os.read, fd, 1)
        os.close(fd)


@test
def reset_clears_the_device_and_ends_the_session():
    with devices("ferry.0") as (_, device):
        resets, empty = int(device.knobs["resets"]), device.digest()
        device.reg(testdev.FILL, 9)
        fd = device.set_state(PRE_COPY)
        device.reset()
        assert device.state() == RUNNING and device.digest() == empty
        assert int(device.knobs["resets"]) == resets + 1
        fails_with(errno.ENODEV, os.read, fd, 1)
        os.close(fd)
        assert device.knobs.states() == ["pre-copy", "running"]


@test
def a_data_fd_may_outlive_its_device():
    with devices("ferry.0") as (_, device):
        fd = device.set_state(STOP_COPY)
    fails_with(errno.ENODEV, os.read, fd, 1)
    os.close(fd)


@test
def a_knob_of_the_closed_device_is_fixed_while_it_is_open():
    with devices("ferry.0") as (_, device):
        for knob in testdev.ONLY_WHILE_CLOSED:
            fails_with(errno.EBUSY, device.knobs.__setitem__, knob, device.knobs[knob])
    fails_with(errno.EINVAL, Knobs("ferry.0").__setitem__, "state_bytes", 4097)
    fails_with(errno.EINVAL, Knobs("ferry.0").__setitem__, "mig_flags", 2)


@test
def config_space_is_that_of_a_pci_function():
    with devices("ferry.0") as (_, device):
        flags, regions, irqs = device.info()
        assert flags & 3 == 3 and (regions, irqs) == (9, 5)
        assert device.config16(0) == 0xFE44 and device.config16(2) == 1
        assert device.read(vfio.CONFIG_REGION, 0xE, 1) == b"\0"
        device.config16(4, 0xFFFF)
        assert device.config16(4) == 0x0406
        for bar, size in ((0x10, 16384), (0x14, 0), (0x18, 4096)):
            device.write(vfio.CONFIG_REGION, bar, b"\xff" * 4)
            mask, = struct.unpack("<I", device.read(vfio.CONFIG_REGION, bar, 4))
            assert mask == (-size & 0xFFFFFFFF), (bar, hex(mask))
        kinds, at = [], device.read(vfio.CONFIG_REGION, 0x34, 1)[0]
        while at:
            kind, after = device.read(vfio.CONFIG_REGION, at, 2)
            kinds.append(kind)
            at = after
        assert kinds == [0x11, 0x09]
        assert device.config16(0x42) & 0x7FF == 3
        device.config16(0x42, 0x8000)
        assert device.config16(0x42) == 0x8003
        device.reset()
        assert device.config16(0x42) == 3 and device.config16(4) == 0


@test
def part_of_bar0_can_be_mapped():
    with devices("ferry.0") as (_, device):
        flags, size, offset, areas = device.region(0)
        assert flags & 7 == 7 and size == 16384 and areas == [(testdev.RAM_OFFSET, testdev.RAM_BYTES)]
        view = mmap.mmap(device.fd, testdev.RAM_BYTES, offset=offset + testdev.RAM_OFFSET)
        view[4096:4101] = b"hello"
        assert device.read(0, testdev.RAM_OFFSET + 4096, 5) == b"hello"
        device.write(0, testdev.RAM_OFFSET, b"there")
        assert view[:5] == b"there"
        view.close()
        fails_with(errno.EINVAL, mmap.mmap, device.fd, 4096, mmap.MAP_SHARED, 3, 0, offset)
        too_much = testdev.RAM_BYTES + 4096
        fails_with(errno.EINVAL, mmap.mmap, device.fd, too_much, mmap.MAP_SHARED, 3, 0, offset + 4096)
        assert [device.region(index)[1] for index in range(8)] == [16384, 0, 4096, 0, 0, 0, 0, 256]
        fails_with(errno.EINVAL, device.region, 8)


@test
def vectors_signal_their_eventfds():
    with devices("ferry.0") as (_, device):
        assert [device.irq_info(index)[1] for index in range(5)] == [0, 0, 4, 0, 0]
        fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
        connect(device, 0, *fds)
        device.reg(testdev.IRQ_RAISE, 2)
        device.set_irqs(RAISE, vfio.IRQ_MSIX, 3, 1)
        assert os.eventfd_read(fds[2]) == 1 and os.eventfd_read(fds[3]) == 1
        fails_with(errno.EAGAIN, os.eventfd_read, fds[0])
        connect(device, 2, -1)
        device.reg(testdev.IRQ_RAISE, 2)
        fails_with(errno.EAGAIN, os.eventfd_read, fds[2])
        device.set_state(STOP)
        device.reg(testdev.IRQ_RAISE, 1)
        fails_with(errno.EAGAIN, os.eventfd_read, fds[1])
        assert device.reg(testdev.IRQ_COUNT) == 2
        device.set_irqs(RAISE, vfio.IRQ_MSIX, 0, 0)
        fails_with(errno.EINVAL, device.set_irqs, RAISE, vfio.IRQ_MSIX, 4, 1)
        for fd in fds:
            os.close(fd)


@test
def dma_writes_guest_memory_and_marks_it_dirty():
    with devices("ferry.0") as (container, device):
        memory = vfio.Memory(64 * 4096)
        container.map(IOVA, memory)
        container.track_dirty(True)
        assert device.dma(testdev.DMA_FILL, IOVA, 4096, 7) == errno.EPERM
        device.config16(4, 6)
        container.dirty_pages(IOVA, memory.size)
        interrupt = os.eventfd(0, os.EFD_NONBLOCK)
        connect(device, 1, interrupt)
        assert device.dma(testdev.DMA_FILL, IOVA + 3 * 4096, 2 * 4096, 0xAABBCCDD, vector=1) == 0
        assert os.eventfd_read(interrupt) == 1
        os.close(interrupt)
        assert memory.map[3 * 4096:5 * 4096] == struct.pack("<I", 0xAABBCCDD) * 2048
        assert memory.map[5 * 4096:5 * 4096 + 4] == bytes(4)
        assert container.dirty_pages(IOVA, memory.size) == [3, 4]
        assert container.dirty_pages(IOVA, memory.size) == []
        memory.map[:8192] = os.urandom(8192)
        device.reg(testdev.STATE_OFS, 4096)
        assert device.dma(testdev.DMA_READ, IOVA, 8192) == 0
        assert device.dma(testdev.DMA_WRITE, IOVA + 10 * 4096, 8192) == 0
        assert memory.map[10 * 4096:12 * 4096] == memory.map[:8192]
        assert device.reg(testdev.DMA_COUNT) == 3
        assert container.dirty_pages(IOVA, memory.size) == [10, 11]
        assert device.dma(testdev.DMA_FILL, IOVA + memory.size, 4096) != 0
        assert device.dma(testdev.DMA_FILL, IOVA, 6) == errno.EINVAL
        device.set_state(RUNNING_P2P)
        assert device.dma(testdev.DMA_FILL, IOVA, 4096) == errno.EBUSY


@test
def a_small_dma_write_marks_its_page_dirty():
    with devices("ferry.0") as (container, device):
        memory = vfio.Memory(16 * 4096)
        container.map(IOVA, memory)
        container.track_dirty(True)
        device.config16(4, 6)
        container.dirty_pages(IOVA, memory.size)
        assert device.dma(testdev.DMA_FILL, IOVA + 4096 + 64, 8, 1) == 0
        assert device.dma(testdev.DMA_FILL, IOVA + 6 * 4096 - 4, 8, 1) == 0
        assert container.dirty_pages(IOVA, memory.size) == [1, 5, 6]


@test
def a_device_writes_memory_by_itself_until_it_is_quiet():
    with devices("ferry.0") as (container, device):
        memory = vfio.Memory(8 * 4096)
        container.map(IOVA, memory)
        device.config16(4, 6)
        device.knobs["dma_rate"] = 2000
        device.reg64(testdev.AUTO_IOVA, IOVA + 4096)
        device.reg64(testdev.AUTO_BYTES, 3 * 4096)
        device.reg(testdev.AUTO_CONTROL, 1)
        while device.reg64(testdev.AUTO_PAGES) < 7:
            pass
        device.set_state(RUNNING_P2P)
        written = device.reg64(testdev.AUTO_PAGES)
        for number in range(written - 2, written + 1):
            at = 4096 * (1 + (number - 1) % 3)
            assert memory.map[at:at + 4096] == struct.pack("<Q", number) * 512, number
        assert not any(memory.map[:4096]) and not any(memory.map[4 * 4096:])
        device.set_state(RUNNING)
        while device.reg64(testdev.AUTO_PAGES) == written:
            pass
        device.reg64(testdev.AUTO_BYTES, memory.size)
        while device.reg(testdev.AUTO_CONTROL):
            pass
        assert device.reg(testdev.AUTO_STATUS) != 0


@test
def dma_logging_starts_once_and_reports_where_the_kernel_can():
    with devices("ferry.0") as (container, device):
        memory = vfio.Memory(16 * 4096)
        container.map(IOVA, memory)
        device.config16(4, 6)
        assert device.log_start(IOVA, memory.size) == 4096
        fails_with(errno.EINVAL, device.log_start, IOVA, memory.size)
        assert device.dma(testdev.DMA_FILL, IOVA + 4096, 4096, 1) == 0
        if vfio.has_iommufd():
            assert device.log_report(IOVA, memory.size) == [1]
            assert device.log_report(IOVA, memory.size) == []
        else:
            fails_with(errno.EOPNOTSUPP, device.log_report, IOVA, memory.size)
        device.log_stop()
        assert device.log_start(IOVA, memory.size) == 4096


@test_where(vfio.has_iommufd())
def a_device_can_be_had_through_its_own_node():
    Knobs("ferry.1").restore()
    with vfio.AddressSpace() as space:
        memory = vfio.Memory(16 * 4096)
        space.map(IOVA, memory)
        device = TestDevice("ferry.1", space)
        device.config16(4, 6)
        assert device.log_start(IOVA, memory.size) == 4096
        assert device.dma(testdev.DMA_FILL, IOVA + 3 * 4096, 8192, 0x01010101) == 0
        assert memory.map[3 * 4096:5 * 4096] == b"\1" * 8192
        assert device.log_report(IOVA, memory.size) == [3, 4]
        os.close(device.set_state(STOP_COPY))
        device.close()


@test
def a_64_mib_state_is_carried():
    with devices("ferry.0", "ferry.1", state_bytes=64 << 20) as (_, source, target):
        source.reg(testdev.FILL, 11)
        before = source.digest()
        out, into = source.set_state(STOP_COPY), target.set_state(RESUMING)
        started = time.monotonic()
        while piece := os.read(out, 1 << 20):
            vfio.write_all(into, piece)
        print(f"64 MiB: {64 / (time.monotonic() - started):.0f} MiB/s through read and write")
        os.close(out)
        os.close(into)
        target.set_state(RUNNING)
        assert target.digest() == before


@test
def mtty_is_there():
    name, sysfs = vfio.create_mtty()
    container = vfio.Container()
    device = vfio.Device(name, container, sysfs)
    assert device.mig_flags() == 7
    device.set_state(STOP)
    device.close()
    container.close()


@test
def the_module_can_be_unloaded_and_loaded_again():
    subprocess.run(["rmmod", "ferry_vfio_testdev"], check=True)
    assert not Knobs("ferry.0").path.exists()
    module = "/lib/modules/ferry-vfio-testdev.ko"
    refused = subprocess.run(["insmod", module, "mig_flags=2"], capture_output=True, check=False)
    assert refused.returncode
    subprocess.run(["insmod", module, "devices=3", "state_bytes=8192", "mig_flags=1"], check=True)
    with devices("ferry.0", "ferry.1") as _:
        assert Knobs("ferry.2")["state_bytes"] == "8192" and Knobs("ferry.2")["mig_flags"] == "1"


run()
