// SPDX-License-Identifier: BSD-2-Clause
// The thread behind a character backend.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "hw/char/char-backend.h"
#include "hw/char/char-endpoint.h"
#include "util/event-fd.h"
#include "util/log.h"

namespace ferry::chardev {

// The device's calls only touch the queue of output; everything that may wait is done by the
// thread, which polls the descriptors and the eventfd by which it is woken.
class CharThread final : public CharBackend {
 public:
    static Result<std::unique_ptr<CharBackend>> create(const std::string& name,
                                                       CharEndpoint endpoint, util::Logger* log);
    ~CharThread() override;
    CharThread(const CharThread&) = delete;
    CharThread& operator=(const CharThread&) = delete;

    size_t write(ConstBytes bytes) override;
    void readable() override;
    util::Registration serve(CharDevice& device) override;

 private:
    enum class Peer : uint8_t { Absent, Present };
    struct Polled;
    struct Piece {
        std::array<std::byte, 4096> bytes;  // a pipe that is ready takes so much at once
        size_t size = 0;
    };

    CharThread(std::string name, CharEndpoint endpoint, util::Logger* log, util::EventFd wake);

    // All on the thread.
    void loop(const std::stop_token& stop);
    void wait();
    void accept();
    void read();
    void end_of_input();
    void give_input();
    bool has_output();
    Piece next_output();
    void write_queued();
    void output_is_gone(size_t count);
    void nobody_reads();  // what the guest prints is dropped from now on
    void peer_left();
    void flush();
    void complain(const Error& error);

    const std::string name_;
    util::Logger* const log_;
    const util::EventFd wake_;

    // The thread's own.
    CharEndpoint endpoint_;
    std::vector<std::byte> input_;  // read, but not taken by the device
    enum class Health : uint8_t { Good, Failing } health_ = Health::Good;
    enum class Accepting : uint8_t { Yes, AfterAPause } accepting_ = Accepting::Yes;

    std::mutex mutex_;  // what follows; a leaf
    std::vector<std::byte> output_;
    Peer peer_;
    bool device_waits_ = false;  // for room

    std::mutex device_mutex_;  // the pointer; held over calls of the device
    CharDevice* device_ = nullptr;

    std::jthread thread_;
};

}  // namespace ferry::chardev
