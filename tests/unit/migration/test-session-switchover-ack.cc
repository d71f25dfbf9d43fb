// SPDX-License-Identifier: BSD-2-Clause
// The consent to switch over: one word for all devices, once each of those with pre-copy has its
// initial data. On a line into which PINGs are put, whose answers show where the word came.
#include <algorithm>
#include <array>

#include "hw/vfio/migration-internal.h"
#include "migration/return-path.h"
#include "tests/unit/migration/device-session.h"
#include "util/wire.h"

namespace ferry::test {
namespace {

using migration::Capability;
using migration::Command;
using migration::MigrationChannel;
using migration::ReturnMessage;

// What the source heard, in order: the type of the message, and what a PONG answers.
struct Heard {
    ReturnMessage type;
    uint32_t value = 0;
    friend bool operator==(const Heard&, const Heard&) = default;
};

constexpr uint32_t kFirstMark = 0x1000;  // no hello, no answer to one

// The source's end. Behind each section in which a device's initial data is complete follows a
// PING: kFirstMark, kFirstMark + 1, ...
class MarkingChannel final : public MigrationChannel {
 public:
    struct Record {
        uint32_t marks = 0;           // by the migration thread
        std::vector<std::byte> back;  // by the reader's; both have ended when a test looks
    };
    MarkingChannel(std::unique_ptr<MigrationChannel> inner, std::shared_ptr<Record> record)
        : inner_(std::move(inner)), record_(std::move(record)) {}

    std::string_view name() const override { return inner_->name(); }
    Features features() const override { return inner_->features(); }
    Result<> finish_writing() override { return inner_->finish_writing(); }
    void shutdown(Error reason) noexcept override { inner_->shutdown(std::move(reason)); }
    Result<size_t> read_some(MutBytes into) override {
        auto got = inner_->read_some(into);
        if (!got) return got;
        bytes_read_ += *got;
        record_->back.insert(record_->back.end(), into.begin(),
                             into.begin() + static_cast<ptrdiff_t>(*got));
        return got;
    }
    Result<> write_all(std::span<const ConstBytes> parts) override {
        util::WireWriter out;
        for (const ConstBytes part : parts) {
            for (const std::byte byte : part) put(out, byte);
        }
        bytes_written_ += out.size();
        const std::array<ConstBytes, 1> all{out.view()};
        return inner_->write_all(all);
    }

 private:
    void put(util::WireWriter& out, std::byte byte) {
        out.u8(static_cast<uint8_t>(byte));
        last_eight_ = last_eight_ << 8 | static_cast<uint8_t>(byte);
        if (to_footers_end_ > 0 && --to_footers_end_ == 0) {
            out.u8(static_cast<uint8_t>(migration::Element::Command));
            out.be16(static_cast<uint16_t>(Command::Ping)).be16(sizeof(uint32_t));
            out.be32(kFirstMark + record_->marks++);
        }
        constexpr unsigned kFooterBytes = 5;  // its mark and the section's number
        if (last_eight_ == vfio::record::kInitDataSent) to_footers_end_ = kFooterBytes;
    }

    std::unique_ptr<MigrationChannel> inner_;
    const std::shared_ptr<Record> record_;
    uint64_t last_eight_ = 0;
    unsigned to_footers_end_ = 0;
};

std::vector<Heard> read_messages(ConstBytes bytes) {
    std::vector<Heard> heard;
    util::WireReader in(bytes);
    while (in.remaining() > 0) {
        const auto type = in.be16();
        const auto length = in.be16();
        const auto payload = in.bytes(length ? *length : 0);
        if (!type || !length || !payload) break;
        const bool number = payload->size() == sizeof(uint32_t);
        heard.push_back(
            {static_cast<ReturnMessage>(*type), number ? util::load_be32(payload->data()) : 0});
    }
    return heard;
}

class SwitchoverAck : public DeviceSessionTest {
 protected:
    void turn_on() {
        for (TestVm* vm : {&src->vm, &dst->vm}) {
            ASSERT_TRUE(vm->set_capability(Capability::ReturnPath));
            ASSERT_TRUE(vm->set_capability(Capability::SwitchoverAck));
        }
    }
    void begin_marked() {
        auto [a, b] = migration::make_memory_channel_pair();
        ASSERT_TRUE(dst->vm.incoming(std::move(b)));
        ASSERT_TRUE(src->vm.migrate(std::make_unique<MarkingChannel>(std::move(a), record)));
    }
    // Acknowledgements and answers to marks.
    std::vector<Heard> heard() const {
        std::vector<Heard> all = read_messages(record->back);
        std::erase_if(all, [&](const Heard& each) {
            const bool mark = each.type == ReturnMessage::Pong && each.value >= kFirstMark &&
                              each.value < kFirstMark + record->marks;
            return !mark && each.type != ReturnMessage::SwitchoverAck;
        });
        return all;
    }

    std::shared_ptr<MarkingChannel::Record> record = std::make_shared<MarkingChannel::Record>();
};

TEST_F(SwitchoverAck, WaitsForInitialData) {
    make_pair();
    turn_on();
    // The destination can't have loaded the initial data while its first write is held.
    dst->a().faults().hold("write state");
    begin();
    ASSERT_TRUE(dst->wait_until_held(1));
    EXPECT_EQ(src->vm.state(), RunState::Running);
    dst->a().faults().release();
    finish();
    expect_moved();
}

TEST_F(SwitchoverAck, ComesWithTheLastDeviceThatHasPreCopy) {
    auto without = small_device();
    without.caps.pre_copy = false;
    make_pair({small_device(), without, small_device()});
    turn_on();
    begin_marked();
    finish();
    expect_moved();
    const std::vector<Heard> expected = {{ReturnMessage::Pong, kFirstMark},
                                         {ReturnMessage::SwitchoverAck},
                                         {ReturnMessage::Pong, kFirstMark + 1}};
    EXPECT_EQ(heard(), expected);
}

TEST_F(SwitchoverAck, ComesAtOnceWhereNoDeviceHasPreCopy) {
    auto without = small_device();
    without.caps.pre_copy = false;
    make_pair({without, without});
    turn_on();
    begin_marked();
    finish();
    expect_moved();
    EXPECT_EQ(heard(), std::vector<Heard>{{ReturnMessage::SwitchoverAck}});
}

}  // namespace
}  // namespace ferry::test
