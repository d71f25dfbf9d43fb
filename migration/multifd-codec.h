// SPDX-License-Identifier: BSD-2-Clause
// Compression of the pages on a page channel (multifd-compression). Each channel has one stream for
// the whole migration: a packet may refer to what the packets before it held.
// docs/devel/multifd.rst
#pragma once

#include <array>
#include <memory>
#include <span>

#include "migration/capabilities.h"
#include "migration/multifd-packet.h"
#include "system/memory.h"
#include "util/bytes.h"
#include "util/result.h"

namespace ferry::migration {

// One channel's, used by its thread.
class PageCompressor {
 public:
    // Null: nothing is compressed.
    static Result<std::unique_ptr<PageCompressor>> create(const Parameters& parameters);

    PageCompressor(const PageCompressor&) = delete;
    PageCompressor& operator=(const PageCompressor&) = delete;
    virtual ~PageCompressor() = default;

    // What to send of the pages at these offsets, of which there is at least one; valid until the
    // next call. The guest may write to them meanwhile.
    Result<ConstBytes> compress(ConstBytes block, std::span<const uint64_t> offsets);

 protected:
    PageCompressor();
    enum class Flush : uint8_t { No, Yes };  // Yes: all that was put can be read from what came out

 private:
    // Takes the page, and says how much it wrote to the beginning of `room`.
    virtual Result<size_t> put(ConstBytes page, Flush flush, MutBytes room) = 0;

    // Neither zlib nor zstd promises anything about input that changes under its hands. So they get
    // a copy, a page at a time: it stays in the cache.
    std::array<std::byte, system::kPageSize> page_{};
    // Not cleared, so that no memory is used before it is needed.
    const std::unique_ptr<std::byte[]> room_;
};

// One channel's, used by its thread. A packet is room(), then fill() for its pages in their order,
// then finish().
class PageDecompressor {
 public:
    // Null: nothing is compressed.
    static Result<std::unique_ptr<PageDecompressor>> create(MultifdCompression method);

    PageDecompressor(const PageDecompressor&) = delete;
    PageDecompressor& operator=(const PageDecompressor&) = delete;
    virtual ~PageDecompressor() = default;

    // Where a packet's data go; at most kMultifdMaxCompressedBytes.
    MutBytes room(size_t bytes);
    Result<> fill(MutBytes pages);
    // Protocol when the data hold more than the pages.
    Result<> finish();

 protected:
    PageDecompressor();
    struct Step {
        size_t taken = 0;
        size_t given = 0;
    };

 private:
    // Some of `in` becomes some of `out`; nothing of either when it can't go on without more input.
    virtual Result<Step> step(ConstBytes in, MutBytes out) = 0;

    const std::unique_ptr<std::byte[]> room_;
    ConstBytes input_;  // not taken yet
};

// create() of each method: multifd-zlib.cc, multifd-zstd.cc.
Result<std::unique_ptr<PageCompressor>> create_zlib_compressor(uint64_t level);
Result<std::unique_ptr<PageDecompressor>> create_zlib_decompressor();
Result<std::unique_ptr<PageCompressor>> create_zstd_compressor(uint64_t level);
Result<std::unique_ptr<PageDecompressor>> create_zstd_decompressor();

}  // namespace ferry::migration
