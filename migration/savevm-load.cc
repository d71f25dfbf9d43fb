// SPDX-License-Identifier: BSD-2-Clause
// The reading side of the stream's frame. Every byte comes from an untrusted peer.
#include <algorithm>
#include <array>
#include <utility>

#include "migration/savevm.h"
#include "migration/vmdesc.h"
#include "system/memory.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

constexpr uint32_t kMaxMachineName = 255;
constexpr uint32_t kObsoleteVersion = 2;

// --- Header

std::string to_text(const Uuid& uuid) {
    std::string text;
    for (size_t i = 0; i < uuid.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
        text += fmt::format("{:02x}", std::to_integer<unsigned>(uuid[i]));
    }
    return text;
}

struct ConfigurationReader {
    LoadStream& in;
    const StreamIdentity& ours;
    std::optional<Error> refusal;  // the first one

    template <typename... Args>
    void refuse(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
        if (refusal) return;
        refusal = Error(kind, fmt::format(format, std::forward<Args>(args)...));
    }

    Result<> page_bits() {
        MIG_TRY(const uint32_t bits, in.be32());
        if (bits >= 64 || uint64_t{1} << bits != system::kPageSize) {
            refuse(ErrorKind::Protocol, "the source has pages of 2^{} bytes, we of {}", bits,
                   system::kPageSize);
        }
        return {};
    }

    // Only capabilities that change what follows are listed here, and we have none of those.
    Result<> capabilities() {
        MIG_TRY(const uint32_t count, in.be32());
        if (count > kCapabilityCount) {
            return make_error(ErrorKind::LimitExceeded, "{} capabilities, at most {}", count,
                              kCapabilityCount);
        }
        for (uint32_t i = 0; i < count; ++i) {
            MIG_TRY(const std::string name, in.str8());
            MIG_TRY(const Capability capability, capability_from_name(name));
            refuse(ErrorKind::Unsupported,
                   "the source has capability '{}' on, which is not supported here",
                   to_string(capability));
        }
        return {};
    }

    Result<> uuid() {
        Uuid theirs{};
        MIG_CHECK(in.bytes(theirs));
        if (!ours.uuid || *ours.uuid == theirs) return {};
        refuse(ErrorKind::Protocol, "the source's UUID is {}, this VM's is {}", to_text(theirs),
               to_text(*ours.uuid));
        return {};
    }
};

struct ConfigurationPart {
    std::string_view name;
    Result<> (ConfigurationReader::*read)();
};
constexpr std::array kConfigurationParts = {
    ConfigurationPart{"configuration/target-page-bits", &ConfigurationReader::page_bits},
    ConfigurationPart{"configuration/capabilities", &ConfigurationReader::capabilities},
    ConfigurationPart{"configuration/uuid", &ConfigurationReader::uuid},
};
constexpr uint32_t kConfigurationPartVersion = 1;

Result<> load_configuration_parts(ConfigurationReader& reader) {
    LoadStream& in = reader.in;
    constexpr auto kMark = std::byte{static_cast<uint8_t>(Element::Subsection)};
    size_t parts = 0;
    for (;;) {
        MIG_TRY(const ConstBytes next, in.peek(1));
        if (next.empty() || next[0] != kMark) return {};
        if (parts++ == kConfigurationParts.size()) {
            return make_error(ErrorKind::LimitExceeded, "too many subsections");
        }
        MIG_CHECK(in.skip(1));
        MIG_TRY(const std::string name, in.str8());
        MIG_TRY(const uint32_t version, in.be32(), "subsection '{}'", name);
        const auto known = std::ranges::find(kConfigurationParts, name, &ConfigurationPart::name);
        if (known == kConfigurationParts.end() || version > kConfigurationPartVersion) {
            return make_error(ErrorKind::Protocol, "unknown subsection '{}' version {}", name,
                              version);
        }
        MIG_CHECK((reader.*known->read)(), "subsection '{}'", name);
    }
}

Result<std::optional<Error>> load_configuration(LoadStream& in, const StreamIdentity& identity) {
    MIG_TRY(const uint8_t element, in.u8());
    if (element != static_cast<uint8_t>(Element::Configuration)) {
        return make_error(ErrorKind::Protocol, "missing, element {:#x} came instead", element);
    }
    MIG_TRY(const uint32_t length, in.be32());
    if (length > kMaxMachineName) {
        return make_error(ErrorKind::LimitExceeded, "machine name of {} bytes, at most {}", length,
                          kMaxMachineName);
    }
    std::string machine(length, '\0');
    MIG_CHECK(in.bytes(std::as_writable_bytes(std::span(machine))), "machine name");
    ConfigurationReader reader{in, identity, {}};
    if (machine != identity.machine_name) {
        reader.refuse(ErrorKind::Protocol, "the source is machine '{}', this one is '{}'", machine,
                      identity.machine_name);
    }
    MIG_CHECK(load_configuration_parts(reader));
    return std::move(reader.refusal);
}

// --- Elements

