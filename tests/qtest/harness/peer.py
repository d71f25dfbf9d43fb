# SPDX-License-Identifier: BSD-2-Clause
"""A migration peer made of a bare socket: says what the test wants, or nothing."""

import socket
import threading

from .qmp import PATIENCE


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

    def _read(self):
        try:
            while data := self.sock.recv(65536):
                self.received += data
        except OSError:
            pass

    def close(self):
        for sock in (self.sock, self.listener):
            if sock:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
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
