// SPDX-License-Identifier: BSD-2-Clause
// DeviceState: where one device is in the migration state machine, which data session it has open,
// and what is done when a change fails. The only caller of set_mig_state, mig_state and reset.
// docs/devel/vfio-migration.rst, "When a change fails".
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "hw/vfio/migration-internal.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/env.h"

namespace ferry::vfio {

// A data session: the image of one saving or loading, whole or worthless.
struct MigSession {
    std::shared_ptr<MigDataStream> stream;  // null: none is open
    uint64_t number = 0;                    // of this device's sessions, the first is 1
};

// Where the device has to be when no migration holds it in a session.
enum class VmActivity : uint8_t { Stopped, Running };

// The state that remains of `state` when its session is over.
MigState without_session(MigState state);
constexpr bool is_pre_copy(MigState state) {
    return state == MigState::PreCopy || state == MigState::PreCopyP2P;
}

class DeviceState {
 public:
    // Called on the device's worker.
    class Listener {
     public:
        virtual ~Listener() = default;
        virtual void state_changed(MigState state) = 0;  // Error never; see device_broken
        virtual void device_broken(const std::string& reason) = 0;
        virtual void device_repaired() = 0;
    };

    // `status->state` holds where the device is now.
    DeviceState(VfioDeviceIo& io, util::Env& env, std::shared_ptr<DeviceStatus> status,
                VmActivity vm, Listener& listener);

    // Any thread.
    MigState state() const { return status_->state.load(std::memory_order_acquire); }
    bool broken() const { return state() == MigState::Error; }
    MigSession session() const;
    std::string why_session_ended() const;
    // InvalidState, with the remedy, for a broken device.
    Result<> check_usable() const;

    // The device's worker. `why` is for traces and for the person who asks why a session ended.

    // On an Error the device is in its former state, or where the driver left it, or reset, or
    // broken: state() tells. Sessions that the change ends are closed.
    Result<> set_state(MigState next, std::string_view why);
    // Afterwards RUNNING, or STOP when the VM is stopped; broken when it fails.
    Result<> reset(std::string_view why);
    // Somebody else reset the device: finds out where it is and brings it where the VM is.
    void was_reset_by_others();
    // After the open session's stream failed: whether the session is still the same one.
    bool session_lives(uint64_t number);
    void set_vm(VmActivity vm) { vm_ = vm; }
    VmActivity vm() const { return vm_; }
    MigState resting_state() const {
        return vm_ == VmActivity::Running ? MigState::Running : MigState::Stop;
    }

 private:
    enum class Held : uint8_t { Alive, Dead };  // the session, after a change went wrong

    Result<std::unique_ptr<MigDataStream>> drive(MigState next);
    Result<> drive_reset();
    Result<MigState> ask();
    Result<> accept(MigState former, MigState next, std::unique_ptr<MigDataStream> stream,
                    std::string_view why);
    Error recover(MigState former, Held held, Error error);
    void reset_after(Error& error);
    Result<> rest_after_reset();
    Result<> find_out(std::string_view why);
    void arrive(MigState state, std::string_view why);
    void mark_broken(std::string reason);
    void begin_session(std::unique_ptr<MigDataStream> stream);
    void end_session(std::string_view why);

    VfioDeviceIo& io_;
    util::Env& env_;
    const std::shared_ptr<DeviceStatus> status_;
    Listener& listener_;
    VmActivity vm_;  // worker

    mutable std::mutex mutex_;  // never held across a driver's call
    MigSession session_;        // guarded, as what follows
    std::string why_ended_;
    std::string broken_reason_;
};

}  // namespace ferry::vfio
