// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferryctl/run.h"

#include <ostream>

#include "tools/ferryctl/migrate.h"
#include "tools/ferryctl/options.h"
#include "tools/ferryctl/progress.h"
#include "tools/ferryctl/qmp-link.h"
#include "util/try.h"

namespace ferry::ferryctl {

namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kWrongUse = 2;

void print(Console& console, const Json& value, Format format) {
    const auto layout = format == Format::Json ? monitor::Layout::Line : monitor::Layout::Pretty;
    console.out << monitor::to_text(value, layout) << "\n";
}

Result<> status(const Options& options, QmpLink& link, Console& console) {
    MIG_TRY(const Json state, link.call("query-status"));
    MIG_TRY(const Json migration, link.call("query-migrate"));
    const std::string progress = text_of(migration, "status");
    if (options.format == Format::Json) {
        Json out = state;
        if (!progress.empty()) out["migration"] = progress;
        print(console, out, Format::Json);
        return {};
    }
    console.out << "VM: " << text_of(state, "status", "?") << "\n";
    if (!progress.empty()) console.out << "migration: " << progress << "\n";
    if (const std::string why = text_of(migration, "error-desc"); !why.empty()) {
        console.out << "reason: " << why << "\n";
    }
    return {};
}

// A command without arguments; its answer matters only to programs.
Result<> plain(const Options& options, QmpLink& link, Console& console, std::string_view command) {
    MIG_TRY(const Json answer, link.call(command));
    if (options.format == Format::Json) print(console, answer, Format::Json);
    return {};
}

Result<> info(const Options& options, QmpLink& link, Console& console) {
    MIG_TRY(const Json answer, link.call("query-migrate"));
    if (options.format == Format::Json) {
        print(console, answer, Format::Json);
    } else {
        console.out << progress_line(answer) << "\n";
    }
    return {};
}

// A capability, or else a parameter.
Result<> set(const Options& options, QmpLink& link) {
    const size_t equals = options.argument.find('=');
    const std::string name = options.argument.substr(0, equals);
    const Json value = value_from_text(options.argument.substr(equals + 1));
    MIG_TRY(const Json capabilities, link.call("query-migrate-capabilities"));
    for (const Json& entry : capabilities) {
        if (text_of(entry, "capability") != name) continue;
        const Json change = {{"capability", name}, {"state", value}};
        MIG_CHECK(link.call("migrate-set-capabilities", {{"capabilities", Json::array({change})}}));
        return {};
    }
    MIG_CHECK(link.call("migrate-set-parameters", {{name, value}}));
    return {};
}

Result<> act(const Options& options, Console& console) {
    Json request;
    if (options.action == Action::Qmp) {
        MIG_TRY(request, monitor::parse_json(options.argument));
    }
    MIG_TRY(const auto link, QmpLink::connect(options.socket, console.try_again));
    switch (options.action) {
        case Action::Help:
        case Action::Version: return {};
        case Action::Status: return status(options, *link, console);
        case Action::Stop: return plain(options, *link, console, "stop");
        case Action::Cont: return plain(options, *link, console, "cont");
        case Action::Quit: return plain(options, *link, console, "quit");
        case Action::Info: return info(options, *link, console);
        case Action::Cancel: return plain(options, *link, console, "migrate_cancel");
        case Action::Set: return set(options, *link);
        case Action::QueryMigrate: {
            MIG_TRY(const Json answer, link->call("query-migrate"));
            print(console, answer, options.format);
            return {};
        }
        case Action::Qmp: {
            MIG_TRY(const Json answer, link->request(request));
            print(console, answer, options.format);
            return {};
        }
        case Action::Migrate: return migrate(options, *link, console);
    }
    return {};
}

}  // namespace

int run(std::span<const std::string> arguments, Console console) {
    const auto options = parse_options(arguments);
    if (!options) {
        console.err << "ferryctl: " << options.error().message() << "\nTry 'ferryctl --help'.\n";
        return kWrongUse;
    }
    if (options->action == Action::Help) {
        console.out << help_text();
        return kDone;
    }
    if (options->action == Action::Version) {
        console.out << "ferryctl " FERRY_VERSION "\n";
        return kDone;
    }
    if (const auto done = act(*options, console); !done) {
        console.err << "ferryctl: " << done.error().message() << "\n";
        return kFailed;
    }
    return kDone;
}

}  // namespace ferry::ferryctl
