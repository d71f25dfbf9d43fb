// SPDX-License-Identifier: BSD-2-Clause
// The frame: registry, header, sections, commands. The streams written out here are QEMU's.
#include <algorithm>

#include "migration/savevm.h"
#include "migration/vmdesc.h"
#include "tests/unit/migration/savevm-support.h"
#include "util/try.h"

namespace ferry::migration {
namespace {

using test::bytes_from;
using test::ByteVector;
using test::Global;
using test::hex;
using test::join;
using test::TestVm;
using test::Timer;

// A participant that is not active, or has a body of its own choice.
class StubHandlers final : public SaveVMHandlers {
 public:
    explicit StubHandlers(std::string idstr) : section_{std::move(idstr), 0, 1} {}

    const SectionId& section() const override { return section_; }
    Result<> save_prepare(SaveSession&) override { return {}; }
    Result<> save_setup(SaveSession&, SaveStream&) override { return {}; }
    uint64_t state_pending_estimate() override { return 0; }
    Result<uint64_t> state_pending_exact() override { return uint64_t{0}; }
    bool is_active_iterate() override { return active; }
    Result<IterateStatus> save_live_iterate(SaveStream& out) override {
        out.u8(0xbb);
        return IterateStatus::Done;
    }
    Result<> save_live_complete_precopy(SaveStream& out) override {
        out.u8(0xcc);
        return {};
    }
    Sections sections() const override { return which; }
    Result<> save_state(SaveStream& out) override {
        if (save_error) return *save_error;
        out.be16(0xddee);
        return {};
    }
    void save_cleanup(Outcome) noexcept override {}
    Result<> load_setup(LoadSession&) override { return {}; }
    bool switchover_ack_needed() const override { return false; }
    Result<> load_state(LoadStream& in, SectionKind kind, uint32_t version) override {
        loaded.emplace_back(kind, version);
        if (kind == SectionKind::Start) return {};
        return in.skip(kind == SectionKind::Full ? 2 : 1);
    }
    Result<> switchover_start() override { return {}; }
    void load_validate(system::Done done) override { done({}); }
    void load_cleanup(Outcome) noexcept override {}

    bool active = false;
    Sections which = Sections::Live;
    std::optional<Error> save_error;
    std::vector<std::pair<SectionKind, uint32_t>> loaded;

