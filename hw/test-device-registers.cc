// SPDX-License-Identifier: BSD-2-Clause
#include "hw/test-device-registers.h"

#include <algorithm>

#include "util/wire.h"

namespace ferry::hw {

using namespace test_device_reg;

namespace {

constexpr uint32_t kVersionValue = 1;
constexpr size_t kWord = sizeof(uint32_t);

bool is_plain(uint32_t reg) {
    if (reg >= kScratch && reg < kDmaIova) return true;
    switch (reg) {
        case kStateOffset:
        case kDmaIova:
        case kDmaIova + 4:
        case kDmaBytes:
        case kDmaValue:
        case kAutoIova:
        case kAutoIova + 4:
        case kAutoBytes:
        case kAutoBytes + 4:
        case kAutoControl: return true;
        default: return false;
    }
}

}  // namespace

void TestDevicePacer::start(util::Nanoseconds now) {
    since_ = now;
    taken_ = 0;
}

uint64_t TestDevicePacer::take(util::Nanoseconds now, uint64_t unit) {
    constexpr uint64_t kNsPerS = 1000000000;
    const auto elapsed_ns = static_cast<uint64_t>((now - since_).count());
    // In two parts: the product of nanoseconds and rate would not fit.
    const uint64_t due = elapsed_ns / kNsPerS * per_s_ + elapsed_ns % kNsPerS * per_s_ / kNsPerS;
    const uint64_t taken = (due - taken_) / unit * unit;
    taken_ += taken;
    return taken;
}

void TestDeviceRegisters::set64(uint32_t reg, uint64_t value) {
    set(reg, static_cast<uint32_t>(value));
    set(reg + 4, static_cast<uint32_t>(value >> 32));
}

bool TestDeviceRegisters::state_word_at_offset() const {
    return get(kStateOffset) % kWord == 0 && get(kStateOffset) < state_.size();
}

uint32_t TestDeviceRegisters::read(uint32_t reg) {
    switch (reg) {
        case kId: return kIdValue;
        case kVersion: return kVersionValue;
        case kStateBytes: return static_cast<uint32_t>(state_.size());
        case kStateBytes + 4: return static_cast<uint32_t>(state_.size() >> 32);
        case kStateData: {
            if (!state_word_at_offset()) return ~uint32_t{0};
            const uint32_t offset = get(kStateOffset);
            set(kStateOffset, offset + kWord);
            return util::load_le32(state_.bytes().data() + offset);
        }
        case kDigest: set64(kDigest, state_.digest()); return get(kDigest);
        default: return reg < kEnd ? get(reg) : 0;
    }
}

void TestDeviceRegisters::write(uint32_t reg, uint32_t value) {
    if (is_plain(reg)) return set(reg, value);
    switch (reg) {
        case kStateData: {
            if (!state_word_at_offset()) return;
            const uint32_t offset = get(kStateOffset);
            util::store_le32(state_.bytes().data() + offset, value);
            touched(offset, kWord);
            set(kStateOffset, offset + kWord);
            return;
        }
        case kFill:
            set(kFill, value);
            state_.fill(value);
            set(kGeneration, get(kGeneration) + 1);
            return;
        default: return;  // read-only, or no register
    }
}

void TestDeviceRegisters::touched(uint64_t offset, uint64_t length) {
    state_.touch(offset, length);
    set(kGeneration, get(kGeneration) + 1);
}

void TestDeviceRegisters::change(uint64_t bytes) {
    constexpr uint64_t kStep = sizeof(uint64_t);
    uint64_t changed = get64(kChanged);
    // What is due beyond one round would be overwritten by the next one.
    uint64_t left =
        std::min((std::min(bytes, state_.size()) + kStep - 1) / kStep * kStep, state_.size());
    while (left != 0) {
        const uint64_t offset = changed % state_.size();
        const uint64_t length = std::min(left, state_.size() - offset);
        std::byte* const at = state_.bytes().data() + offset;
        for (uint64_t i = 0; i < length; i += kStep) {
            util::store_le64(at + i, (changed + i + kStep) * 0x9e3779b97f4a7c15);
        }
        touched(offset, length);
        changed += length;
        left -= length;
    }
    set64(kChanged, changed);
}

std::vector<std::byte> TestDeviceRegisters::save() const {
    std::vector<std::byte> image(kImageBytes);
    for (size_t i = 0; i < words_.size(); ++i)
        util::store_le32(image.data() + i * kWord, words_[i]);
    std::ranges::copy(ram_, image.begin() + kEnd);
    return image;
}

void TestDeviceRegisters::load(ConstBytes image) {
    for (size_t i = 0; i < words_.size(); ++i)
        words_[i] = util::load_le32(image.data() + i * kWord);
    std::ranges::copy(image.subspan(kEnd, ram_.size()), ram_.begin());
    // A cursor from outside: only its multiples of the step are ours.
    set64(kChanged, get64(kChanged) & ~uint64_t{7});
}

void TestDeviceRegisters::clear() {
    words_ = {};
    ram_ = {};
}

}  // namespace ferry::hw
