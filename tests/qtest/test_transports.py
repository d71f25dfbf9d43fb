# SPDX-License-Identifier: BSD-2-Clause
"""Ways a stream travels, what the monitor says meanwhile, and cancelling at any point."""

import os
import socket
import unittest

from harness.soft import SLOT, hold, release, soft, wait_held
from harness.vmm import VmmTestCase, migrate, start_migration


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


class Transports(VmmTestCase):
    def filled_pair(self):
        src, dst = self.enterContext(self.pair(soft(), memory="16M", backed=True,
                                               destination=["-S"]))
        src.qtest.write(0x100000, os.urandom(1 << 20))
        src.test_device(SLOT).setup().fill(0x55)
        return src, dst

    def check_arrived(self, src, dst):
        src.wait_migration()
        dst.wait_migration()
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "paused"))
        self.assert_same_memory(src, dst)
        dev = dst.test_device(SLOT)
        moved = src.test_device(SLOT)
        for number in (dev, moved):
            number.bars = {0: (0xE0000000 + (SLOT << 20), 0x4000)}
        self.assertEqual(dev.digest(), moved.digest())

    def check_tcp(self, host):
        src, dst = self.filled_pair()
        dst.cmd("migrate-incoming", uri=f"tcp:{host}:0")
        (address,) = dst.cmd("query-migrate")["socket-address"]
        src.cmd("migrate", uri=f"tcp:{host}:{address['port']}")
        self.check_arrived(src, dst)

    def test_unix(self):
        src, dst = self.filled_pair()
        start_migration(src, dst)
        self.check_arrived(src, dst)

    def test_tcp_v4(self):
        self.check_tcp("127.0.0.1")

    @unittest.skipUnless(has_ipv6(), "the host has no ::1")
    def test_tcp_v6(self):
        self.check_tcp("[::1]")

    def check_fds(self, at_source, at_destination):
        src, dst = self.filled_pair()
        for vmm, fd in ((src, at_source), (dst, at_destination)):
            vmm.qmp.wait_reply(vmm.qmp.send("getfd", fdname="mig", fds=[fd]))
            os.close(fd)
        start_migration(src, dst, uri="fd:mig")
        self.check_arrived(src, dst)

    def test_socketpair_by_fd(self):
        ends = socket.socketpair()
        self.check_fds(ends[0].detach(), ends[1].detach())

    def test_pipe_by_fd(self):
        reading, writing = os.pipe()
        self.check_fds(writing, reading)

    def check_stored(self, save_uri, load_uri):
        src, dst = self.filled_pair()
        src.cmd("migrate", uri=save_uri)
        src.wait_migration()
        dst.cmd("migrate-incoming", uri=load_uri)
        self.check_arrived(src, dst)

    def test_exec(self):
        path = self.folder / "stream"
        self.check_stored(f"exec:cat > {path}", f"exec:cat {path}")

    def test_file(self):
        path = self.folder / "stream"
        self.check_stored(f"file:{path}", f"file:{path}")

    def test_file_with_offset(self):
        path = self.folder / "stream"
        self.check_stored(f"file:{path},offset=4k", f"file:{path},offset=0x1000")

    def test_zeros_do_not_keep_a_device_without_pre_copy_waiting(self):
        """What is found quickly to be nothing says nothing about the line."""
        with self.pair(soft(x_pre_copy=False, x_state_size="8M"), memory="64M") as (src, dst):
            migrate(src, dst)

    def test_return_path_without_devices(self):
        with self.pair(memory="16M") as (src, dst):
            src.set_capabilities("return-path")
            migrate(src, dst)


