// SPDX-License-Identifier: BSD-2-Clause
// Accesses of the guest, and resets.
#include "hw/vfio/pci-function.h"

#include <linux/pci_regs.h>

#include <algorithm>

#include "trace-points.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::vfio {

namespace {

// Runs of bytes that are the device's, inside an access of at most 4.
struct Run {
    size_t begin;
    size_t end;
};

template <typename IsDevices>
std::vector<Run> runs_of(size_t length, IsDevices is_devices) {
    std::vector<Run> runs;
    for (size_t i = 0; i < length; ++i) {
        if (!is_devices(i)) continue;
        if (runs.empty() || runs.back().end != i) runs.push_back({i, i});
        runs.back().end = i + 1;
    }
    return runs;
}

Result<PciConfig::Hardware> read_hardware(VfioDeviceIo& io, const IrqWiring::Infos& infos,
                                          const MsiSink& sink) {
    PciConfig::Hardware hardware;
    MIG_TRY(const RegionInfo config, io.region_info(pci_region::kConfig));
    constexpr uint64_t kHeaderBytes = 64;
    if (config.size < kHeaderBytes) {
        return make_error(ErrorKind::Unsupported, "a configuration space of {} bytes", config.size);
    }
    // All but the conventional size count as Express, as in QEMU, whose streams depend on it: the
    // kernel's sample device has 255 bytes.
    hardware.config.resize(config.size == pci::kConfigBytes ? pci::kConfigBytes
                                                            : pci::kExpressConfigBytes);
    hardware.config_bytes = std::min<uint64_t>(config.size, hardware.config.size());
    MIG_CHECK(io.region_read(pci_region::kConfig, 0,
                             MutBytes(hardware.config).first(hardware.config_bytes)),
              "reading the configuration space");
    for (unsigned bar = 0; bar < kPciBars; ++bar) {
        MIG_TRY(const RegionInfo region, io.region_info(pci_region::kBar0 + bar));
        hardware.bar_bytes[bar] = region.size;
    }
    hardware.has_intx = sink.pin != nullptr && infos[pci_irq::kIntx].count > 0;
    hardware.interrupt_line = sink.input;
    hardware.msi_vectors = infos[pci_irq::kMsi].count;
    hardware.msix_vectors = infos[pci_irq::kMsix].count;
    return hardware;
}

std::array<uint64_t, kPciBars> bar_sizes(const PciConfig& config) {
    std::array<uint64_t, kPciBars> sizes{};
    for (unsigned bar = 0; bar < kPciBars; ++bar) sizes[bar] = config.bar_bytes(bar);
    return sizes;
}

}  // namespace

Result<std::shared_ptr<PciFunction>> PciFunction::create(Setup setup) {
    MIG_TRY(const DeviceInfo info, setup.io.info());
    if (!info.is_pci || info.num_regions <= pci_region::kConfig) {
        return make_error(ErrorKind::Unsupported, "not a PCI device");
    }
    IrqWiring::Infos infos;
    for (uint32_t index = 0; index < std::min(info.num_irqs, kPciIrqKinds); ++index) {
        MIG_TRY(infos[index], setup.io.irq_info(index));
    }
    MIG_TRY(PciConfig::Hardware hardware, read_hardware(setup.io, infos, setup.sink));
    MIG_TRY(PciConfig config, PciConfig::create(std::move(hardware), setup.vendor_bytes));
    return std::shared_ptr<PciFunction>(
        new PciFunction(std::move(setup), std::move(config), infos));
}

Result<> PciFunction::power_up() {
    map_bars();
    {
        const std::lock_guard lock(mutex_);
        command_changed_ = true;  // the device's may be what another user left
    }
    return settle();
}

PciFunction::PciFunction(Setup setup, PciConfig config, IrqWiring::Infos infos)
    : setup_(std::move(setup)),
      config_bytes_(config.size()),
      msix_layout_(config.msix()),
      bar_bytes_(bar_sizes(config)),
      config_(std::move(config)) {
    if (msix_layout_) {
        msix_.emplace(msix_layout_->vectors);
        used_vectors_.resize(msix_layout_->vectors);
    }
    irqs_ = IrqWiring::create(setup_.loop, setup_.io, infos, setup_.routes,
                              setup_.sink.input && config_.interrupt_pin() != 0
                                  ? std::optional(setup_.sink.input(config_.interrupt_pin()))
                                  : std::nullopt,
                              [this](uint32_t index, uint32_t vector, const util::EventFd& fd) {
                                  fired(index, vector, fd, Delivery::IfRunning);
                              });
}

