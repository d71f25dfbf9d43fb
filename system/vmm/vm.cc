// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/vm.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>

#include "system/vmm/extra-commands.h"
#include "system/vmm/inherited-fds.h"
#include "system/vmm/migration-presets.h"
#include "system/vmm/signals.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::vmm {

namespace {

using system::RunState;

// How long an ending process waits for threads inside drivers before it goes without them.
constexpr auto kDriverPatience = std::chrono::seconds(2);
constexpr auto kEndingPoll = std::chrono::milliseconds(5);

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

}  // namespace

Vm::Vm(Options options, GlibMainLoop& loop, util::Env& env, std::unique_ptr<Board> board,
       Accelerator accelerator)
    : options_(std::move(options)),
      loop_(loop),
      env_(env),
      accelerator_(std::move(accelerator)),
      board_(std::move(board)),
      runstate_(loop, env, options_.incoming ? RunState::InMigrate : RunState::PreLaunch),
      registry_(loop, &env.trace),
      power_(loop, env, runstate_,
             {.on_power_off = options_.on_power_off, .on_reset = options_.on_reset},
             {.reset = [this](auto memory, auto done) { reset_machine(memory, std::move(done)); },
              .pause_cpus = [this](auto done) { vcpus_.pause(std::move(done)); },
              .end_process = [this] { end(EXIT_SUCCESS); }}),
      vcpus_(loop, runstate_, power_.requests()) {}

Result<std::unique_ptr<Vm>> Vm::create(Options options, GlibMainLoop& loop, util::Env& env) {
    MIG_TRY(auto accelerator, choose_accelerator(options.accelerators));
    MIG_TRY(auto board, Board::create(options));
    std::unique_ptr<Vm> vm(
        new Vm(std::move(options), loop, env, std::move(board), std::move(accelerator)));
    MIG_TRY(vm->migration_,
            migration::Migration::create(
                {.loop = loop,
                 .env = env,
                 .runstate = vm->runstate_,
                 .memory = vm->board_->memory(),
                 .registry = vm->registry_,
                 .device_state = vm->vfio_services_,
                 .machine_name = std::string(machine_info(vm->options_.machine).name),
                 .uuid = uuid_bytes(vm->options_.uuid)}));
    MIG_CHECK(preset_migration(*vm->migration_, vm->options_.migration_presets));
    MIG_TRY(vm->board_state_, vm->board_->register_state(vm->registry_));
    vm->monitor_.emplace(*vm);
    add_extra_commands(vm->monitor_->commands(), *vm);
    MIG_CHECK(
        vm->workloads_.create(vm->options_.workloads, vm->board_->memory(), env, vm->registry_));
    MIG_CHECK(vm->create_cpus());
    MIG_CHECK(vm->create_platform());
    MIG_CHECK(vm->create_devices());
    MIG_TRY(vm->management_, Management::create(*vm, vm->monitor_->commands()));
    MIG_CHECK(vm->serve());
    MIG_CHECK(vm->begin());
    return vm;
}

// A machine without RAM and board has no CPUs either, whoever would run them.
Result<> Vm::create_cpus() {
    vcpus_.add(workloads_.vcpus());
    runstate_.set_vcpus(&vcpus_);
    power_.set_events(monitor_->events());
    // A file that is not there is an error even if nobody would execute it.
    MIG_TRY(auto boot, BootImage::load(options_.boot));
    if (!accelerator_.kvm || options_.machine == MachineType::None) return {};
    MIG_TRY(auto model,
            kvm::cpu_model(options_.cpu_model, accelerator_.kvm->supported_cpuid(),
                           options_.cpu_features),
            "-cpu");
    MIG_TRY(kvm_machine_,
            KvmMachine::create(
                {.kvm = *accelerator_.kvm,
                 .board = *board_,
                 .requests = power_.requests(),
                 .runstate = runstate_,
                 .registry = registry_,
                 .loop = loop_,
                 .env = env_},
                {.cpus = options_.cpus, .model = std::move(model), .boot = std::move(boot)},
                [this](const kvm::GuestEnd& end) { power_.guest_ended(end); }));
    vcpus_.add(*kvm_machine_);
    board_->set_interrupts(kvm_machine_->interrupts());
    return {};
}

namespace {

isa::Rtc::Memory memory_of(const system::GuestMemory& memory, unsigned cpus) {
    isa::Rtc::Memory sizes{.cpus = cpus};
    for (const system::RamMapping& mapping : memory.mappings()) {
        (mapping.gpa < kHighRamStart ? sizes.below_4g_bytes : sizes.above_4g_bytes) +=
            mapping.length;
    }
    return sizes;
}

}  // namespace

Result<> Vm::create_platform() {
    if (options_.machine == MachineType::None) return {};
    const bool executes = kvm_machine_ != nullptr;
    MIG_TRY(platform_, Platform::create({.loop = loop_,
                                         .ports = board_->ports(),
                                         .requests = power_.requests(),
                                         .lines = board_->lines(),
                                         .base_clock = board_->clock(),
                                         .clock = env_.clock,
                                         .passing = executes ? RunningClock::Passing::ByItself
                                                             : RunningClock::Passing::ByTest,
                                         .registry = registry_,
                                         .runstate = runstate_,
                                         .log = env_.log},
                                        {.machine = options_.machine,
                                         .memory = memory_of(board_->memory(), options_.cpus),
                                         .serials = options_.serials}));
    return {};
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
    if (kvm_machine_) {
        vm.interrupt_routes = kvm_machine_->routes();
        vm.device_memory = &kvm_machine_->device_memory();
    }
    devices_.emplace(std::move(vm), *board_, options_.machine);
    for (const IommufdOptions& iommufd : options_.iommufds) {
        UniqueFd fd;
        if (!iommufd.fd.empty()) {
            MIG_TRY(fd, take_inherited_fd(iommufd.fd), "-object iommufd,id={}: fd={}", iommufd.id,
                    iommufd.fd);
        }
        devices_->iommufds().add(iommufd.id, std::move(fd));
    }
    for (const DeviceOptions& device : options_.devices) MIG_CHECK(devices_->create(device));
    return {};
}

