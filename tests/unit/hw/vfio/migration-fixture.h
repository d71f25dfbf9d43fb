// SPDX-License-Identifier: BSD-2-Clause
// A VM with scripted VFIO devices, and both sides of a migration attempt without channels: a test
// calls the handlers in the core's order and looks at the bytes and at what the devices were asked.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "hw/vfio/vfio-device.h"
#include "migration/blocker.h"
#include "migration/savevm.h"
#include "migration/state-inbox.h"
#include "system/memory.h"
#include "system/runstate.h"
#include "tests/fakes/scripted-device-io.h"
#include "tests/support/mig-states.h"
#include "tests/support/test-env.h"
#include "tests/support/test-loop.h"

namespace ferry::test {

using Bytes = std::vector<std::byte>;

// What a device sends beside its sections, packet by packet.
class FakeStateWriter final : public migration::StateWriter {
 public:
    struct Packet {
        migration::StatePacketKind kind = migration::StatePacketKind::Data;
        Bytes data;
    };
    FakeStateWriter(size_t bytes, Via via) : via_(via), room_(bytes) {}
    Via via() const override { return via_; }
    Result<MutBytes> room() override { return MutBytes(room_); }
    Result<> send(size_t bytes, migration::StatePacketKind kind) override {
        packets.push_back({kind, Bytes(room_.begin(), room_.begin() + static_cast<long>(bytes))});
        return {};
    }

    std::vector<Packet> packets;

 private:
    const Via via_;
    Bytes room_;
};

class FakeSaveSession final : public migration::SaveSession {
 public:
    bool page_channels_take_state() const override { return its_page_channels; }
    Result<migration::StateWriter*> state_writer(migration::SaveVMHandlers&, size_t bytes,
                                                 migration::StateWriter::Via via) override {
        writer = std::make_unique<FakeStateWriter>(bytes, via);
        return writer.get();
    }
    Mode mode() const override { return its_mode; }
    const migration::Capabilities& capabilities() const override { return its_capabilities; }
    const migration::Parameters& parameters() const override { return its_parameters; }
    Result<migration::PeerFeatures> peer_features() override { return its_features; }
    bool round_is_full() const override { return false; }
    migration::MultifdSender* multifd() override { return nullptr; }
    const migration::StreamOptions& stream_options() const override { return its_stream; }

    bool its_page_channels = false;
    std::unique_ptr<FakeStateWriter> writer;
    Mode its_mode = Mode::Live;
    migration::Capabilities its_capabilities;
    migration::Parameters its_parameters;
    migration::PeerFeatures its_features;
    migration::StreamOptions its_stream;
};

class FakeLoadSession final : public migration::LoadSession {
 public:
    bool page_channels_take_state() const override { return its_page_channels; }
    migration::StateQueue& state_queue(const migration::SectionId& section, uint64_t limit,
                                       migration::StateWriter::Via via) override {
        inbox = std::make_unique<migration::StateInbox>(1, [](bool) {});
        queue = &inbox->add(section, limit,
                            its_features.state_early ? migration::StateKinds::All
                                                     : migration::StateKinds::DataAndConfig,
                            via);
        return *queue;
    }
    bool its_page_channels = false;
    std::unique_ptr<migration::StateInbox> inbox;
    migration::StateQueue* queue = nullptr;
    const migration::Capabilities& capabilities() const override { return its_capabilities; }
    migration::PeerFeatures peer_features() const override { return its_features; }
    Result<> approve_switchover() override {
        ++approvals;
        return {};
    }
    migration::MultifdReceiver* multifd() override { return nullptr; }
    const migration::StreamOptions& stream_options() const override { return its_stream; }

