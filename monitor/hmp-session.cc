// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/hmp-session.h"

#include <utility>

namespace ferry::monitor {

namespace {
constexpr std::string_view kPrompt = "(qemu) ";
}  // namespace

HmpSession::HmpSession(Hmp& hmp, FdSets& fd_sets, std::string greeting,
                       std::unique_ptr<MonitorTransport> transport, Editing editing)
    : hmp_(hmp), greeting_(std::move(greeting)), transport_(std::move(transport)), fds_(fd_sets) {
    if (editing == Editing::BySession) {
        editor_.emplace(std::string(kPrompt),
                        [&hmp](std::string_view line) { return hmp.complete(line); });
    }
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
    if (editor_) editor_->forget_line();
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
    // A command that answers at once comes back here: the loop goes on by itself. Were it begun
    // anew, many lines would take much stack, and a line would be asked for twice.
    if (working_) return;
    working_ = true;
    while (state_ == State::Ready && transport_->backlog_bytes() == 0 && !input_.empty()) {
        const auto line = next_line();
        if (!line) break;
        run(*line);
    }
    working_ = false;
    // What else the person types waits in the terminal or socket, also while nobody reads what we
    // have to say.
    const bool ready = state_ == State::Ready && transport_->backlog_bytes() == 0;
    transport_->set_reading(ready ? MonitorTransport::Reading::On : MonitorTransport::Reading::Off);
}

std::optional<std::string> HmpSession::next_line() {
    if (editor_) return next_edited_line();
    const size_t end = input_.find('\n');
    if (end == std::string::npos) return std::nullopt;
    std::string line = input_.substr(0, end);
    input_.erase(0, end + 1);
    return line;
}

// The echo of one line is many times as long as the line: it stops where the client doesn't read.
std::optional<std::string> HmpSession::next_edited_line() {
    size_t used = 0;
    std::optional<std::string> line;
    while (!line && used < input_.size() && transport_->backlog_bytes() == 0) {
        ReadLine::Step step = editor_->type(input_[used++]);
        transport_->send(step.echo);
        if (step.line && step.length == ReadLine::Step::Length::TooLong) {
            print("line too long\n");
            transport_->send(kPrompt);
        } else {
            line = std::move(step.line);
        }
    }
    input_.erase(0, used);
    return line;
}

void HmpSession::run(const std::string& line) {
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

}  // namespace ferry::monitor
