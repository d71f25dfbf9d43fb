// SPDX-License-Identifier: BSD-2-Clause
// One real side against a peer made of bytes: QEMU, a broken Ferry, silence, garbage.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>

#include "migration/return-path.h"
#include "tests/support/test-vm.h"
#include "util/try.h"
#include "util/wire.h"

namespace ferry::migration {
namespace {

using system::RunState;
using test::TestVm;
using util::WireWriter;

std::vector<std::byte> message(uint16_t type, ConstBytes payload) {
    WireWriter out;
    out.be16(type).be16(static_cast<uint16_t>(payload.size())).bytes(payload);
    return out.take();
}
std::vector<std::byte> message32(ReturnMessage type, uint32_t value) {
    WireWriter payload;
    payload.be32(value);
    return message(static_cast<uint16_t>(type), payload.view());
}

// The other end of a memory channel, driven by the test's thread.
class RawPeer {
 public:
    explicit RawPeer(std::unique_ptr<MigrationChannel> channel) : channel_(std::move(channel)) {}

    bool send(ConstBytes bytes) {
        const std::array<ConstBytes, 1> parts{bytes};
        return channel_->write_all(parts).has_value();
    }
    // Reads until `pattern` has come by; false at the end of the stream.
    bool read_until(ConstBytes pattern) {
        for (;;) {
            const auto found = std::ranges::search(seen_, pattern);
            if (!found.empty()) {
                seen_.erase(seen_.begin(), found.end());
                return true;
            }
            if (seen_.size() > pattern.size()) {
                seen_.erase(seen_.begin(), seen_.end() - static_cast<ptrdiff_t>(pattern.size()));
            }
            std::vector<std::byte> buffer(65536);
            const auto got = channel_->read_some(buffer);
            if (!got || *got == 0) return false;
            seen_.insert(seen_.end(), buffer.begin(),
                         buffer.begin() + static_cast<ptrdiff_t>(*got));
        }
    }
    bool await_ping(uint32_t value) {
        WireWriter ping;
        ping.u8(8).be16(2).be16(4).be32(value);
        return read_until(ping.view());
    }
    void drain() {
        std::vector<std::byte> buffer(65536);
        for (;;) {
            const auto got = channel_->read_some(buffer);
            if (!got || *got == 0) return;
        }
    }
    // Whether there was something.
    bool read_some(MutBytes into) {
        const auto got = channel_->read_some(into);
        return got && *got != 0;
    }
    void close() { channel_.reset(); }

 private:
    std::unique_ptr<MigrationChannel> channel_;
    std::vector<std::byte> seen_;
};

// What a session says of itself in its trace, to go on at the right moment.
std::string trace_path() {
    return testing::TempDir() + "session-peers-" + std::to_string(::getpid()) + ".trace";
}
Result<> begin_trace(TestVm& vm) {
    MIG_CHECK(vm.trace.enable("migration_*"));
    return vm.trace.set_file(trace_path());
}
std::string traced() {
    std::stringstream text;
    text << std::ifstream(trace_path()).rdbuf();
    return text.str();
}
bool await_traced(std::string_view words) {
    constexpr auto kPatience = std::chrono::seconds(60);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (traced().find(words) == std::string::npos) {
        if (std::chrono::steady_clock::now() > deadline) return false;
        std::this_thread::yield();
    }
    return true;
}

// A line that takes nothing any more after stall(), until it is shut down.
class StallingChannel final : public MigrationChannel {
 public:
    explicit StallingChannel(std::unique_ptr<MigrationChannel> inner) : inner_(std::move(inner)) {}

    std::string_view name() const override { return inner_->name(); }
    Features features() const override { return inner_->features(); }
    Result<size_t> read_some(MutBytes into) override {
        auto got = inner_->read_some(into);
        if (got) bytes_read_ += *got;
        return got;
    }
    Result<> write_all(std::span<const ConstBytes> parts) override {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return !stalled_ || ended_; });
        lock.unlock();
        size_t bytes = 0;
        for (const ConstBytes part : parts) bytes += part.size();
        auto sent = inner_->write_all(parts);
        if (sent) bytes_written_ += bytes;
        return sent;
    }
    Result<> finish_writing() override { return inner_->finish_writing(); }
    void shutdown(Error reason) noexcept override {
        inner_->shutdown(std::move(reason));
        const std::lock_guard lock(mutex_);
        ended_ = true;
        changed_.notify_all();
    }
    void stall() {
        const std::lock_guard lock(mutex_);
        stalled_ = true;
    }

