// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "hw/test-device-image.h"
#include "tests/support/mig-states.h"
#include "tests/unit/hw/vfio/soft-rig.h"

namespace ferry::hw {
namespace {

using namespace test_device_reg;
using namespace std::chrono_literals;
using test::Image;
using test::read_image;
using test::small;
using test::SoftRig;
using test::write_image;
using namespace test::mig_states;
using system::kPageSize;

TEST(StreamChecksum, DoesNotDependOnHowTheStreamIsCut) {
    std::vector<std::byte> bytes(1000);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
    StreamChecksum whole;
    whole.update(bytes);
    for (const size_t piece : {1, 7, 32, 33, 999}) {
        StreamChecksum cut;
        for (size_t at = 0; at < bytes.size(); at += piece) {
            cut.update(ConstBytes(bytes).subspan(at, std::min(piece, bytes.size() - at)));
        }
        EXPECT_EQ(cut.value(), whole.value()) << piece;
        EXPECT_EQ(cut.total_bytes(), bytes.size());
    }
}

TEST(StreamChecksum, SeesEveryBitAndTheLength) {
    std::vector<std::byte> bytes(65);
    StreamChecksum zeros;
    zeros.update(bytes);
    for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
        auto flipped = bytes;
        flipped[bit / 8] ^= std::byte{1} << (bit % 8);
        StreamChecksum other;
        other.update(flipped);
        EXPECT_NE(other.value(), zeros.value()) << bit;
    }
    StreamChecksum shorter;
    shorter.update(ConstBytes(bytes).first(64));
    EXPECT_NE(shorter.value(), zeros.value());
}

TEST(TestDeviceImage, RoundTripsByteByByte) {
    SoftRig source(small(0x11000)), target(small(0x11000));
    source.fill_state(11);
    source.driver().set(kScratch, 0x1234);
    auto saving = source.io().set_mig_state(PreCopy);
    ASSERT_TRUE(saving);
    Image image = read_image(**saving, 1);
    source.driver().write_state(0x10ffc, 99);
    ASSERT_TRUE(source.io().set_mig_state(StopCopy));
    const Image rest = read_image(**saving, 1);
    image.insert(image.end(), rest.begin(), rest.end());
    auto loading = target.io().set_mig_state(Resuming);
    ASSERT_TRUE(loading);
    ASSERT_TRUE(write_image(**loading, image, 1));
    ASSERT_TRUE(target.io().set_mig_state(Running));
    EXPECT_EQ(target.state_digest(), source.state_digest());
    EXPECT_EQ(target.driver().get(kScratch), 0x1234);
    EXPECT_EQ(target.driver().read_state(0x10ffc), 99);
}

Image whole_image(SoftRig& rig) {
    auto stream = rig.io().set_mig_state(StopCopy);
    EXPECT_TRUE(stream);
    return read_image(**stream);
}

std::string refusal(SoftRig& rig, const Image& image) {
    auto stream = rig.io().set_mig_state(Resuming);
    EXPECT_TRUE(stream);
    const auto written = write_image(**stream, image);
    if (!written) return "write: " + written.error().message();
    const auto accepted = rig.io().set_mig_state(Stop);
    EXPECT_EQ(*rig.io().mig_state(), accepted ? Stop : Resuming);
    return accepted ? "" : accepted.error().message();
}

constexpr size_t kHeader = 40, kRecord = 16;

TEST(TestDeviceImage, OfAnotherSizeIsRefusedByTheWrite) {
    SoftRig source(small(0x10000)), target(small(0x20000));
    EXPECT_TRUE(refusal(target, whole_image(source)).starts_with("write: "));
}

TEST(TestDeviceImage, WithAFlippedBitIsRefused) {
    SoftRig source(small());
    const Image good = whole_image(source);
    // In the payload of an extent, in the registers, in the checksum.
    for (const size_t at : {kHeader + kRecord + 5, good.size() - 100, good.size() - 1}) {
        SoftRig target(small());
        Image bad = good;
        bad[at] ^= std::byte{0x10};
        EXPECT_NE(refusal(target, bad).find("checksum"), std::string::npos) << at;
    }
}

TEST(TestDeviceImage, CutAnywhereIsRefused) {
    SoftRig source(small(kPageSize));
    const Image good = whole_image(source);
    for (const size_t bytes : {size_t{0}, size_t{3}, kHeader, kHeader + 7, kHeader + kRecord,
                               good.size() - 24, good.size() - 1}) {
        SoftRig target(small(kPageSize));
        EXPECT_NE(refusal(target, Image(good.begin(), good.begin() + static_cast<long>(bytes)))
                      .find("incomplete"),
                  std::string::npos)
            << bytes;
    }
}

TEST(TestDeviceImage, WithBytesAfterTheTrailerIsRefused) {
    SoftRig source(small()), target(small());
    Image image = whole_image(source);
    image.push_back(std::byte{0});
    EXPECT_NE(refusal(target, image).find("after the trailer"), std::string::npos);
}

TEST(TestDeviceImage, OfASecondSessionInTheMiddleIsRefused) {
    SoftRig source(small()), target(small());
    auto stream = source.io().set_mig_state(PreCopy);
    Image image = read_image(**stream);
    ASSERT_TRUE(source.io().set_mig_state(Running));
    const Image second = whole_image(source);
    image.insert(image.end(), second.begin(), second.end());
    EXPECT_NE(refusal(target, image).find("second image"), std::string::npos);
}

TEST(TestDeviceImage, WithARecordOutsideTheStateIsRefused) {
    SoftRig source(small()), target(small());
    Image image = whole_image(source);
    util::store_le64(image.data() + kHeader + 8, uint64_t{1} << 40);
    EXPECT_NE(refusal(target, image).find("bad extent"), std::string::npos);
}

TEST(TestDeviceImage, WithoutAnExtentIsRefusedEvenIfItsTrailerFits) {
    SoftRig source(small()), target(small());
    Image image = whole_image(source);
    const auto first = image.begin() + kHeader;
    image.erase(first, first + kRecord + 0x10000);
    util::store_le64(image.data() + image.size() - 16, image.size() - 24);
    EXPECT_NE(refusal(target, image).find("refused"), std::string::npos);
}

TEST(TestDeviceImage, StartsWithItsMagicAndTellsItsFirstPass) {
    SoftRig rig(small(0x20000));
    auto stream = rig.io().set_mig_state(PreCopy);
    const auto info = (*stream)->precopy_info();
    const Image image = read_image(**stream);
    EXPECT_EQ(std::memcmp(image.data(), "FTD1", 4), 0);
    EXPECT_EQ(util::load_le64(image.data() + 24), image.size());
    EXPECT_EQ(info->initial_bytes, image.size());
}

TEST(TestDeviceImage, StopCopyBytesAreExactWhenNothingChanges) {
    SoftRig rig(small());
    const uint64_t idle = *rig.io().stop_copy_bytes();
    EXPECT_EQ(idle, whole_image(rig).size());
    ASSERT_TRUE(rig.io().reset());
    auto stream = rig.io().set_mig_state(PreCopy);
    read_image(**stream);
    const uint64_t rest = *rig.io().stop_copy_bytes();
    ASSERT_TRUE(rig.io().set_mig_state(StopCopy));
    EXPECT_EQ(read_image(**stream).size(), rest);
    EXPECT_EQ(*rig.io().stop_copy_bytes(), 0);
}

TEST(TestDeviceImage, PrecopyWithoutDataIsNothingForNowInBothSpellings) {
    for (const auto spelling :
         {TestDeviceConfig::NothingForNow::Zero, TestDeviceConfig::NothingForNow::Enomsg}) {
        TestDeviceConfig config = small();
        config.nothing_for_now = spelling;
        SoftRig rig(config);
        auto stream = rig.io().set_mig_state(PreCopy);
        read_image(**stream);
        std::byte piece[16];
        const auto read = (*stream)->read_some(piece);
        ASSERT_TRUE(read);
        EXPECT_EQ(read->bytes, 0);
    }
}

TEST(TestDeviceImage, AllRegistersMigrateConfigSpaceDoesNot) {
    SoftRig source(small()), target(small());
    auto driver = source.driver();
    driver.set64(kAutoIova, 0x123456789000);
    driver.set(kDmaValue, 77);
    const std::byte ram[] = {std::byte{1}, std::byte{2}};
    ASSERT_TRUE(source.io().region_write(0, kRamOffset + 0x2ffe, ram));
    ASSERT_TRUE(target.io().reset());
    EXPECT_EQ(refusal(target, whole_image(source)), "");
    EXPECT_EQ(target.driver().get64(kAutoIova), 0x123456789000);
    EXPECT_EQ(target.driver().get(kDmaValue), 77);
    std::byte out[2];
    ASSERT_TRUE(target.io().region_read(0, kRamOffset + 0x2ffe, out));
    EXPECT_EQ(out[1], std::byte{2});
    std::byte command[2];
    ASSERT_TRUE(target.io().region_read(vfio::pci_region::kConfig, 4, command));
    EXPECT_EQ(command[0], std::byte{0});
}

TEST(TestDeviceImage, RunningDeviceMayChangeWhileItIsRead) {
    TestDeviceConfig config = small(1 << 20);
    config.dirty_bytes_per_s = 64 << 20;
    config.dma_pages_per_s = 1000;
    SoftRig source(config), target(config);
    source.fill_state(3);
    auto saving = source.io().set_mig_state(PreCopy);
    ASSERT_TRUE(saving);
    std::atomic<bool> stop = false;
    std::thread guest([&] {
        auto driver = source.driver();
        for (uint32_t i = 0; !stop; ++i) {
            driver.write_state(i * 4 % (1 << 20), i);
            source.clock().advance(100us);
        }
    });
    Image image;
    std::vector<std::byte> piece(100000);
    for (int i = 0; i < 30; ++i) {
        const auto read = (*saving)->read_some(piece);
        ASSERT_TRUE(read);
        image.insert(image.end(), piece.begin(), piece.begin() + static_cast<long>(read->bytes));
    }
    stop = true;
    guest.join();
    ASSERT_TRUE(source.io().set_mig_state(StopCopy));
    const Image rest = read_image(**saving);
    image.insert(image.end(), rest.begin(), rest.end());
    auto loading = target.io().set_mig_state(Resuming);
    ASSERT_TRUE(write_image(**loading, image));
    ASSERT_TRUE(target.io().set_mig_state(Stop));
    EXPECT_EQ(target.state_digest(), source.state_digest());
}

}  // namespace
}  // namespace ferry::hw
