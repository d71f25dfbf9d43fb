# SPDX-License-Identifier: BSD-2-Clause
"""With iommufd: devices that VMs open by their own nodes, /dev/vfio/devices/vfioN."""

import os
import pathlib

from ferrytest import run, test
from testdev import Knobs
from vms import SOURCE, Vms, move, same_memory
from harness.qmp import QmpError
from harness.vmm import options

IOMMUFD = options("-object", "iommufd", id="iommufd0")
BY_NODE = {"iommufd": "iommufd0"}
PAGE = 4096


def node(name):
    """A device's node."""
    entry, = (Knobs(name).path / "vfio-dev").iterdir()
    return f"/dev/vfio/devices/{entry.name}"


def opened(vmm):
    return sorted(path for path in vmm.fds().values() if path.startswith(("/dev/vfio", "/dev/iommu")))


@test
def only_pages_that_a_device_wrote_go_again():
    with Vms() as vms:
        src = vms.source(2, *IOMMUFD, properties=BY_NODE)
        dst = vms.destination(src, *IOMMUFD, properties=BY_NODE)
        assert opened(src) == sorted(["/dev/iommu", node("ferry.0"), node("ferry.1")]), opened(src)
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
        assert src.quit() == 0 and dst.quit() == 0


@test
def a_vm_moves_between_a_group_and_a_node():
    with Vms() as vms:
        src = vms.source(1)
        src.devices[0].fill(5)
        dst = vms.destination(src, *IOMMUFD, properties=BY_NODE)
        move(src, dst, lambda: src.devices[0].dma_fill(0x110000, 0x2000, 0x33333333))
        assert same_memory(src, dst) and src.devices[0].digest() == dst.devices[0].digest()
        assert src.quit() == 0
        back = vms.destination(dst, name="back", devices=SOURCE)
        move(dst, back, lambda: dst.devices[0].dma_fill(0x120000, 0x2000, 0x44444444))
        assert same_memory(dst, back) and dst.devices[0].digest() == back.devices[0].digest()


@test
def somebody_else_opens_iommufd_and_device():
    with Vms() as vms:
        Knobs("ferry.0").restore()
        vmm = vms.start()
        for name, path in (("iommu", "/dev/iommu"), ("device", node("ferry.0"))):
            fd = os.open(path, os.O_RDWR)
            vmm.qmp.wait_reply(vmm.qmp.send("getfd", fdname=name, fds=[fd]))
            os.close(fd)
        vmm.cmd("object-add", **{"qom-type": "iommufd", "id": "i0", "fd": "iommu"})
        vmm.cmd("device_add", driver="vfio-pci", id="d0", addr="3", iommufd="i0", fd="device")
        assert not vmm.cmd("query-migrate").get("blocked-reasons")
        try:
            vmm.cmd("object-del", id="i0")
        except QmpError as refused:
            assert "is in use" in refused.desc, refused.desc
        else:
            raise AssertionError("deleted while a device uses it")
        vmm.cmd("device_del", id="d0")
        vmm.wait_event("DEVICE_DELETED")
        vmm.wait_for(lambda: opened(vmm) == ["/dev/iommu"], "the device's end")
        vmm.cmd("object-del", id="i0")
        assert opened(vmm) == [], opened(vmm)


@test
def a_device_in_use_is_refused_by_the_other_way():
    with Vms() as vms:
        vmm = vms.over(SOURCE[:1], *IOMMUFD, properties=BY_NODE)
        before = vmm.resources()
        path = Knobs("ferry.0").path
        for properties in ({}, BY_NODE):
            try:
                vmm.cmd("device_add", driver="vfio-pci", id="again", sysfsdev=str(path),
                        **properties)
            except QmpError as refused:
                assert "in use" in refused.desc or "group" in refused.desc, refused.desc
            else:
                raise AssertionError("one device twice")
        vmm.wait_resources(before)


@test
def a_software_device_without_a_log_is_tracked_by_nobody():
    with Vms() as vms:
        src = vms.source(1, *IOMMUFD, properties=BY_NODE, knobs={"dma_logging": 0})
        reasons = src.cmd("query-migrate").get("blocked-reasons", [])
        assert any("nobody" in reason or "neither" in reason for reason in reasons), reasons
    consent = {**BY_NODE, "enable_migration": True}
    with Vms() as vms:
        src = vms.source(1, *IOMMUFD, properties=consent, knobs={"dma_logging": 0})
        dst = vms.destination(src, *IOMMUFD, properties=consent, knobs={"dma_logging": 0})
        move(src, dst, lambda: src.devices[0].dma_fill(0x110000, 0x2000, 0x22222222))
        assert same_memory(src, dst)


assert pathlib.Path("/dev/vfio/devices").is_dir()
run(timeout=90)
