// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "hw/vfio/container-legacy.h"
#include "hw/vfio/device-io-kernel.h"
#include "hw/vfio/uapi.h"
#include "tests/fakes/fake-vfio-kernel.h"
#include "tests/support/mig-states.h"
#include "util/event-fd.h"
#include "util/wire.h"

namespace ferry::vfio {
namespace {

using test::FakeVfioDevice;
using test::FakeVfioKernel;
using namespace test::mig_states;

std::vector<std::byte> bytes(size_t count, uint8_t first) {
    std::vector<std::byte> out(count);
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<std::byte>(first + i);
    return out;
}

class KernelDeviceIo : public testing::Test {
 protected:
    KernelDeviceIo() : device_(kernel_.add_pci_device("0000:3b:00.2", 7)) {}
    void TearDown() override {
        stream_.reset();
        io_.reset();
        EXPECT_EQ(kernel_.open_fds(), 0u);
        EXPECT_EQ(kernel_.faults, std::vector<std::string>{});
    }
    VfioDeviceIo& io() {
        if (!io_) io_ = std::move(*host_.open_device("0000:3b:00.2"));
        return *io_;
    }
    // Enters a state that opens a session and keeps the stream.
    MigDataStream& open_stream(MigState state) {
        stream_ = std::move(*io().set_mig_state(state));
        return *stream_;
    }

    FakeVfioKernel kernel_;
    FakeVfioDevice& device_;
    system::GuestMemory memory_;
    VfioKernelHost host_{kernel_, memory_};
    std::unique_ptr<VfioDeviceIo> io_;
    std::unique_ptr<MigDataStream> stream_;
};

TEST_F(KernelDeviceIo, EveryFailingCallOfTheOpeningLeavesNoDescriptor) {
    for (unsigned call = 1;; ++call) {
        FakeVfioKernel kernel;
        kernel.add_pci_device("0000:3b:00.2", 7);
        kernel.fail_call(call, EIO);
        VfioKernelHost host(kernel, memory_);
        auto opened = host.open_device("0000:3b:00.2");
        if (opened) {
            EXPECT_GT(call, 15u);  // or the sweep swept nothing
            break;
        }
        EXPECT_EQ(opened.error().errnum(), EIO) << opened.error().message();
        EXPECT_EQ(kernel.open_fds(), 0u) << "call " << call;
        EXPECT_EQ(kernel.faults, std::vector<std::string>{}) << "call " << call;
    }
}

TEST_F(KernelDeviceIo, AbsurdNumberOfRegionsIsRefusedBeforeAnyIsAskedFor) {
    device_.regions.resize(100'000);
    const auto opened = host_.open_device("0000:3b:00.2");
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().kind(), ErrorKind::LimitExceeded);
}

TEST_F(KernelDeviceIo, OversizedCapabilityChainIsRefusedBeforeAllocation) {
    device_.regions[0].capabilities.resize(1 << 20);
    const auto opened = host_.open_device("0000:3b:00.2");
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().kind(), ErrorKind::LimitExceeded);
}

TEST_F(KernelDeviceIo, HostileCapabilityChainIsRefused) {
    device_.regions[0].capabilities.resize(64);
    device_.regions[0].first_capability = 4096;
    const auto opened = host_.open_device("0000:3b:00.2");
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().kind(), ErrorKind::Protocol);
    EXPECT_NE(opened.error().message().find("region 0"), std::string::npos);
}

TEST_F(KernelDeviceIo, SparseAreasAreReadWithASecondCall) {
    const uapi::SparseMmapCap header{
        .header = {.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP, .version = 1, .next = 0},
        .nr_areas = 1,
        .reserved = 0};
    const uapi::SparseMmapArea area{4096, 8192};
    auto& raw = device_.regions[0].capabilities;
    raw.resize(sizeof(header) + sizeof(area));
    std::memcpy(raw.data(), &header, sizeof(header));
    std::memcpy(raw.data() + sizeof(header), &area, sizeof(area));
    const auto info = io().region_info(0);
    ASSERT_TRUE(info);
    ASSERT_EQ(info->mmap_areas.size(), 1u);
    EXPECT_EQ(info->mmap_areas[0].offset, 4096u);

    const auto outside = io().region_map(0, 0, 8192);
    ASSERT_FALSE(outside);
    EXPECT_EQ(outside.error().kind(), ErrorKind::Unsupported);
    const auto mapped = io().region_map(0, 8192, 4096);
    ASSERT_TRUE(mapped);
    mapped->bytes()[1] = std::byte{0x77};
    EXPECT_EQ(device_.regions[0].bytes()[8193], std::byte{0x77});
}

