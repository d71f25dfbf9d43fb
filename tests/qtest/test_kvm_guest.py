# SPDX-License-Identifier: BSD-2-Clause
"""Guests that run under KVM: they boot, stop, reset, and go on elsewhere as if nothing happened."""

import os
import socket

from harness.kvm import BOOTS, KvmTestCase
from harness.qmp import QmpError
from harness.vmm import migrate, start_migration


class Guest(KvmTestCase):
    def test_runs_and_says_so(self):
        vmm = self.guest()
        self.wait_counting(vmm)
        self.assertTrue(vmm.cmd("query-kvm")["enabled"])
        (cpu,) = vmm.cmd("query-cpus-fast")
        self.assertIn("CPU 0/KVM", vmm.threads())
        self.assertTrue(os.path.exists(f"/proc/{vmm.pid}/task/{cpu['thread-id']}"))

    def test_dirty_rate_by_kvms_log(self):
        vmm = self.guest()
        self.wait_counting(vmm)
        measure = {"calc-time": 50, "calc-time-unit": "millisecond", "mode": "dirty-bitmap"}
        vmm.cmd("calc-dirty-rate", measure)
        vmm.wait_for(lambda: vmm.cmd("query-dirty-rate")["status"] == "measured")
        self.assertGreater(vmm.cmd("query-dirty-rate")["dirty-rate"], 0)
        vmm.cmd("stop")
        vmm.cmd("calc-dirty-rate", measure)
        vmm.wait_for(lambda: vmm.cmd("query-dirty-rate")["status"] == "measured")
        self.assertEqual(vmm.cmd("query-dirty-rate")["dirty-rate"], 0)
        vmm.cmd("cont")
        self.wait_counting(vmm)

    def test_nothing_changes_while_it_is_stopped(self):
        vmm = self.guest()
        self.wait_counting(vmm)
        vmm.cmd("stop")
        before = self.assert_ordered(vmm)
        self.assertEqual(self.pages(vmm), before)
        vmm.cmd("cont")
        self.wait_counting(vmm)

    def test_does_not_run_before_cont(self):
        vmm = self.guest("-S")
        self.assertEqual(vmm.qtest.readl(BOOTS), 0)
        vmm.cmd("cont")
        self.wait_counting(vmm)
        self.assertEqual(vmm.qtest.readl(BOOTS), 1)

    def test_reset_loads_the_sector_again_and_enters_it(self):
        vmm = self.guest()
        self.wait_counting(vmm)
        sector = vmm.qtest.read(0x7c00, 512)
        vmm.qtest.writel(0x7c00, 0)
        vmm.cmd("system_reset")
        self.assertEqual(vmm.run_state(), "running")
        vmm.wait_for(lambda: vmm.qtest.readl(BOOTS) == 2, "second start")
        self.assertEqual(vmm.qtest.read(0x7c00, 512), sector)
        self.wait_counting(vmm)

    def test_reset_of_a_stopped_guest_makes_it_begin_anew(self):
        vmm = self.guest()
        self.wait_counting(vmm)
        vmm.cmd("stop")
        vmm.cmd("system_reset")
        self.assertEqual(vmm.run_state(), "prelaunch")
        self.assertEqual(vmm.qtest.readl(BOOTS), 1)
        vmm.cmd("cont")
        vmm.wait_for(lambda: vmm.qtest.readl(BOOTS) == 2, "second start")

    def test_without_a_disk_a_cpu_waits(self):
        vmm = self.vmm(accel="kvm", memory="8M")
        self.assertEqual(vmm.run_state(), "running")
        self.assertEqual(vmm.quit(), 0)

    def test_machine_none_has_no_cpu(self):
        vmm = self.vmm(accel="kvm", machine="none", memory="8M")
        self.assertTrue(vmm.cmd("query-kvm")["enabled"])
        self.assertEqual(vmm.cmd("query-cpus-fast"), [])

    def test_missing_disk_is_an_error(self):
        status, log = self.vmm_that_fails("-drive", "file=/nonexistent/disk", accel="kvm")
        self.assertEqual(status, 1)
        self.assertIn("/nonexistent/disk", log)

    def test_short_disk_is_an_error(self):
        path = self.folder / "short"
        path.write_bytes(b"x")
        status, log = self.vmm_that_fails("-drive", f"file={path}", accel="kvm")
        self.assertEqual(status, 1)
        self.assertIn("less than a sector", log)


