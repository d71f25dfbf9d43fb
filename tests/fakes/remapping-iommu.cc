// SPDX-License-Identifier: BSD-2-Clause
#include "tests/fakes/remapping-iommu.h"

#include <array>

#include "util/wire.h"

namespace ferry::test {

using system::kPageSize;

void RemappingIommu::write_entry(uint64_t page, system::Gpa gpa, uint64_t access) {
    std::array<std::byte, sizeof(uint64_t)> bytes;
    util::store_le64(bytes.data(), gpa | access);
    (void)memory_.write(table_ + page * sizeof(uint64_t), bytes);
}

uint64_t RemappingIommu::entry(uint64_t page) const {
    std::array<std::byte, sizeof(uint64_t)> bytes{};
    (void)memory_.read(table_ + page * sizeof(uint64_t), bytes);
    return util::load_le64(bytes.data());
}

Result<> RemappingIommu::invalidate(uint64_t first, uint64_t count) {
    Result<> outcome;
    const auto note = [&outcome](Result<> done) {
        if (!done && outcome) outcome = std::move(done);
    };
    for (uint64_t page = first; page < first + count; ++page) {
        const uint64_t wanted = entry(page);
        const auto now = effective_.find(page);
        if (now != effective_.end()) {
            if (now->second == wanted) continue;
            note(space_.unmap(iova_of(page), kPageSize));
            effective_.erase(now);
        }
        if ((wanted & (kReadable | kWritable)) == 0) continue;
        auto mapped = space_.map({.iova = iova_of(page),
                                  .gpa = wanted & ~(kPageSize - 1),
                                  .length = kPageSize,
                                  .access = (wanted & kWritable) != 0 ? vfio::MapAccess::ReadWrite
                                                                      : vfio::MapAccess::ReadOnly});
        if (mapped) effective_[page] = wanted;
        note(std::move(mapped));
    }
    return outcome;
}

}  // namespace ferry::test