Result<> Vm::serve() {
    for (const MonitorOptions& options : options_.monitors) {
        MIG_TRY(auto transport, monitor::open_monitor_transport(loop_, options.address));
        if (options.mode == MonitorOptions::Mode::Control) {
            monitor_->add_qmp(std::move(transport), options.layout);
        } else {
            monitor_->add_hmp(std::move(transport));
        }
    }
    if (options_.qtest && options_.qtest->kind != util::CharAddress::Kind::Null) {
        MIG_TRY(qtest_,
                QtestServer::start(*options_.qtest, options_.qtest_log, qtest_parts(), env_.clock));
    }
    return {};
}

qtest::Protocol::Parts Vm::qtest_parts() {
    const bool ours = accelerator_.kind == AcceleratorKind::Qtest;
    const bool has_lines = options_.machine != MachineType::None;
    return {.machine = *board_,
            .clock = ours ? &board_->clock() : nullptr,
            .lines = has_lines ? &board_->lines() : nullptr};
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
    const std::optional<IncomingOptions>& incoming = options_.incoming;
    if (!incoming) {
        if (options_.autostart == Options::Autostart::Yes) {
            runstate_.start([this](Result<> started) {
                if (started) return;
                env_.log.log(util::LogLevel::Error, started.error().message());
                end(EXIT_FAILURE);
            });
        }
    } else if (incoming->address) {
        InheritedFds fds;
        MIG_CHECK(
            migration_->migrate_incoming(*incoming->address, fds, migration::ExitOnError::Yes),
            "-incoming {}", incoming->text);
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
            {"kvm-accel", "accel"},
            {"qtest-accel", "accel"},
            {"device", "object", Abstract::Yes},
            {"vfio-pci", "device"},
            {"vfio-pci-soft", "device"},
            {"iommufd", "object"},
            {"memory-backend", "object", Abstract::Yes},
            {"memory-backend-ram", "memory-backend"},
            {"memory-backend-memfd", "memory-backend"},
            {"memory-backend-file", "memory-backend"},
            {"ferry-workload", "object"}};
}

std::vector<monitor::MachineInfo> Vm::machines() const {
    using Default = monitor::MachineInfo::Default;
    std::vector<monitor::MachineInfo> machines;
    for (const MachineInfo& machine : machine_types()) {
        machines.push_back(
            {.name = std::string(machine.name),
             .alias = std::string(machine.alias),
             .is_default = machine.type == kDefaultMachine ? Default::Yes : Default::No,
             .cpu_max = machine.max_cpus,
             .acpi = machine.acpi == MachineInfo::Acpi::Yes ? monitor::MachineInfo::Acpi::Yes
                                                            : monitor::MachineInfo::Acpi::No});
    }
    return machines;
}

monitor::KvmInfo Vm::kvm() const {
    using monitor::KvmInfo;
    const bool enabled = accelerator_.kind == AcceleratorKind::Kvm;
    return {.enabled = enabled ? KvmInfo::Enabled::Yes : KvmInfo::Enabled::No,
            .present = KvmInfo::Present::Yes};
}

std::vector<monitor::CpuInfo> Vm::cpus() const {
    std::vector<monitor::CpuInfo> cpus;
    if (!kvm_machine_) return cpus;
    for (const int thread : kvm_machine_->thread_ids()) {
        cpus.push_back({.thread_id = thread,
                        .qom_path = fmt::format("/machine/unattached/device[{}]", cpus.size())});
    }
    return cpus;
}

void Vm::reset(system::Done done) {
    reset_machine(KvmMachine::Memory::Reloaded, std::move(done));
}

// The guest stands still while it happens. What it asked for before is over with it.
void Vm::reset_machine(KvmMachine::Memory memory, system::Done done) {
    vcpus_.pause([this, memory, done = std::move(done)](Result<>) mutable {
        power_.requests().take();
        board_->reset();
        if (platform_) platform_->reset();
        devices_->reset([this, memory, done = std::move(done)](Result<> devices) mutable {
            reset_cpus(memory, [this, memory, devices = std::move(devices),
                                done = std::move(done)](Result<> cpus) mutable {
                if (platform_ && memory == KvmMachine::Memory::Kept) platform_->wake();
                if (runstate_.state() == RunState::Running) vcpus_.resume();
                done(devices ? std::move(cpus) : std::move(devices));
            });
        });
    });
}

void Vm::reset_cpus(KvmMachine::Memory memory, system::Done done) {
    if (!kvm_machine_) return done({});
    kvm_machine_->reset(memory, std::move(done));
}

bool Vm::reset_shuts_down() const {
    return options_.on_reset == OnReset::ShutDown;
}

void Vm::shut_down(monitor::ShutdownCause cause) {
    power_.shut_down(cause);
}

void Vm::device_del(std::string_view id, system::Done done) {
    devices_->remove(id, std::move(done));
}

Result<> Vm::powerdown() {
    if (!platform_) {
        return make_error(ErrorKind::Unsupported, "powering down is not supported by this machine");
    }
    platform_->press_power_button();
    return {};
}

Result<> Vm::wakeup() {
    if (!platform_) {
        return make_error(ErrorKind::Unsupported,
                          "wake-up from suspend is not supported by this guest");
    }
    return power_.wake();
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
