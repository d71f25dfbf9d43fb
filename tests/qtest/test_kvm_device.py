# SPDX-License-Identifier: BSD-2-Clause
"""A guest under KVM that works with a device while both migrate: no interrupt and no write of the
device is lost."""

from harness.kvm import KvmTestCase, WorkingGuest
from harness.soft import soft
from harness.vmm import migrate, start_migration


class Device(KvmTestCase):
    def setUp(self):
        super().setUp()
        self.working = WorkingGuest.assemble(self.folder)

    def machine(self, *args, **keywords):
        return self.guest(*soft(WorkingGuest.SLOT), *args, image=self.working, memory="16M", **keywords)

    def source(self):
        vmm = self.machine("-S", name="src")
        WorkingGuest.prepare(vmm.test_device(WorkingGuest.SLOT))
        vmm.cmd("cont")
        self.wait_rounds(vmm)
        return vmm

    def destination(self, name="dst"):
        return self.machine("-incoming", "defer", name=name)

    def wait_rounds(self, vmm):
        WorkingGuest.wait_rounds(vmm)

    def assert_nothing_lost(self, vmm):
        vmm.cmd("stop")
        WorkingGuest.check(vmm)
        vmm.cmd("cont")

    def test_works_with_its_device(self):
        vmm = self.source()
        self.assert_nothing_lost(vmm)
        self.wait_rounds(vmm)

    def test_goes_on_with_its_device_elsewhere(self):
        here = self.source()
        for number in range(3):
            there = self.destination(f"dst{number}")
            migrate(here, there)
            self.wait_rounds(there)
            self.assert_nothing_lost(there)
            here = there
        self.wait_rounds(here)

    def test_stopped_and_moved(self):
        src, dst = self.source(), self.destination()
        src.cmd("stop")
        rounds = src.qtest.readl(WorkingGuest.ROUNDS)
        migrate(src, dst)
        self.assertEqual(dst.qtest.readl(WorkingGuest.ROUNDS), rounds)
        dst.cmd("cont")
        self.wait_rounds(dst)
        self.assert_nothing_lost(dst)

    def test_goes_on_after_a_migration_that_was_cancelled(self):
        src, dst = self.source(), self.destination()
        src.set_parameters(max_bandwidth=1 << 20)
        start_migration(src, dst)
        src.wait_migration("active")
        src.cmd("migrate_cancel")
        src.wait_migration("cancelled")
        self.wait_rounds(src)
        self.assert_nothing_lost(src)
