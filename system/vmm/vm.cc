// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/vm.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "system/vmm/extra-commands.h"
#include "system/vmm/signals.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using system::RunState;

// How long an ending process waits for threads inside drivers before it goes without them.
constexpr auto kDriverPatience = std::chrono::seconds(2);
constexpr auto kEndingPoll = std::chrono::milliseconds(5);

// Also in the configuration section of the stream, where both sides must agree.
std::string machine_name(MachineType type) {
    return type == MachineType::None ? "none" : "q35";
}

// The text was checked by the command line; all zeros stand for none.
std::optional<migration::Uuid> uuid_bytes(std::string_view text) {
    migration::Uuid uuid{};
    size_t digits = 0;
    for (const char c : text) {
        if (c == '-') continue;
        const auto value = static_cast<unsigned>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
        std::byte& at = uuid[digits++ / 2];
        at = at << 4 | std::byte(value);
    }
    return uuid == migration::Uuid{} ? std::nullopt : std::optional(uuid);
}

// Descriptors for -incoming fd:N: those that the parent process left open.
class InheritedFds final : public migration::FdTable {
 public:
    Result<UniqueFd> take_fd(std::string_view name) override {
        MIG_TRY(const uint64_t number, parse_number(name), "fd:{}", name);
        const auto fd = static_cast<int>(std::min<uint64_t>(number, INT32_MAX));
        MIG_CHECK(util::check_call(::fcntl(fd, F_GETFD), "fcntl"), "fd:{}", name);
        return UniqueFd(fd);
    }
    Result<UniqueFd> open_fd_set(std::string_view path, int) override {
        return make_error(ErrorKind::InvalidArgument,
                          "Could not open '{}': sets of descriptors are made by add-fd; use "
                          "-incoming defer and migrate-incoming",
                          path);
    }
};

Result<std::unique_ptr<monitor::MonitorTransport>> open_transport(system::MainLoop& loop,
                                                                  const CharAddress& where) {
    if (const auto* inherited = std::get_if<InheritedFd>(&where)) {
        return monitor::make_connected_transport(loop, UniqueFd(inherited->number));
    }
    return monitor::open_monitor_transport(loop, std::get<monitor::MonitorAddress>(where));
}

}  // namespace

Vm::Vm(Options options, GlibMainLoop& loop, util::Env& env, std::unique_ptr<Board> board)
    : options_(std::move(options)),
      loop_(loop),
      env_(env),
      board_(std::move(board)),
      runstate_(loop, env, options_.incoming.empty() ? RunState::PreLaunch : RunState::InMigrate),
      registry_(loop, &env.trace) {}

Result<std::unique_ptr<Vm>> Vm::create(Options options, GlibMainLoop& loop, util::Env& env) {
    MIG_TRY(auto board, Board::create(options));
    std::unique_ptr<Vm> vm(new Vm(std::move(options), loop, env, std::move(board)));
    MIG_TRY(vm->migration_,
            migration::Migration::create({.loop = loop,
                                          .env = env,
                                          .runstate = vm->runstate_,
                                          .memory = vm->board_->memory(),
                                          .registry = vm->registry_,
                                          .device_state = vm->vfio_services_,
                                          .machine_name = machine_name(vm->options_.machine),
                                          .uuid = uuid_bytes(vm->options_.uuid)}));
    MIG_CHECK(vm->preset_migration());
    MIG_TRY(vm->board_state_, vm->board_->register_state(vm->registry_));
    vm->monitor_.emplace(*vm);
    add_extra_commands(vm->monitor_->commands(), *vm);
    MIG_CHECK(
        vm->workloads_.create(vm->options_.workloads, vm->board_->memory(), env, vm->registry_));
    vm->runstate_.set_vcpus(&vm->workloads_.vcpus());
    MIG_CHECK(vm->create_devices());
    MIG_CHECK(vm->serve());
    MIG_CHECK(vm->begin());
    return vm;
}

Result<> Vm::preset_migration() {
    std::vector<std::pair<migration::Capability, bool>> capabilities;
    migration::Parameters parameters = migration_->parameters();
    for (const auto& [name, value] : options_.migration_presets) {
        const std::string context = fmt::format("-global migration.{}={}", name, value);
        const std::string plain = name.starts_with("x-") ? name.substr(2) : name;
        if (const auto capability = migration::capability_from_name(plain)) {
            MIG_TRY(const bool on, parse_bool(value), "{}", context);
            capabilities.emplace_back(*capability, on);
            continue;
        }
        MIG_TRY(const uint64_t number, parse_size(value), "{}", context);
        if (!migration::set_parameter(parameters, name, number)) {
            MIG_CHECK(migration::set_parameter(parameters, plain, number), "{}", context);
        }
    }
    MIG_CHECK(migration_->set_capabilities(capabilities), "-global");
    return migration_->set_parameters(parameters);
}

