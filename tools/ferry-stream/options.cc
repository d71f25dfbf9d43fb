// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/options.h"

#include <charconv>
#include <optional>

#include "util/arguments.h"
#include "util/try.h"

namespace ferry::stream_tool {

namespace {

Error usage(std::string text) {
    return {ErrorKind::InvalidArgument, std::move(text)};
}

Result<uint64_t> parse_offset(std::string_view text) {
    const bool hex = text.starts_with("0x");
    const std::string_view digits = hex ? text.substr(2) : text;
    uint64_t value = 0;
    const auto parsed =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
        return usage(fmt::format("--offset wants a number of bytes, not '{}'", text));
    }
    return value;
}

class Parser {
 public:
    explicit Parser(std::span<const std::string> arguments) : arguments_(arguments) {}

    Result<Options> parse() {
        while (const auto item = done_ ? std::nullopt : arguments_.next()) {
            if (item->kind == util::ArgumentReader::Item::Kind::Option) {
                MIG_CHECK(apply(item->text));
                MIG_CHECK(arguments_.end_option());
            } else if (options_.input.empty()) {
                options_.input = item->text;
            } else {
                return usage(fmt::format("'{}' is one word too many", item->text));
            }
        }
        if (!done_) MIG_CHECK(check());
        return options_;
    }

 private:
    Result<> apply(const std::string& name) {
        if (name == "-h" || name == "--help") {
            options_.action = Action::Help;
            done_ = true;
        } else if (name == "--version") {
            options_.action = Action::Version;
            done_ = true;
        } else if (name == "--json") {
            options_.format = Format::Json;
        } else if (name == "--pages") {
            options_.detail = Detail::Pages;
        } else if (name == "--check") {
            return act(name, Action::Check);
        } else if (name == "--extract" || name == "--extract-image") {
            MIG_CHECK(
                act(name, name == "--extract" ? Action::ExtractSection : Action::ExtractImage));
            MIG_TRY(const std::string text, arguments_.value());
            MIG_TRY(options_.wanted, parse_section_name(text), "{}", name);
        } else if (name == "-o" || name == "--output") {
            MIG_TRY(options_.output, arguments_.value());
        } else if (name == "--offset") {
            MIG_TRY(const std::string text, arguments_.value());
            MIG_TRY(options_.offset, parse_offset(text));
        } else {
            return usage(fmt::format("unknown option '{}'", name));
        }
        return {};
    }

    Result<> act(const std::string& name, Action action) {
        if (!action_.empty()) {
            return usage(fmt::format("{} and {} exclude each other", action_, name));
        }
        action_ = name;
        options_.action = action;
        return {};
    }

    Result<> check() const {
        const bool extracts =
            options_.action == Action::ExtractSection || options_.action == Action::ExtractImage;
        if (options_.input.empty()) return usage("which stream? name a file, or - for a pipe");
        if (extracts && options_.output.empty()) {
            return usage(fmt::format("{} wants -o FILE", action_));
        }
        if (!extracts && !options_.output.empty()) {
            return usage("-o is for --extract and --extract-image only");
        }
        if (extracts && options_.format == Format::Json) {
            return usage(fmt::format("{} and --json exclude each other", action_));
        }
        if (options_.action != Action::Print && options_.detail == Detail::Pages) {
            return usage(fmt::format("{} and --pages exclude each other", action_));
        }
        return {};
    }

    util::ArgumentReader arguments_;
    std::string action_;  // the option that chose it
    bool done_ = false;
    Options options_;
};

}  // namespace

Result<Options> parse_options(std::span<const std::string> arguments) {
    return Parser(arguments).parse();
}

std::string_view help_text() {
    return R"(Usage: ferry-stream [OPTION]... FILE|-
Prints a migration stream, QEMU's or Ferry's, and checks it. Without other options: one line
for each part with its offset and size, pages counted, then what is wrong with it.

  --json                       one JSON document
  --pages                      list every page
  --check                      print only what is wrong with it
  --extract SECTION -o FILE    write the bytes of a section's bodies, in stream order;
                               SECTION is a name or NAME#INSTANCE
  --extract-image DEVICE -o FILE
                               write the image of a VFIO device: the bytes of its DATA records
                               behind the last DISCARD; DEVICE is e.g. 0000:00:03.0
  --offset BYTES               the stream begins there in its file
  -h, --help; --version

'-' and everything that is no file is read as a pipe and kept in a temporary file (TMPDIR).

Exit status: 0 the stream keeps all rules, 1 it does not or has nothing to extract, 2 wrong command
line or failing files.
)";
}

}  // namespace ferry::stream_tool
