// SPDX-License-Identifier: BSD-2-Clause
// The frame: header, the loop over elements, and the end. The parts of it: reader-*.cc.
#include "tools/ferry-stream/reader.h"

#include <algorithm>
#include <array>
#include <bit>

#include "migration/stream.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::stream_tool {

using migration::Element;

Result<> StreamReader::run() {
    MIG_TRY(description_, find_description(input_));
    if (description_ && description_->page_size()) {
        const uint64_t size = *description_->page_size();
        if (std::has_single_bit(size) && size >> kMinPageBits != 0 && size >> kMaxPageBits <= 1) {
            context_.page_size = size;
        }
    }
    auto read = read_all();
    if (context_.findings.too_many()) return {};
    if (!read) return end_of_reading(std::move(read).error());
    return {};
}

Result<> StreamReader::end_of_reading(Error error) {
    switch (error.kind()) {
        case ErrorKind::PeerClosed:
            context_.findings.problem(input_.size(), "truncated",
                                      "the stream ends within {}, which begins at byte {:#x}",
                                      where_, where_at_);
            return {};
        case ErrorKind::Protocol:     // told where it was found
        case ErrorKind::Unsupported:  // likewise
            return {};
        case ErrorKind::Syscall:
        case ErrorKind::InvalidArgument:
        case ErrorKind::InvalidState:
        case ErrorKind::PeerFailed:
        case ErrorKind::LimitExceeded:
        case ErrorKind::Cancelled:
        case ErrorKind::Internal: break;
    }
    return error;
}

Result<> StreamReader::read_all() {
    MIG_TRY(const bool is_stream, read_header());
    if (!is_stream) return {};
    MIG_CHECK(read_configuration());
    for (;;) {
        MIG_TRY(const Next next, read_element());
        if (next == Next::Stop || context_.findings.too_many()) return {};
        if (next == Next::End) break;
        check_package_end();
    }
    return read_tail();
}

Result<> StreamReader::emit(Node& node, uint64_t at) {
    node.size = context_.in.position() - at;
    if (context_.omitted() != 0) node.number("omitted", context_.omitted());
    return context_.observer.element(node);
}

Result<bool> StreamReader::read_header() {
    MIG_TRY(const uint32_t magic, context_.in.be32());
    if (magic != migration::kStreamMagic) {
        if (magic == kMultifdMagic) {
            context_.findings.problem(0, "magic",
                                      "this is an extra channel of multifd, not a main channel");
        } else {
            context_.findings.problem(0, "magic",
                                      "it begins with {:#010x}, a migration stream with {:#010x}",
                                      magic, migration::kStreamMagic);
        }
        return false;
    }
    MIG_TRY(const uint32_t version, context_.in.be32());
    if (version != migration::kStreamVersion) {
        context_.findings.problem(sizeof(magic), "version", "version {} is {}, only {} is known",
                                  version,
                                  version == kObsoleteStreamVersion ? "obsolete" : "not supported",
                                  migration::kStreamVersion);
        return false;
    }
    Node header{"header", 0};
    header.number("version", version);
    MIG_CHECK(emit(header, 0));
    return true;
}

Result<StreamReader::Next> StreamReader::read_element() {
    context_.begin_element();
    const uint64_t at = context_.in.position();
    where_ = "the row of elements: EOF is missing";
    where_at_ = at;
    MIG_TRY(const uint8_t type, context_.in.u8());
    switch (static_cast<Element>(type)) {
        case Element::Eof: return read_eof(at);
        case Element::SectionStart: return read_section(SectionKind::Start, at);
        case Element::SectionPart: return read_section(SectionKind::Part, at);
        case Element::SectionEnd: return read_section(SectionKind::End, at);
        case Element::SectionFull: return read_section(SectionKind::Full, at);
        case Element::Command: MIG_CHECK(read_command(at)); return Next::Element;
        case Element::Subsection:
        case Element::VmDescription:
        case Element::Configuration:
        case Element::SectionFooter: break;
    }
    context_.findings.problem(at, "element", "no element can begin with {:#04x} here", type);
    return Next::Stop;
}

Result<StreamReader::Next> StreamReader::read_eof(uint64_t at) {
    Node eof{"eof", at};
    MIG_CHECK(emit(eof, at));
    if (package_end_) {
        context_.findings.problem(at, "package", "the stream ends within a package");
    }
    check_ends(at);
    return Next::End;
}

// --- Behind EOF