Result<> Vm::create_devices() {
    if (options_.only_migratable == Options::OnlyMigratable::Yes) {
        migration_->blockers().set_only_migratable();
    }
    vfio::VfioVm vm{.loop = loop_,
                    .env = env_,
                    .runstate = runstate_,
                    .memory = board_->memory(),
                    .blockers = migration_->blockers(),
                    .registry = registry_,
                    .services = vfio_services_,
                    .migration_event = [this](const std::string& id, const std::string& qom_path,
                                              vfio::MigState state) {
                        monitor_->events().vfio_migration(id, qom_path, state);
                    }};
    devices_.emplace(std::move(vm), *board_);
    for (const DeviceOptions& device : options_.devices) MIG_CHECK(devices_->create(device));
    return {};
}

Result<> Vm::serve() {
    for (const MonitorOptions& options : options_.monitors) {
        MIG_TRY(auto transport, open_transport(loop_, options.address));
        if (options.mode == MonitorOptions::Mode::Control) {
            monitor_->add_qmp(std::move(transport), options.layout);
        } else {
            monitor_->add_hmp(std::move(transport));
        }
    }
    if (options_.qtest && !std::holds_alternative<NullDevice>(*options_.qtest)) {
        MIG_TRY(qtest_, QtestServer::start(*options_.qtest, options_.qtest_log, *board_,
                                           board_->clock(), env_.clock));
    }
    return {};
}

Result<> Vm::begin() {
    runstate_.set_autostart(options_.autostart == Options::Autostart::Yes);
    // The migration has said why by then.
    migration_->set_exit_request(
        [this](const Error&) { loop_.post([this] { end(EXIT_FAILURE); }); });
    MIG_TRY(signals_, on_termination(loop_, [this](const std::string& message) {
                env_.log.log(util::LogLevel::Info, message);
                if (!ending_) monitor_->events().shutdown(monitor::ShutdownCause::HostSignal);
                end(EXIT_SUCCESS);
            }));
    const std::string& incoming = options_.incoming;
    if (incoming.empty()) {
        if (options_.autostart == Options::Autostart::Yes) {
            runstate_.start([this](Result<> started) {
                if (started) return;
                env_.log.log(util::LogLevel::Error, started.error().message());
                end(EXIT_FAILURE);
            });
        }
    } else if (incoming != "defer") {
        InheritedFds fds;
        MIG_TRY(const auto address, migration::parse_migration_uri(incoming), "-incoming {}",
                incoming);
        MIG_CHECK(migration_->migrate_incoming(address, fds, migration::ExitOnError::Yes),
                  "-incoming {}", incoming);
    }
    return {};
}

int Vm::run() {
    loop_.run();
    return ending_ ? ending_->status : EXIT_SUCCESS;
}

std::vector<monitor::TypeInfo> Vm::types() const {
    using Abstract = monitor::TypeInfo::Abstract;
    return {{"object", "", Abstract::Yes},
            {"accel", "object", Abstract::Yes},
            {"qtest-accel", "accel"},
            {"device", "object", Abstract::Yes},
            {"vfio-pci", "device"},
            {"vfio-pci-soft", "device"},
            {"memory-backend", "object", Abstract::Yes},
            {"memory-backend-ram", "memory-backend"},
            {"memory-backend-memfd", "memory-backend"},
            {"memory-backend-file", "memory-backend"},
            {"ferry-workload", "object"}};
}

std::vector<monitor::MachineInfo> Vm::machines() const {
    return {{.name = machine_name(MachineType::None), .alias = "", .is_default = {}},
            {.name = machine_name(MachineType::Q35),
             .alias = "",
             .is_default = monitor::MachineInfo::Default::Yes}};
}

void Vm::reset(system::Done done) {
    board_->reset();
    devices_->reset(std::move(done));
}

void Vm::device_del(std::string_view id, system::Done done) {
    devices_->remove(id, std::move(done));
}

void Vm::quit() {
    end(EXIT_SUCCESS);
}

void Vm::end(int status) {
    if (ending_) return;
    ending_.emplace(Ending{status, env_.clock.now() + kDriverPatience, {}, {}});
    migration_->shut_down([this] { ending_->attempts = Ending::Attempts::Over; });
    // Not at once: replies and events are on their way to the clients.
    ending_->timer = loop_.every(kEndingPoll, [this] { try_to_end(); });
}

void Vm::try_to_end() {
    const auto calls = env_.activity.snapshot();
    const bool idle = ending_->attempts == Ending::Attempts::Over && !runstate_.busy() &&
                      !devices_->busy() && calls.empty() && !(qtest_ && qtest_->busy());
    if (idle) return loop_.quit();
    if (env_.clock.now() < ending_->deadline) return;
    for (const util::PendingCall& call : calls) {
        const auto age =
            std::chrono::duration_cast<std::chrono::milliseconds>(env_.clock.now() - call.since);
        env_.log.log(util::LogLevel::Warning,
                     fmt::format("ending although {} is in '{}' since {} ms", call.who, call.call,
                                 age.count()));
    }
    // A thread inside a driver can't be joined. The kernel ends it when the call returns.
    if (!options_.pidfile.empty()) ::unlink(options_.pidfile.c_str());
    ::_exit(ending_->status);
}

}  // namespace ferry::vmm