 private:
    std::unique_ptr<MigrationChannel> inner_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stalled_ = false;
    bool ended_ = false;
};

const uint32_t kHello = hello_ping(kOurFeatures);

class SourceAndRawPeer : public testing::Test {
 protected:
    void TearDown() override { ::unlink(trace_path().c_str()); }
    void begin(util::Clock& c) {
        src = std::make_unique<TestVm>(c, RunState::PreLaunch);
        src->fill_ram(3);
        ASSERT_TRUE(src->start());
        ASSERT_TRUE(src->set_capability(Capability::ReturnPath));
        ASSERT_TRUE(begin_trace(*src));
        auto [a, b] = make_memory_channel_pair();
        peer = std::make_unique<RawPeer>(std::move(b));
        auto stalling = std::make_unique<StallingChannel>(std::move(a));
        line = stalling.get();
        ASSERT_TRUE(src->migrate(std::move(stalling)));
    }
    void expect_failed_and_running(std::string_view why) {
        ASSERT_TRUE(src->wait_over());
        EXPECT_EQ(src->status(), MigrationStatus::Failed);
        EXPECT_EQ(src->state(), RunState::Running);
        EXPECT_NE(src->error_desc().find(why), std::string::npos) << src->error_desc();
    }
    // Answers the hello as a Ferry does.
    void answer_hello() {
        ASSERT_TRUE(peer->await_ping(kHello));
        peer->send(message32(ReturnMessage::Pong, kFirstPing));
        PeerFeatures agreed;
        peer->send(message32(ReturnMessage::Pong, pong_for(kHello, kOurFeatures, agreed)));
    }
    bool await_go() {
        WireWriter go;
        go.u8(8).be16(static_cast<uint16_t>(Command::Go)).be16(0);
        return peer->read_until(go.view());
    }

    util::SystemClock clock;
    std::unique_ptr<TestVm> src;
    std::unique_ptr<RawPeer> peer;
    StallingChannel* line = nullptr;  // while the migration is in progress
};

TEST_F(SourceAndRawPeer, QemuEchoesTheHelloAndGetsNeitherGoNorWaits) {
    begin(clock);
    ASSERT_TRUE(peer->await_ping(kHello));
    peer->send(message32(ReturnMessage::Pong, kFirstPing));
    peer->send(message32(ReturnMessage::Pong, kHello));
    // The description ends the stream; nothing of ours may follow it.
    ASSERT_TRUE(peer->read_until(bytes_of("\"devices\": [")));
    peer->send(message32(ReturnMessage::Shut, 0));
    std::jthread reader([&] { EXPECT_FALSE(await_go()); });
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
    EXPECT_EQ(src->state(), RunState::PostMigrate);
}

// A PING is only a courtesy where no device's records depend on the answer.
TEST_F(SourceAndRawPeer, DestinationThatAnswersNoPingIsTakenAtItsShut) {
    test::FakeClock fake;
    begin(fake);
    ASSERT_TRUE(peer->await_ping(kHello));
    std::jthread reader([&] { peer->read_until(bytes_of("\"devices\": [")); });
    ASSERT_TRUE(src->loop.wait_for([&] {
        fake.advance(std::chrono::milliseconds(100));
        return src->state() == RunState::FinishMigrate;
    }));
    reader.join();
    peer->send(message32(ReturnMessage::Shut, 0));
    reader = std::jthread([&] { peer->drain(); });
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
    EXPECT_EQ(src->state(), RunState::PostMigrate);
}

