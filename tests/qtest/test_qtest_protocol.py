# SPDX-License-Identifier: BSD-2-Clause
"""The qtest protocol on a whole machine: interrupt lines, the clock, and many small requests in each
state a VM can be in."""

import unittest

from harness.qtest import QtestError
from harness.soft import SLOT, hold, release, soft, wait_held
from harness.vmm import VmmTestCase, migrate, options, start_migration, workload

COM1, COM1_LINE = 0x3F8, 4
PM_STATUS, PM_ENABLE, SCI_LINE = 0x600, 0x602, 9
PM_TIMER_BIT, PM_POWER_BUTTON = 0x1, 0x100
PM_TIMER_HZ, PM_TIMER_HALF = 3579545, 1 << 23
SERIAL = ("-serial", "null")
READS = 25000


class InterruptLines(VmmTestCase):
    def refused(self, qtest, line, *words):
        with self.assertRaises(QtestError) as caught:
            qtest.cmd(line)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_serial_port_raises_and_lowers_line_4(self):
        qtest = self.vmm(*SERIAL).qtest
        qtest.intercept_in()
        qtest.outb(COM1 + 1, 2)  # transmitter empty, which it is
        self.assertEqual(qtest.take_irqs(), [(COM1_LINE, 1)])
        self.assertEqual(qtest.inb(COM1 + 2) & 0xF, 2)  # which acknowledges it
        self.assertEqual(qtest.take_irqs(), [(COM1_LINE, 0)])

    def test_power_button_raises_the_sci_unasked(self):
        vmm = self.vmm()
        vmm.qtest.intercept_in()
        vmm.qtest.outw(PM_ENABLE, PM_POWER_BUTTON)
        vmm.cmd("system_powerdown")
        self.assertEqual(vmm.qtest.wait_irq(), (SCI_LINE, 1))
        vmm.qtest.outw(PM_STATUS, PM_POWER_BUTTON)
        self.assertEqual(vmm.qtest.take_irqs(), [(SCI_LINE, 0)])

    def test_clock_goes_to_the_pm_timer_and_no_further(self):
        qtest = self.vmm().qtest
        qtest.intercept_in()
        self.assertEqual(qtest.clock_step(), 0)  # nothing is due ever
        qtest.outw(PM_ENABLE, PM_TIMER_BIT)
        due = -(-PM_TIMER_HALF * 10**9 // PM_TIMER_HZ)
        self.assertEqual(qtest.clock_step(due - 1), due - 1)
        self.assertEqual(qtest.take_irqs(), [])
        self.assertEqual(qtest.clock_step(), due)
        self.assertEqual(qtest.take_irqs(), [(SCI_LINE, 1)])

    def pin_raised(self, vmm, line):
        dev = vmm.test_device(SLOT).setup()
        vmm.qtest.intercept_in()
        dev.writel(dev.IRQ_RAISE, 0)
        self.assertEqual(vmm.qtest.wait_irq(), (line, 1))
        return dev

    def test_pin_of_a_function_is_wired_by_its_slot(self):
        for machine, line in (("q35", 16 + SLOT), ("pc", 11)):
            vmm = self.vmm(*soft(x_intx=True), machine=machine)
            dev = self.pin_raised(vmm, line)
            dev.readl(dev.ID)  # which the handler would do
            self.assertEqual(vmm.qtest.wait_irq(), (line, 0))

    def test_pin_falls_with_a_reset_and_with_its_device(self):
        vmm = self.vmm(*soft(x_intx=True))
        self.pin_raised(vmm, 16 + SLOT)
        vmm.cmd("system_reset")
        self.assertEqual(vmm.qtest.wait_irq(), (16 + SLOT, 0))
        dev = vmm.test_device(SLOT).setup()
        dev.writel(dev.IRQ_RAISE, 0)
        self.assertEqual(vmm.qtest.wait_irq(), (16 + SLOT, 1))
        vmm.cmd("device_del", id="d0")
        self.assertEqual(vmm.qtest.wait_irq(), (16 + SLOT, 0))

    def test_line_that_two_hold_falls_with_the_last(self):
        qtest = self.vmm(*soft(x_intx=True), *SERIAL).qtest
        qtest.intercept_in()
        qtest.cmd(f"set_irq_in ioapic unnamed-gpio-in {COM1_LINE} 1")
        self.assertEqual(qtest.take_irqs(), [(COM1_LINE, 1)])
        qtest.outb(COM1 + 1, 2)
        qtest.cmd(f"set_irq_in ioapic unnamed-gpio-in {COM1_LINE} 0")
        self.assertEqual(qtest.take_irqs(), [])
        qtest.inb(COM1 + 2)
        self.assertEqual(qtest.take_irqs(), [(COM1_LINE, 0)])

    def test_outputs_of_a_device_count_from_0(self):
        qtest = self.vmm(*SERIAL).qtest
        qtest.intercept_out("serial0")
        qtest.outb(COM1 + 1, 2)
        qtest.cmd("set_irq_in ioapic unnamed-gpio-in 9 1")  # not an output of it
        self.assertEqual(qtest.take_irqs(), [(0, 1)])

    def test_line_that_is_high_already_is_reported_at_once(self):
        qtest = self.vmm(*SERIAL).qtest
        qtest.outb(COM1 + 1, 2)
        qtest.intercept_in("/machine/unattached/ioapic")
        self.assertEqual(qtest.take_irqs(), [(COM1_LINE, 1)])

    def test_only_one_device_is_watched(self):
        qtest = self.vmm(*SERIAL).qtest
        qtest.intercept_in()
        qtest.intercept_in("/machine/unattached/ioapic")  # the same
        self.refused(qtest, "irq_intercept_out serial0", "IRQ intercept already enabled")

    def test_what_is_not_there_is_refused_by_name(self):
        qtest = self.vmm(*soft()).qtest
        self.refused(qtest, "irq_intercept_in pic", "'pic'")
        self.refused(qtest, "irq_intercept_out ioapic", "'ioapic'")
        self.refused(qtest, "irq_intercept_out d0 sysbus-irq", "'sysbus-irq'")
        self.refused(qtest, "irq_intercept_in")
        self.refused(qtest, "set_irq_in ioapic nmi 0 1", "unnamed-gpio-in")
        self.refused(qtest, "set_irq_in ioapic unnamed-gpio-in 24 1", "0 to 23")
        self.refused(qtest, "set_irq_in d0 unnamed-gpio-in 0 1", "'d0'")
        qtest = self.vmm(machine="none").qtest
        self.refused(qtest, "irq_intercept_in ioapic", "interrupt")

    def test_raised_lines_are_raised_at_the_destination(self):
        with self.pair(*soft(x_intx=True), *SERIAL) as (src, dst):
            self.pin_raised(src, 16 + SLOT)
            src.qtest.outb(COM1 + 1, 2)
            dst.qtest.intercept_in()
            migrate(src, dst)
            raised = {dst.qtest.wait_irq(), dst.qtest.wait_irq()}
            self.assertEqual(raised, {(16 + SLOT, 1), (COM1_LINE, 1)})


class ManySmallRequests(VmmTestCase):
    """How long they take is measured by scripts/bench qtest-reads."""

    def read_them(self, vmm, expected):
        for at in range(READS):
            address = 0x1000 + at % 4096
            self.assertEqual(vmm.qtest.readb(address), expected(address))

    def test_running_and_stopped(self):
        vmm = self.vmm()
        vmm.qtest.memset(0x1000, 4096, 0x5A)
        self.read_them(vmm, lambda _: 0x5A)
        vmm.cmd("stop")
        self.read_them(vmm, lambda _: 0x5A)

    def test_while_memory_is_loaded(self):
        # Written faster than it is sent, so that the load does not end by itself.
        with self.pair(*workload("16M", offset="16M", pages_per_second=20000)) as (src, dst):
            src.set_parameters(max_bandwidth=4 << 20)
            src.set_parameters(downtime_limit=1)
            start_migration(src, dst)
            dst.wait_migration("active")
            src.wait_migration("active")
            self.read_them(dst, lambda _: 0)
            self.assertEqual(dst.migration_status(), "active")
            src.cmd("migrate_cancel")
            src.wait_migration("cancelled")
            dst.process.wait()

    def test_while_a_device_loads(self):
        with self.pair(*soft()) as (src, dst):
            src.qtest.memset(0x1000, 4096, 0xA5)
            hold(dst, "arc:resuming->stop")
            start_migration(src, dst)
            wait_held(dst, "arc:resuming->stop")
            self.read_them(dst, lambda _: 0xA5)
            release(dst)
            src.wait_migration()
            dst.wait_migration()


class Clock(VmmTestCase):
    def test_moves_only_where_the_client_is_its_master(self):
        vmm = self.vmm()
        self.assertEqual(vmm.qtest.clock_step(10), 10)
        self.assertEqual(vmm.qtest.cmd("clock_set 20"), "20")


if __name__ == "__main__":
    unittest.main()
