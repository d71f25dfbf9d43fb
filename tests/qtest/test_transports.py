# SPDX-License-Identifier: BSD-2-Clause
"""Ways a stream travels, what the monitor says meanwhile, and cancelling at any point."""

import json
import os
import socket
import sys
import unittest

from harness.peer import HEARTBEAT, SWITCHOVER_ACK, Proxy
from harness.qmp import QmpError
from harness.soft import SLOT, hold, release, soft, wait_held, wait_states
from harness.vmm import VmmTestCase, migrate, start_migration

INIT_DATA_SENT = "record 0xffffffffef100005"


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


def hand_over(vmm, command, fd, **arguments):
    """A descriptor to the monitor; closed here."""
    answer = vmm.qmp.wait_reply(vmm.qmp.send(command, fds=[fd], **arguments))
    os.close(fd)
    return answer


class EveryTransport:
    """What must hold however the stream travels, and whether the VM runs or not."""

    STOPPED = False

    def filled_pair(self):
        src, dst = self.enterContext(self.pair(soft(), memory="16M", backed=True,
                                               destination=["-S"]))
        src.qtest.write(0x100000, os.urandom(1 << 20))
        src.test_device(SLOT).setup().fill(0x55)
        if self.STOPPED:
            src.cmd("stop")
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

    def test_regular_file_by_fd(self):
        """Beginning where the descriptor stands."""
        path = self.folder / "stream"
        path.write_bytes(b"before" * 100)
        src, dst = self.filled_pair()
        for vmm, flags in ((src, os.O_WRONLY), (dst, os.O_RDONLY)):
            fd = os.open(path, flags)
            os.lseek(fd, 600, os.SEEK_SET)
            hand_over(vmm, "getfd", fd, fdname="mig")
            if vmm is src:
                src.cmd("migrate", uri="fd:mig")
                src.wait_migration()
        self.assertEqual(path.read_bytes()[:604], b"before" * 100 + b"QEVM")
        dst.cmd("migrate-incoming", uri="fd:mig")
        self.check_arrived(src, dst)
        with self.assertRaises(QmpError):  # it went with the migration
            src.cmd("closefd", fdname="mig")

    def test_file_in_a_set_of_descriptors(self):
        path = self.folder / "stream"
        src, dst = self.filled_pair()
        for vmm, flags in ((src, os.O_WRONLY | os.O_CREAT), (dst, os.O_RDONLY)):
            added = hand_over(vmm, "add-fd", os.open(path, flags), fdset_id=7)
            self.assertEqual(added["fdset-id"], 7)
            if vmm is src:
                src.cmd("migrate", uri="file:/dev/fdset/7,offset=4096")
                src.wait_migration()
        self.assertEqual(path.read_bytes()[4096:4100], b"QEVM")
        dst.cmd("migrate-incoming", uri="file:/dev/fdset/7,offset=4096")
        self.check_arrived(src, dst)
        for vmm in (src, dst):
            vmm.cmd("remove-fd", fdset_id=7)
            self.assertEqual(vmm.cmd("query-fdsets"), [])

    def test_exec(self):
        path = self.folder / "stream"
        self.check_stored(f"exec:cat > {path}", f"exec:cat {path}")

    def test_file(self):
        path = self.folder / "stream"
        self.check_stored(f"file:{path}", f"file:{path}")

    def test_file_with_offset(self):
        path = self.folder / "stream"
        self.check_stored(f"file:{path},offset=4k", f"file:{path},offset=0x1000")


class TransportsOfARunningVm(EveryTransport, VmmTestCase):
    pass


class TransportsOfAStoppedVm(EveryTransport, VmmTestCase):
    STOPPED = True


