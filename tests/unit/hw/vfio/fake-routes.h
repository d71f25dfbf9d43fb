// SPDX-License-Identifier: BSD-2-Clause
// An accelerator's interrupt routes that only remember what is wanted of them.
#pragma once

#include <map>
#include <memory>
#include <utility>

#include "system/interrupt-routes.h"
#include "util/try.h"

namespace ferry::test {

class FakeRoutes final : public system::InterruptRoutes {
 public:
    std::unique_ptr<system::MsiRoutes> create_msi_routes() override {
        ++devices;
        return std::make_unique<Device>(*this);
    }

    std::map<size_t, system::MsiMessage> connected;  // by vector, of the one device that there is
    std::map<size_t, std::shared_ptr<const util::EventFd>> events;
    unsigned calls = 0;
    unsigned devices = 0;  // that have not given back theirs
    int fail = 0;          // errno of the next calls

 private:
    class Device final : public system::MsiRoutes {
     public:
        explicit Device(FakeRoutes& owner) : owner_(owner) {}
        ~Device() override {
            (void)connect({}).has_value();
            --owner_.devices;
        }
        Device(const Device&) = delete;
        Device& operator=(const Device&) = delete;
        Result<> connect(std::span<const std::optional<Vector>> wanted) override {
            ++owner_.calls;
            owner_.connected.clear();
            owner_.events.clear();
            if (owner_.fail != 0 && !wanted.empty()) {
                return make_errno(owner_.fail, "ioctl(KVM_IRQFD)");
            }
            for (size_t i = 0; i < wanted.size(); ++i) {
                if (!wanted[i]) continue;
                owner_.connected[i] = wanted[i]->message;
                owner_.events[i] = wanted[i]->event;
            }
            return {};
        }

     private:
        FakeRoutes& owner_;
    };
};

}  // namespace ferry::test
