// SPDX-License-Identifier: BSD-2-Clause
// The ioctls of a device descriptor. Holds no lock: what it knows is read once, at creation.
#include "hw/vfio/device-io-kernel.h"

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "hw/vfio/kernel-data-stream.h"
#include "hw/vfio/kernel-regions.h"
#include "hw/vfio/uapi.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

// More vectors than MSI-X can have.
constexpr size_t kMaxVectors = 2048;

std::string_view irq_name(uint32_t index) {
    switch (index) {
        case pci_irq::kIntx: return "INTx";
        case pci_irq::kMsi: return "MSI";
        case pci_irq::kMsix: return "MSI-X";
        case pci_irq::kErr: return "ERR";
        case pci_irq::kReq: return "REQ";
        default: return "other";
    }
}

// Refused here as the kernel would have refused it.
template <typename... Args>
Error invalid(fmt::format_string<Args...> text, Args&&... args) {
    return Error(ErrorKind::InvalidArgument, fmt::format(text, std::forward<Args>(args)...),
                 EINVAL);
}

// ENOTTY is the kernel's "no such thing here": not worth another try, and often no fault at all.
Error unsupported_if_enotty(Error error) {
    if (error.errnum() != ENOTTY) return error;
    return Error(ErrorKind::Unsupported, error.text(), ENOTTY);
}

class KernelDeviceIo final : public VfioDeviceIo {
 public:
    KernelDeviceIo(Kernel& kernel, KernelFile device, util::Registration lease,
                   IommuDirtyLog* iommu_log, DeviceInfo info, std::vector<KernelRegion> regions)
        : kernel_(kernel),
          lease_(std::move(lease)),
          iommu_log_(iommu_log),
          device_(std::move(device)),
          info_(info),
          regions_(std::move(regions)) {}

    Result<DeviceInfo> info() override { return info_; }
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
    IommuDirtyLog* iommu_dirty_log() override { return iommu_log_; }

 private:
    // The region, if `size` bytes at `offset` lie inside it.
    Result<const KernelRegion*> region_with(uint32_t region, uint64_t offset, uint64_t size) const;
    // `what`: "GET MIGRATION", as errors show it.
    template <typename Payload>
    Result<> feature(uint32_t number_and_action, Payload& payload, std::string_view what);
    Result<> feature(uint32_t number_and_action, std::string_view what);
    Result<> feature_call(void* argument, std::string_view what);

    Kernel& kernel_;
    util::Registration lease_;  // goes after the descriptor
    IommuDirtyLog* const iommu_log_;
    const KernelFile device_;
    const DeviceInfo info_;
    const std::vector<KernelRegion> regions_;
};

Result<> KernelDeviceIo::feature_call(void* argument, std::string_view what) {
    auto done = kernel_.ioctl(device_.fd(), uapi::kDeviceFeature, argument,
                              fmt::format("ioctl(VFIO_DEVICE_FEATURE, {})", what));
    if (!done) return unsupported_if_enotty(std::move(done).error());
    return {};
}

template <typename Payload>
Result<> KernelDeviceIo::feature(uint32_t number_and_action, Payload& payload,
                                 std::string_view what) {
    uapi::Feature<Payload> call{{sizeof(call), number_and_action}, payload};
    MIG_CHECK(feature_call(&call, what));
    payload = call.payload;
    return {};
}

Result<> KernelDeviceIo::feature(uint32_t number_and_action, std::string_view what) {
    uapi::FeatureHeader call{sizeof(call), number_and_action};
    return feature_call(&call, what);
}

Result<RegionInfo> KernelDeviceIo::region_info(uint32_t region) {
    if (region >= regions_.size()) {
        return invalid("region {}: the device has {}", region, regions_.size());
    }
    return regions_[region].info;
}

