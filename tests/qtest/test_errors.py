# SPDX-License-Identifier: BSD-2-Clause
"""Failures of drivers: said with side, device, step and cause; nothing is left behind."""

from harness.soft import faults, soft
from harness.vmm import VmmTestCase, migrate, start_migration

# call that fails at the source -> words its step is known by
SOURCE_STEPS = {
    "start dma log": "log",
    "arc:running->pre-copy": "pre-copy",
    "read state": "",
    "arc:pre-copy->pre-copy-p2p": "pre-copy-p2p",
    "arc:pre-copy-p2p->stop-copy": "stop-copy",
}
DESTINATION_STEPS = {
    "arc:stop->resuming": "resuming",
    "write state": "",
    "arc:resuming->stop": "validating",
}


class Errors(VmmTestCase):
    def check_words(self, vmm, *words):
        why = vmm.cmd("query-migrate")["error-desc"]
        for word in (*words, "d0", "Input/output error"):
            self.assertIn(word, why)
        self.assertIn(f"failed ({why})", vmm.qmp.hmp("info migrate"))

    def check_source(self, call, **properties):
        with self.pair(soft(**properties), memory="16M") as (src, dst):
            src.set_parameters(avail_switchover_bandwidth=1 << 30)
            faults(src, f"fail={call}:EIO")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("failed")
            src.wait_run_state("running")
            self.check_words(src, SOURCE_STEPS.get(call, ""))
            dst.wait_migration("failed")
            self.assertTrue(dst.cmd("query-migrate")["error-desc"])
            # The device is as before: it can be migrated.
            migrate(src, dst, uri=f"unix:{self.folder}/again")
            self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

    def check_destination(self, call):
        with self.pair(soft(), memory="16M") as (src, dst):
            faults(dst, f"fail={call}:EIO")
            start_migration(src, dst, exit_on_error=False)
            dst.wait_migration("failed")
            self.check_words(dst, DESTINATION_STEPS[call])
            src.wait_migration("failed")
            src.wait_run_state("running")
            self.check_words(src, DESTINATION_STEPS[call], "destination")
            migrate(src, dst, uri=f"unix:{self.folder}/again")
            self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

    def test_stopped_source_that_can_not_be_read_says_so(self):
        self.check_source("read state", x_pre_copy=False)

    def test_first_error_of_a_stop_is_the_reason(self):
        """The prepare pass fails; going back fails, too: the first one counts, the other is told."""
        with self.pair(soft(), memory="16M") as (src, dst):
            faults(src, "fail=arc:pre-copy->pre-copy-p2p:EIO;fail=get state:ENODEV")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("failed")
            why = src.cmd("query-migrate")["error-desc"]
            self.assertIn("Input/output error", why)
            self.assertIn("d0", why)
            src.wait_run_state("running")
            dst.wait_migration("failed")

    def test_device_in_error_is_reset_and_the_vm_lives(self):
        with self.pair(soft(), memory="16M") as (src, dst):
            faults(src, "fail=arc:pre-copy-p2p->stop-copy:EIO+error")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("failed")
            src.wait_run_state("running")
            self.check_words(src)
            dst.wait_migration("failed")
            migrate(src, dst, uri=f"unix:{self.folder}/again")

    def test_device_that_can_not_even_be_reset_blocks_migration(self):
        vmm = self.vmm(soft(), memory="16M")
        faults(vmm, "fail=arc:pre-copy-p2p->stop-copy:EIO+error;fail=reset:EIO")
        vmm.cmd("migrate", uri="exec:cat > /dev/null")
        vmm.wait_migration("failed")
        vmm.wait_run_state("running")
        self.assertIn("broken", vmm.cmd("query-migrate")["blocked-reasons"][0])

    def test_start_that_fails_leaves_the_destination_paused_and_says_so(self):
        with self.pair(soft(), memory="16M") as (src, dst):
            faults(dst, "fail=arc:stop->running-p2p:EIO")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("failed", "completed")
            dst.wait_migration("failed")
            dst.wait_run_state("paused")
            self.check_words(dst)
            self.assertEqual(src.run_state(), "postmigrate")
            dst.cmd("cont")
            self.assertEqual(dst.run_state(), "running")

    def test_nothing_is_left_after_failures_on_either_side(self):
        with self.pair(soft(), memory="16M") as (src, dst):
            before = []
            for number, call in enumerate(("read state", "arc:running->pre-copy",
                                           "arc:pre-copy-p2p->stop-copy", "write state",
                                           "arc:resuming->stop", "read state")):
                at_source = call in SOURCE_STEPS
                faults(src if at_source else dst, f"fail={call}:EIO")
                start_migration(src, dst, uri=f"unix:{self.folder}/try{number}",
                                exit_on_error=False)
                src.wait_migration("failed")
                dst.wait_migration("failed")
                before = before or [src.resources(), dst.resources()]
            for vmm, was in zip((src, dst), before):
                vmm.wait_for(lambda vmm=vmm, was=was: vmm.resources() == was, "same resources")
            migrate(src, dst, uri=f"unix:{self.folder}/good")


def _add_tests():
    def add(check, side, call):
        def test(self):
            getattr(self, check)(call)
        words = call.replace("arc:", "").replace("->", "_to_").replace("-", "_").replace(" ", "_")
        setattr(Errors, f"test_{side}_error_names_device_and_step_of_{words}", test)
    for call in SOURCE_STEPS:
        add("check_source", "source", call)
    for call in DESTINATION_STEPS:
        add("check_destination", "destination", call)


_add_tests()
