// SPDX-License-Identifier: BSD-2-Clause
// What VFIO devices see of KVM's interrupt controllers: routes of messages and irqfds.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>

#include "accel/kvm/interrupts.h"
#include "system/interrupt-routes.h"
#include "util/registration.h"

namespace ferry::kvm {

// A vector has a GSI from the first time that it is connected until the device gives all back, so
// that a guest which masks and unmasks it costs no exchange of the routing table.
class KvmMsiRoutes final : public system::MsiRoutes {
 public:
    explicit KvmMsiRoutes(Interrupts& interrupts) : interrupts_(interrupts) {}
    ~KvmMsiRoutes() override;
    KvmMsiRoutes(const KvmMsiRoutes&) = delete;
    KvmMsiRoutes& operator=(const KvmMsiRoutes&) = delete;

    Result<> connect(std::span<const std::optional<Vector>> wanted) override;

 private:
    struct Route {
        Gsi gsi = 0;
        MsiMessage message;
        std::shared_ptr<const util::EventFd> event;  // set while connected
        util::Registration irqfd;

        void disconnect() {
            irqfd.reset();
            event.reset();
        }
    };
    using Wanted = std::map<size_t, Vector>;
    Result<> give_back();
    Result<> route(const Wanted& wanted);
    Result<> attach(const Wanted& wanted);

    Interrupts& interrupts_;
    std::map<size_t, Route> routes_;  // by vector
};

class KvmInterruptRoutes final : public system::InterruptRoutes {
 public:
    // Borrowed for the life of this and of all that it creates.
    explicit KvmInterruptRoutes(Interrupts& interrupts) : interrupts_(interrupts) {}
    std::unique_ptr<system::MsiRoutes> create_msi_routes() override {
        return std::make_unique<KvmMsiRoutes>(interrupts_);
    }
    Result<util::Registration> connect_input(unsigned input, const util::EventFd& event,
                                             const util::EventFd& acknowledged) override {
        return interrupts_.attach_irqfd(event.fd(), input, acknowledged.fd());
    }

 private:
    Interrupts& interrupts_;
};

}  // namespace ferry::kvm
