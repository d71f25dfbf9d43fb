// SPDX-License-Identifier: BSD-2-Clause
// What holds for every VfioDeviceIo, as tests. An executable adds device-io-suite.cc to its sources
// and instantiates the suite with a way to make devices:
//
//   INSTANTIATE_TEST_SUITE_P(Soft, DeviceIoSuite, testing::Values(...), device_io_param_name);
//   INSTANTIATE_TEST_SUITE_P(Soft, PrecopyDeviceIoSuite, ...);  // those that have pre-copy
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "hw/vfio/vfio-device-io.h"
#include "system/memory.h"

namespace ferry::test {

// One device with a machine around it: guest memory is mapped for it, bus mastering is on. The
// methods are what a guest makes it do; they act on a running device.
class DeviceUnderTest {
 public:
    static constexpr system::Iova kMemoryIova = 0x100000;
    static constexpr uint64_t kMemoryBytes = 1 << 20;

    virtual ~DeviceUnderTest() = default;
    virtual vfio::VfioDeviceIo& io() = 0;
    virtual void fill_state(uint32_t seed) = 0;     // all of it
    virtual void change_state(uint32_t value) = 0;  // a little of it
    virtual uint64_t state_digest() = 0;            // also when it does not run
    virtual void write_memory(system::Iova iova, uint64_t length) = 0;
    virtual void raise(uint32_t vector) = 0;  // MSI-X
};

struct DeviceIoParam {
    std::string name;  // letters and digits
    vfio::MigCaps caps;
    std::function<std::unique_ptr<DeviceUnderTest>()> make;
};

// What a failing case says of itself.
inline void PrintTo(const DeviceIoParam& param, std::ostream* out) {
    *out << param.name;
}
inline std::string device_io_param_name(const testing::TestParamInfo<DeviceIoParam>& info) {
    return info.param.name;
}

using Image = std::vector<std::byte>;

// Reads until there is nothing (for now). Fails the test on an error.
Image read_image(vfio::MigDataStream& stream, size_t piece_bytes = 1 << 20);
Result<> write_image(vfio::MigDataStream& stream, ConstBytes image, size_t piece_bytes = 1 << 20);

class DeviceIoSuite : public testing::TestWithParam<DeviceIoParam> {
 protected:
    using StreamPtr = std::unique_ptr<vfio::MigDataStream>;

    // The states the device has, ERROR left out.
    std::vector<vfio::MigState> states() const;
    // Requests a state and fails the test if that fails.
    StreamPtr go(DeviceUnderTest& device, vfio::MigState state);
    // A whole image: the stop-copy part only, or with a pre-copy part and a change after it.
    Image save(DeviceUnderTest& device, size_t piece_bytes = 1 << 20);

    std::unique_ptr<DeviceUnderTest> device_ = GetParam().make();
    vfio::VfioDeviceIo& io_ = device_->io();
};

class PrecopyDeviceIoSuite : public DeviceIoSuite {};

}  // namespace ferry::test
