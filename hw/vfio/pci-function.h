// SPDX-License-Identifier: BSD-2-Clause
// The guest's view of a VFIO PCI device: accesses to configuration space and BARs, interrupts on
// their way to the machine, and the part of its state that the VMM keeps.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "hw/pci/pci.h"
#include "hw/vfio/irq.h"
#include "hw/vfio/pci-bars.h"
#include "hw/vfio/pci-config.h"
#include "hw/vfio/pci-msix.h"
#include "hw/vfio/pci.h"
#include "hw/vfio/vfio-device.h"
#include "system/main-loop.h"
#include "system/runstate.h"
#include "util/env.h"

namespace ferry::vfio {

// Guest accesses come from any thread but the loop's; save_config() and read_config() from the
// migration's, apply_config() from the device's worker; interrupts from the loop.
class PciFunction final : public pci::PciDevice, public VfioConfigState {
 public:
    struct Setup {
        system::MainLoop& loop;
        util::Env& env;
        system::RunStateController& runstate;
        VfioDeviceIo& io;
        std::string name;
        PciConfig::VendorBytes vendor_bytes = PciConfig::VendorBytes::Ignored;
        MsiSink sink;
        system::InterruptRoutes* routes = nullptr;  // as in VfioVm
        system::DeviceMemory* memory = nullptr;
    };
    // In three steps. Reads the device; any thread, calls the driver.
    static Result<std::shared_ptr<PciFunction>> create(Setup setup);
    // Brings the device to what a guest finds at power-on; the same.
    Result<> power_up();
    // Loop thread: from now on the function follows the run state.
    void connect();
    ~PciFunction() override;  // after disconnect(), and on the loop thread without it

    // Called after each reset of the device by guest or machine. Set before the first access.
    void set_reset_listener(std::function<void()> listener) { was_reset_ = std::move(listener); }
    // Calls the driver. Once no access can come through the bus any more: nor does the guest reach
    // a BAR by itself from then on, nor an interrupt the guest.
    Result<> leave_guest();
    // Loop thread: nothing is called back afterwards.
    void disconnect();

    // Calls the driver; not on the loop thread. If the driver fails, a reset by the guest has not
    // happened; one by the machine has, as far as the VMM can do it.
    enum class ResetBy : uint8_t { Guest, Machine };
    Result<> reset(ResetBy who);

    const std::array<uint64_t, kPciBars>& bar_bytes() const { return bar_bytes_; }

    std::string_view name() const override { return setup_.name; }
    uint32_t config_read(uint16_t offset, unsigned length) override;
    void config_write(uint16_t offset, unsigned length, uint32_t value) override;
    std::vector<MemoryBar> memory_bars() override;
    std::vector<PortBar> port_bars() override;
    Result<> bar_read(unsigned bar, uint64_t offset, MutBytes out) override;
    Result<> bar_write(unsigned bar, uint64_t offset, ConstBytes in) override;

    uint32_t config_bytes() const override;
    void save_config(migration::SaveStream& out) override;
    Result<> read_config(migration::LoadStream& in) override;
    Result<> apply_config() override;
    Result<> forget_config() override { return power_on(); }

 private:
    // A stretch of a BAR that one of these answers for.
    enum class Owner : uint8_t { Device, MsixTable, MsixPba };
    struct Stretch {
        Owner owner;
        uint64_t begin;
        uint64_t end;
    };
    // Whether the interrupts that are due go to the guest, or wait because the VM is stopped.
    enum class Delivery : uint8_t { IfRunning, Always };
    // Messages to be sent, and pins to be set, without the lock.
    struct Outbox {
        std::vector<MsiMessage> messages;
        std::optional<MsiSink::Level> pin;
    };
    // A config record's content, not yet compared with this device.
    struct Loaded {
        std::vector<std::byte> image;
        std::array<bool, 4> pins{};
        std::vector<std::byte> msix;
    };

    PciFunction(Setup setup, PciConfig config, IrqWiring::Infos infos);
    void map_bars();
    void set_hidden(bool hidden);

    Stretch stretch_at(unsigned bar, uint64_t offset) const;
    Result<> check_bar_access(unsigned bar, uint64_t offset, uint64_t bytes) const;
    // Whether an access that begins now counts as the end of a pin's interrupt. One that is under
    // way when the pin fires does not: it may be what made the device interrupt.
    bool handles_intx() const { return intx_waits_for_access_.load(std::memory_order_acquire); }
    void end_of_intx();

    // With the lock held.
    uint32_t irq_kind() const;  // pci_irq::..., or kPciIrqKinds: none
    void note_used_vectors();
    Outbox take_due(Delivery delivery);
    IrqWiring::Wish irq_wish() const;
    // By vector: what goes to the guest at once when it fires.
    std::vector<std::optional<MsiMessage>> unmasked_messages() const;

    void fired(uint32_t index, uint32_t vector, const util::EventFd& fd, Delivery delivery);
    void drain_interrupts();
    void deliver_what_waited();
    void deliver(Outbox outbox);
    // Brings COMMAND and the interrupts of the device to what the shadow says. One thread does it
    // at a time; others leave it to that one and go on.
    Result<> settle();
    // All that is kept here, and with it COMMAND and the interrupts of the device.
    Result<> power_on();
    struct Plan;
    Plan make_plan();
    Result<> carry_out(const Plan& plan);
    Result<Loaded> read_state(migration::LoadStream& in) const;

    enum class Trouble : uint32_t {
        Bar = 1,
        Config = 2,
        Irq = 4,
        Reset = 8,
        Route = 16,
        Mapping = 32
    };
    // Says it once per kind: a guest can bring a failure about as often as it likes.
    void warn_once(Trouble kind, const Error& error);

    const Setup setup_;
    const size_t config_bytes_;
    const std::optional<MsixLayout> msix_layout_;
    const std::array<uint64_t, kPciBars> bar_bytes_;
    std::function<void()> was_reset_;
    std::shared_ptr<IrqWiring> irqs_;
    std::optional<BarMappings> mapped_;      // used by who settles
    Loaded loaded_;                          // read, not applied yet
    util::Registration run_state_listener_;  // loop thread

    mutable std::mutex mutex_;  // all below; never held across a call of driver, sink or loop
    PciConfig config_;
    std::optional<MsixTable> msix_;
    std::vector<bool> used_vectors_;  // MSI-X: unmasked at least once since it was enabled
    bool intx_asserted_ = false;
    // The controllers' state came with the device's, and what it says of the pin need not be so.
    bool pin_loaded_ = false;
    bool hidden_ = false;  // whatever is decoded, no BAR is shown to the guest's CPUs
    bool settling_ = false;
    std::condition_variable settled_;  // settling_ has become false
    bool settle_again_ = false;
    bool command_changed_ = false;
    bool unmask_intx_ = false;

    std::atomic<bool> intx_waits_for_access_ = false;  // a hint, so that most accesses need no lock
    std::atomic<uint32_t> warned_ = 0;
};

}  // namespace ferry::vfio