class Moves(KvmTestCase):
    def check_arrived(self, src, dst):
        src.wait_migration()
        dst.wait_migration()
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))
        self.wait_counting(dst)
        dst.cmd("stop")
        self.assert_ordered(dst)
        self.assertEqual(dst.qtest.readl(BOOTS), 1)

    def counting_pair(self, *args, **keywords):
        src, dst = self.enterContext(self.guests(*args, **keywords))
        self.wait_counting(src)
        return src, dst

    def test_unix(self):
        src, dst = self.counting_pair()
        start_migration(src, dst)
        self.check_arrived(src, dst)

    def test_tcp(self):
        src, dst = self.counting_pair()
        dst.cmd("migrate-incoming", uri="tcp:127.0.0.1:0")
        (address,) = dst.cmd("query-migrate")["socket-address"]
        src.cmd("migrate", uri=f"tcp:127.0.0.1:{address['port']}")
        self.check_arrived(src, dst)

    def test_fd(self):
        src, dst = self.counting_pair()
        for vmm, end in zip((src, dst), socket.socketpair(), strict=True):
            vmm.qmp.wait_reply(vmm.qmp.send("getfd", fdname="mig", fds=[end.fileno()]))
            end.close()
        start_migration(src, dst, uri="fd:mig")
        self.check_arrived(src, dst)

    def check_stored(self, save_uri, load_uri):
        src, dst = self.counting_pair()
        src.cmd("migrate", uri=save_uri)
        src.wait_migration()
        dst.cmd("migrate-incoming", uri=load_uri)
        self.check_arrived(src, dst)

    def test_file(self):
        self.check_stored(f"file:{self.folder}/stream", f"file:{self.folder}/stream")

    def test_file_with_offset(self):
        self.check_stored(f"file:{self.folder}/stream,offset=4k",
                          f"file:{self.folder}/stream,offset=4k")

    def test_exec(self):
        self.check_stored(f"exec:cat > {self.folder}/stream", f"exec:cat {self.folder}/stream")

    def test_stopped_guest_arrives_where_it_was(self):
        src, dst = self.counting_pair()
        src.cmd("stop")
        before = self.assert_ordered(src)
        migrate(src, dst)
        self.assertEqual(dst.run_state(), "paused")
        self.assertEqual(self.pages(dst), before)
        dst.cmd("cont")
        self.wait_counting(dst)
        dst.cmd("stop")
        self.assert_ordered(dst)

    def test_back_and_forth(self):
        src, dst = self.counting_pair()
        migrate(src, dst)
        for number in range(3):
            here = dst
            dst = self.guest("-incoming", "defer", name=f"again{number}")
            self.wait_counting(here)
            migrate(here, dst)
        self.check_arrived(here, dst)

    def test_taken_back_by_cont_after_it_was_given_away(self):
        src, dst = self.counting_pair()
        migrate(src, dst)
        dst.quit()
        src.cmd("cont")
        self.wait_counting(src)
        src.cmd("stop")
        self.assert_ordered(src)

    def test_cancelled_and_moved_after_all(self):
        src, dst = self.counting_pair()
        src.set_parameters(max_bandwidth=1 << 20)
        start_migration(src, dst)
        src.wait_migration("active")
        src.cmd("migrate_cancel")
        src.wait_migration("cancelled")
        self.assertEqual(src.run_state(), "running")
        self.wait_counting(src)
        dst.kill()
        src.set_parameters(max_bandwidth=0)
        other = self.guest("-incoming", "defer", name="other")
        start_migration(src, other)
        self.check_arrived(src, other)

    def test_lost_destination_leaves_the_guest_running(self):
        src, dst = self.counting_pair()
        src.set_parameters(max_bandwidth=1 << 20)
        start_migration(src, dst)
        src.wait_migration("active")
        dst.kill()
        src.wait_migration("failed")
        self.wait_counting(src)
        src.cmd("stop")
        self.assert_ordered(src)

    def test_several_cpus_and_a_named_model(self):
        src, dst = self.counting_pair("-smp", "3", "-cpu", "qemu64")
        self.assertEqual(len(src.cmd("query-cpus-fast")), 3)
        start_migration(src, dst)
        self.check_arrived(src, dst)

    def test_other_number_of_cpus_is_refused_and_the_source_goes_on(self):
        src, dst = self.enterContext(self.guests(source=["-smp", "2"]))
        self.wait_counting(src)
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("failed")
        dst.wait_migration("failed")
        self.assertIn("ferry-vcpu", dst.cmd("query-migrate")["error-desc"])
        self.wait_counting(src)

    def test_auto_converge_slows_the_guest_down(self):
        src, dst = self.counting_pair()
        src.set_capabilities("auto-converge")
        src.set_parameters(max_bandwidth=4 << 20, downtime_limit=1)
        start_migration(src, dst)
        src.wait_for(lambda: src.cmd("query-migrate").get("cpu-throttle-percentage", 0) > 0,
                     "throttling")
        src.set_parameters(max_bandwidth=0, downtime_limit=2000)
        self.check_arrived(src, dst)


