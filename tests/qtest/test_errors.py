# SPDX-License-Identifier: BSD-2-Clause
"""Failures of drivers: said with side, device, step and cause; nothing is left behind."""

from harness.soft import faults, hold, release, soft, wait_held, wait_states
from harness.vmm import VmmTestCase, migrate, start_migration

CAUSE = "Input/output error"
# call that fails -> how its step is named; the cause repeats the name of the call, not these words
SOURCE_STEPS = {
    "start dma log": "starting the log of its writes",
    "arc:running->pre-copy": "changing from running to pre-copy",
    "read state": "reading its state in stop-copy",  # memory of zeros: all is read in the pause
    "arc:pre-copy->pre-copy-p2p": "changing from pre-copy to pre-copy-p2p",
    "arc:pre-copy-p2p->stop-copy": "changing from pre-copy-p2p to stop-copy",
}
DESTINATION_STEPS = {
    "arc:running->running-p2p": "changing from running to resuming",
    "arc:running-p2p->stop": "changing from running to resuming",
    "arc:stop->resuming": "changing from running to resuming",
    "write state": "writing its state",
    "arc:resuming->stop": "changing from resuming to stop",
}
START_STEPS = {
    "arc:stop->running-p2p": "changing from stop to running-p2p",
    "arc:running-p2p->running": "changing from running-p2p to running",
}


