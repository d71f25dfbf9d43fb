// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/type1-dirty-log.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "hw/vfio/uapi.h"
#include "util/try.h"

namespace ferry::vfio {

using system::Iova;
using system::kPageSize;

namespace {

Error explain_map(Error error) {
    switch (error.errnum()) {
        case ENOMEM:
            return std::move(error).context(
                "guest RAM is pinned for devices; raise the limit of locked memory (ulimit -l)");
        case EINVAL:
            return std::move(error).context("the IOMMU cannot use or has reserved this address");
        default: return error;
    }
}

uapi::DirtyBitmap describe(util::Bitmap& bitmap) {
    return {.pgsize = kPageSize,
            .size = bitmap.words().size_bytes(),
            // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): a number here
            .data = reinterpret_cast<uintptr_t>(bitmap.words().data())};
}

}  // namespace

void Type1DirtyLog::set_info(const Type1Info& info) {
    const std::lock_guard lock(mutex_);
    info_ = info;
}

bool Type1DirtyLog::usable() const {
    const std::lock_guard lock(mutex_);
    return info_.max_bitmap_bytes >= sizeof(uint64_t) && !info_.pins_everything;
}

uint64_t Type1DirtyLog::max_piece_bytes() const {
    if (info_.max_bitmap_bytes < sizeof(uint64_t)) return kMaxDirtyQueryBytes;
    // Whole words of a bitmap, so that pieces of one query lie side by side.
    const uint64_t words =
        std::min(info_.max_bitmap_bytes / sizeof(uint64_t), kMaxDirtyQueryBytes / kPageSize / 64);
    return words * 64 * kPageSize;
}

Result<> Type1DirtyLog::map_piece(Iova iova, MutBytes host, MapAccess access) {
    uapi::DmaMap map{
        .argsz = sizeof(map),
        .flags = uapi::kDmaMapRead | (access == MapAccess::ReadWrite ? uapi::kDmaMapWrite : 0),
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): a number here
        .vaddr = reinterpret_cast<uintptr_t>(host.data()),
        .iova = iova,
        .size = host.size()};
    auto done =
        kernel_.ioctl(container_, uapi::kMapDma, &map,
                      fmt::format("ioctl(VFIO_IOMMU_MAP_DMA, {:#x}+{:#x})", iova, host.size()));
    if (!done) return explain_map(std::move(done).error());
    mappings_.emplace(iova, host.size());
    return {};
}

Result<> Type1DirtyLog::map(Iova iova, MutBytes host, MapAccess access) {
    const std::lock_guard lock(mutex_);
    const uint64_t most = max_piece_bytes();
    for (uint64_t done = 0; done < host.size();) {
        const uint64_t length = std::min<uint64_t>(most, host.size() - done);
        auto mapped = map_piece(iova + done, host.subspan(done, length), access);
        if (!mapped) {
            Error error = std::move(mapped).error();
            if (done == 0) return error;
            if (auto undone = unmap_piece(iova, done); !undone) {
                error.attach_in_place(std::move(undone).error());
            }
            return error;
        }
        done += length;
    }
    return {};
}

Result<> Type1DirtyLog::unmap_piece(Iova iova, uint64_t length) {
    uapi::DmaUnmap unmap{.argsz = sizeof(unmap), .flags = 0, .iova = iova, .size = length};
    const std::string call = fmt::format("ioctl(VFIO_IOMMU_UNMAP_DMA, {:#x}+{:#x})", iova, length);
    MIG_CHECK(kernel_.ioctl(container_, uapi::kUnmapDma, &unmap, call));
    mappings_.erase(mappings_.lower_bound(iova), mappings_.upper_bound(iova + (length - 1)));
    if (unmap.size != length) {
        return make_error(ErrorKind::InvalidState, "{}: {:#x} bytes were mapped", call, unmap.size);
    }
    return {};
}

// One call for both: between two, the device could write.
Result<> Type1DirtyLog::unmap_piece_written(DmaLogRange piece, util::Bitmap& out) {
    util::Bitmap bitmap(piece.length / kPageSize);
    uapi::DmaUnmapDirty unmap{.unmap = {.argsz = sizeof(unmap),
                                        .flags = uapi::kDmaUnmapGetDirtyBitmap,
                                        .iova = piece.iova,
                                        .size = piece.length},
                              .bitmap = describe(bitmap)};
    MIG_CHECK(kernel_.ioctl(container_, uapi::kUnmapDma, &unmap,
                            fmt::format("ioctl(VFIO_IOMMU_UNMAP_DMA, {:#x}+{:#x}, dirty bitmap)",
                                        piece.iova, piece.length)));
    mappings_.erase(piece.iova);
    out = std::move(bitmap);
    return {};
}

