// SPDX-License-Identifier: BSD-2-Clause
#include "tests/unit/migration/device-session.h"

namespace ferry::test {

using migration::MigrationStatus;
using system::RunState;
using vfio::MigState;

namespace {
void expect_device(VmDevice& device, MigState state, const std::string& which) {
    EXPECT_EQ(to_string(device.real_state()), to_string(state)) << which;
}
}  // namespace

void Side::settle() {
    for (const auto& device : devices) device->faults().release();
    (void)vm.wait_over();
    (void)vm.loop.wait_for([this] { return !vm.runstate.busy(); });
}

bool Side::wait_until_held(size_t calls) {
    return vm.loop.wait_for([&] {
        size_t held = 0;
        for (const auto& device : devices) held += device->faults().held().empty() ? 0 : 1;
        return held == calls;
    });
}

SoftSide::SoftSide(util::Clock& clock, RunState initial,
                   const std::vector<hw::TestDeviceConfig>& configs)
    : Side(clock, initial) {
    constexpr unsigned kFirstSlot = 3;
    for (unsigned i = 0; i < configs.size(); ++i) {
        devices.push_back(std::make_unique<TestVmDevice>(vm, kFirstSlot + i, configs[i]));
    }
}

hw::TestDeviceConfig small_device() {
    hw::TestDeviceConfig config;
    config.state_bytes = 256 * 1024;
    return config;
}

void use_page_channels(Side& side, size_t channels) {
    ASSERT_TRUE(side.vm.on_loop([&] {
        migration::Parameters changed = side.vm.migration->parameters();
        changed.multifd_channels = channels;
        return side.vm.migration->set_parameters(changed);
    }));
    ASSERT_TRUE(side.vm.set_capability(migration::Capability::Multifd));
}

void begin_migration(Side& src, Side& dst) {
    const auto page_channels = [](const Side& side) -> size_t {
        const auto& of = *side.vm.migration;
        return of.capabilities().has(migration::Capability::Multifd)
                   ? of.parameters().multifd_channels
                   : 0;
    };
    auto [a, b] = migration::make_memory_channel_pair();
    std::vector<std::unique_ptr<migration::MigrationChannel>> src_pages;
    std::vector<std::unique_ptr<migration::MigrationChannel>> dst_pages;
    for (size_t i = 0; i < page_channels(src); ++i) {
        auto [from, to] = migration::make_memory_channel_pair("page-" + std::to_string(i));
        src_pages.push_back(std::move(from));
        dst_pages.push_back(std::move(to));
    }
    ASSERT_TRUE(dst.vm.on_loop([&] {
        return dst.vm.migration->migrate_incoming(std::move(b), migration::ExitOnError::No,
                                                  std::move(dst_pages));
    }));
    ASSERT_TRUE(src.vm.on_loop(
        [&] { return src.vm.migration->migrate(std::move(a), std::move(src_pages)); }));
}

void finish_migration(Side& src, Side& dst) {
    ASSERT_TRUE(src.vm.wait_over());
    ASSERT_TRUE(dst.vm.wait_over());
}

void expect_moved(Side& src, Side& dst, RunState was, const std::string& which) {
    EXPECT_EQ(src.vm.status(), MigrationStatus::Completed) << which << ": " << src.vm.error_desc();
    EXPECT_EQ(dst.vm.status(), MigrationStatus::Completed) << which << ": " << dst.vm.error_desc();
    EXPECT_EQ(to_string(src.vm.state()), to_string(RunState::PostMigrate)) << which;
    EXPECT_EQ(to_string(dst.vm.state()), to_string(was)) << which;
    EXPECT_TRUE(same_ram(src.vm, dst.vm)) << which;
    const MigState rest = was == RunState::Running ? MigState::Running : MigState::Stop;
    for (size_t i = 0; i < src.devices.size(); ++i) {
        EXPECT_EQ(src.devices[i]->digest(), dst.devices[i]->digest()) << which << ", device " << i;
        expect_device(*dst.devices[i], rest, which);
        expect_device(*src.devices[i], MigState::Stop, which);
    }
}

void expect_as_before(Side& src, Side& dst, RunState was, const std::string& which) {
    EXPECT_EQ(to_string(src.vm.state()), to_string(was)) << which << ": " << src.vm.error_desc();
    EXPECT_EQ(to_string(dst.vm.state()), to_string(RunState::InMigrate))
        << which << ": " << dst.vm.error_desc();
    const MigState rest = was == RunState::Running ? MigState::Running : MigState::Stop;
    for (const auto& device : src.devices) expect_device(*device, rest, which);
    for (const auto& device : dst.devices) {
        // Reset, or as it was opened if the stream never got to it.
        const MigState state = device->real_state();
        EXPECT_TRUE(state == MigState::Stop || state == MigState::Running)
            << which << ": " << to_string(state);
    }
}

void DeviceSessionTest::make_pair(const std::vector<hw::TestDeviceConfig>& configs) {
    dst.reset();
    src.reset();
    src = std::make_unique<SoftSide>(clock, RunState::PreLaunch, configs);
    dst = std::make_unique<SoftSide>(clock, RunState::InMigrate, configs);
    src->vm.fill_ram(7);
    for (size_t i = 0; i < configs.size(); ++i) src->device(i).change_state(50'000 * (i + 1));
    ASSERT_TRUE(src->vm.start());
}

void DeviceSessionTest::set_downtime_limit_ms(uint64_t limit) {
    ASSERT_TRUE(src->vm.on_loop([&] {
        migration::Parameters changed = src->vm.migration->parameters();
        changed.downtime_limit_ms = limit;
        return src->vm.migration->set_parameters(changed);
    }));
}

}  // namespace ferry::test
