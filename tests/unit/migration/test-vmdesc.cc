// SPDX-License-Identifier: BSD-2-Clause
// The description, and whether a tool that knows nothing but it and the frame can read a stream.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "migration/ram-records.h"
#include "migration/vmdesc.h"
#include "tests/unit/migration/savevm-support.h"

namespace ferry::migration {
namespace {

using nlohmann::json;
using test::ByteVector;
using test::Global;
using test::hex;
using test::TestVm;
using test::Timer;

// Looks for the description the way QEMU's script does: from the end back to the last NUL, from
// there forwards to the first brace. The offset, or nothing.
std::optional<size_t> find_description(ConstBytes stream) {
    constexpr size_t kWindow = 10 * 1024 * 1024;
    const ConstBytes window = stream.last(std::min(stream.size(), kWindow));
    const auto nul = std::find(window.rbegin(), window.rend(), std::byte{0});
    const auto brace = std::find(nul.base(), window.end(), std::byte{'{'});
    if (brace == window.end()) return std::nullopt;
    return stream.size() - window.size() + static_cast<size_t>(brace - window.begin());
}

// Walks through a stream by its description, as that script does.
class Analyzer {
 public:
    explicit Analyzer(ConstBytes stream) : stream_(stream), in_(stream) {
        const auto at = find_description(stream);
        if (!at) throw std::runtime_error("no description");
        const ConstBytes text = stream.subspan(*at);
        description_ =
            json::parse(std::string(reinterpret_cast<const char*>(text.data()), text.size()));
        description_at_ = *at;
    }

    void walk() {
        EXPECT_EQ(*in_.be32(), kStreamMagic);
        EXPECT_EQ(*in_.be32(), kStreamVersion);
        EXPECT_EQ(*in_.u8(), 7);
        read_state(description_.at("configuration"));
        page_size_ = description_.at("page_size").get<size_t>();
        while (const uint8_t type = *in_.u8()) element(type);
        EXPECT_EQ(*in_.u8(), 6);
        EXPECT_EQ(*in_.be32(), stream_.size() - description_at_);
        EXPECT_EQ(stream_.size() - in_.remaining(), description_at_);
    }

    std::map<std::string, ByteVector> pages;  // "block offset"
    std::set<std::string> seen;
    std::vector<std::string> configuration;

 private:
    using Key = std::pair<std::string, uint32_t>;

    void element(uint8_t type) {
        if (type == 8) {
            EXPECT_EQ(*in_.be16(), 11);
            EXPECT_EQ(*in_.be16(), 0);
            return;
        }
        const uint32_t id = *in_.be32();
        if (type == 1 || type == 4) {
            std::string name = *in_.str8();
            EXPECT_LT(name.size(), 128U);
            const uint32_t instance = *in_.be32();
            static_cast<void>(in_.be32());
            by_id_[id] = {name, instance};
        }
        const Key key = by_id_.at(id);
        seen.insert(key.first);
        if (key == Key{"ram", 0}) {
            ram_body();
        } else {
            read_state(device(key));
        }
        EXPECT_EQ(*in_.u8(), 0x7e);
        EXPECT_EQ(*in_.be32(), id);
    }

    const json& device(const Key& key) {
        for (const json& entry : description_.at("devices")) {
            if (entry.at("name") == key.first && entry.at("instance_id") == key.second)
                return entry;
        }
        throw std::runtime_error(key.first + " is not described");
    }

    void read_state(const json& state) {
        for (const json& field : state.at("fields")) {
            const size_t count = field.value("array_len", size_t{1});
            for (size_t i = 0; i < count; ++i) {
                ASSERT_TRUE(in_.bytes(field.at("size").get<size_t>()));
            }
        }
        if (!state.contains("subsections")) return;
        for (const json& sub : state.at("subsections")) {
            EXPECT_EQ(*in_.u8(), 5);
            EXPECT_EQ(*in_.str8(), sub.at("vmsd_name").get<std::string>());
            EXPECT_EQ(*in_.be32(), sub.at("version").get<uint32_t>());
            read_state(sub);
        }
    }

    void ram_body() {
        for (;;) {
            const uint64_t word = *in_.be64();
            const uint64_t flags = word & (page_size_ - 1);
            const uint64_t value = word & ~(page_size_ - 1);
            if (flags == kRamEos) return;
            if (flags == kRamMemSize) {
                for (uint64_t left = value; left != 0;) {
                    static_cast<void>(in_.str8());
                    left -= *in_.be64();
                }
                continue;
            }
            if ((flags & kRamContinue) == 0) block_ = *in_.str8();
            const std::string key = fmt::format("{} {:#x}", block_, value);
            if ((flags & kRamZero) != 0) {
                EXPECT_EQ(*in_.u8(), 0);
                pages[key] = ByteVector(page_size_);
            } else {
                const ConstBytes page = *in_.bytes(page_size_);
                pages[key] = ByteVector(page.begin(), page.end());
            }
        }
    }

