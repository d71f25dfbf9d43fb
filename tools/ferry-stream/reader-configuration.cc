// SPDX-License-Identifier: BSD-2-Clause
// The configuration section behind the header.
#include <array>

#include "migration/stream.h"
#include "tools/ferry-stream/reader.h"
#include "util/try.h"

namespace ferry::stream_tool {

namespace {

constexpr std::string_view kPageBits = "configuration/target-page-bits";
constexpr std::string_view kCapabilities = "configuration/capabilities";
constexpr std::string_view kUuid = "configuration/uuid";
constexpr uint32_t kPartVersion = 1;
constexpr size_t kUuidBytes = 16;

Result<bool> next_is(Context& context, migration::Element element) {
    MIG_TRY(const ConstBytes next, context.in.peek(1));
    return !next.empty() && next[0] == std::byte{static_cast<uint8_t>(element)};
}

}  // namespace

Result<> StreamReader::read_configuration() {
    const uint64_t at = context_.in.position();
    where_ = "the configuration";
    where_at_ = at;
    MIG_TRY(const bool present, next_is(context_, migration::Element::Configuration));
    if (!present) {
        context_.findings.problem(at, "configuration", "the configuration section is missing");
        return {};
    }
    MIG_CHECK(context_.in.skip(1));
    MIG_TRY(const uint32_t length, context_.in.be32());
    if (length > kMaxMachineName) {
        return context_.findings.broken(at, "configuration",
                                        "a machine type name of {} bytes, at most {}", length,
                                        kMaxMachineName);
    }
    std::string machine(length, '\0');
    MIG_CHECK(context_.in.bytes(std::as_writable_bytes(std::span(machine))));
    Node node{"configuration", at};
    node.text("machine", machine);
    for (size_t parts = 0;; ++parts) {
        MIG_TRY(const bool more, next_is(context_, migration::Element::Subsection));
        if (!more) break;
        if (parts == kMaxConfigurationParts) {
            return context_.findings.broken(context_.in.position(), "configuration",
                                            "more than {} subsections", kMaxConfigurationParts);
        }
        MIG_CHECK(read_configuration_part(node));
    }
    return emit(node, at);
}

Result<> StreamReader::read_configuration_part(Node& parent) {
    const uint64_t at = context_.in.position();
    MIG_CHECK(context_.in.skip(1));
    MIG_TRY(const std::string name, context_.in.str8());
    MIG_TRY(const uint32_t version, context_.in.be32());
    Node node{"subsection", at};
    node.text("name", name).number("version", version);
    if (version > kPartVersion) {
        context_.findings.problem(at, "configuration", "'{}' has version {}, only {} is known",
                                  printable(name), version, kPartVersion);
    }
    MIG_CHECK(read_configuration_body(name, at, node));
    node.size = context_.in.position() - at;
    context_.add(parent, std::move(node));
    return {};
}

Result<> StreamReader::read_configuration_body(const std::string& name, uint64_t at, Node& node) {
    if (name == kPageBits) return read_page_bits(at, node);
    if (name == kCapabilities) return read_capabilities(at, node);
    if (name == kUuid) {
        std::array<std::byte, kUuidBytes> uuid{};
        MIG_CHECK(context_.in.bytes(uuid));
        std::string text;
        for (const std::byte byte : uuid)
            text += fmt::format("{:02x}", static_cast<unsigned>(byte));
        node.text("uuid", text);
        return {};
    }
    return context_.findings.broken(at, "configuration", "unknown subsection '{}'",
                                    printable(name));
}

Result<> StreamReader::read_page_bits(uint64_t at, Node& node) {
    MIG_TRY(const uint32_t bits, context_.in.be32());
    node.number("page_bits", bits);
    if (bits < kMinPageBits || bits > kMaxPageBits) {
        return context_.findings.broken(at, "configuration", "pages of 2^{} bytes", bits);
    }
    context_.page_size = uint64_t{1} << bits;
    return {};
}

Result<> StreamReader::read_capabilities(uint64_t at, Node& node) {
    MIG_TRY(const uint32_t count, context_.in.be32());
    if (count > kMaxCapabilities) {
        return context_.findings.broken(at, "configuration", "{} capabilities, at most {}", count,
                                        kMaxCapabilities);
    }
    for (uint32_t i = 0; i < count; ++i) {
        const uint64_t begin = context_.in.position();
        MIG_TRY(const std::string name, context_.in.str8());
        Node capability{"capability", begin, context_.in.position() - begin};
        capability.text("name", name);
        context_.add(node, std::move(capability));
        apply_capability(name);
    }
    return {};
}

void StreamReader::apply_capability(const std::string& name) {
    if (name == "mapped-ram") context_.ram_layout = Context::Layout::MappedRam;
    if (name == "x-ignore-shared" && context_.ram_layout == Context::Layout::Plain) {
        context_.ram_layout = Context::Layout::IgnoreShared;
    }
}

}  // namespace ferry::stream_tool
