// SPDX-License-Identifier: BSD-2-Clause
#include "tests/unit/tools/stream-bytes.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>

#include "tools/ferry-stream/reader.h"
#include "util/syscall.h"

namespace ferry::stream_tool {

StreamBytes& StreamBytes::add(const util::WireWriter& part) {
    bytes_.insert(bytes_.end(), part.view().begin(), part.view().end());
    return *this;
}
StreamBytes& StreamBytes::u8(uint8_t value) {
    return add(util::WireWriter().u8(value));
}
StreamBytes& StreamBytes::be16(uint16_t value) {
    return add(util::WireWriter().be16(value));
}
StreamBytes& StreamBytes::be32(uint32_t value) {
    return add(util::WireWriter().be32(value));
}
StreamBytes& StreamBytes::be64(uint64_t value) {
    return add(util::WireWriter().be64(value));
}
StreamBytes& StreamBytes::text(std::string_view raw) {
    return add(util::WireWriter().bytes(bytes_of(raw)));
}
StreamBytes& StreamBytes::str8(std::string_view name) {
    return add(util::WireWriter().str8(name));
}
StreamBytes& StreamBytes::zeros(size_t count) {
    return add(util::WireWriter().zeros(count));
}
StreamBytes& StreamBytes::page(uint8_t fill) {
    return text(std::string(0x1000, static_cast<char>(fill)));
}

StreamBytes& StreamBytes::header() {
    return be32(0x5145564d).be32(3);
}
StreamBytes& StreamBytes::configuration(std::string_view machine) {
    return u8(7).be32(static_cast<uint32_t>(machine.size())).text(machine);
}
StreamBytes& StreamBytes::start(uint32_t id, std::string_view name, uint32_t version,
                                uint32_t instance) {
    return u8(1).be32(id).str8(name).be32(instance).be32(version);
}
StreamBytes& StreamBytes::full(uint32_t id, std::string_view name, uint32_t version,
                               uint32_t instance) {
    return u8(4).be32(id).str8(name).be32(instance).be32(version);
}
StreamBytes& StreamBytes::part(uint32_t id) {
    return u8(2).be32(id);
}
StreamBytes& StreamBytes::end(uint32_t id) {
    return u8(3).be32(id);
}
StreamBytes& StreamBytes::footer(uint32_t id) {
    return u8(0x7e).be32(id);
}
StreamBytes& StreamBytes::command(uint16_t value, uint16_t length) {
    return u8(8).be16(value).be16(length);
}
StreamBytes& StreamBytes::description(std::string_view json) {
    return u8(6).be32(static_cast<uint32_t>(json.size())).text(json);
}

StreamBytes& StreamBytes::ram_start(uint64_t bytes) {
    return start(1, "ram", 4).be64(bytes | 4).str8("ram").be64(bytes).eos().footer(1);
}
StreamBytes& StreamBytes::ram_end() {
    return end(1).eos().footer(1);
}
StreamBytes& StreamBytes::globalstate(uint32_t id) {
    return full(id, "globalstate", 1).be32(7).text("paused").zeros(26).u8(1).zeros(67).footer(id);
}

Bytes small_qemu_stream() {
    StreamBytes out;
    out.header().configuration("none").ram_start();
    out.part(1).be64(0x1008).str8("ram").page(0x5a);
    out.be64(0x2022).u8(0).be64(0x200).eos().footer(1);
    out.part(1).be64(0x1060).u8(1).be16(4).u8(0xec).u8(0x08).u8(0x01).u8(0xcb).eos().footer(1);
    out.switchover().ram_end();
    out.full(7, "0000:00:01.0/thing", 2).be32(5).be16(0xfffe).text("raw");
    out.u8(5).str8("thing/more").be32(1).u8(9).footer(7);
    out.globalstate().eof();
    return out
        .description(R"({"configuration": {}, "page_size": 4096, "devices": [)"
                     R"({"name": "0000:00:01.0/thing", "instance_id": 0, "fields": [)"
                     R"({"name": "a", "type": "uint32", "size": 4}, )"
                     R"({"name": "b", "type": "int16", "size": 2}, )"
                     R"({"name": "c", "array_len": 3, "type": "opaque", "size": 1}], )"
                     R"("subsections": [{"vmsd_name": "thing/more", "version": 1, "fields": [)"
                     R"({"name": "d", "type": "struct", "size": 1, "struct": {"fields": [)"
                     R"({"name": "e", "type": "uint8", "size": 1}]}}]}]}, )"
                     R"({"name": "globalstate", "instance_id": 0, "size": 104, "fields": [)"
                     R"({"name": "data", "type": "buffer", "size": 104}]}]})")
        .bytes();
}

Bytes small_ferry_stream() {
    constexpr std::string_view kName = "0000:00:03.0/vfio";
    constexpr uint64_t kRecords = 0xffffffffef100000;
    StreamBytes out;
    out.header().configuration("q35");
    out.command(1, 0).command(2, 4).be32(1).command(2, 4).be32(0x4645001f);
    out.start(2, kName, 1).be64(kRecords | 0xf2).be32(20);
    out.be64(kRecords | 3).be64(kRecords | 1).footer(2);
    out.part(2).be64(kRecords | 4).be64(5).text("stale").be64(kRecords | 1).footer(2);
    out.part(2).be64(kRecords | 0xf1).be64(kRecords | 4).be64(4).text("good");
    out.be64(kRecords | 5).footer(2);
    out.switchover();
    out.end(2).be64(kRecords | 4).be64(4).text(" one").be64(kRecords | 1).footer(2);
    out.full(2, kName, 1).be64(kRecords | 2).be32(2);
    out.text("\x34\x12\x78\x56").zeros(12).be64(kRecords | 1).footer(2);
    out.eof().description(R"({"configuration": {}, "page_size": 4096, "devices": [)"
                          R"({"name": "0000:00:03.0/vfio", "instance_id": 0, "size": 36, )"
                          R"("fields": [{"name": "data", "size": 36, "type": "buffer"}]}]})");
    return out.command(0x4601, 0).bytes();
}

// --- Reading

namespace {

UniqueFd memory_file(ConstBytes bytes) {
    UniqueFd fd(::memfd_create("stream", MFD_CLOEXEC));
    EXPECT_TRUE(util::pwrite_all(fd.borrow(), bytes, 0, "pwrite(memfd)"));
    return fd;
}

class Keeper final : public IdleObserver {
 public:
    Result<> element(const Node& node) override {
        nodes.push_back(node);
        return {};
    }
    std::vector<Node> nodes;
};

}  // namespace

Input input_of(ConstBytes bytes) {
    return std::move(*Input::from_fd(memory_file(bytes), "stream", 0, kMaxSpoolBytes));
}

std::string path_of(BorrowedFd fd) {
    return fmt::format("/proc/self/fd/{}", fd.raw());
}

Told read(ConstBytes bytes, Detail detail) {
    const Input input = input_of(bytes);
    Told told;
    Keeper keeper;
    StreamReader reader(input, told.findings, keeper, detail);
    told.result = reader.run();
    told.elements = std::move(keeper.nodes);
    told.blocks = reader.ram().blocks();
    told.devices = reader.vfio().devices();
    return told;
}

std::vector<std::string> Told::list(Severity severity) const {
    std::vector<std::string> out;
    for (const Problem& problem : findings.all()) {
        if (problem.severity == severity) {
            out.push_back(fmt::format("{}: {}", problem.rule, problem.reason));
        }
    }
    return out;
}

std::string attribute(const Node& node, std::string_view name) {
    const auto found = std::ranges::find(node.attributes, name, &Node::Attribute::name);
    if (found == node.attributes.end()) return "-";
    if (const auto* text = std::get_if<std::string>(&found->value)) return *text;
    if (const auto* flag = std::get_if<bool>(&found->value)) return *flag ? "yes" : "no";
    if (const auto* number = std::get_if<uint64_t>(&found->value))
        return fmt::format("{}", *number);
    return fmt::format("{}", std::get<int64_t>(found->value));
}

const Node& find(const std::vector<Node>& nodes, std::string_view type) {
    static const Node kNone{"none"};
    const auto found = std::ranges::find(nodes, type, &Node::type);
    if (found != nodes.end()) return *found;
    ADD_FAILURE() << "no " << type;
    return kNone;
}

}  // namespace ferry::stream_tool
