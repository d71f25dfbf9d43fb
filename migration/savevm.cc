// SPDX-License-Identifier: BSD-2-Clause
// The registry of those that migrate, and the writing side of the stream's frame.
#include "migration/savevm.h"

#include <algorithm>

#include "migration/vmdesc.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

constexpr size_t kMaxName = 127;                 // readers take the length byte as signed
constexpr size_t kPlainStateBuffer = 16 * 1024;  // more is written in pieces

void put_element(SaveStream& out, Element element) {
    out.u8(static_cast<uint8_t>(element));
}

Result<> check_name(const std::string& idstr) {
    const auto printable = [](char c) { return c >= 0x20 && c < 0x7f; };
    if (idstr.empty() || idstr.size() > kMaxName || !std::ranges::all_of(idstr, printable)) {
        return make_error(ErrorKind::InvalidArgument,
                          "section name '{}' must be 1 to {} printable ASCII characters", idstr,
                          kMaxName);
    }
    return {};
}

// What the main loop captured of one plain device.
struct CapturedState {
    std::vector<std::byte> body;
    std::string description;
    enum class Sent : bool { No, Yes } sent = Sent::Yes;
};

// In the order of the registry. One visit to the main loop for all: the VM stands still, so there
// is no order among them that matters, and each visit would lengthen the pause.
Result<std::vector<CapturedState>> capture_plain_devices(const SaveVMRegistry& registry) {
    std::vector<CapturedState> captured;
    MIG_CHECK(
        system::run_on_loop(registry.loop(),
                            [&]() -> Result<> {
                                for (const auto& entry : registry.entries()) {
                                    if (!entry->plain) continue;
                                    const auto& plain = *entry->plain;
                                    if (!plain.description->needed(plain.object)) {
                                        captured.push_back({{}, {}, CapturedState::Sent::No});
                                        continue;
                                    }
                                    MemorySink body;
                                    SaveStream out(body, kPlainStateBuffer);
                                    plain.description->save(plain.object, out);
                                    MIG_CHECK(out.flush(), "section '{}'", plain.section.idstr);
                                    captured.push_back(
                                        {body.take(), plain.description->describe(plain.object)});
                                }
                                return {};
                            }),
        "capturing device state");
    return captured;
}

}  // namespace

std::string_view to_string(SectionKind kind) {
    switch (kind) {
        case SectionKind::Start: return "start";
        case SectionKind::Part: return "part";
        case SectionKind::End: return "end";
        case SectionKind::Full: return "full";
    }
    return "invalid";
}

// --- SaveVMRegistry

SaveVMRegistry::Entry* SaveVMRegistry::find(std::string_view idstr, uint32_t instance_id) const {
    for (const auto& entry : entries_) {
        const SectionId& section = entry->section();
        if (section.idstr == idstr && section.instance_id == instance_id) return entry.get();
    }
    return nullptr;
}

Result<util::Registration> SaveVMRegistry::insert(std::unique_ptr<Entry> entry) {
    const SectionId& section = entry->section();
    MIG_CHECK(check_name(section.idstr));
    if (find(section.idstr, section.instance_id) != nullptr) {
        return make_error(ErrorKind::InvalidArgument, "section '{}' instance {} exists already",
                          section.idstr, section.instance_id);
    }
    // QEMU, reading PART and END, takes 0 for any handler whose START has not come.
    if (entry->handlers != nullptr) next_section_id_ = std::max(next_section_id_, 1U);
    entry->section_id = next_section_id_++;
    entry->trace = trace_;
    const Entry* key = entry.get();
    entries_.push_back(std::move(entry));
    return util::Registration([this, key] {
        std::erase_if(entries_, [key](const auto& other) { return other.get() == key; });
    });
}

Result<util::Registration> SaveVMRegistry::add(SaveVMHandlers& handlers) {
    auto entry = std::make_unique<Entry>();
    entry->handlers = &handlers;
    return insert(std::move(entry));
}

