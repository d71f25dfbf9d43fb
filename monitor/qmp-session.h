// SPDX-License-Identifier: BSD-2-Clause
// One QMP monitor: greeting, negotiation, requests in and replies out, in order. Main loop thread
// only. See docs/devel/monitor.rst; the protocol is in docs/interop/qmp-reference.rst.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/command.h"
#include "monitor/fd-table.h"
#include "monitor/json.h"
#include "monitor/transport.h"

namespace ferry::monitor {

// Requests read ahead of the one that is being answered; the client's bytes wait in its socket.
inline constexpr size_t kMaxWaitingRequests = 8;
// With more output than this waiting no request is begun.
inline constexpr size_t kBusyOutputBytes = 64 * 1024;

class QmpSession final : private MonitorUser {
 public:
    // `commands` and `fd_sets` outlive the session. `version`: query-version's answer, for the
    // greeting.
    QmpSession(const CommandTable& commands, FdSets& fd_sets, Json version,
               std::unique_ptr<MonitorTransport> transport, Layout layout);
    ~QmpSession() override = default;

    // Dropped before the client has negotiated.
    void send_event(const Json& event);
    // Answers every request that has begun and not been answered; their own answers are dropped.
    void abandon_waiting(const Error& why);

 private:
    enum class Negotiation : uint8_t { NotYet, Done };
    enum class Band : uint8_t { InOrder, OutOfBand };
    // One request, from its last byte to its reply.
    struct Request {
        std::optional<Json> id;
        Band band = Band::InOrder;
        std::string command;
        Json arguments;
        std::vector<UniqueFd> fds;
        enum class State : uint8_t { Waiting, Running, Answered } state = State::Waiting;
        Outcome outcome;  // once Answered
    };
    using RequestPtr = std::shared_ptr<Request>;

    void opened() override;
    void received(ConstBytes bytes, std::vector<UniqueFd> fds) override;
    void drained() override;
    void closed() override;

    void work();
    bool read_request();
    void add_request(const Result<std::string>& text);
    void run_out_of_band(const RequestPtr& request);
    void run(const RequestPtr& request);
    void answered(const std::weak_ptr<Request>& request, Outcome outcome);
    void send_reply(const Request& request);
    Result<> check_envelope(const Json& message) const;
    void negotiate(const Request& request, Reply reply);
    void forget_client();
    void send_line(const Json& message);

    const CommandTable& commands_;
    Json version_;
    std::unique_ptr<MonitorTransport> transport_;
    Layout layout_;
    Negotiation negotiation_ = Negotiation::NotYet;
    MonitorFds fds_;
    util::Registration connected_;  // with the sets, while a client is there
    JsonFramer framer_;
    std::vector<std::byte> input_;           // received and not looked at
    std::vector<UniqueFd> arriving_;         // belong to the next request to be complete
    std::deque<RequestPtr> requests_;        // in order; the first is the one to be answered next
    OutOfBand out_of_band_ = OutOfBand::No;  // as negotiated
    std::set<RequestPtr> overtaking_;        // out of band and not answered
    bool working_ = false;                   // work() is on the stack
};

}  // namespace ferry::monitor
