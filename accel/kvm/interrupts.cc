// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/interrupts.h"

#include <algorithm>
#include <vector>

#include "util/syscall.h"
#include "util/try.h"

namespace ferry::kvm {

namespace {

constexpr Gsi kPicSlaveFirst = 8;
// The PIT's interrupt arrives at pin 2 of the IOAPIC, where the PICs have their cascade.
constexpr Gsi kPitGsi = 0;
constexpr uint32_t kPitIoApicPin = 2;

kvm_irq_routing_entry pin_entry(Gsi gsi, uint32_t chip, uint32_t pin) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = chip;
    entry.u.irqchip.pin = pin;
    return entry;
}

kvm_irq_routing_entry message_entry(Gsi gsi, MsiMessage message) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<uint32_t>(message.address);
    entry.u.msi.address_hi = static_cast<uint32_t>(message.address >> 32);
    entry.u.msi.data = message.data;
    return entry;
}

}  // namespace

std::vector<kvm_irq_routing_entry> routing_table(const std::map<Gsi, MsiMessage>& messages) {
    std::vector<kvm_irq_routing_entry> table;
    for (Gsi gsi = 0; gsi < kPicPins; ++gsi) {
        const bool slave = gsi >= kPicSlaveFirst;
        table.push_back(pin_entry(gsi, slave ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER,
                                  slave ? gsi - kPicSlaveFirst : gsi));
    }
    for (Gsi gsi = 0; gsi < kIoApicPins; ++gsi) {
        if (gsi == kPitIoApicPin) continue;  // no device drives the cascade's line
        table.push_back(pin_entry(gsi, KVM_IRQCHIP_IOAPIC, gsi == kPitGsi ? kPitIoApicPin : gsi));
    }
    for (const auto& [gsi, message] : messages) table.push_back(message_entry(gsi, message));
    return table;
}

Result<> Interrupts::install_routes() {
    if (!capabilities_.irq_routing) return {};  // the kernel's default is the same
    const std::lock_guard lock(mutex_);
    return commit(messages_);
}

Result<> Interrupts::commit(const std::map<Gsi, MsiMessage>& messages) {
    const auto entries = routing_table(messages);
    uapi::IrqRouting table(entries.size());
    std::ranges::copy(entries, table.entries().begin());
    return calls_.set(vm_, uapi::kSetGsiRouting, table.data(), "ioctl(KVM_SET_GSI_ROUTING)");
}

Result<std::vector<Gsi>> Interrupts::add_messages(std::span<const MsiMessage> messages) {
    if (!capabilities_.irq_routing) {
        return make_error(ErrorKind::Unsupported, "the host's KVM has no interrupt routes");
    }
    const std::lock_guard lock(mutex_);
    auto wanted = messages_;
    std::vector<Gsi> added;
    Gsi next = kIoApicPins;
    for (const MsiMessage& message : messages) {
        while (wanted.contains(next)) ++next;
        if (next >= kMaxRoutes - kIoApicPins - kPicPins) {
            return make_error(ErrorKind::LimitExceeded, "all {} interrupt routes of KVM are in use",
                              kMaxRoutes);
        }
        wanted[next] = message;
        added.push_back(next);
    }
    MIG_CHECK(commit(wanted), "{} interrupt routes", added.size());
    messages_ = std::move(wanted);
    return added;
}

Result<> Interrupts::change_messages(std::span<const MessageChange> changes) {
    const std::lock_guard lock(mutex_);
    auto wanted = messages_;
    for (const MessageChange& change : changes) {
        if (change.message) {
            wanted[change.gsi] = *change.message;
        } else {
            wanted.erase(change.gsi);
        }
    }
    if (wanted == messages_) return {};
    MIG_CHECK(commit(wanted), "{} interrupt routes", changes.size());
    messages_ = std::move(wanted);
    return {};
}

Result<> Interrupts::set_line(Gsi gsi, bool level) {
    kvm_irq_level request{};
    request.irq = gsi;
    request.level = level ? 1 : 0;
    MIG_CHECK(calls_.set(vm_, KVM_IRQ_LINE, &request, "ioctl(KVM_IRQ_LINE)"), "interrupt {}", gsi);
    return {};
}

Result<bool> Interrupts::signal_msi(MsiMessage message) {
    kvm_msi request{};
    request.address_lo = static_cast<uint32_t>(message.address);
    request.address_hi = static_cast<uint32_t>(message.address >> 32);
    request.data = message.data;
    MIG_TRY(const int accepted,
            calls_.ioctl(vm_, KVM_SIGNAL_MSI, &request, "ioctl(KVM_SIGNAL_MSI)"));
    return accepted > 0;
}

Result<util::Registration> Interrupts::attach_irqfd(BorrowedFd event, Gsi gsi,
                                                    std::optional<BorrowedFd> resample) {
    if (resample && !capabilities_.irqfd_resample) {
        return make_error(ErrorKind::Unsupported,
                          "the host's KVM does not tell when an interrupt is acknowledged");
    }
    // Kept until the end: the kernel finds the attachment by the descriptor.
    MIG_TRY(UniqueFd kept, util::duplicate(event));
    kvm_irqfd request{};
    request.fd = static_cast<uint32_t>(event.raw());
    request.gsi = gsi;
    if (resample) {
        request.flags = KVM_IRQFD_FLAG_RESAMPLE;
        request.resamplefd = static_cast<uint32_t>(resample->raw());
    }
    MIG_CHECK(calls_.set(vm_, KVM_IRQFD, &request, "ioctl(KVM_IRQFD)"), "interrupt {}", gsi);
    return util::Registration([this, gsi, kept = std::move(kept)] {
        kvm_irqfd detach{};
        detach.fd = static_cast<uint32_t>(kept.raw());
        detach.gsi = gsi;
        detach.flags = KVM_IRQFD_FLAG_DEASSIGN;
        (void)calls_.set(vm_, KVM_IRQFD, &detach, "ioctl(KVM_IRQFD, deassign)");
    });
}

Result<util::Registration> Interrupts::attach_ioeventfd(BorrowedFd event, const WriteMatch& where) {
    MIG_TRY(UniqueFd kept, util::duplicate(event));
    kvm_ioeventfd request{};
    request.fd = event.raw();
    request.addr = where.address;
    request.len = where.length;
    request.datamatch = where.match.value_or(0);
    if (where.match) request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    if (where.space == IoSpace::Port) request.flags |= KVM_IOEVENTFD_FLAG_PIO;
    MIG_CHECK(calls_.set(vm_, KVM_IOEVENTFD, &request, "ioctl(KVM_IOEVENTFD)"), "{} {:#x}",
              where.space == IoSpace::Port ? "port" : "address", where.address);
    return util::Registration([this, request, kept = std::move(kept)]() mutable {
        request.fd = kept.raw();
        request.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
        (void)calls_.set(vm_, KVM_IOEVENTFD, &request, "ioctl(KVM_IOEVENTFD, deassign)");
    });
}

}  // namespace ferry::kvm
