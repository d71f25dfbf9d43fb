# SPDX-License-Identifier: BSD-2-Clause
"""device_add of a device whose driver takes its time, or fails: nobody waits but who asked."""

import unittest

from harness.pci import TestDevice
from harness.qmp import Qmp, QmpError
from harness.soft import hold, pending, release, soft, wait_held
from harness.vmm import VmmTestCase, start_migration

FIRST_CALL = "get info"  # of a driver that a new device's is asked
LAST_CALL = "probe dma log"
LATE = {"driver": "vfio-pci-soft", "id": "late"}


class DeviceAdd(VmmTestCase):
    def two_monitors(self, *args, **keywords):
        path = f"{self.folder}/other.qmp"
        vmm = self.vmm("-qmp", f"unix:{path},server=on,wait=off", *args, **keywords)
        other = Qmp.connect(path)
        self.addCleanup(other.close)
        return vmm, other

    def begin_held(self, vmm, other, call=FIRST_CALL, **properties):
        """The id of a request whose device is inside that call."""
        request = other.send("device_add", {**LATE, "x-fault": f"hold={call}", **properties})
        self.assertEqual(wait_held(vmm, call, "late"), call)
        return request

    def test_other_monitors_are_served_while_a_driver_is_asked(self):
        for call in (FIRST_CALL, LAST_CALL):
            vmm, other = self.two_monitors()
            request = self.begin_held(vmm, other, call)
            self.assertEqual(vmm.cmd("query-status"), {"running": True, "status": "running"})
            vmm.cmd("stop")  # not even that waits
            vmm.cmd("cont")
            self.assertEqual(pending(vmm), [("late", call)])
            release(vmm, "late")
            self.assertEqual(other.wait_reply(request), {})
            self.assertTrue(TestDevice(vmm.qtest, 1).present())
            vmm.cmd("device_del", id="late")
            vmm.wait_event("DEVICE_DELETED")
            other.close()
            self.assertEqual(vmm.quit(), 0)

    def test_id_and_slot_are_taken_from_the_start(self):
        vmm, other = self.two_monitors()
        request = self.begin_held(vmm, other)
        with self.assertRaises(QmpError) as caught:
            vmm.cmd("device_add", LATE)
        self.assertIn("Duplicate device ID 'late'", str(caught.exception))
        vmm.cmd("device_add", {**LATE, "id": "second"})
        self.assertFalse(TestDevice(vmm.qtest, 1).present())
        self.assertTrue(TestDevice(vmm.qtest, 2).present())
        with self.assertRaises(QmpError):
            vmm.cmd("device_del", id="late")
        release(vmm, "late")
        other.wait_reply(request)
        self.assertTrue(TestDevice(vmm.qtest, 1).present())

    def test_migration_that_began_meanwhile_goes_first(self):
        path = f"{self.folder}/other.qmp"
        with self.pair(*soft(), source=("-qmp", f"unix:{path},server=on,wait=off")) as (src, dst):
            other = Qmp.connect(path)
            self.addCleanup(other.close)
            request = self.begin_held(src, other)
            hold(dst, "arc:resuming->stop")
            start_migration(src, dst)
            wait_held(dst, "arc:resuming->stop")
            release(src, "late")
            with self.assertRaises(QmpError) as caught:
                other.wait_reply(request)
            self.assertIn("device_add not allowed while migrating", str(caught.exception))
            release(dst)
            src.wait_migration()
            dst.wait_migration()
            self.assertFalse(TestDevice(src.qtest, 1).present())

    def test_failing_driver_leaves_nothing(self):
        vmm = self.vmm()
        vmm.cmd("device_add", LATE)  # what the first one allocates for good
        vmm.cmd("device_del", id="late")
        vmm.wait_event("DEVICE_DELETED")
        before = vmm.resources()
        with self.assertRaises(QmpError) as caught:
            vmm.cmd("device_add", {**LATE, "x-fault": f"fail={FIRST_CALL}:EIO"})
        for word in ("late", "get info", "Input/output error"):
            self.assertIn(word, str(caught.exception))
        vmm.wait_resources(before)
        vmm.cmd("device_add", LATE)

    def test_quit_does_not_wait_for_the_driver(self):
        vmm, other = self.two_monitors()
        self.begin_held(vmm, other)
        self.assertEqual(vmm.quit(), 0)
        self.assertIn("ending although late is in 'get info'", vmm.log())


if __name__ == "__main__":
    unittest.main()
