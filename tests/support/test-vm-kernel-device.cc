// SPDX-License-Identifier: BSD-2-Clause
#include "tests/support/test-vm-kernel-device.h"

#include <fmt/format.h>
#include <linux/pci_regs.h>

#include <array>
#include <string_view>

#include "util/wire.h"

namespace ferry::test {

namespace {
constexpr const char* kHost = "0000:3b:00.2";
constexpr uint16_t kMsixControl = 0x42;  // as FakeVfioKernel lays the function out
constexpr unsigned kMsixTableBar = 2;
}  // namespace

TestVmKernelDevice::TestVmKernelDevice(TestVm& vm, unsigned slot)
    : vm_(vm),
      device_(kernel_.add_pci_device(kHost, 7)),
      faults_(std::make_shared<vfio::FaultControl>()),
      faulty_(kernel_, faults_, vm.env, fmt::format("dev{}", slot)),
      host_(faulty_, vm.memory) {
    const pci::PciAddress address{static_cast<uint8_t>(slot), 0};
    const std::string id = fmt::format("dev{}", slot);
    auto io = std::move(*host_.open_device(kHost));
    vm.loop.run([&] {
        plugged_ = std::move(*vfio::VfioPciDevice::realize(
            {vm.loop, vm.env, vm.runstate, vm.memory, vm.migration->blockers(), vm.registry,
             vm.services, nullptr},
            bus_, address,
            {.id = id, .path = address.path(), .qom_path = "/machine/peripheral/" + id}, {},
            std::move(io), {.message = [](uint64_t, uint32_t) {}, .pin = nullptr}));
    });
}

TestVmKernelDevice::~TestVmKernelDevice() {
    faults_->release();
    vm_.loop.run([this] { plugged_.reset(); });
}

void TestVmKernelDevice::set_image(std::vector<std::byte> precopy,
                                   std::vector<std::byte> stopcopy) {
    device_.initial_bytes = precopy.size();
    device_.stop_copy_length = precopy.size() + stopcopy.size();
    device_.precopy_data = std::move(precopy);
    device_.stopcopy_data = std::move(stopcopy);
}

void TestVmKernelDevice::enable_interrupts() {
    pci::PciDevice& function = plugged_->function();
    function.config_write(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    function.config_write(kMsixControl, 2, PCI_MSIX_FLAGS_ENABLE);
    std::array<std::byte, PCI_MSIX_ENTRY_SIZE> entry{};
    util::store_le64(entry.data(), 0xfee00000);
    util::store_le32(entry.data() + PCI_MSIX_ENTRY_DATA, 0x41);
    [[maybe_unused]] const auto written = function.bar_write(kMsixTableBar, 0, entry);
}

uint64_t TestVmKernelDevice::digest() const {
    std::vector<std::byte> image = device_.received;
    if (image.empty()) {
        image = device_.precopy_data;
        image.insert(image.end(), device_.stopcopy_data.begin(), device_.stopcopy_data.end());
    }
    return std::hash<std::string_view>()(
        {reinterpret_cast<const char*>(image.data()), image.size()});
}

}  // namespace ferry::test
