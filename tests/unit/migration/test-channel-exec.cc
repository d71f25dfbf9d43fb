// SPDX-License-Identifier: BSD-2-Clause
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>

#include "tests/unit/migration/test-channel-support.h"

namespace ferry::migration {
namespace {

class ExecChannel : public testing::Test {
 protected:
    static std::unique_ptr<MigrationChannel> outgoing(const std::string& command) {
        return must(connect_to(uri("exec:" + command)));
    }
    static std::unique_ptr<MigrationChannel> incoming(const std::string& command) {
        return must(open_incoming_channel(uri("exec:" + command)));
    }
    // Returns when nobody has the fifo open for writing any more.
    static std::string everything_from(const UniqueFd& fifo) {
        std::string all;
        char buffer[100];
        for (ssize_t n = 0; (n = ::read(fifo.raw(), buffer, sizeof(buffer))) > 0;) {
            all.append(buffer, static_cast<size_t>(n));
        }
        return all;
    }

    const DescriptorsAreClosed descriptors_;
    const TemporaryDirectory directory_;
    const std::string path_ = directory_ / "image";
};

TEST_F(ExecChannel, ProgramThatDoesNotExistIsNamed) {
    EXPECT_EQ(error_of(connect_to(ExecAddress{{"/no/such/program", "x"}})).message(),
              "exec:/no/such/program x: starting /no/such/program: No such file or directory");
    EXPECT_EQ(error_of(connect_to(ExecAddress{})).kind(), ErrorKind::InvalidArgument);
}

TEST_F(ExecChannel, CommandThatFailsAtTheEndIsAnErrorNamingItsStatus) {
    const auto channel = outgoing("cat >/dev/null; exit 3");
    expect_ok(write_text(*channel, "stream"));
    const Error error = error_of(channel->finish_writing());
    EXPECT_EQ(error.kind(), ErrorKind::PeerFailed);
    EXPECT_EQ(error.message(), "exec:cat >/dev/null; exit 3: the command exited with status 3");
    EXPECT_EQ(error_of(channel->finish_writing()).text(), error.text());
}

TEST_F(ExecChannel, CommandKilledByASignalIsAnErrorNamingIt) {
    const auto channel = outgoing("cat >/dev/null; kill -KILL $$");
    EXPECT_EQ(error_of(channel->finish_writing()).message(),
              "exec:cat >/dev/null; kill -KILL $$: the command was killed by signal 9 (Killed)");
}

TEST_F(ExecChannel, CommandThatEndsEarlyIsAnErrorNamingItsStatus) {
    const auto channel = outgoing("exit 127");
    const std::string block(size_t{4} << 20, 'x');
    const Error error = error_of(write_text(*channel, block));
    EXPECT_EQ(error.kind(), ErrorKind::PeerClosed);
    EXPECT_EQ(error.message(),
              "exec:exit 127: sending: the command exited with status 127: Broken pipe");
}

TEST_F(ExecChannel, FinishingWaitsForTheCommandUntilShutdown) {
    const auto channel = outgoing("exec tail -f /dev/null");
    Error error(ErrorKind::Internal, "");
    BlockingCall finish([&] { error = error_of(channel->finish_writing()); });
    finish.wait_until_blocked();
    channel->shutdown(Error(ErrorKind::Cancelled, "the user cancelled"));
    finish.join();
    EXPECT_EQ(error.text(), "the user cancelled");
}

TEST_F(ExecChannel, BlockedWriteIsWokenByShutdownWithItsReason) {
    const auto channel = outgoing("exec tail -f /dev/null");
    const std::string block(size_t{4} << 20, 'x');
    Error error(ErrorKind::Internal, "");
    BlockingCall write([&] { error = error_of(write_text(*channel, block)); });
    while (channel->bytes_written() == 0) std::this_thread::yield();
    write.wait_until_blocked();
    channel->shutdown(Error(ErrorKind::Cancelled, "the user cancelled"));
    write.join();
    EXPECT_EQ(error.text(), "the user cancelled");
}

TEST_F(ExecChannel, DestroyingItKillsTheCommandAndWhatItStarted) {
    ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
    auto channel = outgoing("exec >" + path_ + "; tail -f /dev/null & echo started; wait");
    const UniqueFd fifo(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
    char line[8];
    ASSERT_EQ(::read(fifo.raw(), line, sizeof(line)), 8);
    channel.reset();
    EXPECT_EQ(everything_from(fifo), "");
}

TEST_F(ExecChannel, FailedMigrationDoesNotLookLikeTheEndOfTheStream) {
    auto channel = outgoing("cat >/dev/null && echo complete >" + path_);
    expect_ok(write_text(*channel, "half a stream"));
    channel->shutdown(Error(ErrorKind::Cancelled, "the user cancelled"));
    channel.reset();
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(ExecChannel, IncomingCommandThatFailsIsNoOrderlyEnd) {
    const auto channel = incoming("echo part; exit 2");
    const Error error = error_of(read_to_end(*channel));
    EXPECT_EQ(error.message(), "exec:echo part; exit 2: the command exited with status 2");
    EXPECT_EQ(channel->bytes_read(), 5u);
}

TEST_F(ExecChannel, BlockedReadIsWokenByShutdownWithItsReason) {
    const auto channel = incoming("exec tail -f /dev/null");
    Error error(ErrorKind::Internal, "");
    BlockingCall read([&] { error = error_of(read_to_end(*channel)); });
    read.wait_until_blocked();
    channel->shutdown(Error(ErrorKind::Cancelled, "the user cancelled"));
    read.join();
    EXPECT_EQ(error.text(), "the user cancelled");
}

TEST_F(ExecChannel, OtherDirectionIsRefused) {
    const auto writing = outgoing("cat >/dev/null");
    const auto reading = incoming("true");
    std::byte byte{};
    EXPECT_EQ(error_of(writing->read_some({&byte, 1})).kind(), ErrorKind::InvalidState);
    EXPECT_EQ(error_of(write_text(*reading, "x")).kind(), ErrorKind::InvalidState);
    EXPECT_FALSE(writing->features().duplex);
    EXPECT_FALSE(reading->features().duplex);
}

TEST_F(ExecChannel, CommandReceivesTheWholeStream) {
    const std::string_view text = long_text(size_t{3} << 20);
    const auto channel = outgoing("cat >" + path_);
    expect_ok(write_text(*channel, text));
    expect_ok(channel->finish_writing());
    EXPECT_TRUE(file_content(path_) == text);
    EXPECT_EQ(channel->bytes_written(), text.size());
}

TEST_F(ExecChannel, CommandsOutputIsTheStream) {
    const std::string_view text = long_text(size_t{3} << 20);
    put_file(path_, text);
    const auto channel = incoming("cat " + path_);
    EXPECT_TRUE(must(read_to_end(*channel)) == text);
    expect_ok(channel->finish_writing());
}

// A file may be longer than the stream in it.
TEST_F(ExecChannel, IncomingCommandThatStillHasOutputEndsWell) {
    put_file(path_, std::string(size_t{8} << 20, 'x'));
    const auto channel = incoming("exec cat " + path_);
    std::byte byte{};
    EXPECT_EQ(must(channel->read_some({&byte, 1})), 1u);
    expect_ok(channel->finish_writing());
}

TEST_F(ExecChannel, IncomingShellWhoseCommandStillHasOutputEndsWell) {
    put_file(path_, std::string(size_t{8} << 20, 'x'));
    const auto channel = incoming("cat " + path_ + " && true");
    std::byte byte{};
    EXPECT_EQ(must(channel->read_some({&byte, 1})), 1u);
    expect_ok(channel->finish_writing());
}

TEST_F(ExecChannel, CommandHasNoOtherDescriptors) {
    const UniqueFd leaking(::open("/dev/null", O_RDONLY));  // not close-on-exec
    const auto channel = incoming("exec ls /proc/self/fd");
    EXPECT_EQ(must(read_to_end(*channel)), "0\n1\n2\n3\n");  // 3 is the directory
}

TEST_F(ExecChannel, CommandStartsWithDefaultSignals) {
    sigset_t all{};
    sigset_t before{};
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before);
    const auto handler = std::signal(SIGPIPE, SIG_IGN);
    const auto channel = incoming("kill -PIPE $$; echo still alive");
    std::signal(SIGPIPE, handler);
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    const std::string text = error_of(read_to_end(*channel)).text();
    EXPECT_TRUE(text.ends_with("the command was killed by signal 13 (Broken pipe)")) << text;
}

TEST_F(ExecChannel, ArgumentsGoToTheProgramAsTheyAre) {
    const auto channel = must(open_incoming_channel(ExecAddress{{"echo", "$HOME", "a  b"}}));
    EXPECT_EQ(must(read_to_end(*channel)), "$HOME a  b\n");
}

}  // namespace
}  // namespace ferry::migration
