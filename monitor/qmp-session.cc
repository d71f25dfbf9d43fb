// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/qmp-session.h"

#include <utility>

#include "util/try.h"

namespace ferry::monitor {

namespace {

Outcome failure(ErrorClass error_class, std::string desc) {
    return std::unexpected(CommandError{error_class, std::move(desc)});
}
Outcome failure(const Error& error) {
    return failure(ErrorClass::GenericError, error.message());
}

Error bad_envelope(std::string text) {
    return {ErrorKind::InvalidArgument, std::move(text)};
}

const std::vector<Member>& negotiation_schema() {
    static const std::vector<Member> schema{
        {"enable", Schema::array_of(Schema::enumeration({"oob"})), Presence::Optional}};
    return schema;
}

}  // namespace

QmpSession::QmpSession(const CommandTable& commands, FdSets& fd_sets, Json version,
                       std::unique_ptr<MonitorTransport> transport, Layout layout)
    : commands_(commands),
      version_(std::move(version)),
      transport_(std::move(transport)),
      layout_(layout),
      fds_(fd_sets) {
    transport_->start(*this);
}

void QmpSession::send_line(const Json& message) {
    // Line feeds within strings are escaped: those that are left end lines of a pretty layout.
    std::string text;
    for (const char c : to_text(message, layout_) + '\n') {
        if (c == '\n') text += '\r';
        text += c;
    }
    transport_->send(text);
}

void QmpSession::opened() {
    connected_ = fds_.sets().client();
    send_line({{"QMP", {{"version", version_}, {"capabilities", Json::array({"oob"})}}}});
}

void QmpSession::closed() {
    connected_.reset();
    forget_client();
}

void QmpSession::forget_client() {
    negotiation_ = Negotiation::NotYet;
    out_of_band_ = OutOfBand::No;
    overtaking_.clear();
    framer_.reset();
    input_.clear();
    arriving_.clear();
    requests_.clear();  // what is running answers into the void
}

void QmpSession::received(ConstBytes bytes, std::vector<UniqueFd> fds) {
    input_.insert(input_.end(), bytes.begin(), bytes.end());
    if (!fds.empty()) arriving_ = std::move(fds);
    work();
}

void QmpSession::drained() {
    work();
}

// Reads, runs and answers as much as possible.
void QmpSession::work() {
    if (working_) return;  // a command answered before it returned: the loop below goes on
    working_ = true;
    bool progress = true;
    while (progress) {
        progress = read_request();
        if (requests_.empty() || transport_->backlog_bytes() > kBusyOutputBytes) continue;
        const RequestPtr first = requests_.front();
        if (first->state == Request::State::Waiting) run(first);
        // Running a command may have lost us the client.
        if (first->state == Request::State::Answered && !requests_.empty() &&
            requests_.front() == first) {
            requests_.pop_front();
            send_reply(*first);
            progress = true;
        }
    }
    working_ = false;
    transport_->set_reading(requests_.size() < kMaxWaitingRequests
                                ? MonitorTransport::Reading::On
                                : MonitorTransport::Reading::Off);
}

bool QmpSession::read_request() {
    if (requests_.size() >= kMaxWaitingRequests) return false;
    ConstBytes rest = input_;
    const auto text = framer_.next(rest);
    input_.erase(input_.begin(), input_.end() - static_cast<ptrdiff_t>(rest.size()));
    if (!text) return false;
    add_request(*text);
    return true;
}

void QmpSession::add_request(const Result<std::string>& text) {
    auto request = std::make_shared<Request>();
    request->fds = std::exchange(arriving_, {});
    const auto refuse = [&](const Error& why) {
        request->outcome = failure(why);
        request->state = Request::State::Answered;
        requests_.push_back(request);
    };
    if (!text) return refuse(text.error());
    auto message = parse_json(*text);
    if (!message) return refuse(message.error());
    if (!message->is_object()) return refuse(bad_envelope("QMP input must be a JSON object"));
    if (message->contains("id")) request->id = (*message)["id"];
    if (auto good = check_envelope(*message); !good) return refuse(good.error());

    if (message->contains("exec-oob")) request->band = Band::OutOfBand;
    request->command =
        (*message)[request->band == Band::InOrder ? "execute" : "exec-oob"].get<std::string>();
    request->arguments = message->value("arguments", Json::object());
    if (request->band == Band::OutOfBand) return run_out_of_band(request);
    requests_.push_back(request);
    const Command* command = commands_.find(request->command);
    if (requests_.size() > 1 && negotiation_ == Negotiation::Done && command != nullptr &&
        command->timing == Timing::WhenRead) {
        run(request);
    }
}

// The envelope without looking at the command.
Result<> QmpSession::check_envelope(const Json& message) const {
    const char* command = nullptr;
    for (const auto& entry : message.items()) {
        const bool out_of_band = entry.key() == "exec-oob" && out_of_band_ == OutOfBand::Yes;
        if (entry.key() == "execute" || out_of_band) {
            if (!entry.value().is_string()) {
                return bad_envelope(
                    fmt::format("QMP input member '{}' must be a string", entry.key()));
            }
            if (command != nullptr) {
                return bad_envelope(
                    fmt::format("QMP input member '{}' clashes with '{}'", entry.key(), command));
            }
            command = out_of_band ? "exec-oob" : "execute";
        } else if (entry.key() == "arguments") {
            if (!entry.value().is_object()) {
                return bad_envelope("QMP input member 'arguments' must be an object");
            }
        } else if (entry.key() != "id") {
            return bad_envelope(fmt::format("QMP input member '{}' is unexpected", entry.key()));
        }
    }
    if (command == nullptr) return bad_envelope("QMP input lacks member 'execute'");
    return {};
}

void QmpSession::run_out_of_band(const RequestPtr& request) {
    overtaking_.insert(request);
    const Command* command = commands_.find(request->command);
    if (command != nullptr && command->out_of_band == OutOfBand::No) {
        return answered(request,
                        failure(ErrorClass::GenericError,
                                fmt::format("The command {} does not support OOB", command->name)));
    }
    run(request);
}

void QmpSession::run(const RequestPtr& request) {
    request->state = Request::State::Running;
    Reply reply([this, weak = std::weak_ptr(request)](Outcome outcome) {
        answered(weak, std::move(outcome));
    });
    if (!request->fds.empty()) fds_.passed(std::move(request->fds));
    if (request->command == "qmp_capabilities") return negotiate(*request, std::move(reply));
    if (negotiation_ == Negotiation::NotYet) {
        return std::move(reply).fail(
            ErrorClass::CommandNotFound,
            bad_envelope("Expecting capabilities negotiation with 'qmp_capabilities'"));
    }
    commands_.execute(request->command, request->arguments, fds_, std::move(reply));
}

void QmpSession::negotiate(const Request& request, Reply reply) {
    if (auto good = check_members(negotiation_schema(), request.arguments, ""); !good) {
        return std::move(reply).fail(good.error());
    }
    if (negotiation_ == Negotiation::Done) {
        return std::move(reply).fail(
            ErrorClass::CommandNotFound,
            bad_envelope("Capabilities negotiation is already complete, command ignored"));
    }
    if (!request.arguments.value("enable", Json::array()).empty()) out_of_band_ = OutOfBand::Yes;
    negotiation_ = Negotiation::Done;
    std::move(reply).ok();
}

// A request whose client or session is gone has expired; then `this` may be gone, too.
void QmpSession::answered(const std::weak_ptr<Request>& weak, Outcome outcome) {
    const RequestPtr request = weak.lock();
    if (!request || request->state == Request::State::Answered) return;
    request->outcome = std::move(outcome);
    request->state = Request::State::Answered;
    if (overtaking_.erase(request) != 0) return send_reply(*request);
    work();
}

void QmpSession::abandon_waiting(const Error& why) {
    const std::set<RequestPtr> overtaking = overtaking_;
    for (const RequestPtr& request : overtaking) answered(request, failure(why));
    for (const RequestPtr& request : requests_) {
        if (request->state == Request::State::Answered) continue;
        request->outcome = failure(why);
        request->state = Request::State::Answered;
    }
    work();
}

void QmpSession::send_reply(const Request& request) {
    Json message;
    if (request.outcome) {
        message["return"] = *request.outcome;
    } else {
        message["error"] = {{"class", to_string(request.outcome.error().error_class)},
                            {"desc", request.outcome.error().desc}};
    }
    if (request.id) message["id"] = *request.id;
    send_line(message);
}

void QmpSession::send_event(const Json& event) {
    if (negotiation_ == Negotiation::Done) send_line(event);
}

}  // namespace ferry::monitor
