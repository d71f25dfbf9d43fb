# SPDX-License-Identifier: BSD-2-Clause
"""The software device on the PCI bus: driven as a guest would, alone and across a migration."""

from harness.pci import CAP_MSIX, TestDevice
from harness.qmp import Qmp, QmpError
from harness.vmm import VmmTestCase, device, migrate

SLOT = 3
SOFT = device("vfio-pci-soft", id="d0", addr=SLOT)


class SoftDevice(VmmTestCase):
    def test_is_found_at_its_address_with_registers_in_bar_0(self):
        vmm = self.vmm(*SOFT)
        dev = vmm.test_device(SLOT)
        self.assertTrue(dev.present())
        dev.setup()
        self.assertEqual(dev.readl(dev.ID), dev.ID_VALUE)
        dev.writel(dev.SCRATCH, 0x12345678)
        self.assertEqual(dev.readl(dev.SCRATCH), 0x12345678)
        self.assertEqual(vmm.quit(), 0)

    def test_writes_guest_memory(self):
        vmm = self.vmm(*SOFT)
        dev = vmm.test_device(SLOT).setup()
        dev.dma_fill(0x10000, 4096, 0xA5A5A5A5)
        self.assertEqual(vmm.qtest.read(0x10000, 4096), b"\xa5" * 4096)

    def test_interrupt_message_arrives_in_memory(self):
        vmm = self.vmm(*SOFT)
        dev = vmm.test_device(SLOT).setup()
        msix = dev.capability(CAP_MSIX)
        table = dev.config_readl(msix + 4)
        bar, offset = table & 7, table & ~7
        dev.writel(offset, 0x20000, bar)  # address, data, unmasked
        dev.writel(offset + 4, 0, bar)
        dev.writel(offset + 8, 0xBEEF, bar)
        dev.writel(offset + 12, 0, bar)
        dev.config_writew(msix + 2, dev.config_readw(msix + 2) | 0x8000)
        dev.writel(dev.IRQ_RAISE, 0)
        vmm.wait_for(lambda: vmm.qtest.readl(0x20000) == 0xBEEF, "the message")

    def test_several_devices_and_free_slots(self):
        vmm = self.vmm(*SOFT, *device("vfio-pci-soft"), *device("vfio-pci-soft"))
        self.assertEqual([slot for slot in range(6) if TestDevice(vmm.qtest, slot).present()],
                         [0, 1, 2, 3])

    def test_same_slot_or_id_twice_is_refused(self):
        for again in (device("vfio-pci-soft", addr=SLOT), device("vfio-pci-soft", id="d0")):
            status, _ = self.vmm_that_fails(*SOFT, *again)
            self.assertEqual(status, 1)

    def test_reset_of_the_machine_resets_the_device(self):
        vmm = self.vmm(*SOFT)
        dev = vmm.test_device(SLOT).setup()
        dev.writel(dev.SCRATCH, 1)
        vmm.cmd("system_reset")
        vmm.wait_event("RESET")
        self.assertEqual(dev.config_readw(0x04) & 2, 0)
        dev.setup()
        self.assertEqual(dev.readl(dev.SCRATCH), 0)

    def test_unplugged_device_is_gone_and_leaves_nothing(self):
        vmm = self.vmm(*SOFT, *device("vfio-pci-soft", id="d1"))
        vmm.cmd("device_del", id="d0")
        vmm.wait_event("DEVICE_DELETED")
        self.assertFalse(vmm.test_device(SLOT).present())
        never_had_it = self.vmm(*device("vfio-pci-soft", id="d1"))

        def held(of):
            return len(of.fds()), of.threads(), of.mappings()
        vmm.wait_for(lambda: held(vmm) == held(never_had_it), "what one device takes")
        with self.assertRaises(QmpError) as refused:
            vmm.cmd("device_del", id="d0")
        self.assertEqual(refused.exception.error_class, "DeviceNotFound")

    def test_state_and_registers_migrate(self):
        with self.pair(*SOFT, backed=True) as (src, dst):
            dev = src.test_device(SLOT).setup()
            dev.fill(0x1234)
            dev.writel(dev.SCRATCH, 0xCAFE)
            dev.dma_fill(0x30000, 8192, 0x11111111)
            digest = dev.digest()
            migrate(src, dst)
            moved = dst.test_device(SLOT)
            moved.bars = dev.bars
            self.assertEqual(moved.readl(dev.SCRATCH), 0xCAFE)
            self.assertEqual(moved.digest(), digest)
            self.assert_same_memory(src, dst)

    def test_signal_ends_it_although_a_driver_does_not_return(self):
        second = f"{self.folder}/second"
        vmm = self.vmm(*SOFT, "-qmp", f"unix:{second},server=on,wait=off")
        other = Qmp.connect(second)
        vmm.cmd("x-set-faults", id="d0", script="hold=arc:running-p2p->stop")
        vmm.qmp.send("stop")
        # The loop serves the other monitor while the first one waits for the driver.
        vmm.wait_for(lambda: "x-pending-calls" in other.cmd("query-migrate"), "a pending call")
        vmm.process.terminate()
        self.assertEqual(vmm.wait_exit(), 0)
        self.assertIn("ending although d0 is in 'set state stop'", vmm.log())
