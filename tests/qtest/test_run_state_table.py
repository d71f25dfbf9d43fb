# SPDX-License-Identifier: BSD-2-Clause
"""The tables of docs/devel/run-state.rst, a test for each row and command: a VM is brought into the
row and held there, the command is sent, and its reply, before and after the release, is what stands
there. Row numbers are those of the page."""

import contextlib
from dataclasses import dataclass, field
from typing import Callable, Optional

from harness.qmp import Qmp, QmpError
from harness.soft import hold, release, soft, wait_held
from harness.vmm import VmmTestCase, start_migration

NOT_FINAL = "Migration is not finalized yet"
WAITING = "Guest is waiting for an incoming migration"
MIGRATING = "device_del not allowed while migrating"
CHANGES = {"STOP", "RESUME", "RESET"}
# d0 is what is held; d1 is what device_del is about.
DEVICES = (*soft(x_state_size="256k"), *soft(slot=4, id="d1", x_state_size="64k"))


@dataclass
class Point:
    """A VM in one row."""
    vmm: object
    peer: object = None
    release: Callable = lambda: None  # what holds it there ends
    waiting: list = field(default_factory=list)  # requests sent before, (monitor, id)


# What a command does. `state`: the run state afterwards, if it is certain.

@dataclass
class Now:
    """Replies while the row lasts."""
    state: Optional[str] = None
    event: Optional[str] = None
    then: Optional[str] = None  # the run state after the release
    status: Optional[str] = None  # of the migration, while the row lasts


@dataclass
class Later:
    """Replies when what holds the row is over."""
    state: Optional[str] = None
    refused: Optional[str] = None
    event: Optional[str] = None


@dataclass
class Refused:
    """At once."""
    text: str


@dataclass
class Cancels:
    """Replies at once; then the migration ends as cancelled, and the VM is in this state."""
    state: str


NO_EFFECT = Now()
COMMANDS = {"stop": {}, "cont": {}, "migrate_cancel": {}, "system_reset": {},
            "device_del": {"id": "d1"}}


