// SPDX-License-Identifier: BSD-2-Clause
// What the tests of streams, sections and RAM share: bytes as text, a VM without devices, and the
// steps of a session in order, without its threads and channels.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "migration/ram.h"
#include "migration/savevm.h"
#include "migration/state-inbox.h"
#include "system/memory.h"
#include "tests/support/test-env.h"
#include "tests/support/test-loop.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::test {

using migration::LoadStream;
using migration::SaveStream;
using migration::SaveVMHandlers;
using migration::SaveVMRegistry;
using migration::SectionKind;

using ByteVector = std::vector<std::byte>;

// "51 45 56 4d 00*3" as bytes: pairs of hex digits, optionally repeated, and "quoted text".
inline ByteVector hex(std::string_view text) {
    ByteVector out;
    size_t at = 0;
    while (at < text.size()) {
        if (text[at] == ' ' || text[at] == '\n') {
            ++at;
        } else if (text[at] == '\'') {
            const size_t end = text.find('\'', at + 1);
            for (const char c : text.substr(at + 1, end - at - 1)) {
                out.push_back(static_cast<std::byte>(c));
            }
            at = end + 1;
        } else {
            const auto value =
                static_cast<std::byte>(std::stoul(std::string(text.substr(at, 2)), nullptr, 16));
            at += 2;
            size_t count = 1;
            if (at < text.size() && text[at] == '*') {
                size_t digits = 0;
                count = std::stoul(std::string(text.substr(at + 1, 12)), &digits);
                at += 1 + digits;
            }
            out.insert(out.end(), count, value);
        }
    }
    return out;
}

inline ByteVector join(std::initializer_list<ConstBytes> parts) {
    ByteVector out;
    for (const ConstBytes part : parts) out.insert(out.end(), part.begin(), part.end());
    return out;
}

// For failure messages that show where two streams part.
inline std::string to_text(ConstBytes bytes) {
    std::string out;
    for (const std::byte b : bytes) out += fmt::format("{:02x} ", static_cast<unsigned>(b));
    return out;
}

inline ByteVector bytes_from(const std::function<void(SaveStream&)>& put) {
    migration::MemorySink sink;
    SaveStream out(sink);
    put(out);
    EXPECT_TRUE(out.flush());
    return sink.take();
}

class FakeSaveSession final : public migration::SaveSession {
 public:
    Mode mode() const override { return Mode::Live; }
    const migration::Capabilities& capabilities() const override { return capabilities_; }
    const migration::Parameters& parameters() const override { return parameters_; }
    Result<migration::PeerFeatures> peer_features() override { return migration::PeerFeatures{}; }
    bool round_is_full() const override { return full; }
    migration::MultifdSender* multifd() override { return pages; }
    const migration::StreamOptions& stream_options() const override { return stream_; }
    bool page_channels_take_state() const override { return false; }
    Result<migration::StateWriter*> state_writer(SaveVMHandlers&, size_t,
                                                 migration::StateWriter::Via) override {
        return make_error(ErrorKind::Unsupported, "no device state in these tests");
    }

    bool full = false;
    migration::MultifdSender* pages = nullptr;
    void set_parameters(const migration::Parameters& changed) { parameters_ = changed; }

 private:
    migration::Capabilities capabilities_;
    migration::Parameters parameters_;
    migration::StreamOptions stream_;
};

class FakeLoadSession final : public migration::LoadSession {
 public:
    bool page_channels_take_state() const override { return false; }
    migration::StateQueue& state_queue(const migration::SectionId& section, uint64_t limit,
                                       migration::StateWriter::Via via) override {
        return inbox_.add(section, limit, migration::StateKinds::DataAndConfig, via);
    }
    const migration::Capabilities& capabilities() const override { return capabilities_; }
    migration::PeerFeatures peer_features() const override { return {}; }
    Result<> approve_switchover() override { return {}; }
    migration::MultifdReceiver* multifd() override { return nullptr; }
    const migration::StreamOptions& stream_options() const override { return stream_; }

 private:
    migration::Capabilities capabilities_;
    migration::StreamOptions stream_;
    migration::StateInbox inbox_{0, {}};
};

// Writes down what the element loop asks for.
class RecordingEvents final : public migration::LoadEvents {
 public:
    Result<> open_return_path() override { return record("open"); }
    Result<> ping(uint32_t value) override { return record(fmt::format("ping {}", value)); }
    Result<> switchover_start() override { return record("switchover"); }
    Result<> first_section() override { return {}; }

    std::vector<std::string> seen;

 private:
    Result<> record(std::string what) {
        seen.push_back(std::move(what));
        return {};
    }
};

// The state a section "timer" carries.
struct Timer {
    int64_t ticks = 0;
    int64_t clock = 0;
    bool has_icount = false;
    int64_t bias = 0;

    static const migration::VMStateDescription& description() {
        static const migration::VMStateDescription kDescription =
            migration::VMState<Timer>("timer", 2, 1)
                .field("cpu_ticks_offset", &Timer::ticks)
                .unused(8)
                .field("cpu_clock_offset", &Timer::clock, 2)
                .subsection(migration::VMState<Timer>("timer/icount", 1, 1)
                                .field("qemu_icount_bias", &Timer::bias)
                                .build(),
                            [](const Timer& timer) { return timer.has_icount; })
                .build();
        return kDescription;
    }
};

// The state a section "globalstate" carries.
struct Global {
    uint32_t size = 0;
    std::array<std::byte, 32> name{};
    uint8_t has_suspended = 1;
    uint8_t suspended = 0;

