// SPDX-License-Identifier: BSD-2-Clause
#include "migration/return-path.h"

#include <algorithm>
#include <array>

#include "util/thread.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {

namespace {

constexpr uint32_t kHelloMark = 0x4645'0000;   // in a PING: "do you know Ferry's extensions?"
constexpr uint32_t kAnswerMark = 0x4646'0000;  // in a PONG: "yes, these"
constexpr uint32_t kMarkMask = 0xffff'0000;

uint32_t to_bits(PeerFeatures features) {
    return (features.handover ? 1U : 0U) | (features.heartbeat ? 2U : 0U) |
           (features.discard ? 4U : 0U) | (features.reason ? 8U : 0U) |
           (features.config_size ? 16U : 0U) | (features.state_early ? 32U : 0U) |
           (features.state_parts ? 64U : 0U);
}

PeerFeatures from_bits(uint32_t bits) {
    return {.handover = (bits & 1) != 0,
            .heartbeat = (bits & 2) != 0,
            .discard = (bits & 4) != 0,
            .reason = (bits & 8) != 0,
            .config_size = (bits & 16) != 0,
            .state_early = (bits & 32) != 0,
            .state_parts = (bits & 64) != 0};
}

// Payload length per type; FAILURE varies.
struct Shape {
    ReturnMessage type;
    std::string_view name;
    size_t length;
};
constexpr std::array kShapes = {
    Shape{ReturnMessage::Shut, "SHUT", 4},
    Shape{ReturnMessage::Pong, "PONG", 4},
    Shape{ReturnMessage::SwitchoverAck, "SWITCHOVER_ACK", 0},
    Shape{ReturnMessage::Ready, "READY", 0},
    Shape{ReturnMessage::Heartbeat, "HEARTBEAT", 0},
};

Result<> read_failure(LoadStream& in, size_t length, ReturnPathEvents& events) {
    constexpr size_t kFixed = 6;  // code and text length
    if (length < kFixed || length > kFixed + kMaxReason) {
        return make_error(ErrorKind::Protocol, "FAILURE message of {} bytes", length);
    }
    MIG_TRY(const uint32_t code, in.be32());
    MIG_TRY(const uint16_t text_length, in.be16());
    if (text_length != length - kFixed) {
        return make_error(ErrorKind::Protocol, "FAILURE message: text of {} bytes in {}",
                          text_length, length);
    }
    std::string text(text_length, '\0');
    MIG_CHECK(in.bytes(std::as_writable_bytes(std::span(text))));
    // It ends on somebody's terminal and in JSON.
    std::ranges::replace_if(
        text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
    events.rp_failure(code, std::move(text));
    return {};
}

// One message; true when it was the last.
Result<bool> read_message(LoadStream& in, ReturnPathEvents& events) {
    MIG_TRY(const uint16_t raw, in.be16());
    MIG_TRY(const uint16_t length, in.be16());
    if (length > kMaxReturnMessage) {
        return make_error(ErrorKind::LimitExceeded, "message {:#x} of {} bytes", raw, length);
    }
    const auto type = static_cast<ReturnMessage>(raw);
    if (type == ReturnMessage::Failure) {
        MIG_CHECK(read_failure(in, length, events));
        return false;
    }
    const auto shape = std::ranges::find(kShapes, type, &Shape::type);
    if (shape == kShapes.end()) {
        return make_error(ErrorKind::Protocol, "unexpected message type {:#x}", raw);
    }
    if (length != shape->length) {
        return make_error(ErrorKind::Protocol, "{} of {} bytes", shape->name, length);
    }
    uint32_t value = 0;
    if (length == 4) {
        MIG_TRY(value, in.be32());
    }
    switch (type) {
        case ReturnMessage::Shut: events.rp_shut(value); return true;
        case ReturnMessage::Pong: events.rp_pong(value); break;
        case ReturnMessage::SwitchoverAck: events.rp_switchover_ack(); break;
        case ReturnMessage::Ready: events.rp_ready(); break;
        case ReturnMessage::Heartbeat: break;  // having arrived is all it says
        case ReturnMessage::Failure:
        case ReturnMessage::ReqPagesId:
        case ReturnMessage::ReqPages:
        case ReturnMessage::RecvBitmap:
        case ReturnMessage::ResumeAck: break;  // refused above
    }
    return false;
}

}  // namespace

FailureCode failure_code(ErrorKind kind) {
    switch (kind) {
        case ErrorKind::Syscall: return FailureCode::DeviceRefused;
        case ErrorKind::Unsupported: return FailureCode::Unsupported;
        case ErrorKind::Protocol: return FailureCode::BadStream;
        case ErrorKind::LimitExceeded: return FailureCode::LimitExceeded;
        case ErrorKind::PeerClosed:
        case ErrorKind::PeerFailed: return FailureCode::ConnectionLost;
        case ErrorKind::Cancelled: return FailureCode::Cancelled;
        case ErrorKind::InvalidArgument:
        case ErrorKind::InvalidState:
        case ErrorKind::Internal: return FailureCode::Other;
    }
    return FailureCode::Other;
}

uint32_t hello_ping(PeerFeatures offered) {
    return kHelloMark | to_bits(offered);
}

std::optional<PeerFeatures> features_in_pong(uint32_t value) {
    if ((value & kMarkMask) == kAnswerMark) return from_bits(value & ~kMarkMask);
    if ((value & kMarkMask) == kHelloMark) return PeerFeatures{};  // an echo: not one of us
    return std::nullopt;
}

uint32_t pong_for(uint32_t ping, PeerFeatures supported, PeerFeatures& agreed) {
    if ((ping & kMarkMask) != kHelloMark) return ping;
    const uint32_t common = ping & ~kMarkMask & to_bits(supported);
    agreed = from_bits(common);
    return kAnswerMark | common;
}

Result<std::unique_ptr<ReturnPathReader>> ReturnPathReader::start(MigrationChannel& channel,
                                                                  ReturnPathEvents& events) {
    std::unique_ptr<ReturnPathReader> reader(new ReturnPathReader());
    MIG_TRY(reader->thread_,
            util::start_thread("mig/src/rp", [&channel, &events](const std::stop_token&) {
                LoadStream in(channel);
                for (;;) {
                    auto last = read_message(in, events);
                    if (!last) {
                        return events.rp_ended(
                            std::move(last).error().context("return path from the destination"));
                    }
                    if (*last) return events.rp_ended({});
                }
            }));
    return reader;
}

Result<std::unique_ptr<ReturnPathWriter>> ReturnPathWriter::start(MigrationChannel& channel,
                                                                  util::Env& env) {
    std::unique_ptr<ReturnPathWriter> writer(new ReturnPathWriter(channel, env));
    MIG_TRY(writer->thread_,
            util::start_thread("mig/dst/rp",
                               [raw = writer.get()](const std::stop_token&) { raw->loop(); }));
    return writer;
}

ReturnPathWriter::~ReturnPathWriter() {
    {
        const std::lock_guard lock(mutex_);
        closing_ = true;
    }
    wake_.notify_all();
}

void ReturnPathWriter::send(ReturnMessage type, ConstBytes payload) {
    util::WireWriter message;
    message.be16(static_cast<uint16_t>(type)).be16(static_cast<uint16_t>(payload.size()));
    message.bytes(payload);
    {
        const std::lock_guard lock(mutex_);
        queue_.push_back(message.take());
    }
    wake_.notify_all();
}

Result<> ReturnPathWriter::send_pong(uint32_t value) {
    {
        // All the rest is a handful of messages in an attempt.
        const std::lock_guard lock(mutex_);
        if (queue_.size() >= kMaxUnsentPongs) {
            return make_error(ErrorKind::LimitExceeded,
                              "the source sent {} PINGs without reading the answers",
                              queue_.size());
        }
    }
    std::array<std::byte, 4> raw{};
    util::store_be32(raw.data(), value);
    send(ReturnMessage::Pong, raw);
    return {};
}

void ReturnPathWriter::send_shut(uint32_t status) {
    std::array<std::byte, 4> raw{};
    util::store_be32(raw.data(), status);
    send(ReturnMessage::Shut, raw);
}

void ReturnPathWriter::send_failure(FailureCode code, std::string_view reason) {
    const std::string_view text = reason.substr(0, kMaxReason);
    util::WireWriter payload;
    payload.be32(static_cast<uint32_t>(code))
        .be16(static_cast<uint16_t>(text.size()))
        .bytes(bytes_of(text));
    send(ReturnMessage::Failure, payload.view());
}

void ReturnPathWriter::start_heartbeat() {
    {
        const std::lock_guard lock(mutex_);
        beat_ = Beat::On;
    }
    wake_.notify_all();
}

void ReturnPathWriter::loop() {
    auto last_sent = env_.clock.now();
    std::unique_lock lock(mutex_);
    for (;;) {
        if (queue_.empty() && closing_) return;
        const auto due = last_sent + kHeartbeatPeriod;
        if (queue_.empty() && beat_ == Beat::On && env_.clock.now() >= due) {
            util::WireWriter beat;
            beat.be16(static_cast<uint16_t>(ReturnMessage::Heartbeat)).be16(0);
            queue_.push_back(beat.take());
        }
        if (queue_.empty()) {
            if (beat_ == Beat::On) {
                env_.clock.wait_until(wake_, lock, due);
            } else {
                wake_.wait(lock);
            }
            continue;
        }
        const std::vector<std::byte> message = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        const std::array<ConstBytes, 1> parts{ConstBytes(message)};
        const Result<> sent = channel_.write_all(parts);
        last_sent = env_.clock.now();
        lock.lock();
        if (!sent) {
            // The load thread meets the same trouble on the main stream and reports it.
            queue_.clear();
            beat_ = Beat::Off;
            if (closing_) return;
        }
    }
}

}  // namespace ferry::migration