TEST_F(KernelDeviceIo, RegionThatTheDeviceLacksHasSizeZero) {
    EXPECT_EQ(io().region_info(pci_region::kVga)->size, 0u);
    const auto beyond = io().region_info(9);
    ASSERT_FALSE(beyond);
    EXPECT_EQ(beyond.error().kind(), ErrorKind::InvalidArgument);
}

TEST_F(KernelDeviceIo, PartialTransfersAreContinued) {
    device_.max_transfer = 3;
    const auto wanted = bytes(10, 1);
    ASSERT_TRUE(io().region_write(0, 0x20, wanted));
    std::vector<std::byte> got(10);
    ASSERT_TRUE(io().region_read(0, 0x20, got));
    EXPECT_EQ(got, wanted);
}

TEST_F(KernelDeviceIo, TransferThatStopsIsAnError) {
    device_.max_transfer = 0;
    std::vector<std::byte> four(4);
    const auto read = io().region_read(0, 0, four);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().errnum(), EIO);
    const auto written = io().region_write(0, 0, four);
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().errnum(), EIO);
}

TEST_F(KernelDeviceIo, AccessOutsideTheRegionNeverReachesTheKernel) {
    io();
    const unsigned before = kernel_.calls();
    std::vector<std::byte> four(4);
    EXPECT_FALSE(io().region_read(2, 4093, four));
    EXPECT_FALSE(io().region_write(2, UINT64_MAX, four));
    EXPECT_FALSE(io().region_read(99, 0, four));
    EXPECT_EQ(kernel_.calls(), before);
}

TEST_F(KernelDeviceIo, InterruptsReachTheirEventfds) {
    const auto first = *util::EventFd::create();
    const auto third = *util::EventFd::create();
    const std::array fds = {first.fd(), BorrowedFd(), third.fd()};
    ASSERT_TRUE(io().set_irq_eventfds(pci_irq::kMsix, 0, fds));
    EXPECT_TRUE(device_.raise(pci_irq::kMsix, 2));
    EXPECT_FALSE(device_.raise(pci_irq::kMsix, 1));
    EXPECT_EQ(third.consume(), 1u);
    EXPECT_EQ(first.consume(), 0u);
    ASSERT_TRUE(io().disable_irqs(pci_irq::kMsix));
    EXPECT_FALSE(device_.raise(pci_irq::kMsix, 2));
}

TEST_F(KernelDeviceIo, IntxIsMaskedByTheKernelUntilUnmasked) {
    const auto fd = *util::EventFd::create();
    ASSERT_TRUE(io().set_irq_eventfds(pci_irq::kIntx, 0, std::array{fd.fd()}));
    EXPECT_TRUE(device_.raise(pci_irq::kIntx, 0));
    EXPECT_FALSE(device_.raise(pci_irq::kIntx, 0));
    ASSERT_TRUE(io().set_irq_masked(pci_irq::kIntx, 0, false));
    EXPECT_TRUE(device_.raise(pci_irq::kIntx, 0));
}

TEST_F(KernelDeviceIo, IntxIsUnmaskedByAnEventfdWhereTheDriverCan) {
    const auto fd = *util::EventFd::create();
    const auto unmask = *util::EventFd::create();
    EXPECT_FALSE(io().set_irq_unmask_eventfd(pci_irq::kIntx, 0, unmask.fd()));  // not enabled
    ASSERT_TRUE(io().set_irq_eventfds(pci_irq::kIntx, 0, std::array{fd.fd()}));
    ASSERT_TRUE(io().set_irq_unmask_eventfd(pci_irq::kIntx, 0, unmask.fd()));
    EXPECT_TRUE(device_.raise(pci_irq::kIntx, 0));
    EXPECT_FALSE(device_.raise(pci_irq::kIntx, 0));
    unmask.signal();
    EXPECT_TRUE(device_.raise(pci_irq::kIntx, 0));
    device_.unmasks_by_eventfd = false;
    const auto refused = io().set_irq_unmask_eventfd(pci_irq::kIntx, 0, unmask.fd());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind(), ErrorKind::Unsupported);
}

