// SPDX-License-Identifier: BSD-2-Clause
// A PCI function without hardware, that migrates: its state is real bytes, it changes them at a
// chosen rate, it writes guest memory, and its arcs take as long as told. Registers, properties and
// the format of its image: docs/devel/test-device.rst.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "hw/device-model.h"
#include "util/clock.h"
#include "util/env.h"
#include "util/result.h"

namespace ferry::hw {

struct TestDeviceConfig {
    vfio::MigCaps caps{.stop_copy = true, .p2p = true, .pre_copy = true};
    uint64_t state_bytes = 1 << 20;  // a multiple of 4096
    std::string state_file;          // the state lives there; created, emptied. "": anonymous
    uint64_t dirty_bytes_per_s = 0;  // of the state, in the running states
    uint64_t dma_pages_per_s = 0;    // to the guest's region, in RUNNING and PRE_COPY

    util::Nanoseconds arc_latency{};  // of arcs not listed below
    struct ArcLatency {
        vfio::MigState from, to;
        util::Nanoseconds latency;
    };
    std::vector<ArcLatency> arc_latencies;

    // LosePage: each report leaves out the first page it should name, for checks of checks.
    enum class DirtyTracking : uint8_t { On, Off, FailReport, LosePage };
    DirtyTracking dirty_tracking = DirtyTracking::On;
    enum class NothingForNow : uint8_t { Zero, Enomsg };  // as reads in pre-copy spell it
    NothingForNow nothing_for_now = NothingForNow::Enomsg;

    uint32_t vectors = 4;  // MSI-X, at most kMaxVectors
    enum class Pin : uint8_t { None, IntA };
    Pin pin = Pin::None;
    std::string vendor_data = "ferry-test";  // of the vendor capability, at most kMaxVendorData
    enum class Bus : uint8_t { Pci, Pcie };
    Bus bus = Bus::Pci;  // Pcie: express capability, 4096 bytes of config space

    std::string faults;  // a script for vfio::FaultControl; not the model's business

    static constexpr uint64_t kMaxStateBytes = uint64_t{64} << 30;
    static constexpr uint64_t kMaxBytesPerS = uint64_t{16} << 30;
    static constexpr uint32_t kMaxVectors = 64;
    static constexpr size_t kMaxVendorData = 12;

    // What -device takes. InvalidArgument names the property.
    static Result<TestDeviceConfig> parse(
        std::span<const std::pair<std::string, std::string>> properties);
    struct PropertyHelp {
        std::string_view name;
        std::string_view value;  // "SIZE", "on|off", ...
        std::string_view help;
    };
    static std::span<const PropertyHelp> property_help();
};

// Thread-safe.
class TestDevice : public DeviceModel {
 public:
    static Result<std::unique_ptr<TestDevice>> create(TestDeviceConfig config, util::Env& env,
                                                      std::string name);
    // Changes that many bytes of the state now, as the running device does by itself.
    virtual void change_state(uint64_t bytes) = 0;
    virtual uint64_t state_digest() const = 0;  // the DIGEST register
    // Arcs under way, and all later ones, no longer take their time. Before a destruction that must
    // not wait for the clock.
    virtual void stop_waiting() = 0;
};

// BAR0: 32-bit registers, little endian, accessed aligned, in multiples of 4 bytes.
namespace test_device_reg {
inline constexpr uint32_t kId = 0x00, kVersion = 0x04, kStateBytes = 0x08, kStateOffset = 0x10,
                          kStateData = 0x14, kFill = 0x18, kGeneration = 0x1c, kDigest = 0x20,
                          kScratch = 0x28, kDmaIova = 0x40, kDmaBytes = 0x48, kDmaValue = 0x4c,
                          kDmaCommand = 0x50, kDmaStatus = 0x54, kDmaCount = 0x58, kIrqRaise = 0x60,
                          kIrqCount = 0x64, kAutoIova = 0x80, kAutoBytes = 0x88,
                          kAutoControl = 0x90, kAutoStatus = 0x94, kAutoPages = 0x98,
                          kChanged = 0xa0, kChangeNow = 0xa8, kAutoNow = 0xac, kEnd = 0xb0;
inline constexpr uint32_t kIdValue = 0x52524546;                             // "FERR"
inline constexpr uint32_t kDmaFill = 1, kDmaToState = 2, kDmaFromState = 3;  // kDmaCommand
inline constexpr uint64_t kRamOffset = 0x1000, kRamBytes = 0x3000;           // plain memory
}  // namespace test_device_reg

}  // namespace ferry::hw
