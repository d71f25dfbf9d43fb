// SPDX-License-Identifier: BSD-2-Clause
// What the workload writes where, as pure functions of seed and sequence number, so that a checker
// that knows the last sequence number can tell what each page must hold. The definition is in
// docs/devel/workload.rst; tools/ferry-memcmp implements it a second time, on purpose.
#pragma once

#include <cstdint>

#include "util/bytes.h"

namespace ferry::qtest {

enum class Order : uint8_t { Sequential, Random };
enum class Fill : uint8_t { Page, Record };  // Record: only the first kRecordSize bytes of a page

inline constexpr uint64_t kRecordMagic = 0x31'30'4c'57'52'52'45'46;  // "FERRWL01", little-endian
inline constexpr size_t kRecordSize = 64;

// Bijective, every output bit depends on every input bit.
constexpr uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

// Which of `pages` pages write number `sequence` (1, 2, ...) goes to.
constexpr uint64_t page_of(Order order, uint64_t seed, uint64_t sequence, uint64_t pages) {
    if (order == Order::Sequential) return (sequence - 1) % pages;
    return mix(seed ^ mix(sequence)) % pages;
}

// Fills `out` (a whole page or a record) with what that write leaves in `page`.
void fill_page(MutBytes out, uint64_t seed, uint64_t sequence, uint64_t page);

}  // namespace ferry::qtest
