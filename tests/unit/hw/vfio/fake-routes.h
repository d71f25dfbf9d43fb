// SPDX-License-Identifier: BSD-2-Clause
// An accelerator's interrupt routes that only remember what is wanted of them.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <utility>

#include "system/interrupt-routes.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::test {

class FakeRoutes final : public system::InterruptRoutes {
 public:
    std::unique_ptr<system::MsiRoutes> create_msi_routes() override {
        ++devices;
        return std::make_unique<Device>(*this);
    }

    Result<util::Registration> connect_input(unsigned input, const util::EventFd& event,
                                             const util::EventFd& acknowledged) override {
        if (fail != 0) return make_errno(fail, "ioctl(KVM_IRQFD)");
        const auto at = inputs.emplace(
            input, Input{*util::duplicate(event.fd()), *util::duplicate(acknowledged.fd())});
        return util::Registration([this, at] { inputs.erase(at); });
    }

    struct Input {
        UniqueFd event;
        UniqueFd acknowledged;
        // The kernel's part: whether there was a signal, which is then taken.
        bool take() const {
            uint64_t count = 0;
            return ::read(event.raw(), &count, sizeof(count)) == sizeof(count);
        }
        void acknowledge() const {
            const uint64_t one = 1;
            EXPECT_EQ(::write(acknowledged.raw(), &one, sizeof(one)), ssize_t{sizeof(one)});
        }
    };
    std::multimap<unsigned, Input> inputs;
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
