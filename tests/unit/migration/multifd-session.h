// SPDX-License-Identifier: BSD-2-Clause
// Two VMs whose RAM goes over channels of its own, and a source that sends what a test wants.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "migration/multifd-packet.h"
#include "tests/support/test-vm.h"

namespace ferry::migration {

using system::RunState;
using test::Guest;
using test::TestVm;

using Channels = std::vector<std::unique_ptr<MigrationChannel>>;

// A migration with `count` page channels, whose ends a test may wrap or keep.
struct Lines {
    explicit Lines(size_t count) {
        std::tie(src, dst) = make_memory_channel_pair();
        for (size_t i = 0; i < count; ++i) {
            auto [a, b] = make_memory_channel_pair("page-" + std::to_string(i));
            src_pages.push_back(std::move(a));
            dst_pages.push_back(std::move(b));
        }
    }
    std::unique_ptr<MigrationChannel> src;
    std::unique_ptr<MigrationChannel> dst;
    Channels src_pages;
    Channels dst_pages;
};

class MultifdSession : public testing::Test {
 protected:
    void make_pair(size_t channels, Guest guest = Guest::Dirtying) {
        src = std::make_unique<TestVm>(clock, RunState::PreLaunch, guest);
        dst = std::make_unique<TestVm>(clock, RunState::InMigrate, guest);
        src->fill_ram(1);
        ASSERT_TRUE(src->start());
        for (TestVm* vm : {src.get(), dst.get()}) {
            set(*vm, [channels](Parameters& p) { p.multifd_channels = channels; });
            ASSERT_TRUE(vm->set_capability(Capability::Multifd));
        }
    }
    void return_path() {
        ASSERT_TRUE(src->set_capability(Capability::ReturnPath));
        ASSERT_TRUE(dst->set_capability(Capability::ReturnPath));
    }
    void compress(TestVm& vm, MultifdCompression method, uint64_t level = 1) {
        set(vm, [&](Parameters& p) {
            p.multifd_compression = static_cast<uint64_t>(method);
            (method == MultifdCompression::Zlib ? p.multifd_zlib_level : p.multifd_zstd_level) =
                level;
        });
    }
    void set(TestVm& vm, const std::function<void(Parameters&)>& change) {
        ASSERT_TRUE(vm.on_loop([&] {
            Parameters now = vm.migration->parameters();
            change(now);
            return vm.migration->set_parameters(now);
        }));
    }
    void arrive_paused() {
        ASSERT_TRUE(dst->on_loop([&]() -> Result<> {
            dst->runstate.set_autostart(false);
            return {};
        }));
    }
    void begin(Lines lines) {
        ASSERT_TRUE(dst->on_loop([&] {
            return dst->migration->migrate_incoming(std::move(lines.dst), ExitOnError::No,
                                                    std::move(lines.dst_pages));
        }));
        ASSERT_TRUE(src->on_loop([&] {
            return src->migration->migrate(std::move(lines.src), std::move(lines.src_pages));
        }));
    }
    void finish() {
        ASSERT_TRUE(src->wait_over());
        ASSERT_TRUE(dst->wait_over());
    }
    void expect_moved() {
        EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
        EXPECT_EQ(dst->status(), MigrationStatus::Completed) << dst->error_desc();
        EXPECT_TRUE(test::same_ram(*src, *dst));
    }
    void expect_source_goes_on() {
        EXPECT_EQ(src->status(), MigrationStatus::Failed);
        EXPECT_EQ(src->state(), RunState::Running);
        EXPECT_FALSE(src->error_desc().empty());
        EXPECT_EQ(dst->status(), MigrationStatus::Failed);
        EXPECT_NE(dst->state(), RunState::Running);
    }
    // A destination whose first page channel gets `bytes` from a source that means no good. The
    // rest of the source is silent. Returns the destination's error.
    std::string hostile(ConstBytes bytes, size_t channels = 1) {
        dst = std::make_unique<TestVm>(clock, RunState::InMigrate);
        set(*dst, [channels](Parameters& p) { p.multifd_channels = channels; });
        compress(*dst, compression);
        EXPECT_TRUE(dst->set_capability(Capability::Multifd));
        Lines lines(channels);
        EXPECT_TRUE(dst->on_loop([&] {
            return dst->migration->migrate_incoming(std::move(lines.dst), ExitOnError::No,
                                                    std::move(lines.dst_pages));
        }));
        send_main(*lines.src);
        const std::array<ConstBytes, 1> parts{bytes};
        EXPECT_TRUE(lines.src_pages[0]->write_all(parts));
        EXPECT_TRUE(lines.src_pages[0]->finish_writing());
        EXPECT_TRUE(dst->wait_over());
        EXPECT_EQ(dst->status(), MigrationStatus::Failed);
        return dst->error_desc();
    }
    // Up to the first barrier, which waits for the page channels.
    void send_main(MigrationChannel& to) {
        const auto string = [](std::vector<std::byte>& out, std::string_view text) {
            out.push_back(static_cast<std::byte>(text.size()));
            out.insert(out.end(), bytes_of(text).begin(), bytes_of(text).end());
        };
        const auto number = [](std::vector<std::byte>& out, uint64_t value, size_t bytes) {
            while (bytes-- != 0) out.push_back(static_cast<std::byte>(value >> (8 * bytes)));
        };
        std::vector<std::byte> raw;
        number(raw, 0x5145564d, 4);  // magic
        number(raw, 3, 4);
        number(raw, 7, 1);  // configuration
        const std::string_view machine = "test-machine";
        number(raw, machine.size(), 4);
        raw.insert(raw.end(), bytes_of(machine).begin(), bytes_of(machine).end());
        number(raw, 1, 1);  // SECTION_START
        number(raw, 0, 4);
        string(raw, "ram");
        number(raw, 0, 4);
        number(raw, 4, 4);
        number(raw, TestVm::kRamBytes | 4, 8);
        string(raw, dst->ram->name());
        number(raw, TestVm::kRamBytes, 8);
        number(raw, 0x200, 8);  // FLUSH
        const std::array<ConstBytes, 1> parts{raw};
        ASSERT_TRUE(to.write_all(parts));
    }
    std::vector<std::byte> init(uint8_t channel = 0) {
        const MultifdInit raw = multifd_init(Uuid{}, channel);
        return {raw.begin(), raw.end()};
    }
    // INIT, the packet's header and its data, whatever the header says of them.
    std::vector<std::byte> packet(const std::function<void(MultifdPacket&)>& fill,
                                  ConstBytes data = {}) {
        MultifdPacket one;
        one.block = block_name;
        fill(one);
        MultifdHeader raw{};
        put_multifd_packet(raw, one);
        std::vector<std::byte> out = init();
        out.insert(out.end(), raw.begin(), raw.end());
        out.insert(out.end(), data.begin(), data.end());
        return out;
    }
    std::vector<std::byte> packet(const std::function<void(MultifdPacket&)>& fill,
                                  size_t data_bytes) {
        return packet(fill, std::vector(data_bytes, std::byte{0x5a}));
    }

    std::string block_name = "test.ram";
    MultifdCompression compression = MultifdCompression::None;  // of a hostile source's destination
    util::SystemClock clock;
    std::unique_ptr<TestVm> src;
    std::unique_ptr<TestVm> dst;
};

}  // namespace ferry::migration
