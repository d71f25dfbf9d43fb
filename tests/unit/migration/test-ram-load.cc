// SPDX-License-Identifier: BSD-2-Clause
// Section "ram" from a peer that means no good, or that knows another VM.
#include <algorithm>

#include "migration/ram-load.h"
#include "tests/unit/migration/savevm-support.h"

namespace ferry::migration {
namespace {

using system::kPageSize;
using test::ByteVector;
using test::hex;
using test::join;

// Two blocks of four pages, in memory whose surroundings are watched.
class Loader {
 public:
    Loader() : Loader(MarkUsed::No) {}
    enum class MarkUsed : uint8_t { No, Yes };
    explicit Loader(MarkUsed used) {
        for (const std::string name : {"m0", "m1"}) {
            system::RamBlock* block =
                *memory.add_block(*system::RamBlock::create_memfd(name, 4 * kPageSize));
            if (used == MarkUsed::Yes) block->mark_used();
        }
        loader.begin(nullptr, StreamOptions::Barrier::PerRound);
    }
    std::string load(std::string_view body, SectionKind kind = SectionKind::Start,
                     uint32_t version = 4) {
        const ByteVector bytes = hex(body);
        MemorySource source{ConstBytes(bytes)};
        LoadStream in(source, LoadStream::kMaxPeek);
        const auto result = loader.load_body(in, kind, version);
        position = in.position();
        return result ? "ok" : result.error().message();
    }
    std::byte& at(size_t block, uint64_t offset) { return memory.blocks()[block]->host()[offset]; }

