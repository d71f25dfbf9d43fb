// SPDX-License-Identifier: BSD-2-Clause
// What ferry-stream makes of good streams, and its command line.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

#include "hw/vfio/migration-internal.h"
#include "migration/ram-records.h"
#include "migration/vmdesc.h"
#include "tests/unit/tools/stream-bytes.h"
#include "tools/ferry-stream/options.h"
#include "tools/ferry-stream/run.h"
#include "util/syscall.h"

namespace ferry::stream_tool {
namespace {

using Json = nlohmann::json;
using Strings = std::vector<std::string>;

// The writers' constants are private to their folders; the reader's are the same.
namespace theirs = ferry::vfio::record;
static_assert(ram::kVersion == migration::kRamVersion);
static_assert(ram::kZero == migration::kRamZero && ram::kMemSize == migration::kRamMemSize);
static_assert(ram::kPage == migration::kRamPage && ram::kEos == migration::kRamEos);
static_assert(ram::kContinue == migration::kRamContinue);
static_assert(vfio::kEndOfState == theirs::kEndOfState);
static_assert(vfio::kConfigState == theirs::kConfigState);
static_assert(vfio::kSetupState == theirs::kSetupState);
static_assert(vfio::kDataState == theirs::kDataState);
static_assert(vfio::kInitDataSent == theirs::kInitDataSent);
static_assert(vfio::kConfigLoadReady == theirs::kConfigLoadReady);
static_assert(vfio::kDiscard == theirs::kDiscard);
static_assert(vfio::kConfigSize == theirs::kConfigSize);
static_assert(kMaxDescriptionBytes == migration::kMaxVmDescription);

TEST(GoodStream, OfQemuIsReadToTheLastField) {
    const Told told = read(small_qemu_stream());
    EXPECT_TRUE(told.result);
    EXPECT_EQ(told.problems(), Strings{});
    EXPECT_EQ(told.notes(), Strings{});
    Strings types;
    for (const Node& node : told.elements) types.emplace_back(node.type);
    EXPECT_EQ(types, (Strings{"header", "configuration", "start", "part", "part", "command", "end",
                              "full", "full", "eof", "description"}));
    const Node& thing = find(told.elements, "full");
    ASSERT_EQ(thing.children.size(), 4U);
    EXPECT_EQ(attribute(thing.children[0], "value"), "5");
    EXPECT_EQ(attribute(thing.children[1], "value"), "-2");
    EXPECT_EQ(attribute(thing.children[2], "text"), "raw");
    const Node& sub = thing.children[3];
    EXPECT_EQ(attribute(sub, "name"), "thing/more");
    EXPECT_EQ(attribute(find(sub.children[0].children, "field"), "value"), "9");
}

TEST(GoodStream, PagesAreCountedPerBlock) {
    const Told told = read(small_qemu_stream());
    ASSERT_EQ(told.blocks.size(), 1U);
    EXPECT_EQ(told.blocks[0].name, "ram");
    EXPECT_EQ(told.blocks[0].length, 0x4000U);
    EXPECT_EQ(told.blocks[0].total.normal, 1U);
    EXPECT_EQ(told.blocks[0].total.zero, 1U);
    EXPECT_EQ(told.blocks[0].total.xbzrle, 1U);
    EXPECT_EQ(told.blocks[0].total.bytes, (8U + 4 + 4096) + (8 + 1) + (8 + 1 + 2 + 4));
    const Node& part = find(told.elements, "part");
    EXPECT_EQ(attribute(find(part.children, "block"), "zero_pages"), "1");
    EXPECT_EQ(find(part.children, "multifd-flush").size, 8U);
}

TEST(GoodStream, PagesAreListedOnWish) {
    const Told told = read(small_qemu_stream(), Detail::Pages);
    const Node& page = find(find(told.elements, "part").children, "page");
    EXPECT_EQ(attribute(page, "block"), "ram");
    EXPECT_EQ(attribute(page, "address"), "4096");
    EXPECT_EQ(attribute(page, "content"), "normal");
    EXPECT_EQ(page.size, 8U + 4 + 4096);
}

TEST(GoodStream, OfFerryKeepsTheHellosRules) {
    const Told told = read(small_ferry_stream());
    EXPECT_EQ(told.problems(), Strings{});
    EXPECT_EQ(attribute(told.elements.back(), "name"), "GO");
    ASSERT_EQ(told.devices.size(), 1U);
    const auto& device = told.devices.begin()->second;
    EXPECT_EQ(device.image_bytes, 8U);  // behind the DISCARD
    EXPECT_EQ(device.discards, 1U);
    const Node& config = find(find(told.elements, "full").children, "config");
    EXPECT_EQ(attribute(config, "length"), "20");
    EXPECT_EQ(attribute(config, "vendor"), "1234");
    EXPECT_EQ(attribute(config, "device"), "5678");
}

// Where nothing says how long a body is, the next plausible footer ends it.
TEST(GoodStream, UnknownBodiesAreGuessedAndMarked) {
    StreamBytes stream;
    stream.header().configuration().ram_start().switchover().ram_end();
    stream.full(9, "odd", 1).u8(0x7e).be32(9).u8(0x66).text("body").footer(9);
    const Told told = read(stream.globalstate().eof().bytes());
    EXPECT_EQ(told.problems(), Strings{});
    EXPECT_EQ(told.notes(), (Strings{"guess: 'odd' is not described: its end is guessed",
                                     "description: there is no description of the devices"}));
    const Node& odd = find(told.elements, "full");
    EXPECT_EQ(attribute(odd, "guessed"), "yes");
    EXPECT_EQ(odd.size, 17U + 10 + 5);
    const Node& state = *(told.elements.end() - 2);
    EXPECT_EQ(attribute(state, "guessed"), "-");
    EXPECT_EQ(attribute(state.children.at(1), "text"), "paused");
}

TEST(GoodStream, ConfigurationOfADeviceIsGuessedWithoutItsSize) {
    constexpr uint64_t kRecords = 0xffffffffef100000;
    StreamBytes stream;
    stream.header().configuration();
    stream.start(2, "vfio", 1).be64(kRecords | 3).be64(kRecords | 1).footer(2);
    stream.switchover().end(2).be64(kRecords | 1).footer(2);
    stream.full(2, "vfio", 1).be64(kRecords | 2).zeros(30).be64(kRecords | 1).footer(2).eof();
    const Told told = read(stream.bytes());
    EXPECT_EQ(told.problems(), Strings{});
    const Node& config = find(find(told.elements, "full").children, "config");
    EXPECT_EQ(attribute(config, "length"), "30");
    EXPECT_EQ(attribute(config, "guessed"), "yes");
}

TEST(GoodStream, PostcopyPackageAndPageSizes) {
    StreamBytes package;
    package.command(4, 0).globalstate().command(2, 4).be32(3).command(5, 0);
    StreamBytes stream;
    stream.header().configuration().command(1, 0).command(2, 4).be32(1);
    stream.command(3, 16).be64(0x201000).be64(0x1000);
    stream.start(1, "ram", 4).be64(0x201004).str8("big").be64(0x200000).be64(0x200000);
    stream.str8("ram").be64(0x1000).eos().footer(1);
    stream.switchover().command(6, 22).u8(0).str8("ram").u8(0).be64(0).be64(0x1000);
    stream.command(7, 4).be32(static_cast<uint32_t>(package.bytes().size()));
    stream.text({reinterpret_cast<const char*>(package.bytes().data()), package.bytes().size()});
    stream.part(1).be64(8).str8("ram").page(1).eos().footer(1).ram_end().eof();
    const Told told = read(stream.bytes());
    EXPECT_EQ(told.problems(), Strings{});
    EXPECT_EQ(told.notes(), Strings{});
    ASSERT_EQ(told.blocks.size(), 2U);
    const Node& list = find(find(told.elements, "start").children, "block-list");
    EXPECT_EQ(attribute(list.children.at(0), "page_size"), "2097152");
    EXPECT_EQ(attribute(list.children.at(1), "page_size"), "-");
}

TEST(GoodStream, IgnoredBlocksHaveAnAddress) {
    StreamBytes stream;
    stream.header().configuration();
    stream.u8(5).str8("configuration/capabilities").be32(1).be32(1).str8("x-ignore-shared");
    stream.start(1, "ram", 4).be64(0x1004).str8("m0").be64(0x1000).be64(0xc0000).eos().footer(1);
    const Told told = read(stream.switchover().ram_end().eof().bytes());
    EXPECT_EQ(told.problems(), Strings{});
    const Node& list = find(find(told.elements, "start").children, "block-list");
    EXPECT_EQ(attribute(list.children.at(0), "address"), "786432");
}

TEST(GoodStream, BackgroundSnapshotHasNoEnd) {
    StreamBytes stream;
    stream.header().configuration().ram_start().part(1).eos().footer(1).globalstate().eof();
    const Told told = read(stream.bytes());
    EXPECT_EQ(told.problems(), Strings{});
    EXPECT_EQ(told.notes().front(), "end: no section END at all: so do background snapshots");
}

// --- Command line

struct UsageCase {
    Strings arguments;
    std::string_view error;
};
class Usage : public testing::TestWithParam<UsageCase> {};
TEST_P(Usage, IsRefusedWithStatus2) {
    std::ostringstream out, err;
    EXPECT_EQ(run(GetParam().arguments, {out, err}), 2);
    EXPECT_EQ(out.str(), "");
    EXPECT_NE(err.str().find(GetParam().error), std::string::npos) << err.str();
}
INSTANTIATE_TEST_SUITE_P(
    Table, Usage,
    testing::Values(
        UsageCase{{}, "which stream? name a file, or - for a pipe"},
        UsageCase{{"a", "b"}, "'b' is one word too many"},
        UsageCase{{"--tree", "a"}, "unknown option '--tree'"},
        UsageCase{{"--check=yes", "a"}, "--check takes no value"},
        UsageCase{{"--check", "--extract", "x", "-o", "y", "a"},
                  "--check and --extract exclude each other"},
        UsageCase{{"--extract", "ram", "a"}, "--extract wants -o FILE"},
        UsageCase{{"--extract"}, "--extract wants a value"},
        UsageCase{{"--extract", "ram#x", "-o", "y", "a"}, "a number has to follow '#'"},
        UsageCase{{"--extract", "#1", "-o", "y", "a"}, "'#1' names no section"},
        UsageCase{{"-o", "x", "a"}, "-o is for --extract and --extract-image only"},
        UsageCase{{"--offset", "12k", "a"}, "--offset wants a number of bytes, not '12k'"},
        UsageCase{{"--check", "--pages", "a"}, "--check and --pages exclude each other"},
        UsageCase{{"/nonexistent/stream"}, "/nonexistent/stream"},
        UsageCase{{"/"}, "Is a directory"}));

class CommandLine : public testing::Test {
 protected:
    CommandLine() {
        std::string pattern = "/tmp/ferry-XXXXXX";
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        directory = pattern;
    }
    ~CommandLine() override { std::filesystem::remove_all(directory); }

