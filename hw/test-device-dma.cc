// SPDX-License-Identifier: BSD-2-Clause
#include "hw/test-device-dma.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "util/wire.h"

namespace ferry::hw {

using namespace test_device_reg;
using system::Iova;
using system::kPageSize;

namespace {

constexpr uint32_t kMaxBytes = 1 << 20;
constexpr uint32_t kAutoEnable = 1;

std::vector<std::byte> pattern32(uint32_t bytes, uint32_t value) {
    std::vector<std::byte> out(bytes);
    for (uint32_t i = 0; i < bytes; i += sizeof(value)) util::store_le32(out.data() + i, value);
    return out;
}

void fill_page(MutBytes page, uint64_t value) {
    for (size_t i = 0; i < page.size(); i += sizeof(value)) {
        util::store_le64(page.data() + i, value);
    }
}

}  // namespace

void TestDeviceDma::connect(DmaAccess& memory, util::Nanoseconds now) {
    const std::lock_guard lock(mutex_);
    memory_ = &memory;
    pacer_.start(now);
}

void TestDeviceDma::start(util::Nanoseconds now) {
    const std::lock_guard lock(mutex_);
    engine_ = Engine::Running;
    pacer_.start(now);
}

void TestDeviceDma::quiesce(util::Nanoseconds now) {
    write_due(now);
    const std::lock_guard lock(mutex_);
    engine_ = Engine::Stopped;
}

void TestDeviceDma::run_command(uint32_t command) {
    const std::lock_guard lock(mutex_);
    const int status = execute(command);
    const std::lock_guard guard(insides_.mutex);
    TestDeviceRegisters& registers = insides_.registers;
    registers.set(kDmaStatus, static_cast<uint32_t>(status));
    if (status == 0) registers.set(kDmaCount, registers.get(kDmaCount) + 1);
}

int TestDeviceDma::execute(uint32_t command) {
    Iova iova = 0;
    uint32_t bytes = 0, value = 0, offset = 0;
    {
        const std::lock_guard guard(insides_.mutex);
        if (!insides_.config_space.bus_master()) return EPERM;
        iova = insides_.registers.get64(kDmaIova);
        bytes = insides_.registers.get(kDmaBytes);
        value = insides_.registers.get(kDmaValue);
        offset = insides_.registers.get(kStateOffset);
    }
    if (engine_ == Engine::Stopped || memory_ == nullptr) return EBUSY;
    if (bytes == 0 || bytes % sizeof(uint32_t) != 0 || bytes > kMaxBytes) return EINVAL;
    const uint64_t state_bytes = insides_.state.size();
    const bool in_state = offset <= state_bytes && bytes <= state_bytes - offset;
    switch (command) {
        case kDmaFill: return fill(iova, bytes, value);
        case kDmaToState: return in_state ? to_state(iova, bytes, offset) : EINVAL;
        case kDmaFromState: return in_state ? from_state(iova, bytes, offset) : EINVAL;
        default: return EINVAL;
    }
}

int TestDeviceDma::write(Iova iova, ConstBytes bytes) {
    const auto written = memory_->dma_write(iova, bytes);
    // After the write, and of a failed one, too: part of it may have been done.
    log_.mark(iova, bytes.size());
    return written ? 0 : EFAULT;
}

int TestDeviceDma::fill(Iova iova, uint32_t bytes, uint32_t value) {
    return write(iova, pattern32(bytes, value));
}

int TestDeviceDma::to_state(Iova iova, uint32_t bytes, uint32_t offset) {
    std::vector<std::byte> copy(bytes);
    if (!memory_->dma_read(iova, copy)) return EFAULT;
    const std::lock_guard guard(insides_.mutex);
    std::ranges::copy(copy, insides_.state.bytes().begin() + offset);
    insides_.registers.touched(offset, bytes);
    return 0;
}

int TestDeviceDma::from_state(Iova iova, uint32_t bytes, uint32_t offset) {
    std::vector<std::byte> copy(bytes);
    {
        const std::lock_guard guard(insides_.mutex);
        std::ranges::copy(insides_.state.bytes().subspan(offset, bytes), copy.begin());
    }
    return write(iova, copy);
}

void TestDeviceDma::write_due(util::Nanoseconds now) {
    const std::lock_guard lock(mutex_);
    if (engine_ == Engine::Stopped) return;
    write_pages_locked(pacer_.take(now, 1));
}

void TestDeviceDma::write_pages(uint64_t pages) {
    const std::lock_guard lock(mutex_);
    write_pages_locked(pages);
}

void TestDeviceDma::write_pages_locked(uint64_t pages) {
    if (pages == 0 || engine_ == Engine::Stopped || memory_ == nullptr) return;
    Iova iova = 0;
    uint64_t bytes = 0, written = 0;
    {
        const std::lock_guard guard(insides_.mutex);
        const TestDeviceRegisters& registers = insides_.registers;
        if ((registers.get(kAutoControl) & kAutoEnable) == 0) return;
        if (!insides_.config_space.bus_master()) return;
        iova = registers.get64(kAutoIova);
        bytes = registers.get64(kAutoBytes);
        written = registers.get64(kAutoPages);
    }
    int status = 0;
    if (bytes < kPageSize || bytes % kPageSize != 0 || iova % kPageSize != 0 ||
        iova + (bytes - 1) < iova) {
        status = EINVAL;
    }
    std::vector<std::byte> page(kPageSize);
    const uint64_t region_pages = std::max<uint64_t>(bytes / kPageSize, 1);
    // What is due beyond one round would be overwritten by the next one.
    for (uint64_t i = 0; i < std::min(pages, region_pages) && status == 0; ++i) {
        fill_page(page, written + 1);
        status = write(iova + written % region_pages * kPageSize, page);
        if (status == 0) ++written;
    }
    const std::lock_guard guard(insides_.mutex);
    TestDeviceRegisters& registers = insides_.registers;
    registers.set(kAutoStatus, static_cast<uint32_t>(status));
    if (status != 0) registers.set(kAutoControl, registers.get(kAutoControl) & ~kAutoEnable);
    registers.set64(kAutoPages, written);
}

}  // namespace ferry::hw
