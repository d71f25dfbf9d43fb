# SPDX-License-Identifier: BSD-2-Clause
"""A VM without devices moves from one process to another."""

from harness.pci import CONFIG_ADDRESS
from harness.vmm import VmmTestCase, migrate, options, start_migration, workload


class MigrateRam(VmmTestCase):
    def test_memory_clock_and_ports_arrive(self):
        with self.pair(backed=True) as (src, dst):
            src.qtest.write(0x100000, bytes(range(256)) * 4096)
            src.qtest.outl(CONFIG_ADDRESS, 0x80001800)
            src.qtest.clock_step(12345)
            info, _ = migrate(src, dst)
            self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))
            self.assertEqual(dst.qtest.inl(CONFIG_ADDRESS), 0x80001800)
            self.assertEqual(dst.qtest.clock_step(0), 12345)
            self.assert_same_memory(src, dst)
            self.assertGreater(info["ram"]["transferred"], 1 << 20)

    def test_workload_goes_on_where_it_was(self):
        with self.pair(*workload("16M", offset="4M", pages_per_second=2000, pattern="rand"),
                       backed=True) as (src, dst):
            src.wait_for(lambda: src.workload()["position"] > 100)
            migrate(src, dst)
            gone = src.workload()["position"]
            dst.wait_for(lambda: dst.workload()["position"] > gone)
            dst.cmd("stop")
            self.assertEqual(src.workload()["position"], gone)
            self.assert_workload_correct(src)
            self.assert_workload_correct(dst)

    def test_paused_vm_arrives_paused(self):
        with self.pair(*workload("4M"), backed=True) as (src, dst):
            src.wait_for(lambda: src.workload()["position"] > 10)
            src.cmd("stop")
            migrate(src, dst)
            self.assertEqual(dst.run_state(), "paused")
            self.assertEqual(dst.workload(), src.workload())
            self.assert_same_memory(src, dst)

    def test_several_ram_blocks_arrive(self):
        with self.pair(*options("-object", "memory-backend-ram", id="extra", size="2M"),
                       memory="16M") as (src, dst):
            src.qtest.write(0x100000000, b"extra")
            migrate(src, dst)
            self.assertEqual(dst.qtest.read(0x100000000, 5), b"extra")

    def test_machine_none_migrates(self):
        with self.pair(machine="none", memory="16M") as (src, dst):
            src.qtest.write(0x1000, b"none")
            migrate(src, dst)
            self.assertEqual(dst.qtest.read(0x1000, 4), b"none")

    def test_cancel_leaves_the_source_running_and_nothing_behind(self):
        with self.pair(*workload("32M", pages_per_second=200000)) as (src, dst):
            before = src.resources()
            src.set_parameters(max_bandwidth=1 << 20)
            start_migration(src, dst)
            src.wait_migration("active")
            src.cmd("migrate_cancel")
            src.wait_migration("cancelled")
            self.assertEqual(src.run_state(), "running")
            src.wait_resources(before)
            dst.kill()

    def test_back_and_forth(self):
        with self.pair(*workload("8M", pages_per_second=2000), backed=True) as (src, dst):
            migrate(src, dst)
            position = dst.workload()["position"]
            back = self.vmm(*workload("8M"), "-incoming", "defer", name="back", backed=True)
            dst.wait_for(lambda: dst.workload()["position"] > position)
            migrate(dst, back)
            back.cmd("stop")
            self.assert_workload_correct(back)

    def test_lost_destination_leaves_the_source_running(self):
        with self.pair(*workload("32M", pages_per_second=200000)) as (src, dst):
            src.set_parameters(max_bandwidth=1 << 20)
            start_migration(src, dst)
            src.wait_migration("active")
            dst.kill()
            src.wait_migration("failed")
            self.assertEqual(src.run_state(), "running")
