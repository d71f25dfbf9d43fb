// SPDX-License-Identifier: BSD-2-Clause
// What a subsystem provides to take part in migration, and the registry of those that do.
// Call order and threads: docs/devel/savevm.rst. Stream: docs/interop/stream-format.rst.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "migration/capabilities.h"
#include "migration/device-state.h"
#include "migration/stream-options.h"
#include "migration/stream.h"
#include "migration/vmstate.h"
#include "system/main-loop.h"
#include "system/runstate.h"
#include "util/registration.h"
#include "util/result.h"
#include "util/trace.h"

namespace ferry::migration {

class MultifdSender;
class MultifdReceiver;
class SaveVMHandlers;

struct SectionId {
    std::string idstr;  // 1..127 bytes, e.g. "0000:00:03.0/vfio"
    uint32_t instance_id = 0;
    uint32_t version_id = 1;
};

enum class SectionKind : uint8_t { Start = 1, Part = 2, End = 3, Full = 4 };
std::string_view to_string(SectionKind kind);       // "start"
enum class IterateStatus : uint8_t { More, Done };  // Done: nothing left for now

// What both sides agreed on by the hello; all false towards QEMU and where nobody asked.
struct PeerFeatures {
    bool handover = false;     // READY and GO
    bool heartbeat = false;    // the destination shows that it lives
    bool discard = false;      // a device's session may be begun anew
    bool reason = false;       // the destination says why it failed
    bool config_size = false;  // a device's configuration is announced by its size
    bool state_early = false;  // device state on page channels before the switchover, too
    bool state_parts = false;  // the devices' last state in turn, in PART sections

    PeerFeatures common_with(PeerFeatures other) const {
        return {.handover = handover && other.handover,
                .heartbeat = heartbeat && other.heartbeat,
                .discard = discard && other.discard,
                .reason = reason && other.reason,
                .config_size = config_size && other.config_size,
                .state_early = state_early && other.state_early,
                .state_parts = state_parts && other.state_parts};
    }
};

// The attempt as the source's handlers see it. Alive from save_prepare to save_cleanup.
class SaveSession {
 public:
    virtual ~SaveSession() = default;
    enum class Mode : uint8_t { Live, Snapshot };
    virtual Mode mode() const = 0;
    virtual const Capabilities& capabilities() const = 0;
    virtual const Parameters& parameters() const = 0;
    // Migration thread. Waits until the peer has answered the hello.
    virtual Result<PeerFeatures> peer_features() = 0;
    // True once this round's share of max-bandwidth is used up, or the round took long enough.
    virtual bool round_is_full() const = 0;
    // RAM's: the page channels; null without capability multifd. From setup to the end.
    virtual MultifdSender* multifd() = 0;
    virtual const StreamOptions& stream_options() const = 0;
    // Whether page channels are there that device state may use.
    virtual bool page_channels_take_state() const = 0;
    // save_setup: how this handler's state leaves, in packets of up to `bytes`. Lives until
    // save_cleanup.
    virtual Result<StateWriter*> state_writer(SaveVMHandlers& handlers, size_t bytes,
                                              StateWriter::Via via) = 0;
};

// The attempt as the destination's handlers see it.
class LoadSession {
 public:
    virtual ~LoadSession() = default;
    virtual const Capabilities& capabilities() const = 0;
    virtual PeerFeatures peer_features() const = 0;
    // One handler's consent to switch over (switchover-ack). Any thread.
    virtual Result<> approve_switchover() = 0;
    // RAM's, as at the source.
    virtual MultifdReceiver* multifd() = 0;
    virtual const StreamOptions& stream_options() const = 0;
    virtual bool page_channels_take_state() const = 0;
    // load_setup: where this handler's state comes in, of which at most `limit` bytes wait. Lives
    // until load_cleanup.
    virtual StateQueue& state_queue(const SectionId& section, uint64_t limit,
                                    StateWriter::Via via) = 0;
};

// An Error ends the attempt; only *_cleanup() follows it. All sizes are bytes.
class SaveVMHandlers {
 public:
    virtual ~SaveVMHandlers() = default;
    virtual const SectionId& section() const = 0;  // constant for the object's life

    // Source. save_prepare on the main loop thread at the command (refuse early, change nothing);
    // the others on the migration thread.
    virtual Result<> save_prepare(SaveSession& session) = 0;
    virtual Result<> save_setup(SaveSession& session, SaveStream& out) = 0;
    virtual uint64_t state_pending_estimate() = 0;       // no syscall, cannot fail
    virtual Result<uint64_t> state_pending_exact() = 0;  // may ask the device
    virtual bool is_active_iterate() = 0;
    virtual Result<IterateStatus> save_live_iterate(SaveStream& out) = 0;  // one PART's body
    // Guest stopped, the pause's clock running.
    virtual Result<> save_live_complete_precopy(SaveStream& out) = 0;  // the END's body
    // Which sections it has, constant. OneShot: of the methods above only save_prepare is called.
    enum class Sections : uint8_t {
        Live,         // START, PART, END
        LiveAndFull,  // and then a FULL one
        OneShot,      // the FULL one alone, like a plain device's
    };
    virtual Sections sections() const = 0;
    // Who has state beside its sections; constant.
    virtual DeviceStateHandlers* device_state() { return nullptr; }
    virtual Result<> save_state(SaveStream& out) = 0;  // the FULL section's body
    enum class Outcome : uint8_t { Completed, Failed };
    virtual void save_cleanup(
        Outcome outcome) noexcept = 0;  // once per attempt, however far it got