    test::TestEnv env;
    system::GuestMemory memory;
    RamLoader loader{memory, env.trace};
    uint64_t position = 0;
};

constexpr std::string_view kList =
    "0000000000008004 02 'm0' 0000000000004000 02 'm1' 0000000000004000 ";
constexpr std::string_view kEos = "0000000000000010 ";

std::string with(std::string_view a, std::string_view b, std::string_view c = "") {
    return fmt::format("{} {} {}", a, b, c);
}

void expect_refused(std::string_view body, std::string_view text) {
    Loader to;
    const std::string error = to.load(body);
    EXPECT_NE(error.find(text), std::string::npos) << "wanted: " << text << "\ngot: " << error;
}

TEST(RamLoad, OtherVersionsAndKindsAreRefused) {
    for (const uint32_t version : {0U, 3U, 5U}) {
        Loader to;
        EXPECT_NE(to.load(kEos, SectionKind::Start, version).find("only 4"), std::string::npos);
        EXPECT_EQ(to.position, 0U);
    }
    Loader to;
    EXPECT_NE(to.load(kEos, SectionKind::Full), "ok");
}

TEST(RamLoad, HostileBlockListsAreRefused) {
    expect_refused("0000000000004004 02 'mx' 0000000000004000", "block 'mx' does not exist here");
    expect_refused("0000000000004004 00 0000000000004000", "block '' does not exist here");
    expect_refused("0000000000008004 02 'm0' 0000000000004000 02 'm0' 0000000000004000",
                   "block list: block 'm0' is listed twice");
    expect_refused("0000000000008004 02 'm0' 0000000000008000",
                   "block 'm0' has 32768 bytes at the source, 16384 bytes here");
    expect_refused("0000000000008004 02 'm0' 0000000000003000",
                   "block 'm0' has 12288 bytes at the source, 16384 bytes here");
    expect_refused("0000000000008004 02 'm0' ffffffffffffffff", "at the source");
    expect_refused("0000000000008004 02 'm0' 0000000000000000", "at the source");
    expect_refused("0000000000007004 02 'm0' 0000000000004000 02 'm1' 0000000000004000",
                   "block 'm1' exceeds the announced total");
    expect_refused("0000000000009004 02 'm0' 0000000000004000 02 'm1' 0000000000004000 02 'm0'",
                   "bytes missing");
    expect_refused("fffffffffffff004 02 'm0' 0000000000004000 02 'm1' 0000000000004000 00",
                   "bytes missing");
    expect_refused(with(kList, kList), "block list: comes twice");
}

TEST(RamLoad, BlockThatOnlyWeHaveIsNamed) {
    expect_refused("0000000000004004 02 'm0' 0000000000004000",
                   "block 'm1' of 16384 bytes exists here only");
    expect_refused("0000000000000004", "block 'm0' of 16384 bytes exists here only");
}

TEST(RamLoad, BlockListBelongsIntoTheFirstSection) {
    Loader to;
    EXPECT_NE(to.load(kList, SectionKind::Part).find("outside of the first section"),
              std::string::npos);
}

TEST(RamLoad, StreamWithoutRamIsRefusedInTheEnd) {
    Loader to;
    EXPECT_EQ(to.loader.validate().error().message(),
              "the stream holds no RAM, but block 'm0' exists here");
    EXPECT_EQ(to.load(with(kList, kEos)), "ok");
    EXPECT_TRUE(to.loader.validate());
}

TEST(RamLoad, OnlyOneKnownFlagIsAccepted) {
    for (const std::string_view record :
         {"0000000000000000", "0000000000000001", "000000000000000a", "0000000000000006",
          "0000000000000018", "0000000000000020", "0000000000000030", "0000000000000024",
          "0000000000000040", "0000000000000060", "0000000000000080", "0000000000000100",
          "0000000000000200", "0000000000000400", "0000000000000fff", "0000000000001010"}) {
        expect_refused(with(kList, record), "not supported");
    }
}

TEST(RamLoad, PageOutsideOfItsBlockIsRefused) {
    expect_refused(with(kList, "0000000000004008 02 'm0'"),
                   "offset 0x4000 is no page's, or lies outside");
    expect_refused(with(kList, "fffffffffffff008 02 'm0'"), "lies outside of block");
    expect_refused(with(kList, "0000000000004002 02 'm1' 00"), "lies outside of block");
}

TEST(RamLoad, PageOfABlockThatWasNotAnnouncedIsRefused) {
    expect_refused("0000000000000008 02 'm0'", "block 'm0' was not announced");
    expect_refused(with(kList, "0000000000000008 02 'mx'"), "block 'mx' was not announced");
}

TEST(RamLoad, ContinueNeedsABlock) {
    expect_refused(with(kList, "0000000000000028"), "no block to continue");
    expect_refused(with(kList, "0000000000000022 00"), "no block to continue");
}

TEST(RamLoad, FillMustBeZero) {
    expect_refused(with(kList, "0000000000000002 02 'm0' 01"), "page filled with 0x1");
}

TEST(RamLoad, ContinueReachesOverSections) {
    Loader to;
    EXPECT_EQ(to.load(with(kList, "0000000000000008 02 'm1' 11*4096", kEos)), "ok");
    EXPECT_EQ(to.load(with("0000000000003028 22*4096", kEos), SectionKind::Part), "ok");
    EXPECT_EQ(to.at(1, 0), std::byte{0x11});
    EXPECT_EQ(to.at(1, 0x3fff), std::byte{0x22});
    EXPECT_EQ(to.at(0, 0), std::byte{0});
    // The next load begins without one.
    to.loader.begin(nullptr, StreamOptions::Barrier::PerRound);
    EXPECT_NE(to.load(with(kList, "0000000000000028"), SectionKind::Start), "ok");
}

TEST(RamLoad, LastOneOfAPageWins) {
    Loader to;
    EXPECT_EQ(
        to.load(with(kList, "0000000000000008 02 'm0' 11*4096 0000000000000028 22*4096", kEos)),
        "ok");
    EXPECT_EQ(to.at(0, 0), std::byte{0x22});
    EXPECT_EQ(to.load(with("0000000000000022 00", kEos), SectionKind::Part), "ok");
    EXPECT_EQ(to.at(0, 0), std::byte{0});
    EXPECT_EQ(to.at(0, kPageSize - 1), std::byte{0});
}

TEST(RamLoad, ZeroPageOfFreshMemoryIsNotTouched) {
    Loader to;
    to.at(0, 5) = std::byte{0x77};  // behind its back: shows whether anybody looks
    EXPECT_EQ(to.load(with(kList, "0000000000000002 02 'm0' 00", kEos)), "ok");
    EXPECT_EQ(to.at(0, 5), std::byte{0x77});
}

TEST(RamLoad, ZeroPageOfUsedMemoryIsCleared) {
    Loader to(Loader::MarkUsed::Yes);
    to.at(0, 5) = std::byte{0x77};
    EXPECT_EQ(to.load(with(kList, "0000000000000002 02 'm0' 00", kEos)), "ok");
    EXPECT_EQ(to.at(0, 5), std::byte{0});
}

TEST(RamLoad, LoadedMemoryCountsAsUsedEvenIfTheLoadFailed) {
    Loader to;
    EXPECT_NE(to.load(with(kList, "0000000000000008 02 'm0' 11*17")), "ok");
    EXPECT_TRUE(to.memory.blocks()[0]->used());
    to.loader.begin(nullptr, StreamOptions::Barrier::PerRound);
    EXPECT_EQ(to.load(with(kList, "0000000000000002 02 'm0' 00", kEos)), "ok");
    EXPECT_EQ(to.at(0, 0), std::byte{0});
}

TEST(RamLoad, EveryTruncationIsAnEarlyEnd) {
    const ByteVector whole = hex(with(
        kList, "0000000000000008 02 'm0' 11*4096 0000000000001022 00 0000000000002002 02 'm1' 00",
        kEos));
    Loader to;
    for (size_t size = 0; size < whole.size(); ++size) {
        to.loader.begin(nullptr, StreamOptions::Barrier::PerRound);
        MemorySource source(ConstBytes(whole).first(size));
        LoadStream in(source, LoadStream::kMaxPeek);
        const auto result = to.loader.load_body(in, SectionKind::Start, 4);
        ASSERT_EQ(result.error().kind(), ErrorKind::PeerClosed) << size;
    }
}

}  // namespace
}  // namespace ferry::migration
