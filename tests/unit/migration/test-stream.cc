// SPDX-License-Identifier: BSD-2-Clause
#include <algorithm>

#include "migration/stream.h"
#include "tests/unit/migration/savevm-support.h"
#include "util/try.h"

namespace ferry::migration {
namespace {

using test::ByteVector;
using test::hex;
using test::join;

// Keeps every write's parts, and fails from a given one on.
class RecordingSink final : public ByteSink {
 public:
    Result<> write_all(std::span<const ConstBytes> parts) override {
        if (writes.size() >= fail_from) return make_error(ErrorKind::PeerClosed, "nobody there");
        writes.emplace_back(parts.begin(), parts.end());
        for (const ConstBytes part : parts) bytes.insert(bytes.end(), part.begin(), part.end());
        return {};
    }
    std::vector<std::vector<ConstBytes>> writes;
    ByteVector bytes;
    size_t fail_from = SIZE_MAX;
};

// Hands out at most `step` bytes at a time.
class SlowSource final : public ByteSource {
 public:
    SlowSource(ConstBytes bytes, size_t step) : bytes_(bytes), step_(step) {}
    Result<size_t> read_some(MutBytes into) override {
        const size_t count = std::min({into.size(), bytes_.size(), step_});
        std::copy_n(bytes_.begin(), count, into.begin());
        bytes_ = bytes_.subspan(count);
        reads.push_back(into);
        return count;
    }
    std::vector<MutBytes> reads;