class Transports(VmmTestCase):
    def test_unix_abstract(self):
        """A name that is no file; it is gone with its listener."""
        for number, tight in enumerate(({}, {"tight": False})):
            src, dst = self.enterContext(self.pair(memory="16M"))
            address = {"transport": "socket", "type": "unix", "abstract": True,
                       "path": f"{self.folder}/name{number}", **tight}
            channels = [{"channel-type": "main", "addr": address}]
            dst.cmd("migrate-incoming", channels=channels)
            (listening,) = dst.cmd("query-migrate")["socket-address"]
            self.assertEqual({"transport": "socket", **listening}, {"tight": True, **address})
            self.assertFalse((self.folder / f"name{number}").exists())
            src.cmd("migrate", channels=channels)
            src.wait_migration()
            dst.wait_migration()

    def test_incoming_channels_on_the_command_line(self):
        channel = {"channel-type": "main", "addr": {"transport": "socket", "type": "unix"}}
        for number, text in enumerate((
                json.dumps(channel | {"addr": channel["addr"] | {"path": f"{self.folder}/ch0"}}),
                f"main,addr.transport=socket,addr.type=unix,addr.path={self.folder}/ch1")):
            src, dst = self.enterContext(self.pair(memory="16M", incoming=text))
            src.cmd("migrate", uri=f"unix:{self.folder}/ch{number}")
            src.wait_migration()
            dst.wait_migration()

    def test_set_without_a_writable_member_can_not_be_saved_to(self):
        path = self.folder / "stream"
        path.write_bytes(b"precious")
        vmm = self.vmm(memory="16M")
        hand_over(vmm, "add-fd", os.open(path, os.O_RDONLY), fdset_id=1)
        with self.assertRaises(QmpError) as refused:
            vmm.cmd("migrate", uri="file:/dev/fdset/1")
        self.assertIn("matching flags", refused.exception.desc)
        self.assertEqual((vmm.migration_status(), vmm.run_state()), ("failed", "running"))
        self.assertEqual(path.read_bytes(), b"precious")

    def test_command_that_fails_when_it_has_everything_brings_no_second_vm(self):
        """As ssh does when the connection breaks at the very end."""
        src, dst = self.vmm(name="src"), self.vmm("-incoming", f"unix:{self.folder}/in", name="dst")
        relay = (f"import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('{self.folder}/in'); "
                 "s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR); s.recv(1); sys.exit(3)")
        src.cmd("migrate", uri=f'exec:{sys.executable} -c "{relay}"')
        dst.wait_migration()
        src.wait_migration("failed")
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))
        why = src.cmd("query-migrate")["error-desc"]
        self.assertIn("status 3", why)
        self.assertIn("'cont'", why)

    def test_zeros_do_not_keep_a_device_without_pre_copy_waiting(self):
        """What is found quickly to be nothing says nothing about the line."""
        with self.pair(soft(x_pre_copy=False, x_state_size="8M"), memory="64M") as (src, dst):
            migrate(src, dst)

    def test_idle_vm_does_not_make_the_line_look_slow(self):
        """Nothing is sent for many rounds; then there is time for the device's state."""
        trace = self.folder / "trace"
        with self.pair(soft(x_pre_copy=False, x_state_size="8M"), memory="16M",
                       source=["-trace", f"vfio_state_pending_exact,file={trace}"]) as (src, dst):
            src.set_parameters(avail_switchover_bandwidth=1)
            start_migration(src, dst)
            src.wait_for(lambda: trace.read_text().count("exact") > 100, "rounds")
            src.set_parameters(avail_switchover_bandwidth=0)
            src.wait_migration()
            dst.wait_migration()

    def test_return_path_without_devices(self):
        with self.pair(memory="16M") as (src, dst):
            src.set_capabilities("return-path")
            migrate(src, dst)


ONE, OTHER = (f"{digit * 8}-0000-4000-8000-{digit * 12}" for digit in "1a")


