// SPDX-License-Identifier: BSD-2-Clause
// The migration state machine and the data sessions in front of a device model: paths, which arc
// opens, keeps and ends a session, and what a stream of an ended one answers. The kernel's rules.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "hw/device-model.h"
#include "hw/vfio/vfio-device-io.h"
#include "util/env.h"

namespace ferry::vfio {

// Lets callers in one after another, in the order in which they came: a thread that reads device
// data in a loop must not keep the one out that stops the device.
class CallQueue {
 public:
    void lock() {
        std::unique_lock lock(mutex_);
        const uint64_t number = next_++;
        turn_.wait(lock, [&] { return serving_ == number; });
    }
    void unlock() {
        {
            const std::lock_guard lock(mutex_);
            ++serving_;
        }
        turn_.notify_all();
    }

 private:
    std::mutex mutex_;
    std::condition_variable turn_;
    uint64_t next_ = 0;
    uint64_t serving_ = 0;
};

// Thread-safe.
class SoftSessions : public std::enable_shared_from_this<SoftSessions> {
 public:
    SoftSessions(std::unique_ptr<hw::DeviceModel> model, util::Env& env, std::string name);

    MigCaps caps() const { return caps_; }
    MigState state() const { return state_; }  // the last one reached, also while an arc goes on
    Result<std::unique_ptr<MigDataStream>> set_state(MigState next);
    Result<uint64_t> stop_copy_bytes();
    Result<> reset();
    // The model goes; streams that are left answer that their session is over.
    void close();

 private:
    class Stream;
    using SessionId = uint64_t;
    static constexpr SessionId kNoSession = 0;

    Result<MigDataStream::Read> read(SessionId session, MutBytes into);
    Result<size_t> write(SessionId session, ConstBytes from);
    Result<PrecopyInfo> precopy_info(SessionId session);

    // With one_call_ held.
    Result<> take_arc(MigState next);
    void enter(MigState next);
    Result<> check_alive(SessionId session) const;

    util::Env& env_;
    const std::string name_;
    const MigCaps caps_;
    std::atomic<MigState> state_ = MigState::Running;  // written with one_call_ held

    CallQueue one_call_;  // held while the model works, however long that takes
    std::unique_ptr<hw::DeviceModel> model_;
    SessionId session_ = kNoSession;
    SessionId last_session_ = kNoSession;
};

}  // namespace ferry::vfio
