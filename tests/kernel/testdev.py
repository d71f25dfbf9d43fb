# SPDX-License-Identifier: BSD-2-Clause
"""ferry-vfio-testdev for test scripts: its sysfs knobs, and its registers through vfio.Device."""

import pathlib
import struct

import vfio

ID, VERSION, STATE_BYTES, STATE_OFS, STATE_DATA, FILL = 0x00, 0x04, 0x08, 0x10, 0x14, 0x18
GENERATION, DIGEST, SCRATCH = 0x1C, 0x20, 0x28
DMA_IOVA, DMA_BYTES, DMA_VALUE, DMA_CMD, DMA_STATUS, DMA_COUNT = 0x40, 0x48, 0x4C, 0x50, 0x54, 0x58
IRQ_RAISE, IRQ_COUNT = 0x60, 0x64
AUTO_IOVA, AUTO_BYTES, AUTO_CONTROL, AUTO_STATUS, AUTO_PAGES = 0x80, 0x88, 0x90, 0x94, 0x98
DMA_FILL, DMA_READ, DMA_WRITE = 1, 2, 3
RAM_OFFSET, RAM_BYTES = 4096, 12288

DEFAULTS = {
    "state_bytes": 1 << 20, "mig_flags": 7, "dma_logging": 1, "dirty_rate": 0, "dma_rate": 0,
    "enomsg": 1, "latency_us": 0, "fail_arc": "none", "reject_image": 0, "read_fail_at": -1,
    "write_fail_at": -1, "data_size_fails": 0, "state_log": "",
}
ONLY_WHILE_CLOSED = ("state_bytes", "mig_flags", "dma_logging")


class Knobs:
    """A device's sysfs attributes: knobs["dirty_rate"] = 4096. Also while a VMM owns the device."""

    def __init__(self, name):
        self.path = pathlib.Path("/sys/bus/platform/devices") / name

    def __getitem__(self, name):
        return (self.path / name).read_text().strip()

    def __setitem__(self, name, value):
        (self.path / name).write_text(f"{value}\n")

    def restore(self, closed=True):
        """Everything as after loading the module, the log empty."""
        for name, value in DEFAULTS.items():
            if closed or name not in ONLY_WHILE_CLOSED:
                self[name] = value

    def states(self):
        return self["state_log"].split()


class TestDevice(vfio.Device):
    """An open ferry.N with its registers."""

    def __init__(self, name, container):
        super().__init__(name, container)
        self.knobs = Knobs(name)

    def reg(self, offset, value=None):
        if value is None:
            return struct.unpack("<I", self.read(0, offset, 4))[0]
        return self.write(0, offset, struct.pack("<I", value))

    def reg64(self, offset, value=None):
        if value is None:
            return struct.unpack("<Q", self.read(0, offset, 8))[0]
        return self.write(0, offset, struct.pack("<Q", value))

    def digest(self):
        return self.reg64(DIGEST)

    def config16(self, offset, value=None):
        if value is None:
            return struct.unpack("<H", self.read(vfio.CONFIG_REGION, offset, 2))[0]
        return self.write(vfio.CONFIG_REGION, offset, struct.pack("<H", value))

    def dma(self, command, iova, size, value=0, vector=None):
        """Runs a DMA command; returns 0 or an errno."""
        self.reg64(DMA_IOVA, iova)
        self.reg(DMA_BYTES, size)
        self.reg(DMA_VALUE, value)
        self.reg(DMA_CMD, command | (0 if vector is None else (vector + 1) << 8))
        return self.reg(DMA_STATUS)


def digest_of(state):
    """What the DIGEST register says of a device state with these bytes."""
    result = 0xCBF29CE484222325
    for word, in struct.iter_unpack("<Q", state):
        result = (result ^ word) * 0x100000001B3 & (1 << 64) - 1
    return result


def pattern(seed, size):
    """The state after writing seed to FILL."""
    mask = (1 << 64) - 1
    if not seed:
        return bytes(size)
    words = ((seed * 0x9E3779B97F4A7C15 + i * 0xBF58476D1CE4E5B9) & mask for i in range(size // 8))
    return b"".join(struct.pack("<Q", x ^ x >> 29) for x in words)
