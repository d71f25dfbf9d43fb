// SPDX-License-Identifier: BSD-2-Clause
// A VfioDeviceIo that does what a test tells it: the kernel's state machine and data sessions over
// a content of plain bytes, faults at single arcs and calls, and a log of everything it was asked.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hw/vfio/vfio-device-io.h"

namespace ferry::test {

// What all devices of a test were asked, in order: "a: set pre-copy", "a: reset". Thread-safe.
class CallLog {
 public:
    void add(std::string line);
    std::vector<std::string> lines() const;
    // Without the questions ("get ...") and the data.
    std::vector<std::string> changes() const;
    void clear();

 private:
    mutable std::mutex mutex_;
    std::vector<std::string> lines_;
};

// Thread-safe; one lock, held only inside a call (and not while an arc is held).
class ScriptedDeviceIo final : public vfio::VfioDeviceIo {
 public:
    ScriptedDeviceIo(std::string name, vfio::MigCaps caps, CallLog& log);
    ~ScriptedDeviceIo() override;

    // --- the script
    // What is saved; what was loaded and accepted. Of the content, the first `pre_copy` bytes are
    // readable in pre-copy, of them the first `initial` as initial bytes.
    void set_content(std::vector<std::byte> content, size_t pre_copy = 0, size_t initial = 0);
    std::vector<std::byte> content() const;
    enum class After : uint8_t { Stays, Lost, HappensAnyway };
    // The next elementary arc from -> to fails.
    void fail_arc(vfio::MigState from, vfio::MigState to, int errnum, After after = After::Stays);
    // The n-th next call of that kind (1: the next) fails: "caps", "get state", "reset", "size",
    // "read", "write", "precopy info", "log supported", "log start", "log report", "log stop".
    void fail_call(const std::string& call, int errnum, int nth = 1);
    void fail_calls(const std::string& call, int errnum);  // all
    void mend_calls(const std::string& call);
    // The next change to `next` returns a data stream whether it should or not.
    void add_stream_at(vfio::MigState next);
    void set_transfer_limit(size_t bytes);  // reads and writes are that short
    void set_stop_copy_bytes(uint64_t bytes);
    void set_dma_logging(bool supported);
    void set_max_log_ranges(size_t count);  // more: E2BIG
    void set_iommu_log(vfio::IommuDirtyLog* log) { iommu_log_ = log; }
    // The next change that enters `state` blocks, until release_arcs().
    void hold_arc(vfio::MigState state);
    void wait_until_held();
    void release_arcs();
    // The device writes to guest memory.
    void dma(uint64_t iova, uint64_t length);

    // --- what to look at
    vfio::MigState state() const;
    int open_streams() const;
    std::vector<vfio::DmaLogRange> logged_ranges() const;

    // --- VfioDeviceIo
    Result<vfio::DeviceInfo> info() override;
    Result<vfio::RegionInfo> region_info(uint32_t region) override;
    Result<vfio::IrqInfo> irq_info(uint32_t index) override;
    Result<> set_irq_eventfds(uint32_t index, uint32_t start,
                              std::span<const BorrowedFd> fds) override;
    Result<> disable_irqs(uint32_t index) override;
    Result<> set_irq_masked(uint32_t index, uint32_t vector, bool masked) override;
    Result<> reset() override;
    Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) override;
    Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) override;
    Result<util::MappedRegion> region_map(uint32_t region, uint64_t offset, uint64_t size) override;
    Result<vfio::MigCaps> migration_caps() override;
    Result<vfio::MigState> mig_state() override;
    Result<std::unique_ptr<vfio::MigDataStream>> set_mig_state(vfio::MigState next) override;
    Result<uint64_t> stop_copy_bytes() override;
    Result<bool> dma_logging_supported() override;
    Result<> dma_logging_start(std::span<const vfio::DmaLogRange> ranges,
                               uint64_t page_size) override;
    Result<> dma_logging_report(vfio::DmaLogRange range, uint64_t page_size,
                                util::Bitmap& out) override;
    Result<> dma_logging_stop() override;
    vfio::IommuDirtyLog* iommu_dirty_log() override { return iommu_log_; }

 private:
    class Stream;
    struct Core;
    std::shared_ptr<Core> core_;  // streams outlive the device
    vfio::IommuDirtyLog* iommu_log_ = nullptr;
};

std::vector<std::byte> content_of(std::string_view text);

}  // namespace ferry::test
