// SPDX-License-Identifier: BSD-2-Clause
#include "hw/isa/port-bus.h"

#include <algorithm>
#include <bit>

#include "util/try.h"

namespace ferry::isa {

// Keeps a claim while somebody is inside its device.
class PortBus::Access {
 public:
    Access(PortBus& bus, uint32_t port) : bus_(bus) {
        const std::lock_guard lock(bus_.mutex_);
        const auto found = std::ranges::find_if(
            bus_.claims_, [port](const auto& claim) { return claim->holds(port); });
        if (found == bus_.claims_.end()) return;
        claim_ = found->get();
        ++claim_->accesses;
    }
    ~Access() {
        if (claim_ == nullptr) return;
        const std::lock_guard lock(bus_.mutex_);
        if (--claim_->accesses == 0) bus_.idle_.notify_all();
    }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

    PortDevice* device() const { return claim_ != nullptr ? claim_->device : nullptr; }
    uint16_t offset(uint32_t port) const { return static_cast<uint16_t>(port - claim_->first); }

 private:
    PortBus& bus_;
    Claim* claim_ = nullptr;
};

namespace {

// How many bytes at `port` go to the device at once.
unsigned piece(const PortDevice* device, uint32_t port, unsigned left) {
    const unsigned widest = device != nullptr ? device->widest() : 1;
    const unsigned aligned = port == 0 ? widest : 1u << std::min(std::countr_zero(port), 2);
    return std::bit_floor(std::min({left, widest, aligned}));
}

}  // namespace

Result<util::Registration> PortBus::claim(uint16_t first, uint32_t count, PortDevice& device) {
    auto claim = std::make_shared<Claim>(Claim{first, count, &device});
    if (count == 0 || count > kPorts - first) {
        return make_error(ErrorKind::InvalidArgument, "there are no {} ports from {:#x} on", count,
                          first);
    }
    const std::lock_guard lock(mutex_);
    if (claims_.size() == kMaxClaims) {
        return make_error(ErrorKind::LimitExceeded, "more than {} claims of ports", kMaxClaims);
    }
    for (const auto& other : claims_) {
        const bool apart = first >= other->first + other->count || other->first >= first + count;
        const bool nested = claim->within(*other) != other->within(*claim);
        if (apart || nested) continue;
        return make_error(ErrorKind::InvalidArgument,
                          "ports {:#x} to {:#x} are taken, from {:#x} to {:#x}", first,
                          first + count - 1, other->first, other->first + other->count - 1);
    }
    const auto at = std::ranges::upper_bound(claims_, count, {},
                                             [](const auto& other) { return other->count; });
    claims_.insert(at, claim);
    return util::Registration([this, claim] { let_go(claim); });
}

void PortBus::let_go(const std::shared_ptr<Claim>& claim) {
    std::unique_lock lock(mutex_);
    std::erase(claims_, claim);
    idle_.wait(lock, [&claim] { return claim->accesses == 0; });
}

uint32_t PortBus::read(uint16_t port, unsigned length) {
    uint32_t value = 0;
    for (unsigned done = 0; done < length;) {
        const uint32_t at = uint32_t{port} + done;
        const Access access(*this, at);
        const unsigned width = piece(access.device(), at, length - done);
        const uint32_t part = access.device() != nullptr
                                  ? access.device()->read(access.offset(at), width)
                                  : floating(width);
        value |= (part & floating(width)) << 8 * done;
        done += width;
    }
    return value;
}

void PortBus::write(uint16_t port, unsigned length, uint32_t value) {
    for (unsigned done = 0; done < length;) {
        const uint32_t at = uint32_t{port} + done;
        const Access access(*this, at);
        const unsigned width = piece(access.device(), at, length - done);
        if (access.device() != nullptr) {
            access.device()->write(access.offset(at), width, value >> 8 * done & floating(width));
        }
        done += width;
    }
}

}  // namespace ferry::isa