Result<> StreamReader::read_tail() {
    context_.begin_element();
    MIG_TRY(const ConstBytes next, context_.in.peek(1));
    const bool described =
        !next.empty() && next[0] == std::byte{static_cast<uint8_t>(Element::VmDescription)};
    if (described) {
        if (context_.postcopy == Context::Postcopy::Begun) {
            context_.findings.problem(context_.in.position(), "description",
                                      "a description after post-copy");
        }
        MIG_CHECK(read_description_element());
    } else if (context_.postcopy != Context::Postcopy::Begun) {
        context_.findings.note(context_.in.position(), "description",
                               "there is no description of the devices");
    }
    MIG_CHECK(read_last_command());
    if (context_.in.remaining() != 0) {
        context_.findings.problem(context_.in.position(), "trailing",
                                  "{} bytes behind the end of the stream", context_.in.remaining());
    }
    return {};
}

Result<> StreamReader::read_description_element() {
    const uint64_t at = context_.in.position();
    where_ = "the description";
    where_at_ = at;
    MIG_CHECK(context_.in.skip(1));
    MIG_TRY(const uint32_t length, context_.in.be32());
    const DescriptionPlace place{at, context_.in.position(), length};
    if (length > kMaxDescriptionBytes) {
        context_.findings.problem(at, "description", "{} bytes, a reader expects at most {}",
                                  length, kMaxDescriptionBytes);
        return context_.in.skip(length);
    }
    MIG_CHECK(context_.in.skip(length));
    check_description_length(at, length);
    MIG_TRY(const std::string text, read_description(input_, place));
    Node node{"description", at};
    node.number("length", length);
    if (!text.starts_with('{')) {
        context_.findings.problem(place.text, "description", "it does not begin with '{{'");
    }
    const auto description = Description::parse(text, place.text, context_.findings);
    if (description) {
        node.number("devices", description->devices().size());
        check_described(*description, place.text);
    } else {
        context_.findings.problem(place.text, "description", "{}", description.error().message());
    }
    return emit(node, at);
}

// Programs that look for the description from the end of a file search the last NUL and then the
// first '{'. (migration/vmdesc.h says how a writer avoids this.)
void StreamReader::check_description_length(uint64_t at, uint32_t length) {
    std::array<std::byte, sizeof(length)> field{};
    util::store_be32(field.data(), length);
    const auto last_nul = std::ranges::find(field.rbegin(), field.rend(), std::byte{0});
    if (std::find(field.rbegin(), last_nul, std::byte{'{'}) != last_nul) {
        context_.findings.note(at, "description",
                               "its length {:#x} holds the code of '{{': programs that search it "
                               "from the end of the file miss it",
                               length);
    }
}

// Every FULL section has its entry, and the entries stand in the order of the stream.
void StreamReader::check_described(const Description& description, uint64_t at) {
    if (description.page_size().value_or(context_.page_size) != context_.page_size) {
        context_.findings.problem(at, "description", "pages of {} bytes, the stream has {}",
                                  *description.page_size(), context_.page_size);
    }
    for (const auto& [key, id] : ids_) {
        const auto& full_at = sections_.at(id).full_at;
        if (full_at && !description.index_of(key.first, key.second)) {
            context_.findings.problem(*full_at, "description",
                                      "'{}' instance {} is missing in the description",
                                      printable(key.first), key.second);
        }
    }
    uint64_t last = 0;
    for (const DescribedDevice& device : description.devices()) {
        const auto id = device.instance <= UINT32_MAX
                            ? ids_.find({device.name, static_cast<uint32_t>(device.instance)})
                            : ids_.end();
        const auto full_at = id == ids_.end() ? std::nullopt : sections_.at(id->second).full_at;
        if (!full_at) {
            context_.findings.problem(at, "description",
                                      "it has '{}' instance {}, which has no section FULL",
                                      printable(device.name), device.instance);
            continue;
        }
        if (*full_at < last) {
            context_.findings.problem(*full_at, "full-order",
                                      "'{}' instance {} comes earlier than the description says",
                                      printable(device.name), device.instance);
        }
        last = *full_at;
    }
}

// GO or ABORT.
Result<> StreamReader::read_last_command() {
    constexpr auto kMark = std::byte{static_cast<uint8_t>(Element::Command)};
    const uint64_t at = context_.in.position();
    MIG_TRY(const ConstBytes next, context_.in.peek(1 + 2 * sizeof(uint16_t)));
    if (next.size() < 1 + 2 * sizeof(uint16_t) || next[0] != kMark) return {};
    const CommandInfo* const info = find_command(util::load_be16(&next[1]));
    if (info == nullptr || info->place != CommandPlace::AfterEnd) return {};
    if (!info->fits(util::load_be16(&next[1 + sizeof(uint16_t)]))) return {};
    Node node{"command", at};
    node.number("value", info->value).text("name", info->name);
    MIG_CHECK(context_.in.skip(next.size()));
    if (context_.hello == Context::Hello::None) {
        context_.findings.problem(at, "hello", "{} without the hello that allows it", info->name);
    }
    return emit(node, at);
}

}  // namespace ferry::stream_tool
