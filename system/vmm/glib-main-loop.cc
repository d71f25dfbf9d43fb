// SPDX-License-Identifier: BSD-2-Clause
#include "system/vmm/glib-main-loop.h"

#include <glib-unix.h>
#include <glib.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace ferry::vmm {

namespace {

// GLib calls back with the pointer; the function object lives until the source is destroyed and a
// dispatch of it that may be under way has returned.
using Call = std::function<void()>;

gboolean call_timer(gpointer data) {
    (*static_cast<Call*>(data))();
    return G_SOURCE_CONTINUE;
}

gboolean call_fd(gint /*fd*/, GIOCondition /*condition*/, gpointer data) {
    (*static_cast<Call*>(data))();
    return G_SOURCE_CONTINUE;
}

void delete_call(gpointer data) {
    delete static_cast<Call*>(data);
}

constexpr gint64 kNow = 0;
constexpr gint64 kNever = -1;

}  // namespace

// Ready whenever something was posted.
struct GlibMainLoop::PostSource {
    GSource base;
    GlibMainLoop* loop;

    static gboolean dispatch(GSource* source, GSourceFunc /*callback*/, gpointer /*data*/) {
        g_source_set_ready_time(source, kNever);
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): how GLib derives sources
        reinterpret_cast<PostSource*>(source)->loop->run_posted();
        return G_SOURCE_CONTINUE;
    }
    static inline GSourceFuncs functions = {nullptr, nullptr, dispatch, nullptr, nullptr, nullptr};
};

GlibMainLoop::GlibMainLoop()
    : context_(g_main_context_new()),
      posted_source_(g_source_new(&PostSource::functions, sizeof(PostSource))) {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): how GLib derives sources
    reinterpret_cast<PostSource*>(posted_source_)->loop = this;
    g_source_attach(posted_source_, context_);
}

GlibMainLoop::~GlibMainLoop() {
    g_source_destroy(posted_source_);
    g_source_unref(posted_source_);
    g_main_context_unref(context_);
}

void GlibMainLoop::post(Task task) {
    {
        const std::lock_guard lock(mutex_);
        posted_.push_back(std::move(task));
    }
    g_source_set_ready_time(posted_source_, kNow);
}

void GlibMainLoop::run_posted() {
    // Only what is there now: a task that posts another one does not keep the descriptors waiting.
    std::deque<Task> tasks;
    {
        const std::lock_guard lock(mutex_);
        tasks.swap(posted_);
    }
    for (Task& task : tasks) std::exchange(task, nullptr)();
}

util::Registration GlibMainLoop::attach(GSource* source, int (*function)(void*),
                                        std::function<void()> call) {
    auto data = std::make_unique<Call>(std::move(call));
    g_source_set_callback(source, function, data.release(), delete_call);
    g_source_attach(source, context_);
    return util::Registration([source] {
        g_source_destroy(source);
        g_source_unref(source);
    });
}

util::Registration GlibMainLoop::every(util::Nanoseconds period, std::function<void()> tick) {
    const auto ms = std::chrono::ceil<std::chrono::milliseconds>(period).count();
    const auto bounded = static_cast<guint>(std::clamp<int64_t>(ms, 1, G_MAXINT));
    return attach(g_timeout_source_new(bounded), call_timer, std::move(tick));
}

util::Registration GlibMainLoop::watch_fd(BorrowedFd fd, FdEvent event,
                                          std::function<void()> ready) {
    const int condition = (event == FdEvent::Readable ? G_IO_IN : G_IO_OUT) | G_IO_HUP | G_IO_ERR;
    return attach(g_unix_fd_source_new(fd.raw(), static_cast<GIOCondition>(condition)),
                  G_SOURCE_FUNC(call_fd), std::move(ready));
}

void GlibMainLoop::run() {
    while (!ending_) g_main_context_iteration(context_, TRUE);
}

}  // namespace ferry::vmm
