# SPDX-License-Identifier: BSD-2-Clause
"""QMP answers while a driver does not return, whatever the call, on either side."""

from harness.soft import hold, pending, release, soft, wait_held
from harness.vmm import VmmTestCase, start_migration

# The calls a migration of a device with everything consists of.
AT_SOURCE = ("start dma log", "arc:running->pre-copy", "get data size", "get precopy info",
             "read state", "report dma log", "arc:pre-copy->pre-copy-p2p",
             "arc:pre-copy-p2p->stop-copy", "stop dma log", "arc:stop-copy->stop")
AT_DESTINATION = ("arc:running->running-p2p", "arc:running-p2p->stop", "arc:stop->resuming",
                  "write state", "arc:resuming->stop", "arc:stop->running-p2p",
                  "arc:running-p2p->running")
# Without pre-copy and P2P the device takes other ways.
AT_SIMPLE_SOURCE = ("arc:running->stop", "arc:stop->stop-copy", "read state", "arc:stop-copy->stop")
AT_SIMPLE_DESTINATION = ("arc:running->stop", "arc:resuming->stop", "arc:stop->running")
SIMPLE = {"x_p2p": False, "x_pre_copy": False}


class Answers(VmmTestCase):
    def check(self, side, call, **properties):
        with self.pair(soft(**properties), memory="16M") as (src, dst):
            held = src if side == "source" else dst
            # Memory of zeros says little about the line; all of the state waits for the pause.
            src.set_parameters(avail_switchover_bandwidth=1 << 30)
            hold(held, call)
            start_migration(src, dst)
            name = wait_held(held, call)
            for vmm in (src, dst):
                self.assertIn("status", vmm.cmd("query-migrate"))
                self.assertIn("VM status", vmm.qmp.hmp("info status"))
            self.assertIn(("d0", name), pending(held))
            self.assertIn("d0", held.qmp.hmp("info migrate"))
            self.assertLess((src.run_state(), dst.run_state()).count("running"), 2)
            release(held)
            src.wait_migration()
            dst.wait_migration()
            src.wait_run_state("postmigrate")
            dst.wait_run_state("running")
            held.wait_for(lambda: not pending(held), "nobody inside the driver")

    def check_quit(self, side, call):
        with self.pair(soft(), memory="16M") as (src, dst):
            held, other = (src, dst) if side == "source" else (dst, src)
            hold(held, call)
            start_migration(src, dst)
            wait_held(held, call)
            self.assertEqual(held.quit(), 0)
            self.assertIn("d0", held.log())
            other.kill()

    def test_quit_works_while_the_source_is_in_an_arc(self):
        self.check_quit("source", "arc:pre-copy-p2p->stop-copy")

    def test_quit_works_while_the_source_reads(self):
        self.check_quit("source", "read state")

    def test_quit_works_while_the_destination_writes(self):
        self.check_quit("destination", "write state")

    def test_quit_works_while_the_destination_validates(self):
        self.check_quit("destination", "arc:resuming->stop")


def _add_tests():
    def add(side, call, kind, properties):
        def test(self):
            self.check(side, call, **properties)
        words = call.replace("arc:", "").replace("->", "_to_").replace("-", "_").replace(" ", "_")
        setattr(Answers, f"test_{kind}{side}_answers_during_{words}", test)
    for calls, side, kind, properties in (
            (AT_SOURCE, "source", "", {}), (AT_DESTINATION, "destination", "", {}),
            (AT_SIMPLE_SOURCE, "source", "simple_", SIMPLE),
            (AT_SIMPLE_DESTINATION, "destination", "simple_", SIMPLE)):
        for call in calls:
            add(side, call, kind, properties)


_add_tests()
