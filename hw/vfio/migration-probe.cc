// SPDX-License-Identifier: BSD-2-Clause
// Whether and how a device migrates: asked once, when it is plugged. With enable-migration=auto a
// device that can't is a reason not to migrate the VM; with =on it is an error.
#include <fmt/ranges.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "hw/vfio/dirty-tracking.h"
#include "hw/vfio/migration.h"
#include "trace-points.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

// Empty when all of them can.
std::string p2p_reason(const std::vector<std::string>& lacking) {
    if (lacking.empty()) return {};
    const bool one = lacking.size() == 1;
    return fmt::format(
        "with several VFIO devices each must be able to pause its access to the others (VFIO "
        "migration P2P support), and {} {} can't; unplug {} before migrating",
        one ? "device" : "devices", fmt::join(lacking, ", "), one ? "it" : "them");
}

}  // namespace

Result<VfioMigrationFindings> VfioDeviceMigration::examine(VfioDeviceIo& io,
                                                           const std::string& label) {
    VfioMigrationFindings found;
    auto caps = io.migration_caps();
    if (!caps &&
        (caps.error().kind() == ErrorKind::Unsupported || caps.error().errnum() == ENOTTY)) {
        caps = MigCaps{};
    }
    if (!caps) {
        return std::move(caps).error().context(
            fmt::format("device {}: asking its driver how it migrates", label));
    }
    if (!caps->supported()) {
        return Error(ErrorKind::Unsupported,
                     fmt::format("device {}: its driver offers no live migration; bind the device "
                                 "to the driver that does, or unplug it before migrating",
                                 label));
    }
    found.caps = *caps;
    MIG_TRY(found.state, io.mig_state(), "device {}: asking its driver for the state", label);
    if (found.state == MigState::Error) {
        MIG_CHECK(io.reset(), "device {}: its driver reports an error, and it can't be reset",
                  label);
        found.state = MigState::Running;
    }
    // Failing to say so is saying no.
    const auto logging = io.dma_logging_supported();
    found.dma_logging = logging && *logging;
    return found;
}

namespace {

// Stands for a device that can't migrate at all: a reason in the list, and nothing else.
class BlockedDevice final : public VfioDeviceMigration {
 public:
    static Result<std::unique_ptr<VfioDeviceMigration>> create(const VfioVm& vm,
                                                               const VfioIdentity& identity,
                                                               const std::string& reason) {
        trace::vfio_migration_blocked(vm.env.trace, identity.label(), reason);
        MIG_TRY(auto blocker, vm.blockers.add(reason), "device {}", identity.label());
        return std::unique_ptr<VfioDeviceMigration>(
            new BlockedDevice(vm.services.members(), std::move(blocker)));
    }
    ~BlockedDevice() override { shared_.remove(membership_); }
    BlockedDevice(const BlockedDevice&) = delete;
    BlockedDevice& operator=(const BlockedDevice&) = delete;
    void device_was_reset() override {}
    void set_multifd_transfer(OnOffAuto) override {}

 private:
    BlockedDevice(VfioMigrationServices::Members& shared, util::Registration blocker)
        : shared_(shared),
          membership_(shared.add({.status = nullptr, .blocked = true})),
          blocker_(std::move(blocker)) {}