class RunStateTable(VmmTestCase):
    # Bringing VMs there.

    def monitors(self, name):
        return [word for kind in ("first", "second")
                for word in ("-qmp", f"unix:{self.folder}/{name}.{kind},server=on,wait=off")]

    def monitor(self, vmm, kind):
        monitor = Qmp.connect(f"{self.folder}/{vmm.name}.{kind}")
        self.addCleanup(monitor.close)
        return monitor

    def single(self, *args):
        vmm = self.vmm(*DEVICES, *self.monitors("one"), *args, name="one", memory="16M")
        return Point(vmm)

    def both(self, *args, destination=()):
        src, dst = self.enterContext(self.pair(
            *DEVICES, *args, memory="16M", source=self.monitors("src"),
            destination=[*self.monitors("dst"), *destination]))
        src.set_parameters(avail_switchover_bandwidth=1 << 30)
        return src, dst

    def send_first(self, point, command, call):
        """This command has begun and is held."""
        hold(point.vmm, call)
        monitor = self.monitor(point.vmm, "first")
        point.waiting.append((monitor, monitor.send(command)))
        wait_held(point.vmm, call)
        point.release = lambda: release(point.vmm)
        return point

    def slow_pair(self, *args):
        """In pre-copy, which takes long."""
        src, dst = self.both(*args)
        src.qtest.memset(0, 8 << 20, 0x5A)
        src.set_parameters(max_bandwidth=1 << 17, avail_switchover_bandwidth=1)
        return src, dst

    def active(self):
        src, dst = self.slow_pair()
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("active")
        src.wait_for(lambda: src.cmd("query-migrate")["ram"]["normal"] > 0, "pages")
        return Point(src, dst)

    # Source, and a VM that does not migrate.

    def row_1_running(self):
        return self.single()

    def row_2_being_paused(self):
        return self.send_first(self.single(), "stop", "arc:running-p2p->stop")

    def row_3_paused(self):
        point = self.single()
        point.vmm.cmd("stop")
        return point

    def row_3_prelaunch(self):
        return self.single("-S")

    def row_4_being_continued(self):
        return self.send_first(self.row_3_paused(), "cont", "arc:stop->running-p2p")

    def row_5_setup(self):
        src, dst = self.slow_pair()
        hold(src, "arc:running->pre-copy")
        start_migration(src, dst, exit_on_error=False)
        wait_held(src, "arc:running->pre-copy")
        return Point(src, dst, lambda: release(src))

    def row_6_active(self):
        return self.active()

    def row_7_being_paused_while_active(self):
        return self.send_first(self.active(), "stop", "arc:pre-copy-p2p->stop-copy")

    def row_8_paused_while_active(self):
        point = self.active()
        point.vmm.cmd("stop")
        return point

    def row_9_being_continued_while_active(self):
        return self.send_first(self.row_8_paused_while_active(), "cont", "arc:stop->running-p2p")

    def row_10_being_stopped_for_switchover(self):
        src, dst = self.both()
        hold(src, "arc:pre-copy-p2p->stop-copy")
        start_migration(src, dst, exit_on_error=False)
        wait_held(src, "arc:pre-copy-p2p->stop-copy")
        return Point(src, dst, lambda: release(src))

    def row_11_pre_switchover(self):
        src, dst = self.both()
        src.set_capabilities("pause-before-switchover")
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("pre-switchover")
        return Point(src, dst)

    def row_12_destination_validates(self):
        src, dst = self.both()
        hold(dst, "arc:resuming->stop")
        start_migration(src, dst, exit_on_error=False)
        wait_held(dst, "arc:resuming->stop")
        src.wait_migration("device")
        return Point(src, dst, lambda: release(dst))

    def row_13_after_go(self):
        src, dst = self.both()
        hold(dst, "arc:stop->running-p2p")
        start_migration(src, dst, exit_on_error=False)
        wait_held(dst, "arc:stop->running-p2p")
        src.wait_migration("device")
        return Point(src, dst, lambda: release(dst))

    def row_13_closing_its_session(self):
        src, dst = self.both()
        hold(src, "arc:stop-copy->stop")
        start_migration(src, dst)
        wait_held(src, "arc:stop-copy->stop")
        dst.wait_run_state("running")
        return Point(src, dst, lambda: release(src))

    def row_14_being_taken_back(self):
        point = self.row_12_destination_validates()
        src, dst = point.vmm, point.peer
        hold(src, "arc:stop->running-p2p")
        src.cmd("migrate_cancel")
        release(dst)
        wait_held(src, "arc:stop->running-p2p")
        point.release = lambda: release(src)
        return point

    def row_15_cancelling(self):
        point = self.active()
        hold(point.vmm, "arc:pre-copy->running")
        point.vmm.cmd("migrate_cancel")
        wait_held(point.vmm, "arc:pre-copy->running")
        point.release = lambda: release(point.vmm)
        return point

    def row_16_given_away(self):
        src, dst = self.both()
        start_migration(src, dst)
        src.wait_migration()
        src.wait_run_state("postmigrate")
        return Point(src, dst)

    def row_17_peer_lost_after_go(self):
        point = self.row_13_after_go()
        point.peer.kill()
        point.vmm.wait_migration("failed")
        point.vmm.wait_run_state("postmigrate")
        point.release = lambda: None
        return point

    # Destination.

    def row_20_waiting(self):
        src, dst = self.both()
        return Point(dst, src)

    def destination_held(self, call, *args):
        src, dst = self.both(destination=args)
        hold(dst, call)
        start_migration(src, dst, exit_on_error=False)
        wait_held(dst, call)
        return Point(dst, src, lambda: release(dst))

    def row_21_entering_resuming(self):
        return self.destination_held("arc:stop->resuming")

    def row_22_loading(self):
        return self.destination_held("write state")

    def row_23_validating(self):
        return self.destination_held("arc:resuming->stop")

    def row_24_go_awaited(self):
        point = self.row_23_validating()
        frozen = contextlib.ExitStack()
        self.addCleanup(frozen.close)
        frozen.enter_context(point.peer.frozen())
        release(point.vmm)

        def validated():
            steps = point.vmm.cmd("query-migrate").get("x-timeline", [])
            return any(span["step"] == "validate" for span in steps)
        point.vmm.wait_for(validated, "validated")
        point.release = frozen.close
        return point

    def row_25_being_started(self):
        return self.destination_held("arc:stop->running-p2p")

    def row_26_arrived(self):
        point = self.row_16_given_away()
        point.peer.wait_migration()  # it runs, and gives the VM away, before it is done
        return Point(point.peer, point.vmm)

    def row_26_arrived_paused(self):
        src, dst = self.both()
        src.cmd("stop")
        start_migration(src, dst)
        dst.wait_migration()
        dst.wait_run_state("paused")
        return Point(dst, src)

    def row_27_failed(self):
        point = self.row_22_loading()
        point.peer.cmd("migrate_cancel")
        point.release()
        point.vmm.wait_migration("failed")
        point.release = lambda: None
        return point

    # Judging.

    def answered(self, vmm, monitor, request):
        """Whether there is a reply by now; the VM's loop has been around since the request."""
        vmm.cmd("query-status")
        vmm.cmd("query-migrate")
        with contextlib.suppress(TimeoutError):
            monitor.wait_reply(request, patience=0.02)
            return True
        return False

    def changes(self, vmm):
        return [name for name in vmm.events() if name in CHANGES]

    def check_now(self, point, monitor, request, expected):
        monitor.wait_reply(request)
        vmm = point.vmm
        if expected.state:
            self.assertEqual(vmm.run_state(), expected.state)
        else:
            self.assertEqual(vmm.run_state(), self.before)
        if expected.event:
            vmm.wait_event(expected.event)
        else:
            self.assertEqual(self.changes(vmm), [])
        if expected.status:
            self.assertEqual(vmm.migration_status(), expected.status)
        point.release()
        if expected.then:
            vmm.wait_run_state(expected.then)

    def check_later(self, point, monitor, request, expected):
        vmm = point.vmm
        self.assertFalse(self.answered(vmm, monitor, request), "it did not wait")
        point.release()
        try:
            monitor.wait_reply(request)
            self.assertIsNone(expected.refused, "not refused")
        except QmpError as refused:
            self.assertEqual(refused.desc, expected.refused)
        if expected.state:
            vmm.wait_run_state(expected.state)
        if expected.event:
            vmm.wait_event(expected.event)

    def check_refused(self, point, monitor, request, expected):
        with self.assertRaises(QmpError) as refused:
            monitor.wait_reply(request)
        self.assertEqual(refused.exception.desc, expected.text)
        self.assertEqual(point.vmm.run_state(), self.before)
        self.assertEqual(self.changes(point.vmm), [])
        point.release()

    def check_cancels(self, point, monitor, request, expected):
        monitor.wait_reply(request)
        self.assertIn(point.vmm.migration_status(), ("cancelling", "cancelled"))
        point.release()
        point.vmm.wait_migration("cancelled")
        point.vmm.wait_run_state(expected.state)

    def check(self, row, command, expected):
        point = getattr(self, row)()
        vmm = point.vmm
        monitor = self.monitor(vmm, "second")
        self.before = vmm.run_state()
        vmm.qmp.events.clear()
        request = monitor.send(command, COMMANDS[command])
        judge = {Now: self.check_now, Later: self.check_later, Refused: self.check_refused,
                 Cancels: self.check_cancels}[type(expected)]
        judge(point, monitor, request, expected)
        for first, earlier in point.waiting:
            first.wait_reply(earlier)

    def check_quit(self, row):
        """Acts at once, whatever is going on, and leaves nobody waiting."""
        point = getattr(self, row)()
        vmm = point.vmm
        monitor = self.monitor(vmm, "second")
        monitor.send("quit")
        self.assertEqual(vmm.wait_exit(), 0)
        monitor.wait_closed()
        self.assertIn("SHUTDOWN", [event["event"] for event in monitor.events])
        if point.peer is not None:
            point.peer.kill()


    def test_commands_behind_an_arc_go_in_the_order_of_their_arrival(self):
        point = self.row_2_being_paused()
        monitor = self.monitor(point.vmm, "second")
        requests = [monitor.send(command) for command in ("cont", "stop", "system_reset", "cont")]
        self.assertFalse(self.answered(point.vmm, monitor, requests[0]))
        point.release()
        for request in requests:
            monitor.wait_reply(request)
        point.vmm.wait_run_state("running")
        self.assertEqual(self.changes(point.vmm), ["STOP", "RESUME", "STOP", "RESET", "RESUME"])


