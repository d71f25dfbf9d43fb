// SPDX-License-Identifier: BSD-2-Clause
// Messages of a device and their eventfds, as the kernel is asked for them.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "accel/kvm/irq-routes.h"
#include "tests/unit/accel/kvm/fake-calls.h"

namespace ferry::test {
namespace {

using kvm::Gsi;
using kvm::MsiMessage;
using Wanted = std::vector<std::optional<system::MsiRoutes::Vector>>;

// A kernel that knows its routes and which eventfd is attached to which.
class KvmIrqRoutes : public testing::Test {
 protected:
    KvmIrqRoutes() {
        capabilities_.irq_routing = true;
        calls_.answers[kvm::uapi::kSetGsiRouting] = [this](void* argument) -> Result<int> {
            ++tables_;
            if (fail_table_) return make_errno(ENOMEM, "ioctl(KVM_SET_GSI_ROUTING)");
            table_.clear();
            const auto* header = static_cast<const kvm::uapi::PaddedCountHeader*>(argument);
            const auto* entry = reinterpret_cast<const kvm_irq_routing_entry*>(header + 1);
            for (uint32_t i = 0; i < header->count; ++i, ++entry) {
                if (entry->type != KVM_IRQ_ROUTING_MSI) continue;
                table_[entry->gsi] = {
                    .address = uint64_t{entry->u.msi.address_hi} << 32 | entry->u.msi.address_lo,
                    .data = entry->u.msi.data};
            }
            return 0;
        };
        calls_.answers[KVM_IRQFD] = [this](void* argument) -> Result<int> {
            const auto* request = static_cast<const kvm_irqfd*>(argument);
            if ((request->flags & KVM_IRQFD_FLAG_DEASSIGN) != 0) {
                EXPECT_EQ(attached_.erase(request->gsi), 1u);
                return 0;
            }
            if (fail_gsi_ == request->gsi) return make_errno(EBUSY, "ioctl(KVM_IRQFD)");
            EXPECT_TRUE(table_.contains(request->gsi)) << "an interrupt without a route";
            EXPECT_TRUE(attached_.insert(request->gsi).second);
            return 0;
        };
    }

    static std::optional<system::MsiRoutes::Vector> vector(MsiMessage message) {
        return system::MsiRoutes::Vector{
            .event = std::make_shared<util::EventFd>(util::EventFd::create().value()),
            .message = message};
    }
    std::set<Gsi> routed() const {
        std::set<Gsi> gsis;
        for (const auto& [gsi, message] : table_) gsis.insert(gsi);
        return gsis;
    }

