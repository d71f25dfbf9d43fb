// SPDX-License-Identifier: BSD-2-Clause
// The machine without its devices: RAM at its addresses, the PCI bus and the ports that reach its
// configuration space, and who answers an access of the CPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "accel/qtest/protocol.h"
#include "accel/qtest/virtual-clock.h"
#include "hw/pci/pci.h"
#include "migration/savevm.h"
#include "system/memory.h"
#include "system/vmm/options.h"

namespace ferry::vmm {

// RAM below this stays below; the rest begins at 4 GiB. Between lie the BARs.
inline constexpr uint64_t kLowRamEnd = uint64_t{2} << 30;
inline constexpr uint64_t kHighRamStart = uint64_t{4} << 30;
// Memory backends that the machine does not use as its RAM follow it, each at such a boundary.
inline constexpr uint64_t kExtraRamAlignment = uint64_t{1} << 30;
inline constexpr uint64_t kDefaultRamBytes = uint64_t{128} << 20;

// PCI's configuration mechanism #1: an address port and a data port. Any thread.
class PciHostPorts {
 public:
    explicit PciHostPorts(pci::PciBus& bus) : bus_(bus) {}

    // Whether the port is one of them.
    static bool decodes(uint16_t port) { return port >= kAddress && port < kEnd; }
    uint32_t read(uint16_t port, unsigned length);
    void write(uint16_t port, unsigned length, uint32_t value);
    void reset() { address_ = 0; }

    struct State {
        uint32_t config_reg = 0;
        PciHostPorts* ports = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    static constexpr uint16_t kAddress = 0xcf8, kData = 0xcfc, kEnd = 0xd00;

    pci::PciBus& bus_;
    std::atomic<uint32_t> address_ = 0;
    State state_{0, this};  // a copy, while the VM is saved or loaded
};

struct PciRoot {
    pci::PciBus bus;
    PciHostPorts ports{bus};
    util::Registration host_bridge;
};

class Board final : public qtest::Machine {
 public:
    static Result<std::unique_ptr<Board>> create(const Options& options);

    system::GuestMemory& memory() { return memory_; }
    pci::PciBus* bus() { return pci_ ? &pci_->bus : nullptr; }  // null: the machine has none
    qtest::VirtualClock& clock() { return clock_; }
    // Registers what of the board migrates: after RAM. The caller keeps what is returned, and lets
    // it go before board and registry.
    Result<std::vector<util::Registration>> register_state(migration::SaveVMRegistry& registry);
    void reset();

    // A message-signalled interrupt: a write by a device. Any thread. What is aimed at the
    // interrupt controllers' address, where nobody is, is counted.
    void msi_write(uint64_t address, uint32_t data);
    uint64_t lost_msis() const { return lost_msis_; }

    void memory_read(uint64_t gpa, MutBytes out) override;
    void memory_write(uint64_t gpa, ConstBytes in) override;
    uint32_t port_read(uint16_t port, unsigned length) override;
    void port_write(uint16_t port, unsigned length, uint32_t value) override;

 private:
    struct ClockState {
        int64_t ticks = 0;
        int64_t offset = 0;
        qtest::VirtualClock* clock = nullptr;
    };
    Result<> create_ram(const Options& options);
    Result<> map_main(std::unique_ptr<system::RamBlock> block, uint64_t& next_high);
    Result<> map_extra(std::unique_ptr<system::RamBlock> block, uint64_t& next_high);
    static const migration::VMStateDescription& clock_vmstate();

    system::GuestMemory memory_;
    std::optional<PciRoot> pci_;
    qtest::VirtualClock clock_;
    ClockState clock_state_{0, 0, &clock_};
    std::atomic<uint64_t> lost_msis_ = 0;
};

}  // namespace ferry::vmm
