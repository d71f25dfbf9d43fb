// SPDX-License-Identifier: BSD-2-Clause
#include "tests/fakes/fake-vfio-device.h"

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "hw/vfio/uapi.h"
#include "tests/fakes/argument.h"
#include "util/try.h"

namespace ferry::test {

using vfio::MigState;
namespace uapi = vfio::uapi;

namespace {

constexpr uint32_t kActionBits =
    VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK | VFIO_IRQ_SET_ACTION_TRIGGER;
constexpr uint32_t kDataBits =
    VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_DATA_EVENTFD;

uint32_t argsz_of(const void* argument) {
    return load<uint32_t>(argument);
}

// The kernel's test of a payload: room for `minimum`, and the action is one that exists.
SysValue check_feature(uint32_t flags, size_t payload, uint32_t actions, size_t minimum) {
    const uint32_t action = flags & (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET);
    if ((action & ~actions) != 0) return -EINVAL;
    if ((flags & VFIO_DEVICE_FEATURE_PROBE) != 0) return 1;  // done
    if (action == 0 || payload < minimum) return -EINVAL;
    return 0;
}

}  // namespace

FakeVfioDevice::FakeVfioDevice(std::string device_name, unsigned group_number,
                               std::vector<std::string>& log, std::vector<std::string>& faults)
    : name(std::move(device_name)), group(group_number), log_(log), faults_(faults) {}

FakeVfioDevice::Region& FakeVfioDevice::add_region(uint32_t index, uint64_t size, uint32_t flags) {
    if (regions.size() <= index) regions.resize(index + 1);
    Region& region = regions[index];
    region.size = size;
    region.flags = flags;
    constexpr uint64_t kPage = 4096;
    region.file = UniqueFd(::memfd_create("fake-region", MFD_CLOEXEC));
    const uint64_t file_size = (size + kPage - 1) / kPage * kPage;
    if (::ftruncate(region.file.raw(), static_cast<off_t>(file_size)) != 0) fault("ftruncate");
    region.memory = *util::MappedRegion::map(region.file.borrow(), 0, file_size, "fake region");
    return region;
}

void FakeVfioDevice::set_irq(uint32_t index, uint32_t count, uint32_t flags) {
    if (irqs.size() <= index) irqs.resize(index + 1);
    irqs[index] = {count, flags, false};
}

bool FakeVfioDevice::connected(uint32_t index, uint32_t vector) const {
    return eventfds_.contains({index, vector});
}

bool FakeVfioDevice::raise(uint32_t index, uint32_t vector) {
    const auto at = eventfds_.find({index, vector});
    if (at == eventfds_.end()) return false;
    uint64_t unmasked = 0;
    if (index == VFIO_PCI_INTX_IRQ_INDEX && intx_unmask_.valid() &&
        ::read(intx_unmask_.raw(), &unmasked, sizeof(unmasked)) == sizeof(unmasked)) {
        intx_masked_ = false;
    }
    if (index == VFIO_PCI_INTX_IRQ_INDEX && std::exchange(intx_masked_, true)) return false;
    const uint64_t one = 1;
    return ::write(at->second.raw(), &one, sizeof(one)) == sizeof(one);
}

SysValue FakeVfioDevice::ioctl(unsigned long request, void* argument) {
    switch (request) {
        case VFIO_DEVICE_GET_INFO: return get_info(argument);
        case VFIO_DEVICE_GET_REGION_INFO: return get_region_info(argument);
        case VFIO_DEVICE_GET_IRQ_INFO: return get_irq_info(argument);
        case VFIO_DEVICE_SET_IRQS: return set_irqs(argument);
        case VFIO_DEVICE_FEATURE: return feature(argument);
        default: fault("unknown device ioctl"); return -ENOTTY;
    }
}

SysValue FakeVfioDevice::get_info(void* argument) {
    constexpr size_t kMandatory = offsetof(vfio_device_info, cap_offset);
    const uint32_t argsz = argsz_of(argument);
    if (argsz < kMandatory) return -EINVAL;
    vfio_device_info info{};
    info.argsz = argsz;
    info.flags = VFIO_DEVICE_FLAGS_PCI | (can_reset ? VFIO_DEVICE_FLAGS_RESET : 0u);
    info.num_regions = static_cast<uint32_t>(regions.size());
    info.num_irqs = static_cast<uint32_t>(irqs.size());
    std::memcpy(argument, &info, std::min<size_t>(argsz, sizeof(info)));
    return 0;
}

SysValue FakeVfioDevice::get_region_info(void* argument) {
    auto info = load<vfio_region_info>(argument);
    if (info.argsz < sizeof(info)) return -EINVAL;
    if (info.flags != 0) fault("region info with input flags");
    if (info.index >= regions.size() || regions[info.index].absent) return -EINVAL;
    const Region& region = regions[info.index];
    info.flags = region.flags;
    info.size = region.size;
    info.offset = info.index * kFakeRegionStride;
    info.cap_offset = 0;
    if (!region.capabilities.empty()) {
        info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
        const size_t needed = sizeof(info) + region.capabilities.size();
        if (info.argsz < needed) {
            info.argsz = static_cast<uint32_t>(needed);
        } else {
            info.cap_offset = region.first_capability;
            std::memcpy(static_cast<std::byte*>(argument) + sizeof(info),
                        region.capabilities.data(), region.capabilities.size());
        }
    }
    store(argument, info);
    return 0;
}

SysValue FakeVfioDevice::get_irq_info(void* argument) {
    auto info = load<vfio_irq_info>(argument);
    if (info.argsz < sizeof(info) || info.index >= irqs.size() || irqs[info.index].absent) {
        return -EINVAL;
    }
    info.flags = irqs[info.index].flags;
    info.count = irqs[info.index].count;
    store(argument, info);
    return 0;
}

SysValue FakeVfioDevice::set_irqs(const void* argument) {
    constexpr size_t kHeader = offsetof(vfio_irq_set, data);
    const auto set = load<uapi::IrqSet>(argument);
    const uint32_t data = set.flags & kDataBits;
    const uint32_t action = set.flags & kActionBits;
    if (set.argsz < kHeader || (set.flags & ~(kDataBits | kActionBits)) != 0) return -EINVAL;
    if (!std::has_single_bit(data) || !std::has_single_bit(action)) return -EINVAL;
    if (set.index >= irqs.size()) return -EINVAL;
    const uint32_t limit = irqs[set.index].count;
    if (set.start >= limit || set.count > limit - set.start) return -EINVAL;
    const size_t element = data == VFIO_IRQ_SET_DATA_EVENTFD ? sizeof(int32_t) : 0;
    if (set.argsz < kHeader + element * set.count) return -EINVAL;

    const bool intx = set.index == VFIO_PCI_INTX_IRQ_INDEX;
    if (action != VFIO_IRQ_SET_ACTION_TRIGGER) {
        if (!intx || !allocated_.contains(set.index) || set.count != 1) return -EINVAL;
        if (data == VFIO_IRQ_SET_DATA_EVENTFD) {
            if (action != VFIO_IRQ_SET_ACTION_UNMASK || !unmasks_by_eventfd) return -ENOTTY;
            int32_t fd = -1;
            std::memcpy(&fd, static_cast<const std::byte*>(argument) + kHeader, sizeof(fd));
            intx_unmask_ = fd < 0 ? UniqueFd() : UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
            log_.push_back(fmt::format("{}: unmask INTx by eventfd", name));
            return 0;
        }
        intx_masked_ = action == VFIO_IRQ_SET_ACTION_MASK;
        log_.push_back(fmt::format("{}: {} INTx", name, intx_masked_ ? "mask" : "unmask"));
        return 0;
    }
    if (data == VFIO_IRQ_SET_DATA_NONE) {
        if (set.count != 0) return -EINVAL;
        std::erase_if(eventfds_, [&](const auto& e) { return e.first.first == set.index; });
        allocated_.erase(set.index);
        if (intx) intx_unmask_ = UniqueFd();
        log_.push_back(fmt::format("{}: disable irqs {}", name, set.index));
        return 0;
    }
    std::vector<int32_t> fds(set.count);
    std::memcpy(fds.data(), static_cast<const std::byte*>(argument) + kHeader,
                fds.size() * sizeof(int32_t));
    return connect_eventfds(set.index, set.start, fds);
}

SysValue FakeVfioDevice::connect_eventfds(uint32_t index, uint32_t start,
                                          const std::vector<int32_t>& fds) {
    const auto end = static_cast<uint32_t>(start + fds.size());
    for (const auto& [enabled, count] : allocated_) {
        if (enabled != index && enabled <= VFIO_PCI_MSIX_IRQ_INDEX) return -EINVAL;
    }
    const bool noresize = (irqs[index].flags & VFIO_IRQ_INFO_NORESIZE) != 0;
    if (allocated_.contains(index) && noresize && end > allocated_[index]) return -EINVAL;
    if (end > host_vectors) return static_cast<SysValue>(host_vectors);
    for (const int32_t fd : fds) {
        if (fd != -1 && ::fcntl(fd, F_GETFD) == -1) return -EBADF;
    }
    allocated_[index] = std::max(allocated_[index], end);
    std::string text;
    for (uint32_t i = 0; i < fds.size(); ++i) {
        eventfds_.erase({index, start + i});
        if (fds[i] != -1) {
            // The kernel, too, keeps what the descriptor stands for.
            eventfds_[{index, start + i}] = UniqueFd(::fcntl(fds[i], F_DUPFD_CLOEXEC, 0));
        }
        text += fds[i] == -1 ? " -" : fmt::format(" {}", start + i);
    }
    log_.push_back(fmt::format("{}: connect irqs {}:{}", name, index, text));
    return 0;
}

SysValue FakeVfioDevice::reset() {
    if (!can_reset) return -EINVAL;
    ++resets;
    log_.push_back(name + ": reset");
    state = MigState::Running;
    session_ = 0;
    received.clear();
    return 0;
}

SysValue FakeVfioDevice::access(uint64_t file_offset, uint64_t size, MutBytes& where) {
    const uint64_t index = file_offset / kFakeRegionStride;
    const uint64_t offset = file_offset % kFakeRegionStride;
    if (index >= regions.size() || regions[index].size == 0) return -EINVAL;
    const MutBytes bytes = regions[index].bytes();
    if (offset >= bytes.size() || size > bytes.size() - offset) return -EINVAL;
    where = bytes.subspan(offset, std::min<uint64_t>(size, max_transfer));
    return static_cast<SysValue>(where.size());
}

vfio::MigCaps FakeVfioDevice::caps() const {
    return {.stop_copy = (mig_flags & VFIO_MIGRATION_STOP_COPY) != 0,
            .p2p = (mig_flags & VFIO_MIGRATION_P2P) != 0,
            .pre_copy = (mig_flags & uapi::kMigrationPreCopy) != 0};
}

SysValue FakeVfioDevice::feature(void* argument) {
    const auto header = load<vfio_device_feature>(argument);
    if (header.argsz < sizeof(header)) return -EINVAL;
    constexpr uint32_t kKnown = VFIO_DEVICE_FEATURE_MASK | VFIO_DEVICE_FEATURE_GET |
                                VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PROBE;
    constexpr uint32_t kBoth = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET;
    if ((header.flags & ~kKnown) != 0) return -EINVAL;
    if ((header.flags & kBoth) == kBoth && (header.flags & VFIO_DEVICE_FEATURE_PROBE) == 0) {
        return -EINVAL;
    }
    const MutBytes payload(static_cast<std::byte*>(argument) + sizeof(header),
                           header.argsz - sizeof(header));
    const auto checked = [&, flags = header.flags](uint32_t actions, size_t minimum) {
        return check_feature(flags, payload.size(), actions, minimum);
    };
    const uint32_t number = header.flags & VFIO_DEVICE_FEATURE_MASK;
    const bool migrates = mig_flags != 0;
    SysValue verdict = -ENOTTY;
    switch (number) {
        case VFIO_DEVICE_FEATURE_MIGRATION:
            if (!migrates) return -ENOTTY;
            verdict = checked(VFIO_DEVICE_FEATURE_GET, sizeof(uint64_t));
            if (verdict == 0) store(payload.data(), mig_flags);
            break;
        case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
            if (!migrates) return -ENOTTY;
            verdict = checked(kBoth, sizeof(vfio_device_feature_mig_state));
            if (verdict != 0) break;
            return (header.flags & VFIO_DEVICE_FEATURE_GET) != 0 ? get_state(payload)
                                                                 : set_state(payload);
        case uapi::kFeatureMigDataSize:
            if (!migrates) return -ENOTTY;
            verdict = checked(VFIO_DEVICE_FEATURE_GET, sizeof(uint64_t));
            if (verdict == 0 && data_size_error) return -*data_size_error;
            if (verdict == 0) store(payload.data(), stop_copy_length);
            break;
        case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
            if (!dma_logging) return -ENOTTY;
            verdict = checked(VFIO_DEVICE_FEATURE_SET, 24);
            if (verdict == 0) return log_start(payload);
            break;
        case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
            if (!dma_logging) return -ENOTTY;
            verdict = checked(VFIO_DEVICE_FEATURE_GET, 32);
            if (verdict == 0) return log_report(payload);
            break;
        case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
            if (!dma_logging) return -ENOTTY;
            verdict = checked(VFIO_DEVICE_FEATURE_SET, 0);
            if (verdict == 0) log_ranges_.reset();
            break;
        default: fault(fmt::format("unknown feature {}", number));
    }
    return std::min<SysValue>(verdict, 0);
}

SysValue FakeVfioDevice::get_state(MutBytes payload) {
    store(payload.data(), vfio_device_feature_mig_state{static_cast<uint32_t>(state), -1});
    return 0;
}

void FakeVfioDevice::enter(MigState next) {
    const bool continues = vfio::session_of(state) == vfio::session_of(next);
    state = next;
    new_session_ = 0;
    if (continues) return;
    session_ = 0;
    if (vfio::session_of(next) == vfio::SessionKind::None) return;
    session_ = new_session_ = ++last_session_;
    data_position_ = 0;
    received.clear();
}

SysValue FakeVfioDevice::set_state(MutBytes payload) {
    auto request = load<vfio_device_feature_mig_state>(payload.data());
    if (request.data_fd != -1) fault("SET MIG_DEVICE_STATE without data_fd = -1");
    if (state == MigState::Error) {
        fault("SET MIG_DEVICE_STATE in ERROR");
        return -EINVAL;
    }
    new_session_ = 0;
    const auto next = vfio::mig_state_from_raw(request.device_state);
    if (!next) return -EINVAL;
    const auto path = vfio::mig_path(caps(), state, *next);
    if (!path) return -EINVAL;
    log_.push_back(fmt::format("{}: set state {}", name, to_string(*next)));
    for (const MigState step : *path) {
        if (arc_fault && arc_fault->from == state && arc_fault->to == step) {
            const ArcFault failing = *std::exchange(arc_fault, std::nullopt);
            if (failing.left_in) state = *failing.left_in;
            new_session_ = 0;
            return -failing.errnum;
        }
        enter(step);
    }
    request.data_fd = -1;
    store(payload.data(), request);
    return 0;
}

SysValue FakeVfioDevice::read_data(uint64_t session, MutBytes into) {
    if (session != session_) return -ENODEV;
    if (vfio::session_of(state) != vfio::SessionKind::Saving) return -EBADF;
    if (data_error) return -*std::exchange(data_error, std::nullopt);
    if (eagain_reads > 0) {
        --eagain_reads;
        return -EAGAIN;
    }
    std::vector<std::byte> image = precopy_data;
    if (state == MigState::StopCopy) {
        image.insert(image.end(), stopcopy_data.begin(), stopcopy_data.end());
    }
    const size_t count = std::min({into.size(), max_data_transfer, image.size() - data_position_});
    if (count == 0 && state != MigState::StopCopy && enomsg) return -ENOMSG;
    std::copy_n(image.begin() + static_cast<ptrdiff_t>(data_position_), count, into.begin());
    data_position_ += count;
    return static_cast<SysValue>(count);
}

SysValue FakeVfioDevice::write_data(uint64_t session, ConstBytes from) {
    if (session != session_) return -ENODEV;
    if (state != MigState::Resuming) return -EBADF;
    if (data_error) return -*std::exchange(data_error, std::nullopt);
    if (eagain_writes > 0) {
        --eagain_writes;
        return -EAGAIN;
    }
    const ConstBytes taken = from.first(std::min(from.size(), max_data_transfer));
    received.insert(received.end(), taken.begin(), taken.end());
    return static_cast<SysValue>(taken.size());
}

SysValue FakeVfioDevice::precopy_info(uint64_t session, void* argument) {
    if (!caps().pre_copy) return -ENOTTY;
    auto info = load<uapi::PrecopyInfo>(argument);
    if (info.argsz < sizeof(info)) return -EINVAL;
    if (info.flags != 0) fault("precopy info with input flags");
    if (session != session_) return -ENODEV;
    if (state != MigState::PreCopy && state != MigState::PreCopyP2P) return -EINVAL;
    info.initial_bytes = initial_bytes;
    info.dirty_bytes = dirty_bytes;
    store(argument, info);
    return 0;
}

SysValue FakeVfioDevice::log_start(MutBytes payload) {
    const auto control = load<vfio_device_feature_dma_logging_control>(payload.data());
    constexpr uint32_t kMaxRanges = 256;
    if (control.num_ranges == 0) return -EINVAL;
    if (control.num_ranges > kMaxRanges) return -E2BIG;
    if (control.__reserved != 0) fault("DMA logging with reserved field set");
    if (!std::has_single_bit(control.page_size) || log_ranges_) return -EINVAL;
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (uint32_t i = 0; i < control.num_ranges; ++i) {
        const auto range = load<vfio_device_feature_dma_logging_range>(
            reinterpret_cast<const std::byte*>(control.ranges) + i * sizeof(uapi::DmaLoggingRange));
        if (range.iova % control.page_size != 0 || range.length % control.page_size != 0) {
            return -EINVAL;
        }
        if (range.length > UINT64_MAX - range.iova) return -EOVERFLOW;
        for (const auto& [iova, length] : ranges) {
            if (range.iova < iova + length && iova < range.iova + range.length) return -EINVAL;
        }
        ranges.emplace_back(range.iova, range.length);
    }
    log_.push_back(fmt::format("{}: log {} ranges", name, ranges.size()));
    log_ranges_ = std::move(ranges);
    return 0;
}

SysValue FakeVfioDevice::log_report(MutBytes payload) {
    constexpr uint64_t kMinPage = 4096;
    const auto report = load<vfio_device_feature_dma_logging_report>(payload.data());
    if (report.page_size < kMinPage || !std::has_single_bit(report.page_size)) return -EINVAL;
    if (report.length > UINT64_MAX - report.iova) return -EOVERFLOW;
    if (!log_ranges_) return -EINVAL;
    auto* words = reinterpret_cast<uint64_t*>(report.bitmap);
    std::erase_if(dma_written_, [&](uint64_t iova) {
        if (iova < report.iova || iova - report.iova >= report.length) return false;
        const bool logged = std::ranges::any_of(*log_ranges_, [iova](const auto& range) {
            return iova >= range.first && iova - range.first < range.second;
        });
        const uint64_t bit = (iova - report.iova) / report.page_size;
        if (logged) words[bit / 64] |= uint64_t{1} << (bit % 64);
        return logged;
    });
    return 0;
}

}  // namespace ferry::test
