// SPDX-License-Identifier: BSD-2-Clause
// Interrupts: from the device's eventfds to the guest, and from the guest's registers to the
// driver.
#include <utility>

#include "hw/vfio/pci-function.h"
#include "trace-points.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::vfio {

uint32_t PciFunction::irq_kind() const {
    if (config_.msix_enabled()) return pci_irq::kMsix;
    if (config_.msi_enabled()) return pci_irq::kMsi;
    return config_.interrupt_pin() != 0 ? pci_irq::kIntx : kPciIrqKinds;
}

// A vector counts from the moment that the guest unmasks it with an address. It stays connected
// when masked: an interrupt then waits in the pending bits, and no driver call is needed to unmask
// it.
void PciFunction::note_used_vectors() {
    if (!msix_) return;
    if (!config_.msix_enabled()) {
        used_vectors_.assign(used_vectors_.size(), false);
        return;
    }
    if (config_.msix_function_masked()) return;
    for (unsigned i = 0; i < msix_->vectors(); ++i) {
        if (!msix_->masked(i) && msix_->message(i).address != 0) used_vectors_[i] = true;
    }
}

PciFunction::Outbox PciFunction::take_due(Delivery delivery) {
    Outbox due;
    if (delivery == Delivery::IfRunning && !system::is_live(setup_.runstate.state())) return due;
    const uint32_t kind = irq_kind();
    if (kind == pci_irq::kMsix && !config_.msix_function_masked()) {
        for (unsigned i = 0; i < msix_->vectors(); ++i) {
            if (!msix_->pending(i) || msix_->masked(i)) continue;
            msix_->set_pending(i, false);
            due.messages.push_back(msix_->message(i));
        }
    }
    if (kind == pci_irq::kMsi) {
        for (unsigned i = 0; i < config_.msi_vectors(); ++i) {
            if (!config_.msi_pending(i) || config_.msi_masked(i)) continue;
            config_.set_msi_pending(i, false);
            due.messages.push_back(config_.msi_message(i));
        }
    }
    return due;
}

IrqWiring::Wish PciFunction::irq_wish() const {
    IrqWiring::Wish wish;
    const uint32_t kind = irq_kind();
    if (kind == kPciIrqKinds) return wish;
    wish.index = kind;
    if (kind == pci_irq::kMsix) {
        wish.vectors = used_vectors_;
    } else {
        wish.vectors.assign(kind == pci_irq::kMsi ? config_.msi_vectors() : 1, true);
    }
    return wish;
}

std::vector<std::optional<MsiMessage>> PciFunction::unmasked_messages() const {
    std::vector<std::optional<MsiMessage>> messages;
    const uint32_t kind = irq_kind();
    if (kind == pci_irq::kMsix) {
        messages.resize(used_vectors_.size());
        if (config_.msix_function_masked()) return messages;
        for (unsigned i = 0; i < messages.size(); ++i) {
            if (used_vectors_[i] && !msix_->masked(i)) messages[i] = msix_->message(i);
        }
    } else if (kind == pci_irq::kMsi) {
        messages.resize(config_.msi_vectors());
        for (unsigned i = 0; i < messages.size(); ++i) {
            if (!config_.msi_masked(i)) messages[i] = config_.msi_message(i);
        }
    }
    return messages;
}

void PciFunction::fired(uint32_t index, uint32_t vector, const util::EventFd& fd,
                        Delivery delivery) {
    Outbox due;
    {
        const std::lock_guard lock(mutex_);
        // Under the lock, so that save_config() sees the signal in one place or the other.
        if (fd.consume() == 0 || index != irq_kind()) return;
        const bool now = delivery == Delivery::Always || system::is_live(setup_.runstate.state());
        if (index == pci_irq::kMsix) {
            msix_->set_pending(vector, true);
            due = take_due(delivery);
        } else if (index == pci_irq::kMsi) {
            if (now && !config_.msi_masked(vector)) {
                due.messages.push_back(config_.msi_message(vector));
            } else {
                config_.set_msi_pending(vector, true);
            }
        } else {
            intx_asserted_ = true;
            intx_waits_for_access_ = true;
            if (now) due.pin = MsiSink::Level::High;
        }
    }
    deliver(std::move(due));
}

// The VM has stopped, but what its devices signalled before must reach its memory, which is about
// to be sent for the last time.
void PciFunction::drain_interrupts() {
    std::unique_lock lock(mutex_);
    const uint32_t kind = irq_kind();
    lock.unlock();
    if (kind == kPciIrqKinds) return;
    const std::vector<IrqWiring::Line> lines = irqs_->lines(kind);
    for (uint32_t vector = 0; vector < lines.size(); ++vector) {
        if (lines[vector]) fired(kind, vector, *lines[vector], Delivery::Always);
    }
}

