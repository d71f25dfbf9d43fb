// SPDX-License-Identifier: BSD-2-Clause
// Whole migrations whose RAM goes over channels of its own, and what a line or a peer that breaks
// does to both sides.
#include <gtest/gtest.h>

#include <algorithm>

#include "migration/state-packet.h"
#include "tests/support/fault-channel.h"
#include "tests/unit/migration/multifd-session.h"

namespace ferry::migration {
namespace {

using system::kPageSize;

using MultifdSessionTest = MultifdSession;

TEST_F(MultifdSessionTest, RunningVmMovesOverOneTwoAndEightChannels) {
    for (const size_t channels : {1, 2, 8}) {
        make_pair(channels);
        return_path();
        arrive_paused();
        begin(Lines(channels));
        finish();
        expect_moved();
        EXPECT_EQ(dst->state(), RunState::Paused) << channels;
    }
}

TEST_F(MultifdSessionTest, EveryZeroPageDetectionMovesTheSameRam) {
    for (const auto detection :
         {ZeroPageDetection::None, ZeroPageDetection::Legacy, ZeroPageDetection::Multifd}) {
        make_pair(2);
        return_path();
        arrive_paused();
        set(*src, [&](Parameters& p) { p.zero_page_detection = static_cast<uint64_t>(detection); });
        begin(Lines(2));
        finish();
        expect_moved();
        const auto counters = src->migration->query().counters;
        ASSERT_TRUE(counters);
        EXPECT_EQ(counters->duplicate == 0, detection == ZeroPageDetection::None);
        EXPECT_GT(counters->normal, 0U);
    }
}

TEST_F(MultifdSessionTest, BarrierPerSectionIsUnderstoodOnBothSides) {
    make_pair(2);
    arrive_paused();
    for (TestVm* vm : {src.get(), dst.get()}) {
        StreamOptions options = vm->migration->stream_options();
        options.multifd_barrier = StreamOptions::Barrier::PerSection;
        ASSERT_TRUE(vm->on_loop([&]() -> Result<> {
            vm->migration->set_stream_options(options);
            return {};
        }));
    }
    begin(Lines(2));
    finish();
    expect_moved();
}

TEST_F(MultifdSessionTest, PagesCountAsTransferred) {
    make_pair(2, Guest::Idle);
    return_path();
    begin(Lines(2));
    finish();
    expect_moved();
    const auto counters = src->migration->query().counters;
    ASSERT_TRUE(counters);
    EXPECT_GE(counters->transferred, counters->normal * kPageSize);
    EXPECT_EQ(counters->normal + counters->duplicate, TestVm::kRamBytes / kPageSize);
}

// What was there is cleared where the source has zeros; what was never touched stays untouched.
TEST_F(MultifdSessionTest, ZeroPagesReplaceWhatWasThere) {
    make_pair(2, Guest::Idle);
    return_path();
    std::ranges::fill(src->ram->host(), std::byte{0});
    std::ranges::fill(dst->ram->host(), std::byte{0xff});
    dst->ram->mark_used();
    begin(Lines(2));
    finish();
    expect_moved();
}

TEST_F(MultifdSessionTest, CancelWhileThePeerTakesNothing) {
    make_pair(2);
    return_path();
    Lines lines(2);
    // Nobody reads: the lanes and the migration thread wait for room.
    ASSERT_TRUE(src->on_loop(
        [&] { return src->migration->migrate(std::move(lines.src), std::move(lines.src_pages)); }));
    ASSERT_TRUE(src->loop.wait_for([&] { return src->status() == MigrationStatus::Active; }));
    src->loop.run([&] { src->migration->migrate_cancel(); });
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Cancelled) << src->error_desc();
    EXPECT_EQ(src->state(), RunState::Running);
}

// Each call on a page channel fails once, at either side.
TEST_F(MultifdSessionTest, BrokenPageChannelLeavesTheVmAtTheSource) {
    for (const bool at_source : {true, false}) {
        for (const int call : {1, 2, 3, 4, 7, 11}) {
            SCOPED_TRACE(fmt::format("{} call {}", at_source ? "source" : "destination", call));
            make_pair(2, Guest::Idle);
            return_path();
            Lines lines(2);
            auto& wrapped = (at_source ? lines.src_pages : lines.dst_pages)[1];
            const auto counter = std::make_shared<std::atomic<int>>(0);
            wrapped = std::make_unique<test::FaultChannel>(std::move(wrapped), counter, call);
            begin(std::move(lines));
            finish();
            if (*counter < call) {
                expect_moved();  // the channel was not needed as often
            } else if (src->status() == MigrationStatus::Failed) {
                expect_source_goes_on();
            } else {
                expect_moved();  // it was not needed any more
            }
            // Nobody runs the VM twice, and nobody lost it.
            EXPECT_NE(src->state() == RunState::Running, dst->state() == RunState::Running);
        }
    }
}

TEST_F(MultifdSessionTest, SourceIsToldWhatTheDestinationRefused) {
    make_pair(2, Guest::Idle);
    return_path();
    Lines lines(2);
    // The second of two, for a destination that has one.
    set(*dst, [](Parameters& p) { p.multifd_channels = 1; });
    const std::unique_ptr<MigrationChannel> unread = std::move(lines.dst_pages.front());
    lines.dst_pages.erase(lines.dst_pages.begin());
    begin(std::move(lines));
    finish();
    expect_source_goes_on();
    EXPECT_NE(src->error_desc().find("number 1, but there are 1 channels (multifd-channels) here"),
              std::string::npos)
        << src->error_desc();
}

TEST_F(MultifdSessionTest, AsManyChannelsAsTheParameterSays) {
    make_pair(2, Guest::Idle);
    Lines lines(1);
    const auto src_refused = src->on_loop(
        [&] { return src->migration->migrate(std::move(lines.src), std::move(lines.src_pages)); });
    ASSERT_FALSE(src_refused);
    EXPECT_NE(src_refused.error().message().find("1 page channels, but"), std::string::npos);
    const auto dst_refused = dst->on_loop([&] {
        return dst->migration->migrate_incoming(std::move(lines.dst), ExitOnError::No,
                                                std::move(lines.dst_pages));
    });
    ASSERT_FALSE(dst_refused);
    EXPECT_EQ(src->status(), MigrationStatus::None);
}

// --- a source that means no good

TEST_F(MultifdSessionTest, HostileDeviceState) {
    const auto state = [this](std::string_view device, uint32_t bytes, size_t sent) {
        StatePacketBegin raw{};
        put_state_packet(raw, {.idstr = device, .instance_id = 0, .data_bytes = bytes},
                         {.index = 0, .kind = StatePacketKind::Data});
        std::vector<std::byte> out = init();
        out.insert(out.end(), raw.begin(), raw.end());
        out.resize(out.size() + sent, std::byte{0x5a});
        return out;
    };
    EXPECT_NE(hostile(state("0000:00:05.0/vfio", 4, 4))
                  .find("state of a device '0000:00:05.0/vfio' instance 0, which does not exist"),
              std::string::npos)
        << dst->error_desc();
    EXPECT_NE(hostile(state("d", 0x7fffffff, 4)).find("the limit is 1048576"), std::string::npos)
        << dst->error_desc();
    auto cut = state("d", 4, 0);
    cut.resize(cut.size() - 2);
    EXPECT_NE(hostile(cut).find("closed 2 bytes before a packet's end"), std::string::npos)
        << dst->error_desc();
}

TEST_F(MultifdSessionTest, HostileInit) {
    EXPECT_NE(hostile(std::vector<std::byte>(64)).find("page channel 0: its first packet: "),
              std::string::npos);
    EXPECT_NE(hostile(init(1)).find("number 1, but there are 1 channels"), std::string::npos);
    auto half = init();
    half.resize(30);
    EXPECT_NE(hostile(half).find("page channel 0: its first packet: closed 34 bytes"),
              std::string::npos)
        << dst->error_desc();
}

TEST_F(MultifdSessionTest, HostilePages) {
    block_name = "nothing";
    const auto one_page = [](uint64_t offset) {
        return [offset](MultifdPacket& p) {
            p.normal_pages = 1;
            p.offsets[0] = offset;
            p.data_bytes = kPageSize;
        };
    };
    EXPECT_NE(hostile(packet(one_page(0), kPageSize)).find("block 'nothing' was not announced"),
              std::string::npos)
        << dst->error_desc();
    block_name = "test.ram";
    for (const uint64_t offset :
         {TestVm::kRamBytes, TestVm::kRamBytes - 1, UINT64_MAX - 4095, uint64_t{0x1001}}) {
        const std::string error = hostile(packet(one_page(offset), kPageSize));
        EXPECT_NE(error.find("page channel 0: packet 0: "), std::string::npos) << error;
        EXPECT_NE(error.find("block 'test.ram'"), std::string::npos) << error;
    }
    for (const uint64_t offset : {TestVm::kRamBytes, uint64_t{0x801}}) {
        const std::string error = hostile(packet([offset](MultifdPacket& p) {
            p.zero_pages = 1;
            p.offsets[0] = offset;
        }));
        EXPECT_NE(error.find("block 'test.ram'"), std::string::npos) << error;
    }
}

TEST_F(MultifdSessionTest, HostileEnds) {
    const auto page = [](MultifdPacket& p) {
        p.normal_pages = 1;
        p.offsets[0] = 0;
        p.data_bytes = kPageSize;
    };
    EXPECT_NE(hostile(packet(page, kPageSize - 1)).find("closed 1 bytes before a packet's end"),
              std::string::npos)
        << dst->error_desc();
    EXPECT_NE(hostile(packet(page, kPageSize)).find("closed it before the round was over"),
              std::string::npos)
        << dst->error_desc();
    auto cut = packet(page);
    cut.resize(cut.size() - 10);
    EXPECT_NE(hostile(cut).find("closed 10 bytes before a packet's end"), std::string::npos)
        << dst->error_desc();
}

}  // namespace
}  // namespace ferry::migration