    std::string path(const std::string& name) const { return directory + "/" + name; }
    std::string store(const Bytes& bytes, const std::string& name = "stream") const {
        std::ofstream(path(name), std::ios::binary)
            .write(reinterpret_cast<const char*>(bytes.data()),
                   static_cast<std::streamsize>(bytes.size()));
        return path(name);
    }
    std::string load(const std::string& name) const {
        std::ifstream in(path(name), std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    int tool(const Strings& arguments) {
        out.str("");
        err.str("");
        return run(arguments, {out, err});
    }

    std::string directory;
    std::ostringstream out, err;
};

TEST_F(CommandLine, HelpAndVersionNeedNothingElse) {
    EXPECT_EQ(tool({"--help"}), 0);
    EXPECT_TRUE(out.str().starts_with("Usage: ferry-stream"));
    EXPECT_EQ(tool({"--version"}), 0);
    EXPECT_TRUE(out.str().starts_with("ferry-stream "));
}

TEST_F(CommandLine, TreeHasOffsetsAndSizes) {
    EXPECT_EQ(tool({store(small_qemu_stream())}), 0);
    EXPECT_NE(out.str().find("\n0x00000011           50  start id=1 idstr='ram' instance=0"),
              std::string::npos)
        << out.str();
    EXPECT_NE(out.str().find("block 'ram': 1 normal, 1 zero, 1 xbzrle pages in 4132 bytes\n"),
              std::string::npos)
        << out.str();
}

TEST_F(CommandLine, JsonIsOneDocument) {
    EXPECT_EQ(tool({"--json", store(small_ferry_stream())}), 0);
    const Json all = Json::parse(out.str());
    EXPECT_EQ(all["ok"], true);
    EXPECT_EQ(all["elements"].front()["type"], "header");
    EXPECT_EQ(all["devices"][0]["idstr"], "0000:00:03.0/vfio");
    EXPECT_EQ(all["devices"][0]["image_bytes"], 8);
    EXPECT_EQ(tool({"--json", "--check", store({})}), 1);
    const Json broken = Json::parse(out.str());
    EXPECT_EQ(broken["ok"], false);
    EXPECT_EQ(broken["problems"][0]["rule"], "truncated");
    EXPECT_FALSE(broken.contains("elements"));
}

TEST_F(CommandLine, CheckSaysOkOrWhereAndWhy) {
    const std::string file = store(small_qemu_stream());
    EXPECT_EQ(tool({"--check", file}), 0);
    EXPECT_EQ(out.str(), file + ": ok, 6 sections\n");
    Bytes broken = small_qemu_stream();
    broken[4] = std::byte{9};
    EXPECT_EQ(tool({"--check", store(broken)}), 1);
    EXPECT_EQ(out.str(), file +
                             ": byte 0x4: version: version 150994947 is not supported, only 3 "
                             "is known\n");
}

TEST_F(CommandLine, StreamMayBeginLaterInItsFile) {
    Bytes bytes(100, std::byte{0xff});
    const Bytes stream = small_qemu_stream();
    bytes.insert(bytes.end(), stream.begin(), stream.end());
    EXPECT_EQ(tool({"--check", "--offset", "0x64", store(bytes)}), 0) << out.str();
    EXPECT_EQ(tool({"--check", "--offset=99999", store(bytes)}), 2);
}

TEST_F(CommandLine, SectionIsExtracted) {
    const std::string file = store(small_qemu_stream());
    EXPECT_EQ(tool({"--extract", "0000:00:01.0/thing#0", "-o", path("body"), file}), 0)
        << err.str();
    const std::string body = load("body");
    EXPECT_EQ(body.size(), 4U + 2 + 3 + 2 + 10 + 4 + 1);
    EXPECT_EQ(body.substr(6, 3), "raw");
    EXPECT_EQ(tool({"--extract", "ram", "-o", path("body"), file}), 0);
    EXPECT_NE(out.str().find("in 4 pieces"), std::string::npos) << out.str();
}

TEST_F(CommandLine, ImageIsWhatFollowsTheLastDiscard) {
    const std::string file = store(small_ferry_stream());
    EXPECT_EQ(tool({"--extract-image", "0000:00:03.0", "-o", path("image"), file}), 0) << err.str();
    EXPECT_EQ(load("image"), "good one");
}

TEST_F(CommandLine, WhatIsNotThereIsNotWritten) {
    const std::string file = store(small_ferry_stream());
    EXPECT_EQ(tool({"--extract-image", "0000:00:04.0", "-o", path("image"), file}), 1);
    EXPECT_NE(err.str().find("it has: 0000:00:03.0/vfio#0"), std::string::npos) << err.str();
    EXPECT_FALSE(std::filesystem::exists(path("image")));
}

TEST_F(CommandLine, TheStreamIsNotOverwritten) {
    const Bytes bytes = small_qemu_stream();
    const std::string file = store(bytes);
    EXPECT_EQ(tool({"--extract", "ram", "-o", file, file}), 1);
    EXPECT_EQ(load("stream").size(), bytes.size());
}

TEST(Pipe, IsKeptUpToALimit) {
    const Bytes bytes = small_ferry_stream();
    for (const uint64_t limit : {bytes.size(), bytes.size() - 1}) {
        std::array<int, 2> ends{};
        ASSERT_EQ(::pipe(ends.data()), 0);
        UniqueFd reading(ends[0]), writing(ends[1]);
        ASSERT_TRUE(util::write_fd(writing.borrow(), bytes, "write"));
        writing.reset();
        const auto input = Input::from_fd(std::move(reading), "pipe", 0, limit);
        EXPECT_EQ(input.has_value(), limit == bytes.size());
        if (input) {
            EXPECT_EQ(input->size(), bytes.size());
        } else {
            EXPECT_EQ(input.error().kind(), ErrorKind::LimitExceeded);
        }
    }
}

}  // namespace
}  // namespace ferry::stream_tool
