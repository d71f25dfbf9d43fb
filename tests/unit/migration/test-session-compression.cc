// SPDX-License-Identifier: BSD-2-Clause
// Whole migrations whose pages are compressed, two sides that don't agree on how, and a source
// whose data are not what they should be.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "migration/multifd-codec.h"
#include "migration/state-packet.h"
#include "tests/support/fault-channel.h"
#include "tests/unit/migration/multifd-session.h"

namespace ferry::migration {
namespace {

using enum MultifdCompression;

struct CompressedSession : MultifdSession {
    void make_compressed_pair(MultifdCompression method, uint64_t level = 1,
                              Guest guest = Guest::Dirtying) {
        make_pair(2, guest);
        for (TestVm* vm : {src.get(), dst.get()}) compress(*vm, method, level);
        // However fast the guest writes and however slow the compression is.
        set(*src, [](Parameters& p) { p.downtime_limit_ms = 1'000'000; });
    }
    void move() {
        begin(Lines(2));
        finish();
        expect_moved();
    }
    // The first packet of a source with this method.
    std::vector<std::byte> data_of(MultifdCompression method, size_t pages) {
        Parameters parameters;
        parameters.multifd_compression = static_cast<uint64_t>(method);
        auto made = PageCompressor::create(parameters);
        EXPECT_TRUE(made);
        const std::vector<std::byte> memory(pages * system::kPageSize, std::byte{0x77});
        std::vector<uint64_t> offsets;
        for (size_t i = 0; i < pages; ++i) offsets.push_back(i * system::kPageSize);
        const auto data = (*made)->compress(memory, offsets);
        EXPECT_TRUE(data);
        return {data->begin(), data->end()};
    }
    // What the destination says of a packet of `pages` pages with these data.
    std::string refused(uint32_t pages, ConstBytes data, uint32_t flags) {
        return hostile(packet(
            [&](MultifdPacket& p) {
                p.flags = flags;
                p.normal_pages = pages;
                p.data_bytes = static_cast<uint32_t>(data.size());
                for (uint32_t i = 0; i < pages; ++i) p.offsets[i] = i * system::kPageSize;
            },
            data));
    }
};

void expect_in(const std::string& text, std::string_view part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
}

TEST_F(CompressedSession, RunningVmMovesByEachMethod) {
    for (const auto& [method, level] :
         {std::pair(Zlib, 0), std::pair(Zlib, 1), std::pair(Zstd, 0), std::pair(Zstd, 1)}) {
        SCOPED_TRACE(fmt::format("{} {}", to_string(method), level));
        make_compressed_pair(method, static_cast<uint64_t>(level));
        return_path();
        arrive_paused();
        move();
    }
}

// Too slow for a guest that writes all the time.
TEST_F(CompressedSession, HighestLevels) {
    for (const auto& [method, level] : {std::pair(Zlib, 9U), std::pair(Zstd, 20U)}) {
        make_compressed_pair(method, level, Guest::Idle);
        move();
    }
}

TEST_F(CompressedSession, EveryZeroPageDetectionMovesTheSameRam) {
    for (const auto method : {Zlib, Zstd}) {
        for (const auto detection :
             {ZeroPageDetection::None, ZeroPageDetection::Legacy, ZeroPageDetection::Multifd}) {
            make_compressed_pair(method);
            arrive_paused();
            set(*src,
                [&](Parameters& p) { p.zero_page_detection = static_cast<uint64_t>(detection); });
            move();
            const auto counters = src->migration->query().counters;
            ASSERT_TRUE(counters);
            EXPECT_EQ(counters->duplicate == 0, detection == ZeroPageDetection::None);
        }
    }
}

TEST_F(CompressedSession, NothingButZeroPagesAndNothingButNoise) {
    std::mt19937 random(3);
    for (const auto method : {Zlib, Zstd}) {
        make_compressed_pair(method, 1, Guest::Idle);
        std::ranges::fill(src->ram->host(), std::byte{0});
        std::ranges::fill(dst->ram->host(), std::byte{0xff});
        dst->ram->mark_used();
        move();
        make_compressed_pair(method, 1, Guest::Idle);
        for (std::byte& one : src->ram->host()) one = static_cast<std::byte>(random());
        move();
    }
}

TEST_F(CompressedSession, BarrierPerSection) {
    for (const auto method : {Zlib, Zstd}) {
        make_compressed_pair(method);
        arrive_paused();
        for (TestVm* vm : {src.get(), dst.get()}) {
            StreamOptions options = vm->migration->stream_options();
            options.multifd_barrier = StreamOptions::Barrier::PerSection;
            ASSERT_TRUE(vm->on_loop([&]() -> Result<> {
                vm->migration->set_stream_options(options);
                return {};
            }));
        }
        move();
    }
}

TEST_F(CompressedSession, WhatWasSentCountsAsTransferred) {
    for (const auto method : {Zlib, Zstd}) {
        make_compressed_pair(method, 1, Guest::Idle);
        move();
        const auto counters = src->migration->query().counters;
        ASSERT_TRUE(counters);
        EXPECT_LT(counters->transferred, counters->normal * system::kPageSize / 4);
        EXPECT_GT(counters->transferred, counters->normal * 64) << "eight random words a page";
    }
}

TEST_F(CompressedSession, SidesThatDisagreeLeaveTheVmAtTheSource) {
    for (const auto& [here, there] : {std::pair(Zlib, Zstd), std::pair(Zstd, Zlib),
                                      std::pair(Zlib, None), std::pair(None, Zstd)}) {
        make_pair(2, Guest::Idle);
        return_path();
        compress(*src, here);
        compress(*dst, there);
        begin(Lines(2));
        finish();
        expect_source_goes_on();
        expect_in(src->error_desc(), fmt::format("multifd-compression is {}", to_string(there)));
    }
}

TEST_F(CompressedSession, BrokenPageChannelLeavesTheVmAtTheSource) {
    for (const bool at_source : {true, false}) {
        for (const int call : {1, 2, 3, 5, 9}) {
            SCOPED_TRACE(fmt::format("{} call {}", at_source ? "source" : "destination", call));
            make_compressed_pair(Zstd, 1, Guest::Idle);
            return_path();
            Lines lines(2);
            auto& wrapped = (at_source ? lines.src_pages : lines.dst_pages)[1];
            const auto counter = std::make_shared<std::atomic<int>>(0);
            wrapped = std::make_unique<test::FaultChannel>(std::move(wrapped), counter, call);
            begin(std::move(lines));
            finish();
            if (src->status() == MigrationStatus::Failed) {
                expect_source_goes_on();
            } else {
                expect_moved();  // it was not needed, or not any more
            }
            EXPECT_NE(src->state() == RunState::Running, dst->state() == RunState::Running);
        }
    }
}

// --- a source that means no good

TEST_F(CompressedSession, HostileMethodAndLength) {
    const std::vector<std::byte> raw(system::kPageSize);
    compression = Zlib;
    expect_in(refused(1, raw, 0), "page channel 0: packet 0: flags 0x0: pages are compressed");
    expect_in(refused(1, raw, kMultifdZstd), "by method 0x4, but multifd-compression is zlib");
    expect_in(refused(1, {}, kMultifdZlib), "page channel 0: packet 0: 0 bytes of zlib for 1 page");
    expect_in(hostile(packet([](MultifdPacket& p) {
                  p.flags = kMultifdZlib;
                  p.normal_pages = 1;
                  p.data_bytes = kMultifdMaxCompressedBytes + 1;
              })),
              "packet 0: 1048577 bytes of zlib for 1 page");
    compression = None;
    expect_in(refused(1, raw, kMultifdZlib), "by method 0x2, but multifd-compression is none");
}

TEST_F(CompressedSession, HostileData) {
    const std::vector<std::byte> garbage(5000, std::byte{0x5a});
    for (const auto method : {Zlib, Zstd}) {
        compression = method;
        const uint32_t flags = multifd_flags(method);
        const std::string begin =
            fmt::format("page channel 0: packet 0: block 'test.ram': {}: ", to_string(method));
        expect_in(refused(1, garbage, flags), begin + "broken stream: ");
        const auto data = data_of(method, 4);
        expect_in(refused(5, data, flags), begin + "the data end 4096 bytes before");
        expect_in(refused(3, data, flags), begin + "the data hold more than the packet's pages");
        auto trailing = data;
        trailing.insert(trailing.end(), garbage.begin(), garbage.end());
        expect_in(refused(4, trailing, flags), begin);
        expect_in(refused(4, ConstBytes(data).first(data.size() / 2), flags), begin);
        // Good data, which the round's end does not follow.
        expect_in(refused(4, data, flags), "closed it before the round was over");
        EXPECT_EQ(dst->ram->host()[4 * system::kPageSize - 1], std::byte{0x77});
        EXPECT_EQ(dst->ram->host()[4 * system::kPageSize], std::byte{0});
    }
}

TEST_F(CompressedSession, HostilePlaceAndEnd) {
    compression = Zstd;
    const auto data = data_of(Zstd, 1);
    const auto at = [&](uint64_t offset, size_t announced) {
        return [=](MultifdPacket& p) {
            p.flags = kMultifdZstd;
            p.normal_pages = 1;
            p.offsets[0] = offset;
            p.data_bytes = static_cast<uint32_t>(announced);
        };
    };
    for (const uint64_t offset : {TestVm::kRamBytes, UINT64_MAX - 4095, uint64_t{0x1001}}) {
        expect_in(hostile(packet(at(offset, data.size()), data)), "block 'test.ram'");
    }
    expect_in(hostile(packet(at(0, data.size() + 3), data)),
              "closed 3 bytes before a packet's end");
}

TEST_F(CompressedSession, HostileDeviceState) {
    compression = Zlib;
    StatePacketBegin raw{};
    put_state_packet(raw, {.idstr = "d", .instance_id = 0, .data_bytes = 4},
                     {.index = 0, .kind = StatePacketKind::Data});
    std::vector<std::byte> bytes = init();
    bytes.insert(bytes.end(), raw.begin(), raw.end());
    bytes.resize(bytes.size() + 4);
    expect_in(hostile(bytes), "state of a device 'd' instance 0, which does not exist");
}

}  // namespace
}  // namespace ferry::migration
