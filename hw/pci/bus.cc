// SPDX-License-Identifier: BSD-2-Clause
#include <algorithm>
#include <charconv>
#include <optional>

#include "hw/pci/pci.h"
#include "util/try.h"

namespace ferry::pci {

namespace {

constexpr uint8_t kDevices = 32;
constexpr uint8_t kFunctions = 8;

std::optional<unsigned> parse_hex(std::string_view text) {
    if (text.starts_with("0x")) text.remove_prefix(2);
    unsigned value = 0;
    constexpr int kHex = 16;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, value, kHex);
    if (text.empty() || parsed.ec != std::errc() || parsed.ptr != end) return std::nullopt;
    return value;
}

uint32_t all_ones(unsigned length) {
    return length >= 4 ? UINT32_MAX : (1u << (8 * length)) - 1;
}

// Where an access falls into one of the device's BARs.
struct BarHit {
    unsigned bar;
    uint64_t offset;
    uint64_t room;  // bytes to the end of the BAR
};

std::optional<BarHit> hit(unsigned bar, uint64_t first, uint64_t size, uint64_t address) {
    const uint64_t offset = address - first;
    if (address < first || offset >= size) return std::nullopt;
    return BarHit{bar, offset, size - offset};
}

std::optional<BarHit> find_memory_bar(PciDevice& device, uint64_t gpa) {
    for (const PciDevice::MemoryBar& bar : device.memory_bars()) {
        if (const auto found = hit(bar.bar, bar.gpa, bar.size, gpa)) return found;
    }
    return std::nullopt;
}

std::optional<BarHit> find_port_bar(PciDevice& device, uint16_t port) {
    for (const PciDevice::PortBar& bar : device.port_bars()) {
        if (const auto found = hit(bar.bar, bar.port, bar.size, port)) return found;
    }
    return std::nullopt;
}

}  // namespace

Result<PciAddress> PciAddress::parse(std::string_view text) {
    const auto refuse = [text] {
        return make_error(
            ErrorKind::InvalidArgument,
            "'{}' is no PCI address; expected DEVICE[.FUNCTION], as in 03.0, on bus 0", text);
    };
    std::string_view rest = text;
    for (const std::string_view bus : {"0000:00:", "00:"}) {
        if (!rest.starts_with(bus)) continue;
        rest.remove_prefix(bus.size());
        break;
    }
    const size_t dot = rest.find('.');
    const auto device = parse_hex(rest.substr(0, dot));
    const auto function =
        dot == std::string_view::npos ? std::optional(0u) : parse_hex(rest.substr(dot + 1));
    if (!device || *device >= kDevices || !function || *function >= kFunctions) return refuse();
    return PciAddress{static_cast<uint8_t>(*device), static_cast<uint8_t>(*function)};
}

std::string PciAddress::path() const {
    return fmt::format("0000:00:{:02x}.{:x}", device, function);
}

// Keeps a function on the bus while somebody is inside it.
class PciBus::Access {
 public:
    Access(PciBus& bus, PciAddress address) : bus_(bus) {
        const std::lock_guard lock(bus_.mutex_);
        const auto at = bus_.slots_.find(address);
        if (at != bus_.slots_.end()) enter(at->second);
    }
    // The first function behind `after`; of all where that is empty.
    Access(PciBus& bus, std::optional<PciAddress> after) : bus_(bus) {
        const std::lock_guard lock(bus_.mutex_);
        const auto at = after ? bus_.slots_.upper_bound(*after) : bus_.slots_.begin();
        if (at == bus_.slots_.end()) return;
        address_ = at->first;
        enter(at->second);
    }
    ~Access() {
        if (!slot_) return;
        const std::lock_guard lock(bus_.mutex_);
        if (--slot_->accesses == 0) bus_.idle_.notify_all();
    }
    Access(const Access&) = delete;
    Access& operator=(const Access&) = delete;

    PciDevice* device() const { return slot_ ? slot_->device.get() : nullptr; }
    PciAddress address() const { return address_; }

 private:
    void enter(std::shared_ptr<Slot> slot) {
        slot_ = std::move(slot);
        ++slot_->accesses;
    }

