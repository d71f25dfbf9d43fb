// SPDX-License-Identifier: BSD-2-Clause
// Dirty bitmaps: one bit per page, 64-bit words, bit 0 = least significant (the kernel's order).
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace ferry::util {

// One thread at a time.
class Bitmap {
 public:
    Bitmap() = default;
    explicit Bitmap(uint64_t bits) : bits_(bits), words_((bits + 63) / 64) {}

    uint64_t size() const { return bits_; }
    bool test(uint64_t bit) const { return (words_[bit / 64] >> (bit % 64) & 1) != 0; }
    void set(uint64_t bit) { words_[bit / 64] |= uint64_t{1} << (bit % 64); }
    void clear(uint64_t bit) { words_[bit / 64] &= ~(uint64_t{1} << (bit % 64)); }
    // Returns how many of them were clear.
    uint64_t set_range(uint64_t first, uint64_t count);
    void clear_range(uint64_t first, uint64_t count);
    void set_all() { set_range(0, bits_); }
    void clear_all();
    uint64_t count() const;
    bool none() const { return count() == 0; }
    // The first set (clear) bit at or after `from`, or size().
    uint64_t find_set(uint64_t from) const;
    uint64_t find_clear(uint64_t from) const;
    // How many bits are set from `first`, which is, at most `max`.
    uint64_t run_of_set(uint64_t first, uint64_t max) const;
    void or_with(const Bitmap& other);  // same size
    // ORs bits [from_bit, from_bit + count) of `from` to `to_bit` and on; in range on both sides.
    // Returns how many were clear here before. Empty stretches of `from` cost next to nothing.
    uint64_t or_range(uint64_t to_bit, const Bitmap& from, uint64_t from_bit, uint64_t count);

    std::span<uint64_t> words() { return words_; }
    std::span<const uint64_t> words() const { return words_; }

 private:
    uint64_t bits_ = 0;
    std::vector<uint64_t> words_;
};

// Many threads set, one collects. A bit set before collect() starts is in its result or in the
// next one's, never lost.
class AtomicBitmap {
 public:
    explicit AtomicBitmap(uint64_t bits)
        : bits_(bits), words_(new std::atomic<uint64_t>[(bits + 63) / 64]()) {}

    uint64_t size() const { return bits_; }
    bool test(uint64_t bit) const {
        return (words_[bit / 64].load(std::memory_order_relaxed) >> (bit % 64) & 1) != 0;
    }
    void set_range(uint64_t first, uint64_t count);
    // ORs everything into `out` (same size) and clears it here. Returns how many were clear there.
    uint64_t collect_into(Bitmap& out);
    void clear_all();

 private:
    uint64_t bits_;
    std::unique_ptr<std::atomic<uint64_t>[]> words_;
};

}  // namespace ferry::util