TEST_F(KernelDeviceIo, AbsentInterruptIndexHasNoVectors) {
    EXPECT_EQ(io().irq_info(pci_irq::kErr)->count, 0u);
    EXPECT_EQ(io().irq_info(pci_irq::kMsix)->count, 4u);
    EXPECT_TRUE(io().irq_info(pci_irq::kMsix)->noresize);
    EXPECT_FALSE(io().irq_info(pci_irq::kCount));
}

TEST_F(KernelDeviceIo, TooManyVectorsAreRefused) {
    const std::vector<BorrowedFd> fds(100'000);
    const auto set = io().set_irq_eventfds(pci_irq::kMsix, 0, fds);
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().kind(), ErrorKind::LimitExceeded);
}

TEST_F(KernelDeviceIo, DeviceWithoutResetIsNotAskedForOne) {
    device_.can_reset = false;
    const auto reset = io().reset();
    ASSERT_FALSE(reset);
    EXPECT_EQ(reset.error().kind(), ErrorKind::Unsupported);
}

TEST_F(KernelDeviceIo, MissingMigrationIsUnsupportedWithErrno) {
    device_.mig_flags = 0;
    const auto caps = io().migration_caps();
    ASSERT_FALSE(caps);
    EXPECT_EQ(caps.error().kind(), ErrorKind::Unsupported);
    EXPECT_EQ(caps.error().errnum(), ENOTTY);
    EXPECT_NE(caps.error().message().find("ioctl(VFIO_DEVICE_FEATURE, GET MIGRATION)"),
              std::string::npos);
}

TEST_F(KernelDeviceIo, CapabilitiesAreTheFlags) {
    device_.mig_flags = 5 | 0x100;  // a bit from the future
    EXPECT_EQ(*io().migration_caps(), (MigCaps{.stop_copy = true, .p2p = false, .pre_copy = true}));
}

TEST_F(KernelDeviceIo, RefusedArcNamesTheCallAndLeavesTheStateToBeAskedFor) {
    device_.arc_fault = {RunningP2P, Stop, EBUSY, std::nullopt};
    const auto set = io().set_mig_state(StopCopy);
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().errnum(), EBUSY);
    EXPECT_NE(
        set.error().message().find("ioctl(VFIO_DEVICE_FEATURE, SET MIG_DEVICE_STATE stop-copy)"),
        std::string::npos);
    EXPECT_EQ(*io().mig_state(), RunningP2P);
}

TEST_F(KernelDeviceIo, NoStateIsSetInError) {
    device_.arc_fault = {RunningP2P, Stop, EIO, MigState::Error};
    EXPECT_FALSE(io().set_mig_state(Stop));
    const auto again = io().set_mig_state(Running);
    ASSERT_FALSE(again);
    EXPECT_EQ(again.error().kind(), ErrorKind::InvalidState);
    EXPECT_EQ(*io().mig_state(), MigState::Error);
    ASSERT_TRUE(io().reset());
    EXPECT_EQ(*io().mig_state(), Running);
}

TEST_F(KernelDeviceIo, UnknownStateFromTheKernelIsAnError) {
    device_.state = static_cast<MigState>(8);
    const auto state = io().mig_state();
    ASSERT_FALSE(state);
    EXPECT_EQ(state.error().kind(), ErrorKind::Protocol);
    device_.state = Running;
}

TEST_F(KernelDeviceIo, MissingDescriptorIsReportedAlthoughTheStateChanged) {
    device_.no_descriptor_left = true;
    const auto set = io().set_mig_state(PreCopy);
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().errnum(), EMFILE);
    EXPECT_EQ(*io().mig_state(), PreCopy);
}