    PciBus& bus_;
    PciAddress address_;
    std::shared_ptr<Slot> slot_;
};

Result<util::Registration> PciBus::plug(PciAddress address, std::shared_ptr<PciDevice> device) {
    const std::lock_guard lock(mutex_);
    if (address.device >= kDevices || address.function >= kFunctions) {
        return make_error(ErrorKind::InvalidArgument, "there is no PCI address {}.{}",
                          address.device, address.function);
    }
    if (const auto taken = slots_.find(address); taken != slots_.end()) {
        return make_error(ErrorKind::InvalidArgument, "PCI address {} is taken by {}",
                          address.path(), taken->second->device->name());
    }
    slots_.emplace(address, std::make_shared<Slot>(Slot{std::move(device)}));
    return util::Registration([this, address] { unplug(address); });
}

void PciBus::unplug(PciAddress address) {
    std::unique_lock lock(mutex_);
    const std::shared_ptr<Slot> slot = slots_.at(address);
    slots_.erase(address);
    idle_.wait(lock, [&slot] { return slot->accesses == 0; });
    lock.unlock();  // the device may end here
}

Result<PciAddress> PciBus::first_free(uint8_t from_device) const {
    const std::lock_guard lock(mutex_);
    for (uint8_t device = from_device; device < kDevices; ++device) {
        const auto next = slots_.lower_bound(PciAddress{device, 0});
        if (next == slots_.end() || next->first.device != device) return PciAddress{device, 0};
    }
    return make_error(ErrorKind::LimitExceeded, "no PCI address is free");
}

uint32_t PciBus::config_read(PciAddress address, uint16_t offset, unsigned length) {
    const Access access(*this, address);
    if (access.device() == nullptr) return all_ones(length);
    return access.device()->config_read(offset, length);
}

void PciBus::config_write(PciAddress address, uint16_t offset, unsigned length, uint32_t value) {
    const Access access(*this, address);
    if (access.device() != nullptr) access.device()->config_write(offset, length, value);
}

template <typename Find>
bool PciBus::read(Find find, MutBytes out) {
    std::optional<PciAddress> after;
    for (;;) {
        const Access access(*this, after);
        if (access.device() == nullptr) return false;
        after = access.address();
        const auto hit = find(*access.device());
        if (!hit) continue;
        if (out.size() > hit->room || !access.device()->bar_read(hit->bar, hit->offset, out)) {
            std::ranges::fill(out, std::byte{0xff});
        }
        return true;
    }
}

template <typename Find>
bool PciBus::write(Find find, ConstBytes in) {
    std::optional<PciAddress> after;
    for (;;) {
        const Access access(*this, after);
        if (access.device() == nullptr) return false;
        after = access.address();
        const auto hit = find(*access.device());
        if (!hit) continue;
        // A write that fails is lost, as on a real bus; the device has said so.
        if (in.size() <= hit->room) (void)access.device()->bar_write(hit->bar, hit->offset, in);
        return true;
    }
}

bool PciBus::memory_read(uint64_t gpa, MutBytes out) {
    return read([gpa](PciDevice& device) { return find_memory_bar(device, gpa); }, out);
}

bool PciBus::memory_write(uint64_t gpa, ConstBytes in) {
    return write([gpa](PciDevice& device) { return find_memory_bar(device, gpa); }, in);
}

bool PciBus::port_read(uint16_t port, MutBytes out) {
    return read([port](PciDevice& device) { return find_port_bar(device, port); }, out);
}

bool PciBus::port_write(uint16_t port, ConstBytes in) {
    return write([port](PciDevice& device) { return find_port_bar(device, port); }, in);
}

std::vector<std::pair<PciAddress, std::shared_ptr<PciDevice>>> PciBus::devices() const {
    const std::lock_guard lock(mutex_);
    std::vector<std::pair<PciAddress, std::shared_ptr<PciDevice>>> out;
    for (const auto& [address, slot] : slots_) out.emplace_back(address, slot->device);
    return out;
}

}  // namespace ferry::pci
