# SPDX-License-Identifier: BSD-2-Clause
"""Guests under KVM that reset, power off and suspend, and what they say on a serial port."""

from harness.kvm import BOOTS, KvmTestCase, assemble
from harness.qmp import QmpError
from harness.vmm import migrate, start_migration

ORDER, BEYOND = 0x604, 0x608
KEYBOARD, FAST, CHIPSET, FAULT, SUSPEND, POWER_OFF = range(1, 7)


class PowerTestCase(KvmTestCase):
    def setUp(self):
        super().setUp()
        self.power = assemble("power", self.folder)

    def sleeper(self, *args, **keywords):
        vmm = self.guest(*args, image=self.power, memory="8M", **keywords)
        if "-incoming" not in args:
            self.wait_boots(vmm, 1)
        return vmm

    def wait_boots(self, vmm, count):
        vmm.wait_for(lambda: vmm.qtest.readl(BOOTS) == count, f"start {count}")

    def order(self, vmm, what):
        vmm.qtest.writeb(ORDER, what)

    def suspend(self, vmm):
        self.order(vmm, SUSPEND)
        vmm.wait_event("SUSPEND")
        self.assertEqual(vmm.cmd("query-status"), {"running": False, "status": "suspended"})

    def wake(self, vmm, boots):
        vmm.cmd("system_wakeup")
        vmm.wait_event("WAKEUP")
        self.assertEqual(vmm.run_state(), "running")
        self.wait_boots(vmm, boots)
        self.assertEqual(vmm.qtest.readl(BEYOND), 0)


class Power(PowerTestCase):
    def test_each_way_to_reset(self):
        vmm = self.sleeper()
        for boots, way in enumerate((KEYBOARD, FAST, CHIPSET), start=2):
            self.order(vmm, way)
            event = vmm.wait_event("RESET")
            self.assertEqual(event["data"], {"guest": True, "reason": "guest-reset"})
            self.wait_boots(vmm, boots)
        self.assertEqual(vmm.qtest.readl(BEYOND), 0)
        self.assertEqual(vmm.events(), [])

    def test_power_off_ends_the_process(self):
        vmm = self.sleeper()
        self.order(vmm, POWER_OFF)
        self.assertEqual(vmm.wait_event("SHUTDOWN")["data"],
                         {"guest": True, "reason": "guest-shutdown"})
        self.assertEqual(vmm.wait_exit(), 0)

    def test_power_off_with_no_shutdown_leaves_a_stopped_vm(self):
        vmm = self.sleeper("-no-shutdown")
        self.order(vmm, POWER_OFF)
        vmm.wait_event("SHUTDOWN")
        vmm.wait_run_state("shutdown")
        with self.assertRaises(QmpError):
            vmm.cmd("cont")
        vmm.cmd("system_reset")
        vmm.cmd("cont")
        self.wait_boots(vmm, 2)

    def test_suspended_until_woken_up(self):
        vmm = self.sleeper()
        with self.assertRaises(QmpError):
            vmm.cmd("system_wakeup")
        self.suspend(vmm)
        vmm.cmd("cont")  # nothing to do
        self.assertEqual(vmm.run_state(), "suspended")
        self.wake(vmm, 2)

    def test_stopped_while_suspended(self):
        vmm = self.sleeper()
        self.suspend(vmm)
        vmm.cmd("stop")
        self.assertEqual(vmm.run_state(), "paused")
        vmm.cmd("cont")
        self.assertEqual(vmm.run_state(), "suspended")
        self.wake(vmm, 2)

    def test_suspended_guest_migrates(self):
        src = self.sleeper()
        dst = self.sleeper("-incoming", "defer", name="dst")
        self.suspend(src)
        migrate(src, dst)
        self.assertEqual(dst.run_state(), "suspended")
        self.wake(dst, 2)

    def test_guest_that_was_stopped_in_its_sleep_migrates(self):
        src = self.sleeper()
        dst = self.sleeper("-incoming", "defer", name="dst")
        self.suspend(src)
        src.cmd("stop")
        migrate(src, dst)
        self.assertEqual(dst.run_state(), "paused")
        dst.cmd("cont")
        self.assertEqual(dst.run_state(), "suspended")
        self.wake(dst, 2)

    def test_suspended_guest_that_could_not_move_stays_so(self):
        src = self.sleeper("-smp", "2")
        dst = self.sleeper("-incoming", "defer", name="dst")
        self.suspend(src)
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("failed")
        src.wait_run_state("suspended")
        self.wake(src, 2)

    def test_what_it_asks_for_while_it_is_stopped_comes_later(self):
        """The order is read by the guest only once it runs; then it is carried out."""
        vmm = self.sleeper()
        vmm.cmd("stop")
        self.order(vmm, CHIPSET)
        vmm.cmd("cont")
        vmm.wait_event("RESET")
        self.wait_boots(vmm, 2)


class Serial(PowerTestCase):
    def test_file(self):
        path = self.folder / "serial"
        vmm = self.guest("-serial", f"file:{path}")
        self.wait_counting(vmm)
        vmm.wait_for(lambda: path.read_bytes().startswith(b"AB"), "output")

    def test_output_goes_on_at_the_destination(self):
        paths = [self.folder / "source", self.folder / "target"]
        with self.guests(source=["-serial", f"file:{paths[0]}"],
                         destination=["-serial", f"file:{paths[1]}"]) as (src, dst):
            src.wait_for(lambda: paths[0].read_bytes().startswith(b"AB"), "output")
            migrate(src, dst)
            dst.wait_for(lambda: b"B" in paths[1].read_bytes(), "output")
            self.assertNotIn(b"A", paths[1].read_bytes())

    def test_none_and_null(self):
        for kind in ("none", "null"):
            self.wait_counting(self.guest("-serial", kind))
