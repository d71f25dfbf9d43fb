// SPDX-License-Identifier: BSD-2-Clause
// The source's device state: a thread for each device that saves it once the guest is stopped, and
// the buffers in which it waits for a page channel or for the migration thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "migration/device-state.h"
#include "migration/savevm.h"
#include "util/env.h"

namespace ferry::migration {

// One attempt's. Used by the migration thread; destroyed when that has ended.
class StateSender {
 public:
    // `lanes`: null without page channels; outlives this.
    StateSender(MultifdSender* lanes, util::Env& env);
    ~StateSender();
    StateSender(const StateSender&) = delete;
    StateSender& operator=(const StateSender&) = delete;

    // Nothing is sent any more; whoever waits gives up.
    void abandon();
    // And ends the threads, which return when what their driver does is over.
    void stop();
    // In setup: buffers for packets of `bytes` and a thread (mig/src/save_N) that waits for
    // begin().
    Result<StateWriter*> add(const SaveVMRegistry::Entry& entry, DeviceStateHandlers& handlers,
                             size_t bytes, StateWriter::Via via);
    // The guest stands still.
    void begin();
    // What threads save for the main channel goes out until they are through. `each_period` is
    // called meanwhile. Both return the first error of any thread.
    // In PART sections, a block of each device in turn.
    Result<> forward(SaveStream& out, const std::function<Result<>()>& each_period);
    // One device's, as records of a section that the caller frames.
    Result<> forward_device(const SaveVMRegistry::Entry& entry, SaveStream& out,
                            const std::function<Result<>()>& each_period);
    // All threads are through and what they sent is written.
    Result<> finish(const std::function<Result<>()>& each_period);

 private:
    class Device;
    struct Buffer;

    void run(Device& device);
    void fail(Error error);
    void give_back(Buffer& buffer);
    Device* next_with_block();  // mutex_ held; the devices have their turns
    Result<> send_block(Device& device, SaveStream& out, std::unique_lock<std::mutex>& lock);
    template <typename Ready>
    Result<> wait(std::unique_lock<std::mutex>& lock, Ready ready,
                  const std::function<Result<>()>& each_period);

    MultifdSender* const lanes_;
    util::Env& env_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool begun_ = false;
    std::optional<Error> error_;  // the first
    size_t turn_ = 0;
    std::vector<std::unique_ptr<Device>> devices_;  // last: joined before the rest goes
};

}  // namespace ferry::migration