Result<util::Registration> SaveVMRegistry::add_vmstate(std::string_view path,
                                                       const VMStateDescription& description,
                                                       void* object, uint32_t instance_id) {
    std::string idstr(path);
    if (!idstr.empty()) idstr += '/';
    idstr += description.name();
    auto entry = std::make_unique<Entry>();
    entry->plain = std::make_unique<Entry::Plain>(
        Entry::Plain{{std::move(idstr), instance_id, description.version()}, &description, object});
    return insert(std::move(entry));
}

// --- Writing

void save_header(SaveStream& out, const StreamIdentity& identity) {
    out.be32(kStreamMagic);
    out.be32(kStreamVersion);
    put_element(out, Element::Configuration);
    out.be32(static_cast<uint32_t>(identity.machine_name.size()));
    out.bytes(bytes_of(identity.machine_name));
    if (identity.uuid) {
        put_element(out, Element::Subsection);
        out.str8("configuration/uuid");
        out.be32(1);  // version
        out.bytes(*identity.uuid);
    }
}

void save_command(SaveStream& out, Command command, ConstBytes payload) {
    put_element(out, Element::Command);
    out.be16(static_cast<uint16_t>(command));
    out.be16(static_cast<uint16_t>(payload.size()));
    out.bytes(payload);
}

Result<> save_section(SaveStream& out, const SaveVMRegistry::Entry& entry, SectionKind kind,
                      const std::function<Result<>(SaveStream&)>& body) {
    const SectionId& section = entry.section();
    if (entry.trace != nullptr) {
        trace::savevm_section_begin(*entry.trace, section.idstr, entry.section_id, to_string(kind));
    }
    out.u8(static_cast<uint8_t>(kind));
    out.be32(entry.section_id);
    if (kind == SectionKind::Start || kind == SectionKind::Full) {
        out.str8(section.idstr);
        out.be32(section.instance_id);
        out.be32(section.version_id);
    }
    const uint64_t begin = out.position();
    MIG_CHECK(body(out), "section '{}' (id {}), {}", section.idstr, entry.section_id,
              to_string(kind));
    const uint64_t size = out.position() - begin;
    put_element(out, Element::SectionFooter);
    out.be32(entry.section_id);
    if (entry.trace != nullptr) {
        trace::savevm_section_end(*entry.trace, section.idstr, entry.section_id, size);
    }
    return out.status();
}

Result<std::string> save_one_shot_states(SaveStream& out, const SaveVMRegistry& registry,
                                         const StreamIdentity& identity) {
    MIG_TRY(const auto captured, capture_plain_devices(registry));
    auto next = captured.begin();
    VmDescription description(identity);
    for (const auto& entry : registry.entries()) {
        const SectionId& section = entry->section();
        if (entry->plain && next->sent == CapturedState::Sent::No) {
            ++next;
        } else if (entry->plain) {
            MIG_CHECK(save_section(out, *entry, SectionKind::Full, [&](SaveStream& to) -> Result<> {
                to.bytes(next->body);
                return {};
            }));
            description.add_plain(section, next->description);
            ++next;
        } else if (entry->handlers->sections() != SaveVMHandlers::Sections::Live) {
            uint64_t size = 0;
            MIG_CHECK(save_section(out, *entry, SectionKind::Full, [&](SaveStream& to) -> Result<> {
                const uint64_t begin = to.position();
                MIG_CHECK(entry->handlers->save_state(to));
                size = to.position() - begin;
                return {};
            }));
            description.add_opaque(section, size);
        }
    }
    MIG_CHECK(out.status());
    return std::move(description).finish();
}

void save_end(SaveStream& out) {
    put_element(out, Element::Eof);
}

void save_description(SaveStream& out, const SaveVMRegistry& registry,
                      std::string_view description) {
    put_element(out, Element::VmDescription);
    out.be32(static_cast<uint32_t>(description.size()));
    out.bytes(bytes_of(description));
    if (registry.trace() != nullptr) {
        trace::savevm_description_sent(*registry.trace(), description.size());
    }
}

}  // namespace ferry::migration
