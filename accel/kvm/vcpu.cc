// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/vcpu.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <future>

#include "trace-points.h"
#include "util/thread.h"
#include "util/try.h"

namespace ferry::kvm {

namespace {

int kick_signal() {
    return SIGRTMIN;
}

sigset_t kick_set() {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, kick_signal());
    return set;
}

// Blocks the kick on the calling thread, so that a thread it starts is born that way: there is no
// moment at which a kick could hit a thread that is not ready for it.
class KickBlocked {
 public:
    KickBlocked() {
        const sigset_t kick = kick_set();
        ::pthread_sigmask(SIG_BLOCK, &kick, &before_);
    }
    ~KickBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    KickBlocked(const KickBlocked&) = delete;
    KickBlocked& operator=(const KickBlocked&) = delete;

 private:
    sigset_t before_{};
};

// A kick has done its work once KVM_RUN returned; left pending it would end the next one as well.
void consume_kicks() {
    const sigset_t kick = kick_set();
    constexpr timespec kNow{};
    while (::sigtimedwait(&kick, nullptr, &kNow) > 0) {
    }
}

// A port access moves `length` bytes.
uint32_t load_value(ConstBytes bytes) {
    uint32_t value = 0;
    std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(value)));
    return value;
}

void store_value(MutBytes bytes, uint32_t value) {
    std::memcpy(bytes.data(), &value, std::min(bytes.size(), sizeof(value)));
}

std::string internal_error_text(const kvm_run& run) {
    std::string text =
        fmt::format("KVM cannot execute the guest (suberror {}", run.internal.suberror);
    constexpr uint32_t kShown = 4;
    for (uint32_t i = 0; i < std::min(run.internal.ndata, kShown); ++i) {
        text += fmt::format(", {:#x}", run.internal.data[i]);
    }
    return text + ")";
}

}  // namespace

std::string_view to_string(GuestEnd::Kind kind) {
    switch (kind) {
        case GuestEnd::Kind::TripleFault: return "triple fault";
        case GuestEnd::Kind::PowerOff: return "power off";
        case GuestEnd::Kind::Reset: return "reset";
        case GuestEnd::Kind::Crash: return "crash";
        case GuestEnd::Kind::InternalError: return "internal error";
    }
    return "invalid";
}

Vcpu::Vcpu(KvmVm& vm, unsigned index, Bus& bus, util::Env& env, OnEnd on_end)
    : calls_(vm.calls()),
      dirty_rings_(vm.dirty_rings()),
      index_(index),
      bus_(bus),
      env_(env),
      on_end_(std::move(on_end)) {}

Result<std::unique_ptr<Vcpu>> Vcpu::create(KvmVm& vm, unsigned index,
                                           const std::vector<kvm_cpuid_entry2>& cpuid, Bus& bus,
                                           util::Env& env, OnEnd on_end) {
    std::unique_ptr<Vcpu> vcpu(new Vcpu(vm, index, bus, env, std::move(on_end)));
    MIG_TRY(vcpu->fd_,
            vm.calls().ioctl_fd(vm.fd(), KVM_CREATE_VCPU, index, "ioctl(KVM_CREATE_VCPU)"),
            "CPU {}", index);
    MIG_TRY(vcpu->run_,
            util::MappedRegion::map(vcpu->fd(), 0, vm.kvm().run_bytes(), "kvm_run of a CPU"),
            "CPU {}", index);
    if (vm.dirty_rings() != nullptr) {
        MIG_CHECK(vm.dirty_rings()->add(vcpu->fd()), "CPU {}", index);
    }
    MIG_CHECK(vcpu->set_cpuid(cpuid), "CPU {}", index);
    MIG_CHECK(vcpu->start_thread(), "CPU {}", index);
    return vcpu;
}