class DirtyRing(KvmTestCase):
    """Pages listed by CPU instead of a bitmap. Whether they all are is tested where the kernel's KVM
    is a real one (tests/kernel/guests.py): some rings in software pass the probe and lose pages."""

    RING = "kvm,dirty-ring-size=1024"

    def setUp(self):
        super().setUp()
        status, log = self.vmm_that_fails("-kernel", "/nonexistent/kernel", accel=self.RING)
        self.assertEqual(status, 1)
        if "dirty-ring-size" in log:
            self.skipTest(log.strip())

    def test_dirty_rate_by_the_ring_and_not_by_the_bitmap(self):
        vmm = self.guest(accel=self.RING)
        self.wait_counting(vmm)
        with self.assertRaisesRegex(QmpError, "mode dirty-bitmap is not enabled"):
            vmm.cmd("calc-dirty-rate", {"calc-time": 1, "mode": "dirty-bitmap"})
        vmm.cmd("calc-dirty-rate", {"calc-time": 50, "calc-time-unit": "millisecond",
                                    "mode": "dirty-ring"})
        vmm.wait_for(lambda: vmm.cmd("query-dirty-rate")["status"] == "measured")
        rate = vmm.cmd("query-dirty-rate")
        self.assertEqual(rate["mode"], "dirty-ring")
        self.assertGreater(rate["dirty-rate"], 0)

    def test_more_than_the_host_allows_is_an_error(self):
        status, log = self.vmm_that_fails(accel=f"kvm,dirty-ring-size={1 << 31}")
        self.assertEqual(status, 1)
        self.assertIn("allows at most", log)


class Machines(KvmTestCase):
    def test_pc_and_its_versioned_name(self):
        with self.guests(source=["-machine", "pc"], destination=["-machine", "ferry-pc-1.0"]) as (
                src, dst):
            self.wait_counting(src)
            migrate(src, dst)
            self.wait_counting(dst)

    def test_another_machine_is_refused(self):
        with self.guests(destination=["-machine", "pc"]) as (src, dst):
            self.wait_counting(src)
            start_migration(src, dst, exit_on_error=False)
            dst.wait_migration("failed")
            self.assertIn("ferry-q35-1.0", dst.cmd("query-migrate")["error-desc"])
            src.wait_migration("failed")
            self.wait_counting(src)
