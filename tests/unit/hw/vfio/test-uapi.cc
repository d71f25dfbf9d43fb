// SPDX-License-Identifier: BSD-2-Clause
// The bytes of our calls, as an strace of another VMM would show them.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "hw/vfio/mig-state.h"
#include "hw/vfio/uapi.h"

namespace ferry::vfio::uapi {
namespace {

template <typename Struct>
std::vector<uint32_t> words(const Struct& value) {
    std::vector<uint32_t> out(sizeof(value) / sizeof(uint32_t));
    std::memcpy(out.data(), &value, sizeof(value));
    return out;
}

TEST(Uapi, RequestNumbersAreTheKernels) {
    EXPECT_EQ(kDeviceFeature & 0xffff, 0x3b75u);
    EXPECT_EQ(kMigGetPrecopyInfo & 0xffff, 0x3b79u);
    EXPECT_EQ(kDeviceReset & 0xffff, 0x3b6fu);
    EXPECT_EQ(kUnmapDma & 0xffff, 0x3b72u);
}

TEST(Uapi, SetPreCopyHasTheDocumentedBytes) {
    const Feature<MigDeviceState> call{{sizeof(call), kFeatureSet | kFeatureMigDeviceState},
                                       {static_cast<uint32_t>(MigState::PreCopy), -1}};
    EXPECT_EQ(words(call), (std::vector<uint32_t>{0x10, 0x20002, 6, 0xffffffff}));
}

TEST(Uapi, DmaLoggingProbeHasNoPayload) {
    const FeatureHeader call{sizeof(call), kFeatureProbe | kFeatureSet | kFeatureDmaLoggingStart};
    EXPECT_EQ(words(call), (std::vector<uint32_t>{8, 0x60006}));
}

TEST(Uapi, DataSizeAndPrecopyInfoHaveTheDocumentedBytes) {
    const Feature<MigDataSize> size{{sizeof(size), kFeatureGet | kFeatureMigDataSize}, {0}};
    EXPECT_EQ(words(size), (std::vector<uint32_t>{0x10, 0x10009, 0, 0}));
    EXPECT_EQ(words(PrecopyInfo{sizeof(PrecopyInfo), 0, 0, 0}),
              (std::vector<uint32_t>{0x18, 0, 0, 0, 0, 0}));
}

}  // namespace
}  // namespace ferry::vfio::uapi