    // Destination, on the load thread. Every byte of `in` comes from an untrusted peer.
    virtual Result<> load_setup(LoadSession& session) = 0;
    virtual bool switchover_ack_needed() const = 0;
    virtual Result<> load_state(LoadStream& in, SectionKind kind, uint32_t version) = 0;
    virtual Result<> switchover_start() = 0;
    // Everything has been read: apply and accept it, or say why not. Runs for all handlers at
    // once: must not block, `done` from any thread.
    virtual void load_validate(system::Done done) = 0;
    virtual void load_cleanup(Outcome outcome) noexcept = 0;
};

// Who migrates, in registration order: the order of sections. Registering happens on the main loop
// thread while no migration runs.
class SaveVMRegistry {
 public:
    // `trace` may be null.
    explicit SaveVMRegistry(system::MainLoop& loop, util::Tracer* trace = nullptr)
        : loop_(loop), trace_(trace) {}

    struct Entry {
        uint32_t section_id = 0;             // in streams that we write
        SaveVMHandlers* handlers = nullptr;  // exactly one of the two is set
        struct Plain {
            SectionId section;
            const VMStateDescription* description = nullptr;
            void* object = nullptr;
        };
        std::unique_ptr<Plain> plain;
        util::Tracer* trace = nullptr;
        const SectionId& section() const { return plain ? plain->section : handlers->section(); }
        // Who takes part in the live phases; null: nobody.
        SaveVMHandlers* live_handlers() const {
            const bool live =
                handlers != nullptr && handlers->sections() != SaveVMHandlers::Sections::OneShot;
            return live ? handlers : nullptr;
        }
    };

    // InvalidArgument when (idstr, instance_id) exists already, or when idstr is not 1 to 127
    // printable ASCII characters.
    Result<util::Registration> add(SaveVMHandlers& handlers);
    // A plain device: its state is read and written on the main loop thread, while stopped.
    // `object` is of the type that `description` was made for. idstr = "path/name" or "name".
    Result<util::Registration> add_vmstate(std::string_view path,
                                           const VMStateDescription& description, void* object,
                                           uint32_t instance_id = 0);

    const std::vector<std::unique_ptr<Entry>>& entries() const { return entries_; }
    Entry* find(std::string_view idstr, uint32_t instance_id) const;
    system::MainLoop& loop() const { return loop_; }
    util::Tracer* trace() const { return trace_; }

 private:
    Result<util::Registration> insert(std::unique_ptr<Entry> entry);

    system::MainLoop& loop_;
    util::Tracer* trace_;
    std::vector<std::unique_ptr<Entry>> entries_;
    uint32_t next_section_id_ = 0;
};

// --- Writing a stream, in the order of the functions. `out` is flushed by the caller.

using Uuid = std::array<std::byte, 16>;  // in the order of its text

// The configuration section.
struct StreamIdentity {
    std::string machine_name;
    // Source: sent when there is one. Destination: compared when both have one.
    std::optional<Uuid> uuid = std::nullopt;
};
void save_header(SaveStream& out, const StreamIdentity& identity);
void save_command(SaveStream& out, Command command, ConstBytes payload = {});
// Frames one body: header, body, footer; the first error of body or stream.
Result<> save_section(SaveStream& out, const SaveVMRegistry::Entry& entry, SectionKind kind,
                      const std::function<Result<>(SaveStream&)>& body);
// All FULL sections in order. Hops to the main loop once, where all plain devices write their state
// into memory. Returns the VMDESCRIPTION of what was written.
Result<std::string> save_one_shot_states(SaveStream& out, const SaveVMRegistry& registry,
                                         const StreamIdentity& identity);
// EOF. A destination that was not asked to wait may start the VM when it has it.
void save_end(SaveStream& out);
// What tools read behind it.
void save_description(SaveStream& out, const SaveVMRegistry& registry,
                      std::string_view description);

// --- Reading one.

// The element loop's callbacks to whoever owns the session.
class LoadEvents {
 public:
    virtual ~LoadEvents() = default;
    virtual Result<> open_return_path() = 0;
    virtual Result<> ping(uint32_t value) = 0;
    virtual Result<> switchover_start() = 0;
    // Once, before the first section is read (or the end, when there is none).
    virtual Result<> first_section() = 0;
};
// An Error is no stream of ours at all. A refusal is one that this VM can't load: it comes before
// the source can be told, so that the caller reads on up to LoadEvents::first_section.
Result<std::optional<Error>> load_header(LoadStream& in, const StreamIdentity& identity);
// Elements up to and with EOF, then the VMDESCRIPTION that every sender of ours and QEMU's
// default machine types append; what follows EOF and is none is left to the caller. The body of a
// plain device is read here and applied on the main loop, which never waits for the peer.
Result<> load_elements(LoadStream& in, SaveVMRegistry& registry, LoadEvents& events);

}  // namespace ferry::migration
