// SPDX-License-Identifier: BSD-2-Clause
#include "util/bitmap.h"

#include <algorithm>
#include <cassert>

namespace ferry::util {

namespace {
// The bits of word `word` that lie in [first, last].
uint64_t mask_in_word(uint64_t word, uint64_t first, uint64_t last) {
    uint64_t mask = ~uint64_t{0};
    if (word == first / 64) mask &= ~uint64_t{0} << (first % 64);
    if (word == last / 64) mask &= ~uint64_t{0} >> (63 - last % 64);
    return mask;
}

// Words looked at together when most of them are expected to be zero: a cache line.
constexpr size_t kBlockWords = 8;

bool all_zero(const uint64_t* block) {
    uint64_t any = 0;
    for (size_t i = 0; i < kBlockWords; ++i) any |= block[i];
    return any == 0;
}

uint64_t or_word(uint64_t& to, uint64_t bits) {
    const uint64_t added = bits & ~to;
    to |= bits;
    return static_cast<uint64_t>(std::popcount(added));
}

uint64_t or_words(std::span<uint64_t> to, std::span<const uint64_t> from) {
    uint64_t added = 0;
    size_t i = 0;
    for (; i + kBlockWords <= from.size(); i += kBlockWords) {
        if (all_zero(&from[i])) continue;
        for (size_t k = i; k < i + kBlockWords; ++k) added += or_word(to[k], from[k]);
    }
    for (; i < from.size(); ++i) added += or_word(to[i], from[i]);
    return added;
}
}  // namespace

uint64_t Bitmap::set_range(uint64_t first, uint64_t count) {
    if (count == 0) return 0;
    assert(first + count <= bits_);
    const uint64_t last = first + count - 1;
    uint64_t added = 0;
    for (uint64_t w = first / 64; w <= last / 64; ++w) {
        added += or_word(words_[w], mask_in_word(w, first, last));
    }
    return added;
}

void Bitmap::clear_range(uint64_t first, uint64_t count) {
    if (count == 0) return;
    assert(first + count <= bits_);
    const uint64_t last = first + count - 1;
    for (uint64_t w = first / 64; w <= last / 64; ++w) words_[w] &= ~mask_in_word(w, first, last);
}

void Bitmap::clear_all() {
    std::fill(words_.begin(), words_.end(), 0);
}

uint64_t Bitmap::count() const {
    uint64_t total = 0;
    for (const uint64_t word : words_) total += static_cast<uint64_t>(std::popcount(word));
    return total;
}

uint64_t Bitmap::find_set(uint64_t from) const {
    if (from >= bits_) return bits_;
    uint64_t w = from / 64;
    uint64_t word = words_[w] & (~uint64_t{0} << (from % 64));
    while (word == 0) {
        if (++w == words_.size()) return bits_;
        while (w + kBlockWords <= words_.size() && all_zero(&words_[w])) w += kBlockWords;
        if (w == words_.size()) return bits_;
        word = words_[w];
    }
    return w * 64 + static_cast<uint64_t>(std::countr_zero(word));
}

uint64_t Bitmap::find_clear(uint64_t from) const {
    if (from >= bits_) return bits_;
    uint64_t w = from / 64;
    uint64_t word = ~words_[w] & (~uint64_t{0} << (from % 64));
    while (word == 0) {
        if (++w == words_.size()) return bits_;
        word = ~words_[w];
    }
    return std::min(bits_, w * 64 + static_cast<uint64_t>(std::countr_zero(word)));
}

uint64_t Bitmap::run_of_set(uint64_t first, uint64_t max) const {
    const uint64_t limit = std::min(max, bits_ - first);
    uint64_t count = 0;
    while (count < limit) {
        const uint64_t at = first + count;
        const auto ones = static_cast<uint64_t>(std::countr_one(words_[at / 64] >> (at % 64)));
        count += ones;
        if (ones < 64 - at % 64) break;
    }
    return std::min(count, limit);
}

void Bitmap::or_with(const Bitmap& other) {
    assert(other.bits_ == bits_);
    for (size_t i = 0; i < words_.size(); ++i) words_[i] |= other.words_[i];
}

uint64_t Bitmap::or_range(uint64_t to_bit, const Bitmap& from, uint64_t from_bit, uint64_t count) {
    assert(to_bit + count <= bits_ && from_bit + count <= from.bits_);
    uint64_t added = 0;
    if (to_bit % 64 == 0 && from_bit % 64 == 0) {
        const uint64_t words = count / 64;
        added = or_words(std::span(words_).subspan(to_bit / 64, words),
                         std::span(from.words_).subspan(from_bit / 64, words));
        to_bit += words * 64;
        from_bit += words * 64;
        count -= words * 64;
    }
    while (count != 0) {
        const uint64_t step = std::min(count, 64 - to_bit % 64);
        uint64_t bits = from.words_[from_bit / 64] >> (from_bit % 64);
        const uint64_t have = 64 - from_bit % 64;
        if (have < step) bits |= from.words_[from_bit / 64 + 1] << have;
        if (step < 64) bits &= (uint64_t{1} << step) - 1;
        added += or_word(words_[to_bit / 64], bits << (to_bit % 64));
        to_bit += step;
        from_bit += step;
        count -= step;
    }
    return added;
}

void AtomicBitmap::set_range(uint64_t first, uint64_t count) {
    if (count == 0) return;
    assert(first + count <= bits_);
    const uint64_t last = first + count - 1;
    for (uint64_t w = first / 64; w <= last / 64; ++w) {
        const uint64_t mask = mask_in_word(w, first, last);
        // Release: the data written before the mark is visible to whoever collects it.
        words_[w].fetch_or(mask, std::memory_order_release);
    }
}

uint64_t AtomicBitmap::collect_into(Bitmap& out) {
    assert(out.size() == bits_);
    const auto words = out.words();
    uint64_t added = 0;
    const auto take_word = [&](size_t i) {
        if (words_[i].load(std::memory_order_relaxed) == 0) return;
        added += or_word(words[i], words_[i].exchange(0, std::memory_order_acquire));
    };
    size_t i = 0;
    for (; i + kBlockWords <= words.size(); i += kBlockWords) {
        uint64_t any = 0;
        for (size_t k = 0; k < kBlockWords; ++k) {
            any |= words_[i + k].load(std::memory_order_relaxed);
        }
        for (size_t k = 0; any != 0 && k < kBlockWords; ++k) take_word(i + k);
    }
    for (; i < words.size(); ++i) take_word(i);
    return added;
}

void AtomicBitmap::clear_all() {
    for (uint64_t i = 0; i < (bits_ + 63) / 64; ++i) words_[i].store(0, std::memory_order_relaxed);
}

}  // namespace ferry::util