    ConstBytes stream_;
    util::WireReader in_;
    json description_;
    size_t description_at_ = 0;
    size_t page_size_ = 0;
    std::map<uint32_t, Key> by_id_;
    std::string block_;
};

TEST(VmDescription, LengthWithABraceAfterItsLastNulWouldBeMistakenForTheText) {
    for (const uint32_t bad : {0x17bU, 0x1f7bU, 0x7b10U, 0x7bU, 0x117b22U, 0x7b11U}) {
        EXPECT_FALSE(description_can_be_found(bad)) << std::hex << bad;
    }
    for (const uint32_t good : {0x7b00U, 0x337U, 0x7b0001U, 2U}) {
        EXPECT_TRUE(description_can_be_found(good)) << std::hex << good;
    }
}

TEST(VmDescription, RuleAgreesWithASearchThroughTheBytes) {
    for (uint32_t length = 1; length < 0x30000; ++length) {
        util::WireWriter tail;
        tail.u8(0).u8(6).be32(length).u8('{').u8('}');
        ASSERT_EQ(find_description(tail.view()) == 6U, description_can_be_found(length)) << length;
    }
}

TEST(VmDescription, SpacesBehindTheTextMakeEveryLengthFindable) {
    bool padded = false;
    for (size_t name = 1; name < 250; ++name) {
        VmDescription description({"none"});
        description.add_opaque({std::string(name, 'x'), 0, 1}, 7);
        const std::string text = std::move(description).finish();
        EXPECT_TRUE(description_can_be_found(static_cast<uint32_t>(text.size()))) << name;
        const size_t end = text.find_last_not_of(' ');
        EXPECT_EQ(text[end], '}');
        padded |= end + 1 != text.size();
        EXPECT_TRUE(json::accept(text));
    }
    EXPECT_TRUE(padded);  // the lengths tried include bad ones
}

TEST(VmDescription, TextHasTheFormOfQemus) {
    VmDescription description({"none"});
    Timer timer;
    description.add_plain({"timer", 0, 2}, Timer::description().describe(&timer));
    description.add_opaque({"0000:00:03.0/vfio", 1, 1}, 12);
    EXPECT_EQ(std::move(description).finish(),
              R"({"configuration": {"vmsd_name": "configuration", "version": 1, "fields": )"
              R"([{"name": "len", "type": "uint32", "size": 4}, )"
              R"({"name": "name", "type": "buffer", "size": 4}]}, "page_size": 4096, "devices": )"
              R"([{"name": "timer", "instance_id": 0, "vmsd_name": "timer", "version": 2, )"
              R"("fields": [{"name": "cpu_ticks_offset", "type": "int64", "size": 8}, )"
              R"({"name": "unused", "type": "unused_buffer", "size": 8}, )"
              R"({"name": "cpu_clock_offset", "type": "int64", "size": 8}]}, )"
              R"({"name": "0000:00:03.0/vfio", "instance_id": 1, "size": 12, )"
              R"("fields": [{"name": "data", "size": 12, "type": "buffer"}]}]})");
}

TEST(VmDescription, NamesAreQuoted) {
    VmDescription description({"none"});
    description.add_opaque({R"(a"b\c)", 0, 1}, 1);
    const json parsed = json::parse(std::move(description).finish());
    EXPECT_EQ(parsed.at("devices").at(0).at("name"), R"(a"b\c)");
}

TEST(Analyzer, ReadsAWholeStreamByItsDescription) {
    TestVm vm("microvm");
    system::RamBlock& block = vm.add_ram("m0", 3 * system::kPageSize, 0);
    block.host()[system::kPageSize] = std::byte{0x5a};
    Timer timer{.ticks = 1, .clock = 2, .has_icount = true, .bias = 3};
    Timer second;
    Global global;
    vm.keep(vm.registry.add_vmstate("", Timer::description(), &timer));
    vm.register_ram();
    vm.keep(vm.registry.add_vmstate("0000:00:01.0", Timer::description(), &second, 4));
    vm.keep(vm.registry.add_vmstate("", Global::description(), &global));
    const ByteVector stream = vm.save();

    Analyzer analyzer(stream);
    analyzer.walk();
    EXPECT_EQ(analyzer.seen,
              (std::set<std::string>{"timer", "ram", "0000:00:01.0/timer", "globalstate"}));
    ASSERT_EQ(analyzer.pages.size(), 3U);
    const ConstBytes middle = block.host().subspan(system::kPageSize, system::kPageSize);
    EXPECT_TRUE(std::ranges::equal(analyzer.pages.at("m0 0x1000"), middle));
}

}  // namespace
}  // namespace ferry::migration
