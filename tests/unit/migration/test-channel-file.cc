// SPDX-License-Identifier: BSD-2-Clause
// file: and inherited descriptors.
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <csignal>

#include "tests/unit/migration/test-channel-support.h"

namespace ferry::migration {
namespace {

class FileChannel : public testing::Test {
 protected:
    static UniqueFd open(const std::string& path, int flags) {
        const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
        EXPECT_NE(fd, -1) << path;
        return UniqueFd(fd);
    }
    static std::string text_of(const Result<std::unique_ptr<MigrationChannel>>& result) {
        return error_of(result).message();
    }

    const DescriptorsAreClosed descriptors_;
    const TemporaryDirectory directory_;
    const std::string path_ = directory_ / "image";
};

// What a process may write to one file, for as long as it lives.
class FileSizeLimit {
 public:
    explicit FileSizeLimit(rlim_t bytes) {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        const rlimit limited{bytes, before_.rlim_max};
        ::setrlimit(RLIMIT_FSIZE, &limited);
    }
    ~FileSizeLimit() { ::setrlimit(RLIMIT_FSIZE, &before_); }
    FileSizeLimit(const FileSizeLimit&) = delete;
    FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
    rlimit before_{};
};

TEST_F(FileChannel, PathThatCannotBeCreatedIsNamed) {
    const std::string path = directory_ / "missing/image";
    EXPECT_EQ(text_of(connect_to(FileAddress{path})),
              "Could not create '" + path + "': No such file or directory");
}

TEST_F(FileChannel, MissingFileIsNamed) {
    EXPECT_EQ(text_of(open_incoming_channel(FileAddress{path_})),
              "Could not open '" + path_ + "': No such file or directory");
}

TEST_F(FileChannel, DirectoryIsRefused) {
    EXPECT_EQ(error_of(open_incoming_channel(FileAddress{directory_ / ""})).errnum(), EISDIR);
}

TEST_F(FileChannel, OffsetBeyondAllFilesIsRefused) {
    const auto error = error_of(connect_to(FileAddress{path_, uint64_t{1} << 63}));
    EXPECT_EQ(error.kind(), ErrorKind::InvalidArgument);
    EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(FileChannel, FullDiskIsReported) {
    const auto channel = must(connect_to(FileAddress{"/dev/full"}));
    EXPECT_EQ(error_of(write_text(*channel, "x")).message(),
              "file:/dev/full: sending: No space left on device");
}

TEST_F(FileChannel, LimitOnTheSizeOfFilesIsAnErrorAndNoSignal) {
    ASSERT_EQ(std::signal(SIGXFSZ, SIG_DFL), SIG_DFL);
    const auto channel = must(connect_to(FileAddress{path_}));
    Result<> first;
    Result<> second;
    {
        const FileSizeLimit limit(4096);
        first = write_text(*channel, std::string(4096, 'x'));
        second = write_text(*channel, "x");
    }
    expect_ok(first);
    EXPECT_EQ(error_of(second).message(), "file:" + path_ + ": writing: File too large");
}

TEST_F(FileChannel, FifoWithoutReaderIsRefusedAtOnce) {
    ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
    EXPECT_EQ(error_of(connect_to(FileAddress{path_})).errnum(), ENXIO);
}

TEST_F(FileChannel, OffsetInAFifoIsRefused) {
    ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
    EXPECT_EQ(error_of(open_incoming_channel(FileAddress{path_, 1})).errnum(), ESPIPE);
}

TEST_F(FileChannel, AfterShutdownEveryCallFailsWithTheFirstReason) {
    put_file(path_, "content");
    const auto reading = must(open_incoming_channel(FileAddress{path_}));
    const auto writing = must(connect_to(FileAddress{directory_ / "other"}));
    for (MigrationChannel* channel : {reading.get(), writing.get()}) {
        channel->shutdown(Error(ErrorKind::Cancelled, "first"));
        channel->shutdown(Error(ErrorKind::Cancelled, "second"));
        std::byte byte{};
        EXPECT_EQ(error_of(channel->read_some({&byte, 1})).text(), "first");
        EXPECT_EQ(error_of(write_text(*channel, "x")).text(), "first");
        EXPECT_EQ(error_of(channel->finish_writing()).text(), "first");
    }
}

TEST_F(FileChannel, OtherDirectionIsRefused) {
    const auto writing = must(connect_to(FileAddress{path_}));
    const auto reading = must(open_incoming_channel(FileAddress{path_}));
    std::byte byte{};
    EXPECT_EQ(error_of(writing->read_some({&byte, 1})).kind(), ErrorKind::InvalidState);
    EXPECT_EQ(error_of(write_text(*reading, "x")).kind(), ErrorKind::InvalidState);
    EXPECT_FALSE(writing->features().duplex);
    EXPECT_FALSE(reading->features().duplex);
}

TEST_F(FileChannel, WritingAfterTheEndIsRefused) {
    const auto channel = must(connect_to(FileAddress{path_}));
    expect_ok(channel->finish_writing());
    EXPECT_EQ(error_of(write_text(*channel, "x")).kind(), ErrorKind::InvalidState);
}

TEST_F(FileChannel, SavedStreamIsReadBack) {
    const std::string_view text = long_text(size_t{2} << 20);
    const std::vector<ConstBytes> parts = {bytes_of(text).first(1), {}, bytes_of(text).subspan(1)};
    {
        const auto channel = must(connect_to(FileAddress{path_}));
        expect_ok(channel->write_all(parts));
        expect_ok(channel->finish_writing());
        EXPECT_EQ(channel->bytes_written(), text.size());
    }
    const auto channel = must(open_incoming_channel(FileAddress{path_}));
    EXPECT_TRUE(must(read_to_end(*channel, 10'007)) == text);
    EXPECT_EQ(channel->bytes_read(), text.size());
}

TEST_F(FileChannel, SavingKeepsWhatIsBelowTheOffsetAndCutsWhatIsAbove) {
    put_file(path_, "headerGARBAGE-GARBAGE");
    const auto channel = must(connect_to(FileAddress{path_, 6}));
    expect_ok(write_text(*channel, "stream"));
    expect_ok(channel->finish_writing());
    EXPECT_EQ(file_content(path_), "headerstream");
}

TEST_F(FileChannel, LoadingBeginsAtTheOffset) {
    put_file(path_, "headerstream");
    const auto channel = must(open_incoming_channel(FileAddress{path_, 6}));
    EXPECT_EQ(must(read_to_end(*channel)), "stream");
}

TEST_F(FileChannel, OffsetBeyondTheEndIsTheEndOfTheStream) {
    put_file(path_, "short");
    const auto channel = must(open_incoming_channel(FileAddress{path_, 1000}));
    EXPECT_EQ(must(read_to_end(*channel)), "");
}

TEST_F(FileChannel, NewFileIsForItsOwnerOnly) {
    must(connect_to(FileAddress{path_}));
    struct stat info{};
    ASSERT_EQ(::stat(path_.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0077, 0u);
}

// --- fd: with files.

TEST_F(FileChannel, GivenFileIsWrittenFromItsPositionWhichEndsBehindTheStream) {
    put_file(path_, "header--------------");
    UniqueFd fd = open(path_, O_WRONLY);
    ASSERT_EQ(::lseek(fd.raw(), 6, SEEK_SET), 6);
    const UniqueFd sharer(::dup(fd.raw()));
    const auto channel = must(channel_from_fd(std::move(fd), "fd:image", FdUse::Outgoing));
    expect_ok(write_text(*channel, "stream"));
    expect_ok(channel->finish_writing());
    EXPECT_EQ(file_content(path_), "headerstream--------");
    EXPECT_EQ(::lseek(sharer.raw(), 0, SEEK_CUR), 12);
}

TEST_F(FileChannel, GivenFileIsReadFromItsPosition) {
    put_file(path_, "headerstream");
    UniqueFd fd = open(path_, O_RDONLY);
    ASSERT_EQ(::lseek(fd.raw(), 6, SEEK_SET), 6);
    const auto channel = must(channel_from_fd(std::move(fd), "fd:image", FdUse::Incoming));
    EXPECT_EQ(must(read_to_end(*channel)), "stream");
    EXPECT_EQ(channel->name(), "fd:image");
}

TEST_F(FileChannel, GivenDescriptorOfTheWrongDirectionIsRefused) {
    put_file(path_, "");
    EXPECT_EQ(text_of(channel_from_fd(open(path_, O_RDONLY), "fd:x", FdUse::Outgoing)),
              "fd:x: not open for writing");
    EXPECT_EQ(text_of(channel_from_fd(open(path_, O_WRONLY), "fd:x", FdUse::Incoming)),
              "fd:x: not open for reading");
}

TEST_F(FileChannel, GivenDescriptorThatCarriesNoStreamIsRefused) {
    EXPECT_EQ(text_of(channel_from_fd(UniqueFd(::eventfd(0, 0)), "fd:x", FdUse::Outgoing)),
              "fd:x: neither socket, pipe nor file");
    EXPECT_EQ(text_of(channel_from_fd(UniqueFd(::socket(AF_UNIX, SOCK_DGRAM, 0)), "fd:x",
                                      FdUse::Outgoing)),
              "fd:x: not a stream socket");
    UniqueFd listening(::socket(AF_INET, SOCK_STREAM, 0));
    ASSERT_EQ(::listen(listening.raw(), 1), 0);
    EXPECT_EQ(text_of(channel_from_fd(std::move(listening), "fd:x", FdUse::Incoming)),
              "fd:x: a listening socket; a connected one is needed");
}

TEST_F(FileChannel, ClosedDescriptorIsRefused) {
    EXPECT_EQ(error_of(channel_from_fd(UniqueFd(), "fd:x", FdUse::Incoming)).errnum(), EBADF);
}

TEST_F(FileChannel, GivenDescriptorIsNotInheritedByCommands) {
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const UniqueFd other_end(fds[1]);
    const auto channel = must(channel_from_fd(UniqueFd(fds[0]), "fd:x", FdUse::Incoming));
    EXPECT_EQ(::fcntl(fds[0], F_GETFD), FD_CLOEXEC);
}

TEST_F(FileChannel, AddressesThatNeedAnotherCallAreRefused) {
    EXPECT_EQ(text_of(connect_to(FdAddress{"x"})), "fd:x was not resolved to a descriptor");
    EXPECT_EQ(text_of(open_incoming_channel(FdAddress{"x"})),
              "fd:x was not resolved to a descriptor");
    EXPECT_EQ(text_of(open_incoming_channel(UnixAddress{"/x"})), "unix:/x needs a listener");
}

}  // namespace
}  // namespace ferry::migration