    VfioMigrationServices::Members& shared_;
    VfioMigrationServices::Members::Handle membership_;
    util::Registration blocker_;
};

migration::SectionId free_section(const migration::SaveVMRegistry& registry,
                                  const VfioIdentity& identity) {
    migration::SectionId id{.idstr = identity.path.empty() ? "vfio" : identity.path + "/vfio",
                            .version_id = 1};
    while (registry.find(id.idstr, id.instance_id) != nullptr) ++id.instance_id;
    return id;
}

// Whom to ask what the device wrote. Behind a virtual IOMMU its own log would have to be started
// for addresses that the guest has not chosen yet; what the host's IOMMU knows follows its
// mappings.
DirtySource choose_source(const VfioIdentity& identity, const VfioProperties& properties,
                          const VfioMigrationFindings& found, VfioDeviceIo& io) {
    const bool own = found.dma_logging && properties.device_dirty_page_tracking != OnOffAuto::Off;
    if (own && identity.dma_space == nullptr) return DirtySource::DeviceLog;
    const IommuDirtyLog* iommu = io.iommu_dirty_log();
    const bool consent = properties.enable_migration == OnOffAuto::On;
    if (iommu != nullptr && (consent || iommu->consent() == IommuDirtyLog::Consent::NotNeeded)) {
        return DirtySource::Iommu;
    }
    return own ? DirtySource::DeviceLog : DirtySource::Nobody;
}

// The device's own reason not to migrate, empty when there is none.
std::string own_reason(const VfioIdentity& identity, DirtySource source) {
    if (identity.dma_space != nullptr && source == DirtySource::DeviceLog) {
        return fmt::format(
            "device {} is behind a virtual IOMMU, where its log of writes can't be "
            "read; x-device-dirty-page-tracking=off does without it",
            identity.label());
    }
    if (source == DirtySource::Nobody) {
        return fmt::format(
            "device {}: neither the device nor the IOMMU can tell what the device "
            "writes to guest memory; enable-migration=on migrates all the same, "
            "with all of it sent while the VM is stopped",
            identity.label());
    }
    return {};
}

// One reason for all devices, as long as it holds.
Result<> judge_p2p(const VfioVm& vm) {
    auto& shared = vm.services.members();
    std::string reason = p2p_reason(shared.lacking_p2p());
    if (reason == shared.p2p_reason) return {};
    util::Registration blocker;
    if (!reason.empty()) {
        MIG_TRY(blocker, vm.blockers.add(reason));
    }
    shared.p2p_blocker = std::move(blocker);
    shared.p2p_reason = std::move(reason);
    return {};
}

}  // namespace

Result<std::unique_ptr<VfioDeviceMigration>> VfioDeviceMigration::realize(
    VfioVm vm, VfioIdentity identity, VfioProperties properties, VfioDeviceIo& io,
    util::Worker& worker, VfioConfigState* config) {
    const bool off = properties.enable_migration == OnOffAuto::Off;
    auto found = off ? Result<VfioMigrationFindings>(VfioMigrationFindings{})
                     : worker.run([&] { return examine(io, identity.label()); });
    return realize(std::move(vm), std::move(identity), properties, io, worker, config,
                   std::move(found));
}

Result<std::unique_ptr<VfioDeviceMigration>> VfioDeviceMigration::realize(
    VfioVm vm, VfioIdentity identity, VfioProperties properties, VfioDeviceIo& io,
    util::Worker& worker, VfioConfigState* config, Result<VfioMigrationFindings> found) {
    const OnOffAuto wanted = properties.enable_migration;
    if (wanted == OnOffAuto::Off) {
        return BlockedDevice::create(
            vm, identity,
            fmt::format("device {}: migration is switched off for it (enable-migration=off)",
                        identity.label()));
    }
    if (!found) {
        if (wanted == OnOffAuto::On) return std::move(found).error();
        return BlockedDevice::create(vm, identity, found.error().message());
    }
    trace::vfio_migration_realize(vm.env.trace, identity.label(), found->caps.p2p,
                                  found->caps.pre_copy, found->dma_logging);
    const DirtySource source = choose_source(identity, properties, *found, io);
    std::string reason = own_reason(identity, source);
    if (wanted == OnOffAuto::On && !reason.empty()) {
        if (source == DirtySource::DeviceLog) return Error(ErrorKind::Unsupported, reason, EINVAL);
        vm.env.log.log(util::LogLevel::Warning,
                       fmt::format("device {}: nobody can tell what it writes to guest memory; all "
                                   "of it is sent again while the VM is stopped",
                                   identity.label()));
        reason.clear();
    }
    auto device =
        std::make_unique<VfioMigration>(VfioMigration::Setup{.vm = std::move(vm),
                                                             .identity = std::move(identity),
                                                             .properties = properties,
                                                             .io = io,
                                                             .worker = worker,
                                                             .config = config,
                                                             .caps = found->caps,
                                                             .state = found->state,
                                                             .dirty_source = source});
    MIG_CHECK(device->join(reason));
    return std::unique_ptr<VfioDeviceMigration>(std::move(device));
}

