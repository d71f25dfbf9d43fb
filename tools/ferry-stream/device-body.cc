// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/device-body.h"

#include <array>

#include "migration/stream.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::stream_tool {

namespace {

constexpr uint64_t kMaxNumberBytes = sizeof(uint64_t);
constexpr uint64_t kMaxNumbersShown = 16;  // of one array

uint64_t big_endian(ConstBytes bytes) {
    uint64_t value = 0;
    for (const std::byte byte : bytes) value = value << 8 | static_cast<uint64_t>(byte);
    return value;
}

int64_t sign_extended(uint64_t value, size_t bytes) {
    const auto shift = static_cast<unsigned>(64 - 8 * bytes);
    return static_cast<int64_t>(value << shift) >> shift;
}

enum class Look : uint8_t { Unsigned, Signed, Bytes };

// By the type names of docs/interop/stream-format.rst. "int64 equal" is unsigned for QEMU.
Look look_of(const DescribedField& field) {
    if (field.size == 0 || field.size > kMaxNumberBytes) return Look::Bytes;
    if (field.type.starts_with("uint") || field.type == "bool" || field.type == "timer") {
        return Look::Unsigned;
    }
    if (field.type == "int64 equal") return Look::Unsigned;
    return field.type.starts_with("int") ? Look::Signed : Look::Bytes;
}

std::string hex(ConstBytes bytes) {
    std::string out;
    for (const std::byte byte : bytes) out += fmt::format("{:02x}", static_cast<unsigned>(byte));
    return out;
}

// Text with its padding, as run states and names are stored: worth reading.
bool is_padded_text(ConstBytes bytes) {
    size_t length = 0;
    while (length < bytes.size() && bytes[length] >= std::byte{0x20} &&
           bytes[length] < std::byte{0x7f}) {
        ++length;
    }
    if (length < 2) return false;
    for (const std::byte rest : bytes.subspan(length)) {
        if (rest != std::byte{0}) return false;
    }
    return true;
}

void show_bytes(Node& node, ConstBytes bytes) {
    if (is_padded_text(bytes)) {
        const std::string_view text = text_of(bytes);
        node.text("text", text.substr(0, text.find('\0')));
    } else if (bytes.size() <= kMaxHexBytes) {
        node.text("hex", hex(bytes));
    }
}

std::string number_text(uint64_t value, Look look, size_t bytes) {
    if (look == Look::Signed) return fmt::format("{}", sign_extended(value, bytes));
    return fmt::format("{}", value);
}

void show_numbers(Node& node, const DescribedField& field, Look look, ConstBytes bytes) {
    if (field.count == 1) {
        const uint64_t value = big_endian(bytes);
        if (look == Look::Signed) {
            node.integer("value", sign_extended(value, bytes.size()));
        } else {
            node.number("value", value);
        }
        return;
    }
    std::string text;
    for (size_t i = 0; i < field.count; ++i) {
        if (i != 0) text += ' ';
        text +=
            number_text(big_endian(bytes.subspan(i * field.size, field.size)), look, field.size);
    }
    node.text("values", text);
}

// Adds the value where it is short, and consumes all of it.
Result<> read_value(Context& context, const DescribedField& field, Node& node) {
    const uint64_t bytes = field.size * field.count;
    const Look look = look_of(field);
    const bool numbers = look != Look::Bytes && field.count <= kMaxNumbersShown;
    if (bytes == 0 || field.type == "unused_buffer" || (!numbers && bytes > kMaxTextBytes)) {
        return context.in.skip(bytes);
    }
    std::array<std::byte, kMaxNumbersShown * kMaxNumberBytes> room;
    static_assert(kMaxTextBytes <= room.size());
    const MutBytes value = MutBytes(room).first(bytes);
    MIG_CHECK(context.in.bytes(value));
    if (numbers) {
        show_numbers(node, field, look, value);
    } else {
        show_bytes(node, value);
    }
    return {};
}

Result<> read_field(Context& context, const DescribedField& field, Node& parent) {
    Node node{"field", context.in.position(), field.size * field.count};
    node.text("name", field.name).text("type", field.type);
    if (field.count != 1) node.number("count", field.count);
    if (field.structure.empty() || field.size == 0 || field.count > kMaxElementsShown) {
        MIG_CHECK(read_value(context, field, node));
    } else {
        for (uint64_t i = 0; i < field.count; ++i) {
            if (field.count == 1) {
                MIG_CHECK(read_described_body(context, field.structure.front(), node));
                continue;
            }
            Node element{"element", context.in.position(), field.size};
            element.number("index", i);
            MIG_CHECK(read_described_body(context, field.structure.front(), element));
            context.add(node, std::move(element));
        }
    }
    context.add(parent, std::move(node));
    return {};
}

// Whether the next bytes are the head of this subsection.
Result<bool> at_subsection(Context& context, const DescribedBody& sub) {
    constexpr auto kMark = std::byte{static_cast<uint8_t>(migration::Element::Subsection)};
    MIG_TRY(const ConstBytes head, context.in.peek(2 + sub.name.size()));
    return head.size() == 2 + sub.name.size() && head[0] == kMark &&
           static_cast<size_t>(head[1]) == sub.name.size() &&
           std::ranges::equal(head.subspan(2), bytes_of(sub.name));
}

Result<> read_subsection(Context& context, const DescribedBody& sub, Node& parent) {
    const uint64_t at = context.in.position();
    MIG_TRY(const bool present, at_subsection(context, sub));
    if (!present) {
        if (sub.presence == DescribedBody::Presence::Optional) return {};
        return context.findings.broken(at, "description", "subsection '{}' is not where it should",
                                       printable(sub.name));
    }
    MIG_CHECK(context.in.skip(2 + sub.name.size()));
    MIG_TRY(const uint32_t version, context.in.be32());
    Node node{"subsection", at};
    node.text("name", sub.name).number("version", version);
    MIG_CHECK(read_described_body(context, sub, node));
    node.size = context.in.position() - at;
    context.add(parent, std::move(node));
    return {};
}

}  // namespace

Result<> read_described_body(Context& context, const DescribedBody& body, Node& node) {
    for (const DescribedField& field : body.fields) {
        MIG_CHECK(read_field(context, field, node));
    }
    for (const DescribedBody& sub : body.subsections) {
        MIG_CHECK(read_subsection(context, sub, node));
    }
    return {};
}

}  // namespace ferry::stream_tool
