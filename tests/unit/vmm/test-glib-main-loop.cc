// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>
#include <vector>

#include "system/vmm/glib-main-loop.h"
#include "util/event-fd.h"

namespace ferry::vmm {
namespace {

using namespace std::chrono_literals;

TEST(GlibMainLoop, QuitBeforeRunReturnsAtOnce) {
    GlibMainLoop loop;
    loop.quit();
    loop.run();
}

TEST(GlibMainLoop, TasksThatDidNotRunAreDropped) {
    const auto held = std::make_shared<int>(0);
    {
        GlibMainLoop loop;
        loop.post([held] {});
        EXPECT_EQ(held.use_count(), 2);
    }
    EXPECT_EQ(held.use_count(), 1);
}

TEST(GlibMainLoop, TasksRunInOrderOfPostingFromAnyThread) {
    GlibMainLoop loop;
    std::vector<int> order;
    constexpr int kTasks = 1000;
    std::jthread poster([&] {
        EXPECT_FALSE(loop.on_loop_thread());
        for (int i = 0; i < kTasks; ++i) {
            loop.post([&, i] {
                EXPECT_TRUE(loop.on_loop_thread());
                order.push_back(i);
                if (i == kTasks - 1) loop.quit();
            });
        }
    });
    loop.run();
    ASSERT_EQ(order.size(), static_cast<size_t>(kTasks));
    EXPECT_TRUE(std::ranges::is_sorted(order));
}

TEST(GlibMainLoop, PostingForEverDoesNotStarveDescriptors) {
    GlibMainLoop loop;
    const auto fd = util::EventFd::create();
    std::function<void()> again = [&] { loop.post(again); };
    again();
    fd->signal();
    const auto watch =
        loop.watch_fd(fd->fd(), system::MainLoop::FdEvent::Readable, [&] { loop.quit(); });
    loop.run();
}

TEST(GlibMainLoop, TimerTicksUntilItsRegistrationGoes) {
    GlibMainLoop loop;
    int ticks = 0;
    util::Registration timer;
    timer = loop.every(1ms, [&] {
        if (++ticks == 3) {
            timer.reset();  // from within
            loop.quit();
        }
    });
    loop.run();
    EXPECT_EQ(ticks, 3);
}

TEST(GlibMainLoop, WatchedDescriptorReportsUntilItIsRead) {
    GlibMainLoop loop;
    std::array<int, 2> ends{};
    ASSERT_EQ(::pipe(ends.data()), 0);
    const UniqueFd reading(ends[0]);
    UniqueFd writing(ends[1]);
    int calls = 0;
    const auto watch = loop.watch_fd(reading.borrow(), system::MainLoop::FdEvent::Readable, [&] {
        ++calls;
        char c = 0;
        if (::read(reading.raw(), &c, 1) == 0) loop.quit();  // hang-up is readable, too
        writing.reset();
    });
    ASSERT_EQ(::write(writing.raw(), "x", 1), 1);
    loop.run();
    EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace ferry::vmm
