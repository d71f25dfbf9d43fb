// SPDX-License-Identifier: BSD-2-Clause
// Streams put together by hand, byte for byte as docs/interop/stream-format.rst says, and what the
// reader says of them.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tools/ferry-stream/context.h"
#include "tools/ferry-stream/findings.h"
#include "tools/ferry-stream/input.h"
#include "tools/ferry-stream/ram-body.h"
#include "tools/ferry-stream/vfio-body.h"
#include "util/wire.h"

namespace ferry::stream_tool {

using Bytes = std::vector<std::byte>;

// Each call adds one part.
class StreamBytes {
 public:
    StreamBytes& u8(uint8_t value);
    StreamBytes& be16(uint16_t value);
    StreamBytes& be32(uint32_t value);
    StreamBytes& be64(uint64_t value);
    StreamBytes& text(std::string_view raw);
    StreamBytes& str8(std::string_view name);
    StreamBytes& zeros(size_t count);
    StreamBytes& page(uint8_t fill);  // 4096 bytes

    StreamBytes& header();
    StreamBytes& configuration(std::string_view machine = "none");
    StreamBytes& start(uint32_t id, std::string_view name, uint32_t version, uint32_t instance = 0);
    StreamBytes& full(uint32_t id, std::string_view name, uint32_t version, uint32_t instance = 0);
    StreamBytes& part(uint32_t id);
    StreamBytes& end(uint32_t id);
    StreamBytes& footer(uint32_t id);
    StreamBytes& command(uint16_t value, uint16_t length);
    StreamBytes& switchover() { return command(11, 0); }
    StreamBytes& eof() { return u8(0); }
    StreamBytes& description(std::string_view json);

    // RAM, id 1: START with one block "ram" of so many bytes; END with nothing in it.
    StreamBytes& ram_start(uint64_t bytes = 0x4000);
    StreamBytes& ram_end();
    StreamBytes& eos() { return be64(0x10); }
    StreamBytes& globalstate(uint32_t id = 3);

    const Bytes& bytes() const { return bytes_; }

 private:
    StreamBytes& add(const util::WireWriter& part);
    Bytes bytes_;
};

// A whole stream with a page of every sort, a PART, commands, two devices and their description.
Bytes small_qemu_stream();
// One with a VFIO device, the hello and what it allows, and GO.
Bytes small_ferry_stream();

// As a file that has no name.
Input input_of(ConstBytes bytes);
std::string path_of(BorrowedFd fd);  // opens the same file

struct Told {
    Findings findings;
    std::vector<Node> elements;
    std::vector<RamBodies::Block> blocks;
    std::map<VfioBodies::Key, VfioBodies::Device> devices;
    Result<> result;
    // "rule: reason" of the problems and notes.
    std::vector<std::string> problems() const { return list(Severity::Problem); }
    std::vector<std::string> notes() const { return list(Severity::Note); }

 private:
    std::vector<std::string> list(Severity severity) const;
};
Told read(ConstBytes bytes, Detail detail = Detail::Summary);

// The value of an attribute as text; "-" without it.
std::string attribute(const Node& node, std::string_view name);
// The first element of this type, and the first below a node; fails the test without it.
const Node& find(const std::vector<Node>& nodes, std::string_view type);

}  // namespace ferry::stream_tool