void PciFunction::deliver(Outbox outbox) {
    for (const MsiMessage& message : outbox.messages) {
        setup_.sink.message(message.address, message.data);
    }
    if (outbox.pin && setup_.sink.pin) setup_.sink.pin(config_.interrupt_pin(), *outbox.pin);
}

void PciFunction::deliver_what_waited() {
    const IrqWiring::Line pin = irqs_->routed_intx();
    bool raise = false;
    std::unique_lock lock(mutex_);
    Outbox due = take_due(Delivery::Always);
    if (irq_kind() == pci_irq::kIntx && pin) {
        raise = std::exchange(intx_asserted_, false);
        intx_waits_for_access_ = false;
    } else if (irq_kind() == pci_irq::kIntx && (intx_asserted_ || pin_loaded_)) {
        due.pin = intx_asserted_ ? MsiSink::Level::High : MsiSink::Level::Low;
    }
    pin_loaded_ = false;
    lock.unlock();
    if (raise) pin->signal();
    deliver(std::move(due));
}

// The driver masked the pin when it fired and does not see the guest's end of interrupt. An access
// to the device that begins while the pin is high is taken for the guest's handler at work; if that
// was wrong, the pin fires again.
void PciFunction::end_of_intx() {
    Outbox low;
    {
        const std::lock_guard lock(mutex_);
        if (!std::exchange(intx_asserted_, false)) return;
        intx_waits_for_access_ = false;
        unmask_intx_ = true;
        low.pin = MsiSink::Level::Low;
    }
    deliver(std::move(low));
    if (auto settled = settle(); !settled) warn_once(Trouble::Irq, settled.error());
}

// What the device is to be told; taken under the lock, carried out without.
struct PciFunction::Plan {
    std::optional<uint16_t> command;
    IrqWiring::Wish irqs;
    std::vector<std::optional<MsiMessage>> messages;
    std::vector<MemoryBar> decoded;
    bool unmask_intx = false;
};

PciFunction::Plan PciFunction::make_plan() {
    Plan plan;
    if (std::exchange(command_changed_, false)) plan.command = config_.command();
    plan.irqs = irq_wish();
    plan.messages = unmasked_messages();
    if (!hidden_) plan.decoded = config_.memory_bars();
    plan.unmask_intx = std::exchange(unmask_intx_, false);
    return plan;
}

Result<> PciFunction::carry_out(const Plan& plan) {
    // An access to a BAR is what ends an interrupt of the pin, if nobody else can tell; then all
    // of them come here.
    const auto needs_accesses = [&] {
        return plan.irqs.index == pci_irq::kIntx && !irqs_->routed_intx();
    };
    // Nobody may be inside a BAR that the device is about to stop decoding.
    if (mapped_) mapped_->withdraw(needs_accesses() ? BarMappings::Decoded{} : plan.decoded);
    if (plan.command) {
        std::byte raw[sizeof(*plan.command)];
        util::store_le16(raw, *plan.command);
        constexpr uint64_t kCommand = 4;
        MIG_CHECK(setup_.io.region_write(pci_region::kConfig, kCommand, raw),
                  "writing the COMMAND register");
    }
    MIG_CHECK(irqs_->apply(plan.irqs), "setting up its interrupts");
    // What finds no way of its own comes through this process, as without routes.
    if (auto routed = irqs_->route(plan.messages); !routed) {
        warn_once(Trouble::Route, std::move(routed).error().context(
                                      "its interrupts make a detour through this process"));
    }
    if (mapped_ && !needs_accesses()) {
        if (auto shown = mapped_->show(plan.decoded); !shown) {
            warn_once(Trouble::Mapping,
                      std::move(shown).error().context("accesses go through this process"));
        }
    }
    if (plan.unmask_intx) MIG_CHECK(irqs_->unmask_intx());
    return {};
}

Result<> PciFunction::settle() {
    std::unique_lock lock(mutex_);
    if (settling_) {
        settle_again_ = true;
        return {};
    }
    settling_ = true;
    Result<> result;
    do {
        settle_again_ = false;
        const Plan plan = make_plan();
        lock.unlock();
        result = carry_out(plan);
        lock.lock();
    } while (settle_again_);
    settling_ = false;
    settled_.notify_all();
    return result;
}

Result<> PciFunction::leave_guest() {
    if (mapped_) mapped_->withdraw({});
    Outbox due;
    {
        const std::lock_guard lock(mutex_);
        if (std::exchange(intx_asserted_, false)) due.pin = MsiSink::Level::Low;
    }
    deliver(std::move(due));
    return irqs_->apply({});
}

}  // namespace ferry::vfio
