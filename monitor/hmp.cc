// SPDX-License-Identifier: BSD-2-Clause
#include "monitor/hmp.h"

#include <algorithm>
#include <optional>

#include "util/try.h"

namespace ferry::monitor {

namespace {

using Kind = HmpParameter::Kind;

// Words are separated by blanks; double quotes keep blanks in a word.
Result<std::vector<std::string>> split_words(std::string_view line) {
    std::vector<std::string> words;
    std::optional<std::string> word;
    bool quoted = false;
    for (const char c : line) {
        const bool blank = c == ' ' || c == '\t' || c == '\r' || c == '\n';
        if (blank && !quoted) {
            if (word) words.push_back(*std::exchange(word, std::nullopt));
            continue;
        }
        if (!word) word.emplace();
        if (c == '"') {
            quoted = !quoted;
        } else {
            *word += c;
        }
    }
    if (quoted) return make_error(ErrorKind::InvalidArgument, "unterminated string");
    if (word) words.push_back(*word);
    return words;
}

const HmpCommand* find(const std::vector<HmpCommand>& commands, const std::string& name) {
    const auto found = std::ranges::find_if(commands, [&](const HmpCommand& command) {
        return command.name == name || (!command.alias.empty() && command.alias == name);
    });
    return found == commands.end() ? nullptr : &*found;
}

std::string help_line(const HmpCommand& command, std::string_view prefix) {
    std::string names = command.name;
    if (!command.alias.empty()) names += "|" + command.alias;
    const std::string space = command.synopsis.empty() ? "" : " ";
    return fmt::format("{}{}{}{} -- {}\n", prefix, names, space, command.synopsis, command.help);
}

using Arguments = std::map<std::string, std::string, std::less<>>;

bool is_number(const std::string& word) {
    constexpr size_t kMaxDigits = 18;  // fits 64 bits
    return !word.empty() && word.size() <= kMaxDigits &&
           std::ranges::all_of(word, [](char c) { return c >= '0' && c <= '9'; });
}

Error missing(const HmpCommand& command, const HmpParameter& parameter) {
    switch (parameter.kind) {
        case Kind::OnOff: return {ErrorKind::InvalidArgument, "Expected 'on' or 'off'"};
        case Kind::Number:
        case Kind::OptionalNumber:
            return make_error(ErrorKind::InvalidArgument, "{}: integer expected", command.name);
        case Kind::Flag:
        case Kind::Word:
        case Kind::OptionalWord: break;
    }
    return make_error(ErrorKind::InvalidArgument, "{}: string expected", command.name);
}

// Flags first, as in "-d -r uri".
Result<Arguments> parse_arguments(const HmpCommand& command, std::vector<std::string> words) {
    Arguments out;
    auto next = words.begin();
    const auto has_flag = [&](char letter) {
        return std::ranges::any_of(command.parameters, [&](const HmpParameter& parameter) {
            return parameter.kind == Kind::Flag && parameter.name == std::string(1, letter);
        });
    };
    while (next != words.end() && next->size() == 2 && next->front() == '-' &&
           has_flag(next->back())) {
        out[next->substr(1)] = "";
        ++next;
    }
    for (const HmpParameter& parameter : command.parameters) {
        if (parameter.kind == Kind::Flag) continue;
        if (next == words.end()) {
            if (parameter.kind == Kind::OptionalWord || parameter.kind == Kind::OptionalNumber) {
                continue;
            }
            return missing(command, parameter);
        }
        if (parameter.kind == Kind::OnOff && *next != "on" && *next != "off") {
            return make_error(ErrorKind::InvalidArgument, "Expected 'on' or 'off'");
        }
        const bool number =
            parameter.kind == Kind::Number || parameter.kind == Kind::OptionalNumber;
        if (number && !is_number(*next)) return missing(command, parameter);
        out[parameter.name] = *next++;
    }
    if (next != words.end()) {
        return make_error(ErrorKind::InvalidArgument,
                          "{}: extraneous characters at the end of line", command.name);
    }
    return out;
}

std::string error_text(const std::string& desc) {
    return fmt::format("Error: {}\n", desc);
}

std::string unknown_command(std::string_view prefix, std::string_view name) {
    return fmt::format("unknown command: '{}{}'\n", prefix, name);
}

std::string nothing(const Json& /*answer*/) {
    return "";
}

}  // namespace

Hmp::Hmp(const CommandTable& qmp, HmpHost& host) : qmp_(qmp), host_(host) {
    add_run_commands();
    add_device_commands();
    add_object_commands();
    add_migration_commands();
    add_dirty_rate_commands();
    add_info_commands();
    add_machine_infos();
    add_help();
}

void Hmp::run(std::string_view line, HmpSource source, MonitorFds& fds, HmpDone done) {
    auto split = split_words(line);
    if (!split) return done(split.error().message() + "\n");
    std::vector<std::string>& words = *split;
    if (words.empty()) return done("");
    if (words.front() == "info" && words.size() > 1) {
        words.erase(words.begin());
        return dispatch(infos_, std::move(words), source, fds, std::move(done));
    }
    dispatch(commands_, std::move(words), source, fds, std::move(done));
}

void Hmp::dispatch(const std::vector<HmpCommand>& commands, std::vector<std::string> words,
                   HmpSource source, MonitorFds& fds, HmpDone done) {
    const std::string name = words.front();
    const HmpCommand* command = find(commands, name);
    const std::string_view prefix = &commands == &infos_ ? "info " : "";
    if (command == nullptr) return done(unknown_command(prefix, name));
    words.erase(words.begin());
    auto arguments = parse_arguments(*command, std::move(words));
    if (!arguments) {
        return done(fmt::format("{}\nTry \"help {}{}\" for more information\n",
                                arguments.error().message(), prefix, command->name));
    }
    command->handler({std::move(*arguments), source, fds, std::move(done)});
}

void Hmp::run_qmp(std::string_view name, const Json& arguments, HmpCall call, Print print) {
    qmp_.execute(name, arguments, call.fds,
                 Reply([done = std::move(call.done),
                        print = std::move(print)](const Outcome& outcome) mutable {
                     done(outcome ? print(*outcome) : error_text(outcome.error().desc));
                 }));
}

void Hmp::add_plain(std::string name, std::string alias, std::string help, std::string qmp_name) {
    add({std::move(name),
         std::move(alias),
         {},
         "",
         std::move(help),
         [this, qmp_name = std::move(qmp_name)](HmpCall call) {
             run_qmp(qmp_name, Json::object(), std::move(call), nothing);
         }});
}

void Hmp::add_run_commands() {
    add_plain("stop", "s", "stop the VM", "stop");
    add_plain("cont", "c", "let the VM run", "cont");
    add_plain("quit", "q", "end the process", "quit");
    add_plain("system_reset", "", "reset the VM and its devices", "system_reset");
    add_plain("system_powerdown", "", "press the power button", "system_powerdown");
    add_plain("system_wakeup", "", "wake the VM from suspend-to-RAM", "system_wakeup");
}

void Hmp::add_migration_commands() {
    add({"migrate",
         "",
         {{Kind::Flag, "d"}, {Kind::Flag, "r"}, {Kind::Word, "uri"}},
         "[-d] [-r] uri",
         "migrate to URI (-d: do not wait for the end, -r: resume)",
         [this](HmpCall call) { migrate(std::move(call)); }});
    add({"migrate_cancel", "", {}, "", "cancel the migration under way", [this](HmpCall call) {
             run_qmp("migrate_cancel", Json::object(), std::move(call), nothing);
         }});
    add({"migrate_continue",
         "",
         {{Kind::Word, "state"}},
         "state",
         "go on from the status STATE",
         [this](HmpCall call) {
             const Json arguments = {{"state", call.arguments["state"]}};
             run_qmp("migrate-continue", arguments, std::move(call), nothing);
         }});
    add({"migrate_incoming",
         "",
         {{Kind::Word, "uri"}},
         "uri",
         "wait for a migration at URI",
         [this](HmpCall call) {
             const Json arguments = {{"uri", call.arguments["uri"]}, {"exit-on-error", false}};
             run_qmp("migrate-incoming", arguments, std::move(call), nothing);
         }});
    add({"migrate_recover",
         "",
         {{Kind::Word, "uri"}},
         "uri",
         "go on with a postcopy that is paused, at URI",
         [this](HmpCall call) {
             const Json arguments = {{"uri", call.arguments["uri"]}};
             run_qmp("migrate-recover", arguments, std::move(call), nothing);
         }});
    add_plain("migrate_pause", "", "pause a postcopy", "migrate-pause");
    add_plain("migrate_start_postcopy", "", "go over to postcopy", "migrate-start-postcopy");
    add({"announce_self",
         "",
         {{Kind::OptionalWord, "interfaces"}, {Kind::OptionalWord, "id"}},
         "[interfaces] [id]",
         "tell the network where the VM is",
         [this](HmpCall call) { announce_self(std::move(call)); }});
    add({"migrate_set_capability",
         "",
         {{Kind::Word, "capability"}, {Kind::OnOff, "state"}},
         "capability on|off",
         "switch a capability",
         [this](HmpCall call) {
             const Json entry = {{"capability", call.arguments["capability"]},
                                 {"state", call.arguments["state"] == "on"}};
             const Json arguments = {{"capabilities", Json::array({entry})}};
             run_qmp("migrate-set-capabilities", arguments, std::move(call), nothing);
         }});
    add({"migrate_set_parameter",
         "",
         {{Kind::Word, "parameter"}, {Kind::Word, "value"}},
         "parameter value",
         "set a parameter",
         [this](HmpCall call) {
             const std::string name = call.arguments["parameter"];
             auto value = parameter_from_text(name, call.arguments["value"]);
             if (!value) return call.done(error_text(value.error().message()));
             run_qmp("migrate-set-parameters", {{name, *value}}, std::move(call), nothing);
         }});
}

void Hmp::migrate(HmpCall call) {
    Json arguments = {{"uri", call.arguments["uri"]}};
    if (call.arguments.contains("r")) arguments["resume"] = true;
    if (call.arguments.contains("d")) {
        return run_qmp("migrate", arguments, std::move(call), nothing);
    }
    if (call.source == HmpSource::QmpCommand) {
        return run_qmp("migrate", arguments, std::move(call), [](const Json&) {
            return "terminal does not allow synchronous migration, continuing detached\n";
        });
    }
    Reply reply([this, done = std::move(call.done)](const Outcome& outcome) mutable {
        if (!outcome) return done(error_text(outcome.error().desc));
        host_.when_migration_ended([this, done = std::move(done)]() mutable {
            FdSets no_sets;
            MonitorFds none(no_sets);
            HmpCall query{{}, HmpSource::Interactive, none, std::move(done)};
            run_qmp("query-migrate", Json::object(), std::move(query), [](const Json& info) {
                return info.contains("error-desc")
                           ? error_text(info["error-desc"].get<std::string>())
                           : std::string();
            });
        });
    });
    qmp_.execute("migrate", arguments, call.fds, std::move(reply));
}

// With the times that the parameters say.
void Hmp::announce_self(HmpCall call) {
    Json more = Json::object();
    if (call.arguments.contains("id")) more["id"] = call.arguments["id"];
    if (call.arguments.contains("interfaces")) {
        more["interfaces"] = Json::array();
        for (std::string_view rest = call.arguments["interfaces"]; !rest.empty();) {
            const size_t end = std::min(rest.find(','), rest.size());
            more["interfaces"].push_back(rest.substr(0, end));
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
    }
    MonitorFds& fds = call.fds;
    qmp_.execute("query-migrate-parameters", Json::object(), fds,
                 Reply([this, more, call = std::move(call)](const Outcome& outcome) mutable {
                     if (!outcome) return call.done(error_text(outcome.error().desc));
                     for (const char* name : {"initial", "max", "rounds", "step"}) {
                         more[name] = (*outcome)[fmt::format("announce-{}", name)];
                     }
                     run_qmp("announce-self", more, std::move(call), nothing);
                 }));
}

void Hmp::query(std::string name, std::string help, std::string qmp_name,
                std::string (*print)(const Json&)) {
    add_info({std::move(name),
              "",
              {},
              "",
              std::move(help),
              [this, qmp_name = std::move(qmp_name), print](HmpCall call) {
                  run_qmp(qmp_name, Json::object(), std::move(call), print);
              }});
}

void Hmp::add_info_commands() {
    query("status", "show whether the VM runs", "query-status", status_text);
    add_info({"migrate", "", {}, "", "show the migration", [this](HmpCall call) {
                  run_qmp("query-migrate", Json::object(), std::move(call),
                          [this](const Json& info) {
                              return migration_text(info, host_.migration_globals());
                          });
              }});
    query("migrate_capabilities", "show the capabilities", "query-migrate-capabilities",
          capabilities_text);
    query("migrate_parameters", "show the parameters", "query-migrate-parameters", parameters_text);
    query("version", "show the version", "query-version", version_text);
    query("name", "show the VM's name", "query-name", [](const Json& answer) {
        return answer.contains("name") ? answer["name"].get<std::string>() + "\n" : "";
    });
    query("uuid", "show the VM's UUID", "query-uuid",
          [](const Json& answer) { return answer["UUID"].get<std::string>() + "\n"; });
}

void Hmp::add_help() {
    const auto all = [](const std::vector<HmpCommand>& commands, std::string_view prefix) {
        std::string text;
        for (const HmpCommand& command : commands) text += help_line(command, prefix);
        return text;
    };
    add({"info", "", {}, "what", "show something; \"info\" lists what", [this, all](HmpCall call) {
             call.done(all(infos_, "info "));
         }});
    add({"help",
         "?",
         {{Kind::OptionalWord, "command"}, {Kind::OptionalWord, "what"}},
         "[command]",
         "show this list",
         [this, all](HmpCall call) {
             if (!call.arguments.contains("command")) return call.done(all(commands_, ""));
             const std::string name = call.arguments["command"];
             const auto what = call.arguments.find("what");
             const bool of_info = name == "info" && what != call.arguments.end();
             // Words behind other commands are arguments that somebody has typed already.
             const std::string& wanted = of_info ? what->second : name;
             const std::string_view prefix = of_info ? "info " : "";
             const HmpCommand* command = find(of_info ? infos_ : commands_, wanted);
             call.done(command != nullptr ? help_line(*command, prefix)
                                          : unknown_command(prefix, wanted));
         }});
}

void add_hmp_command(CommandTable& table, Hmp& hmp, const VmControl& vm) {
    table.add({.name = "human-monitor-command",
               .arguments = {{"command-line", {JsonType::String}},
                             {"cpu-index", {JsonType::Integer}, Presence::Optional}},
               .handler =
                   [&hmp, &vm](const Invocation& call, Reply reply) {
                       const auto cpu = call.arguments.find("cpu-index");
                       if (cpu != call.arguments.end() &&
                           (cpu->get<int64_t>() < 0 || cpu->get<uint64_t>() >= vm.cpus().size())) {
                           return std::move(reply).fail(
                               make_error(ErrorKind::InvalidArgument,
                                          "Parameter 'cpu-index' expects a CPU number"));
                       }
                       const auto line = call.arguments["command-line"].get<std::string>();
                       hmp.run(line, HmpSource::QmpCommand, call.fds,
                               [reply = std::move(reply)](const std::string& text) mutable {
                                   std::string out;
                                   for (const char c : text) {
                                       if (c == '\n') out += '\r';
                                       out += c;
                                   }
                                   std::move(reply).ok(std::move(out));
                               });
                   },
               .returns = {JsonType::String}});
}

}  // namespace ferry::monitor
