// SPDX-License-Identifier: BSD-2-Clause
// The machine without its devices: RAM at its addresses, the PCI bus and the ports that reach its
// configuration space, and who answers an access of the CPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "accel/kvm/interrupts.h"
#include "accel/qtest/protocol.h"
#include "accel/qtest/virtual-clock.h"
#include "hw/isa/port-bus.h"
#include "hw/pci/ecam.h"
#include "hw/pci/pci.h"
#include "migration/savevm.h"
#include "system/memory.h"
#include "system/vmm/interrupt-lines.h"
#include "system/vmm/options.h"

namespace ferry::vmm {

// RAM below this stays below; the rest begins at 4 GiB. Between lie the BARs.
inline constexpr uint64_t kLowRamEnd = uint64_t{2} << 30;
inline constexpr uint64_t kHighRamStart = uint64_t{4} << 30;
// Memory backends that the machine does not use as its RAM follow it, each at such a boundary.
inline constexpr uint64_t kExtraRamAlignment = uint64_t{1} << 30;
inline constexpr uint64_t kDefaultRamBytes = uint64_t{128} << 20;

// PCI's configuration mechanism #1: an address port and a data port. Any thread.
class PciHostPorts final : public isa::PortDevice {
 public:
    static constexpr uint16_t kPort = 0xcf8;
    static constexpr uint32_t kCount = 8;

    explicit PciHostPorts(pci::PciBus& bus) : bus_(bus) {}

    unsigned widest() const override { return sizeof(uint32_t); }
    uint32_t read(uint16_t offset, unsigned length) override;
    void write(uint16_t offset, unsigned length, uint32_t value) override;
    void reset() { address_ = 0; }

    struct State {
        uint32_t config_reg = 0;
        PciHostPorts* ports = nullptr;
    };
    static const migration::VMStateDescription& vmstate();
    State& state() { return state_; }

 private:
    static constexpr uint16_t kAddress = 0, kData = 4;

    pci::PciBus& bus_;
    std::atomic<uint32_t> address_ = 0;
    State state_{0, this};  // a copy, while the VM is saved or loaded
};

struct PciRoot {
    pci::PciBus bus;
    PciHostPorts ports{bus};
    std::optional<pci::Ecam> ecam;  // q35
    util::Registration ports_claim;
    util::Registration host_bridge;

    // Whether somebody answers; then the access happened.
    bool memory_read(uint64_t gpa, MutBytes out);
    bool memory_write(uint64_t gpa, ConstBytes in);
};

class Board final : public qtest::Machine {
 public:
    static Result<std::unique_ptr<Board>> create(const Options& options);

    system::GuestMemory& memory() { return memory_; }
    pci::PciBus* bus() { return pci_ ? &pci_->bus : nullptr; }  // null: the machine has none
    isa::PortBus& ports() { return ports_; }
    qtest::VirtualClock& clock() { return clock_; }
    // Registers what of the board migrates: after RAM. The caller keeps what is returned, and lets
    // it go before board and registry.
    Result<std::vector<util::Registration>> register_state(migration::SaveVMRegistry& registry);
    void reset();

    // Who takes interrupts from now on; nobody without it. Before devices exist.
    void set_interrupts(kvm::Interrupts& interrupts);
    InterruptLines& lines() { return lines_; }
    // A message-signalled interrupt: a write by a device. Any thread. What is aimed at the
    // interrupt controllers' address where nobody is, is counted.
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
    isa::PortBus ports_;
    InterruptLines lines_;
    std::optional<PciRoot> pci_;
    qtest::VirtualClock clock_;
    kvm::Interrupts* interrupts_ = nullptr;
    ClockState clock_state_{0, 0, &clock_};
    std::atomic<uint64_t> lost_msis_ = 0;
};

}  // namespace ferry::vmm
