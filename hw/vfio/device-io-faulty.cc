// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/device-io-faulty.h"

#include <atomic>
#include <cerrno>

#include "hw/vfio/device-io-calls.h"
#include "util/try.h"

namespace ferry::vfio {

struct FaultyDeviceIo::Shared {
    const std::shared_ptr<FaultControl> control;
    util::Env& env;
    const std::string name;
    std::atomic<bool> lost = false;                   // pretends to be in ERROR
    std::atomic<MigState> state = MigState::Running;  // as far as the caller's requests went

    FaultControl::Outcome on_call(std::string_view call, std::string arguments) {
        return control->on_call(env.trace, {name, std::string(call), std::move(arguments)});
    }
    bool in_precopy() const { return state == MigState::PreCopy || state == MigState::PreCopyP2P; }
};

class FaultyDeviceIo::Stream final : public ForwardingDataStream {
 public:
    Stream(std::unique_ptr<MigDataStream> disturbed, std::shared_ptr<Shared> shared)
        : ForwardingDataStream(std::move(disturbed)), shared_(std::move(shared)) {}

    Result<Read> read_some(MutBytes into) override {
        MIG_CHECK(before(call::kReadState, fmt::format("{} bytes", into.size())));
        const auto rules = shared_->control->data_rules();
        if (rules.empty_reads == FaultControl::EmptyReads::On && shared_->in_precopy()) {
            next_is_empty_ = !next_is_empty_;
            if (next_is_empty_) return Read{0};
        }
        if (rules.read_limit != 0) into = into.first(std::min(into.size(), rules.read_limit));
        return ForwardingDataStream::read_some(into);
    }
    Result<size_t> write_some(ConstBytes from) override {
        MIG_CHECK(before(call::kWriteState, fmt::format("{} bytes", from.size())));
        const size_t limit = shared_->control->data_rules().write_limit;
        if (limit != 0) from = from.first(std::min(from.size(), limit));
        return ForwardingDataStream::write_some(from);
    }
    Result<PrecopyInfo> precopy_info() override {
        MIG_CHECK(before(call::kPrecopyInfo, {}));
        return ForwardingDataStream::precopy_info();
    }

 private:
    Result<> before(std::string_view call, std::string arguments) {
        MIG_CHECK(shared_->on_call(call, std::move(arguments)).result);
        if (!shared_->lost) return {};
        return make_errno(ENODEV, "{}: the data session is over", shared_->name);
    }

