# SPDX-License-Identifier: BSD-2-Clause
"""A guest under KVM that works with a device while both migrate: no interrupt and no write of the
device is lost."""

from harness.kvm import KvmTestCase, assemble
from harness.pci import BARS_AT, CAP_MSIX
from harness.soft import SLOT, soft
from harness.vmm import migrate, start_migration

ROUNDS, INTERRUPTS, WRONG = 0x600, 0x604, 0x608
BAR = BARS_AT + (SLOT << 20)
MESSAGES_AT, VECTOR = 0xFEE00000, 0x40


class Device(KvmTestCase):
    def setUp(self):
        super().setUp()
        self.working = assemble("device", self.folder, BAR=BAR)

    def machine(self, *args, **keywords):
        return self.guest(*soft(), *args, image=self.working, memory="16M", **keywords)

    def source(self):
        """What firmware and a driver would set up is there before the guest begins."""
        vmm = self.machine("-S", name="src")
        dev = vmm.test_device(SLOT).setup(BAR)
        self.assertEqual(dev.address(0), BAR)
        msix = dev.capability(CAP_MSIX)
        table = dev.config_readl(msix + 4)
        bar, offset = table & 7, table & ~7
        for at, value in ((0, MESSAGES_AT), (4, 0), (8, VECTOR), (12, 0)):
            dev.writel(offset + at, value, bar)
        dev.config_writew(msix + 2, dev.config_readw(msix + 2) | 0x8000)
        vmm.cmd("cont")
        self.wait_rounds(vmm)
        return vmm

    def destination(self, name="dst"):
        return self.machine("-incoming", "defer", name=name)

    def wait_rounds(self, vmm, count=20):
        begin = vmm.qtest.readl(ROUNDS)
        vmm.wait_for(lambda: vmm.qtest.readl(ROUNDS) >= begin + count, "rounds")

    def assert_nothing_lost(self, vmm):
        """Each round had its interrupt; of the last one it may be on its way."""
        vmm.cmd("stop")
        rounds, interrupts = vmm.qtest.readl(ROUNDS), vmm.qtest.readl(INTERRUPTS)
        self.assertIn(rounds - interrupts, (0, 1))
        self.assertEqual(vmm.qtest.readl(WRONG), 0)
        self.assertEqual(vmm.cmd("x-query-board")["lost-msis"], 0)
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
        rounds = src.qtest.readl(ROUNDS)
        migrate(src, dst)
        self.assertEqual(dst.qtest.readl(ROUNDS), rounds)
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