    FakeCalls calls_;
    kvm::Capabilities capabilities_;
    kvm::Interrupts interrupts_{calls_, capabilities_, BorrowedFd(-1)};
    std::map<Gsi, MsiMessage> table_;
    std::set<Gsi> attached_;
    size_t tables_ = 0;
    bool fail_table_ = false;
    std::optional<Gsi> fail_gsi_;
};

constexpr MsiMessage kOne{0xfee00000, 0x41};
constexpr MsiMessage kTwo{0xfee01000, 0x42};
constexpr Gsi kFirst = kvm::kIoApicPins;

TEST_F(KvmIrqRoutes, WithoutRoutesOfTheHostNothingIsConnected) {
    capabilities_.irq_routing = false;
    kvm::KvmMsiRoutes routes(interrupts_);
    const auto connected = routes.connect(Wanted{vector(kOne)});
    ASSERT_FALSE(connected);
    EXPECT_EQ(connected.error().kind(), ErrorKind::Unsupported);
    EXPECT_TRUE(calls_.asked.empty());
}

TEST_F(KvmIrqRoutes, ATableThatCannotBeSetConnectsNothing) {
    fail_table_ = true;
    {
        kvm::KvmMsiRoutes routes(interrupts_);
        const auto connected = routes.connect(Wanted{vector(kOne)});
        ASSERT_FALSE(connected);
        EXPECT_EQ(connected.error().errnum(), ENOMEM);
        EXPECT_TRUE(attached_.empty());
        fail_table_ = false;
        EXPECT_TRUE(routes.connect(Wanted{vector(kOne)}));
        EXPECT_EQ(attached_, (std::set{kFirst}));
    }
    EXPECT_TRUE(attached_.empty() && table_.empty());
}

TEST_F(KvmIrqRoutes, AnIrqfdThatIsRefusedIsNamedAndTheOthersStay) {
    fail_gsi_ = kFirst + 1;
    kvm::KvmMsiRoutes routes(interrupts_);
    const Wanted wanted{vector(kOne), vector(kTwo)};
    const auto connected = routes.connect(wanted);
    ASSERT_FALSE(connected);
    EXPECT_EQ(connected.error().errnum(), EBUSY);
    EXPECT_NE(connected.error().message().find("vector 1"), std::string::npos);
    EXPECT_EQ(attached_, (std::set{kFirst}));
    wanted[1]->event->signal();
    fail_gsi_.reset();
    EXPECT_TRUE(routes.connect(wanted));
    EXPECT_EQ(attached_, (std::set{kFirst, kFirst + 1}));
    EXPECT_EQ(wanted[1]->event->consume(), 0u) << "the kernel sends it; nobody else may";
}

TEST_F(KvmIrqRoutes, AMessageThatCannotBeChangedIsNotSentInItsOldForm) {
    kvm::KvmMsiRoutes routes(interrupts_);
    Wanted wanted{vector(kOne), vector(kTwo)};
    ASSERT_TRUE(routes.connect(wanted));
    fail_table_ = true;
    wanted[0]->message.data = 0x55;
    EXPECT_FALSE(routes.connect(wanted));
    EXPECT_EQ(attached_, (std::set{kFirst + 1}));
    fail_table_ = false;
    EXPECT_TRUE(routes.connect(wanted));
    EXPECT_EQ(attached_.size(), 2u);
    EXPECT_EQ(table_[kFirst].data, 0x55u);
}

TEST_F(KvmIrqRoutes, RoutesThatCannotBeGivenBackAreUsedAgain) {
    kvm::KvmMsiRoutes routes(interrupts_);
    ASSERT_TRUE(routes.connect(Wanted{vector(kOne)}));
    fail_table_ = true;
    EXPECT_FALSE(routes.connect({}));
    EXPECT_TRUE(attached_.empty());
    fail_table_ = false;
    ASSERT_TRUE(routes.connect(Wanted{vector(kOne)}));
    EXPECT_EQ(routed(), (std::set{kFirst}));
    EXPECT_EQ(attached_, (std::set{kFirst}));
}

TEST_F(KvmIrqRoutes, AllVectorsTakeOneTable) {
    kvm::KvmMsiRoutes routes(interrupts_);
    Wanted wanted;
    for (uint32_t i = 0; i < 64; ++i) wanted.push_back(vector({0xfee00000, i}));
    ASSERT_TRUE(routes.connect(wanted));
    EXPECT_EQ(tables_, 1u);
    EXPECT_EQ(attached_.size(), 64u);
    EXPECT_EQ(table_[kFirst + 63].data, 63u);
}

TEST_F(KvmIrqRoutes, MaskingKeepsTheRouteAndChangingTheMessageTheIrqfd) {
    kvm::KvmMsiRoutes routes(interrupts_);
    Wanted wanted{vector(kOne), vector(kTwo)};
    ASSERT_TRUE(routes.connect(wanted));
    const auto masked = std::exchange(wanted[0], std::nullopt);
    ASSERT_TRUE(routes.connect(wanted));
    EXPECT_EQ(attached_, (std::set{kFirst + 1}));
    EXPECT_EQ(tables_, 1u);
    wanted[0] = masked;
    ASSERT_TRUE(routes.connect(wanted));
    EXPECT_EQ(attached_.size(), 2u);
    EXPECT_EQ(tables_, 1u);
    const size_t before = calls_.asked.size();
    wanted[1]->message = kOne;
    ASSERT_TRUE(routes.connect(wanted));
    EXPECT_EQ(calls_.asked.size(), before + 1);
    EXPECT_EQ(table_[kFirst + 1], kOne);
}

TEST_F(KvmIrqRoutes, AMessageIntoMemoryIsNoInterrupt) {
    kvm::KvmMsiRoutes routes(interrupts_);
    const Wanted wanted{vector({0x20000, 1}), vector({0x1'fee0'0000, 1}), vector({0xfef00000, 1})};
    wanted[0]->event->signal();
    ASSERT_TRUE(routes.connect(wanted));
    EXPECT_TRUE(attached_.empty() && table_.empty());
    EXPECT_EQ(wanted[0]->event->consume(), 1u);
}

TEST_F(KvmIrqRoutes, DevicesDoNotShareRoutesAndGiveThemBack) {
    auto one = std::make_unique<kvm::KvmMsiRoutes>(interrupts_);
    kvm::KvmMsiRoutes two(interrupts_);
    ASSERT_TRUE(one->connect(Wanted{vector(kOne)}));
    ASSERT_TRUE(two.connect(Wanted{vector(kOne)}));
    EXPECT_EQ(routed(), (std::set{kFirst, kFirst + 1}));
    one.reset();
    EXPECT_EQ(routed(), (std::set{kFirst + 1}));
    EXPECT_EQ(attached_, (std::set{kFirst + 1}));
}

TEST_F(KvmIrqRoutes, MoreThanTheTableHoldsAreRefused) {
    kvm::KvmMsiRoutes routes(interrupts_);
    const auto event = vector(kOne);
    const Wanted wanted(kvm::kMaxRoutes, event);
    const auto connected = routes.connect(wanted);
    ASSERT_FALSE(connected);
    EXPECT_EQ(connected.error().kind(), ErrorKind::LimitExceeded);
    EXPECT_TRUE(attached_.empty());
}

class KvmInputs : public KvmIrqRoutes {
 protected:
    KvmInputs() {
        calls_.answers[KVM_IRQFD] = [this](void* argument) -> Result<int> {
            requests_.push_back(*static_cast<const kvm_irqfd*>(argument));
            return 0;
        };
    }
    kvm::KvmInterruptRoutes routes_{interrupts_};
    const util::EventFd event_ = util::EventFd::create().value();
    const util::EventFd acknowledged_ = util::EventFd::create().value();
    std::vector<kvm_irqfd> requests_;
};

TEST_F(KvmInputs, AHostThatCannotTellOfAcknowledgementsIsNotAsked) {
    const auto connected = routes_.connect_input(11, event_, acknowledged_);
    ASSERT_FALSE(connected);
    EXPECT_EQ(connected.error().kind(), ErrorKind::Unsupported);
    EXPECT_TRUE(requests_.empty());
}

TEST_F(KvmInputs, AFailingRequestNamesTheInput) {
    capabilities_.irqfd_resample = true;
    calls_.fail_at = 1;
    const auto connected = routes_.connect_input(11, event_, acknowledged_);
    ASSERT_FALSE(connected);
    EXPECT_NE(connected.error().message().find("interrupt 11"), std::string::npos);
}

TEST_F(KvmInputs, IsAttachedWithBothEventfdsAndDetached) {
    capabilities_.irqfd_resample = true;
    auto connected = routes_.connect_input(11, event_, acknowledged_);
    ASSERT_TRUE(connected);
    ASSERT_EQ(requests_.size(), 1u);
    EXPECT_EQ(requests_[0].gsi, 11u);
    EXPECT_EQ(requests_[0].flags, uint32_t{KVM_IRQFD_FLAG_RESAMPLE});
    EXPECT_EQ(requests_[0].resamplefd, static_cast<uint32_t>(acknowledged_.fd().raw()));
    connected->reset();
    ASSERT_EQ(requests_.size(), 2u);
    EXPECT_EQ(requests_[1].flags, uint32_t{KVM_IRQFD_FLAG_DEASSIGN});
}

}  // namespace
}  // namespace ferry::test
