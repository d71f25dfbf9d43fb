// SPDX-License-Identifier: BSD-2-Clause
// Broken streams: each rule by name, and every stream that a few wrong bytes make. Nothing may
// crash, hang or be taken for good.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>

#include "tests/unit/tools/stream-bytes.h"
#include "tools/ferry-stream/print.h"
#include "tools/ferry-stream/reader.h"

namespace ferry::stream_tool {
namespace {

using Strings = std::vector<std::string>;
constexpr uint64_t kRecords = 0xffffffffef100000;

struct RuleCase {
    std::string_view name;
    std::string_view problem;  // the first one, "rule: reason"
    std::function<void(StreamBytes&)> build;
};
void PrintTo(const RuleCase& rule, std::ostream* out) {
    *out << rule.name;
}

StreamBytes& begin(StreamBytes& s) {
    return s.header().configuration();
}
// Up to where RAM records may come.
StreamBytes& in_ram(StreamBytes& s) {
    return begin(s).ram_start().part(1);
}
StreamBytes& finish(StreamBytes& s) {
    return s.switchover().ram_end().eof();
}
StreamBytes& in_vfio(StreamBytes& s, uint8_t element) {
    begin(s).start(2, "vfio", 1).be64(kRecords | 3).be64(kRecords | 1).footer(2);
    return s.u8(element).be32(2);
}
StreamBytes& described(StreamBytes& s, std::string_view json) {
    return finish(begin(s).ram_start()).description(json);
}

const std::vector<RuleCase> kRules = {
    {"magic", "magic: it begins with 0x12345678, a migration stream with 0x5145564d",
     [](auto& s) { s.be32(0x12345678); }},
    {"multifd", "magic: this is an extra channel of multifd, not a main channel",
     [](auto& s) { s.be32(0x11223344).be32(1); }},
    {"obsolete", "version: version 2 is obsolete, only 3 is known",
     [](auto& s) { s.be32(0x5145564d).be32(2); }},
    {"empty", "truncated: the stream ends within the header, which begins at byte 0x0",
     [](auto&) {}},
    {"no configuration", "configuration: the configuration section is missing",
     [](auto& s) { finish(s.header().ram_start()); }},
    {"long machine", "configuration: a machine type name of 256 bytes, at most 255",
     [](auto& s) { s.header().configuration(std::string(256, 'x')); }},
    {"unknown part", "configuration: unknown subsection 'configuration/zzz'",
     [](auto& s) { begin(s).u8(5).str8("configuration/zzz").be32(1); }},
    {"page bits", "configuration: pages of 2^64 bytes",
     [](auto& s) { begin(s).u8(5).str8("configuration/target-page-bits").be32(1).be32(64); }},
    {"capabilities", "configuration: 4294967295 capabilities, at most 256",
     [](auto& s) { begin(s).u8(5).str8("configuration/capabilities").be32(1).be32(~0U); }},
    {"mapped-ram",
     "mapped-ram: RAM lies at fixed offsets of the file (capability mapped-ram); such a stream is "
     "not read any further",
     [](auto& s) {
         begin(s).u8(5).str8("configuration/capabilities").be32(1).be32(1).str8("mapped-ram");
         s.ram_start();
     }},
    {"element", "element: no element can begin with 0x09 here", [](auto& s) { begin(s).u8(9); }},
    {"no eof",
     "truncated: the stream ends within the row of elements: EOF is missing, which begins at byte "
     "0x11",
     [](auto& s) { begin(s); }},
    {"no name", "section-name: section id 1 has no name",
     [](auto& s) { begin(s).full(1, "", 0).text("x").footer(1).eof(); }},
    {"id taken", "section-id: id 1 belongs to 'ram' instance 0 already",
     [](auto& s) { begin(s).ram_start().globalstate(1).eof(); }},
    {"id changes", "section-id: 'globalstate' instance 0 had id 3 before, now 4",
     [](auto& s) { begin(s).globalstate(3).globalstate(4).eof(); }},
    {"twice", "section-id: 'globalstate' instance 0: full comes twice, first at 0x11",
     [](auto& s) { begin(s).globalstate().globalstate().eof(); }},
    {"not started", "section-id: part of section id 5, which was never started",
     [](auto& s) { begin(s).part(5).eos().footer(5).eof(); }},
    {"part of full", "section-id: part of section id 3, which was never started",
     [](auto& s) { begin(s).globalstate().part(3).eos().footer(3).eof(); }},
    {"part after end", "order: 'ram': part after END at 0x48",
     [](auto& s) { begin(s).ram_start().switchover().ram_end().part(1).eos().footer(1).eof(); }},
    {"part after switchover", "order: PART after SWITCHOVER_START",
     [](auto& s) { begin(s).ram_start().switchover().part(1).eos().footer(1).ram_end().eof(); }},
    {"late start", "order: START when the setup is over",
     [](auto& s) {
         begin(s).ram_start().part(1).eos().footer(1);
         finish(s.start(2, "odd", 1).footer(2).end(2).footer(2));
     }},
    {"early full", "full-order: FULL before the END of all that was started",
     [](auto& s) { begin(s).ram_start().switchover().globalstate().ram_end().eof(); }},
    {"no end", "end: 'ram' instance 0: started at 0x11, but has no END",
     [](auto& s) { begin(s).ram_start().switchover().eof(); }},
    {"footer of another", "footer: the footer of section id 2 instead of 1",
     [](auto& s) { finish(in_ram(s).eos().footer(2)); }},
    {"no footer", "footer: section 'ram' (id 1) has no footer here",
     [](auto& s) { finish(in_ram(s).eos()); }},
    {"junk before footer", "footer: section 'ram' (id 1) has no footer here",
     [](auto& s) { finish(in_ram(s).eos().text("junk").footer(1)); }},
    {"ram version", "section-version: 'ram' has version 5, only 4 is known",
     [](auto& s) { begin(s).start(1, "ram", 5).eos().footer(1).ram_end().eof(); }},
    {"ram eos", "ram-eos: the footer comes without an EOS record before it",
     [](auto& s) { finish(in_ram(s).footer(1)); }},
    {"ram full", "ram-record: record FULL (0x1): obsolete",
     [](auto& s) { finish(in_ram(s).be64(0x1001).eos().footer(1)); }},
    {"ram hook", "ram-record: record HOOK (0x80): only RDMA has it",
     [](auto& s) { finish(in_ram(s).be64(0x80).eos().footer(1)); }},
    {"ram compressed",
     "ram-record: record COMPRESS_PAGE (0x100): compressed pages were removed with QEMU 9.1",
     [](auto& s) { finish(in_ram(s).be64(0x100).str8("ram").text("z").eos().footer(1)); }},
    {"ram flags", "ram-record: record 0x100a: its flags 0xa mean nothing",
     [](auto& s) { finish(in_ram(s).be64(0x100a).eos().footer(1)); }},
    {"block total",
     "ram-blocks: block 'ram' of 8192 bytes does not fit into the total of 4096 bytes, 4096 are "
     "left",
     [](auto& s) { begin(s).start(1, "ram", 4).be64(0x1004).str8("ram").be64(0x2000).footer(1); }},
    {"empty block",
     "ram-blocks: block 'ram' of 0 bytes does not fit into the total of 4096 bytes, 4096 are left",
     [](auto& s) { begin(s).start(1, "ram", 4).be64(0x1004).str8("ram").be64(0).footer(1); }},
    {"block twice", "ram-blocks: block 'ram' is listed twice",
     [](auto& s) {
         begin(s).start(1, "ram", 4).be64(0x2004).str8("ram").be64(0x1000).str8("ram");
         finish(s.be64(0x1000).eos().footer(1));
     }},
    {"late list", "ram-blocks: the list of blocks comes outside of START",
     [](auto& s) { finish(in_ram(s).be64(0x1004).str8("b").be64(0x1000).eos().footer(1)); }},
    {"no list", "ram-blocks: RAM ends without a list of blocks",
     [](auto& s) { finish(begin(s).start(1, "ram", 4).eos().footer(1)); }},
    {"unknown block", "ram-page: block 'rom' was not announced",
     [](auto& s) { finish(in_ram(s).be64(2).str8("rom").u8(0).eos().footer(1)); }},
    {"page outside", "ram-page: offset 0x4000 lies outside of block 'ram' of 16384 bytes",
     [](auto& s) { finish(in_ram(s).be64(0x4002).str8("ram").u8(0).eos().footer(1)); }},
    {"continue nothing", "ram-page: CONTINUE before any block was named",
     [](auto& s) { finish(in_ram(s).be64(0x22).u8(0).eos().footer(1)); }},
    {"fill", "ram-page: a page is filled with 0x1, not zero",
     [](auto& s) { finish(in_ram(s).be64(2).str8("ram").u8(1).eos().footer(1)); }},
    {"xbzrle encoding", "ram-page: XBZRLE: encoding 2 of 1 bytes means nothing",
     [](auto& s) { finish(in_ram(s).be64(0x40).str8("ram").u8(2).be16(1).u8(0).eos().footer(1)); }},
    {"xbzrle runs", "ram-page: XBZRLE: its runs are longer than a page",
     [](auto& s) {
         in_ram(s).be64(0x40).str8("ram").u8(1).be16(4);
         finish(s.u8(0x80).u8(0x20).u8(1).u8(7).eos().footer(1));
     }},
    {"unknown command", "command: command 0xc of 3 bytes is unknown",
     [](auto& s) { begin(s).command(12, 3).text("abc").eof(); }},
    {"command length", "command: SWITCHOVER_START with 1 bytes",
     [](auto& s) { begin(s).command(11, 1).u8(0).eof(); }},
    {"ping alone", "command: PING without a return path to answer on",
     [](auto& s) { begin(s).command(2, 4).be32(1).eof(); }},
    {"return path twice", "command: OPEN_RETURN_PATH comes twice, first at 0x11",
     [](auto& s) { begin(s).command(1, 0).command(1, 0).eof(); }},
    {"late return path", "command: OPEN_RETURN_PATH after the first section",
     [](auto& s) { finish(begin(s).ram_start().command(1, 0)); }},
    {"switchover twice", "command: SWITCHOVER_START comes twice, first at 0x11",
     [](auto& s) { begin(s).switchover().switchover().eof(); }},
    {"late switchover", "order: SWITCHOVER_START after a section END",
     [](auto& s) { begin(s).ram_start().ram_end().switchover().eof(); }},
    {"listen outside", "command: POSTCOPY_LISTEN outside of a package",
     [](auto& s) { begin(s).command(4, 0).eof(); }},
    {"package cut", "package: 100 bytes are announced, 1 follow",
     [](auto& s) { begin(s).command(7, 4).be32(100).eof(); }},
    {"package in element", "package: the package ends within an element",
     [](auto& s) { begin(s).command(7, 4).be32(3).globalstate().eof(); }},
    {"early go", "command: GO before the end", [](auto& s) { begin(s).command(0x4601, 0).eof(); }},
    {"go without hello", "hello: GO without the hello that allows it",
     [](auto& s) {
         finish(begin(s).ram_start())
             .description(R"({"configuration": {}, "page_size": 4096, "devices": []})")
             .command(0x4601, 0);
     }},
    {"late hello", "hello: the hello is not the second PING",
     [](auto& s) { begin(s).command(1, 0).command(2, 4).be32(0x46450000).eof(); }},
    {"vfio record", "vfio-record: 0xffffffffef100077 is an unknown record of a VFIO device",
     [](auto& s) { in_vfio(s, 2).be64(kRecords | 0x77).footer(2).end(2).be64(kRecords | 1); }},
    {"vfio no record", "vfio-record: 0x10 is no record of a VFIO device",
     [](auto& s) { in_vfio(s, 2).eos().footer(2).end(2).be64(kRecords | 1).footer(2).eof(); }},
    {"vfio end", "vfio-end: the footer comes without END_OF_STATE before it",
     [](auto& s) { in_vfio(s, 3).footer(2).eof(); }},
    {"vfio setup", "vfio-record: SETUP does not belong into a section end",
     [](auto& s) { in_vfio(s, 3).be64(kRecords | 3).be64(kRecords | 1).footer(2).eof(); }},
    {"vfio discard", "hello: DISCARD without the hello that allows it",
     [](auto& s) { in_vfio(s, 3).be64(kRecords | 0xf1).be64(kRecords | 1).footer(2).eof(); }},
    {"vfio huge data",
     "truncated: the stream ends within section 'vfio' (id 2), part, which begins at byte 0x38",
     [](auto& s) { in_vfio(s, 2).be64(kRecords | 4).be64(~0ULL).text("x"); }},
    {"not json", "description: is not JSON", [](auto& s) { described(s, "{\"a\": }"); }},
    {"no object", "description: it does not begin with '{'", [](auto& s) { described(s, "[]"); }},
    {"nothing in it", "description: it has no page_size", [](auto& s) { described(s, "{}"); }},
    {"page size", "description: pages of 4097 bytes, the stream has 4096",
     [](auto& s) { described(s, R"({"page_size": 4097, "devices": []})"); }},
    {"other page size", "description: pages of 8192 bytes, the stream has 4096",
     [](auto& s) {
         begin(s).u8(5).str8("configuration/target-page-bits").be32(1).be32(12);
         s.globalstate().eof().description(R"({"page_size": 8192, "devices": [{"name":
             "globalstate", "instance_id": 0, "fields": [{"name": "a", "size": 104}]}]})");
     }},
    {"deep", "description: more than 64 brackets in brackets",
     [](auto& s) {
         described(s, "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}");
     }},
    {"described only", "description: it has 'x' instance 1, which has no section FULL",
     [](auto& s) {
         described(s, R"({"page_size": 4096, "devices":
         [{"name": "x", "instance_id": 1, "fields": []}]})");
     }},
    {"described twice", "description: 'x' instance 1 is described twice",
     [](auto& s) {
         described(s, R"({"page_size": 4096, "devices":
         [{"name": "x", "instance_id": 1, "fields": []},
          {"name": "x", "instance_id": 1, "fields": []}]})");
     }},
    {"no fields", "description: the description of 'x' has no list of fields",
     [](auto& s) {
         described(s, R"({"page_size": 4096, "devices":
         [{"name": "x", "instance_id": 1}]})");
     }},
    {"not described", "description: 'globalstate' instance 0 is missing in the description",
     [](auto& s) {
         begin(s).globalstate().eof().description(R"({"page_size": 4096, "devices": []})");
     }},
    {"wrong size",
     "description: the body of 'odd' has not the 3 bytes that the description gives it",
     [](auto& s) {
         begin(s)
             .full(5, "odd", 1)
             .text("body")
             .footer(5)
             .eof()
             .description(
                 R"({"page_size": 4096, "devices": [{"name": "odd", "instance_id": 0,
                       "fields": [{"name": "a", "size": 3}]}]})");
     }},
    {"field overflow", "description: the description of 'odd' has a size beyond 64 bits",
     [](auto& s) {
         begin(s)
             .full(5, "odd", 1)
             .text("body")
             .footer(5)
             .eof()
             .description(
                 R"({"page_size": 4096, "devices": [{"name": "odd", "instance_id": 0,
                       "fields": [{"name": "a", "size": 9223372036854775808, "array_len": 2}]}]})");
     }},
    {"trailing", "trailing: 5 bytes behind the end of the stream",
     [](auto& s) { finish(begin(s).ram_start()).text("extra"); }},
};

