// SPDX-License-Identifier: BSD-2-Clause
// Compression of pages: that they come out as they went in, in the form that QEMU reads, and what
// becomes of data by somebody who means no good.
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>

#include "migration/multifd-codec.h"
#include "util/try.h"

namespace ferry::migration {
namespace {

using system::kPageSize;
using ByteVector = std::vector<std::byte>;

constexpr size_t kCodecPages = kMultifdMaxPages;
constexpr std::array kMethods = {MultifdCompression::Zlib, MultifdCompression::Zstd};

enum class Filling : uint8_t { Random, Zeros, Text };

ByteVector raw_bytes(std::initializer_list<uint8_t> values) {
    ByteVector out;
    for (const uint8_t value : values) out.push_back(std::byte{value});
    return out;
}

ByteVector guest_memory(Filling with, size_t pages = kCodecPages) {
    ByteVector memory(pages * kPageSize);
    if (with == Filling::Zeros) return memory;
    std::mt19937 random(7);
    for (size_t at = 0; at < memory.size(); ++at) {
        memory[at] = with == Filling::Random ? static_cast<std::byte>(random())
                                             : static_cast<std::byte>("guest memory "[at % 13]);
    }
    return memory;
}

std::vector<uint64_t> all_pages(size_t pages = kCodecPages) {
    std::vector<uint64_t> offsets;
    for (uint64_t page = 0; page < pages; ++page) offsets.push_back(page * kPageSize);
    return offsets;
}

std::unique_ptr<PageCompressor> compressor(MultifdCompression method, uint64_t level = 1) {
    Parameters parameters;
    parameters.multifd_compression = static_cast<uint64_t>(method);
    parameters.multifd_zlib_level = parameters.multifd_zstd_level = level;
    auto made = PageCompressor::create(parameters);
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
}

std::unique_ptr<PageDecompressor> decompressor(MultifdCompression method) {
    auto made = PageDecompressor::create(method);
    EXPECT_TRUE(made) << made.error().message();
    return std::move(*made);
}

ByteVector pack(PageCompressor& by, ConstBytes memory, std::span<const uint64_t> offsets) {
    const auto data = by.compress(memory, offsets);
    EXPECT_TRUE(data) << data.error().message();
    return data ? ByteVector(data->begin(), data->end()) : ByteVector();
}

// Into one run.
Result<> unpack(PageDecompressor& by, ConstBytes data, MutBytes into) {
    std::ranges::copy(data, by.room(data.size()).begin());
    MIG_CHECK(by.fill(into));
    return by.finish();
}

std::string unpack_error(PageDecompressor& by, ConstBytes data, size_t pages) {
    ByteVector into(pages * kPageSize);
    const auto outcome = unpack(by, data, into);
    return outcome ? "" : outcome.error().message();
}

void expect_unpacks(PageDecompressor& by, ConstBytes data, ConstBytes expected) {
    ByteVector out(expected.size());
    const auto outcome = unpack(by, data, out);
    ASSERT_TRUE(outcome) << outcome.error().message();
    EXPECT_TRUE(std::ranges::equal(out, expected));
}

TEST(PageCodec, NoneIsNone) {
    EXPECT_EQ(compressor(MultifdCompression::None), nullptr);
    EXPECT_EQ(decompressor(MultifdCompression::None), nullptr);
}

TEST(PageCodec, EveryLevelGivesThePagesBack) {
    constexpr size_t kSome = 16;
    for (const auto& [method, highest] :
         {std::pair(MultifdCompression::Zlib, 9U), std::pair(MultifdCompression::Zstd, 20U)}) {
        for (uint64_t level = 0; level <= highest; ++level) {
            SCOPED_TRACE(fmt::format("{} {}", to_string(method), level));
            const auto there = compressor(method, level);
            const auto back = decompressor(method);
            for (const Filling filling : {Filling::Text, Filling::Random, Filling::Zeros}) {
                const ByteVector memory = guest_memory(filling, kSome);
                const ByteVector data = pack(*there, memory, all_pages(kSome));
                expect_unpacks(*back, data, memory);
            }
        }
    }
}

// What can't be made smaller must not become much larger either: a peer refuses it.
TEST(PageCodec, RandomPagesHardlyGrow) {
    const ByteVector memory = guest_memory(Filling::Random);
    for (const auto method : kMethods) {
        const auto there = compressor(method);
        for (int packet = 0; packet < 3; ++packet) {
            EXPECT_LT(pack(*there, memory, all_pages()).size(), memory.size() * 101 / 100);
        }
    }
}

TEST(PageCodec, OnePageAndScatteredPagesInTheirOrder) {
    const ByteVector memory = guest_memory(Filling::Random);
    const std::vector<uint64_t> offsets{9 * kPageSize, 2 * kPageSize, 3 * kPageSize, 0};
    for (const auto method : kMethods) {
        const auto there = compressor(method);
        const auto back = decompressor(method);
        const ByteVector one = pack(*there, memory, std::span(offsets).first(1));
        expect_unpacks(*back, one, ConstBytes(memory).subspan(offsets[0], kPageSize));

        const ByteVector data = pack(*there, memory, offsets);
        std::ranges::copy(data, back->room(data.size()).begin());
        for (const uint64_t offset : offsets) {  // a run each
            ByteVector page(kPageSize);
            ASSERT_TRUE(back->fill(page));
            EXPECT_TRUE(std::ranges::equal(page, ConstBytes(memory).subspan(offset, kPageSize)));
        }
        EXPECT_TRUE(back->finish());
    }
}

// One stream: what a packet holds is not sent again by the next, and only the first has a header.
TEST(PageCodec, PacketsAreOneStream) {
    const ByteVector memory = guest_memory(Filling::Random, 4);
    for (const auto method : kMethods) {
        const auto there = compressor(method);
        const ByteVector first = pack(*there, memory, all_pages(4));
        const ByteVector second = pack(*there, memory, all_pages(4));
        EXPECT_GT(first.size(), memory.size() * 99 / 100);
        EXPECT_LT(second.size(), memory.size() / 10);
        const ByteVector begin = method == MultifdCompression::Zlib
                                     ? raw_bytes({0x78, 0x01})
                                     : raw_bytes({0x28, 0xb5, 0x2f, 0xfd});
        EXPECT_TRUE(std::ranges::equal(std::span(first).first(begin.size()), begin));
        EXPECT_FALSE(std::ranges::equal(std::span(second).first(begin.size()), begin));
        EXPECT_NE(unpack_error(*decompressor(method), second, 4), "") << "without the first";
    }
    const auto there = compressor(MultifdCompression::Zlib);
    const ByteVector flushed = pack(*there, memory, all_pages(4));
    EXPECT_TRUE(
        std::ranges::equal(std::span(flushed).last(4), raw_bytes({0x00, 0x00, 0xff, 0xff})));
}

// As a guest would: nobody else's lock, nothing of the sanitizer's.
__attribute__((noinline, no_sanitize_thread)) void scribble(std::byte* memory, size_t bytes,
                                                            std::byte value) {
    for (std::byte* at = memory; at != memory + bytes; ++at) *at = value;
}

// Some old, some new, but nothing else, and the stream goes on.
TEST(PageCodec, GuestThatWritesMeanwhileBreaksNothing) {
    for (const auto& [method, level] :
         {std::pair(MultifdCompression::Zlib, 0), std::pair(MultifdCompression::Zlib, 1),
          std::pair(MultifdCompression::Zlib, 9), std::pair(MultifdCompression::Zstd, 1),
          std::pair(MultifdCompression::Zstd, 12)}) {
        ByteVector memory(16 * kPageSize);
        std::atomic<uint64_t> rounds = 0;
        const std::jthread guest([&](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                scribble(memory.data(), memory.size(), static_cast<std::byte>(rounds.load() % 4));
                ++rounds;
            }
        });
        const auto there = compressor(method, static_cast<uint64_t>(level));
        const auto back = decompressor(method);
        for (uint64_t packet = 0; packet < 64 || rounds < 64; ++packet) {
            const ByteVector data = pack(*there, memory, all_pages(16));
            ByteVector out(memory.size());
            const auto outcome = unpack(*back, data, out);
            ASSERT_TRUE(outcome) << outcome.error().message();
            EXPECT_TRUE(std::ranges::all_of(out, [](std::byte b) { return b < std::byte{4}; }));
        }
    }
}

// --- a source that means no good

TEST(PageCodec, DataThatAreTooShortOrTooLong) {
    const ByteVector memory = guest_memory(Filling::Text, 4);
    for (const auto method : kMethods) {
        SCOPED_TRACE(to_string(method));
        const ByteVector data = pack(*compressor(method), memory, all_pages(4));
        EXPECT_EQ(unpack_error(*decompressor(method), data, 5),
                  "the data end 4096 bytes before the page's end");
        EXPECT_EQ(unpack_error(*decompressor(method), data, 3),
                  "the data hold more than the packet's pages");
        const auto cut = ConstBytes(data).first(data.size() / 2);
        EXPECT_NE(unpack_error(*decompressor(method), cut, 4), "");
        // A second packet's data behind the first's.
        const auto there = compressor(method);
        ByteVector twice = pack(*there, memory, all_pages(4));
        const ByteVector more = pack(*there, memory, all_pages(4));
        twice.insert(twice.end(), more.begin(), more.end());
        EXPECT_EQ(unpack_error(*decompressor(method), twice, 4),
                  "the data hold more than the packet's pages");
    }
}

TEST(PageCodec, Garbage) {
    for (const auto method : kMethods) {
        SCOPED_TRACE(to_string(method));
        for (uint32_t seed = 0; seed < 200; ++seed) {
            std::mt19937 random(seed);
            ByteVector data(1 + random() % 5000);
            for (std::byte& one : data) one = static_cast<std::byte>(random());
            EXPECT_NE(unpack_error(*decompressor(method), data, 8), "") << seed;
        }
        // Whatever becomes of a packet with a wrong bit, no more than the pages is written.
        const ByteVector memory = guest_memory(Filling::Text, 2);
        const ByteVector good = pack(*compressor(method), memory, all_pages(2));
        for (size_t bit = 0; bit < good.size() * 8; ++bit) {
            ByteVector data = good;
            data[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
            (void)unpack_error(*decompressor(method), data, 2);
        }
    }
    EXPECT_NE(unpack_error(*decompressor(MultifdCompression::Zlib), ByteVector(64), 1)
                  .find("broken stream: "),
              std::string::npos);
    EXPECT_NE(unpack_error(*decompressor(MultifdCompression::Zstd), ByteVector(64), 1)
                  .find("broken stream: Unknown frame descriptor"),
              std::string::npos);
}

TEST(PageCodec, StreamThatEnds) {
    const ByteVector memory = guest_memory(Filling::Text, 1);
    ByteVector data(2 * kPageSize);
    uLongf zlib_bytes = data.size();
    // NOLINTBEGIN(cppcoreguidelines-pro-type-reinterpret-cast): zlib's bytes are unsigned char
    ASSERT_EQ(compress2(reinterpret_cast<Bytef*>(data.data()), &zlib_bytes,
                        reinterpret_cast<const Bytef*>(memory.data()), memory.size(), 1),
              Z_OK);
    // NOLINTEND(cppcoreguidelines-pro-type-reinterpret-cast)
    EXPECT_EQ(
        unpack_error(*decompressor(MultifdCompression::Zlib), std::span(data).first(zlib_bytes), 1),
        "the stream ends before the migration");
    const size_t zstd_bytes =
        ZSTD_compress(data.data(), data.size(), memory.data(), memory.size(), 1);
    EXPECT_EQ(
        unpack_error(*decompressor(MultifdCompression::Zstd), std::span(data).first(zstd_bytes), 1),
        "the frame ends before the migration");
}

// A header of a few bytes that asks for 128 MiB here.
TEST(PageCodec, ZstdWindowHasALimit) {
    const ByteVector memory = guest_memory(Filling::Text, 1);
    const std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> wide(ZSTD_createCCtx(), ZSTD_freeCCtx);
    ASSERT_EQ(ZSTD_isError(ZSTD_CCtx_setParameter(wide.get(), ZSTD_c_windowLog, 27)), 0U);
    ByteVector data(2 * kPageSize);
    ZSTD_inBuffer in{memory.data(), memory.size(), 0};
    ZSTD_outBuffer out{data.data(), data.size(), 0};
    ASSERT_EQ(ZSTD_compressStream2(wide.get(), &out, &in, ZSTD_e_flush), 0U);
    EXPECT_EQ(
        unpack_error(*decompressor(MultifdCompression::Zstd), std::span(data).first(out.pos), 1),
        "broken stream: Frame requires too much memory for decoding");
}

}  // namespace
}  // namespace ferry::migration
