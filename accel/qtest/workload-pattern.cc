// SPDX-License-Identifier: BSD-2-Clause
#include "accel/qtest/workload-pattern.h"

#include "util/wire.h"

namespace ferry::qtest {

void fill_page(MutBytes out, uint64_t seed, uint64_t sequence, uint64_t page) {
    constexpr size_t kWord = sizeof(uint64_t);
    constexpr size_t kNamedWords = 4;
    std::byte* at = out.data();
    for (const uint64_t word : {kRecordMagic, sequence, page, seed}) {
        util::store_le64(at, word);
        at += kWord;
    }
    const uint64_t key = mix(mix(mix(seed) ^ sequence) ^ page);
    for (size_t i = kNamedWords; i < out.size() / kWord; ++i) {
        util::store_le64(at, mix(key + i));
        at += kWord;
    }
}

}  // namespace ferry::qtest