class Rule : public testing::TestWithParam<RuleCase> {};
TEST_P(Rule, IsToldByName) {
    StreamBytes stream;
    GetParam().build(stream);
    const Told told = read(stream.bytes());
    EXPECT_TRUE(told.result);
    const Strings problems = told.problems();
    ASSERT_FALSE(problems.empty());
    EXPECT_NE(std::ranges::find(problems, GetParam().problem), problems.end())
        << "told instead: " << problems.front();
}
INSTANTIATE_TEST_SUITE_P(Table, Rule, testing::ValuesIn(kRules));

// A broken body does not hide what follows.
TEST(Broken, BodyIsLeftAtItsFooter) {
    StreamBytes stream;
    in_ram(stream).be64(0x100).str8("ram").text("zzz").eos().footer(1);
    finish(stream.part(1).be64(2).str8("ram").u8(0).eos().footer(1));
    const Told told = read(stream.bytes());
    EXPECT_EQ(told.problems().size(), 1U);
    EXPECT_EQ(attribute(told.elements[3], "guessed"), "yes");
    EXPECT_EQ(told.blocks[0].total.zero, 1U);
    EXPECT_EQ(told.elements.back().type, "eof");
}

TEST(Broken, OffsetsNameThePlace) {
    StreamBytes stream;
    finish(in_ram(stream).be64(0x9002).str8("ram").u8(0).eos().footer(1));
    const Told told = read(stream.bytes());
    ASSERT_EQ(told.findings.problems(), 1U);
    EXPECT_EQ(told.findings.all()[0].offset, 0x48U);
}