Vcpu::~Vcpu() {
    {
        const std::lock_guard lock(mutex_);
        wanted_ = Wanted::End;
        kick();
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
}

Result<> Vcpu::set_cpuid(const std::vector<kvm_cpuid_entry2>& cpuid) {
    uapi::Cpuid list(cpuid.size());
    std::ranges::copy(cpuid, list.entries().begin());
    return calls_.set(fd(), uapi::kSetCpuid2, list.data(), "ioctl(KVM_SET_CPUID2)");
}

Result<> Vcpu::start_thread() {
    std::promise<Result<>> prepared;
    auto ready = prepared.get_future();
    const KickBlocked blocked;
    MIG_TRY(thread_, util::start_thread(fmt::format("CPU {}/KVM", index_),
                                        [this, &prepared](const std::stop_token&) {
                                            auto result = prepare_thread();
                                            const bool usable = result.has_value();
                                            prepared.set_value(std::move(result));
                                            if (usable) thread_main();
                                        }));
    return ready.get();
}

// --- Main loop's side

// Under mutex_, or before the thread is joined.
void Vcpu::kick() {
    // Fails only for a thread that is over.
    if (thread_.joinable()) ::pthread_kill(thread_.native_handle(), kick_signal());
}

void Vcpu::pause(Job parked) {
    {
        const std::lock_guard lock(mutex_);
        wanted_ = Wanted::Pause;
        if (!parked_) {
            parked_calls_.push_back(std::move(parked));
            kick();
            wake_.notify_all();
            return;
        }
    }
    parked();
}

void Vcpu::resume() {
    {
        const std::lock_guard lock(mutex_);
        wanted_ = Wanted::Run;
        parked_ = false;
    }
    wake_.notify_all();
}

void Vcpu::rest(util::Nanoseconds duration) {
    const std::lock_guard lock(mutex_);
    if (wanted_ != Wanted::Run) return;
    rest_ = duration;
    kick();
}

void Vcpu::post(Job job) {
    {
        const std::lock_guard lock(mutex_);
        jobs_.push_back(std::move(job));
    }
    wake_.notify_all();
}

// --- The CPU's thread

kvm_run& Vcpu::run() const {
    // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the kernel maps it
    return *reinterpret_cast<kvm_run*>(run_.bytes().data());
}

// What the thread has blocked stays blocked in the guest, but for the kick.
Result<> Vcpu::prepare_thread() {
    thread_id_ = ::gettid();
    constexpr size_t kKernelMaskBytes = 8;
    sigset_t mask;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    ::sigdelset(&mask, kick_signal());
    uapi::SignalMask request(kKernelMaskBytes);
    std::memcpy(request.entries().data(), &mask, kKernelMaskBytes);
    return calls_.set(fd(), uapi::kSetSignalMask, request.data(), "ioctl(KVM_SET_SIGNAL_MASK)");
}

void Vcpu::thread_main() {
    std::unique_lock lock(mutex_);
    for (;;) {
        if (wanted_ == Wanted::End) return;
        if (!jobs_.empty()) {
            run_jobs(lock);
        } else if (wanted_ == Wanted::Run) {
            lock.unlock();
            run_until_paused();
            lock.lock();
        } else if (!parked_calls_.empty() || !parked_) {
            parked_ = true;
            std::vector<Job> calls;
            calls.swap(parked_calls_);
            lock.unlock();
            for (Job& call : calls) call();
            lock.lock();
        } else {
            wake_.wait(lock);
        }
    }
}

void Vcpu::run_jobs(std::unique_lock<std::mutex>& lock) {
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    job = nullptr;  // captured objects die outside the lock
    lock.lock();
}

void Vcpu::run_until_paused() {
    trace::kvm_vcpu_run(env_.trace, index_);
    // Tells a guest that uses kvmclock that its watchdogs need not worry about the pause; one that
    // does not is not told.
    (void)calls_.ioctl_value(fd(), KVM_KVMCLOCK_CTRL, 0, "ioctl(KVM_KVMCLOCK_CTRL)");
    while (wanted_ == Wanted::Run) {
        take_rest();
        if (enter_guest() == Step::Wait) wait_while_wanted_to_run();
    }
    complete_access();
    trace::kvm_vcpu_parked(env_.trace, index_);
}

void Vcpu::wait_while_wanted_to_run() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return wanted_ != Wanted::Run; });
}

void Vcpu::take_rest() {
    const util::Nanoseconds duration = rest_.exchange(util::Nanoseconds::zero());
    if (duration == util::Nanoseconds::zero()) return;
    std::unique_lock lock(mutex_);
    const auto until = env_.clock.now() + duration;
    while (wanted_ == Wanted::Run && env_.clock.now() < until) {
        env_.clock.wait_until(wake_, lock, until);
    }
}

Result<bool> Vcpu::kvm_run_once() {
    auto done = calls_.ioctl(fd(), KVM_RUN, nullptr, "ioctl(KVM_RUN)");
    if (done) return true;
    switch (done.error().errnum()) {
        case EINTR: consume_kicks(); return false;
        case EAGAIN: return false;  // the CPU waits for its start-up message, and was looked after
        default: return std::move(done).error();
    }
}

Vcpu::Step Vcpu::enter_guest() {
    const auto exited = kvm_run_once();
    if (!exited) return end(GuestEnd::Kind::InternalError, exited.error().message());
    return *exited ? handle_exit() : Step::GoOn;
}