RESET = {"event": "RESET"}
IDLE_COLUMNS = {"migrate_cancel": NO_EFFECT}
RUNNING = {"stop": Now("paused", "STOP"), "cont": NO_EFFECT, **IDLE_COLUMNS,
           "system_reset": Now("running", **RESET), "device_del": Now(event="DEVICE_DELETED")}
PAUSED = {"stop": NO_EFFECT, "cont": Now("running", "RESUME"), **IDLE_COLUMNS,
          "system_reset": Now("prelaunch", **RESET), "device_del": Now(event="DEVICE_DELETED")}
SWITCHOVER = {"stop": NO_EFFECT, "cont": Refused(NOT_FINAL), "migrate_cancel": Cancels("running"),
              "system_reset": Refused(NOT_FINAL), "device_del": Refused(MIGRATING)}
LOADING = {"stop": Now(then="paused"), "cont": Now(then="running"), **IDLE_COLUMNS,
           "system_reset": Refused(WAITING), "device_del": Refused(MIGRATING)}
GIVEN_AWAY = {"stop": NO_EFFECT, "cont": Now("running", "RESUME"), **IDLE_COLUMNS,
              "system_reset": Now("prelaunch", **RESET),
              "device_del": Now(event="DEVICE_DELETED")}

TABLE = {
    "row_1_running": RUNNING,
    "row_2_being_paused": {
        "stop": Later("paused"), "cont": Later("running"), **IDLE_COLUMNS,
        "system_reset": Later("prelaunch", **RESET),
        "device_del": Now(event="DEVICE_DELETED", then="paused")},
    "row_3_paused": PAUSED,
    "row_3_prelaunch": PAUSED,
    "row_4_being_continued": {
        "stop": Later("paused"), "cont": Later("running"), **IDLE_COLUMNS,
        "system_reset": Later("running", **RESET),
        "device_del": Now(event="DEVICE_DELETED", then="running")},
    "row_5_setup": {
        "stop": Later("paused"), "cont": NO_EFFECT, "migrate_cancel": Cancels("running"),
        "system_reset": Later("running", **RESET), "device_del": Refused(MIGRATING)},
    "row_6_active": {
        "stop": Now("paused", "STOP", status="active"), "cont": NO_EFFECT,
        "migrate_cancel": Cancels("running"),
        "system_reset": Now("running", **RESET, status="active"),
        "device_del": Refused(MIGRATING)},
    "row_7_being_paused_while_active": {
        "stop": Later("paused"), "cont": Later("running"), "migrate_cancel": Cancels("paused"),
        "system_reset": Later("prelaunch", **RESET), "device_del": Refused(MIGRATING)},
    "row_8_paused_while_active": {
        "stop": NO_EFFECT, "cont": Now("running", "RESUME", status="active"),
        "migrate_cancel": Cancels("paused"),
        "system_reset": Now("prelaunch", **RESET, status="active"),
        "device_del": Refused(MIGRATING)},
    "row_9_being_continued_while_active": {
        "stop": Later("paused"), "cont": Later("running"), "migrate_cancel": Cancels("running"),
        "system_reset": Later("running", **RESET), "device_del": Refused(MIGRATING)},
    "row_10_being_stopped_for_switchover": {
        "stop": Later(), "cont": Later(refused=NOT_FINAL), "migrate_cancel": Cancels("running"),
        "system_reset": Later(refused=NOT_FINAL), "device_del": Refused(MIGRATING)},
    "row_11_pre_switchover": SWITCHOVER,
    "row_12_destination_validates": SWITCHOVER,
    "row_13_after_go": {**SWITCHOVER, "migrate_cancel": Now(then="postmigrate")},
    "row_13_closing_its_session": {**SWITCHOVER, "migrate_cancel": Now(then="postmigrate")},
    "row_14_being_taken_back": {
        "stop": Later("paused"), "cont": Later("running"), **IDLE_COLUMNS,
        "system_reset": Later("running", **RESET), "device_del": Refused(MIGRATING)},
    "row_15_cancelling": {
        "stop": Later("paused"), "cont": NO_EFFECT, **IDLE_COLUMNS,
        "system_reset": Later("running", **RESET), "device_del": Refused(MIGRATING)},
    "row_16_given_away": GIVEN_AWAY,
    "row_17_peer_lost_after_go": GIVEN_AWAY,
    "row_20_waiting": {
        "stop": NO_EFFECT, "cont": NO_EFFECT, **IDLE_COLUMNS,
        "system_reset": Now("inmigrate", **RESET), "device_del": Now(event="DEVICE_DELETED")},
    "row_21_entering_resuming": LOADING,
    "row_22_loading": LOADING,
    "row_23_validating": LOADING,
    "row_24_go_awaited": LOADING,
    "row_25_being_started": {
        "stop": Later("paused"), "cont": Later("running"), **IDLE_COLUMNS,
        "system_reset": Later("running", **RESET), "device_del": Refused(MIGRATING)},
    "row_26_arrived": RUNNING,
    "row_26_arrived_paused": PAUSED,
    "row_27_failed": {
        "stop": NO_EFFECT, "cont": NO_EFFECT, **IDLE_COLUMNS,
        "system_reset": Now("inmigrate", **RESET), "device_del": Now(event="DEVICE_DELETED")},
}


def _add_tests():
    def add(row, command, expected):
        def test(self):
            self.check(row, command, expected)
        setattr(RunStateTable, f"test_{row}_{command}", test)

    def add_quit(row):
        def test(self):
            self.check_quit(row)
        setattr(RunStateTable, f"test_{row}_quit", test)
    for row, columns in TABLE.items():
        for command, expected in columns.items():
            add(row, command, expected)
        add_quit(row)


_add_tests()