TEST(Broken, ReadingStopsAfterManyProblems) {
    StreamBytes stream;
    in_ram(stream);
    for (size_t i = 0; i < 2 * kMaxProblems; ++i) stream.be64(0x9002).str8("ram").u8(0);
    const Told told = read(finish(stream.eos().footer(1)).bytes());
    EXPECT_EQ(told.findings.problems(), kMaxProblems);
}

TEST(Broken, ManyNotesStopNothing) {
    StreamBytes stream;
    begin(stream);
    for (uint32_t i = 0; i < 2 * kMaxNotes; ++i) stream.full(i, "odd", 1, i).footer(i);
    const Told told = read(stream.command(2, 4).be32(1).eof().bytes());
    EXPECT_EQ(told.notes().size(), kMaxNotes);
    EXPECT_EQ(told.findings.notes_left_out(), kMaxNotes + 1);  // and that nothing is described
    EXPECT_EQ(told.problems(), Strings{"command: PING without a return path to answer on"});
}

// A wrong description costs a second look at each body, and not without end.
TEST(Broken, SecondLooksAreLimited) {
    StreamBytes stream;
    begin(stream);
    std::string devices;
    for (uint32_t i = 0; i < 2 * kMaxSecondLooks; ++i) {
        stream.full(i, "odd", 1, i).text("body").footer(i);
        devices += fmt::format(R"({}{{"name": "odd", "instance_id": {}, "fields": [)"
                               R"({{"name": "a", "size": 2}}]}})",
                               i == 0 ? "" : ", ", i);
    }
    stream.eof().description(R"({"page_size": 4096, "devices": [)" + devices + "]}");
    const Strings problems = read(stream.bytes()).problems();
    EXPECT_EQ(problems.size(), kMaxSecondLooks + 2);  // the body that is one too many, and why
    EXPECT_EQ(problems.back(), "limit: more than 64 bodies that don't fit");
}