TEST_F(SourceAndRawPeer, DestinationThatAnswersTheHelloLateStillGetsItsGo) {
    test::FakeClock fake;
    begin(fake);
    ASSERT_TRUE(peer->await_ping(kHello));
    std::jthread reader([&] { peer->read_until(bytes_of("\"devices\": [")); });
    ASSERT_TRUE(src->loop.wait_for([&] {
        fake.advance(std::chrono::milliseconds(100));
        return src->state() == RunState::FinishMigrate;
    }));
    reader.join();
    PeerFeatures agreed;
    peer->send(message32(ReturnMessage::Pong, kFirstPing));
    peer->send(message32(ReturnMessage::Pong, pong_for(kHello, kOurFeatures, agreed)));
    peer->send(message(static_cast<uint16_t>(ReturnMessage::Ready), {}));
    ASSERT_TRUE(await_go());
    peer->send(message32(ReturnMessage::Shut, 0));
    reader = std::jthread([&] { peer->drain(); });
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
}

TEST_F(SourceAndRawPeer, QemuThatClosesWithoutShutHasFailed) {
    begin(clock);
    ASSERT_TRUE(peer->await_ping(kHello));
    peer->send(message32(ReturnMessage::Pong, kFirstPing));
    peer->send(message32(ReturnMessage::Pong, kHello));
    ASSERT_TRUE(peer->read_until(bytes_of("\"devices\": [")));
    peer->close();
    expect_failed_and_running("clos");
}

TEST_F(SourceAndRawPeer, FailureTextOfTheDestinationEndsInErrorDesc) {
    begin(clock);
    answer_hello();
    WireWriter failure;
    const std::string why = "device 0000:00:03.0: rejected the image";
    failure.be32(2).be16(static_cast<uint16_t>(why.size())).bytes(bytes_of(why));
    peer->send(message(static_cast<uint16_t>(ReturnMessage::Failure), failure.view()));
    peer->send(message32(ReturnMessage::Shut, 1));
    std::jthread reader([&] { peer->drain(); });
    expect_failed_and_running(why);
}

TEST_F(SourceAndRawPeer, LostBeforeGoTheSourceTakesTheVmBack) {
    begin(clock);
    answer_hello();
    ASSERT_TRUE(peer->read_until(bytes_of("\"devices\": [")));
    peer->close();
    expect_failed_and_running("");
}

TEST_F(SourceAndRawPeer, LostAfterGoTheSourceStaysStoppedAndSaysHowToDecide) {
    begin(clock);
    answer_hello();
    peer->send(message(static_cast<uint16_t>(ReturnMessage::Ready), {}));
    ASSERT_TRUE(await_go());
    peer->close();
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Failed);
    EXPECT_EQ(src->state(), RunState::PostMigrate);
    EXPECT_NE(src->error_desc().find("'cont'"), std::string::npos) << src->error_desc();
}

// All is sent, the peer may be about to say READY.
TEST_F(SourceAndRawPeer, CancelBeforeReadyIsToldInWords) {
    begin(clock);
    answer_hello();
    ASSERT_TRUE(peer->read_until(bytes_of("\"devices\": [")));
    ASSERT_TRUE(await_traced("migration_handover awaiting READY"));
    src->loop.run([&] { src->migration->migrate_cancel(); });
    WireWriter abort;
    abort.u8(8).be16(static_cast<uint16_t>(Command::Abort)).be16(0);
    EXPECT_TRUE(peer->read_until(abort.view()));
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Cancelled);
    EXPECT_EQ(src->state(), RunState::Running);
}

TEST_F(SourceAndRawPeer, CancelBeforeReadyDoesNotWaitForAPeerThatOnlyBeats) {
    test::FakeClock fake;
    begin(fake);
    answer_hello();
    ASSERT_TRUE(peer->read_until(bytes_of("\"devices\": [")));
    ASSERT_TRUE(await_traced("migration_handover awaiting READY"));
    line->stall();
    src->loop.run([&] { src->migration->migrate_cancel(); });
    ASSERT_TRUE(src->loop.wait_for([&] { return src->state() == RunState::Running; }));
    EXPECT_EQ(src->status(), MigrationStatus::Cancelling);
    ASSERT_TRUE(src->loop.wait_for([&] {
        peer->send(message(static_cast<uint16_t>(ReturnMessage::Heartbeat), {}));
        fake.advance(std::chrono::milliseconds(200));
        return !src->migration->in_progress();
    }));
    EXPECT_EQ(src->status(), MigrationStatus::Cancelled);
}

