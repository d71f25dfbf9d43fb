// SPDX-License-Identifier: BSD-2-Clause
// The PCI bus of the machine: configuration space by address, BARs by guest physical address or
// port.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "util/bytes.h"
#include "util/registration.h"
#include "util/result.h"

namespace ferry::pci {

// Device and function on bus 0. "00:03.0" and QEMU's addr= forms "3", "03.0", "0x3.0".
struct PciAddress {
    uint8_t device = 0;    // 0..31
    uint8_t function = 0;  // 0..7
    static Result<PciAddress> parse(std::string_view text);
    std::string path() const;  // "0000:00:03.0"
    friend auto operator<=>(const PciAddress&, const PciAddress&) = default;
};

// A function on the bus. Calls come from the thread that acts for the guest (a vCPU, qtest), and
// may come from several; they may block in a driver, so never from the main loop.
class PciDevice {
 public:
    virtual ~PciDevice() = default;
    virtual std::string_view name() const = 0;
    // length 1, 2 or 4; offset + length <= config size. Out of the device's space: all ones.
    virtual uint32_t config_read(uint16_t offset, unsigned length) = 0;
    virtual void config_write(uint16_t offset, unsigned length, uint32_t value) = 0;

    // What is decoded now: memory enable on and a BAR programmed.
    struct MemoryBar {
        unsigned bar;
        uint64_t gpa;
        uint64_t size;
    };
    virtual std::vector<MemoryBar> memory_bars() = 0;
    // The same for I/O ports.
    struct PortBar {
        unsigned bar;
        uint16_t port;
        uint32_t size;
    };
    virtual std::vector<PortBar> port_bars() { return {}; }
    virtual Result<> bar_read(unsigned bar, uint64_t offset, MutBytes out) = 0;
    virtual Result<> bar_write(unsigned bar, uint64_t offset, ConstBytes in) = 0;
};

// Thread-safe.
class PciBus {
 public:
    // InvalidArgument when the address is taken. Removal waits for accesses under way.
    Result<util::Registration> plug(PciAddress address, std::shared_ptr<PciDevice> device);
    Result<PciAddress> first_free(uint8_t from_device) const;

    uint32_t config_read(PciAddress address, uint16_t offset, unsigned length);
    void config_write(PciAddress address, uint16_t offset, unsigned length, uint32_t value);
    // Whether a BAR decodes `gpa`; then the access happened (reads of failing devices: all ones).
    bool memory_read(uint64_t gpa, MutBytes out);
    bool memory_write(uint64_t gpa, ConstBytes in);
    bool port_read(uint16_t port, MutBytes out);
    bool port_write(uint16_t port, ConstBytes in);
    std::vector<std::pair<PciAddress, std::shared_ptr<PciDevice>>> devices() const;

 private:
    // A function and how many accesses are inside it.
    struct Slot {
        std::shared_ptr<PciDevice> device;
        unsigned accesses = 0;
    };
    class Access;
    template <typename Find>
    bool read(Find find, MutBytes out);
    template <typename Find>
    bool write(Find find, ConstBytes in);
    void unplug(PciAddress address);

    mutable std::mutex mutex_;  // the map and the counts; never held across a device's method
    std::condition_variable idle_;
    std::map<PciAddress, std::shared_ptr<Slot>> slots_;
};

}  // namespace ferry::pci