class Events(VmmTestCase):
    def events(self, vmm):
        """In order, of both kinds that matter; a status instead of MIGRATION."""
        vmm.cmd("query-status")
        return [event["data"]["status"] if event["event"] == "MIGRATION" else event["event"]
                for event in vmm.qmp.events if event["event"] in ("MIGRATION", "STOP", "RESUME")]

    def loud_pair(self, *capabilities, **properties):
        pair = self.enterContext(self.pair(soft(**properties), memory="16M"))
        for vmm in pair:
            vmm.set_capabilities("events", *capabilities)
        return pair

    def test_events_come_in_order(self):
        src, dst = self.loud_pair()
        migrate(src, dst)
        self.assertEqual(self.events(src), ["setup", "active", "STOP", "device", "completed"])
        self.assertEqual(self.events(dst), ["setup", "active", "RESUME", "completed"])

    def test_stopped_vm_has_no_stop_and_no_resume(self):
        src, dst = self.loud_pair()
        src.cmd("stop")
        src.wait_event("STOP")
        migrate(src, dst)
        self.assertEqual(self.events(src), ["setup", "active", "device", "completed"])
        self.assertEqual(self.events(dst), ["setup", "active", "completed"])

    def test_pause_before_switchover_waits_for_continue(self):
        src, dst = self.loud_pair("pause-before-switchover")
        start_migration(src, dst)
        src.wait_migration("pre-switchover")
        self.assertEqual((src.run_state(), dst.run_state()), ("finish-migrate", "inmigrate"))
        src.cmd("migrate-continue", state="pre-switchover")
        src.wait_migration()
        dst.wait_migration()
        self.assertEqual(self.events(src), ["setup", "active", "STOP", "pre-switchover", "device",
                                            "completed"])

    def test_switchover_ack_waits_for_both_devices(self):
        with self.pair(soft(), soft(slot=4, id="d1"), memory="16M") as (src, dst):
            for vmm in (src, dst):
                vmm.set_capabilities("return-path", "switchover-ack")
            hold(dst, "write state", "d1")
            start_migration(src, dst)
            wait_held(dst, "write state", "d1")
            self.assertEqual(src.run_state(), "running")
            release(dst, "d1")
            src.wait_migration()
            dst.wait_migration()

    def test_device_states_are_told_when_wanted(self):
        src, dst = self.loud_pair(migration_events=True)
        migrate(src, dst)

        def states(vmm):
            vmm.cmd("query-status")
            return [event["data"]["device-state"] for event in vmm.qmp.events
                    if event["event"] == "VFIO_MIGRATION"]
        src.wait_for(lambda: "stop" in states(src), "the last state")
        self.assertEqual(states(src), ["pre-copy", "pre-copy-p2p", "stop-copy", "stop"])
        self.assertEqual([s for s in states(dst) if s != "stop"],
                         ["resuming", "running-p2p", "running"])

    def test_device_states_are_not_told_by_default(self):
        src, dst = self.loud_pair()
        migrate(src, dst)
        for vmm in (src, dst):
            self.assertNotIn("VFIO_MIGRATION", vmm.events())

    # Of the four kinds of devices, by the trace: what the source and the destination go through.

    def check_states(self, at_source, at_destination, **properties):
        trace = {side: self.folder / f"{side}.trace" for side in ("src", "dst")}

        def option(side):
            return ["-trace", f"vfio_migration_state_changed,file={trace[side]}"]
        with self.pair(soft(**properties), memory="16M", source=[option("src")],
                       destination=[option("dst")]) as (src, dst):
            src.set_parameters(avail_switchover_bandwidth=1 << 30)
            migrate(src, dst)

            def states(side):
                return [line.split()[-1] for line in trace[side].read_text().splitlines()]
            src.wait_for(lambda: states("src") == at_source.split(), f"{at_source} of the source")
            dst.wait_for(lambda: states("dst") == at_destination.split(),
                         f"{at_destination} of the destination")

    def test_states_with_pre_copy_and_p2p(self):
        self.check_states("pre-copy pre-copy-p2p stop-copy stop",
                          "resuming stop running-p2p running")

    def test_states_with_pre_copy_only(self):
        self.check_states("pre-copy stop-copy stop", "resuming stop running", x_p2p=False)

    def test_states_with_p2p_only(self):
        self.check_states("running-p2p stop stop-copy stop", "resuming stop running-p2p running",
                          x_pre_copy=False)

    def test_states_with_neither(self):
        self.check_states("stop stop-copy stop", "resuming stop running", x_p2p=False,
                          x_pre_copy=False)

    def test_bytes_of_devices_are_counted(self):
        with self.pair(soft(x_state_size="2M"), memory="16M") as (src, dst):
            info, there = migrate(src, dst)
            self.assertEqual(info["vfio"]["transferred"], info["vfio"]["devices"][0]["sent"])
            self.assertEqual(info["vfio"]["transferred"], there["vfio"]["devices"][0]["loaded"])
            self.assertGreater(info["vfio"]["transferred"], 2 << 20)


class Cancel(VmmTestCase):
    def check(self, src, dst, held, *events):
        """Cancels; `held`: whether the device is in a call that has to come back first."""
        src.cmd("migrate_cancel")
        if held:
            self.assertIn(src.migration_status(), ("cancelling", "cancelled"))
            release(src)
        src.wait_migration("cancelled")
        src.wait_run_state("running")
        dst.wait_migration("failed")
        for event in events:
            src.wait_event(event)
        # Everything is as before.
        migrate(src, dst, uri=f"unix:{self.folder}/again")
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

    def held_pair(self, call, **properties):
        src, dst = self.enterContext(self.pair(soft(**properties), memory="16M"))
        hold(src, call)
        start_migration(src, dst, exit_on_error=False)
        wait_held(src, call)
        return src, dst

    def test_in_setup(self):
        src, dst = self.held_pair("arc:running->pre-copy")
        self.assertEqual(src.migration_status(), "setup")
        self.check(src, dst, True)

    def test_in_pre_copy(self):
        src, dst = self.held_pair("read state")
        self.assertEqual(src.migration_status(), "active")
        self.check(src, dst, True)

    def test_while_the_vm_is_stopped(self):
        self.check(*self.held_pair("arc:pre-copy-p2p->stop-copy"), True)

    def test_before_switchover(self):
        with self.pair(soft(), memory="16M") as (src, dst):
            src.set_capabilities("pause-before-switchover")
            start_migration(src, dst, exit_on_error=False)
            src.wait_migration("pre-switchover")
            src.cmd("migrate_cancel")
            src.wait_migration("cancelled")
            src.wait_event("RESUME")
            self.assertEqual(src.run_state(), "running")

    def test_while_the_stopped_device_is_read(self):
        src, dst = self.held_pair("read state", x_pre_copy=False)
        self.assertEqual(src.migration_status(), "device")
        self.check(src, dst, True, "STOP", "RESUME")

    def test_while_the_destination_validates(self):
        with self.pair(soft(), memory="16M") as (src, dst):
            hold(dst, "arc:resuming->stop")
            start_migration(src, dst, exit_on_error=False)
            wait_held(dst, "arc:resuming->stop")
            src.cmd("migrate_cancel")
            src.wait_migration("cancelled")
            src.wait_run_state("running")
            release(dst)
            dst.wait_migration("failed")
            self.assertNotEqual(dst.run_state(), "running")
