// SPDX-License-Identifier: BSD-2-Clause
// The guest's CPUs together: how the VM stops and starts, and their state.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "accel/kvm/bus.h"
#include "accel/kvm/cpuid.h"
#include "accel/kvm/vcpu.h"
#include "accel/kvm/vm.h"
#include "system/main-loop.h"
#include "system/runstate.h"
#include "util/env.h"

namespace ferry::kvm {

inline constexpr unsigned kMaxVcpus = 254;  // an APIC's number has 8 bits, and 255 means all

// Main loop thread unless a method says otherwise. Created with all CPUs as after power-on, parked.
class Vcpus final : public system::VcpuControl {
 public:
    // Called on the main loop, once per end; the CPU waits meanwhile.
    using OnEnd = std::function<void(const GuestEnd& end)>;
    struct Config {
        unsigned count = 1;
        CpuModel model;
    };
    // All but the config are borrowed for the object's life. InvalidArgument for a count that the
    // host does not allow.
    static Result<std::unique_ptr<Vcpus>> create(KvmVm& vm, Config config, Bus& bus,
                                                 system::MainLoop& loop, util::Env& env,
                                                 OnEnd on_end);
    ~Vcpus() override = default;  // a pause that is under way is not answered any more
    Vcpus(const Vcpus&) = delete;
    Vcpus& operator=(const Vcpus&) = delete;

    // `done` on the main loop, once no CPU executes anything; the guest's clock stands still too.
    void pause(system::Done done) override;
    void resume() override;
    // Over each 10 ms that a CPU runs it then rests for as long as makes the percentage.
    static constexpr util::Nanoseconds kThrottleSlice = std::chrono::milliseconds(10);
    Result<> set_throttle(unsigned percent) override;

    unsigned count() const { return static_cast<unsigned>(vcpus_.size()); }
    std::vector<int> thread_ids() const;  // the kernel's, by CPU
    const VcpuParts& parts() const { return parts_; }
    const std::vector<FeatureWord>& features() const { return features_; }

    // While paused. Waits for the CPUs' threads, which read all at the same time: any thread but
    // theirs and the main loop.
    Result<std::vector<VcpuState>> read_states();
    // While paused. One state per CPU; `done` on some CPU's thread, with the first error.
    void write_states(std::vector<VcpuState> states, system::Done done);
    // While paused: CPUs, controllers and PIT as after power-on, and then `entry` decides where the
    // first CPU begins. `done` on some CPU's thread.
    void reset(const std::function<void(VcpuState& boot_cpu)>& entry, system::Done done);

 private:
    Vcpus(KvmVm& vm, system::MainLoop& loop, util::Env& env, OnEnd on_end)
        : vm_(vm), loop_(loop), env_(env), on_end_(std::make_shared<OnEnd>(std::move(on_end))) {}
    Result<> create_vcpus(const Config& config, Bus& bus);
    Result<> read_power_on();
    void post_end(const GuestEnd& end);
    void all_parked(system::Done done);

    KvmVm& vm_;
    system::MainLoop& loop_;
    util::Env& env_;
    // The posted calls hold it weakly: they may come after the CPUs are gone.
    std::shared_ptr<OnEnd> on_end_;
    VcpuParts parts_;
    std::vector<FeatureWord> features_;
    std::vector<VcpuState> power_on_;
    std::vector<std::unique_ptr<Vcpu>> vcpus_;  // after what their threads use
    util::Registration throttle_;               // the timer that makes them rest
};

}  // namespace ferry::kvm
