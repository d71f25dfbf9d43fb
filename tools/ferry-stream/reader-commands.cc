// SPDX-License-Identifier: BSD-2-Clause
// Commands between the sections.
#include "tools/ferry-stream/reader.h"
#include "util/try.h"

namespace ferry::stream_tool {

namespace {
// The source's sign of life while the destination waits; its meaning is in the upper half.
constexpr uint32_t kKeepAliveMark = 0x4647;
}  // namespace

Result<> StreamReader::read_command(uint64_t at) {
    where_ = "a command";
    Node node{"command", at};
    MIG_TRY(const uint16_t value, context_.in.be16());
    MIG_TRY(const uint16_t length, context_.in.be16());
    node.number("value", value);
    const CommandInfo* const info = find_command(value);
    if (info == nullptr) {
        context_.findings.problem(at, "command", "command {:#x} of {} bytes is unknown", value,
                                  length);
        MIG_CHECK(context_.in.skip(length));
        return emit(node, at);
    }
    node.text("name", info->name);
    where_ = fmt::format("command {}", info->name);
    if (!info->fits(length)) {
        context_.findings.problem(at, "command", "{} with {} bytes", info->name, length);
        MIG_CHECK(context_.in.skip(length));
        return emit(node, at);
    }
    check_command_place(*info, at);
    MIG_CHECK(read_known_command(*info, length, at, node));
    return emit(node, at);
}

Result<> StreamReader::read_known_command(const CommandInfo& info, uint16_t length, uint64_t at,
                                          Node& node) {
    switch (info.value) {
        case command::kOpenReturnPath:
            if (return_path_at_) {
                context_.findings.problem(at, "command", "{} comes twice, first at {:#x}",
                                          info.name, *return_path_at_);
            }
            return_path_at_ = at;
            return {};
        case command::kPing: return read_ping(at, node);
        case command::kSwitchoverStart: begin_switchover(at); return {};
        case command::kPackaged: return read_package(at, node);
        case command::kPostcopyAdvise:
            if (context_.postcopy == Context::Postcopy::No && length != 0) {
                context_.postcopy = Context::Postcopy::Advised;
            }
            break;
        default: break;
    }
    if (length != 0) node.number("length", length);
    return context_.in.skip(length);
}

Result<> StreamReader::read_ping(uint64_t at, Node& node) {
    MIG_TRY(const uint32_t value, context_.in.be32());
    node.number("ping", value);
    if (!return_path_at_) {
        context_.findings.problem(at, "command", "PING without a return path to answer on");
    }
    if (value >> 16 == kHelloMark) {
        node.text("hello", fmt::format("features {:#06x}", value & 0xffff));
        if (pings_ == 1) {
            context_.hello = Context::Hello::Said;
            context_.hello_features = static_cast<uint16_t>(value);
        } else {
            context_.findings.problem(at, "hello", "the hello is not the second PING");
        }
    }
    if (value >> 16 == kKeepAliveMark) node.flag("keep_alive");
    ++pings_;
    return {};
}

void StreamReader::begin_switchover(uint64_t at) {
    if (switchover_at_) {
        context_.findings.problem(at, "command", "SWITCHOVER_START comes twice, first at {:#x}",
                                  *switchover_at_);
    }
    if (first_end_at_) {
        context_.findings.problem(at, "order", "SWITCHOVER_START after a section END");
    }
    switchover_at_ = at;
}

// A stream of elements of its own follows, which is read like all others.
Result<> StreamReader::read_package(uint64_t at, Node& node) {
    MIG_TRY(const uint32_t length, context_.in.be32());
    node.number("length", length);
    if (package_end_) {
        context_.findings.problem(at, "package", "a package within a package");
        return {};
    }
    if (length > context_.in.remaining()) {
        context_.findings.problem(at, "package", "{} bytes are announced, {} follow", length,
                                  context_.in.remaining());
    }
    context_.postcopy = Context::Postcopy::Begun;
    package_end_ = context_.in.position() + length;
    return {};
}

void StreamReader::check_package_end() {
    const uint64_t at = context_.in.position();
    if (!package_end_ || at < *package_end_) return;
    if (at > *package_end_) {
        context_.findings.problem(*package_end_, "package", "the package ends within an element");
    }
    package_end_.reset();
}

void StreamReader::check_command_place(const CommandInfo& info, uint64_t at) {
    switch (info.place) {
        case CommandPlace::Anywhere:
        case CommandPlace::Switchover: return;
        case CommandPlace::BeforeSections:
            if (first_section_at_) {
                context_.findings.problem(at, "command", "{} after the first section", info.name);
            }
            return;
        case CommandPlace::Package:
            if (!package_end_) {
                context_.findings.problem(at, "command", "{} outside of a package", info.name);
            }
            return;
        case CommandPlace::Recovery:
            context_.findings.note(at, "command", "{}: post-copy was interrupted here", info.name);
            return;
        case CommandPlace::AfterEnd:
            context_.findings.problem(at, "command", "{} before the end", info.name);
            return;
    }
}

}  // namespace ferry::stream_tool
