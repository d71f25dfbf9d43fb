// SPDX-License-Identifier: BSD-2-Clause
// The eventfds behind a device model's interrupts, with the kernel's rules for connecting them.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "hw/device-model.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/unique-fd.h"

namespace ferry::vfio {

// Thread-safe.
class SoftIrqs final : public hw::IrqSink {
 public:
    explicit SoftIrqs(const hw::DeviceModel& model);

    Result<IrqInfo> info(uint32_t index) const;
    // An invalid fd disconnects its vector. Nothing changes on an Error.
    Result<> set_eventfds(uint32_t index, uint32_t start, std::span<const BorrowedFd> fds);
    Result<> disable(uint32_t index);
    Result<> set_masked(uint32_t index, uint32_t vector, bool masked);
    void raise(uint32_t irq_index, uint32_t vector) override;

 private:
    struct Vector {
        UniqueFd eventfd;
        bool masked = false;
        bool pending = false;  // raised while masked
    };
    struct Index {
        IrqInfo info;
        std::vector<Vector> vectors;
    };
    Result<Index*> find(uint32_t index);

    mutable std::mutex mutex_;
    std::vector<Index> indexes_;
};

}  // namespace ferry::vfio
