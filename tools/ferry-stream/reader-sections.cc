// SPDX-License-Identifier: BSD-2-Clause
// START, PART, END and FULL: what they are called, in which order they come, where they end.
#include "migration/stream.h"
#include "tools/ferry-stream/device-body.h"
#include "tools/ferry-stream/reader.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::stream_tool {

namespace {
constexpr uint64_t kFooterBytes = 1 + sizeof(uint32_t);
constexpr std::string_view kRamName = "ram";
}  // namespace

Result<StreamReader::Next> StreamReader::read_section(SectionKind kind, uint64_t at) {
    where_ = fmt::format("a section's header ({})", to_string(kind));
    Node node{to_string(kind), at};
    MIG_TRY(const uint32_t id, context_.in.be32());
    node.number("id", id);
    Section* section = nullptr;
    if (kind == SectionKind::Start || kind == SectionKind::Full) {
        MIG_TRY(section, read_first(kind, at, id, node));
    } else {
        section = find_started(kind, at, id, node);
    }
    if (!first_section_at_) first_section_at_ = at;
    ++section_count_;
    check_order(kind, at);

    const Section unnamed{};
    const Section& named = section != nullptr ? *section : unnamed;
    where_ = fmt::format("section '{}' (id {}), {}", printable(named.idstr), id, to_string(kind));
    const BodyOf body{id, named.idstr, named.instance, kind};
    auto read = read_body(body, named, node);
    if (!read) {
        node.flag("incomplete");
        MIG_CHECK(emit(node, at));
        return std::move(read).error();
    }
    MIG_CHECK(emit(node, at));
    return Next::Element;
}

// --- Names and ids

Result<StreamReader::Section*> StreamReader::read_first(SectionKind kind, uint64_t at, uint32_t id,
                                                        Node& node) {
    Section named;
    MIG_TRY(named.idstr, context_.in.str8());
    MIG_TRY(named.instance, context_.in.be32());
    MIG_TRY(named.version, context_.in.be32());
    node.text("idstr", named.idstr);
    node.number("instance", named.instance).number("version", named.version);
    if (named.idstr.empty()) {
        context_.findings.problem(at, "section-name", "section id {} has no name", id);
    }
    if (sections_.size() >= kMaxSections && !sections_.contains(id)) {
        return context_.findings.broken(at, "limit", "more than {} sections", kMaxSections);
    }
    check_version(named, at);
    return open(kind, at, id, std::move(named));
}

StreamReader::Section* StreamReader::open(SectionKind kind, uint64_t at, uint32_t id,
                                          Section named) {
    const auto [place, fresh] = ids_.emplace(std::pair(named.idstr, named.instance), id);
    if (!fresh && place->second != id) {
        context_.findings.problem(at, "section-id", "'{}' instance {} had id {} before, now {}",
                                  printable(named.idstr), named.instance, place->second, id);
        place->second = id;
    }
    const auto [entry, fresh_id] = sections_.try_emplace(id, named);
    Section& section = entry->second;
    if (!fresh_id && (section.idstr != named.idstr || section.instance != named.instance)) {
        context_.findings.problem(at, "section-id", "id {} belongs to '{}' instance {} already", id,
                                  printable(section.idstr), section.instance);
        ids_.erase({section.idstr, section.instance});
        if (section.started_at && !section.ended_at) --open_;
        section = std::move(named);
    }
    auto& slot = kind == SectionKind::Start ? section.started_at : section.full_at;
    if (slot) {
        context_.findings.problem(
            at, "section-id", "'{}' instance {}: {} comes twice, first at {:#x}",
            printable(section.idstr), section.instance, to_string(kind), *slot);
    }
    if (kind == SectionKind::Start && !section.started_at) ++open_;
    slot = at;
    return &section;
}