// What may come between sections. GO and ABORT belong behind the end.
struct CommandShape {
    Command command;
    size_t length;
};
constexpr std::array kCommands = {
    CommandShape{Command::OpenReturnPath, 0},
    CommandShape{Command::Ping, sizeof(uint32_t)},
    CommandShape{Command::SwitchoverStart, 0},
};

class ElementLoader {
 public:
    ElementLoader(LoadStream& in, SaveVMRegistry& registry, LoadEvents& events)
        : in_(in), registry_(registry), events_(events) {}

    Result<> run() {
        for (;;) {
            MIG_TRY(const uint8_t raw, in_.u8(), "waiting for the next section");
            switch (static_cast<Element>(raw)) {
                case Element::Eof: return begin_sections();
                case Element::SectionStart: MIG_CHECK(load_first(SectionKind::Start)); break;
                case Element::SectionFull: MIG_CHECK(load_first(SectionKind::Full)); break;
                case Element::SectionPart: MIG_CHECK(load_next(SectionKind::Part)); break;
                case Element::SectionEnd: MIG_CHECK(load_next(SectionKind::End)); break;
                case Element::Command: MIG_CHECK(load_command()); break;
                case Element::Subsection:
                case Element::VmDescription:
                case Element::Configuration:
                case Element::SectionFooter:
                default:  // a byte from outside
                    return make_error(ErrorKind::Protocol, "element type {:#x} at byte {}", raw,
                                      in_.position() - 1);
            }
        }
    }

 private:
    // What the source said of one of our handlers. At most one per registered handler, so that no
    // peer can make the list grow.
    struct Opened {
        SaveVMRegistry::Entry* entry = nullptr;
        uint32_t section_id = 0;
        std::optional<uint32_t> start_version;
        std::optional<uint32_t> full_version;
    };

    // Once, when the commands before the first section are through.
    Result<> begin_sections() {
        if (std::exchange(begun_, Begun::Yes) == Begun::Yes) return {};
        return events_.first_section();
    }

    // START and FULL: name the handler.
    Result<> load_first(SectionKind kind) {
        MIG_CHECK(begin_sections());
        MIG_TRY(const uint32_t id, in_.be32(), "section header");
        MIG_TRY(const std::string idstr, in_.str8(), "section header");
        MIG_TRY(const uint32_t instance, in_.be32(), "section header");
        MIG_TRY(const uint32_t version, in_.be32(), "section header");
        SaveVMRegistry::Entry* entry = registry_.find(idstr, instance);
        if (entry == nullptr) {
            return make_error(ErrorKind::Protocol,
                              "section '{}' instance {}: this VM has no such device", idstr,
                              instance);
        }
        MIG_TRY(Opened * opened, open(*entry, kind, id, version), "section '{}' (id {}), {}", idstr,
                id, to_string(kind));
        return load_body(*opened, kind, version);
    }

    Result<Opened*> open(SaveVMRegistry::Entry& entry, SectionKind kind, uint32_t id,
                         uint32_t version) {
        if (version > entry.section().version_id) {
            return make_error(ErrorKind::Protocol, "version {} is newer than ours, {}", version,
                              entry.section().version_id);
        }
        if (kind == SectionKind::Start && entry.live_handlers() == nullptr) {
            return make_error(ErrorKind::Protocol, "this device has no iterative state");
        }
        auto same = std::ranges::find(opened_, &entry, &Opened::entry);
        const auto holder = std::ranges::find(opened_, id, &Opened::section_id);
        if (holder != opened_.end() && holder != same) {
            return make_error(ErrorKind::Protocol, "this id belongs to section '{}'",
                              holder->entry->section().idstr);
        }
        if (same != opened_.end() && holder != same) {
            return make_error(ErrorKind::Protocol, "it had id {} before", same->section_id);
        }
        if (same == opened_.end()) {
            same = opened_.insert(same, Opened{&entry, id, {}, {}});
        }
        auto& slot = kind == SectionKind::Start ? same->start_version : same->full_version;
        if (slot) return make_error(ErrorKind::Protocol, "comes twice");
        slot = version;
        return &*same;
    }

    // PART and END: go on with what START opened.
    Result<> load_next(SectionKind kind) {
        MIG_TRY(const uint32_t id, in_.be32(), "section header");
        const auto opened = std::ranges::find(opened_, id, &Opened::section_id);
        if (opened == opened_.end() || !opened->start_version) {
            return make_error(ErrorKind::Protocol, "section id {}, {}: was never started", id,
                              to_string(kind));
        }
        return load_body(*opened, kind, *opened->start_version);
    }

    Result<> load_body(const Opened& opened, SectionKind kind, uint32_t version) {
        const std::string& idstr = opened.entry->section().idstr;
        if (registry_.trace() != nullptr) {
            trace::savevm_section_begin(*registry_.trace(), idstr, opened.section_id,
                                        to_string(kind));
        }
        const uint64_t begin = in_.position();
        MIG_CHECK(opened.entry->plain ? load_plain(opened, version)
                                      : load_by_handlers(opened, kind, version),
                  "section '{}' (id {}), {}", idstr, opened.section_id, to_string(kind));
        if (registry_.trace() != nullptr) {
            trace::savevm_section_end(*registry_.trace(), idstr, opened.section_id,
                                      in_.position() - begin);
        }
        return {};
    }

