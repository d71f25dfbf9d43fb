// SPDX-License-Identifier: BSD-2-Clause
// The test device's DMA: commands of the guest, and pages it writes by itself, at a rate.
#pragma once

#include <cstdint>
#include <mutex>

#include "hw/dma-log.h"
#include "hw/test-device-registers.h"

namespace ferry::hw {

// Thread-safe. Lock order: mutex_, then the insides' mutex; never held together with a transfer is
// the latter, so guests go on reading registers meanwhile.
class TestDeviceDma {
 public:
    TestDeviceDma(TestDeviceInsides& insides, DmaLog& log, uint64_t pages_per_s)
        : insides_(insides), log_(log), pacer_(pages_per_s) {}

    void connect(DmaAccess& memory, util::Nanoseconds now);
    // DMA is allowed from now on / over: nothing is under way then, all is in the log.
    void start(util::Nanoseconds now);
    void quiesce(util::Nanoseconds now);

    void run_command(uint32_t command);  // outcome in kDmaStatus
    void write_due(util::Nanoseconds now);
    void write_pages(uint64_t pages);

 private:
    // With mutex_ held.
    int execute(uint32_t command);  // errno, or 0
    int fill(system::Iova iova, uint32_t bytes, uint32_t value);
    int to_state(system::Iova iova, uint32_t bytes, uint32_t offset);
    int from_state(system::Iova iova, uint32_t bytes, uint32_t offset);
    int write(system::Iova iova, ConstBytes bytes);
    void write_pages_locked(uint64_t pages);

    TestDeviceInsides& insides_;
    DmaLog& log_;

    std::mutex mutex_;  // one transfer at a time; held while it goes on
    DmaAccess* memory_ = nullptr;
    enum class Engine : uint8_t { Stopped, Running };
    Engine engine_ = Engine::Running;
    TestDevicePacer pacer_;
};

}  // namespace ferry::hw