TEST_F(SourceAndRawPeer, CancelAfterGoHasNoEffect) {
    begin(clock);
    answer_hello();
    peer->send(message(static_cast<uint16_t>(ReturnMessage::Ready), {}));
    ASSERT_TRUE(await_go());
    src->loop.run([&] { src->migration->migrate_cancel(); });
    peer->send(message32(ReturnMessage::Shut, 0));
    std::jthread reader([&] { peer->drain(); });
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
}

TEST_F(SourceAndRawPeer, EveryBadReturnMessageFailsTheMigrationByName) {
    struct Case {
        std::vector<std::byte> bytes;
        std::string_view why;
    };
    const std::array<std::byte, 4> four{};
    WireWriter huge;
    huge.be16(2).be16(513);
    const std::vector<Case> cases{
        {message(0, {}), "message type"},
        {message(5, {}), "message type"},
        {message(8, {}), "message type"},
        {message(2, {}), "PONG of 0 bytes"},
        {message(7, four), "SWITCHOVER_ACK of 4 bytes"},
        {huge.take(), "513 bytes"},
        {message(static_cast<uint16_t>(ReturnMessage::Failure), four), "FAILURE"},
        {message32(ReturnMessage::Shut, 0), "too early"},
    };
    for (const Case& bad : cases) {
        begin(clock);
        ASSERT_TRUE(peer->await_ping(kHello));
        peer->send(bad.bytes);
        std::jthread reader([&] { peer->drain(); });
        expect_failed_and_running(bad.why);
    }
}

TEST_F(SourceAndRawPeer, SilentDestinationFailsAfterThePeerTimeout) {
    test::FakeClock fake;
    begin(fake);
    // It never answers the hello and never reads.
    ASSERT_TRUE(src->loop.wait_for([&] {
        fake.advance(std::chrono::seconds(1));
        return !src->migration->in_progress();
    }));
    EXPECT_NE(src->error_desc().find("silent"), std::string::npos) << src->error_desc();
    EXPECT_EQ(src->state(), RunState::Running);
}

// Without a return path, a peer of bytes against a source that has sent everything.
class SourceWithoutReturnPath : public SourceAndRawPeer {
 protected:
    void send_all(util::Clock& c) {
        src = std::make_unique<TestVm>(c, RunState::PreLaunch, test::Guest::Idle);
        ASSERT_TRUE(src->start());
        auto [a, b] = make_memory_channel_pair();
        peer = std::make_unique<RawPeer>(std::move(b));
        ASSERT_TRUE(src->migrate(std::move(a)));
        peer->drain();
    }
};

TEST_F(SourceWithoutReturnPath, TakesTheVmBackWhenThePeerRefusesUnasked) {
    send_all(clock);
    WireWriter failure;
    failure.be32(1).be16(14).bytes(bytes_of("no room for it"));
    peer->send(message(static_cast<uint16_t>(ReturnMessage::Failure), failure.view()));
    peer->send(message32(ReturnMessage::Shut, 1));
    expect_failed_and_running("the destination failed: no room for it");
}

TEST_F(SourceWithoutReturnPath, IsDoneWhenThePeerCloses) {
    send_all(clock);
    EXPECT_TRUE(src->migration->in_progress());
    peer->close();
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
}

TEST_F(SourceWithoutReturnPath, IsDoneWhateverElseThePeerSays) {
    send_all(clock);
    peer->send(bytes_of("220 mail.example ESMTP"));
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
}

// A peer that reads up to the end of the stream and closes: whatever comes next finds nobody.
class ClosedBehindTheEnd final : public MigrationChannel {
 public:
    explicit ClosedBehindTheEnd(std::unique_ptr<MigrationChannel> inner)
        : inner_(std::move(inner)) {}

    std::string_view name() const override { return inner_->name(); }
    Features features() const override { return inner_->features(); }
    Result<size_t> read_some(MutBytes into) override { return inner_->read_some(into); }
    Result<> write_all(std::span<const ConstBytes> parts) override {
        if (ended_) return Error(ErrorKind::PeerClosed, "sending: Broken pipe", EPIPE);
        ended_ = parts.size() == 1 && parts[0].size() == 1 && parts[0][0] == std::byte{0};
        return inner_->write_all(parts);
    }
    Result<> finish_writing() override { return inner_->finish_writing(); }
    void shutdown(Error reason) noexcept override { inner_->shutdown(std::move(reason)); }