Result<IrqInfo> KernelDeviceIo::irq_info(uint32_t index) {
    if (index >= info_.num_irqs) {
        return invalid("interrupt index {}: the device has {}", index, info_.num_irqs);
    }
    uapi::IrqInfo raw{};
    raw.argsz = sizeof(raw);
    raw.index = index;
    auto done = kernel_.ioctl(device_.fd(), uapi::kDeviceGetIrqInfo, &raw,
                              fmt::format("ioctl(VFIO_DEVICE_GET_IRQ_INFO, {})", irq_name(index)));
    if (!done) {
        if (done.error().errnum() == EINVAL) return IrqInfo{};  // not implemented: ERR without PCIe
        return std::move(done).error();
    }
    return IrqInfo{.count = raw.count,
                   .eventfd = (raw.flags & uapi::kIrqEventfd) != 0,
                   .maskable = (raw.flags & uapi::kIrqMaskable) != 0,
                   .automasked = (raw.flags & uapi::kIrqAutomasked) != 0,
                   .noresize = (raw.flags & uapi::kIrqNoresize) != 0};
}

Result<> KernelDeviceIo::set_irq_eventfds(uint32_t index, uint32_t start,
                                          std::span<const BorrowedFd> fds) {
    if (fds.empty() || fds.size() > kMaxVectors) {
        return make_error(ErrorKind::LimitExceeded, "{} vectors; the limits are 1 and {}",
                          fds.size(), kMaxVectors);
    }
    std::vector<std::byte> bytes(sizeof(uapi::IrqSet) + fds.size() * sizeof(int32_t));
    const uapi::IrqSet set{.argsz = static_cast<uint32_t>(bytes.size()),
                           .flags = uapi::kIrqDataEventfd | uapi::kIrqActionTrigger,
                           .index = index,
                           .start = start,
                           .count = static_cast<uint32_t>(fds.size())};
    std::memcpy(bytes.data(), &set, sizeof(set));
    std::byte* at = bytes.data() + sizeof(set);
    for (const BorrowedFd fd : fds) {
        const int32_t raw = fd.valid() ? fd.raw() : -1;
        std::memcpy(at, &raw, sizeof(raw));
        at += sizeof(raw);
    }
    const std::string call = fmt::format("ioctl(VFIO_DEVICE_SET_IRQS, {} eventfds {}+{})",
                                         irq_name(index), start, fds.size());
    MIG_TRY(const int available,
            kernel_.ioctl(device_.fd(), uapi::kDeviceSetIrqs, bytes.data(), call));
    // Nothing was done, then: that many the host could spare.
    if (available > 0) return make_errno(ENOSPC, "{}: {} are available", call, available);
    return {};
}

Result<> KernelDeviceIo::disable_irqs(uint32_t index) {
    uapi::IrqSet set{.argsz = sizeof(set),
                     .flags = uapi::kIrqDataNone | uapi::kIrqActionTrigger,
                     .index = index,
                     .start = 0,
                     .count = 0};
    MIG_CHECK(
        kernel_.ioctl(device_.fd(), uapi::kDeviceSetIrqs, &set,
                      fmt::format("ioctl(VFIO_DEVICE_SET_IRQS, disable {})", irq_name(index))));
    return {};
}

Result<> KernelDeviceIo::set_irq_masked(uint32_t index, uint32_t vector, bool masked) {
    uapi::IrqSet set{
        .argsz = sizeof(set),
        .flags = uapi::kIrqDataNone | (masked ? uapi::kIrqActionMask : uapi::kIrqActionUnmask),
        .index = index,
        .start = vector,
        .count = 1};
    MIG_CHECK(kernel_.ioctl(device_.fd(), uapi::kDeviceSetIrqs, &set,
                            fmt::format("ioctl(VFIO_DEVICE_SET_IRQS, {} {} vector {})",
                                        masked ? "mask" : "unmask", irq_name(index), vector)));
    return {};
}

Result<> KernelDeviceIo::set_irq_unmask_eventfd(uint32_t index, uint32_t vector, BorrowedFd fd) {
    struct WithFd {
        uapi::IrqSet set;
        int32_t fd;
    } call{.set = {.argsz = sizeof(WithFd),
                   .flags = uapi::kIrqDataEventfd | uapi::kIrqActionUnmask,
                   .index = index,
                   .start = vector,
                   .count = 1},
           .fd = fd.raw()};
    static_assert(sizeof(WithFd) == sizeof(uapi::IrqSet) + sizeof(int32_t));
    auto done =
        kernel_.ioctl(device_.fd(), uapi::kDeviceSetIrqs, &call,
                      fmt::format("ioctl(VFIO_DEVICE_SET_IRQS, unmask {} vector {} by eventfd)",
                                  irq_name(index), vector));
    if (!done) return unsupported_if_enotty(std::move(done).error());
    return {};
}

