// SPDX-License-Identifier: BSD-2-Clause
// Bringing a VFIO PCI device into the VM and out of it again.
#include "hw/vfio/pci.h"

#include <thread>
#include <utility>

#include "hw/vfio/pci-function.h"
#include "trace-points.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

class PciDeviceImpl final : public VfioPciDevice {
 public:
    PciDeviceImpl(VfioVm vm, VfioIdentity identity, std::unique_ptr<VfioDeviceIo> io)
        : vm_(std::move(vm)), identity_(std::move(identity)), io_(std::move(io)) {}
    ~PciDeviceImpl() override {
        leave_bus();
        leave_loop();
    }

    Result<> set_up(pci::PciBus& bus, pci::PciAddress address, VfioProperties properties,
                    MsiSink sink);

    // In this order, once. The first on any thread: waits for accesses of the guest, calls the
    // driver. The second on the loop's.
    void leave_bus();
    void leave_loop();
    util::Worker& worker() { return *worker_; }
    const VfioVm& vm() const { return vm_; }

    void reset(system::Done done) override;
    const VfioIdentity& identity() const override { return identity_; }
    VfioDeviceIo& io() override { return *io_; }
    pci::PciDevice& function() override { return *function_; }

 private:
    enum class Stage : uint8_t { OnBus, OffBus, OffLoop };

    const VfioVm vm_;
    const VfioIdentity identity_;
    Stage stage_ = Stage::OnBus;
    std::unique_ptr<VfioDeviceIo> io_;
    std::shared_ptr<PciFunction> function_;
    std::unique_ptr<util::Worker> worker_;  // its jobs use the function
    std::unique_ptr<VfioDeviceMigration> migration_;
    util::Registration plugged_;
};

Result<> PciDeviceImpl::set_up(pci::PciBus& bus, pci::PciAddress address, VfioProperties properties,
                               MsiSink sink) {
    const std::string& label = identity_.label();
    MIG_TRY(function_,
            PciFunction::create({.loop = vm_.loop,
                                 .env = vm_.env,
                                 .runstate = vm_.runstate,
                                 .io = *io_,
                                 .name = label,
                                 .vendor_bytes = properties.skip_vsc_check
                                                     ? PciConfig::VendorBytes::Ignored
                                                     : PciConfig::VendorBytes::Compared,
                                 .sink = std::move(sink),
                                 .routes = vm_.interrupt_routes,
                                 .memory = vm_.device_memory}),
            "device {}", label);
    MIG_TRY(worker_, util::Worker::create("vfio/" + label));
    MIG_TRY(migration_, VfioDeviceMigration::realize(vm_, identity_, properties, *io_, *worker_,
                                                     function_.get()));
    function_->set_reset_listener([this] { migration_->device_was_reset(); });
    MIG_TRY(plugged_, bus.plug(address, function_), "device {}", label);
    trace::vfio_pci_realize(vm_.env.trace, label, address.path());
    return {};
}

void PciDeviceImpl::leave_bus() {
    if (stage_ != Stage::OnBus) return;
    stage_ = Stage::OffBus;
    plugged_.reset();
    if (!function_) return;
    // Closing the device would do it, too; but until then the driver may signal.
    if (auto disabled = function_->disable_interrupts(); !disabled) {
        vm_.env.log.log(util::LogLevel::Warning, fmt::format("device {}: {}", identity_.label(),
                                                             disabled.error().message()));
    }
}

void PciDeviceImpl::leave_loop() {
    if (stage_ == Stage::OffLoop) return;
    stage_ = Stage::OffLoop;
    migration_.reset();
    if (function_) function_->disconnect();
}

void PciDeviceImpl::reset(system::Done done) {
    worker_->post([this, done = std::move(done)]() mutable {
        auto result = function_->reset(PciFunction::ResetBy::Machine);
        if (!result) {
            result = std::move(result).error().context(fmt::format("device {}", identity_.label()));
        }
        done(std::move(result));
    });
}

}  // namespace

Result<std::unique_ptr<VfioPciDevice>> VfioPciDevice::realize(
    VfioVm vm, pci::PciBus& bus, pci::PciAddress address, VfioIdentity identity,
    VfioProperties properties, std::unique_ptr<VfioDeviceIo> io, MsiSink sink) {
    auto device =
        std::make_unique<PciDeviceImpl>(std::move(vm), std::move(identity), std::move(io));
    MIG_CHECK(device->set_up(bus, address, properties, std::move(sink)));
    return std::unique_ptr<VfioPciDevice>(std::move(device));
}

// Three steps on three threads: off the bus on the device's own, out of the VM on the loop's, and
// the rest, whose closing may take long, on one that is made for it.
void VfioPciDevice::unrealize(std::unique_ptr<VfioPciDevice> device, system::Done done) {
    auto* raw = static_cast<PciDeviceImpl*>(device.get());
    system::MainLoop& loop = raw->vm().loop;
    auto close = [&loop, device = std::move(device), done = std::move(done)]() mutable {
        static_cast<PciDeviceImpl*>(device.get())->leave_loop();
        const std::string name = "vfio/close:" + device->identity().label();
        // Shared with the thread's last step, which joins it.
        struct Closing {
            std::unique_ptr<VfioPciDevice> device;
            system::Done done;
            std::jthread thread;
        };
        auto closing = std::make_shared<Closing>(std::move(device), std::move(done));
        auto thread = util::start_thread(name, [&loop, closing](const std::stop_token&) {
            closing->device.reset();
            loop.post([closing] {
                closing->thread.join();
                closing->done({});
            });
        });
        if (!thread) {  // then here, even if it takes a while
            closing->device.reset();
            return closing->done({});
        }
        closing->thread = std::move(*thread);
    };
    raw->worker().post([raw, &loop, close = std::move(close)]() mutable {
        raw->leave_bus();
        loop.post(std::move(close));
    });
}

}  // namespace ferry::vfio
