// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferryctl/options.h"

#include <algorithm>
#include <array>

#include "util/arguments.h"
#include "util/try.h"

namespace ferry::ferryctl {

namespace {

struct ActionInfo {
    std::string_view name;
    Action action;
    std::string_view argument;  // what it wants, or empty
};
constexpr std::array kActions = {
    ActionInfo{"status", Action::Status, ""},
    ActionInfo{"stop", Action::Stop, ""},
    ActionInfo{"cont", Action::Cont, ""},
    ActionInfo{"quit", Action::Quit, ""},
    ActionInfo{"query-migrate", Action::QueryMigrate, ""},
    ActionInfo{"info", Action::Info, ""},
    ActionInfo{"cancel", Action::Cancel, ""},
    ActionInfo{"set", Action::Set, "NAME=VALUE"},
    ActionInfo{"qmp", Action::Qmp, "JSON"},
    ActionInfo{"migrate", Action::Migrate, "URI"},
};

Error usage(std::string text) {
    return {ErrorKind::InvalidArgument, std::move(text)};
}

Result<> add_parameter(Options& options, const std::string& text) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos || equals == 0) {
        return usage(fmt::format("--set wants NAME=VALUE, not '{}'", text));
    }
    options.parameters.emplace_back(text.substr(0, equals), text.substr(equals + 1));
    return {};
}

// Those that only migrate understands.
bool is_migrate_option(std::string_view name) {
    constexpr std::array<std::string_view, 8> kNames = {
        "-d",    "--destination", "--downtime-limit", "--max-bandwidth",
        "--set", "--cap",         "--no-progress",    "--svg"};
    return std::ranges::find(kNames, name) != kNames.end();
}

// Takes options and words from a list, one after another.
class Parser {
 public:
    explicit Parser(std::span<const std::string> arguments) : arguments_(arguments) {}

    Result<Options> parse() {
        while (auto item = arguments_.next()) {
            if (item->kind == util::ArgumentReader::Item::Kind::Word) {
                words_.push_back(std::move(item->text));
                continue;
            }
            if (is_migrate_option(item->text)) migrate_only_ = item->text;
            MIG_CHECK(apply(item->text));
            MIG_CHECK(arguments_.end_option());
        }
        if (done_) return options_;
        MIG_CHECK(choose_action());
        return options_;
    }

 private:
    Result<> apply(const std::string& name) {
        if (name == "-h" || name == "--help") {
            options_.action = Action::Help;
            done_ = true;
        } else if (name == "--version") {
            options_.action = Action::Version;
            done_ = true;
        } else if (name == "--json") {
            options_.format = Format::Json;
        } else if (name == "--no-progress") {
            options_.progress = Progress::Hidden;
        } else if (name == "-s" || name == "--socket") {
            MIG_TRY(options_.socket, arguments_.value());
        } else if (name == "--svg") {
            MIG_TRY(options_.svg, arguments_.value());
        } else if (name == "-d" || name == "--destination") {
            MIG_TRY(options_.destination, arguments_.value());
        } else if (name == "--downtime-limit" || name == "--max-bandwidth") {
            MIG_TRY(std::string text, arguments_.value());
            options_.parameters.emplace_back(name.substr(2), std::move(text));
        } else if (name == "--set") {
            MIG_TRY(const std::string text, arguments_.value());
            return add_parameter(options_, text);
        } else if (name == "--cap") {
            MIG_TRY(std::string text, arguments_.value());
            options_.capabilities.push_back(std::move(text));
        } else {
            return usage(fmt::format("unknown option '{}'", name));
        }
        return {};
    }

    Result<> choose_action() {
        if (words_.empty()) return usage("no command given");
        const auto found = std::ranges::find(kActions, words_.front(), &ActionInfo::name);
        if (found == kActions.end()) {
            return usage(fmt::format("unknown command '{}'", words_.front()));
        }
        options_.action = found->action;
        const size_t wanted = found->argument.empty() ? 1 : 2;
        if (words_.size() < wanted) {
            return usage(fmt::format("{} wants {}", found->name, found->argument));
        }
        if (words_.size() > wanted) {
            return usage(fmt::format("'{}' is one word too many", words_[wanted]));
        }
        if (wanted == 2) options_.argument = words_[1];
        if (options_.action == Action::Set && options_.argument.find('=') == std::string::npos) {
            return usage(fmt::format("set wants NAME=VALUE, not '{}'", options_.argument));
        }
        if (migrate_only_ && options_.action != Action::Migrate) {
            return usage(fmt::format("{} is for migrate only", *migrate_only_));
        }
        if (options_.socket.empty()) return usage("which VM? give its monitor with -s SOCKET");
        return {};
    }

    util::ArgumentReader arguments_;
    std::vector<std::string> words_;
    std::optional<std::string> migrate_only_;
    bool done_ = false;
    Options options_;
};

}  // namespace

Result<Options> parse_options(std::span<const std::string> arguments) {
    return Parser(arguments).parse();
}

std::string_view help_text() {
    return R"(Usage: ferryctl -s SOCKET [--json] COMMAND
Controls a VM by its QMP monitor.

  status            whether the VM runs, and how its migration is
  stop, cont        stop the VM, let it run; returns when that is done
  quit              end the VM's process
  info              how far its migration is, in one line
  query-migrate     all that the VM tells about its migration
  cancel            end the migration under way; the VM goes on here
  set NAME=VALUE    change a migration parameter, or switch a capability on or off
  qmp JSON          send one request, e.g. '{"execute": "query-name"}'; print what it returns
  migrate URI       move the VM to the destination that waits at URI; show how far it is, and
                    afterwards what the pause was spent on

  -s, --socket SOCKET     the monitor: a path, unix:PATH or tcp:HOST:PORT
  --json                  print JSON, for programs
  -h, --help; --version

Options of migrate:
  -d, --destination SOCKET
                          the destination's monitor; shows its part of the pause, too
  --downtime-limit MS     how long the pause may be
  --max-bandwidth BYTES   per second, before the pause; suffixes k, M, G
  --set NAME=VALUE        any other migration parameter; may be repeated
  --cap NAME              switch a capability on, at both ends if the destination is known; may
                          be repeated
  --no-progress           do not show how far it is
  --svg FILE              draw the pause, by device and step

URI: tcp:HOST:PORT, unix:PATH, exec:COMMAND, file:PATH.
Ctrl-C cancels the migration; a second one leaves it as it is: look with info, end it with cancel.

Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong command line.
)";
}

}  // namespace ferry::ferryctl
