// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/board.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "hw/pci/host-bridge.h"
#include "util/syscall.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::vmm {

namespace {

// What an access that nobody answers reads.
constexpr std::byte kFloating{0xff};
// QEMU's generic PCIe host bridge.
constexpr uint16_t kBridgeVendor = 0x1b36;
constexpr uint16_t kBridgeDevice = 0x0008;
constexpr uint64_t kMsiFirst = 0xfee00000;
constexpr uint64_t kMsiLast = 0xfeefffff;

// A device sees accesses of 1, 2, 4 or 8 bytes, aligned: the first such piece of an access.
size_t first_access(uint64_t gpa, size_t length) {
    constexpr size_t kLargest = 8;
    const size_t fits = std::bit_floor(std::min(length, kLargest));
    const uint64_t aligned = gpa == 0 ? kLargest : uint64_t{1} << std::countr_zero(gpa);
    return std::min<uint64_t>(fits, aligned);
}

}  // namespace

// --- Configuration ports.

namespace {
// The address port's fields.
constexpr uint32_t kEnable = 0x8000'0000;
uint32_t bus_of(uint32_t address) {
    return address >> 16 & 0xff;
}
pci::PciAddress function_of(uint32_t address) {
    return {.device = static_cast<uint8_t>(address >> 11 & 0x1f),
            .function = static_cast<uint8_t>(address >> 8 & 0x7)};
}
uint16_t register_of(uint32_t address) {
    return static_cast<uint16_t>(address & 0xfc);
}
}  // namespace

uint32_t PciHostPorts::read(uint16_t offset, unsigned length) {
    const uint32_t address = address_;
    if (offset == kAddress && length == sizeof(uint32_t)) return address;
    if (offset < kData || (address & kEnable) == 0 || bus_of(address) != 0)
        return isa::floating(length);
    const unsigned into = offset - kData;
    if (into + length > sizeof(uint32_t)) return isa::floating(length);
    return bus_.config_read(function_of(address),
                            static_cast<uint16_t>(register_of(address) + into), length);
}

void PciHostPorts::write(uint16_t offset, unsigned length, uint32_t value) {
    if (offset == kAddress && length == sizeof(uint32_t)) {
        address_ = value & 0x80ff'fffc;
        return;
    }
    const uint32_t address = address_;
    if (offset < kData || (address & kEnable) == 0 || bus_of(address) != 0) return;
    const unsigned into = offset - kData;
    if (into + length > sizeof(uint32_t)) return;
    bus_.config_write(function_of(address), static_cast<uint16_t>(register_of(address) + into),
                      length, value);
}

const migration::VMStateDescription& PciHostPorts::vmstate() {
    static const migration::VMStateDescription kDescription =
        migration::VMState<State>("PCIHost", 1, 1)
            .field("config_reg", &State::config_reg)
            .pre_save([](State& state) { state.config_reg = state.ports->address_; })
            .post_load([](State& state, uint32_t) -> Result<> {
                state.ports->address_ = state.config_reg;
                return {};
            })
            .build();
    return kDescription;
}

// --- Memory of functions, and their configuration space.

bool PciRoot::memory_read(uint64_t gpa, MutBytes out) {
    return (ecam && ecam->read(gpa, out)) || bus.memory_read(gpa, out);
}

bool PciRoot::memory_write(uint64_t gpa, ConstBytes in) {
    return (ecam && ecam->write(gpa, in)) || bus.memory_write(gpa, in);
}

// --- The board.

Result<std::unique_ptr<Board>> Board::create(const Options& options) {
    auto board = std::make_unique<Board>();
    if (options.machine != MachineType::None) {
        PciRoot& pci = board->pci_.emplace();
        MIG_TRY(pci.host_bridge,
                pci.bus.plug({}, pci::create_host_bridge(kBridgeVendor, kBridgeDevice)));
        MIG_TRY(pci.ports_claim,
                board->ports_.claim(PciHostPorts::kPort, PciHostPorts::kCount, pci.ports));
        if (options.machine == MachineType::Q35) pci.ecam.emplace(pci.bus);
    }
    MIG_CHECK(board->create_ram(options));
    return board;
}

namespace {

Result<std::unique_ptr<system::RamBlock>> create_backend(const BackendOptions& backend) {
    if (backend.kind == BackendOptions::Kind::File) {
        return system::RamBlock::create_file(backend.id, backend.path, backend.size);
    }
    return system::RamBlock::create_memfd(backend.id, backend.size);
}

}  // namespace

Result<> Board::create_ram(const Options& options) {
    const bool pc = options.machine != MachineType::None;
    uint64_t next_high = kHighRamStart;
    const auto main =
        std::ranges::find(options.backends, options.memory_backend, &BackendOptions::id);
    if (main != options.backends.end()) {
        if (options.ram_bytes != 0 && options.ram_bytes != main->size) {
            return make_error(ErrorKind::InvalidArgument,
                              "-m says {} bytes, but memory-backend '{}' has {}", options.ram_bytes,
                              main->id, main->size);
        }
        MIG_TRY(auto block, create_backend(*main));
        MIG_CHECK(map_main(std::move(block), next_high));
    } else if (options.ram_bytes != 0 || pc) {
        const uint64_t bytes = options.ram_bytes != 0 ? options.ram_bytes : kDefaultRamBytes;
        MIG_TRY(auto block, system::RamBlock::create_memfd(
                                std::string(machine_info(options.machine).ram_id), bytes));
        MIG_CHECK(map_main(std::move(block), next_high));
    }
    for (auto backend = options.backends.begin(); backend != options.backends.end(); ++backend) {
        if (backend == main) continue;
        MIG_TRY(auto block, create_backend(*backend));
        MIG_CHECK(map_extra(std::move(block), next_high));
    }
    if (options.core_dump == Options::CoreDump::WithRam) return {};
    for (const auto& block : memory_.blocks()) {
        const MutBytes host = block->host();
        MIG_CHECK(util::check_call(::madvise(host.data(), host.size(), MADV_DONTDUMP), "madvise"),
                  "-machine dump-guest-core=off: {}", block->name());
    }
    return {};
}

