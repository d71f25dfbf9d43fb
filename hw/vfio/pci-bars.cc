// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/pci-bars.h"

#include <algorithm>

#include "util/try.h"

namespace ferry::vfio {

namespace {

using Area = RegionInfo::Area;

uint64_t page_down(uint64_t value) {
    return value & ~(system::kPageSize - 1);
}
uint64_t page_up(uint64_t value) {
    return page_down(value + (system::kPageSize - 1));
}

// Whole pages of `areas` without those that [begin, begin + bytes) touches.
std::vector<Area> without(const std::vector<Area>& areas, uint64_t begin, uint64_t bytes) {
    const uint64_t hole = page_down(begin);
    const uint64_t hole_end = page_up(begin + bytes);
    std::vector<Area> out;
    const auto keep = [&out](uint64_t first, uint64_t end) {
        if (first < end) out.push_back({first, end - first});
    };
    for (const Area& area : areas) {
        const uint64_t end = area.offset + area.size;
        keep(area.offset, std::min(end, hole));
        keep(std::max(area.offset, hole_end), end);
    }
    return out;
}

}  // namespace

std::vector<Area> directly_usable(const RegionInfo& region, unsigned bar,
                                  const std::optional<MsixLayout>& msix) {
    std::vector<Area> areas;
    if (!region.mappable || !region.readable || !region.writable) return areas;
    for (const Area& area : region.mmap_areas) {
        const uint64_t first = page_up(area.offset);
        const uint64_t end = page_down(area.offset + area.size);
        if (first < end) areas.push_back({first, end - first});
    }
    if (msix && msix->table_bar == bar) {
        areas = without(areas, msix->table_offset, msix->table_bytes());
    }
    if (msix && msix->pba_bar == bar) areas = without(areas, msix->pba_offset, msix->pba_bytes());
    return areas;
}

Result<> BarMappings::add(VfioDeviceIo& io, unsigned bar, const std::optional<MsixLayout>& msix) {
    MIG_TRY(const RegionInfo region, io.region_info(bar));
    for (const Area& area : directly_usable(region, bar, msix)) {
        if (pieces_.size() == kMaxPieces) {
            return make_error(ErrorKind::LimitExceeded, "BAR {}: more than {} parts to be mapped",
                              bar, kMaxPieces);
        }
        MIG_TRY(auto host, io.region_map(bar, area.offset, area.size), "BAR {}", bar);
        pieces_.push_back({.bar = bar,
                           .offset = area.offset,
                           .host = std::move(host),
                           .tried_at = std::nullopt,
                           .shown = {}});
    }
    return {};
}

std::optional<uint64_t> BarMappings::address_of(const Piece& piece, Decoded decoded) {
    const auto found = std::ranges::find(decoded, piece.bar, &pci::PciDevice::MemoryBar::bar);
    if (found == decoded.end()) return std::nullopt;
    return found->gpa;
}

void BarMappings::withdraw(Decoded decoded) {
    for (Piece& piece : pieces_) {
        if (piece.tried_at == address_of(piece, decoded)) continue;
        piece.shown.reset();
        piece.tried_at.reset();
    }
}

Result<> BarMappings::show(Decoded decoded) {
    std::optional<Error> trouble;
    for (Piece& piece : pieces_) {
        const auto address = address_of(piece, decoded);
        if (!address || piece.tried_at == address) continue;
        piece.tried_at = address;
        auto shown = memory_.map_device_memory(*address + piece.offset, piece.host.bytes());
        if (shown) {
            piece.shown = std::move(*shown);
        } else if (!trouble) {
            trouble = std::move(shown).error().context(fmt::format("BAR {}", piece.bar));
        }
    }
    if (trouble) return std::move(*trouble);
    return {};
}

}  // namespace ferry::vfio
