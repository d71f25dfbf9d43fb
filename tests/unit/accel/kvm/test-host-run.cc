// SPDX-License-Identifier: BSD-2-Clause
// A guest of a few instructions on the host's KVM: exits, stopping, ends.
#include <poll.h>

#include <array>

#include "accel/kvm/irq-routes.h"
#include "tests/unit/accel/kvm/host-guest.h"

namespace ferry::test {
namespace {

// again: inc %esi; mov %esi,%eax; mov $0x10,%dx; out %eax,%dx; in $0xe0,%al; add %al,%bl; jmp again
constexpr std::array<uint8_t, 16> kCount{0x66, 0x46, 0x66, 0x89, 0xf0, 0xba, 0x10, 0x00,
                                         0x66, 0xef, 0xe4, 0xe0, 0x00, 0xc3, 0xeb, 0xf0};

TEST_F(HostKvm, PortAccessesReachTheBusInOrder) {
    HostGuest guest(*kvm_, kCount);
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(100));
    ASSERT_TRUE(guest.pause());
    const auto said = guest.bus.said();
    for (size_t i = 0; i < said.size(); ++i) ASSERT_EQ(said[i], i + 1);
    EXPECT_TRUE(guest.ends.empty());
}

TEST_F(HostKvm, APausedGuestHasCompletedItsLastAccess) {
    HostGuest guest(*kvm_, kCount);
    for (int round = 1; round <= 50; ++round) {
        guest.resume();
        ASSERT_TRUE(guest.bus.wait_for(guest.bus.said().size() + 3));
        ASSERT_TRUE(guest.pause());
        const auto states = guest.vcpus->read_states();
        ASSERT_TRUE(states) << states.error().message();
        const kvm_regs& regs = states->front().regs;
        // What it has said is behind it, and each value that it read was added up.
        const bool about_to_say = regs.rip > kGuestCodeAt && regs.rip <= kGuestCodeAt + 8;
        EXPECT_EQ(guest.bus.said().size(), regs.rsi - (about_to_say ? 1 : 0));
        const bool about_to_add = regs.rip > kGuestCodeAt && regs.rip <= kGuestCodeAt + 12;
        EXPECT_EQ(regs.rbx & 0xff, (regs.rsi - (about_to_add ? 1 : 0)) & 0xff);
    }
}

TEST_F(HostKvm, NothingRunsWhilePaused) {
    HostGuest guest(*kvm_, kCount);
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(10));
    ASSERT_TRUE(guest.pause());
    const auto before = guest.bus.said().size();
    const auto first = guest.vcpus->read_states();
    const auto second = guest.vcpus->read_states();
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->front().regs.rip, second->front().regs.rip);
    EXPECT_EQ(guest.bus.said().size(), before);
}

TEST_F(HostKvm, PauseBeforeTheFirstInstructionAndPauseTwice) {
    HostGuest guest(*kvm_, kCount);
    ASSERT_TRUE(guest.pause());
    for (int round = 0; round < 200; ++round) {
        guest.resume();
        ASSERT_TRUE(guest.pause());
        ASSERT_TRUE(guest.pause());
    }
    const auto said = guest.bus.said();
    for (size_t i = 0; i < said.size(); ++i) ASSERT_EQ(said[i], i + 1);
}

TEST_F(HostKvm, AGuestThatNeverExitsIsStopped) {
    constexpr std::array<uint8_t, 4> kSpin{0xe6, 0x10, 0xeb, 0xfe};  // out %al,$0x10; jmp .
    HostGuest guest(*kvm_, kSpin);
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(1));
    ASSERT_TRUE(guest.pause());
    const auto states = guest.vcpus->read_states();
    ASSERT_TRUE(states);
    EXPECT_EQ(states->front().regs.rip, kGuestCodeAt + 2U);
}

// xor %ax,%ax; mov %ax,%ds; movw $0x1100,0x100; movw $0,0x102; sti; again: hlt; jmp again
constexpr std::array<uint8_t, 20> kHalt{0x31, 0xc0, 0x8e, 0xd8, 0xc7, 0x06, 0x00, 0x01, 0x00, 0x11,
                                        0xc7, 0x06, 0x02, 0x01, 0x00, 0x00, 0xfb, 0xf4, 0xeb, 0xfd};
// out %al,$0x10; movl $0,%es:0xb0 (end of interrupt); iret
constexpr std::array<uint8_t, 13> kHandler{0xe6, 0x10, 0x66, 0x26, 0xc7, 0x06, 0xb0,
                                           0x00, 0x00, 0x00, 0x00, 0x00, 0xcf};