void PciFunction::connect() {
    run_state_listener_ = setup_.runstate.on_event([this](system::RunStateEvent event) {
        switch (event) {
            case system::RunStateEvent::Stop: drain_interrupts(); break;
            case system::RunStateEvent::Resume: deliver_what_waited(); break;
        }
    });
    // The VM may have started since the device was powered up.
    if (system::is_live(setup_.runstate.state())) deliver_what_waited();
}

PciFunction::~PciFunction() = default;

void PciFunction::map_bars() {
    if (setup_.memory == nullptr) return;
    mapped_.emplace(*setup_.memory);
    for (unsigned bar = 0; bar < kPciBars; ++bar) {
        if (bar_bytes_[bar] == 0 || config_.is_io(bar)) continue;
        if (auto added = mapped_->add(setup_.io, bar, msix_layout_); !added) {
            warn_once(Trouble::Mapping,
                      std::move(added).error().context("accesses go through this process"));
        }
    }
}

void PciFunction::disconnect() {
    run_state_listener_.reset();
    irqs_.reset();
    mapped_.reset();
}

void PciFunction::warn_once(Trouble kind, const Error& error) {
    const auto bit = static_cast<uint32_t>(kind);
    if ((warned_.fetch_or(bit) & bit) != 0) return;
    setup_.env.log.log(util::LogLevel::Warning,
                       fmt::format("device {}: {} (said once)", setup_.name, error.message()));
}

uint32_t PciFunction::config_read(uint16_t offset, unsigned length) {
    std::byte raw[sizeof(uint32_t)];
    std::ranges::fill(raw, std::byte{0xff});
    length = std::min<unsigned>(length, sizeof(raw));
    const size_t mask_bits = 8 * (sizeof(raw) - length);
    const uint32_t mask = mask_bits >= 32 ? 0 : UINT32_MAX >> mask_bits;
    if (length == 0 || offset + length > config_bytes_) return mask;

    const MutBytes wanted(raw, length);
    std::vector<Run> from_device;
    {
        const std::lock_guard lock(mutex_);
        std::ranges::copy(config_.image().subspan(offset, length), wanted.begin());
        from_device = runs_of(length, [&](size_t i) { return !config_.is_emulated(offset + i); });
    }
    for (const Run& run : from_device) {
        const MutBytes part = wanted.subspan(run.begin, run.end - run.begin);
        auto read = setup_.io.region_read(pci_region::kConfig, offset + run.begin, part);
        if (read) continue;
        warn_once(Trouble::Config, read.error());
        std::ranges::fill(part, std::byte{0xff});
    }
    return util::load_le32(raw) & mask;
}

void PciFunction::config_write(uint16_t offset, unsigned length, uint32_t value) {
    std::byte raw[sizeof(value)];
    util::store_le32(raw, value);
    if (length == 0 || length > sizeof(raw) || offset + length > config_bytes_) return;
    const MutBytes written(raw, length);

    PciConfig::Effects effects;
    std::vector<Run> to_device;
    Outbox due;
    {
        const std::lock_guard lock(mutex_);
        effects = config_.guest_write(offset, written);
        to_device = runs_of(length, [&](size_t i) { return !config_.is_emulated(offset + i); });
        command_changed_ = command_changed_ || effects.command;
        if (effects.interrupts) {
            note_used_vectors();
            due = take_due(Delivery::IfRunning);
        }
    }
    for (const Run& run : to_device) {
        auto done = setup_.io.region_write(pci_region::kConfig, offset + run.begin,
                                           written.subspan(run.begin, run.end - run.begin));
        if (!done) warn_once(Trouble::Config, done.error());
    }
    if (effects.command || effects.bars || effects.interrupts) {
        if (auto settled = settle(); !settled) warn_once(Trouble::Irq, settled.error());
    }
    deliver(std::move(due));
    if (effects.reset) {
        if (auto done = reset(ResetBy::Guest); !done) warn_once(Trouble::Reset, done.error());
    }
}

std::vector<pci::PciDevice::MemoryBar> PciFunction::memory_bars() {
    const std::lock_guard lock(mutex_);
    return config_.memory_bars();
}

std::vector<pci::PciDevice::PortBar> PciFunction::port_bars() {
    const std::lock_guard lock(mutex_);
    return config_.port_bars();
}

PciFunction::Stretch PciFunction::stretch_at(unsigned bar, uint64_t offset) const {
    Stretch stretch{Owner::Device, 0, bar_bytes_[bar]};
    if (!msix_layout_) return stretch;
    const auto consider = [&](Owner owner, unsigned in_bar, uint64_t begin, uint64_t bytes) {
        if (in_bar != bar) return;
        if (offset >= begin && offset < begin + bytes) {
            stretch = {owner, begin, begin + bytes};
        } else if (offset < begin && stretch.owner == Owner::Device) {
            stretch.end = std::min(stretch.end, begin);
        }
    };
    consider(Owner::MsixTable, msix_layout_->table_bar, msix_layout_->table_offset,
             msix_layout_->table_bytes());
    consider(Owner::MsixPba, msix_layout_->pba_bar, msix_layout_->pba_offset,
             msix_layout_->pba_bytes());
    return stretch;
}

