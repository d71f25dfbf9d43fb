# SPDX-License-Identifier: BSD-2-Clause
"""Where monitors can be, and several of them at once."""

import json
import os
import socket
import subprocess

from harness.qmp import PATIENCE, Qmp, QmpError
from harness.vmm import VMM, VmmTestCase


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Monitors(VmmTestCase):
    def at(self, sock):
        """The monitor behind a connected socket; its own patience."""
        monitor = Qmp(sock)
        self.addCleanup(monitor.close)
        return monitor

    def unix(self, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        return self.at(sock)

    def test_tcp(self):
        port = free_port()
        vmm = self.vmm("-qmp", f"tcp:127.0.0.1:{port},server=on,wait=off")
        monitor = self.at(socket.create_connection(("127.0.0.1", port), PATIENCE))
        monitor.cmd("stop")
        vmm.wait_event("STOP")
        with self.assertRaisesRegex(QmpError, "SCM_RIGHTS"):
            monitor.cmd("getfd", fdname="no")

    def test_client_side(self):
        path = self.folder / "out"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(PATIENCE)
            listener.bind(str(path))
            listener.listen()
            self.vmm("-qmp", f"unix:{path}")
            monitor = self.at(listener.accept()[0])
            self.assertEqual(monitor.cmd("query-status")["status"], "running")

    def test_socket_that_was_inherited(self):
        ours, theirs = socket.socketpair()
        with theirs:
            self.vmm("-chardev", f"socket,id=c,fd={theirs.fileno()}", "-mon",
                     "chardev=c,mode=control", pass_fds=[theirs.fileno()])
        self.assertEqual(self.at(ours).cmd("query-status")["status"], "running")

    def test_chardevs(self):
        paths = [self.folder / name for name in ("control", "pretty", "readline")]
        args = []
        for path, mode in zip(paths, ("control", "control,pretty=on", "readline"), strict=True):
            args += ["-chardev", f"socket,id={path.name},path={path},server=on,wait=off",
                     "-mon", f"chardev={path.name},mode={mode}"]
        self.vmm(*args)
        self.assertTrue(self.unix(paths[0]).cmd("query-status")["running"])
        for path, begin in ((paths[1], b'{\r\n    "QMP": {'), (paths[2], b"Ferry monitor")):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(str(path))
                self.assertEqual(sock.recv(len(begin), socket.MSG_WAITALL), begin)

    def test_standard_input_and_output(self):
        process = subprocess.Popen(
            [str(VMM), "-accel", "qtest", "-machine", "none", "-S", "-qmp", "stdio"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait, PATIENCE)
        self.addCleanup(process.kill)
        self.assertIn("QMP", json.loads(process.stdout.readline()))
        out, _ = process.communicate(b'{"execute": "qmp_capabilities"}{"execute": "query-status"}'
                                     b'{"execute": "quit"}', PATIENCE)
        messages = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(messages[:2], [
            {"return": {}}, {"return": {"running": False, "status": "prelaunch"}}])
        self.assertEqual([message.get("event", "reply") for message in messages[2:]],
                         ["SHUTDOWN", "reply"])
        self.assertEqual(process.returncode, 0)

    def test_each_has_its_own_negotiation_descriptors_and_replies_and_all_have_the_events(self):
        vmm = self.vmm("-qmp", f"unix:{self.folder}/a,server=on,wait=off",
                       "-qmp", f"unix:{self.folder}/b,server=on,wait=off")
        first = self.unix(self.folder / "a")
        silent = socket.socket(socket.AF_UNIX)
        self.addCleanup(silent.close)
        silent.settimeout(PATIENCE)
        silent.connect(f"{self.folder}/b")
        fd = os.open(os.devnull, os.O_RDONLY)
        first.wait_reply(first.send("getfd", fdname="x", fds=[fd]))
        os.close(fd)
        with self.assertRaisesRegex(QmpError, "named 'x' not found"):
            vmm.cmd("closefd", fdname="x")
        first.cmd("closefd", fdname="x")
        vmm.cmd("stop")
        first.wait_event("STOP")
        vmm.wait_event("STOP")
        # One that has not negotiated hears nothing but the greeting and the refusal.
        silent.sendall(b'{"execute": "query-status"}')
        lines = silent.makefile("rb")
        self.assertIn("QMP", json.loads(lines.readline()))
        self.assertEqual(json.loads(lines.readline())["error"]["class"], "CommandNotFound")
