// SPDX-License-Identifier: BSD-2-Clause
// The smallest VMM that embeds libferry: two VMs in one process, one software VFIO device each, and
// a live migration between them over a memory channel. It supplies main loop, RAM and logging.
// Build: g++ -std=c++23 embed.cc $(pkg-config --cflags --libs --static ferry)
#include <poll.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <list>
#include <mutex>
#include <thread>

#include "hw/test-device.h"
#include "hw/vfio/container-soft.h"
#include "hw/vfio/device-io-soft.h"
#include "hw/vfio/vfio-device.h"
#include "migration/migration.h"
#include "util/event-fd.h"
using namespace ferry;

// The embedder's loop: tasks, timers and descriptors on the thread that calls run_until().
class Loop final : public system::MainLoop {
 public:
    void post(Task task) override {
        const std::lock_guard lock(mutex_);
        tasks_.push_back(std::move(task));
        wake_.signal();
    }
    bool on_loop_thread() const override { return std::this_thread::get_id() == thread_; }
    util::Registration every(util::Nanoseconds period, std::function<void()> tick) override {
        const auto at = timers_.insert(timers_.end(), {period, clock_.now() + period, tick});
        return util::Registration([this, at] { timers_.erase(at); });
    }
    util::Registration watch_fd(BorrowedFd fd, FdEvent event,
                                std::function<void()> ready) override {
        const short events = event == FdEvent::Readable ? POLLIN : POLLOUT;
        const auto at = watches_.insert(watches_.end(), {{fd.raw(), events, 0}, ready});
        return util::Registration([this, at] { watches_.erase(at); });
    }
    void run_until(const std::function<bool()>& done) {
        while (!done()) {
            std::vector<pollfd> fds{{wake_.fd().raw(), POLLIN, 0}};
            for (const auto& [fd, ready] : watches_) fds.push_back(fd);
            ::poll(fds.data(), fds.size(), 10 /* ms between looks at the timers */);
            wake_.consume();
            size_t i = 1;
            for (auto at = watches_.begin(); at != watches_.end() && i < fds.size(); ++i) {
                const auto ready = (at++)->second;  // it may leave the list
                if (fds[i].revents != 0) ready();
            }
            for (auto at = timers_.begin(); at != timers_.end();) {
                Timer& timer = *at++;
                if (clock_.now() < timer.next) continue;
                timer.next += timer.period;
                timer.tick();
            }
            std::deque<Task> tasks;
            {
                const std::lock_guard lock(mutex_);
                tasks.swap(tasks_);
            }
            for (Task& task : tasks) task();
        }
    }

 private:
    struct Timer {
        util::Nanoseconds period, next;
        std::function<void()> tick;
    };
    util::SystemClock clock_;
    std::thread::id thread_ = std::this_thread::get_id();
    util::EventFd wake_ = std::move(*util::EventFd::create());
    std::mutex mutex_;
    std::deque<Task> tasks_;
    std::list<Timer> timers_;
    std::list<std::pair<pollfd, std::function<void()>>> watches_;
};

class Log final : public util::Logger {
    void log(util::LogLevel, std::string_view message) override {
        std::printf("log: %.*s\n", static_cast<int>(message.size()), message.data());
    }
};

// Everything that makes one VM. Members go in reverse order.
struct Vm {
    static constexpr uint64_t kRamBytes = 32 << 20;
    Vm(Loop& on, system::RunState initial) : loop(on), runstate(on, env, initial) {
        auto* block = *memory.add_block(system::RamBlock::wrap("embed.ram", ram));
        (void)memory.map(*block, 0, 0, kRamBytes);
        (void)vfio::map_guest_memory(dma, memory);
        migration = std::move(*migration::Migration::create(
            {loop, env, runstate, memory, registry, services, "embed-1.0"}));
        hw::TestDeviceConfig config;
        config.state_bytes = 8 << 20;
        auto model = std::move(*hw::TestDevice::create(config, env, "dev0"));
        device = model.get();
        io = std::make_unique<vfio::SoftDeviceIo>(std::move(model), dma, env, "dev0");
        worker = std::move(*util::Worker::create("vfio/dev0"));
        device_migration = std::move(*vfio::VfioDeviceMigration::realize(
            {loop, env, runstate, memory, migration->blockers(), registry, services, nullptr},
            {.id = "dev0", .path = "0000:00:03.0", .qom_path = "/machine/peripheral/dev0"}, {}, *io,
            *worker, nullptr));
    }

    Loop& loop;
    util::SystemClock clock;
    Log log;
    util::Tracer trace{clock};
    util::Timeline timeline{clock};
    util::ActivityBoard activity{clock};
    util::Env env{clock, log, trace, timeline, activity};
    std::vector<std::byte> ram = std::vector<std::byte>(kRamBytes);
    system::GuestMemory memory;
    system::RunStateController runstate;
    migration::SaveVMRegistry registry{loop};
    vfio::VfioMigrationServices services;
    std::unique_ptr<migration::Migration> migration;
    vfio::SoftContainer dma{"embed"};
    hw::TestDevice* device = nullptr;
    std::unique_ptr<vfio::SoftDeviceIo> io;
    std::unique_ptr<util::Worker> worker;
    std::unique_ptr<vfio::VfioDeviceMigration> device_migration;
};

int main() {
    Loop loop;
    Vm source(loop, system::RunState::PreLaunch);
    Vm destination(loop, system::RunState::InMigrate);
    source.runstate.start([](Result<>) {});
    loop.run_until([&] { return source.runstate.state() == system::RunState::Running; });
    for (size_t i = 0; i < source.ram.size(); i += 64) source.ram[i] = std::byte(i / 4096 % 251);
    source.device->change_state(3 << 20);

    auto [out, in] = migration::make_memory_channel_pair();
    migration::Migration &from = *source.migration, &to = *destination.migration;
    if (!to.migrate_incoming(std::move(in), migration::ExitOnError::No)) return 1;
    if (!from.migrate(std::move(out))) return 1;
    loop.run_until([&] { return !from.in_progress() && !to.in_progress(); });

    const bool same = source.ram == destination.ram &&
                      source.device->state_digest() == destination.device->state_digest();
    const bool runs = destination.runstate.state() == system::RunState::Running;
    std::printf("migration %s; destination %s; memory and device %s\n",
                migration::to_string(from.query().status).data(), runs ? "runs" : "DOES NOT RUN",
                same ? "identical" : "DIFFER");
    return same && runs ? 0 : 1;
}
