// SPDX-License-Identifier: BSD-2-Clause
#include "tests/support/test-vm.h"

#include <cstring>
#include <random>

namespace ferry::test {

using migration::MigrationStatus;
using system::RunState;

namespace {
// What a guest's CPU does while the VMM reads the same page: a race by design, which the dirty log
// makes harmless. Not shown to the thread sanitizer, as no guest's store ever is.
__attribute__((noinline, no_sanitize_thread)) void guest_store(std::byte* at, uint64_t value) {
    *reinterpret_cast<volatile uint64_t*>(at) = value;
}
}  // namespace

DirtyingGuest::~DirtyingGuest() = default;

void DirtyingGuest::pause(system::Done done) {
    if (thread_.joinable()) {
        thread_.request_stop();
        thread_.join();  // it looks at the token between two pages
    }
    done({});
}

void DirtyingGuest::resume() {
    if (thread_.joinable()) return;
    thread_ = std::jthread([this](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            ++next_;
            const uint64_t page = next_ * 37 % (ram_.pages() / 2);  // the rest stays as it is
            const uint64_t offset = page * system::kPageSize + next_ % 500 * 8;
            guest_store(ram_.host().data() + offset, next_);
            ram_.mark_dirty(offset, sizeof(uint64_t));
            if (next_ % 64 == 0) std::this_thread::yield();
        }
    });
}

TestVm::TestVm(util::Clock& clock, RunState initial, Guest kind, std::string machine,
               uint64_t ram_bytes)
    : trace(trace::kEventNames, clock),
      timeline(clock),
      activity(clock),
      env{clock, log, trace, timeline, activity},
      loop(clock),
      runstate(loop, env, initial),
      registry(loop) {
    ram = *memory.add_block(std::move(*system::RamBlock::create_memfd("test.ram", ram_bytes)));
    [[maybe_unused]] const auto mapped = memory.map(*ram, 0, 0, ram_bytes);
    loop.run([&] {
        migration = std::move(*migration::Migration::create({.loop = loop,
                                                             .env = env,
                                                             .runstate = runstate,
                                                             .memory = memory,
                                                             .registry = registry,
                                                             .device_state = services,
                                                             .machine_name = std::move(machine)}));
        if (kind == Guest::Dirtying) {
            guest.emplace(*ram);
            runstate.set_vcpus(&*guest);
        }
        status_registration_ =
            migration->on_status([this](migration::Role role, MigrationStatus status) {
                const std::lock_guard lock(mutex_);
                statuses_.push_back(
                    (role == migration::Role::Source ? std::string("src ") : std::string("dst ")) +
                    std::string(migration::to_string(status)));
            });
    });
}

TestVm::~TestVm() {
    bool over = false;
    loop.run([&] { migration->shut_down([&] { over = true; }); });
    (void)loop.wait_for([&] { return over; });
    (void)loop.wait_for([&] { return !runstate.busy(); });
    loop.run([&] {
        if (guest) guest->pause([](Result<>) {});
        status_registration_.reset();
        migration.reset();
    });
}

void TestVm::fill_ram(uint32_t seed) {
    std::mt19937_64 random(seed);
    const MutBytes host = ram->host();
    for (uint64_t page = 0; page < ram->pages(); ++page) {
        if (page % 4 == 3) continue;  // some zero pages
        for (uint64_t at = 0; at < system::kPageSize; at += 512) {
            const uint64_t value = random();
            std::memcpy(host.data() + page * system::kPageSize + at, &value, sizeof(value));
        }
    }
    ram->mark_dirty(0, ram->size());
}

Result<> TestVm::on_loop(const std::function<Result<>()>& call) {
    Result<> result;
    loop.run([&] { result = call(); });
    return result;
}

Result<> TestVm::await(const std::function<void(system::Done)>& request) {
    std::optional<Result<>> outcome;
    loop.run([&] { request([&](Result<> result) { outcome = std::move(result); }); });
    (void)loop.wait_for([&] { return outcome.has_value(); });
    return std::move(*outcome);
}

Result<> TestVm::start() {
    return await([this](system::Done done) { runstate.start(std::move(done)); });
}

Result<> TestVm::pause() {
    return await([this](system::Done done) { runstate.user_stop(std::move(done)); });
}

Result<> TestVm::cont() {
    return await([this](system::Done done) { runstate.user_cont(std::move(done)); });
}

Result<> TestVm::migrate(std::unique_ptr<migration::MigrationChannel> channel) {
    return on_loop([&] { return migration->migrate(std::move(channel)); });
}

Result<> TestVm::incoming(std::unique_ptr<migration::MigrationChannel> channel) {
    return on_loop([&] {
        return migration->migrate_incoming(std::move(channel), migration::ExitOnError::No);
    });
}

Result<> TestVm::set_capability(migration::Capability capability) {
    return on_loop([&] {
        const std::pair<migration::Capability, bool> change{capability, true};
        return migration->set_capabilities(std::span(&change, 1));
    });
}

bool TestVm::wait_over() {
    return loop.wait_for([this] { return !migration->in_progress(); });
}

std::vector<std::string> TestVm::statuses() {
    loop.run([] {});  // the last change is told by a task of its own
    const std::lock_guard lock(mutex_);
    return statuses_;
}

bool same_ram(const TestVm& a, const TestVm& b) {
    return std::memcmp(a.ram->host().data(), b.ram->host().data(), a.ram->size()) == 0;
}

}  // namespace ferry::test
