// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/container-soft.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "util/try.h"

namespace ferry::vfio {

using system::Iova;
using system::kPageSize;

namespace {

// A device writes while a CPU, or the thread that migrates the page, reads: the dirty log puts that
// right, no lock could. The thread sanitizer is kept out of it.
#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize("thread"))) void copy_guest_bytes(std::byte* to, const std::byte* from,
                                                             size_t count) {
    volatile std::byte* out = to;  // so that no memcpy, which is watched, comes of it
    for (size_t i = 0; i < count; ++i) out[i] = from[i];
}
#else
void copy_guest_bytes(std::byte* to, const std::byte* from, size_t count) {
    std::memcpy(to, from, count);
}
#endif

Result<> check_pages(std::string_view name, std::string_view what, Iova iova, uint64_t length) {
    if (length == 0 || iova % kPageSize != 0 || length % kPageSize != 0 ||
        iova + (length - 1) < iova) {
        return make_errno(EINVAL, "{}: {} {:#x}+{:#x}: empty, not page-aligned, or wraps", name,
                          what, iova, length);
    }
    return {};
}

}  // namespace

Result<> SoftContainer::dma_map(Iova iova, MutBytes host, MapAccess access) {
    MIG_CHECK(check_pages(name_, "mapping", iova, host.size()));
    const Iova last = iova + (host.size() - 1);
    const std::unique_lock lock(mutex_);
    const auto after = mappings_.upper_bound(last);
    if (after != mappings_.begin()) {
        const auto& [other, mapping] = *std::prev(after);
        if (other + (mapping.host.size() - 1) >= iova) {
            return make_errno(EEXIST, "{}: mapping {:#x}+{:#x} overlaps {:#x}+{:#x}", name_, iova,
                              host.size(), other, mapping.host.size());
        }
    }
    mappings_.emplace(iova, Mapping{host, access});
    return {};
}

Result<> SoftContainer::dma_unmap(Iova iova, uint64_t length) {
    MIG_CHECK(check_pages(name_, "unmapping", iova, length));
    const Iova last = iova + (length - 1);
    const std::unique_lock lock(mutex_);
    const auto cut_by = [&](Iova edge) {  // a mapping that begins before `edge` and goes on there
        const auto at = mappings_.lower_bound(edge);
        return at != mappings_.begin() &&
               std::prev(at)->first + (std::prev(at)->second.host.size() - 1) >= edge;
    };
    if (cut_by(iova) || (last != ~Iova{0} && cut_by(last + 1))) {
        return make_errno(EINVAL, "{}: unmapping {:#x}+{:#x} would cut a mapping", name_, iova,
                          length);
    }
    mappings_.erase(mappings_.lower_bound(iova), mappings_.upper_bound(last));
    return {};
}

Result<> SoftContainer::dma_unmap_written(Iova iova, uint64_t length, util::Bitmap& written) {
    MIG_CHECK(dma_unmap(iova, length));
    written.set_range(0, length / kPageSize);
    return {};
}

MutBytes SoftContainer::piece(Iova iova, uint64_t length, MapAccess access) const {
    const auto after = mappings_.upper_bound(iova);
    if (after == mappings_.begin()) return {};
    const auto& [first, mapping] = *std::prev(after);
    const uint64_t into = iova - first;
    if (into >= mapping.host.size()) return {};
    if (access == MapAccess::ReadWrite && mapping.access == MapAccess::ReadOnly) return {};
    return mapping.host.subspan(into, std::min<uint64_t>(length, mapping.host.size() - into));
}

Result<> SoftContainer::check_mapped(Iova iova, uint64_t length, MapAccess access) const {
    for (uint64_t done = 0; done < length;) {
        const Iova at = iova + done;
        const MutBytes memory = at < iova ? MutBytes() : piece(at, length - done, access);
        if (memory.empty()) {
            return make_errno(EFAULT, "{}: DMA to {:#x}+{:#x}: nothing is mapped {}at {:#x}", name_,
                              iova, length, access == MapAccess::ReadWrite ? "for writing " : "",
                              at);
        }
        done += memory.size();
    }
    return {};
}

Result<> SoftContainer::dma_read(Iova iova, MutBytes out) {
    const std::shared_lock lock(mutex_);
    MIG_CHECK(check_mapped(iova, out.size(), MapAccess::ReadOnly));
    while (!out.empty()) {
        const MutBytes memory = piece(iova, out.size(), MapAccess::ReadOnly);
        copy_guest_bytes(out.data(), memory.data(), memory.size());
        out = out.subspan(memory.size());
        iova += memory.size();
    }
    return {};
}

Result<> SoftContainer::dma_write(Iova iova, ConstBytes in) {
    const std::shared_lock lock(mutex_);
    MIG_CHECK(check_mapped(iova, in.size(), MapAccess::ReadWrite));
    while (!in.empty()) {
        const MutBytes memory = piece(iova, in.size(), MapAccess::ReadWrite);
        copy_guest_bytes(memory.data(), in.data(), memory.size());
        in = in.subspan(memory.size());
        iova += memory.size();
    }
    return {};
}

}  // namespace ferry::vfio
