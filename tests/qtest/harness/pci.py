# SPDX-License-Identifier: BSD-2-Clause
"""PCI over qtest: what firmware and a driver would do with a device."""

CONFIG_ADDRESS, CONFIG_DATA = 0xCF8, 0xCFC
VENDOR, DEVICE, COMMAND, STATUS, CAPABILITIES = 0x00, 0x02, 0x04, 0x06, 0x34
INTERRUPT_LINE = 0x3C
COMMAND_MEMORY, COMMAND_MASTER = 0x2, 0x4
CAP_VENDOR, CAP_MSIX, CAP_MSI, CAP_EXPRESS = 0x09, 0x11, 0x05, 0x10
BARS_AT = 0xE0000000  # between the RAM below and that above 4 GiB


class PciFunction:
    """A function on bus 0. setup() gives its memory BARs addresses and enables it."""

    def __init__(self, qtest, slot, function=0):
        self.qtest = qtest
        self.slot = slot
        self.function = function
        self.bars = {}  # number -> (address, size)

    def _select(self, offset):
        self.qtest.outl(CONFIG_ADDRESS,
                        1 << 31 | self.slot << 11 | self.function << 8 | (offset & 0xFC))
        return CONFIG_DATA + (offset & 3)

    def config_readb(self, offset):
        return self.qtest.inb(self._select(offset))

    def config_readw(self, offset):
        return self.qtest.inw(self._select(offset))

    def config_readl(self, offset):
        return self.qtest.inl(self._select(offset))

    def config_writeb(self, offset, value):
        self.qtest.outb(self._select(offset), value)

    def config_writew(self, offset, value):
        self.qtest.outw(self._select(offset), value)

    def config_writel(self, offset, value):
        self.qtest.outl(self._select(offset), value)

    def config(self):
        """The first 256 bytes."""
        words = [self.config_readl(offset) for offset in range(0, 256, 4)]
        return b"".join(word.to_bytes(4, "little") for word in words)

    def present(self):
        return self.config_readw(VENDOR) != 0xFFFF

    def capability(self, wanted):
        """Offset of a capability, or None."""
        offset = self.config_readb(CAPABILITIES) & 0xFC
        for _ in range(48):
            if offset == 0:
                return None
            if self.config_readb(offset) == wanted:
                return offset
            offset = self.config_readb(offset + 1) & 0xFC
        raise AssertionError("the capability list does not end")

    def setup(self, first_address=None):
        """Sizes the memory BARs, places them from first_address on, turns the function on."""
        place = first_address or BARS_AT + (self.slot << 20)
        number = 0
        while number < 6:
            register = 0x10 + 4 * number
            self.config_writel(register, 0xFFFFFFFF)
            mask = self.config_readl(register)
            is_64bit = mask & 0x7 == 0x4
            if is_64bit:
                self.config_writel(register + 4, 0xFFFFFFFF)
                mask |= self.config_readl(register + 4) << 32
            else:
                mask |= 0xFFFFFFFF << 32
            if mask & 0xFFFFFFF0 and not mask & 1:
                size = (~(mask & ~0xF) + 1) & 0xFFFFFFFFFFFFFFFF
                place = (place + size - 1) // size * size
                self.config_writel(register, place & 0xFFFFFFFF)
                if is_64bit:
                    self.config_writel(register + 4, place >> 32)
                self.bars[number] = (place, size)
                place += size
            number += 2 if is_64bit else 1
        self.config_writew(COMMAND,
                           self.config_readw(COMMAND) | COMMAND_MEMORY | COMMAND_MASTER)
        return self

    def address(self, bar, offset=0):
        return self.bars[bar][0] + offset

    def readl(self, offset, bar=0):
        return self.qtest.readl(self.address(bar, offset))

    def writel(self, offset, value, bar=0):
        self.qtest.writel(self.address(bar, offset), value)

    def readq(self, offset, bar=0):
        """As two halves: devices may know 32-bit registers only."""
        return self.readl(offset, bar) | self.readl(offset + 4, bar) << 32

    def writeq(self, offset, value, bar=0):
        self.writel(offset, value & 0xFFFFFFFF, bar)
        self.writel(offset + 4, value >> 32, bar)


class TestDevice(PciFunction):
    """The software device (-device vfio-pci-soft) and its registers in BAR 0; see
    docs/devel/test-device.rst."""

    ID, VERSION, STATE_BYTES, STATE_OFFSET, STATE_DATA, FILL = 0x00, 0x04, 0x08, 0x10, 0x14, 0x18
    GENERATION, DIGEST, SCRATCH = 0x1C, 0x20, 0x28
    DMA_IOVA, DMA_BYTES, DMA_VALUE, DMA_COMMAND, DMA_STATUS = 0x40, 0x48, 0x4C, 0x50, 0x54
    DMA_COUNT, IRQ_RAISE, IRQ_COUNT = 0x58, 0x60, 0x64
    AUTO_IOVA, AUTO_BYTES, AUTO_CONTROL, AUTO_STATUS, AUTO_PAGES = 0x80, 0x88, 0x90, 0x94, 0x98
    CHANGED, CHANGE_NOW, AUTO_NOW = 0xA0, 0xA8, 0xAC
    ID_VALUE = 0x52524546
    DMA_FILL, DMA_TO_STATE, DMA_FROM_STATE = 1, 2, 3

    __test__ = False  # not a test, whatever its name says

    def digest(self):
        return self.readq(self.DIGEST)

    def fill(self, seed):
        """Writes pseudo-random content over the whole state."""
        self.writel(self.FILL, seed)

    def dma_fill(self, iova, size, value):
        """Makes the device write to guest memory; returns its status register."""
        self.writeq(self.DMA_IOVA, iova)
        self.writel(self.DMA_BYTES, size)
        self.writel(self.DMA_VALUE, value)
        self.writel(self.DMA_COMMAND, self.DMA_FILL)
        return self.readl(self.DMA_STATUS)