// --- Mutations: whatever comes, the reader ends and prints what it found.

// Everything is printed, so that nothing is left unread by the printers.
void read_all_ways(ConstBytes bytes, const std::string& which) {
    const Input input = input_of(bytes);
    std::ostream nowhere(nullptr);
    const auto read_with = [&](Printer& printer) {
        Findings findings;
        StreamReader reader(input, findings, printer, Detail::Pages);
        printer.begin(input);
        EXPECT_TRUE(reader.run()) << which;
        printer.end(reader, findings);
    };
    TextPrinter text(nowhere);
    read_with(text);
    JsonPrinter json(nowhere, JsonPrinter::Elements::Shown);
    read_with(json);
}

// The pages' contents are the same everywhere: a few bytes of them are enough.
bool within_page(ConstBytes bytes, size_t at) {
    return at > 16 && at + 16 < bytes.size() &&
           std::ranges::all_of(bytes.subspan(at - 16, 32),
                               [&](std::byte byte) { return byte == bytes[at]; });
}

class Mutation : public testing::TestWithParam<Bytes (*)()> {};

TEST_P(Mutation, CutAnywhereIsToldAsTruncated) {
    const Bytes good = GetParam()();
    for (size_t length = 0; length < good.size(); ++length) {
        if (within_page(good, length)) continue;
        const ConstBytes cut = ConstBytes(good).first(length);
        const Told told = read(cut);
        EXPECT_TRUE(told.result);
        // Whole without its description or without GO, which nobody can miss.
        const bool whole = told.problems().empty();
        if (whole) {
            EXPECT_TRUE(told.elements.back().type == "eof" ||
                        told.elements.back().type == "description")
                << length;
        }
        read_all_ways(cut, fmt::format("cut at {}", length));
    }
}

