// SPDX-License-Identifier: BSD-2-Clause
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <string>

#include "hw/char/char-backend.h"
#include "hw/char/char-thread.h"
#include "hw/char/serial.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::chardev {
namespace {

// A folder that goes with the test, and a process that survives closed peers.
class CharFolder {
 public:
    CharFolder() {
        ::signal(SIGPIPE, SIG_IGN);
        std::string pattern = "/tmp/ferry-char-XXXXXX";
        path_ = ::mkdtemp(pattern.data());
    }
    ~CharFolder() { std::filesystem::remove_all(path_); }
    CharFolder(const CharFolder&) = delete;
    CharFolder& operator=(const CharFolder&) = delete;
    std::string at(const std::string& name) const { return path_ + "/" + name; }

 private:
    std::string path_;
};

// Takes `room` more bytes and lets a test wait for them.
class CountingDevice final : public CharDevice {
 public:
    size_t receive(ConstBytes bytes) override {
        const std::lock_guard lock(mutex_);
        const size_t taken = std::min(room_, bytes.size());
        for (const std::byte byte : bytes.first(taken)) text_ += std::to_integer<char>(byte);
        room_ -= taken;
        refused_ = refused_ || taken < bytes.size();
        changed_.notify_all();
        return taken;
    }
    void writable() override {
        const std::lock_guard lock(mutex_);
        ++writable_calls_;
        changed_.notify_all();
    }
    void set_room(size_t room) {
        const std::lock_guard lock(mutex_);
        room_ = room;
    }
    void wait_for_text(const std::string& text) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return text_ == text; });
    }
    void wait_for_refusal() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return refused_; });
    }
    void wait_for_room(int calls) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return writable_calls_ >= calls; });
    }

 private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::string text_;
    size_t room_ = SIZE_MAX;
    int writable_calls_ = 0;
    bool refused_ = false;
};

std::unique_ptr<CharBackend> open_backend(const std::string& text, util::Logger* log = nullptr) {
    auto address = util::parse_char_address(text);
    EXPECT_TRUE(address);
    auto backend = CharBackend::open("serial0", *address, log);
    EXPECT_TRUE(backend) << backend.error().message();
    return std::move(*backend);
}

UniqueFd unix_client(const std::string& path) {
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un place{};
    place.sun_family = AF_UNIX;
    std::memcpy(place.sun_path, path.data(), path.size());
    EXPECT_EQ(::connect(socket.raw(), reinterpret_cast<sockaddr*>(&place), sizeof place), 0);
    return socket;
}

