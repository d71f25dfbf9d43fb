// SPDX-License-Identifier: BSD-2-Clause
#include "migration/multifd-codec.h"

#include <algorithm>
#include <cassert>

#include "util/try.h"

namespace ferry::migration {

using system::kPageSize;

namespace {
std::unique_ptr<std::byte[]> make_room() {
    return std::make_unique_for_overwrite<std::byte[]>(kMultifdMaxCompressedBytes);
}
}  // namespace

// --- PageCompressor

PageCompressor::PageCompressor() : room_(make_room()) {}

Result<std::unique_ptr<PageCompressor>> PageCompressor::create(const Parameters& parameters) {
    switch (static_cast<MultifdCompression>(parameters.multifd_compression)) {
        case MultifdCompression::None: return nullptr;
        case MultifdCompression::Zlib: return create_zlib_compressor(parameters.multifd_zlib_level);
        case MultifdCompression::Zstd: return create_zstd_compressor(parameters.multifd_zstd_level);
    }
    std::unreachable();
}

Result<ConstBytes> PageCompressor::compress(ConstBytes block, std::span<const uint64_t> offsets) {
    const MutBytes room(room_.get(), kMultifdMaxCompressedBytes);
    size_t used = 0;
    for (size_t i = 0; i < offsets.size(); ++i) {
        std::ranges::copy(block.subspan(offsets[i], kPageSize), page_.begin());
        const Flush flush = i + 1 == offsets.size() ? Flush::Yes : Flush::No;
        MIG_TRY(const size_t more, put(page_, flush, room.subspan(used)));
        used += more;
    }
    return room.first(used);
}

// --- PageDecompressor

PageDecompressor::PageDecompressor() : room_(make_room()) {}

Result<std::unique_ptr<PageDecompressor>> PageDecompressor::create(MultifdCompression method) {
    switch (method) {
        case MultifdCompression::None: return nullptr;
        case MultifdCompression::Zlib: return create_zlib_decompressor();
        case MultifdCompression::Zstd: return create_zstd_decompressor();
    }
    std::unreachable();
}

MutBytes PageDecompressor::room(size_t bytes) {
    assert(bytes <= kMultifdMaxCompressedBytes);
    const MutBytes room(room_.get(), bytes);
    input_ = room;
    return room;
}

Result<> PageDecompressor::fill(MutBytes pages) {
    while (!pages.empty()) {
        MIG_TRY(const Step one, step(input_, pages));
        if (one.taken == 0 && one.given == 0) {
            return make_error(ErrorKind::Protocol, "the data end {} bytes before the page's end",
                              pages.size());
        }
        input_ = input_.subspan(one.taken);
        pages = pages.subspan(one.given);
    }
    return {};
}

// Marks of a flush give nothing. What was taken already may still give something.
Result<> PageDecompressor::finish() {
    for (;;) {
        std::array<std::byte, 1> beyond{};
        MIG_TRY(const Step one, step(input_, beyond));
        if (one.given != 0) {
            return make_error(ErrorKind::Protocol, "the data hold more than the packet's pages");
        }
        if (one.taken == 0) break;
        input_ = input_.subspan(one.taken);
    }
    if (input_.empty()) return {};
    return make_error(ErrorKind::Protocol, "{} bytes of data behind the pages", input_.size());
}

}  // namespace ferry::migration