class Uuid(VmmTestCase):
    """validate-uuid: a destination that has a UUID takes no VM with another one."""

    def uuid_pair(self, at_source, at_destination, capability=True):
        pair = self.enterContext(self.pair(
            memory="16M", source=["-uuid", at_source] if at_source else [],
            destination=["-uuid", at_destination] if at_destination else []))
        pair[0].set_capabilities("validate-uuid", state=capability)
        return pair

    def test_other_uuid_is_refused_with_both(self):
        src, dst = self.uuid_pair(ONE, OTHER)
        start_migration(src, dst, exit_on_error=False)
        for vmm in (src, dst):
            vmm.wait_migration("failed")
        why = dst.cmd("query-migrate")["error-desc"]
        self.assertIn(ONE, why)
        self.assertIn(OTHER, why)
        self.assertEqual(dst.run_state(), "inmigrate")
        src.wait_run_state("running")
        self.assertTrue(src.cmd("query-migrate")["error-desc"])

    def test_other_uuid_does_not_matter_without_the_capability(self):
        migrate(*self.uuid_pair(ONE, OTHER, capability=False))

    def test_same_uuid_arrives(self):
        src, dst = self.uuid_pair(OTHER, OTHER.upper())
        migrate(src, dst)
        self.assertEqual(dst.cmd("query-uuid")["UUID"].lower(), OTHER)

    def test_uuid_at_one_side_only_has_nothing_to_differ_from(self):
        for at_source, at_destination in ((ONE, None), (None, ONE)):
            with self.subTest(source=at_source):
                migrate(*self.uuid_pair(at_source, at_destination))


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

    def test_switchover_ack_comes_after_the_second_of_two_markers(self):
        """Three devices, one without pre-copy: nothing is to be waited for from that one."""
        trace = {side: self.folder / f"{side}.trace" for side in ("src", "dst")}
        src, dst = self.enterContext(self.pair(
            soft(x_state_size="4k"), soft(slot=4, id="d1", x_state_size="128k"),
            soft(slot=5, id="d2", x_pre_copy=False, x_state_size="4k"), memory="16M",
            source=["-trace", f"vfio_s*,file={trace['src']}"],
            destination=["-trace", f"vfio_load_state,file={trace['dst']}"]))

        def devices(side, words):
            """Names, in order, of the lines with these words."""
            return [line.split("(")[1].split(")")[0]
                    for line in trace[side].read_text().splitlines() if words in line]
        for vmm in (src, dst):
            vmm.set_capabilities("return-path", "switchover-ack")
        src.set_parameters(avail_switchover_bandwidth=1 << 30)  # nothing else stands in the way
        hold(dst, "write state", "d1")
        dst.cmd("migrate-incoming", uri=f"unix:{self.folder}/in")
        with Proxy(self.folder, f"{self.folder}/in") as proxy:
            src.cmd("migrate", uri=proxy.uri)
            wait_held(dst, "write state", "d1")
            dst.wait_for(lambda: devices("dst", INIT_DATA_SENT) == ["d0"], "the first marker")
            # The source has sent both, and asks again and again whether it may stop the VM.
            src.wait_for(lambda: devices("src", "init_data_sent") == ["d0", "d1"], "both markers")
            asked = devices("src", "pending_exact").count("d2")
            src.wait_for(lambda: devices("src", "pending_exact").count("d2") > asked + 1, "rounds")
            # Whatever the destination says comes in order.
            beats = proxy.messages().count(HEARTBEAT)
            dst.wait_for(lambda: proxy.messages().count(HEARTBEAT) > beats, "a heartbeat")
            self.assertNotIn(SWITCHOVER_ACK, proxy.messages())
            self.assertEqual((src.migration_status(), src.run_state()), ("active", "running"))
            self.assertEqual(devices("src", "complete_precopy"), [])
            release(dst, "d1")
            src.wait_migration()
            dst.wait_migration()
            self.assertEqual(devices("dst", INIT_DATA_SENT), ["d0", "d1"])
            self.assertEqual(proxy.messages().count(SWITCHOVER_ACK), 1)
            self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))

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

    def test_sections_are_traced_on_both_sides(self):
        trace = {side: self.folder / f"{side}.trace" for side in ("src", "dst")}

        def option(side):
            return ["-trace", f"savevm_section_begin,file={trace[side]}"]
        with self.pair(soft(), memory="16M", source=[option("src")],
                       destination=[option("dst")]) as (src, dst):
            migrate(src, dst)
            sent, loaded = ([line.split(" ", 2)[2] for line in trace[side].read_text().splitlines()]
                            for side in ("src", "dst"))
        self.assertEqual(sent, loaded)
        self.assertEqual(sent[0], "ram (id 1) start")
        self.assertRegex(sent[1], r"^0000:00:03\.0/vfio \(id \d+\) start$")

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
    """In each phase, with two devices, the second of which is inside a call at that moment."""

    def begin(self, **properties):
        self.trace = self.folder / "src.trace"
        self.src, self.dst = self.enterContext(self.pair(
            soft(migration_events=True, **properties),
            soft(slot=4, id="d1", migration_events=True, **properties), memory="16M",
            source=["-trace", f"migration_handover,file={self.trace}"]))
        self.before = [self.src.resources(), self.dst.resources()]
        self.held = None

    def held_pair(self, side, call, **properties):
        self.begin(**properties)
        self.hold(self.src if side == "source" else self.dst, call)

    def hold(self, vmm, call):
        """Begins to migrate, until this side is in that call."""
        self.held = vmm
        hold(vmm, call, "d1")
        start_migration(self.src, self.dst, exit_on_error=False)
        wait_held(vmm, call, "d1")

    def check(self, *events, at_destination="stop"):
        """Cancels; then everything is as before, and the next migration succeeds. What began to be
        loaded is reset; at_destination: the state of those devices."""
        src, dst = self.src, self.dst
        src.cmd("migrate_cancel")
        if self.held is src:
            # What the device does must be known before it can be undone.
            self.assertEqual(src.migration_status(), "cancelling")
            release(src, "d1")
        src.wait_migration("cancelled")
        src.wait_run_state("running")
        for event in events:
            src.wait_event(event)
        wait_states(src, "running", "d0", "d1")
        if self.held is dst:
            release(dst, "d1")
        dst.wait_migration("failed")
        self.assertEqual(dst.run_state(), "inmigrate")
        wait_states(dst, at_destination, "d0", "d1")
        self.check_nothing_left()
        src.set_capabilities("pause-before-switchover", state=False)
        migrate(src, dst, uri=f"unix:{self.folder}/again")
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "running"))
        wait_states(src, "stop", "d0", "d1")
        wait_states(dst, "running", "d0", "d1")
        self.check_nothing_left()

    def check_nothing_left(self):
        for vmm, before in zip((self.src, self.dst), self.before):
            vmm.wait_resources(before)

    def test_in_setup(self):
        self.held_pair("source", "arc:running->pre-copy")
        self.assertEqual(self.src.migration_status(), "setup")
        self.check(at_destination="running")  # nothing has come: they are as they were opened

    def test_in_pre_copy(self):
        self.held_pair("source", "read state")
        self.assertEqual(self.src.migration_status(), "active")
        self.check()

    def test_while_the_devices_are_quiesced(self):
        self.held_pair("source", "arc:pre-copy->pre-copy-p2p")
        self.assertEqual(self.src.run_state(), "running")
        self.check()

    def test_while_the_vm_is_stopped(self):
        self.held_pair("source", "arc:pre-copy-p2p->stop-copy")
        self.check()

    def test_before_switchover(self):
        self.begin()
        self.src.set_capabilities("pause-before-switchover")
        start_migration(self.src, self.dst, exit_on_error=False)
        self.src.wait_migration("pre-switchover")
        self.check("STOP", "RESUME")

    def test_while_the_stopped_device_is_read(self):
        self.held_pair("source", "read state", x_pre_copy=False)
        self.assertEqual(self.src.migration_status(), "device")
        self.check("STOP", "RESUME")

    def test_while_the_destination_loads_in_pre_copy(self):
        self.begin()
        for vmm in (self.src, self.dst):
            vmm.set_capabilities("return-path", "switchover-ack")  # else the VM may be stopped
        self.hold(self.dst, "write state")
        self.assertEqual((self.src.migration_status(), self.src.run_state()), ("active", "running"))
        self.check()

    def test_while_the_destination_loads_in_the_pause(self):
        # More than the socket holds: the source is inside a write.
        self.held_pair("destination", "write state", x_pre_copy=False, x_state_size="4M")
        self.src.wait_migration("device")
        self.check("STOP", "RESUME")

    def wait_all_sent(self):
        self.src.wait_for(lambda: "awaiting READY" in self.trace.read_text(), "all sent")

    def test_while_the_destination_loads_what_was_sent_last(self):
        self.held_pair("destination", "write state", x_pre_copy=False, x_state_size="4k")
        self.wait_all_sent()
        self.check("STOP", "RESUME")

    def test_while_the_destination_validates(self):
        """It has a complete VM then, and is told that the source keeps its own."""
        self.held_pair("destination", "arc:resuming->stop")
        self.wait_all_sent()
        self.assertEqual(self.src.migration_status(), "device")
        self.check("STOP", "RESUME")
        self.assertIn("ABORT", self.trace.read_text())