StreamReader::Section* StreamReader::find_started(SectionKind kind, uint64_t at, uint32_t id,
                                                  Node& node) {
    const auto found = sections_.find(id);
    if (found == sections_.end() || !found->second.started_at) {
        context_.findings.problem(at, "section-id", "{} of section id {}, which was never started",
                                  to_string(kind), id);
        return nullptr;
    }
    Section& section = found->second;
    node.text("idstr", section.idstr).number("instance", section.instance);
    if (section.ended_at) {
        context_.findings.problem(at, "order", "'{}': {} after END at {:#x}",
                                  printable(section.idstr), to_string(kind), *section.ended_at);
    }
    if (kind == SectionKind::End) {
        if (!section.ended_at) --open_;
        section.ended_at = at;
    }
    return &section;
}

void StreamReader::check_version(const Section& section, uint64_t at) {
    if (section.idstr == kRamName && section.version != ram::kVersion) {
        context_.findings.problem(at, "section-version", "'ram' has version {}, only {} is known",
                                  section.version, ram::kVersion);
    }
    if (is_vfio_section(section.idstr) && section.version > 1) {
        context_.findings.problem(at, "section-version", "'{}' has version {}, only 1 is known",
                                  printable(section.idstr), section.version);
    }
}

IsStarted StreamReader::is_started() const {
    return [this](uint32_t id) {
        const auto found = sections_.find(id);
        return found != sections_.end() && found->second.started_at.has_value();
    };
}

// --- Order

void StreamReader::check_order(SectionKind kind, uint64_t at) {
    switch (kind) {
        case SectionKind::Start: check_start_order(at); break;
        case SectionKind::Part:
            if (switchover_at_ && context_.postcopy != Context::Postcopy::Begun &&
                !context_.hello_offers(kHelloStateParts)) {
                context_.findings.problem(at, "order", "PART after SWITCHOVER_START");
            }
            if (!first_part_at_) first_part_at_ = at;
            break;
        case SectionKind::End:
            if (!first_end_at_) first_end_at_ = at;
            break;
        case SectionKind::Full: check_full_order(at); break;
    }
}

void StreamReader::check_start_order(uint64_t at) {
    if (!first_part_at_ && !first_end_at_ && !switchover_at_) return;
    context_.findings.problem(at, "order", "START when the setup is over");
}

// Devices follow all END sections. Some are sent during the setup, before any PART; a background
// snapshot has no END at all; in post-copy the devices go ahead in a package.
void StreamReader::check_full_order(uint64_t at) {
    if (!switchover_at_ && !first_end_at_) return;
    if (context_.postcopy == Context::Postcopy::Begun || open_ == 0) return;
    context_.findings.problem(at, "full-order", "FULL before the END of all that was started");
}

void StreamReader::check_ends(uint64_t at) {
    if (open_ == 0) return;
    if (!switchover_at_ && !first_end_at_) {
        context_.findings.note(at, "end", "no section END at all: so do background snapshots");
        return;
    }
    for (const auto& [key, id] : ids_) {
        const Section& section = sections_.at(id);
        if (!section.started_at || section.ended_at) continue;
        context_.findings.problem(at, "end", "'{}' instance {}: started at {:#x}, but has no END",
                                  printable(key.first), key.second, *section.started_at);
    }
}

// --- Bodies

Result<> StreamReader::read_body(const BodyOf& body, const Section& section, Node& node) {
    const uint64_t begin = context_.in.position();
    auto parsed = parse_body(body, section, node);
    if (!parsed && parsed.error().kind() != ErrorKind::Protocol) return parsed;
    if (context_.findings.too_many()) return {};
    if (!parsed) MIG_CHECK(guess_end(body, node));
    if (body.kind == SectionKind::End && body.idstr == kRamName && !ram_.has_list()) {
        context_.findings.problem(node.offset, "ram-blocks", "RAM ends without a list of blocks");
    }
    MIG_TRY(const uint64_t footer, read_footer(body, node));
    return context_.observer.body(body.idstr, body.instance, begin,
                                  context_.in.position() - footer - begin);
}

const DescribedBody* StreamReader::described(const Section& section) const {
    if (!description_) return nullptr;
    const auto index = description_->index_of(section.idstr, section.instance);
    return index ? &description_->devices()[*index].body : nullptr;
}