Result<> PciFunction::check_bar_access(unsigned bar, uint64_t offset, uint64_t bytes) const {
    const uint64_t room = bar < kPciBars ? bar_bytes_[bar] : 0;
    if (bytes <= room && offset <= room - bytes) return {};
    return make_error(ErrorKind::InvalidArgument, "{:#x}+{:#x} leaves BAR {} of {:#x} bytes",
                      offset, bytes, bar, room);
}

Result<> PciFunction::bar_read(unsigned bar, uint64_t offset, MutBytes out) {
    MIG_CHECK(check_bar_access(bar, offset, out.size()));
    while (!out.empty()) {
        const Stretch stretch = stretch_at(bar, offset);
        const MutBytes part = out.first(std::min<uint64_t>(out.size(), stretch.end - offset));
        if (stretch.owner == Owner::Device) {
            const bool handler = handles_intx();
            auto read = setup_.io.region_read(bar, offset, part);
            if (!read) {
                warn_once(Trouble::Bar, read.error());
                return read;
            }
            if (handler) end_of_intx();
        } else {
            const std::lock_guard lock(mutex_);
            const uint64_t at = offset - stretch.begin;
            if (stretch.owner == Owner::MsixTable) {
                msix_->read_table(at, part);
            } else {
                msix_->read_pba(at, part);
            }
        }
        out = out.subspan(part.size());
        offset += part.size();
    }
    return {};
}

Result<> PciFunction::bar_write(unsigned bar, uint64_t offset, ConstBytes in) {
    MIG_CHECK(check_bar_access(bar, offset, in.size()));
    while (!in.empty()) {
        const Stretch stretch = stretch_at(bar, offset);
        const ConstBytes part = in.first(std::min<uint64_t>(in.size(), stretch.end - offset));
        if (stretch.owner == Owner::Device) {
            const bool handler = handles_intx();
            auto written = setup_.io.region_write(bar, offset, part);
            if (!written) {
                warn_once(Trouble::Bar, written.error());
                return written;
            }
            if (handler) end_of_intx();
        } else if (stretch.owner == Owner::MsixTable) {
            std::unique_lock lock(mutex_);
            msix_->write_table(offset - stretch.begin, part);
            note_used_vectors();
            Outbox due = take_due(Delivery::IfRunning);
            lock.unlock();
            if (auto settled = settle(); !settled) warn_once(Trouble::Irq, settled.error());
            deliver(std::move(due));
        }  // the pending bits can't be written
        in = in.subspan(part.size());
        offset += part.size();
    }
    return {};
}

Result<> PciFunction::power_on() {
    Outbox due;
    {
        const std::lock_guard lock(mutex_);
        config_.power_on();
        if (msix_) msix_->clear();
        note_used_vectors();
        // The driver masked the pin when it fired, which no reset of the device undoes.
        unmask_intx_ = std::exchange(intx_asserted_, false);
        if (unmask_intx_) due.pin = MsiSink::Level::Low;
        intx_waits_for_access_ = false;
        hidden_ = false;
        command_changed_ = true;
    }
    deliver(std::move(due));
    return settle();
}

// The mappings of a device that is being reset may lead nowhere, which would end the guest.
void PciFunction::set_hidden(bool hidden) {
    {
        const std::lock_guard lock(mutex_);
        hidden_ = hidden;
    }
    if (auto settled = settle(); !settled) warn_once(Trouble::Irq, settled.error());
    // Another thread may be about to do it.
    std::unique_lock lock(mutex_);
    settled_.wait(lock, [this] { return !settling_; });
}

Result<> PciFunction::reset(ResetBy who) {
    if (mapped_) set_hidden(true);
    auto done = setup_.io.reset();
    // A device that the kernel can't reset still loses what the VMM keeps for it.
    const bool refused = !done && done.error().kind() != ErrorKind::Unsupported;
    if (refused && who == ResetBy::Guest) {
        if (mapped_) set_hidden(false);
        return std::move(done).error().context("resetting the device");
    }
    trace::vfio_pci_reset(setup_.env.trace, setup_.name, done.has_value());
    auto settled = power_on();
    if (done && was_reset_) was_reset_();
    MIG_CHECK(std::move(done), "resetting the device");
    MIG_CHECK(std::move(settled), "after a reset");
    return {};
}

}  // namespace ferry::vfio
