// SPDX-License-Identifier: BSD-2-Clause
// The suite of all device interfaces, over the one in this process and over those that wrap it.
#include "hw/vfio/device-io-faulty.h"
#include "hw/vfio/device-io-observed.h"
#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/soft-rig.h"

namespace ferry::test {
namespace {

using vfio::MigCaps;

DeviceIoParam soft(std::string name, MigCaps caps, SoftRig::Wrap wrap = {}) {
    return {std::move(name), caps, [caps, wrap] {
                hw::TestDeviceConfig config;
                config.caps = caps;
                config.state_bytes = 0x31000;  // the last chunk is a short one
                return std::make_unique<SoftRig>(config, wrap);
            }};
}

std::unique_ptr<vfio::VfioDeviceIo> observed(std::unique_ptr<vfio::VfioDeviceIo> io,
                                             util::Env& env) {
    return std::make_unique<vfio::ObservedDeviceIo>(std::move(io), env, "dev");
}

std::unique_ptr<vfio::VfioDeviceIo> quiet_faulty(std::unique_ptr<vfio::VfioDeviceIo> io,
                                                 util::Env& env) {
    return std::make_unique<vfio::FaultyDeviceIo>(
        std::move(io), std::make_shared<vfio::FaultControl>(), env, "dev");
}

INSTANTIATE_TEST_SUITE_P(Soft, DeviceIoSuite,
                         testing::Values(soft("StopCopy", kPlain), soft("P2P", kP2P),
                                         soft("PreCopy", kPreCopy), soft("All", kAll),
                                         soft("Observed", kAll, observed),
                                         soft("Faulty", kAll, quiet_faulty)),
                         device_io_param_name);
INSTANTIATE_TEST_SUITE_P(Soft, PrecopyDeviceIoSuite,
                         testing::Values(soft("PreCopy", kPreCopy), soft("All", kAll),
                                         soft("Observed", kAll, observed),
                                         soft("Faulty", kAll, quiet_faulty)),
                         device_io_param_name);

}  // namespace
}  // namespace ferry::test
