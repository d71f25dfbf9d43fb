# SPDX-License-Identifier: BSD-2-Clause
"""One side hangs (SIGSTOP) while its sockets stay open: the other one notices by its silence."""

from harness.soft import hold, release, soft, wait_held, wait_states
from harness.vmm import VmmTestCase, migrate, start_migration, workload

LOAD = workload("8M", pages_per_second=2000)


class Frozen(VmmTestCase):
    def busy_pair(self, *args):
        """In pre-copy, which does not end: memory changes faster than it may be sent."""
        src, dst = self.enterContext(self.pair(LOAD, *args, memory="32M"))
        self.before = [src.resources(), dst.resources()]
        src.set_parameters(max_bandwidth=1 << 16, avail_switchover_bandwidth=1)
        return src, dst

    def begin(self, src, dst):
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("active")
        dst.wait_migration("active")

    def check_silent(self, vmm, other):
        """Gives up the other side after a second; its monitor answers meanwhile."""
        self.assertEqual(vmm.migration_status(), "active")
        vmm.set_parameters(x_peer_timeout=1000)
        vmm.wait_migration("failed")
        why = vmm.cmd("query-migrate")["error-desc"]
        self.assertIn(f"{other} has been silent for 1000 ms (x-peer-timeout)", why)

    def check_another_migration(self, src, dst):
        for vmm, before in zip((src, dst), self.before):
            vmm.wait_resources(before)
            vmm.set_parameters(x_peer_timeout=60000)
        src.set_parameters(max_bandwidth=0, avail_switchover_bandwidth=1 << 30)
        migrate(src, dst, uri=f"unix:{self.folder}/again")
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

    def check_destination_freezes(self, src, dst):
        self.begin(src, dst)
        with dst.frozen():
            self.check_silent(src, "the destination")
            self.assertEqual(src.run_state(), "running")
            self.assertNotIn("STOP", src.events())
            position = src.workload()["position"]
            src.wait_for(lambda: src.workload()["position"] > position, "a VM that runs")
        dst.wait_migration("failed")
        self.assertEqual(dst.run_state(), "inmigrate")
        self.assertTrue(dst.cmd("query-migrate")["error-desc"])
        self.check_another_migration(src, dst)

    def test_source_with_a_device_gives_up_a_destination_that_freezes(self):
        self.check_destination_freezes(*self.busy_pair(soft()))

    def test_source_with_return_path_gives_up_a_destination_that_freezes(self):
        src, dst = self.busy_pair()
        src.set_capabilities("return-path")
        self.check_destination_freezes(src, dst)

    def test_source_without_return_path_gives_up_a_destination_that_does_not_read(self):
        src, dst = self.busy_pair()
        src.set_parameters(max_bandwidth=0)  # what it sends fills the socket
        self.check_destination_freezes(src, dst)

    def test_source_gives_up_a_destination_that_freezes_before_its_consent(self):
        """switchover-ack never comes: nothing is to be sent any more, and the answer is awaited."""
        src, dst = self.enterContext(self.pair(
            LOAD, soft(x_state_size="4k"), memory="32M"))
        self.before = [src.resources(), dst.resources()]
        for vmm in (src, dst):
            vmm.set_capabilities("return-path", "switchover-ack")
        hold(dst, "write state")
        start_migration(src, dst, exit_on_error=False)
        wait_held(dst, "write state")
        with dst.frozen():
            self.check_silent(src, "the destination")
            self.assertEqual(src.run_state(), "running")
        self.assertEqual(dst.migration_status(), "active")  # still inside its driver
        release(dst)
        dst.wait_migration("failed")
        self.assertEqual(dst.run_state(), "inmigrate")
        self.check_another_migration(src, dst)

    def test_source_takes_the_vm_back_from_a_destination_that_freezes_in_the_pause(self):
        with self.pair(soft(migration_events=True), memory="16M") as (src, dst):
            hold(dst, "arc:resuming->stop")
            start_migration(src, dst, exit_on_error=False)
            wait_held(dst, "arc:resuming->stop")
            src.wait_migration("device")
            with dst.frozen():
                src.set_parameters(x_peer_timeout=1000)
                src.wait_migration("failed")
                self.assertIn("the destination has been silent",
                              src.cmd("query-migrate")["error-desc"])
                src.wait_run_state("running")
                wait_states(src, "running")
            release(dst)
            # It has everything, and can't know what the source does: a person decides.
            dst.wait_migration("failed")
            dst.wait_run_state("paused")
            self.assertIn("cont", dst.cmd("query-migrate")["error-desc"])
            self.assertEqual(src.run_state(), "running")
            wait_states(dst, "stop")

    def test_destination_gives_up_a_source_that_freezes(self):
        src, dst = self.busy_pair(soft())
        self.begin(src, dst)
        with src.frozen():
            self.check_silent(dst, "the source")
            self.assertEqual(dst.run_state(), "inmigrate")
        src.wait_migration("failed")
        self.assertEqual(src.run_state(), "running")
        self.assertIn("destination", src.cmd("query-migrate")["error-desc"])
        self.check_another_migration(src, dst)
