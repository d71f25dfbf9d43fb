// SPDX-License-Identifier: BSD-2-Clause
// A VM under a monitor: the tests' VM with what a hypervisor adds, and clients for it.
#pragma once

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "monitor/monitor.h"
#include "tests/support/test-vm.h"
#include "tests/unit/monitor/qmp-client.h"

namespace ferry::test {

// Keeps what it was asked for; the test answers.
class FakeVm final : public monitor::VmControl {
 public:
    FakeVm(util::Clock& clock, system::RunState initial) : vm(clock, initial) {
        vm.loop.run([&] { monitor.emplace(*this); });
    }
    ~FakeVm() override {
        vm.loop.run([&] {
            monitor.reset();
            resets.clear();
        });
    }

    std::string name() const override { return vm_name; }
    std::string uuid() const override { return "00000000-0000-0000-0000-000000000000"; }
    std::string target() const override { return "x86_64"; }
    std::vector<monitor::MachineInfo> machines() const override {
        return {{"test", "t", monitor::MachineInfo::Default::Yes, 1}};
    }
    std::vector<monitor::TypeInfo> types() const override {
        using Abstract = monitor::TypeInfo::Abstract;
        return {{"object", "", Abstract::Yes},
                {"accel", "object", Abstract::Yes},
                {"qtest-accel", "accel"},
                {"device", "object", Abstract::Yes},
                {"vfio-pci", "device"}};
    }
    system::MainLoop& loop() override { return vm.loop; }
    util::Env& env() override { return vm.env; }
    system::RunStateController& runstate() override { return vm.runstate; }
    migration::Migration& migration() override { return *vm.migration; }
    std::vector<vfio::VfioDeviceMigrationInfo> vfio_devices() const override { return devices; }
    void quit() override { ++quits; }
    void reset(system::Done done) override { resets.push_back(std::move(done)); }
    void device_del(std::string_view id, system::Done done) override {
        if (id == "there") return done({});
        done(Error(ErrorKind::InvalidArgument, "Device '" + std::string(id) + "' not found"));
    }
    monitor::KvmInfo kvm() const override {
        return {monitor::KvmInfo::Enabled::Yes, monitor::KvmInfo::Present::Yes};
    }
    std::vector<monitor::CpuInfo> cpus() const override {
        return {{42, "/machine/unattached/device[0]"}};
    }
    Result<> powerdown() override { return powerdown_result; }
    Result<> wakeup() override { return wakeup_result; }
    WakeupSupport wakeup_support() const override { return WakeupSupport::Yes; }
    bool reset_shuts_down() const override { return shuts_down_at_reset; }
    void shut_down(monitor::ShutdownCause cause) override { shut_down_causes.push_back(cause); }

    // A client that has negotiated.
    QmpClient client() {
        auto [ours, theirs] = socket_pair();
        vm.loop.run([&, fd = &theirs] {
            monitor->add_qmp(*monitor::make_connected_transport(vm.loop, std::move(*fd)),
                             monitor::Layout::Line);
        });
        QmpClient client(std::move(ours));
        client.negotiate();
        return client;
    }
    // A person at a terminal, before the first prompt.
    QmpClient person() {
        auto [ours, theirs] = socket_pair();
        vm.loop.run([&, fd = &theirs] {
            monitor->add_hmp(*monitor::make_connected_transport(vm.loop, std::move(*fd)));
        });
        return QmpClient(std::move(ours));
    }
    // Stops and starts take until the test calls its `done`.
    class SlowDevice final : public system::VmChangeHandler {
     public:
        std::string_view name() const override { return "slow"; }
        unsigned depth() const override { return 1; }
        bool has_prepare() const override { return false; }
        void vm_change(system::Pass, system::VmChange, system::Done done) override {
            waiting.push_back(std::move(done));
        }
        std::vector<system::Done> waiting;
    };
    // Lets the slow device finish what it was asked.
    void finish(SlowDevice& device, Result<> result = {}) {
        EXPECT_TRUE(vm.loop.wait_for([&] { return !device.waiting.empty(); }));
        vm.loop.run([&] {
            system::Done done = std::move(device.waiting.front());
            device.waiting.erase(device.waiting.begin());
            done(std::move(result));
        });
    }

    TestVm vm;
    std::string vm_name = "guest";
    std::vector<vfio::VfioDeviceMigrationInfo> devices;
    int quits = 0;
    std::vector<system::Done> resets;
    Result<> powerdown_result, wakeup_result;
    bool shuts_down_at_reset = false;
    std::vector<monitor::ShutdownCause> shut_down_causes;
    std::optional<monitor::Monitor> monitor;
};

}  // namespace ferry::test
