// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/command.h"

#include <utility>

#include "util/try.h"

namespace ferry::monitor {

std::string_view to_string(ErrorClass error_class) {
    switch (error_class) {
        case ErrorClass::GenericError: return "GenericError";
        case ErrorClass::CommandNotFound: return "CommandNotFound";
        case ErrorClass::DeviceNotActive: return "DeviceNotActive";
        case ErrorClass::DeviceNotFound: return "DeviceNotFound";
    }
    return "GenericError";
}

Reply::~Reply() {
    if (deliver_) {
        std::move(*this).fail(
            make_error(ErrorKind::Cancelled, "the command was given up without an answer"));
    }
}

void Reply::fail(ErrorClass error_class, const Error& error) && {
    std::move(*this).deliver(std::unexpected(CommandError{error_class, error.message()}));
}

void Reply::finish(const Result<>& result) && {
    if (result) {
        std::move(*this).ok();
    } else {
        std::move(*this).fail(result.error());
    }
}

void Reply::deliver(Outcome outcome) && {
    if (auto deliver = std::exchange(deliver_, nullptr)) deliver(std::move(outcome));
}

system::Done Reply::as_done() && {
    return [reply = std::move(*this)](Result<> result) mutable { std::move(reply).finish(result); };
}

void CommandTable::add(Command command) {
    std::string name = command.name;
    commands_.insert_or_assign(std::move(name), std::move(command));
}

const Command* CommandTable::find(std::string_view name) const {
    const auto found = commands_.find(name);
    return found == commands_.end() ? nullptr : &found->second;
}

std::vector<std::string> CommandTable::names() const {
    std::vector<std::string> names;
    for (const auto& [name, command] : commands_) names.push_back(name);
    return names;
}

void CommandTable::execute(std::string_view name, const Json& arguments, MonitorFds& fds,
                           Reply reply) const {
    const Command* command = find(name);
    if (command == nullptr) {
        return std::move(reply).fail(
            ErrorClass::CommandNotFound,
            make_error(ErrorKind::InvalidArgument, "The command {} has not been found", name));
    }
    if (auto fits = check_members(command->arguments, arguments, "", command->beyond); !fits) {
        return std::move(reply).fail(fits.error());
    }
    command->handler({arguments, fds}, std::move(reply));
}

}  // namespace ferry::monitor