 private:
    std::unique_ptr<MigrationChannel> inner_;
    bool ended_ = false;
};

TEST_F(SourceWithoutReturnPath, DoesNotTakeBackAVmWhoseEndWasRead) {
    src = std::make_unique<TestVm>(clock, RunState::PreLaunch, test::Guest::Idle);
    ASSERT_TRUE(src->start());
    auto [a, b] = make_memory_channel_pair();
    peer = std::make_unique<RawPeer>(std::move(b));
    ASSERT_TRUE(src->migrate(std::make_unique<ClosedBehindTheEnd>(std::move(a))));
    std::jthread reader([&] {
        peer->drain();
        peer->close();
    });
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
    EXPECT_EQ(src->state(), RunState::PostMigrate);
}

TEST_F(SourceWithoutReturnPath, DoesNotWaitForeverForAPeerThatSaysNothing) {
    test::FakeClock fake;
    send_all(fake);
    ASSERT_TRUE(src->loop.wait_for([&] {
        fake.advance(std::chrono::milliseconds(100));
        return !src->migration->in_progress();
    }));
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
}

TEST_F(SourceWithoutReturnPath, CancelAfterTheLastByteHasNoEffect) {
    send_all(clock);
    src->loop.run([&] { src->migration->migrate_cancel(); });
    peer->close();
    ASSERT_TRUE(src->wait_over());
    EXPECT_EQ(src->status(), MigrationStatus::Completed) << src->error_desc();
}

class NoFds final : public FdTable {
 public:
    Result<UniqueFd> take_fd(std::string_view) override { return make_errno(ENOENT, "no fds"); }
    Result<UniqueFd> open_fd_set(std::string_view, int) override {
        return make_errno(ENOENT, "no fds");
    }
};

// A listener whose queue is full: connecting to it neither succeeds nor fails.
TEST_F(SourceAndRawPeer, ListenerThatNeverAcceptsFailsAfterThePeerTimeout) {
    test::FakeClock fake;
    src = std::make_unique<TestVm>(fake, RunState::PreLaunch);
    ASSERT_TRUE(src->start());
    const std::string path = fmt::format("/tmp/ferry-full-queue-{}", ::getpid());
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    const auto* at = static_cast<const sockaddr*>(static_cast<const void*>(&address));
    const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(listener.raw(), at, sizeof(address)), 0);
    ASSERT_EQ(::listen(listener.raw(), 0), 0);
    const UniqueFd first(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::connect(first.raw(), at, sizeof(address)), 0);  // takes the only place

    NoFds none;
    ASSERT_TRUE(src->on_loop(
        [&] { return src->migration->migrate(UnixAddress{path}, none, [](Result<>) {}); }));
    ASSERT_TRUE(src->loop.wait_for([&] {
        fake.advance(std::chrono::seconds(1));
        return !src->migration->in_progress();
    }));
    ::unlink(path.c_str());
    EXPECT_NE(src->error_desc().find("no connection to the destination within"), std::string::npos)
        << src->error_desc();
    EXPECT_EQ(src->status(), MigrationStatus::Failed);
    EXPECT_EQ(src->state(), RunState::Running);
}

TEST_F(SourceAndRawPeer, DestinationThatStopsBeatingIsNoticedInPreCopy) {
    test::FakeClock fake;
    // Never given, so that the source goes on and on.
    src = std::make_unique<TestVm>(fake, RunState::PreLaunch);
    ASSERT_TRUE(src->start());
    ASSERT_TRUE(src->set_capability(Capability::ReturnPath));
    ASSERT_TRUE(src->set_capability(Capability::SwitchoverAck));
    auto [a, b] = make_memory_channel_pair();
    peer = std::make_unique<RawPeer>(std::move(b));
    ASSERT_TRUE(src->migrate(std::move(a)));
    answer_hello();
    std::jthread reader([&] { peer->drain(); });  // its kernel takes the bytes, it says nothing
    ASSERT_TRUE(src->loop.wait_for([&] {
        fake.advance(std::chrono::milliseconds(20));
        return !src->migration->in_progress();
    }));
    expect_failed_and_running("silent");
}