    Result<> load_by_handlers(const Opened& opened, SectionKind kind, uint32_t version) {
        MIG_CHECK(opened.entry->handlers->load_state(in_, kind, version));
        return load_footer(opened.section_id);
    }

    // Reading may wait for the peer, and the device belongs to the main loop, which may not wait:
    // so the body is read here and decoded there.
    Result<> load_plain(const Opened& opened, uint32_t version) {
        const auto& plain = *opened.entry->plain;
        std::vector<std::byte> body;
        MIG_CHECK(plain.description->collect(in_, version, body));
        MIG_CHECK(load_footer(opened.section_id));
        return system::run_on_loop(registry_.loop(), [&]() -> Result<> {
            MemorySource source{ConstBytes(body)};
            LoadStream in(source, LoadStream::kMaxPeek);
            return plain.description->load(plain.object, in, version);
        });
    }

    Result<> load_footer(uint32_t section_id) {
        MIG_TRY(const uint8_t mark, in_.u8(), "footer");
        if (mark != static_cast<uint8_t>(Element::SectionFooter)) {
            return make_error(ErrorKind::Protocol, "footer missing: {:#x} at byte {}", mark,
                              in_.position() - 1);
        }
        MIG_TRY(const uint32_t id, in_.be32(), "footer");
        if (id != section_id) {
            return make_error(ErrorKind::Protocol, "footer of section id {}", id);
        }
        return {};
    }

    Result<> load_command() {
        MIG_TRY(const uint16_t raw, in_.be16(), "command");
        MIG_TRY(const uint16_t length, in_.be16(), "command {:#x}", raw);
        if (registry_.trace() != nullptr) {
            trace::savevm_command_received(*registry_.trace(), raw, length);
        }
        const auto shape =
            std::ranges::find(kCommands, static_cast<Command>(raw), &CommandShape::command);
        if (shape == kCommands.end()) {
            return make_error(ErrorKind::Protocol, "command {:#x} of {} bytes is not expected", raw,
                              length);
        }
        if (length != shape->length) {
            return make_error(ErrorKind::Protocol, "command {:#x} of {} bytes instead of {}", raw,
                              length, shape->length);
        }
        MIG_CHECK(obey(shape->command), "command {:#x}", raw);
        return {};
    }

    Result<> obey(Command command) {
        if (command == Command::OpenReturnPath) return events_.open_return_path();
        if (command == Command::Ping) {
            MIG_TRY(const uint32_t value, in_.be32());
            return events_.ping(value);
        }
        if (switchover_ == Switchover::Begun) {
            return make_error(ErrorKind::Protocol, "the switchover begins twice");
        }
        switchover_ = Switchover::Begun;
        MIG_CHECK(begin_sections());  // the handlers are set up, even if no section came
        return events_.switchover_start();
    }

    LoadStream& in_;
    SaveVMRegistry& registry_;
    LoadEvents& events_;
    enum class Begun : uint8_t { No, Yes } begun_ = Begun::No;
    std::vector<Opened> opened_;
    enum class Switchover : uint8_t { Ahead, Begun } switchover_ = Switchover::Ahead;
};

Result<> load_description(LoadStream& in) {
    constexpr auto kMark = std::byte{static_cast<uint8_t>(Element::VmDescription)};
    MIG_TRY(const ConstBytes next, in.peek(1));
    if (next.empty() || next[0] != kMark) return {};
    MIG_CHECK(in.skip(1));
    MIG_TRY(const uint32_t length, in.be32());
    if (length > kMaxVmDescription) {
        return make_error(ErrorKind::LimitExceeded, "{} bytes, at most {}", length,
                          kMaxVmDescription);
    }
    return in.skip(length);
}

}  // namespace

Result<std::optional<Error>> load_header(LoadStream& in, const StreamIdentity& identity) {
    MIG_TRY(const uint32_t magic, in.be32(), "stream header");
    if (magic != kStreamMagic) {
        return make_error(ErrorKind::Protocol, "not a migration stream: it begins with {:#010x}",
                          magic);
    }
    MIG_TRY(const uint32_t version, in.be32(), "stream header");
    if (version == kObsoleteVersion) {
        return make_error(ErrorKind::Protocol, "stream version 2 is obsolete");
    }
    if (version != kStreamVersion) {
        return make_error(ErrorKind::Protocol, "stream version {} is not supported, only {}",
                          version, kStreamVersion);
    }
    MIG_TRY(auto refusal, load_configuration(in, identity), "configuration section");
    if (refusal) refusal = std::move(*refusal).context("configuration section");
    return refusal;
}

Result<> load_elements(LoadStream& in, SaveVMRegistry& registry, LoadEvents& events) {
    MIG_CHECK(ElementLoader(in, registry, events).run());
    MIG_CHECK(load_description(in), "VM description");
    return {};
}

}  // namespace ferry::migration
