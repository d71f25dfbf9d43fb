// SPDX-License-Identifier: BSD-2-Clause
// Commands of the monitor: their table, and the reply that each one owes. QMP and HMP run the same
// commands. Main loop thread only. See docs/devel/monitor.rst.
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "monitor/fd-table.h"
#include "monitor/json.h"
#include "monitor/schema.h"
#include "system/runstate.h"
#include "util/result.h"

namespace ferry::monitor {

enum class ErrorClass : uint8_t { GenericError, CommandNotFound, DeviceNotActive, DeviceNotFound };
std::string_view to_string(ErrorClass error_class);

struct CommandError {
    ErrorClass error_class = ErrorClass::GenericError;
    std::string desc;
};
using Outcome = std::expected<Json, CommandError>;

// The answer a command gives once, at once or later. One that is forgotten answers with an error
// when it goes, so that no client waits for ever.
class Reply {
 public:
    using Deliver = std::move_only_function<void(Outcome)>;

    explicit Reply(Deliver deliver) : deliver_(std::move(deliver)) {}
    Reply(Reply&& other) noexcept : deliver_(std::exchange(other.deliver_, nullptr)) {}
    Reply& operator=(Reply&&) = delete;
    ~Reply();

    void ok(Json value = Json::object()) && { std::move(*this).deliver(std::move(value)); }
    void fail(const Error& error) && { std::move(*this).fail(ErrorClass::GenericError, error); }
    void fail(ErrorClass error_class, const Error& error) &&;
    void finish(const Result<>& result) &&;
    void deliver(Outcome outcome) &&;
    // For work that calls back.
    system::Done as_done() &&;

 private:
    Deliver deliver_;
};

// What a command runs with. Valid until the handler returns.
struct Invocation {
    const Json& arguments;  // an object that fits the command's schema
    MonitorFds& fds;        // of the monitor it came from
};

// When a monitor that still waits for a reply runs the command.
enum class Timing : uint8_t {
    InOrder,   // after that reply
    WhenRead,  // at once: it may be what ends the waiting. Its reply still comes in order
};

// Whether exec-oob may run it: at once, its reply overtaking all others. It must not wait.
enum class OutOfBand : uint8_t { No, Yes };

struct Command {
    using Handler = std::function<void(const Invocation&, Reply)>;

    std::string name;
    std::vector<Member> arguments;
    Handler handler;
    Timing timing = Timing::InOrder;
    OutOfBand out_of_band = OutOfBand::No;
    Schema returns = Schema::object({});  // only told, by query-qmp-schema
    Beyond beyond = Beyond::Refused;      // arguments that `arguments` does not name
    Stability stability = Stability::Stable;
};

class CommandTable {
 public:
    void add(Command command);  // replaces one of the same name
    const Command* find(std::string_view name) const;
    std::vector<std::string> names() const;  // sorted
    const std::map<std::string, Command, std::less<>>& all() const { return commands_; }

    // Refuses an unknown command and arguments that do not fit; else runs the handler.
    void execute(std::string_view name, const Json& arguments, MonitorFds& fds, Reply reply) const;

 private:
    std::map<std::string, Command, std::less<>> commands_;
};

}  // namespace ferry::monitor