void send_text(const UniqueFd& to, std::string_view text) {
    EXPECT_EQ(::write(to.raw(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

std::string read_text(const UniqueFd& from, size_t length) {
    std::string text(length, '\0');
    for (size_t done = 0; done < length;) {
        const ssize_t count = ::read(from.raw(), text.data() + done, length - done);
        if (count <= 0) return text.substr(0, done);
        done += static_cast<size_t>(count);
    }
    return text;
}

std::string file_text(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

// ---- null and files

TEST(CharBackend, NullTakesEverything) {
    const auto backend = open_backend("null");
    EXPECT_EQ(backend->write(bytes_of("hello")), 5u);
}

TEST(CharBackend, FileIsTruncatedAndHasAllOutputAtTheEnd) {
    const CharFolder folder;
    std::ofstream(folder.at("out")) << "what was there before";
    std::string wanted;
    {
        const auto backend = open_backend("file:" + folder.at("out"));
        for (int i = 0; i < 1000; ++i) {
            const std::string line = fmt::format("line {}\n", i);
            ASSERT_EQ(backend->write(bytes_of(line)), line.size());
            wanted += line;
        }
    }
    EXPECT_EQ(file_text(folder.at("out")), wanted);
}

TEST(CharBackend, FileThatCannotBeOpenedIsNamed) {
    const auto backend =
        CharBackend::open("serial0", *util::parse_char_address("file:/nowhere/at/all"));
    ASSERT_FALSE(backend);
    EXPECT_NE(backend.error().message().find("serial0: file:/nowhere/at/all"), std::string::npos);
}

TEST(CharBackend, NamedPipeThatNobodyReadsIsAnErrorAndDoesNotHang) {
    const CharFolder folder;
    ASSERT_EQ(::mkfifo(folder.at("pipe").c_str(), 0600), 0);
    EXPECT_FALSE(
        CharBackend::open("serial0", *util::parse_char_address("file:" + folder.at("pipe"))));
}

class CountingLogger final : public util::Logger {
 public:
    void log(util::LogLevel, std::string_view message) override {
        const std::lock_guard lock(mutex_);
        ++messages_;
        last_ = message;
    }
    std::pair<int, std::string> seen() {
        const std::lock_guard lock(mutex_);
        return {messages_, last_};
    }

 private:
    std::mutex mutex_;
    int messages_ = 0;
    std::string last_;
};

TEST(CharBackend, LostOutputIsToldOnce) {
    const CharFolder folder;
    ASSERT_EQ(::mkfifo(folder.at("pipe").c_str(), 0600), 0);
    UniqueFd reader(::open(folder.at("pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    CountingLogger log;
    {
        const auto backend = open_backend("file:" + folder.at("pipe"), &log);
        reader.reset();
        for (size_t i = 0; i < 100; ++i) EXPECT_EQ(backend->write(bytes_of("x")), 1u);
    }
    EXPECT_EQ(log.seen().first, 1);
    EXPECT_NE(log.seen().second.find("output of the guest is lost"), std::string::npos);
}

// ---- sockets

TEST(CharBackend, ServerDropsOutputUntilAClientIsThereAndServesOneAfterTheOther) {
    const CharFolder folder;
    CountingDevice device;
    const auto backend = open_backend("unix:" + folder.at("s") + ",server=on,wait=off");
    const auto served = backend->serve(device);
    EXPECT_EQ(backend->write(bytes_of("lost")), 4u);

    UniqueFd first = unix_client(folder.at("s"));
    send_text(first, "a");
    device.wait_for_text("a");
    EXPECT_EQ(backend->write(bytes_of("one")), 3u);
    EXPECT_EQ(read_text(first, 3), "one");

    const UniqueFd second = unix_client(folder.at("s"));
    send_text(second, "b");
    first.reset();
    device.wait_for_text("ab");
    EXPECT_EQ(backend->write(bytes_of("two")), 3u);
    EXPECT_EQ(read_text(second, 3), "two");
}

TEST(CharBackend, SocketsPathGoesWithTheServer) {
    const CharFolder folder;
    const std::string text = "unix:" + folder.at("s") + ",server=on,wait=off";
    open_backend(text).reset();
    EXPECT_FALSE(std::filesystem::exists(folder.at("s")));
    // One that was left behind is replaced; another kind of file is not.
    const auto backend = open_backend(text);
    EXPECT_TRUE(CharBackend::open("again", *util::parse_char_address(text)));
    std::ofstream(folder.at("file")) << "precious";
    EXPECT_FALSE(CharBackend::open(
        "file", *util::parse_char_address("unix:" + folder.at("file") + ",server=on,wait=off")));
    EXPECT_EQ(file_text(folder.at("file")), "precious");
}

// A peer to connect to.
struct PeerServer {
    UniqueFd listener{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    explicit PeerServer(const std::string& path) {
        sockaddr_un place{};
        place.sun_family = AF_UNIX;
        std::memcpy(place.sun_path, path.data(), path.size());
        EXPECT_EQ(::bind(listener.raw(), reinterpret_cast<sockaddr*>(&place), sizeof place), 0);
        EXPECT_EQ(::listen(listener.raw(), 1), 0);
    }
    UniqueFd accept() const { return UniqueFd(::accept(listener.raw(), nullptr, nullptr)); }
};

TEST(CharBackend, RefusedInputIsOfferedAgain) {
    const CharFolder folder;
    const PeerServer server(folder.at("s"));
    CountingDevice device;
    device.set_room(2);
    const auto backend = open_backend("unix:" + folder.at("s"));
    const auto served = backend->serve(device);
    const UniqueFd peer = server.accept();
    send_text(peer, "abcdef");
    device.wait_for_refusal();
    device.set_room(3);
    backend->readable();
    device.wait_for_text("abcde");
    device.set_room(SIZE_MAX);
    backend->readable();
    device.wait_for_text("abcdef");
}

TEST(CharBackend, WhoDoesNotReadFillsTheQueueAndGetsEverythingLater) {
    const CharFolder folder;
    const PeerServer server(folder.at("s"));
    CountingDevice device;
    const auto backend = open_backend("unix:" + folder.at("s"));
    const auto served = backend->serve(device);
    const UniqueFd peer = server.accept();

    // The kernel holds some, too, as long as it takes it: then the queue is full.
    size_t sent = 0;
    const std::string piece(1000, 'x');
    for (;;) {
        const size_t taken = backend->write(bytes_of(piece));
        sent += taken;
        if (taken < piece.size()) break;
    }
    EXPECT_GE(sent, kMaxQueuedOutputBytes);
    EXPECT_EQ(read_text(peer, sent), std::string(sent, 'x'));
    device.wait_for_room(1);
    EXPECT_EQ(backend->write(bytes_of("y")), 1u);
    EXPECT_EQ(read_text(peer, 1), "y");
}

TEST(CharBackend, PeerThatLeavesFreesTheDeviceThatWaits) {
    const CharFolder folder;
    const PeerServer server(folder.at("s"));
    CountingDevice device;
    const auto backend = open_backend("unix:" + folder.at("s"));
    const auto served = backend->serve(device);
    UniqueFd peer = server.accept();
    const std::string piece(1000, 'x');
    while (backend->write(bytes_of(piece)) == piece.size()) {
    }
    peer.reset();
    device.wait_for_room(1);
    EXPECT_EQ(backend->write(bytes_of(piece)), piece.size());
}

// ---- a terminal

TEST(CharBackend, TerminalIsRawWhileItIsUsedAndAsBeforeAfterwards) {
    UniqueFd keyboard(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    ASSERT_TRUE(keyboard.valid());
    ASSERT_EQ(::grantpt(keyboard.raw()), 0);
    ASSERT_EQ(::unlockpt(keyboard.raw()), 0);
    const UniqueFd terminal(::open(::ptsname(keyboard.raw()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    const UniqueFd same(::dup(terminal.raw()));
    termios before{};
    ASSERT_EQ(::tcgetattr(terminal.raw(), &before), 0);
    {
        auto endpoint = open_terminal(terminal.borrow(), same.borrow());
        ASSERT_TRUE(endpoint);
        termios during{};
        ASSERT_EQ(::tcgetattr(terminal.raw(), &during), 0);
        EXPECT_EQ(during.c_lflag & (ECHO | ICANON), 0u);
        EXPECT_EQ(during.c_lflag & ISIG, before.c_lflag & ISIG);
        CountingDevice device;
        auto backend = CharThread::create("serial0", std::move(*endpoint), nullptr);
        ASSERT_TRUE(backend);
        const auto served = (*backend)->serve(device);
        send_text(keyboard, "k");
        device.wait_for_text("k");
        EXPECT_EQ((*backend)->write(bytes_of("out")), 3u);
        EXPECT_EQ(read_text(keyboard, 3), "out");
    }
    termios after{};
    ASSERT_EQ(::tcgetattr(terminal.raw(), &after), 0);
    EXPECT_EQ(after.c_lflag, before.c_lflag);
    EXPECT_EQ(::fcntl(terminal.raw(), F_GETFL) & O_NONBLOCK, 0);
}

// ---- with the UART

TEST(CharBackend, UartTalksToASocket) {
    const CharFolder folder;
    const PeerServer server(folder.at("s"));
    const auto backend = open_backend("unix:" + folder.at("s"));
    const UniqueFd peer = server.accept();
    std::mutex mutex;
    std::condition_variable raised;
    bool level = false;
    Serial serial(*backend, [&](bool now) {
        const std::lock_guard lock(mutex);
        level = now;
        raised.notify_all();
    });
    serial.start();
    const auto served = backend->serve(serial);
    serial.write(2, 1, 0x01);
    serial.write(1, 1, 0x01);
    for (const char c : std::string_view("login: ")) {
        serial.write(0, 1, static_cast<uint8_t>(c));
    }
    EXPECT_EQ(read_text(peer, 7), "login: ");

    const std::string typed = "more characters than a FIFO holds, each of which arrives";
    send_text(peer, typed);
    std::string text;
    while (text.size() < typed.size()) {
        std::unique_lock lock(mutex);
        raised.wait(lock, [&] { return level; });
        lock.unlock();
        text += static_cast<char>(serial.read(0, 1));
    }
    EXPECT_EQ(text, typed);
}

}  // namespace
}  // namespace ferry::chardev