 private:
    SectionId section_;
};

// --- Registry

TEST(SaveVMRegistry, RefusesASecondHandlerOfTheSameNameAndInstance) {
    TestVm vm;
    StubHandlers first("x");
    StubHandlers second("x");
    vm.keep(vm.registry.add(first));
    EXPECT_EQ(vm.registry.add(second).error().message(), "section 'x' instance 0 exists already");
    Timer timer;
    vm.keep(vm.registry.add_vmstate("", Timer::description(), &timer));
    EXPECT_FALSE(vm.registry.add_vmstate("", Timer::description(), &timer));
    EXPECT_TRUE(vm.registry.add_vmstate("", Timer::description(), &timer, 1));
}

// QEMU's reader would take PART and END of section 0 for another handler's.
TEST(SaveVMRegistry, HandlersNeverHaveIdZero) {
    TestVm vm;
    StubHandlers first("x");
    vm.keep(vm.registry.add(first));
    EXPECT_EQ(vm.registry.find("x", 0)->section_id, 1U);
}

TEST(SaveVMRegistry, RefusesNamesThatDoNotTravel) {
    TestVm vm;
    for (const std::string& name :
         {std::string(), std::string(128, 'x'), std::string("caf\xc3\xa9"), std::string("a\nb")}) {
        StubHandlers handlers(name);
        EXPECT_EQ(vm.registry.add(handlers).error().kind(), ErrorKind::InvalidArgument) << name;
    }
    EXPECT_TRUE(vm.registry.entries().empty());
}

TEST(SaveVMRegistry, WhoLeavesIsForgottenAndIdsAreNotReused) {
    TestVm vm;
    StubHandlers first("a");
    StubHandlers second("b");
    auto registration = vm.registry.add(first);
    ASSERT_TRUE(registration);
    registration->reset();
    EXPECT_EQ(vm.registry.find("a", 0), nullptr);
    vm.keep(vm.registry.add(second));
    EXPECT_EQ(vm.registry.find("b", 0)->section_id, 2U);
}

// --- The smallest whole stream, as QEMU writes it for a machine without RAM and devices

constexpr std::string_view kCaptured = R"(
    51 45 56 4d 00 00 00 03
    07  00 00 00 04  6e 6f 6e 65
    01 00 00 00 01 03 72 61 6d 00 00 00 00 00 00 00 04
       00 00 00 00 00 00 00 04
       00 00 00 00 00 00 00 10
    7e 00 00 00 01
    08 00 0b 00 00
    03 00 00 00 01
       00 00 00 00 00 00 00 10
    7e 00 00 00 01
    04 00 00 00 00 05 74 69 6d 65 72 00 00 00 00 00 00 00 02
       00*24
    7e 00 00 00 00
    04 00 00 00 03 0b 67 6c 6f 62 61 6c 73 74 61 74 65 00 00 00 00 00 00 00 01
       00 00 00 0a 70 72 65 6c 61 75 6e 63 68 00*23 01 00 00*66
    7e 00 00 00 03
    00)";

TEST(SaveVM, SmallestStreamIsTheCapturedOne) {
    TestVm vm;
    Timer timer;
    Global global;
    global.set("prelaunch");
    StubHandlers inactive("dirty-bitmap");
    vm.keep(vm.registry.add_vmstate("", Timer::description(), &timer));
    vm.register_ram();
    vm.keep(vm.registry.add(inactive));
    vm.keep(vm.registry.add_vmstate("", Global::description(), &global));
    const ByteVector stream = vm.save(0);
    const ByteVector expected = hex(kCaptured);
    ASSERT_GT(stream.size(), expected.size());
    EXPECT_EQ(expected.size(), 0x105U);
    EXPECT_EQ(test::to_text(ConstBytes(stream).first(expected.size())), test::to_text(expected));

    const ConstBytes rest = ConstBytes(stream).subspan(expected.size());
    EXPECT_EQ(rest[0], std::byte{6});
    const std::string_view start =
        R"({"configuration": {"vmsd_name": "configuration", "version": 1, "fields": [{"name": "len", "type": "uint32", "size": 4}, {"name": "name", "type": "buffer", "size": 4}]}, "page_size": 4096, "devices": [{"name": "timer", "instance_id": 0, "vmsd_name": "timer", "version": 2, "fields": [{"name": "cpu_ticks_offset", "type": "int64", "size": 8}, )";
    EXPECT_TRUE(std::ranges::equal(rest.subspan(5, start.size()), bytes_of(start)));
}

// --- Writing

TEST(SaveVM, SectionErrorNamesSectionIdAndKind) {
    TestVm vm;
    StubHandlers handlers("0000:00:03.0/vfio");
    handlers.which = SaveVMHandlers::Sections::LiveAndFull;
    handlers.save_error = make_error(ErrorKind::Syscall, "device says no");
    vm.keep(vm.registry.add(handlers));
    MemorySink sink;
    SaveStream out(sink);
    const auto result = save_one_shot_states(out, vm.registry, vm.identity);
    EXPECT_EQ(result.error().message(), "section '0000:00:03.0/vfio' (id 1), full: device says no");
}

TEST(SaveVM, OneShotHandlersTakeNoPartInTheLivePhases) {
    TestVm vm;
    StubHandlers handlers("vcpu");
    handlers.which = SaveVMHandlers::Sections::OneShot;
    handlers.active = true;
    vm.keep(vm.registry.add(handlers));
    const ByteVector stream = vm.save(0);
    ASSERT_EQ(vm.load_error(stream), "(accepted)");
    EXPECT_EQ(handlers.loaded, (std::vector{std::pair{SectionKind::Full, uint32_t{1}}}));
    EXPECT_NE(
        vm.load_error(bytes_from([&](SaveStream& out) {
              save_header(out, vm.identity);
              EXPECT_TRUE(save_section(out, *vm.registry.entries().front(), SectionKind::Start,
                                       [](SaveStream&) -> Result<> { return {}; }));
          }))
            .find("no iterative state"),
        std::string::npos);
}

TEST(SaveVM, SectionReturnsTheStreamsErrorToo) {
    class Closed final : public ByteSink {
        Result<> write_all(std::span<const ConstBytes>) override {
            return make_error(ErrorKind::PeerClosed, "connection reset");
        }
    } sink;
    TestVm vm;
    vm.register_ram();
    SaveStream out(sink, 8);
    EXPECT_EQ(vm.setup(out).error().kind(), ErrorKind::PeerClosed);
    vm.cleanup(SaveVMHandlers::Outcome::Failed);
}

TEST(SaveVM, HandlersOneShotStateStandsBetweenPlainOnesAndIsDescribedAsABuffer) {
    TestVm vm;
    Timer timer;
    StubHandlers handlers("vfio");
    handlers.which = SaveVMHandlers::Sections::LiveAndFull;
    Timer last;
    vm.keep(vm.registry.add_vmstate("", Timer::description(), &timer));
    vm.keep(vm.registry.add(handlers));
    vm.keep(vm.registry.add_vmstate("bus", Timer::description(), &last));
    const ByteVector stream = bytes_from([&](SaveStream& out) { EXPECT_TRUE(vm.save_rest(out)); });
    const ByteVector expected =
        hex("04 00000000 05 'timer' 00000000 00000002 00*24 7e 00000000"
            "04 00000001 04 'vfio' 00000000 00000001 ddee 7e 00000001"
            "04 00000002 09 'bus/timer' 00000000 00000002 00*24 7e 00000002"
            "00 06");
    EXPECT_EQ(test::to_text(ConstBytes(stream).first(expected.size())), test::to_text(expected));
    const std::string text(reinterpret_cast<const char*>(stream.data()), stream.size());
    EXPECT_NE(text.find(R"({"name": "vfio", "instance_id": 0, "size": 2, "fields": )"
                        R"([{"name": "data", "size": 2, "type": "buffer"}]})"),
              std::string::npos);
}

TEST(SaveVM, PlainStateIsReadAndWrittenOnTheMainLoopThread) {
    struct Watched {
        uint8_t value = 0;
        std::vector<bool> on_loop;
    } watched;
    TestVm vm;
    const VMStateDescription description =
        VMState<Watched>("watched", 1, 1)
            .field("value", &Watched::value)
            .pre_save([&](Watched& w) { w.on_loop.push_back(vm.loop.on_loop_thread()); })
            .post_load([&](Watched& w, uint32_t) -> Result<> {
                w.on_loop.push_back(vm.loop.on_loop_thread());
                return {};
            })
            .build();
    vm.keep(vm.registry.add_vmstate("", description, &watched));
    const ByteVector stream = vm.save(0);
    ASSERT_TRUE(vm.load(stream));
    EXPECT_EQ(watched.on_loop, (std::vector<bool>{true, true}));
}

// --- Header

std::string header_error(ConstBytes bytes, const std::string& machine = "none") {
    MemorySource source(bytes);
    LoadStream in(source);
    const auto refusal = load_header(in, {machine});
    if (!refusal) return refusal.error().message();
    return *refusal ? (*refusal)->message() : "(accepted)";
}

TEST(LoadHeader, EachDeviationIsRefusedInItsOwnWords) {
    EXPECT_EQ(header_error(hex("51 45 56 4e 00000003")),
              "not a migration stream: it begins with 0x5145564e");
    EXPECT_EQ(header_error(hex("51 45 56 4d 00000002")), "stream version 2 is obsolete");
    EXPECT_EQ(header_error(hex("51 45 56 4d 00000004")),
              "stream version 4 is not supported, only 3");
    EXPECT_EQ(header_error(hex("51 45 56 4d 00000003 01")),
              "configuration section: missing, element 0x1 came instead");
    EXPECT_EQ(header_error(hex("51 45 56 4d 00000003 07 00000100")),
              "configuration section: machine name of 256 bytes, at most 255");
    EXPECT_EQ(header_error(hex("51 45 56 4d 00000003 07 ffffffff")),
              "configuration section: machine name of 4294967295 bytes, at most 255");
}

TEST(LoadHeader, MachineNamesMustBeEqualAndBothAreNamed) {
    const ByteVector head = hex("51 45 56 4d 00000003 07");
    EXPECT_EQ(header_error(join({head, hex("00000002 'pc'")}), "pc-i440fx"),
              "configuration section: the source is machine 'pc', this one is 'pc-i440fx'");
    EXPECT_NE(header_error(join({head, hex("00000005 'nonee'")})), "(accepted)");
    EXPECT_NE(header_error(join({head, hex("00000000")})), "(accepted)");
    EXPECT_EQ(header_error(join({head, hex("00000004 'none'")})), "(accepted)");
}

TEST(LoadHeader, KnownSubsectionsAreCheckedAndOthersRefused) {
    const ByteVector head = hex("51 45 56 4d 00000003 07 00000004 'none'");
    const auto with = [&](std::string_view part) { return header_error(join({head, hex(part)})); };
    constexpr std::string_view kBits = "05 1e 'configuration/target-page-bits' 00000001";
    constexpr std::string_view kCaps = "05 1a 'configuration/capabilities' 00000001";
    constexpr std::string_view kUuid = "05 12 'configuration/uuid' 00000001 00*16 ";
    EXPECT_EQ(with(std::string(kBits) + "0000000c"), "(accepted)");
    EXPECT_NE(with(std::string(kBits) + "0000000d").find("2^13"), std::string::npos);
    EXPECT_NE(with(std::string(kBits) + "ffffffff"), "(accepted)");
    EXPECT_EQ(with(std::string(kCaps) + "00000000"), "(accepted)");
    EXPECT_NE(with(std::string(kCaps) + "00000001 0f 'x-ignore-shared'").find("x-ignore-shared"),
              std::string::npos);
    EXPECT_NE(with(std::string(kCaps) + "00000001 04 'warp'").find("warp"), std::string::npos);
    EXPECT_NE(with(std::string(kCaps) + "ffffffff").find("at most"), std::string::npos);
    EXPECT_EQ(with(kUuid), "(accepted)");
    EXPECT_NE(with("05 0f 'configuration/x' 00000001"), "(accepted)");
    EXPECT_NE(
        with(std::string(kUuid) + std::string(kUuid) + std::string(kUuid) + std::string(kUuid)),
        "(accepted)");
}

// --- The smallest stream that QEMU accepts, each part on its own

constexpr std::string_view kHead = "51 45 56 4d 00000003 07 00000004 'none'";
constexpr std::string_view kStart =
    "01 00000005 03 'ram' 00000000 00000004"
    "   0000000000400004 03 'ram' 0000000000400000 0000000000000010 7e 00000005";
constexpr std::string_view kPart =
    "02 00000005"
    "   0000000000003008 03 'ram' 5a*4096"
    "   0000000000005022 00"
    "   0000000000000010 7e 00000005";
constexpr std::string_view kSwitchover = "08 000b 0000";
constexpr std::string_view kEnd = "03 00000005 0000000000000010 7e 00000005";
constexpr std::string_view kGlobal =
    "04 00000009 0b 'globalstate' 00000000 00000001"
    "   00000007 'paused' 00*26 01 00 00*66 7e 00000009";
constexpr std::string_view kTimer = "04 00000002 05 'timer' 00000000 00000002 00*24 7e 00000002";
constexpr std::string_view kEof = "00";
constexpr std::string_view kDescription = "06 00000002 7b 7d";

// One after the other.
ByteVector stream_of(std::initializer_list<std::string_view> parts) {
    ByteVector out;
    for (const std::string_view part : parts) out = join({out, hex(part)});
    return out;
}

// The destination of those streams.
class Destination {
 public:
    Destination() {
        block = &vm.add_ram("ram", 4 * 1024 * 1024, 0);
        vm.register_ram();
        vm.keep(vm.registry.add_vmstate("", Global::description(), &global));
        vm.keep(vm.registry.add_vmstate("", Timer::description(), &timer));
    }
    std::string load(std::initializer_list<std::string_view> parts) {
        return vm.load_error(stream_of(parts));
    }
    TestVm vm;
    Global global;
    Timer timer;
    system::RamBlock* block = nullptr;
};

TEST(LoadElements, SmallestStreamPutsEverythingInItsPlace) {
    Destination to;
    EXPECT_EQ(to.load({kHead, kStart, kPart, kSwitchover, kEnd, kGlobal, kEof, kDescription}),
              "(accepted)");
    EXPECT_EQ(to.block->host()[0x3000], std::byte{0x5a});
    EXPECT_EQ(to.block->host()[0x3fff], std::byte{0x5a});
    EXPECT_EQ(to.block->host()[0x4000], std::byte{0});
    EXPECT_EQ(to.global.size, 7U);
    EXPECT_EQ(to.vm.events.seen, (std::vector<std::string>{"switchover"}));
    EXPECT_EQ(
        to.vm.position,
        stream_of({kHead, kStart, kPart, kSwitchover, kEnd, kGlobal, kEof, kDescription}).size());
}

TEST(LoadElements, EveryOptionalElementMayBeMissing) {
    const std::vector<std::string_view> all = {kHead, kStart,  kPart, kSwitchover,
                                               kEnd,  kGlobal, kEof,  kDescription};
    for (const std::string_view missing : {kPart, kEnd, kSwitchover, kGlobal, kDescription}) {
        ByteVector stream;
        for (const std::string_view part : all) {
            if (part != missing) stream = join({stream, hex(part)});
        }
        Destination to;
        EXPECT_EQ(to.vm.load_error(stream), "(accepted)") << missing;
    }
}

TEST(LoadElements, EveryTruncationFailsCleanlyButTheOneBeforeTheDescription) {
    Destination to;
    const ByteVector stream =
        stream_of({kHead, kStart, kPart, kSwitchover, kEnd, kGlobal, kTimer, kEof, kDescription});
    const size_t complete = stream.size() - hex(kDescription).size();
    for (size_t size = 0; size < stream.size(); ++size) {
        const auto result = to.vm.load(ConstBytes(stream).first(size));
        ASSERT_EQ(result.has_value(), size == complete) << size;
        if (!result) {
            ASSERT_EQ(result.error().kind(), ErrorKind::PeerClosed) << size;
        }
    }
    EXPECT_TRUE(to.vm.load(stream));
}

TEST(LoadElements, NoCorruptedByteOutsideOfPagesDoesHarm) {
    Destination to;
    const ByteVector stream =
        stream_of({kHead, kStart, kPart, kSwitchover, kEnd, kTimer, kEof, kDescription});
    const auto page = std::search_n(stream.begin(), stream.end(), 4096, std::byte{0x5a});
    size_t refused = 0;
    for (size_t i = 0; i < stream.size(); ++i) {
        const auto at = static_cast<size_t>(page - stream.begin());
        if (i >= at && i < at + 4096) continue;
        for (const std::byte flip : {std::byte{0x01}, std::byte{0x80}, std::byte{0xff}}) {
            ByteVector bad = stream;
            bad[i] ^= flip;
            refused += to.vm.load(bad) ? 0 : 1;
        }
    }
    EXPECT_GT(refused, 100U);
}

TEST(LoadElements, VectorsThatMustBeRefused) {
    struct Vector {
        std::vector<std::string_view> parts;
        std::string_view error;
    };
    const std::vector<Vector> vectors = {
        {{kHead, "09"}, "element type 0x9 at byte 17"},
        {{kHead, kStart, "05"}, "element type 0x5"},
        {{kHead, "06 00000002 7b 7d"}, "element type 0x6"},
        {{kHead, "7e 00000005"}, "element type 0x7e"},
        {{kHead, "01 00000005 03 'rom' 00000000 00000004"},
         "section 'rom' instance 0: this VM has no such device"},
        {{kHead, "01 00000005 03 'ram' 00000001 00000004"},
         "section 'ram' instance 1: this VM has no such device"},
        {{kHead, "01 00000005 00 00000000 00000004"}, "section '' instance 0"},
        {{kHead, "01 00000005 03 'ram' 00000000 00000005"},
         "section 'ram' (id 5), start: version 5 is newer than ours, 4"},
        {{kHead, "01 00000005 03 'ram' 00000000 00000003"}, "version 3 is not supported, only 4"},
        {{kHead, "01 00000002 05 'timer' 00000000 00000002"}, "no iterative state"},
        {{kHead, "02 00000005"}, "section id 5, part: was never started"},
        {{kHead, kTimer, "02 00000002"}, "section id 2, part: was never started"},
        {{kHead, kStart, "02 00000000"}, "section id 0, part: was never started"},
        {{kHead, kStart, kStart}, "section 'ram' (id 5), start: comes twice"},
        {{kHead, kTimer, kTimer}, "section 'timer' (id 2), full: comes twice"},
        {{kHead, kStart, "04 00000005 05 'timer' 00000000 00000002"},
         "section 'timer' (id 5), full: this id belongs to section 'ram'"},
        {{kHead, kStart, "01 00000006 03 'ram' 00000000 00000004"},
         "section 'ram' (id 6), start: it had id 5 before"},
        {{kHead, kStart, "03 00000005 0000000000000010 7e 00000006"},
         "section 'ram' (id 5), end: footer of section id 6"},
        {{kHead, kStart, "03 00000005 0000000000000010 00"},
         "section 'ram' (id 5), end: footer missing: 0x0"},
        {{kHead,
          "04 00000002 05 'timer' 00000000 00000002 00*24 "
          "05 09 'timer/zzz' 00000001 7e 00000002"},
         "section 'timer' (id 2), full: timer: unknown subsection 'timer/zzz'"},
        {{kHead, "04 00000002 05 'timer' 00000000 00000000"},
         "section 'timer' (id 2), full: timer: version 0 is not supported"},
        {{kHead, kStart, kEof, "06 00a00001"}, "VM description: 10485761 bytes, at most 10485760"},
        {{kHead, "08 0000 0000"}, "command 0x0 of 0 bytes is not expected"},
        {{kHead, "08 0003 0010 00*16"}, "command 0x3 of 16 bytes is not expected"},
        {{kHead, "08 0007 0004 00000010"}, "command 0x7 of 4 bytes is not expected"},
        {{kHead, "08 000c 0000"}, "command 0xc of 0 bytes is not expected"},
        {{kHead, "08 4601 0000"}, "command 0x4601 of 0 bytes is not expected"},
        {{kHead, "08 000b 0001 00"}, "command 0xb of 1 bytes instead of 0"},
        {{kHead, "08 0002 0000"}, "command 0x2 of 0 bytes instead of 4"},
        {{kHead, "08 0001 0004"}, "command 0x1 of 4 bytes instead of 0"},
        {{kHead, kSwitchover, kSwitchover}, "the switchover begins twice"},
    };
    for (const Vector& vector : vectors) {
        Destination to;
        ByteVector stream;
        for (const std::string_view part : vector.parts) stream = join({stream, hex(part)});
        const std::string error = to.vm.load_error(stream);
        EXPECT_NE(error.find(vector.error), std::string::npos)
            << "wanted: " << vector.error << "\ngot: " << error;
    }
}

TEST(LoadElements, OwnersErrorNamesTheCommand) {
    class Refusing final : public LoadEvents {
        Result<> open_return_path() override { return {}; }
        Result<> ping(uint32_t) override {
            return make_error(ErrorKind::Protocol, "no return path");
        }
        Result<> switchover_start() override { return {}; }
        Result<> first_section() override { return {}; }
    } events;
    TestVm vm;
    const ByteVector stream = hex("08 0002 0004 00000001");
    MemorySource source{ConstBytes(stream)};
    LoadStream in(source);
    EXPECT_EQ(load_elements(in, vm.registry, events).error().message(),
              "command 0x2: no return path");
}

TEST(Configuration, UuidIsSentAndComparedWhereBothHaveOne) {
    TestVm vm;
    vm.identity.uuid = Uuid{std::byte{0x11}, std::byte{0x22}};
    const ByteVector with = bytes_from([&](SaveStream& out) { save_header(out, vm.identity); });
    const ByteVector tail =
        hex("05 12 'configuration/uuid' 00000001 1122000000000000 0000000000000000");
    ASSERT_GE(with.size(), tail.size());
    EXPECT_TRUE(std::equal(tail.rbegin(), tail.rend(), with.rbegin()));
    const auto load = [&] {
        MemorySource source{ConstBytes(with)};
        LoadStream in(source);
        const auto refusal = load_header(in, vm.identity);
        if (!refusal) return refusal.error().message();
        return *refusal ? (*refusal)->message() : "accepted";
    };
    EXPECT_EQ(load(), "accepted");
    (*vm.identity.uuid)[0] = std::byte{0xff};
    EXPECT_NE(load().find("11220000-0000-0000-0000-000000000000"), std::string::npos) << load();
    EXPECT_NE(load().find("ff220000-0000-0000-0000-000000000000"), std::string::npos);
    vm.identity.uuid.reset();
    EXPECT_EQ(load(), "accepted");
}

TEST(LoadElements, CommandsReachTheOwnerInOrder) {
    TestVm vm;
    const ByteVector stream = bytes_from([&](SaveStream& out) {
        save_header(out, vm.identity);
        save_command(out, Command::OpenReturnPath);
        save_command(out, Command::Ping, hex("00000001"));
        save_command(out, Command::Ping, hex("4645000f"));
        save_command(out, Command::SwitchoverStart);
        EXPECT_TRUE(vm.save_rest(out));
    });
    ASSERT_TRUE(vm.load(stream));
    EXPECT_EQ(vm.events.seen,
              (std::vector<std::string>{"open", "ping 1", "ping 1178927119", "switchover"}));
}

TEST(LoadElements, WhatFollowsTheEndIsLeftToTheCaller) {
    Destination to;
    EXPECT_EQ(to.load({kHead, kStart, kEof, "08 4601 0000"}), "(accepted)");
    EXPECT_EQ(to.vm.position, stream_of({kHead, kStart, kEof}).size());
    EXPECT_EQ(to.load({kHead, kStart, kEof, kDescription, "08 4601 0000"}), "(accepted)");
    EXPECT_EQ(to.vm.position, stream_of({kHead, kStart, kEof, kDescription}).size());
}

TEST(LoadElements, OlderTimerIsAcceptedWithItsShorterBody) {
    Destination to;
    to.timer.clock = 5;
    EXPECT_EQ(to.load({kHead, kStart,
                       "04 00000002 05 'timer' 00000000 00000001 0000000000000009 00*8 7e 00000002",
                       kEof}),
              "(accepted)");
    EXPECT_EQ(to.timer.ticks, 9);
    EXPECT_EQ(to.timer.clock, 5);
}

TEST(LoadElements, BodyWithoutProperFooterIsNotApplied) {
    Destination to;
    EXPECT_NE(
        to.load({kHead, kStart,
                 "04 00000002 05 'timer' 00000000 00000002 0000000000000009 00*16 7e 00000003"}),
        "(accepted)");
    EXPECT_EQ(to.timer.ticks, 0);
}

TEST(LoadElements, HandlersGetKindAndTheVersionOfTheirStart) {
    TestVm vm;
    StubHandlers handlers("x");
    vm.keep(vm.registry.add(handlers));
    const ByteVector stream =
        stream_of({kHead, "01 00000007 01 'x' 00000000 00000000 7e 00000007",
                   "02 00000007 bb 7e 00000007", "03 00000007 cc 7e 00000007",
                   "04 00000007 01 'x' 00000000 00000001 ddee 7e 00000007", kEof});
    ASSERT_EQ(vm.load_error(stream), "(accepted)");
    using enum SectionKind;
    EXPECT_EQ(handlers.loaded, (std::vector<std::pair<SectionKind, uint32_t>>{
                                   {Start, 0}, {Part, 0}, {End, 0}, {Full, 1}}));
}

TEST(SaveVM, WhatIsWrittenIsReadBack) {
    TestVm from("microvm");
    TestVm to("microvm");
    Timer sent{.ticks = -5, .clock = 7, .has_icount = true, .bias = 11};
    Timer received;
    StubHandlers source("dev");
    StubHandlers destination("dev");
    source.active = true;
    source.which = destination.which = SaveVMHandlers::Sections::LiveAndFull;
    for (auto [vm, timer, stub] :
         {std::tuple{&from, &sent, &source}, std::tuple{&to, &received, &destination}}) {
        vm->register_ram();
        vm->keep(vm->registry.add_vmstate("0000:00:02.0", Timer::description(), timer, 3));
        vm->keep(vm->registry.add(*stub));
    }
    const ByteVector stream = from.save(2);
    ASSERT_EQ(to.load_error(stream), "(accepted)");
    EXPECT_EQ(to.position, stream.size());
    EXPECT_EQ(received.ticks, -5);
    EXPECT_EQ(received.clock, 7);
    EXPECT_EQ(received.bias, 11);
    EXPECT_EQ(destination.loaded.size(), 5U);
}

}  // namespace
}  // namespace ferry::migration
