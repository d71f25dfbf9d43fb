# SPDX-License-Identifier: BSD-2-Clause
"""Migration peers made of bare sockets: they say what the test wants, or nothing, or listen in."""

import contextlib
import socket
import struct
import threading

from .qmp import PATIENCE

# Messages of the return path, docs/interop/stream-format.rst.
SWITCHOVER_ACK, HEARTBEAT = 7, 0x4602


class Server:
    """What a source connects to. After accept(), received data pile up in `received`."""

    def __init__(self, folder, name="peer"):
        self.path = f"{folder}/{name}.sock"
        self.uri = f"unix:{self.path}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.listener.settimeout(PATIENCE)
        self.sock = None
        self.received = bytearray()
        self.reader = None

    def accept(self):
        self.sock, _ = self.listener.accept()
        return self

    def read_in_background(self):
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        return self

    def wait_end(self):
        """Until the source has ended its stream; then closes, as a destination that is done."""
        self.reader.join(PATIENCE)
        self.sock.close()

    def _read(self):
        try:
            while data := self.sock.recv(65536):
                self.received += data
        except OSError:
            pass

    def close(self):
        for sock in (self.sock, self.listener):
            if sock:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
        if self.reader:
            self.reader.join(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def connect(path):
    """To a destination that listens there."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    return sock


def send_stream(path, data):
    """Plays a source that sends these bytes and then closes."""
    with connect(path) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        except OSError:
            pass  # refused in the middle


class Proxy:
    """Stands between a source, which is told `uri`, and a destination that listens at a path.
    Passes everything on at once; `returned` is what the destination has sent so far."""

    def __init__(self, folder, destination, name="proxy"):
        self.server = Server(folder, name)
        self.uri = self.server.uri
        self.destination = destination
        self.returned = bytearray()
        self.sockets = []
        self.threads = [threading.Thread(target=self._run, daemon=True)]
        self.threads[0].start()

    def _run(self):
        try:
            source = self.server.accept().sock
            destination = connect(self.destination)
        except OSError:
            return
        self.sockets = [source, destination]
        destination.settimeout(None)
        back = threading.Thread(target=self._pass, args=(destination, source, self.returned),
                                daemon=True)
        self.threads.append(back)
        back.start()
        self._pass(source, destination)

    @staticmethod
    def _pass(reading, writing, record=None):
        try:
            while data := reading.recv(65536):
                if record is not None:
                    record += data
                writing.sendall(data)
            writing.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (reading, writing):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def messages(self):
        """Types of the return path's messages that are complete so far, in order."""
        types, at, data = [], 0, bytes(self.returned)
        while at + 4 <= len(data):
            kind, size = struct.unpack_from(">HH", data, at)
            if at + 4 + size > len(data):
                break
            types.append(kind)
            at += 4 + size
        return types

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self.server.close()
        for thread in self.threads:
            thread.join(PATIENCE)
        for sock in self.sockets:
            sock.close()
