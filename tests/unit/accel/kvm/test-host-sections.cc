// SPDX-License-Identifier: BSD-2-Clause
// The sections of a stream carry a VM of KVM from one process's registry to another one's.
#include <algorithm>
#include <array>
#include <future>

#include "migration/savevm.h"
#include "system/vmm/kvm-state.h"
#include "tests/unit/accel/kvm/host-guest.h"

namespace ferry::test {
namespace {

// again: inc %esi; mov %esi,%eax; mov $0x10,%dx; out %eax,%dx; in $0xe0,%al; add %al,%bl; jmp again
constexpr std::array<uint8_t, 16> kCount{0x66, 0x46, 0x66, 0x89, 0xf0, 0xba, 0x10, 0x00,
                                         0x66, 0xef, 0xe4, 0xe0, 0x00, 0xc3, 0xeb, 0xf0};
const migration::StreamIdentity kIdentity{.machine_name = "test"};

struct NoEvents final : migration::LoadEvents {
    Result<> open_return_path() override { return {}; }
    Result<> ping(uint32_t) override { return {}; }
    Result<> switchover_start() override { return {}; }
    Result<> first_section() override { return {}; }
};

class Side {
 public:
    explicit Side(const kvm::Kvm& kvm, unsigned cpus = 1, std::string_view model = "host")
        : guest(kvm, kCount, cpus, model), registry_(guest.loop) {
        guest.loop.run(
            [&] { state_ = vmm::KvmState::create(*guest.vm, *guest.vcpus, registry_).value(); });
    }
    ~Side() {
        guest.loop.run([&] { state_.reset(); });
    }

    std::vector<std::byte> save() {
        migration::MemorySink sink;
        migration::SaveStream out(sink);
        const auto saved = migration::save_one_shot_states(out, registry_, kIdentity);
        EXPECT_TRUE(saved) << saved.error().message();
        migration::save_end(out);
        migration::save_description(out, registry_, saved.value_or(""));
        EXPECT_TRUE(out.flush());
        return sink.take();
    }
    Result<> load(ConstBytes stream) {
        migration::MemorySource source(stream);
        migration::LoadStream in(source);
        NoEvents events;
        if (auto read = migration::load_elements(in, registry_, events); !read) return read;
        for (const auto& entry : registry_.entries()) {
            std::promise<Result<>> done;
            entry->handlers->load_validate(
                [&](Result<> result) { done.set_value(std::move(result)); });
            if (auto result = done.get_future().get(); !result) return result;
        }
        return {};
    }

    HostGuest guest;

 private:
    migration::SaveVMRegistry registry_;
    std::unique_ptr<vmm::KvmState> state_;
};

void run_for(Side& side, size_t values) {
    side.guest.resume();
    ASSERT_TRUE(side.guest.bus.wait_for(values));
    ASSERT_TRUE(side.guest.pause());
}

TEST_F(HostKvm, SectionsCarryTheGuestOn) {
    Side source(*kvm_, 2), destination(*kvm_, 2);
    run_for(source, 100);
    const auto loaded = destination.load(source.save());
    ASSERT_TRUE(loaded) << loaded.error().message();
    const auto before = source.guest.bus.said();
    run_for(destination, 100);
    EXPECT_EQ(destination.guest.bus.said().front(), before.back() + 1);
}

// A failed attempt changes nothing: the source goes on, and can be saved again.
TEST_F(HostKvm, TheSourceGoesOnAfterItWasSaved) {
    Side source(*kvm_);
    run_for(source, 10);
    (void)source.save();
    run_for(source, source.guest.bus.said().size() + 10);
    (void)source.save();
    const auto said = source.guest.bus.said();
    for (size_t i = 0; i < said.size(); ++i) ASSERT_EQ(said[i], i + 1);
}

TEST_F(HostKvm, ADestinationWithFewerCpusRefuses) {
    Side source(*kvm_, 2), destination(*kvm_, 1);
    const auto loaded = destination.load(source.save());
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message().find("ferry-vcpu"), std::string::npos)
        << loaded.error().message();
}

TEST_F(HostKvm, ADestinationWithMoreCpusRefuses) {
    Side source(*kvm_, 1), destination(*kvm_, 2);
    const auto loaded = destination.load(source.save());
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message().find("-smp"), std::string::npos) << loaded.error().message();
}

TEST_F(HostKvm, ADestinationWhoseCpuLacksAFeatureNamesIt) {
    const auto missing = kvm::missing_features(
        kvm::feature_words(kvm_->supported_cpuid()),
        kvm::feature_words(kvm::cpu_model("qemu32", kvm_->supported_cpuid()).value().cpuid));
    if (std::ranges::find(missing, "lm") == missing.end()) GTEST_SKIP() << "a 32-bit host";
    Side source(*kvm_), destination(*kvm_, 1, "qemu32");
    const auto loaded = destination.load(source.save());
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message().find("lm"), std::string::npos) << loaded.error().message();
    EXPECT_NE(loaded.error().message().find("-cpu"), std::string::npos);
}

}  // namespace
}  // namespace ferry::test
