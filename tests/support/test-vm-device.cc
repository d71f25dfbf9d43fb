// SPDX-License-Identifier: BSD-2-Clause
#include "tests/support/test-vm-device.h"

#include <fmt/format.h>

namespace ferry::test {

TestVmDevice::TestVmDevice(TestVm& vm, unsigned slot, hw::TestDeviceConfig config,
                           vfio::VfioProperties properties)
    : vm_(vm), dma_("test"), faults_(std::make_shared<vfio::FaultControl>()) {
    const std::string id = fmt::format("dev{}", slot);
    [[maybe_unused]] const auto mapped = vfio::map_guest_memory(dma_, vm.memory);
    auto model = std::move(*hw::TestDevice::create(std::move(config), vm.env, id));
    model_ = model.get();
    auto soft = std::make_unique<vfio::SoftDeviceIo>(std::move(model), dma_, vm.env, id);
    soft_ = soft.get();
    auto faulty = std::make_unique<vfio::FaultyDeviceIo>(std::move(soft), faults_, vm.env, id);
    io_ = std::make_unique<vfio::ObservedDeviceIo>(std::move(faulty), vm.env, id);
    worker_ = std::move(*util::Worker::create("vfio/" + id));
    vm.loop.run([&] {
        migration_ = std::move(*vfio::VfioDeviceMigration::realize(
            {vm.loop, vm.env, vm.runstate, vm.memory, vm.migration->blockers(), vm.registry,
             vm.services, nullptr},
            {.id = id,
             .path = fmt::format("0000:00:{:02x}.0", slot),
             .qom_path = "/machine/peripheral/" + id},
            properties, *io_, *worker_, nullptr));
    });
}

TestVmDevice::~TestVmDevice() {
    faults_->release();
    model_->stop_waiting();
    vm_.loop.run([this] { migration_.reset(); });
}

vfio::MigState TestVmDevice::real_state() {
    return soft_->mig_state().value_or(vfio::MigState::Error);
}

Result<> TestVmDevice::reset() {
    auto result = io_->reset();
    migration_->device_was_reset();
    return result;
}

}  // namespace ferry::test
