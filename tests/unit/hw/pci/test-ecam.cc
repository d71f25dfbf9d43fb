// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "hw/pci/ecam.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::pci {
namespace {

// Reads give the offset; remembers what was asked.
class EcamFunction final : public PciDevice {
 public:
    std::string_view name() const override { return "function"; }
    uint32_t config_read(uint16_t offset, unsigned length) override {
        log.push_back(fmt::format("r{:x}.{}", offset, length));
        return offset;
    }
    void config_write(uint16_t offset, unsigned length, uint32_t value) override {
        log.push_back(fmt::format("w{:x}.{}={:x}", offset, length, value));
    }
    std::vector<MemoryBar> memory_bars() override { return {}; }
    Result<> bar_read(unsigned, uint64_t, MutBytes) override { return {}; }
    Result<> bar_write(unsigned, uint64_t, ConstBytes) override { return {}; }
    std::vector<std::string> log;
};

struct EcamRig {
    PciBus bus;
    std::shared_ptr<EcamFunction> function = std::make_shared<EcamFunction>();
    Result<util::Registration> plugged = bus.plug({3, 1}, function);
    Ecam ecam{bus};
    static constexpr uint64_t kFunction = Ecam::kQ35Base + (3 << 15) + (1 << 12);

    uint32_t read(uint64_t gpa) {
        std::array<std::byte, 4> out{};
        EXPECT_TRUE(ecam.read(gpa, out));
        return util::load_le32(out.data());
    }
};
using EcamLog = std::vector<std::string>;

TEST(Ecam, ReachesTheFunctionsWhole4096Bytes) {
    EcamRig rig;
    EXPECT_EQ(rig.read(EcamRig::kFunction + 0xffc), 0xffcu);
    std::array<std::byte, 2> word{std::byte{0x34}, std::byte{0x12}};
    EXPECT_TRUE(rig.ecam.write(EcamRig::kFunction + 0x106, word));
    EXPECT_EQ(rig.function->log, (EcamLog{"rffc.4", "w106.2=1234"}));
}

TEST(Ecam, NobodyReadsAllOnes) {
    EcamRig rig;
    EXPECT_EQ(rig.read(Ecam::kQ35Base), UINT32_MAX);
    EXPECT_EQ(rig.read(EcamRig::kFunction + (1 << 20)), UINT32_MAX);  // bus 1
    EXPECT_TRUE(rig.ecam.write(Ecam::kQ35Base, std::array{std::byte{1}}));
    EXPECT_TRUE(rig.function->log.empty());
}

TEST(Ecam, OnlyTheWindowIsDecoded) {
    EcamRig rig;
    std::array<std::byte, 4> out{};
    EXPECT_FALSE(rig.ecam.read(Ecam::kQ35Base - 4, out));
    EXPECT_FALSE(rig.ecam.read(Ecam::kQ35Base + Ecam::kSize, out));
    EXPECT_FALSE(rig.ecam.write(Ecam::kQ35Base + Ecam::kSize, out));
    EXPECT_TRUE(rig.ecam.read(Ecam::kQ35Base + Ecam::kSize - 2, out));
    EXPECT_EQ(util::load_le32(out.data()), UINT32_MAX);
}

TEST(Ecam, LongOrUnalignedAccessesComeInPieces) {
    EcamRig rig;
    std::array<std::byte, 8> out{};
    EXPECT_TRUE(rig.ecam.read(EcamRig::kFunction + 8, out));
    EXPECT_EQ(util::load_le32(out.data() + 4), 0xcu);
    EXPECT_TRUE(rig.ecam.write(EcamRig::kFunction + 1, MutBytes(out).first(4)));
    EXPECT_EQ(rig.function->log, (EcamLog{"r8.4", "rc.4", "w1.1=8", "w2.2=0", "w4.1=0"}));
}

TEST(Ecam, AnAccessOverTheEndOfAFunctionGoesToTheNext) {
    EcamRig rig;
    std::array<std::byte, 4> out{};
    EXPECT_TRUE(rig.ecam.read(EcamRig::kFunction + 0xffe, out));
    EXPECT_EQ(util::load_le32(out.data()), 0xffff0ffeu);
}

}  // namespace
}  // namespace ferry::pci