Vcpu::Step Vcpu::handle_exit() {
    const kvm_run& exit = run();
    switch (exit.exit_reason) {
        case KVM_EXIT_IO: return handle_io();
        case KVM_EXIT_MMIO: return handle_mmio();
        case KVM_EXIT_INTR:
        case KVM_EXIT_IRQ_WINDOW_OPEN: return Step::GoOn;
        case KVM_EXIT_SHUTDOWN: return end(GuestEnd::Kind::TripleFault, "triple fault");
        case KVM_EXIT_SYSTEM_EVENT: return handle_system_event();
        case KVM_EXIT_DIRTY_RING_FULL: return handle_full_ring();
        case KVM_EXIT_INTERNAL_ERROR:
            return end(GuestEnd::Kind::InternalError, internal_error_text(exit));
        case KVM_EXIT_FAIL_ENTRY:
            return end(GuestEnd::Kind::InternalError,
                       fmt::format("the processor refuses to enter the guest (reason {:#x})",
                                   exit.fail_entry.hardware_entry_failure_reason));
        default:
            return end(GuestEnd::Kind::InternalError,
                       fmt::format("KVM ended the guest with unknown reason {}", exit.exit_reason));
    }
}

Vcpu::Step Vcpu::handle_io() {
    const auto& io = run().io;
    const uint64_t bytes = uint64_t{io.size} * io.count;
    const MutBytes shared = run_.bytes();
    if (io.data_offset > shared.size() || bytes > shared.size() - io.data_offset) {
        return end(GuestEnd::Kind::InternalError, "KVM's port access lies outside its structure");
    }
    Step next = Step::GoOn;
    for (uint32_t i = 0; i < io.count; ++i) {
        const MutBytes data = shared.subspan(io.data_offset + size_t{i} * io.size, io.size);
        if (io.direction == KVM_EXIT_IO_IN) {
            store_value(data, bus_.port_in(io.port, io.size));
        } else if (bus_.port_out(io.port, io.size, load_value(data)) == AfterWrite::Wait) {
            next = Step::Wait;
        }
    }
    return next;
}

Vcpu::Step Vcpu::handle_mmio() {
    auto& mmio = run().mmio;
    const MutBytes data = std::as_writable_bytes(std::span(mmio.data))
                              .first(std::min<size_t>(mmio.len, sizeof(mmio.data)));
    if (mmio.is_write == 0) {
        bus_.mmio_read(mmio.phys_addr, data);
        return Step::GoOn;
    }
    const AfterWrite after = bus_.mmio_write(mmio.phys_addr, data);
    return after == AfterWrite::Wait ? Step::Wait : Step::GoOn;
}

Vcpu::Step Vcpu::handle_system_event() {
    const uint32_t type = run().system_event.type;
    switch (type) {
        case KVM_SYSTEM_EVENT_SHUTDOWN: return end(GuestEnd::Kind::PowerOff, "power off");
        case KVM_SYSTEM_EVENT_RESET: return end(GuestEnd::Kind::Reset, "reset");
        case KVM_SYSTEM_EVENT_CRASH: return end(GuestEnd::Kind::Crash, "crash");
        default:
            return end(GuestEnd::Kind::InternalError, fmt::format("unknown event {} of KVM", type));
    }
}

// The guest cannot write another page before this is done.
Vcpu::Step Vcpu::handle_full_ring() {
    trace::kvm_dirty_ring_full(env_.trace, index_);
    if (dirty_rings_ == nullptr) {
        return end(GuestEnd::Kind::InternalError, "KVM fills a dirty ring that nobody asked for");
    }
    auto harvested = dirty_rings_->harvest(index_);
    if (harvested) return Step::GoOn;
    return end(GuestEnd::Kind::InternalError,
               "emptying the dirty ring: " + harvested.error().message());
}

Vcpu::Step Vcpu::end(GuestEnd::Kind kind, std::string text) {
    trace::kvm_guest_end(env_.trace, index_, text);
    on_end_({.kind = kind, .vcpu = index_, .text = std::move(text)});
    return Step::Wait;
}

// Instructions that access a device in several pieces exit once for each.
void Vcpu::complete_access() {
    run().immediate_exit = 1;
    for (;;) {
        const auto exited = kvm_run_once();
        if (!exited) {
            (void)end(GuestEnd::Kind::InternalError, exited.error().message());
            break;
        }
        if (!*exited) break;
        (void)handle_exit();
    }
    run().immediate_exit = 0;
}

}  // namespace ferry::kvm
