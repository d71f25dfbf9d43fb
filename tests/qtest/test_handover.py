# SPDX-License-Identifier: BSD-2-Clause
"""One side dies (kill -9) somewhere in the hand-over: never two VMs run, never is one lost unsaid."""

from harness.soft import hold, release, soft, wait_held
from harness.vmm import VmmTestCase, start_migration


class HandOver(VmmTestCase):
    def halted_pair(self, side, call, **properties):
        """Both sides, with one of them held inside `call`."""
        stack = self.pair(soft(**properties), memory="16M")
        src, dst = self.enterContext(stack)
        self.before = {vmm: vmm.resources() for vmm in (src, dst)}
        src.set_parameters(avail_switchover_bandwidth=1 << 30)
        self.begin(src, dst, src if side == "source" else dst, call)
        return src, dst

    def begin(self, src, dst, held, call):
        hold(held, call)
        start_migration(src, dst, exit_on_error=False)
        wait_held(held, call)
        self.assertLess((src.run_state(), dst.run_state()).count("running"), 2)

    def check_source_goes_on(self, src):
        src.wait_migration("failed")
        src.wait_run_state("running")
        self.assertIn("destination", src.cmd("query-migrate")["error-desc"])
        src.wait_resources(self.before[src])

    def check_destination_gave_up(self, dst):
        dst.wait_migration("failed")
        self.assertEqual(dst.run_state(), "inmigrate")
        self.assertTrue(dst.cmd("query-migrate")["error-desc"])
        dst.wait_resources(self.before[dst])

    def check_kept_paused(self, dst):
        """The VM is complete there and nobody knows who has it: a person decides."""
        dst.wait_migration("failed")
        dst.wait_run_state("paused")
        self.assertIn("cont", dst.cmd("query-migrate")["error-desc"])
        dst.cmd("cont")
        self.assertEqual(dst.run_state(), "running")
        dst.wait_resources(self.before[dst])

    # The destination dies before GO: the source takes its VM back.

    def check_destination_dies_before_go(self, side, call, **properties):
        src, dst = self.halted_pair(side, call, **properties)
        dst.kill()
        if side == "source":
            release(src)
        self.check_source_goes_on(src)

    def test_destination_dies_while_the_source_opens_the_device(self):
        self.check_destination_dies_before_go("source", "arc:running->pre-copy")

    def test_destination_dies_while_the_source_reads_in_pre_copy(self):
        self.check_destination_dies_before_go("source", "read state")

    def test_destination_dies_while_the_source_quiesces(self):
        self.check_destination_dies_before_go("source", "arc:pre-copy->pre-copy-p2p")

    def test_destination_dies_while_the_source_stops(self):
        self.check_destination_dies_before_go("source", "arc:pre-copy-p2p->stop-copy")

    def test_destination_dies_while_the_stopped_source_reads(self):
        self.check_destination_dies_before_go("source", "read state", x_pre_copy=False)

    def test_destination_dies_while_it_writes(self):
        self.check_destination_dies_before_go("destination", "write state")

    def test_destination_dies_while_it_validates(self):
        self.check_destination_dies_before_go("destination", "arc:resuming->stop")

    # The source dies before READY: the destination has nothing whole.

    def check_source_dies_before_ready(self, side, call, **properties):
        src, dst = self.halted_pair(side, call, **properties)
        src.kill()
        if side == "destination":
            release(dst)
        self.check_destination_gave_up(dst)

    def test_source_dies_in_pre_copy(self):
        self.check_source_dies_before_ready("source", "read state")

    def test_source_dies_while_it_stops(self):
        self.check_source_dies_before_ready("source", "arc:pre-copy-p2p->stop-copy")

    def test_stopped_source_dies_while_it_reads(self):
        self.check_source_dies_before_ready("source", "read state", x_pre_copy=False)

    # The destination holds everything, but no GO has come.

    def test_source_dies_while_the_destination_validates(self):
        src, dst = self.halted_pair("destination", "arc:resuming->stop")
        src.kill()
        release(dst)
        self.check_kept_paused(dst)

    def wait_ready_sent(self, dst):
        """The destination waits for GO, which the frozen source can't send."""
        def waits():
            steps = dst.cmd("query-migrate").get("x-timeline", [])
            return any(span["step"] == "validate" for span in steps)
        dst.wait_for(waits, "validated")

    def test_source_dies_between_ready_and_go(self):
        src, dst = self.halted_pair("destination", "arc:resuming->stop")
        with src.frozen():
            release(dst)
            self.wait_ready_sent(dst)
            self.assertEqual(dst.run_state(), "inmigrate")
            src.kill()
        self.check_kept_paused(dst)

    def test_source_that_wakes_before_the_destination_gives_up_completes(self):
        src, dst = self.halted_pair("destination", "arc:resuming->stop")
        with src.frozen():
            release(dst)
            self.wait_ready_sent(dst)
        src.wait_migration()
        dst.wait_migration()
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

    def test_source_that_wakes_after_the_destination_gave_up_does_not_run_beside_it(self):
        with self.pair(soft(), memory="16M") as (src, dst):
            dst.set_parameters(x_peer_timeout=1000)
            self.begin(src, dst, dst, "arc:resuming->stop")
            with src.frozen():
                release(dst)
                dst.wait_run_state("paused")
            src.wait_migration("failed")
            src.wait_run_state("running", "postmigrate")
            self.assertEqual(dst.run_state(), "paused")
            self.assertIn("cont", dst.cmd("query-migrate")["error-desc"])
            if src.run_state() == "postmigrate":
                self.assertIn("cont", src.cmd("query-migrate")["error-desc"])

    # After GO the destination is the owner.

    def check_source_dies_after_go(self, call):
        src, dst = self.halted_pair("destination", call)
        src.kill()
        release(dst)
        dst.wait_run_state("running")
        dst.wait_migration("completed")
        dst.wait_resources(self.before[dst])

    def test_source_dies_while_the_destination_begins_to_start(self):
        self.check_source_dies_after_go("arc:stop->running-p2p")

    def test_source_dies_while_the_destination_starts(self):
        self.check_source_dies_after_go("arc:running-p2p->running")

    def test_source_dies_while_it_closes_the_device(self):
        src, dst = self.halted_pair("source", "arc:stop-copy->stop")
        src.kill()
        dst.wait_migration()
        self.assertEqual(dst.run_state(), "running")

    def check_destination_dies_after_go(self, call):
        src, dst = self.halted_pair("destination", call)
        dst.kill()
        src.wait_migration("failed")
        src.wait_run_state("postmigrate")
        self.assertIn("cont", src.cmd("query-migrate")["error-desc"])
        src.cmd("cont")
        self.assertEqual(src.run_state(), "running")
        src.wait_resources(self.before[src])

    def test_destination_dies_while_it_begins_to_start(self):
        self.check_destination_dies_after_go("arc:stop->running-p2p")

    def test_destination_dies_while_it_starts(self):
        self.check_destination_dies_after_go("arc:running-p2p->running")

    def test_destination_dies_while_the_source_closes_the_device(self):
        src, dst = self.halted_pair("source", "arc:stop-copy->stop")
        dst.wait_migration()
        dst.kill()
        release(src)
        src.wait_migration()
        src.wait_run_state("postmigrate")
