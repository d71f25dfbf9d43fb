// SPDX-License-Identifier: BSD-2-Clause
// The configuration space of a VFIO PCI function as the guest sees it: a shadow in which BARs,
// COMMAND, MSI and MSI-X belong to the VMM, while other registers are the device's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "hw/pci/config-space.h"
#include "hw/pci/pci.h"
#include "system/interrupt-routes.h"
#include "util/bytes.h"
#include "util/result.h"

namespace ferry::vfio {

inline constexpr unsigned kPciBars = 6;

using system::MsiMessage;

// Where the MSI-X table and its pending bits are.
struct MsixLayout {
    uint16_t capability = 0;
    unsigned vectors = 0;
    unsigned table_bar = 0;
    uint64_t table_offset = 0;
    unsigned pba_bar = 0;
    uint64_t pba_offset = 0;
    uint64_t table_bytes() const { return uint64_t{16} * vectors; }
    uint64_t pba_bytes() const { return (uint64_t{vectors} + 63) / 64 * 8; }
};

// One thread at a time.
class PciConfig {
 public:
    // What the device says of itself; nothing of it is believed unchecked.
    struct Hardware {
        std::vector<std::byte> config;
        size_t config_bytes = SIZE_MAX;  // the device has; behind it zeros are answered
        std::array<uint64_t, kPciBars> bar_bytes{};
        bool has_intx = false;
        // What firmware would write to Interrupt Line; called with the pin. May be null.
        std::function<unsigned(unsigned pin)> interrupt_line;
        uint32_t msi_vectors = 0;
        uint32_t msix_vectors = 0;
    };
    enum class VendorBytes : uint8_t { Compared, Ignored };  // of vendor capabilities, on a load
    static Result<PciConfig> create(Hardware hardware, VendorBytes vendor_bytes);

    size_t size() const { return space_.size(); }
    ConstBytes image() const { return space_.image(); }
    // Whether the byte is answered from here; else it is the device's.
    bool is_emulated(size_t offset) const { return emulated_[offset]; }

    // What a guest's write asks for besides the change of the shadow.
    struct Effects {
        bool command = false;     // COMMAND goes to the device
        bool bars = false;        // of a BAR's address
        bool interrupts = false;  // MSI or MSI-X registers changed
        bool reset = false;       // a function level reset was asked for
    };
    // Takes the bit that asks for a reset out of `value`, whose rest may then go to the device.
    Effects guest_write(size_t offset, MutBytes value);
    Result<> load(ConstBytes image);
    void power_on();

    uint16_t command() const;
    std::vector<pci::PciDevice::MemoryBar> memory_bars() const;
    std::vector<pci::PciDevice::PortBar> port_bars() const;
    uint64_t bar_bytes(unsigned bar) const { return bars_[bar].size; }
    bool is_io(unsigned bar) const { return bars_[bar].is_io; }
    uint8_t interrupt_pin() const { return pin_; }  // 1..4 = A..D, 0: none

    const std::optional<MsixLayout>& msix() const { return msix_; }
    bool msix_enabled() const;
    bool msix_function_masked() const;

    bool msi_enabled() const;
    unsigned msi_vectors() const;  // that the guest enabled
    bool msi_masked(unsigned vector) const;
    bool msi_pending(unsigned vector) const { return (msi_pending_ >> vector & 1) != 0; }
    // Migrates only where the capability has a register for it.
    void set_msi_pending(unsigned vector, bool pending);
    MsiMessage msi_message(unsigned vector) const;

 private:
    struct Bar {
        uint64_t size = 0;  // 0: none, or the upper half of the one before
        bool is_io = false;
        bool is_64bit = false;
    };
    struct Msi {
        size_t capability = 0;
        bool is_64bit = false;
        bool maskable = false;
        unsigned vectors = 0;
        size_t data() const { return capability + (is_64bit ? 12 : 8); }
        size_t mask() const { return data() + 4; }
        size_t pending() const { return data() + 8; }
        size_t length() const { return (maskable ? 20 : 10) + (is_64bit ? 4 : 0); }
    };

    explicit PciConfig(std::vector<std::byte> image);
    void set_up_header(const Hardware& hardware);
    Result<> set_up_bars(const Hardware& hardware);
    Result<> set_up_capabilities(const Hardware& hardware, VendorBytes vendor_bytes);
    Result<> set_up_msix(const pci::PciCapability& capability, const Hardware& hardware);
    Result<> set_up_msi(const pci::PciCapability& capability, const Hardware& hardware);
    Result<> check_msix_area(unsigned bar, uint64_t offset, uint64_t bytes) const;
    Result<> set_up_reset_bits(const pci::PciCapability& capability);
    void emulate(size_t offset, size_t length);
    void compare(size_t offset, size_t length);
    uint64_t bar_address(unsigned bar) const;

    pci::ConfigSpace space_;
    std::vector<std::byte> power_on_;
    std::vector<bool> emulated_;
    uint8_t pin_ = 0;
    std::array<Bar, kPciBars> bars_{};
    std::optional<MsixLayout> msix_;
    std::optional<Msi> msi_;
    uint32_t msi_pending_ = 0;
    // Bytes in which a bit asks for a function level reset.
    struct ResetBit {
        size_t offset;
        std::byte mask;
    };
    std::vector<ResetBit> reset_bits_;
};

}  // namespace ferry::vfio
