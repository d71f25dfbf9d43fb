// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/hmp-session.h"

#include <algorithm>
#include <utility>

namespace ferry::monitor {

namespace {
constexpr std::string_view kPrompt = "(qemu) ";
}  // namespace

HmpSession::HmpSession(Hmp& hmp, FdSets& fd_sets, std::string greeting,
                       std::unique_ptr<MonitorTransport> transport)
    : hmp_(hmp), greeting_(std::move(greeting)), transport_(std::move(transport)), fds_(fd_sets) {
    transport_->start(*this);
}

void HmpSession::print(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '\n') out += '\r';
        out += c;
    }
    transport_->send(out);
}

void HmpSession::opened() {
    print(greeting_ + "\n");
    transport_->send(kPrompt);
}

void HmpSession::closed() {
    client_ = std::make_shared<int>(0);
    input_.clear();
    state_ = State::Ready;
}

void HmpSession::received(ConstBytes bytes, std::vector<UniqueFd> fds) {
    for (const std::byte byte : bytes) input_ += static_cast<char>(byte);
    if (!fds.empty()) fds_.passed(std::move(fds));
    work();
}

void HmpSession::drained() {
    work();
}

void HmpSession::work() {
    while (state_ == State::Ready && transport_->backlog_bytes() == 0) {
        const size_t end = input_.find('\n');
        if (end == std::string::npos) break;
        const std::string line = input_.substr(0, end);  // a CR before it is a blank
        input_.erase(0, end + 1);
        state_ = State::RunningCommand;
        hmp_.run(line, HmpSource::Interactive, fds_,
                 [this, weak = std::weak_ptr(client_)](const std::string& text) {
                     if (weak.expired()) return;
                     print(text);
                     transport_->send(kPrompt);
                     state_ = State::Ready;
                     work();
                 });
    }
    if (state_ == State::Ready && input_.size() > kMaxHmpLineBytes &&
        input_.find('\n') == std::string::npos) {
        input_.clear();
        print("line too long\n");
        transport_->send(kPrompt);
    }
    // What else the person types waits in the terminal or socket.
    transport_->set_reading(state_ == State::Ready ? MonitorTransport::Reading::On
                                                   : MonitorTransport::Reading::Off);
}

}  // namespace ferry::monitor