constexpr uint32_t kVector = 0x40;

// A CPU that halts, and says something at each interrupt kVector.
void prepare_to_halt(HostGuest& guest) {
    constexpr size_t kSpuriousVector = 0xf0;  // register of the local APIC
    std::ranges::copy(std::as_bytes(std::span(kHandler)), &guest.ram(0x1100));
    ASSERT_TRUE(guest.reset([](kvm::VcpuState& boot) {
        boot.regs.rsp = 0x800;
        boot.sregs.es.base = 0xfee00000;
        boot.lapic->regs[kSpuriousVector] = static_cast<char>(0xff);
        boot.lapic->regs[kSpuriousVector + 1] = 1;  // the APIC is enabled
    }));
}

TEST_F(HostKvm, AHaltedGuestIsStoppedAndWokenByAMessage) {
    HostGuest guest(*kvm_, kHalt);
    prepare_to_halt(guest);
    guest.resume();
    ASSERT_TRUE(guest.pause());
    const auto accepted = guest.vm->interrupts().signal_msi({0xfee00000, kVector});
    ASSERT_TRUE(accepted) << accepted.error().message();
    EXPECT_TRUE(*accepted);
    guest.resume();
    EXPECT_TRUE(guest.bus.wait_for(1));
    ASSERT_TRUE(guest.pause());
}

TEST_F(HostKvm, EachSignalOfADeviceIsOneInterrupt) {
    HostGuest guest(*kvm_, kHalt);
    prepare_to_halt(guest);
    kvm::KvmMsiRoutes routes(guest.vm->interrupts());
    std::vector<std::optional<system::MsiRoutes::Vector>> wanted(1);
    const auto event = std::make_shared<util::EventFd>(util::EventFd::create().value());
    wanted[0] = {.event = event, .message = {0xfee00000, kVector}};
    event->signal();  // before anybody listens
    auto connected = routes.connect(wanted);
    ASSERT_TRUE(connected) << connected.error().message();
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(1));
    for (size_t round = 2; round < 20; ++round) {
        event->signal();
        ASSERT_TRUE(guest.bus.wait_for(round));
    }
    ASSERT_TRUE(guest.pause());
    wanted[0].reset();
    ASSERT_TRUE(routes.connect(wanted));
    event->signal();  // masked: it stays where it is
    EXPECT_EQ(event->consume(), 1U);
    guest.resume();
    ASSERT_TRUE(guest.pause());
    EXPECT_EQ(guest.bus.said().size(), 19U);
}

TEST_F(HostKvm, AnInputStaysHighUntilTheGuestAcknowledgesIt) {
    // Both PICs set up, IRQ 10 level-triggered and its vector 0x72 aimed at 0x1100;
    // out %al,$0x10; sti; again: hlt; jmp again
    constexpr std::array<uint8_t, 62> kPics{
        0x31, 0xc0, 0x8e, 0xd8, 0xc7, 0x06, 0xc8, 0x01, 0x00, 0x11, 0xc7, 0x06, 0xca,
        0x01, 0x00, 0x00, 0xb0, 0x11, 0xe6, 0x20, 0xe6, 0xa0, 0xb0, 0x08, 0xe6, 0x21,
        0xb0, 0x70, 0xe6, 0xa1, 0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x02, 0xe6, 0xa1, 0xb0,
        0x01, 0xe6, 0x21, 0xe6, 0xa1, 0x30, 0xc0, 0xe6, 0x21, 0xe6, 0xa1, 0xba, 0xd1,
        0x04, 0xb0, 0x0c, 0xee, 0xe6, 0x10, 0xfb, 0xf4, 0xeb, 0xfd};
    // out %al,$0x10; end of interrupt to both; iret
    constexpr std::array<uint8_t, 9> kHandle{0xe6, 0x10, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0xcf};
    constexpr unsigned kInput = 10;
    if (!kvm_->capabilities().irqfd_resample) GTEST_SKIP() << "no KVM_CAP_IRQFD_RESAMPLE";
    HostGuest guest(*kvm_, kPics);
    std::ranges::copy(std::as_bytes(std::span(kHandle)), &guest.ram(0x1100));
    ASSERT_TRUE(guest.reset([](kvm::VcpuState& boot) { boot.regs.rsp = 0x800; }));
    kvm::KvmInterruptRoutes routes(guest.vm->interrupts());
    const auto event = util::EventFd::create().value();
    const auto acknowledged = util::EventFd::create().value();
    auto connected = routes.connect_input(kInput, event, acknowledged);
    ASSERT_TRUE(connected) << connected.error().message();
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(1));  // the PICs know what they are to do
    for (size_t round = 1; round < 10; ++round) {
        event.signal();
        ASSERT_TRUE(guest.bus.wait_for(round + 1));
        pollfd seen{.fd = acknowledged.fd().raw(), .events = POLLIN, .revents = 0};
        constexpr int kPatienceMs = 60'000;
        ASSERT_EQ(::poll(&seen, 1, kPatienceMs), 1) << round;
        acknowledged.consume();
    }
    ASSERT_TRUE(guest.pause());
    EXPECT_EQ(guest.bus.said().size(), 10U);
}

