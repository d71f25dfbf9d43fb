// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/description.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::stream_tool {

namespace {

using Json = nlohmann::json;

// Before the parser builds anything: how deep and how much it will be.
Result<> check_shape(std::string_view text) {
    size_t depth = 0;
    size_t values = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') ++i;
            if (c == '"') in_string = false;
            continue;
        }
        if (c == '"') in_string = true;
        if (c == '{' || c == '[') ++depth;
        if ((c == '}' || c == ']') && depth > 0) --depth;
        if (c == '{' || c == '[' || c == ',') ++values;
        if (depth > kMaxDescriptionDepth) {
            return make_error(ErrorKind::LimitExceeded, "more than {} brackets in brackets",
                              kMaxDescriptionDepth);
        }
        if (values > kMaxDescriptionValues) {
            return make_error(ErrorKind::LimitExceeded, "more than {} values",
                              kMaxDescriptionValues);
        }
    }
    return {};
}

std::optional<uint64_t> number_at(const Json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
    return found->get<uint64_t>();
}

std::optional<std::string> text_at(const Json& object, const char* key) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string()) return std::nullopt;
    return found->get<std::string>();
}

// Turns JSON into DescribedBody. A broken part is told once and left out: the bytes then don't
// fit, and the body is read without its description.
class BodyParser {
 public:
    BodyParser(std::string device, uint64_t at, Findings& findings)
        : device_(std::move(device)), at_(at), findings_(findings) {}

    std::optional<DescribedBody> body(const Json& json) {
        const auto fields = json.find("fields");
        if (fields == json.end() || !fields->is_array()) return fail("has no list of fields");
        DescribedBody out;
        out.version = number_at(json, "version").value_or(0);
        for (const Json& entry : *fields) {
            auto field = this->field(entry);
            if (!field) return std::nullopt;
            uint64_t bytes = 0;
            if (__builtin_mul_overflow(field->size, field->count, &bytes) ||
                __builtin_add_overflow(out.size, bytes, &out.size)) {
                return fail("has a size beyond 64 bits");
            }
            out.fields.push_back(std::move(*field));
        }
        if (!subsections(json, out)) return std::nullopt;
        return out;
    }

 private:
    std::nullopt_t fail(std::string_view what) {
        findings_.problem(at_, "description", "the description of '{}' {}", printable(device_),
                          what);
        return std::nullopt;
    }

    std::optional<DescribedField> field(const Json& json) {
        if (!json.is_object()) return fail("has a field that is no object");
        const auto name = text_at(json, "name");
        const auto size = number_at(json, "size");
        if (!name || !size) return fail("has a field without name or size");
        DescribedField out{*name, text_at(json, "type").value_or(""), *size};
        out.count = number_at(json, "array_len").value_or(1);
        const auto structure = json.find("struct");
        if (structure != json.end() && structure->is_object()) {
            auto nested = body(*structure);
            if (!nested) return std::nullopt;
            // Lists name their members once, but write them for each element.
            if (nested->size == out.size) out.structure.push_back(std::move(*nested));
        }
        return out;
    }

    bool subsections(const Json& json, DescribedBody& out) {
        const auto list = json.find("subsections");
        if (list == json.end()) return true;
        if (!list->is_array()) return fail("has subsections that are no list"), false;
        for (const Json& entry : *list) {
            const auto name = entry.is_object() ? text_at(entry, "vmsd_name") : std::nullopt;
            if (!name || name->empty() || name->size() > 0xff) {
                return fail("has a subsection without a usable name"), false;
            }
            auto nested = body(entry);
            if (!nested) return false;
            nested->name = *name;
            const uint64_t header = 1 + 1 + name->size() + sizeof(uint32_t);
            if (__builtin_add_overflow(out.size, header, &out.size) ||
                __builtin_add_overflow(out.size, nested->size, &out.size)) {
                return fail("has a size beyond 64 bits"), false;
            }
            out.subsections.push_back(std::move(*nested));
        }
        return true;
    }

    std::string device_;
    uint64_t at_;
    Findings& findings_;
};

std::optional<DescribedDevice> parse_device(const Json& json, uint64_t at, Findings& findings) {
    const auto name = json.is_object() ? text_at(json, "name") : std::nullopt;
    const auto instance = json.is_object() ? number_at(json, "instance_id") : std::nullopt;
    if (!name || name->empty() || !instance) {
        findings.problem(at, "description", "a device has no name or no instance_id");
        return std::nullopt;
    }
    auto body = BodyParser(*name, at, findings).body(json);
    if (!body) return std::nullopt;
    return DescribedDevice{*name, *instance, std::move(*body)};
}

}  // namespace

Result<Description> Description::parse(std::string_view text, uint64_t at, Findings& findings) {
    MIG_CHECK(check_shape(text));
    const Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) return make_error(ErrorKind::Protocol, "is not JSON");
    if (!json.is_object()) return make_error(ErrorKind::Protocol, "is not a JSON object");
    Description out;
    out.page_size_ = number_at(json, "page_size");
    if (!out.page_size_) findings.problem(at, "description", "it has no page_size");
    const auto devices = json.find("devices");
    if (devices == json.end() || !devices->is_array()) {
        findings.problem(at, "description", "it has no list of devices");
        return out;
    }
    for (const Json& entry : *devices) {
        auto device = parse_device(entry, at, findings);
        if (!device) continue;
        const auto [place, fresh] =
            out.index_.emplace(std::pair(device->name, device->instance), out.devices_.size());
        if (!fresh) {
            findings.problem(at, "description", "'{}' instance {} is described twice",
                             printable(device->name), device->instance);
            continue;
        }
        out.devices_.push_back(std::move(*device));
    }
    return out;
}