    const std::shared_ptr<Shared> shared_;
    bool next_is_empty_ = false;
};

FaultyDeviceIo::FaultyDeviceIo(std::unique_ptr<VfioDeviceIo> disturbed,
                               std::shared_ptr<FaultControl> control, util::Env& env,
                               std::string name)
    : ForwardingDeviceIo(std::move(disturbed)),
      shared_(new Shared{std::move(control), env, std::move(name)}) {}

Result<> FaultyDeviceIo::before(std::string_view name, std::string arguments) {
    return shared_->on_call(name, std::move(arguments)).result;
}

Result<DeviceInfo> FaultyDeviceIo::info() {
    MIG_CHECK(before(call::kInfo));
    return inner().info();
}

Result<RegionInfo> FaultyDeviceIo::region_info(uint32_t region) {
    MIG_CHECK(before(call::kRegionInfo, fmt::format("region {}", region)));
    return inner().region_info(region);
}

Result<IrqInfo> FaultyDeviceIo::irq_info(uint32_t index) {
    MIG_CHECK(before(call::kIrqInfo, fmt::format("index {}", index)));
    return inner().irq_info(index);
}

Result<> FaultyDeviceIo::set_irq_eventfds(uint32_t index, uint32_t start,
                                          std::span<const BorrowedFd> fds) {
    MIG_CHECK(before(call::kSetIrqs,
                     fmt::format("index {} start {} count {}", index, start, fds.size())));
    return inner().set_irq_eventfds(index, start, fds);
}

Result<> FaultyDeviceIo::disable_irqs(uint32_t index) {
    MIG_CHECK(before(call::kDisableIrqs, fmt::format("index {}", index)));
    return inner().disable_irqs(index);
}

Result<> FaultyDeviceIo::set_irq_masked(uint32_t index, uint32_t vector, bool masked) {
    MIG_CHECK(before(masked ? call::kMaskIrq : call::kUnmaskIrq,
                     fmt::format("index {} vector {}", index, vector)));
    return inner().set_irq_masked(index, vector, masked);
}

Result<> FaultyDeviceIo::set_irq_unmask_eventfd(uint32_t index, uint32_t vector, BorrowedFd fd) {
    MIG_CHECK(before(call::kUnmaskEventfd, fmt::format("index {} vector {}", index, vector)));
    return inner().set_irq_unmask_eventfd(index, vector, fd);
}

Result<> FaultyDeviceIo::reset() {
    MIG_CHECK(before(call::kReset));
    MIG_CHECK(inner().reset());
    shared_->lost = false;
    shared_->state = MigState::Running;
    return {};
}

Result<> FaultyDeviceIo::region_read(uint32_t region, uint64_t offset, MutBytes out) {
    MIG_CHECK(before(call::read_region(region), fmt::format("{:#x}+{}", offset, out.size())));
    return inner().region_read(region, offset, out);
}

Result<> FaultyDeviceIo::region_write(uint32_t region, uint64_t offset, ConstBytes in) {
    MIG_CHECK(before(call::write_region(region), fmt::format("{:#x}+{}", offset, in.size())));
    return inner().region_write(region, offset, in);
}

Result<util::MappedRegion> FaultyDeviceIo::region_map(uint32_t region, uint64_t offset,
                                                      uint64_t size) {
    MIG_CHECK(before(call::map_region(region), fmt::format("{:#x}+{}", offset, size)));
    return inner().region_map(region, offset, size);
}

Result<MigCaps> FaultyDeviceIo::migration_caps() {
    MIG_CHECK(before(call::kCaps));
    return inner().migration_caps();
}

Result<MigState> FaultyDeviceIo::mig_state() {
    MIG_CHECK(before(call::kGetState));
    if (shared_->lost) return MigState::Error;
    return inner().mig_state();
}

Result<std::unique_ptr<MigDataStream>> FaultyDeviceIo::set_mig_state(MigState next) {
    MIG_CHECK(before(call::set_state(next)));
    if (shared_->lost) {
        return make_errno(EINVAL, "{}: only a reset leaves state error", shared_->name);
    }
    const auto caps = inner().migration_caps();
    const auto state = inner().mig_state();
    // What has no path is the device's to refuse.
    if (!caps || !state) return inner().set_mig_state(next);
    const auto path = mig_path(*caps, *state, next);
    if (!path) return inner().set_mig_state(next);
    std::unique_ptr<MigDataStream> stream;
    MigState at = *state;
    for (const MigState step : *path) {
        MIG_TRY(stream, take_arc(at, step));
        at = step;
    }
    if (stream == nullptr) return std::unique_ptr<MigDataStream>();
    return std::make_unique<Stream>(std::move(stream), shared_);
}

Result<std::unique_ptr<MigDataStream>> FaultyDeviceIo::take_arc(MigState from, MigState to) {
    auto outcome = shared_->on_call(call::arc(from, to), {});
    if (!outcome.result) {
        if (outcome.then == FaultControl::Then::DeviceIsLost) {
            shared_->lost = true;
            shared_->state = MigState::Error;
        }
        return std::move(outcome.result).error();
    }
    MIG_TRY(auto stream, inner().set_mig_state(to));
    shared_->state = to;
    return stream;
}

Result<uint64_t> FaultyDeviceIo::stop_copy_bytes() {
    MIG_CHECK(before(call::kStopCopyBytes));
    return inner().stop_copy_bytes();
}

Result<bool> FaultyDeviceIo::dma_logging_supported() {
    MIG_CHECK(before(call::kLogProbe));
    return inner().dma_logging_supported();
}

Result<> FaultyDeviceIo::dma_logging_start(std::span<const DmaLogRange> ranges,
                                           uint64_t page_size) {
    std::string arguments = fmt::format("pages of {}", page_size);
    for (const auto& range : ranges) {
        arguments += fmt::format(", {:#x}+{:#x}", range.iova, range.length);
    }
    MIG_CHECK(before(call::kLogStart, std::move(arguments)));
    return inner().dma_logging_start(ranges, page_size);
}

Result<> FaultyDeviceIo::dma_logging_report(DmaLogRange range, uint64_t page_size,
                                            util::Bitmap& out) {
    MIG_CHECK(before(call::kLogReport, fmt::format("{:#x}+{:#x}", range.iova, range.length)));
    return inner().dma_logging_report(range, page_size, out);
}

Result<> FaultyDeviceIo::dma_logging_stop() {
    MIG_CHECK(before(call::kLogStop));
    return inner().dma_logging_stop();
}

}  // namespace ferry::vfio
