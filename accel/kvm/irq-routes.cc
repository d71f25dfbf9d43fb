// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/irq-routes.h"

#include <vector>

#include "util/try.h"

namespace ferry::kvm {

namespace {

// Where the local APICs listen. The kernel looks at the lower half of the address only and would
// make an interrupt of every message; elsewhere it is a write to memory.
constexpr uint64_t kMessagesFirst = 0xfee0'0000;
constexpr uint64_t kMessagesLast = 0xfeef'ffff;

bool is_interrupt(const MsiMessage& message) {
    return message.address >= kMessagesFirst && message.address <= kMessagesLast;
}

}  // namespace

KvmMsiRoutes::~KvmMsiRoutes() {
    // Fails for want of memory at most; the entries then stay, and nobody signals them.
    (void)give_back().has_value();
}

Result<> KvmMsiRoutes::connect(std::span<const std::optional<Vector>> wanted) {
    if (wanted.empty()) return give_back();
    Wanted chosen;
    for (size_t i = 0; i < wanted.size(); ++i) {
        if (wanted[i] && is_interrupt(wanted[i]->message)) chosen.emplace(i, *wanted[i]);
    }
    for (auto& [vector, route] : routes_) {
        const auto known = chosen.find(vector);
        if (known == chosen.end() || known->second.event != route.event) route.disconnect();
    }
    MIG_CHECK(route(chosen));
    return attach(chosen);
}

Result<> KvmMsiRoutes::give_back() {
    std::vector<Interrupts::MessageChange> changes;
    for (auto& [vector, route] : routes_) {
        route.disconnect();
        changes.push_back({.gsi = route.gsi, .message = std::nullopt});
    }
    if (changes.empty()) return {};
    MIG_CHECK(interrupts_.change_messages(changes));
    routes_.clear();
    return {};
}

// What is connected already sends the new message from now on; it must not send the old one if that
// cannot be had.
Result<> KvmMsiRoutes::route(const Wanted& wanted) {
    std::vector<Interrupts::MessageChange> changes;
    std::vector<size_t> added;
    std::vector<MsiMessage> messages;
    for (const auto& [vector, entry] : wanted) {
        const auto known = routes_.find(vector);
        if (known == routes_.end()) {
            added.push_back(vector);
            messages.push_back(entry.message);
        } else if (known->second.message != entry.message) {
            changes.push_back({.gsi = known->second.gsi, .message = entry.message});
        }
    }
    if (!changes.empty()) {
        auto changed = interrupts_.change_messages(changes);
        for (const auto& [vector, entry] : wanted) {
            const auto known = routes_.find(vector);
            if (known == routes_.end() || known->second.message == entry.message) continue;
            if (changed) {
                known->second.message = entry.message;
            } else {
                known->second.disconnect();
            }
        }
        MIG_CHECK(std::move(changed));
    }
    if (added.empty()) return {};
    MIG_TRY(const auto gsis, interrupts_.add_messages(messages));
    for (size_t i = 0; i < added.size(); ++i) {
        routes_[added[i]] = {.gsi = gsis[i], .message = messages[i], .event = nullptr, .irqfd = {}};
    }
    return {};
}

Result<> KvmMsiRoutes::attach(const Wanted& wanted) {
    for (const auto& [vector, entry] : wanted) {
        Route& route = routes_.at(vector);
        if (route.event) continue;
        MIG_TRY(route.irqfd, interrupts_.attach_irqfd(entry.event->fd(), route.gsi), "vector {}",
                vector);
        route.event = entry.event;
        // The kernel has sent what waited in it, but leaves it there.
        entry.event->consume();
    }
    return {};
}

}  // namespace ferry::kvm