std::optional<size_t> Description::index_of(const std::string& name, uint64_t instance) const {
    const auto found = index_.find({name, instance});
    if (found == index_.end()) return std::nullopt;
    return found->second;
}

// --- Finding it

namespace {

constexpr uint64_t kHeaderBytes = 1 + sizeof(uint32_t);       // type and length
constexpr uint64_t kCommandBytes = 1 + 2 * sizeof(uint16_t);  // GO or ABORT may follow

// How well a place fits, best first.
enum class Fit : uint8_t { ToTheEnd, BeforeACommand, Within };

struct Candidate {
    Fit fit;
    DescriptionPlace place;
};

// Places "00 06 length {" in `tail`, whose first byte is at `base`; the last of each sort first.
std::vector<Candidate> find_candidates(ConstBytes tail, uint64_t base) {
    std::vector<Candidate> out;
    std::array<size_t, 3> found{};
    for (size_t i = tail.size(); i-- > 0;) {
        if (tail.size() - i < 1 + kHeaderBytes + 1) continue;
        if (tail[i] != std::byte{0} || tail[i + 1] != std::byte{0x06}) continue;
        if (tail[i + 1 + kHeaderBytes] != std::byte{'{'}) continue;
        const uint32_t length = util::load_be32(&tail[i + 2]);
        const uint64_t left = tail.size() - (i + 1 + kHeaderBytes);
        if (length > left || length > kMaxDescriptionBytes) continue;
        const Fit fit = length == left                   ? Fit::ToTheEnd
                        : length + kCommandBytes == left ? Fit::BeforeACommand
                                                         : Fit::Within;
        if (++found[static_cast<size_t>(fit)] > kMaxDescriptionTries) continue;
        out.push_back({fit, {base + i + 1, base + i + 1 + kHeaderBytes, length}});
    }
    std::ranges::stable_sort(out, {}, &Candidate::fit);
    if (out.size() > kMaxDescriptionTries) out.resize(kMaxDescriptionTries);
    return out;
}

}  // namespace

Result<std::string> read_description(const Input& input, const DescriptionPlace& place) {
    std::string text(place.length, '\0');
    MIG_TRY(const size_t got, input.read_at(place.text, std::as_writable_bytes(std::span(text))));
    text.resize(got);
    return text;
}

Result<std::optional<Description>> find_description(const Input& input) {
    constexpr uint64_t kTail = kMaxDescriptionBytes + 1 + kHeaderBytes + kCommandBytes;
    const uint64_t base = input.size() > kTail ? input.size() - kTail : 0;
    std::vector<std::byte> tail(input.size() - base);
    MIG_TRY(const size_t got, input.read_at(base, tail));
    for (const Candidate& candidate : find_candidates(ConstBytes(tail).first(got), base)) {
        MIG_TRY(const std::string text, read_description(input, candidate.place));
        Findings ignored;  // told when the element itself is read
        auto description = Description::parse(text, candidate.place.text, ignored);
        if (description && !description->devices().empty()) return std::optional(*description);
    }
    return std::nullopt;
}

// --- Bodies known anyway

namespace {

struct WellKnown {
    std::string_view name;
    uint32_t version;
    std::string_view json;
};
constexpr std::array kWellKnown = {
    WellKnown{"timer", 2, R"({"fields": [
        {"name": "cpu_ticks_offset", "type": "int64", "size": 8},
        {"name": "unused", "type": "unused_buffer", "size": 8},
        {"name": "cpu_clock_offset", "type": "int64", "size": 8}],
        "subsections": [{"vmsd_name": "timer/icount", "fields": [
            {"name": "qemu_icount_bias", "type": "int64", "size": 8},
            {"name": "qemu_icount", "type": "int64", "size": 8}]}]})"},
    WellKnown{"timer", 1, R"({"fields": [
        {"name": "cpu_ticks_offset", "type": "int64", "size": 8},
        {"name": "unused", "type": "unused_buffer", "size": 8}]})"},
    WellKnown{"globalstate", 1, R"({"fields": [
        {"name": "size", "type": "uint32", "size": 4},
        {"name": "runstate", "type": "buffer", "size": 32},
        {"name": "has_vm_was_suspended", "type": "bool", "size": 1},
        {"name": "vm_was_suspended", "type": "bool", "size": 1},
        {"name": "unused", "type": "unused_buffer", "size": 66}]})"},
    WellKnown{"cpu_common", 1, R"({"fields": [
        {"name": "halted", "type": "uint32", "size": 4},
        {"name": "interrupt_request", "type": "uint32", "size": 4}],
        "subsections": [
        {"vmsd_name": "cpu_common/exception_index", "fields": [
            {"name": "exception_index", "type": "int32", "size": 4}]},
        {"vmsd_name": "cpu_common/crash_occurred", "fields": [
            {"name": "crash_occurred", "type": "bool", "size": 1}]}]})"},
};

DescribedBody parse_well_known(const WellKnown& known) {
    Findings ignored;
    const Json json = Json::parse(known.json);
    DescribedBody body = *BodyParser(std::string(known.name), 0, ignored).body(json);
    for (DescribedBody& sub : body.subsections) sub.presence = DescribedBody::Presence::Optional;
    return body;
}

}  // namespace

const DescribedBody* well_known_body(std::string_view name, uint32_t version) {
    static const std::vector<DescribedBody> kBodies = [] {
        std::vector<DescribedBody> bodies;
        for (const WellKnown& known : kWellKnown) bodies.push_back(parse_well_known(known));
        return bodies;
    }();
    for (size_t i = 0; i < kWellKnown.size(); ++i) {
        if (kWellKnown[i].name == name && kWellKnown[i].version == version) return &kBodies[i];
    }
    return nullptr;
}

}  // namespace ferry::stream_tool
