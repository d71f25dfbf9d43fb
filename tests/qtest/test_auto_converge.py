# SPDX-License-Identifier: BSD-2-Clause
"""A guest that dirties memory faster than it can be sent is slowed down until it can be."""

from harness.qmp import QmpError
from harness.vmm import VmmTestCase, start_migration, workload

# Ten times what the line takes; at 5 % of its speed half of that.
BUSY = workload("16M", pages_per_second=20000)
LINE = 8 << 20


class AutoConverge(VmmTestCase):
    def begin(self, src, dst, **parameters):
        src.set_capabilities("auto-converge")
        src.set_parameters(max_bandwidth=LINE, avail_switchover_bandwidth=LINE, **parameters)
        start_migration(src, dst)

    def throttle(self, vmm):
        return vmm.cmd("query-migrate").get("cpu-throttle-percentage")

    def test_busy_guest_arrives_and_has_its_speed_back(self):
        with self.pair(*BUSY, backed=True) as (src, dst):
            self.begin(src, dst, cpu_throttle_initial=95)
            src.wait_for(lambda: self.throttle(src) == 95, "the guest sleeps")
            self.assertIn("cpu throttle percentage: 95", src.qmp.hmp("info migrate"))
            src.wait_migration("completed")
            self.assertIsNone(self.throttle(src))
            dst.wait_run_state("running")
            dst.cmd("stop")
            self.assert_workload_correct(dst)

    def test_cancelled_guest_has_its_speed_back(self):
        with self.pair(*BUSY) as (src, dst):
            self.begin(src, dst, cpu_throttle_initial=99)
            src.wait_for(lambda: self.throttle(src) == 99, "the guest sleeps")
            src.cmd("migrate_cancel")
            src.wait_migration("cancelled")
            self.assertIsNone(self.throttle(src))
            # At 1 % of its speed this would take three minutes.
            here = src.workload()["position"]
            src.wait_for(lambda: src.workload()["position"] > here + 40000)
            dst.kill()

    def test_ceiling_below_the_first_step_is_refused(self):
        vmm = self.vmm()
        for values in ({"max-cpu-throttle": 10}, {"cpu-throttle-initial": 99, "max-cpu-throttle": 98}):
            with self.assertRaises(QmpError) as refused:
                vmm.cmd("migrate-set-parameters", values)
            self.assertIn("max_cpu_throttle", str(refused.exception))
        shown = vmm.cmd("query-migrate-parameters")
        self.assertEqual((shown["cpu-throttle-initial"], shown["max-cpu-throttle"]), (20, 99))
        vmm.cmd("migrate-set-parameters", {"cpu-throttle-tailslow": True})
        self.assertIs(vmm.cmd("query-migrate-parameters")["cpu-throttle-tailslow"], True)
