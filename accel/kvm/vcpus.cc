// SPDX-License-Identifier: BSD-2-Clause
#include "accel/kvm/vcpus.h"

#include <atomic>
#include <future>
#include <mutex>
#include <optional>

#include "util/try.h"

namespace ferry::kvm {

namespace {

constexpr uint32_t kTsc = 0x10;

// Several CPUs work on one thing; the last one to finish tells.
class Together {
 public:
    Together(size_t count, system::Done done) : count_(count), done_(std::move(done)) {}
    void one_is_done(Result<> result) {
        {
            const std::lock_guard lock(mutex_);
            if (!result && !error_) error_ = std::move(result).error();
            if (--count_ > 0) return;
        }
        if (error_) {
            done_(std::move(*error_));
        } else {
            done_({});
        }
    }

 private:
    std::mutex mutex_;
    size_t count_;                // mutex_
    std::optional<Error> error_;  // mutex_
    system::Done done_;
};

}  // namespace

Result<std::unique_ptr<Vcpus>> Vcpus::create(KvmVm& vm, Config config, Bus& bus,
                                             system::MainLoop& loop, util::Env& env, OnEnd on_end) {
    const unsigned limit = std::min(kMaxVcpus, vm.kvm().capabilities().max_vcpus);
    if (config.count == 0 || config.count > limit) {
        return make_error(ErrorKind::InvalidArgument,
                          "{} CPUs: there must be at least 1, and KVM runs at most {}",
                          config.count, limit);
    }
    std::unique_ptr<Vcpus> vcpus(new Vcpus(vm, loop, env, std::move(on_end)));
    MIG_CHECK(vcpus->create_vcpus(config, bus));
    MIG_CHECK(vcpus->read_power_on());
    return vcpus;
}

Result<> Vcpus::create_vcpus(const Config& config, Bus& bus) {
    for (unsigned i = 0; i < config.count; ++i) {
        MIG_TRY(auto vcpu, Vcpu::create(vm_, i, cpuid_of_vcpu(config.model.cpuid, i, config.count),
                                        bus, env_, [this](const GuestEnd& end) { post_end(end); }));
        vcpus_.push_back(std::move(vcpu));
    }
    features_ = feature_words(config.model.cpuid);
    return {};
}

// By this thread, before the CPUs' have anything to do.
Result<> Vcpus::read_power_on() {
    MIG_TRY(parts_, probe_parts(vm_.kvm(), vcpus_.front()->fd()), "CPU 0");
    for (const auto& vcpu : vcpus_) {
        MIG_TRY(VcpuState state, read_vcpu_state(vm_.calls(), vcpu->fd(), parts_), "CPU {}",
                vcpu->index());
        for (Msr& msr : state.msrs) {
            if (msr.index == kTsc) msr.value = 0;
        }
        power_on_.push_back(std::move(state));
    }
    return {};
}

Result<> Vcpus::set_throttle(unsigned percent) {
    constexpr unsigned kAll = 100;
    if (percent >= kAll) {
        return make_error(ErrorKind::InvalidArgument, "CPUs can't rest for {} % of their time",
                          percent);
    }
    throttle_ = {};
    if (percent == 0) return {};
    const util::Nanoseconds period = kThrottleSlice * kAll / (kAll - percent);
    throttle_ = loop_.every(period, [this, rest = period - kThrottleSlice] {
        for (const auto& vcpu : vcpus_) vcpu->rest(rest);
    });
    return {};
}

std::vector<int> Vcpus::thread_ids() const {
    std::vector<int> ids;
    for (const auto& vcpu : vcpus_) ids.push_back(vcpu->thread_id());
    return ids;
}

void Vcpus::post_end(const GuestEnd& end) {
    loop_.post([handler = std::weak_ptr(on_end_), end] {
        if (const auto alive = handler.lock()) (*alive)(end);
    });
}

void Vcpus::pause(system::Done done) {
    auto together = std::make_shared<Together>(
        vcpus_.size(),
        [this, done = std::move(done)](Result<>) mutable { all_parked(std::move(done)); });
    for (const auto& vcpu : vcpus_) {
        vcpu->pause([together] { together->one_is_done({}); });
    }
}

void Vcpus::all_parked(system::Done done) {
    if (auto frozen = vm_.freeze_clock(); !frozen) {
        env_.log.log(util::LogLevel::Warning,
                     fmt::format("the guest's clock goes on while it is stopped: {}",
                                 frozen.error().message()));
    }
    loop_.post([done = std::move(done)]() mutable { done({}); });
}

void Vcpus::resume() {
    for (const auto& block : vm_.memory().blocks()) block->mark_used();
    if (auto thawed = vm_.thaw_clock(); !thawed) {
        env_.log.log(util::LogLevel::Warning,
                     fmt::format("the guest's clock jumps: {}", thawed.error().message()));
    }
    for (const auto& vcpu : vcpus_) vcpu->resume();
}

Result<std::vector<VcpuState>> Vcpus::read_states() {
    std::vector<VcpuState> states(vcpus_.size());
    std::promise<Result<>> all;
    auto outcome = all.get_future();
    auto together = std::make_shared<Together>(
        vcpus_.size(), [&all](Result<> result) { all.set_value(std::move(result)); });
    for (size_t i = 0; i < vcpus_.size(); ++i) {
        vcpus_[i]->post([this, &states, i, together] {
            auto state = read_vcpu_state(vm_.calls(), vcpus_[i]->fd(), parts_);
            if (!state) {
                together->one_is_done(
                    std::move(state).error().context(fmt::format("CPU {}: reading its state", i)));
                return;
            }
            states[i] = std::move(*state);
            together->one_is_done({});
        });
    }
    MIG_CHECK(outcome.get());
    return states;
}

void Vcpus::write_states(std::vector<VcpuState> states, system::Done done) {
    if (states.size() != vcpus_.size()) {
        return done(make_error(ErrorKind::InvalidArgument,
                               "the state of {} CPUs for a VM that has {}", states.size(),
                               vcpus_.size()));
    }
    auto together = std::make_shared<Together>(vcpus_.size(), std::move(done));
    for (size_t i = 0; i < vcpus_.size(); ++i) {
        vcpus_[i]->post([this, i, state = std::move(states[i]), together] {
            auto written = write_vcpu_state(vm_.calls(), vcpus_[i]->fd(), parts_, state);
            together->one_is_done(written ? Result<>()
                                          : std::move(written).error().context(
                                                fmt::format("CPU {}: setting its state", i)));
        });
    }
}

void Vcpus::reset(const std::function<void(VcpuState& boot_cpu)>& entry, system::Done done) {
    std::vector<VcpuState> states = power_on_;
    entry(states.front());
    write_states(std::move(states), [this, done = std::move(done)](Result<> result) mutable {
        done(result ? vm_.reset() : std::move(result));
    });
}

}  // namespace ferry::kvm
