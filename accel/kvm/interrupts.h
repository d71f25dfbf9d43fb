// SPDX-License-Identifier: BSD-2-Clause
// How interrupts reach the controllers in the kernel: lines of devices, messages, eventfds, and the
// table that says what each global system interrupt (GSI) means. Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "accel/kvm/calls.h"
#include "accel/kvm/kvm.h"
#include "system/interrupt-routes.h"
#include "util/registration.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::kvm {

using Gsi = uint32_t;
// The pins of the IOAPIC; the first 16 lead to the PICs as well. Routes of messages lie above.
inline constexpr Gsi kIoApicPins = 24;
inline constexpr Gsi kPicPins = 16;
inline constexpr size_t kMaxRoutes = 4096;  // Linux's limit

using system::MsiMessage;

// The table as the kernel wants it: the lines' entries, then one per message.
std::vector<kvm_irq_routing_entry> routing_table(const std::map<Gsi, MsiMessage>& messages);

enum class IoSpace : uint8_t { Memory, Port };

class Interrupts {
 public:
    // All borrowed for the object's life; the VM's interrupt controllers exist.
    Interrupts(KernelCalls& calls, const Capabilities& capabilities, BorrowedFd vm)
        : calls_(calls), capabilities_(capabilities), vm_(vm) {}
    Interrupts(const Interrupts&) = delete;
    Interrupts& operator=(const Interrupts&) = delete;

    // The lines' default routes. Once, before the others.
    Result<> install_routes();

    // Level of a pin; edge-triggered pins see the rise.
    Result<> set_line(Gsi gsi, bool level);
    // Delivers once. The value: whether a CPU accepted it (false: masked there).
    Result<bool> signal_msi(MsiMessage message);

    // GSIs that send these messages, in their order: all of them or none. The kernel replaces its
    // whole table at each change, so what changes together is changed at once.
    Result<std::vector<Gsi>> add_messages(std::span<const MsiMessage> messages);
    struct MessageChange {
        Gsi gsi;
        std::optional<MsiMessage> message;  // none: the GSI is free again
    };
    // Of GSIs that add_messages() gave. On an Error nothing has changed.
    Result<> change_messages(std::span<const MessageChange> changes);

    // A signal on `event` raises the GSI, until the Registration goes. `event` is borrowed for the
    // call only. With `resample`, for level-triggered lines: the pin stays raised until the guest
    // has acknowledged it, which lowers it and signals `resample`.
    Result<util::Registration> attach_irqfd(BorrowedFd event, Gsi gsi,
                                            std::optional<BorrowedFd> resample = {});
    // A guest's write to [address, address + length) signals `event` instead of leaving the guest;
    // length 1, 2, 4 or 8; with `match` only a write of that value.
    struct WriteMatch {
        IoSpace space = IoSpace::Memory;
        uint64_t address = 0;
        uint32_t length = 4;
        std::optional<uint64_t> match;
    };
    Result<util::Registration> attach_ioeventfd(BorrowedFd event, const WriteMatch& where);

 private:
    Result<> commit(const std::map<Gsi, MsiMessage>& messages);

    KernelCalls& calls_;
    const Capabilities& capabilities_;
    BorrowedFd vm_;
    std::mutex mutex_;
    std::map<Gsi, MsiMessage> messages_;  // mutex_
};

}  // namespace ferry::kvm
