// SPDX-License-Identifier: BSD-2-Clause
#include "migration/zero-page.h"

#include <cassert>
#include <cstdint>
#include <cstring>

#include "system/memory.h"

namespace ferry::migration {

namespace {

// The compiler's vectors: SSE2 on any x86-64, what there is elsewhere.
using Vector = uint64_t __attribute__((vector_size(16)));

// One cache line or more per look: few enough branches to read at memory speed.
constexpr size_t kVectorsPerStep = 8;
constexpr size_t kStep = kVectorsPerStep * sizeof(Vector);
static_assert(system::kPageSize % kStep == 0);

uint64_t word_at(const std::byte* at) {
    uint64_t word = 0;
    std::memcpy(&word, at, sizeof(word));
    return word;
}

}  // namespace

bool is_zero_page(ConstBytes page) {
    assert(page.size() == system::kPageSize);
    const std::byte* const data = page.data();
    // Most pages in use show it at their ends or in the middle, without the rest being read.
    if ((word_at(data) | word_at(data + page.size() / 2) |
         word_at(data + page.size() - sizeof(uint64_t))) != 0) {
        return false;
    }
    for (size_t at = 0; at < page.size(); at += kStep) {
        Vector any{};
#pragma GCC unroll 8
        for (size_t i = 0; i < kVectorsPerStep; ++i) {
            Vector part;
            std::memcpy(&part, data + at + i * sizeof(Vector), sizeof(part));
            any |= part;
        }
        if ((any[0] | any[1]) != 0) return false;
    }
    return true;
}

}  // namespace ferry::migration