Result<> KernelDeviceIo::reset() {
    if (!info_.can_reset) {
        return make_error(ErrorKind::Unsupported, "the kernel cannot reset this device");
    }
    MIG_CHECK(kernel_.ioctl_value(device_.fd(), uapi::kDeviceReset, 0, "ioctl(VFIO_DEVICE_RESET)"));
    return {};
}

Result<const KernelRegion*> KernelDeviceIo::region_with(uint32_t region, uint64_t offset,
                                                        uint64_t size) const {
    const uint64_t limit = region < regions_.size() ? regions_[region].info.size : 0;
    if (size > limit || offset > limit - size) {
        return invalid("{:#x}+{:#x} lies outside region {} ({:#x})", offset, size, region, limit);
    }
    return &regions_[region];
}

Result<> KernelDeviceIo::region_read(uint32_t region, uint64_t offset, MutBytes out) {
    MIG_TRY(const KernelRegion* at, region_with(region, offset, out.size()));
    const std::string call = fmt::format("pread(region {}, {:#x}+{})", region, offset, out.size());
    uint64_t from = at->file_offset + offset;
    while (!out.empty()) {
        MIG_TRY(const size_t count, kernel_.pread(device_.fd(), out, from, call));
        if (count == 0 || count > out.size()) {
            return make_errno(EIO, "{}: {} bytes missing", call, out.size());
        }
        out = out.subspan(count);
        from += count;
    }
    return {};
}

Result<> KernelDeviceIo::region_write(uint32_t region, uint64_t offset, ConstBytes in) {
    MIG_TRY(const KernelRegion* at, region_with(region, offset, in.size()));
    const std::string call = fmt::format("pwrite(region {}, {:#x}+{})", region, offset, in.size());
    uint64_t to = at->file_offset + offset;
    while (!in.empty()) {
        MIG_TRY(const size_t count, kernel_.pwrite(device_.fd(), in, to, call));
        if (count == 0 || count > in.size()) {
            return make_errno(EIO, "{}: {} bytes missing", call, in.size());
        }
        in = in.subspan(count);
        to += count;
    }
    return {};
}

Result<util::MappedRegion> KernelDeviceIo::region_map(uint32_t region, uint64_t offset,
                                                      uint64_t size) {
    MIG_TRY(const KernelRegion* at, region_with(region, offset, size));
    for (const RegionInfo::Area& area : at->info.mmap_areas) {
        if (size == 0 || offset < area.offset || size > area.size ||
            offset - area.offset > area.size - size) {
            continue;
        }
        return kernel_.map(device_.fd(), at->file_offset + offset, size,
                           fmt::format("region {} at {:#x}", region, offset));
    }
    return make_error(ErrorKind::Unsupported, "{:#x}+{:#x} of region {} may not be mapped", offset,
                      size, region);
}

Result<MigCaps> KernelDeviceIo::migration_caps() {
    uapi::Migration migration{};
    MIG_CHECK(feature(uapi::kFeatureGet | uapi::kFeatureMigration, migration, "GET MIGRATION"));
    return MigCaps{.stop_copy = (migration.flags & uapi::kMigrationStopCopy) != 0,
                   .p2p = (migration.flags & uapi::kMigrationP2p) != 0,
                   .pre_copy = (migration.flags & uapi::kMigrationPreCopy) != 0};
}

Result<MigState> KernelDeviceIo::mig_state() {
    uapi::MigDeviceState state{0, -1};
    constexpr std::string_view kCall = "GET MIG_DEVICE_STATE";
    MIG_CHECK(feature(uapi::kFeatureGet | uapi::kFeatureMigDeviceState, state, kCall));
    MIG_TRY(const MigState now, mig_state_from_raw(state.device_state),
            "ioctl(VFIO_DEVICE_FEATURE, {})", kCall);
    return now;
}