Result<> Type1DirtyLog::unmap(Iova iova, uint64_t length, util::Bitmap* written) {
    const std::lock_guard lock(mutex_);
    if (written == nullptr) return unmap_piece(iova, length);
    if (!started_ || info_.pins_everything) {
        written->set_range(0, length / kPageSize);
        return unmap_piece(iova, length);
    }
    uint64_t unmapped = 0;
    for (auto at = mappings_.lower_bound(iova);
         at != mappings_.end() && at->first - iova < length;) {
        const DmaLogRange piece{at->first, at->second};
        ++at;  // the piece goes
        const uint64_t first_page = (piece.iova - iova) / kPageSize;
        util::Bitmap bitmap;
        if (piece.iova - iova + piece.length > length || !unmap_piece_written(piece, bitmap)) {
            // It must go even if nobody can tell what was written there.
            MIG_CHECK(unmap_piece(piece.iova, piece.length));
            bitmap = util::Bitmap(piece.length / kPageSize);
            bitmap.set_all();
        }
        written->or_range(first_page, bitmap, 0, bitmap.size());
        unmapped += piece.length;
    }
    if (unmapped == length) return {};
    return make_error(ErrorKind::InvalidState, "{}: unmapping {:#x}+{:#x}: {:#x} bytes were mapped",
                      name(), iova, length, unmapped);
}

Result<> Type1DirtyLog::switch_tracking(uint32_t flag, std::string_view call) {
    uapi::DirtyPages request{.argsz = sizeof(request), .flags = flag};
    MIG_CHECK(kernel_.ioctl(container_, uapi::kDirtyPages, &request, call));
    return {};
}

Result<> Type1DirtyLog::start() {
    const std::lock_guard lock(mutex_);
    MIG_CHECK(switch_tracking(uapi::kDirtyPagesStart, "ioctl(VFIO_IOMMU_DIRTY_PAGES, start)"));
    started_ = true;
    return {};
}

Result<> Type1DirtyLog::stop() {
    const std::lock_guard lock(mutex_);
    MIG_CHECK(switch_tracking(uapi::kDirtyPagesStop, "ioctl(VFIO_IOMMU_DIRTY_PAGES, stop)"));
    started_ = false;
    return {};
}

// The kernel overwrites all but a partial first word: into a bitmap of its own, then.
Result<> Type1DirtyLog::query_piece(DmaLogRange piece, util::Bitmap& out) {
    util::Bitmap bitmap(piece.length / kPageSize);
    uapi::DirtyPagesGet get{.header = {.argsz = sizeof(get), .flags = uapi::kDirtyPagesGetBitmap},
                            .iova = piece.iova,
                            .size = piece.length,
                            .bitmap = describe(bitmap)};
    MIG_CHECK(kernel_.ioctl(
        container_, uapi::kDirtyPages, &get,
        fmt::format("ioctl(VFIO_IOMMU_DIRTY_PAGES, get {:#x}+{:#x})", piece.iova, piece.length)));
    out = std::move(bitmap);
    return {};
}

Result<> Type1DirtyLog::query(DmaLogRange range, util::Bitmap& out) {
    const std::lock_guard lock(mutex_);
    if (info_.pins_everything) {
        return make_error(ErrorKind::Unsupported,
                          "{}: a device behind an IOMMU joined the container: all memory is "
                          "pinned for it, and the kernel reports all of it as written",
                          name());
    }
    for (auto at = mappings_.lower_bound(range.iova);
         at != mappings_.end() && at->first - range.iova < range.length; ++at) {
        const uint64_t into = at->first - range.iova;
        if (at->second > range.length - into) {
            return make_error(ErrorKind::InvalidArgument,
                              "{}: {:#x}+{:#x} ends inside the mapping {:#x}+{:#x}", name(),
                              range.iova, range.length, at->first, at->second);
        }
        util::Bitmap bitmap;
        MIG_CHECK(query_piece({at->first, at->second}, bitmap));
        out.or_range(into / kPageSize, bitmap, 0, bitmap.size());
    }
    return {};
}

}  // namespace ferry::vfio
