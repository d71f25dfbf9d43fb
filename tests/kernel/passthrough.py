# SPDX-License-Identifier: BSD-2-Clause
"""A PCI device of the machine (QEMU's edu) that vfio-pci gives to a guest of this kernel's KVM."""

import contextlib
import pathlib
import subprocess

import vfio
from ferrytest import run, test, test_where
from kvm import exits_per_round, load_kvm, main_loop_stopped
from vms import Vms
from harness.kvm import PinGuest, boot_disk
from harness.pci import COMMAND, PciFunction
from harness.vmm import device, options

IMAGE = pathlib.Path("/ferry/guests/pin.img")  # `run` makes it
DEVICES = pathlib.Path("/sys/bus/pci/devices")
EDU = "0x1234 0x11e8"
ID, STATUS, ACKNOWLEDGE = 0x00, 0x24, 0x64
DMA_FROM, DMA_TO, DMA_BUFFER = 0x600000, 0x610000, 0x40000  # the last one is the device's
BUS_MASTER = 4


def edu():
    """Its PCI address on this host."""
    for path in DEVICES.iterdir():
        if f"{(path / 'vendor').read_text().strip()} {(path / 'device').read_text().strip()}" == EDU:
            return path.name
    raise AssertionError("the machine has no edu device")


@test
def vfio_pci_takes_the_device():
    load_kvm()
    for module in ("vfio-pci-core", "vfio-pci"):
        subprocess.run(["insmod", f"/lib/modules/{module}.ko"], check=True)
    (DEVICES / edu() / "driver_override").write_text("vfio-pci")
    pathlib.Path("/sys/bus/pci/drivers_probe").write_text(edu())
    assert (DEVICES / edu() / "driver").resolve().name == "vfio-pci"


@contextlib.contextmanager
def working(**properties):
    """A VM whose guest works with the device; leaves a device that wants nothing."""
    with Vms() as vms:
        vmm = start(vms, properties)
        yield vmm
        vmm.cmd("stop")
        function = PciFunction(vmm.qtest, PinGuest.SLOT)
        function.bars[0] = (PinGuest.BAR, 0)
        function.writel(ACKNOWLEDGE, function.readl(STATUS))
        assert vmm.quit() == 0


def start(vms, properties):
    objects = options("-object", "iommufd", id="iommufd0") if "iommufd" in properties else []
    vmm = vms.start(*boot_disk(IMAGE), "-S", *objects, *device("vfio-pci", id="edu", host=edu(),
                                                     addr=f"{PinGuest.SLOT:x}", **properties),
                    accel="kvm", machine="pc", memory="8M")
    PinGuest.prepare(PciFunction(vmm.qtest, PinGuest.SLOT))
    vmm.cmd("cont")
    PinGuest.wait_rounds(vmm)
    return vmm


def check_stopped(vmm):
    vmm.cmd("stop")
    wrong = PinGuest.check(vmm)
    vmm.cmd("cont")
    return wrong


@test
def its_pin_reaches_the_guest_without_the_main_loop():
    with working() as vmm:
        with main_loop_stopped(vmm):
            PinGuest.wait_rounds(vmm)
        assert check_stopped(vmm) == 0
        PinGuest.wait_rounds(vmm)


@test_where(vfio.has_iommufd())
def opened_by_its_node_it_works_as_well_behind_a_page_table():
    for _ in range(2):  # the first leaves nothing that keeps the second away
        with working(iommufd="iommufd0") as vmm:
            names = vmm.fds().values()
            assert "/dev/iommu" in names and "/dev/vfio/vfio" not in names, names
            with main_loop_stopped(vmm):
                PinGuest.wait_rounds(vmm)
            assert check_stopped(vmm) == 0
            # Its DMA goes through the page table, whose IOMMU has no dirty bits.
            function = PciFunction(vmm.qtest, PinGuest.SLOT)
            function.bars[0] = (PinGuest.BAR, 0)
            copy_by_dma(vmm, function)


def copy_by_dma(vmm, function):
    """From guest memory into the device's buffer, and from there to another place."""
    vmm.cmd("stop")
    function.config_writew(COMMAND, function.config_readw(COMMAND) | BUS_MASTER)
    data = bytes(range(256)) * 4
    vmm.qtest.write(DMA_FROM, data)
    for source, target, command in ((DMA_FROM, DMA_BUFFER, 1), (DMA_BUFFER, DMA_TO, 3)):
        for register, value in ((0x80, source), (0x88, target), (0x90, len(data))):
            function.writeq(register, value)
        function.writeq(0x98, command)
        vmm.wait_for(lambda: function.readq(0x98) & 1 == 0, "the end of the DMA")
    assert vmm.qtest.read(DMA_TO, len(data)) == data
    vmm.cmd("cont")


@test
def its_registers_are_reached_without_leaving_the_guest():
    with working() as vmm:
        exits = exits_per_round(vmm, PinGuest)
        assert exits < 0.5, exits


@test
def a_driver_that_cannot_unmask_by_eventfd_is_unmasked_by_accesses():
    with working(x_fault="fail=set unmask eventfd:ENOTTY") as vmm:
        PinGuest.wait_rounds(vmm, 100)
        check_stopped(vmm)  # an access that is none of the handler's may bring one interrupt too many
        assert exits_per_round(vmm, PinGuest) > 2.5


@test
def it_leaves_nothing_behind_and_comes_back():
    with working() as vmm:
        before = vmm.resources()
        vmm.cmd("device_del", id="edu")
        vmm.wait_event("DEVICE_DELETED")
        assert not PciFunction(vmm.qtest, PinGuest.SLOT).present()
        assert not any("vfio" in name for name in vmm.mappings()), vmm.mappings()
        vmm.cmd("device_add", driver="vfio-pci", id="edu", host=edu(), addr=f"{PinGuest.SLOT:x}")
        function = PciFunction(vmm.qtest, PinGuest.SLOT)
        PinGuest.prepare(function)
        assert function.readl(ID) & 0xFFFF == 0xED, hex(function.readl(ID))
        vmm.wait_resources(before)


run(timeout=60)