class Errors(VmmTestCase):
    def check_words(self, vmm, *words):
        why = vmm.cmd("query-migrate")["error-desc"]
        for word in (*words, "device d0", CAUSE):
            self.assertIn(word, why)
        self.assertIn(f"failed ({why})", vmm.qmp.hmp("info migrate"))

    def check_source(self, call, words=None, bandwidth=1 << 30, **properties):
        with self.pair(soft(migration_events=True, **properties), memory="16M") as (src, dst):
            src.set_parameters(avail_switchover_bandwidth=bandwidth)
            faults(src, f"fail={call}:EIO")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("failed")
            src.wait_run_state("running")
            wait_states(src, "running")
            self.check_words(src, "source: ", words or SOURCE_STEPS[call])
            self.assertNotIn("destination", src.cmd("query-migrate")["error-desc"])
            dst.wait_migration("failed")
            self.assertTrue(dst.cmd("query-migrate")["error-desc"])
            # The device is as before: it can be migrated.
            migrate(src, dst, uri=f"unix:{self.folder}/again")
            self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

    def check_destination(self, call):
        with self.pair(soft(migration_events=True), memory="16M") as (src, dst):
            faults(dst, f"fail={call}:EIO")
            start_migration(src, dst, exit_on_error=False)
            dst.wait_migration("failed")
            self.check_words(dst, "destination: ", DESTINATION_STEPS[call])
            self.assertEqual(dst.run_state(), "inmigrate")
            wait_states(dst, "stop")
            src.wait_migration("failed")
            src.wait_run_state("running")
            wait_states(src, "running")
            self.check_words(src, DESTINATION_STEPS[call], "the destination failed: ")
            migrate(src, dst, uri=f"unix:{self.folder}/again")
            self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

    def check_start(self, call):
        """Handed over, but it does not start: stopped on both sides, and a person decides."""
        with self.pair(soft(migration_events=True), memory="16M") as (src, dst):
            faults(dst, f"fail={call}:EIO")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("failed")
            dst.wait_migration("failed")
            dst.wait_run_state("paused")
            self.assertEqual(src.run_state(), "postmigrate")
            self.check_words(dst, "starting the VM", START_STEPS[call], "cont")
            self.check_words(src, "the destination could not start it", START_STEPS[call], "cont")
            # What to do is said once, by each side in its own words.
            self.assertEqual(src.cmd("query-migrate")["error-desc"].count("'cont'"), 1)
            for vmm in (src, dst):
                wait_states(vmm, "stop")
            dst.cmd("cont")
            self.assertEqual(dst.run_state(), "running")
            wait_states(dst, "running")

    def test_stopped_source_that_can_not_be_read_says_so(self):
        self.check_source("read state", x_pre_copy=False)

    def test_source_that_can_not_be_read_in_pre_copy_says_so(self):
        self.check_source("read state", "reading its state in pre-copy, after 0 bytes",
                          bandwidth=1 << 20)

    def test_first_error_of_a_stop_is_the_reason(self):
        """The prepare pass fails; going back fails, too: the first one counts, the other is told."""
        with self.pair(soft(migration_events=True), memory="16M") as (src, dst):
            faults(src, "fail=arc:pre-copy->pre-copy-p2p:EIO;fail=get state:ENODEV")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("failed")
            src.wait_run_state("running")
            self.check_words(src, SOURCE_STEPS["arc:pre-copy->pre-copy-p2p"],
                             "asking the driver for its state", "No such device")
            why = src.cmd("query-migrate")["error-desc"]
            self.assertLess(why.index(CAUSE), why.index("No such device"))
            dst.wait_migration("failed")

    def test_device_in_error_is_reset_and_the_vm_lives(self):
        with self.pair(soft(migration_events=True), memory="16M") as (src, dst):
            faults(src, "fail=arc:pre-copy-p2p->stop-copy:EIO+error")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("failed")
            src.wait_run_state("running")
            self.check_words(src, SOURCE_STEPS["arc:pre-copy-p2p->stop-copy"],
                             "the device was reset")
            wait_states(src, "running")
            dst.wait_migration("failed")
            migrate(src, dst, uri=f"unix:{self.folder}/again")

    def test_device_that_can_not_even_be_reset_blocks_migration(self):
        vmm = self.vmm(soft(), memory="16M")
        faults(vmm, "fail=arc:pre-copy-p2p->stop-copy:EIO+error;fail=reset:EIO")
        vmm.cmd("migrate", uri="exec:cat > /dev/null")
        vmm.wait_migration("failed")
        vmm.wait_run_state("running")
        self.check_words(vmm, SOURCE_STEPS["arc:pre-copy-p2p->stop-copy"], "resetting the device",
                         "reset or unplug it")
        (reason,) = vmm.cmd("query-migrate")["blocked-reasons"]
        self.assertIn("d0", reason)
        self.assertIn("broken", reason)

    def test_way_back_that_fails_twice_is_told_and_the_vm_goes_on(self):
        with self.pair(soft(migration_events=True), memory="16M") as (src, dst):
            hold(src, "read state")
            start_migration(src, dst, exit_on_error=False)
            wait_held(src, "read state")
            way_back = "arc:pre-copy->running"
            faults(src, f"fail={way_back}#1:EIO;fail={way_back}#2:EBUSY")
            src.cmd("migrate_cancel")
            release(src)
            src.wait_migration("cancelled")
            src.wait_run_state("running")
            dst.wait_migration("failed")
            words = ("after the migration: device d0: changing from pre-copy to running:", CAUSE,
                     "at the second try", "Device or resource busy")
            src.wait_for(lambda: all(word in src.log() for word in words), "the reason in the log")
            # Begun anew: a session that was given up is worth nothing.
            migrate(src, dst, uri=f"unix:{self.folder}/again")
            self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

    def test_nothing_is_left_after_failures_on_either_side(self):
        with self.pair(soft(migration_events=True), memory="16M") as (src, dst):
            before = [src.resources(), dst.resources()]
            # Once loaded, its device does not run any more.
            calls = [call for call in (*SOURCE_STEPS, *DESTINATION_STEPS)
                     if call in SOURCE_STEPS or not call.startswith("arc:running")]
            for number, call in enumerate(calls):
                faults(src if call in SOURCE_STEPS else dst, f"fail={call}:EIO")
                start_migration(src, dst, uri=f"unix:{self.folder}/try{number}",
                                exit_on_error=False)
                src.wait_migration("failed")
                dst.wait_migration("failed")
                with self.subTest(call=call):
                    src.wait_resources(before[0])
                    dst.wait_resources(before[1])
            migrate(src, dst, uri=f"unix:{self.folder}/good")
            src.wait_resources(before[0])
            dst.wait_resources(before[1])


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
    for call in START_STEPS:
        add("check_start", "start", call)


_add_tests()
