// SPDX-License-Identifier: BSD-2-Clause
#include "tests/fakes/bridge-kernel.h"

#include <linux/vfio.h>

#include <bit>
#include <cerrno>
#include <vector>

#include "hw/vfio/uapi.h"
#include "tests/fakes/argument.h"
#include "util/try.h"

namespace ferry::test {

namespace uapi = vfio::uapi;

namespace {

constexpr unsigned kRegionShift = 40;

Error refused(int errnum) {
    return make_errno(errnum, "refused");
}

// As a system call shows it: an errno and the caller's name for the call.
Error as_errno(const Error& error, std::string_view call) {
    const bool unsupported = error.kind() == ErrorKind::Unsupported;
    const int errnum = error.errnum() != 0 ? error.errnum() : unsupported ? ENOTTY : EINVAL;
    return make_errno(errnum, "{}", call);
}

}  // namespace

Result<BorrowedFd> BridgeKernel::open(const std::string& path) {
    return make_errno(ENOENT, "open({})", path);
}

Result<std::string> BridgeKernel::readlink(const std::string& path) {
    return make_errno(ENOENT, "readlink({})", path);
}

Result<std::vector<std::string>> BridgeKernel::list(const std::string& path) {
    return make_errno(ENOENT, "opendir({})", path);
}

vfio::MigDataStream* BridgeKernel::stream(BorrowedFd fd) const {
    const auto at = streams_.find(fd.raw());
    return at == streams_.end() ? nullptr : at->second.get();
}

Result<int> BridgeKernel::ioctl(BorrowedFd fd, unsigned long request, void* argument,
                                std::string_view call) {
    if (fd.raw() == kDeviceFd) {
        auto done = device_call(request, argument);
        if (!done) return as_errno(done.error(), call);
        return 0;
    }
    vfio::MigDataStream* data = stream(fd);
    if (data == nullptr) return make_errno(EBADF, "{}", call);
    if (request != uapi::kMigGetPrecopyInfo) return make_errno(ENOTTY, "{}", call);
    auto raw = load<uapi::PrecopyInfo>(argument);
    if (raw.argsz < sizeof(raw)) return make_errno(EINVAL, "{}", call);
    auto info = data->precopy_info();
    if (!info) return as_errno(info.error(), call);
    raw.initial_bytes = info->initial_bytes;
    raw.dirty_bytes = info->dirty_bytes;
    store(argument, raw);
    return 0;
}

Result<int> BridgeKernel::ioctl_value(BorrowedFd fd, unsigned long request, unsigned long,
                                      std::string_view call) {
    if (fd.raw() != kDeviceFd || request != VFIO_DEVICE_RESET)
        return make_errno(ENOTTY, "{}", call);
    auto done = device_.reset();
    if (!done) return as_errno(done.error(), call);
    return 0;
}

Result<> BridgeKernel::device_call(unsigned long request, void* argument) {
    switch (request) {
        case VFIO_DEVICE_GET_INFO: return get_info(argument);
        case VFIO_DEVICE_GET_REGION_INFO: return get_region_info(argument);
        case VFIO_DEVICE_GET_IRQ_INFO: return get_irq_info(argument);
        case VFIO_DEVICE_SET_IRQS: return set_irqs(argument);
        case VFIO_DEVICE_FEATURE: return feature(argument);
        default: return refused(ENOTTY);
    }
}

Result<> BridgeKernel::get_info(void* argument) {
    auto raw = load<uapi::DeviceInfo>(argument);
    if (raw.argsz < offsetof(vfio_device_info, cap_offset)) return refused(EINVAL);
    MIG_TRY(const vfio::DeviceInfo info, device_.info());
    raw.flags = (info.can_reset ? VFIO_DEVICE_FLAGS_RESET : 0u) |
                (info.is_pci ? VFIO_DEVICE_FLAGS_PCI : 0u);
    raw.num_regions = info.num_regions;
    raw.num_irqs = info.num_irqs;
    store(argument, raw);
    return {};
}

Result<> BridgeKernel::get_region_info(void* argument) {
    auto raw = load<vfio_region_info>(argument);
    if (raw.argsz < sizeof(raw)) return refused(EINVAL);
    MIG_TRY(const vfio::RegionInfo info, device_.region_info(raw.index));
    raw.flags = (info.readable ? VFIO_REGION_INFO_FLAG_READ : 0u) |
                (info.writable ? VFIO_REGION_INFO_FLAG_WRITE : 0u);
    raw.size = info.size;
    raw.offset = uint64_t{raw.index} << kRegionShift;
    store(argument, raw);
    return {};
}

Result<> BridgeKernel::get_irq_info(void* argument) {
    auto raw = load<vfio_irq_info>(argument);
    if (raw.argsz < sizeof(raw)) return refused(EINVAL);
    MIG_TRY(const vfio::IrqInfo info, device_.irq_info(raw.index));
    raw.count = info.count;
    raw.flags = (info.eventfd ? VFIO_IRQ_INFO_EVENTFD : 0u) |
                (info.maskable ? VFIO_IRQ_INFO_MASKABLE : 0u) |
                (info.automasked ? VFIO_IRQ_INFO_AUTOMASKED : 0u) |
                (info.noresize ? VFIO_IRQ_INFO_NORESIZE : 0u);
    store(argument, raw);
    return {};
}

Result<> BridgeKernel::set_irqs(const void* argument) {
    const auto set = load<uapi::IrqSet>(argument);
    const bool eventfds = (set.flags & VFIO_IRQ_SET_DATA_EVENTFD) != 0;
    const size_t element = eventfds ? sizeof(int32_t) : 0;
    if (set.argsz < sizeof(set) + element * set.count) return refused(EINVAL);
    switch (set.flags) {
        case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK:
            return device_.set_irq_masked(set.index, set.start, true);
        case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK:
            return device_.set_irq_masked(set.index, set.start, false);
        case VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER:
            return set.count == 0 ? device_.disable_irqs(set.index) : Result<>(refused(EINVAL));
        case VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER: {
            std::vector<BorrowedFd> fds;
            const auto* at = static_cast<const std::byte*>(argument) + sizeof(set);
            for (uint32_t i = 0; i < set.count; ++i) {
                fds.emplace_back(load<int32_t>(at + i * sizeof(int32_t)));
            }
            return device_.set_irq_eventfds(set.index, set.start, fds);
        }
        default: return refused(EINVAL);
    }
}

Result<> BridgeKernel::feature(void* argument) {
    const auto header = load<uapi::FeatureHeader>(argument);
    auto* payload = static_cast<std::byte*>(argument) + sizeof(header);
    const uint32_t action = header.flags & ~uint32_t{VFIO_DEVICE_FEATURE_MASK};
    const size_t room = header.argsz - sizeof(header);
    switch (header.flags & VFIO_DEVICE_FEATURE_MASK) {
        case VFIO_DEVICE_FEATURE_MIGRATION: {
            if (action != VFIO_DEVICE_FEATURE_GET || room < 8) return refused(EINVAL);
            MIG_TRY(const vfio::MigCaps caps, device_.migration_caps());
            store(payload, uapi::Migration{(caps.stop_copy ? uapi::kMigrationStopCopy : 0) |
                                           (caps.p2p ? uapi::kMigrationP2p : 0) |
                                           (caps.pre_copy ? uapi::kMigrationPreCopy : 0)});
            return {};
        }
        case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
            return room < 8 ? Result<>(refused(EINVAL)) : mig_state(action, payload);
        case uapi::kFeatureMigDataSize: {
            if (action != VFIO_DEVICE_FEATURE_GET || room < 8) return refused(EINVAL);
            MIG_TRY(const uint64_t bytes, device_.stop_copy_bytes());
            store(payload, bytes);
            return {};
        }
        case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
            if ((action & VFIO_DEVICE_FEATURE_PROBE) != 0) {
                MIG_TRY(const bool supported, device_.dma_logging_supported());
                return supported ? Result<>() : refused(ENOTTY);
            }
            return room < 24 ? Result<>(refused(EINVAL)) : log_start(payload);
        case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
            return room < 32 ? Result<>(refused(EINVAL)) : log_report(payload);
        case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP: return device_.dma_logging_stop();
        default: return refused(ENOTTY);
    }
}

Result<> BridgeKernel::mig_state(uint32_t action, std::byte* payload) {
    auto raw = load<vfio_device_feature_mig_state>(payload);
    if (action == VFIO_DEVICE_FEATURE_GET) {
        MIG_TRY(const vfio::MigState state, device_.mig_state());
        store(payload, vfio_device_feature_mig_state{static_cast<uint32_t>(state), -1});
        return {};
    }
    MIG_TRY(const vfio::MigState next, vfio::mig_state_from_raw(raw.device_state));
    MIG_TRY(auto opened, device_.set_mig_state(next));
    raw.data_fd = opened ? next_fd_ : -1;
    if (opened) streams_.emplace(next_fd_++, std::move(opened));
    store(payload, raw);
    return {};
}

Result<> BridgeKernel::log_start(const std::byte* payload) {
    const auto control = load<vfio_device_feature_dma_logging_control>(payload);
    std::vector<vfio::DmaLogRange> ranges;
    for (uint32_t i = 0; i < control.num_ranges; ++i) {
        const auto range = load<uapi::DmaLoggingRange>(
            reinterpret_cast<const std::byte*>(control.ranges) + i * sizeof(uapi::DmaLoggingRange));
        ranges.push_back({range.iova, range.length});
    }
    return device_.dma_logging_start(ranges, control.page_size);
}

Result<> BridgeKernel::log_report(const std::byte* payload) {
    const auto report = load<vfio_device_feature_dma_logging_report>(payload);
    if (!std::has_single_bit(report.page_size)) return refused(EINVAL);
    util::Bitmap pages(report.length / report.page_size);
    MIG_CHECK(device_.dma_logging_report({report.iova, report.length}, report.page_size, pages));
    auto* words = reinterpret_cast<uint64_t*>(report.bitmap);
    for (size_t i = 0; i < pages.words().size(); ++i) words[i] |= pages.words()[i];
    return {};
}

Result<size_t> BridgeKernel::read(BorrowedFd fd, MutBytes into, std::string_view call) {
    vfio::MigDataStream* data = stream(fd);
    if (data == nullptr) return make_errno(EBADF, "{}", call);
    auto done = data->read_some(into);
    if (!done) return as_errno(done.error(), call);
    return done->bytes;
}

Result<size_t> BridgeKernel::write(BorrowedFd fd, ConstBytes from, std::string_view call) {
    vfio::MigDataStream* data = stream(fd);
    if (data == nullptr) return make_errno(EBADF, "{}", call);
    auto done = data->write_some(from);
    if (!done) return as_errno(done.error(), call);
    return *done;
}

Result<size_t> BridgeKernel::pread(BorrowedFd, MutBytes into, uint64_t offset,
                                   std::string_view call) {
    const uint64_t inside = offset & ((uint64_t{1} << kRegionShift) - 1);
    auto done = device_.region_read(static_cast<uint32_t>(offset >> kRegionShift), inside, into);
    if (!done) return as_errno(done.error(), call);
    return into.size();
}

Result<size_t> BridgeKernel::pwrite(BorrowedFd, ConstBytes from, uint64_t offset,
                                    std::string_view call) {
    const uint64_t inside = offset & ((uint64_t{1} << kRegionShift) - 1);
    auto done = device_.region_write(static_cast<uint32_t>(offset >> kRegionShift), inside, from);
    if (!done) return as_errno(done.error(), call);
    return from.size();
}

Result<util::MappedRegion> BridgeKernel::map(BorrowedFd, uint64_t, uint64_t,
                                             std::string_view what) {
    return make_errno(EINVAL, "mmap({})", what);
}

Result<bool> BridgeKernel::wait_ready(BorrowedFd, Event, int) {
    return true;
}

}  // namespace ferry::test