Result<std::unique_ptr<MigDataStream>> KernelDeviceIo::set_mig_state(MigState next) {
    const std::string what = fmt::format("SET MIG_DEVICE_STATE {}", to_string(next));
    // Some kernels complain loudly, and with panic_on_warn die, when asked to leave ERROR.
    MIG_TRY(const MigState now, mig_state(), "before {}", what);
    if (now == MigState::Error) {
        return make_error(ErrorKind::InvalidState,
                          "{}: the device is in state error, which only a reset leaves", what);
    }
    // -1 tells a kernel that wrote nothing from one that returned a descriptor.
    uapi::MigDeviceState state{static_cast<uint32_t>(next), -1};
    auto set = feature(uapi::kFeatureSet | uapi::kFeatureMigDeviceState, state, what);
    if (!set) {
        Error error = std::move(set).error();
        if (error.errnum() == EMFILE || error.errnum() == ENFILE) {
            return std::move(error).context(
                "the state changed, but no descriptor was left for the data session");
        }
        return error;
    }
    if (state.data_fd < 0) return nullptr;
    return make_kernel_data_stream(kernel_, KernelFile(kernel_, BorrowedFd(state.data_fd)));
}

Result<uint64_t> KernelDeviceIo::stop_copy_bytes() {
    uapi::MigDataSize size{};
    MIG_CHECK(feature(uapi::kFeatureGet | uapi::kFeatureMigDataSize, size, "GET MIG_DATA_SIZE"));
    return size.stop_copy_length;
}

Result<bool> KernelDeviceIo::dma_logging_supported() {
    auto probed = feature(uapi::kFeatureProbe | uapi::kFeatureSet | uapi::kFeatureDmaLoggingStart,
                          "PROBE DMA_LOGGING_START");
    if (probed) return true;
    const int errnum = probed.error().errnum();
    if (errnum == ENOTTY || errnum == EINVAL) return false;  // EINVAL: known, but not to be SET
    return std::move(probed).error();
}

Result<> KernelDeviceIo::dma_logging_start(std::span<const DmaLogRange> ranges,
                                           uint64_t page_size) {
    if (ranges.empty() || ranges.size() > UINT32_MAX) {
        return invalid("DMA logging of {} ranges", ranges.size());
    }
    std::vector<uapi::DmaLoggingRange> raw;
    raw.reserve(ranges.size());
    for (const DmaLogRange& range : ranges) raw.push_back({range.iova, range.length});
    uapi::DmaLoggingControl control{
        .page_size = page_size,
        .num_ranges = static_cast<uint32_t>(raw.size()),
        .reserved = 0,
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): an address is a number here
        .ranges = reinterpret_cast<uintptr_t>(raw.data())};
    return feature(uapi::kFeatureSet | uapi::kFeatureDmaLoggingStart, control,
                   fmt::format("SET DMA_LOGGING_START {} ranges", raw.size()));
}

Result<> KernelDeviceIo::dma_logging_report(DmaLogRange range, uint64_t page_size,
                                            util::Bitmap& out) {
    // The kernel writes one bit per page, and trusts us that there is room for it.
    const uint64_t pages = page_size == 0 ? 0 : range.length / page_size;
    if (page_size == 0 || range.length == 0 || range.length % page_size != 0 ||
        out.size() < pages) {
        return invalid("DMA log of {} bytes in pages of {} into a bitmap of {}", range.length,
                       page_size, out.size());
    }
    uapi::DmaLoggingReport report{
        .iova = range.iova,
        .length = range.length,
        .page_size = page_size,
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): an address is a number here
        .bitmap = reinterpret_cast<uintptr_t>(out.words().data())};
    return feature(uapi::kFeatureGet | uapi::kFeatureDmaLoggingReport, report,
                   fmt::format("GET DMA_LOGGING_REPORT {:#x}+{:#x}", range.iova, range.length));
}

Result<> KernelDeviceIo::dma_logging_stop() {
    return feature(uapi::kFeatureSet | uapi::kFeatureDmaLoggingStop, "SET DMA_LOGGING_STOP");
}

}  // namespace

Result<std::unique_ptr<VfioDeviceIo>> create_kernel_device_io(Kernel& kernel, KernelFile device,
                                                              util::Registration lease,
                                                              IommuDirtyLog* iommu_log) {
    KernelFile file = std::move(device);  // closes before the lease goes, on a failure too
    MIG_TRY(const DeviceInfo info, query_device_info(kernel, file.fd()));
    MIG_TRY(std::vector<KernelRegion> regions, query_regions(kernel, file.fd(), info.num_regions));
    return std::make_unique<KernelDeviceIo>(kernel, std::move(file), std::move(lease), iommu_log,
                                            info, std::move(regions));
}

}  // namespace ferry::vfio