 private:
    ConstBytes bytes_;
    size_t step_;
};

ByteVector pattern(size_t size) {
    ByteVector out(size);
    for (size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i * 7 + i / 251);
    return out;
}

TEST(SaveStream, FirstWriteErrorIsKeptAndLaterBytesAreDropped) {
    RecordingSink sink;
    sink.fail_from = 0;
    SaveStream out(sink);
    out.be32(1);
    EXPECT_EQ(out.flush().error().message(), "nobody there");
    sink.fail_from = SIZE_MAX;
    out.be32(2);
    EXPECT_EQ(out.flush().error().kind(), ErrorKind::PeerClosed);
    EXPECT_EQ(out.status().error().message(), "nobody there");
    EXPECT_TRUE(sink.bytes.empty());
    EXPECT_EQ(out.position(), 8U);
}

TEST(SaveStream, IntegersAreBigEndianAndSmallPutsAreOnePart) {
    RecordingSink sink;
    SaveStream out(sink);
    out.u8(1);
    out.be16(0x0203);
    out.be32(0x04050607);
    out.be64(0x08090a0b0c0d0e0f);
    out.str8("ram");
    out.zeros(3);
    out.bytes(hex("aa bb"));
    ASSERT_TRUE(out.flush());
    EXPECT_EQ(sink.bytes, hex("01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 03 'ram' 00*3 aa bb"));
    ASSERT_EQ(sink.writes.size(), 1U);
    EXPECT_EQ(sink.writes[0].size(), 1U);
    EXPECT_EQ(out.position(), sink.bytes.size());
}

TEST(SaveStream, ReferencedBytesAreNeverCopied) {
    RecordingSink sink;
    SaveStream out(sink);
    ByteVector page = pattern(4096);
    out.be64(8);
    out.bytes_ref(page);
    out.be64(0x28);
    page[0] = std::byte{0x77};  // sent as it is at the end
    ASSERT_TRUE(out.flush());
    ASSERT_EQ(sink.writes.size(), 1U);
    ASSERT_EQ(sink.writes[0].size(), 3U);
    EXPECT_EQ(sink.writes[0][1].data(), page.data());
    EXPECT_EQ(sink.bytes[8], std::byte{0x77});
}

TEST(SaveStream, FullPartsListAndFullBufferAreSentInOrder) {
    const ByteVector page = pattern(64);
    for (const size_t buffer : {size_t{8}, size_t{13}, size_t{4096}, SaveStream::kBufferBytes}) {
        RecordingSink sink;
        SaveStream out(sink, buffer);
        ByteVector expected;
        for (uint32_t i = 0; i < 3 * SaveStream::kMaxParts; ++i) {
            util::WireWriter header;
            header.be32(i).bytes(page);
            expected.insert(expected.end(), header.view().begin(), header.view().end());
            out.be32(i);
            out.bytes_ref(page);
        }
        ASSERT_TRUE(out.flush());
        EXPECT_TRUE(sink.bytes == expected) << buffer;
        for (const auto& parts : sink.writes) EXPECT_LE(parts.size(), SaveStream::kMaxParts);
    }
}

TEST(SaveStream, BytesPutWhileThePartsListIsFullAreNotOverwritten) {
    RecordingSink sink;
    SaveStream out(sink, 4096);
    const ByteVector page = pattern(64);
    const ByteVector copied = pattern(3000);
    util::WireWriter expected;
    for (uint32_t i = 0; i <= SaveStream::kMaxParts / 2; ++i) {  // one pair more than fits
        out.be32(i);
        out.bytes_ref(page);
        expected.be32(i).bytes(page);
    }
    out.bytes(copied);
    expected.bytes(copied);
    ASSERT_TRUE(out.flush());
    EXPECT_TRUE(std::ranges::equal(sink.bytes, expected.view()));
}

TEST(SaveStream, CopiesLargerThanItsBufferArriveWhole) {
    RecordingSink sink;
    SaveStream out(sink, 100);
    const ByteVector data = pattern(1234);
    out.u8(9);
    out.bytes(data);
    out.zeros(333);
    ASSERT_TRUE(out.flush());
    EXPECT_EQ(sink.bytes, join({hex("09"), data, hex("00*333")}));
}

TEST(LoadStream, EarlyEndNamesMissingBytesAndPosition) {
    const ByteVector bytes = hex("01 02 03 04 05 06");
    MemorySource source{ConstBytes(bytes)};
    LoadStream in(source);
    ASSERT_TRUE(in.be32());
    auto ended = in.be64();
    ASSERT_FALSE(ended);
    EXPECT_EQ(ended.error().kind(), ErrorKind::PeerClosed);
    EXPECT_EQ(ended.error().message(), "the stream ended at byte 6: 6 of 8 bytes missing");
}

TEST(LoadStream, EarlyEndOfALargeReadNamesMissingBytesAndPosition) {
    const ByteVector bytes = pattern(10'000);
    SlowSource source(bytes, 1000);
    LoadStream in(source, 4096);
    ByteVector into(20'000);
    EXPECT_EQ(in.bytes(into).error().message(),
              "the stream ended at byte 10000: 10000 of 20000 bytes missing");
}

TEST(LoadStream, SkipPastTheEndIsPeerClosed) {
    const ByteVector bytes = pattern(10'000);
    MemorySource source{ConstBytes(bytes)};
    LoadStream in(source, 4096);
    EXPECT_EQ(in.skip(UINT64_MAX).error().kind(), ErrorKind::PeerClosed);
}

TEST(LoadStream, SourceErrorComesThroughEveryMethod) {
    class Broken final : public ByteSource {
        Result<size_t> read_some(MutBytes) override {
            return make_error(ErrorKind::Cancelled, "stopped");
        }
    } source;
    LoadStream in(source);
    std::array<std::byte, 4> small{};
    ByteVector large(1 << 20);
    EXPECT_EQ(in.u8().error().message(), "stopped");
    EXPECT_EQ(in.str8().error().message(), "stopped");
    EXPECT_EQ(in.bytes(small).error().message(), "stopped");
    EXPECT_EQ(in.bytes(large).error().message(), "stopped");
    EXPECT_EQ(in.skip(1).error().message(), "stopped");
    EXPECT_EQ(in.chunk(1).error().message(), "stopped");
    EXPECT_EQ(in.peek(1).error().message(), "stopped");
    EXPECT_EQ(in.position(), 0U);
}

TEST(LoadStream, AnyFragmentationGivesTheSameValues) {
    const ByteVector body = pattern(9000);
    const ByteVector bytes =
        join({hex("01 0203 04050607 08090a0b0c0d0e0f 03 'ram'"), body, hex("ff")});
    for (const size_t step : {size_t{1}, size_t{3}, size_t{4095}, size_t{4096}, SIZE_MAX}) {
        SlowSource source(bytes, step);
        LoadStream in(source, 4096);
        EXPECT_EQ(*in.u8(), 1) << step;
        EXPECT_EQ(*in.be16(), 0x0203);
        EXPECT_EQ(*in.be32(), 0x04050607U);
        EXPECT_EQ(*in.be64(), 0x08090a0b0c0d0e0fU);
        EXPECT_EQ(*in.str8(), "ram");
        ByteVector head(5000);
        ASSERT_TRUE(in.bytes(head));
        EXPECT_TRUE(std::ranges::equal(head, std::span(body).first(5000)));
        ASSERT_TRUE(in.skip(4000));
        EXPECT_EQ(*in.u8(), 0xff);
        EXPECT_EQ(in.position(), bytes.size());
        EXPECT_EQ(in.u8().error().kind(), ErrorKind::PeerClosed);
    }
}

TEST(LoadStream, LargeReadsGoStraightIntoTheDestination) {
    const ByteVector bytes = pattern(1 << 20);
    SlowSource source(bytes, SIZE_MAX);
    LoadStream in(source);
    ByteVector into(bytes.size());
    ASSERT_TRUE(in.bytes(into));
    EXPECT_TRUE(into == bytes);
    ASSERT_FALSE(source.reads.empty());
    EXPECT_EQ(source.reads[0].data(), into.data());
}

TEST(LoadStream, ChunkGivesWhatIsThereWithoutWaitingForMore) {
    const ByteVector bytes = pattern(100);
    SlowSource source(bytes, 30);
    LoadStream in(source);
    auto chunk = in.chunk(1000);
    ASSERT_TRUE(chunk);
    EXPECT_EQ(chunk->size(), 30U);
    chunk = in.chunk(20);
    ASSERT_TRUE(chunk);
    EXPECT_TRUE(std::ranges::equal(*chunk, std::span(bytes).subspan(30, 20)));
    EXPECT_EQ(source.reads.size(), 2U);
    EXPECT_EQ(in.position(), 50U);
    ASSERT_TRUE(in.skip(50));
    EXPECT_EQ(in.chunk(1).error().kind(), ErrorKind::PeerClosed);
}

TEST(LoadStream, PeekConsumesNothingAndWorksAcrossTheEndOfTheBuffer) {
    const ByteVector bytes = pattern(10'000);
    for (const size_t before : {size_t{0}, size_t{1}, size_t{4090}, size_t{8000}}) {
        SlowSource source(bytes, 4000);
        LoadStream in(source, 4096);
        ASSERT_TRUE(in.skip(before));
        const size_t left = bytes.size() - before;
        auto seen = in.peek(LoadStream::kMaxPeek);
        ASSERT_TRUE(seen);
        EXPECT_TRUE(std::ranges::equal(
            *seen, std::span(bytes).subspan(before, std::min(left, LoadStream::kMaxPeek))));
        EXPECT_EQ(in.position(), before);
        ByteVector rest(left);
        ASSERT_TRUE(in.bytes(rest));
        EXPECT_TRUE(std::ranges::equal(rest, std::span(bytes).subspan(before)));
        EXPECT_TRUE(in.peek(1)->empty());
    }
}

}  // namespace
}  // namespace ferry::migration