Result<> Board::map_main(std::unique_ptr<system::RamBlock> block, uint64_t& next_high) {
    MIG_TRY(system::RamBlock* const added, memory_.add_block(std::move(block)));
    const uint64_t low = std::min(added->size(), kLowRamEnd);
    MIG_CHECK(memory_.map(*added, 0, 0, low));
    if (added->size() > low) {
        MIG_CHECK(memory_.map(*added, kHighRamStart, low, added->size() - low));
        next_high = kHighRamStart + (added->size() - low);
    }
    return {};
}

Result<> Board::map_extra(std::unique_ptr<system::RamBlock> block, uint64_t& next_high) {
    MIG_TRY(system::RamBlock* const added, memory_.add_block(std::move(block)));
    next_high = (next_high + kExtraRamAlignment - 1) / kExtraRamAlignment * kExtraRamAlignment;
    MIG_CHECK(memory_.map(*added, next_high, 0, added->size()));
    next_high += added->size();
    return {};
}

const migration::VMStateDescription& Board::clock_vmstate() {
    // QEMU's section of that name. Nothing counts ticks here; the offset is the virtual time.
    static const migration::VMStateDescription kDescription =
        migration::VMState<ClockState>("timer", 2, 1)
            .field("cpu_ticks_offset", &ClockState::ticks)
            .unused(sizeof(uint64_t))
            .field("cpu_clock_offset", &ClockState::offset, 2)
            .pre_save([](ClockState& state) { state.offset = state.clock->now(); })
            .post_load([](ClockState& state, uint32_t) -> Result<> {
                state.clock->restore(state.offset);
                return {};
            })
            .build();
    return kDescription;
}

Result<std::vector<util::Registration>> Board::register_state(migration::SaveVMRegistry& registry) {
    std::vector<util::Registration> registrations;
    MIG_TRY(auto clock, registry.add_vmstate("", clock_vmstate(), &clock_state_));
    registrations.push_back(std::move(clock));
    if (pci_) {
        MIG_TRY(auto host, registry.add_vmstate("", PciHostPorts::vmstate(), &pci_->ports.state()));
        registrations.push_back(std::move(host));
    }
    return registrations;
}

void Board::reset() {
    if (pci_) pci_->ports.reset();
}

void Board::set_interrupts(kvm::Interrupts& interrupts) {
    interrupts_ = &interrupts;
    lines_.set_controller([&interrupts](unsigned line, bool level) {
        // Fails only for a pin that is not there.
        (void)interrupts.set_line(line, level);
    });
}

void Board::msi_write(uint64_t address, uint32_t data) {
    if (address >= kMsiFirst && address <= kMsiLast) {
        if (interrupts_ == nullptr || !interrupts_->signal_msi({address, data})) ++lost_msis_;
        return;
    }
    std::array<std::byte, sizeof(data)> bytes{};
    util::store_le32(bytes.data(), data);
    // Only into RAM: an interrupt of one device does not reach into the BARs of another.
    if (auto written = memory_.write(address, bytes); !written) ++lost_msis_;
}

void Board::memory_read(uint64_t gpa, MutBytes out) {
    while (!out.empty()) {
        const auto piece = memory_.lookup(gpa, out.size());
        size_t done = piece.bytes.size();
        if (done != 0) {
            std::memcpy(out.data(), piece.bytes.data(), done);
        } else {
            done = first_access(gpa, out.size());
            if (!pci_ || !pci_->memory_read(gpa, out.first(done))) {
                std::ranges::fill(out.first(done), kFloating);
            }
        }
        gpa += done;
        out = out.subspan(done);
    }
}

void Board::memory_write(uint64_t gpa, ConstBytes in) {
    while (!in.empty()) {
        const auto piece = memory_.lookup(gpa, in.size());
        size_t done = piece.bytes.size();
        if (done != 0) {
            std::memcpy(piece.bytes.data(), in.data(), done);
            piece.block->mark_dirty(piece.offset, done);
        } else {
            done = first_access(gpa, in.size());
            if (pci_) pci_->memory_write(gpa, in.first(done));
        }
        gpa += done;
        in = in.subspan(done);
    }
}

// A function's ports before those of the board.
uint32_t Board::port_read(uint16_t port, unsigned length) {
    std::array<std::byte, sizeof(uint32_t)> bytes{};
    if (pci_ && pci_->bus.port_read(port, MutBytes(bytes).first(length))) {
        return util::load_le32(bytes.data());
    }
    return ports_.read(port, length);
}

void Board::port_write(uint16_t port, unsigned length, uint32_t value) {
    std::array<std::byte, sizeof(uint32_t)> bytes{};
    util::store_le32(bytes.data(), value);
    if (pci_ && pci_->bus.port_write(port, ConstBytes(bytes).first(length))) return;
    ports_.write(port, length, value);
}

}  // namespace ferry::vmm
