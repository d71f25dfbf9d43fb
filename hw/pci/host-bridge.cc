// SPDX-License-Identifier: BSD-2-Clause
#include "hw/pci/host-bridge.h"

#include <linux/pci_regs.h>

#include <mutex>

#include "hw/pci/config-space.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::pci {

namespace {

constexpr uint16_t kClassHostBridge = 0x0600;

class HostBridge final : public PciDevice {
 public:
    HostBridge(uint16_t vendor_id, uint16_t device_id)
        : config_(std::vector<std::byte>(kConfigBytes)) {
        config_.set_u16(PCI_VENDOR_ID, vendor_id);
        config_.set_u16(PCI_DEVICE_ID, device_id);
        config_.set_u16(PCI_CLASS_DEVICE, kClassHostBridge);
        util::store_le16(config_.writable().data() + PCI_COMMAND,
                         PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    }

    std::string_view name() const override { return "host bridge"; }

    uint32_t config_read(uint16_t offset, unsigned length) override {
        const std::lock_guard lock(mutex_);
        uint32_t value = 0;
        for (unsigned i = 0; i < length; ++i) {
            const uint32_t byte = offset + i < config_.size() ? config_.u8(offset + i) : 0xffu;
            value |= byte << (8 * i);
        }
        return value;
    }

    void config_write(uint16_t offset, unsigned length, uint32_t value) override {
        std::byte raw[sizeof(value)];
        util::store_le32(raw, value);
        if (length > sizeof(raw) || offset + length > config_.size()) return;
        const std::lock_guard lock(mutex_);
        config_.guest_write(offset, ConstBytes(raw).first(length));
    }

    std::vector<MemoryBar> memory_bars() override { return {}; }
    Result<> bar_read(unsigned bar, uint64_t, MutBytes) override { return no_bar(bar); }
    Result<> bar_write(unsigned bar, uint64_t, ConstBytes) override { return no_bar(bar); }

 private:
    static Error no_bar(unsigned bar) {
        return make_error(ErrorKind::InvalidArgument, "the host bridge has no BAR {}", bar);
    }

    std::mutex mutex_;
    ConfigSpace config_;
};

}  // namespace

std::shared_ptr<PciDevice> create_host_bridge(uint16_t vendor_id, uint16_t device_id) {
    return std::make_shared<HostBridge>(vendor_id, device_id);
}

}  // namespace ferry::pci
