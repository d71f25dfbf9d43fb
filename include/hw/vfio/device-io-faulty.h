// SPDX-License-Identifier: BSD-2-Clause
// A device whose calls fail, come back short or are held, as a script or a test says; it keeps a
// log of what it was asked. Script language: docs/devel/device-io.rst.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "hw/vfio/device-io-forwarding.h"
#include "util/env.h"

namespace ferry::vfio {

// What shall happen to the calls of one device, or of several. Thread-safe. A pattern is the name
// of a call ("read state", "set state stop-copy", "arc:running-p2p->stop", ...); * and ? stand for
// any characters, any one. "#3" is the third call of all that match, counted from the request on.
class FaultControl {
 public:
    static Result<std::shared_ptr<FaultControl>> parse(std::string_view script);
    // All statements, or none and an InvalidArgument.
    Result<> apply(std::string_view script);

    // A device that is lost is in ERROR until it is reset. For arcs only.
    enum class Then : uint8_t { DeviceStays, DeviceIsLost };
    struct Fault {
        std::string pattern;
        uint64_t nth = 1;
        int errnum = 0;
        Then then = Then::DeviceStays;
    };
    void fail(Fault fault);  // once
    // From the nth one on, calls that match block, until release(), which ends all holds.
    void hold(std::string pattern, uint64_t nth = 1);
    void release();

    // The most that one read or write of device data moves; 0: no limit.
    void limit_reads(size_t bytes);
    void limit_writes(size_t bytes);
    // In pre-copy every other read finds nothing, though there is data.
    enum class EmptyReads : uint8_t { Off, On };
    void set_empty_reads(EmptyReads empty_reads);

    struct Call {
        std::string device;
        std::string name;
        std::string arguments;
        friend bool operator==(const Call&, const Call&) = default;
    };
    std::vector<Call> log() const;  // the first kMaxLog
    void clear_log();
    uint64_t count(std::string_view pattern) const;  // so far
    std::vector<Call> held() const;
    void wait_until_held(size_t calls = 1) const;  // blocks

    static constexpr size_t kMaxLog = 65536;

    // The devices' side.
    struct Outcome {
        Result<> result;
        Then then = Then::DeviceStays;
    };
    Outcome on_call(const util::Tracer& trace, Call call);  // blocks while held
    struct DataRules {
        size_t read_limit = 0, write_limit = 0;
        EmptyReads empty_reads = EmptyReads::Off;
    };
    DataRules data_rules() const;

 private:
    struct Script;
    struct Hold {
        std::string pattern;
        uint64_t nth;
    };
    static Result<Script> read_script(std::string_view script);
    bool wants_hold(const std::string& name);
    Outcome take_fault(const Call& call);

    mutable std::mutex mutex_;
    mutable std::condition_variable changed_;
    std::vector<Fault> faults_;
    std::vector<Hold> holds_;
    uint64_t releases_ = 0;
    std::vector<Call> held_;
    DataRules data_;
    std::vector<Call> log_;
    std::map<std::string, uint64_t, std::less<>> counts_;  // by name
};

// Requests for a distant state are passed on arc by arc, so that each arc can fail or be held.
class FaultyDeviceIo final : public ForwardingDeviceIo {
 public:
    FaultyDeviceIo(std::unique_ptr<VfioDeviceIo> disturbed, std::shared_ptr<FaultControl> control,
                   util::Env& env, std::string name);

    Result<DeviceInfo> info() override;
    Result<RegionInfo> region_info(uint32_t region) override;
    Result<IrqInfo> irq_info(uint32_t index) override;
    Result<> set_irq_eventfds(uint32_t index, uint32_t start,
                              std::span<const BorrowedFd> fds) override;
    Result<> disable_irqs(uint32_t index) override;
    Result<> set_irq_masked(uint32_t index, uint32_t vector, bool masked) override;
    Result<> set_irq_unmask_eventfd(uint32_t index, uint32_t vector, BorrowedFd fd) override;
    Result<> reset() override;

    Result<> region_read(uint32_t region, uint64_t offset, MutBytes out) override;
    Result<> region_write(uint32_t region, uint64_t offset, ConstBytes in) override;
    Result<util::MappedRegion> region_map(uint32_t region, uint64_t offset, uint64_t size) override;

    Result<MigCaps> migration_caps() override;
    Result<MigState> mig_state() override;
    Result<std::unique_ptr<MigDataStream>> set_mig_state(MigState next) override;
    Result<uint64_t> stop_copy_bytes() override;

    Result<bool> dma_logging_supported() override;
    Result<> dma_logging_start(std::span<const DmaLogRange> ranges, uint64_t page_size) override;
    Result<> dma_logging_report(DmaLogRange range, uint64_t page_size, util::Bitmap& out) override;
    Result<> dma_logging_stop() override;

 private:
    struct Shared;
    class Stream;
    Result<> before(std::string_view name, std::string arguments = {});
    Result<std::unique_ptr<MigDataStream>> take_arc(MigState from, MigState to);

    std::shared_ptr<Shared> shared_;  // with the streams
};

}  // namespace ferry::vfio