Result<> StreamReader::parse_body(const BodyOf& body, const Section& section, Node& node) {
    if (section.idstr == kRamName) return ram_.read(body, node);
    if (is_vfio_section(section.idstr)) {
        const DescribedBody* const known =
            body.kind == SectionKind::Full ? described(section) : nullptr;
        return vfio_.read(body, known != nullptr ? std::optional(known->size) : std::nullopt,
                          is_started(), node);
    }
    if (body.kind == SectionKind::Full) return parse_device(body, section, node);
    if (!section.idstr.empty()) {
        context_.findings.note(node.offset, "guess", "'{}' is unknown: its end is guessed",
                               printable(section.idstr));
    }
    return guess_end(body, node);
}

Result<> StreamReader::parse_device(const BodyOf& body, const Section& section, Node& node) {
    const uint64_t begin = context_.in.position();
    const DescribedBody* known = described(section);
    const bool by_description = known != nullptr;
    if (!by_description) known = well_known_body(section.idstr, section.version);
    if (known == nullptr || known->size > context_.in.remaining()) {
        context_.findings.note(node.offset, "guess", "'{}' is {}: its end is guessed",
                               printable(section.idstr),
                               known == nullptr ? "not described" : "shorter than described");
        return guess_end(body, node);
    }
    const size_t mark = context_.findings.mark();
    auto read = read_described_body(context_, *known, node);
    if (!read && read.error().kind() != ErrorKind::Protocol) return read;
    if (read) {
        MIG_TRY(const bool fits, context_.at_footer(body.id));
        if (fits) return {};
    }
    if (by_description) {
        context_.findings.problem(begin, "description",
                                  "the body of '{}' has not the {} bytes that the description "
                                  "gives it",
                                  printable(section.idstr), known->size);
    } else {
        context_.findings.forget_since(mark);
    }
    return look_again(body, begin, node);
}

// The description was wrong: only a search can find the end.
Result<> StreamReader::look_again(const BodyOf& body, uint64_t begin, Node& node) {
    if (second_looks_++ == kMaxSecondLooks) {
        context_.findings.problem(begin, "limit", "more than {} bodies that don't fit",
                                  kMaxSecondLooks);
        return Error(ErrorKind::Unsupported, "too many second looks");
    }
    node.children.clear();
    context_.in.seek(begin);
    return guess_end(body, node);
}

Result<> StreamReader::guess_end(const BodyOf& body, Node& node) {
    const uint64_t begin = context_.in.position();
    node.flag("guessed");
    MIG_TRY(const bool found,
            find_footer(context_.in, body.id, {}, context_.in.remaining(), is_started()));
    if (found) return {};
    context_.findings.problem(begin, "footer",
                              "section '{}' (id {}) does not end: there is no footer of it behind "
                              "this place",
                              printable(body.idstr), body.id);
    return Error(ErrorKind::Unsupported, "no footer");
}

// A wrong footer ends the body as well where something sensible follows; so does none.
Result<uint64_t> StreamReader::read_footer(const BodyOf& body, Node& node) {
    MIG_TRY(const bool here, context_.at_footer(body.id));
    if (here) {
        MIG_CHECK(context_.in.skip(kFooterBytes));
        return kFooterBytes;
    }
    const uint64_t at = context_.in.position();
    constexpr auto kMark = std::byte{static_cast<uint8_t>(migration::Element::SectionFooter)};
    MIG_TRY(const ConstBytes next, context_.in.peek(migration::LoadStream::kMaxPeek));
    if (next.size() < kFooterBytes) {
        return make_error(ErrorKind::PeerClosed, "the footer is cut off");
    }
    if (next[0] == kMark && plausible_element(next.subspan(kFooterBytes), is_started())) {
        context_.findings.problem(at, "footer", "the footer of section id {} instead of {}",
                                  util::load_be32(&next[1]), body.id);
        MIG_CHECK(context_.in.skip(kFooterBytes));
        return kFooterBytes;
    }
    context_.findings.problem(at, "footer", "section '{}' (id {}) has no footer here",
                              printable(body.idstr), body.id);
    if (plausible_element(next, is_started())) {
        node.text("footer", "none");
        return 0;
    }
    MIG_CHECK(guess_end(body, node));
    MIG_CHECK(context_.in.skip(kFooterBytes));
    return kFooterBytes;
}

}  // namespace ferry::stream_tool
