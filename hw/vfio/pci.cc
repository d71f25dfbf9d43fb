// SPDX-License-Identifier: BSD-2-Clause
// Bringing a VFIO PCI device into the VM and out of it again.
#include "hw/vfio/pci.h"

#include <optional>
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
    // Takes the request's VM and identity.
    static Result<std::unique_ptr<PciDeviceImpl>> create(Request& request) {
        auto device = std::unique_ptr<PciDeviceImpl>(new PciDeviceImpl(
            std::move(request.vm), std::move(request.identity), request.properties));
        MIG_TRY(device->worker_, util::Worker::create("vfio/" + device->identity_.label()));
        return device;
    }
    ~PciDeviceImpl() override {
        leave_bus();
        leave_loop();
    }

    // Calls the driver; any thread.
    Result<> examine(Open open, MsiSink sink);
    // Loop thread; does not call the driver.
    Result<> join(pci::PciBus& bus, pci::PciAddress address);

    // In this order, once. The first on any thread: waits for accesses of the guest, calls the
    // driver. The second on the loop's.
    void leave_bus();
    void leave_loop();
    util::Worker& worker() { return *worker_; }
    const VfioVm& vm() const { return vm_; }

    void reset(system::Done done) override;
    void set_multifd_transfer(OnOffAuto value) override { migration_->set_multifd_transfer(value); }
    const VfioIdentity& identity() const override { return identity_; }
    VfioDeviceIo& io() override { return *io_; }
    pci::PciDevice& function() override { return *function_; }
    std::array<uint64_t, 6> bar_bytes() const override { return function_->bar_bytes(); }

 private:
    enum class Stage : uint8_t { OnBus, OffBus, OffLoop };

    PciDeviceImpl(VfioVm vm, VfioIdentity identity, VfioProperties properties)
        : vm_(std::move(vm)), identity_(std::move(identity)), properties_(properties) {}

    const VfioVm vm_;
    const VfioIdentity identity_;
    const VfioProperties properties_;
    Stage stage_ = Stage::OnBus;
    std::unique_ptr<VfioDeviceIo> io_;
    std::shared_ptr<PciFunction> function_;
    std::unique_ptr<util::Worker> worker_;  // its jobs use the function
    std::optional<Result<VfioMigrationFindings>> findings_;
    std::unique_ptr<VfioDeviceMigration> migration_;
    util::Registration plugged_;
};

Result<> PciDeviceImpl::examine(Open open, MsiSink sink) {
    const std::string& label = identity_.label();
    {
        const util::ActivityBoard::Entry entry(vm_.env.activity, label, "open");
        MIG_TRY(io_, open());
    }
    MIG_TRY(function_,
            PciFunction::create({.loop = vm_.loop,
                                 .env = vm_.env,
                                 .runstate = vm_.runstate,
                                 .io = *io_,
                                 .name = label,
                                 .vendor_bytes = properties_.skip_vsc_check
                                                     ? PciConfig::VendorBytes::Ignored
                                                     : PciConfig::VendorBytes::Compared,
                                 .sink = std::move(sink),
                                 .routes = vm_.interrupt_routes,
                                 .memory = vm_.device_memory}),
            "device {}", label);
    MIG_CHECK(function_->power_up(), "device {}", label);
    findings_ = properties_.enable_migration == OnOffAuto::Off
                    ? VfioMigrationFindings{}
                    : VfioDeviceMigration::examine(*io_, label);
    return {};
}

Result<> PciDeviceImpl::join(pci::PciBus& bus, pci::PciAddress address) {
    const std::string& label = identity_.label();
    function_->connect();
    MIG_TRY(migration_, VfioDeviceMigration::realize(vm_, identity_, properties_, *io_, *worker_,
                                                     function_.get(), std::move(*findings_)));
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
    if (auto disabled = function_->leave_guest(); !disabled) {
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
    return realize(
        {.vm = std::move(vm),
         .bus = bus,
         .address = address,
         .identity = std::move(identity),
         .properties = properties,
         .sink = std::move(sink),
         .open = [io = std::move(io)]() mutable -> Result<std::unique_ptr<VfioDeviceIo>> {
             return std::move(io);
         }});
}

Result<std::unique_ptr<VfioPciDevice>> VfioPciDevice::realize(Request request) {
    MIG_TRY(auto device, PciDeviceImpl::create(request));
    MIG_CHECK(device->examine(std::move(request.open), std::move(request.sink)));
    MIG_CHECK(device->join(request.bus, request.address));
    return std::unique_ptr<VfioPciDevice>(std::move(device));
}

namespace {

// A device on its way into the VM.
struct Arrival {
    std::unique_ptr<PciDeviceImpl> device;
    pci::PciBus& bus;
    pci::PciAddress address;
    VfioPciDevice::Admit admit;
    VfioPciDevice::Realized done;

    void join(Result<> admitted) {
        Result<> joined = admitted ? device->join(bus, address) : std::move(admitted);
        if (joined) return done(std::unique_ptr<VfioPciDevice>(std::move(device)));
        VfioPciDevice::unrealize(std::move(device),
                                 [done = std::move(done), why = std::move(joined).error()](
                                     Result<>) mutable { done(std::move(why)); });
    }
};

}  // namespace

void VfioPciDevice::realize_async(Request request, Admit admit, Realized done) {
    system::MainLoop& loop = request.vm.loop;
    auto created = PciDeviceImpl::create(request);
    if (!created) return done(std::move(created).error());
    PciDeviceImpl& device = **created;
    auto arrival = std::make_shared<Arrival>(std::move(*created), request.bus, request.address,
                                             std::move(admit), std::move(done));
    device.worker().post([&loop, &device, arrival = std::move(arrival),
                          open = std::move(request.open),
                          sink = std::move(request.sink)]() mutable {
        Result<> examined = device.examine(std::move(open), std::move(sink));
        // The last reference goes to the loop: this thread must not end what it runs on.
        loop.post([arrival = std::move(arrival), examined = std::move(examined)]() mutable {
            if (!examined) return arrival->join(std::move(examined));
            auto admit_it = std::move(arrival->admit);
            admit_it([arrival = std::move(arrival)](Result<> admitted) {
                arrival->join(std::move(admitted));
            });
        });
    });
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
