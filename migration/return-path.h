// SPDX-License-Identifier: BSD-2-Clause
// The messages from the destination to the source, and the hello by which two Ferrys recognise
// each other. Bytes: docs/interop/stream-format.rst, "Return path" and "Ferry extensions".
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "migration/channel.h"
#include "migration/savevm.h"
#include "migration/stream.h"
#include "util/env.h"
#include "util/result.h"

namespace ferry::migration {

inline constexpr size_t kMaxReturnMessage = 512;  // payload bytes the source accepts
inline constexpr size_t kMaxReason = 400;         // bytes of text in FAILURE

enum class ReturnMessage : uint16_t {
    Shut = 1,
    Pong = 2,
    ReqPagesId = 3,
    ReqPages = 4,
    RecvBitmap = 5,
    ResumeAck = 6,
    SwitchoverAck = 7,
    // after the hello
    Ready = 0x4601,
    Heartbeat = 0x4602,
    Failure = 0x4603,
};

// The code in FAILURE: a number for programs, stable over versions (stream-format.rst).
enum class FailureCode : uint32_t {
    Other = 0,
    BadStream = 1,
    DeviceRefused = 2,
    Unsupported = 3,
    LimitExceeded = 4,
    ConnectionLost = 5,
    Cancelled = 6,
};
FailureCode failure_code(ErrorKind kind);

// The first PING's value; carries no meaning.
inline constexpr uint32_t kFirstPing = 1;
// A PING that only keeps the line alive.
inline constexpr uint32_t kKeepAlivePing = 0x4647'0000;
// Behind the setup of a VM with devices; its PONG says that the destination is through with that.
inline constexpr uint32_t kSetupPing = 0x4648'0000;
uint32_t hello_ping(PeerFeatures offered);
// The features in a PONG; nullopt for one that answers no hello.
std::optional<PeerFeatures> features_in_pong(uint32_t value);
// What a destination answers to a PING: the value, or to a hello the features both have.
uint32_t pong_for(uint32_t ping, PeerFeatures supported, PeerFeatures& agreed);
inline constexpr PeerFeatures kOurFeatures{.handover = true,
                                           .heartbeat = true,
                                           .discard = true,
                                           .reason = true,
                                           .config_size = true,
                                           .state_early = true,
                                           .state_parts = true};

// What the source learns. Called on the reader's thread.
class ReturnPathEvents {
 public:
    virtual ~ReturnPathEvents() = default;
    virtual void rp_pong(uint32_t value) = 0;
    virtual void rp_switchover_ack() = 0;
    virtual void rp_ready() = 0;
    virtual void rp_failure(uint32_t code, std::string reason) = 0;
    virtual void rp_shut(uint32_t status) = 0;
    // Nothing follows. Success after SHUT, else what broke.
    virtual void rp_ended(Result<> how) = 0;
};

// Reads until SHUT, an error, or the channel's shutdown. The thread is joined by the destructor:
// shut the channel down before.
class ReturnPathReader {
 public:
    static Result<std::unique_ptr<ReturnPathReader>> start(MigrationChannel& channel,
                                                           ReturnPathEvents& events);

 private:
    ReturnPathReader() = default;
    std::jthread thread_;
};

// Sends from a thread of its own, so that a heartbeat needs nobody's help and nobody waits for a
// slow source. Any thread may send.
class ReturnPathWriter {
 public:
    static Result<std::unique_ptr<ReturnPathWriter>> start(MigrationChannel& channel,
                                                           util::Env& env);
    ~ReturnPathWriter();  // sends what is queued, unless the channel was shut down
    ReturnPathWriter(const ReturnPathWriter&) = delete;
    ReturnPathWriter& operator=(const ReturnPathWriter&) = delete;

    void send(ReturnMessage type, ConstBytes payload = {});
    // LimitExceeded when the source asks on and on without reading the answers.
    Result<> send_pong(uint32_t value);
    void send_shut(uint32_t status);
    void send_failure(FailureCode code, std::string_view reason);
    // From now on a HEARTBEAT goes out whenever kHeartbeatPeriod passed.
    void start_heartbeat();

    static constexpr util::Nanoseconds kHeartbeatPeriod = std::chrono::milliseconds(250);
    static constexpr size_t kMaxUnsentPongs = 64;

 private:
    ReturnPathWriter(MigrationChannel& channel, util::Env& env) : channel_(channel), env_(env) {}
    void loop();

    MigrationChannel& channel_;
    util::Env& env_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::vector<std::byte>> queue_;
    enum class Beat : uint8_t { Off, On } beat_ = Beat::Off;
    bool closing_ = false;
    std::jthread thread_;
};

}  // namespace ferry::migration
