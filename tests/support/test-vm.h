// SPDX-License-Identifier: BSD-2-Clause
// A whole VM in the test's process: loop, RAM, a guest that dirties it, migration. Two of them and
// a memory channel are a live migration.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "hw/vfio/vfio-migration.h"
#include "migration/migration.h"
#include "migration/savevm.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "tests/support/test-env.h"
#include "tests/support/test-loop.h"

namespace ferry::test {

// Writes a counter into page after page while it may run.
class DirtyingGuest final : public system::VcpuControl {
 public:
    explicit DirtyingGuest(system::RamBlock& ram) : ram_(ram) {}
    ~DirtyingGuest() override;
    void pause(system::Done done) override;
    void resume() override;
    bool running() const { return thread_.joinable(); }  // loop thread

 private:
    system::RamBlock& ram_;
    uint64_t next_ = 0;
    std::jthread thread_;
};

enum class Guest : uint8_t { Idle, Dirtying };

struct TestVm {
    static constexpr uint64_t kRamBytes = 8 * 1024 * 1024;

    TestVm(util::Clock& clock, system::RunState initial, Guest guest = Guest::Idle,
           std::string machine = "test-machine", uint64_t ram_bytes = kRamBytes);
    ~TestVm();

    // Loop thread or before anything runs: fills RAM so that it is neither zero nor uniform.
    void fill_ram(uint32_t seed);
    // Runs `call` on the loop and returns its Result.
    Result<> on_loop(const std::function<Result<>()>& call);
    // Makes a request that ends with a Done and waits for that.
    Result<> await(const std::function<void(system::Done)>& request);
    Result<> start();
    // What the commands stop and cont do.
    Result<> pause();
    Result<> cont();
    migration::MigrationStatus status() const { return migration->query().status; }
    system::RunState state() const { return runstate.state(); }
    std::string error_desc() const { return migration->query().error_desc.value_or(""); }
    Result<> migrate(std::unique_ptr<migration::MigrationChannel> channel);
    Result<> incoming(std::unique_ptr<migration::MigrationChannel> channel);
    Result<> set_capability(migration::Capability capability);
    // Until no attempt is under way on this side; false after a long time.
    bool wait_over();
    std::vector<std::string> statuses();  // of both roles, in order

    KeepingLogger log;
    util::Tracer trace;
    util::Timeline timeline;
    util::ActivityBoard activity;
    util::Env env;
    TestLoop loop;
    system::RunStateController runstate;
    system::GuestMemory memory;
    system::RamBlock* ram = nullptr;
    migration::SaveVMRegistry registry;
    vfio::VfioMigrationServices services;
    std::unique_ptr<migration::Migration> migration;
    std::optional<DirtyingGuest> guest;

 private:
    mutable std::mutex mutex_;
    std::vector<std::string> statuses_;
    util::Registration status_registration_;
};

bool same_ram(const TestVm& a, const TestVm& b);

}  // namespace ferry::test