    void set(std::string_view text) {
        size = static_cast<uint32_t>(text.size() + 1);
        std::ranges::copy(bytes_of(text), name.begin());
    }
    static const migration::VMStateDescription& description() {
        static const migration::VMStateDescription kDescription =
            migration::VMState<Global>("globalstate", 1, 1)
                .field("size", &Global::size)
                .buffer("runstate", &Global::name)
                .field("has_vm_was_suspended", &Global::has_suspended)
                .field("vm_was_suspended", &Global::suspended)
                .unused(66)
                .build();
        return kDescription;
    }
};

// A VM of RAM alone, and what a session does with it.
class TestVm {
 public:
    explicit TestVm(std::string machine = "none") : identity{std::move(machine)} {}

    system::RamBlock& add_ram(const std::string& name, uint64_t size, system::Gpa gpa) {
        system::RamBlock* block = *memory.add_block(*system::RamBlock::create_memfd(name, size));
        EXPECT_TRUE(memory.map(*block, gpa, 0, size));
        return *block;
    }
    void register_ram() { keep(registry.add(*ram)); }
    void keep(Result<util::Registration> registration) {
        ASSERT_TRUE(registration) << registration.error().message();
        registrations_.push_back(std::move(*registration));
    }

    // Source's phases. `out` is not flushed.
    Result<> setup(SaveStream& out) {
        save_header(out, identity);
        return for_each_live([&](auto& entry) {
            return save_section(out, entry, SectionKind::Start, [&](SaveStream& to) {
                return entry.handlers->save_setup(session, to);
            });
        });
    }
    Result<> iterate(SaveStream& out) {
        return for_each_live([&](auto& entry) {
            return save_section(out, entry, SectionKind::Part, [&](SaveStream& to) -> Result<> {
                auto status = entry.handlers->save_live_iterate(to);
                if (!status) return std::move(status).error();
                return {};
            });
        });
    }
    Result<> complete(SaveStream& out) {
        save_command(out, migration::Command::SwitchoverStart);
        auto ended = for_each_live([&](auto& entry) {
            return save_section(out, entry, SectionKind::End, [&](SaveStream& to) {
                return entry.handlers->save_live_complete_precopy(to);
            });
        });
        if (!ended) return ended;
        return save_rest(out);
    }
    Result<> save_rest(SaveStream& out) {
        const auto description = save_one_shot_states(out, registry, identity);
        if (!description) return description.error();
        save_end(out);
        save_description(out, registry, *description);
        return out.status();
    }
    void cleanup(SaveVMHandlers::Outcome outcome = SaveVMHandlers::Outcome::Completed) {
        for (const auto& entry : registry.entries()) {
            if (entry->handlers != nullptr) entry->handlers->save_cleanup(outcome);
        }
    }
    // All phases; `between` runs after each of `rounds` iterations.
    ByteVector save(unsigned rounds = 1, const std::function<void(unsigned)>& between = {}) {
        migration::MemorySink sink;
        SaveStream out(sink);
        EXPECT_TRUE(setup(out));
        for (unsigned i = 0; i < rounds; ++i) {
            EXPECT_TRUE(iterate(out));
            if (between) {
                EXPECT_TRUE(out.flush());
                between(i);
            }
            EXPECT_TRUE(ram->state_pending_exact());
        }
        EXPECT_TRUE(complete(out));
        EXPECT_TRUE(out.flush());
        cleanup();
        return sink.take();
    }

    Result<> header(LoadStream& in) {
        MIG_TRY(const auto refusal, load_header(in, identity));
        if (refusal) return *refusal;
        return {};
    }
    // Destination, from header to validation.
    Result<> load(migration::ByteSource& source) {
        LoadStream in(source, LoadStream::kMaxPeek);
        Result<> result = header(in);
        for (const auto& entry : registry.entries()) {
            if (result && entry->handlers) result = entry->handlers->load_setup(load_session);
        }
        if (result) result = load_elements(in, registry, events);
        for (const auto& entry : registry.entries()) {
            if (!result || !entry->handlers) continue;
            entry->handlers->load_validate([&](Result<> valid) { result = std::move(valid); });
        }
        position = in.position();
        const auto outcome =
            result ? SaveVMHandlers::Outcome::Completed : SaveVMHandlers::Outcome::Failed;
        for (const auto& entry : registry.entries()) {
            if (entry->handlers) entry->handlers->load_cleanup(outcome);
        }
        return result;
    }
    Result<> load(ConstBytes stream) {
        migration::MemorySource source(stream);
        return load(source);
    }
    std::string load_error(ConstBytes stream) {
        auto result = load(stream);
        return result ? "(accepted)" : result.error().message();
    }

    TestEnv env;
    TestLoop loop{env.clock};
    system::GuestMemory memory;
    SaveVMRegistry registry{loop, &env.trace};
    migration::StreamIdentity identity;
    migration::RamStats stats;
    std::vector<uint64_t> passes;
    std::unique_ptr<SaveVMHandlers> ram = migration::make_ram_handlers(
        memory, env.env, stats, [this](uint64_t pass) { passes.push_back(pass); });
    FakeSaveSession session;
    FakeLoadSession load_session;
    RecordingEvents events;
    uint64_t position = 0;  // where the last load stopped

 private:
    template <typename Step>
    Result<> for_each_live(Step step) {
        for (const auto& entry : registry.entries()) {
            if (entry->live_handlers() == nullptr || !entry->handlers->is_active_iterate())
                continue;
            if (auto done = step(*entry); !done) return done;
        }
        return {};
    }
    std::vector<util::Registration> registrations_;
};

}  // namespace ferry::test
