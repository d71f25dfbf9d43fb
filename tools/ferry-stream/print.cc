// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/print.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>
#include <utility>

namespace ferry::stream_tool {

namespace {

// Keeps the order in which things are said.
using Json = nlohmann::ordered_json;

std::vector<Problem> by_offset(const Findings& findings) {
    std::vector<Problem> sorted = findings.all();
    std::ranges::stable_sort(sorted, {}, &Problem::offset);
    return sorted;
}

std::string value_text(const Node::Value& value) {
    struct {
        std::string operator()(uint64_t number) const { return fmt::format("{}", number); }
        std::string operator()(int64_t number) const { return fmt::format("{}", number); }
        std::string operator()(bool flag) const { return flag ? "yes" : "no"; }
        std::string operator()(const std::string& text) const { return "'" + text + "'"; }
    } const as_text;
    return std::visit(as_text, value);
}

// Straight to the output: elements may have very many parts.
void write_json(std::ostream& out, const Node& node) {
    out << "{\"type\":" << Json(node.type) << ",\"offset\":" << node.offset
        << ",\"size\":" << node.size;
    for (const auto& [name, value] : node.attributes) {
        out << ',' << Json(name) << ':';
        std::visit([&out](const auto& plain) { out << Json(plain); }, value);
    }
    if (!node.children.empty()) {
        out << ",\"children\":";
        char before = '[';
        for (const Node& child : node.children) {
            out << std::exchange(before, ',');
            write_json(out, child);
        }
        out << ']';
    }
    out << '}';
}

Json to_json(const Problem& problem) {
    return {{"severity", problem.severity == Severity::Problem ? "problem" : "note"},
            {"offset", problem.offset},
            {"rule", problem.rule},
            {"reason", problem.reason}};
}

Json blocks_json(const RamBodies& ram) {
    Json out = Json::array();
    for (const RamBodies::Block& block : ram.blocks()) {
        Json entry = {{"name", printable(block.name)}};
        if (block.length != UINT64_MAX) entry["length"] = block.length;
        entry["normal_pages"] = block.total.normal;
        entry["zero_pages"] = block.total.zero;
        entry["xbzrle_pages"] = block.total.xbzrle;
        entry["bytes"] = block.total.bytes;
        out.push_back(std::move(entry));
    }
    return out;
}

Json devices_json(const VfioBodies& vfio) {
    Json out = Json::array();
    for (const auto& [key, device] : vfio.devices()) {
        out.push_back({{"idstr", printable(key.first)},
                       {"instance", key.second},
                       {"image_bytes", device.image_bytes},
                       {"discards", device.discards}});
    }
    return out;
}

std::string_view severity_text(Severity severity) {
    return severity == Severity::Problem ? "" : "note: ";
}

}  // namespace

void print_findings(std::ostream& out, std::string_view before, const Findings& findings) {
    for (const Problem& problem : by_offset(findings)) {
        out << fmt::format("{}byte {:#x}: {}{}: {}\n", before, problem.offset,
                           severity_text(problem.severity), problem.rule, problem.reason);
    }
    if (findings.too_many()) {
        out << fmt::format("{}reading stopped after {} problems\n", before, kMaxProblems);
    }
    if (findings.notes_left_out() != 0) {
        out << fmt::format("{}{} more notes\n", before, findings.notes_left_out());
    }
}

// --- Text

void TextPrinter::begin(const Input& input) {
    out_ << fmt::format("{}, {} bytes\n    offset         size\n", input.name(), input.size());
}

Result<> TextPrinter::element(const Node& node) {
    print(node, 0);
    return {};
}

void TextPrinter::print(const Node& node, size_t depth) {
    // Sums have no place of their own.
    if (node.size != 0 || node.offset != 0) {
        out_ << fmt::format("{:#010x} {:>12}  ", node.offset, node.size);
    } else {
        out_ << fmt::format("{:>10} {:>12}  ", "", "");
    }
    out_ << fmt::format("{:{}}{}", "", 2 * depth, node.type);
    for (const auto& [name, value] : node.attributes) {
        if (const auto* const flag = std::get_if<bool>(&value); flag != nullptr && *flag) {
            out_ << fmt::format(" ({})", name);
        } else {
            out_ << fmt::format(" {}={}", name, value_text(value));
        }
    }
    out_ << '\n';
    for (const Node& child : node.children) print(child, depth + 1);
}

void TextPrinter::end(const StreamReader& reader, const Findings& findings) {
    for (const RamBodies::Block& block : reader.ram().blocks()) {
        out_ << fmt::format("block '{}': {} normal, {} zero", printable(block.name),
                            block.total.normal, block.total.zero);
        if (block.total.xbzrle != 0) out_ << fmt::format(", {} xbzrle", block.total.xbzrle);
        out_ << fmt::format(" pages in {} bytes\n", block.total.bytes);
    }
    for (const auto& [key, device] : reader.vfio().devices()) {
        out_ << fmt::format("device '{}': {} bytes of image", printable(key.first),
                            device.image_bytes);
        if (device.discards != 0) out_ << fmt::format(", {} times begun anew", device.discards);
        out_ << '\n';
    }
    print_findings(out_, "", findings);
}

// --- JSON

void JsonPrinter::begin(const Input& input) {
    out_ << "{\"stream\": " << Json(printable(input.name())).dump()
         << ",\n\"size\": " << input.size() << ",\n";
    if (elements_ == Elements::Shown) out_ << "\"elements\": [";
}

Result<> JsonPrinter::element(const Node& node) {
    if (elements_ == Elements::Hidden) return {};
    out_ << (std::exchange(first_, false) ? "\n" : ",\n");
    write_json(out_, node);
    return {};
}

void JsonPrinter::end(const StreamReader& reader, const Findings& findings) {
    if (elements_ == Elements::Shown) out_ << "],\n";
    Json problems = Json::array();
    for (const Problem& problem : by_offset(findings)) problems.push_back(to_json(problem));
    out_ << "\"blocks\": " << blocks_json(reader.ram()).dump()
         << ",\n\"devices\": " << devices_json(reader.vfio()).dump()
         << ",\n\"problems\": " << problems.dump()
         << ",\n\"ok\": " << (findings.problems() == 0 ? "true" : "false") << "}\n";
}

// --- Check

void CheckPrinter::end(const StreamReader& reader, const Findings& findings) {
    print_findings(out_, name_ + ": ", findings);
    if (findings.problems() == 0) {
        out_ << fmt::format("{}: ok, {} sections\n", name_, reader.sections());
    }
}

}  // namespace ferry::stream_tool
