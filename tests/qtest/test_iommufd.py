# SPDX-License-Identifier: BSD-2-Clause
"""-object iommufd and the devices that use one, as far as a host without devices goes: what is made,
listed, refused and handed over. Devices themselves are in tests/kernel/nodes.py."""

import os
import unittest
from pathlib import Path

from harness.qmp import QmpError
from harness.vmm import VmmTestCase, device, options

SYSFS = "/sys/bus/platform/devices/nobody.0"


def vfio(**properties):
    return {"driver": "vfio-pci", "id": "d0", "addr": "5", **properties}


class CommandLine(VmmTestCase):
    def refused(self, *words, args):
        status, log = self.vmm_that_fails(*args)
        self.assertEqual(status, 1, log)
        for word in words:
            self.assertIn(word, log)

    def test_properties_are_checked_before_anything_is_opened(self):
        iommufd = options("-object", "iommufd", id="iommufd0")
        self.refused("frob", args=options("-object", "iommufd", id="i", frob=1))
        self.refused("duplicate id 'iommufd0'", args=[*iommufd, *iommufd])
        self.refused("there is no such object", "-object iommufd,id=nope",
                     args=[*iommufd, *device("vfio-pci", iommufd="nope", sysfsdev=SYSFS)])
        for properties in ({}, {"host": "0000:3b:00.2", "sysfsdev": SYSFS}, {"fd": 3, "host": "x"}):
            self.refused("give one of host=, sysfsdev= and fd=",
                         args=[*iommufd, *device("vfio-pci", iommufd="iommufd0", **properties)])
        self.refused("fd= with iommufd=", args=device("vfio-pci", fd=3))

    def test_descriptor_that_nobody_left_open_is_refused(self):
        self.refused("iommufd,id=i", "fd=77", "Bad file descriptor",
                     args=options("-object", "iommufd", id="i", fd=77))
        self.refused("fd=many", args=options("-object", "iommufd", id="i", fd="many"))

    @unittest.skipIf(Path("/sys/class/vfio-dev").exists(), "this host has VFIO devices")
    def test_device_that_is_not_there_says_what_to_do(self):
        iommufd = options("-object", "iommufd", id="iommufd0")
        self.refused(f"device {SYSFS}", "bind it to vfio-pci",
                     args=[*iommufd, *device("vfio-pci", iommufd="iommufd0", sysfsdev=SYSFS)])

    def test_object_is_listed(self):
        vmm = self.vmm(*options("-object", "iommufd", id="iommufd0"))
        listed = {"name": "iommufd0", "type": "child<iommufd>"}
        self.assertIn(listed, vmm.cmd("qom-list", path="/objects"))
        self.assertEqual(vmm.cmd("qom-get", path="/objects/iommufd0", property="type"), "iommufd")
        self.assertIn("iommufd", [one["name"] for one in vmm.cmd("qom-list-types")])


class Commands(VmmTestCase):
    def refused(self, vmm, *words, execute, arguments):
        with self.assertRaises(QmpError) as caught:
            vmm.qmp.cmd(execute, **arguments)
        for word in words:
            self.assertIn(word, caught.exception.desc)

    def hand_over(self, vmm, name, path):
        fd = os.open(path, os.O_RDWR)
        try:
            vmm.qmp.wait_reply(vmm.qmp.send("getfd", fdname=name, fds=[fd]))
        finally:
            os.close(fd)

    def test_object_comes_and_goes(self):
        vmm = self.vmm()
        before = vmm.resources()
        add = {"qom-type": "iommufd", "id": "i0"}
        self.refused(vmm, "Parameter 'frob' is unexpected", execute="object-add",
                     arguments={**add, "frob": 1})
        vmm.cmd("object-add", **add)
        self.refused(vmm, "duplicate property 'i0'", execute="object-add", arguments=add)
        self.refused(vmm, "duplicate property 'i0'", execute="object-add",
                     arguments={"qom-type": "memory-backend-ram", "id": "i0", "size": 4096})
        vmm.cmd("object-del", id="i0")
        self.refused(vmm, "object 'i0' not found", execute="object-del", arguments={"id": "i0"})
        vmm.wait_resources(before)

    def test_handed_descriptor_belongs_to_the_object(self):
        vmm = self.vmm()
        before = vmm.resources()
        self.hand_over(vmm, "mine", "/dev/null")
        self.refused(vmm, "theirs", execute="object-add",
                     arguments={"qom-type": "iommufd", "id": "i0", "fd": "theirs"})
        vmm.cmd("object-add", **{"qom-type": "iommufd", "id": "i0", "fd": "mine"})
        self.refused(vmm, "mine", execute="closefd", arguments={"fdname": "mine"})
        vmm.cmd("object-del", id="i0")
        vmm.wait_resources(before)

    def test_handed_descriptors_of_other_things_are_refused_and_closed(self):
        vmm = self.vmm()
        before = vmm.resources()
        self.hand_over(vmm, "iommu", "/dev/null")
        vmm.cmd("object-add", **{"qom-type": "iommufd", "id": "i0", "fd": "iommu"})
        self.hand_over(vmm, "device", "/dev/null")
        self.refused(vmm, "iommufd 'i0'", "IOMMU_IOAS_ALLOC", execute="device_add",
                     arguments=vfio(iommufd="i0", fd="device"))
        self.refused(vmm, "device", execute="closefd", arguments={"fdname": "device"})
        vmm.cmd("object-del", id="i0")
        vmm.wait_resources(before)

    def test_device_names_the_object_that_is_missing(self):
        vmm = self.vmm()
        self.refused(vmm, "iommufd=i9", "there is no such object", execute="device_add",
                     arguments=vfio(iommufd="i9", sysfsdev=SYSFS))


if __name__ == "__main__":
    unittest.main()