TEST_F(KernelDeviceIo, OnlyTheArcThatOpensASessionGivesAStream) {
    auto precopy = io().set_mig_state(PreCopy);
    ASSERT_TRUE(precopy);
    EXPECT_NE(*precopy, nullptr);
    auto stopcopy = io().set_mig_state(StopCopy);  // the session goes on
    ASSERT_TRUE(stopcopy);
    EXPECT_EQ(*stopcopy, nullptr);
}

TEST_F(KernelDeviceIo, PrecopyEndIsZeroBytesWhateverTheDriverCallsIt) {
    MigDataStream& stream = open_stream(PreCopy);
    std::vector<std::byte> buffer(16);
    device_.enomsg = true;
    EXPECT_EQ(stream.read_some(buffer)->bytes, 0u);
    device_.enomsg = false;
    EXPECT_EQ(stream.read_some(buffer)->bytes, 0u);
}

TEST_F(KernelDeviceIo, ImageIsReadInShortPiecesToItsEnd) {
    device_.precopy_data = bytes(5, 0);
    device_.stopcopy_data = bytes(6, 5);
    device_.max_data_transfer = 2;
    MigDataStream& stream = open_stream(PreCopy);
    ASSERT_TRUE(io().set_mig_state(StopCopy));
    std::vector<std::byte> image;
    std::vector<std::byte> buffer(16);
    for (;;) {
        const auto read = stream.read_some(buffer);
        ASSERT_TRUE(read) << read.error().message();
        if (read->bytes == 0) break;
        image.insert(image.end(), buffer.begin(),
                     buffer.begin() + static_cast<ptrdiff_t>(read->bytes));
    }
    EXPECT_EQ(image, bytes(11, 0));
}

TEST_F(KernelDeviceIo, BusyDataIsWaitedFor) {
    device_.stopcopy_data = bytes(4, 9);
    MigDataStream& stream = open_stream(StopCopy);
    device_.eagain_reads = 2;
    std::vector<std::byte> buffer(16);
    EXPECT_EQ(stream.read_some(buffer)->bytes, 4u);
    EXPECT_EQ(std::ranges::count(kernel_.log, "poll readable"), 2);
}

TEST_F(KernelDeviceIo, DriverThatIsAlwaysBusyButCalledReadyIsGivenUp) {
    MigDataStream& stream = open_stream(StopCopy);
    device_.eagain_reads = INT32_MAX;
    std::vector<std::byte> buffer(16);
    const auto read = stream.read_some(buffer);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().errnum(), EAGAIN);
}

TEST_F(KernelDeviceIo, DataReadErrorKeepsItsErrno) {
    MigDataStream& stream = open_stream(StopCopy);
    device_.data_error = EIO;
    std::vector<std::byte> buffer(16);
    const auto read = stream.read_some(buffer);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().errnum(), EIO);
}

TEST_F(KernelDeviceIo, StreamOfAnEndedSessionFails) {
    MigDataStream& stream = open_stream(PreCopy);
    ASSERT_TRUE(io().reset());
    std::vector<std::byte> buffer(16);
    const auto read = stream.read_some(buffer);
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().errnum(), ENODEV);
}

TEST_F(KernelDeviceIo, EmptyReadIsRefusedInsteadOfLookingLikeTheEnd) {
    MigDataStream& stream = open_stream(StopCopy);
    EXPECT_FALSE(stream.read_some({}));
}

TEST_F(KernelDeviceIo, ImageIsWrittenInShortPieces) {
    MigDataStream& stream = open_stream(Resuming);
    device_.max_data_transfer = 3;
    device_.eagain_writes = 1;
    const auto image = bytes(8, 1);
    ConstBytes rest = image;
    while (!rest.empty()) {
        const auto count = stream.write_some(rest);
        ASSERT_TRUE(count);
        rest = rest.subspan(*count);
    }
    EXPECT_EQ(device_.received, image);
}

TEST_F(KernelDeviceIo, WriteThatTakesNothingIsAnError) {
    MigDataStream& stream = open_stream(Resuming);
    device_.max_data_transfer = 0;
    const auto count = stream.write_some(bytes(4, 0));
    ASSERT_FALSE(count);
    EXPECT_EQ(count.error().errnum(), EIO);
}

