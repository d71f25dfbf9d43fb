// SPDX-License-Identifier: BSD-2-Clause
// Streams that the library writes: a VM with two devices, into a file and over a connection.
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>

#include "tests/support/test-vm-device.h"
#include "tests/unit/tools/stream-bytes.h"
#include "tools/ferry-stream/extract.h"

namespace ferry::stream_tool {
namespace {

using migration::MigrationChannel;
using migration::MigrationStatus;
using system::RunState;
using test::TestVm;
using test::TestVmDevice;
using Strings = std::vector<std::string>;

constexpr uint64_t kStateBytes = 64 * 1024;
constexpr uint64_t kPages = TestVm::kRamBytes / 0x1000;

// Keeps a copy of what is written through it.
class CopyingChannel final : public MigrationChannel {
 public:
    CopyingChannel(std::unique_ptr<MigrationChannel> inner, std::shared_ptr<Bytes> copy)
        : inner_(std::move(inner)), copy_(std::move(copy)) {}
    std::string_view name() const override { return inner_->name(); }
    Features features() const override { return inner_->features(); }
    Result<size_t> read_some(MutBytes into) override {
        auto got = inner_->read_some(into);
        if (got) bytes_read_ += *got;
        return got;
    }
    Result<> write_all(std::span<const ConstBytes> parts) override {
        for (const ConstBytes part : parts) {
            copy_->insert(copy_->end(), part.begin(), part.end());
            bytes_written_ += part.size();
        }
        return inner_->write_all(parts);
    }
    Result<> finish_writing() override { return inner_->finish_writing(); }
    void shutdown(Error reason) noexcept override { inner_->shutdown(std::move(reason)); }

 private:
    std::unique_ptr<MigrationChannel> inner_;
    std::shared_ptr<Bytes> copy_;
};

hw::TestDeviceConfig small_device() {
    hw::TestDeviceConfig config;
    config.state_bytes = kStateBytes;
    return config;
}

struct Side {
    Side(util::Clock& clock, RunState initial)
        : vm(clock, initial), a(vm, 3, small_device()), b(vm, 4, small_device()) {}
    ~Side() {
        (void)vm.wait_over();
        (void)vm.loop.wait_for([&] { return !vm.runstate.busy(); });
    }
    TestVm vm;
    TestVmDevice a;
    TestVmDevice b;
};

class SessionStream : public testing::Test {
 protected:
    SessionStream() {
        std::string pattern = "/tmp/ferry-XXXXXX";
        EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
        directory = pattern;
        src.vm.fill_ram(7);
        src.a.change_state(kStateBytes);
        EXPECT_TRUE(src.vm.start());
    }
    ~SessionStream() override { std::filesystem::remove_all(directory); }

    std::string load(const std::string& path) const {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    void expect_complete(const Told& told) {
        EXPECT_TRUE(told.result);
        EXPECT_EQ(told.problems(), Strings{});
        EXPECT_EQ(told.notes(), Strings{});
        ASSERT_EQ(told.blocks.size(), 1U);
        EXPECT_GE(told.blocks[0].total.pages(), kPages);
        ASSERT_EQ(told.devices.size(), 2U);
        for (const auto& [key, device] : told.devices) {
            EXPECT_GT(device.image_bytes, kStateBytes) << key.first;
        }
    }

    util::SystemClock clock;
    std::string directory;
    Side src{clock, RunState::PreLaunch};
};

TEST_F(SessionStream, InAFileKeepsAllRulesAndHoldsTheImages) {
    const std::string path = directory + "/stream";
    auto cancel = util::EventFd::create();
    ASSERT_TRUE(cancel);
    auto channel = migration::connect_channel(migration::FileAddress{path}, *cancel);
    ASSERT_TRUE(channel);
    ASSERT_TRUE(src.vm.migrate(std::move(*channel)));
    ASSERT_TRUE(src.vm.wait_over());
    ASSERT_EQ(src.vm.status(), MigrationStatus::Completed) << src.vm.error_desc();

    const std::string text = load(path);
    const Told told = read(bytes_of(text));
    expect_complete(told);

    const auto input = Input::open(path, 0, 0);
    ASSERT_TRUE(input);
    Findings findings;
    const std::string image_path = directory + "/image";
    const auto image = extract(*input, findings, Extract::Image, {"0000:00:03.0", 0}, image_path);
    ASSERT_TRUE(image) << image.error().message();
    EXPECT_EQ(image->bytes, told.devices.at({"0000:00:03.0/vfio", 0}).image_bytes);
    EXPECT_TRUE(load(image_path).starts_with("FTD1"));
}

TEST_F(SessionStream, OverAConnectionKeepsTheRulesOfTheHello) {
    Side dst(clock, RunState::InMigrate);
    const auto copy = std::make_shared<Bytes>();
    auto [a, b] = migration::make_memory_channel_pair();
    ASSERT_TRUE(dst.vm.incoming(std::move(b)));
    ASSERT_TRUE(src.vm.migrate(std::make_unique<CopyingChannel>(std::move(a), copy)));
    ASSERT_TRUE(src.vm.wait_over());
    ASSERT_TRUE(dst.vm.wait_over());
    ASSERT_EQ(dst.vm.status(), MigrationStatus::Completed) << dst.vm.error_desc();

    const Told told = read(*copy);
    expect_complete(told);
    EXPECT_EQ(attribute(told.elements.back(), "name"), "GO");
}

}  // namespace
}  // namespace ferry::stream_tool
