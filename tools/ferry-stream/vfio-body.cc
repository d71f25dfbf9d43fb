// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/vfio-body.h"

#include <algorithm>
#include <array>

#include "util/try.h"
#include "util/wire.h"

namespace ferry::stream_tool {

namespace {
constexpr uint64_t kTagBytes = sizeof(uint64_t);
// All records of a VFIO section begin with these bits.
constexpr unsigned kFamilyShift = 16;
constexpr uint64_t kFamily = vfio::kEndOfState >> kFamilyShift;
}  // namespace

bool is_vfio_section(std::string_view idstr) {
    return idstr == "vfio" || idstr.ends_with("/vfio");
}

Result<> VfioBodies::read(const BodyOf& section, std::optional<uint64_t> described,
                          const IsStarted& started, Node& node) {
    Body body{section,
              described,
              started,
              node,
              devices_[{section.idstr, section.instance}],
              context_.in.position()};
    for (;;) {
        MIG_TRY(const Next next, read_record(body));
        if (next == Next::Footer || context_.findings.too_many()) return {};
    }
}

void VfioBodies::expect_kind(const Body& body, uint64_t at, std::string_view record,
                             std::initializer_list<SectionKind> kinds) {
    if (std::ranges::find(kinds, body.section.kind) != kinds.end()) return;
    context_.findings.problem(at, "vfio-record", "{} does not belong into a section {}", record,
                              to_string(body.section.kind));
}

Result<VfioBodies::Next> VfioBodies::read_record(Body& body) {
    MIG_TRY(const bool early_footer, context_.at_footer(body.section.id));
    const uint64_t at = context_.in.position();
    if (early_footer) {
        context_.findings.problem(at, "vfio-end",
                                  "the footer comes without END_OF_STATE before it");
        return Next::Footer;
    }
    MIG_TRY(const uint64_t tag, context_.in.be64());
    switch (tag) {
        case vfio::kEndOfState:
            context_.add(body.node, {"end-of-state", at, kTagBytes});
            return Next::Footer;
        case vfio::kSetupState:
            expect_kind(body, at, "SETUP", {SectionKind::Start});
            context_.add(body.node, {"setup", at, kTagBytes});
            return Next::Record;
        case vfio::kDataState: MIG_CHECK(read_data(body, at)); return Next::Record;
        case vfio::kConfigState:
            MIG_CHECK(read_config(body, at));
            return end_follows(at, "the configuration");
        case vfio::kInitDataSent:
            expect_kind(body, at, "INIT_DATA_SENT", {SectionKind::Part});
            context_.add(body.node, {"initial-data-sent", at, kTagBytes});
            return Next::Footer;
        case vfio::kConfigLoadReady:
            expect_kind(body, at, "CONFIG_READY", {SectionKind::Full});
            context_.add(body.node, {"config-load-ready", at, kTagBytes});
            return Next::Footer;
        case vfio::kDiscard: MIG_CHECK(read_discard(body, at)); return Next::Record;
        case vfio::kConfigSize: MIG_CHECK(read_config_size(body, at)); return Next::Record;
        default: break;
    }
    return context_.findings.broken(at, "vfio-record", "{:#x} {}", tag,
                                    tag >> kFamilyShift == kFamily
                                        ? "is an unknown record of a VFIO device"
                                        : "is no record of a VFIO device");
}

Result<> VfioBodies::read_data(Body& body, uint64_t at) {
    expect_kind(body, at, "DATA", {SectionKind::Part, SectionKind::End});
    MIG_TRY(const uint64_t length, context_.in.be64());
    const uint64_t begin = context_.in.position();
    MIG_CHECK(context_.in.skip(length));
    Node data{"data", at, context_.in.position() - at};
    context_.add(body.node, std::move(data.number("length", length)));
    ++body.data_records;
    if (length == 0) return {};
    body.device.image_bytes += length;
    ++body.device.records;
    return context_.observer.image(body.section.idstr, body.section.instance, begin, length);
}

Result<> VfioBodies::read_discard(Body& body, uint64_t at) {
    expect_kind(body, at, "DISCARD", {SectionKind::Part, SectionKind::End});
    if (context_.hello == Context::Hello::None) {
        context_.findings.problem(at, "hello", "DISCARD without the hello that allows it");
    }
    if (body.data_records != 0) {
        context_.findings.problem(at, "vfio-record", "DISCARD behind DATA of the same body");
    }
    context_.add(body.node, {"discard", at, kTagBytes});
    body.device.image_bytes = body.device.records = 0;
    ++body.device.discards;
    return context_.observer.image_discarded(body.section.idstr, body.section.instance);
}

Result<> VfioBodies::read_config_size(Body& body, uint64_t at) {
    expect_kind(body, at, "CONFIG_SIZE", {SectionKind::Start});
    if (context_.hello == Context::Hello::None) {
        context_.findings.problem(at, "hello", "CONFIG_SIZE without the hello that allows it");
    }
    if (at != body.begin) {
        context_.findings.problem(at, "vfio-record", "CONFIG_SIZE is not the first record");
    }
    MIG_TRY(const uint32_t length, context_.in.be32());
    Node record{"config-size", at, context_.in.position() - at};
    context_.add(body.node, std::move(record.number("length", length)));
    if (length > kMaxConfigBytes) {
        context_.findings.problem(at, "limit", "a configuration of {} bytes, at most {}", length,
                                  kMaxConfigBytes);
        return {};
    }
    body.device.config_bytes = length;
    return {};
}

// --- The configuration

Result<> VfioBodies::read_config(Body& body, uint64_t at) {
    expect_kind(body, at, "CONFIG", {SectionKind::Full});
    Node config{"config", at};
    MIG_TRY(const uint64_t length, config_length(body, at, config));
    config.number("length", length);
    MIG_CHECK(describe_config(config, length));
    MIG_CHECK(context_.in.skip(length));
    config.size = context_.in.position() - at;
    context_.add(body.node, std::move(config));
    return {};
}

Result<uint64_t> VfioBodies::config_length(Body& body, uint64_t at, Node& config) {
    std::optional<uint64_t> described;
    // CONFIG, the configuration, END_OF_STATE: if the description fits at all.
    if (body.described && *body.described >= 2 * kTagBytes && at == body.begin) {
        described = *body.described - 2 * kTagBytes;
    }
    const auto announced = body.device.config_bytes;
    if (announced && described && *announced != *described) {
        context_.findings.problem(at, "vfio-record",
                                  "the configuration has {} bytes by CONFIG_SIZE and {} by the "
                                  "description",
                                  *announced, *described);
    }
    if (announced) return *announced;
    if (described && *described <= kMaxConfigBytes) return *described;
    config.flag("guessed");
    return guess_config_length(body, at);
}

Result<uint64_t> VfioBodies::guess_config_length(Body& body, uint64_t at) {
    const uint64_t begin = context_.in.position();
    std::array<std::byte, kTagBytes> end{};
    util::store_be64(end.data(), vfio::kEndOfState);
    MIG_TRY(const bool found,
            find_footer(context_.in, body.section.id, end, kMaxConfigBytes, body.started));
    const uint64_t length = context_.in.position() - begin;
    context_.in.seek(begin);
    if (found) return length;
    return context_.findings.broken(at, "vfio-record",
                                    "no END_OF_STATE within {} bytes of configuration", length);
}

// The part that every PCI device's configuration begins with.
Result<> VfioBodies::describe_config(Node& config, uint64_t length) {
    constexpr size_t kBegin = sizeof(uint32_t) + 2 * sizeof(uint16_t);
    if (length < kBegin) return {};
    MIG_TRY(const ConstBytes begin, context_.in.peek(kBegin));
    if (begin.size() < kBegin) return {};
    const std::byte* const ids = &begin[sizeof(uint32_t)];
    config.number("version", util::load_be32(begin.data()));
    config.text("vendor", fmt::format("{:04x}", util::load_le16(ids)));
    config.text("device", fmt::format("{:04x}", util::load_le16(ids + sizeof(uint16_t))));
    return {};
}

Result<VfioBodies::Next> VfioBodies::end_follows(uint64_t at, std::string_view after) {
    MIG_TRY(const ConstBytes next, context_.in.peek(kTagBytes));
    if (next.size() == kTagBytes && util::load_be64(next.data()) == vfio::kEndOfState) {
        return Next::Record;
    }
    return context_.findings.broken(at, "vfio-end", "no END_OF_STATE behind {}", after);
}

}  // namespace ferry::stream_tool