    migration::Capabilities its_capabilities;
    migration::PeerFeatures its_features;
    migration::StreamOptions its_stream;
    int approvals = 0;
};

// One number instead of a PCI device's state.
class FakeConfig final : public vfio::VfioConfigState {
 public:
    uint32_t config_bytes() const override { return sizeof(value); }
    void save_config(migration::SaveStream& out) override { out.be32(value); }
    Result<> read_config(migration::LoadStream& in) override;
    Result<> apply_config() override;
    Result<> forget_config() override {
        value = 0;
        return {};
    }
    uint32_t value = 0;
    uint32_t read = 0;
    std::function<void()> loading;  // called by apply_config
};

class VfioVmFixture {
 public:
    explicit VfioVmFixture(system::RunState state = system::RunState::Running);
    ~VfioVmFixture();

    struct Device {
        std::unique_ptr<ScriptedDeviceIo> io;
        std::unique_ptr<util::Worker> worker;
        FakeConfig config;
        std::unique_ptr<vfio::VfioDeviceMigration> migration;
        migration::SaveVMHandlers* handlers = nullptr;  // null: can't migrate
    };
    struct Plug {
        std::string name = "a";  // id; the path is "0000:00:NAME"
        vfio::MigCaps caps = kAll;
        vfio::VfioProperties properties;
        unsigned depth = 1;
        vfio::DmaSpace* dma_space = nullptr;
        std::function<void(ScriptedDeviceIo&)> script;  // before it is realized
    };
    Result<Device*> plug(Plug wanted);
    Device& plugged(Plug wanted);  // must succeed
    void unplug(Device& device);

    Result<> stop(system::RunState to = system::RunState::FinishMigrate);
    Result<> start();
    Result<> set_state(system::RunState to);
    // Until the device's worker has done what is queued.
    static void settle(Device& device);
    std::vector<std::string> blockers();
    void add_ram(system::Gpa gpa, uint64_t length);

    TestEnv env;
    CallLog log;
    TestLoop loop{env.clock};
    system::GuestMemory memory;
    system::RunStateController runstate;
    migration::BlockerList blocker_list;
    migration::SaveVMRegistry registry{loop};
    vfio::VfioMigrationServices services;
    std::vector<std::string> events() const;

 private:
    Result<> on_loop(const std::function<void(system::Done)>& call);

    mutable std::mutex mutex_;
    std::vector<std::string> events_;
    std::vector<std::unique_ptr<Device>> devices_;
};

// The source's calls, each with the bytes that it put.
class Sender {
 public:
    Sender(VfioVmFixture& vm, VfioVmFixture::Device& device) : vm_(vm), device_(device) {}

    Result<> prepare();
    Result<Bytes> setup();
    // Until the device has nothing more for now; the bodies one after another.
    Result<std::vector<Bytes>> iterate();
    Result<Bytes> iterate_once();
    Result<Bytes> complete();
    Result<Bytes> config();
    void cleanup(migration::SaveVMHandlers::Outcome outcome);

    FakeSaveSession session;

 private:
    Result<Bytes> body(const std::function<Result<>(migration::SaveStream&)>& call);
    VfioVmFixture& vm_;
    VfioVmFixture::Device& device_;
};

class Receiver {
 public:
    explicit Receiver(VfioVmFixture::Device& device) : device_(device) {}

    // With its first section, which waits for the device.
    Result<> setup();
    Result<> load(migration::SectionKind kind, const Bytes& body);
    Result<> validate();
    void cleanup(migration::SaveVMHandlers::Outcome outcome) {
        device_.handlers->load_cleanup(outcome);
    }

    FakeLoadSession session;

 private:
    VfioVmFixture::Device& device_;
};

// Record bodies by hand.
class RecordBody {
 public:
    RecordBody& tag(uint64_t value);
    RecordBody& data(std::string_view content);
    RecordBody& u32(uint32_t value);
    RecordBody& u64(uint64_t value);
    Bytes take() { return std::move(bytes_); }

 private:
    Bytes bytes_;
};

// A timeline's spans as "who step", in order of their end.
std::vector<std::string> steps_of(const util::Timeline& timeline);

}  // namespace ferry::test
