# SPDX-License-Identifier: BSD-2-Clause
"""A person at a terminal: editing, history and completion of lines (HMP on stdio and sockets)."""

import os
import pty
import select
import socket
import subprocess
import time
import unittest

from harness.qmp import PATIENCE, Qmp
from harness.vmm import VMM, VmmTestCase

PROMPT = "(qemu) "
UP, LEFT, ERASE = "\x1b[A", "\x1b[D", "\x7f"


class Terminal:
    def __init__(self, case, *args):
        controller, user = pty.openpty()
        environment = {**os.environ, "TERM": "vt100"}
        self.process = subprocess.Popen(
            [str(VMM), "-accel", "qtest", "-machine", "none", "-S", "-nodefaults", "-display",
             "none", "-monitor", "stdio", *args],
            stdin=user, stdout=user, stderr=user, env=environment, start_new_session=True)
        os.close(user)
        self.fd = controller
        self.shown = ""
        case.addCleanup(self.close)
        self.wait(PROMPT)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self.fd)

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self, text):
        """What was shown up to `text`, which must come."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown:
            readable, _, _ = select.select([self.fd], [], [], max(0, deadline - time.monotonic()))
            if not readable:
                raise TimeoutError(f"{text!r} is not shown, but {self.shown!r}")
            self.shown += os.read(self.fd, 4096).decode(errors="replace")
        before, _, self.shown = self.shown.partition(text)
        return before


class AtTheTerminal(VmmTestCase):
    def test_a_line_is_answered(self):
        terminal = Terminal(self)
        terminal.type("info status\r")
        terminal.wait("VM status: paused (prelaunch)")
        terminal.wait(PROMPT)

    def test_a_line_can_be_edited(self):
        terminal = Terminal(self)
        terminal.type("infx" + ERASE + "o statsu" + LEFT + ERASE + "\x1b[C" + "s\r")
        terminal.wait("VM status: paused (prelaunch)")

    def test_history_comes_back(self):
        terminal = Terminal(self)
        terminal.type("info name\r")
        terminal.wait(PROMPT)
        terminal.type("info status\r")
        terminal.wait("prelaunch")
        terminal.wait(PROMPT)
        terminal.type(UP + "\r")
        terminal.wait("prelaunch")

    def test_words_are_completed(self):
        terminal = Terminal(self)
        terminal.type("info stat\t\r")
        terminal.wait("VM status: paused (prelaunch)")
        terminal.wait(PROMPT)
        terminal.type("migrate_set_cap\tpause-b\ton\r")
        terminal.wait(PROMPT)
        terminal.type("info migrate_capabilities\r")
        terminal.wait("pause-before-switchover: on")

    def test_what_is_not_unique_is_listed(self):
        terminal = Terminal(self)
        terminal.type("migrate_set_\t")
        terminal.wait("migrate_set_capability")
        terminal.wait("migrate_set_parameter")
        terminal.type("p\tdowntime\t77\r")
        terminal.wait(PROMPT)
        terminal.type("info migrate_parameters\r")
        terminal.wait("downtime-limit: 77 ms")

    def test_quit_ends_it_in_order(self):
        terminal = Terminal(self)
        terminal.type("quit\r")
        self.assertEqual(terminal.process.wait(PATIENCE), 0)

    def test_signals_end_it_while_it_waits_for_a_line(self):
        terminal = Terminal(self)
        terminal.process.terminate()
        self.assertEqual(terminal.process.wait(PATIENCE), 0)

    def test_a_terminal_that_goes_away_does_not_end_the_vm(self):
        path = f"{self.folder}/q"
        terminal = Terminal(self, "-qmp", f"unix:{path},server=on,wait=off")
        os.close(terminal.fd)
        terminal.fd = os.open(os.devnull, os.O_RDONLY)
        qmp = Qmp.connect(path)
        self.addCleanup(qmp.close)
        self.assertEqual(qmp.cmd("query-status")["status"], "prelaunch")


class OverASocket(VmmTestCase):
    """The same through a socket, where the process echoes and edits."""

    def connect(self):
        path = f"{self.folder}/m"
        vmm = self.vmm("-S", "-monitor", f"unix:{path},server=on,wait=off")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        sock.settimeout(PATIENCE)
        sock.connect(path)
        self.shown = b""
        self.wait(sock, PROMPT)
        return vmm, sock

    def wait(self, sock, text):
        """What was sent up to `text`, which must come."""
        text = text.encode()
        while text not in self.shown:
            more = sock.recv(4096)
            self.assertTrue(more, f"closed behind {self.shown!r}")
            self.shown += more
        before, _, self.shown = self.shown.partition(text)
        return before.decode()

    def test_what_is_typed_is_echoed_and_answered(self):
        _, sock = self.connect()
        sock.sendall(b"info name\n")
        self.assertEqual(
            self.wait(sock, "\r\n" + PROMPT).split("\x1b[D")[-1], "info name\x1b[K\r\nvm0")

    def test_a_line_can_be_edited_completed_and_recalled(self):
        _, sock = self.connect()
        sock.sendall(b"warp" + b"\x7f" * 4 + b"info stat\t\r")
        self.wait(sock, "\r\nVM status: paused (prelaunch)\r\n" + PROMPT)
        sock.sendall(UP.encode() + b"\r")
        self.wait(sock, "\r\nVM status: paused (prelaunch)\r\n" + PROMPT)
        sock.sendall(b"migrate_set_\t")
        self.wait(sock, "\r\nmigrate_set_capability  migrate_set_parameter   \r\n" + PROMPT)
        self.wait(sock, "migrate_set_")
        sock.sendall(b"cap\tpause-b\ton\n")
        self.wait(sock, PROMPT)
        sock.sendall(b"info migrate_capabilities\n")
        self.wait(sock, "pause-before-switchover: on\r\n")

    def test_next_client_has_a_line_of_its_own(self):
        vmm, sock = self.connect()
        sock.sendall(b"quit")
        self.wait(sock, "quit")
        sock.close()
        again = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(again.close)
        again.settimeout(PATIENCE)
        again.connect(f"{self.folder}/m")
        self.shown = b""
        self.wait(again, PROMPT)
        again.sendall(b"\n")
        self.wait(again, PROMPT)
        self.assertEqual(vmm.cmd("query-status")["status"], "prelaunch")


if __name__ == "__main__":
    unittest.main()
