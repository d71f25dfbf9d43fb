# SPDX-License-Identifier: BSD-2-Clause
"""Guest memory before and after, judged by a program that knows nothing of migration."""

import subprocess

from harness.soft import SLOT, faults, hold, soft, start_auto_dma, wait_held
from harness.vmm import MEMCMP, VmmTestCase, migrate, start_migration, workload

LOAD = workload("8M", offset="8M", pages_per_second=20000)


class SeenFromOutside(VmmTestCase):
    """The source has stopped and the destination (-S) has not begun when the files are compared."""

    def frozen_pair(self, *args):
        return self.pair(*args, memory="32M", backed=True, destination=["-S"])

    def check_frozen(self, src, dst):
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "paused"))
        self.assert_same_memory(src, dst)

    def check_with_dma(self, *args, **properties):
        """Migrates while the device writes, and the workload if there is one."""
        with self.frozen_pair(soft(x_dma_rate=20000, **properties), *args) as (src, dst):
            dev = src.test_device(SLOT).setup()
            start_auto_dma(dev)
            before = src.wait_for(lambda: dev.readq(dev.AUTO_PAGES), "DMA")
            hold(src, "read state")
            start_migration(src, dst)
            wait_held(src, "read state")
            src.wait_for(lambda: dev.readq(dev.AUTO_PAGES) > before + 100, "DMA meanwhile")
            # Without a log all memory counts as written, more than what zeros let expect.
            src.set_parameters(avail_switchover_bandwidth=1 << 30)
            faults(src, "release")
            src.wait_migration()
            dst.wait_migration()
            self.check_frozen(src, dst)
            self.assertEqual(dev.readl(dev.AUTO_STATUS), 0)

    def test_memory_of_an_idle_vm_is_identical(self):
        with self.frozen_pair() as (src, dst):
            src.qtest.write(0x200000, bytes(range(256)) * 1024)
            migrate(src, dst)
            self.check_frozen(src, dst)

    def test_memory_is_identical_while_a_workload_writes(self):
        with self.frozen_pair(LOAD) as (src, dst):
            src.wait_for(lambda: src.workload()["position"] > 100)
            migrate(src, dst)
            self.check_frozen(src, dst)
            self.assert_workload_correct(dst)

    def test_memory_is_identical_while_a_device_writes(self):
        self.check_with_dma()

    def test_memory_is_identical_while_both_write(self):
        self.check_with_dma(LOAD)

    def test_memory_is_identical_without_a_dma_log(self):
        self.check_with_dma(x_dirty_tracking=False, enable_migration=True)

    def test_memory_is_identical_when_reports_of_the_log_fail(self):
        self.check_with_dma(x_dirty_tracking="fail-report")

    def test_memory_is_identical_when_only_the_stopped_device_is_asked(self):
        self.check_with_dma(x_pre_copy_dirty_page_tracking=False)

    def test_memory_is_identical_without_the_devices_own_log(self):
        self.check_with_dma(x_device_dirty_page_tracking=False, enable_migration=True)

    def test_a_lost_page_is_found(self):
        with self.frozen_pair(soft(x_dirty_tracking="lose-page")) as (src, dst):
            dev = src.test_device(SLOT).setup()
            start_auto_dma(dev, first=0x100000, size=0x10000)
            src.set_parameters(avail_switchover_bandwidth=1)
            start_migration(src, dst)
            src.wait_migration("active")
            # All was sent before anybody looked for changes a second time.
            src.wait_for(lambda: src.cmd("query-migrate")["ram"]["dirty-sync-count"] > 1, "a pass")
            dev.writel(dev.AUTO_NOW, 16)
            src.set_parameters(avail_switchover_bandwidth=1 << 30)
            src.wait_migration()
            dst.wait_migration()
            done = subprocess.run([MEMCMP, src.memory_path, dst.memory_path],
                                  capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