TEST_F(HostKvm, StringInputAndMemoryMappedAccessesReachTheBus) {
    // mov $0x500,%di; mov $8,%cx; mov $0x30,%dx; rep insb; mov $0xa000,%ax; mov %ax,%ds;
    // mov 0x10,%al; movw $0x1234,0x20; out %al,$0x10; jmp .
    constexpr std::array<uint8_t, 29> kAccesses{
        0xbf, 0x00, 0x05, 0xb9, 0x08, 0x00, 0xba, 0x30, 0x00, 0xf3, 0x6c, 0xb8, 0x00, 0xa0, 0x8e,
        0xd8, 0xa0, 0x10, 0x00, 0xc7, 0x06, 0x20, 0x00, 0x34, 0x12, 0xe6, 0x10, 0xeb, 0xfe};
    HostGuest guest(*kvm_, kAccesses);
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(1));
    ASSERT_TRUE(guest.pause());
    for (uint8_t i = 0; i < 8; ++i) EXPECT_EQ(guest.ram(0x500 + i), std::byte(i + 1));
    EXPECT_EQ(guest.bus.said().front() & 0xff, 0x5aU);
    const auto writes = guest.bus.mmio_writes();
    ASSERT_EQ(writes.size(), 1U);
    EXPECT_EQ(writes[0].gpa, 0xa0020U);
    EXPECT_EQ(writes[0].bytes, (std::vector{std::byte{0x34}, std::byte{0x12}}));
}

TEST_F(HostKvm, AWriteThatSaysWaitIsTheLastThingUntilResumed) {
    // again: inc %al; out %al,$0x12; jmp again
    constexpr std::array<uint8_t, 6> kAsk{0xfe, 0xc0, 0xe6, 0x12, 0xeb, 0xfa};
    HostGuest guest(*kvm_, kAsk);
    for (uint32_t round = 1; round <= 5; ++round) {
        guest.resume();
        ASSERT_TRUE(guest.bus.wait_for(round));
        ASSERT_TRUE(guest.pause());
        EXPECT_EQ(guest.bus.said().size(), round);
        EXPECT_EQ(guest.bus.said().back() & 0xff, round);
    }
}

TEST_F(HostKvm, ATripleFaultIsReportedAndAResetStartsAnew) {
    // In protected mode, where the selector does not exist and there is no interrupt table:
    // out %al,$0x10; mov $0x18,%eax; mov %eax,%ds
    constexpr std::array<uint8_t, 9> kFault{0xe6, 0x10, 0xb8, 0x18, 0x00, 0x00, 0x00, 0x8e, 0xd8};
    HostGuest guest(*kvm_, kFault);
    const auto enter = [](kvm::VcpuState& boot) {
        kvm::enter_flat_mode(boot.regs, boot.sregs, {.eip = kGuestCodeAt});
        boot.sregs.gdt = boot.sregs.idt = {};
    };
    ASSERT_TRUE(guest.reset(enter));
    guest.resume();
    ASSERT_TRUE(guest.wait_for_ends(1));
    guest.loop.run([&] {
        EXPECT_EQ(guest.ends[0].kind, kvm::GuestEnd::Kind::TripleFault) << guest.ends[0].text;
        EXPECT_EQ(guest.ends[0].vcpu, 0U);
    });
    ASSERT_TRUE(guest.pause());
    ASSERT_TRUE(guest.reset(enter));
    guest.resume();
    ASSERT_TRUE(guest.wait_for_ends(2));
    EXPECT_EQ(guest.bus.said().size(), 2U);
}

TEST_F(HostKvm, DestructionStopsARunningGuest) {
    for (int round = 0; round < 10; ++round) {
        HostGuest guest(*kvm_, kCount);
        guest.resume();
        ASSERT_TRUE(guest.bus.wait_for(1));
    }
}

