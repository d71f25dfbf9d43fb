# SPDX-License-Identifier: BSD-2-Clause
"""Devices that do not migrate: who says so, when, and what undoes it."""

from harness.qmp import QmpError
from harness.soft import soft
from harness.vmm import VmmTestCase, migrate, start_migration

SECOND = {"slot": 4, "id": "d1"}


class Blockers(VmmTestCase):
    def reasons(self, vmm):
        return vmm.cmd("query-migrate").get("blocked-reasons", [])

    def check_blocked(self, vmm, *words):
        reasons = self.reasons(vmm)
        self.assertEqual(len(reasons), 1, reasons)
        with self.assertRaises(QmpError) as refused:
            vmm.cmd("migrate", uri="exec:cat > /dev/null")
        for word in words:
            self.assertIn(word, reasons[0])
            self.assertIn(word, refused.exception.desc)
        self.assertEqual(vmm.migration_status(), "none")
        self.assertEqual(vmm.run_state(), "running")

    def check_migrates(self, vmm):
        self.assertEqual(self.reasons(vmm), [])
        vmm.set_parameters(avail_switchover_bandwidth=1 << 30)
        vmm.cmd("migrate", uri="exec:cat > /dev/null")
        vmm.wait_migration()

    # What a device lacks, with each value of enable-migration.

    def check_matrix(self, auto, on, **properties):
        """auto, on: words of the reason; None if it migrates."""
        for value, words in (("auto", auto), ("on", on)):
            with self.subTest(enable_migration=value):
                options = soft(enable_migration=value, **properties)
                if value == "on" and words is not None:
                    status, log = self.vmm_that_fails(options, memory="16M")
                    self.assertEqual(status, 1)
                    self.assertIn(words, log)
                    continue
                vmm = self.vmm(options, memory="16M")
                if words is None:
                    self.check_migrates(vmm)
                else:
                    self.check_blocked(vmm, "d0", words)

    def test_device_with_everything_migrates(self):
        self.check_matrix(None, None)

    def test_device_without_migration_is_blocked_or_refused(self):
        self.check_matrix("no live migration", "no live migration", x_migratable=False)

    def test_device_whose_driver_fails_the_question_is_blocked_or_refused(self):
        self.check_matrix("asking its driver", "asking its driver",
                          x_fault="fail=get migration caps:EIO")

    def test_device_without_dma_log_is_blocked_unless_wanted(self):
        self.check_matrix("writes to guest memory", None, x_dirty_tracking=False)

    def test_device_whose_log_is_not_to_be_used_is_blocked_unless_wanted(self):
        self.check_matrix("writes to guest memory", None, x_device_dirty_page_tracking=False)

    def test_device_with_migration_switched_off_is_blocked(self):
        self.check_blocked(self.vmm(soft(enable_migration=False), memory="16M"),
                           "d0", "enable-migration=off")

    def test_only_migratable_refuses_what_would_block(self):
        status, log = self.vmm_that_fails("-only-migratable", soft(x_migratable=False))
        self.assertEqual(status, 1)
        self.assertIn("d0", log)

    # Several devices.

    def test_one_device_without_p2p_migrates(self):
        self.check_migrates(self.vmm(soft(x_p2p=False), memory="16M"))

    def test_two_devices_with_p2p_migrate(self):
        self.check_migrates(self.vmm(soft(), soft(**SECOND), memory="16M"))

    def test_two_devices_one_without_p2p_are_blocked_until_it_is_unplugged(self):
        vmm = self.vmm(soft(), soft(x_p2p=False, **SECOND), memory="16M")
        self.check_blocked(vmm, "P2P", "and device d1 can't; unplug it ")
        vmm.cmd("device_del", id="d1")
        vmm.wait_event("DEVICE_DELETED")
        self.check_migrates(vmm)

    def test_two_devices_without_p2p_are_blocked_until_either_is_unplugged(self):
        vmm = self.vmm(soft(x_p2p=False), soft(x_p2p=False, **SECOND), memory="16M")
        self.check_blocked(vmm, "P2P", "and devices d0, d1 can't; unplug them ")
        vmm.cmd("device_del", id="d0")
        vmm.wait_event("DEVICE_DELETED")
        self.check_migrates(vmm)

    def test_second_device_without_p2p_is_refused_when_it_must_migrate(self):
        status, log = self.vmm_that_fails(
            soft(), soft(x_p2p=False, enable_migration=True, **SECOND))
        self.assertEqual(status, 1)
        self.assertIn("P2P", log)
        self.assertIn("device d1 can't", log)

    def test_devices_without_p2p_that_come_later_are_named_as_well(self):
        vmm = self.vmm(soft(x_p2p=False), soft(**SECOND), memory="16M")
        self.check_blocked(vmm, "and device d0 can't")
        vmm.cmd("device_add", driver="vfio-pci-soft", id="d2", addr="9", **{"x-p2p": False})
        self.check_blocked(vmm, "and devices d0, d2 can't")
        vmm.cmd("device_del", id="d0")
        vmm.wait_event("DEVICE_DELETED")
        self.check_blocked(vmm, "and device d2 can't")

    def test_unplugging_the_blocked_device_unblocks(self):
        vmm = self.vmm(soft(), soft(enable_migration=False, **SECOND), memory="16M")
        self.check_blocked(vmm, "d1")
        vmm.cmd("device_del", id="d1")
        vmm.wait_event("DEVICE_DELETED")
        self.check_migrates(vmm)

    def test_migrating_device_can_not_be_unplugged(self):
        with self.pair(soft(), memory="16M") as (src, dst):
            src.set_capabilities("pause-before-switchover")
            start_migration(src, dst)
            src.wait_migration("pre-switchover")
            with self.assertRaises(QmpError) as refused:
                src.cmd("device_del", id="d0")
            self.assertEqual(refused.exception.desc, "device_del not allowed while migrating")
            src.cmd("migrate-continue", state="pre-switchover")
            src.wait_migration()
            dst.wait_migration()