class DestinationAndRawPeer : public testing::Test {
 protected:
    void TearDown() override { ::unlink(trace_path().c_str()); }
    void begin(util::Clock& c) {
        dst = std::make_unique<TestVm>(c, RunState::InMigrate);
        ASSERT_TRUE(begin_trace(*dst));
        auto [a, b] = make_memory_channel_pair();
        peer = std::make_unique<RawPeer>(std::move(a));
        ASSERT_TRUE(dst->incoming(std::move(b)));
    }
    void expect_failed(std::string_view why) {
        ASSERT_TRUE(dst->wait_over());
        EXPECT_EQ(dst->status(), MigrationStatus::Failed);
        EXPECT_EQ(dst->state(), RunState::InMigrate);
        EXPECT_NE(dst->error_desc().find(why), std::string::npos) << dst->error_desc();
    }
    static void header(WireWriter& out) {
        const std::string_view machine = "test-machine";
        out.be32(kStreamMagic).be32(kStreamVersion).u8(7);
        out.be32(static_cast<uint32_t>(machine.size())).bytes(bytes_of(machine));
    }
    static void command32(WireWriter& out, uint16_t command, uint32_t value) {
        out.u8(8).be16(command).be16(4).be32(value);
    }
    // Everything a destination needs, without pages: RAM list, globalstate "running", EOF, {}.
    enum class From : uint8_t { Ferry, Qemu };
    static void whole_stream(WireWriter& out, From from = From::Ferry) {
        header(out);
        out.u8(8).be16(1).be16(0);
        command32(out, 2, kFirstPing);
        if (from == From::Ferry) command32(out, 2, kHello);
        out.u8(1).be32(0).str8("ram").be32(0).be32(4);
        out.be64(TestVm::kRamBytes | 4).str8("test.ram").be64(TestVm::kRamBytes).be64(0x10);
        out.u8(0x7e).be32(0);
        out.u8(4).be32(1).str8("globalstate").be32(0).be32(1);
        out.be32(8).bytes(bytes_of("running")).zeros(25).u8(1).u8(0).zeros(66);
        out.u8(0x7e).be32(1);
        out.u8(0).u8(6).be32(2).bytes(bytes_of("{}"));
    }

    util::SystemClock clock;
    std::unique_ptr<TestVm> dst;
    std::unique_ptr<RawPeer> peer;
};

TEST_F(DestinationAndRawPeer, GarbageIsRefused) {
    begin(clock);
    WireWriter out;
    out.be64(0x1234567812345678).be64(1).be64(2);
    peer->send(out.view());
    expect_failed("");
    // Whoever that was, he sent no migration and asked nothing.
    std::byte answer{};
    EXPECT_FALSE(peer->read_some(MutBytes(&answer, 1)));
}

TEST_F(DestinationAndRawPeer, TruncationAnywhereFailsCleanly) {
    WireWriter whole;
    whole_stream(whole);
    for (size_t length = 0; length + 7 < whole.size(); length += 3) {
        begin(clock);
        peer->send(whole.view().first(length));
        peer->close();
        ASSERT_TRUE(dst->wait_over());
        ASSERT_EQ(dst->status(), MigrationStatus::Failed) << length;
        ASSERT_EQ(dst->state(), RunState::InMigrate) << length;
    }
}

TEST_F(DestinationAndRawPeer, SectionOfAnUnknownDeviceIsRefusedByName) {
    begin(clock);
    WireWriter out;
    header(out);
    out.u8(1).be32(9).str8("0000:00:05.0/vfio").be32(0).be32(1);
    peer->send(out.view());
    expect_failed("0000:00:05.0/vfio");
}

TEST_F(DestinationAndRawPeer, WrongRamSizeIsRefusedWithBothSizes) {
    begin(clock);
    WireWriter out;
    header(out);
    out.u8(1).be32(0).str8("ram").be32(0).be32(4);
    out.be64(TestVm::kRamBytes / 2 | 4).str8("test.ram").be64(TestVm::kRamBytes / 2);
    peer->send(out.view());
    expect_failed("test.ram");
}

