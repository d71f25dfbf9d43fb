# SPDX-License-Identifier: BSD-2-Clause
"""The qtest protocol from the client's side: the test plays the CPU."""

import base64
import os
import socket

from .qmp import PATIENCE

CHUNK = 1 << 20


class QtestError(Exception):
    """A FAIL or ERR reply."""


class Qtest:
    """Listens; the hypervisor connects (-qtest unix:PATH)."""

    def __init__(self, path):
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.listener.settimeout(PATIENCE)
        self.sock = None
        self.buffer = b""
        self.irqs = []  # (number, level) as they were reported, since take_irqs()

    def accept(self):
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(PATIENCE)
        self.listener.close()
        os.unlink(self.path)

    def close(self):
        self.listener.close()
        if self.sock:
            self.sock.close()

    def cmd(self, line):
        """One request; the words after OK."""
        self.sock.sendall(line.encode() + b"\n")
        return self._reply(line)

    def pipeline(self, lines):
        """Many requests at once, for speed; the list of what cmd() would return."""
        self.sock.sendall(b"".join(line.encode() + b"\n" for line in lines))
        return [self._reply(line) for line in lines]

    def _line(self):
        while b"\n" not in self.buffer:
            data = self.sock.recv(1 << 20)
            if not data:
                raise ConnectionError("the qtest socket was closed")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode()

    def _note_irq(self, rest):
        verb, number = rest.split()
        self.irqs.append((int(number), {"raise": 1, "lower": 0}[verb]))

    def _reply(self, request):
        while True:
            line = self._line()
            status, _, rest = line.partition(" ")
            if status == "OK":
                return rest
            if status != "IRQ":
                raise QtestError(f"{request[:80]}: {line}")
            self._note_irq(rest)

    def take_irqs(self):
        """What was reported so far, up to the last reply."""
        taken, self.irqs = self.irqs, []
        return taken

    def wait_irq(self):
        """The next report, which may come unasked."""
        while not self.irqs:
            status, _, rest = self._line().partition(" ")
            if status != "IRQ":
                raise QtestError(f"unasked: {status} {rest}")
            self._note_irq(rest)
        return self.irqs.pop(0)

    def intercept_in(self, path="ioapic"):
        self.cmd(f"irq_intercept_in {path}")

    def intercept_out(self, path):
        self.cmd(f"irq_intercept_out {path}")

    def readb(self, address):
        return int(self.cmd(f"readb {address:#x}"), 16)

    def readw(self, address):
        return int(self.cmd(f"readw {address:#x}"), 16)

    def readl(self, address):
        return int(self.cmd(f"readl {address:#x}"), 16)

    def readq(self, address):
        return int(self.cmd(f"readq {address:#x}"), 16)

    def writeb(self, address, value):
        self.cmd(f"writeb {address:#x} {value:#x}")

    def writew(self, address, value):
        self.cmd(f"writew {address:#x} {value:#x}")

    def writel(self, address, value):
        self.cmd(f"writel {address:#x} {value:#x}")

    def writeq(self, address, value):
        self.cmd(f"writeq {address:#x} {value:#x}")

    def inb(self, port):
        return int(self.cmd(f"inb {port:#x}"), 16)

    def inw(self, port):
        return int(self.cmd(f"inw {port:#x}"), 16)

    def inl(self, port):
        return int(self.cmd(f"inl {port:#x}"), 16)

    def outb(self, port, value):
        self.cmd(f"outb {port:#x} {value:#x}")

    def outw(self, port, value):
        self.cmd(f"outw {port:#x} {value:#x}")

    def outl(self, port, value):
        self.cmd(f"outl {port:#x} {value:#x}")

    def read(self, address, size):
        data = b""
        while len(data) < size:
            now = min(CHUNK, size - len(data))
            data += base64.b64decode(self.cmd(f"b64read {address + len(data):#x} {now}"))
        return data

    def write(self, address, data):
        for at in range(0, len(data), CHUNK):
            piece = data[at:at + CHUNK]
            self.cmd(f"b64write {address + at:#x} {len(piece)} {base64.b64encode(piece).decode()}")

    def memset(self, address, size, value):
        self.cmd(f"memset {address:#x} {size} {value:#x}")

    def clock_step(self, nanoseconds=None):
        """Without nanoseconds: to the next timer."""
        return int(self.cmd(f"clock_step {'' if nanoseconds is None else nanoseconds}"))
