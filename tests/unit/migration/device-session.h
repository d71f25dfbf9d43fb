// SPDX-License-Identifier: BSD-2-Clause
// Two VMs with devices in this process, a migration between them, and what must hold afterwards.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/test-vm-device.h"

namespace ferry::test {

// One side: a VM and what is plugged into it.
struct Side {
    static constexpr uint64_t kRamBytes = 1024 * 1024;  // there are many of them in a sweep
    Side(util::Clock& clock, system::RunState initial)
        : vm(clock, initial, Guest::Idle, "test-machine", kRamBytes) {}
    virtual ~Side() { settle(); }
    // Ends all holds and waits until no attempt and no change of the run state is under way.
    void settle();
    // Waits, with a generous limit, until so many devices have a call held at the same time.
    bool wait_until_held(size_t calls);

    TestVm vm;
    std::vector<std::unique_ptr<VmDevice>> devices;  // "dev3", "dev4", ...
};

// With software devices; most tests look at the first two.
struct SoftSide final : Side {
    SoftSide(util::Clock& clock, system::RunState initial,
             const std::vector<hw::TestDeviceConfig>& configs);
    TestVmDevice& device(size_t index) { return static_cast<TestVmDevice&>(*devices.at(index)); }
    TestVmDevice& a() { return device(0); }
    TestVmDevice& b() { return device(1); }
};

hw::TestDeviceConfig small_device();

// From the next migration on; before it, on both sides.
void use_page_channels(Side& side, size_t channels);
// Starts both ends over memory channels.
void begin_migration(Side& src, Side& dst);
void finish_migration(Side& src, Side& dst);

// `was`: the run state before the migration, Running or Paused. `which` says which attempt failed.
void expect_moved(Side& src, Side& dst, system::RunState was, const std::string& which = "");
// After a failed attempt the VM is where it was and so are the devices; the destination waits.
void expect_as_before(Side& src, Side& dst, system::RunState was, const std::string& which = "");

class DeviceSessionTest : public testing::Test {
 protected:
    using RunState = system::RunState;

    // A running source and a waiting destination, with a device for each of `configs`.
    void make_pair(const std::vector<hw::TestDeviceConfig>& configs = {small_device(),
                                                                       small_device()});
    void begin() { begin_migration(*src, *dst); }
    void finish() { finish_migration(*src, *dst); }
    void expect_moved() { test::expect_moved(*src, *dst, RunState::Running); }
    void expect_source_goes_on(const std::string& which) {
        test::expect_as_before(*src, *dst, RunState::Running, which);
    }
    // Acts at once; 0 keeps a migration in pre-copy.
    void set_downtime_limit_ms(uint64_t limit);

    util::SystemClock clock;
    std::unique_ptr<SoftSide> src;
    std::unique_ptr<SoftSide> dst;
};

}  // namespace ferry::test
