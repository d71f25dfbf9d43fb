// SPDX-License-Identifier: BSD-2-Clause
#include "migration/vmstate.h"
#include "tests/unit/migration/savevm-support.h"
#include "util/try.h"

namespace ferry::migration {
namespace {

using test::bytes_from;
using test::ByteVector;
using test::hex;
using test::join;
using test::Timer;

struct Device {
    bool on = false;
    int8_t small = 0;
    uint16_t half = 0;
    uint32_t word = 0;
    uint64_t wide = 0;
    std::array<std::byte, 3> raw{};
    uint32_t later = 77;
    int saved = 0;
    uint32_t loaded_version = 0;
};

const VMStateDescription& device() {
    static const VMStateDescription kDescription =
        VMState<Device>("device", 3, 2)
            .field("on", &Device::on)
            .field("small", &Device::small)
            .field("half", &Device::half)
            .unused(2)
            .field("word", &Device::word)
            .field("wide", &Device::wide)
            .buffer("raw", &Device::raw)
            .unused(1)
            .field("later", &Device::later, 3)
            .pre_save([](Device& device) { ++device.saved; })
            .post_load([](Device& device, uint32_t version) -> Result<> {
                device.loaded_version = version;
                if (device.word == 13) return make_error(ErrorKind::Protocol, "unlucky word");
                return {};
            })
            .build();
    return kDescription;
}

constexpr std::string_view kBodyV3 = "01 fe 0304 00*2 00000005 0000000000000006 'abc' 00 00000007";
constexpr std::string_view kBodyV2 = "01 fe 0304 00*2 00000005 0000000000000006 'abc' 00";

Result<> load(const VMStateDescription& description, void* object, ConstBytes body,
              uint32_t version, uint64_t* position = nullptr) {
    MemorySource source(body);
    LoadStream in(source);
    auto result = description.load(object, in, version);
    if (position != nullptr) *position = in.position();
    return result;
}

TEST(VMState, VersionsOutsideOfTheRangeAreRefusedBeforeAnythingIsRead) {
    for (const uint32_t version : {0U, 1U, 4U, 0xffffffffU}) {
        Device object;
        uint64_t position = 99;
        const auto result = load(device(), &object, hex(kBodyV3), version, &position);
        ASSERT_FALSE(result) << version;
        EXPECT_NE(result.error().message().find("only 2 to 3"), std::string::npos);
        EXPECT_EQ(position, 0U);
        ByteVector body;
        MemorySource source{ConstBytes{}};
        LoadStream in(source);
        EXPECT_EQ(device().collect(in, version, body).error().kind(), ErrorKind::Protocol);
    }
}

TEST(VMState, EveryTruncationNamesTheField) {
    const ByteVector body = hex(kBodyV3);
    for (size_t size = 0; size < body.size(); ++size) {
        Device object;
        const auto result = load(device(), &object, ConstBytes(body).first(size), 3);
        ASSERT_FALSE(result) << size;
        EXPECT_EQ(result.error().kind(), ErrorKind::PeerClosed);
        EXPECT_NE(result.error().message().find("device: field "), std::string::npos);
        MemorySource source(ConstBytes(body).first(size));
        LoadStream in(source);
        ByteVector collected;
        EXPECT_EQ(device().collect(in, 3, collected).error().kind(), ErrorKind::PeerClosed);
    }
}

TEST(VMState, PostLoadRefusesWithTheDescriptionsName) {
    Device object;
    ByteVector body = hex(kBodyV3);
    body[9] = std::byte{13};  // word
    EXPECT_EQ(load(device(), &object, body, 3).error().message(), "device: unlucky word");
}

TEST(VMState, BytesAreTheDocumentedOnes) {
    Device object{.on = true, .small = -2, .half = 0x0304, .word = 5, .wide = 6, .later = 7};
    std::ranges::copy(bytes_of("abc"), object.raw.begin());
    EXPECT_EQ(bytes_from([&](SaveStream& out) { device().save(&object, out); }), hex(kBodyV3));
    EXPECT_EQ(object.saved, 1);

    Device loaded;
    ASSERT_TRUE(load(device(), &loaded, hex(kBodyV3), 3));
    EXPECT_TRUE(loaded.on);
    EXPECT_EQ(loaded.small, -2);
    EXPECT_EQ(loaded.half, 0x0304);
    EXPECT_EQ(loaded.word, 5U);
    EXPECT_EQ(loaded.wide, 6U);
    EXPECT_EQ(loaded.raw, object.raw);
    EXPECT_EQ(loaded.later, 7U);
    EXPECT_EQ(loaded.loaded_version, 3U);
}

TEST(VMState, OlderVersionLacksLaterFieldsWhichKeepTheirDefaults) {
    Device loaded;
    uint64_t position = 0;
    ASSERT_TRUE(load(device(), &loaded, join({hex(kBodyV2), hex("ff*4")}), 2, &position));
    EXPECT_EQ(loaded.later, 77U);
    EXPECT_EQ(loaded.loaded_version, 2U);
    EXPECT_EQ(position, hex(kBodyV2).size());
}

TEST(VMState, AnyNonzeroByteIsTrue) {
    Device loaded;
    ByteVector body = hex(kBodyV3);
    body[0] = std::byte{0x80};
    ASSERT_TRUE(load(device(), &loaded, body, 3));
    EXPECT_TRUE(loaded.on);
}

// --- Subsections

struct Tree {
    uint8_t root = 0;
    bool has_a = false;
    uint8_t a = 10;
    bool has_leaf = false;
    uint8_t leaf = 20;
    bool has_b = false;
    uint8_t b = 30;
};

const VMStateDescription& tree() {
    static const VMStateDescription kDescription =
        VMState<Tree>("tree", 1, 1)
            .field("root", &Tree::root)
            .subsection(
                VMState<Tree>("tree/a", 2, 1)
                    .field("a", &Tree::a)
                    .subsection(
                        VMState<Tree>("tree/a/leaf", 1, 1).field("leaf", &Tree::leaf).build(),
                        [](const Tree& tree) { return tree.has_leaf; })
                    .build(),
                [](const Tree& tree) { return tree.has_a; })
            .subsection(VMState<Tree>("tree/b", 1, 1).field("b", &Tree::b).build(),
                        [](const Tree& tree) { return tree.has_b; })
            .build();
    return kDescription;
}

constexpr std::string_view kA = "05 06 'tree/a' 00000002 11";
constexpr std::string_view kLeaf = "05 0b 'tree/a/leaf' 00000001 12";
constexpr std::string_view kB = "05 06 'tree/b' 00000001 13";

TEST(VMState, UndeclaredSubsectionIsFatal) {
    Tree object;
    const auto result = load(tree(), &object, hex("01 05 08 'tree/zzz' 00000001 13"), 1);
    EXPECT_EQ(result.error().message(), "tree: unknown subsection 'tree/zzz'");
    Timer timer;
    EXPECT_FALSE(load(Timer::description(), &timer, hex("00*24 05 09 'timer/zzz' 00000001"), 2));
}

TEST(VMState, SubsectionTwiceIsRefusedSoThatNothingGrows) {
    Tree object;
    const ByteVector body = join({hex("01"), hex(kB), hex(kB)});
    EXPECT_EQ(load(tree(), &object, body, 1).error().message(),
              "tree: subsection 'tree/b' comes twice");
    MemorySource source{ConstBytes(body)};
    LoadStream in(source);
    ByteVector collected;
    EXPECT_FALSE(tree().collect(in, 1, collected));
}

TEST(VMState, SubsectionOfANewerVersionIsRefused) {
    Tree object;
    EXPECT_FALSE(load(tree(), &object, hex("01 05 06 'tree/b' 00000002 13"), 1));
}

TEST(VMState, WhatIsNotASubsectionOfOursEndsTheBodyAndIsNotConsumed) {
    for (const std::string_view next : {"7e 00000005", "05", "05 00", "05 04 'tree' 00000001",
                                        "05 06 'tree'", "05 06 'else/b' 00"}) {
        Tree object;
        uint64_t position = 0;
        ASSERT_TRUE(load(tree(), &object, join({hex("01"), hex(next)}), 1, &position)) << next;
        EXPECT_EQ(position, 1U) << next;
        MemorySource source{ConstBytes{}};
    }
}

TEST(VMState, NeededSubsectionsTravelNestedAndAbsentOnesKeepTheirDefaults) {
    Tree object{.root = 1,
                .has_a = true,
                .a = 0x11,
                .has_leaf = true,
                .leaf = 0x12,
                .has_b = true,
                .b = 0x13};
    const ByteVector all = join({hex("01"), hex(kA), hex(kLeaf), hex(kB)});
    EXPECT_EQ(bytes_from([&](SaveStream& out) { tree().save(&object, out); }), all);
    Tree loaded;
    ASSERT_TRUE(load(tree(), &loaded, all, 1));
    EXPECT_EQ(loaded.a, 0x11);
    EXPECT_EQ(loaded.leaf, 0x12);
    EXPECT_EQ(loaded.b, 0x13);

    Tree partly;
    ASSERT_TRUE(load(tree(), &partly, join({hex("01"), hex(kB)}), 1));
    EXPECT_EQ(partly.a, 10);
    EXPECT_EQ(partly.leaf, 20);
    EXPECT_EQ(partly.b, 0x13);
}

TEST(VMState, CollectTakesExactlyTheBytesOfOneBody) {
    const ByteVector all = join({hex("01"), hex(kA), hex(kLeaf), hex(kB)});
    const ByteVector stream = join({all, hex("7e 00000005")});
    MemorySource source{ConstBytes(stream)};
    LoadStream in(source);
    ByteVector collected = hex("aa");
    ASSERT_TRUE(tree().collect(in, 1, collected));
    EXPECT_EQ(collected, join({hex("aa"), all}));
    EXPECT_EQ(in.position(), all.size());
}

// --- Description

TEST(VMState, DescriptionTellsWhatIsInTheBody) {
    Tree object;
    EXPECT_EQ(tree().describe(&object), R"("vmsd_name": "tree", "version": 1, "fields": )"
                                        R"([{"name": "root", "type": "uint8", "size": 1}])");
    object.has_b = true;
    EXPECT_EQ(tree().describe(&object),
              R"("vmsd_name": "tree", "version": 1, "fields": )"
              R"([{"name": "root", "type": "uint8", "size": 1}], "subsections": )"
              R"([{"vmsd_name": "tree/b", "version": 1, "fields": )"
              R"([{"name": "b", "type": "uint8", "size": 1}]}])");
}

TEST(VMState, FieldsOfOneNameAreNumberedInTheDescription) {
    Device object;
    const std::string text = device().describe(&object);
    EXPECT_NE(text.find(R"({"name": "unused[0]", "type": "unused_buffer", "size": 2})"),
              std::string::npos);
    EXPECT_NE(text.find(R"({"name": "unused[1]", "type": "unused_buffer", "size": 1})"),
              std::string::npos);
    EXPECT_NE(text.find(R"({"name": "on", "type": "bool", "size": 1})"), std::string::npos);
    EXPECT_NE(text.find(R"({"name": "small", "type": "int8", "size": 1})"), std::string::npos);
    EXPECT_NE(text.find(R"({"name": "raw", "type": "buffer", "size": 3})"), std::string::npos);
}

}  // namespace
}  // namespace ferry::migration
