// SPDX-License-Identifier: BSD-2-Clause
// How interrupts reach the controllers in the kernel: lines of devices, messages, eventfds, and the
// table that says what each global system interrupt (GSI) means. Thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "accel/kvm/calls.h"
#include "accel/kvm/kvm.h"
#include "util/registration.h"
#include "util/result.h"
#include "util/unique-fd.h"

namespace ferry::kvm {

using Gsi = uint32_t;
// The pins of the IOAPIC; the first 16 lead to the PICs as well. Routes of messages lie above.
inline constexpr Gsi kIoApicPins = 24;
inline constexpr Gsi kPicPins = 16;
inline constexpr size_t kMaxRoutes = 4096;  // Linux's limit

struct MsiMessage {
    uint64_t address = 0;
    uint32_t data = 0;
    bool operator==(const MsiMessage&) const = default;
};

// The table as the kernel wants it: the lines' entries, then one per message.
std::vector<kvm_irq_routing_entry> routing_table(const std::map<Gsi, MsiMessage>& messages);

class Interrupts;

// A GSI that sends a message, until it goes. Must not outlive the VM.
class MsiRoute {
 public:
    MsiRoute(Interrupts& owner, Gsi gsi) : owner_(owner), gsi_(gsi) {}
    ~MsiRoute();
    MsiRoute(const MsiRoute&) = delete;
    MsiRoute& operator=(const MsiRoute&) = delete;
    Gsi gsi() const { return gsi_; }
    // The next interrupt is the new message.
    Result<> update(MsiMessage message);

 private:
    Interrupts& owner_;
    Gsi gsi_;
};

enum class IoSpace : uint8_t { Memory, Port };

class Interrupts {
 public:
    // `vm` is borrowed for the object's life; its interrupt controllers exist.
    Interrupts(const Kvm& kvm, BorrowedFd vm) : kvm_(kvm), calls_(kvm.calls()), vm_(vm) {}
    Interrupts(const Interrupts&) = delete;
    Interrupts& operator=(const Interrupts&) = delete;

    // The lines' default routes. Once, before the others.
    Result<> install_routes();

    // Level of a pin; edge-triggered pins see the rise.
    Result<> set_line(Gsi gsi, bool level);
    // Delivers once. The value: whether a CPU accepted it (false: masked there).
    Result<bool> signal_msi(MsiMessage message);

    Result<std::unique_ptr<MsiRoute>> add_msi_route(MsiMessage message);

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
    friend class MsiRoute;
    Result<> change_route(Gsi gsi, std::optional<MsiMessage> message);
    Result<> commit(const std::map<Gsi, MsiMessage>& messages);

    const Kvm& kvm_;
    KernelCalls& calls_;
    BorrowedFd vm_;
    std::mutex mutex_;
    std::map<Gsi, MsiMessage> messages_;  // mutex_
};

}  // namespace ferry::kvm
