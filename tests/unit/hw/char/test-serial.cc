// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "hw/char/serial.h"
#include "tests/unit/hw/isa/device-state.h"

namespace ferry::chardev {
namespace {

constexpr uint16_t kRegData = 0, kRegIer = 1, kRegIir = 2, kRegFcr = 2, kRegLcr = 3, kRegMcr = 4,
                   kRegLsr = 5, kRegMsr = 6, kRegScratch = 7;

// Takes `room` more bytes.
class RoomySink final : public CharSink {
 public:
    size_t write(ConstBytes bytes) override {
        const size_t taken = std::min(room, bytes.size());
        for (const std::byte byte : bytes.first(taken)) text += std::to_integer<char>(byte);
        room -= taken;
        return taken;
    }
    void readable() override { ++readable_calls; }

    std::string text;
    size_t room = SIZE_MAX;
    int readable_calls = 0;
};

struct SerialRig {
    RoomySink sink;
    bool irq = false;
    int irq_calls = 0;
    Serial serial{sink, [this](bool level) {
                      irq = level;
                      ++irq_calls;
                  }};

    SerialRig() { serial.start(); }
    uint32_t get(uint16_t offset) { return serial.read(offset, 1); }
    void set(uint16_t offset, uint32_t value) { serial.write(offset, 1, value); }
    void print(std::string_view text) {
        for (const char c : text) set(kRegData, static_cast<uint8_t>(c));
    }
    size_t type(std::string_view text) { return serial.receive(bytes_of(text)); }
    std::string read_all() {
        std::string text;
        while ((get(kRegLsr) & 1) != 0) text += static_cast<char>(get(kRegData));
        return text;
    }
};

// ---- output

TEST(Serial, PrintsAtOnceAndIsReadyForMore) {
    SerialRig rig;
    EXPECT_EQ(rig.get(kRegLsr), 0x60u);
    rig.print("hello");
    EXPECT_EQ(rig.sink.text, "hello");
    EXPECT_EQ(rig.get(kRegLsr), 0x60u);
    EXPECT_FALSE(rig.irq);
}

TEST(Serial, SlowSinkKeepsTheTransmitterBusyAndLosesNothing) {
    SerialRig rig;
    rig.sink.room = 1;
    rig.print("ab");
    EXPECT_EQ(rig.get(kRegLsr), 0x00u);
    rig.sink.room = 10;
    rig.serial.writable();
    EXPECT_EQ(rig.get(kRegLsr), 0x60u);
    EXPECT_EQ(rig.sink.text, "ab");
}

TEST(Serial, FifoHolds16CharactersAndWhoDoesNotWaitLosesTheRest) {
    SerialRig rig;
    rig.set(kRegFcr, 0x01);
    rig.sink.room = 0;
    rig.print("0123456789abcdefXY");
    rig.sink.room = SIZE_MAX;
    rig.serial.writable();
    EXPECT_EQ(rig.sink.text, "0123456789abcdef");
}

TEST(Serial, TransmitterInterruptIsTakenBackByReadingItOrByWriting) {
    SerialRig rig;
    rig.set(kRegIer, 0x02);
    EXPECT_TRUE(rig.irq);
    EXPECT_EQ(rig.get(kRegIir), 0x02u);
    EXPECT_FALSE(rig.irq);
    rig.print("x");
    EXPECT_TRUE(rig.irq);
    rig.get(kRegIir);
    rig.set(kRegIer, 0x00);
    rig.set(kRegIer, 0x02);
    EXPECT_TRUE(rig.irq);
    rig.sink.room = 0;
    rig.print("y");
    EXPECT_FALSE(rig.irq);
    rig.sink.room = 1;
    rig.serial.writable();
    EXPECT_TRUE(rig.irq);
}

TEST(Serial, ClearingTheOutputFifoDropsWhatWaits) {
    SerialRig rig;
    rig.set(kRegFcr, 0x01);
    rig.sink.room = 0;
    rig.print("abc");
    rig.set(kRegFcr, 0x05);
    EXPECT_EQ(rig.get(kRegLsr), 0x60u);
    rig.sink.room = SIZE_MAX;
    rig.serial.writable();
    EXPECT_EQ(rig.sink.text, "");
}

// ---- input

TEST(Serial, WithoutFifoOneCharacterAtATime) {
    SerialRig rig;
    rig.set(kRegIer, 0x01);
    EXPECT_EQ(rig.type("ab"), 1u);
    EXPECT_TRUE(rig.irq);
    EXPECT_EQ(rig.get(kRegIir), 0x04u);
    EXPECT_EQ(rig.sink.readable_calls, 0);
    EXPECT_EQ(rig.get(kRegData), uint32_t{'a'});
    EXPECT_FALSE(rig.irq);
    EXPECT_EQ(rig.sink.readable_calls, 1);
    EXPECT_EQ(rig.get(kRegData), 0u);
}

TEST(Serial, TriggerLevelsTellDataFromTimeout) {
    const size_t levels[] = {1, 4, 8, 14};
    for (unsigned setting = 0; setting < 4; ++setting) {
        SerialRig rig;
        rig.set(kRegFcr, setting << 6 | 1);
        rig.set(kRegIer, 0x01);
        rig.type(std::string(levels[setting] - 1, '.'));
        if (levels[setting] > 1) {
            EXPECT_EQ(rig.get(kRegIir), 0xccu) << setting;
        }
        rig.type(".");
        EXPECT_EQ(rig.get(kRegIir), 0xc4u) << setting;
        EXPECT_TRUE(rig.irq);
    }
}

TEST(Serial, FullFifoRefusesAndAsksAgainOnceThereIsRoom) {
    SerialRig rig;
    rig.set(kRegFcr, 0x01);
    EXPECT_EQ(rig.type("0123456789abcdefgh"), 16u);
    EXPECT_EQ(rig.sink.readable_calls, 0);
    rig.get(kRegData);
    EXPECT_EQ(rig.sink.readable_calls, 1);
    rig.get(kRegData);
    EXPECT_EQ(rig.sink.readable_calls, 1);
    EXPECT_EQ(rig.type("gh"), 2u);
    EXPECT_EQ(rig.read_all(), "23456789abcdefgh");
}

TEST(Serial, SwitchingTheFifosEmptiesThem) {
    SerialRig rig;
    rig.set(kRegFcr, 0x01);
    rig.type("abc");
    rig.set(kRegFcr, 0x00);
    EXPECT_EQ(rig.get(kRegLsr) & 1, 0u);
    rig.set(kRegFcr, 0x01);
    rig.type("abc");
    rig.set(kRegFcr, 0x03);
    EXPECT_EQ(rig.get(kRegLsr) & 1, 0u);
}

// ---- registers

TEST(Serial, DivisorLatchHidesDataAndInterruptEnable) {
    SerialRig rig;
    rig.set(kRegIer, 0x05);
    rig.set(kRegLcr, 0x83);
    EXPECT_EQ(rig.get(kRegData), 12u);
    rig.set(kRegData, 0x34);
    rig.set(kRegIer, 0x12);
    EXPECT_EQ(rig.get(kRegData), 0x34u);
    EXPECT_EQ(rig.get(kRegIer), 0x12u);
    rig.set(kRegLcr, 0x03);
    EXPECT_EQ(rig.get(kRegIer), 0x05u);
    EXPECT_EQ(rig.sink.text, "");
}

TEST(Serial, ScratchIsMemoryAndStatusIsReadOnly) {
    SerialRig rig;
    rig.set(kRegScratch, 0xa5);
    rig.set(kRegLsr, 0xff);
    rig.set(kRegMsr, 0xff);
    EXPECT_EQ(rig.get(kRegScratch), 0xa5u);
    EXPECT_EQ(rig.get(kRegLsr), 0x60u);
    EXPECT_EQ(rig.get(kRegMsr), 0xb0u);
}

TEST(Serial, ChipIdentifiesAs16550A) {
    SerialRig rig;
    EXPECT_EQ(rig.get(kRegIir), 0x01u);
    rig.set(kRegFcr, 0xe7);
    EXPECT_EQ(rig.get(kRegIir), 0xc1u);
    rig.set(kRegFcr, 0xc0);  // the other bits count with the enable bit only
    EXPECT_EQ(rig.get(kRegIir), 0x01u);
}

TEST(Serial, InterruptsComeByPriority) {
    SerialRig rig;
    rig.set(kRegMcr, 0x10);  // loopback, and the modem's lines drop
    rig.set(kRegData, 'a');
    rig.set(kRegData, 'b');  // overrun
    rig.set(kRegIer, 0x0f);
    EXPECT_EQ(rig.get(kRegIir), 0x06u);
    EXPECT_EQ(rig.get(kRegLsr), 0x63u);
    EXPECT_EQ(rig.get(kRegIir), 0x04u);
    EXPECT_EQ(rig.get(kRegData), uint32_t{'a'});
    EXPECT_EQ(rig.get(kRegIir), 0x02u);
    EXPECT_EQ(rig.get(kRegIir), 0x00u);
    EXPECT_EQ(rig.get(kRegMsr), 0x0bu);
    EXPECT_EQ(rig.get(kRegIir), 0x01u);
    EXPECT_FALSE(rig.irq);
}

// ---- loopback

TEST(Serial, LoopbackReturnsWhatIsSentAndCutsTheLine) {
    SerialRig rig;
    rig.set(kRegFcr, 0x01);
    rig.set(kRegMcr, 0x10);
    rig.print("ab");
    EXPECT_EQ(rig.type("z"), 0u);
    EXPECT_EQ(rig.read_all(), "ab");
    EXPECT_EQ(rig.sink.text, "");
    rig.set(kRegMcr, 0x00);
    EXPECT_EQ(rig.sink.readable_calls, 1);
}

TEST(Serial, LoopbackConnectsTheModemsLines) {
    SerialRig rig;
    rig.set(kRegMcr, 0x1a);  // RTS and OUT2
    EXPECT_EQ(rig.get(kRegMsr) & 0xf0, 0x90u);
    rig.set(kRegMcr, 0x15);  // DTR and OUT1
    EXPECT_EQ(rig.get(kRegMsr), 0x6bu);
    rig.set(kRegMcr, 0x11);  // the ring ends
    EXPECT_EQ(rig.get(kRegMsr), 0x24u);
}

// ---- life

TEST(Serial, StoppedNoCharacterComesOrGoes) {
    SerialRig rig;
    rig.set(kRegFcr, 0x01);
    rig.serial.stop();
    rig.print("ab");
    rig.serial.writable();
    EXPECT_EQ(rig.type("z"), 0u);
    EXPECT_EQ(rig.sink.text, "");
    rig.serial.start();
    EXPECT_EQ(rig.sink.text, "ab");
    EXPECT_EQ(rig.sink.readable_calls, 1);
}

TEST(Serial, ResetIsPowerOn) {
    SerialRig rig;
    rig.set(kRegFcr, 0x01);
    rig.set(kRegIer, 0x01);
    rig.set(kRegScratch, 0x77);
    rig.type("abc");
    rig.serial.reset();
    EXPECT_FALSE(rig.irq);
    EXPECT_EQ(rig.get(kRegLsr), 0x60u);
    EXPECT_EQ(rig.get(kRegIer), 0u);
    EXPECT_EQ(rig.get(kRegScratch), 0u);
    EXPECT_EQ(rig.get(kRegIir), 0x01u);
}

// ---- migration

TEST(Serial, BothFifosAndTheInterruptMigrate) {
    SerialRig source, target;
    source.set(kRegFcr, 0x81);
    source.set(kRegIer, 0x01);
    source.sink.room = 0;
    source.type("input");
    source.print("output");
    source.serial.stop();
    target.serial.stop();
    ASSERT_TRUE(test::migrate_device(source.serial, target.serial));
    EXPECT_EQ(target.sink.text, "");
    EXPECT_TRUE(target.irq);
    const int calls = target.irq_calls;
    target.serial.start();
    EXPECT_EQ(target.irq_calls, calls + 1);  // driven anew, though it had not changed
    EXPECT_EQ(target.sink.text, "output");
    EXPECT_EQ(target.get(kRegIir), 0xccu);
    EXPECT_EQ(target.read_all(), "input");
}

TEST(Serial, PendingTransmitterInterruptMigrates) {
    SerialRig source, target;
    source.set(kRegIer, 0x02);
    ASSERT_TRUE(test::migrate_device(source.serial, target.serial));
    EXPECT_TRUE(target.irq);
    EXPECT_EQ(target.get(kRegIir), 0x02u);
}

// Where the fields are in the body.
constexpr size_t kAtIer = 2, kAtFcr = 3, kAtMcr = 5, kAtErrors = 6, kAtDelta = 7, kAtInputSize = 10,
                 kAtOutputSize = 27, kBodyBytes = 44;

TEST(Serial, EveryFieldOfAPeerIsCheckedAndARefusalChangesNothing) {
    SerialRig source;
    source.set(kRegFcr, 0x01);
    const auto good = test::save_device(source.serial);
    ASSERT_EQ(good.size(), kBodyBytes);
    const std::pair<size_t, uint8_t> broken[] = {
        {kAtIer, 0x10},   {kAtFcr, 0x03},     {kAtMcr, 0x20},       {kAtErrors, 0x01},
        {kAtDelta, 0x10}, {kAtInputSize, 17}, {kAtInputSize, 0xff}, {kAtOutputSize, 17}};
    for (const auto& [at, value] : broken) {
        SerialRig target;
        target.set(kRegScratch, 0x33);
        auto bytes = good;
        bytes[at] = std::byte{value};
        const auto refused = test::load_device(target.serial, bytes);
        ASSERT_FALSE(refused) << at;
        EXPECT_EQ(refused.error().kind(), ErrorKind::Protocol);
        EXPECT_EQ(target.get(kRegScratch), 0x33u);
    }
}

TEST(Serial, WithoutFifosAPeerCannotBringMoreThanOneCharacter) {
    SerialRig source, target;
    auto bytes = test::save_device(source.serial);
    bytes[kAtInputSize] = std::byte{2};
    EXPECT_FALSE(test::load_device(target.serial, bytes));
}

TEST(Serial, TruncatedStateIsRefused) {
    SerialRig source, target;
    const auto bytes = test::save_device(source.serial);
    for (size_t length = 0; length < bytes.size(); ++length) {
        EXPECT_FALSE(test::load_device(target.serial, ConstBytes(bytes).first(length))) << length;
    }
}

}  // namespace
}  // namespace ferry::chardev
