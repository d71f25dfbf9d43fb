// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/dma-space.h"

#include <algorithm>
#include <cerrno>

#include "util/try.h"

namespace ferry::vfio {

using system::Gpa;
using system::Iova;
using system::kPageSize;

namespace {

Result<> check_pages(std::string_view what, Iova iova, uint64_t length) {
    if (length != 0 && (iova | length) % kPageSize == 0 && length - 1 <= UINT64_MAX - iova) {
        return {};
    }
    return make_errno(EINVAL, "virtual IOMMU: {} {:#x}+{:#x}: no row of pages", what, iova, length);
}

}  // namespace

// A translation as pieces that are contiguous in host memory.
Result<std::vector<DmaSpace::Translation>> DmaSpace::split(const Translation& wanted) const {
    MIG_CHECK(check_pages("mapping", wanted.iova, wanted.length));
    MIG_CHECK(check_pages("mapping to guest memory at", wanted.gpa, wanted.length));
    std::vector<Translation> pieces;
    for (uint64_t done = 0; done < wanted.length;) {
        const Gpa gpa = wanted.gpa + done;
        const uint64_t length = memory_.lookup(gpa, wanted.length - done).bytes.size();
        if (length == 0 || length % kPageSize != 0) {
            return make_error(ErrorKind::InvalidArgument,
                              "virtual IOMMU: mapping {:#x}+{:#x}: there is no guest RAM at {:#x}",
                              wanted.iova, wanted.length, gpa);
        }
        pieces.push_back({wanted.iova + done, gpa, length, wanted.access});
        done += length;
    }
    return pieces;
}

Result<> DmaSpace::check_free(const Translation& wanted) const {
    const auto after = pieces_.upper_bound(wanted.iova + (wanted.length - 1));
    if (after == pieces_.begin()) return {};
    const auto& [iova, piece] = *std::prev(after);
    if (iova + (piece.length - 1) < wanted.iova) return {};
    return make_errno(EEXIST, "virtual IOMMU: mapping {:#x}+{:#x} overlaps {:#x}+{:#x}",
                      wanted.iova, wanted.length, iova, piece.length);
}

MutBytes DmaSpace::host_of(const Translation& piece) const {
    return memory_.lookup(piece.gpa, piece.length).bytes;
}

Result<> DmaSpace::map_everywhere(const Translation& piece) {
    for (size_t i = 0; i < containers_.size(); ++i) {
        auto mapped = containers_[i]->dma_map(piece.iova, host_of(piece), piece.access);
        if (mapped) continue;
        Error error = std::move(mapped).error().context(
            fmt::format("virtual IOMMU: mapping for {}", containers_[i]->name()));
        while (i-- > 0) {
            auto undone = containers_[i]->dma_unmap(piece.iova, piece.length);
            if (!undone) error.attach_in_place(std::move(undone).error());
        }
        return error;
    }
    pieces_.emplace(piece.iova, Piece{piece.gpa, piece.length, piece.access});
    return {};
}

Result<util::Registration> DmaSpace::attach(DmaContainer& container) {
    const std::lock_guard lock(mutex_);
    for (auto at = pieces_.begin(); at != pieces_.end(); ++at) {
        const auto& [iova, piece] = *at;
        auto mapped = container.dma_map(
            iova, host_of({iova, piece.gpa, piece.length, piece.access}), piece.access);
        if (mapped) continue;
        Error error = std::move(mapped).error().context(
            fmt::format("{}: what a virtual IOMMU maps", container.name()));
        while (at != pieces_.begin()) {
            --at;
            auto undone = container.dma_unmap(at->first, at->second.length);
            if (!undone) error.attach_in_place(std::move(undone).error());
        }
        return error;
    }
    containers_.push_back(&container);
    return util::Registration([this, &container] {
        const std::lock_guard held(mutex_);
        std::erase(containers_, &container);
    });
}

Result<> DmaSpace::map(const Translation& wanted) {
    MIG_TRY(const std::vector<Translation> pieces, split(wanted));
    const std::lock_guard lock(mutex_);
    MIG_CHECK(check_free(wanted));
    for (size_t i = 0; i < pieces.size(); ++i) {
        auto mapped = map_everywhere(pieces[i]);
        if (mapped) continue;
        Error error = std::move(mapped).error();
        while (i-- > 0) {
            const auto at = pieces_.find(pieces[i].iova);
            auto undone = unmap_piece(at->first, at->second);
            if (!undone) error.attach_in_place(std::move(undone).error());
            pieces_.erase(at);
        }
        return error;
    }
    return {};
}

// What was written is nobody's to tell once the translation is gone.
void DmaSpace::rescue(const Piece& piece, const util::Bitmap& written) const {
    for (uint64_t page = written.find_set(0); page < written.size();) {
        const uint64_t end = std::min(written.find_clear(page), written.size());
        const auto memory = memory_.lookup(piece.gpa + page * kPageSize, (end - page) * kPageSize);
        memory.block->mark_dirty(memory.offset, memory.bytes.size());
        page = written.find_set(end);
    }
}

Result<> DmaSpace::unmap_piece(Iova iova, const Piece& piece) {
    const bool tracked = tracking_ != Tracking::Off && piece.access == MapAccess::ReadWrite;
    util::Bitmap written(tracked ? piece.length / kPageSize : 0);
    Result<> outcome;
    for (DmaContainer* container : containers_) {
        auto unmapped = tracked ? container->dma_unmap_written(iova, piece.length, written)
                                : container->dma_unmap(iova, piece.length);
        if (unmapped) continue;
        outcome = std::move(unmapped).error().context(
            fmt::format("virtual IOMMU: unmapping for {}", container->name()));
    }
    if (tracked && (tracking_ == Tracking::Nowhere || !outcome)) written.set_all();
    rescue(piece, written);
    return outcome;
}

Result<> DmaSpace::unmap(Iova iova, uint64_t length) {
    MIG_CHECK(check_pages("unmapping", iova, length));
    const Iova last = iova + (length - 1);
    const std::lock_guard lock(mutex_);
    auto at = pieces_.lower_bound(iova);
    if (at != pieces_.begin() &&
        std::prev(at)->first + (std::prev(at)->second.length - 1) >= iova) {
        return make_errno(EINVAL, "virtual IOMMU: unmapping {:#x}+{:#x} would cut a mapping", iova,
                          length);
    }
    const auto end = pieces_.upper_bound(last);
    if (end != at && std::prev(end)->first + (std::prev(end)->second.length - 1) > last) {
        return make_errno(EINVAL, "virtual IOMMU: unmapping {:#x}+{:#x} would cut a mapping", iova,
                          length);
    }
    // All are tried: one that a kernel keeps must not keep the others.
    Result<> outcome;
    while (at != end) {
        auto unmapped = unmap_piece(at->first, at->second);
        if (!unmapped && outcome) outcome = std::move(unmapped);
        at = pieces_.erase(at);
    }
    return outcome;
}

void DmaSpace::set_tracking(Tracking tracking) {
    const std::lock_guard lock(mutex_);
    tracking_ = tracking;
}

void DmaSpace::walk(const std::function<void(const Translation&)>& each) const {
    for (Iova from = 0;;) {
        const std::lock_guard lock(mutex_);
        const auto at = pieces_.lower_bound(from);
        if (at == pieces_.end()) return;
        const Piece& piece = at->second;
        each({at->first, piece.gpa, piece.length, piece.access});
        if (piece.length > UINT64_MAX - at->first) return;
        from = at->first + piece.length;
    }
}

}  // namespace ferry::vfio
