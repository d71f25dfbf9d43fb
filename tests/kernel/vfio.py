# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's VFIO interface for test scripts: container, device, migration, DMA logging."""

import ctypes
import errno
import fcntl
import mmap
import os
import pathlib
import struct
import uuid

ERROR, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P = range(8)
STATE_NAMES = ("error", "stop", "running", "stop-copy", "resuming", "running-p2p", "pre-copy",
               "pre-copy-p2p")

MIG_STOP_COPY, MIG_P2P, MIG_PRE_COPY = 1, 2, 4

GET, SET, PROBE = 1 << 16, 1 << 17, 1 << 18
FEATURE_MIGRATION, FEATURE_MIG_STATE = 1, 2
FEATURE_LOG_START, FEATURE_LOG_STOP, FEATURE_LOG_REPORT, FEATURE_DATA_SIZE = 6, 7, 8, 9

CONFIG_REGION = 7
IRQ_MSIX = 2
TYPE1V2_IOMMU = 3
IRQ_NONE, IRQ_BOOL, IRQ_EVENTFD, IRQ_TRIGGER = 1, 2, 4, 32


def _io(number):
    return 0x3B00 | 100 + number


SET_IOMMU, GROUP_SET_CONTAINER, GROUP_GET_DEVICE_FD = _io(2), _io(4), _io(6)
DEVICE_GET_INFO, DEVICE_GET_REGION_INFO, DEVICE_GET_IRQ_INFO = _io(7), _io(8), _io(9)
DEVICE_SET_IRQS, DEVICE_RESET = _io(10), _io(11)
IOMMU_MAP_DMA = _io(13)
IOMMU_DIRTY_PAGES = DEVICE_FEATURE = _io(17)
DEVICE_BIND_IOMMUFD, DEVICE_ATTACH_IOMMUFD_PT = _io(18), _io(19)
MIG_GET_PRECOPY_INFO = _io(21)
IOMMU_IOAS_ALLOC, IOMMU_IOAS_MAP = 0x3B81, 0x3B85