TEST_F(KernelDeviceIo, PrecopyInfoBelongsToPrecopyStates) {
    device_.initial_bytes = 100;
    device_.dirty_bytes = 7;
    MigDataStream& stream = open_stream(PreCopy);
    const auto info = stream.precopy_info();
    ASSERT_TRUE(info);
    EXPECT_EQ(info->initial_bytes, 100u);
    EXPECT_EQ(info->dirty_bytes, 7u);
    ASSERT_TRUE(io().set_mig_state(StopCopy));
    const auto late = stream.precopy_info();
    ASSERT_FALSE(late);
    EXPECT_EQ(late.error().errnum(), EINVAL);
}

TEST_F(KernelDeviceIo, PrecopyInfoOfADriverWithoutItIsUnsupported) {
    device_.mig_flags = 1;
    MigDataStream& stream = open_stream(StopCopy);
    const auto info = stream.precopy_info();
    ASSERT_FALSE(info);
    EXPECT_EQ(info.error().kind(), ErrorKind::Unsupported);
    EXPECT_EQ(info.error().errnum(), ENOTTY);
}

TEST_F(KernelDeviceIo, StopCopySizeIsTheDriversEstimate) {
    device_.stop_copy_length = 123456;
    EXPECT_EQ(*io().stop_copy_bytes(), 123456u);
    device_.data_size_error = EREMOTEIO;
    const auto size = io().stop_copy_bytes();
    ASSERT_FALSE(size);
    EXPECT_EQ(size.error().errnum(), EREMOTEIO);
}

TEST_F(KernelDeviceIo, DmaLogReportsEachWrittenPageOnce) {
    EXPECT_TRUE(*io().dma_logging_supported());
    const std::array ranges = {DmaLogRange{0x100000, 0x100000}};
    ASSERT_TRUE(io().dma_logging_start(ranges, 4096));
    device_.dma_write(0x100000);
    device_.dma_write(0x145000);
    util::Bitmap pages(256);
    pages.set(3);
    ASSERT_TRUE(io().dma_logging_report(ranges[0], 4096, pages));
    EXPECT_TRUE(pages.test(0));
    EXPECT_TRUE(pages.test(3));  // what the caller had collected stays
    EXPECT_TRUE(pages.test(0x45));
    EXPECT_EQ(pages.count(), 3u);
    util::Bitmap again(256);
    ASSERT_TRUE(io().dma_logging_report(ranges[0], 4096, again));
    EXPECT_TRUE(again.none());
    EXPECT_TRUE(io().dma_logging_stop());
}

TEST_F(KernelDeviceIo, DmaLogNeverWritesPastTheBitmap) {
    const std::array ranges = {DmaLogRange{0, 0x100000}};
    ASSERT_TRUE(io().dma_logging_start(ranges, 4096));
    const unsigned before = kernel_.calls();
    util::Bitmap small(255);
    const auto report = io().dma_logging_report(ranges[0], 4096, small);
    ASSERT_FALSE(report);
    EXPECT_EQ(report.error().kind(), ErrorKind::InvalidArgument);
    EXPECT_EQ(kernel_.calls(), before);
}

TEST_F(KernelDeviceIo, DmaLoggingRefusalsKeepTheirErrno) {
    const std::vector<DmaLogRange> many(257, DmaLogRange{0, 4096});
    EXPECT_EQ(io().dma_logging_start(many, 4096).error().errnum(), E2BIG);
    const std::array overlapping = {DmaLogRange{0, 8192}, DmaLogRange{4096, 4096}};
    EXPECT_EQ(io().dma_logging_start(overlapping, 4096).error().errnum(), EINVAL);
    util::Bitmap pages(1);
    EXPECT_EQ(io().dma_logging_report({0, 4096}, 4096, pages).error().errnum(), EINVAL);
}

TEST_F(KernelDeviceIo, DeviceWithoutDmaLoggingSaysSo) {
    device_.dma_logging = false;
    EXPECT_FALSE(*io().dma_logging_supported());
    const auto stop = io().dma_logging_stop();
    ASSERT_FALSE(stop);
    EXPECT_EQ(stop.error().kind(), ErrorKind::Unsupported);
}

}  // namespace
}  // namespace ferry::vfio