TEST_F(HostKvm, OtherCpusWaitForTheirStartUpMessage) {
    HostGuest guest(*kvm_, kCount, 2);
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(50));
    ASSERT_TRUE(guest.pause());
    const auto states = guest.vcpus->read_states();
    ASSERT_TRUE(states);
    ASSERT_EQ(states->size(), 2U);
    EXPECT_EQ((*states)[0].mp_state, uint32_t{KVM_MP_STATE_RUNNABLE});
    EXPECT_EQ((*states)[1].mp_state, uint32_t{KVM_MP_STATE_UNINITIALIZED});
}

TEST_F(HostKvm, AnEventFdRaisesAnInterruptAndAPortWriteSignalsOne) {
    // out %al,$0x50; out %al,$0x10; jmp .
    constexpr std::array<uint8_t, 6> kWrite{0xe6, 0x50, 0xe6, 0x10, 0xeb, 0xfe};
    HostGuest guest(*kvm_, kWrite);
    auto line = util::EventFd::create().value();
    auto port = util::EventFd::create().value();
    kvm::Interrupts& interrupts = guest.vm->interrupts();
    const kvm::MsiMessage message{0xfee00000, 0x41};
    const auto gsis = interrupts.add_messages(std::span(&message, 1));
    ASSERT_TRUE(gsis) << gsis.error().message();
    auto irqfd = interrupts.attach_irqfd(line.fd(), gsis->front());
    ASSERT_TRUE(irqfd) << irqfd.error().message();
    const kvm::Interrupts::MessageChange change{gsis->front(), kvm::MsiMessage{0xfee00000, 0x42}};
    ASSERT_TRUE(interrupts.change_messages(std::span(&change, 1)));
    auto ioeventfd = interrupts.attach_ioeventfd(
        port.fd(), {.space = kvm::IoSpace::Port, .address = 0x50, .length = 1});
    ASSERT_TRUE(ioeventfd) << ioeventfd.error().message();
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(1));
    ASSERT_TRUE(guest.pause());
    EXPECT_EQ(port.consume(), 1U);
    EXPECT_EQ(guest.bus.said().size(), 1U);  // the first write did not come to the bus
}

TEST_F(HostKvm, MemoryOfADeviceIsMappedAndUnmapped) {
    // mov $0xa000,%ax; mov %ax,%ds; again: mov 0x10,%al; out %al,$0x12; jmp again
    constexpr std::array<uint8_t, 12> kLook{0xb8, 0x00, 0xa0, 0x8e, 0xd8, 0xa0,
                                            0x10, 0x00, 0xe6, 0x12, 0xeb, 0xf9};
    HostGuest guest(*kvm_, kLook);
    auto bar = system::RamBlock::create_memfd("bar", system::kPageSize).value();
    bar->host()[0x10] = std::byte{0x77};
    auto mapped = guest.vm->map_device_memory(0xa0000, bar->host());
    ASSERT_TRUE(mapped) << mapped.error().message();
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(1));
    ASSERT_TRUE(guest.pause());
    EXPECT_EQ(guest.bus.said().back() & 0xff, 0x77U);
    mapped->reset();
    guest.resume();
    ASSERT_TRUE(guest.bus.wait_for(2));
    ASSERT_TRUE(guest.pause());
    EXPECT_EQ(guest.bus.said().back() & 0xff, 0x5aU);
}

TEST_F(HostKvm, MemoryOfADeviceIsRefusedWhereRamIsAndItsSlotIsFreeAgain) {
    HostGuest guest(*kvm_, kCount);
    auto bar = system::RamBlock::create_memfd("bar", system::kPageSize).value();
    for (int i = 0; i < 3; ++i) {
        const auto over_ram = guest.vm->map_device_memory(0x1000, bar->host());
        ASSERT_FALSE(over_ram);
        EXPECT_NE(over_ram.error().message().find("memory slot 1,"), std::string::npos)
            << over_ram.error().message();
    }
    auto beside = guest.vm->map_device_memory(0xa0000, bar->host());
    EXPECT_TRUE(beside);
}

TEST(KvmOpen, AMissingDeviceIsNamed) {
    const auto opened = kvm::Kvm::open("/nonexistent/kvm");
    ASSERT_FALSE(opened);
    EXPECT_NE(opened.error().message().find("/nonexistent/kvm"), std::string::npos);
}

TEST(KvmOpen, AFileThatIsNotKvmIsRefused) {
    const auto opened = kvm::Kvm::open("/dev/null");
    ASSERT_FALSE(opened);
    EXPECT_NE(opened.error().message().find("KVM_GET_API_VERSION"), std::string::npos);
}

}  // namespace
}  // namespace ferry::test