TEST_F(DestinationAndRawPeer, PingWithoutReturnPathIsRefused) {
    begin(clock);
    WireWriter out;
    header(out);
    command32(out, 2, 1);
    peer->send(out.view());
    expect_failed("PING");
}

TEST_F(DestinationAndRawPeer, SilentSourceFailsAfterThePeerTimeout) {
    test::FakeClock fake;
    begin(fake);
    ASSERT_TRUE(dst->loop.wait_for([&] {
        fake.advance(std::chrono::seconds(1));
        return !dst->migration->in_progress();
    }));
    expect_failed("silent");
}

TEST_F(DestinationAndRawPeer, FloodOfPingsThatReadsNoAnswersEndsAtALimit) {
    test::FakeClock fake;
    begin(fake);
    WireWriter out;
    header(out);
    out.u8(8).be16(1).be16(0);
    constexpr size_t kMoreThanItsAnswersFit = 200'000;
    for (size_t i = 0; i < kMoreThanItsAnswersFit; ++i) command32(out, 2, 7);
    std::jthread flood([&] { peer->send(out.view()); });
    // Only then time passes, for the answers that nobody reads.
    ASSERT_TRUE(await_traced("without reading the answers"));
    ASSERT_TRUE(dst->loop.wait_for([&] {
        fake.advance(std::chrono::milliseconds(100));
        return !dst->migration->in_progress();
    }));
    expect_failed("without reading the answers");
}

TEST_F(DestinationAndRawPeer, ReadyIsAnsweredByGoAndOnlyThenTheVmStarts) {
    begin(clock);
    WireWriter out;
    whole_stream(out);
    peer->send(out.view());
    ASSERT_TRUE(peer->read_until(message(static_cast<uint16_t>(ReturnMessage::Ready), {})));
    EXPECT_EQ(dst->state(), RunState::InMigrate);
    WireWriter go;
    command32(go, 2, kKeepAlivePing);
    go.u8(8).be16(static_cast<uint16_t>(Command::Go)).be16(0);
    peer->send(go.view());
    ASSERT_TRUE(peer->read_until(message32(ReturnMessage::Shut, 0)));
    ASSERT_TRUE(dst->wait_over());
    EXPECT_EQ(dst->state(), RunState::Running);
}

TEST_F(DestinationAndRawPeer, WithoutGoTheCompleteVmIsKeptStopped) {
    begin(clock);
    WireWriter out;
    whole_stream(out);
    peer->send(out.view());
    ASSERT_TRUE(peer->read_until(message(static_cast<uint16_t>(ReturnMessage::Ready), {})));
    peer->close();
    ASSERT_TRUE(dst->wait_over());
    EXPECT_EQ(dst->status(), MigrationStatus::Failed);
    EXPECT_EQ(dst->state(), RunState::Paused);
    EXPECT_NE(dst->error_desc().find("'cont'"), std::string::npos) << dst->error_desc();
}

TEST_F(DestinationAndRawPeer, AbortInsteadOfGoDiscardsTheVm) {
    begin(clock);
    WireWriter out;
    whole_stream(out);
    peer->send(out.view());
    ASSERT_TRUE(peer->read_until(message(static_cast<uint16_t>(ReturnMessage::Ready), {})));
    WireWriter abort;
    abort.u8(8).be16(static_cast<uint16_t>(Command::Abort)).be16(0);
    peer->send(abort.view());
    expect_failed("source keeps");
}

TEST_F(DestinationAndRawPeer, QemuSourceGetsShutBeforeTheStart) {
    begin(clock);
    WireWriter out;
    whole_stream(out, From::Qemu);
    peer->send(out.view());
    ASSERT_TRUE(peer->read_until(message32(ReturnMessage::Shut, 0)));
    ASSERT_TRUE(dst->wait_over());
    EXPECT_EQ(dst->status(), MigrationStatus::Completed) << dst->error_desc();
    EXPECT_EQ(dst->state(), RunState::Running);
}

}  // namespace
}  // namespace ferry::migration