class Memory:
    """Anonymous memory with a known address, to be mapped for DMA."""

    def __init__(self, size):
        self.map = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.size = size

    def pages(self, size):
        """The pages of @size bytes whose bit is set, this memory being a dirty bitmap."""
        return [page for page in range(size // 4096) if self.map[page // 8] >> page % 8 & 1]


class Container:
    """A type1 container; holds groups and DMA mappings."""

    def __init__(self):
        self.fd = os.open("/dev/vfio/vfio", os.O_RDWR)
        self.ready = False

    def open(self, name, sysfs):
        """Descriptors of a device and its group."""
        group = os.open(f"/dev/vfio/{os.path.basename(os.readlink(f'{sysfs}/iommu_group'))}", os.O_RDWR)
        try:
            fcntl.ioctl(group, GROUP_SET_CONTAINER, struct.pack("i", self.fd))
            if not self.ready:
                fcntl.ioctl(self.fd, SET_IOMMU, TYPE1V2_IOMMU)
                self.ready = True
            # Only with a mutable buffer does ioctl() return the number.
            return fcntl.ioctl(group, GROUP_GET_DEVICE_FD, bytearray(name.encode() + b"\0")), group
        except OSError:
            os.close(group)
            raise

    def map(self, iova, memory):
        request = struct.pack("=IIQQQ", 32, 3, memory.address, iova, memory.size)
        fcntl.ioctl(self.fd, IOMMU_MAP_DMA, request)

    def track_dirty(self, on):
        fcntl.ioctl(self.fd, IOMMU_DIRTY_PAGES, struct.pack("=II", 8, 1 if on else 2))

    def dirty_pages(self, iova, size):
        """Page numbers, relative to iova, that devices have written since the last call."""
        bits = Memory(mmap.PAGESIZE)
        request = struct.pack("=IIQQQQQ", 48, 4, iova, size, 4096, mmap.PAGESIZE, bits.address)
        fcntl.ioctl(self.fd, IOMMU_DIRTY_PAGES, request)
        return bits.pages(size)

    def close(self):
        os.close(self.fd)


def has_iommufd():
    return os.path.exists("/dev/iommu")


class AddressSpace:
    """An iommufd address space; takes a container's place for devices with a node of their own."""

    def __init__(self):
        self.fd = os.open("/dev/iommu", os.O_RDWR)
        reply = fcntl.ioctl(self.fd, IOMMU_IOAS_ALLOC, struct.pack("=III", 12, 0, 0))
        self.ioas = struct.unpack("=III", reply)[2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.fd)

    def map(self, iova, memory):
        fixed_readable_writeable = 7
        request = struct.pack("=IIIIQQQ", 40, fixed_readable_writeable, self.ioas, 0, memory.address,
                              memory.size, iova)
        fcntl.ioctl(self.fd, IOMMU_IOAS_MAP, request)

    def open(self, _, sysfs):
        """Descriptor of a device, and None for its group."""
        node, = pathlib.Path(sysfs, "vfio-dev").iterdir()
        fd = os.open(f"/dev/vfio/devices/{node.name}", os.O_RDWR)
        try:
            fcntl.ioctl(fd, DEVICE_BIND_IOMMUFD, struct.pack("=IIiI", 16, 0, self.fd, 0))
            fcntl.ioctl(fd, DEVICE_ATTACH_IOMMUFD_PT, struct.pack("=III", 12, 0, self.ioas))
        except OSError:
            os.close(fd)
            raise
        return fd, None


class Device:
    """An open VFIO device, through its group (Container) or its node (AddressSpace)."""

    def __init__(self, name, container, sysfs=None):
        self.fd, self.group = container.open(name, sysfs or f"/sys/bus/platform/devices/{name}")
        self.regions = {}

    def close(self):
        os.close(self.fd)
        if self.group is not None:
            os.close(self.group)

    def info(self):
        """flags, regions, interrupts"""
        reply = fcntl.ioctl(self.fd, DEVICE_GET_INFO, struct.pack("=I20x", 24))
        return struct.unpack_from("=III", reply, 4)

    def region(self, index):
        """flags, size, offset, mappable areas"""
        if index not in self.regions:
            reply = bytearray(struct.pack("=IIIIQQ", 256, 0, index, 0, 0, 0) + bytes(224))
            fcntl.ioctl(self.fd, DEVICE_GET_REGION_INFO, reply)
            _, flags, _, cap, size, offset = struct.unpack_from("=IIIIQQ", reply)
            areas = []
            while flags & 8 and cap:
                kind, _, following = struct.unpack_from("=HHI", reply, cap)
                if kind == 1:
                    count, = struct.unpack_from("=I", reply, cap + 8)
                    areas += [struct.unpack_from("=QQ", reply, cap + 16 + 16 * i) for i in range(count)]
                cap = following
            self.regions[index] = (flags, size, offset, areas)
        return self.regions[index]

    def read(self, index, offset, size):
        return os.pread(self.fd, size, self.region(index)[2] + offset)

    def write(self, index, offset, data):
        assert os.pwrite(self.fd, data, self.region(index)[2] + offset) == len(data)

    def irq_info(self, index):
        """flags, count"""
        reply = fcntl.ioctl(self.fd, DEVICE_GET_IRQ_INFO, struct.pack("=IIII", 16, 0, index, 0))
        _, flags, _, count = struct.unpack("=IIII", reply)
        return flags, count

    def set_irqs(self, flags, index, start, count, data=b""):
        request = struct.pack("=IIIII", 20 + len(data), flags, index, start, count) + data
        fcntl.ioctl(self.fd, DEVICE_SET_IRQS, request)

    def reset(self):
        fcntl.ioctl(self.fd, DEVICE_RESET)

    def feature(self, number, payload=b""):
        """DEVICE_FEATURE; number includes GET, SET or PROBE. Returns the payload after the call."""
        data = bytearray(struct.pack("=II", 8 + len(payload), number) + payload)
        fcntl.ioctl(self.fd, DEVICE_FEATURE, data)
        return bytes(data[8:])

    def mig_flags(self):
        return struct.unpack("=Q", self.feature(FEATURE_MIGRATION | GET, bytes(8)))[0]

    def state(self):
        return struct.unpack("=Ii", self.feature(FEATURE_MIG_STATE | GET, bytes(8)))[0]

    def set_state(self, state):
        """The new data fd, or None."""
        reply = self.feature(FEATURE_MIG_STATE | SET, struct.pack("=Ii", state, -1))
        fd = struct.unpack("=Ii", reply)[1]
        return None if fd < 0 else fd

    def data_size(self):
        return struct.unpack("=Q", self.feature(FEATURE_DATA_SIZE | GET, bytes(8)))[0]

    def log_start(self, iova, size, page_size=4096):
        ranges = Memory(mmap.PAGESIZE)
        ranges.map[:16] = struct.pack("=QQ", iova, size)
        request = struct.pack("=QIIQ", page_size, 1, 0, ranges.address)
        return struct.unpack_from("=Q", self.feature(FEATURE_LOG_START | SET, request))[0]

    def log_report(self, iova, size):
        bits = Memory(mmap.PAGESIZE)
        self.feature(FEATURE_LOG_REPORT | GET, struct.pack("=QQQQ", iova, size, 4096, bits.address))
        return bits.pages(size)

    def log_stop(self):
        self.feature(FEATURE_LOG_STOP | SET)


def create_mtty(kind="mtty-2"):
    """A new instance of the kernel's mtty sample: its name, and its directory in sysfs."""
    name = str(uuid.uuid4())
    types = pathlib.Path("/sys/class/mtty/mtty/mdev_supported_types")
    (types / kind / "create").write_text(name)
    return name, f"/sys/bus/mdev/devices/{name}"


def precopy_info(fd):
    """initial_bytes, dirty_bytes"""
    reply = fcntl.ioctl(fd, MIG_GET_PRECOPY_INFO, struct.pack("=IIQQ", 24, 0, 0, 0))
    return struct.unpack_from("=QQ", reply, 8)


def read_all(fd, chunk=1 << 18):
    """What a data fd gives until its temporary or final end."""
    parts = []
    while True:
        try:
            part = os.read(fd, chunk)
        except OSError as error:
            if error.errno != errno.ENOMSG:
                raise
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view):]