TEST_P(Mutation, AnyWrongByteIsSurvived) {
    const Bytes good = GetParam()();
    for (size_t at = 0; at < good.size(); ++at) {
        if (within_page(good, at)) continue;
        for (const unsigned flip : {0x01U, 0x10U, 0x80U, 0xffU}) {
            Bytes bad = good;
            bad[at] ^= std::byte(flip);
            read_all_ways(bad, fmt::format("byte {} ^ {:#x}", at, flip));
        }
    }
}

TEST_P(Mutation, AnyMissingOrDoubledByteIsSurvived) {
    const Bytes good = GetParam()();
    for (size_t at = 0; at < good.size(); ++at) {
        if (within_page(good, at)) continue;
        Bytes bad = good;
        bad.insert(bad.begin() + static_cast<std::ptrdiff_t>(at), good[at]);
        read_all_ways(bad, fmt::format("byte {} doubled", at));
        bad.erase(bad.begin() + static_cast<std::ptrdiff_t>(at),
                  bad.begin() + static_cast<std::ptrdiff_t>(at) + 2);
        read_all_ways(bad, fmt::format("byte {} missing", at));
    }
}

// Lengths and counts of every size, at every place.
TEST_P(Mutation, HugeNumbersAreSurvived) {
    const Bytes good = GetParam()();
    for (size_t at = 8; at + 8 <= good.size(); ++at) {
        if (within_page(good, at)) continue;
        for (const size_t width : {2U, 4U, 8U}) {
            Bytes bad = good;
            std::fill_n(bad.begin() + static_cast<std::ptrdiff_t>(at), width, std::byte{0xff});
            read_all_ways(bad, fmt::format("{} bytes at {}", width, at));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Streams, Mutation,
                         testing::Values(&small_qemu_stream, &small_ferry_stream));

}  // namespace
}  // namespace ferry::stream_tool
