# SPDX-License-Identifier: BSD-2-Clause
"""Guests that run: boot sectors of tests/qtest/guests, assembled when a test needs them."""

import functools
import shutil
import subprocess
from pathlib import Path

from .pci import BARS_AT, CAP_MSIX, INTERRUPT_LINE
from .vmm import VMM, VmmTestCase

GUESTS = Path(__file__).resolve().parent.parent / "guests"
BOOTS = 0x600
FIRST, LAST = 256, 2304  # pages 1 MiB to 9 MiB: a round takes few milliseconds


@functools.cache
def why_no_kvm():
    """The reason, or None. It would use KVM and then fail for a file that is not there."""
    for tool in ("as", "ld"):
        if not shutil.which(tool):
            return f"no {tool} to make a guest with"
    done = subprocess.run([VMM, "-accel", "kvm", "-kernel", "/nonexistent/kernel"],
                          capture_output=True, text=True, check=False)
    return done.stderr.strip() if "-accel kvm" in done.stderr else None


def assemble(name, folder, **symbols):
    """Path of a boot sector."""
    image, middle = Path(folder) / f"{name}.img", Path(folder) / f"{name}.o"
    definitions = [word for key, value in symbols.items()
                   for word in ("--defsym", f"{key}={value}")]
    subprocess.run(["as", "--32", "-I", GUESTS, *definitions, "-o", middle, GUESTS / f"{name}.S"],
                   check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", image,
                    middle], check=True)
    return image


def boot_disk(image):
    """As QEMU's own migration tests have it."""
    return ["-drive", f"if=none,id=d0,file={image},format=raw",
            "-device", "ide-hd,drive=d0,secs=1,cyls=1,heads=1"]


def pages(vmm, first=FIRST, last=LAST):
    """The byte that the guest counts in each page, in order."""
    return [int(word, 16) for word in
            vmm.qtest.pipeline([f"readb {page << 12:#x}" for page in range(first, last)])]


def ordered(counted):
    """Of a guest that stands still, at most one edge, from n + 1 down to n. Or AssertionError."""
    edges = [(index, one, other)
             for index, (one, other) in enumerate(zip(counted, counted[1:], strict=False))
             if one != other]
    assert len(edges) <= 1 and all(one == (other + 1) % 256 for _, one, other in edges), edges[:10]
    return counted


class WorkingGuest:
    """The guest that works with a test device (guests/device.S), in a VM that has not begun (-S)."""

    ROUNDS, INTERRUPTS, WRONG = 0x600, 0x604, 0x608
    MESSAGES_AT, VECTOR = 0xFEE00000, 0x40
    FIRST, LAST = 256, 1280
    SLOT = 3
    BAR = BARS_AT + (SLOT << 20)

    @classmethod
    def assemble(cls, folder):
        return assemble("device", folder, BAR=cls.BAR, FIRST=cls.FIRST, LAST=cls.LAST)

    @classmethod
    def prepare(cls, dev):
        """What firmware and a driver would set up."""
        dev.setup(cls.BAR)
        assert dev.address(0) == cls.BAR, hex(dev.address(0))
        msix = dev.capability(CAP_MSIX)
        table = dev.config_readl(msix + 4)
        number, offset = table & 7, table & ~7
        for at, value in ((0, cls.MESSAGES_AT), (4, 0), (8, cls.VECTOR), (12, 0)):
            dev.writel(offset + at, value, number)
        dev.config_writew(msix + 2, dev.config_readw(msix + 2) | 0x8000)

    @classmethod
    def wait_rounds(cls, vmm, count=20):
        begin = vmm.qtest.readl(cls.ROUNDS)
        vmm.wait_for(lambda: vmm.qtest.readl(cls.ROUNDS) >= begin + count, "rounds")

    @classmethod
    def check(cls, vmm):
        """Of a VM that stands still: each round had its interrupt (of the last one it may be on its
        way), nothing that the device wrote is missing, the pages are in order. The round."""
        rounds, interrupts = vmm.qtest.readl(cls.ROUNDS), vmm.qtest.readl(cls.INTERRUPTS)
        assert rounds - interrupts in (0, 1), (rounds, interrupts)
        assert vmm.qtest.readl(cls.WRONG) == 0, vmm.qtest.readl(cls.WRONG)
        lost = vmm.cmd("x-query-board")["lost-msis"]
        assert lost == 0, lost
        ordered(pages(vmm, cls.FIRST, cls.LAST))
        return rounds


class PinGuest:
    """The guest that works with QEMU's edu device by its interrupt pin (guests/pin.S)."""

    ROUNDS, INTERRUPTS, WRONG = 0x600, 0x604, 0x608
    SLOT = 3
    BAR = BARS_AT + (SLOT << 20)
    INPUT = 11  # that slot's pin A in a machine of type pc; the PICs do not have those of q35

    @classmethod
    def assemble(cls, folder):
        return assemble("pin", folder, BAR=cls.BAR, INPUT=cls.INPUT)

    @classmethod
    def prepare(cls, dev):
        """What firmware would set up; a driver would look at the register."""
        dev.setup(cls.BAR)
        assert dev.address(0) == cls.BAR, hex(dev.address(0))
        line = dev.config_readb(INTERRUPT_LINE)
        assert line == cls.INPUT, line

    wait_rounds = WorkingGuest.wait_rounds

    @classmethod
    def check(cls, vmm):
        """Of a VM that stands still."""
        rounds, interrupts = vmm.qtest.readl(cls.ROUNDS), vmm.qtest.readl(cls.INTERRUPTS)
        assert rounds - interrupts in (0, 1), (rounds, interrupts)
        return vmm.qtest.readl(cls.WRONG)


class KvmTestCase(VmmTestCase):
    """Its VMs run guests under KVM."""

    def setUp(self):
        super().setUp()
        reason = why_no_kvm()
        if reason:
            self.skipTest(reason)
        self.image = assemble("count", self.folder, FIRST=FIRST, LAST=LAST, ROUNDS=4)

    def guest(self, *args, image=None, **keywords):
        """One whose boot sector is the counting one, or another."""
        return self.vmm(*self.boot(image), *args, **self.keywords(keywords))

    def guests(self, *args, image=None, **keywords):
        """Source and destination, for a with statement."""
        return self.pair(*self.boot(image), *args, **self.keywords(keywords))

    def boot(self, image=None):
        return boot_disk(image or self.image)

    @staticmethod
    def keywords(given):
        return {"accel": "kvm", "memory": "32M", **given}

    def pages(self, vmm):
        return pages(vmm)

    def wait_counting(self, vmm):
        """Until the guest has begun another round."""
        last = (LAST - 1) << 12
        begin = vmm.qtest.readb(last)
        vmm.wait_for(lambda: vmm.qtest.readb(last) != begin, "counting")

    def assert_ordered(self, vmm):
        """`vmm` is stopped."""
        return ordered(pages(vmm))
