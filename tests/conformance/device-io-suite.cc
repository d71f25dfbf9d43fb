// SPDX-License-Identifier: BSD-2-Clause
#include "tests/conformance/device-io-suite.h"

#include <algorithm>
#include <cerrno>

#include "tests/support/errno-of.h"
#include "tests/support/mig-states.h"
#include "util/event-fd.h"

namespace ferry::test {

using vfio::DmaLogRange;
using vfio::MigState;
using vfio::SessionKind;
using namespace mig_states;

Image read_image(vfio::MigDataStream& stream, size_t piece_bytes) {
    Image image;
    std::vector<std::byte> piece(piece_bytes);
    for (;;) {
        const auto read = stream.read_some(piece);
        if (!read) {
            ADD_FAILURE() << read.error().message();
            return image;
        }
        if (read->bytes == 0) return image;
        image.insert(image.end(), piece.begin(),
                     piece.begin() + static_cast<ptrdiff_t>(read->bytes));
    }
}

Result<> write_image(vfio::MigDataStream& stream, ConstBytes image, size_t piece_bytes) {
    while (!image.empty()) {
        auto written = stream.write_some(image.first(std::min(piece_bytes, image.size())));
        if (!written) return std::move(written).error();
        image = image.subspan(*written);
    }
    return {};
}

std::vector<MigState> DeviceIoSuite::states() const {
    std::vector<MigState> states;
    for (uint32_t raw = 1; raw < vfio::kMigStateCount; ++raw) {
        const auto state = static_cast<MigState>(raw);
        if (state_exists(GetParam().caps, state)) states.push_back(state);
    }
    return states;
}

DeviceIoSuite::StreamPtr DeviceIoSuite::go(DeviceUnderTest& device, MigState state) {
    auto stream = device.io().set_mig_state(state);
    if (stream) return std::move(*stream);
    ADD_FAILURE() << "to " << to_string(state) << ": " << stream.error().message();
    return nullptr;
}

Image DeviceIoSuite::save(DeviceUnderTest& device, size_t piece_bytes) {
    StreamPtr stream;
    Image image;
    if (GetParam().caps.pre_copy) {
        stream = go(device, PreCopy);
        if (stream == nullptr) return {};
        image = read_image(*stream, piece_bytes);
        device.change_state(0x5a5a);
        EXPECT_EQ(go(device, StopCopy), nullptr);  // the same session
    } else {
        stream = go(device, StopCopy);
        if (stream == nullptr) return {};
    }
    const Image rest = read_image(*stream, piece_bytes);
    image.insert(image.end(), rest.begin(), rest.end());
    return image;
}

namespace {

using system::kPageSize;

// ---- information, regions, interrupts

TEST_P(DeviceIoSuite, RegionBeyondTheLastIsRefused) {
    const auto info = io_.info();
    ASSERT_TRUE(info);
    EXPECT_EQ(errno_of(io_.region_info(info->num_regions)), EINVAL);
}

TEST_P(DeviceIoSuite, InterruptBeyondTheLastIsRefused) {
    const auto info = io_.info();
    ASSERT_TRUE(info);
    EXPECT_EQ(errno_of(io_.irq_info(info->num_irqs)), EINVAL);
}

TEST_P(DeviceIoSuite, AccessAcrossTheEndOfARegionIsRefused) {
    const auto config = io_.region_info(vfio::pci_region::kConfig);
    ASSERT_TRUE(config);
    std::vector<std::byte> bytes(4);
    EXPECT_FALSE(io_.region_read(vfio::pci_region::kConfig, config->size - 2, bytes));
    EXPECT_FALSE(io_.region_write(vfio::pci_region::kConfig, config->size - 2, bytes));
    EXPECT_FALSE(io_.region_read(vfio::pci_region::kConfig, ~uint64_t{0}, bytes));
}

TEST_P(DeviceIoSuite, ReadOnlyConfigurationKeepsItsValue) {
    std::vector<std::byte> before(4), after(4);
    const std::vector<std::byte> ones(4, std::byte{0xff});
    ASSERT_TRUE(io_.region_read(vfio::pci_region::kConfig, 0, before));
    ASSERT_TRUE(io_.region_write(vfio::pci_region::kConfig, 0, ones));
    ASSERT_TRUE(io_.region_read(vfio::pci_region::kConfig, 0, after));
    EXPECT_EQ(before, after);
}

TEST_P(DeviceIoSuite, EventfdsBeyondTheVectorsAreRefused) {
    const auto msix = io_.irq_info(vfio::pci_irq::kMsix);
    ASSERT_TRUE(msix);
    const std::vector<BorrowedFd> none(2);
    EXPECT_EQ(errno_of(io_.set_irq_eventfds(vfio::pci_irq::kMsix, msix->count - 1, none)), EINVAL);
    EXPECT_EQ(errno_of(io_.set_irq_eventfds(vfio::pci_irq::kMsix, msix->count, none)), EINVAL);
    EXPECT_EQ(errno_of(io_.set_irq_eventfds(vfio::pci_irq::kMsix, ~0U, none)), EINVAL);
}

TEST_P(DeviceIoSuite, InterruptSignalsTheEventfdOfItsVector) {
    const auto first = util::EventFd::create(), second = util::EventFd::create();
    ASSERT_TRUE(first && second);
    const std::vector<BorrowedFd> fds = {first->fd(), second->fd()};
    ASSERT_TRUE(io_.set_irq_eventfds(vfio::pci_irq::kMsix, 1, fds));
    device_->raise(2);
    EXPECT_EQ(first->consume(), 0);
    EXPECT_EQ(second->consume(), 1);
}

TEST_P(DeviceIoSuite, RemovedEventfdStaysSilent) {
    const auto eventfd = util::EventFd::create();
    ASSERT_TRUE(eventfd);
    const std::vector<BorrowedFd> connect = {eventfd->fd()}, remove = {BorrowedFd()};
    ASSERT_TRUE(io_.set_irq_eventfds(vfio::pci_irq::kMsix, 0, connect));
    ASSERT_TRUE(io_.set_irq_eventfds(vfio::pci_irq::kMsix, 0, remove));
    device_->raise(0);
    EXPECT_EQ(eventfd->consume(), 0);
}

TEST_P(DeviceIoSuite, DisabledInterruptsStaySilent) {
    const auto eventfd = util::EventFd::create();
    ASSERT_TRUE(eventfd);
    const std::vector<BorrowedFd> connect = {eventfd->fd()};
    ASSERT_TRUE(io_.set_irq_eventfds(vfio::pci_irq::kMsix, 0, connect));
    ASSERT_TRUE(io_.disable_irqs(vfio::pci_irq::kMsix));
    device_->raise(0);
    EXPECT_EQ(eventfd->consume(), 0);
}

// ---- states and sessions

TEST_P(DeviceIoSuite, ReportsItsFlagsAndStartsRunning) {
    const auto caps = io_.migration_caps();
    ASSERT_TRUE(caps);
    EXPECT_EQ(*caps, GetParam().caps);
    const auto state = io_.mig_state();
    ASSERT_TRUE(state);
    EXPECT_EQ(*state, Running);
}

TEST_P(DeviceIoSuite, ErrorCannotBeRequested) {
    EXPECT_EQ(errno_of(io_.set_mig_state(MigState::Error)), EINVAL);
    EXPECT_EQ(*io_.mig_state(), Running);
}

TEST_P(DeviceIoSuite, StateTheDeviceLacksIsRefused) {
    for (const MigState state : {RunningP2P, PreCopy, PreCopyP2P}) {
        if (state_exists(GetParam().caps, state)) continue;
        EXPECT_EQ(errno_of(io_.set_mig_state(state)), EINVAL) << to_string(state);
        EXPECT_EQ(*io_.mig_state(), Running);
    }
}

TEST_P(DeviceIoSuite, RequestForTheCurrentStateKeepsTheSession) {
    for (const MigState state : states()) {
        SCOPED_TRACE(to_string(state));
        ASSERT_TRUE(io_.reset());
        const StreamPtr stream = go(*device_, state);
        EXPECT_EQ(go(*device_, state), nullptr);
        EXPECT_EQ(*io_.mig_state(), state);
        std::vector<std::byte> piece(16);
        if (session_of(state) == SessionKind::Saving) {
            EXPECT_TRUE(stream->read_some(piece));
        }
    }
}

// Every request from every state: where it ends, whether it opens a session, what happens to the
// session there was.
TEST_P(DeviceIoSuite, EveryRequestEndsWhereThePathSays) {
    for (const MigState from : states()) {
        if (from == Resuming) continue;  // only a complete image leads out of it
        for (const MigState to : states()) {
            SCOPED_TRACE(std::string(to_string(from)) + " -> " + std::string(to_string(to)));
            ASSERT_TRUE(io_.reset());
            const StreamPtr old_stream = go(*device_, from);
            const auto path = mig_path(GetParam().caps, from, to);
            if (!path) {
                EXPECT_EQ(errno_of(io_.set_mig_state(to)), EINVAL);
                EXPECT_EQ(*io_.mig_state(), from);
                continue;
            }
            const StreamPtr stream = go(*device_, to);
            EXPECT_EQ(*io_.mig_state(), to);
            const bool kept = session_of(from) == session_of(to);
            EXPECT_EQ(stream != nullptr, session_of(to) != SessionKind::None && !kept);
            if (old_stream == nullptr) continue;
            std::vector<std::byte> piece(16);
            EXPECT_EQ(errno_of(old_stream->read_some(piece)), kept ? 0 : ENODEV);
        }
    }
}

TEST_P(DeviceIoSuite, ResetRunsTheDeviceAndEndsItsSession) {
    for (const MigState state : states()) {
        SCOPED_TRACE(to_string(state));
        const StreamPtr stream = go(*device_, state);
        ASSERT_TRUE(io_.reset());
        EXPECT_EQ(*io_.mig_state(), Running);
        std::vector<std::byte> piece(16);
        if (session_of(state) == SessionKind::Saving) {
            EXPECT_EQ(errno_of(stream->read_some(piece)), ENODEV);
        }
        if (session_of(state) == SessionKind::Resuming) {
            EXPECT_EQ(errno_of(stream->write_some(piece)), ENODEV);
        }
    }
}

TEST_P(DeviceIoSuite, StreamHasOneDirection) {
    std::vector<std::byte> piece(16);
    const StreamPtr saving = go(*device_, StopCopy);
    EXPECT_EQ(errno_of(saving->write_some(piece)), EBADF);
    const StreamPtr resuming = go(*device_, Resuming);
    EXPECT_EQ(errno_of(resuming->read_some(piece)), EBADF);
}

TEST_P(DeviceIoSuite, EndOfTheImageRepeats) {
    const StreamPtr stream = go(*device_, StopCopy);
    read_image(*stream);
    std::vector<std::byte> piece(16);
    for (int i = 0; i < 2; ++i) {
        const auto read = stream->read_some(piece);
        ASSERT_TRUE(read);
        EXPECT_EQ(read->bytes, 0);
    }
}

// ---- images

TEST_P(DeviceIoSuite, ImageArrivesUnchanged) {
    device_->fill_state(7);
    const Image image = save(*device_);
    const auto target = GetParam().make();
    const StreamPtr stream = go(*target, Resuming);
    ASSERT_TRUE(write_image(*stream, image));
    go(*target, Running);
    EXPECT_EQ(*target->io().mig_state(), Running);
    EXPECT_EQ(target->state_digest(), device_->state_digest());
}

TEST_P(DeviceIoSuite, ImageMayBeCutAnywhere) {
    device_->fill_state(8);
    constexpr size_t kReadPiece = 1009, kWritePiece = 773;
    const Image image = save(*device_, kReadPiece);
    const auto target = GetParam().make();
    const StreamPtr stream = go(*target, Resuming);
    ASSERT_TRUE(write_image(*stream, image, kWritePiece));
    go(*target, Stop);
    EXPECT_EQ(target->state_digest(), device_->state_digest());
}

TEST_P(DeviceIoSuite, TruncatedImageIsRefusedAndTheDeviceStaysResuming) {
    Image image = save(*device_);
    image.pop_back();
    const auto target = GetParam().make();
    const StreamPtr stream = go(*target, Resuming);
    ASSERT_TRUE(write_image(*stream, image));
    EXPECT_EQ(errno_of(target->io().set_mig_state(Stop)), EINVAL);
    EXPECT_EQ(*target->io().mig_state(), Resuming);
}

TEST_P(DeviceIoSuite, TwoImagesInARowAreRefused) {
    const Image image = save(*device_);
    const auto target = GetParam().make();
    const StreamPtr stream = go(*target, Resuming);
    ASSERT_TRUE(write_image(*stream, image));
    ASSERT_TRUE(write_image(*stream, image));
    EXPECT_EQ(errno_of(target->io().set_mig_state(Stop)), EINVAL);
}

TEST_P(PrecopyDeviceIoSuite, AbandonedPreCopyFollowedByAnImageIsRefused) {
    Image image = read_image(*go(*device_, PreCopy));
    go(*device_, Running);
    const Image whole = save(*device_);
    image.insert(image.end(), whole.begin(), whole.end());
    const auto target = GetParam().make();
    const StreamPtr stream = go(*target, Resuming);
    ASSERT_TRUE(write_image(*stream, image));
    EXPECT_EQ(errno_of(target->io().set_mig_state(Stop)), EINVAL);
}

TEST_P(DeviceIoSuite, ResetAfterARefusedImageMakesANewAttemptPossible) {
    device_->fill_state(9);
    const Image image = save(*device_);
    const auto target = GetParam().make();
    go(*target, Resuming);
    ASSERT_EQ(errno_of(target->io().set_mig_state(Stop)), EINVAL);
    ASSERT_TRUE(target->io().reset());
    const StreamPtr stream = go(*target, Resuming);
    ASSERT_TRUE(write_image(*stream, image));
    go(*target, Running);
    EXPECT_EQ(target->state_digest(), device_->state_digest());
}

TEST_P(DeviceIoSuite, StopCopyBytesAreKnownInEveryState) {
    for (const MigState state : states()) {
        ASSERT_TRUE(io_.reset());
        const StreamPtr stream = go(*device_, state);
        EXPECT_TRUE(io_.stop_copy_bytes()) << to_string(state);
    }
}

// ---- pre-copy

TEST_P(DeviceIoSuite, PrecopyInfoIsForPreCopyStatesOnly) {
    const StreamPtr stream = go(*device_, StopCopy);
    EXPECT_EQ(errno_of(stream->precopy_info()), GetParam().caps.pre_copy ? EINVAL : ENOTTY);
}

TEST_P(PrecopyDeviceIoSuite, InitialBytesFallToZeroAndChangesCountAsDirty) {
    const StreamPtr stream = go(*device_, PreCopy);
    const auto begin = stream->precopy_info();
    ASSERT_TRUE(begin);
    EXPECT_GT(begin->initial_bytes, 0);
    EXPECT_EQ(begin->dirty_bytes, 0);
    read_image(*stream);
    const auto read = stream->precopy_info();
    ASSERT_TRUE(read);
    EXPECT_EQ(read->initial_bytes, 0);
    EXPECT_EQ(read->dirty_bytes, 0);
    device_->change_state(1);
    const auto changed = stream->precopy_info();
    ASSERT_TRUE(changed);
    EXPECT_EQ(changed->initial_bytes, 0);
    EXPECT_GT(changed->dirty_bytes, 0);
}

TEST_P(PrecopyDeviceIoSuite, DataGoesOnAfterATemporaryEnd) {
    const StreamPtr stream = go(*device_, PreCopy);
    read_image(*stream);
    device_->change_state(2);
    EXPECT_FALSE(read_image(*stream).empty());
}

TEST_P(PrecopyDeviceIoSuite, StopCopyBytesFallAsPreCopyIsRead) {
    const StreamPtr stream = go(*device_, PreCopy);
    const auto before = io_.stop_copy_bytes();
    read_image(*stream);
    const auto after = io_.stop_copy_bytes();
    ASSERT_TRUE(before && after);
    EXPECT_LT(*after, *before);
}

// ---- DMA logging

constexpr DmaLogRange kMemory{DeviceUnderTest::kMemoryIova, DeviceUnderTest::kMemoryBytes};

TEST_P(DeviceIoSuite, DmaLogWithoutRangesIsRefused) {
    EXPECT_EQ(errno_of(io_.dma_logging_start({}, kPageSize)), EINVAL);
}

TEST_P(DeviceIoSuite, DmaLogWithTooManyRangesIsRefused) {
    std::vector<DmaLogRange> ranges;
    for (uint64_t i = 0; i < 257; ++i) ranges.push_back({i * 2 * kPageSize, kPageSize});
    EXPECT_EQ(errno_of(io_.dma_logging_start(ranges, kPageSize)), E2BIG);
}

TEST_P(DeviceIoSuite, DmaLogOfAnUnalignedRangeIsRefused) {
    const DmaLogRange bad[] = {{kPageSize / 2, kPageSize}};
    EXPECT_EQ(errno_of(io_.dma_logging_start(bad, kPageSize)), EINVAL);
    const DmaLogRange worse[] = {{kPageSize, kPageSize / 2}};
    EXPECT_EQ(errno_of(io_.dma_logging_start(worse, kPageSize)), EINVAL);
}

TEST_P(DeviceIoSuite, DmaLogOfAWrappingRangeIsRefused) {
    const DmaLogRange bad[] = {{0 - 2 * kPageSize, 4 * kPageSize}};
    EXPECT_EQ(errno_of(io_.dma_logging_start(bad, kPageSize)), EOVERFLOW);
}

TEST_P(DeviceIoSuite, DmaLogOfOverlappingRangesIsRefused) {
    const DmaLogRange bad[] = {{4 * kPageSize, 4 * kPageSize}, {0, 5 * kPageSize}};
    EXPECT_EQ(errno_of(io_.dma_logging_start(bad, kPageSize)), EINVAL);
}

TEST_P(DeviceIoSuite, SecondStartOfTheDmaLogIsRefused) {
    ASSERT_TRUE(io_.dma_logging_start({&kMemory, 1}, kPageSize));
    EXPECT_EQ(errno_of(io_.dma_logging_start({&kMemory, 1}, kPageSize)), EINVAL);
    EXPECT_TRUE(io_.dma_logging_stop());
    EXPECT_TRUE(io_.dma_logging_start({&kMemory, 1}, kPageSize));
}

TEST_P(DeviceIoSuite, ReportOfALogThatIsOffIsRefused) {
    util::Bitmap pages(kMemory.length / kPageSize);
    EXPECT_EQ(errno_of(io_.dma_logging_report(kMemory, kPageSize, pages)), EINVAL);
}

TEST_P(DeviceIoSuite, ReportInTooSmallPagesIsRefused) {
    ASSERT_TRUE(io_.dma_logging_start({&kMemory, 1}, kPageSize));
    util::Bitmap pages(kMemory.length);
    EXPECT_EQ(errno_of(io_.dma_logging_report(kMemory, kPageSize / 2, pages)), EINVAL);
}

TEST_P(DeviceIoSuite, DmaLogReportsExactlyWhatWasWrittenOnce) {
    ASSERT_TRUE(io_.dma_logging_start({&kMemory, 1}, kPageSize));
    device_->write_memory(kMemory.iova + 3 * kPageSize, 4);
    device_->write_memory(kMemory.iova + 70 * kPageSize - 4, 8);  // across a page and a word
    util::Bitmap pages(kMemory.length / kPageSize), expected(kMemory.length / kPageSize);
    for (const uint64_t page : {3, 69, 70}) expected.set(page);
    ASSERT_TRUE(io_.dma_logging_report(kMemory, kPageSize, pages));
    EXPECT_TRUE(std::ranges::equal(pages.words(), expected.words()));
    pages.clear_all();
    ASSERT_TRUE(io_.dma_logging_report(kMemory, kPageSize, pages));
    EXPECT_TRUE(pages.none());
}

TEST_P(DeviceIoSuite, DmaLogReportKeepsTheBitsThatAreSet) {
    ASSERT_TRUE(io_.dma_logging_start({&kMemory, 1}, kPageSize));
    device_->write_memory(kMemory.iova, 4);
    util::Bitmap pages(kMemory.length / kPageSize);
    pages.set(5);
    ASSERT_TRUE(io_.dma_logging_report(kMemory, kPageSize, pages));
    EXPECT_TRUE(pages.test(0));
    EXPECT_TRUE(pages.test(5));
}

TEST_P(DeviceIoSuite, DmaLogReportLeavesTheRestOfTheRangeAlone) {
    ASSERT_TRUE(io_.dma_logging_start({&kMemory, 1}, kPageSize));
    device_->write_memory(kMemory.iova + 2 * kPageSize, 4);
    const DmaLogRange first{kMemory.iova, 2 * kPageSize},
        rest{kMemory.iova + 2 * kPageSize, 2 * kPageSize};
    util::Bitmap pages(2);
    ASSERT_TRUE(io_.dma_logging_report(first, kPageSize, pages));
    EXPECT_TRUE(pages.none());
    ASSERT_TRUE(io_.dma_logging_report(rest, kPageSize, pages));
    EXPECT_TRUE(pages.test(0));
}

TEST_P(DeviceIoSuite, DmaLogIsReadAfterTheDeviceStopped) {
    ASSERT_TRUE(io_.dma_logging_start({&kMemory, 1}, kPageSize));
    device_->write_memory(kMemory.iova, 4);
    const StreamPtr stream = go(*device_, StopCopy);
    util::Bitmap pages(kMemory.length / kPageSize);
    ASSERT_TRUE(io_.dma_logging_report(kMemory, kPageSize, pages));
    EXPECT_EQ(pages.count(), 1);
}

}  // namespace
}  // namespace ferry::test