class Configuration(VmmTestCase):
    """The destination's device must look like the source's to the guest."""

    def two(self, at_source, at_destination):
        src = self.vmm(soft(**at_source), memory="16M", name="src")
        dst = self.vmm(soft(**at_destination), "-incoming", "defer", memory="16M", name="dst")
        src.test_device(3).setup()
        return src, dst

    def check_refused(self, src, dst, *words):
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("failed")
        dst.wait_migration("failed")
        src.wait_run_state("running")
        self.assertIn("the destination failed: ", src.cmd("query-migrate")["error-desc"])
        for vmm in (src, dst):
            for word in ("device d0", *words):
                self.assertIn(word, vmm.cmd("query-migrate")["error-desc"])

    def test_other_vendor_data_are_taken_by_default(self):
        src, dst = self.two({"x_vendor_data": "one"}, {"x_vendor_data": "two"})
        migrate(src, dst)
        self.assertEqual(dst.run_state(), "running")

    def test_other_vendor_data_are_refused_with_skip_vsc_check_off(self):
        src, dst = self.two({"x_vendor_data": "one"},
                            {"x_vendor_data": "two", "skip_vsc_check": False})
        self.check_refused(src, dst)

    def test_the_other_name_of_skip_vsc_check_is_taken(self):
        src, dst = self.two({"x_vendor_data": "one"},
                            {"x_vendor_data": "two", "x_skip_vsc_check": False})
        self.check_refused(src, dst)
        listed = [entry["name"] for entry in dst.cmd("qom-list", path="d0")]
        self.assertEqual([name for name in listed if "vsc" in name], ["skip-vsc-check"])

    def test_same_vendor_data_are_taken_with_skip_vsc_check_off(self):
        src, dst = self.two({"skip_vsc_check": False}, {"skip_vsc_check": False})
        migrate(src, dst)

    def test_other_number_of_vectors_is_refused(self):
        self.check_refused(*self.two({"x_vectors": 4}, {"x_vectors": 8}))