VfioMigration::VfioMigration(Setup setup)
    : setup_(std::move(setup)),
      multifd_transfer_(setup_.properties.multifd_transfer),
      label_(setup_.identity.label()),
      env_(setup_.vm.env),
      worker_(setup_.worker),
      shared_(setup_.vm.services.members()),
      section_(free_section(setup_.vm.registry, setup_.identity)),
      status_(std::make_shared<DeviceStatus>()),
      state_(
          setup_.io, env_, status_,
          system::is_live(setup_.vm.runstate.state()) ? VmActivity::Running : VmActivity::Stopped,
          *this) {
    status_->label = label_;
    status_->state = setup_.state;
    membership_ = shared_.add({.status = status_, .p2p = setup_.caps.p2p});
}

VfioMigration::~VfioMigration() {
    vm_change_registration_.reset();
    section_registration_.reset();
    tracking_.reset();
    if (shared_.dirty_tracker && shared_.dirty_tracker->empty()) {
        shared_.dirty_registration.reset();
        shared_.dirty_tracker.reset();
    }
    shared_.remove(membership_);
    // Taking a reason back never fails; one that changes stays as it was when it can't be renewed.
    if (auto judged = judge_p2p(setup_.vm); !judged) {
        env_.log.log(util::LogLevel::Error, judged.error().message());
    }
    if (!worker_.on_worker_thread()) worker_.run([] {});  // jobs that hold `this`
}

Result<> VfioMigration::join(const std::string& blocker) {
    if (!blocker.empty()) {
        trace::vfio_migration_blocked(env_.trace, label_, blocker);
        MIG_TRY(blocker_, setup_.vm.blockers.add(blocker), "device {}", label_);
        blocked_ = true;
        shared_.set_blocked(membership_, true);
    }
    const std::string reason = p2p_reason(shared_.lacking_p2p());
    if (setup_.properties.enable_migration == OnOffAuto::On && !reason.empty()) {
        return Error(ErrorKind::Unsupported, fmt::format("device {}: {}", label_, reason), EINVAL);
    }
    MIG_CHECK(judge_p2p(setup_.vm), "device {}", label_);
    if (!shared_.dirty_tracker) {
        shared_.dirty_tracker = std::make_unique<VfioDirtyTracker>(setup_.vm.memory, env_);
        shared_.dirty_registration = setup_.vm.memory.add_tracker(*shared_.dirty_tracker);
    }
    tracking_ = shared_.dirty_tracker->add(
        {.label = label_,
         .io = setup_.io,
         .worker = worker_,
         .source = setup_.dirty_source,
         .precopy = setup_.properties.pre_copy_dirty_page_tracking == OnOffAuto::Off
                        ? PrecopyQueries::No
                        : PrecopyQueries::Yes,
         .space = setup_.identity.dma_space});
    MIG_TRY(section_registration_, setup_.vm.registry.add(*this), "device {}", label_);
    vm_change_registration_ = setup_.vm.runstate.add_handler(*this);
    return {};
}

void VfioMigration::state_changed(MigState state) {
    if (setup_.properties.migration_events && setup_.vm.migration_event) {
        setup_.vm.migration_event(setup_.identity.id, setup_.identity.qom_path, state);
    }
}

void VfioMigration::device_broken(const std::string& reason) {
    setup_.vm.loop.post([this, alive = std::weak_ptr(alive_), reason] {
        if (alive.expired()) return;
        fault_ = setup_.vm.blockers.add_fault(
            fmt::format("device {} is broken: {}; reset or unplug it", label_, reason));
        shared_.set_blocked(membership_, true);
    });
}

void VfioMigration::device_repaired() {
    setup_.vm.loop.post([this, alive = std::weak_ptr(alive_)] {
        if (alive.expired()) return;
        fault_.reset();
        shared_.set_blocked(membership_, blocked_);
    });
}

}  // namespace ferry::vfio
