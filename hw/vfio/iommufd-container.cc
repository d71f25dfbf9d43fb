// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/iommufd-container.h"

#include <algorithm>
#include <cerrno>

#include "util/try.h"

namespace ferry::vfio {

using system::Iova;
using system::kPageSize;

namespace {

Result<> check_pages(std::string_view name, Iova iova, uint64_t length) {
    if (length != 0 && (iova | length) % kPageSize == 0 && length - 1 <= UINT64_MAX - iova) {
        return {};
    }
    return make_error(ErrorKind::InvalidArgument, "{}: DMA range {:#x}+{:#x} is no row of pages",
                      name, iova, length);
}

}  // namespace

std::string_view HwptDirtyLog::name() const {
    return container_.name();
}

Result<> HwptDirtyLog::start() {
    const std::lock_guard lock(container_.mutex_);
    if (started_) return {};
    MIG_CHECK(container_.iommufd_.set_dirty_tracking(page_table_, true));
    started_ = true;
    return {};
}

Result<> HwptDirtyLog::stop() {
    const std::lock_guard lock(container_.mutex_);
    if (!started_) return {};
    MIG_CHECK(container_.iommufd_.set_dirty_tracking(page_table_, false));
    started_ = false;
    return {};
}

Result<> HwptDirtyLog::query(DmaLogRange range, util::Bitmap& out) {
    const std::lock_guard lock(container_.mutex_);
    // The kernel would answer "nothing" for what is not tracked or not mapped.
    if (!started_) {
        return make_error(ErrorKind::InvalidState, "{}: writes are not being tracked", name());
    }
    MIG_CHECK(check_mapped(range));
    return container_.iommufd_.get_dirty_pages(page_table_, range.iova, range.length,
                                               Iommufd::Clear::Yes, out);
}

Result<> HwptDirtyLog::peek(DmaLogRange range, util::Bitmap& out) const {
    return container_.iommufd_.get_dirty_pages(page_table_, range.iova, range.length,
                                               Iommufd::Clear::No, out);
}

Result<> HwptDirtyLog::check_mapped(DmaLogRange range) const {
    const auto after = container_.mappings_.upper_bound(range.iova);
    if (after != container_.mappings_.begin()) {
        const auto& [iova, length] = *std::prev(after);
        const uint64_t into = range.iova - iova;
        if (into < length && range.length <= length - into) return {};
    }
    return make_error(ErrorKind::InvalidArgument, "{}: {:#x}+{:#x} is not all mapped", name(),
                      range.iova, range.length);
}

Result<std::unique_ptr<IommufdContainer>> IommufdContainer::create(Iommufd& iommufd,
                                                                   std::string id) {
    MIG_TRY(const IommufdId ioas, iommufd.alloc_ioas(), "iommufd '{}'", id);
    return std::unique_ptr<IommufdContainer>(new IommufdContainer(iommufd, ioas, std::move(id)));
}

IommufdContainer::~IommufdContainer() {
    // What can't be destroyed goes with the last descriptor of iommufd.
    (void)iommufd_.destroy(ioas_);
}

IommuDirtyLog* IommufdContainer::dirty_log(IommufdPageTable* page_table) {
    return page_table == nullptr ? nullptr : page_table->log.get();
}

// Nothing, where no page table that is there fits the device's IOMMU.
Result<IommufdPageTable*> IommufdContainer::join_page_table(BorrowedFd device) {
    for (IommufdPageTable& page_table : page_tables_) {
        auto attached = iommufd_.attach(device, page_table.id);
        if (attached) {
            ++page_table.devices;
            return &page_table;
        }
        if (attached.error().errnum() != EINVAL) return std::move(attached).error();
    }
    return nullptr;
}

Result<IommufdPageTable*> IommufdContainer::create_page_table(BorrowedFd device,
                                                              IommufdId device_id, bool tracks) {
    using Tracking = Iommufd::DirtyTracking;
    auto id =
        iommufd_.alloc_page_table(device_id, ioas_, tracks ? Tracking::With : Tracking::Without);
    if (!id && tracks && id.error().errnum() == EOPNOTSUPP) {
        tracks = false;
        id = iommufd_.alloc_page_table(device_id, ioas_, Tracking::Without);
    }
    if (!id) return std::move(id).error();
    if (auto attached = iommufd_.attach(device, *id); !attached) {
        Error error = std::move(attached).error();
        if (auto gone = iommufd_.destroy(*id); !gone) {
            error.attach_in_place(std::move(gone).error());
        }
        return error;
    }
    page_tables_.push_back({.id = *id,
                            .log = tracks ? std::make_unique<HwptDirtyLog>(*this, *id) : nullptr,
                            .devices = 1});
    return &page_tables_.back();
}

Result<IommufdPageTable*> IommufdContainer::attach(BorrowedFd device, IommufdId device_id) {
    const std::lock_guard lock(mutex_);
    const auto tracks = iommufd_.tracks_dirty_pages(device_id);
    if (!tracks && tracks.error().errnum() == ENOENT) {
        MIG_CHECK(iommufd_.attach(device, ioas_), "{}", name_);
        has_software_devices_ = true;
        return nullptr;
    }
    MIG_TRY(IommufdPageTable * joined, join_page_table(device), "{}", name_);
    if (joined != nullptr) return joined;
    // Failing to say that it can is saying no.
    MIG_TRY(IommufdPageTable * created, create_page_table(device, device_id, tracks && *tracks),
            "{}", name_);
    return created;
}

void IommufdContainer::closed(IommufdPageTable* page_table) {
    const std::lock_guard lock(mutex_);
    if (page_table == nullptr || --page_table->devices > 0) return;
    (void)iommufd_.destroy(page_table->id);  // else it goes with iommufd
    page_tables_.remove_if(
        [page_table](const IommufdPageTable& one) { return &one == page_table; });
}

Result<> IommufdContainer::dma_map(Iova iova, MutBytes host, MapAccess access) {
    MIG_CHECK(check_pages(name_, iova, host.size()));
    const std::lock_guard lock(mutex_);
    MIG_CHECK(iommufd_.map(ioas_, iova, host, access), "{}", name_);
    mappings_.emplace(iova, host.size());
    return {};
}

Result<> IommufdContainer::dma_unmap(Iova iova, uint64_t length) {
    MIG_CHECK(check_pages(name_, iova, length));
    const std::lock_guard lock(mutex_);
    MIG_CHECK(iommufd_.unmap(ioas_, iova, length), "{}", name_);
    mappings_.erase(mappings_.lower_bound(iova), mappings_.upper_bound(iova + (length - 1)));
    return {};
}

// What the page tables know of mapped pieces, before they go: without clearing, which would only
// cost. A guest that still lets its device write to what it takes away has lost those writes, here
// as on hardware. False when something can't be told.
bool IommufdContainer::rescue(Iova iova, uint64_t length, util::Bitmap& written) {
    if (has_software_devices_ || page_tables_.empty()) return false;
    for (const IommufdPageTable& page_table : page_tables_) {
        if (!page_table.log || !page_table.log->started()) return false;
        for (auto at = mappings_.lower_bound(iova);
             at != mappings_.end() && at->first - iova < length; ++at) {
            if (at->second > length - (at->first - iova)) return false;
            util::Bitmap pages(at->second / kPageSize);
            if (!page_table.log->peek({at->first, at->second}, pages)) return false;
            written.or_range((at->first - iova) / kPageSize, pages, 0, pages.size());
        }
    }
    return true;
}

Result<> IommufdContainer::dma_unmap_written(Iova iova, uint64_t length, util::Bitmap& written) {
    MIG_CHECK(check_pages(name_, iova, length));
    const std::lock_guard lock(mutex_);
    if (!rescue(iova, length, written)) written.set_range(0, length / kPageSize);
    MIG_CHECK(iommufd_.unmap(ioas_, iova, length), "{}", name_);
    mappings_.erase(mappings_.lower_bound(iova), mappings_.upper_bound(iova + (length - 1)));
    return {};
}

}  // namespace ferry::vfio
